/*
 * validation.h - what a sequence of validation losses tells: which was the best, whether to stop
 * early, whether the adapter has begun to learn its rows by heart.
 *
 * An evaluation improves when its loss is below every earlier one. Patience K: the run is over when
 * K evaluations in a row brought no improvement (Prechelt, "Early Stopping - But When?", 1998: his
 * UP criterion counts the same way, against the minimum). A warning is due when three
 * evaluations in a row lie above the best one while the mean training loss before each of them lies
 * below that before the best.
 * Threads: pure; a struct belongs to one thread. All zero is the state before the first evaluation.
 */
#ifndef FL_WORKER_VALIDATION_H
#define FL_WORKER_VALIDATION_H

#include <stdint.h>

/* Plain values, so that a checkpoint can hold them. */
struct fl_validation {
    uint64_t evaluations; /* done */
    uint64_t step;        /* of the last one */
    double loss;          /* of the last one: mean over the scored tokens */
    double train;         /* mean training loss of the steps before it, since the one before it */
    uint64_t best_step;
    double best_loss;
    double best_train; /* train of the best one */
    uint64_t stale;    /* evaluations since the best one */
    uint64_t rising;   /* evaluations in a row above the best, with training below its own then */
    double train_sum;  /* loss of the steps since the last evaluation, over scored tokens */
    uint64_t train_scored; /* those tokens */
};

/* What an evaluation brought; bits. */
enum {
    FL_VALIDATION_BEST = 1,    /* the best so far */
    FL_VALIDATION_OVERFITS = 2 /* the warning is due: once behind each best */
};

/* A training step with this mean loss over `scored` tokens. */
void fl_validation_step(struct fl_validation *self, double loss, uint64_t scored);
/* An evaluation after `step` steps. loss is finite. Returns FL_VALIDATION_* bits. */
unsigned fl_validation_note(struct fl_validation *self, uint64_t step, double loss);

#endif
