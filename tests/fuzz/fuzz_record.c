/*
 * fuzz_record.c - any bytes as one record of a data file: refused, or ids and labels of one length
 * within the vocabulary.
 */
#include <stdlib.h>

#include "worker/data/record.h"
#include "worker/data/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fl_tokenizer *tokenizer;
    static struct fl_example example;
    struct fl_error error;
    const char *golden = FL_TEST_SOURCE_DIR "/golden/tokenizer/llama3";
    if (tokenizer == NULL && fl_tokenizer_open(golden, &tokenizer, &error) != FL_OK)
        abort();
    const struct fl_dataset_options options = {
        .seq_len = 64, .add_eos = true, .specials_plain = size % 2 != 0};
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
    const struct fl_ids ids = example.ids, labels = example.labels;
    if (ids.count != labels.count)
        abort();
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.ids[i] < 0 || ids.ids[i] >= vocab)
            abort();
        if (labels.ids[i] != FL_IGNORE && (labels.ids[i] < 0 || labels.ids[i] >= vocab))
            abort();
    }
    return 0;
}
