/*
 * compute.c - the queues and the thread; what a request does is in labour.c.
 */
#include "worker/compute.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "worker/labour.h"

struct node {
    struct node *next;
    struct fl_work *work;
    struct fl_work_result *result;
};

struct queue {
    struct node *head, **tail;
};

struct fl_compute {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct queue requests, results;
    struct fl_labour labour;
    struct fl_attempt running; /* what the thread works on; job 0: nothing */
    struct fl_trainer_progress progress;
    bool threaded, ending;
    int fd;
};

static void queue_init(struct queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static void queue_push(struct queue *q, struct node *node)
{
    node->next = NULL;
    *q->tail = node;
    q->tail = &node->next;
}

static struct node *queue_pop(struct queue *q)
{
    struct node *node = q->head;
    if (node) {
        q->head = node->next;
        if (!q->head)
            q->tail = &q->head;
    }
    return node;
}

struct fl_work *fl_work_new(enum fl_work_kind kind, struct fl_attempt key)
{
    struct fl_work *work = fl_calloc(1, sizeof(*work));
    if (work) {
        work->kind = kind;
        work->key = key;
    }
    return work;
}

void fl_work_free(struct fl_work *work)
{
    if (!work)
        return;
    fl_free(work->ranks);
    fl_free(work->bytes);
    fl_free(work->lists);
    fl_free(work);
}

bool fl_work_copy_lists(struct fl_work *work, struct fl_wire_bytes *const *lists, size_t count)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        total += lists[i]->length;
    work->lists = fl_malloc(total);
    if (!work->lists)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (lists[i]->length > 0)
            memcpy(work->lists + at, lists[i]->data, lists[i]->length);
        lists[i]->data = work->lists + at;
        at += lists[i]->length;
    }
    return true;
}

void fl_work_result_free(struct fl_work_result *result)
{
    if (!result)
        return;
    fl_object_close(&result->object);
    if (result->reply) /* an answer that is not sent: shares of secrets */
        sodium_memzero(result->reply, result->reply_bytes);
    fl_free(result->reply);
    fl_free(result);
}

static void on_progress(void *context, const struct fl_trainer_progress *progress)
{
    struct fl_compute *self = context;
    pthread_mutex_lock(&self->mutex);
    self->progress = *progress;
    pthread_mutex_unlock(&self->mutex);
}

static void ring(const struct fl_compute *self)
{
    uint64_t one = 1;
    while (write(self->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

/* Wait for a request; NULL: the thread shall end. */
static struct node *take(struct fl_compute *self)
{
    pthread_mutex_lock(&self->mutex);
    while (!self->requests.head && !self->ending && self->threaded)
        pthread_cond_wait(&self->wake, &self->mutex);
    struct node *node = self->ending ? NULL : queue_pop(&self->requests);
    if (node) {
        self->running = node->work->key;
        atomic_store(&self->labour.stop, 0);
    }
    pthread_mutex_unlock(&self->mutex);
    return node;
}

bool fl_compute_turn(struct fl_compute *self)
{
    struct node *node = take(self);
    if (!node)
        return false;
    fl_labour_do(&self->labour, node->work, node->result);
    fl_work_free(node->work);
    node->work = NULL;
    pthread_mutex_lock(&self->mutex);
    self->running = (struct fl_attempt){.job = 0};
    self->progress = (struct fl_trainer_progress){.activity = FL_ACTIVITY_IDLE};
    queue_push(&self->results, node);
    pthread_mutex_unlock(&self->mutex);
    ring(self);
    return true;
}

static void *run(void *context)
{
    while (fl_compute_turn(context))
        continue;
    return NULL;
}

enum fl_status fl_compute_inline(const struct fl_siteconf *conf, const struct fl_sitestore *store,
                                 struct fl_trainer *trainer, struct fl_compute **out,
                                 struct fl_error *error)
{
    *out = NULL;
    struct fl_compute *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    queue_init(&self->requests);
    queue_init(&self->results);
    fl_labour_init(&self->labour, conf, store, trainer, on_progress, self);
    self->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->fd < 0) {
        fl_labour_free(&self->labour);
        fl_free(self);
        return fl_fail_errno(error, errno, "eventfd");
    }
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->wake, NULL);
    *out = self;
    return FL_OK;
}

enum fl_status fl_compute_start(const struct fl_siteconf *conf, const struct fl_sitestore *store,
                                struct fl_trainer *trainer, struct fl_compute **out,
                                struct fl_error *error)
{
    enum fl_status status = fl_compute_inline(conf, store, trainer, out, error);
    if (status != FL_OK)
        return status;
    (*out)->threaded = true;
    int failed = pthread_create(&(*out)->thread, NULL, run, *out);
    if (failed == 0)
        return FL_OK;
    (*out)->threaded = false;
    fl_compute_stop(out);
    return fl_fail_errno(error, failed, "starting the work thread");
}

static void drop_all(struct queue *q)
{
    for (struct node *node = queue_pop(q); node; node = queue_pop(q)) {
        fl_work_free(node->work);
        fl_work_result_free(node->result);
        fl_free(node);
    }
}

void fl_compute_stop(struct fl_compute **self_pointer)
{
    struct fl_compute *self = *self_pointer;
    if (!self)
        return;
    pthread_mutex_lock(&self->mutex);
    self->ending = true;
    atomic_store(&self->labour.stop, 1);
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->mutex);
    if (self->threaded)
        pthread_join(self->thread, NULL);
    drop_all(&self->requests);
    drop_all(&self->results);
    fl_labour_free(&self->labour);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->mutex);
    close(self->fd);
    fl_free(self);
    *self_pointer = NULL;
}

void fl_compute_set_name(struct fl_compute *self, const char *name)
{
    pthread_mutex_lock(&self->mutex);
    fl_wire_set_text(self->labour.name, sizeof(self->labour.name), name);
    pthread_mutex_unlock(&self->mutex);
}

int fl_compute_fd(const struct fl_compute *self)
{
    return self->fd;
}

void fl_compute_submit(struct fl_compute *self, struct fl_work *work)
{
    struct node *node = fl_calloc(1, sizeof(*node));
    struct fl_work_result *result = fl_calloc(1, sizeof(*result));
    if (!node || !result) {
        /* the coordinator asks again when nothing comes back */
        fl_log(FL_LOG_ERROR, "out_of_memory", "a request was dropped for lack of memory");
        fl_free(node);
        fl_free(result);
        fl_work_free(work);
        return;
    }
    node->work = work;
    node->result = result;
    result->kind = work->kind;
    result->key = work->key;
    pthread_mutex_lock(&self->mutex);
    queue_push(&self->requests, node);
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->mutex);
}

struct fl_work_result *fl_compute_poll(struct fl_compute *self)
{
    uint64_t count;
    (void)!read(self->fd, &count, sizeof(count));
    pthread_mutex_lock(&self->mutex);
    struct node *node = queue_pop(&self->results);
    bool more = self->results.head != NULL;
    pthread_mutex_unlock(&self->mutex);
    if (!node)
        return NULL;
    if (more)
        ring(self);
    struct fl_work_result *result = node->result;
    fl_free(node);
    return result;
}

void fl_compute_abandon(struct fl_compute *self, const struct fl_attempt *keep)
{
    struct queue kept;
    queue_init(&kept);
    pthread_mutex_lock(&self->mutex);
    for (struct node *node = queue_pop(&self->requests); node; node = queue_pop(&self->requests)) {
        if (node->work->kind == FL_WORK_KEEP) { /* a committed version is kept in any case */
            queue_push(&kept, node);
            continue;
        }
        fl_work_free(node->work);
        fl_work_result_free(node->result);
        fl_free(node);
    }
    while (kept.head)
        queue_push(&self->requests, queue_pop(&kept));
    if (self->running.job && (self->running.job != keep->job || self->running.round != keep->round))
        atomic_store(&self->labour.stop, 1);
    pthread_mutex_unlock(&self->mutex);
}

struct fl_trainer_progress fl_compute_progress(struct fl_compute *self)
{
    pthread_mutex_lock(&self->mutex);
    struct fl_trainer_progress progress = self->progress;
    pthread_mutex_unlock(&self->mutex);
    return progress;
}
