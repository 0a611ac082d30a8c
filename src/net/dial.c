/* Dialling: from an endpoint to a connected descriptor.
 * Owns the sockets of a race until one wins; the others are closed, which the peer sees as RST. Attempts begin 250 ms apart, and at
 * once when the one before has failed. With a proxy, the race is for the proxy, and the winner then asks it for the endpoint.
 * It does not know what will be spoken, and reads nothing behind the proxy's answer. */
#include "mctunnel/net/dial.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/resolve.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STAGGER_MS 250
#define ADDRS_MAX 16
#define ATTEMPTS_MAX (2 * ADDRS_MAX)
#define PROXY_ANSWER_MAX 8192
#define PROXY_REQUEST_MAX 2048
#define WHY_MAX 256

struct attempt {
	struct watch watch; /* fd -1: over, or not yet begun */
	struct dial *dial;
	unsigned addr; /* index */
};

struct dial {
	const struct endpoint *endpoint, *proxy; /* borrowed */
	const char *proxy_auth;			 /* borrowed */
	void (*on_done)(void *arg, struct dial_result *r);
	void *arg;
	bool second_attempt;
	uint32_t timeout_ms;
	struct timer step, deadline;
	struct deferred begin; /* the first step */
	struct resolve *resolving; /* owned while under way */
	struct addr addrs[ADDRS_MAX];
	bool addr_failed[ADDRS_MAX];
	unsigned addr_count, next, running;
	struct attempt attempts[ATTEMPTS_MAX];
	struct watch proxy_watch; /* of the winner, while the proxy is asked */
	struct addr winner;
	char request[PROXY_REQUEST_MAX];
	size_t request_len, request_sent;
	int error; /* of the first attempt that failed */
	char why[WHY_MAX];
};

/* Where the race goes: to the proxy if there is one. A Unix socket is never behind a proxy. */
static const struct endpoint *race_to(const struct dial *d)
{
	return d->proxy ? d->proxy : d->endpoint;
}

static void note(struct dial *d, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void note(struct dial *d, int error, const char *fmt, ...)
{
	va_list ap;

	d->error = error;
	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
}

static void end_watch(struct watch *w)
{
	int fd = w->fd;

	if (fd < 0)
		return;
	loop_unwatch(w);
	close(fd);
}

static void end_race(struct dial *d)
{
	timer_stop(&d->step);
	for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
		end_watch(&d->attempts[i].watch);
	d->running = 0;
}

static void free_dial(struct dial *d)
{
	end_race(d);
	end_watch(&d->proxy_watch);
	loop_undefer(&d->begin);
	timer_stop(&d->deadline);
	if (d->resolving)
		resolve_cancel(d->resolving);
	mem_put(MEM_OTHER, d);
}

static void finish(struct dial *d, int fd)
{
	char why[WHY_MAX];
	struct dial_result r = { .fd = fd, .to = d->winner, .error = fd < 0 ? d->error : 0, .why = why };
	void (*on_done)(void *, struct dial_result *) = d->on_done;
	void *arg = d->arg;

	str_copy(why, sizeof(why), fd < 0 ? d->why : "connected");
	free_dial(d);
	on_done(arg, &r);
}

static void give_up(struct dial *d)
{
	BUG_ON(!d->error);
	finish(d, -1);
}

static const char *target_text(const struct endpoint *e, char *buf, size_t size)
{
	if (!e->host)
		return addr_text(&e->addr, buf, size);
	snprintf(buf, size, "%s:%u", e->host, e->port);
	return buf;
}

/* ---- the proxy ---- */

static void base64(char *out, size_t size, const char *text)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)text;
	size_t len = strlen(text), at = 0;

	BUG_ON(size < (len + 2) / 3 * 4 + 1);
	for (size_t i = 0; i < len; i += 3) {
		unsigned left = (unsigned)(len - i);
		unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0u);

		out[at++] = digits[v >> 18];
		out[at++] = digits[v >> 12 & 63];
		out[at++] = left > 1 ? digits[v >> 6 & 63] : '=';
		out[at++] = left > 2 ? digits[v & 63] : '=';
	}
	out[at] = 0;
}

static bool write_request(struct dial *d)
{
	char target[300], auth[700];
	struct strbuf b;

	if (d->proxy_auth && strlen(d->proxy_auth) > 500)
		return false;
	target_text(d->endpoint, target, sizeof(target));
	strbuf_init(&b, d->request, sizeof(d->request));
	strbuf_add(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", target, target);
	if (d->proxy_auth) {
		base64(auth, sizeof(auth), d->proxy_auth);
		strbuf_add(&b, "Proxy-Authorization: Basic %s\r\n", auth);
	}
	strbuf_add(&b, "\r\n");
	d->request_len = b.len;
	return !b.cut;
}

/* Length of the answer with its blank line; 0: not complete. */
static size_t answer_length(const char *answer, size_t len)
{
	const char *p = answer, *end = answer + len;

	while ((p = memchr(p, '\n', (size_t)(end - p)))) {
		p++;
		if (p < end && *p == '\n')
			return (size_t)(p + 1 - answer);
		if (end - p >= 2 && p[0] == '\r' && p[1] == '\n')
			return (size_t)(p + 2 - answer);
	}
	return 0;
}

/* "HTTP/1.1 200 Connection established": 200 to 299 is yes. */
static bool judge_answer(struct dial *d, const char *answer)
{
	unsigned version, status;
	char reason[64] = "";

	if (sscanf(answer, "HTTP/1.%1u %3u %63[ -~]", &version, &status, reason) < 2) {
		note(d, EPROTO, "proxy %s does not answer as an HTTP proxy", d->proxy->text);
		return false;
	}
	if (status >= 200 && status < 300)
		return true;
	note(d, EPROTO, "proxy answered %u%s%s", status, reason[0] ? " " : "", reason);
	return false;
}

static void proxy_lost(struct dial *d, int error)
{
	if (error)
		note(d, error, "proxy %s: %s", d->proxy->text, strerror(error));
	else
		note(d, EPROTO, "proxy %s closed the connection without an answer", d->proxy->text);
	give_up(d);
}

/* Only the answer itself is taken from the socket: what follows belongs to whoever dialled. */
static void read_answer(struct dial *d, bool ended)
{
	char answer[PROXY_ANSWER_MAX + 1];
	int fd = d->proxy_watch.fd;
	ssize_t n = recv(fd, answer, PROXY_ANSWER_MAX, MSG_PEEK);
	size_t len;

	if (n < 0 && (errno == EAGAIN || errno == EINTR) && !ended)
		return;
	if (n <= 0) {
		proxy_lost(d, n < 0 && errno != EAGAIN ? errno : 0);
		return;
	}
	len = answer_length(answer, (size_t)n);
	if (len == 0 && n < PROXY_ANSWER_MAX && !ended)
		return;
	answer[len] = 0;
	if (len == 0) {
		note(d, EPROTO, "proxy %s does not end its answer", d->proxy->text);
		give_up(d);
	} else if (!judge_answer(d, answer)) {
		give_up(d);
	} else if (recv(fd, answer, len, 0) != (ssize_t)len) {
		proxy_lost(d, ECONNRESET);
	} else {
		loop_unwatch(&d->proxy_watch);
		finish(d, fd);
	}
}

static void on_proxy(struct watch *w, unsigned events)
{
	struct dial *d = container_of(w, struct dial, proxy_watch);

	while (d->request_sent < d->request_len && (events & LOOP_WRITE)) {
		ssize_t n = send(w->fd, d->request + d->request_sent, d->request_len - d->request_sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0 && errno != EINTR) {
			proxy_lost(d, errno);
			return;
		}
		d->request_sent += n < 0 ? 0 : (size_t)n;
	}
	read_answer(d, (events & (LOOP_PEER_SHUT | LOOP_HUP)) != 0);
}

static void ask_proxy(struct dial *d, int fd)
{
	if (!write_request(d)) {
		note(d, EINVAL, "the proxy's user and password are too long");
		close(fd);
		give_up(d);
	} else if (loop_watch(&d->proxy_watch, fd, on_proxy) < 0) {
		note(d, errno, "cannot watch the proxy's socket: %s", strerror(errno));
		close(fd);
		give_up(d);
	}
}

/* ---- the race ---- */

static void attempt_failed(struct dial *d, unsigned addr, int error)
{
	char text[ADDR_TEXT];

	d->addr_failed[addr] = true;
	if (!d->error)
		note(d, error, "connecting to %s: %s", addr_text(&d->addrs[addr], text, sizeof(text)), strerror(error));
}

static void won(struct dial *d, unsigned addr, int fd)
{
	d->winner = d->addrs[addr];
	end_race(d);
	if (d->proxy)
		ask_proxy(d, fd);
	else
		finish(d, fd);
}

/* Of a socket that is connected where error is 0. A port of this host that nobody listens on can be the one that the kernel has just given us: TCP then connects
 * the socket to itself. */
static int unless_itself(int error, int fd, const struct addr *to)
{
	struct addr own;

	if (error || to->u.sa.sa_family == AF_UNIX)
		return error;
	sock_local(fd, &own);
	return addr_equal(&own, to) ? ECONNREFUSED : 0;
}

static void on_attempt(struct watch *w, unsigned events)
{
	struct attempt *a = container_of(w, struct attempt, watch);
	struct dial *d = a->dial;
	int error;

	if (!(events & (LOOP_WRITE | LOOP_HUP)))
		return;
	error = unless_itself(sock_error(w->fd), w->fd, &d->addrs[a->addr]);
	if (!error && (events & LOOP_WRITE)) {
		int fd = w->fd;

		loop_unwatch(w);
		won(d, a->addr, fd);
		return;
	}
	attempt_failed(d, a->addr, error ? error : ECONNRESET);
	end_watch(w);
	d->running--;
	timer_start(&d->step, 0); /* the next one need not wait */
}

enum begun { FAILED, RUNNING, WON };

/* WON: the dial is over. */
static enum begun begin(struct dial *d, unsigned number)
{
	struct attempt *a = &d->attempts[number];
	const struct addr *to;
	int fd, error;

	a->dial = d;
	a->addr = number % d->addr_count;
	to = &d->addrs[a->addr];
	fd = sock_connect(to);
	if (fd < 0) {
		attempt_failed(d, a->addr, errno);
		return FAILED;
	}
	error = unless_itself(sock_connected(fd, to), fd, to);
	if (!error) {
		won(d, a->addr, fd);
		return WON;
	}
	if (error == EINPROGRESS)
		error = loop_watch(&a->watch, fd, on_attempt) < 0 ? errno : 0;
	if (error) {
		attempt_failed(d, a->addr, error);
		close(fd);
		return FAILED;
	}
	d->running++;
	return RUNNING;
}

/* Begins the next attempt that makes sense. */
static void on_step(struct timer *timer)
{
	struct dial *d = container_of(timer, struct dial, step);
	unsigned rounds = d->second_attempt ? 2 : 1;

	while (d->next < rounds * d->addr_count) {
		unsigned number = d->next++;
		enum begun b = d->addr_failed[number % d->addr_count] ? FAILED : begin(d, number);

		if (b == RUNNING)
			timer_start(&d->step, STAGGER_MS);
		if (b != FAILED)
			return;
	}
	if (d->running == 0)
		give_up(d);
}

static void on_begin(struct deferred *work)
{
	on_step(&container_of(work, struct dial, begin)->step);
}

static void on_deadline(struct timer *timer)
{
	struct dial *d = container_of(timer, struct dial, deadline);
	const char *what = d->resolving ? "resolving" : d->proxy_watch.fd >= 0 ? "waiting for the answer of proxy" : "connecting to";
	char text[300];

	note(d, ETIMEDOUT, "%s %s timed out after %u ms", what,
	     d->resolving ? race_to(d)->host : target_text(race_to(d), text, sizeof(text)), d->timeout_ms);
	give_up(d);
}

static void on_resolved(void *arg, const struct resolved *r)
{
	struct dial *d = arg;

	d->resolving = NULL;
	if (r->n == 0) {
		note(d, r->starved ? ENOMEM : EHOSTUNREACH, "cannot resolve %s: %s", race_to(d)->host, r->why);
		give_up(d);
		return;
	}
	d->addr_count = (unsigned)(r->n < ADDRS_MAX ? r->n : ADDRS_MAX);
	memcpy(d->addrs, r->addrs, d->addr_count * sizeof(*r->addrs));
	on_step(&d->step);
}

struct dial *dial_start(const struct endpoint *e, const struct dial_options *o, void (*on_done)(void *arg, struct dial_result *r), void *arg)
{
	struct dial *d = mem_get(MEM_OTHER, sizeof(*d));

	if (!d)
		return NULL;
	d->endpoint = e;
	d->proxy = !e->host && e->addr.u.sa.sa_family == AF_UNIX ? NULL : o->proxy;
	d->proxy_auth = o->proxy_auth;
	d->on_done = on_done;
	d->arg = arg;
	d->second_attempt = o->second_attempt;
	d->timeout_ms = o->timeout_ms;
	d->proxy_watch.fd = -1;
	for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
		d->attempts[i].watch.fd = -1;
	timer_init(&d->step, on_step);
	deferred_init(&d->begin, on_begin);
	timer_init(&d->deadline, on_deadline);
	timer_start(&d->deadline, o->timeout_ms);
	if (race_to(d)->host) {
		d->resolving = resolve_start(race_to(d)->host, race_to(d)->port, on_resolved, d);
		if (d->resolving)
			return d;
		free_dial(d);
		return NULL;
	}
	d->addrs[0] = race_to(d)->addr;
	d->addr_count = 1;
	loop_defer(&d->begin); /* so that no answer comes inside this call */
	return d;
}

void dial_cancel(struct dial *d)
{
	free_dial(d);
}
