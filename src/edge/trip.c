/* Trips of clients and requests to agents. Owns the queue of those for whom there is no agent, link or room just now, and the counts of sessions of agents and tunnels.
 * A trip belongs to one thread at a time; it goes to the thread of its link before its session is opened, and with a session that is kept to the thread of
 * the next link. Between two threads only a message holds it.
 * Does not know what is carried (pump, web) nor how agents come and go (registry). */
#include "mctunnel/edge/trip.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/room.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/rules.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>

#define FULL_MS 50     /* between two looks at links that were full: a stream is free somewhat later than its session has ended */
#define AVOID_MAX 4    /* agents that refused one client */
#define RETRIES_MAX 8  /* in all, for one client */
#define HOPS_MAX 8     /* links that were gone when the client came */
#define NAME_SIZE 64

struct own_way {
	struct way way;
	char text[2 * NAME_SIZE];
};

struct trip {
	struct msg msg;   /* on its way to another thread */
	struct list node; /* in here.waiting, or in none */
	const struct trip_events *ev; /* borrowed */
	void *owner, *session_owner;  /* borrowed */
	const struct session_events *session_events; /* borrowed */
	const struct addr *client;    /* borrowed */
	struct generation *gen; /* shared */
	struct place *place;
	struct own_way *own;   /* owned: instead of the listener's ways; NULL: those */
	unsigned own_n;
	bool own_only;         /* the listener's do not count, even if there are no own ones */
	unsigned way;          /* the one chosen */
	struct timer patience;
	uint64_t since_ms, opened_ms, established_ms; /* 0: not yet */
	enum reason lacks;     /* what it waits for, as the reason of its end */
	unsigned hops, retries;
	struct advert *advert; /* shared: the agent it was placed on, or NULL */
	bool counted;          /* among the sessions of advert and site */
	bool started, patient;
	uint64_t link;
	int thread;            /* of that link */
	bool departing, over;  /* a message to ourselves holds it; it was freed meanwhile */
	struct session *session; /* borrowed; NULL: none yet */
	uint8_t avoid[AVOID_MAX][16];
	size_t avoid_n;
	char *target; /* owned */
	char id[33];
};

static _Thread_local struct {
	struct list waiting;
	struct timer full;
	bool running, stopping;
} here;

/* Ways. */

static unsigned ways_n(const struct trip *t)
{
	return t->own_only ? t->own_n : (unsigned)t->place->l->route_n;
}

static const struct way *way_at(const struct trip *t, unsigned i)
{
	return t->own_only ? &t->own[i].way : &t->place->ways[i];
}

static const struct way *way_of(const struct trip *t)
{
	static const struct way none = { NULL, NULL, NULL };

	return t->way < ways_n(t) ? way_at(t, t->way) : &none;
}

static const char *tunnel_of(const struct way *w)
{
	return w->site ? w->site->t->name : NULL;
}

static void clear_routes(struct trip *t)
{
	free(t->own);
	t->own = NULL;
	t->own_n = 0;
	t->own_only = true;
	t->way = 0;
}

static bool allows(const struct conf_tunnel *t, const char *service)
{
	for (size_t i = 0; i < t->services.n; i++) {
		if (str_glob(t->services.v[i], service))
			return true;
	}
	return false;
}

/* Where this leads; NULL: there is no such tunnel, or it does not allow the service. */
static struct site *site_of(const struct trip *t, const char *tunnel, const char *service)
{
	struct site *s = generation_site(t->gen, tunnel);

	return s && allows(s->t, service) ? s : NULL;
}

/* What own ways point to, where their array now lies. */
static void settle_own(struct trip *t)
{
	for (unsigned i = 0; i < t->own_n; i++) {
		t->own[i].way.text = t->own[i].text;
		t->own[i].way.service = strchr(t->own[i].text, '/') + 1;
	}
}

static enum reason add_route(struct trip *t, const struct rules_route *r)
{
	struct site *site = site_of(t, r->tunnel, r->service);
	struct own_way *ways;
	char text[sizeof(ways->text)];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	strbuf_add(&b, "%s/%s", r->tunnel, r->service);
	if (!site || t->own_n == TRIP_ROUTES || b.cut)
		return REASON_NO_ROUTE;
	ways = realloc(t->own, (t->own_n + 1) * sizeof(*ways));
	if (!ways)
		return REASON_RESOURCES;
	t->own = ways;
	ways[t->own_n].way.site = site;
	memcpy(ways[t->own_n++].text, text, sizeof(text));
	settle_own(t); /* they may have moved */
	return REASON_DONE;
}

enum reason trip_routes(struct trip *t, const struct rules_route *routes, size_t n)
{
	clear_routes(t);
	for (size_t i = 0; i < n; i++) {
		if (add_route(t, &routes[i]) == REASON_RESOURCES)
			return REASON_RESOURCES;
	}
	return t->own_n > 0 ? REASON_DONE : REASON_NO_ROUTE;
}

/* Counts. */

static void discount(struct trip *t)
{
	if (!t->counted)
		return;
	t->counted = false;
	atomic_fetch_sub(t->advert->sessions, 1);
	atomic_fetch_sub(&way_of(t)->site->score->sessions, 1);
	room_made();
}

static void assign(struct trip *t, unsigned way, struct pick *pick)
{
	advert_put(t->advert);
	t->way = way;
	t->advert = pick->advert;
	t->link = pick->link;
	t->counted = true;
	atomic_fetch_add(&way_of(t)->site->score->tally.total, 1);
	atomic_fetch_add(t->advert->sessions, 1);
}

static bool choose(struct trip *t, unsigned *way, struct pick *pick)
{
	t->lacks = REASON_NO_AGENT;
	for (unsigned i = 0; i < ways_n(t); i++) {
		const struct way *w = way_at(t, i);
		enum pick_result r = registry_pick(w->site->t, w->service, t->client, (const uint8_t(*)[16])t->avoid, t->avoid_n, pick);

		*way = i;
		if (r == PICK_FULL)
			t->lacks = REASON_AGENT_FULL;
		if (r != PICK_OK)
			continue;
		if (count_take(&w->site->score->sessions, w->site->t->maxconn))
			return true;
		t->lacks = REASON_LIMIT;
		advert_put(pick->advert);
	}
	return false;
}

/* Another agent takes the session with all the client's bytes. */

static void trip_depart(struct msg *m);

static void depart(struct trip *t, int thread)
{
	session_keep(t->session);
	t->thread = thread;
	t->departing = true;
	t->msg.run = trip_depart;
	thread_post(thread_self(), &t->msg); /* not from within the session's own call */
}

/* true: it lives on, here or soon on the thread of the agent's link. */
static bool reopen(struct trip *t)
{
	for (; t->hops < HOPS_MAX; t->hops++) {
		struct pick pick;
		unsigned way;
		struct link *l;

		if (!choose(t, &way, &pick))
			return false;
		assign(t, way, &pick);
		if (pick.thread != thread_self()) {
			depart(t, pick.thread);
			return true;
		}
		l = registry_link(pick.link);
		if (l && link_can_open(l)) {
			session_keep(t->session);
			if (session_reopen(t->session, l) == 0)
				return true;
		}
		discount(t);
	}
	return false;
}

/* Links come back soon, or the queue's time is over: it is asked again as long as a client without a session would wait. */
static void look_for_links(struct trip *t)
{
	timer_start(&t->patience, FULL_MS);
}

static void reopen_again(struct trip *t)
{
	t->hops = 0;
	if (clock_ms() - t->opened_ms >= t->place->l->timeouts.queue)
		t->ev->on_failed(t->owner, t->lacks);
	else if (!reopen(t))
		look_for_links(t);
}

/* The session has come to the thread of the link it shall be opened on anew. */
static void trip_return(struct msg *m)
{
	struct trip *t = (struct trip *)m;
	struct link *l = registry_link(t->link);

	session_arrive(t->session);
	if (l && !here.stopping && session_reopen(t->session, l) == 0)
		return;
	discount(t);
	t->hops++;
	if (here.stopping)
		t->ev->on_failed(t->owner, REASON_STOPPED);
	else if (!reopen(t))
		look_for_links(t);
}

static void trip_release(struct trip *t)
{
	free(t->own);
	free(t->target);
	advert_put(t->advert);
	generation_put(t->gen);
	mem_put(MEM_OTHER, t);
}

static void trip_depart(struct msg *m)
{
	struct trip *t = (struct trip *)m;

	t->departing = false;
	if (t->over) {
		trip_release(t);
		return;
	}
	t->msg.run = trip_return;
	session_leave(t->session);
	thread_post(t->thread, &t->msg);
}

/* LOST: the request went down with its link, DRAINING: it came too late for that link. Neither speaks against the agent. */
static bool blame(struct trip *t, enum reason why)
{
	if (why == REASON_LOST || why == REASON_DRAINING)
		return true;
	if (t->avoid_n == AVOID_MAX)
		return false;
	memcpy(t->avoid[t->avoid_n++], t->advert->instance, 16);
	return true;
}

bool trip_refused(struct trip *t, enum reason why)
{
	bool full = t->patient && why == REASON_AGENT_FULL;

	if (here.stopping || (!full && t->retries++ == RETRIES_MAX) || !blame(t, why))
		return false;
	discount(t);
	if (reopen(t))
		return true;
	if (full) {
		t->avoid_n = 0;
		t->lacks = why;
	}
	if (t->avoid_n == 0) { /* nobody said no */
		session_keep(t->session);
		look_for_links(t);
		return true;
	}
	session_abort(t->session, why); /* kept perhaps, and nobody will have it */
	return false;
}

void trip_leave(struct trip *t)
{
	timer_stop(&t->patience);
}

/* The session. */

static void trip_place_it(struct trip *t);

static void observe(const struct trip *t, struct series *histogram, uint64_t until_ms)
{
	series_observe_us(histogram, (until_ms - t->since_ms) * 1000);
}

static bool join(struct trip *t, struct link *l)
{
	const struct conf_timeouts *limits = &t->place->l->timeouts;
	struct session_about about = { .service = way_of(t)->service, .listener = t->place->l->name };

	t->ev->describe(t->owner, &about);
	t->session = session_open(l, &about, limits->connect, limits->resume, t->session_events, t->session_owner);
	return t->session != NULL;
}

/* On the thread of its link. */
static void trip_open(struct trip *t)
{
	struct link *l = registry_link(t->link);

	if (!l || !link_can_open(l)) {
		discount(t);
		t->hops++;
		t->lacks = l ? REASON_AGENT_FULL : REASON_NO_AGENT;
		trip_place_it(t);
	} else if (join(t, l)) {
		t->opened_ms = clock_ms();
		str_copy(t->id, sizeof(t->id), session_id(t->session));
		observe(t, series_alone(QUEUE), t->opened_ms);
		stat_add(STAT_SESSIONS, 1);
		stat_add(STAT_SESSIONS_OPENED, 1);
		t->ev->on_session(t->owner, t->session);
	} else {
		t->ev->on_failed(t->owner, REASON_RESOURCES);
	}
}

static void trip_come(struct msg *m)
{
	struct trip *t = (struct trip *)m;

	t->departing = true; /* the owner may have found something better here */
	t->ev->on_arrive(t->owner);
	t->departing = false;
	if (t->over)
		trip_release(t);
	else
		trip_open(t);
}

/* The queue. */

static void stop_waiting(struct trip *t)
{
	if (list_empty(&t->node))
		return;
	list_del(&t->node);
	timer_stop(&t->patience);
	stat_add(STAT_QUEUE, -1);
}

static bool try_it(struct trip *t)
{
	struct pick pick;
	unsigned way;

	if (!choose(t, &way, &pick))
		return false;
	stop_waiting(t);
	assign(t, way, &pick);
	if (pick.thread == thread_self()) {
		trip_open(t);
	} else {
		t->ev->on_leave(t->owner);
		t->msg.run = trip_come;
		thread_post(pick.thread, &t->msg);
	}
	return true;
}

static void on_patience(struct timer *timer)
{
	struct trip *t = container_of(timer, struct trip, patience);

	if (t->session) {
		reopen_again(t);
		return;
	}
	stop_waiting(t);
	t->ev->on_failed(t->owner, t->lacks);
}

static bool somebody_lacks(enum reason what)
{
	list_for_each(n, &here.waiting) {
		if (container_of(n, struct trip, node)->lacks == what)
			return true;
	}
	return false;
}

/* Nobody tells when a link is not full any more. */
static void watch_full_links(void)
{
	if (!timer_running(&here.full) && somebody_lacks(REASON_AGENT_FULL))
		timer_start(&here.full, FULL_MS);
}

static void wait_for_it(struct trip *t)
{
	uint64_t due = t->since_ms + t->place->l->timeouts.queue, now = clock_ms();

	if (here.stopping || !here.running) {
		t->ev->on_failed(t->owner, REASON_STOPPED);
		return;
	}
	list_add(&here.waiting, &t->node);
	timer_start(&t->patience, due > now ? due - now : 0);
	stat_add(STAT_QUEUE, 1);
	watch_full_links();
	t->ev->on_wait(t->owner);
}

static void trip_place_it(struct trip *t)
{
	bool placed = t->hops < HOPS_MAX && !here.stopping && try_it(t);

	if (!placed && t->lacks != REASON_NO_AGENT) {
		room_ask();
		placed = t->hops < HOPS_MAX && try_it(t);
	}
	if (!placed)
		wait_for_it(t);
}

/* The next of a batch, which waits on: so each is looked at once, also those that come back to the list's end. */
static struct trip *next_of(struct list *batch)
{
	struct trip *t = list_first(batch, struct trip, node);

	list_del(&t->node);
	list_add(&here.waiting, &t->node);
	return t;
}

static void retry(bool only_full)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &here.waiting);
	while (!list_empty(&batch)) {
		struct trip *t = next_of(&batch);

		t->hops = 0;
		if (!only_full || t->lacks != REASON_NO_AGENT)
			try_it(t);
	}
	watch_full_links();
}

static void on_full(struct timer *timer)
{
	retry(true);
}

static void on_change(void)
{
	retry(false);
}

static void on_room(void)
{
	if (!somebody_lacks(REASON_LIMIT) && !somebody_lacks(REASON_AGENT_FULL))
		return;
	room_ask();
	retry(true);
}

/* Begin and end. */

struct trip *trip_new(const struct trip_options *o, const struct trip_events *ev, void *owner, void *session_owner)
{
	struct trip *t = mem_get(MEM_OTHER, sizeof(*t));

	if (!t)
		return NULL;
	list_init(&t->node);
	timer_init(&t->patience, on_patience);
	t->ev = ev;
	t->owner = owner;
	t->session_owner = session_owner;
	t->session_events = o->session_events;
	t->client = o->client;
	t->gen = generation_get(o->gen);
	t->place = o->place;
	t->since_ms = o->since_ms;
	t->patient = o->patient;
	t->lacks = REASON_NO_AGENT;
	return t;
}

void trip_start(struct trip *t)
{
	t->started = true;
	trip_place_it(t);
}

void trip_established(struct trip *t, const char *target)
{
	t->established_ms = clock_ms();
	observe(t, series_alone(ESTABLISHMENT), t->established_ms);
	free(t->target);
	t->target = target ? strdup(target) : NULL; /* for the log only */
}

static void tally(const struct trip *t, enum reason why, uint64_t up, uint64_t down)
{
	struct tally *sums = &way_of(t)->site->score->tally;

	if (why != REASON_DONE)
		atomic_fetch_add(&sums->failed, 1);
	atomic_fetch_add(&sums->up, up);
	atomic_fetch_add(&sums->down, down);
}

void trip_free(struct trip *t, enum reason why, uint64_t up, uint64_t down)
{
	if (t->counted)
		tally(t, why, up, down);
	stop_waiting(t);
	timer_stop(&t->patience);
	if (t->opened_ms)
		stat_add(STAT_SESSIONS, -1);
	else if (t->started)
		observe(t, series_alone(QUEUE), clock_ms());
	discount(t);
	t->over = t->departing; /* the message frees it */
	if (!t->over)
		trip_release(t);
}

/* For others to see. */

bool trip_started(const struct trip *t)
{
	return t->started;
}

bool trip_welcome(const struct trip *t)
{
	return t->advert && registry_serves(t->advert, way_of(t)->service);
}

bool trip_personal(const struct trip *t)
{
	const struct advert *a = t->advert;

	for (size_t i = 0; a && i < a->services_n; i++) {
		if (strcmp(a->services[i].name, way_of(t)->service) == 0)
			return a->services[i].proxy;
	}
	return true;
}

bool trip_waiting(const struct trip *t)
{
	return !list_empty(&t->node);
}

struct session *trip_session(const struct trip *t)
{
	return t->session;
}

struct generation *trip_generation(const struct trip *t)
{
	return t->gen;
}

struct place *trip_place(const struct trip *t)
{
	return t->place;
}

struct site *trip_site(const struct trip *t)
{
	return t->advert ? way_of(t)->site : NULL;
}

static int64_t span(uint64_t from, uint64_t to)
{
	return from && to ? (int64_t)(to - from) : -1;
}

void trip_view(const struct trip *t, struct trip_view *out)
{
	const struct way *w = way_of(t);

	*out = (struct trip_view){ .route = w->text,
				   .tunnel = tunnel_of(w),
				   .service = w->service,
				   .agent = t->advert ? t->advert->name : NULL,
				   .target = t->target,
				   .id = t->id,
				   .link = t->link,
				   .opened_ms = t->opened_ms,
				   .established_ms = t->established_ms,
				   .queue_ms = span(t->since_ms, t->opened_ms ? t->opened_ms : clock_ms()),
				   .connect_ms = span(t->opened_ms, t->established_ms),
				   .phase = !t->opened_ms ? 'Q' : !t->established_ms ? 'C' : 'D' };
}

/* Threads. */

void trip_init(void)
{
	here.running = true;
	here.stopping = false;
	list_init(&here.waiting);
	timer_init(&here.full, on_full);
	registry_on_change(on_change);
	room_on(on_room);
}

void trip_stop(void)
{
	here.stopping = true;
	if (!here.running)
		return;
	timer_stop(&here.full);
	while (!list_empty(&here.waiting)) {
		struct trip *t = list_first(&here.waiting, struct trip, node);

		stop_waiting(t);
		t->ev->on_failed(t->owner, REASON_STOPPED);
	}
}

void trip_fini(void)
{
	trip_stop();
	here.running = false;
}

/* The owner's routes, as far as the new configuration has such tunnels. */
static void keep_routes(struct trip *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->own_n; i++) {
		struct own_way *w = &t->own[i];
		char tunnel[sizeof(w->text)];

		str_copy(tunnel, sizeof(tunnel), w->text);
		*strchr(tunnel, '/') = '\0';
		w->way.site = site_of(t, tunnel, w->way.service);
		if (w->way.site)
			t->own[n++] = *w;
	}
	t->own_n = n;
	settle_own(t);
}

/* It has no session yet: what is new is for it as well. */
static void renew(struct trip *t, struct generation *g)
{
	struct place *p = generation_place(g, t->place->l->name);
	struct generation *old = t->gen;

	/* a listener that was gone in between has a score of its own */
	if (!p || p->score != t->place->score)
		return;
	t->gen = generation_get(g);
	t->place = p;
	t->way = 0;
	if (t->ev->on_reload)
		t->ev->on_reload(t->owner); /* may free it */
	else if (t->own_only)
		keep_routes(t);
	generation_put(old);
}

void trip_reload(struct generation *g)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &here.waiting);
	while (!list_empty(&batch))
		renew(next_of(&batch), g);
	room_ask();
	retry(false);
}
