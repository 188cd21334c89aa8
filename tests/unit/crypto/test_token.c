/*
 * Goal: a token survives being printed and read, every damage is noticed, a Join proves what it
 * must. Method: round trips; each character of a token altered, each length cut; each field of a
 * Join changed.
 */
#include <stdio.h>
#include <string.h>

#include "crypto/token.h"
#include "runner.h"

static struct fl_error error;

static struct fl_token make_token(const char *address)
{
    struct fl_token token = {.expires_ms = 1893456000000};
    fl_token_draw(&token, fl_entropy_system());
    memset(token.coordinator, 7, sizeof(token.coordinator));
    (void)snprintf(token.address, sizeof(token.address), "%s", address);
    return token;
}

START_TEST(a_token_is_the_same_after_printing_and_reading)
{
    const struct fl_token token = make_token("tcp://coordinator.example.org:9750");
    struct fl_token back;
    char text[FL_TOKEN_TEXT_BYTES], padded[FL_TOKEN_TEXT_BYTES + 8];
    fl_token_encode(&token, text);
    ck_assert_int_eq(strncmp(text, "fljoin1:", 8), 0);
    (void)snprintf(padded, sizeof(padded), "  %s\r\n", text);
    fl_assert_ok(fl_token_parse(padded, &back, &error), &error);
    ck_assert_str_eq(back.address, token.address);
    ck_assert_mem_eq(back.secret, token.secret, sizeof(token.secret));
    ck_assert_mem_eq(back.invitation, token.invitation, sizeof(token.invitation));
    ck_assert_mem_eq(back.coordinator, token.coordinator, sizeof(token.coordinator));
    ck_assert_int_eq(back.expires_ms, token.expires_ms);
}
END_TEST

START_TEST(the_longest_address_fits)
{
    char address[FL_ADDRESS_BYTES];
    memset(address, 'a', sizeof(address));
    memcpy(address, "tcp://", 6);
    address[sizeof(address) - 1] = '\0';
    const struct fl_token token = make_token(address);
    struct fl_token back;
    char text[FL_TOKEN_TEXT_BYTES];
    fl_token_encode(&token, text);
    fl_assert_ok(fl_token_parse(text, &back, &error), &error);
    ck_assert_str_eq(back.address, address);
}
END_TEST

START_TEST(a_token_with_any_damage_is_refused)
{
    const struct fl_token token = make_token("tcp://10.0.0.1:9750");
    struct fl_token back;
    char text[FL_TOKEN_TEXT_BYTES];
    fl_token_encode(&token, text);
    const size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        const char old = text[i];
        text[i] = old == 'Q' ? 'R' : 'Q';
        ck_assert_int_eq(fl_token_parse(text, &back, &error), FL_EFORMAT);
        text[i] = old;
    }
    for (size_t i = length; i-- > 0;) {
        text[i] = '\0';
        ck_assert_int_eq(fl_token_parse(text, &back, &error), FL_EFORMAT);
    }
    ck_assert_int_eq(fl_token_parse("fljoin1:!!!", &back, &error), FL_EFORMAT);
}
END_TEST

START_TEST(a_token_longer_than_any_is_refused)
{
    char text[2000];
    struct fl_token back;
    memset(text, 'A', sizeof(text));
    memcpy(text, "fljoin1:", 8);
    text[sizeof(text) - 1] = '\0';
    ck_assert_int_eq(fl_token_parse(text, &back, &error), FL_EFORMAT);
}
END_TEST

START_TEST(a_join_proves_secret_coordinator_keys_and_name)
{
    struct fl_keys *site = NULL, *other = NULL;
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &site), FL_OK);
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &other), FL_OK);
    struct fl_token token = make_token("tcp://10.0.0.1:9750");
    uint8_t mac[FL_JOIN_MAC_BYTES], signature[FL_SIGNATURE_BYTES];
    struct fl_identity mine = *fl_keys_public(site);
    fl_join_mac(token.secret, token.coordinator, &mine, "clinic", mac);
    fl_keys_sign(site, FL_JOIN_LABEL, mac, sizeof(mac), signature);
#define CHECK(name) fl_join_check(token.secret, token.coordinator, &mine, (name), mac, signature)
    ck_assert_int_eq(CHECK("clinic"), FL_OK);
    ck_assert_int_eq(CHECK("clinics"), FL_EREFUSED);
    token.secret[0] ^= 1;
    ck_assert_int_eq(CHECK("clinic"), FL_EREFUSED);
    token.secret[0] ^= 1, token.coordinator[31] ^= 1;
    ck_assert_int_eq(CHECK("clinic"), FL_EREFUSED);
    token.coordinator[31] ^= 1, mine = *fl_keys_public(other);
    ck_assert_int_eq(CHECK("clinic"), FL_EREFUSED);
    mine = *fl_keys_public(site);
    fl_keys_sign(other, FL_JOIN_LABEL, mac, sizeof(mac), signature);
    ck_assert_int_eq(CHECK("clinic"), FL_EREFUSED);
#undef CHECK
    fl_keys_destroy(&site);
    fl_keys_destroy(&other);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_token_is_the_same_after_printing_and_reading);
    tcase_add_test(tc, the_longest_address_fits);
    tcase_add_test(tc, a_token_with_any_damage_is_refused);
    tcase_add_test(tc, a_token_longer_than_any_is_refused);
    tcase_add_test(tc, a_join_proves_secret_coordinator_keys_and_name);
}

FL_TEST_MAIN("crypto.token", add_tests)
