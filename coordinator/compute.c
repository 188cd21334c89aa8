/* compute.c - see compute.h. */
#include "coordinator/compute.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

struct chain {
    struct fl_chore *first, *last;
};

struct fl_mill {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool threaded, stopping;
    int wake;
    struct chain waiting, done;
};

static void push(struct chain *chain, struct fl_chore *chore)
{
    chore->next = NULL;
    if (chain->last)
        chain->last->next = chore;
    else
        chain->first = chore;
    chain->last = chore;
}

static struct fl_chore *pop(struct chain *chain)
{
    struct fl_chore *chore = chain->first;
    if (chore)
        chain->first = chore->next;
    if (!chain->first)
        chain->last = NULL;
    return chore;
}

static void wake_loop(const struct fl_mill *self)
{
    uint64_t one = 1;
    while (write(self->wake, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

static void *work(void *argument)
{
    struct fl_mill *self = argument;
    (void)pthread_mutex_lock(&self->lock);
    while (!self->stopping) {
        struct fl_chore *chore = pop(&self->waiting);
        if (!chore) {
            (void)pthread_cond_wait(&self->more, &self->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&self->lock);
        chore->run(chore);
        (void)pthread_mutex_lock(&self->lock);
        push(&self->done, chore);
        wake_loop(self);
    }
    (void)pthread_mutex_unlock(&self->lock);
    return NULL;
}

/* Signals are for the loop. */
static int start_thread(struct fl_mill *self)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = pthread_create(&self->thread, NULL, work, self);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code;
}

enum fl_status fl_mill_start(bool threaded, struct fl_mill **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_mill *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake < 0) {
        fl_free(self);
        return fl_fail_errno(error, errno, "eventfd");
    }
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->more, NULL);
    int code = threaded ? start_thread(self) : 0;
    self->threaded = threaded && code == 0;
    *out = self;
    if (code == 0)
        return FL_OK;
    fl_mill_stop(out);
    return fl_fail_errno(error, code, "the compute thread cannot start");
}

void fl_mill_stop(struct fl_mill **out)
{
    struct fl_mill *self = *out;
    if (!self)
        return;
    if (self->threaded) {
        (void)pthread_mutex_lock(&self->lock);
        self->stopping = true;
        (void)pthread_cond_signal(&self->more);
        (void)pthread_mutex_unlock(&self->lock);
        (void)pthread_join(self->thread, NULL);
    }
    struct fl_chore *chore;
    while ((chore = pop(&self->done)) || (chore = pop(&self->waiting)))
        chore->finish(chore, NULL);
    (void)pthread_cond_destroy(&self->more);
    (void)pthread_mutex_destroy(&self->lock);
    (void)close(self->wake);
    fl_free(self);
    *out = NULL;
}

int fl_mill_fd(const struct fl_mill *self)
{
    return self->wake;
}

void fl_mill_submit(struct fl_mill *self, struct fl_chore *chore)
{
    if (!self->threaded)
        chore->run(chore);
    (void)pthread_mutex_lock(&self->lock);
    push(self->threaded ? &self->waiting : &self->done, chore);
    (void)pthread_cond_signal(&self->more);
    (void)pthread_mutex_unlock(&self->lock);
    if (!self->threaded)
        wake_loop(self);
}

/* What ends meanwhile has rung again and waits for the next call. */
void fl_mill_collect(struct fl_mill *self, void *context)
{
    uint64_t ignored;
    while (read(self->wake, &ignored, sizeof ignored) < 0 && errno == EINTR)
        continue;
    (void)pthread_mutex_lock(&self->lock);
    struct chain done = self->done;
    self->done = (struct chain){NULL, NULL};
    (void)pthread_mutex_unlock(&self->lock);
    for (struct fl_chore *chore = pop(&done); chore; chore = pop(&done))
        chore->finish(chore, context);
}
