/* submit_text.h - a job in a store, as `job submit` puts it there. */
#ifndef FL_TESTS_SUBMIT_TEXT_H
#define FL_TESTS_SUBMIT_TEXT_H

#include <stdlib.h>
#include <string.h>

#include "coordinator/queue.h"
#include "runner.h"

/* Returns the id of the job that the text describes. */
static inline int64_t submit_text(struct fl_store *store, const char *text)
{
    int64_t id = 0;
    struct fl_error error;
    struct fl_job_spec *spec = calloc(1, sizeof *spec);
    ck_assert_ptr_nonnull(spec);
    enum fl_status status = fl_job_parse(text, strlen(text), "job.conf", spec, &error);
    if (status == FL_OK)
        status = fl_queue_submit(store, spec, 7, &id, &error);
    free(spec);
    fl_assert_ok(status, &error);
    return id;
}

#endif
