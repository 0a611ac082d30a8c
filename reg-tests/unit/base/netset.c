/* Sets of networks: what parses, what holds what, and that the trie agrees with a list that is read from end to end. */
#include "mctunnel/base/netset.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct addr ip(const char *text)
{
	struct addr a = { 0 };

	if (strchr(text, ':')) {
		a.len = sizeof(a.u.in6);
		a.u.in6.sin6_family = AF_INET6;
		assert_int_equal(inet_pton(AF_INET6, text, &a.u.in6.sin6_addr), 1);
	} else {
		a.len = sizeof(a.u.in4);
		a.u.in4.sin_family = AF_INET;
		assert_int_equal(inet_pton(AF_INET, text, &a.u.in4.sin_addr), 1);
	}
	return a;
}

static void add(struct netset *s, const char *text, uint32_t value)
{
	char err[256];

	if (netset_add(s, text, value, err, sizeof(err)) < 0)
		fail_msg("%s", err);
}

static bool has(const char *network, const char *address)
{
	struct netset *s = netset_new();
	struct addr a = ip(address);

	add(s, network, 1);
	bool yes = netset_has(s, &a);
	netset_free(s);
	return yes;
}

static void networks_hold_their_addresses(void **state)
{
	assert_true(has("192.0.2.0/24", "192.0.2.0"));
	assert_true(has("192.0.2.0/24", "192.0.2.255"));
	assert_false(has("192.0.2.0/24", "192.0.3.0"));
	assert_false(has("192.0.2.0/24", "192.0.1.255"));
	assert_true(has("192.0.2.7", "192.0.2.7"));
	assert_false(has("192.0.2.7", "192.0.2.6"));
	assert_true(has("192.0.2.7/32", "192.0.2.7"));
	assert_true(has("0.0.0.0/0", "255.255.255.255"));
	assert_false(has("0.0.0.0/0", "::1"));
	assert_true(has("10.0.0.0/9", "10.127.255.255"));
	assert_false(has("10.0.0.0/9", "10.128.0.0"));
	assert_true(has("2001:db8::/32", "2001:db8:ffff::1"));
	assert_false(has("2001:db8::/32", "2001:db9::"));
	assert_true(has("::1", "::1"));
	assert_true(has("::/0", "fe80::1"));
	assert_true(has("*", "::1"));
	assert_true(has("*", "127.0.0.1"));
}

static void mapped_addresses_are_ipv4(void **state)
{
	assert_true(has("192.0.2.0/24", "::ffff:192.0.2.9"));
	assert_true(has("::ffff:192.0.2.0/120", "192.0.2.9"));
	assert_true(has("::ffff:192.0.2.9", "::ffff:192.0.2.9"));
	assert_false(has("::/0", "::ffff:192.0.2.9"));
	assert_true(has("*", "::ffff:192.0.2.9"));
}

static void others_have_no_network(void **state)
{
	struct netset *s = netset_new();
	struct addr none = { 0 }, local = { .len = 10 };

	local.u.un.sun_family = AF_UNIX;
	add(s, "*", 1);
	assert_false(netset_has(s, &none));
	assert_false(netset_has(s, &local));
	netset_free(s);
}

static void wrong_networks_are_refused(void **state)
{
	static const struct {
		const char *text, *words;
	} wrong[] = {
		{ "", "is no address or network" },
		{ "192.0.2", "is no address or network" },
		{ "192.0.2.300", "is no address or network" },
		{ "example.com", "is no address or network" },
		{ "192.0.2.1:80", "is no address or network" },
		{ "[::1]", "is no address or network" },
		{ "fe80::1%eth0", "is no address or network" },
		{ " 192.0.2.1", "is no address or network" },
		{ "192.0.2.0/", "from 0 to 32" },
		{ "192.0.2.0/33", "from 0 to 32" },
		{ "192.0.2.0/255.255.255.0", "from 0 to 32" },
		{ "192.0.2.0/-1", "from 0 to 32" },
		{ "::/129", "from 0 to 128" },
		{ "192.0.2.5/24", "\"192.0.2.0/24\" is the network, \"192.0.2.5\" the address" },
		{ "10.0.0.0/7", "\"10.0.0.0/7\" is the network" }, /* 00001010: its last bit within /7 stays */
		{ "2001:db8::1/32", "\"2001:db8::/32\" is the network, \"2001:db8::1\" the address" },
		{ "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", "is no address or network" },
	};
	char err[256];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct netset *s = netset_new();
		int rc = netset_add(s, wrong[i].text, 1, err, sizeof(err));

		if (strcmp(wrong[i].text, "10.0.0.0/7") == 0)
			assert_int_equal(rc, 0);
		else if (rc == 0 || !strstr(err, wrong[i].words))
			fail_msg("%s: \"%s\" does not say \"%s\"", wrong[i].text, rc ? err : "(accepted)", wrong[i].words);
		netset_free(s);
	}
}

static void networks_cover_others(void **state)
{
	struct netset *s = netset_new();

	add(s, "10.0.0.0/8", 1);
	add(s, "2001:db8::/32", 1);
	assert_true(netset_covers(s, "10.0.0.0/8"));
	assert_true(netset_covers(s, "10.1.0.0/16"));
	assert_true(netset_covers(s, "10.1.2.3"));
	assert_true(netset_covers(s, "::ffff:10.1.2.3"));
	assert_true(netset_covers(s, "2001:db8:1::/48"));
	assert_false(netset_covers(s, "0.0.0.0/0"));
	assert_false(netset_covers(s, "11.0.0.0/8"));
	assert_false(netset_covers(s, "2001:db8::/31"));
	assert_false(netset_covers(s, "*"));
	assert_false(netset_covers(s, "nonsense"));
	add(s, "*", 1);
	assert_true(netset_covers(s, "*"));
	assert_true(netset_covers(s, "0.0.0.0/0"));
	netset_free(s);
}

#define NETWORKS 300

struct seen {
	uint32_t v[NETWORKS];
	size_t n, most;
};

static bool see(void *arg, uint32_t value)
{
	struct seen *s = arg;

	s->v[s->n++] = value;
	return s->n < s->most;
}

static unsigned lot = 1;

static uint32_t draw(void)
{
	lot = lot * 1103515245u + 12345u;
	return lot >> 8;
}

/* Near each other, so that they nest and part at every bit. */
static uint32_t near_by(void)
{
	return 0x0a000000u | (draw() & 0x8001ff);
}

static bool holds(uint32_t net, unsigned bits, uint32_t a)
{
	return bits == 0 || (net ^ a) >> (32 - bits) == 0;
}

static struct addr make(uint32_t n, bool v6)
{
	char text[64];

	if (v6)
		snprintf(text, sizeof(text), "2001:db8::%x:%x", n >> 16, n & 0xffff);
	else
		snprintf(text, sizeof(text), "%u.%u.%u.%u", n >> 24, n >> 16 & 255, n >> 8 & 255, n & 255);
	return ip(text);
}

static void agree(bool v6)
{
	struct netset *s = netset_new();
	uint32_t net[NETWORKS];
	unsigned bits[NETWORKS];

	for (uint32_t i = 0; i < NETWORKS; i++) {
		char text[80], host[ADDR_TEXT];
		struct addr a;

		bits[i] = draw() % 33;
		net[i] = bits[i] ? near_by() & ~0u << (32 - bits[i]) : 0;
		a = make(net[i], v6);
		snprintf(text, sizeof(text), "%s/%u", addr_host_text(&a, host, sizeof(host)), bits[i] + (v6 ? 96 : 0));
		add(s, text, i);
	}
	for (int k = 0; k < 2000; k++) {
		uint32_t at = k % 3 ? near_by() : draw();
		struct addr a = make(at, v6);
		struct seen seen = { .most = NETWORKS + 1 };
		size_t expected = 0;

		netset_each(s, &a, see, &seen);
		for (uint32_t i = 0; i < NETWORKS; i++)
			expected += holds(net[i], bits[i], at);
		assert_int_equal(seen.n, expected);
		for (size_t i = 0; i < seen.n; i++) {
			assert_true(holds(net[seen.v[i]], bits[seen.v[i]], at));
			assert_true(i == 0 || bits[seen.v[i]] >= bits[seen.v[i - 1]]);
			for (size_t j = 0; j < i; j++)
				assert_int_not_equal(seen.v[i], seen.v[j]);
		}
		assert_int_equal(netset_has(s, &a), expected > 0);
		if (expected > 1) {
			struct seen some = { .most = 1 };
			netset_each(s, &a, see, &some);
			assert_int_equal(some.n, 1);
		}
	}
	netset_free(s);
}

static void the_trie_agrees_with_a_list(void **state)
{
	for (int i = 0; i < 10; i++) {
		agree(false);
		agree(true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(networks_hold_their_addresses),
		cmocka_unit_test(mapped_addresses_are_ipv4),
		cmocka_unit_test(others_have_no_network),
		cmocka_unit_test(wrong_networks_are_refused),
		cmocka_unit_test(networks_cover_others),
		cmocka_unit_test(the_trie_agrees_with_a_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
