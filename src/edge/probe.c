/* One check of a target: dialled, a PROXY header where the service sends one (it says LOCAL: nobody is behind it), then what the type wants: nothing, a TLS
 * handshake, a request by HTTP or gRPC. One deadline for all of it; the status says how far it came. Owns dial, conn and buffers.
 * Does not know what follows from a result, nor when the next one is due. */
#include "mctunnel/edge/probe.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/dial.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/proto/grpc_probe.h"
#include "mctunnel/proto/http1.h"
#include "mctunnel/proto/proxyhdr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_MAX 8192     /* of an answer by HTTP */
#define ANSWER_MAX 65536  /* by gRPC, all bytes of the connection */
#define REQUEST_MAX 2048
#define PIECE 4096
#define LATE_MS 100       /* a deadline that is noticed so late: we have been held up, not the target */

struct probe {
	const struct conf_service *s; /* borrowed */
	struct tls *tls;              /* borrowed */
	void (*on_done)(void *arg, const struct probe_result *r);
	void *arg;
	struct dial *dial; /* NULL: connected */
	struct conn *conn;
	struct timer deadline;
	uint64_t began_us;
	struct grpc_probe *grpc; /* owned; NULL unless the type is grpc */
	char *head;              /* owned: what has come by HTTP, HEAD_MAX at most; NULL unless the type is http */
	size_t got;
	uint8_t out[REQUEST_MAX]; /* what is to be said next */
	size_t out_len, out_at;
};

static void probe_free(struct probe *p, bool orderly)
{
	timer_stop(&p->deadline);
	if (p->dial)
		dial_cancel(p->dial);
	if (p->conn && orderly)
		conn_close(p->conn);
	else if (p->conn)
		conn_abort(p->conn);
	grpc_probe_free(p->grpc);
	free(p->head);
	mem_put(MEM_OTHER, p);
}

/* What a target says goes into logs and to hubs: in characters that hurt nobody. */
static void quote(char *to, size_t size, const char *text)
{
	str_copy(to, size, text);
	for (; *to; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

static bool held_up(const struct probe *p, enum check_status status, uint64_t took_us)
{
	bool timeout = status == CHECK_L4TOUT || status == CHECK_L6TOUT || status == CHECK_L7TOUT;

	return timeout && took_us / 1000 > p->s->check.timeout + LATE_MS;
}

/* The last call on a probe. */
static void end(struct probe *p, enum check_status status, uint32_t code, const char *text)
{
	struct probe_result r = { .status = status, .code = code, .took_us = clock_us() - p->began_us };

	if (held_up(p, status, r.took_us)) {
		r.status = CHECK_SOCKERR;
		text = "the agent was held up";
	}
	quote(r.text, sizeof(r.text), text);
	p->on_done(p->arg, &r);
	probe_free(p, check_status_verdict(status) > 0);
}

static void on_deadline(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, deadline);

	end(p, p->s->check.type == CHECK_TLS ? CHECK_L6TOUT : CHECK_L7TOUT, 0, "");
}

/* ---- HTTP ---- */

static const char *host_of(const struct conf_service *s)
{
	const char *text = s->target.text;

	if (s->check.host)
		return s->check.host;
	return s->target.host || s->target.addr.u.sa.sa_family != AF_UNIX ? text : "localhost";
}

static bool expected(const struct conf_check *c, unsigned status)
{
	for (size_t i = 0; i < c->expect.n; i++) {
		char *end;
		unsigned long low = strtoul(c->expect.v[i], &end, 10), high = *end == '-' ? strtoul(end + 1, NULL, 10) : low;

		if (status >= low && status <= high)
			return true;
	}
	return c->expect.n == 0 && status >= 200 && status <= 399;
}

static void quote_phrase(char *to, size_t size, struct http1_text t)
{
	size_t len = t.len < size - 1 ? t.len : size - 1;

	memcpy(to, t.at, len);
	to[len] = '\0';
}

/* True: that was the last call on the probe. */
static bool heard_http(struct probe *p)
{
	const struct conf_check *c = &p->s->check;
	struct http1_error error;
	struct http1_head h;
	char phrase[64];
	ssize_t n;

	while ((n = http1_answer(&h, p->head, p->got, HEAD_MAX, c->method, &error)) > 0) {
		if (h.status / 100 != 1 || h.status == 101) {
			quote_phrase(phrase, sizeof(phrase), h.phrase);
			end(p, expected(c, h.status) ? CHECK_L7OK : CHECK_L7STS, h.status, phrase);
			return true;
		}
		p->got -= (size_t)n; /* an interim answer */
		memmove(p->head, p->head + n, p->got);
	}
	if (n == 0 && p->got < HEAD_MAX)
		return false;
	end(p, CHECK_L7RSP, 0, n < 0 ? error.text : "the head of the answer does not end");
	return true;
}

static bool begin_http(struct probe *p)
{
	const struct conf_check *c = &p->s->check;
	struct strbuf b;

	p->head = malloc(HEAD_MAX);
	if (!p->head)
		return false;
	strbuf_init(&b, (char *)p->out, sizeof(p->out));
	strbuf_add(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: mctunnel/" MCTUNNEL_VERSION "\r\nAccept: */*\r\nConnection: close\r\n\r\n", c->method,
		   c->path, host_of(p->s));
	BUG_ON(b.cut);
	p->out_len = b.len;
	return true;
}

/* ---- gRPC ---- */

static bool heard_grpc(struct probe *p, const uint8_t *data, size_t len)
{
	static const enum check_status statuses[] = { [GRPC_SERVING] = CHECK_L7OK, [GRPC_OTHER] = CHECK_L7STS, [GRPC_MALFORMED] = CHECK_L7RSP,
		[GRPC_STARVED] = CHECK_SOCKERR };
	enum grpc_verdict v = grpc_probe_input(p->grpc, data, len);
	const char *text;
	uint32_t code;

	p->got += len;
	if (v == GRPC_WAITING && p->got < ANSWER_MAX)
		return false;
	text = grpc_probe_text(p->grpc, &code);
	if (v == GRPC_WAITING)
		end(p, CHECK_L7RSP, 0, "the answer does not end");
	else
		end(p, statuses[v], code, text);
	return true;
}

static bool begin_grpc(struct probe *p)
{
	const struct conf_check *c = &p->s->check;

	p->grpc = grpc_probe_new(host_of(p->s), c->service ? c->service : "", c->timeout);
	return p->grpc != NULL;
}

/* ---- saying and hearing ---- */

static bool has_more(struct probe *p)
{
	if (p->out_at == p->out_len && p->grpc) {
		p->out_at = 0;
		p->out_len = grpc_probe_output(p->grpc, p->out, sizeof(p->out));
	}
	return p->out_at < p->out_len;
}

/* A target that does not take it may have answered all the same. */
static void say(struct probe *p)
{
	while (has_more(p)) {
		struct iovec iov = { p->out + p->out_at, p->out_len - p->out_at };
		ssize_t n = conn_writev(p->conn, &iov, 1);

		if (n < 0)
			return;
		p->out_at += (size_t)n;
	}
}

static bool heard(struct probe *p, const uint8_t *data, size_t len)
{
	if (p->grpc)
		return heard_grpc(p, data, len);
	memcpy(p->head + p->got, data, len);
	p->got += len;
	return heard_http(p);
}

static void on_conn(struct conn *c)
{
	struct probe *p = c->owner;
	uint8_t piece[PIECE];
	ssize_t n = CONN_AGAIN;

	say(p);
	do {
		size_t room = p->head && HEAD_MAX - p->got < sizeof(piece) ? HEAD_MAX - p->got : sizeof(piece);
		struct iovec iov = { piece, room };

		n = conn_readv(c, &iov, 1);
		if (n > 0 && heard(p, piece, (size_t)n))
			return;
	} while (n > 0);
	say(p); /* gRPC: what came may want an answer, and may have been the end */
	if (p->grpc && heard_grpc(p, piece, 0))
		return;
	if (n == 0)
		end(p, CHECK_L7RSP, 0, "the connection ended before the answer");
	else if (n == CONN_FAILED)
		end(p, sock_exhausted(c->error) ? CHECK_SOCKERR : CHECK_L7RSP, 0, strerror(c->error));
}

static bool begin_talk(struct probe *p, int fd)
{
	if (!(p->s->check.type == CHECK_HTTP ? begin_http(p) : begin_grpc(p)))
		return false;
	p->conn = conn_tcp(fd, on_conn, p);
	return p->conn != NULL;
}

/* ---- TLS ---- */

static void on_tls(struct conn *c)
{
	struct probe *p = c->owner;

	if (tls_state(c) == TLS_FAILED)
		end(p, sock_exhausted(c->error) ? CHECK_SOCKERR : CHECK_L6RSP, 0, tls_failure(c));
	else if (tls_state(c) == TLS_UP)
		end(p, CHECK_L6OK, 0, "");
}

/* Until the TLS layer takes it over, which follows at once. */
static void not_yet(struct conn *c)
{
}

static bool begin_tls(struct probe *p, int fd)
{
	const char *name = p->s->check.host ? p->s->check.host : p->s->target.host;
	struct conn *plain = conn_tcp(fd, not_yet, p);

	if (!plain)
		return false;
	p->conn = tls_connect(p->tls, plain, name, NULL, on_tls, p);
	if (!p->conn)
		BUG_ON(conn_release(plain) != fd);
	return p->conn != NULL;
}

/* ---- connecting ---- */

/* Before everything else on a fresh socket, whose empty buffer takes it whole. */
static bool send_proxy_header(const struct probe *p, int fd)
{
	uint8_t header[PROXYHDR_MAX];
	struct addr nobody = { .len = 0 };
	size_t len;

	if (p->s->send_proxy == SEND_PROXY_NONE)
		return true;
	len = proxyhdr_build(header, p->s->send_proxy == SEND_PROXY_V1 ? 1 : 2, &nobody, &nobody, NULL);
	errno = 0; /* it may be sent in part */
	return send(fd, header, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static void connected(struct probe *p, int fd)
{
	uint64_t spent = (clock_us() - p->began_us) / 1000;
	bool begun = false;

	if (!send_proxy_header(p, fd)) {
		int error = errno;

		close(fd);
		end(p, sock_exhausted(error) ? CHECK_SOCKERR : CHECK_L4CON, 0, sock_exhausted(error) ? strerror(error) : "the connection ended at once");
		return;
	}
	switch (p->s->check.type) {
	case CHECK_TCP:
		sock_end(fd, true);
		end(p, CHECK_L4OK, 0, "");
		return;
	case CHECK_TLS: begun = begin_tls(p, fd); break;
	default: begun = begin_talk(p, fd);
	}
	if (begun) {
		timer_start(&p->deadline, p->s->check.timeout > spent ? p->s->check.timeout - spent : 1);
		return;
	}
	close(fd);
	end(p, CHECK_SOCKERR, 0, "no memory");
}

static enum check_status status_of(int error)
{
	if (error == ETIMEDOUT)
		return CHECK_L4TOUT;
	return sock_exhausted(error) ? CHECK_SOCKERR : CHECK_L4CON;
}

static void on_dialled(void *arg, struct dial_result *r)
{
	struct probe *p = arg;

	p->dial = NULL;
	if (r->fd < 0) {
		bool nameless = p->s->target.host && r->error == EHOSTUNREACH;

		end(p, status_of(r->error), 0, status_of(r->error) == CHECK_L4TOUT ? "" : nameless ? r->why : strerror(r->error));
	} else {
		connected(p, r->fd);
	}
}

struct probe *probe_start(const struct conf_service *s, struct tls *tls, void (*on_done)(void *, const struct probe_result *), void *arg)
{
	struct dial_options o = { .timeout_ms = s->check.timeout };
	struct probe *p = mem_get(MEM_OTHER, sizeof(*p));

	if (!p)
		return NULL;
	p->s = s;
	p->tls = tls;
	p->on_done = on_done;
	p->arg = arg;
	p->began_us = clock_us();
	timer_init(&p->deadline, on_deadline);
	p->dial = dial_start(&s->target, &o, on_dialled, p);
	if (p->dial)
		return p;
	probe_free(p, false);
	return NULL;
}

void probe_cancel(struct probe *p)
{
	probe_free(p, false);
}
