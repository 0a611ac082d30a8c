/* The certificate is cut out of the encoding of a session, or it stays as it was. What becomes of tickets is shown in tls.c. */
#define _GNU_SOURCE
#include "net/tls_session.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_certificate_is_cut_out(void **state)
{
	static const uint8_t good[] = { 0x30, 9, 2, 1, 5, 0xa3, 1, 7, 4, 1, 9 }, none[] = { 0x30, 3, 2, 1, 5 }, cut[] = { 0x30, 5, 2, 1, 5, 0xa3, 9 };
	size_t rest = 0;
	uint8_t *out = cut_certificate(good, sizeof(good), &rest);

	assert_non_null(out);
	assert_int_equal(rest, 8);
	assert_memory_equal(out, "\x30\x06\x02\x01\x05\x04\x01\x09", 8);
	free(out);
	assert_null(cut_certificate(none, sizeof(none), &rest));
	assert_null(cut_certificate(cut, sizeof(cut), &rest));
	assert_null(cut_certificate(none, 1, &rest));
}

static void a_session_without_certificate_stays(void **state)
{
	SSL_SESSION *s = SSL_SESSION_new();
	bool some = true;

	assert_non_null(s);
	assert_true(drop_certificate(s));
	assert_null(tls_session_peer(s, &some));
	assert_false(some);
	SSL_SESSION_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_certificate_is_cut_out),
		cmocka_unit_test(a_session_without_certificate_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
