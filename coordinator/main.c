/* main.c - fedlora-coordinator: the table of its commands. */
#include "base/cli.h"
#include "base/hash.h"
#include "base/json.h"
#include "coordinator/commands.h"

static const struct fl_command commands[] = {
    {"init", "make a coordinator's directory: keys, database, configuration", fl_cmd_init},
    {"serve", "run the coordinator", fl_cmd_serve},
    {"invite", "print a join token for one site", fl_cmd_invite},
    {"roster", "list, add or revoke sites", fl_cmd_roster},
    {"job", "submit, list, show, cancel or resume jobs; print a template", fl_cmd_job},
    {"adapters", "list, export or roll back versions of the global adapter", fl_cmd_adapters},
    {"status", "what the coordinator is doing", fl_cmd_status},
    {"top", "watch what the coordinator is doing", fl_cmd_top},
    {"health", "exit 0 if a coordinator runs and answers", fl_cmd_health},
    {"audit", "verify the audit log", fl_cmd_audit},
    {"backup", "copy the coordinator, running or not", fl_cmd_backup},
};

int main(int argc, char **argv)
{
    fl_hash_init();
    fl_json_init();
    return fl_cli_main(FL_PROGRAM, "federated LoRA fine-tuning: the coordinator", commands,
                       sizeof commands / sizeof commands[0], argc, argv);
}
