/* TLS conns against each other over loopback: data both ways, ends of every kind, certificates good and bad, resumption,
 * and peers that speak something else. */
#define _GNU_SOURCE
#include <time.h>

static time_t later_s; /* what the module's clock is ahead; OpenSSL's own is not */

static time_t test_time(time_t *p)
{
	return time(p) + later_s;
}

#define time(p) test_time(p)
#include "net/tls.c"
#include "net/tls_context.c"
#include "net/tls_files.c"
#include "net/tls_session.c"
#include "net/tls_trust.c"
#undef time

#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"

#include "../failing.h"
#include "../tcp_pair.h"
#include "folder.h"
#include "get_put.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* A CA with certificates good, expired, of the future and revoked, all with one key; and a CA nobody knows. */
static const char make_pki[] =
	"set -e; cd \"$DIR\"; exec >log 2>&1\n"
	"openssl ecparam -genkey -name prime256v1 -noout -out key\n"
	"openssl ecparam -genkey -name prime256v1 -noout -out other.key\n"
	"printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\nnew_certs_dir=.\\nserial=serial\\ndefault_md=sha256\\npolicy=p\\n"
	"copy_extensions=copy\\ndefault_days=30\\ndefault_crl_days=30\\nunique_subject=no\\ncertificate=ca\\nprivate_key=key\\n[p]\\n"
	"commonName=supplied\\n' >cnf\n"
	"touch index; echo 1000 >serial\n"
	"openssl req -x509 -new -key key -subj /CN=test-ca -days 30 -out ca\n"
	"openssl req -x509 -new -key other.key -subj /CN=other-ca -days 30 -out other-ca\n"
	"sign() { n=$1; cn=$2; san=$3; shift 3; openssl req -new -key key -subj /CN=$cn ${san:+-addext subjectAltName=$san} -out csr;"
	" openssl ca -config cnf -batch -notext -in csr -out $n \"$@\"; }\n"
	"sign hub hub DNS:hub.test,DNS:alt.test,IP:127.0.0.1\n"
	"sign edge edge-1 ''\n"
	"sign expired edge-old '' -startdate 20200101000000Z -enddate 20210101000000Z\n"
	"sign future edge-new '' -startdate 20400101000000Z -enddate 20410101000000Z\n"
	"sign soon hub '' -days 3\n"
	"printf 'extendedKeyUsage=clientAuth\\n' >ext; sign client hub '' -extfile ext\n"
	"sign short edge-1 '' -days 1\n"
	"sign many edge-1 \"$(i=0; while [ $i -lt 40 ]; do printf '%sDNS:a-name-that-is-not-short-%d.test' \"${c-}\" $i; c=,; i=$((i + 1)); done)\"\n"
	"sign revoked edge-bad ''\n"
	"openssl ca -config cnf -gencrl -out crl.before\n"
	"openssl ca -config cnf -revoke revoked\n"
	"openssl ca -config cnf -gencrl -out crl\n"
	"openssl ca -config cnf -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z -out crl.old\n"
	"openssl ca -config cnf -gencrl -out crl.other -cert other-ca -keyfile other.key\n"
	"openssl req -x509 -new -key key -subj /CN=edge-1 -days 30 -out stranger\n"
	"openssl ec -in key -aes128 -passout pass:x -out key.encrypted\n";

static char *pem_key, *pem_ca, *pem_other_ca, *pem_hub, *pem_edge, *pem_crl;

static int make_files(void **state)
{
	if (folder_make("/tmp/mctunnel-tls-XXXXXX", make_pki) != 0)
		return -1;
	pem_key = slurp("key");
	pem_ca = slurp("ca");
	pem_other_ca = slurp("other-ca");
	pem_hub = slurp("hub");
	pem_edge = slurp("edge");
	pem_crl = slurp("crl");
	return 0;
}

static int remove_files(void **state)
{
	free(pem_key);
	free(pem_ca);
	free(pem_other_ca);
	free(pem_hub);
	free(pem_edge);
	free(pem_crl);
	return folder_remove();
}

static struct tls_files files(const char *cert)
{
	return (struct tls_files){ .cert_path = "cert.pem", .cert = cert, .key_path = "the.key", .key = pem_key,
				   .ca_path = "ca.pem",	    .ca = pem_ca, .crl_path = "crl.pem" };
}

/* Two ends, each noting what its conn says. */
struct end {
	struct conn *c;
	int events;
};

static struct end hub, edge;
static struct tls *hub_tls, *edge_tls;
static const char *edge_server_name = "hub.test";

static void on_event(struct conn *c)
{
	struct end *e = c->owner;

	assert_ptr_equal(c, e->c);
	e->events++;
}

static void on_plain(struct conn *c)
{
}

static struct tls *server_with_keys(const struct tls_files *f, const struct tls_ticket_keys *keys)
{
	char err[200] = "";
	struct tls *t = tls_server(f, keys, err, sizeof(err));

	assert_string_equal(err, "");
	assert_non_null(t);
	return t;
}

static struct tls *server_with(const struct tls_files *f)
{
	static const uint8_t key[1][TLS_TICKET_KEY] = { "tickets" };

	return server_with_keys(f, &(struct tls_ticket_keys){ key, 1 });
}

static struct tls *client_with(const struct tls_files *f)
{
	char err[200] = "";
	struct tls *t = tls_client(f, err, sizeof(err));

	assert_string_equal(err, "");
	assert_non_null(t);
	return t;
}

static int setup(void **state)
{
	struct tls_files h = files(pem_hub), e = files(pem_edge);

	loop_init();
	hub_tls = server_with(&h);
	edge_tls = client_with(&e);
	return 0;
}

static int teardown(void **state)
{
	tls_put(hub_tls);
	tls_put(edge_tls);
	loop_turn(0);
	loop_fini();
	mem_drain();
	return 0;
}

static void accept_on(int fd)
{
	struct conn *plain = conn_tcp(fd, on_plain, NULL);

	assert_non_null(plain);
	memset(&hub, 0, sizeof(hub));
	hub.c = tls_accept(hub_tls, plain, on_event, &hub);
	assert_non_null(hub.c);
}

static void connect_on(int fd, const struct tls_ticket *ticket)
{
	struct conn *plain = conn_tcp(fd, on_plain, NULL);

	assert_non_null(plain);
	memset(&edge, 0, sizeof(edge));
	edge.c = tls_connect(edge_tls, plain, edge_server_name, ticket, on_event, &edge);
	assert_non_null(edge.c);
}

static void start(const struct tls_ticket *ticket)
{
	int fd[2];

	tcp_pair(fd);
	accept_on(fd[0]);
	connect_on(fd[1], ticket);
	assert_int_equal(hub.events + edge.events, 0);
}

static void turn_while_handshaking(const struct end *e)
{
	for (int i = 0; i < 300 && tls_state(e->c) == TLS_HANDSHAKING; i++)
		loop_turn(10);
	assert_int_not_equal(tls_state(e->c), TLS_HANDSHAKING);
	assert_true(e->events > 0);
}

static void meet(const struct tls_ticket *ticket)
{
	start(ticket);
	turn_while_handshaking(&edge);
	turn_while_handshaking(&hub);
}

static void shake_hands(void)
{
	meet(NULL);
	assert_string_equal(tls_failure(hub.c), "");
	assert_string_equal(tls_failure(edge.c), "");
	assert_int_equal(tls_state(hub.c), TLS_UP);
	assert_int_equal(tls_state(edge.c), TLS_UP);
}

/* Reads with patience; the loop turns while there is nothing. */
static ssize_t await(struct conn *c, void *buf, size_t size)
{
	ssize_t n = CONN_AGAIN;

	for (int i = 0; i < 300; i++) {
		n = get(c, buf, size);
		if (n != CONN_AGAIN)
			return n;
		loop_turn(10);
	}
	return n;
}

static void expect(struct conn *c, const char *text)
{
	char buf[256];
	size_t got = 0;

	while (got < strlen(text)) {
		ssize_t n = await(c, buf + got, strlen(text) - got);

		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_memory_equal(buf, text, got);
}

static void close_both(void)
{
	conn_close(edge.c);
	conn_close(hub.c);
}

static void abort_both(void)
{
	conn_abort(edge.c);
	conn_abort(hub.c);
}

static void up_and_named(void **state)
{
	char name[64];

	shake_hands();
	assert_string_equal(tls_alpn(hub.c), "mctunnel/1");
	assert_string_equal(tls_alpn(edge.c), "mctunnel/1");
	assert_false(tls_resumed(hub.c));
	assert_int_equal(tls_peer_name(hub.c, 0, name, sizeof(name)), 1);
	assert_string_equal(name, "edge-1");
	assert_string_equal(tls_peer_subject(hub.c), "CN=edge-1");
	assert_int_equal(tls_peer_name(edge.c, 1, name, sizeof(name)), 2);
	assert_string_equal(name, "alt.test");
	assert_int_equal(tls_peer_name(edge.c, 2, name, sizeof(name)), 2);
	assert_string_equal(name, "");
	assert_true(tls_cert_expires_in(hub_tls) > 29 * 86400 && tls_cert_expires_in(hub_tls) <= 30 * 86400);
	close_both();
}

#define BULK (10u << 20)

struct flow {
	struct conn *from, *to;
	uint32_t put_seed, get_seed; /* states of two equal generators of bytes */
	size_t put, got;
	bool shut, ended;
};

static uint8_t next_byte(uint32_t *s)
{
	*s = *s * 1664525u + 1013904223u;
	return (uint8_t)(*s >> 24);
}

static uint8_t bulk[400 << 10];

/* Pieces of random sizes, as iovecs of random lengths. */
static void flow_put(struct flow *f)
{
	uint32_t seed = f->put_seed;
	struct iovec iov[3];
	size_t n = 0;
	ssize_t put_now;

	if (f->put == BULK && !f->shut) {
		assert_int_equal(conn_shut(f->from), 0);
		f->shut = true;
	}
	if (f->put == BULK || !f->from->writable)
		return;
	for (int i = 0; i < 3; i++) {
		size_t len = rnd_below(rnd_below(3) ? 100 : 100000);

		len = len > BULK - f->put - n ? BULK - f->put - n : len;
		iov[i] = (struct iovec){ bulk + n, len };
		n += len;
	}
	for (size_t i = 0; i < n; i++)
		bulk[i] = next_byte(&seed);
	put_now = conn_writev(f->from, iov, 3);
	if (put_now == CONN_AGAIN)
		return;
	assert_int_equal(put_now, n);
	f->put += n;
	f->put_seed = seed;
}

static void flow_get(struct flow *f)
{
	size_t size = rnd_below(2) ? sizeof(bulk) : 1 + rnd_below(3000);
	struct iovec iov[2] = { { bulk, size / 2 }, { bulk + size / 2, size - size / 2 } };
	ssize_t n;

	if (f->ended || !f->to->readable)
		return;
	n = conn_readv(f->to, iov, 2);
	if (n == CONN_AGAIN)
		return;
	assert_true(n >= 0);
	f->ended = n == 0;
	for (ssize_t i = 0; i < n; i++) {
		if (bulk[i] != next_byte(&f->get_seed))
			fail_msg("wrong byte at %zu", f->got + (size_t)i);
	}
	f->got += (size_t)n;
}

static bool idle(const struct flow *f)
{
	return !f->to->readable && !f->from->writable;
}

static void bulk_both_ways(void **state)
{
	struct flow up, down;

	rnd_seed(7);
	shake_hands();
	up = (struct flow){ .from = edge.c, .to = hub.c, .put_seed = 1, .get_seed = 1 };
	down = (struct flow){ .from = hub.c, .to = edge.c, .put_seed = 2, .get_seed = 2 };
	for (int i = 0; i < 1000000 && !(up.ended && down.ended); i++) {
		flow_put(&up);
		flow_put(&down);
		flow_get(&up);
		flow_get(&down);
		if (i % 8 == 0 || (idle(&up) && idle(&down)))
			loop_turn(idle(&up) && idle(&down) ? 10 : 0);
	}
	assert_int_equal(up.got, BULK);
	assert_int_equal(down.got, BULK);
	assert_true(up.ended && down.ended);
	assert_int_equal(conn_unsent(edge.c), 0);
	close_both();
}

static void what_the_kernel_does_not_take_is_kept(void **state)
{
	size_t size = 8 << 20, got = 0;
	char *big = calloc(1, size);
	struct iovec iov = { big, size };

	shake_hands();
	assert_int_equal(conn_writev(hub.c, &iov, 1), size);
	assert_true(conn_unsent(hub.c) > 0);
	assert_false(hub.c->writable);
	assert_int_equal(conn_writev(hub.c, &iov, 1), CONN_AGAIN);
	assert_int_equal(conn_shut(hub.c), 0); /* waits its turn */
	hub.events = 0;
	while (got < size) {
		ssize_t n = await(edge.c, big, size);

		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_int_equal(await(edge.c, big, size), 0);
	assert_int_equal(conn_unsent(hub.c), 0);
	assert_true(hub.c->writable && hub.events > 0);
	free(big);
	close_both();
}

static void half_close(void **state)
{
	char buf[16];

	shake_hands();
	assert_int_equal(put(edge.c, "request"), 7);
	assert_int_equal(conn_shut(edge.c), 0);
	expect(hub.c, "request");
	assert_int_equal(await(hub.c, buf, sizeof(buf)), 0);
	assert_int_equal(await(hub.c, buf, sizeof(buf)), 0);
	assert_int_equal(put(hub.c, "answer"), 6);
	expect(edge.c, "answer");
	conn_close(hub.c);
	assert_int_equal(await(edge.c, buf, sizeof(buf)), 0);
	conn_close(edge.c);
}

static void small_reads_lose_nothing(void **state)
{
	shake_hands();
	for (int i = 0; i < 20; i++)
		assert_int_equal(put(edge.c, "0123456789"), 10);
	for (int i = 0; i < 200; i++) {
		char byte;

		assert_int_equal(await(hub.c, &byte, 1), 1);
		assert_int_equal(byte, '0' + i % 10);
	}
	close_both();
}

static void truncation_is_not_an_end(void **state)
{
	char buf[16];

	shake_hands();
	assert_int_equal(put(edge.c, "half a"), 6);
	expect(hub.c, "half a");
	shutdown(conn_fd(edge.c), SHUT_WR); /* FIN without close_notify */
	assert_int_equal(await(hub.c, buf, sizeof(buf)), CONN_FAILED);
	assert_int_equal(hub.c->error, ECONNRESET);
	assert_non_null(strstr(tls_failure(hub.c), "without close_notify"));
	abort_both();
}

static void abort_is_a_reset(void **state)
{
	char buf[16];

	shake_hands();
	conn_abort(edge.c);
	assert_int_equal(await(hub.c, buf, sizeof(buf)), CONN_FAILED);
	assert_int_equal(hub.c->error, ECONNRESET);
	assert_int_equal(put(hub.c, "x"), CONN_FAILED);
	conn_abort(hub.c);
}

static void moving_keeps_the_data(void **state)
{
	char byte;

	shake_hands();
	assert_int_equal(put(edge.c, "ab"), 2);
	assert_int_equal(await(hub.c, &byte, 1), 1); /* "b" is inside already, no edge will tell */
	conn_detach(hub.c);
	assert_int_equal(conn_attach(hub.c), 0);
	assert_true(hub.c->readable);
	expect(hub.c, "b");
	close_both();
}

/* The client may believe it is up when the server's refusal arrives; either way it ends with a sentence. */
static void expect_client_failure(const char *sentence)
{
	char buf[16];

	if (tls_state(edge.c) == TLS_UP)
		assert_int_equal(await(edge.c, buf, sizeof(buf)), CONN_FAILED);
	assert_int_equal(tls_state(edge.c), TLS_FAILED);
	assert_string_equal(tls_failure(edge.c), sentence);
	assert_int_equal(edge.c->error, EPROTO);
}

static void client_with_cert(const char *name)
{
	char *cert = slurp(name);
	struct tls_files f = files(cert);

	tls_put(edge_tls);
	edge_tls = client_with(&f);
	free(cert);
}

static void refused_by_hub(const char *cert, const char *hub_says, const char *edge_says)
{
	client_with_cert(cert);
	meet(NULL);
	assert_int_equal(tls_state(hub.c), TLS_FAILED);
	assert_string_equal(tls_failure(hub.c), hub_says);
	assert_int_equal(hub.c->error, EPROTO);
	expect_client_failure(edge_says);
	abort_both();
}

static void server_with_crl(const char *crl)
{
	struct tls_files h = files(pem_hub);

	h.crl = crl;
	tls_put(hub_tls);
	hub_tls = server_with(&h);
}

static void expired(void **state)
{
	refused_by_hub("expired", "certificate has expired (CN=edge-old)", "peer refused our certificate: alert certificate has expired");
}

static void not_yet_valid(void **state)
{
	refused_by_hub("future", "certificate is not yet valid (CN=edge-new)", "peer refused our certificate: alert bad certificate");
}

static void of_an_unknown_ca(void **state)
{
	refused_by_hub("stranger", "signed by an unknown CA (CN=edge-1)", "peer refused our certificate: alert unknown CA");
}

static void revoked_one(void **state)
{
	server_with_crl(pem_crl);
	refused_by_hub("revoked", "certificate revoked (CN=edge-bad)", "peer refused our certificate: alert certificate revoked");
	client_with_cert("edge");
	shake_hands();
	close_both();
}

/* What a client thinks of the hub's certificate. */
static void refused_by_client(const char *sentence)
{
	meet(NULL);
	assert_int_equal(tls_state(edge.c), TLS_FAILED);
	assert_string_equal(tls_failure(edge.c), sentence);
	assert_int_equal(tls_state(hub.c), TLS_FAILED);
	assert_non_null(strstr(tls_failure(hub.c), "peer refused our certificate: alert"));
	abort_both();
}

static void hub_of_another_ca(void **state)
{
	struct tls_files f = files(pem_edge);

	f.ca = pem_other_ca;
	tls_put(edge_tls);
	edge_tls = client_with(&f);
	refused_by_client("signed by an unknown CA (CN=hub)");
}

static void wrong_name(void **state)
{
	edge_server_name = "elsewhere.test";
	refused_by_client("certificate is for another name (CN=hub)");
	edge_server_name = "127.0.0.2";
	refused_by_client("certificate is for another name (CN=hub)");
	edge_server_name = "127.0.0.1";
	shake_hands();
	close_both();
	edge_server_name = "hub.test";
}

/* A foreign client: the openssl command, which can leave things out. */
static void foreign_handshake(const char *options)
{
	struct endpoint e = { .text = NULL };
	char err[200], command[400];
	int s, fd;
	FILE *p;

	assert_int_equal(addr_parse(&e.addr, "127.0.0.1:0"), 0);
	s = sock_listen(&e, err, sizeof(err));
	sock_local(s, &e.addr);
	snprintf(command, sizeof(command), "exec openssl s_client -connect 127.0.0.1:%u %s </dev/null >/dev/null 2>&1", addr_port(&e.addr), options);
	p = popen(command, "r");
	assert_non_null(p);
	while ((fd = sock_accept(s, NULL, NULL)) < 0)
		assert_int_equal(errno, EAGAIN);
	close(s);
	accept_on(fd);
	for (int i = 0; i < 5000 && tls_state(hub.c) == TLS_HANDSHAKING; i++)
		loop_turn(10);
	pclose(p);
}

static void foreign_client(const char *options, const char *sentence)
{
	foreign_handshake(options);
	assert_string_equal(tls_failure(hub.c), sentence);
	conn_abort(hub.c);
}

static void foreign_clients(void **state)
{
	foreign_client("-alpn mctunnel/1", "no client certificate");
	foreign_client("-alpn h2,mctunnel/1", "no client certificate");
	foreign_client("-alpn http/1.1", "peer does not offer ALPN mctunnel/1 (offers http/1.1)");
	foreign_client("", "peer does not offer ALPN mctunnel/1 (offers none)");
	foreign_client("-tls1_2 -alpn mctunnel/1", "TLS error: unsupported protocol");
}

static void health_needs_no_certificate(void **state)
{
	char name[64];

	foreign_handshake("-alpn h2,http/1.1");
	assert_int_equal(tls_state(hub.c), TLS_UP);
	assert_string_equal(tls_alpn(hub.c), TLS_ALPN_HEALTH);
	assert_int_equal(tls_peer_name(hub.c, 0, name, sizeof(name)), 0);
	assert_string_equal(tls_peer_subject(hub.c), "");
	conn_abort(hub.c);
}

static void raw_client(const char *bytes, size_t len, int how, const char *sentence)
{
	int fd[2];

	tcp_pair(fd);
	accept_on(fd[0]);
	assert_int_equal(send(fd[1], bytes, len, MSG_NOSIGNAL), len);
	if (how == SHUT_WR)
		shutdown(fd[1], SHUT_WR);
	else if (how == SHUT_RDWR)
		close(fd[1]); /* RST */
	turn_while_handshaking(&hub);
	assert_int_equal(tls_state(hub.c), TLS_FAILED);
	assert_string_equal(tls_failure(hub.c), sentence);
	assert_int_equal(conn_readv(hub.c, &(struct iovec){ (char[4]){ 0 }, 4 }, 1), CONN_FAILED);
	conn_abort(hub.c);
	if (how != SHUT_RDWR)
		close(fd[1]);
}

static void not_tls(void **state)
{
	static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", h2[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	static const char garbage[] = "\x16\x03\x01\x00\x05hello world, this is no handshake";

	raw_client(http, sizeof(http) - 1, -1, "not TLS (plaintext)");
	raw_client(h2, sizeof(h2) - 1, -1, "not TLS (plaintext)");
	raw_client(garbage, 5, SHUT_WR, "connection closed during handshake");
	raw_client(garbage, 5, SHUT_RDWR, "connection reset during handshake");
	raw_client(garbage, sizeof(garbage) - 1, -1, "TLS error: unexpected message");
	rnd_seed(11);
	for (int i = 0; i < 50; i++) {
		char noise[300] = "\x16\x03\x01\x01\x20\x01\x00\x01\x1c\x03\x03";
		int fd[2];

		for (size_t k = 11 - rnd_below(8); k < sizeof(noise); k++)
			noise[k] = (char)rnd_u64();
		tcp_pair(fd);
		accept_on(fd[0]);
		assert_int_equal(send(fd[1], noise, sizeof(noise), 0), sizeof(noise));
		shutdown(fd[1], SHUT_WR);
		turn_while_handshaking(&hub);
		assert_int_equal(tls_state(hub.c), TLS_FAILED);
		conn_abort(hub.c);
		close(fd[1]);
	}
}

static void server_is_not_tls(void **state)
{
	int fd[2];

	tcp_pair(fd);
	connect_on(fd[1], NULL);
	assert_int_equal(send(fd[0], "SSH-2.0-x\r\n", 11, 0), 11);
	turn_while_handshaking(&edge);
	assert_string_equal(tls_failure(edge.c), "not TLS (plaintext)");
	conn_abort(edge.c);
	close(fd[0]);
}

static struct tls_ticket *earn_ticket(void)
{
	struct tls_ticket *t;

	shake_hands();
	assert_int_equal(put(hub.c, "x"), 1); /* the ticket comes before it */
	expect(edge.c, "x");
	t = tls_take_ticket(edge.c);
	assert_non_null(t);
	assert_null(tls_take_ticket(edge.c));
	abort_both(); /* a link that broke: resuming must be possible all the same */
	return t;
}

static void resumption(void **state)
{
	struct tls_ticket *t = earn_ticket(), *next;
	char name[32];

	for (int i = 0; i < 3; i++) {
		server_with_crl(pem_crl); /* another context with the same ticket key, as after a restart */
		meet(t);
		assert_int_equal(tls_state(hub.c), TLS_UP);
		assert_true(tls_resumed(hub.c) && tls_resumed(edge.c));
		assert_int_equal(tls_peer_name(hub.c, 0, name, sizeof(name)), 1);
		assert_string_equal(name, "edge-1");
		assert_string_equal(tls_peer_subject(hub.c), "CN=edge-1");
		assert_null(SSL_get0_peer_certificate(tls_of(hub.c)->ssl));
		assert_int_equal(put(edge.c, "hello"), 5);
		expect(hub.c, "hello");
		assert_int_equal(put(hub.c, "x"), 1);
		expect(edge.c, "x");
		next = tls_take_ticket(edge.c);
		assert_non_null(next);
		tls_ticket_free(t);
		t = next;
		abort_both();
	}
	tls_ticket_free(t);
}

static void use_keys(const char *first, const char *second)
{
	uint8_t keys[2][TLS_TICKET_KEY] = { "" };
	struct tls_files f = files(pem_hub);

	memcpy(keys[0], first, strlen(first));
	memcpy(keys[1], second, strlen(second));
	tls_put(hub_tls);
	hub_tls = server_with_keys(&f, &(struct tls_ticket_keys){ keys, second[0] ? 2 : 1 });
}

static bool resumes(const struct tls_ticket *t)
{
	bool yes;

	meet(t);
	assert_int_equal(tls_state(hub.c), TLS_UP);
	yes = tls_resumed(hub.c);
	assert_int_equal(tls_resumed(edge.c), yes);
	abort_both();
	return yes;
}

static void keys_of_a_pair(void **state)
{
	struct tls_ticket *t;

	use_keys("old", "");
	t = earn_ticket();
	use_keys("new", "old"); /* rotated: what the old one sealed is opened */
	assert_true(resumes(t));
	use_keys("old", "new"); /* the other hub, not rotated yet */
	assert_true(resumes(t));
	use_keys("new", "");
	assert_false(resumes(t));
	tls_ticket_free(t);
	use_keys("new", "old");
	t = earn_ticket();
	use_keys("new", ""); /* sealed with the first */
	assert_true(resumes(t));
	tls_ticket_free(t);
}

/* The client's session with another ticket in it: its bytes stand there as the hub has sent them. */
static void change_ticket(struct tls_ticket *t, size_t at, uint8_t flip)
{
	size_t len = (size_t)i2d_SSL_SESSION(t->session, NULL), ticket_len;
	uint8_t *der = malloc(len), *p = der, *found;
	const unsigned char *ticket;
	const uint8_t *in = der;

	i2d_SSL_SESSION(t->session, &p);
	SSL_SESSION_get0_ticket(t->session, &ticket, &ticket_len);
	found = memmem(der, len, ticket, ticket_len);
	assert_non_null(found);
	found[at % ticket_len] ^= flip;
	SSL_SESSION_free(t->session);
	t->session = d2i_SSL_SESSION(NULL, &in, (long)len);
	assert_non_null(t->session);
	free(der);
}

/* Wherever a byte of a ticket is changed, a full handshake follows. */
static void tampered_tickets(void **state)
{
	struct tls_ticket *t = earn_ticket();
	const unsigned char *ticket;
	size_t len;

	SSL_SESSION_get0_ticket(t->session, &ticket, &len);
	assert_in_range(len, 100, 400); /* no certificate in it */
	for (size_t at = 0; at < len; at += 1 + len / 24) {
		change_ticket(t, at, 0x40);
		assert_false(resumes(t));
		change_ticket(t, at, 0x40);
	}
	assert_true(resumes(t));
	tls_ticket_free(t);
}

/* Also when it is resumed again and again: each ticket is good for what is left of the time since the full handshake. */
static void tickets_end(void **state)
{
	struct tls_ticket *t = earn_ticket(), *next;

	assert_in_range(SSL_SESSION_get_ticket_lifetime_hint(t->session), LINK_LIFE_S - 60, LINK_LIFE_S);
	later_s = LINK_LIFE_S / 2;
	meet(t);
	assert_true(tls_resumed(hub.c));
	assert_int_equal(put(hub.c, "x"), 1);
	expect(edge.c, "x");
	next = tls_take_ticket(edge.c);
	abort_both();
	assert_in_range(SSL_SESSION_get_ticket_lifetime_hint(next->session), LINK_LIFE_S / 2 - 60, LINK_LIFE_S / 2);
	assert_true(resumes(next));
	later_s = LINK_LIFE_S + 1;
	assert_false(resumes(next));
	assert_false(resumes(t));
	later_s = 0;
	tls_ticket_free(t);
	tls_ticket_free(next);
}

static void expired_then_resumed(void **state)
{
	struct tls_ticket *t;

	client_with_cert("short");
	t = earn_ticket();
	later_s = 86400 - 60;
	assert_true(resumes(t));
	later_s = 86400 + 60;
	assert_false(resumes(t));
	later_s = -3600; /* not valid yet */
	assert_false(resumes(t));
	later_s = 0;
	assert_true(resumes(t));
	tls_ticket_free(t);
}

/* Who has signed it must be trusted still, and have a list of the revoked that is in force, if lists are looked at. */
static void authority_then_resumed(void **state)
{
	struct tls_ticket *t = earn_ticket();
	struct tls_files f = files(pem_hub);
	char *both = xasprintf("%s%s", pem_other_ca, pem_ca), *old = slurp("crl.old"), *foreign = slurp("crl.other");

	f.ca = both;
	tls_put(hub_tls);
	hub_tls = server_with(&f);
	assert_true(resumes(t));
	hub_tls->trust.authorities[1].judged = 0;
	hub_tls->trust.authorities[1].odd = true;
	assert_false(resumes(t));
	f.ca = pem_other_ca;
	tls_put(hub_tls);
	hub_tls = server_with(&f);
	meet(t);
	assert_string_equal(tls_failure(hub.c), "signed by an unknown CA (CN=edge-1)");
	abort_both();
	server_with_crl(foreign);
	meet(t);
	assert_string_equal(tls_failure(hub.c), "there is no revocation list (CRL) of its CA (CN=edge-1)");
	abort_both();
	server_with_crl(pem_crl);
	assert_true(resumes(t));
	edge_tls->trust.authorities[0].judged = 0; /* the agent asks the same of the hub */
	edge_tls->trust.authorities[0].odd = true;
	assert_false(resumes(t));
	edge_tls->trust.authorities[0].judged = 0;
	edge_tls->trust.authorities[0].odd = false;
	assert_int_equal(sk_X509_CRL_num(hub_tls->trust.authorities[0].crls), 1);
	BIO *b = pem(old);
	sk_X509_CRL_push(hub_tls->trust.authorities[0].crls, PEM_read_bio_X509_CRL(b, NULL, NULL, NULL));
	BIO_free(b);
	hub_tls->trust.authorities[0].judged = 0;
	assert_false(resumes(t));
	free(both);
	free(old);
	free(foreign);
	tls_ticket_free(t);
}

/* Whoever shows a ticket is who has earned it, whatever certificate he could show. */
static void a_ticket_is_its_owners(void **state)
{
	struct tls_ticket *t = earn_ticket();
	char name[32];

	client_with_cert("revoked");
	meet(t);
	assert_true(tls_resumed(hub.c));
	assert_int_equal(tls_peer_name(hub.c, 0, name, sizeof(name)), 1);
	assert_string_equal(name, "edge-1");
	abort_both();
	tls_ticket_free(t);
}

/* Earned without a certificate it opens no link. */
static void a_ticket_of_a_health_check(void **state)
{
	struct tls_ticket *t;
	char name[32];

	edge_tls->probe = true;
	SSL_CTX_set_alpn_protos(edge_tls->ctx, (const unsigned char *)"\x02h2", 3);
	t = earn_ticket();
	edge_tls->probe = false;
	SSL_CTX_set_alpn_protos(edge_tls->ctx, (const unsigned char *)"\x0a" TLS_ALPN_LINK, 11);
	meet(t);
	assert_false(tls_resumed(hub.c));
	assert_int_equal(tls_peer_name(hub.c, 0, name, sizeof(name)), 1);
	abort_both();
	tls_ticket_free(t);
}

/* More of them than a ticket remembers. */
static void many_names(void **state)
{
	struct tls_ticket *t;
	char name[64];

	client_with_cert("many");
	t = earn_ticket();
	meet(t);
	assert_false(tls_resumed(hub.c));
	assert_int_equal(tls_peer_name(hub.c, 39, name, sizeof(name)), 40);
	assert_string_equal(name, "a-name-that-is-not-short-39.test");
	abort_both();
	tls_ticket_free(t);
}

static void revoked_then_resumed(void **state)
{
	struct tls_ticket *t;
	char *before = slurp("crl.before");

	server_with_crl(before);
	client_with_cert("revoked");
	t = earn_ticket();
	server_with_crl(pem_crl);
	meet(t);
	assert_int_equal(tls_state(hub.c), TLS_FAILED);
	assert_string_equal(tls_failure(hub.c), "certificate revoked (CN=edge-bad)");
	expect_client_failure("peer refused our certificate: alert certificate revoked");
	abort_both();
	tls_ticket_free(t);
	free(before);
}

static void ticket_of_another_name(void **state)
{
	struct tls_ticket *t = earn_ticket();

	edge_server_name = "elsewhere.test";
	meet(t);
	assert_int_equal(tls_state(edge.c), TLS_FAILED);
	abort_both();
	edge_server_name = "alt.test"; /* it is the hub's as well, but this is not known of the ticket */
	assert_false(resumes(t));
	edge_server_name = "hub.test";
	tls_ticket_free(t);
}

static void complains(struct tls_files f, const char *sentence)
{
	char err[200] = "";

	assert_int_equal(tls_check(&f, true, err, sizeof(err)), -1);
	if (!strstr(err, sentence))
		fail_msg("\"%s\" is not in \"%s\"", sentence, err);
}

static void bad_files(void **state)
{
	struct tls_files good = files(pem_hub), f = good;
	char *encrypted = slurp("key.encrypted"), *old = slurp("crl.old"), *other = slurp("other.key"), err[200] = "";

	assert_int_equal(tls_check(&good, true, err, sizeof(err)), 0);
	assert_int_equal(tls_check(&good, false, err, sizeof(err)), 0);
	f.cert = "nothing";
	complains(f, "cert.pem: there is no certificate");
	f.cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
	complains(f, "cert.pem: the certificate cannot be used");
	f = good;
	f.key = "nothing";
	complains(f, "the.key: there is no private key");
	f.key = encrypted;
	complains(f, "the.key: the key is encrypted");
	f.key = other;
	complains(f, "the.key: the key does not belong to the certificate in cert.pem");
	f = good;
	f.ca = "";
	complains(f, "ca.pem: there is no CA certificate");
	f = good;
	f.crl = "";
	complains(f, "crl.pem: there is no revocation list");
	f.crl = old;
	complains(f, "crl.pem: the revocation list (CRL) has expired");
	free(encrypted);
	free(old);
	free(other);
}

static void doubts(const char *cert, const char *ca, const char *sentence)
{
	struct tls_files f = files(pem_hub);
	char *own = slurp(cert), *authority = slurp(ca), text[300] = "";
	bool doubt;

	f.cert = own;
	f.ca = authority;
	f.crl = pem_crl;
	doubt = tls_doubt(&f, true, text, sizeof(text));
	if (doubt != (sentence[0] != 0) || !strstr(text, sentence))
		fail_msg("\"%s\" is not in \"%s\"", sentence, text);
	free(own);
	free(authority);
}

static void doubtful_files(void **state)
{
	doubts("hub", "ca", "");
	doubts("expired", "ca", "cert.pem: the certificate expired at 2021-01-01 00:00 UTC");
	doubts("future", "ca", "cert.pem: the certificate is valid only from 2040-01-01 00:00 UTC");
	doubts("client", "ca", "cert.pem: the certificate is not meant for a server");
	doubts("soon", "ca", "cert.pem: the certificate expires at");
	doubts("hub", "other-ca", "crl.pem: no revocation list (CRL) of the authority in ca.pem");
}

/* ---- without memory ---- */

static bool is_up(const struct conn *c)
{
	return c && tls_state(c) == TLS_UP;
}

static bool has_ended(const struct conn *c)
{
	return !c || tls_state(c) == TLS_FAILED;
}

/* The state of a conn that was to wrap a plain one: it ends with a reason. */
static void end_of(struct conn *c, struct conn *plain)
{
	if (c && tls_state(c) == TLS_FAILED)
		assert_true(tls_failure(c)[0] != 0);
	conn_abort(c ? c : plain);
}

/* A byte from the hub, if both can. */
static bool a_byte_goes_through(void)
{
	ssize_t n = CONN_AGAIN;
	char byte;

	while (!(is_up(hub.c) && is_up(edge.c)) && !has_ended(hub.c) && !has_ended(edge.c))
		loop_turn(10);
	if (!is_up(hub.c) || !is_up(edge.c) || put(hub.c, "x") != 1)
		return false;
	while (n == CONN_AGAIN && !has_ended(hub.c)) {
		n = get(edge.c, &byte, 1);
		if (n == CONN_AGAIN)
			loop_turn(10);
	}
	return n == 1;
}

/* Who has no memory does not say that it is the other one's certificate. */
static void assert_no_blame(const struct conn *c)
{
	static const char *const words[] = { "certificate", "CA", "plaintext", "ALPN" };

	for (size_t i = 0; c && tls_state(c) == TLS_FAILED && i < sizeof(words) / sizeof(words[0]); i++) {
		if (strstr(tls_failure(c), words[i]))
			fail_msg("%s", tls_failure(c));
	}
}

/* A connection with a ticket, in which that allocation fails. Whether it came to be. */
static bool survives(unsigned n, const struct tls_ticket *ticket)
{
	struct conn *plain[2];
	char name[64];
	bool both;
	int fd[2];

	tcp_pair(fd);
	for (int i = 0; i < 2; i++)
		assert_non_null(plain[i] = conn_tcp(fd[i], on_plain, NULL));
	failing = n;
	hub.c = tls_accept(hub_tls, plain[0], on_event, &hub);
	edge.c = tls_connect(edge_tls, plain[1], edge_server_name, ticket, on_event, &edge);
	both = a_byte_goes_through();
	if (both) {
		tls_ticket_free(tls_take_ticket(edge.c));
		if (tls_peer_name(hub.c, 0, name, sizeof(name)) > 0)
			assert_string_equal(name, "edge-1");
		if (tls_peer_name(edge.c, 0, name, sizeof(name)) > 0)
			assert_string_equal(name, "hub.test"); /* and not the CN, for want of memory to read the others */
	}
	assert_no_blame(hub.c);
	assert_no_blame(edge.c);
	end_of(hub.c, plain[0]);
	end_of(edge.c, plain[1]);
	loop_turn(0);
	return both;
}

/* OpenSSL without memory for the conn's place in its object called back with NULL. The first allocations all, then fewer and fewer: there are some thousands. */
static void each_allocation(void **state)
{
	struct tls_ticket *ticket;
	unsigned n = 0, tried = 0, good = 0;
	char byte;
	bool failed;

	shake_hands();
	assert_int_equal(put(hub.c, "x"), 1);
	assert_int_equal(await(edge.c, &byte, 1), 1);
	ticket = tls_take_ticket(edge.c);
	assert_non_null(ticket);
	close_both();
	do {
		n += 1 + n / 128;
		good += survives(n, tried++ % 2 ? ticket : NULL);
		failed = has_failed();
	} while (failed);
	assert_true(good > 0 && good < tried);
	tls_ticket_free(ticket);
	shake_hands();
	close_both();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(up_and_named),
		T(bulk_both_ways),
		T(what_the_kernel_does_not_take_is_kept),
		T(half_close),
		T(small_reads_lose_nothing),
		T(truncation_is_not_an_end),
		T(abort_is_a_reset),
		T(moving_keeps_the_data),
		T(expired),
		T(not_yet_valid),
		T(of_an_unknown_ca),
		T(revoked_one),
		T(hub_of_another_ca),
		T(wrong_name),
		T(foreign_clients),
		T(health_needs_no_certificate),
		T(not_tls),
		T(server_is_not_tls),
		T(resumption),
		T(keys_of_a_pair),
		T(tampered_tickets),
		T(tickets_end),
		T(expired_then_resumed),
		T(authority_then_resumed),
		T(a_ticket_is_its_owners),
		T(a_ticket_of_a_health_check),
		T(many_names),
		T(revoked_then_resumed),
		T(ticket_of_another_name),
		T(bad_files),
		T(doubtful_files),
		T(each_allocation),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
