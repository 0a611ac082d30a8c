/* Sites against clients made with OpenSSL alone: which certificate a name gets, versions, protocols, clients' certificates, tickets, ends of every kind,
 * and what is found in files. */
#define _GNU_SOURCE
#define die test_die
#include "net/tls_files.c"
#include "net/tls_site.c"
#undef die

#include "../failing.h"
#include "../tcp_pair.h"
#include "folder.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char make_pki[] =
	"set -e; cd \"$DIR\"; exec >log 2>&1\n"
	"openssl ecparam -genkey -name prime256v1 -noout -out key\n"
	"openssl ecparam -genkey -name prime256v1 -noout -out other.key\n"
	"openssl genrsa -out rsa.key 2048\n"
	"openssl genrsa -out weak.key 1024\n"
	"printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\nnew_certs_dir=.\\nserial=serial\\ndefault_md=sha256\\npolicy=p\\n"
	"copy_extensions=copy\\ndefault_days=30\\ndefault_crl_days=30\\nunique_subject=no\\ncertificate=ca\\nprivate_key=key\\n"
	"crlnumber=crlnumber\\ncrl_extensions=x\\n[x]\\nauthorityKeyIdentifier=keyid\\n"
	"[scope]\\nissuingDistributionPoint=critical,@idp\\n[idp]\\nonlyCA=TRUE\\n[p]\\ncommonName=supplied\\n' >cnf\n"
	"touch index; echo 1000 | tee serial >crlnumber\n"
	"openssl req -x509 -new -key key -subj /CN=test-ca -days 30 -out ca\n"
	"sign() { n=$1; cn=$2; san=$3; k=$4; shift 4; openssl req -new -key $k -subj /CN=$cn ${san:+-addext subjectAltName=$san} -out csr;"
	" openssl ca -config cnf -batch -notext -in csr -out $n \"$@\"; }\n"
	"sign first first DNS:first.test,DNS:WWW.first.test key\n"
	"sign wild wild DNS:*.wild.test,DNS:wild.test key\n"
	"sign plain plain.test '' key\n"
	"sign rsa first DNS:first.test rsa.key\n"
	"sign weak weak DNS:weak.test weak.key\n"
	"sign again again DNS:first.test,DNS:again.test key\n"
	"sign expired old DNS:old.test key -startdate 20200101000000Z -enddate 20210101000000Z\n"
	"sign client alice '' key\n"
	"sign revoked mallory '' key\n"
	"openssl ca -config cnf -gencrl -out crl.before\n"
	"openssl ca -config cnf -revoke revoked -crl_reason keyCompromise\n"
	"openssl ca -config cnf -gencrl -out crl\n"
	"openssl ca -config cnf -gencrl -crlexts scope -out crl.scope\n"
	"openssl req -x509 -new -key key -subj /CN=stranger -days 30 -out stranger\n"
	"openssl ec -in key -aes128 -passout pass:x -out key.encrypted\n"
	"cat key >>both; cat plain >>both\n";

static char *borrowed[64];
static size_t borrowed_n;

/* Until the test is over. */
static const char *borrow(const char *name)
{
	return borrowed[borrowed_n++] = slurp(name);
}

static int make_files(void **state)
{
	return folder_make("/tmp/mctunnel-site-XXXXXX", make_pki);
}

static int remove_files(void **state)
{
	return folder_remove();
}

/* ---- a site ---- */

static struct tls_site_cert certs[4];
static struct tls_site_options options;
static struct tls_site *site;
static char findings[4096];

static void note(void *arg, bool bad, const char *text)
{
	size_t n = strlen(findings);

	snprintf(findings + n, sizeof(findings) - n, "%s %s\n", bad ? "BAD" : "doubt", text);
}

static void add_cert(const char *name, const char *key)
{
	certs[options.certs_n++] = (struct tls_site_cert){ .path = name, .text = borrow(name), .key_path = key, .key = borrow(key) };
}

static void make_site(void)
{
	tls_site_put(site);
	findings[0] = 0;
	site = tls_site_new(&options, note, NULL);
	if (!site)
		fail_msg("%s", findings);
}

/* ---- a client and its conn ---- */

static struct conn *conn;
static int events;
static SSL_CTX *client_ctx;
static SSL *client;
static int client_fd;

static void on_event(struct conn *c)
{
	events++;
}

static void connect_as(const char *name)
{
	struct conn *plain;
	int fd[2];

	tcp_pair(fd);
	plain = conn_tcp(fd[0], on_event, NULL);
	assert_non_null(plain);
	conn = tls_site_accept(site, plain, on_event, NULL);
	assert_non_null(conn);
	client = SSL_new(client_ctx);
	client_fd = fd[1];
	SSL_set_fd(client, client_fd);
	SSL_set_connect_state(client);
	if (name)
		SSL_set_tlsext_host_name(client, name);
}

/* Until both sides are up (true), or the site's side has failed. */
static bool shake(void)
{
	for (int i = 0; i < 1000; i++) {
		int rc = SSL_do_handshake(client);

		ERR_clear_error();
		loop_turn(i < 5 ? 0 : 10);
		if (tls_state(conn) == TLS_FAILED)
			return false;
		if (rc == 1 && tls_state(conn) == TLS_UP)
			return true;
	}
	fail_msg("the handshake stands still");
	return false;
}

static void hang_up(void)
{
	if (conn)
		conn_abort(conn);
	conn = NULL;
	SSL_free(client);
	client = NULL;
	if (client_fd >= 0)
		close(client_fd);
	client_fd = -1;
	loop_turn(0);
}

static void shown(const char *name, const char *cn)
{
	char got[64] = "";

	connect_as(name);
	assert_true(shake());
	X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(client)), NID_commonName, got, sizeof(got));
	assert_string_equal(got, cn);
	hang_up();
}

static void use_client(const char *cert)
{
	BIO *b = BIO_new_mem_buf(borrow(cert), -1), *k = BIO_new_mem_buf(borrow("key"), -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(k, NULL, NULL, NULL);

	assert_int_equal(SSL_CTX_use_cert_and_key(client_ctx, x, key, NULL, 1), 1);
	X509_free(x);
	EVP_PKEY_free(key);
	BIO_free(b);
	BIO_free(k);
}

static ssize_t get(char *buf, size_t size)
{
	struct iovec iov = { buf, size };
	ssize_t n = CONN_AGAIN;

	for (int i = 0; i < 500 && n == CONN_AGAIN; i++) {
		n = conn_readv(conn, &iov, 1);
		if (n == CONN_AGAIN)
			loop_turn(10);
	}
	return n;
}

static void put(const char *text)
{
	struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };

	assert_int_equal(conn_writev(conn, &iov, 1), strlen(text));
}

/* -1: the end, -2: broken. */
static int client_get(char *buf, int size)
{
	for (int i = 0; i < 500; i++) {
		int n = SSL_read(client, buf, size), e = SSL_get_error(client, n);

		ERR_clear_error();
		if (n > 0)
			return n;
		if (e == SSL_ERROR_ZERO_RETURN)
			return -1;
		if (e != SSL_ERROR_WANT_READ)
			return -2;
		loop_turn(10);
	}
	return -3;
}

static int setup(void **state)
{
	memset(&options, 0, sizeof(options));
	options.name = "web";
	options.certs = certs;
	options.min = 12;
	client_fd = -1;
	client_ctx = SSL_CTX_new(TLS_client_method());
	loop_init();
	return 0;
}

static int teardown(void **state)
{
	struct mem_usage u;

	hang_up();
	tls_site_put(site);
	site = NULL;
	SSL_CTX_free(client_ctx);
	loop_fini();
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	for (; borrowed_n > 0; borrowed_n--)
		free(borrowed[borrowed_n - 1]);
	return 0;
}

/* ---- tests ---- */

static void the_name_chooses_the_certificate(void **state)
{
	add_cert("first", "key");
	add_cert("wild", "key");
	add_cert("plain", "key");
	make_site();
	assert_string_equal(findings, "");
	shown(NULL, "first");
	shown("first.test", "first");
	shown("www.FIRST.test", "first");
	shown("a.wild.test", "wild");
	shown("A.WILD.TEST", "wild");
	shown("wild.test", "wild");
	shown("a.b.wild.test", "first"); /* one label only */
	shown("*.wild.test", "first");   /* no name of a host */
	shown(".wild.test", "first");
	shown("plain.test", "plain.test");
	shown("nobody.test", "first");
	shown("xfirst.test", "first");
}

static void the_name_is_noted(void **state)
{
	add_cert("first", "key");
	make_site();
	connect_as("Some.Name.TEST");
	assert_true(shake());
	assert_string_equal(tls_sni(conn), "some.name.test");
	hang_up();
	connect_as(NULL);
	assert_true(shake());
	assert_string_equal(tls_sni(conn), "");
	assert_string_equal(tls_alpn(conn), "");
	assert_string_equal(tls_peer_subject(conn), "");
	hang_up();
	connect_as("no/host");
	assert_true(shake());
	assert_string_equal(tls_sni(conn), "");
}

/* Some clients can do only one of them. */
static void two_kinds_of_keys_for_a_name(void **state)
{
	for (int first = 0; first < 2; first++) {
		options.certs_n = 0;
		add_cert(first ? "rsa" : "first", first ? "rsa.key" : "key");
		add_cert(first ? "first" : "rsa", first ? "key" : "rsa.key");
		make_site();
		assert_string_equal(findings, "");
		for (int kind = 0; kind < 4; kind++) {
			SSL_CTX_set1_sigalgs_list(client_ctx, kind & 1 ? "ECDSA+SHA256" : "RSA-PSS+SHA256:RSA+SHA256");
			connect_as(kind & 2 ? "first.test" : NULL);
			assert_true(shake());
			assert_int_equal(EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_get0_peer_certificate(client))), kind & 1 ? EVP_PKEY_EC : EVP_PKEY_RSA);
			hang_up();
		}
	}
}

static void versions(void **state)
{
	add_cert("first", "key");
	make_site();
	SSL_CTX_set_max_proto_version(client_ctx, TLS1_2_VERSION);
	connect_as(NULL);
	assert_true(shake());
	assert_int_equal(SSL_version(client), TLS1_2_VERSION);
	hang_up();
	options.min = 13;
	make_site();
	connect_as(NULL);
	assert_false(shake());
	assert_non_null(strstr(tls_failure(conn), "unsupported protocol"));
	hang_up();
	SSL_CTX_set_max_proto_version(client_ctx, 0);
	connect_as(NULL);
	assert_true(shake());
	assert_int_equal(SSL_version(client), TLS1_3_VERSION);
	hang_up();
	options.min = 12;
	make_site();
	SSL_CTX_set_security_level(client_ctx, 0);
	SSL_CTX_set_min_proto_version(client_ctx, TLS1_VERSION);
	SSL_CTX_set_max_proto_version(client_ctx, TLS1_1_VERSION);
	connect_as(NULL);
	assert_false(shake());
}

static void protocols(void **state)
{
	static const char *const ours[] = { "h2", "http/1.1" };

	add_cert("first", "key");
	options.alpn = ours;
	options.alpn_n = 2;
	make_site();
	SSL_CTX_set_alpn_protos(client_ctx, (const unsigned char *)"\x08http/1.1\x02h2", 12);
	connect_as(NULL);
	assert_true(shake());
	assert_string_equal(tls_alpn(conn), "h2"); /* ours is the choice */
	hang_up();
	SSL_CTX_set_alpn_protos(client_ctx, (const unsigned char *)"\x08http/1.1", 9);
	connect_as(NULL);
	assert_true(shake());
	assert_string_equal(tls_alpn(conn), "http/1.1");
	hang_up();
	SSL_CTX_set_alpn_protos(client_ctx, (const unsigned char *)"\x04smtp\x03" "a\nb", 9);
	connect_as(NULL);
	assert_false(shake());
	assert_string_equal(tls_failure(conn), "peer does not offer any of our protocols (ALPN) (offers smtp a?b)");
	hang_up();
	options.alpn_n = 0;
	make_site();
	connect_as(NULL);
	assert_true(shake());
	assert_string_equal(tls_alpn(conn), "");
}

static void ask_for_certificates(bool insist)
{
	add_cert("first", "key");
	options.ca_path = "ca";
	options.ca = borrow("ca");
	options.crl_path = "crl";
	options.crl = borrow("crl");
	options.ask = true;
	options.insist = insist;
	make_site();
	assert_string_equal(findings, "");
}

static void client_with(const char *cert, int version, bool good, const char *why)
{
	char name[64];

	SSL_CTX_set_max_proto_version(client_ctx, version);
	if (cert)
		use_client(cert);
	connect_as(NULL);
	assert_int_equal(shake(), good);
	if (!good) {
		assert_non_null(strstr(tls_failure(conn), why));
	} else {
		tls_peer_name(conn, 0, name, sizeof(name));
		assert_string_equal(name, cert ? "alice" : "");
	}
	hang_up();
}

static void clients_certificates_are_required(void **state)
{
	ask_for_certificates(true);
	for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
		SSL_CTX_free(client_ctx);
		client_ctx = SSL_CTX_new(TLS_client_method());
		client_with(NULL, v, false, "no client certificate");
		client_with("client", v, true, NULL);
		client_with("revoked", v, false, "certificate revoked (CN=mallory)");
		client_with("stranger", v, false, "unknown CA");
		client_with("expired", v, false, "certificate has expired (CN=old)");
	}
}

static void clients_certificates_are_optional(void **state)
{
	ask_for_certificates(false);
	client_with(NULL, 0, true, NULL);
	client_with("client", 0, true, NULL);
	client_with("revoked", 0, false, "certificate revoked (CN=mallory)");
	client_with("stranger", 0, false, "unknown CA");
}

/* ---- tickets ---- */

static SSL_SESSION *kept;

static int on_session(SSL *ssl, SSL_SESSION *s)
{
	SSL_SESSION_free(kept);
	kept = SSL_SESSION_dup(s);
	return 0;
}

static void keep_ticket(void)
{
	char buf[8];

	SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(client_ctx, on_session);
	connect_as(NULL);
	assert_true(shake());
	put("x");
	assert_int_equal(client_get(buf, sizeof(buf)), 1);
	hang_up();
	assert_non_null(kept);
	assert_int_equal(SSL_SESSION_get_max_early_data(kept), 0); /* no data before the handshake: it could be replayed */
}

static bool comes_back(void)
{
	SSL_SESSION *copy = SSL_SESSION_dup(kept);
	bool resumed;

	connect_as(NULL);
	SSL_set_session(client, copy);
	SSL_SESSION_free(copy);
	resumed = shake() && tls_resumed(conn);
	hang_up();
	return resumed;
}

static void drop_ticket(void)
{
	SSL_SESSION_free(kept);
	kept = NULL;
}

static void tickets(void **state)
{
	uint8_t key[1][TLS_TICKET_KEY];
	struct tls_ticket_keys keys = { key, 1 };

	rnd_bytes(key, sizeof(key));
	options.keys = &keys;
	add_cert("first", "key");
	for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
		SSL_CTX_set_max_proto_version(client_ctx, v);
		options.name = "web";
		make_site();
		keep_ticket();
		assert_true(comes_back());
		make_site(); /* a reload, a new worker */
		assert_true(comes_back());
		options.name = "other";
		make_site();
		assert_false(comes_back());
		options.name = "web";
		rnd_bytes(key, sizeof(key));
		make_site();
		assert_false(comes_back());
		drop_ticket();
	}
}

static void tickets_of_who_is_not_welcome(void **state)
{
	uint8_t key[1][TLS_TICKET_KEY];
	struct tls_ticket_keys keys = { key, 1 };

	rnd_bytes(key, sizeof(key));
	options.keys = &keys;
	ask_for_certificates(true);
	options.crl = borrow("crl.before");
	make_site();
	use_client("revoked");
	keep_ticket();
	assert_true(comes_back());
	options.crl = borrow("crl");
	make_site();
	assert_false(comes_back()); /* revoked since */
	drop_ticket();
	SSL_CTX_free(client_ctx);
	client_ctx = SSL_CTX_new(TLS_client_method());
	options.insist = false;
	make_site();
	keep_ticket(); /* without a certificate */
	assert_true(comes_back());
	options.insist = true;
	make_site();
	assert_false(comes_back()); /* one is needed now */
	drop_ticket();
	use_client("client");
	make_site();
	keep_ticket();
	options.ask = options.insist = false;
	make_site();
	assert_false(comes_back()); /* the name in it was not checked by this site */
	drop_ticket();
}

/* ---- data and ends ---- */

static void client_put(const char *text)
{
	assert_int_equal(SSL_write(client, text, (int)strlen(text)), (int)strlen(text));
}

static void ends(void **state)
{
	char buf[64];

	add_cert("first", "key");
	make_site();
	for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
		SSL_CTX_set_max_proto_version(client_ctx, v);
		connect_as(NULL); /* the client ends its direction, ours goes on */
		assert_true(shake());
		client_put("one");
		assert_int_equal(SSL_shutdown(client), 0);
		assert_int_equal(get(buf, sizeof(buf)), 3);
		assert_int_equal(get(buf, sizeof(buf)), 0);
		put("two");
		assert_int_equal(client_get(buf, sizeof(buf)), 3);
		assert_int_equal(conn_shut(conn), 0);
		assert_int_equal(client_get(buf, sizeof(buf)), -1);
		conn_close(conn);
		conn = NULL;
		hang_up();
		connect_as(NULL); /* we end first */
		assert_true(shake());
		put("one");
		assert_int_equal(conn_shut(conn), 0);
		assert_int_equal(client_get(buf, sizeof(buf)), 3);
		assert_int_equal(client_get(buf, sizeof(buf)), -1);
		client_put("two");
		assert_int_equal(get(buf, sizeof(buf)), 3);
		assert_int_equal(SSL_shutdown(client), 1);
		assert_int_equal(get(buf, sizeof(buf)), 0);
		conn_close(conn);
		conn = NULL;
		hang_up();
	}
}

static void an_end_without_goodbye_is_a_reset(void **state)
{
	char buf[64];

	add_cert("first", "key");
	make_site();
	connect_as(NULL);
	assert_true(shake());
	client_put("one");
	shutdown(client_fd, SHUT_WR);
	assert_int_equal(get(buf, sizeof(buf)), 3);
	assert_int_equal(get(buf, sizeof(buf)), CONN_FAILED);
	assert_int_equal(conn->error, ECONNRESET);
	hang_up();
	connect_as(NULL); /* and ours is one, when we give up */
	assert_true(shake());
	conn_abort(conn);
	conn = NULL;
	assert_int_equal(client_get(buf, sizeof(buf)), -2);
}

static void renegotiation_is_refused(void **state)
{
	char buf[64];

	add_cert("first", "key");
	make_site();
	SSL_CTX_set_max_proto_version(client_ctx, TLS1_2_VERSION);
	connect_as(NULL);
	assert_true(shake());
	client_put("x");
	assert_int_equal(get(buf, sizeof(buf)), 1);
	assert_int_equal(SSL_renegotiate(client), 1);
	SSL_do_handshake(client);
	for (int i = 0; i < 500; i++) {
		struct iovec iov = { buf, sizeof(buf) };

		loop_turn(10);
		assert_int_equal(conn_readv(conn, &iov, 1), CONN_AGAIN);
		if (SSL_get_error(client, SSL_read(client, buf, sizeof(buf))) == SSL_ERROR_SSL) {
			assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
			ERR_clear_error();
			return;
		}
	}
	fail();
}

static void what_is_not_tls(void **state)
{
	add_cert("first", "key");
	make_site();
	connect_as(NULL);
	assert_int_equal(send(client_fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	for (int i = 0; i < 200 && tls_state(conn) == TLS_HANDSHAKING; i++)
		loop_turn(10);
	assert_int_equal(tls_state(conn), TLS_FAILED);
	assert_string_equal(tls_failure(conn), "not TLS (plaintext)");
}

/* ---- files ---- */

/* What has not changed is not read again; the last site takes it along. */
static void unchanged_files_are_read_once(void **state)
{
	struct tls_site *first, *second;

	add_cert("first", "key");
	add_cert("wild", "key");
	first = tls_site_new(&options, note, NULL);
	assert_int_equal(map_count(known.by_digest), 2);
	certs[1].text = borrow("plain");
	options.name = "another";
	second = tls_site_new(&options, note, NULL);
	assert_int_equal(map_count(known.by_digest), 3);
	assert_ptr_equal(first->certs[0].id, second->certs[0].id);
	tls_site_put(first);
	assert_int_equal(map_count(known.by_digest), 2);
	site = second;
	shown(NULL, "first");
	shown("plain.test", "plain.test");
	shown("a.wild.test", "first");
	tls_site_put(second);
	site = NULL;
	assert_null(known.by_digest);
}

static void finds(bool bad, const char *text)
{
	struct tls_site *s;

	findings[0] = 0;
	s = tls_site_new(&options, note, NULL);
	if (bad != !s || !strstr(findings, text))
		fail_msg("%s", findings);
	tls_site_put(s);
	options.certs_n = 0;
}

static void findings_in_files(void **state)
{
	int64_t left;

	add_cert("first", "other.key");
	finds(true, "BAD other.key: the key does not belong to the certificate in first\n");
	add_cert("first", "key.encrypted");
	finds(true, "BAD key.encrypted: the key is encrypted");
	add_cert("key", "key");
	finds(true, "BAD key: there is no certificate in it");
	add_cert("first", "first");
	finds(true, "BAD first: there is no private key in it");
	add_cert("first", "key");
	add_cert("wild", "other.key");
	add_cert("log", "key");
	finds(true, "BAD other.key: the key does not belong to the certificate in wild\nBAD log: there is no certificate in it");
	add_cert("first", "key");
	add_cert("weak", "weak.key");
	finds(true, "BAD weak: the certificate cannot be used: ee key too small");
	add_cert("expired", "key");
	finds(false, "doubt expired: the certificate expired at 2021-01-01");
	add_cert("first", "key");
	add_cert("again", "key");
	finds(false, "doubt again: first already has the certificate for \"first.test\"");
	add_cert("first", "key");
	add_cert("first", "key");
	finds(false, "doubt first: first already has");
	options.ca_path = "key";
	options.ca = borrow("key");
	add_cert("first", "key");
	finds(true, "BAD key: there is no CA certificate in it");
	options.ca = borrow("stranger");
	options.ca_path = "stranger";
	options.crl_path = "crl";
	options.crl = borrow("crl");
	add_cert("first", "key");
	finds(false, "doubt crl: no revocation list (CRL) of the authority in stranger");
	options.ca = options.crl = NULL;
	add_cert("both", "both"); /* the key first, then the certificate */
	make_site();
	assert_string_equal(tls_site_cert(site, 0, &left), "both");
	assert_true(left > 29 * 86400 - 3600 && left <= 30 * 86400);
	assert_null(tls_site_cert(site, 1, &left));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* ---- files without memory ---- */

static jmp_buf death;

void test_die(const char *fmt, ...)
{
	longjmp(death, 1);
}

static int judgement(SSL_CTX *ctx, const char *pem_text)
{
	X509_STORE_CTX *x = X509_STORE_CTX_new();
	X509 *cert = first_cert(pem_text);
	int error;

	assert_int_equal(X509_STORE_CTX_init(x, SSL_CTX_get_cert_store(ctx), cert, NULL), 1);
	X509_verify_cert(x);
	error = X509_STORE_CTX_get_error(x);
	X509_STORE_CTX_free(x);
	X509_free(cert);
	return error;
}

#ifdef __SANITIZE_THREAD__
enum { STEP = 25 }; /* OpenSSL takes so many locks that all would take minutes */
#else
enum { STEP = 1 };
#endif

static const char *subjects[2];
static int judged[2];

/* With the Nth allocation failing it is refused, or judges as it should. Whether one failed. 0: notes how it should. */
static bool read_without_memory(unsigned n, const struct tls_files *f)
{
	struct tls *t = xcalloc(1, sizeof(*t));
	char err[200] = "";
	struct tls_complaint c = { err, sizeof(err) };
	bool failed;
	int rc = -1;

	t->server = true;
	tls_context_init(t);
	failing = n;
	if (setjmp(death) == 0)
		rc = tls_files_trust(f, &t->trust, t->ctx, &c);
	else
		err[0] = 1;
	failed = has_failed() && n > 0;
	ERR_clear_error();
	assert_true(rc == 0 || (failed && err[0]));
	if (rc == 0) /* who comes back is judged by these alone */
		assert_true(t->trust.authorities_n == 1 && sk_X509_CRL_num(t->trust.authorities[0].crls) == 1);
	for (int i = 0; i < 2 && rc == 0; i++) {
		int j = judgement(t->ctx, subjects[i]);

		if (n == 0)
			judged[i] = j;
		assert_int_equal(j, judged[i]);
	}
	tls_put(t);
	loop_turn(0);
	return failed;
}

static void each_allocation_of(const char *crl, int first, int second)
{
	struct tls_files f = { .ca_path = "ca", .ca = borrow("ca"), .crl_path = crl, .crl = borrow(crl) };
	unsigned n = 1;

	subjects[0] = borrow("client");
	subjects[1] = borrow("revoked");
	read_without_memory(0, &f);
	assert_int_equal(judged[0], first);
	assert_int_equal(judged[1], second);
	while (read_without_memory(n, &f))
		n += STEP;
	assert_true(n > 50);
}

/* OpenSSL makes something of what it had no memory to read: a CA that has signed nothing, a list that counts for all. */
static void each_allocation_of_authorities(void **state)
{
	each_allocation_of("crl", X509_V_OK, X509_V_ERR_CERT_REVOKED);
	each_allocation_of("crl.scope", X509_V_ERR_DIFFERENT_CRL_SCOPE, X509_V_ERR_DIFFERENT_CRL_SCOPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_name_chooses_the_certificate),
		T(the_name_is_noted),
		T(two_kinds_of_keys_for_a_name),
		T(versions),
		T(protocols),
		T(clients_certificates_are_required),
		T(clients_certificates_are_optional),
		T(tickets),
		T(tickets_of_who_is_not_welcome),
		T(ends),
		T(an_end_without_goodbye_is_a_reset),
		T(renegotiation_is_refused),
		T(what_is_not_tls),
		T(unchanged_files_are_read_once),
		T(findings_in_files),
		T(each_allocation_of_authorities),
	};
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
