/* cmd_keys.c - `fedlora-worker keys`: make the site's keys if absent, print its public identity. */
#include <stdio.h>

#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "crypto/keys.h"
#include "worker/commands.h"
#include "worker/sitestore.h"

static enum fl_status print_identity(const char *site, bool as_json, struct fl_error *error)
{
    char path[FL_PATH_BYTES], text[FL_IDENTITY_TEXT_BYTES];
    struct fl_keys *keys = NULL;
    enum fl_status status = fl_fs_make_directory(site, 0700, error);
    if (status == FL_OK)
        status = fl_path_join(path, site, FL_SITE_KEYS, error);
    if (status == FL_OK)
        status = fl_keys_load_or_make(path, fl_entropy_system(), &keys, error);
    if (status != FL_OK)
        return status;
    fl_identity_encode(fl_keys_public(keys), text);
    if (as_json) {
        json_t *root = json_pack("{s:s}", "identity", text);
        status = root ? fl_json_print(root) : FL_ENOMEM;
        json_decref(root);
    } else {
        status = puts(text) >= 0 ? FL_OK : FL_EIO;
    }
    fl_keys_destroy(&keys);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "writing the identity failed");
}

int fl_cmd_keys(int argc, char **argv)
{
    const char *site = NULL;
    bool as_json = false;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "SITE",
         .kind = FL_OPTION_STRING,
         .target = &site,
         .required = true,
         .doc = "the site's directory, made if absent"},
        {.name = "--json",
         .kind = FL_OPTION_FLAG,
         .target = &as_json,
         .doc = "print {\"identity\":...}"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker keys",
        .summary =
            "Make the site's keys if there are none, and print its public identity, which a\n"
            "coordinator's operator gives to `fedlora-coordinator roster add`.",
        .example = "fedlora-worker keys --dir /var/lib/fedlora/site",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0])};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return print_identity(site, as_json, &error) == FL_OK ? 0 : fl_cli_fail(usage.program, &error);
}
