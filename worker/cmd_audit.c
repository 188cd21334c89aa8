/* cmd_audit.c - `fedlora-worker audit verify`: the site's audit log, or a copy of one. */
#include "base/cli.h"
#include "crypto/audit_keys.h"
#include "worker/commands.h"
#include "worker/sitestore.h"

#define PROGRAM "fedlora-worker audit"

static int run_verify(int argc, char **argv)
{
    static const struct fl_audit_place place = {PROGRAM " verify", "SITE", "the site's directory",
                                                FL_SITE_KEYS};
    return fl_audit_verify_command(&place, argc, argv);
}

int fl_cmd_audit(int argc, char **argv)
{
    static const struct fl_command rows[] = {
        {"verify", "check chain and signatures of the audit log", run_verify},
    };
    return fl_cli_main(PROGRAM, "what left the site, and what was answered", rows,
                       sizeof(rows) / sizeof(rows[0]), argc, argv);
}
