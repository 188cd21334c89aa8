/* validation.c - see validation.h. */
#include "worker/validation.h"

#include <stdbool.h>

#define RISES 3 /* in a row that are worth a warning: one alone is often noise */

void fl_validation_step(struct fl_validation *self, double loss, uint64_t scored)
{
    self->train_sum += loss * (double)scored;
    self->train_scored += scored;
}

unsigned fl_validation_note(struct fl_validation *self, uint64_t step, double loss)
{
    const double train = self->train_scored ? self->train_sum / (double)self->train_scored : 0.0;
    const bool first = self->evaluations == 0;
    unsigned brought = 0;
    /* behind the warning the count stays where it is, so that it comes once */
    if (!first && self->rising < RISES) {
        const bool up = loss > self->best_loss && train < self->best_train;
        self->rising = up ? self->rising + 1 : 0;
        brought |= self->rising == RISES ? FL_VALIDATION_OVERFITS : 0;
    }
    self->stale++;
    if (first || loss < self->best_loss) {
        self->best_loss = loss;
        self->best_step = step;
        self->best_train = train;
        self->rising = 0;
        self->stale = 0;
        brought |= FL_VALIDATION_BEST;
    }
    self->evaluations++;
    self->step = step;
    self->loss = loss;
    self->train = train;
    self->train_sum = 0.0;
    self->train_scored = 0;
    return brought;
}
