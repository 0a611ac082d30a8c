/* TLS over OpenSSL: of links (1.3, mutual certificates) and of clients that it ends for (sites, tls_site.h).
 * A struct tls holds what is read from files; a TLS conn owns its descriptor, its SSL object and the records the kernel has not taken.
 * Work is done in large turns: one recv() fills a buffer of the thread, many records are decrypted from it; many records
 * are encrypted into another, one send() takes them. Between two calls both are empty; what remains belongs to the conn.
 * A certificate is judged again at every resumption, so that a ticket never outlives a revocation.
 * It does not know who may connect: names are for its users to judge. */
#define _GNU_SOURCE
#include "mctunnel/net/tls.h"
#include "mctunnel/net/tls_peer.h"
#include "mctunnel/net/tls_site.h"

#include "mctunnel/base/buf.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/event/aside.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CIPHERS_12                                                                                                                  \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define GROUPS "X25519:P-256"
#define SITE_GROUPS "X25519:P-256:P-384"
#define LINK_LIFE_S (7 * 24 * 3600) /* of what one full handshake has proved; RFC 8446 allows no more */
#define SITE_LIFE_S (12 * 3600)
#define HANDSHAKES_US 2000 /* of a turn */

#define RECORD 16384            /* plaintext of a full record */
#define RECV_MIN (RECORD + 512) /* worth one recv(), whatever room the reader has */
#define IN_SIZE (256 << 10)
#define OUT_SIZE (512 << 10)
#define FLUSH_PIECES 32

struct authority { /* a certificate of the ca file: who vouches for peers when they come back */
	uint8_t digest[TLS_PEER_DIGEST];
	X509 *cert;              /* owned */
	STACK_OF(X509_CRL) *crls; /* owned: those it has signed */
	bool odd;                /* a list that speaks of a part of its certificates only: too subtle for us */
	atomic_llong judged;     /* the second in which it was last looked at, doubled, and 1 when it was found good */
};

struct tls {
	atomic_int refs;
	struct aside end; /* freed aside */
	SSL_CTX *ctx;
	bool server;
	bool probe; /* a client without an interest in who answers */
	time_t not_after;
	long life_s;                   /* of sessions */
	struct authority *authorities; /* owned */
	size_t authorities_n;
	bool crl_check;
	uint8_t (*ticket_keys)[TLS_TICKET_KEY]; /* owned; NULL: OpenSSL has its own */
	size_t ticket_keys_n;
	struct tls_site *site; /* the one it is the first member of; NULL: of links */
};

enum { SITE_KINDS = 3 }; /* of keys (RSA, ECDSA, EdDSA) that a name may have certificates with */

enum { DIGEST_SIZE = 32 };

struct identity { /* a certificate with its key; the same files give the same one to all sites, also to those of the next configuration */
	unsigned refs;               /* under known.lock */
	uint8_t digest[DIGEST_SIZE]; /* of both texts */
	X509 *cert;                  /* owned, as what follows */
	EVP_PKEY *key;
	STACK_OF(X509) *chain;
	time_t not_after;
};

struct site_cert {
	char *path;          /* owned */
	struct identity *id; /* shared; NULL: it could not be read */
};

struct site_name { /* what clients are shown that ask for a name */
	struct site_cert *certs[SITE_KINDS]; /* borrowed; the kinds of their keys differ */
	size_t n;
};

struct tls_site {
	struct tls tls; /* first; its context has the settings, the certificates are chosen for each client */
	struct site_cert *certs; /* owned */
	size_t certs_n;
	struct map *names; /* struct site_name, owned; "*.example.com" among them */
	uint8_t *alpn;     /* owned: as on the wire; NULL: none */
	size_t alpn_len;
	bool ask, insist;
};

struct tls_ticket {
	SSL_SESSION *session; /* owned */
};

struct tls_conn {
	struct conn c;
	struct list turn; /* in hands, when its handshake can go on */
	struct tls *tls; /* shared */
	SSL *ssl;
	enum tls_state state;
	bool sock_readable; /* recv() may be tried */
	bool first_seen;    /* the first byte has been looked at */
	bool eof;           /* FIN was read */
	bool was_up;
	bool ended;       /* close_notify was read */
	bool shut_wanted; /* conn_shut() came before the handshake was over */
	bool shut_done;   /* close_notify was written */
	int recv_error, send_error;
	struct bufq unsent;   /* records the kernel has not taken */
	uint8_t *pending;     /* owned: ciphertext received but not yet asked for by OpenSSL */
	size_t pending_at, pending_len;
	SSL_SESSION *session; /* owned: the newest ticket */
	struct tls_peer *peer; /* owned, server: of a certificate that was found good; NULL: none */
	char failure[192];
	char subject[128];
	char sni[256];
	char alpn[TLS_SITE_ALPN_NAME + 1];
};

/* The thread's buffers. Whoever calls OpenSSL for a conn uses them from io_begin() to io_end(). */
struct io {
	size_t in_at, in_len, out_len;
	size_t room; /* how much plaintext the reader can take */
	uint8_t in[IN_SIZE], out[OUT_SIZE], record[RECORD];
};

enum { DOUBT_DAYS = 14 };

/* Of the process. OpenSSL takes half a millisecond to read a key: a reload must not stop a thread for a thousand of them that have not changed. */
static struct {
	pthread_mutex_t lock;
	struct map *by_digest; /* struct identity that some site has; NULL: none yet */
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t io_key; /* frees a thread's buffers when it ends */
static BIO_METHOD *bio_method;
static _Thread_local struct io *io;

/* Handshakes that can go on. They are the dearest thing a hub does: so much of a turn and no more, or a thousand agents that come back at once
 * would hold up everybody's bytes. Clients and agents take turns, so that neither has to wait for all of the other. */
static _Thread_local struct {
	struct list clients, agents;
	struct deferred work;
	uint64_t spent_us, turn_us; /* in the turn that began then */
	bool made;
} hands;

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static struct tls_conn *tls_of(const struct conn *c)
{
	return container_of(c, struct tls_conn, c);
}

static bool know_again(struct tls_conn *t);
static time_t time_of(const ASN1_TIME *a);
static bool each_name(X509 *cert, void (*take)(void *arg, const char *name), void *arg);

/* ---- why it failed ---- */

static void __attribute__((format(printf, 3, 4))) fail(struct tls_conn *t, int error, const char *fmt, ...)
{
	va_list ap;

	if (t->state == TLS_FAILED)
		return; /* the first cause stays */
	t->state = TLS_FAILED;
	if (!t->c.error)
		t->c.error = error;
	if (t->failure[0]) /* noted while OpenSSL was at it */
		return;
	va_start(ap, fmt);
	vsnprintf(t->failure, sizeof(t->failure), fmt, ap);
	va_end(ap);
}

static void subject_text(X509 *cert, char *buf, size_t size)
{
	BIO *b = cert ? BIO_new(BIO_s_mem()) : NULL;
	int n;

	buf[0] = 0;
	if (!b)
		return;
	X509_NAME_print_ex(b, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
	n = BIO_read(b, buf, (int)size - 1);
	buf[n > 0 ? n : 0] = 0;
	BIO_free(b);
}

static const char unknown_ca[] = "signed by an unknown CA";

static const char *verify_text(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return "certificate has expired";
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return "certificate is not yet valid";
	case X509_V_ERR_CERT_REVOKED:
		return "certificate revoked";
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return unknown_ca;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return "certificate is for another name";
	case X509_V_ERR_CRL_HAS_EXPIRED:
		return "our revocation list (CRL) has expired, so no certificate can be trusted";
	case X509_V_ERR_CRL_NOT_YET_VALID:
		return "our revocation list (CRL) is not yet valid";
	case X509_V_ERR_UNABLE_TO_GET_CRL:
		return "there is no revocation list (CRL) of its CA";
	case X509_V_ERR_INVALID_PURPOSE:
		return "certificate is not meant for this side of TLS";
	default:
		return X509_verify_cert_error_string(error);
	}
}

/* RFC 8446 section 6: the alerts that speak of the certificate we sent. */
static bool alert_about_certificate(int alert)
{
	return (alert >= 42 && alert <= 46) || alert == 48 || alert == 49 || alert == 116;
}

static const char *alert_text(int alert)
{
	switch (alert) {
	case 45:
		return "certificate has expired";
	case 116:
		return "certificate required";
	case 120:
		return "no application protocol";
	default:
		return SSL_alert_desc_string_long(alert);
	}
}

static void fail_io(struct tls_conn *t, int error)
{
	const char *when = t->was_up ? "" : " during handshake";

	if (error == ECONNRESET || error == EPIPE)
		fail(t, ECONNRESET, "connection reset%s", when);
	else if (error == ETIMEDOUT)
		fail(t, error, "connection timed out%s", when);
	else
		fail(t, error, "%s%s", strerror(error), when);
}

static void fail_ssl(struct tls_conn *t, unsigned long e)
{
	int reason = ERR_GET_REASON(e), alert = reason - SSL_AD_REASON_OFFSET;
	const char *text = ERR_reason_error_string(e);

	if (ERR_GET_LIB(e) != ERR_LIB_SSL)
		fail(t, EPROTO, "TLS error: %s", text ? text : "unknown");
	else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		fail(t, EPROTO, "no client certificate");
	else if (alert >= 0 && alert < 256)
		fail(t, EPROTO, "peer refused%s: alert %s", alert_about_certificate(alert) ? " our certificate" : "", alert_text(alert));
	else
		fail(t, EPROTO, "TLS error: %s", text ? text : "unknown");
}

static void broke(struct tls_conn *t)
{
	unsigned long e = ERR_peek_error();

	if (t->failure[0])
		fail(t, EPROTO, "%s", "");
	else if (t->recv_error)
		fail_io(t, t->recv_error);
	else if (t->eof)
		fail(t, ECONNRESET, t->was_up ? "connection closed without close_notify" : "connection closed during handshake");
	else
		fail_ssl(t, e);
}

enum outcome { DONE, AGAIN, ENDED, BROKEN };

/* What the last call of OpenSSL for this conn came to. */
static enum outcome outcome(struct tls_conn *t, int rc)
{
	if (rc > 0)
		return DONE;
	switch (SSL_get_error(t->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return AGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return ENDED;
	default:
		broke(t);
		return BROKEN;
	}
}

/* ---- the socket below ---- */

/* TLS begins with a handshake record; a peer that cannot go on may begin with an alert. */
static bool looks_like_tls(struct tls_conn *t, uint8_t first)
{
	return first == 0x16 || (!t->tls->server && first == 0x15);
}

static bool judge_first_byte(struct tls_conn *t, uint8_t first)
{
	if (t->first_seen)
		return true;
	t->first_seen = true;
	if (looks_like_tls(t, first))
		return true;
	str_copy(t->failure, sizeof(t->failure), "not TLS (plaintext)");
	return false;
}

/* One recv() into the thread's buffer; false when there is nothing to take from it. */
static bool fill(struct tls_conn *t)
{
	size_t want = smaller(IN_SIZE, io->room > RECV_MIN ? io->room : RECV_MIN);
	ssize_t n;

	if (!t->sock_readable || t->eof || t->recv_error)
		return false;
	do {
		n = recv(t->c.fd, io->in, want, 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0) {
		t->eof = n == 0;
		t->sock_readable = n == 0;
		t->recv_error = n < 0 && errno != EAGAIN ? errno : 0;
		return false;
	}
	if ((size_t)n < want && !t->c.peer_shut && !t->c.hup)
		t->sock_readable = false; /* what comes later is a new edge */
	io->in_at = 0;
	io->in_len = (size_t)n;
	return judge_first_byte(t, io->in[0]);
}

static size_t take_pending(struct tls_conn *t, void *dst, size_t len)
{
	size_t n = smaller(len, t->pending_len - t->pending_at);

	memcpy(dst, t->pending + t->pending_at, n);
	t->pending_at += n;
	if (t->pending_at == t->pending_len) {
		free(t->pending);
		t->pending = NULL;
	}
	return n;
}

static int bio_read(BIO *b, char *dst, int len)
{
	struct tls_conn *t = BIO_get_data(b);
	size_t n;

	BIO_clear_retry_flags(b);
	if (len <= 0)
		return 0;
	if (t->pending)
		return (int)take_pending(t, dst, (size_t)len);
	if (io->in_at == io->in_len && !fill(t)) {
		if (t->eof)
			return 0;
		if (!t->recv_error && !t->failure[0])
			BIO_set_retry_read(b);
		return -1;
	}
	n = smaller((size_t)len, io->in_len - io->in_at);
	memcpy(dst, io->in + io->in_at, n);
	io->in_at += n;
	return (int)n;
}

/* To the kernel what it takes now, the rest to the conn's own queue. */
static void send_out(struct tls_conn *t)
{
	const uint8_t *p = io->out;
	size_t len = io->out_len;
	ssize_t n = 0;

	io->out_len = 0;
	if (len == 0 || t->send_error)
		return;
	if (t->unsent.len == 0) {
		do {
			n = send(t->c.fd, p, len, MSG_NOSIGNAL);
		} while (n < 0 && errno == EINTR);
	}
	if (n < 0 && errno != EAGAIN) {
		t->send_error = errno;
		return;
	}
	n = n < 0 ? 0 : n;
	if (bufq_append(&t->unsent, p + n, len - (size_t)n) < 0)
		t->send_error = ENOMEM; /* a record is lost: nothing can follow */
}

static int bio_write(BIO *b, const char *src, int len)
{
	struct tls_conn *t = BIO_get_data(b);

	BIO_clear_retry_flags(b);
	BUG_ON(len < 0 || len > OUT_SIZE);
	if ((size_t)len > OUT_SIZE - io->out_len)
		send_out(t);
	memcpy(io->out + io->out_len, src, (size_t)len);
	io->out_len += (size_t)len;
	return len;
}

static long bio_ctrl(BIO *b, int command, long arg, void *ptr)
{
	return command == BIO_CTRL_FLUSH;
}

static void init_once(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conn");
	if (!bio_method || pthread_key_create(&io_key, free) != 0)
		die("cannot set up TLS: no memory");
	BIO_meth_set_read(bio_method, bio_read);
	BIO_meth_set_write(bio_method, bio_write);
	BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

void tls_thread_init(void)
{
	pthread_once(&once, init_once);
	if (io)
		return;
	io = xmalloc(sizeof(*io));
	io->in_at = io->in_len = io->out_len = 0;
	pthread_setspecific(io_key, io);
}

static void io_begin(struct tls_conn *t, size_t room)
{
	if (!io)
		tls_thread_init();
	BUG_ON(io->in_at != io->in_len || io->out_len);
	io->room = room;
	ERR_clear_error();
}

/* Leaves the thread's buffers empty for the next conn. */
static void io_end(struct tls_conn *t)
{
	size_t left = io->in_len - io->in_at;

	ERR_clear_error();
	if (left > 0) {
		BUG_ON(t->pending);
		t->pending = malloc(left);
		if (t->pending) {
			memcpy(t->pending, io->in + io->in_at, left);
			t->pending_at = 0;
			t->pending_len = left;
		} else {
			fail(t, ENOMEM, "no memory");
		}
	}
	io->in_at = io->in_len = 0;
	send_out(t);
}

/* FIN follows close_notify once the kernel has everything. */
static void end_sending(struct tls_conn *t)
{
	if (t->shut_done && t->unsent.len == 0 && !t->send_error)
		(void)shutdown(t->c.fd, SHUT_WR);
}

static void flush_unsent(struct tls_conn *t)
{
	struct iovec iov[FLUSH_PIECES];
	struct msghdr m = { .msg_iov = iov };
	bool had = t->unsent.len > 0;

	while (t->unsent.len > 0 && !t->send_error) {
		ssize_t n;

		m.msg_iovlen = (size_t)bufq_peek(&t->unsent, iov, FLUSH_PIECES);
		n = sendmsg(t->c.fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			t->send_error = errno;
		if (n > 0)
			bufq_drop(&t->unsent, (size_t)n);
	}
	if (t->send_error) {
		bufq_clear(&t->unsent);
		t->c.error = t->c.error ? t->c.error : t->send_error;
	}
	if (had)
		end_sending(t);
}

/* ---- the conn ---- */

/* Reads into one piece until it is full; *got grows. */
static enum outcome read_piece(struct tls_conn *t, const struct iovec *piece, size_t room, size_t *got)
{
	for (size_t at = 0; at < piece->iov_len;) {
		enum outcome o;
		size_t n = 0;

		io->room = room - at;
		o = outcome(t, SSL_read_ex(t->ssl, (char *)piece->iov_base + at, piece->iov_len - at, &n));
		if (o != DONE)
			return o;
		at += n;
		*got += n;
	}
	return DONE;
}

static ssize_t tls_readv(struct conn *c, const struct iovec *iov, int n)
{
	struct tls_conn *t = tls_of(c);
	enum outcome o = DONE;
	size_t room = 0, got = 0;

	if (t->state == TLS_FAILED)
		return CONN_FAILED;
	if (t->ended)
		return 0;
	if (t->state == TLS_HANDSHAKING) {
		c->readable = false;
		return CONN_AGAIN;
	}
	for (int i = 0; i < n; i++)
		room += iov[i].iov_len;
	BUG_ON(room == 0);
	io_begin(t, room);
	for (int i = 0; i < n && o == DONE; i++)
		o = read_piece(t, &iov[i], room - got, &got);
	io_end(t);
	if (o == AGAIN)
		c->readable = false;
	if (o == ENDED)
		t->ended = c->peer_shut = true;
	if (got > 0)
		return (ssize_t)got;
	return t->state == TLS_FAILED ? CONN_FAILED : o == AGAIN ? CONN_AGAIN : 0;
}

/* The peer may have said why before it closed: its alert tells more than our EPIPE. */
static ssize_t write_failed(struct tls_conn *t)
{
	char byte;
	size_t n;

	if (t->state == TLS_FAILED)
		return CONN_FAILED;
	t->sock_readable = true;
	io_begin(t, RECORD);
	(void)outcome(t, SSL_peek_ex(t->ssl, &byte, 1, &n));
	io_end(t);
	fail_io(t, t->send_error);
	return CONN_FAILED;
}

static bool write_record(struct tls_conn *t, const void *data, size_t len)
{
	size_t n;

	if (len == 0)
		return true;
	ERR_clear_error();
	return outcome(t, SSL_write_ex(t->ssl, data, len, &n)) == DONE;
}

/* Full records, whatever the pieces are: short ones are joined. */
static bool write_records(struct tls_conn *t, const struct iovec *iov, int n)
{
	size_t joined = 0;

	for (int i = 0; i < n; i++) {
		const uint8_t *p = iov[i].iov_base;
		size_t left = iov[i].iov_len, part;

		for (; left > 0; p += part, left -= part) {
			part = smaller(left, RECORD - joined);
			if (part == RECORD) {
				if (!write_record(t, p, RECORD))
					return false;
				continue;
			}
			memcpy(io->record + joined, p, part);
			joined += part;
			if (joined == RECORD) {
				if (!write_record(t, io->record, joined))
					return false;
				joined = 0;
			}
		}
	}
	return write_record(t, io->record, joined);
}

static ssize_t tls_writev(struct conn *c, const struct iovec *iov, int n)
{
	struct tls_conn *t = tls_of(c);
	size_t total = 0;
	bool ok;

	if (t->state == TLS_FAILED)
		return CONN_FAILED;
	BUG_ON(t->shut_done);
	if (t->send_error)
		return write_failed(t);
	if (t->state == TLS_HANDSHAKING || t->unsent.len > 0) {
		c->writable = false;
		return CONN_AGAIN;
	}
	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	io_begin(t, RECORD);
	ok = write_records(t, iov, n);
	io_end(t);
	if (t->send_error)
		return write_failed(t);
	c->writable = t->unsent.len == 0;
	return ok ? (ssize_t)total : CONN_FAILED;
}

static size_t tls_unsent(const struct conn *c)
{
	return tls_of(c)->unsent.len;
}

static void say_goodbye(struct tls_conn *t)
{
	if (t->shut_done || t->state != TLS_UP)
		return;
	io_begin(t, RECORD);
	(void)SSL_shutdown(t->ssl);
	io_end(t);
	t->shut_done = true;
	end_sending(t);
}

static int tls_shut(struct conn *c)
{
	struct tls_conn *t = tls_of(c);

	if (t->state == TLS_FAILED)
		return CONN_FAILED;
	t->shut_wanted = true;
	say_goodbye(t);
	return 0;
}

static bool no_hands(void)
{
	return list_empty(&hands.clients) && list_empty(&hands.agents);
}

static void leave_hands(struct tls_conn *t)
{
	if (list_empty(&t->turn))
		return;
	list_del(&t->turn);
	if (no_hands())
		loop_undefer(&hands.work);
}

static void free_tls_conn(struct tls_conn *t)
{
	if (t->ssl) {
		/* else OpenSSL takes the session for a bad one and forbids resuming it */
		SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(t->ssl);
	}
	SSL_SESSION_free(t->session);
	free(t->peer);
	leave_hands(t);
	bufq_clear(&t->unsent);
	free(t->pending);
	tls_put(t->tls);
	ERR_clear_error();
	mem_put(MEM_OTHER, t);
}

static void tls_close(struct conn *c, bool orderly)
{
	struct tls_conn *t = tls_of(c);

	loop_unwatch(&c->watch);
	if (orderly)
		say_goodbye(t);
	if (orderly || !t->was_up)
		flush_unsent(t);
	/* Before the handshake is over a FIN can be mistaken for nothing, and a reset could overtake our alert. */
	sock_end(c->fd, orderly || (t->state == TLS_FAILED && !t->was_up));
	free_tls_conn(t);
}

static const struct conn_ops tls_ops = {
	.readv = tls_readv,
	.writev = tls_writev,
	.shut = tls_shut,
	.close = tls_close,
	.unsent = tls_unsent,
};

static void up(struct tls_conn *t)
{
	const unsigned char *alpn;
	unsigned len;

	SSL_get0_alpn_selected(t->ssl, &alpn, &len);
	if (len < sizeof(t->alpn)) {
		memcpy(t->alpn, alpn ? alpn : (const unsigned char *)"", len);
		t->alpn[len] = 0;
	}
	if (!t->tls->server && !t->tls->probe && strcmp(t->alpn, TLS_ALPN_LINK) != 0) {
		fail(t, EPROTO, "peer did not choose ALPN %s", TLS_ALPN_LINK);
		return;
	}
	if (SSL_session_reused(t->ssl) && !know_again(t)) {
		fail(t, ENOMEM, "no memory");
		return;
	}
	t->state = TLS_UP;
	t->was_up = true;
	t->c.readable = true; /* data may have come in the same packet */
	if (t->shut_wanted)
		say_goodbye(t);
}

static void handshake(struct tls_conn *t)
{
	enum outcome o;

	io_begin(t, RECORD);
	o = outcome(t, SSL_do_handshake(t->ssl));
	io_end(t);
	if (o == DONE && t->state == TLS_HANDSHAKING)
		up(t);
	else if (o == AGAIN && t->send_error && !t->sock_readable)
		fail_io(t, t->send_error);
}

static void go_on(struct tls_conn *t)
{
	if (t->state == TLS_HANDSHAKING) {
		handshake(t);
		if (t->state == TLS_HANDSHAKING)
			return;
	}
	t->c.writable = t->unsent.len == 0;
	t->c.on_event(&t->c); /* may free it */
}

static uint64_t exactly_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static struct tls_conn *first_of(struct list *l)
{
	return list_empty(l) ? NULL : list_first(l, struct tls_conn, turn);
}

static void take_turns(struct deferred *d)
{
	uint64_t began = exactly_us();
	struct tls_conn *t;

	if (hands.turn_us != clock_us())
		hands.spent_us = 0;
	hands.turn_us = clock_us();
	for (unsigned i = 0; hands.spent_us < HANDSHAKES_US; i++) {
		t = first_of(i % 2 ? &hands.agents : &hands.clients);
		if (!t)
			t = first_of(i % 2 ? &hands.clients : &hands.agents);
		if (!t)
			return;
		list_del(&t->turn);
		go_on(t);
		hands.spent_us += exactly_us() - began;
		began = exactly_us();
	}
	if (!no_hands())
		loop_defer(d);
}

static void queue_up(struct tls_conn *t)
{
	if (!hands.made) {
		list_init(&hands.clients);
		list_init(&hands.agents);
		deferred_init(&hands.work, take_turns);
		hands.made = true;
	}
	if (list_empty(&t->turn))
		list_add(t->tls->site ? &hands.clients : &hands.agents, &t->turn);
	loop_defer(&hands.work);
}

static void tls_ready(struct watch *w, unsigned events)
{
	struct conn *c = container_of(w, struct conn, watch);
	struct tls_conn *t = tls_of(c);

	conn_note(c, events);
	t->sock_readable |= (events & (LOOP_READ | LOOP_HUP | LOOP_PEER_SHUT)) != 0;
	if (events & (LOOP_WRITE | LOOP_HUP))
		flush_unsent(t);
	if (t->state == TLS_HANDSHAKING && t->tls->server)
		queue_up(t);
	else
		go_on(t);
}

static SSL *make_ssl(struct tls_conn *t)
{
	SSL *ssl = SSL_new(t->tls->ctx);
	BIO *b = BIO_new(bio_method);

	if (!ssl || !b || SSL_set_app_data(ssl, t) != 1) {
		SSL_free(ssl);
		BIO_free(b);
		return NULL;
	}
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(ssl, b, b);
	if (t->tls->server)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	return ssl;
}

static struct tls_conn *make_tls_conn(struct tls *tls, void (*on_event)(struct conn *), void *owner)
{
	struct tls_conn *t = mem_get(MEM_OTHER, sizeof(*t));

	if (!t)
		return NULL;
	t->tls = tls_get(tls);
	t->c.ops = &tls_ops;
	t->c.on_event = on_event;
	t->c.owner = owner;
	t->c.fd = t->c.watch.fd = -1;
	list_init(&t->turn);
	t->ssl = make_ssl(t);
	if (t->ssl)
		return t;
	free_tls_conn(t);
	return NULL;
}

/* Takes the plain conn's place in the loop. */
static struct conn *take_over(struct tls_conn *t, struct conn *plain)
{
	conn_detach(plain);
	if (loop_watch(&t->c.watch, plain->fd, tls_ready) < 0) {
		if (conn_attach(plain) < 0)
			plain->error = errno;
		free_tls_conn(t);
		return NULL;
	}
	t->c.fd = conn_release(plain);
	return &t->c;
}

struct conn *tls_accept(struct tls *tls, struct conn *plain, void (*on_event)(struct conn *), void *owner)
{
	struct tls_conn *t;

	BUG_ON(!tls->server || !on_event);
	t = make_tls_conn(tls, on_event, owner);
	return t ? take_over(t, plain) : NULL;
}

/* ---- judging certificates ---- */

static bool set_name(X509_VERIFY_PARAM *p, const char *name)
{
	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_ip_asc(p, name) == 1 || X509_VERIFY_PARAM_set1_host(p, name, 0) == 1;
}

struct texts {
	char *p; /* owned */
	size_t len;
	bool failed;
};

static void add_text(void *arg, const char *text)
{
	struct texts *t = arg;
	size_t len = strlen(text) + 1;
	char *p = t->failed ? NULL : realloc(t->p, t->len + len);

	if (!p) {
		t->failed = true;
		return;
	}
	memcpy(p + t->len, text, len);
	t->p = p;
	t->len += len;
}

static bool take_serial(struct tls_peer *p, X509 *cert)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
	uint8_t *at = p->serial;
	int len = i2d_ASN1_INTEGER(serial, NULL);

	if (len <= 0 || len > TLS_PEER_SERIAL)
		return false; /* then it is of no use for a ticket, nothing else */
	p->serial_len = (size_t)i2d_ASN1_INTEGER(serial, &at);
	return true;
}

/* authority: NULL when it is none of ours, but one the peer has sent along. NULL: no memory, or its names cannot be read. */
static struct tls_peer *peer_of(X509 *cert, const char *subject, const struct authority *authority)
{
	struct texts texts = { .p = NULL };
	struct tls_peer *p = NULL;

	add_text(&texts, subject);
	if (each_name(cert, add_text, &texts) && !texts.failed)
		p = tls_peer_new(texts.len);
	if (p) {
		memcpy(p->texts, texts.p, texts.len);
		p->since = (int64_t)time_of(X509_get0_notBefore(cert));
		p->until = (int64_t)time_of(X509_get0_notAfter(cert));
		p->proved = (int64_t)time(NULL);
		if (take_serial(p, cert) && authority)
			memcpy(p->authority, authority->digest, sizeof(p->authority));
	}
	free(texts.p);
	return p;
}

static struct authority *issuer_in(const struct tls *tls, X509_STORE_CTX *x)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(x);
	X509 *issuer = sk_X509_value(chain, sk_X509_num(chain) > 1 ? 1 : 0);

	for (size_t i = 0; i < tls->authorities_n; i++)
		if (X509_cmp(tls->authorities[i].cert, issuer) == 0)
			return &tls->authorities[i];
	return NULL;
}

/* A server keeps what it needs to know of the certificate, because it will not keep the certificate. */
static bool note_peer(struct tls_conn *t, X509_STORE_CTX *x)
{
	if (!t->tls->server)
		return true;
	free(t->peer);
	t->peer = peer_of(X509_STORE_CTX_get0_cert(x), t->subject, issuer_in(t->tls, x));
	if (t->peer)
		return true;
	str_copy(t->failure, sizeof(t->failure), "no memory, or the names in the certificate cannot be read");
	X509_STORE_CTX_set_error(x, X509_V_ERR_OUT_OF_MEM);
	return false;
}

/* In the place of OpenSSL's own call: the same judgement, and a note of why and who. */
static int verify(X509_STORE_CTX *x, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_conn *t = SSL_get_app_data(ssl);
	char who[128];
	int error;

	subject_text(X509_STORE_CTX_get0_cert(x), t->subject, sizeof(t->subject));
	if (X509_verify_cert(x) > 0)
		return note_peer(t, x);
	error = X509_STORE_CTX_get_error(x);
	subject_text(X509_STORE_CTX_get_current_cert(x), who, sizeof(who)); /* it may be an intermediate one */
	snprintf(t->failure, sizeof(t->failure), "%s (%.100s)", verify_text(error),
		 who[0] && verify_text(error) != unknown_ca ? who : t->subject);
	return 0;
}

/* ---- sessions that are resumed ---- */

/* name: NULL or the one it must be for. purpose: NULL for any. */
static bool passes(const struct tls *tls, X509 *cert, const char *purpose, const char *name)
{
	X509_STORE_CTX *x = X509_STORE_CTX_new();
	bool ok = x && X509_STORE_CTX_init(x, SSL_CTX_get_cert_store(tls->ctx), cert, NULL) == 1 &&
		  (!purpose || X509_STORE_CTX_set_default(x, purpose) == 1) && (!name || set_name(X509_STORE_CTX_get0_param(x), name)) &&
		  X509_verify_cert(x) == 1;

	X509_STORE_CTX_free(x);
	ERR_clear_error();
	return ok;
}

/* Would the certificate in a session pass today? OpenSSL does not ask this when it resumes. */
static bool still_good(const struct tls *tls, const char *name, SSL_SESSION *session)
{
	X509 *peer = SSL_SESSION_get0_peer(session);

	return peer && passes(tls, peer, tls->server ? "ssl_client" : "ssl_server", name);
}

static bool in_force(X509_CRL *crl)
{
	const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);

	return X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) < 0 && (!next || X509_cmp_current_time(next) > 0);
}

static bool judge_authority(const struct tls *tls, const struct authority *a)
{
	int lists = sk_X509_CRL_num(a->crls);
	bool ok = !a->odd && (lists > 0 || !tls->crl_check) && passes(tls, a->cert, NULL, NULL);

	for (int i = 0; i < lists; i++)
		ok = ok && in_force(sk_X509_CRL_value(a->crls, i));
	return ok;
}

/* Once in a second, for all who come back in it. */
static bool authority_good(const struct tls *tls, struct authority *a, int64_t now)
{
	long long judged = atomic_load_explicit(&a->judged, memory_order_relaxed);

	if (judged / 2 != now) {
		judged = 2 * now + judge_authority(tls, a);
		atomic_store_explicit(&a->judged, judged, memory_order_relaxed);
	}
	return judged % 2;
}

static bool revoked(const struct authority *a, const struct tls_peer *p)
{
	const unsigned char *at = p->serial;
	int lists = sk_X509_CRL_num(a->crls);
	ASN1_INTEGER *serial = lists > 0 ? d2i_ASN1_INTEGER(NULL, &at, (long)p->serial_len) : NULL;
	bool found = lists > 0 && !serial;
	X509_REVOKED *row;

	for (int i = 0; i < lists && !found; i++)
		found = X509_CRL_get0_by_serial(sk_X509_CRL_value(a->crls, i), &row, serial) != 0;
	ASN1_INTEGER_free(serial);
	ERR_clear_error();
	return found;
}

/* As still_good(), of a certificate that was found good once and is not here any more. What can have changed since is asked anew:
 * the time, the revocation list, and whether we still trust who has signed it. */
static bool still_vouched(const struct tls *tls, const struct tls_peer *p)
{
	int64_t now = (int64_t)time(NULL);

	if (now < p->since || now > p->until || now >= p->proved + tls->life_s)
		return false;
	for (size_t i = 0; i < tls->authorities_n; i++) {
		struct authority *a = &tls->authorities[i];

		if (memcmp(a->digest, p->authority, sizeof(a->digest)) == 0)
			return authority_good(tls, a, now) && !revoked(a, p);
	}
	return false;
}

/* *some: there is a note, also when there is no memory to read it. */
static struct tls_peer *remembered(SSL_SESSION *session, bool *some)
{
	void *packed = NULL;
	size_t len = 0;

	*some = SSL_SESSION_get0_ticket_appdata(session, &packed, &len) == 1 && len > 0;
	return *some ? tls_peer_unpack(packed, len) : NULL;
}

/* What a site asks for may have changed since. */
static bool welcome_back(const struct tls *tls, SSL_SESSION *session)
{
	bool some, asked = !tls->site || tls->site->ask, ok;
	struct tls_peer *p = remembered(session, &some);

	if (some)
		ok = p && asked && still_vouched(tls, p);
	else if (!tls->site)
		ok = false;
	else if (SSL_SESSION_get0_peer(session))
		ok = asked && still_good(tls, NULL, session);
	else
		ok = !tls->site->insist;
	free(p);
	return ok;
}

/* A ticket of somebody no longer welcome is ignored; the full handshake that follows refuses with the right alert. */
static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *key_name, size_t len,
				   SSL_TICKET_STATUS status, void *arg)
{
	const struct tls_conn *t = SSL_get_app_data(ssl);

	if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	return welcome_back(t->tls, session) ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_IGNORE_RENEW;
}

/* After a resumption: from the session, as after a full handshake from the certificate. */
static bool know_again(struct tls_conn *t)
{
	SSL_SESSION *session = SSL_get_session(t->ssl);
	X509 *cert = SSL_SESSION_get0_peer(session);
	bool some = false;
	struct tls_peer *p = t->tls->server ? remembered(session, &some) : NULL;

	if (p)
		str_copy(t->subject, sizeof(t->subject), tls_peer_text(p, 0));
	else
		subject_text(cert, t->subject, sizeof(t->subject));
	if (!p && cert && t->tls->server)
		p = peer_of(cert, t->subject, NULL);
	free(t->peer);
	t->peer = p;
	return p || !(cert || some) || !t->tls->server;
}

#define PEER_TAG (V_ASN1_CONTEXT_SPECIFIC | V_ASN1_CONSTRUCTED | 3) /* where the certificate is in OpenSSL's encoding of a session */

/* The same encoding without the certificate; owned by the caller. NULL: there is none in it, or no memory. */
static uint8_t *cut_certificate(const uint8_t *der, size_t len, size_t *rest)
{
	const uint8_t *at = der, *end = der + len, *body, *item = NULL;
	uint8_t *out = NULL, *p;
	int tag, class;
	long n;

	if (ASN1_get_object(&at, &n, &tag, &class, (long)len) & 0x80 || tag != V_ASN1_SEQUENCE)
		return NULL;
	for (body = at; at < end && !(item && item[0] == PEER_TAG); at += n) {
		item = at;
		if (ASN1_get_object(&at, &n, &tag, &class, end - at) & 0x80)
			return NULL;
	}
	if (!item || item[0] != PEER_TAG)
		return NULL;
	n = (item - body) + (end - at);
	*rest = (size_t)ASN1_object_size(1, (int)n, V_ASN1_SEQUENCE);
	p = out = malloc(*rest);
	if (!out)
		return NULL;
	ASN1_put_object(&p, 1, (int)n, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
	memcpy(p, body, (size_t)(item - body));
	memcpy(p + (item - body), at, (size_t)(end - at));
	return out;
}

/* OpenSSL would put the certificate into the ticket and read it, with its key, twice at every resumption: half a millisecond. There is no call to take it
 * out of a session, but reading an encoding into one replaces all that is in it. */
static bool drop_certificate(SSL_SESSION *session)
{
	size_t len = (size_t)i2d_SSL_SESSION(session, NULL), rest = 0;
	uint8_t *der = malloc(len), *at = der, *lean = NULL;
	SSL_SESSION *read = session;
	const uint8_t *from;

	if (der && i2d_SSL_SESSION(session, &at) == (int)len) {
		from = lean = cut_certificate(der, len, &rest);
		OPENSSL_cleanse(der, len);
	}
	free(der);
	if (lean) {
		read = d2i_SSL_SESSION(&session, &from, (long)rest);
		OPENSSL_cleanse(lean, rest);
		free(lean);
	}
	return read == session; /* else it is half of one and half of the other */
}

/* However often it is resumed. */
static void limit_life(const struct tls *tls, SSL_SESSION *session)
{
	bool some;
	struct tls_peer *p = remembered(session, &some);
	int64_t left = p ? p->proved + tls->life_s - (int64_t)time(NULL) : 0;

	if (p)
		SSL_SESSION_set_timeout(session, (long)(left > 0 ? left : 1));
	free(p);
}

/* What goes into a ticket. Of TLS 1.2, and where a certificate has more names than fit, it is the certificate itself. 0: end this connection. */
static int on_new_ticket(SSL *ssl, void *arg)
{
	const struct tls_conn *t = SSL_get_app_data(ssl);
	SSL_SESSION *session = SSL_get_session(ssl);
	uint8_t packed[TLS_PEER_PACKED];
	size_t len;

	if (SSL_session_reused(ssl))
		limit_life(t->tls, session);
	if (SSL_version(ssl) != TLS1_3_VERSION || !t->peer || !SSL_SESSION_get0_peer(session))
		return 1;
	len = tls_peer_pack(t->peer, packed);
	if (len == 0)
		return 1;
	return SSL_SESSION_set1_ticket_appdata(session, packed, len) == 1 && drop_certificate(session);
}

/* A ticket is AES-256-CBC with HMAC-SHA256 behind it, as OpenSSL's own. */
static bool use_ticket_key(uint8_t *key, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
	char digest[] = "SHA256";
	const OSSL_PARAM params[] = { OSSL_PARAM_construct_octet_string("key", key + 16, 32),
				      OSSL_PARAM_construct_utf8_string("digest", digest, 0), OSSL_PARAM_construct_end() };

	return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + 48, iv, seal) == 1 && EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* 1: go on; 0: no key of ours has that name; -1: failed. */
static int on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
	const struct tls *tls = ((const struct tls_conn *)SSL_get_app_data(ssl))->tls;

	if (seal) {
		memcpy(name, tls->ticket_keys[0], 16);
		if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
			return -1;
	}
	for (size_t i = 0; i < tls->ticket_keys_n; i++) {
		if (memcmp(name, tls->ticket_keys[i], 16) == 0)
			return use_ticket_key(tls->ticket_keys[i], iv, cipher, mac, seal) ? 1 : -1;
	}
	return 0;
}

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls_conn *t = SSL_get_app_data(ssl);
	SSL_SESSION *copy = SSL_SESSION_dup(session); /* what happens to this connection shall not spoil it */

	if (copy) {
		SSL_SESSION_free(t->session);
		t->session = copy;
	}
	return 0;
}

static bool use_ticket(struct tls_conn *t, const char *name, const struct tls_ticket *ticket)
{
	SSL_SESSION *copy;
	bool ok;

	if (!ticket || !still_good(t->tls, name, ticket->session))
		return true;
	copy = SSL_SESSION_dup(ticket->session);
	ok = copy && SSL_set_session(t->ssl, copy) == 1;
	SSL_SESSION_free(copy);
	return ok;
}

static bool is_ip(const char *name)
{
	ASN1_OCTET_STRING *ip = a2i_IPADDRESS(name);

	ASN1_OCTET_STRING_free(ip);
	return ip != NULL;
}

static bool ask_for(struct tls_conn *t, const char *name)
{
	if (!name)
		return t->tls->probe;
	return (t->tls->probe || set_name(SSL_get0_param(t->ssl), name)) && (is_ip(name) || SSL_set_tlsext_host_name(t->ssl, name) == 1);
}

struct conn *tls_connect(struct tls *tls, struct conn *plain, const char *server_name, const struct tls_ticket *ticket,
			 void (*on_event)(struct conn *), void *owner)
{
	struct tls_conn *t;
	bool ok;

	BUG_ON(tls->server || !on_event);
	t = make_tls_conn(tls, on_event, owner);
	if (!t)
		return NULL;
	ok = ask_for(t, server_name) && use_ticket(t, server_name, ticket);
	ERR_clear_error();
	if (ok)
		return take_over(t, plain);
	free_tls_conn(t);
	return NULL;
}

/* ---- ALPN ---- */

static void note_alpn(struct tls_conn *t, const char *missing, const unsigned char *in, unsigned len)
{
	struct strbuf b;

	strbuf_init(&b, t->failure, sizeof(t->failure));
	strbuf_add(&b, "peer does not offer %s (offers", missing);
	for (unsigned i = 0; i < len && in[i] < len - i; i += in[i] + 1u) {
		strbuf_add(&b, " ");
		for (unsigned k = 1; k <= in[i]; k++)
			strbuf_add(&b, "%c", in[i + k] > ' ' && in[i + k] < 127 ? in[i + k] : '?');
	}
	strbuf_add(&b, len > 0 ? ")" : " none)");
}

static bool pick_alpn(const unsigned char *ours, unsigned n, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned len)
{
	return SSL_select_next_proto((unsigned char **)(uintptr_t)out, outlen, ours, n, in, len) == OPENSSL_NPN_NEGOTIATED;
}

/* Who wants a link is asked for a certificate and must have one; who does not is not even asked. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned len, void *arg)
{
	static const unsigned char link[] = "\x0a" TLS_ALPN_LINK, health[] = "\x02" TLS_ALPN_HEALTH;

	_Static_assert(sizeof(link) == 12 && sizeof(health) == 4, "the length byte");
	if (pick_alpn(link, sizeof(link) - 1, out, outlen, in, len))
		return SSL_TLSEXT_ERR_OK;
	if (pick_alpn(health, sizeof(health) - 1, out, outlen, in, len)) {
		SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
		return SSL_TLSEXT_ERR_OK;
	}
	note_alpn(SSL_get_app_data(ssl), "ALPN " TLS_ALPN_LINK, in, len);
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* A client without the extension would otherwise get in without a protocol. */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
	const unsigned char *p;
	size_t len;

	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &p, &len))
		return SSL_CLIENT_HELLO_SUCCESS;
	note_alpn(SSL_get_app_data(ssl), "ALPN " TLS_ALPN_LINK, NULL, 0);
	*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

/* A site without a list was not given this; who offers nothing is not asked. */
static int choose_site_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned len, void *arg)
{
	const struct tls_site *site = arg;

	if (pick_alpn(site->alpn, (unsigned)site->alpn_len, out, outlen, in, len))
		return SSL_TLSEXT_ERR_OK;
	note_alpn(SSL_get_app_data(ssl), "any of our protocols (ALPN)", in, len);
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* ---- the certificate of a site that a client asks for ---- */

/* RFC 6066: a list of one, of which OpenSSL judges the form a moment later. */
static void note_sni(struct tls_conn *t, SSL *ssl)
{
	const unsigned char *p;
	size_t len, n;

	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &len) || len < 5 || p[2] != TLSEXT_NAMETYPE_host_name)
		return;
	n = (size_t)p[3] << 8 | p[4];
	if (n <= len - 5)
		(void)str_host(t->sni, sizeof(t->sni), (const char *)p + 5, n);
}

/* NULL: the default. */
static const struct site_name *find_name(const struct tls_site *site, const char *sni)
{
	const struct site_name *found = sni[0] ? map_get_str(site->names, sni) : NULL;
	const char *dot = strchr(sni, '.');
	char wild[258] = "*";

	if (found || !dot || dot == sni)
		return found;
	str_copy(wild + 1, sizeof(wild) - 1, dot);
	return map_get_str(site->names, wild);
}

static int on_site_hello(SSL *ssl, int *alert, void *arg)
{
	struct tls_conn *t = SSL_get_app_data(ssl);
	const struct site_name *name;

	note_sni(t, ssl);
	name = find_name(arg, t->sni);
	if (!name)
		return SSL_CLIENT_HELLO_SUCCESS;
	SSL_certs_clear(ssl);
	for (size_t i = 0; i < name->n; i++) {
		const struct identity *id = name->certs[i]->id;

		if (SSL_use_cert_and_key(ssl, id->cert, id->key, id->chain, 1) == 1)
			continue;
		*alert = SSL_AD_INTERNAL_ERROR;
		return SSL_CLIENT_HELLO_ERROR;
	}
	return SSL_CLIENT_HELLO_SUCCESS;
}

/* ---- the context ---- */

struct loading {
	struct tls *tls;
	struct identity *own; /* of a site: the one that is read */
	const struct tls_files *f;
	char *err;
	size_t errsize;
};

static int __attribute__((format(printf, 3, 4))) complain(struct loading *l, const char *path, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(l->err, l->errsize, "%s: %s", path ? path : "-", what);
	return -1;
}

static const char *openssl_reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text ? text : "unknown error";
}

/* The end of a PEM text is an "error" of its own; any other means a block that cannot be read. */
static bool pem_ended(void)
{
	unsigned long e = ERR_peek_last_error();
	bool end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;

	if (end)
		ERR_clear_error();
	return end;
}

static int no_password(char *buf, int size, int rwflag, void *asked)
{
	*(bool *)asked = true;
	return -1;
}

static BIO *pem(const char *text)
{
	BIO *b = BIO_new_mem_buf(text ? text : "", -1);

	if (!b)
		die("no memory for TLS");
	ERR_clear_error();
	return b;
}

static time_t time_of(const ASN1_TIME *a)
{
	struct tm tm;

	return a && ASN1_TIME_to_tm(a, &tm) == 1 ? timegm(&tm) : 0;
}

/* Reads every certificate of a text and hands each to `use` (which takes it over); the number read, or -1. */
static int each_cert(const char *text, int (*use)(struct loading *l, X509 *cert, int i), struct loading *l)
{
	BIO *b = pem(text);
	int count = 0;
	X509 *cert;

	while ((cert = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
		if (use(l, cert, count++) < 0) {
			BIO_free(b);
			return -1;
		}
	}
	BIO_free(b);
	return pem_ended() ? count : -1;
}

static int use_own(struct loading *l, X509 *cert, int i)
{
	int ok = i == 0 ? SSL_CTX_use_certificate(l->tls->ctx, cert) : SSL_CTX_add1_chain_cert(l->tls->ctx, cert);

	if (i == 0)
		l->tls->not_after = time_of(X509_get0_notAfter(cert));
	X509_free(cert);
	return ok == 1 ? 0 : -1;
}

/* Where OpenSSL has no memory to decode the key or the extensions of a certificate, or to see that it is signed by itself, it does not say so, and holds the certificate for
 * a bad one ever after: every peer would be refused. So all is asked for here, where it can be said; what a second certificate of the same bytes lacks as well is not for want
 * of memory. */
static bool is_whole(X509 *cert)
{
	return X509_get0_pubkey(cert) && X509_check_purpose(cert, -1, 0) == 1;
}

static bool was_read_whole(X509 *cert)
{
	X509 *again = X509_dup(cert);
	bool same = again && is_whole(cert) == is_whole(again) && X509_get_extension_flags(cert) == X509_get_extension_flags(again);

	X509_free(again);
	ERR_clear_error();
	return same;
}

static bool enter_authority(struct tls *tls, X509 *cert)
{
	struct authority *a = realloc(tls->authorities, (tls->authorities_n + 1) * sizeof(*a));

	if (!a)
		return false;
	tls->authorities = a;
	a += tls->authorities_n++;
	memset(a, 0, sizeof(*a));
	atomic_init(&a->judged, 0);
	X509_up_ref(cert);
	a->cert = cert;
	a->crls = sk_X509_CRL_new_null();
	return a->crls && X509_digest(cert, EVP_sha256(), a->digest, NULL) == 1;
}

static int use_ca(struct loading *l, X509 *cert, int i)
{
	int ok = was_read_whole(cert) && X509_STORE_add_cert(SSL_CTX_get_cert_store(l->tls->ctx), cert) && (!l->tls->server || enter_authority(l->tls, cert));

	if (ok == 1 && l->tls->server)
		ok = SSL_CTX_add_client_CA(l->tls->ctx, cert);
	X509_free(cert);
	return ok == 1 ? 0 : -1;
}

static int use_site_own(struct loading *l, X509 *cert, int i)
{
	if (i == 0)
		l->own->cert = cert;
	else if (sk_X509_push(l->own->chain, cert) <= 0)
		die("no memory for TLS");
	if (i == 0)
		l->own->not_after = time_of(X509_get0_notAfter(cert));
	return 0;
}

static int load_cert(struct loading *l)
{
	int n = each_cert(l->f->cert, l->own ? use_site_own : use_own, l);

	if (n < 0)
		return complain(l, l->f->cert_path, "the certificate cannot be used: %s", openssl_reason());
	return n > 0 ? 0 : complain(l, l->f->cert_path, "there is no certificate in it (PEM expected)");
}

/* NULL, after a complaint, when it is not the certificate's. */
static EVP_PKEY *read_key(struct loading *l, X509 *cert)
{
	BIO *b = pem(l->f->key);
	bool encrypted = false;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(b, NULL, no_password, &encrypted);

	BIO_free(b);
	if (key && X509_check_private_key(cert, key) == 1)
		return key;
	if (key)
		complain(l, l->f->key_path, "the key does not belong to the certificate in %s", l->f->cert_path ? l->f->cert_path : "-");
	else if (encrypted)
		complain(l, l->f->key_path, "the key is encrypted; store it without a password, mode 0600");
	else if (!(l->f->key && strstr(l->f->key, "PRIVATE KEY-----")))
		complain(l, l->f->key_path, "there is no private key in it (PEM expected)");
	else
		complain(l, l->f->key_path, "the private key cannot be read: %s", openssl_reason());
	EVP_PKEY_free(key);
	return NULL;
}

static int load_key(struct loading *l)
{
	EVP_PKEY *key = read_key(l, SSL_CTX_get0_certificate(l->tls->ctx));
	int rc = 0;

	if (!key)
		return -1;
	if (SSL_CTX_use_PrivateKey(l->tls->ctx, key) != 1)
		rc = complain(l, l->f->key_path, "the private key cannot be used: %s", openssl_reason());
	EVP_PKEY_free(key);
	return rc;
}

static int load_ca(struct loading *l)
{
	int n = each_cert(l->f->ca, use_ca, l);

	if (n < 0)
		return complain(l, l->f->ca_path, "a CA certificate cannot be used: %s", openssl_reason());
	return n > 0 ? 0 : complain(l, l->f->ca_path, "there is no CA certificate in it (PEM expected)");
}

static bool is_odd(X509_CRL *crl)
{
	return X509_CRL_get_ext_by_NID(crl, NID_issuing_distribution_point, -1) >= 0 || X509_CRL_get_ext_by_critical(crl, 1, -1) >= 0;
}

/* Asked twice, for the first time there may have been no memory: without one of its lists an authority would vouch for too many. */
static bool has_signed(X509 *cert, X509_CRL *crl)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);

	return X509_CRL_verify(crl, key) == 1 || X509_CRL_verify(crl, key) == 1;
}

/* Of two authorities of one name each gets what it has signed itself. */
static bool give_to_authorities(struct tls *tls, X509_CRL *crl)
{
	for (size_t i = 0; i < tls->authorities_n; i++) {
		struct authority *a = &tls->authorities[i];

		if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(a->cert)) != 0 || !has_signed(a->cert, crl))
			continue;
		if (sk_X509_CRL_push(a->crls, crl) <= 0)
			return false;
		X509_CRL_up_ref(crl);
		a->odd |= is_odd(crl);
	}
	ERR_clear_error();
	return true;
}

/* A list whose extensions it could not decode OpenSSL gives all the same: one for CAs only would count for all then. What went wrong stands in its queue of errors. */
static bool crl_was_read_whole(void)
{
	return ERR_peek_error() == 0;
}

static int use_crl(struct loading *l, X509_CRL *crl)
{
	time_t end = time_of(X509_CRL_get0_nextUpdate(crl));

	if (end && end <= time(NULL))
		return complain(l, l->f->crl_path, "the revocation list (CRL) has expired: issue a new one");
	if (X509_STORE_add_crl(SSL_CTX_get_cert_store(l->tls->ctx), crl) != 1 || !give_to_authorities(l->tls, crl))
		return complain(l, l->f->crl_path, "the revocation list (CRL) cannot be used: %s", openssl_reason());
	ERR_clear_error();
	return 0;
}

static int load_crl(struct loading *l)
{
	X509_CRL *crl;
	int count = 0, rc = 0;
	bool whole = true;
	BIO *b;

	if (!l->f->crl)
		return 0;
	b = pem(l->f->crl);
	while (rc == 0 && whole && (crl = PEM_read_bio_X509_CRL(b, NULL, NULL, NULL))) {
		whole = crl_was_read_whole();
		rc = whole ? use_crl(l, crl) : 0;
		X509_CRL_free(crl);
		count++;
	}
	BIO_free(b);
	if (rc < 0)
		return -1;
	if (!whole || !pem_ended())
		return complain(l, l->f->crl_path, "the revocation list (CRL) cannot be read: %s", openssl_reason());
	if (count == 0)
		return complain(l, l->f->crl_path, "there is no revocation list (CRL) in it (PEM expected)");
	l->tls->crl_check = true;
	X509_STORE_set_flags(SSL_CTX_get_cert_store(l->tls->ctx), X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return 0;
}

static bool set_common(SSL_CTX *ctx)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY |
					  SSL_MODE_NO_AUTO_CHAIN); /* else it is built and verified at every handshake */
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
	return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 && SSL_CTX_set_ciphersuites(ctx, CIPHERS) == 1 &&
	       SSL_CTX_set1_groups_list(ctx, GROUPS) == 1;
}

static bool set_ticket_keys(struct tls *tls, const struct tls_ticket_keys *keys)
{
	if (!keys || keys->n == 0)
		return true;
	tls->ticket_keys = xcalloc(keys->n, sizeof(*tls->ticket_keys));
	tls->ticket_keys_n = keys->n;
	memcpy(tls->ticket_keys, keys->v, keys->n * sizeof(*tls->ticket_keys));
	return SSL_CTX_set_tlsext_ticket_key_evp_cb(tls->ctx, on_ticket_key) == 1;
}

/* Tickets, no cache. id: sessions are resumed only where it is the same. */
static bool set_sessions(struct tls *tls, const unsigned char *id, unsigned len)
{
	SSL_CTX *ctx = tls->ctx;

	tls->life_s = tls->site ? SITE_LIFE_S : LINK_LIFE_S;
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_timeout(ctx, tls->life_s);
	return SSL_CTX_set_session_id_context(ctx, id, len) == 1 && SSL_CTX_set_num_tickets(ctx, 1) == 1 &&
	       SSL_CTX_set_session_ticket_cb(ctx, on_new_ticket, on_ticket, NULL) == 1;
}

static bool set_server(struct tls *tls)
{
	static const unsigned char id[] = "mctunnel";

	SSL_CTX_set_alpn_select_cb(tls->ctx, choose_alpn, NULL);
	SSL_CTX_set_client_hello_cb(tls->ctx, on_client_hello, NULL);
	return set_sessions(tls, id, sizeof(id) - 1);
}

static bool set_client(SSL_CTX *ctx)
{
	static const unsigned char ours[] = "\x0a" TLS_ALPN_LINK;

	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, on_new_session);
	return SSL_CTX_set_alpn_protos(ctx, ours, sizeof(ours) - 1) == 0;
}

static struct tls *load(const struct tls_files *f, bool server, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	struct loading l = { .f = f, .err = err, .errsize = errsize };
	struct tls *tls = xcalloc(1, sizeof(*tls));

	pthread_once(&once, init_once);
	ERR_clear_error();
	atomic_init(&tls->refs, 1);
	tls->server = server;
	tls->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	if (!tls->ctx)
		die("cannot make a TLS context: %s", openssl_reason());
	l.tls = tls;
	if (!set_common(tls->ctx) || !(server ? set_server(tls) && set_ticket_keys(tls, keys) : set_client(tls->ctx)))
		snprintf(err, errsize, "TLS cannot be set up: %s", openssl_reason());
	else if (load_cert(&l) == 0 && load_key(&l) == 0 && load_ca(&l) == 0 && load_crl(&l) == 0)
		return tls;
	ERR_clear_error();
	tls_put(tls);
	return NULL;
}

struct tls *tls_server(const struct tls_files *f, const struct tls_ticket_keys *keys, char *err, size_t errsize)
{
	return load(f, true, keys, err, errsize);
}

struct tls *tls_client(const struct tls_files *f, char *err, size_t errsize)
{
	return load(f, false, NULL, err, errsize);
}

static void identity_free(struct identity *id)
{
	X509_free(id->cert);
	EVP_PKEY_free(id->key);
	sk_X509_pop_free(id->chain, X509_free);
	free(id);
}

static void identity_put(struct identity *id)
{
	bool last;

	if (!id)
		return;
	pthread_mutex_lock(&known.lock);
	last = --id->refs == 0;
	if (last)
		map_del(known.by_digest, id->digest, sizeof(id->digest));
	if (last && map_count(known.by_digest) == 0) {
		map_free(known.by_digest);
		known.by_digest = NULL;
	}
	pthread_mutex_unlock(&known.lock);
	if (last)
		identity_free(id);
}

static void free_site_parts(struct tls_site *site)
{
	size_t pos = 0;

	for (size_t i = 0; i < site->certs_n; i++) {
		free(site->certs[i].path);
		identity_put(site->certs[i].id);
	}
	for (struct site_name *n; (n = map_next(site->names, &pos));)
		free(n);
	map_free(site->names);
	free(site->certs);
	free(site->alpn);
}

struct tls *tls_probe(void)
{
	struct tls *tls = xcalloc(1, sizeof(*tls));

	pthread_once(&once, init_once);
	ERR_clear_error();
	atomic_init(&tls->refs, 1);
	tls->probe = true;
	tls->ctx = SSL_CTX_new(TLS_client_method());
	if (!tls->ctx || SSL_CTX_set_min_proto_version(tls->ctx, TLS1_VERSION) != 1 || SSL_CTX_set_cipher_list(tls->ctx, "ALL:@SECLEVEL=0") != 1)
		die("cannot make a TLS context: %s", openssl_reason());
	SSL_CTX_set_session_cache_mode(tls->ctx, SSL_SESS_CACHE_OFF);
	return tls;
}

struct tls *tls_get(struct tls *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

static void tls_free(struct aside *a)
{
	struct tls *t = container_of(a, struct tls, end);

	if (t->site)
		free_site_parts(t->site);
	for (size_t i = 0; i < t->authorities_n; i++) {
		X509_free(t->authorities[i].cert);
		sk_X509_CRL_pop_free(t->authorities[i].crls, X509_CRL_free);
	}
	free(t->authorities);
	SSL_CTX_free(t->ctx);
	OPENSSL_cleanse(t->ticket_keys, t->ticket_keys_n * sizeof(*t->ticket_keys));
	free(t->ticket_keys);
	free(t);
}

/* A site may have a thousand certificates. */
void tls_put(struct tls *t)
{
	if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
		aside_run(&t->end, tls_free);
}

int64_t tls_cert_expires_in(const struct tls *t)
{
	return (int64_t)t->not_after - (int64_t)time(NULL);
}

int tls_check(const struct tls_files *f, bool server, char *err, size_t errsize)
{
	struct tls *t = load(f, server, NULL, err, errsize);

	tls_put(t);
	return t ? 0 : -1;
}

/* ---- questions ---- */

enum tls_state tls_state(const struct conn *c)
{
	return tls_of(c)->state;
}

const char *tls_failure(const struct conn *c)
{
	return tls_of(c)->failure;
}

bool tls_resumed(const struct conn *c)
{
	return SSL_session_reused(tls_of(c)->ssl) == 1;
}

const char *tls_alpn(const struct conn *c)
{
	return tls_of(c)->alpn;
}

const char *tls_sni(const struct conn *c)
{
	return tls_of(c)->sni;
}

const char *tls_peer_subject(const struct conn *c)
{
	return tls_of(c)->subject;
}

/* A name with a NUL inside is a trick, not a name. */
static bool copy_name(const ASN1_STRING *s, char *buf, size_t size)
{
	const char *text = (const char *)ASN1_STRING_get0_data(s);
	int len = ASN1_STRING_length(s);

	if (len <= 0 || memchr(text, 0, (size_t)len) || (size_t)len >= size)
		return false;
	memcpy(buf, text, (size_t)len);
	buf[len] = 0;
	return true;
}

static bool common_name(X509 *cert, char *name, size_t size)
{
	X509_NAME *subject = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	return at >= 0 && copy_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), name, size);
}

/* Every SAN DNS, or the CN when it has none. false: nobody knows, for they cannot be read; perhaps there is no memory. */
static bool each_name(X509 *cert, void (*take)(void *arg, const char *name), void *arg)
{
	int critical;
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
	bool any = false;
	char name[256];

	ERR_clear_error();
	if (!names && critical != -1) /* -1: there are none */
		return false;

	for (int k = 0; k < sk_GENERAL_NAME_num(names); k++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, k);

		if (g->type != GEN_DNS || !copy_name(g->d.dNSName, name, sizeof(name)))
			continue;
		any = true;
		take(arg, name);
	}
	GENERAL_NAMES_free(names);
	if (!any && common_name(cert, name, sizeof(name)))
		take(arg, name);
	return true;
}

struct nth {
	size_t wanted, n;
	char *buf;
	size_t size;
};

static void take_nth(void *arg, const char *name)
{
	struct nth *w = arg;

	if (w->n++ == w->wanted && !str_copy(w->buf, w->size, name))
		w->buf[0] = 0;
}

size_t tls_peer_name(const struct conn *c, size_t i, char *buf, size_t size)
{
	const struct tls_conn *t = tls_of(c);
	X509 *cert = SSL_get0_peer_certificate(t->ssl);
	struct nth w = { .wanted = i, .buf = buf, .size = size };

	buf[0] = 0;
	if (t->peer) {
		for (const char *name; (name = tls_peer_text(t->peer, w.n + 1));)
			take_nth(&w, name);
	} else if (cert) {
		(void)each_name(cert, take_nth, &w);
	}
	return w.n;
}

struct tls_ticket *tls_take_ticket(struct conn *c)
{
	struct tls_conn *t = tls_of(c);
	struct tls_ticket *ticket = t->session ? malloc(sizeof(*ticket)) : NULL;

	if (!ticket)
		return NULL;
	ticket->session = t->session;
	t->session = NULL;
	return ticket;
}

void tls_ticket_free(struct tls_ticket *t)
{
	if (!t)
		return;
	SSL_SESSION_free(t->session);
	free(t);
}

static void describe_name(void *arg, const char *name)
{
	struct strbuf *b = arg;

	strbuf_add(b, "%s%s", b->len ? "," : "", name);
}

static X509 *first_cert(const char *pem)
{
	BIO *b = pem ? BIO_new_mem_buf(pem, -1) : NULL;
	X509 *cert = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;

	BIO_free(b);
	ERR_clear_error();
	return cert;
}

int tls_describe(const char *pem, struct tls_described *out)
{
	X509 *cert = first_cert(pem);
	struct strbuf b;

	memset(out, 0, sizeof(*out));
	if (!cert)
		return -1;
	strbuf_init(&b, out->names, sizeof(out->names));
	(void)each_name(cert, describe_name, &b);
	X509_NAME_get_text_by_NID(X509_get_issuer_name(cert), NID_commonName, out->issuer, sizeof(out->issuer));
	out->not_after = (int64_t)time_of(X509_get0_notAfter(cert));
	X509_free(cert);
	return 0;
}

/* ---- doubts ---- */

static bool crl_of(const char *crls, const X509_NAME *authority)
{
	BIO *b = pem(crls);
	X509_CRL *crl;
	bool found = false;

	while (!found && (crl = PEM_read_bio_X509_CRL(b, NULL, NULL, NULL))) {
		found = X509_NAME_cmp(X509_CRL_get_issuer(crl), authority) == 0;
		X509_CRL_free(crl);
	}
	BIO_free(b);
	ERR_clear_error();
	return found;
}

static bool no_crl_of(const struct tls_files *f, char *text, size_t size)
{
	X509 *ca = f->crl ? first_cert(f->ca) : NULL;
	bool none = ca && !crl_of(f->crl, X509_get_subject_name(ca));

	if (none)
		snprintf(text, size, "%s: no revocation list (CRL) of the authority in %s: all its certificates will be refused", f->crl_path, f->ca_path);
	X509_free(ca);
	return none;
}

static void doubt_own(const struct tls_files *f, bool server, X509 *cert, struct strbuf *b)
{
	time_t now = time(NULL), from = time_of(X509_get0_notBefore(cert)), end = time_of(X509_get0_notAfter(cert));
	char day[32] = "";
	struct tm tm;

	if (gmtime_r(from > now ? &from : &end, &tm))
		strftime(day, sizeof(day), "%Y-%m-%d %H:%M UTC", &tm);
	if (end <= now)
		strbuf_add(b, "%s: the certificate expired at %s: the other side will refuse it; renew it", f->cert_path, day);
	else if (from > now)
		strbuf_add(b, "%s: the certificate is valid only from %s: the other side will refuse it; is the clock right?", f->cert_path, day);
	else if (X509_check_purpose(cert, server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT, 0) != 1)
		strbuf_add(b, "%s: the certificate is not meant for %s (extended key usage): the other side will refuse it", f->cert_path,
			   server ? "a server" : "an agent");
	else if (end - now < DOUBT_DAYS * 86400)
		strbuf_add(b, "%s: the certificate expires at %s: renew it", f->cert_path, day);
}

bool tls_doubt(const struct tls_files *f, bool server, char *text, size_t size)
{
	X509 *own = first_cert(f->cert);
	struct strbuf b;

	strbuf_init(&b, text, size);
	if (own)
		doubt_own(f, server, own, &b);
	X509_free(own);
	return text[0] != 0 || no_crl_of(f, text, size);
}

/* ---- sites ---- */

struct site_loading {
	struct loading l;
	struct tls_site *site;
	void (*tell)(void *arg, bool bad, const char *text);
	void *arg;
	const struct site_name *first; /* of the first certificate; NULL: it has no name */
	SSL_CTX *trial;                /* what OpenSSL would refuse later, is refused here */
	bool bad;
	char err[512];
};

static void tell(struct site_loading *s, bool bad, const char *text)
{
	s->bad |= bad;
	if (s->tell)
		s->tell(s->arg, bad, text);
}

static void enter_name(struct site_loading *s, const char *name, struct site_cert *c)
{
	struct site_name *n = map_get_str(s->site->names, name);
	char text[768];

	if (!n) {
		n = xcalloc(1, sizeof(*n));
		map_set_str(s->site->names, name, n);
	}
	for (size_t i = 0; i < n->n; i++) {
		if (n->certs[i] == c)
			return;
		if (EVP_PKEY_get_base_id(n->certs[i]->id->key) != EVP_PKEY_get_base_id(c->id->key))
			continue;
		snprintf(text, sizeof(text), "%s: %s already has the certificate for \"%s\"; this one is not used for it", c->path, n->certs[i]->path, name);
		tell(s, false, text);
		return;
	}
	if (n->n < SITE_KINDS)
		n->certs[n->n++] = c;
	if (!s->first && c == s->site->certs)
		s->first = n;
}

/* "www.example.com", "*.example.com"; what else stands in a certificate concerns no client. */
static bool site_host(char *out, size_t size, const char *name)
{
	bool star = name[0] == '*' && name[1] == '.';
	size_t skip = star ? 2 : 0;

	memcpy(out, "*.", skip);
	return str_host(out + skip, size - skip, name + skip, strlen(name + skip));
}

struct naming {
	struct site_loading *s;
	struct site_cert *c;
};

static void enter_host(void *arg, const char *raw)
{
	const struct naming *n = arg;
	char name[256];

	if (site_host(name, sizeof(name), raw))
		enter_name(n->s, name, n->c);
}

static bool usable(struct site_loading *s, const struct identity *id)
{
	if (SSL_CTX_use_cert_and_key(s->trial, id->cert, id->key, id->chain, 1) == 1)
		return true;
	complain(&s->l, s->l.f->cert_path, "the certificate cannot be used: %s", openssl_reason());
	return false;
}

static void digest_of(const struct tls_files *f, uint8_t digest[DIGEST_SIZE])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 || EVP_DigestUpdate(md, f->cert, strlen(f->cert) + 1) != 1 ||
	    EVP_DigestUpdate(md, f->key, strlen(f->key)) != 1 || EVP_DigestFinal_ex(md, digest, NULL) != 1)
		die("no memory for TLS");
	EVP_MD_CTX_free(md);
}

static struct identity *identity_find(const uint8_t digest[DIGEST_SIZE])
{
	struct identity *id;

	pthread_mutex_lock(&known.lock);
	id = known.by_digest ? map_get(known.by_digest, digest, DIGEST_SIZE) : NULL;
	if (id)
		id->refs++;
	pthread_mutex_unlock(&known.lock);
	return id;
}

/* Only one thread makes sites: nobody has entered the same meanwhile. */
static void identity_enter(struct identity *id)
{
	pthread_mutex_lock(&known.lock);
	if (!known.by_digest)
		known.by_digest = map_new();
	id->refs = 1;
	BUG_ON(map_set(known.by_digest, id->digest, sizeof(id->digest), id));
	pthread_mutex_unlock(&known.lock);
}

static struct identity *identity_read(struct site_loading *s, const uint8_t digest[DIGEST_SIZE])
{
	struct identity *id = xcalloc(1, sizeof(*id));

	memcpy(id->digest, digest, sizeof(id->digest));
	id->chain = sk_X509_new_null();
	if (!id->chain)
		die("no memory for TLS");
	s->l.own = id;
	if (load_cert(&s->l) == 0)
		id->key = read_key(&s->l, id->cert);
	if (id->key && usable(s, id)) {
		identity_enter(id);
		return id;
	}
	identity_free(id);
	return NULL;
}

static void load_site_cert(struct site_loading *s, const struct tls_site_cert *from, struct site_cert *c)
{
	struct tls_files f = { .cert_path = from->path, .cert = from->text, .key_path = from->key_path, .key = from->key };
	uint8_t digest[DIGEST_SIZE];
	char doubt[512] = "";
	struct strbuf b;
	bool bad;

	s->l.f = &f;
	c->path = xstrdup(from->path);
	digest_of(&f, digest);
	c->id = identity_find(digest);
	if (!c->id)
		c->id = identity_read(s, digest);
	if (c->id) {
		strbuf_init(&b, doubt, sizeof(doubt));
		doubt_own(&f, true, c->id->cert, &b);
	}
	bad = !c->id || (!each_name(c->id->cert, enter_host, &(struct naming){ s, c }) && complain(&s->l, c->path, "its names cannot be read") < 0);
	if (bad || doubt[0])
		tell(s, bad, bad ? s->err : doubt);
	ERR_clear_error();
}

static bool use_default(struct site_loading *s)
{
	struct site_name only = { .certs = { &s->site->certs[0] }, .n = 1 };
	const struct site_name *n = s->first ? s->first : &only;
	bool ok = true;

	for (size_t i = 0; i < n->n; i++)
		ok = ok && SSL_CTX_use_cert_and_key(s->site->tls.ctx, n->certs[i]->id->cert, n->certs[i]->id->key, n->certs[i]->id->chain, 1) == 1;
	return ok;
}

static void load_site_files(struct site_loading *s, const struct tls_site_options *o)
{
	struct tls_files f = { .ca_path = o->ca_path, .ca = o->ca, .crl_path = o->crl_path, .crl = o->crl };

	BUG_ON(o->certs_n == 0);
	s->site->certs = xcalloc(o->certs_n, sizeof(*s->site->certs));
	s->site->certs_n = o->certs_n;
	for (size_t i = 0; i < o->certs_n && !aside_closing(); i++)
		load_site_cert(s, &o->certs[i], &s->site->certs[i]);
	s->l.f = &f;
	s->l.own = NULL;
	if ((o->ca && load_ca(&s->l) < 0) || (o->ca && load_crl(&s->l) < 0))
		tell(s, true, s->err);
	else if (o->ca && o->crl && no_crl_of(&f, s->err, sizeof(s->err)))
		tell(s, false, s->err);
}

static void set_site_alpn(struct tls_site *site, const struct tls_site_options *o)
{
	if (o->alpn_n == 0)
		return;
	site->alpn = xcalloc(o->alpn_n, TLS_SITE_ALPN_NAME + 1);
	for (size_t i = 0; i < o->alpn_n; i++) {
		size_t len = strlen(o->alpn[i]);

		BUG_ON(len == 0 || len > TLS_SITE_ALPN_NAME);
		site->alpn[site->alpn_len++] = (uint8_t)len;
		memcpy(site->alpn + site->alpn_len, o->alpn[i], len);
		site->alpn_len += len;
	}
	SSL_CTX_set_alpn_select_cb(site->tls.ctx, choose_site_alpn, site);
}

/* Tickets are good for a listener of this name only, wherever the key is known. */
static bool set_site_sessions(struct tls *tls, const char *name)
{
	unsigned char id[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	char text[256];

	snprintf(text, sizeof(text), "mctunnel listener %s", name);
	return EVP_Digest(text, strlen(text), id, &len, EVP_sha256(), NULL) == 1 && set_sessions(tls, id, len);
}

static bool set_site(struct tls_site *site, const struct tls_site_options *o)
{
	SSL_CTX *ctx = site->tls.ctx;

	site->ask = o->ask;
	site->insist = o->insist;
	set_site_alpn(site, o);
	if (!set_common(ctx) || !set_site_sessions(&site->tls, o->name) || !set_ticket_keys(&site->tls, o->keys))
		return false;
	SSL_CTX_set_verify(ctx, o->insist ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : o->ask ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_client_hello_cb(ctx, on_site_hello, site);
	return SSL_CTX_set_min_proto_version(ctx, o->min == 12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 && SSL_CTX_set_cipher_list(ctx, CIPHERS_12) == 1 &&
	       SSL_CTX_set1_groups_list(ctx, SITE_GROUPS) == 1;
}

struct tls_site *tls_site_new(const struct tls_site_options *o, void (*on_finding)(void *arg, bool bad, const char *text), void *arg)
{
	struct site_loading s = { .site = xcalloc(1, sizeof(*s.site)), .tell = on_finding, .arg = arg };

	pthread_once(&once, init_once);
	ERR_clear_error();
	atomic_init(&s.site->tls.refs, 1);
	s.site->tls.server = true;
	s.site->tls.site = s.site;
	s.site->names = map_new();
	s.site->tls.ctx = SSL_CTX_new(TLS_server_method());
	s.trial = SSL_CTX_new(TLS_server_method());
	if (!s.site->tls.ctx || !s.trial)
		die("cannot make a TLS context: %s", openssl_reason());
	s.l = (struct loading){ .tls = &s.site->tls, .err = s.err, .errsize = sizeof(s.err) };
	load_site_files(&s, o);
	if (aside_closing())
		tell(&s, true, "the program is stopping");
	if (!s.bad && (!set_site(s.site, o) || !use_default(&s))) {
		snprintf(s.err, sizeof(s.err), "TLS cannot be set up: %s", openssl_reason());
		tell(&s, true, s.err);
	}
	SSL_CTX_free(s.trial);
	ERR_clear_error();
	if (!s.bad)
		return s.site;
	tls_site_put(s.site);
	return NULL;
}

struct tls_site *tls_site_get(struct tls_site *s)
{
	tls_get(&s->tls);
	return s;
}

void tls_site_put(struct tls_site *s)
{
	if (s)
		tls_put(&s->tls);
}

const char *tls_site_cert(const struct tls_site *s, size_t i, int64_t *expires_in)
{
	if (i >= s->certs_n)
		return NULL;
	*expires_in = (int64_t)s->certs[i].id->not_after - (int64_t)time(NULL);
	return s->certs[i].path;
}

struct conn *tls_site_accept(struct tls_site *s, struct conn *plain, void (*on_event)(struct conn *), void *owner)
{
	return tls_accept(&s->tls, plain, on_event, owner);
}
