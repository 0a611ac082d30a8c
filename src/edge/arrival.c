/* Arrivals: clients that show something before it is known where they go. A PROXY header is taken; a ClientHello is only looked at (MSG_PEEK), so that whoever gets
 * the socket finds it whole, and TLS that ends here begins once it is complete.
 * Owns the conn until it is handed over, and the queue of those whose handshake may begin: a few in each pass, because a handshake costs as much as
 * thousands of packets, and sessions must not wait for strangers. Does not know who may come (frontend) nor where they go (trip). */
#include "mctunnel/edge/arrival.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/net/tls_site.h"
#include "mctunnel/proto/proxyhdr.h"
#include "mctunnel/proto/sni.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BEGIN_MAX 2    /* handshakes begun in one pass over the deferred work */
#define LOWAT_FROM 4096 /* who is to say more than this is not looked at for each piece, and gets room for it in the kernel */

enum stage { PROXY_HEADER, HELLO, IN_QUEUE, HANDSHAKE, READY };

struct arrival {
	struct conn *c; /* owned; over TLS from HANDSHAKE on */
	enum stage stage;
	struct arrival_options o; /* o.tls is shared */
	const struct arrival_events *ev; /* borrowed */
	void *owner;                     /* borrowed */
	struct addr src, dst;
	struct timer timer;
	struct list node; /* in here.queue, or in none */
	size_t need;      /* bytes without which there is nothing new to learn */
	bool lowat;       /* SO_RCVLOWAT was raised */
	bool polite;      /* something was said that a RST could overtake */
};

static _Thread_local struct {
	struct list queue; /* of those whose hello is complete, the oldest first */
	struct deferred begin;
	bool made;
	uint8_t peeked[PROXYHDR_READ_MAX > SNI_HELLO_MAX ? PROXYHDR_READ_MAX : SNI_HELLO_MAX];
} here;

/* ---- ends ---- */

static void release(struct arrival *a)
{
	timer_stop(&a->timer);
	list_del(&a->node);
	if (list_empty(&here.queue))
		loop_undefer(&here.begin);
	tls_site_put(a->o.tls);
	mem_put(MEM_OTHER, a);
}

static void fail(struct arrival *a, enum reason why, const char *text)
{
	const struct arrival_events *ev = a->ev;
	void *owner = a->owner;
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", text); /* it may be the conn's */
	if (a->polite)
		conn_close(a->c);
	else
		conn_abort(a->c);
	release(a);
	ev->on_failed(owner, why, copy);
}

static void want_bytes(struct arrival *a, size_t n)
{
	int value = n > LOWAT_FROM ? (int)n : 1;

	a->need = n;
	if (value == 1 && !a->lowat)
		return;
	a->lowat = setsockopt(conn_fd(a->c), SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0 && value > 1;
}

static void hand_over(struct arrival *a, struct arrived *out)
{
	const struct arrival_events *ev = a->ev;
	void *owner = a->owner;

	out->src = a->src;
	out->dst = a->dst;
	ev->on_ready(owner, out);
	release(a);
}

static void hand_over_fd(struct arrival *a, struct arrived *out)
{
	want_bytes(a, 1);
	out->fd = conn_release(a->c);
	hand_over(a, out);
}

static const char *too_late(const struct arrival *a)
{
	switch (a->stage) {
	case PROXY_HEADER:
		return "no PROXY header within timeouts.client_hello";
	case HELLO:
		return "no TLS ClientHello within timeouts.client_hello";
	default:
		return "the TLS handshake was not over within timeouts.client_hello";
	}
}

static void on_timer(struct timer *t)
{
	struct arrival *a = container_of(t, struct arrival, timer);

	fail(a, REASON_CLIENT_TIMEOUT, too_late(a));
}

/* ---- TLS that ends here ---- */

static void handshake_done(struct arrival *a)
{
	struct arrived out = { .fd = -1, .c = a->c, .tls = true };
	char name[256];

	stat_add(STAT_CLIENT_HANDSHAKES, 1);
	if (tls_resumed(a->c))
		stat_add(STAT_CLIENT_HANDSHAKES_RESUMED, 1);
	if (tls_sni(a->c)[0])
		out.sni = tls_sni(a->c);
	if (tls_peer_name(a->c, 0, name, sizeof(name)) > 0 && name[0])
		out.cert = name;
	if (tls_alpn(a->c)[0])
		out.alpn[out.alpn_n++] = tls_alpn(a->c);
	hand_over(a, &out);
}

static void on_tls(struct conn *c)
{
	struct arrival *a = c->owner;

	switch (tls_state(c)) {
	case TLS_HANDSHAKING:
		break;
	case TLS_UP:
		handshake_done(a);
		break;
	case TLS_FAILED:
		fail(a, conn_reason(c, c->error == ECONNRESET ? REASON_CLIENT_RESET : REASON_CLIENT_TLS), tls_failure(c));
		break;
	}
}

static void begin_tls(struct arrival *a)
{
	struct conn *c;

	want_bytes(a, 1);
	a->stage = HANDSHAKE;
	c = tls_site_accept(a->o.tls, a->c, on_tls, a);
	if (c)
		a->c = c;
	else
		fail(a, REASON_RESOURCES, reason_text(REASON_RESOURCES));
}

static void begin_some(struct deferred *d)
{
	for (int i = 0; i < BEGIN_MAX && !list_empty(&here.queue); i++) {
		struct arrival *a = list_first(&here.queue, struct arrival, node);

		list_del(&a->node);
		begin_tls(a);
	}
	if (!list_empty(&here.queue))
		loop_defer(&here.begin);
}

static void wait_in_queue(struct arrival *a)
{
	a->stage = IN_QUEUE;
	list_add(&here.queue, &a->node);
	loop_defer(&here.begin);
}

/* ---- what comes first ---- */

/* What is there, without taking it; 0: wait. At the client's end, or when it is broken, the arrival is over: -1. */
static ssize_t peek(struct arrival *a)
{
	bool ended = a->c->peer_shut || a->c->hup;
	int there = 0;
	ssize_t n;

	if (!ended && ioctl(conn_fd(a->c), FIONREAD, &there) == 0 && (size_t)there < a->need)
		return 0;
	n = recv(conn_fd(a->c), here.peeked, sizeof(here.peeked), MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR) && !a->c->hup)
		return 0;
	if (n > 0 && (!ended || (size_t)n >= a->need))
		return n;
	fail(a, REASON_CLIENT_RESET, n < 0 ? strerror(errno) : a->stage == PROXY_HEADER ? "closed before its PROXY header was complete" : "closed before its ClientHello was complete");
	return -1;
}

/* All that look return true when there is something more to look at, false when it waits or is gone. */
static bool look_for_proxy(struct arrival *a)
{
	ssize_t n = peek(a);
	struct proxyhdr h;

	if (n <= 0)
		return false;
	switch (proxyhdr_parse(here.peeked, (size_t)n, &h)) {
	case PROXYHDR_MORE:
		want_bytes(a, h.need);
		return true;
	case PROXYHDR_BAD:
		fail(a, REASON_BAD_REQUEST, h.why);
		return false;
	case PROXYHDR_DONE:
		break;
	}
	n = recv(conn_fd(a->c), here.peeked, h.len, 0);
	BUG_ON(n != (ssize_t)h.len); /* they were seen there */
	if (h.known) {
		a->src = h.src;
		a->dst = h.dst;
	}
	a->stage = a->o.tls || a->o.hello ? HELLO : READY;
	want_bytes(a, 1);
	return true;
}

static void show_hello(struct arrival *a, const struct sni_hello *h)
{
	struct arrived out = { .fd = -1, .tls = true, .sni = h->name[0] ? h->name : NULL };

	_Static_assert(SNI_ALPN <= ARRIVAL_ALPN, "room for all of them");
	for (size_t i = 0; i < h->alpn_n; i++)
		out.alpn[out.alpn_n++] = h->alpn[i];
	hand_over_fd(a, &out);
}

/* As a TLS server would answer it. */
static void refuse_hello(struct arrival *a, const char *why)
{
	static const uint8_t alert[] = { 21, 3, 1, 0, 2, 2, 50 }; /* fatal, decode_error */

	if (send(conn_fd(a->c), alert, sizeof(alert), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(alert))
		a->polite = true;
	fail(a, a->o.tls ? REASON_CLIENT_TLS : REASON_BAD_REQUEST, why);
}

static bool look_for_hello(struct arrival *a)
{
	ssize_t n = peek(a);
	struct sni_hello h;
	enum sni_result r;

	if (n <= 0)
		return false;
	r = sni_parse(here.peeked, (size_t)n, &h);
	if (r == SNI_MORE) {
		want_bytes(a, h.need);
		return true;
	}
	if (r == SNI_NOT_TLS)
		fail(a, a->o.tls ? REASON_CLIENT_TLS : REASON_BAD_REQUEST, h.why);
	else if (r == SNI_BAD)
		refuse_hello(a, h.why);
	else if (a->o.tls)
		wait_in_queue(a);
	else if (h.odd)
		refuse_hello(a, "the server name is not the name of a host");
	else
		show_hello(a, &h);
	return false;
}

static void look(struct arrival *a)
{
	bool more = true;

	while (more && a->stage == PROXY_HEADER)
		more = look_for_proxy(a);
	while (more && a->stage == HELLO)
		more = look_for_hello(a);
	if (more && a->stage == READY)
		hand_over_fd(a, &(struct arrived){ .fd = -1 });
}

static void on_conn(struct conn *c)
{
	struct arrival *a = c->owner;

	if (a->stage != IN_QUEUE)
		look(a);
	else if (c->hup) /* it has not waited */
		fail(a, REASON_CLIENT_RESET, "connection reset before the TLS handshake");
}

struct arrival *arrival_new(int fd, const struct addr *src, const struct addr *dst, const struct arrival_options *o, const struct arrival_events *ev, void *owner)
{
	struct arrival *a = mem_get(MEM_OTHER, sizeof(*a));

	if (a)
		a->c = conn_tcp(fd, on_conn, a);
	if (!a || !a->c) {
		mem_put(MEM_OTHER, a);
		close(fd);
		return NULL;
	}
	if (!here.made) {
		list_init(&here.queue);
		deferred_init(&here.begin, begin_some);
		here.made = true;
	}
	a->stage = o->proxy ? PROXY_HEADER : o->tls || o->hello ? HELLO : READY;
	a->o = *o;
	if (o->tls)
		tls_site_get(o->tls);
	a->ev = ev;
	a->owner = owner;
	a->src = *src;
	a->dst = *dst;
	a->need = 1;
	list_init(&a->node);
	timer_init(&a->timer, on_timer);
	timer_start(&a->timer, o->timeout_ms);
	return a;
}

void arrival_cancel(struct arrival *a)
{
	conn_abort(a->c);
	release(a);
}
