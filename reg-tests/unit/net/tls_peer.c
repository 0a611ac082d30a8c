/* What is packed is unpacked the same; what nobody has packed is not unpacked, wherever it is cut. */
#define _GNU_SOURCE
#include "mctunnel/net/tls_peer.h"

#include "mctunnel/base/rnd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tls_peer *make(const char *texts, size_t len)
{
	struct tls_peer *p = tls_peer_new(len);

	assert_non_null(p);
	p->since = -5;
	p->until = INT64_MAX;
	p->proved = 1700000000;
	memset(p->authority, 0xa5, sizeof(p->authority));
	memcpy(p->serial, "\x02\x01\x07", 3);
	p->serial_len = 3;
	memcpy(p->texts, texts, len);
	return p;
}

static void there_and_back(void **state)
{
	struct tls_peer *p = make("CN=edge-1\0edge-1\0edge-1.test", 29), *q;
	uint8_t packed[TLS_PEER_PACKED];
	size_t len = tls_peer_pack(p, packed);

	assert_true(len > 0);
	q = tls_peer_unpack(packed, len);
	assert_non_null(q);
	assert_memory_equal(p, q, sizeof(*p) + p->texts_len);
	assert_string_equal(tls_peer_text(q, 0), "CN=edge-1");
	assert_string_equal(tls_peer_text(q, 1), "edge-1");
	assert_string_equal(tls_peer_text(q, 2), "edge-1.test");
	assert_null(tls_peer_text(q, 3));
	assert_null(tls_peer_text(q, 4));
	free(p);
	free(q);
}

static void a_subject_alone(void **state)
{
	struct tls_peer *p = make("", 1), *q;
	uint8_t packed[TLS_PEER_PACKED];

	q = tls_peer_unpack(packed, tls_peer_pack(p, packed));
	assert_non_null(q);
	assert_string_equal(tls_peer_text(q, 0), "");
	assert_null(tls_peer_text(q, 1));
	free(p);
	free(q);
}

static void too_long_to_pack(void **state)
{
	char texts[TLS_PEER_PACKED] = "";
	uint8_t packed[TLS_PEER_PACKED];
	size_t rest;
	struct tls_peer *p = make("x", 2);

	rest = TLS_PEER_PACKED - tls_peer_pack(p, packed) + 2;
	free(p);
	p = make(texts, rest);
	assert_int_equal(tls_peer_pack(p, packed), TLS_PEER_PACKED);
	free(p);
	p = make(texts, rest + 1);
	assert_int_equal(tls_peer_pack(p, packed), 0);
	free(p);
}

/* In a block of its very length, so that a byte too many is seen. */
static bool unpacks(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	struct tls_peer *p;

	memcpy(copy, bytes, len);
	p = tls_peer_unpack(copy, len);
	free(copy);
	for (size_t i = 0; p && tls_peer_text(p, i); i++)
		assert_true(strlen(tls_peer_text(p, i)) < TLS_PEER_PACKED);
	free(p);
	return p != NULL;
}

static void what_nobody_has_packed(void **state)
{
	struct tls_peer *p = make("CN=a\0a", 7);
	uint8_t packed[TLS_PEER_PACKED], bad[TLS_PEER_PACKED + 1] = { 0 };
	size_t len = tls_peer_pack(p, packed), head = len - 7 - 3;

	free(p);
	assert_true(unpacks(packed, len));
	for (size_t cut = 0; cut <= head + 3; cut++)
		assert_false(unpacks(packed, cut));
	assert_false(unpacks(packed, len - 1)); /* without the last NUL */
	memcpy(bad, packed, len);
	bad[0] = 2; /* another version */
	assert_false(unpacks(bad, len));
	memcpy(bad, packed, len);
	for (int n = 0; n < 256; n++) { /* lengths of a serial number that is longer than what there is, than we keep, or empty */
		bad[head - 1] = (uint8_t)n;
		assert_int_equal(unpacks(bad, len), n > 0 && n < 10);
	}
	memcpy(bad, packed, len);
	assert_false(unpacks(bad, sizeof(bad)));
}

static void noise(void **state)
{
	uint8_t bytes[200];

	rnd_seed(5);
	for (int i = 0; i < 20000; i++) {
		size_t len = rnd_below(sizeof(bytes));

		for (size_t k = 0; k < len; k++)
			bytes[k] = (uint8_t)rnd_u64();
		bytes[0] = 1;
		if (i % 2 && len > 60)
			bytes[57] = (uint8_t)rnd_below(70);
		(void)unpacks(bytes, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(a_subject_alone),
		cmocka_unit_test(too_long_to_pack),
		cmocka_unit_test(what_nobody_has_packed),
		cmocka_unit_test(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
