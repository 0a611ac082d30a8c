/* Arrivals over socketpairs and TCP: PROXY headers taken to the byte, ClientHellos looked at, TLS ended, in pieces and too late; nothing remains. */
#define _GNU_SOURCE
#include "edge/arrival.c"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/str.h"

#include "../tcp_pair.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct {
	struct arrival *a;
	int peer;
	int ready, failed;
	enum reason why;
	char text[256];
	int fd;
	struct conn *c;
	struct addr src, dst;
	bool tls;
	char sni[256], alpn[ARRIVAL_ALPN][64], cert[256];
	size_t alpn_n;
} t;

static struct tls_site *site;
static SSL_CTX *client_ctx;

static void on_ready(void *owner, struct arrived *a)
{
	assert_ptr_equal(owner, &t);
	t.ready++;
	t.a = NULL;
	t.fd = a->fd;
	t.c = a->c;
	assert_true((a->fd < 0) == (a->c != NULL));
	t.src = a->src;
	t.dst = a->dst;
	t.tls = a->tls;
	str_copy(t.sni, sizeof(t.sni), a->sni ? a->sni : "-");
	str_copy(t.cert, sizeof(t.cert), a->cert ? a->cert : "-");
	t.alpn_n = a->alpn_n;
	for (size_t i = 0; i < a->alpn_n; i++)
		str_copy(t.alpn[i], sizeof(t.alpn[i]), a->alpn[i]);
}

static void on_failed(void *owner, enum reason why, const char *text)
{
	assert_ptr_equal(owner, &t);
	t.failed++;
	t.a = NULL;
	t.why = why;
	str_copy(t.text, sizeof(t.text), text);
}

static const struct arrival_events events = { on_ready, on_failed };

static struct addr address(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, text), 0);
	return a;
}

static void arrive(const int fd[2], const struct arrival_options *o)
{
	struct addr src = address("192.0.2.1:1000"), dst = address("192.0.2.2:443");

	memset(&t, 0, sizeof(t));
	t.peer = fd[1];
	t.fd = -1;
	t.a = arrival_new(fd[0], &src, &dst, o, &events, &t);
	assert_non_null(t.a);
}

static void begin(bool proxy, bool hello)
{
	struct arrival_options o = { .proxy = proxy, .hello = hello, .timeout_ms = 60000 };
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	arrive(fd, &o);
}

static void end(void)
{
	if (t.a)
		arrival_cancel(t.a);
	if (t.c)
		conn_abort(t.c);
	if (t.fd >= 0)
		close(t.fd);
	if (t.peer >= 0)
		close(t.peer);
	t.a = NULL;
	t.c = NULL;
	t.fd = t.peer = -1;
	loop_turn(0);
}

static void say(const void *bytes, size_t n)
{
	assert_int_equal(send(t.peer, bytes, n, MSG_NOSIGNAL), n);
}
#define SAY(text) say(text, sizeof(text) - 1)

static void wait_over(void)
{
	for (int i = 0; i < 3000 && !t.ready && !t.failed; i++)
		loop_turn(10);
	assert_int_equal(t.ready + t.failed, 1);
}

static void rest_is(const char *want, size_t n)
{
	static char got[70000];

	assert_int_equal(recv(t.fd, got, sizeof(got), MSG_DONTWAIT), n ? (ssize_t)n : -1);
	assert_memory_equal(got, want, n);
}

static void from_to(const char *src, const char *dst)
{
	char text[ADDR_TEXT];

	assert_string_equal(addr_text(&t.src, text, sizeof(text)), src);
	assert_string_equal(addr_text(&t.dst, text, sizeof(text)), dst);
}

static void expect_failed(enum reason why, const char *text)
{
	char got[64];
	ssize_t n;

	wait_over();
	assert_int_equal(t.failed, 1);
	assert_int_equal(t.why, why);
	if (!strstr(t.text, text))
		fail_msg("%s", t.text);
	loop_turn(0);
	while ((n = recv(t.peer, got, sizeof(got), MSG_DONTWAIT)) > 0) /* an alert */
		;
	assert_true(n == 0 || errno == ECONNRESET); /* the socket is closed */
	end();
}

static const char hello_bytes[] = "\x16\x03\x01\0\x51\x01\0\0\x4d\x03\x03"
				  "01234567890123456789012345678901\0\0\x02\x13\x01\x01\0\0\x22"
				  "\0\0\0\x0f\0\x0d\0\0\x0awww.a.test"
				  "\0\x10\0\x0b\0\x09\x02h2\x05other";
#define HELLO_SIZE (sizeof(hello_bytes) - 1)

static void check_hello(void)
{
	assert_int_equal(t.ready, 1);
	assert_true(t.tls);
	assert_string_equal(t.sni, "www.a.test");
	assert_int_equal(t.alpn_n, 2);
	assert_string_equal(t.alpn[0], "h2");
	assert_string_equal(t.alpn[1], "other");
	assert_string_equal(t.cert, "-");
}

/* ---- PROXY headers ---- */

static void takes_the_header_and_not_a_byte_more(void **state)
{
	begin(true, false);
	SAY("PROXY TCP4 198.51.100.9 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\n");
	assert_int_equal(t.ready, 0); /* never from within */
	wait_over();
	assert_int_equal(t.ready, 1);
	from_to("198.51.100.9:4711", "198.51.100.1:443");
	assert_false(t.tls);
	assert_string_equal(t.sni, "-");
	rest_is("GET / HTTP/1.1\r\n", 16);
	end();
	begin(true, false);
	SAY("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x09\xc6\x33\x64\x01\x12\x67\x01\xbb");
	wait_over();
	from_to("198.51.100.9:4711", "198.51.100.1:443");
	rest_is("", 0);
	SAY("later");
	rest_is("later", 5);
	end();
}

static void keeps_the_addresses_where_the_header_says_none(void **state)
{
	begin(true, false);
	SAY("PROXY UNKNOWN\r\nx");
	wait_over();
	from_to("192.0.2.1:1000", "192.0.2.2:443");
	rest_is("x", 1);
	end();
	begin(true, false);
	SAY("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0x");
	wait_over();
	from_to("192.0.2.1:1000", "192.0.2.2:443");
	rest_is("x", 1);
	end();
}

static void byte_by_byte(void **state)
{
	static const char proxy[] = "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";

	begin(true, true);
	for (size_t i = 0; i < sizeof(proxy) - 1; i++) {
		say(proxy + i, 1);
		loop_turn(0);
	}
	for (size_t i = 0; i < HELLO_SIZE; i++) {
		assert_int_equal(t.ready, 0);
		say(hello_bytes + i, 1);
		loop_turn(0);
	}
	wait_over();
	check_hello();
	from_to("[2001:db8::1]:1", "[2001:db8::2]:2");
	rest_is(hello_bytes, HELLO_SIZE);
	end();
}

static void bad_headers(void **state)
{
	begin(true, false);
	SAY("GET / HTTP/1.1\r\n");
	expect_failed(REASON_BAD_REQUEST, "there is no PROXY header");
	begin(true, false);
	SAY("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n");
	expect_failed(REASON_BAD_REQUEST, "port");
	begin(true, false);
	SAY("PROXY TCP4 1.2.");
	loop_turn(0);
	shutdown(t.peer, SHUT_WR);
	expect_failed(REASON_CLIENT_RESET, "closed before its PROXY header was complete");
	begin(true, false);
	shutdown(t.peer, SHUT_WR);
	expect_failed(REASON_CLIENT_RESET, "closed before its PROXY header was complete");
}

/* ---- ClientHellos that are only looked at ---- */

static void the_hello_stays_in_the_socket(void **state)
{
	char all[HELLO_SIZE + 8];

	begin(false, true);
	say(hello_bytes, HELLO_SIZE);
	SAY("and more");
	wait_over();
	check_hello();
	from_to("192.0.2.1:1000", "192.0.2.2:443");
	memcpy(all, hello_bytes, HELLO_SIZE);
	memcpy(all + HELLO_SIZE, "and more", 8);
	rest_is(all, HELLO_SIZE + 8);
	end();
}

static void an_end_after_the_hello_is_none_of_ours(void **state)
{
	begin(false, true);
	say(hello_bytes, HELLO_SIZE);
	shutdown(t.peer, SHUT_WR);
	wait_over();
	check_hello();
	end();
}

static void bad_hellos(void **state)
{
	begin(false, true);
	SAY("GET / HTTP/1.1\r\n");
	expect_failed(REASON_BAD_REQUEST, "not TLS");
	begin(false, true);
	SAY("\x16\x03\x01\0\0");
	expect_failed(REASON_BAD_REQUEST, "length of a TLS record");
	begin(false, true);
	SAY("\x16\x03\x01\0\x3b\x01\0\0\x37\x03\x03"
	    "01234567890123456789012345678901\0\0\x02\x13\x01\x01\0\0\x0c"
	    "\0\0\0\x08\0\x06\0\0\x03" "a b");
	expect_failed(REASON_BAD_REQUEST, "not the name of a host");
	begin(false, true);
	say(hello_bytes, HELLO_SIZE - 1);
	loop_turn(0);
	shutdown(t.peer, SHUT_WR);
	expect_failed(REASON_CLIENT_RESET, "closed before its ClientHello was complete");
}

/* More than the kernel keeps for a reader by default, in small pieces over TCP. */
static void a_hello_of_60_kib(void **state)
{
	static uint8_t big[62000];
	struct arrival_options o = { .hello = true, .timeout_ms = 60000 };
	static uint8_t got[sizeof(big)];
	int fd[2], value = 0;
	socklen_t len = sizeof(value);
	size_t body = sizeof(big) - 4 * 5, at = 0, ext = body - (HELLO_SIZE - 5) - 4;

	/* the same hello, with one more extension, in four records */
	uint8_t *m = malloc(body);
	memset(m, 0, body);
	memcpy(m, hello_bytes + 5, HELLO_SIZE - 5);
	m[1] = 0;
	m[2] = (uint8_t)((body - 4) >> 8);
	m[3] = (uint8_t)(body - 4);
	m[45] = (uint8_t)((body - 47) >> 8);
	m[46] = (uint8_t)(body - 47);
	m[HELLO_SIZE - 5] = 0;
	m[HELLO_SIZE - 4] = 51;
	m[HELLO_SIZE - 3] = (uint8_t)(ext >> 8);
	m[HELLO_SIZE - 2] = (uint8_t)ext;
	for (size_t from = 0; from < body;) {
		size_t n = body - from < 15495 ? body - from : 15495;

		memcpy(big + at, (uint8_t[]){ 22, 3, 1, (uint8_t)(n >> 8), (uint8_t)n }, 5);
		memcpy(big + at + 5, m + from, n);
		at += n + 5;
		from += n;
	}
	assert_int_equal(at, sizeof(big));
	free(m);
	tcp_pair(fd);
	arrive(fd, &o);
	for (size_t sent = 0; sent < sizeof(big);) {
		ssize_t n = send(t.peer, big + sent, sizeof(big) - sent < 1000 ? sizeof(big) - sent : 1000, MSG_NOSIGNAL);

		assert_int_equal(t.ready, 0);
		sent += n > 0 ? (size_t)n : 0;
		loop_turn(n > 0 ? 0 : 10);
	}
	wait_over();
	check_hello();
	assert_int_equal(getsockopt(t.fd, SOL_SOCKET, SO_RCVLOWAT, &value, &len), 0);
	assert_int_equal(value, 1); /* whoever reads now is told of each byte */
	assert_int_equal(recv(t.fd, got, sizeof(got), MSG_WAITALL | MSG_DONTWAIT), sizeof(got));
	assert_memory_equal(got, big, sizeof(big));
	end();
}

/* ---- time ---- */

static void too_late_for(bool proxy, bool hello, const char *said, const char *text)
{
	struct arrival_options o = { .proxy = proxy, .hello = hello, .timeout_ms = 300 };
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	arrive(fd, &o);
	say(said, strlen(said));
	expect_failed(REASON_CLIENT_TIMEOUT, text);
}

static void who_is_slow_is_sent_away(void **state)
{
	too_late_for(true, false, "PRO", "no PROXY header");
	too_late_for(true, true, "PROXY UNKNOWN\r\n\x16", "no TLS ClientHello");
	too_late_for(false, true, "\x16\x03\x01", "no TLS ClientHello");
}

static void nothing_to_read(void **state)
{
	begin(false, false);
	SAY("abc");
	wait_over();
	assert_int_equal(t.ready, 1);
	rest_is("abc", 3);
	end();
}

static void cancelled(void **state)
{
	char byte;

	begin(true, true);
	SAY("PROXY UNK");
	loop_turn(0);
	arrival_cancel(t.a);
	t.a = NULL;
	loop_turn(0);
	assert_int_equal(t.ready + t.failed, 0);
	assert_true(recv(t.peer, &byte, 1, MSG_DONTWAIT) <= 0);
	end();
}

/* ---- TLS that ends here ---- */

static void nobody(struct conn *c)
{
}

static char *pem_of(BIO *b)
{
	char *data, *text;
	long n = BIO_get_mem_data(b, &data);

	text = strndup(data, (size_t)n);
	BIO_free(b);
	return text;
}

static int make_site(void **state)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	BIO *cert = BIO_new(BIO_s_mem()), *priv = BIO_new(BIO_s_mem());
	struct tls_site_cert c = { .path = "cert", .key_path = "key" };
	static const char *const alpn[] = { "http/1.1" };
	struct tls_site_options o = { .name = "web", .certs = &c, .certs_n = 1, .min = 12, .alpn = alpn, .alpn_n = 1 };

	X509_set_version(x, 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -60);
	X509_gmtime_adj(X509_getm_notAfter(x), 30 * 86400);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"some.name", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_sign(x, key, EVP_sha256());
	PEM_write_bio_X509(cert, x);
	PEM_write_bio_PrivateKey(priv, key, NULL, NULL, 0, NULL, NULL);
	c.text = pem_of(cert);
	c.key = pem_of(priv);
	site = tls_site_new(&o, NULL, NULL);
	client_ctx = SSL_CTX_new(TLS_client_method());
	free((char *)(uintptr_t)c.text);
	free((char *)(uintptr_t)c.key);
	X509_free(x);
	EVP_PKEY_free(key);
	signal(SIGPIPE, SIG_IGN); /* a client of OpenSSL writes to who has gone */
	return site ? 0 : -1;
}

static int free_site(void **state)
{
	tls_site_put(site);
	SSL_CTX_free(client_ctx);
	return 0;
}

/* A client of the site, the handshake not begun. */
static SSL *client_on(int fd)
{
	SSL *ssl = SSL_new(client_ctx);

	SSL_set_fd(ssl, fd);
	SSL_set_connect_state(ssl);
	return ssl;
}

static SSL *begin_tls_by(const struct arrival_options *o)
{
	int fd[2];

	tcp_pair(fd);
	arrive(fd, o);
	return client_on(t.peer);
}

static SSL *begin_tls_as(const char *name)
{
	SSL *ssl = begin_tls_by(&(struct arrival_options){ .tls = site, .timeout_ms = 60000 });

	if (name)
		SSL_set_tlsext_host_name(ssl, name);
	return ssl;
}

static void shake(SSL *ssl)
{
	bool up = false;

	for (int i = 0; i < 2000 && !t.failed && !(t.ready && up); i++) {
		up = SSL_do_handshake(ssl) == 1;
		ERR_clear_error();
		loop_turn(5);
		if (t.c)
			t.c->on_event = nobody;
	}
}

static void tls_ends_here(void **state)
{
	char got[8];
	struct iovec iov = { got, sizeof(got) };
	ssize_t n = CONN_AGAIN;
	SSL *ssl = begin_tls_as("Some.Name");

	SSL_set_alpn_protos(ssl, (const unsigned char *)"\x02h2\x08http/1.1", 12);
	shake(ssl);
	assert_int_equal(t.ready, 1);
	assert_true(t.tls);
	assert_string_equal(t.sni, "some.name");
	assert_int_equal(t.alpn_n, 1);
	assert_string_equal(t.alpn[0], "http/1.1");
	assert_string_equal(t.cert, "-");
	from_to("192.0.2.1:1000", "192.0.2.2:443");
	assert_int_equal(SSL_write(ssl, "data", 4), 4);
	for (int i = 0; i < 500 && n == CONN_AGAIN; i++) {
		loop_turn(5);
		n = conn_readv(t.c, &iov, 1);
	}
	assert_int_equal(n, 4);
	SSL_free(ssl);
	end();
}

static void tls_after_a_header(void **state)
{
	SSL *ssl = begin_tls_by(&(struct arrival_options){ .tls = site, .proxy = true, .timeout_ms = 60000 });

	SAY("PROXY TCP4 198.51.100.9 198.51.100.1 4711 443\r\n");
	shake(ssl);
	assert_int_equal(t.ready, 1);
	from_to("198.51.100.9:4711", "198.51.100.1:443");
	assert_string_equal(t.sni, "-");
	assert_int_equal(t.alpn_n, 0);
	SSL_free(ssl);
	end();
}

static void what_is_not_tls(void **state)
{
	SSL *ssl = begin_tls_as(NULL);

	SAY("GET / HTTP/1.1\r\n\r\n");
	expect_failed(REASON_CLIENT_TLS, "not TLS (plaintext)");
	SSL_free(ssl);
	ssl = begin_tls_as(NULL);
	SAY("\x16\x03\x01\0\x04\x02\0\0\0");
	expect_failed(REASON_CLIENT_TLS, "no ClientHello");
	SSL_free(ssl);
}

static void a_handshake_that_stands_still(void **state)
{
	SSL *ssl = begin_tls_by(&(struct arrival_options){ .tls = site, .timeout_ms = 1000 });

	SSL_do_handshake(ssl); /* the hello, and never a word again */
	wait_over();
	assert_int_equal(t.why, REASON_CLIENT_TIMEOUT);
	assert_non_null(strstr(t.text, "handshake was not over"));
	SSL_free(ssl);
	end();
}

static size_t in_queue(void)
{
	size_t n = 0;

	list_for_each(i, &here.queue)
		n++;
	return n;
}

static int many;

static void on_one_ready(void *owner, struct arrived *a)
{
	many++;
	conn_abort(a->c);
}

static void on_one_failed(void *owner, enum reason why, const char *text)
{
	fail_msg("%s", text);
}

/* All that come in one turn do not have theirs in that turn. */
static void few_handshakes_a_turn(void **state)
{
	enum { N = 30 };
	SSL *ssl[N];
	int peers[N];
	struct arrival *all[N];

	for (int i = 0; i < N; i++) {
		struct arrival_options o = { .tls = site, .timeout_ms = 60000 };
		static const struct arrival_events each = { on_one_ready, on_one_failed };
		int fd[2];

		tcp_pair(fd);
		peers[i] = fd[1];
		all[i] = arrival_new(fd[0], &(struct addr){ .len = 0 }, &(struct addr){ .len = 0 }, &o, &each, NULL);
		ssl[i] = client_on(peers[i]);
		SSL_do_handshake(ssl[i]);
	}
	loop_turn(0);
	assert_true(in_queue() >= N - 3 * BEGIN_MAX);
	arrival_cancel(all[N - 1]); /* also one that is in the queue */
	for (int i = 0; i < 5000 && many < N - 1; i++) {
		for (int k = 0; k < N - 1; k++)
			SSL_do_handshake(ssl[k]);
		loop_turn(1);
	}
	ERR_clear_error();
	assert_int_equal(many, N - 1);
	assert_int_equal(in_queue(), 0);
	for (int i = 0; i < N; i++) {
		SSL_free(ssl[i]);
		close(peers[i]);
	}
}

static void who_leaves_the_queue_is_gone_at_once(void **state)
{
	struct linger l = { .l_onoff = 1 };
	SSL *ssl = begin_tls_as(NULL);

	SSL_do_handshake(ssl);
	t.a->stage = IN_QUEUE; /* behind many others */
	assert_int_equal(setsockopt(t.peer, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	close(t.peer);
	wait_over();
	assert_int_equal(t.why, REASON_CLIENT_RESET);
	SSL_free(ssl);
	t.peer = -1;
	end();
}

static int setup(void **state)
{
	loop_init();
	return 0;
}

static int teardown(void **state)
{
	struct mem_usage u;

	loop_fini();
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_usage(MEM_CONN, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(takes_the_header_and_not_a_byte_more),
		T(keeps_the_addresses_where_the_header_says_none),
		T(byte_by_byte),
		T(bad_headers),
		T(the_hello_stays_in_the_socket),
		T(an_end_after_the_hello_is_none_of_ours),
		T(bad_hellos),
		T(a_hello_of_60_kib),
		T(who_is_slow_is_sent_away),
		T(nothing_to_read),
		T(cancelled),
		T(tls_ends_here),
		T(tls_after_a_header),
		T(what_is_not_tls),
		T(a_handshake_that_stands_still),
		T(few_handshakes_a_turn),
		T(who_leaves_the_queue_is_gone_at_once),
	};
	return cmocka_run_group_tests(tests, make_site, free_site);
}
