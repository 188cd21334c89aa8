/* process.c - see process.h. */
#include "base/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"

void fl_process_no_dumps(void)
{
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};
    const char *wanted = getenv("FEDLORA_COREDUMP");
    if (wanted && strcmp(wanted, "1") == 0) {
        fl_log(FL_LOG_WARN, "core_dumps_on",
               "FEDLORA_COREDUMP=1: a crash writes keys and private data to disk");
        return;
    }
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        fl_log(FL_LOG_WARN, "core_dumps_on", "core dumps could not be turned off",
               FL_STR("reason", strerror(errno)));
}
