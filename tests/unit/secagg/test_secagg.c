/*
 * Goal: the unmasked sum is the plain sum of the survivors, bit for bit, whoever drops out when;
 * and a site refuses every step that would let one update be read. Method: whole attempts of n
 * sites in memory with seeded entropy; dropouts in each stage; then each lie that a coordinator or
 * another site could tell.
 */
#include "secagg/secagg.h"

#include <string.h>

#include "crypto/prg.h"
#include "runner.h"

#define SITES    10
#define ELEMENTS 300
#define SCALARS  4
#define MODULES  5

static struct fl_prg stream;

static void seeded(void *context, void *out, size_t length)
{
    fl_prg_bytes(context, out, length);
}

static const struct fl_entropy entropy = {seeded, &stream};

struct attempt {
    struct fl_secagg_context context;
    uint32_t n;
    struct fl_keys *keys[SITES];
    struct fl_secagg_site *sites[SITES];
    struct fl_secagg_advert adverts[SITES];
    struct fl_secagg_cohort cohort;
    struct fl_secagg_set sharers, survivors, signed_by, answered;
    uint8_t sealed[SITES][SITES][FL_SECAGG_SEALED_SHARE_BYTES]; /* from, to */
    uint32_t plain[SITES][ELEMENTS], masked[SITES][ELEMENTS];
    uint64_t plain_scalars[SITES][SCALARS], masked_scalars[SITES][SCALARS];
    uint8_t signatures[SITES][FL_SIGNATURE_BYTES];
    uint8_t answers[SITES * SITES][FL_SCALAR_BYTES];
};

static struct attempt a;
/* what each site trains: two ranks, in runs */
static const uint16_t plan[SITES][MODULES] = {
    {8, 8, 8, 4, 4}, {8, 8, 8, 4, 4}, {4, 4, 4, 4, 4}, {8, 4, 8, 4, 8}, {8, 8, 8, 8, 8},
    {8, 8, 8, 8, 8}, {8, 8, 8, 8, 8}, {8, 8, 8, 8, 8}, {8, 8, 8, 8, 8}, {1, 2, 3, 4, 5}};
static struct fl_error error;

static void begin(uint32_t n, uint8_t seed)
{
    uint8_t key[FL_SEED_BYTES] = {seed};
    fl_prg_init(&stream, key);
    memset(&a, 0, sizeof(a));
    a.n = n;
    a.context =
        (struct fl_secagg_context){.job = 7, .round = 3, .attempt = 1, .elements = ELEMENTS};
    for (uint32_t i = 0; i < n; i++) {
        char name[FL_NAME_BYTES] = "site-0";
        uint8_t ranks_hash[FL_HASH_BYTES];
        fl_secagg_ranks_hash(plan[i], MODULES, ranks_hash);
        name[5] = (char)('0' + i);
        ck_assert_int_eq(fl_keys_generate(&entropy, &a.keys[i]), FL_OK);
        ck_assert_int_eq(
            fl_secagg_site_create(&a.context, name, ranks_hash, a.keys[i], &entropy, &a.sites[i]),
            FL_OK);
        a.adverts[i] = *fl_secagg_site_advert(a.sites[i]);
        for (uint32_t k = 0; k < ELEMENTS; k++)
            a.masked[i][k] = a.plain[i][k] = fl_prg_u32(&stream);
        for (uint32_t k = 0; k < SCALARS; k++)
            a.masked_scalars[i][k] = a.plain_scalars[i][k] = fl_prg_u64(&stream) >> 16;
    }
    fl_assert_ok(fl_secagg_cohort_check(&a.context, a.adverts, n, &a.cohort, &error), &error);
}

static void end(void)
{
    for (uint32_t i = 0; i < a.n; i++) {
        fl_secagg_site_destroy(&a.sites[i]);
        fl_keys_destroy(&a.keys[i]);
    }
}

static void join_all(void)
{
    for (uint32_t i = 0; i < a.n; i++)
        fl_assert_ok(fl_secagg_site_join(a.sites[i], a.adverts, a.n, 3, &error), &error);
}

static void share_all(void)
{
    for (uint32_t u = 0; u < a.n; u++) {
        if (a.sharers.has[u])
            fl_assert_ok(fl_secagg_site_share(a.sites[u], &entropy, a.sealed[u][0], &error),
                         &error);
    }
    for (uint32_t u = 0; u < a.n; u++) {
        for (uint32_t v = 0; v < a.n; v++) {
            if (u != v && a.sharers.has[u] && a.sharers.has[v])
                fl_assert_ok(fl_secagg_site_take_share(a.sites[v], u, a.sealed[u][v], &error),
                             &error);
        }
    }
}

static void mask_all(void)
{
    for (uint32_t u = 0; u < a.n; u++) {
        if (a.sharers.has[u])
            fl_assert_ok(fl_secagg_site_mask(a.sites[u], &a.sharers, a.masked[u],
                                             a.masked_scalars[u], SCALARS, &error),
                         &error);
    }
}

static void sign_all(void)
{
    for (uint32_t u = 0; u < a.n; u++) {
        if (!a.survivors.has[u])
            continue;
        fl_assert_ok(
            fl_secagg_site_sign(a.sites[u], &a.survivors, a.keys[u], a.signatures[u], &error),
            &error);
        a.signed_by.has[u] = true;
    }
}

static void answer_all(void)
{
    for (uint32_t u = 0; u < a.n; u++) {
        if (a.answered.has[u])
            fl_assert_ok(fl_secagg_site_answer(a.sites[u], &a.survivors, &a.signed_by,
                                               a.signatures[0], a.answers[u * a.n], &error),
                         &error);
    }
}

static enum fl_status unmask(uint32_t *vector, uint64_t *scalars, uint32_t *blamed)
{
    memset(vector, 0, ELEMENTS * sizeof(*vector));
    memset(scalars, 0, SCALARS * sizeof(*scalars));
    for (uint32_t u = 0; u < a.n; u++) {
        for (uint32_t k = 0; k < ELEMENTS && a.survivors.has[u]; k++)
            vector[k] += a.masked[u][k];
        for (uint32_t k = 0; k < SCALARS && a.survivors.has[u]; k++)
            scalars[k] += a.masked_scalars[u][k];
    }
    return fl_secagg_unmask(&a.context, &a.cohort, &a.sharers, &a.survivors, &a.answered,
                            a.answers[0], vector, scalars, SCALARS, blamed, &error);
}

static void assert_plain_sum(const uint32_t *vector, const uint64_t *scalars)
{
    for (uint32_t k = 0; k < ELEMENTS; k++) {
        uint32_t sum = 0;
        for (uint32_t u = 0; u < a.n; u++)
            sum += a.survivors.has[u] ? a.plain[u][k] : 0;
        ck_assert_uint_eq(vector[k], sum);
    }
    for (uint32_t k = 0; k < SCALARS; k++) {
        uint64_t sum = 0;
        for (uint32_t u = 0; u < a.n; u++)
            sum += a.survivors.has[u] ? a.plain_scalars[u][k] : 0;
        ck_assert(scalars[k] == sum);
    }
}

/* Drop `after_keys` sites after KEYS, then `after_shares`, then `after_upload` before answering. */
static void walk(uint32_t n, uint32_t after_keys, uint32_t after_shares, uint32_t after_upload)
{
    uint32_t vector[ELEMENTS], blamed;
    uint64_t scalars[SCALARS];
    begin(n, (uint8_t)(n + 16 * after_keys + 64 * after_shares));
    join_all();
    for (uint32_t u = 0; u < n; u++) {
        a.sharers.has[u] = u >= after_keys;
        a.survivors.has[u] = u >= after_keys + after_shares;
        a.answered.has[u] = u >= after_keys + after_shares + after_upload;
    }
    share_all();
    mask_all();
    sign_all();
    answer_all();
    fl_assert_ok(unmask(vector, scalars, &blamed), &error);
    ck_assert_uint_eq(blamed, UINT32_MAX);
    assert_plain_sum(vector, scalars);
    end();
}

START_TEST(the_sum_is_exact_for_every_cohort_that_keeps_its_threshold)
{
    for (uint32_t n = 3; n <= SITES; n++) {
        uint32_t spare = n - fl_secagg_threshold(n);
        walk(n, 0, 0, 0);
        for (uint32_t k = 0; k <= spare; k++) {
            walk(n, k, 0, spare - k);
            walk(n, 0, k, spare - k);
            walk(n, k, spare - k, 0);
        }
    }
}
END_TEST

START_TEST(thresholds_are_those_of_the_design)
{
    ck_assert_uint_eq(fl_secagg_threshold(3), 3);
    ck_assert_uint_eq(fl_secagg_threshold(4), 3);
    ck_assert_uint_eq(fl_secagg_threshold(5), 4);
    ck_assert_uint_eq(fl_secagg_threshold(10), 7);
    ck_assert_uint_eq(fl_secagg_threshold(100), 67);
}
END_TEST

START_TEST(one_masked_update_alone_looks_random)
{
    begin(4, 1);
    join_all();
    memset(a.sharers.has, 1, 4);
    share_all();
    mask_all();
    uint32_t same = 0, ones = 0;
    for (uint32_t k = 0; k < ELEMENTS; k++) {
        same += a.masked[0][k] == a.plain[0][k];
        ones += (uint32_t)__builtin_popcount(a.masked[0][k] - a.plain[0][k]);
    }
    ck_assert_uint_eq(same, 0);
    ck_assert_uint_gt(ones, ELEMENTS * 15);
    ck_assert_uint_lt(ones, ELEMENTS * 17);
    end();
}
END_TEST

START_TEST(a_cohort_with_a_substituted_key_is_refused)
{
    struct fl_secagg_cohort out;
    begin(4, 2);
    a.adverts[2].mask_key[0] ^= 1; /* the coordinator puts its own key in */
    ck_assert_int_eq(fl_secagg_cohort_check(&a.context, a.adverts, 4, &out, &error), FL_EREFUSED);
    ck_assert_int_eq(fl_secagg_site_join(a.sites[0], a.adverts, 4, 3, &error), FL_EREFUSED);
    end();
    begin(4, 2);
    a.adverts[2] = a.adverts[1];
    ck_assert_int_eq(fl_secagg_site_join(a.sites[0], a.adverts, 4, 3, &error), FL_EREFUSED);
    ck_assert_int_eq(fl_secagg_site_join(a.sites[0], a.adverts, 2, 2, &error), FL_EREFUSED);
    ck_assert_int_eq(fl_secagg_site_join(a.sites[0], a.adverts + 1, 3, 3, &error), FL_EREFUSED);
    end();
    begin(4, 2); /* fewer than the site's policy demands */
    ck_assert_int_eq(fl_secagg_site_join(a.sites[0], a.adverts, 4, 5, &error), FL_EREFUSED);
    end();
}
END_TEST

START_TEST(adverts_of_another_attempt_or_adapter_are_refused)
{
    struct fl_secagg_cohort out;
    begin(3, 3);
    struct fl_secagg_context other = a.context;
    other.attempt++;
    ck_assert_int_eq(fl_secagg_cohort_check(&other, a.adverts, 3, &out, &error), FL_EREFUSED);
    other = a.context;
    other.start[5] ^= 1;
    ck_assert_int_eq(fl_secagg_cohort_check(&other, a.adverts, 3, &out, &error), FL_EREFUSED);
    other = a.context;
    other.elements++;
    ck_assert_int_eq(fl_secagg_cohort_check(&other, a.adverts, 3, &out, &error), FL_EREFUSED);
    end();
}
END_TEST

START_TEST(shares_open_for_their_receiver_and_direction_only)
{
    begin(4, 4);
    join_all();
    memset(a.sharers.has, 1, 4);
    for (uint32_t u = 0; u < 4; u++)
        fl_assert_ok(fl_secagg_site_share(a.sites[u], &entropy, a.sealed[u][0], &error), &error);
    ck_assert_int_eq(fl_secagg_site_take_share(a.sites[1], 0, a.sealed[0][2], &error), FL_EFORMAT);
    ck_assert_int_eq(fl_secagg_site_take_share(a.sites[1], 0, a.sealed[1][0], &error), FL_EFORMAT);
    a.sealed[0][1][40] ^= 1;
    ck_assert_int_eq(fl_secagg_site_take_share(a.sites[1], 0, a.sealed[0][1], &error), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "site-0"));
    /* who said nothing that opens cannot be among the sharers */
    ck_assert_int_eq(fl_secagg_site_mask(a.sites[1], &a.sharers, a.masked[1], a.masked_scalars[1],
                                         SCALARS, &error),
                     FL_EREFUSED);
    end();
}
END_TEST

START_TEST(nothing_is_done_twice)
{
    uint8_t signature[FL_SIGNATURE_BYTES], answer[4][FL_SCALAR_BYTES];
    begin(4, 5);
    join_all();
    ck_assert_int_eq(fl_secagg_site_join(a.sites[0], a.adverts, 4, 3, &error), FL_EREFUSED);
    memset(a.sharers.has, 1, 4);
    memset(a.survivors.has, 1, 4);
    memset(a.answered.has, 1, 4);
    share_all();
    ck_assert_int_eq(fl_secagg_site_share(a.sites[0], &entropy, a.sealed[0][0], &error),
                     FL_EREFUSED);
    mask_all();
    ck_assert_int_eq(fl_secagg_site_mask(a.sites[0], &a.sharers, a.masked[0], a.masked_scalars[0],
                                         SCALARS, &error),
                     FL_EREFUSED);
    sign_all();
    ck_assert_int_eq(fl_secagg_site_sign(a.sites[0], &a.survivors, a.keys[0], signature, &error),
                     FL_EREFUSED);
    answer_all();
    ck_assert_int_eq(fl_secagg_site_answer(a.sites[0], &a.survivors, &a.signed_by, a.signatures[0],
                                           answer[0], &error),
                     FL_EREFUSED);
    end();
}
END_TEST

START_TEST(two_lists_of_survivors_never_both_get_an_answer)
{
    uint8_t answer[5][FL_SCALAR_BYTES];
    begin(5, 6);
    join_all();
    memset(a.sharers.has, 1, 5);
    memset(a.survivors.has, 1, 5);
    share_all();
    mask_all();
    sign_all();
    struct fl_secagg_set fewer = a.survivors;
    fewer.has[4] = false; /* the coordinator shows another list than was signed */
    ck_assert_int_eq(
        fl_secagg_site_answer(a.sites[0], &fewer, &a.signed_by, a.signatures[0], answer[0], &error),
        FL_EREFUSED);
    /* and a signature that is not one counts for nothing */
    a.signatures[2][0] ^= 1;
    ck_assert_int_eq(fl_secagg_site_answer(a.sites[0], &a.survivors, &a.signed_by, a.signatures[0],
                                           answer[0], &error),
                     FL_EREFUSED);
    a.signed_by.has[2] = a.signed_by.has[3] = false; /* three of the four that are needed */
    ck_assert_int_eq(fl_secagg_site_answer(a.sites[0], &a.survivors, &a.signed_by, a.signatures[0],
                                           answer[0], &error),
                     FL_EREFUSED);
    end();
}
END_TEST

START_TEST(survivors_must_have_shared_and_be_enough)
{
    uint8_t signature[FL_SIGNATURE_BYTES];
    begin(5, 7);
    join_all();
    for (uint32_t u = 0; u < 4; u++)
        a.sharers.has[u] = true;
    share_all();
    mask_all();
    struct fl_secagg_set set = a.sharers;
    set.has[4] = true; /* never shared */
    ck_assert_int_eq(fl_secagg_site_sign(a.sites[0], &set, a.keys[0], signature, &error),
                     FL_EREFUSED);
    set = a.sharers;
    set.has[3] = false; /* three of five */
    ck_assert_int_eq(fl_secagg_site_sign(a.sites[0], &set, a.keys[0], signature, &error),
                     FL_EREFUSED);
    set = a.sharers;
    set.has[0] = false; /* without the site itself */
    ck_assert_int_eq(fl_secagg_site_sign(a.sites[0], &set, a.keys[0], signature, &error),
                     FL_EREFUSED);
    end();
}
END_TEST

START_TEST(an_answer_holds_one_share_of_each_member_and_of_the_right_kind)
{
    uint32_t vector[ELEMENTS];
    uint64_t scalars[SCALARS];
    begin(4, 8);
    join_all();
    memset(a.sharers.has, 1, 4);
    for (uint32_t u = 1; u < 4; u++)
        a.survivors.has[u] = a.answered.has[u] = true;
    share_all();
    mask_all();
    sign_all();
    answer_all();
    fl_assert_ok(unmask(vector, scalars, NULL), &error);
    assert_plain_sum(vector, scalars);
    /* what was answered of the dropout does not open its self-mask: unmasking it as a survivor
       fails */
    a.survivors.has[0] = true;
    ck_assert_int_eq(unmask(vector, scalars, NULL), FL_EFORMAT);
    end();
}
END_TEST

START_TEST(a_wrong_share_is_found_and_its_giver_blamed)
{
    uint32_t vector[ELEMENTS], blamed;
    uint64_t scalars[SCALARS];
    begin(10, 9);
    join_all();
    memset(a.sharers.has, 1, 10);
    memset(a.survivors.has, 1, 10);
    memset(a.answered.has, 1, 10);
    share_all();
    mask_all();
    sign_all();
    answer_all();
    a.answers[2 * 10 + 5][0] ^= 1; /* member 2 lies about member 5 */
    fl_assert_ok(unmask(vector, scalars, &blamed), &error);
    ck_assert_uint_eq(blamed, 2);
    assert_plain_sum(vector, scalars);
    for (uint32_t u = 6; u < 10; u++)
        a.answered.has[u] = false; /* six answers are not seven */
    ck_assert_int_eq(unmask(vector, scalars, &blamed), FL_EFORMAT);
    end();
}
END_TEST

START_TEST(a_share_that_never_opened_costs_nothing_while_others_are_enough)
{
    uint32_t vector[ELEMENTS], blamed;
    uint64_t scalars[SCALARS];
    begin(5, 10);
    join_all();
    memset(a.sharers.has, 1, 5);
    memset(a.answered.has, 1, 5);
    memset(a.survivors.has, 1, 5);
    for (uint32_t u = 0; u < 5; u++)
        fl_assert_ok(fl_secagg_site_share(a.sites[u], &entropy, a.sealed[u][0], &error), &error);
    a.sealed[3][0][50] ^= 1; /* site 3 gives site 0 rubbish */
    for (uint32_t u = 0; u < 5; u++) {
        for (uint32_t v = 0; v < 5; v++) {
            if (u != v)
                ck_assert_int_eq(fl_secagg_site_take_share(a.sites[v], u, a.sealed[u][v], &error),
                                 u == 3 && v == 0 ? FL_EFORMAT : FL_OK);
        }
    }
    mask_all();
    sign_all();
    answer_all();
    fl_assert_ok(unmask(vector, scalars, &blamed), &error);
    ck_assert_uint_eq(blamed, UINT32_MAX); /* site 0 withheld nothing that it had */
    assert_plain_sum(vector, scalars);
    a.answered.has[1] = false; /* three shares of site 3 are not four */
    ck_assert_int_eq(unmask(vector, scalars, &blamed), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "site-3"));
    end();
}
END_TEST

START_TEST(adverts_travel_as_bytes_and_only_names_are_names)
{
    uint8_t bytes[FL_SECAGG_ADVERT_BYTES];
    struct fl_secagg_advert out;
    begin(3, 11);
    fl_secagg_advert_encode(&a.adverts[1], bytes);
    ck_assert_int_eq(fl_secagg_advert_decode(bytes, &out), FL_OK);
    ck_assert_mem_eq(&out, &a.adverts[1], sizeof(out));
    memset(bytes, 'a', FL_NAME_BYTES);
    ck_assert_int_eq(fl_secagg_advert_decode(bytes, &out), FL_EFORMAT);
    memset(bytes, 0, FL_NAME_BYTES);
    ck_assert_int_eq(fl_secagg_advert_decode(bytes, &out), FL_EFORMAT);
    memcpy(bytes, "../x", 4);
    ck_assert_int_eq(fl_secagg_advert_decode(bytes, &out), FL_EFORMAT);
    end();
}
END_TEST

START_TEST(ranks_travel_in_runs_and_each_row_is_what_its_site_signed)
{
    uint16_t got[SITES][MODULES], lie[SITES][MODULES];
    struct fl_buf bytes;
    fl_buf_init(&bytes, 4096);
    begin(SITES, 12);
    ck_assert_int_eq(fl_secagg_plan_encode(plan[0], SITES, MODULES, &bytes), FL_OK);
    fl_assert_ok(
        fl_secagg_plan_decode(bytes.data, bytes.length, &a.cohort, MODULES, got[0], &error),
        &error);
    ck_assert_mem_eq(got, plan, sizeof(got));
    for (size_t cut = 0; cut < bytes.length; cut++)
        ck_assert_int_ne(fl_secagg_plan_decode(bytes.data, cut, &a.cohort, MODULES, got[0], &error),
                         FL_OK);
    fl_buf_free(&bytes);
    memcpy(lie, plan, sizeof(lie));
    lie[2][0] = 8; /* so that rank 8 seems to have one trainer more */
    ck_assert_int_eq(fl_secagg_plan_encode(lie[0], SITES, MODULES, &bytes), FL_OK);
    ck_assert_int_eq(
        fl_secagg_plan_decode(bytes.data, bytes.length, &a.cohort, MODULES, got[0], &error),
        FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "site-2"));
    fl_buf_free(&bytes);
    end();
}
END_TEST

START_TEST(who_evaluated_is_signed_with_the_ranks)
{
    bool measures = true;
    begin(SITES, 12);
    struct fl_secagg_advert advert = a.adverts[2];
    ck_assert_int_eq(fl_secagg_ranks_verify(&advert, plan[2], MODULES, &measures), FL_OK);
    ck_assert(!measures);
    fl_secagg_measured_hash(advert.ranks, advert.ranks);
    ck_assert_int_eq(fl_secagg_ranks_verify(&advert, plan[2], MODULES, &measures), FL_OK);
    ck_assert(measures);
    ck_assert_int_eq(fl_secagg_ranks_verify(&advert, plan[0], MODULES, NULL), FL_EREFUSED);
    ck_assert_int_eq(fl_secagg_advert_verify(&a.context, &advert), FL_EREFUSED); /* not its word */
    end();
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_share_that_never_opened_costs_nothing_while_others_are_enough);
    tcase_add_test(tc, adverts_travel_as_bytes_and_only_names_are_names);
    tcase_add_test(tc, who_evaluated_is_signed_with_the_ranks);
    tcase_add_test(tc, ranks_travel_in_runs_and_each_row_is_what_its_site_signed);
    tcase_add_test(tc, the_sum_is_exact_for_every_cohort_that_keeps_its_threshold);
    tcase_add_test(tc, thresholds_are_those_of_the_design);
    tcase_add_test(tc, one_masked_update_alone_looks_random);
    tcase_add_test(tc, a_cohort_with_a_substituted_key_is_refused);
    tcase_add_test(tc, adverts_of_another_attempt_or_adapter_are_refused);
    tcase_add_test(tc, shares_open_for_their_receiver_and_direction_only);
    tcase_add_test(tc, nothing_is_done_twice);
    tcase_add_test(tc, two_lists_of_survivors_never_both_get_an_answer);
    tcase_add_test(tc, survivors_must_have_shared_and_be_enough);
    tcase_add_test(tc, an_answer_holds_one_share_of_each_member_and_of_the_right_kind);
    tcase_add_test(tc, a_wrong_share_is_found_and_its_giver_blamed);
}
FL_TEST_MAIN("secagg", add_tests)
