/* fedlora-worker: the table of its subcommands. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/hash.h"
#include "base/json.h"
#include "worker/commands.h"

static const struct fl_command commands[] = {
    {"keys", "make the site's keys and print its public identity", fl_cmd_keys},
    {"join", "enrol this site at a coordinator", fl_cmd_join},
    {"check", "dry run: configuration, model, data, speed, policy", fl_cmd_check},
    {"run", "the site's daemon", fl_cmd_run},
    {"status", "connection, job, refusals, what left the site", fl_cmd_status},
    {"audit", "verify the site's audit log", fl_cmd_audit},
    {"fetch", "download a base model from the Hugging Face hub", fl_cmd_fetch},
    {"train", "fine-tune an adapter on local data, without a coordinator", fl_cmd_train},
    {"eval", "loss and perplexity on a data file", fl_cmd_eval},
    {"generate", "continue a prompt", fl_cmd_generate},
    {"merge", "base and adapter as one model", fl_cmd_merge},
    {"export", "an adapter as a GGUF file for llama.cpp", fl_cmd_export},
    {"logits", "write the logits of some tokens", fl_cmd_logits},
    {"tokenize", "text on stdin to token ids, and back", fl_cmd_tokenize},
    {"inspect", "what a model, adapter or GGUF file holds", fl_cmd_inspect},
    {"roster", "the consortium's authority and its signed list of members", fl_cmd_roster},
};

/*
 * OpenMP's threads spin at a barrier unless told to wait, which halves the speed or worse as soon
 * as the machine has other work, and gains next to nothing when it has none. The library reads its
 * policy when it is loaded, so a command that computes starts itself once more with it set.
 */
static void wait_passively(int argc, char **argv)
{
    static const char *const computing[] = {"train", "eval",  "generate", "logits",
                                            "merge", "check", "run"};
    if (argc < 2 || getenv("OMP_WAIT_POLICY"))
        return;
    for (size_t i = 0; i < sizeof computing / sizeof computing[0]; i++) {
        if (strcmp(argv[1], computing[i]) == 0 && setenv("OMP_WAIT_POLICY", "passive", 1) == 0)
            (void)execv("/proc/self/exe", argv); /* where that cannot be done, all goes on as is */
    }
}

int main(int argc, char **argv)
{
    wait_passively(argc, argv);
    fl_hash_init();
    fl_json_init();
    return fl_cli_main("fedlora-worker", "fine-tunes a language model on data that stays here",
                       commands, sizeof commands / sizeof commands[0], argc, argv);
}
