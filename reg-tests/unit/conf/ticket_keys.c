/* Keys of tickets as a file spells them, and what is no key. */
#include "conf/ticket_keys.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ZEROS64 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define KEY64 "A" ZEROS64 "="          /* 80 bytes of nothing */
#define ONES8 "0101010101010101"
#define KEYHEX ONES8 ONES8 ONES8 ONES8 ONES8 ONES8 ONES8 ONES8 ONES8 ONES8

static uint8_t keys[TICKET_KEYS_MAX][TICKET_KEY_BYTES];
static char err[200];

static int parse(const char *text)
{
	memset(keys, 0xff, sizeof(keys));
	err[0] = '\0';
	return ticket_keys_parse(text, keys, err, sizeof(err));
}

static void good(void **state)
{
	static const uint8_t zeros[TICKET_KEY_BYTES];

	assert_int_equal(strlen(KEY64), 108);
	assert_int_equal(parse(KEY64), 1);
	assert_memory_equal(keys[0], zeros, sizeof(zeros));
	assert_int_equal(keys[1][0], 0xff);
	assert_int_equal(parse("# first\n\n  " KEYHEX "\t# ours\r\n" KEY64 "\n"), 2);
	for (int i = 0; i < TICKET_KEY_BYTES; i++)
		assert_int_equal(keys[0][i], 1);
	assert_memory_equal(keys[1], zeros, sizeof(zeros));
}

/* What `openssl rand -base64` says of the bytes 0, 1, 2 ... 79. */
static void base64(void **state)
{
	assert_int_equal(parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk8="), 1);
	for (int i = 0; i < TICKET_KEY_BYTES; i++)
		assert_int_equal(keys[0][i], i);
}

static void bad(void **state)
{
	char many[(TICKET_KEYS_MAX + 1) * 109 + 1] = "";

	assert_int_equal(parse("# nothing\n\n"), -1);
	assert_string_equal(err, "there is no key in it (mctunnel-pki ticket-key makes one)");
	assert_int_equal(parse(KEY64 "\n" ZEROS64 "=\n"), -1);
	assert_string_equal(err, "line 2 is no key: 80 bytes as base64 (108 characters) or as hexadecimal digits (160)");
	assert_int_equal(parse("A" ZEROS64), -1);
	assert_int_equal(parse(KEY64 "="), -1);
	assert_int_equal(parse(KEY64 KEY64), -1);
	assert_int_equal(parse(KEYHEX "00"), -1);
	assert_int_equal(parse("x" KEYHEX), -1);
	for (int i = 0; i < TICKET_KEYS_MAX; i++)
		strncat(many, KEY64 "\n", sizeof(many) - strlen(many) - 1);
	assert_int_equal(parse(many), TICKET_KEYS_MAX);
	strncat(many, KEY64 "\n", sizeof(many) - strlen(many) - 1);
	assert_int_equal(parse(many), -1);
	assert_string_equal(err, "line 17: there are more than 16 keys");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(good), cmocka_unit_test(base64), cmocka_unit_test(bad) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
