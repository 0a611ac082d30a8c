/* ClientHellos: made by hand with everything wrong that can be, and those of real clients; each of them in every piece and spread over records. */
#define _GNU_SOURCE
#include "mctunnel/proto/sni.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- making one ---- */

struct bytes {
	uint8_t b[140000];
	size_t n;
};

static struct bytes msg, wire; /* the message with its header; the same in records */

static void add(struct bytes *b, const void *data, size_t n)
{
	assert_true(n <= sizeof(b->b) - b->n);
	memcpy(b->b + b->n, data, n);
	b->n += n;
}
#define ADD(b, text) add(b, text, sizeof(text) - 1)

static void put16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void extension(unsigned type, const void *body, size_t n)
{
	uint8_t head[4];

	put16(head, type);
	put16(head + 2, n);
	add(&msg, head, 4);
	add(&msg, body, n);
}
#define EXTENSION(type, body) extension(type, body, sizeof(body) - 1)

static size_t extensions_at;

static void begin(void)
{
	msg.n = 0;
	ADD(&msg, "\x01\0\0\0\x03\x03");
	add(&msg, (uint8_t[32]){ 1, 2, 3 }, 32);
	ADD(&msg, "\x03" "abc" "\0\x04\x13\x01\x13\x02" "\x01\0");
	extensions_at = msg.n;
	ADD(&msg, "\0\0");
}

static void finish_message(void)
{
	msg.b[1] = (uint8_t)((msg.n - 4) >> 16);
	put16(msg.b + 2, msg.n - 4);
}

static void finish(void)
{
	put16(msg.b + extensions_at, msg.n - extensions_at - 2);
	finish_message();
}

static void name(const char *host)
{
	uint8_t body[600];
	size_t n = strlen(host);

	put16(body, n + 3);
	body[2] = 0;
	put16(body + 3, n);
	memcpy(body + 5, host, n);
	extension(0, body, n + 5);
}

/* Into records of so many bytes. */
static void records(size_t piece)
{
	wire.n = 0;
	for (size_t at = 0; at < msg.n; at += piece) {
		size_t n = msg.n - at < piece ? msg.n - at : piece;
		uint8_t head[5] = { 22, 3, 1 };

		put16(head + 3, n);
		add(&wire, head, 5);
		add(&wire, msg.b + at, n);
	}
}

/* In a block of its own size, so that ASan sees every byte read beyond. */
static enum sni_result parse(const uint8_t *data, size_t n, struct sni_hello *h)
{
	uint8_t *copy = malloc(n ? n : 1);
	enum sni_result r;

	memcpy(copy, data, n);
	r = sni_parse(copy, n, h);
	free(copy);
	return r;
}

/* Every beginning of it wants more, and never more than there is. */
static void check_pieces(const uint8_t *data, size_t n, size_t step, struct sni_hello *h)
{
	for (size_t i = 0; i < n; i += step) {
		assert_int_equal(parse(data, i, h), SNI_MORE);
		assert_true(h->need > i && h->need <= n);
	}
	assert_int_equal(parse(data, n, h), SNI_DONE);
}

static struct sni_hello done(void)
{
	struct sni_hello h;

	finish();
	records(16384);
	check_pieces(wire.b, wire.n, 1, &h);
	return h;
}

static void bad(const char *why)
{
	struct sni_hello h;

	records(16384);
	assert_int_equal(parse(wire.b, wire.n, &h), SNI_BAD);
	if (!strstr(h.why, why))
		fail_msg("%s", h.why);
}

/* ---- good ones ---- */

static void test_nothing_said(void **state)
{
	struct sni_hello h;

	begin();
	h = done();
	assert_string_equal(h.name, "");
	assert_int_equal(h.alpn_n, 0);
	assert_int_equal(h.versions_n, 1);
	assert_int_equal(h.versions[0], 0x0303);
	msg.n = extensions_at; /* TLS 1.2 may have none at all */
	finish_message();
	records(16384);
	assert_int_equal(parse(wire.b, wire.n, &h), SNI_DONE);
	assert_string_equal(h.name, "");
}

static void test_everything_said(void **state)
{
	struct sni_hello h;

	begin();
	EXTENSION(0x1a1a, "");
	name("WWW.Example-1_a.COM.");
	EXTENSION(16, "\0\x0c\x02h2\x08http/1.1");
	EXTENSION(43, "\x06\x7a\x7a\x03\x04\x03\x03");
	EXTENSION(0xfe0d, "whatever");
	h = done();
	assert_string_equal(h.name, "www.example-1_a.com");
	assert_false(h.odd);
	assert_int_equal(h.alpn_n, 2);
	assert_string_equal(h.alpn[0], "h2");
	assert_string_equal(h.alpn[1], "http/1.1");
	assert_int_equal(h.versions_n, 2);
	assert_int_equal(h.versions[0], 0x0304);
	assert_int_equal(h.versions[1], 0x0303);
}

static void test_over_many_records(void **state)
{
	struct sni_hello h;

	begin();
	name("www.example.com");
	EXTENSION(16, "\0\x03\x02h2");
	finish();
	for (size_t piece = 1; piece <= msg.n; piece++) {
		records(piece);
		check_pieces(wire.b, wire.n, 1, &h);
		assert_string_equal(h.name, "www.example.com");
		assert_string_equal(h.alpn[0], "h2");
	}
}

static void test_what_follows_is_not_looked_at(void **state)
{
	struct sni_hello h;

	begin();
	name("a");
	finish();
	records(16384);
	ADD(&wire, "\x17\x03\x03\xff\xff");
	assert_int_equal(parse(wire.b, wire.n, &h), SNI_DONE);
	assert_string_equal(h.name, "a");
	add(&msg, "more", 4); /* another message in the same record */
	records(16384);
	assert_int_equal(parse(wire.b, wire.n, &h), SNI_DONE);
}

static void test_up_to_64_kib(void **state)
{
	static uint8_t keys[62000];
	struct sni_hello h;

	begin();
	extension(51, keys, sizeof(keys)); /* a post-quantum key share, and then some */
	name("large.example.com");
	finish();
	for (size_t piece = 300; piece <= 16384; piece += 4021) {
		records(piece);
		check_pieces(wire.b, wire.n, 997, &h);
		assert_string_equal(h.name, "large.example.com");
	}
	records(16);
	assert_int_equal(parse(wire.b, wire.n, &h), SNI_BAD); /* its headers make it too long */
	assert_non_null(strstr(h.why, "longer than 64 KiB"));
	msg.n = 4;
	memcpy(msg.b, "\x01\x01\0\0", 4);
	records(16384);
	assert_int_equal(parse(wire.b, wire.n, &h), SNI_BAD); /* known from its first bytes */
	assert_non_null(strstr(h.why, "longer than 64 KiB"));
}

/* Who sends byte by byte is read some dozens of times, not thousands. */
static void test_few_readings(void **state)
{
	static uint8_t keys[10000];
	struct sni_hello h;
	size_t n = 0;
	int readings = 0;

	begin();
	extension(51, keys, sizeof(keys));
	finish();
	records(1);
	while (sni_parse(wire.b, n, &h) == SNI_MORE) {
		n = h.need;
		readings++;
	}
	assert_int_equal(n, wire.n);
	assert_true(readings < 70);
}

static void test_too_many_protocols(void **state)
{
	struct sni_hello h;

	begin();
	EXTENSION(16, "\0\x1a\x02\x0a\x0a\x01 \x01" "1\x01" "2\x01" "3\x01" "4\x01" "5\x01" "6\x01" "7\x01" "8\x01" "9\x02" "ab");
	h = done();
	assert_int_equal(h.alpn_n, SNI_ALPN); /* neither GREASE nor blanks */
	assert_string_equal(h.alpn[0], "1");
	assert_string_equal(h.alpn[7], "8");
}

static void test_long_protocols(void **state)
{
	uint8_t body[2 + 65 + 64] = { 0, 65 + 64, 64 };
	struct sni_hello h;

	memset(body + 3, 'x', 64);
	body[67] = 63;
	memset(body + 68, 'y', 63);
	begin();
	extension(16, body, sizeof(body));
	h = done();
	assert_int_equal(h.alpn_n, 1);
	assert_int_equal(strlen(h.alpn[0]), 63);
}

static void test_long_names(void **state)
{
	char host[400];
	struct sni_hello h;

	memset(host, 'a', sizeof(host));
	for (size_t i = 63; i < sizeof(host); i += 64)
		host[i] = '.';
	host[253] = '\0';
	begin();
	name(host);
	h = done();
	assert_string_equal(h.name, host);
	host[253] = '.'; /* the end of it, does not count */
	host[254] = '\0';
	begin();
	name(host);
	h = done();
	assert_int_equal(strlen(h.name), 253);
}

/* ---- bad ones ---- */

static void odd_name(const char *host, size_t n)
{
	uint8_t body[600] = { (uint8_t)((n + 3) >> 8), (uint8_t)(n + 3), 0, (uint8_t)(n >> 8), (uint8_t)n };
	struct sni_hello h;

	memcpy(body + 5, host, n);
	begin();
	extension(0, body, n + 5);
	h = done();
	assert_true(h.odd);
	assert_string_equal(h.name, "");
}

static void test_odd_names(void **state)
{
	char host[400];

	for (const char *const *n = (const char *const[]){ "", ".", "..", ".a", "a..b", "a..", "a b", "a/b", "a:1", "[::1]", "\xc3\xa4.de", "*", "*.example.com", "a\n", NULL }; *n; n++)
		odd_name(*n, strlen(*n));
	odd_name("a\0b", 3);
	memset(host, 'a', sizeof(host));
	odd_name(host, 64); /* a label */
	for (size_t i = 63; i < sizeof(host); i += 64)
		host[i] = '.';
	odd_name(host, 254);
	odd_name(host, 256);
	odd_name(host, 400);
}

static void bad_extension(unsigned type, const void *body, size_t n, const char *why)
{
	begin();
	extension(type, body, n);
	finish();
	bad(why);
}
#define BAD_EXTENSION(type, body, why) bad_extension(type, body, sizeof(body) - 1, why)

static void test_bad_extensions(void **state)
{
	BAD_EXTENSION(0, "", "server names");
	BAD_EXTENSION(0, "\0\0", "server names");
	BAD_EXTENSION(0, "\0\x04\0\0\x01" "ab", "server names");
	BAD_EXTENSION(0, "\0\x05\0\0\x01" "a", "server names");
	BAD_EXTENSION(0, "\0\x04\0\0\x02" "a", "server names");
	BAD_EXTENSION(0, "\0\x08\0\0\x01" "a\0\0\x01" "b", "server names");
	BAD_EXTENSION(16, "", "ALPN");
	BAD_EXTENSION(16, "\0\0", "ALPN");
	BAD_EXTENSION(16, "\0\x01\0", "ALPN");
	BAD_EXTENSION(16, "\0\x03\x03h2", "ALPN");
	BAD_EXTENSION(16, "\0\x03\x02h2x", "ALPN");
	BAD_EXTENSION(43, "", "versions");
	BAD_EXTENSION(43, "\0", "versions");
	BAD_EXTENSION(43, "\x01\x03", "versions");
	BAD_EXTENSION(43, "\x03\x03\x03\x03", "versions");
	BAD_EXTENSION(43, "\x04\x03\x03", "versions");
	BAD_EXTENSION(43, "\x02\x03\x03\x03", "versions");
	begin();
	name("a");
	name("a");
	finish();
	bad("twice");
}

/* A byte more or less anywhere in the frame of the message. */
static void test_bad_frames(void **state)
{
	begin();
	name("a");
	finish();
	msg.b[38] = 33; /* id of a session */
	bad("malformed");
	msg.b[38] = 3;
	put16(msg.b + 42, 3); /* ciphers */
	bad("malformed");
	put16(msg.b + 42, 0);
	bad("malformed");
	put16(msg.b + 42, 0xfffe);
	bad("malformed");
	put16(msg.b + 42, 4);
	msg.b[48] = 0; /* compression */
	bad("malformed");
	msg.b[48] = 255;
	bad("malformed");
	msg.b[48] = 1;
	put16(msg.b + extensions_at, msg.n - extensions_at - 1);
	bad("malformed");
	put16(msg.b + extensions_at, msg.n - extensions_at - 3);
	bad("malformed");
	finish();
	add(&msg, "x", 1);
	finish_message();
	bad("malformed");
}

static void test_cut_messages(void **state)
{
	struct sni_hello h;

	begin();
	name("www.example.com");
	EXTENSION(16, "\0\x03\x02h2");
	finish();
	for (size_t n = msg.n - 1; n >= 4; n--) {
		msg.n = n;
		finish_message();
		records(16384);
		if (n == extensions_at)
			assert_int_equal(parse(wire.b, wire.n, &h), SNI_DONE);
		else
			bad("");
	}
}

static void expect(enum sni_result want, const char *data, size_t n)
{
	struct sni_hello h;

	assert_int_equal(parse((const uint8_t *)data, n, &h), want);
}
#define EXPECT(want, data) expect(want, data, sizeof(data) - 1)

static void test_bad_records(void **state)
{
	EXPECT(SNI_NOT_TLS, "G");
	EXPECT(SNI_NOT_TLS, "GET / HTTP/1.1\r\n\r\n");
	EXPECT(SNI_NOT_TLS, "SSH-2.0-x\r\n");
	EXPECT(SNI_NOT_TLS, "\x80\x2e\x01\x03\x01"); /* SSL 2 */
	EXPECT(SNI_NOT_TLS, "\x16\x02");
	EXPECT(SNI_NOT_TLS, "\x16\x03\x05");
	EXPECT(SNI_NOT_TLS, "\x15\x03\x01\0\x02\x02\x28");
	EXPECT(SNI_BAD, "\x16\x03\x01\0\0");
	EXPECT(SNI_BAD, "\x16\x03\x01\x40\x01");
	EXPECT(SNI_BAD, "\x16\x03\x01\0\x04\x02");
	EXPECT(SNI_BAD, "\x16\x03\x01\0\x02\x01\0\x17");
	EXPECT(SNI_BAD, "\x16\x03\x01\0\x02\x01\0\x16\x02");
	EXPECT(SNI_BAD, "\x16\x03\x01\0\x02\x01\0\x16\x03\x01\0\0");
	EXPECT(SNI_BAD, "\x16\x03\x01\0\x04\x01\0\0\0"); /* an empty hello */
	EXPECT(SNI_MORE, "");
	EXPECT(SNI_MORE, "\x16");
	EXPECT(SNI_MORE, "\x16\x03\x01\0\x02\x01\0\x16");
}

/* ---- those of real clients ---- */

static pid_t start(const char *const *argv)
{
	pid_t pid = fork();
	int null;

	if (pid != 0)
		return pid;
	null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static int listen_somewhere(char *port, size_t size)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	snprintf(port, size, "%u", ntohs(a.sin_port));
	return fd;
}

/* The client connects, or ends because it is not there: -1. */
static int wait_for(int listener, pid_t pid, bool *gone)
{
	for (int i = 0; i < 3000; i++) {
		int fd = accept(listener, NULL, NULL);

		if (fd >= 0)
			return fd;
		*gone = waitpid(pid, NULL, WNOHANG) == pid;
		if (*gone)
			return -1;
		usleep(10000);
	}
	return -1;
}

/* Its hello, into wire; false: there is no such client here. */
static bool real(const char *const *argv, int listener, struct sni_hello *h)
{
	bool gone = false;
	pid_t pid = start(argv);
	int fd = wait_for(listener, pid, &gone);

	close(listener);
	wire.n = 0;
	while (fd >= 0 && parse(wire.b, wire.n, h) == SNI_MORE) {
		ssize_t n = read(fd, wire.b + wire.n, h->need - wire.n);

		assert_true(n > 0);
		wire.n += (size_t)n;
	}
	if (fd >= 0)
		close(fd);
	if (!gone) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return fd >= 0;
}

static void check_real(const struct sni_hello *h, const char *first)
{
	struct sni_hello again;

	check_pieces(wire.b, wire.n, 1, &again);
	assert_string_equal(h->name, "www.example.com");
	assert_true(h->alpn_n > 0);
	assert_string_equal(h->alpn[0], first);
	assert_true(h->versions_n > 0);
	assert_int_equal(h->versions[0], 0x0304);
}

static void test_openssl(void **state)
{
	char port[8], where[32];
	int listener = listen_somewhere(port, sizeof(port));
	struct sni_hello h;

	snprintf(where, sizeof(where), "127.0.0.1:%s", port);
	if (!real((const char *const[]){ "openssl", "s_client", "-connect", where, "-servername", "WWW.example.com", "-alpn", "h2,http/1.1", NULL }, listener, &h))
		skip();
	check_real(&h, "h2");
}

static void test_curl(void **state)
{
	char port[8], url[64], where[64];
	int listener = listen_somewhere(port, sizeof(port));
	struct sni_hello h;

	snprintf(url, sizeof(url), "https://www.example.com:%s/", port);
	snprintf(where, sizeof(where), "www.example.com:%s:127.0.0.1", port);
	if (!real((const char *const[]){ "curl", "-s", "--noproxy", "*", "--http1.1", "--resolve", where, url, NULL }, listener, &h))
		skip();
	check_real(&h, "http/1.1");
}

static void test_python(void **state)
{
	static const char script[] = "import socket, ssl, sys\n"
				     "c = ssl.create_default_context(); c.set_alpn_protocols(['acme/1'])\n"
				     "c.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='www.example.com')\n";
	char port[8];
	int listener = listen_somewhere(port, sizeof(port));
	struct sni_hello h;

	if (!real((const char *const[]){ "python3", "-c", script, port, NULL }, listener, &h))
		skip();
	check_real(&h, "acme/1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_said),
		cmocka_unit_test(test_everything_said),
		cmocka_unit_test(test_over_many_records),
		cmocka_unit_test(test_what_follows_is_not_looked_at),
		cmocka_unit_test(test_up_to_64_kib),
		cmocka_unit_test(test_few_readings),
		cmocka_unit_test(test_too_many_protocols),
		cmocka_unit_test(test_long_protocols),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_odd_names),
		cmocka_unit_test(test_bad_extensions),
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_cut_messages),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_openssl),
		cmocka_unit_test(test_curl),
		cmocka_unit_test(test_python),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
