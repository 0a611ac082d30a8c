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
#include "mctunnel/proto/proxyhdr.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct probe {
	const struct conf_service *s; /* borrowed */
	struct tls *tls;              /* borrowed */
	void (*on_done)(void *arg, const struct probe_result *r);
	void *arg;
	struct dial *dial; /* NULL: connected */
	struct conn *conn;
	struct timer deadline;
	uint64_t began_us;
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

/* The last call on a probe. */
static void end(struct probe *p, enum check_status status, uint32_t code, const char *text)
{
	struct probe_result r = { .status = status, .code = code, .took_us = clock_us() - p->began_us };

	quote(r.text, sizeof(r.text), text);
	p->on_done(p->arg, &r);
	probe_free(p, check_status_verdict(status) > 0);
}

static void on_deadline(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, deadline);

	end(p, p->s->check.type == CHECK_TLS ? CHECK_L6TOUT : CHECK_L7TOUT, 0, "");
}

static void on_tls(struct conn *c)
{
	struct probe *p = c->owner;

	if (tls_state(c) == TLS_FAILED)
		end(p, CHECK_L6RSP, 0, tls_failure(c));
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

/* Before everything else on a fresh socket, whose empty buffer takes it whole. */
static bool send_proxy_header(const struct probe *p, int fd)
{
	uint8_t header[PROXYHDR_MAX];
	struct addr nobody = { .len = 0 };
	size_t len;

	if (p->s->send_proxy == SEND_PROXY_NONE)
		return true;
	len = proxyhdr_build(header, p->s->send_proxy == SEND_PROXY_V1 ? 1 : 2, &nobody, &nobody, NULL);
	return send(fd, header, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

/* A port of this host that nobody listens on can be the one that the kernel has just given us. */
static bool met_itself(int fd, const struct addr *to)
{
	struct addr own;

	sock_local(fd, &own);
	return to->u.sa.sa_family != AF_UNIX && addr_equal(&own, to);
}

static void connected(struct probe *p, int fd)
{
	uint64_t spent = (clock_us() - p->began_us) / 1000;
	bool begun = false;

	if (!send_proxy_header(p, fd)) {
		close(fd);
		end(p, CHECK_L4CON, 0, "the connection ended at once");
		return;
	}
	switch (p->s->check.type) {
	case CHECK_TCP:
		sock_end(fd, true);
		end(p, CHECK_L4OK, 0, "");
		return;
	case CHECK_TLS: begun = begin_tls(p, fd); break;
	default: BUG_ON(true);
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
	switch (error) {
	case ETIMEDOUT:
		return CHECK_L4TOUT;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case ENOBUFS:
		return CHECK_SOCKERR;
	default:
		return CHECK_L4CON;
	}
}

static void on_dialled(void *arg, struct dial_result *r)
{
	struct probe *p = arg;

	p->dial = NULL;
	if (r->fd < 0) {
		bool nameless = p->s->target.host && r->error == EHOSTUNREACH;

		end(p, status_of(r->error), 0, status_of(r->error) == CHECK_L4TOUT ? "" : nameless ? r->why : strerror(r->error));
	} else if (met_itself(r->fd, &r->to)) {
		close(r->fd);
		end(p, CHECK_L4CON, 0, strerror(ECONNREFUSED));
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
