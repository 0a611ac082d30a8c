/* Origins, and the thread's pool of those that wait for a next request.
 * Owns the trip, and with it the session; a user borrows both. One that waits is given up after some seconds, when its session sleeps without a link, when bytes
 * come unasked, when its agent gets no new sessions, when the configuration is another one, or when somebody waits in the queue for its tunnel. One that is through ends in good order, and is in
 * a list of its own until the target has ended as well.
 * Knows nothing of HTTP: when an exchange is complete is the user's word. */
#include "mctunnel/edge/origin.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/trip.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/rules.h"
#include "mctunnel/tunnel/session.h"

#include <string.h>

#define POOL_MAX 256       /* of a thread */
#define AGE_MS 30000       /* then a new one: agents come back, targets change */
#define POOL_MS 4000       /* less than what servers allow an idle connection: 5 s with some */
#define CLOSING_MS 2000    /* for the target to end as well */
#define PIECES 16

struct origin {
	struct list node;               /* in here.idle, here.closing, or in none */
	struct trip *trip;              /* owned */
	struct session *s;              /* NULL: none yet, or over */
	const struct origin_events *ev; /* borrowed; NULL: nobody has it */
	void *user;                     /* borrowed */
	struct origin **kept;           /* where its last user notes it; NULL: nowhere */
	uint64_t born_ms, changes;      /* when its session began; here.changes when its agent was still welcome */
	struct addr client, local;
	const char *sni;                /* borrowed from the user, who has it as long as the trip may describe the client */
	struct timer patience;          /* idle, closing */
	struct series *up, *down, *requests;
	unsigned requests_status;       /* of requests */
	const char *tunnel, *service;   /* borrowed from the trip, once there is a session */
	bool safe;                      /* what it is wanted for: another one may serve it */
	bool open, fin, personal, closing;
};

static struct plea { /* to a thread: to give up what is idle */
	struct msg msg;
	atomic_bool under_way;
	char tunnel[64];
} pleas[THREAD_MAX];

static _Thread_local struct {
	struct list idle, closing;
	size_t idle_n;
	uint64_t changes;     /* of the registry */
	bool running, stopping;
} here;

/* The end. */

static void unlist(struct origin *o)
{
	if (!list_empty(&o->node) && !o->closing)
		here.idle_n--;
	list_del(&o->node);
	timer_stop(&o->patience);
	if (o->kept)
		*o->kept = NULL;
	o->kept = NULL;
}

/* The session has been let go, or ends by itself. */
static void origin_free(struct origin *o, enum reason why)
{
	uint64_t up = o->s ? session_sent(o->s) : 0, down = o->s ? session_got(o->s) : 0;

	unlist(o);
	trip_free(o->trip, why, up, down);
	mem_put(MEM_OTHER, o);
}

void origin_drop(struct origin *o, enum reason why)
{
	struct session *s = trip_session(o->trip);

	unlist(o);
	o->ev = NULL;
	trip_free(o->trip, why, s ? session_sent(s) : 0, s ? session_got(s) : 0);
	if (s)
		session_abort(s, why);
	mem_put(MEM_OTHER, o);
}

static void discard(struct session *s)
{
	struct iovec iov[PIECES];
	int n;

	while ((n = session_peek(s, iov, PIECES)) > 0) {
		size_t bytes = 0;

		for (int i = 0; i < n; i++)
			bytes += iov[i].iov_len;
		session_consume(s, bytes);
	}
}

/* What comes now is nobody's. true: it is gone. */
static bool closed(struct origin *o)
{
	struct session *s = o->s;

	discard(s);
	if (!session_ended(s))
		return false;
	origin_free(o, REASON_DONE);
	session_release(s);
	return true;
}

void origin_close(struct origin *o)
{
	unlist(o);
	o->ev = NULL;
	if (!o->fin)
		session_fin(o->s);
	o->fin = true;
	if (closed(o))
		return;
	o->closing = true;
	list_add(&here.closing, &o->node);
	timer_start(&o->patience, CLOSING_MS);
}

static void on_patience(struct timer *t)
{
	struct origin *o = container_of(t, struct origin, patience);

	if (o->closing)
		origin_drop(o, REASON_HALF_CLOSED);
	else
		origin_close(o);
}

/* Room for others. */

static void close_idle_of(const char *tunnel)
{
	list_for_each_safe(n, &here.idle) {
		struct origin *o = container_of(n, struct origin, node);

		if (strcmp(o->tunnel, tunnel) == 0)
			origin_close(o);
	}
}

static void run_plea(struct msg *m)
{
	struct plea *p = (struct plea *)m;

	if (here.running)
		close_idle_of(p->tunnel);
	atomic_store(&p->under_way, false);
}

/* Somebody waits for this tunnel: those that are idle, on all threads, have a place there. A plea that is under way serves for this one as well, mostly. */
static void make_room(const struct origin *waiting)
{
	struct trip_view v;

	trip_view(waiting->trip, &v);
	if (!v.tunnel)
		return;
	close_idle_of(v.tunnel);
	for (int i = 0; i < thread_count(); i++) {
		struct plea *p = &pleas[i];

		if (i == thread_self() || atomic_exchange(&p->under_way, true))
			continue;
		str_copy(p->tunnel, sizeof(p->tunnel), v.tunnel);
		p->msg.run = run_plea;
		thread_post(i, &p->msg);
	}
}

/* Its session. */

/* An agent of another route may have it now. */
static void note_way(struct origin *o)
{
	const char *listener = trip_place(o->trip)->l->name;
	struct trip_view v;

	trip_view(o->trip, &v);
	o->tunnel = v.tunnel;
	o->service = v.service;
	o->personal = trip_personal(o->trip);
	o->up = series_of(BYTES, listener, v.tunnel, v.service, "up");
	o->down = series_of(BYTES, listener, v.tunnel, v.service, "down");
}

static void on_open(void *owner, const char *target)
{
	struct origin *o = owner;

	o->open = true;
	trip_established(o->trip, target);
	note_way(o);
	if (o->ev)
		o->ev->on_open(o->user);
}

static void on_readable(void *owner)
{
	struct origin *o = owner;

	if (o->ev)
		o->ev->on_readable(o->user);
	else if (o->closing)
		(void)closed(o);
	else
		origin_close(o); /* nobody has asked: the target ends it, or errs */
}

static void on_writable(void *owner)
{
	struct origin *o = owner;

	if (o->ev)
		o->ev->on_writable(o->user);
}

static void lost(struct origin *o, enum reason why)
{
	const struct origin_events *ev = o->ev;

	o->ev = NULL;
	if (ev)
		ev->on_lost(o->user, why);
	origin_free(o, why);
}

static void on_end(void *owner, enum reason why, bool refused)
{
	struct origin *o = owner;

	if (refused && why == REASON_AGENT_FULL)
		make_room(o);
	if (refused && o->ev && trip_refused(o->trip, why))
		return;
	lost(o, why);
}

static void on_leave(void *owner)
{
	struct origin *o = owner;

	if (!o->ev) {
		origin_drop(o, REASON_IDLE); /* it is not worth the journey */
		return;
	}
	trip_leave(o->trip);
	o->ev->on_leave(o->user);
}

static void on_arrive(void *owner)
{
	struct origin *o = owner;

	o->ev->on_arrive(o->user);
}

static const struct session_events session_events = {
	.on_open = on_open, .on_readable = on_readable, .on_writable = on_writable, .on_end = on_end, .on_leave = on_leave, .on_arrive = on_arrive
};

/* Its trip. */

static void describe(void *owner, struct session_about *about)
{
	static _Thread_local char client[ADDR_TEXT], local[ADDR_TEXT];
	struct origin *o = owner;

	about->sni = o->sni;
	about->client = addr_text(&o->client, client, sizeof(client));
	about->local = addr_text(&o->local, local, sizeof(local));
}

static bool serves(const struct origin *o, const char *tunnel, const char *service)
{
	return strcmp(o->tunnel, tunnel) == 0 && strcmp(o->service, service) == 0;
}

static void on_wait(void *owner)
{
	make_room(owner);
}

static void on_trip_leave(void *owner)
{
	struct origin *o = owner;

	o->ev->on_leave(o->user);
}

static struct origin *find_for(struct origin *o);

/* On the thread of its link there may be one that waits. */
static void on_trip_arrive(void *owner)
{
	struct origin *o = owner, *instead;
	const struct origin_events *ev = o->ev;

	ev->on_arrive(o->user);
	instead = o->safe ? find_for(o) : NULL;
	if (!instead)
		return;
	unlist(instead);
	instead->ev = ev;
	instead->user = o->user;
	o->ev = NULL;
	trip_free(o->trip, REASON_DONE, 0, 0);
	mem_put(MEM_OTHER, o);
	ev->on_instead(instead->user, instead);
}

static void on_session(void *owner, struct session *s)
{
	struct origin *o = owner;

	o->s = s;
	o->sni = NULL;
	o->born_ms = clock_ms();
	o->changes = here.changes;
	note_way(o);
	o->ev->on_ready(o->user);
}

static void on_failed(void *owner, enum reason why)
{
	struct origin *o = owner;
	const struct origin_events *ev = o->ev;

	o->ev = NULL;
	ev->on_lost(o->user, why);
	origin_drop(o, why);
}

static const struct trip_events trip_events = {
	.describe = describe, .on_wait = on_wait, .on_leave = on_trip_leave, .on_arrive = on_trip_arrive, .on_session = on_session, .on_failed = on_failed
};

/* DONE: at least one is there. */
static enum reason take_routes(struct origin *o, const struct origin_want *w)
{
	if (w->routes)
		return trip_routes(o->trip, w->routes, w->routes_n);
	return trip_place(o->trip)->l->route_n > 0 ? REASON_DONE : REASON_NO_ROUTE;
}

struct origin *origin_new(const struct origin_want *w, const struct origin_events *ev, void *user, enum reason *why)
{
	struct origin *o = mem_get(MEM_OTHER, sizeof(*o));
	struct trip_options t = { .gen = w->gen, .place = w->place, .since_ms = w->since_ms, .session_events = &session_events, .patient = true };

	*why = REASON_RESOURCES;
	if (!o)
		return NULL;
	list_init(&o->node);
	timer_init(&o->patience, on_patience);
	o->ev = ev;
	o->user = user;
	o->client = *w->client;
	o->local = *w->local;
	o->safe = w->safe;
	o->sni = w->sni;
	t.client = &o->client;
	o->trip = trip_new(&t, &trip_events, o, o);
	if (o->trip)
		*why = take_routes(o, w);
	if (*why == REASON_DONE)
		return o;
	if (o->trip)
		trip_free(o->trip, *why, 0, 0);
	mem_put(MEM_OTHER, o);
	return NULL;
}

void origin_start(struct origin *o)
{
	trip_start(o->trip);
}

/* The pool. */

static bool usable(const struct origin *o, const struct origin_want *w)
{
	bool own = w->kept && o->kept == w->kept;

	return (own || (w->safe && !o->personal)) && trip_place(o->trip) == w->place && !session_parked(o->s);
}

static struct origin *find(const struct origin_want *w, const char *tunnel, const char *service)
{
	if (w->kept && *w->kept && serves(*w->kept, tunnel, service) && usable(*w->kept, w))
		return *w->kept;
	for (struct list *n = here.idle.prev; n != &here.idle; n = n->prev) {
		struct origin *o = container_of(n, struct origin, node);

		if (usable(o, w) && serves(o, tunnel, service))
			return o;
	}
	return NULL;
}

static struct origin *find_for(struct origin *o)
{
	struct origin_want w = { .place = trip_place(o->trip), .safe = true };
	struct trip_view v;

	trip_view(o->trip, &v);
	return find(&w, v.tunnel, v.service);
}

/* The first route counts, as long as somebody serves it: a request comes back from a fallback as soon as it can. */
static struct origin *choose(const struct origin_want *w)
{
	size_t n = w->routes ? w->routes_n : w->place->l->route_n;

	for (size_t i = 0; i < n; i++) {
		const char *tunnel = w->routes ? w->routes[i].tunnel : w->place->l->route[i].tunnel;
		const char *service = w->routes ? w->routes[i].service : w->place->l->route[i].service;
		struct origin *o = find(w, tunnel, service);

		if (o || i + 1 == n || registry_offer(tunnel, service) == OFFER_UP)
			return o;
	}
	return NULL;
}

struct origin *origin_take(const struct origin_want *w, const struct origin_events *ev, void *user)
{
	struct origin *o = list_empty(&here.idle) ? NULL : choose(w);

	if (!o)
		return NULL;
	unlist(o);
	o->ev = ev;
	o->user = user;
	return o;
}

/* Would a new one go the same way? Asked again after changes only. */
static bool welcome(struct origin *o)
{
	if (o->changes != here.changes && !trip_welcome(o->trip))
		return false;
	o->changes = here.changes;
	return true;
}

static void on_change(void)
{
	here.changes++;
	list_for_each_safe(n, &here.idle) {
		struct origin *o = container_of(n, struct origin, node);

		if (!welcome(o))
			origin_close(o);
	}
}

void origin_keep(struct origin *o, struct origin **kept, bool personal)
{
	o->personal |= personal;
	if (here.stopping || session_ended(o->s) || clock_ms() - o->born_ms > AGE_MS || !welcome(o)) {
		origin_close(o);
		return;
	}
	if (here.idle_n >= POOL_MAX)
		origin_close(list_first(&here.idle, struct origin, node));
	origin_forget(kept);
	o->ev = NULL;
	o->kept = kept;
	*kept = o;
	list_add(&here.idle, &o->node);
	here.idle_n++;
	timer_start(&o->patience, POOL_MS);
}

void origin_forget(struct origin **kept)
{
	struct origin *o = *kept;

	if (!o)
		return;
	*kept = NULL;
	o->kept = NULL;
	if (o->personal)
		origin_close(o);
}

/* For its user. */

struct session *origin_session(struct origin *o)
{
	return o->s;
}

struct site *origin_site(const struct origin *o)
{
	return trip_site(o->trip);
}

bool origin_open(const struct origin *o)
{
	return o->open;
}

bool origin_waiting(const struct origin *o)
{
	return trip_waiting(o->trip);
}

void origin_view(const struct origin *o, struct trip_view *out)
{
	trip_view(o->trip, out);
}

void origin_ended(struct origin *o)
{
	o->fin = true;
}

struct series *origin_up(const struct origin *o)
{
	return o->up;
}

struct series *origin_down(const struct origin *o)
{
	return o->down;
}

struct series *origin_requests(struct origin *o, unsigned status)
{
	char code[12];
	struct strbuf b;

	if (o->requests && o->requests_status == status)
		return o->requests;
	strbuf_init(&b, code, sizeof(code));
	strbuf_add(&b, "%u", status);
	o->requests_status = status;
	return o->requests = series_of(HTTP_REQUESTS, trip_place(o->trip)->l->name, o->tunnel, o->service, code);
}

/* Threads. */

void origin_init(void)
{
	list_init(&here.idle);
	list_init(&here.closing);
	here.idle_n = 0;
	here.running = true;
	here.stopping = false;
	registry_on_change(on_change);
}

void origin_renew(const struct generation *g)
{
	list_for_each_safe(n, &here.idle) {
		struct origin *o = container_of(n, struct origin, node);

		if (trip_generation(o->trip) != g)
			origin_close(o);
	}
}

void origin_close_idle(void)
{
	here.stopping = true;
	while (!list_empty(&here.idle))
		origin_close(list_first(&here.idle, struct origin, node));
}

void origin_fini(void)
{
	if (!here.running)
		return;
	here.stopping = true;
	while (!list_empty(&here.idle))
		origin_drop(list_first(&here.idle, struct origin, node), REASON_STOPPED);
	while (!list_empty(&here.closing))
		origin_drop(list_first(&here.closing, struct origin, node), REASON_STOPPED);
	here.running = false;
}
