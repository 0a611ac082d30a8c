/* The pump: bytes from a conn into a session and back, each side's end carried to the other.
 * Owns the conn once it was given it, and the timer for idle and half-closed sessions. Bytes are read
 * straight into the session's memory and written straight out of it. A turn moves a bounded amount.
 * Only a session that ended in good order closes the conn in good order; everything else is a RST, so that
 * a loss never looks like the end of the data. Knows neither links nor who the client or the target is. */
#include "mctunnel/edge/pump.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/edge/brake.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/tunnel/session.h"

#define PIECES 16
#define TURN_MAX (64u << 10) /* bytes read in one go: they are sent while the CPU still has them in its cache, and others have their turn */

struct pump {
	struct pump_options o;
	const struct pump_events *ev; /* borrowed */
	void *owner;                  /* borrowed */
	struct session *s;            /* NULL before pump_start and once it ended */
	struct conn *c;               /* owned; NULL: not connected yet */
	struct timer quiet;           /* idle or half-closed for too long; restarted when it fires, not at each byte */
	struct deferred again;        /* more to do at the end of this turn, or in the next */
	struct series *up, *down;     /* NULL: not counted there */
	struct brake *brake;          /* owned; NULL: no limit of bandwidth */
	uint64_t last_ms;             /* when bytes were moved last */
	uint64_t in, out;
	bool in_ended;  /* the conn's end was read, and told to the session */
	bool out_ended; /* the session's end was reached, and the conn shut */
	bool stalled;   /* the session had no room for what can be read */
	bool homeless;  /* the loop of the new thread refused the conn */
};

/* The end. The session has been let go by the caller. */
static void finish(struct pump *p, enum reason why)
{
	timer_stop(&p->quiet);
	loop_undefer(&p->again);
	p->s = NULL;
	if (p->c && why == REASON_DONE)
		conn_close(p->c);
	else if (p->c)
		conn_abort(p->c);
	p->c = NULL;
	p->ev->on_done(p->owner, why);
	brake_free(p->brake);
	mem_put(MEM_PUMP, p);
}

static void give_up(struct pump *p, enum reason why)
{
	session_abort(p->s, why);
	finish(p, why);
}

/* The conn has failed. What a target said before it broke is an answer, maybe (HTTP: 413, and the rest of the body is not read). */
static void break_up(struct pump *p)
{
	enum reason why = conn_reason(p->c, p->o.local_reset);

	if (p->o.target_side)
		session_part(p->s, why);
	else
		session_abort(p->s, why);
	finish(p, why);
}

static uint32_t quiet_limit(const struct pump *p)
{
	return pump_half_closed(p) && p->o.half_closed_ms ? p->o.half_closed_ms : p->o.idle_ms;
}

static void watch_quiet(struct pump *p)
{
	uint64_t due = p->last_ms + quiet_limit(p), now = clock_ms();

	if (quiet_limit(p))
		timer_start(&p->quiet, due > now ? due - now : 0);
	else
		timer_stop(&p->quiet);
}

static void on_quiet(struct timer *t)
{
	struct pump *p = container_of(t, struct pump, quiet);

	if (clock_ms() < p->last_ms + quiet_limit(p))
		watch_quiet(p);
	else
		give_up(p, pump_half_closed(p) && p->o.half_closed_ms ? REASON_HALF_CLOSED : REASON_IDLE);
}

/* A direction has ended: from now on the limit for half-closed sessions counts. */
static void end_direction(struct pump *p, bool *which)
{
	*which = true;
	p->last_ms = clock_ms();
	watch_quiet(p);
}

static void moved(struct pump *p, uint64_t *count, enum stat_id stat, struct series *series, size_t n)
{
	if (n == 0)
		return;
	*count += n;
	p->last_ms = clock_ms();
	if (p->o.client_side)
		stat_add(stat, (int64_t)n);
	else if (p->o.target_side)
		stat_add(stat == STAT_BYTES_UP ? STAT_BYTES_DOWN : STAT_BYTES_UP, (int64_t)n);
	if (series)
		series_add(series, n);
}

/* Of so many pieces, as many as hold n bytes; the last one may become shorter. */
static int cut(struct iovec *iov, int pieces, size_t n)
{
	for (int i = 0; i < pieces; i++) {
		if (iov[i].iov_len >= n) {
			iov[i].iov_len = n;
			return i + 1;
		}
		n -= iov[i].iov_len;
	}
	return pieces;
}

static size_t room_for(struct pump *p, enum brake_way way)
{
	return p->brake ? brake_room(p->brake, way) : SIZE_MAX;
}

static void braked(struct pump *p, enum brake_way way, ssize_t n)
{
	if (p->brake && n > 0)
		brake_moved(p->brake, way, (size_t)n);
}

/* Reads until the conn or the session has no more for now (CONN_AGAIN), the end (0), or CONN_FAILED. */
static ssize_t read_some(struct pump *p, size_t *total)
{
	struct iovec iov[PIECES];

	while (p->c->readable && *total < TURN_MAX) {
		size_t room = room_for(p, BRAKE_IN);
		int pieces = room ? session_reserve(p->s, iov, PIECES) : 0;
		ssize_t n;

		p->stalled = pieces == 0;
		if (p->stalled)
			return CONN_AGAIN;
		n = conn_readv(p->c, iov, cut(iov, pieces, room));
		session_commit(p->s, n > 0 ? (size_t)n : 0);
		braked(p, BRAKE_IN, n);
		if (n <= 0)
			return n;
		*total += (size_t)n;
	}
	if (p->c->readable)
		loop_defer(&p->again);
	return CONN_AGAIN;
}

/* Both return false when the pump is gone. */
static bool move_in(struct pump *p)
{
	size_t total = 0;
	ssize_t last;

	if (p->in_ended || !p->c->readable)
		return true;
	last = read_some(p, &total);
	moved(p, &p->in, STAT_BYTES_UP, p->up, total);
	if (last == CONN_FAILED) {
		break_up(p);
		return false;
	}
	if (last == 0) {
		session_fin(p->s);
		end_direction(p, &p->in_ended);
	}
	return true;
}

static ssize_t write_some(struct pump *p, size_t *total)
{
	struct iovec iov[PIECES];

	while (p->c->writable) {
		int pieces = session_peek(p->s, iov, PIECES);
		size_t room = pieces ? room_for(p, BRAKE_OUT) : 0;
		ssize_t n;

		if (room == 0)
			break;
		n = conn_writev(p->c, iov, cut(iov, pieces, room));
		if (n < 0)
			return n;
		braked(p, BRAKE_OUT, n);
		session_consume(p->s, (size_t)n);
		*total += (size_t)n;
	}
	return CONN_AGAIN;
}

static bool move_out(struct pump *p)
{
	size_t total = 0;
	ssize_t last;

	if (p->out_ended)
		return true;
	last = write_some(p, &total);
	moved(p, &p->out, STAT_BYTES_DOWN, p->down, total);
	if (last != CONN_FAILED && session_ended(p->s)) {
		last = conn_shut(p->c);
		end_direction(p, &p->out_ended);
	}
	if (last != CONN_FAILED)
		return true;
	p->c->readable = true; /* what it sent before it broke, noticed or not */
	if (move_in(p))
		break_up(p);
	return false;
}

/* A RST can be seen by its error only, when the conn's end was read before (reading goes on answering "end") or when the session has
 * no room (nothing is read). A Unix socket that was closed also hangs up, but without an error. */
static bool reset_unread(const struct pump *p)
{
	return (p->in_ended || p->stalled) && p->c->hup && sock_error(conn_fd(p->c)) != 0;
}

/* Over TLS the last bytes may still be here when the session has none any more: the conn is not closed before the kernel has them. What keeps them from going
 * there for too long is a half-closed session like any other. */
static bool all_done(const struct pump *p)
{
	return p->in_ended && p->out_ended && conn_unsent(p->c) == 0 && p->c->error == 0;
}

static void settle(struct pump *p)
{
	if (all_done(p)) {
		session_release(p->s);
		finish(p, REASON_DONE);
	} else if (p->c->error || reset_unread(p)) {
		break_up(p);
	}
}

static void run(struct pump *p)
{
	if (p->homeless)
		give_up(p, REASON_RESOURCES);
	else if (p->c && move_in(p) && move_out(p))
		settle(p);
}

static void run_again(struct deferred *d)
{
	run(container_of(d, struct pump, again));
}

static void on_conn(struct conn *c)
{
	run(c->owner);
}

static void on_open(void *owner, const char *target)
{
	struct pump *p = owner;

	p->ev->on_open(p->owner, target);
}

/* At once: what came is in the link's memory only as long as this call lasts, later it would have been copied. */
static void on_readable(void *owner)
{
	struct pump *p = owner;

	if (p->c && !p->homeless && move_out(p))
		settle(p);
}

static void on_writable(void *owner)
{
	struct pump *p = owner;

	if (p->c && !p->homeless && move_in(p))
		settle(p);
}

static void on_end(void *owner, enum reason why, bool refused)
{
	struct pump *p = owner;

	if (refused && p->ev->on_refused && p->ev->on_refused(p->owner, why))
		return;
	BUG_ON(why == REASON_DONE);
	finish(p, why);
}

static void on_leave(void *owner)
{
	struct pump *p = owner;

	timer_stop(&p->quiet);
	loop_undefer(&p->again);
	if (p->c)
		conn_detach(p->c);
	if (p->brake)
		brake_leave(p->brake);
	if (p->ev->on_leave)
		p->ev->on_leave(p->owner);
}

static void on_arrive(void *owner)
{
	struct pump *p = owner;

	p->homeless = p->c && conn_attach(p->c) < 0;
	watch_quiet(p);
	loop_defer(&p->again);
	if (p->ev->on_arrive)
		p->ev->on_arrive(p->owner);
}

const struct session_events pump_session_events = {
	.on_open = on_open,
	.on_readable = on_readable,
	.on_writable = on_writable,
	.on_end = on_end,
	.on_leave = on_leave,
	.on_arrive = on_arrive,
};

void pump_count(struct pump *p, struct series *up, struct series *down)
{
	p->up = up;
	p->down = down;
}

static void on_loose(void *owner)
{
	struct pump *p = owner;

	if (p->s)
		loop_defer(&p->again);
}

bool pump_limit(struct pump *p, enum brake_way way, struct flow *shared, uint64_t rate)
{
	if (rate == 0)
		return true;
	if (!p->brake)
		p->brake = brake_new(on_loose, p);
	if (p->brake)
		brake_add(p->brake, way, shared, rate);
	return p->brake != NULL;
}

struct pump *pump_new(const struct pump_options *o, const struct pump_events *ev, void *owner)
{
	struct pump *p = mem_get(MEM_PUMP, sizeof(*p));

	if (!p)
		return NULL;
	p->o = *o;
	p->ev = ev;
	p->owner = owner;
	timer_init(&p->quiet, on_quiet);
	deferred_init(&p->again, run_again);
	return p;
}

void pump_start(struct pump *p, struct session *s, struct conn *c)
{
	BUG_ON(p->s || !s);
	p->s = s;
	p->last_ms = clock_ms();
	watch_quiet(p);
	if (c)
		pump_conn(p, c);
}

void pump_conn(struct pump *p, struct conn *c)
{
	BUG_ON(p->c || !p->s);
	p->c = c;
	c->on_event = on_conn;
	c->owner = p;
	loop_defer(&p->again);
}

void pump_abort(struct pump *p, enum reason why)
{
	BUG_ON(why == REASON_DONE);
	give_up(p, why);
}

void pump_abort_soon(struct pump *p)
{
	p->homeless = true;
	loop_defer(&p->again);
}

struct session *pump_session(struct pump *p)
{
	return p->s;
}

uint64_t pump_in(const struct pump *p)
{
	return p->in;
}

uint64_t pump_out(const struct pump *p)
{
	return p->out;
}

int pump_fd(const struct pump *p)
{
	return p->c ? conn_fd(p->c) : -1;
}

bool pump_half_closed(const struct pump *p)
{
	return p->in_ended || p->out_ended;
}

void pump_free(struct pump *p)
{
	BUG_ON(p->s || p->c);
	brake_free(p->brake);
	mem_put(MEM_PUMP, p);
}
