/*
 * Goal: every message survives the wire unchanged; nothing that a hostile peer can send is taken.
 * Method: one filled message of each kind round-trips; each is then cut at every length and flipped
 * at every byte (decode may refuse or accept, but never misbehave); limits are tried one by one.
 */
#include "proto/wire.h"

#include <string.h>

#include "runner.h"

static const uint8_t ranks[4] = {8, 0, 4, 0};
static const uint8_t set[FL_COHORT_MAX + 1] = {1, 0, 1};
static const uint8_t lists[(FL_COHORT_MAX + 1) * FL_WIRE_ADVERT_BYTES] = {5, 4, 3};

static void fill_recall(struct fl_wire *m, enum fl_wire_kind kind)
{
    if (kind == FL_WIRE_RECALL)
        m->as.recall.after = 2;
    if (kind != FL_WIRE_RECALLED)
        return;
    m->as.recalled.version = 3;
    m->as.recalled.adapter.size = 99;
    m->as.recalled.left = 1;
}

static void fill_masks(struct fl_wire *m, enum fl_wire_kind kind)
{
    switch (kind) {
    case FL_WIRE_COLLECT:
        m->as.collect.cohort = 3;
        m->as.collect.sharers = (struct fl_wire_bytes){set, 3};
        m->as.collect.shares = (struct fl_wire_bytes){lists, 3 * FL_WIRE_SHARE_BYTES};
        break;
    case FL_WIRE_COHORT:
        m->as.cohort.adverts = (struct fl_wire_bytes){lists, 3 * FL_WIRE_ADVERT_BYTES};
        m->as.cohort.plan = (struct fl_wire_bytes){ranks, 4};
        break;
    case FL_WIRE_SHARES:
        m->as.shares.sealed = (struct fl_wire_bytes){lists, 3 * FL_WIRE_SHARE_BYTES};
        break;
    case FL_WIRE_SURVIVORS:
        m->as.survivors.survivors = (struct fl_wire_bytes){set, 3};
        break;
    case FL_WIRE_UNMASK:
        m->as.unmask.survivors = (struct fl_wire_bytes){set, 3};
        m->as.unmask.signed_by = (struct fl_wire_bytes){set, 3};
        m->as.unmask.signatures = (struct fl_wire_bytes){lists, 3 * FL_WIRE_SIGNATURE_BYTES};
        break;
    case FL_WIRE_ANSWER:
        m->as.answer.answer = (struct fl_wire_bytes){lists, 3 * FL_WIRE_SCALAR_BYTES};
        break;
    default:
        fill_recall(m, kind);
        break;
    }
}

static void fill(struct fl_wire *m, enum fl_wire_kind kind)
{
    memset(m, 0, sizeof(*m));
    m->kind = kind;
    m->has_nonce = true;
    memset(m->nonce, 7, sizeof(m->nonce));
    m->job = 3;
    m->round = 2;
    m->attempt = 1;
    switch (kind) {
    case FL_WIRE_JOIN:
        strncpy(m->as.join.name, "ward-3", FL_NAME_BYTES - 1);
        break;
    case FL_WIRE_JOIN_ANSWER:
        m->as.join_answer.accepted = true;
        strncpy(m->as.join_answer.name, "ward-3", FL_NAME_BYTES - 1);
        break;
    case FL_WIRE_WELCOME:
        strncpy(m->as.welcome.name, "ward-3", FL_NAME_BYTES - 1);
        m->as.welcome.heartbeat_ms = 1000;
        m->as.welcome.liveness_ms = 3000;
        break;
    case FL_WIRE_OFFER:
        strncpy(m->as.offer.name, "glossaries", FL_NAME_BYTES - 1);
        strncpy(m->as.offer.model, "tiny", FL_NAME_BYTES - 1);
        strncpy(m->as.offer.strategy, "fedit", FL_NAME_BYTES - 1);
        strncpy(m->as.offer.targets, "q_proj,v_proj", FL_TARGETS_BYTES - 1);
        m->as.offer.rounds = 4;
        m->as.offer.alpha = 16.0;
        m->as.offer.rank_default = 8;
        m->as.offer.rank_max = 8;
        m->as.offer.steps = 4;
        m->as.offer.batch_size = 8;
        m->as.offer.seq_len = 128;
        m->as.offer.lr = 2e-3;
        m->as.offer.min_workers = 3;
        m->as.offer.weight_cap = 1000000;
        m->as.offer.liveness_ms = 30000;
        m->as.offer.dora = true;
        break;
    case FL_WIRE_FIT:
        m->as.fit.has_manifest = true;
        m->as.fit.has_inventory = true;
        m->as.fit.inventory.size = 99;
        break;
    case FL_WIRE_TASK:
        m->as.task.global_ranks = (struct fl_wire_bytes){ranks, 4};
        m->as.task.site_ranks = (struct fl_wire_bytes){ranks, 4};
        m->as.task.train_b = m->as.task.train = true;
        break;
    case FL_WIRE_NEED:
        m->as.need.count = 4;
        break;
    case FL_WIRE_CHUNK:
        m->as.chunk.data = (struct fl_wire_bytes){ranks, 4};
        break;
    default:
        fill_masks(m, kind);
        break;
    }
}

START_TEST(each_kind_of_message_survives_the_wire)
{
    struct fl_wire in, out;
    struct fl_error error;
    struct fl_buf first, second;
    fill(&in, (enum fl_wire_kind)_i);
    fl_buf_init(&first, FL_FRAME_BYTES_MAX);
    fl_buf_init(&second, FL_FRAME_BYTES_MAX);
    ck_assert_int_eq(fl_wire_encode(&in, &first), FL_OK);
    ck_assert_int_eq(fl_wire_decode(first.data, first.length, &out, &error), FL_OK);
    ck_assert_int_eq(out.kind, in.kind);
    ck_assert_uint_eq(out.job, 3);
    ck_assert(out.kind != FL_WIRE_OFFER || out.as.offer.dora);
    ck_assert_int_eq(fl_wire_encode(&out, &second), FL_OK);
    ck_assert_uint_eq(first.length, second.length);
    ck_assert_mem_eq(first.data, second.data, first.length);
    fl_wire_free(&out);
    fl_buf_free(&second);
    fl_buf_free(&first);
}
END_TEST

START_TEST(a_cut_or_flipped_frame_never_misbehaves)
{
    struct fl_wire in, out;
    struct fl_error error;
    struct fl_buf frame;
    fill(&in, (enum fl_wire_kind)_i);
    fl_buf_init(&frame, FL_FRAME_BYTES_MAX);
    ck_assert_int_eq(fl_wire_encode(&in, &frame), FL_OK);
    for (size_t n = 0; n < frame.length; n++) {
        if (fl_wire_decode(frame.data, n, &out, &error) == FL_OK)
            fl_wire_free(&out);
        for (int bit = 0; bit < 8; bit++) {
            frame.data[n] ^= (uint8_t)(1 << bit);
            if (fl_wire_decode(frame.data, frame.length, &out, &error) == FL_OK)
                fl_wire_free(&out);
            frame.data[n] ^= (uint8_t)(1 << bit);
        }
    }
    fl_buf_free(&frame);
}
END_TEST

static void refused(const struct fl_wire *in)
{
    struct fl_wire out;
    struct fl_error error;
    struct fl_buf frame;
    fl_buf_init(&frame, FL_FRAME_BYTES_MAX);
    if (fl_wire_encode(in, &frame) == FL_OK)
        ck_assert_int_eq(fl_wire_decode(frame.data, frame.length, &out, &error), FL_EFORMAT);
    fl_buf_free(&frame);
}

START_TEST(lists_of_a_cohort_have_one_entry_a_member_and_at_most_a_hundred)
{
    static const uint8_t two[3] = {1, 2, 0};
    struct fl_wire m;
    fill(&m, FL_WIRE_COHORT);
    m.as.cohort.adverts.length = (FL_COHORT_MAX + 1) * (size_t)FL_WIRE_ADVERT_BYTES;
    refused(&m);
    m.as.cohort.adverts.length = FL_WIRE_ADVERT_BYTES + 1;
    refused(&m);
    fill(&m, FL_WIRE_COLLECT);
    m.as.collect.shares.length = 2 * FL_WIRE_SHARE_BYTES;
    refused(&m);
    fill(&m, FL_WIRE_SURVIVORS);
    m.as.survivors.survivors = (struct fl_wire_bytes){two, 3};
    refused(&m);
    m.as.survivors.survivors = (struct fl_wire_bytes){set, FL_COHORT_MAX + 1};
    refused(&m);
    fill(&m, FL_WIRE_UNMASK);
    m.as.unmask.signatures.length -= FL_WIRE_SIGNATURE_BYTES;
    refused(&m);
    fill(&m, FL_WIRE_UNMASK);
    m.as.unmask.signed_by.length = 2;
    refused(&m);
    fill(&m, FL_WIRE_ANSWER);
    m.as.answer.answer.length -= 1;
    refused(&m);
}
END_TEST

static enum fl_status transported(const struct fl_wire *in, struct fl_error *error)
{
    struct fl_wire out;
    struct fl_buf frame;
    fl_buf_init(&frame, FL_FRAME_BYTES_MAX);
    enum fl_status status = fl_wire_encode(in, &frame);
    if (status == FL_OK)
        status = fl_wire_decode(frame.data, frame.length, &out, error);
    if (status == FL_OK)
        fl_wire_free(&out);
    fl_buf_free(&frame);
    return status;
}

START_TEST(a_message_without_the_sessions_nonce_is_refused)
{
    struct fl_wire m;
    struct fl_error error;
    fill(&m, FL_WIRE_TRAINED);
    m.has_nonce = false;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
    fill(&m, FL_WIRE_HELLO);
    m.has_nonce = false;
    ck_assert_int_eq(transported(&m, &error), FL_OK);
}
END_TEST

START_TEST(values_outside_their_range_are_refused_by_name)
{
    struct fl_wire m;
    struct fl_error error;
    fill(&m, FL_WIRE_OFFER);
    m.as.offer.steps = 0;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "'steps'"));
    fill(&m, FL_WIRE_OFFER);
    m.as.offer.retraining = FL_RETRAININGS_MAX;
    ck_assert_int_eq(transported(&m, &error), FL_OK);
    m.as.offer.retraining++;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "'retraining'"));
    fill(&m, FL_WIRE_OFFER);
    m.as.offer.lr = 0.0 / 0.0;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
    fill(&m, FL_WIRE_HEARTBEAT);
    m.as.heartbeat.activity = FL_ACTIVITY_COUNT;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
    fill(&m, FL_WIRE_TASK);
    m.as.task.site_ranks.length = 2;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
    fill(&m, FL_WIRE_UPLOAD);
    m.as.upload.update.size = FL_ADAPTER_BYTES_MAX + 1;
    ck_assert_int_eq(transported(&m, &error), FL_EFORMAT);
}
END_TEST

START_TEST(names_are_safe_as_file_names)
{
    ck_assert(fl_wire_valid_name("ward-3.north_1"));
    ck_assert(!fl_wire_valid_name(""));
    ck_assert(!fl_wire_valid_name("."));
    ck_assert(!fl_wire_valid_name("../x"));
    ck_assert(!fl_wire_valid_name("-x"));
    ck_assert(!fl_wire_valid_name("a b"));
    char longest[FL_NAME_BYTES + 1];
    memset(longest, 'a', sizeof(longest));
    longest[FL_NAME_BYTES] = '\0';
    ck_assert(!fl_wire_valid_name(longest));
    longest[FL_NAME_BYTES - 1] = '\0';
    ck_assert(fl_wire_valid_name(longest));
}
END_TEST

START_TEST(text_is_cut_at_a_character_and_made_harmless)
{
    char field[6];
    fl_wire_set_text(field, sizeof(field), "a\n\xc3\xa4\xc3\xa4");
    ck_assert_str_eq(field, "a?\xc3\xa4");
    fl_wire_set_text(field, sizeof(field), "abc");
    ck_assert_str_eq(field, "abc");
}
END_TEST

START_TEST(an_oversized_frame_is_refused_before_anything_is_allocated)
{
    static uint8_t big[FL_FRAME_BYTES_MAX + 1];
    struct fl_wire out;
    struct fl_error error;
    ck_assert_int_eq(fl_wire_decode(big, sizeof(big), &out, &error), FL_EFORMAT);
    ck_assert_int_eq(fl_wire_decode(big, 0, &out, &error), FL_EFORMAT);
}
END_TEST

/* The defence against millions of tiny submessages: what protobuf-c may take is bounded. */
START_TEST(a_frame_of_unknown_fields_cannot_blow_up_memory)
{
    static uint8_t frame[FL_CONTROL_BYTES_MAX];
    struct fl_wire out;
    struct fl_error error;
    for (size_t i = 0; i + 2 <= sizeof(frame); i += 2) {
        frame[i] = 0x7a; /* field 15, length-delimited, empty */
        frame[i + 1] = 0;
    }
    ck_assert_int_eq(fl_wire_decode(frame, sizeof(frame), &out, &error), FL_EFORMAT);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, lists_of_a_cohort_have_one_entry_a_member_and_at_most_a_hundred);
    tcase_add_loop_test(tc, each_kind_of_message_survives_the_wire, 0, FL_WIRE_KIND_COUNT);
    tcase_add_loop_test(tc, a_cut_or_flipped_frame_never_misbehaves, 0, FL_WIRE_KIND_COUNT);
    tcase_add_test(tc, a_message_without_the_sessions_nonce_is_refused);
    tcase_add_test(tc, values_outside_their_range_are_refused_by_name);
    tcase_add_test(tc, names_are_safe_as_file_names);
    tcase_add_test(tc, text_is_cut_at_a_character_and_made_harmless);
    tcase_add_test(tc, an_oversized_frame_is_refused_before_anything_is_allocated);
    tcase_add_test(tc, a_frame_of_unknown_fields_cannot_blow_up_memory);
}
FL_TEST_MAIN("wire", add_tests)
