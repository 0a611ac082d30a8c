/* A conn over TLS, by OpenSSL: of links (1.3, mutual certificates) and of clients (tls_site.h). It owns its descriptor, its SSL object and the records
 * the kernel has not taken; the context (tls_inside.h) is shared.
 * Work is done in large turns: one recv() fills a buffer of the thread, many records are decrypted from it; many records
 * are encrypted into another, one send() takes them. Between two calls both are empty; what remains belongs to the conn.
 * A peer is judged again at every resumption, so that a ticket never outlives a revocation.
 * It does not know who may connect: names are for its users to judge. */
#define _GNU_SOURCE
#include "mctunnel/net/tls.h"

#include "mctunnel/base/buf.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/share.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/net/tls_cert.h"
#include "mctunnel/net/tls_inside.h"
#include "mctunnel/net/tls_session.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HANDSHAKES_US 2000 /* of a turn */

#define RECORD 16384            /* plaintext of a full record */
#define NEARLY (RECORD - RECORD / 8)
#define RECV_MIN (RECORD + 512) /* worth one recv(), whatever room the reader has */
#define IN_SIZE (256 << 10)
#define OUT_SIZE (512 << 10)
#define FLUSH_PIECES 32

struct tls_ticket {
	SSL_SESSION *session;  /* owned */
	struct tls_peer *peer; /* owned: who gave it */
	char *name;            /* owned: that was asked for then, and stood in the certificate */
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
	struct tls_peer *peer; /* owned: of a certificate that was found good; NULL: none; a client with a ticket: whom it hopes to meet */
	char failure[192];
	char subject[128];
	char sni[TLS_CERT_NAME]; /* server: that the client asked for; client: that it asked for, also when it is an address */
	char alpn[TLS_ALPN_NAME + 1];
};

/* The thread's buffers. Whoever calls OpenSSL for a conn uses them from io_begin() to io_end(). */
struct io {
	size_t in_at, in_len, out_len;
	size_t room; /* how much plaintext the reader can take */
	uint8_t in[IN_SIZE], out[OUT_SIZE], record[RECORD];
};

/* OpenSSL says what went wrong, but not always that it was for want of memory: a certificate that it cannot decode then is a bad one. So its allocations pass here. */
static _Thread_local bool refused; /* one was, since io_begin() */

static void *take_memory(size_t n, const char *file, int line)
{
	void *p = n ? malloc(n) : NULL;

	refused |= n && !p;
	return p;
}

static void give_memory(void *p, const char *file, int line)
{
	free(p);
}

static void *change_memory(void *old, size_t n, const char *file, int line)
{
	void *p = n ? realloc(old, n) : NULL;

	if (!n)
		free(old);
	refused |= n && !p;
	return p;
}

/* Only before it has allocated anything. */
__attribute__((constructor)) static void watch_memory(void)
{
	(void)CRYPTO_set_mem_functions(take_memory, change_memory, give_memory);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t io_key; /* frees a thread's buffers when it ends */
static BIO_METHOD *bio_method;
static _Thread_local struct io *io;

/* Handshakes that can go on. They are the dearest thing a hub does: so much of a turn and no more, or a thousand agents that come back at once
 * would hold up everybody's bytes. Clients and agents take turns, so that neither has to wait for all of the other. */
static _Thread_local struct {
	struct list clients, agents;
	struct deferred work;
	struct share share;
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

	if (refused) {
		t->failure[0] = 0; /* what it says may not be true */
		fail(t, ENOMEM, "no memory");
	} else if (t->failure[0])
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
	refused = false;
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

/* Full records, whatever the pieces are: short ones are joined. What nearly fills a record is not worth copying. */
static bool write_records(struct tls_conn *t, const struct iovec *iov, int n)
{
	size_t joined = 0;

	for (int i = 0; i < n; i++) {
		const uint8_t *p = iov[i].iov_base;
		size_t left = iov[i].iov_len, part;

		for (; left > 0; p += part, left -= part) {
			part = smaller(left, RECORD);
			if (part >= NEARLY) {
				if (!write_record(t, io->record, joined) || !write_record(t, p, part))
					return false;
				joined = 0;
				continue;
			}
			part = smaller(part, RECORD - joined);
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

	loop_forget(&c->watch);
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

/* ---- who the other side is ---- */

/* What must be known of the certificate when the session is resumed, and the certificate itself is not read again. */
static bool note_peer(struct tls_conn *t, X509_STORE_CTX *x)
{
	free(t->peer);
	errno = 0;
	t->peer = tls_trust_note(&t->tls->trust, X509_STORE_CTX_get0_cert(x), x);
	if (t->peer)
		return true;
	refused |= errno == ENOMEM;
	str_copy(t->failure, sizeof(t->failure), "the names in the certificate cannot be read");
	X509_STORE_CTX_set_error(x, refused ? X509_V_ERR_OUT_OF_MEM : X509_V_ERR_INVALID_EXTENSION);
	return false;
}

/* In the place of OpenSSL's own call: the same judgement, and a note of why and who. */
static int verify(X509_STORE_CTX *x, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_conn *t = SSL_get_app_data(ssl);
	char who[128];
	int error;

	tls_cert_subject(X509_STORE_CTX_get0_cert(x), t->subject, sizeof(t->subject));
	if (X509_verify_cert(x) > 0)
		return note_peer(t, x);
	if (refused)
		X509_STORE_CTX_set_error(x, X509_V_ERR_OUT_OF_MEM); /* the peer is told that it was us */
	error = X509_STORE_CTX_get_error(x);
	tls_cert_subject(X509_STORE_CTX_get_current_cert(x), who, sizeof(who)); /* it may be an intermediate one */
	snprintf(t->failure, sizeof(t->failure), "%s (%.100s)", verify_text(error),
		 who[0] && verify_text(error) != unknown_ca ? who : t->subject);
	return 0;
}

/* What a site asks for may have changed since. Of links the note alone counts. */
static bool welcome_back(const struct tls *tls, SSL_SESSION *session)
{
	bool some, ok;
	struct tls_peer *p = tls_session_peer(session, &some);
	X509 *cert = SSL_SESSION_get0_peer(session);

	if (some)
		ok = p && tls->ask && tls_trust_vouches(&tls->trust, p, tls->life_s);
	else if (cert && tls->site)
		ok = tls->ask && tls_trust_passes(&tls->trust, cert, "ssl_client", NULL);
	else
		ok = !tls->insist;
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

/* After a resumption: from the session, as after a full handshake from the certificate. A client has it from its ticket. */
static bool know_again(struct tls_conn *t)
{
	SSL_SESSION *session = SSL_get_session(t->ssl);
	X509 *cert = SSL_SESSION_get0_peer(session);
	bool some = false;

	if (t->tls->server) {
		free(t->peer);
		t->peer = tls_session_peer(session, &some);
		if (!t->peer && cert)
			t->peer = tls_trust_note(&t->tls->trust, cert, NULL);
	}
	if (t->peer)
		str_copy(t->subject, sizeof(t->subject), tls_peer_text(t->peer, 0));
	return t->peer || !(cert || some);
}

/* What goes into a ticket: of TLS 1.2, and where a certificate has more names than fit, it is the certificate itself. 0: end this connection. */
static int on_new_ticket(SSL *ssl, void *arg)
{
	const struct tls_conn *t = SSL_get_app_data(ssl);
	SSL_SESSION *session = SSL_get_session(ssl);

	if (SSL_session_reused(ssl))
		tls_session_limit(session, t->tls->life_s);
	if (SSL_version(ssl) != TLS1_3_VERSION || !t->peer || !SSL_SESSION_get0_peer(session))
		return 1;
	if (tls_session_keep_note(session, t->peer))
		return 1;
	refused = true; /* there is no other reason */
	return 0;
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

/* ---- the handshake ---- */

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
	if (o != BROKEN && t->send_error == ENOMEM)
		fail_io(t, t->send_error); /* the other side would wait for what is lost */
	else if (o == DONE && t->state == TLS_HANDSHAKING)
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

static struct tls_conn *first_of(struct list *l)
{
	return list_empty(l) ? NULL : list_first(l, struct tls_conn, turn);
}

static void take_turns(struct deferred *d)
{
	struct tls_conn *t;

	share_begin(&hands.share);
	for (unsigned i = 0; share_left(&hands.share, HANDSHAKES_US); i++) {
		t = first_of(i % 2 ? &hands.agents : &hands.clients);
		if (!t)
			t = first_of(i % 2 ? &hands.clients : &hands.agents);
		if (!t)
			return;
		list_del(&t->turn);
		go_on(t);
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

/* ---- how it begins ---- */

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

/* OpenSSL does not ask who gave it when it resumes. One that is good no more is not used. */
static bool use_ticket(struct tls_conn *t, const struct tls_ticket *ticket)
{
	SSL_SESSION *copy;
	bool ok;

	if (!ticket || strcmp(ticket->name, t->sni) != 0 || !tls_trust_vouches(&t->tls->trust, ticket->peer, t->tls->life_s))
		return true;
	copy = SSL_SESSION_dup(ticket->session);
	t->peer = tls_peer_copy(ticket->peer);
	ok = copy && t->peer && SSL_set_session(t->ssl, copy) == 1;
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
	if (!str_copy(t->sni, sizeof(t->sni), name))
		t->sni[0] = 0; /* one that stands in no certificate */
	return (t->tls->probe || tls_trust_set_name(SSL_get0_param(t->ssl), name)) && (is_ip(name) || SSL_set_tlsext_host_name(t->ssl, name) == 1);
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
	refused = false;
	ok = ask_for(t, server_name) && use_ticket(t, ticket) && !refused; /* an address that could not be read would be taken for a name */
	ERR_clear_error();
	if (ok)
		return take_over(t, plain);
	free_tls_conn(t);
	return NULL;
}

/* ---- what a client offers ---- */

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
static bool pick_link(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned len)
{
	static const unsigned char link[] = "\x0a" TLS_ALPN_LINK, health[] = "\x02" TLS_ALPN_HEALTH;

	_Static_assert(sizeof(link) == 12 && sizeof(health) == 4, "the length byte");
	if (pick_alpn(link, sizeof(link) - 1, out, outlen, in, len))
		return true;
	if (!pick_alpn(health, sizeof(health) - 1, out, outlen, in, len))
		return false;
	SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	return true;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned len, void *arg)
{
	struct tls_conn *t = SSL_get_app_data(ssl);
	const struct tls *tls = t->tls;

	if (tls->site && tls->alpn_len == 0)
		return SSL_TLSEXT_ERR_NOACK;
	if (tls->site ? pick_alpn(tls->alpn, (unsigned)tls->alpn_len, out, outlen, in, len) : pick_link(ssl, out, outlen, in, len))
		return SSL_TLSEXT_ERR_OK;
	note_alpn(t, tls->site ? "any of our protocols (ALPN)" : "ALPN " TLS_ALPN_LINK, in, len);
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

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

static int on_site_hello(struct tls_conn *t, SSL *ssl, int *alert)
{
	note_sni(t, ssl);
	if (t->tls->on_name(t->tls, ssl, t->sni))
		return SSL_CLIENT_HELLO_SUCCESS;
	*alert = SSL_AD_INTERNAL_ERROR;
	return SSL_CLIENT_HELLO_ERROR;
}

/* Without the extension a client would get in without a protocol. */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
	struct tls_conn *t = SSL_get_app_data(ssl);
	const unsigned char *p;
	size_t len;

	if (t->tls->site)
		return on_site_hello(t, ssl, alert);
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &p, &len))
		return SSL_CLIENT_HELLO_SUCCESS;
	note_alpn(t, "ALPN " TLS_ALPN_LINK, NULL, 0);
	*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

bool tls_hook(struct tls *t)
{
	pthread_once(&once, init_once);
	if (t->probe)
		return true;
	SSL_CTX_set_cert_verify_callback(t->ctx, verify, NULL);
	if (!t->server) {
		SSL_CTX_sess_set_new_cb(t->ctx, on_new_session);
		return true;
	}
	SSL_CTX_set_client_hello_cb(t->ctx, on_client_hello, NULL);
	SSL_CTX_set_alpn_select_cb(t->ctx, on_alpn, NULL);
	return SSL_CTX_set_session_ticket_cb(t->ctx, on_new_ticket, on_ticket, NULL) == 1 &&
	       (!t->ticket_keys || SSL_CTX_set_tlsext_ticket_key_evp_cb(t->ctx, on_ticket_key) == 1);
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
		(void)tls_cert_names(cert, take_nth, &w);
	}
	return w.n;
}

struct tls_ticket *tls_take_ticket(struct conn *c)
{
	struct tls_conn *t = tls_of(c);
	struct tls_ticket *ticket = t->session && t->peer && t->sni[0] ? calloc(1, sizeof(*ticket)) : NULL;

	if (!ticket)
		return NULL;
	ticket->session = t->session;
	t->session = NULL;
	ticket->peer = tls_peer_copy(t->peer);
	ticket->name = strdup(t->sni);
	if (ticket->peer && ticket->name)
		return ticket;
	tls_ticket_free(ticket);
	return NULL;
}

void tls_ticket_free(struct tls_ticket *t)
{
	if (!t)
		return;
	SSL_SESSION_free(t->session);
	free(t->peer);
	free(t->name);
	free(t);
}
