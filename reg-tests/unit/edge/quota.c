/* Limits of client addresses: sessions at once, new ones a second, prefixes, and a table that stays bounded. */
#include "edge/quota.c"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "../failing.h"

static struct addr address(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, text), 0);
	return a;
}

static struct conf_limits limits(uint32_t sessions, uint32_t rate, uint32_t clients)
{
	return (struct conf_limits){ .client_sessions = sessions, .client_rate = rate, .client_prefix4 = 32, .client_prefix6 = 64, .clients = clients };
}

static enum quota_result come(struct quota *q, const struct conf_limits *l, const char *text, struct visitor **v)
{
	struct addr a = address(text);
	uint64_t wait = 0;

	return quota_enter(q, l, &a, v, &wait);
}

static void who_cannot_be_counted_does_not_come_in(void **state)
{
	struct quota *q = quota_new();
	struct conf_limits l = limits(1, 0, 100);
	struct addr a = address("192.0.2.1:1");
	struct visitor *v = NULL;
	uint64_t wait = 0;

	failing = 1;
	assert_int_equal(quota_enter(q, &l, &a, &v, &wait), QUOTA_RESOURCES);
	assert_true(has_failed());
	assert_null(v);
	assert_int_equal(come(q, &l, "192.0.2.1:1", &v), QUOTA_OK);
	quota_leave(q, v);
	quota_free(q);
}

static void sessions_at_once(void **state)
{
	struct quota *q = quota_new();
	struct conf_limits l = limits(2, 0, 100);
	struct visitor *a, *b, *c;

	assert_int_equal(come(q, &l, "192.0.2.1:1", &a), QUOTA_OK);
	assert_int_equal(come(q, &l, "[::ffff:192.0.2.1]:2", &b), QUOTA_OK);
	assert_ptr_equal(a, b);
	assert_int_equal(come(q, &l, "192.0.2.1:3", &c), QUOTA_SESSIONS);
	assert_null(c);
	assert_int_equal(come(q, &l, "192.0.2.2:3", &c), QUOTA_OK);
	quota_leave(q, a);
	quota_leave(q, c);
	assert_int_equal(come(q, &l, "192.0.2.1:3", &a), QUOTA_OK);
	quota_leave(q, a);
	quota_leave(q, b);
	assert_int_equal(quota_visitors(q), 2);
	quota_free(q);
}

static void new_ones_a_second(void **state)
{
	struct quota *q = quota_new();
	struct conf_limits l = limits(0, 10, 100);
	struct addr a = address("192.0.2.1:1");
	struct visitor *v;
	uint64_t wait = 0;

	clock_set_us(100 * 1000000);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(quota_enter(q, &l, &a, &v, &wait), QUOTA_OK);
		quota_leave(q, v);
	}
	assert_int_equal(quota_enter(q, &l, &a, &v, &wait), QUOTA_RATE);
	assert_int_equal(wait, 100);
	clock_set_us(100 * 1000000 + 100000);
	assert_int_equal(quota_enter(q, &l, &a, &v, &wait), QUOTA_OK);
	assert_int_equal(quota_again(q, &l, v, &wait), QUOTA_RATE);
	clock_set_us(102 * 1000000);
	assert_int_equal(quota_again(q, &l, v, &wait), QUOTA_OK);
	quota_leave(q, v);
	quota_free(q);
}

static void prefixes_make_one_client(void **state)
{
	struct quota *q = quota_new();
	struct conf_limits l = limits(1, 0, 100);
	struct visitor *a, *b;

	l.client_prefix4 = 24;
	assert_int_equal(come(q, &l, "192.0.2.1:1", &a), QUOTA_OK);
	assert_int_equal(come(q, &l, "192.0.2.200:1", &b), QUOTA_SESSIONS);
	assert_int_equal(come(q, &l, "192.0.3.1:1", &b), QUOTA_OK);
	quota_leave(q, a);
	quota_leave(q, b);
	assert_int_equal(come(q, &l, "[2001:db8::1]:1", &a), QUOTA_OK);
	assert_int_equal(come(q, &l, "[2001:db8::ffff:1:2:3]:1", &b), QUOTA_SESSIONS);
	assert_int_equal(come(q, &l, "[2001:db8:0:1::1]:1", &b), QUOTA_OK);
	quota_leave(q, a);
	quota_leave(q, b);
	quota_free(q);
}

static void the_table_stays_bounded(void **state)
{
	struct quota *q = quota_new();
	struct conf_limits l = limits(1, 0, 160);
	struct visitor *v, *kept;
	char text[32];

	clock_set_us(1000 * 1000000ull);
	assert_int_equal(come(q, &l, "198.51.100.1:1", &kept), QUOTA_OK);
	for (int i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "10.0.%d.%d:1", i / 250, i % 250);
		assert_int_equal(come(q, &l, text, &v), QUOTA_OK);
		quota_leave(q, v);
		assert_true(quota_visitors(q) <= 160);
	}
	/* who is there is not forgotten */
	assert_int_equal(come(q, &l, "198.51.100.1:2", &v), QUOTA_SESSIONS);
	quota_leave(q, kept);
	/* who is quiet is */
	clock_set_us(1100 * 1000000ull);
	for (int i = 0; i < 400; i++) {
		snprintf(text, sizeof(text), "10.1.0.%d:1", i % 20);
		assert_int_equal(come(q, &l, text, &v), QUOTA_OK);
		quota_leave(q, v);
	}
	assert_true(quota_visitors(q) < 100);
	quota_free(q);
}

/* Only addresses with sessions are left: others go unlimited. */
static void a_full_table_lets_others_in(void **state)
{
	struct quota *q = quota_new();
	struct conf_limits l = limits(1, 0, 16);
	struct visitor *v[200];
	char text[32];
	int untracked = 0;

	for (int i = 0; i < 200; i++) {
		snprintf(text, sizeof(text), "10.0.0.%d:1", i);
		assert_int_equal(come(q, &l, text, &v[i]), QUOTA_OK);
		untracked += v[i] == NULL;
	}
	assert_true(untracked >= 184);
	for (int i = 0; i < 200; i++)
		quota_leave(q, v[i]);
	quota_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sessions_at_once),
		cmocka_unit_test(new_ones_a_second),
		cmocka_unit_test(prefixes_make_one_client),
		cmocka_unit_test(the_table_stays_bounded),
		cmocka_unit_test(a_full_table_lets_others_in),
		cmocka_unit_test(who_cannot_be_counted_does_not_come_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
