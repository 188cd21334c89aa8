/*
 * cmd_tokenize.c - `fedlora-worker tokenize`: text on stdin to {"ids":[...]}, and back. Only the
 * tokenizer's files are read, no weights.
 */
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/commands.h"
#include "worker/data/tokenizer.h"

#define PROGRAM         "fedlora-worker tokenize"
#define INPUT_BYTES_MAX (1u << 30)

static enum fl_status write_out(const struct fl_buf *out, struct fl_error *error)
{
    size_t written = out->length > 0 ? fwrite(out->data, 1, out->length, stdout) : 0;
    if (written == out->length && fflush(stdout) == 0)
        return FL_OK;
    return fl_fail(error, FL_EIO, "can't write to stdout");
}

static enum fl_status print_ids(const struct fl_ids *ids, struct fl_error *error)
{
    struct fl_buf out;
    fl_buf_init(&out, 16ull * INPUT_BYTES_MAX);
    fl_buf_printf(&out, "{\"ids\":[");
    for (size_t i = 0; i < ids->count; i++)
        fl_buf_printf(&out, i == 0 ? "%d" : ",%d", ids->ids[i]);
    fl_buf_printf(&out, "]}\n");
    enum fl_status status = fl_buf_status(&out);
    status = status == FL_OK ? write_out(&out, error) : fl_fail_memory(error);
    fl_buf_free(&out);
    return status;
}

static enum fl_status encode(struct fl_tokenizer *tokenizer, const struct fl_buf *input,
                             unsigned flags, struct fl_error *error)
{
    struct fl_ids ids = {0};
    enum fl_status status = fl_tokenizer_encode(tokenizer, fl_buf_text(input), input->length, flags,
                                                &ids, error);
    if (status == FL_OK)
        status = print_ids(&ids, error);
    fl_ids_free(&ids);
    return status;
}

/* {"ids":[...]} into a list; anything else is FL_EFORMAT. */
static enum fl_status parse_ids(const struct fl_buf *input, struct fl_ids *out,
                                struct fl_error *error)
{
    json_t *root;
    enum fl_status status = fl_json_parse(fl_buf_text(input), input->length, "stdin", &root, error);
    if (status != FL_OK)
        return status;
    const json_t *list = json_object_get(root, "ids");
    if (!json_is_array(list))
        status = fl_fail(error, FL_EFORMAT, "stdin: {\"ids\":[...]} is expected");
    for (size_t i = 0; status == FL_OK && i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id > INT32_MAX)
            status = fl_fail(error, FL_EFORMAT, "stdin: number %zu of ids is no token id", i + 1);
        else if (fl_ids_push(out, (int32_t)id) != FL_OK)
            status = fl_fail_memory(error);
    }
    json_decref(root);
    return status;
}

static enum fl_status decode(const struct fl_tokenizer *tokenizer, const struct fl_buf *input,
                             struct fl_error *error)
{
    struct fl_ids ids = {0};
    struct fl_buf text;
    fl_buf_init(&text, 16ull * INPUT_BYTES_MAX);
    enum fl_status status = parse_ids(input, &ids, error);
    if (status == FL_OK)
        status = fl_tokenizer_decode(tokenizer, ids.ids, ids.count, &text, error);
    if (status == FL_OK)
        status = write_out(&text, error);
    fl_buf_free(&text);
    fl_ids_free(&ids);
    return status;
}

int fl_cmd_tokenize(int argc, char **argv)
{
    const char *model = NULL, *specials = "match";
    bool back = false, no_special = false;
    const struct fl_option options[] = {
        {.name = "--model",
         .value = "PATH",
         .kind = FL_OPTION_STRING,
         .target = &model,
         .required = true,
         .doc = "model directory, GGUF file, or ORG/NAME in the Hugging Face cache; weights are "
                "not read"},
        {.name = "--decode",
         .kind = FL_OPTION_FLAG,
         .target = &back,
         .doc = "read {\"ids\":[...]} and print the text, special tokens kept"},
        {.name = "--no-special",
         .kind = FL_OPTION_FLAG,
         .target = &no_special,
         .doc = "leave out the template's own tokens (BOS, EOS)"},
        {.name = "--specials",
         .value = "HOW",
         .kind = FL_OPTION_CHOICE,
         .target = &specials,
         .choices = "match|plain",
         .doc = "plain: strings such as <|im_end|> in the text are text"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Turn text on stdin into token ids, byte for byte, or ids back into text.",
        .example = "printf 'Hello' | fedlora-worker tokenize --model model.gguf",
        .options = options,
        .option_count = sizeof options / sizeof options[0]};
    int code;
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;

    unsigned flags = no_special ? 0 : FL_ENCODE_ADD_SPECIAL;
    if (strcmp(specials, "plain") == 0)
        flags |= FL_ENCODE_SPECIALS_PLAIN;
    struct fl_error error = {0};
    struct fl_tokenizer *tokenizer = NULL;
    struct fl_buf input;
    fl_buf_init(&input, INPUT_BYTES_MAX);
    enum fl_status status = fl_tokenizer_open(model, &tokenizer, &error);
    if (status == FL_OK)
        status = fl_fs_read_stdin(INPUT_BYTES_MAX, &input, &error);
    if (status == FL_OK)
        status = back ? decode(tokenizer, &input, &error)
                      : encode(tokenizer, &input, flags, &error);
    fl_buf_free(&input);
    fl_tokenizer_close(tokenizer);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}
