/* The hub's listeners and their clients, from accept to the line in the log.
 * Owns every client until its pump takes the socket, and the counts of sessions against the limits: of the process, of
 * a listener, of a tunnel. A client is never refused for a limit: accepting pauses, or the client waits in the queue.
 * A client whose link lives on another thread goes there before its first byte is read.
 * Does not know how bytes are carried (pump, session) nor how agents come and go (registry). */
#include "mctunnel/edge/frontend.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/pace.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/pump.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/reserve.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/session.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCEPTS 64       /* a turn and listener */
#define BREATHER_MS 100  /* without accepting, when descriptors or memory are used up */
#define FULL_MS 50       /* between two looks at links that were full: a stream is free somewhat later than its session has ended */
#define COMPLAIN_MS 60000
#define AVOID_MAX 4      /* agents that refused one client */
#define RETRIES_MAX 8    /* in all, for one client */
#define HOPS_MAX 8       /* links that were gone when the client came */

struct tally { /* what has been */
	atomic_uint_fast64_t total, failed, up, down;
};

struct score { /* of a listener or a tunnel, by its name: goes from one generation to the next */
	atomic_uint refs, sessions;
	struct pace pace; /* of a listener: accepting */
	struct tally tally;
	atomic_bool disabled;
};

struct site { /* a tunnel as the clients see it */
	const struct conf_tunnel *t;
	struct score *score; /* shared */
};

struct place { /* a listener, all its sockets on all threads */
	const struct conf_listener *l;
	struct site **sites; /* owned: one for each route */
	struct score *score; /* shared */
};

struct generation { /* what a configuration means here; a client stays with the one it began with */
	atomic_uint refs;
	struct conf *conf;    /* shared */
	struct site *sites;   /* owned */
	struct place *places; /* owned */
};

struct knock { /* tells a thread that a session has ended somewhere */
	struct msg msg;
	atomic_bool posted;
};

/* Of the process. */
static struct {
	pthread_mutex_t lock; /* for users, and what the first and the last one do */
	unsigned users;
	struct generation *newest; /* shared; threads follow by frontend_reload() */
	atomic_uint sessions;
	atomic_uint maxconn; /* instead of the configuration's; 0: none */
	struct pace pace;    /* accepting at all listeners */
	atomic_uint_fast64_t want_room; /* a bit for each thread that is to be knocked at */
	atomic_uint_fast64_t complain_ms;
	struct knock knocks[THREAD_MAX];
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct door { /* this thread's watch of one listening socket */
	struct list node;
	struct watch watch;
	struct place *place;
	int fd; /* borrowed */
	bool paused;
	struct timer pacing; /* while it is paused for a rate_limit */
};

static _Thread_local struct {
	struct generation *gen; /* shared; NULL before frontend_init */
	struct list doors, waiting;
	struct list clients; /* all that are here and not on their way, by serial */
	uint64_t serial;
	struct timer breather, full;
	bool scarce; /* the last client got a descriptor of the reserve */
	bool stopping;
} front;

struct client {
	struct msg msg;   /* on its way to another thread */
	struct list node; /* in front.waiting, or in none */
	struct list member; /* in front.clients, or on its way to another thread's */
	uint64_t serial;
	struct generation *gen; /* shared */
	struct place *place;
	int fd; /* until it is a conn, then -1 */
	struct watch watch;
	struct timer patience;
	struct addr peer;
	uint64_t accepted_ms, opened_ms, established_ms; /* 0: not yet */
	enum reason lacks;     /* what it waits for, as the reason of its end */
	unsigned route, hops, retries;
	struct advert *advert; /* shared: the agent it was placed on, or NULL */
	bool counted;          /* among the sessions of advert and site */
	uint64_t link;
	int thread;                /* of that link */
	bool departing, over;      /* a message to ourselves holds it; the session ended meanwhile */
	enum reason why;
	struct pump *pump;
	uint8_t avoid[AVOID_MAX][16];
	size_t avoid_n;
	char *target; /* owned */
	char id[33];
};

static struct generation *generation_get(struct generation *g);
static void generation_put(struct generation *g);

/* Limits. A count never exceeds its maximum, not even for a moment, so that nobody is turned away by somebody who only tries. */

static bool take(atomic_uint *count, uint32_t max)
{
	unsigned n = atomic_load(count);

	do {
		if (max && n >= max)
			return false;
	} while (!atomic_compare_exchange_weak(count, &n, n + 1));
	return true;
}

static bool full(const struct place *p)
{
	return atomic_load(&all.sessions) >= frontend_maxconn() || (p->l->maxconn && atomic_load(&p->score->sessions) >= p->l->maxconn);
}

static void knock_at(int thread)
{
	struct knock *k = &all.knocks[thread];

	if (!atomic_exchange(&k->posted, true))
		thread_post(thread, &k->msg);
}

/* After a count went down: whoever asked for room tries again. */
static void room_made(void)
{
	uint64_t who = atomic_load(&all.want_room) ? atomic_exchange(&all.want_room, 0) : 0;

	for (int i = 0; who; i++, who >>= 1) {
		if (who & 1)
			knock_at(i);
	}
}

/* To be called before the last look at the counts, so that no end of a session is missed. */
static void ask_for_room(void)
{
	atomic_fetch_or(&all.want_room, UINT64_C(1) << thread_self());
}

static bool place_take(struct place *p)
{
	if (full(p) || !take(&all.sessions, frontend_maxconn()))
		return false;
	if (take(&p->score->sessions, p->l->maxconn))
		return true;
	atomic_fetch_sub(&all.sessions, 1);
	room_made();
	return false;
}

static void place_give(struct place *p)
{
	atomic_fetch_sub(&p->score->sessions, 1);
	atomic_fetch_sub(&all.sessions, 1);
	room_made();
}

static void pace_return(const struct place *p)
{
	pace_give(&p->score->pace, p->l->rate_limit);
	pace_give(&all.pace, front.gen->conf->global.rate_limit);
}

/* 0: one more may be accepted now, and counts; else the milliseconds until then. */
static uint64_t place_pace(struct place *p)
{
	uint64_t wait = pace_take(&all.pace, front.gen->conf->global.rate_limit);

	if (wait)
		return wait;
	wait = pace_take(&p->score->pace, p->l->rate_limit);
	if (wait)
		pace_give(&all.pace, front.gen->conf->global.rate_limit);
	return wait;
}

/* Clients: their end. */

static int64_t span(uint64_t from, uint64_t to)
{
	return from && to ? (int64_t)(to - from) : -1;
}

static const char *route_text(const struct client *cl)
{
	return cl->route < cl->place->l->route_n ? cl->place->l->route[cl->route].text : NULL;
}

static void end_state(const struct client *cl, enum reason why, char state[3])
{
	state[0] = reason_letter(why);
	state[2] = '\0';
	if (why == REASON_DONE)
		state[1] = '-';
	else if (!cl->opened_ms)
		state[1] = 'Q';
	else if (!cl->established_ms)
		state[1] = 'C';
	else
		state[1] = cl->pump && pump_half_closed(cl->pump) ? 'L' : 'D';
}

static void log_who(struct log_rec *r, const struct client *cl)
{
	char text[ADDR_TEXT];

	log_str(r, "listener", cl->place->l->name);
	log_str(r, "client", addr_text(&cl->peer, text, sizeof(text)));
	log_str(r, "route", route_text(cl));
	log_str(r, "agent", cl->advert ? cl->advert->name : NULL);
}

static void log_end_of(const struct client *cl, enum reason why)
{
	struct log_rec r;
	char text[32], state[3];
	struct strbuf b;

	if (!log_wants(LOG_INFO))
		return;
	log_begin(&r, LOG_INFO, "session");
	log_who(&r, cl);
	log_str(&r, "target", cl->target);
	log_int(&r, "queue", span(cl->accepted_ms, cl->opened_ms ? cl->opened_ms : clock_ms()));
	log_int(&r, "connect", span(cl->opened_ms, cl->established_ms));
	log_int(&r, "total", span(cl->accepted_ms, clock_ms()));
	log_int(&r, "up", cl->pump ? (int64_t)pump_in(cl->pump) : 0);
	log_int(&r, "down", cl->pump ? (int64_t)pump_out(cl->pump) : 0);
	strbuf_init(&b, text, sizeof(text));
	strbuf_add(&b, "%u/%u", atomic_load(&all.sessions), atomic_load(&cl->place->score->sessions));
	log_str(&r, "sessions", text);
	end_state(cl, why, state);
	log_str(&r, "end", state);
	log_str(&r, "reason", reason_word(why));
	log_str(&r, "id", cl->id[0] ? cl->id : NULL);
	log_end(&r);
}

static void log_start_of(const struct client *cl)
{
	struct log_rec r;

	if (!log_wants(LOG_DEBUG))
		return;
	log_begin(&r, LOG_DEBUG, "session_start");
	log_who(&r, cl);
	log_str(&r, "id", cl->id);
	log_end(&r);
}

static void discount(struct client *cl)
{
	if (!cl->counted)
		return;
	cl->counted = false;
	atomic_fetch_sub(cl->advert->sessions, 1);
	atomic_fetch_sub(&cl->place->sites[cl->route]->score->sessions, 1);
	room_made();
}

static void assign(struct client *cl, unsigned route, struct pick *pick)
{
	advert_put(cl->advert);
	cl->route = route;
	cl->advert = pick->advert;
	cl->link = pick->link;
	cl->counted = true;
	atomic_fetch_add(&cl->place->sites[route]->score->tally.total, 1);
	atomic_fetch_add(cl->advert->sessions, 1);
}

static void stop_waiting(struct client *cl)
{
	if (list_empty(&cl->node))
		return;
	list_del(&cl->node);
	loop_unwatch(&cl->watch);
	timer_stop(&cl->patience);
	stat_add(STAT_QUEUE, -1);
}

static void tally(struct tally *t, const struct client *cl, enum reason why)
{
	if (why != REASON_DONE)
		atomic_fetch_add(&t->failed, 1);
	if (!cl->pump)
		return;
	atomic_fetch_add(&t->up, pump_in(cl->pump));
	atomic_fetch_add(&t->down, pump_out(cl->pump));
}

static const struct conf_route *route_of(const struct client *cl)
{
	static const struct conf_route none = { NULL, NULL, NULL };

	return cl->route < cl->place->l->route_n ? &cl->place->l->route[cl->route] : &none;
}

/* From accepting the client. */
static void observe(struct series *histogram, const struct client *cl, uint64_t until_ms)
{
	series_observe_us(histogram, (until_ms - cl->accepted_ms) * 1000);
}

static void count_end_of(const struct client *cl, enum reason why)
{
	const struct conf_route *r = route_of(cl);

	series_add(series_of(SESSIONS, cl->place->l->name, r->tunnel, r->service, reason_word(why)), 1);
	if (!cl->opened_ms)
		observe(series_alone(QUEUE), cl, clock_ms());
}

static void enlist(struct client *cl)
{
	cl->serial = ++front.serial;
	list_add(&front.clients, &cl->member);
}

static void client_end(struct client *cl, enum reason why)
{
	list_del(&cl->member);
	tally(&cl->place->score->tally, cl, why);
	count_end_of(cl, why);
	if (cl->counted)
		tally(&cl->place->sites[cl->route]->score->tally, cl, why);
	stop_waiting(cl);
	timer_stop(&cl->patience);
	log_end_of(cl, why);
	if (cl->fd >= 0)
		close(cl->fd); /* linger 0: RST */
	if (cl->opened_ms)
		stat_add(STAT_SESSIONS, -1);
	discount(cl);
	advert_put(cl->advert);
	place_give(cl->place);
	generation_put(cl->gen);
	free(cl->target);
	mem_put(MEM_OTHER, cl);
}

/* Clients: the choice of an agent. */

static bool choose(struct client *cl, unsigned *route, struct pick *pick)
{
	const struct conf_listener *l = cl->place->l;

	cl->lacks = REASON_NO_AGENT;
	for (unsigned i = 0; i < l->route_n; i++) {
		struct site *site = cl->place->sites[i];
		enum pick_result r = registry_pick(site->t, l->route[i].service, &cl->peer, (const uint8_t(*)[16])cl->avoid, cl->avoid_n, pick);

		*route = i;
		if (r == PICK_FULL)
			cl->lacks = REASON_AGENT_FULL;
		if (r != PICK_OK)
			continue;
		if (take(&site->score->sessions, site->t->maxconn))
			return true;
		cl->lacks = REASON_LIMIT;
		advert_put(pick->advert);
	}
	return false;
}

static void on_open(void *owner, const char *target)
{
	struct client *cl = owner;

	cl->established_ms = clock_ms();
	observe(series_alone(ESTABLISHMENT), cl, cl->established_ms);
	free(cl->target);
	cl->target = target ? strdup(target) : NULL; /* for the log only */
}

/* The client that a message holds ends when that arrives. */
static void on_done(void *owner, enum reason why)
{
	struct client *cl = owner;

	cl->why = why;
	cl->over = cl->departing;
	if (!cl->over)
		client_end(cl, why);
	else
		cl->pump = NULL;
}

static void client_depart(struct msg *m);

/* Another agent takes the session with all the client's bytes. true: it lives on, here or soon on the thread of the agent's link. */
static bool reopen(struct client *cl)
{
	struct session *s = pump_session(cl->pump);

	for (; cl->hops < HOPS_MAX; cl->hops++) {
		struct pick pick;
		unsigned route;
		struct link *l;

		if (!choose(cl, &route, &pick))
			return false;
		assign(cl, route, &pick);
		l = registry_link(pick.link);
		if (pick.thread != thread_self()) {
			session_keep(s);
			cl->thread = pick.thread;
			cl->departing = true;
			cl->msg.run = client_depart;
			thread_post(thread_self(), &cl->msg); /* not from within the session's own call */
			return true;
		}
		if (l && link_can_open(l)) {
			session_keep(s);
			if (session_reopen(s, l) == 0)
				return true;
		}
		discount(cl);
	}
	return false;
}

/* Links come back soon, or the queue's time is over: it is asked again as long as a client without a session would wait. */
static void look_for_links(struct client *cl)
{
	timer_start(&cl->patience, FULL_MS);
}

static void reopen_again(struct client *cl)
{
	cl->hops = 0;
	if (clock_ms() - cl->opened_ms >= cl->place->l->timeouts.queue)
		pump_abort(cl->pump, cl->lacks);
	else if (!reopen(cl))
		look_for_links(cl);
}

/* The session has come to the thread of the link it shall be opened on anew. */
static void client_return(struct msg *m)
{
	struct client *cl = (struct client *)m;
	struct session *s = pump_session(cl->pump);
	struct link *l = registry_link(cl->link);

	session_arrive(s);
	if (l && !front.stopping && session_reopen(s, l) == 0)
		return;
	discount(cl);
	cl->hops++;
	if (front.stopping)
		pump_abort(cl->pump, REASON_STOPPED);
	else if (!reopen(cl))
		look_for_links(cl);
}

static void client_depart(struct msg *m)
{
	struct client *cl = (struct client *)m;

	cl->departing = false;
	if (cl->over) {
		client_end(cl, cl->why);
		return;
	}
	cl->msg.run = client_return;
	session_leave(pump_session(cl->pump));
	thread_post(cl->thread, &cl->msg);
}

/* LOST: the request went down with its link, DRAINING: it came too late for that link. Neither speaks against the agent. */
static bool blame(struct client *cl, enum reason why)
{
	if (why == REASON_LOST || why == REASON_DRAINING)
		return true;
	if (cl->avoid_n == AVOID_MAX)
		return false;
	memcpy(cl->avoid[cl->avoid_n++], cl->advert->instance, 16);
	return true;
}

static bool on_refused(void *owner, enum reason why)
{
	struct client *cl = owner;

	if (front.stopping || cl->retries++ == RETRIES_MAX || !blame(cl, why))
		return false;
	discount(cl);
	if (reopen(cl))
		return true;
	if (cl->avoid_n == 0) { /* nobody said no */
		session_keep(pump_session(cl->pump));
		look_for_links(cl);
		return true;
	}
	session_abort(pump_session(cl->pump), why); /* kept perhaps, and nobody will have it */
	return false;
}

static void on_leave(void *owner)
{
	struct client *cl = owner;

	timer_stop(&cl->patience);
	list_del(&cl->member);
}

static void on_arrive(void *owner)
{
	enlist(owner);
}

static const struct pump_events pump_events = {
	.on_open = on_open, .on_done = on_done, .on_refused = on_refused, .on_leave = on_leave, .on_arrive = on_arrive
};

static struct session *open_session(struct client *cl, struct link *l)
{
	const struct conf_listener *cf = cl->place->l;
	char peer[ADDR_TEXT], local[ADDR_TEXT];
	struct session_about about = { .service = cf->route[cl->route].service, .listener = cf->name };
	struct addr a;

	sock_local(cl->fd, &a);
	about.client = addr_text(&cl->peer, peer, sizeof(peer));
	about.local = addr_text(&a, local, sizeof(local));
	return session_open(l, &about, cf->timeouts.connect, cf->timeouts.resume, &pump_session_events, cl->pump);
}

/* Until pump_start, which follows at once. */
static void not_yet(struct conn *c)
{
}

static bool join(struct client *cl, struct link *l)
{
	const struct conf_timeouts *t = &cl->place->l->timeouts;
	struct pump_options o = { .idle_ms = t->idle, .half_closed_ms = t->half_closed, .local_reset = REASON_CLIENT_RESET, .client_side = true };
	const struct conf_route *r = route_of(cl);

	o.up = series_of(BYTES, cl->place->l->name, r->tunnel, r->service, "up");
	o.down = series_of(BYTES, cl->place->l->name, r->tunnel, r->service, "down");
	struct pump *p = cl->pump = pump_new(&o, &pump_events, cl);
	struct session *s = p ? open_session(cl, l) : NULL;
	struct conn *c = s ? conn_tcp(cl->fd, not_yet, NULL) : NULL;

	if (!c) {
		if (s)
			session_abort(s, REASON_RESOURCES);
		if (p)
			pump_free(p);
		cl->pump = NULL;
		return false;
	}
	cl->fd = -1;
	str_copy(cl->id, sizeof(cl->id), session_id(s));
	pump_start(p, s, c);
	return true;
}

static void client_place(struct client *cl);

/* On the thread of its link. */
static void client_open(struct client *cl)
{
	struct link *l = registry_link(cl->link);

	if (!l || !link_can_open(l)) {
		discount(cl);
		cl->hops++;
		cl->lacks = l ? REASON_AGENT_FULL : REASON_NO_AGENT;
		client_place(cl);
	} else if (join(cl, l)) {
		cl->opened_ms = clock_ms();
		observe(series_alone(QUEUE), cl, cl->opened_ms);
		stat_add(STAT_SESSIONS, 1);
		stat_add(STAT_SESSIONS_OPENED, 1);
		log_start_of(cl);
	} else {
		client_end(cl, REASON_RESOURCES);
	}
}

static void client_arrive(struct msg *m)
{
	enlist((struct client *)m);
	client_open((struct client *)m);
}

static bool client_try(struct client *cl)
{
	struct pick pick;
	unsigned route;

	if (!choose(cl, &route, &pick))
		return false;
	stop_waiting(cl);
	assign(cl, route, &pick);
	if (pick.thread == thread_self()) {
		client_open(cl);
	} else {
		list_del(&cl->member);
		cl->msg.run = client_arrive;
		thread_post(pick.thread, &cl->msg);
	}
	return true;
}

/* Clients: the queue. */

static void on_patience(struct timer *t)
{
	struct client *cl = container_of(t, struct client, patience);

	if (cl->pump)
		reopen_again(cl);
	else
		client_end(cl, cl->lacks);
}

/* One that has sent its request and its end is still served; one that broke the connection is not. */
static void on_waiting(struct watch *w, unsigned events)
{
	struct client *cl = container_of(w, struct client, watch);

	if ((events & LOOP_HUP) && sock_error(cl->fd) != 0)
		client_end(cl, REASON_CLIENT_RESET);
}

static bool somebody_lacks(enum reason what)
{
	list_for_each(n, &front.waiting) {
		if (container_of(n, struct client, node)->lacks == what)
			return true;
	}
	return false;
}

/* Nobody tells when a link is not full any more. */
static void watch_full_links(void)
{
	if (!timer_running(&front.full) && somebody_lacks(REASON_AGENT_FULL))
		timer_start(&front.full, FULL_MS);
}

static void client_wait(struct client *cl)
{
	uint64_t due = cl->accepted_ms + cl->place->l->timeouts.queue, now = clock_ms();

	if (front.stopping || !front.gen) {
		client_end(cl, REASON_STOPPED);
		return;
	}
	if (loop_watch(&cl->watch, cl->fd, on_waiting) < 0) {
		client_end(cl, REASON_RESOURCES);
		return;
	}
	list_add(&front.waiting, &cl->node);
	timer_start(&cl->patience, due > now ? due - now : 0);
	stat_add(STAT_QUEUE, 1);
	watch_full_links();
}

static void client_place(struct client *cl)
{
	bool placed = cl->hops < HOPS_MAX && !front.stopping && client_try(cl);

	if (!placed && cl->lacks != REASON_NO_AGENT) {
		ask_for_room();
		placed = cl->hops < HOPS_MAX && client_try(cl);
	}
	if (!placed)
		client_wait(cl);
}

/* Each client once, also those that come back to the list's end. */
static void retry(bool only_full)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &front.waiting);
	while (!list_empty(&batch)) {
		struct client *cl = list_first(&batch, struct client, node);

		list_del(&cl->node);
		list_add(&front.waiting, &cl->node);
		cl->hops = 0;
		if (!only_full || cl->lacks != REASON_NO_AGENT)
			client_try(cl);
	}
	watch_full_links();
}

static void on_full(struct timer *tm)
{
	retry(true);
}

static void on_change(void)
{
	retry(false);
}

/* Doors. */

static bool exhausted(int e)
{
	return e == EMFILE || e == ENFILE || e == ENOMEM || e == ENOBUFS;
}

static void door_pause(struct door *d)
{
	loop_unwatch(&d->watch);
	d->paused = true;
	stat_add(STAT_ACCEPT_PAUSED, 1);
}

static void complain(const struct door *d, int e)
{
	uint64_t now = clock_ms(), next = atomic_load(&all.complain_ms);

	if (now < next || !atomic_compare_exchange_strong(&all.complain_ms, &next, now + COMPLAIN_MS))
		return;
	log_warning("listener %s: accepting pauses, clients wait in the kernel's queue: %s", d->place->l->name, strerror(e));
}

static void door_breathe(struct door *d, int e)
{
	complain(d, e);
	door_pause(d);
	if (!timer_running(&front.breather))
		timer_start(&front.breather, BREATHER_MS);
}

static struct client *client_new(struct place *p, int fd, const struct addr *peer)
{
	struct client *cl = mem_get(MEM_OTHER, sizeof(*cl));

	if (!cl)
		return NULL;
	list_init(&cl->node);
	timer_init(&cl->patience, on_patience);
	cl->watch.fd = -1;
	cl->gen = generation_get(front.gen);
	cl->place = p;
	cl->fd = fd;
	cl->peer = *peer;
	cl->accepted_ms = clock_ms();
	cl->lacks = REASON_NO_AGENT;
	atomic_fetch_add(&p->score->tally.total, 1);
	enlist(cl);
	return cl;
}

/* The limits. A listener that is over its rate pauses until the next one is due, and no end of a session wakes it before. */
static bool admit(struct door *d)
{
	uint64_t wait;

	if (!place_take(d->place)) {
		door_pause(d);
		return false;
	}
	wait = place_pace(d->place);
	if (wait == 0)
		return true;
	place_give(d->place);
	door_pause(d);
	timer_start(&d->pacing, wait);
	return false;
}

/* false: no more from this door now. */
static bool accept_one(struct door *d)
{
	struct addr peer, local;
	struct client *cl;
	int fd, e;

	if (front.scarce && reserve_only(d->fd)) {
		door_breathe(d, EMFILE);
		return false;
	}
	if (mem_short())
		mem_ballast();
	if (mem_short()) {
		door_breathe(d, ENOMEM);
		return false;
	}
	if (!admit(d))
		return false;
	fd = sock_accept(d->fd, &peer, &local);
	e = errno;
	front.scarce = fd >= 0 && reserve_has(fd);
	cl = fd >= 0 ? client_new(d->place, fd, &peer) : NULL;
	if (cl) {
		client_place(cl);
		return true;
	}
	place_give(d->place);
	pace_return(d->place);
	if (fd >= 0)
		close(fd);
	if (fd >= 0 || exhausted(e))
		door_breathe(d, fd >= 0 ? ENOMEM : e);
	return false;
}

static void on_listener(struct watch *w, unsigned events);

static void door_resume(struct door *d)
{
	if (atomic_load(&d->place->score->disabled))
		return;
	if (loop_watch_listener(&d->watch, d->fd, on_listener) < 0) {
		if (!timer_running(&front.breather))
			timer_start(&front.breather, BREATHER_MS);
		return;
	}
	d->paused = false;
}

static void on_listener(struct watch *w, unsigned events)
{
	struct door *d = container_of(w, struct door, watch);
	int n = 0;

	while (n < ACCEPTS && accept_one(d))
		n++;
	if (!d->paused || timer_running(&front.breather) || timer_running(&d->pacing))
		return;
	ask_for_room();
	if (!full(d->place))
		door_resume(d);
}

static void doors_resume(void)
{
	list_for_each(n, &front.doors) {
		struct door *d = container_of(n, struct door, node);

		if (d->paused && !timer_running(&d->pacing))
			door_resume(d);
	}
}

static void on_pacing(struct timer *t)
{
	struct door *d = container_of(t, struct door, pacing);

	if (d->paused && !timer_running(&front.breather))
		door_resume(d);
}

static void on_breather(struct timer *t)
{
	doors_resume();
}

/* A session has ended somewhere. */
static void on_knock(struct msg *m)
{
	struct knock *k = (struct knock *)m;

	atomic_store(&k->posted, false);
	if (!front.gen)
		return;
	if (somebody_lacks(REASON_LIMIT) || somebody_lacks(REASON_AGENT_FULL)) {
		ask_for_room();
		retry(true);
	}
	if (!timer_running(&front.breather))
		doors_resume();
}

/* Watches the socket; when the loop refuses, the breather tries again. */
static struct door *door_new(struct place *p, int fd)
{
	struct door *d = xcalloc(1, sizeof(*d));

	d->place = p;
	d->fd = fd;
	d->paused = true;
	d->watch.fd = -1;
	timer_init(&d->pacing, on_pacing);
	list_add(&front.doors, &d->node);
	door_resume(d);
	return d;
}

static void door_free(struct door *d)
{
	loop_unwatch(&d->watch);
	timer_stop(&d->pacing);
	list_del(&d->node);
	free(d);
}

int frontend_open(struct conf *conf, const struct conf_listener *l, int fd)
{
	struct door *d;

	BUG_ON(conf != front.gen->conf || l < conf->listeners || l >= conf->listeners + conf->listeners_n);
	d = door_new(&front.gen->places[l - conf->listeners], fd);
	if (!d->paused)
		return 0;
	door_free(d);
	return -1;
}

void frontend_close_all(void)
{
	timer_stop(&front.breather);
	list_for_each_safe(n, &front.doors)
		door_free(container_of(n, struct door, node));
}

void frontend_stop(void)
{
	front.stopping = true;
	timer_stop(&front.full);
	list_for_each_safe(n, &front.waiting)
		client_end(container_of(n, struct client, node), REASON_STOPPED);
}

uint32_t frontend_sessions(void)
{
	return atomic_load(&all.sessions);
}

/* For the admin socket. */

static const char *state_word(const struct client *cl)
{
	const struct session *s = cl->pump ? pump_session(cl->pump) : NULL;

	if (!cl->opened_ms)
		return "queue";
	if (!cl->established_ms)
		return "connect";
	if (s && session_parked(s))
		return "parked";
	return cl->pump && pump_half_closed(cl->pump) ? "half-closed" : "open";
}

static void view(struct frontend_client *v, const struct client *cl, char *peer)
{
	*v = (struct frontend_client){ .id = cl->id,
				       .listener = cl->place->l->name,
				       .client = addr_text(&cl->peer, peer, ADDR_TEXT),
				       .route = route_text(cl),
				       .tunnel = cl->advert ? cl->advert->tunnel : NULL,
				       .agent = cl->advert ? cl->advert->name : NULL,
				       .target = cl->target,
				       .state = state_word(cl),
				       .age_ms = clock_ms() - cl->accepted_ms,
				       .link = cl->link };
	if (!cl->pump)
		return;
	v->up = pump_in(cl->pump);
	v->down = pump_out(cl->pump);
}

static void client_kill(struct client *cl)
{
	if (cl->pump)
		pump_abort(cl->pump, REASON_KILLED);
	else
		client_end(cl, REASON_KILLED);
}

bool frontend_each(uint64_t *cursor, enum visit (*visit)(void *, const struct frontend_client *), void *arg)
{
	struct frontend_client v;
	char peer[ADDR_TEXT];

	if (!front.gen)
		return true;
	list_for_each_safe(n, &front.clients) {
		struct client *cl = container_of(n, struct client, member);

		if (cl->serial <= *cursor || cl->over)
			continue;
		*cursor = cl->serial;
		view(&v, cl, peer);
		enum visit next = visit(arg, &v);
		if (next == VISIT_STOP)
			return false;
		if (next == VISIT_KILL)
			client_kill(cl);
	}
	return true;
}

static void tally_view(struct frontend_figures *out, struct tally *t)
{
	out->total = atomic_load(&t->total);
	out->failed = atomic_load(&t->failed);
	out->up = atomic_load(&t->up);
	out->down = atomic_load(&t->down);
}

const struct conf *frontend_conf(void)
{
	return front.gen ? front.gen->conf : NULL;
}

void frontend_listener(size_t index, struct frontend_figures *out)
{
	struct place *p = &front.gen->places[index];

	*out = (struct frontend_figures){ .sessions = atomic_load(&p->score->sessions), .maxconn = p->l->maxconn, .rate_limit = p->l->rate_limit,
					 .enabled = !atomic_load(&p->score->disabled) };
	out->full = (out->maxconn && out->sessions >= out->maxconn) || atomic_load(&all.sessions) >= frontend_maxconn();
	tally_view(out, &p->score->tally);
}

void frontend_tunnel(size_t index, struct frontend_figures *out)
{
	struct site *s = &front.gen->sites[index];

	*out = (struct frontend_figures){ .sessions = atomic_load(&s->score->sessions), .maxconn = s->t->maxconn, .enabled = true };
	out->full = out->maxconn && out->sessions >= out->maxconn;
	tally_view(out, &s->score->tally);
}

static void score_clear(struct score *s)
{
	atomic_store(&s->tally.total, atomic_load(&s->sessions));
	atomic_store(&s->tally.failed, 0);
	atomic_store(&s->tally.up, 0);
	atomic_store(&s->tally.down, 0);
}

void frontend_clear(void)
{
	const struct generation *g = front.gen;

	for (size_t i = 0; g && i < g->conf->listeners_n; i++)
		score_clear(g->places[i].score);
	for (size_t i = 0; g && i < g->conf->tunnels_n; i++)
		score_clear(g->sites[i].score);
}

void frontend_enable(size_t listener, bool on)
{
	struct place *p = &front.gen->places[listener];

	atomic_store(&p->score->disabled, !on);
	list_for_each(n, &front.doors) {
		struct door *d = container_of(n, struct door, node);

		if (d->place != p)
			continue;
		if (on && d->paused)
			door_resume(d);
		else if (!on && !d->paused)
			loop_unwatch(&d->watch);
		d->paused |= !on;
	}
}

void frontend_set_maxconn(uint32_t n)
{
	atomic_store(&all.maxconn, n);
	room_made();
}

uint32_t frontend_maxconn(void)
{
	unsigned n = atomic_load_explicit(&all.maxconn, memory_order_relaxed);

	return n || !front.gen ? n : front.gen->conf->global.maxconn;
}

/* Generations. */

static struct site *site_of(const struct generation *g, const char *tunnel)
{
	for (size_t i = 0; i < g->conf->tunnels_n; i++) {
		if (strcmp(g->conf->tunnels[i].name, tunnel) == 0)
			return &g->sites[i];
	}
	bug_panic(__FILE__, __LINE__, "a route leads to the tunnel %s, which is not configured", tunnel);
}

static struct place *place_of(const struct generation *g, const char *listener)
{
	for (size_t i = 0; i < g->conf->listeners_n; i++) {
		if (strcmp(g->conf->listeners[i].name, listener) == 0)
			return &g->places[i];
	}
	return NULL;
}

static struct score *score_get(struct score *s)
{
	atomic_fetch_add(&s->refs, 1);
	return s;
}

static void score_put(struct score *s)
{
	if (atomic_fetch_sub(&s->refs, 1) == 1)
		free(s);
}

/* Old ones by name: a map, because a configuration may have thousands. */
static struct score *score_of(struct map *olds, const char *name)
{
	struct score *s = map_get_str(olds, name);

	if (!s)
		s = xcalloc(1, sizeof(*s));
	return score_get(s);
}

static void place_init(struct place *p, const struct generation *g, const struct conf_listener *l)
{
	p->l = l;
	p->sites = xcalloc(l->route_n, sizeof(*p->sites));
	for (size_t i = 0; i < l->route_n; i++)
		p->sites[i] = site_of(g, l->route[i].tunnel);
}

static void fill_sites(struct generation *g, const struct generation *old)
{
	const struct conf *c = g->conf;
	struct map *olds = map_new();

	for (size_t i = 0; old && i < old->conf->tunnels_n; i++)
		map_set_str(olds, old->sites[i].t->name, old->sites[i].score);
	g->sites = xcalloc(c->tunnels_n, sizeof(*g->sites));
	for (size_t i = 0; i < c->tunnels_n; i++)
		g->sites[i] = (struct site){ .t = &c->tunnels[i], .score = score_of(olds, c->tunnels[i].name) };
	map_free(olds);
}

static void fill_places(struct generation *g, const struct generation *old)
{
	const struct conf *c = g->conf;
	struct map *olds = map_new();

	for (size_t i = 0; old && i < old->conf->listeners_n; i++)
		map_set_str(olds, old->places[i].l->name, old->places[i].score);
	g->places = xcalloc(c->listeners_n, sizeof(*g->places));
	for (size_t i = 0; i < c->listeners_n; i++) {
		place_init(&g->places[i], g, &c->listeners[i]);
		g->places[i].score = score_of(olds, c->listeners[i].name);
	}
	map_free(olds);
}

static struct generation *generation_new(struct conf *conf, const struct generation *old)
{
	struct generation *g = xcalloc(1, sizeof(*g));

	atomic_init(&g->refs, 1);
	g->conf = conf_get(conf);
	fill_sites(g, old);
	fill_places(g, old);
	return g;
}

static struct generation *generation_get(struct generation *g)
{
	atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	return g;
}

static void generation_put(struct generation *g)
{
	if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < g->conf->listeners_n; i++) {
		free(g->places[i].sites);
		score_put(g->places[i].score);
	}
	for (size_t i = 0; i < g->conf->tunnels_n; i++)
		score_put(g->sites[i].score);
	free(g->places);
	free(g->sites);
	conf_put(g->conf);
	free(g);
}

/* Reload. */

void frontend_prepare(struct conf *conf)
{
	struct generation *old;

	pthread_mutex_lock(&all.lock);
	old = all.newest;
	all.newest = generation_new(conf, old);
	pthread_mutex_unlock(&all.lock);
	generation_put(old);
	atomic_store(&all.maxconn, 0); /* what the admin socket said lasts until now */
}

static int by_fd(const void *a, const void *b)
{
	const struct frontend_socket *x = a, *y = b;

	return (x->fd > y->fd) - (x->fd < y->fd);
}

static void doors_renew(const struct frontend_socket *sockets, size_t n)
{
	bool *kept = xcalloc(n, sizeof(*kept));

	list_for_each_safe(node, &front.doors) {
		struct door *d = container_of(node, struct door, node);
		struct frontend_socket key = { .fd = d->fd };
		const struct frontend_socket *s = n ? bsearch(&key, sockets, n, sizeof(*sockets), by_fd) : NULL;

		if (!s) {
			door_free(d);
			continue;
		}
		kept[s - sockets] = true;
		timer_stop(&d->pacing); /* the rate may be another one now */
		d->place = &front.gen->places[s->listener];
	}
	for (size_t i = 0; i < n; i++) {
		if (!kept[i])
			door_new(&front.gen->places[sockets[i].listener], sockets[i].fd);
	}
	free(kept);
}

/* They have no session yet: the new routes are theirs as well. */
static void waiting_renew(void)
{
	list_for_each(n, &front.waiting) {
		struct client *cl = container_of(n, struct client, node);
		struct place *p = place_of(front.gen, cl->place->l->name);

		/* a listener that was gone in between has a score of its own */
		if (!p || p->score != cl->place->score)
			continue;
		generation_put(cl->gen);
		cl->gen = generation_get(front.gen);
		cl->place = p;
		cl->route = 0;
	}
}

void frontend_reload(const struct frontend_socket *sockets, size_t n)
{
	struct generation *old = front.gen;

	pthread_mutex_lock(&all.lock);
	front.gen = generation_get(all.newest);
	pthread_mutex_unlock(&all.lock);
	doors_renew(sockets, n);
	waiting_renew();
	generation_put(old);
	ask_for_room();
	retry(false);
	if (!timer_running(&front.breather))
		doors_resume();
}

/* Init and end. */

static void all_enter(struct conf *conf)
{
	pthread_mutex_lock(&all.lock);
	if (all.users++ == 0) {
		all.newest = generation_new(conf, NULL);
		for (int i = 0; i < THREAD_MAX; i++)
			all.knocks[i].msg.run = on_knock;
	}
	front.gen = generation_get(all.newest);
	pthread_mutex_unlock(&all.lock);
}

static void all_leave(void)
{
	pthread_mutex_lock(&all.lock);
	generation_put(front.gen);
	front.gen = NULL;
	if (--all.users == 0) {
		generation_put(all.newest);
		all.newest = NULL;
	}
	pthread_mutex_unlock(&all.lock);
}

void frontend_init(struct conf *conf)
{
	all_enter(conf);
	front.stopping = false;
	list_init(&front.doors);
	list_init(&front.clients);
	list_init(&front.waiting);
	timer_init(&front.breather, on_breather);
	timer_init(&front.full, on_full);
	registry_on_change(on_change);
}

void frontend_fini(void)
{
	frontend_close_all();
	frontend_stop();
	all_leave();
}
