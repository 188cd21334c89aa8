/*
 * fuzz_record.c - any bytes as one record of a data file: refused, or ids and labels of one length
 * within the vocabulary, and a cut that keeps to its length. The length of the input chooses how
 * the record is read.
 */
#include <stdlib.h>

#include "worker/data/record.h"
#include "worker/data/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_example(const struct fl_example *example, int32_t vocab)
{
    if (example->ids.count != example->labels.count)
        abort();
    for (size_t i = 0; i < example->ids.count; i++) {
        int32_t id = example->ids.ids[i], label = example->labels.ids[i];
        if (id < 0 || id >= vocab)
            abort();
        if (label != FL_IGNORE && (label < 0 || label >= vocab))
            abort();
    }
}

static void check_cut(struct fl_example *example, size_t seq_len, int32_t vocab)
{
    struct fl_example_cut cut;
    size_t count = example->ids.count, wanted = count < seq_len ? count : seq_len;
    fl_example_cut(example, seq_len, &cut);
    if (example->ids.count > wanted || example->ids.count + cut.tokens != count)
        abort();
    check_example(example, vocab);
    fl_example_score_all(example);
    check_example(example, vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const TEMPLATES[] = {NULL, "chatml", "llama2", "mistral", "zephyr"};
    static struct fl_tokenizer *tokenizer;
    static struct fl_example example;
    struct fl_error error;
    const char *golden = FL_TEST_SOURCE_DIR "/golden/tokenizer/llama3";
    if (tokenizer == NULL && fl_tokenizer_open(golden, &tokenizer, &error) != FL_OK)
        abort();
    const struct fl_dataset_options options = {.seq_len = 2 + (uint32_t)(size % 64),
                                               .add_eos = true,
                                               .chat_template = TEMPLATES[size % 5],
                                               .specials_plain = size % 2 != 0};
    struct fl_reader reader = {tokenizer, &options, NULL};
    json_t *record;
    struct fl_place place = {1, 1};
    enum fl_status status = fl_record_parse((const char *)data, size, &record, &place, &error);
    if (status == FL_OK)
        status = fl_record_row(record, &reader, &example, &error);
    json_decref(record);
    fl_reader_end(&reader);
    if (status != FL_OK)
        return 0;
    int32_t vocab = (int32_t)fl_tokenizer_vocab_size(tokenizer);
    check_example(&example, vocab);
    check_cut(&example, options.seq_len, vocab);
    return 0;
}
