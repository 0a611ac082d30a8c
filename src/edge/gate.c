/* The hub's listening sockets: whom to accept, and when. Owns this thread's watches of them, and the counts of clients against the limits of the process
 * and of a listener. Nobody is refused for a limit: accepting pauses, and who comes waits in the kernel's queue; so it is when descriptors or memory are used up.
 * Does not know what becomes of a client. */
#include "mctunnel/edge/gate.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/pace.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/room.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/reserve.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCEPTS 64      /* a turn and listener */
#define BREATHER_MS 100 /* without accepting, when descriptors or memory are used up */
#define COMPLAIN_MS 60000

/* Of the process. */
static struct {
	atomic_uint sessions;
	atomic_uint maxconn; /* instead of the configuration's; 0: none */
	struct pace pace;    /* accepting at all listeners */
	atomic_uint_fast64_t complain_ms;
} all;

struct door { /* this thread's watch of one listening socket */
	struct list node;
	struct watch watch;
	struct place *place;
	int fd; /* borrowed */
	bool paused, early; /* early: see sock_accept() */
	struct timer pacing; /* while it is paused for a rate_limit */
};

static _Thread_local struct {
	const struct conf *conf; /* borrowed: of the generation in force; NULL: not open */
	gate_client *on_client;
	struct list doors;
	struct timer breather;
	bool scarce; /* the last client got a descriptor of the reserve */
} here;

/* Limits. */

static bool full(const struct place *p)
{
	return atomic_load(&all.sessions) >= gate_maxconn() || (p->l->maxconn && atomic_load(&p->score->sessions) >= p->l->maxconn);
}

static bool place_take(struct place *p)
{
	if (full(p) || !count_take(&all.sessions, gate_maxconn()))
		return false;
	if (count_take(&p->score->sessions, p->l->maxconn))
		return true;
	atomic_fetch_sub(&all.sessions, 1);
	room_made();
	return false;
}

void gate_give(struct place *p)
{
	atomic_fetch_sub(&p->score->sessions, 1);
	atomic_fetch_sub(&all.sessions, 1);
	room_made();
}

static void pace_return(const struct place *p)
{
	pace_give(&p->score->pace, p->l->rate_limit);
	pace_give(&all.pace, here.conf->global.rate_limit);
}

/* 0: one more may be accepted now, and counts; else the milliseconds until then. */
static uint64_t place_pace(struct place *p)
{
	uint64_t wait = pace_take(&all.pace, here.conf->global.rate_limit);

	if (wait)
		return wait;
	wait = pace_take(&p->score->pace, p->l->rate_limit);
	if (wait)
		pace_give(&all.pace, here.conf->global.rate_limit);
	return wait;
}

/* Doors. */

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
	if (!timer_running(&here.breather))
		timer_start(&here.breather, BREATHER_MS);
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
	gate_give(d->place);
	door_pause(d);
	timer_start(&d->pacing, wait);
	return false;
}

/* false: no more from this door now. */
static bool accept_one(struct door *d)
{
	struct addr peer;
	int fd, e;

	if (here.scarce && reserve_only(d->fd)) {
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
	fd = sock_accept(d->fd, &peer, &d->early);
	e = errno;
	here.scarce = fd >= 0 && reserve_has(fd);
	if (fd >= 0 && here.on_client(d->place, fd, &peer))
		return true;
	gate_give(d->place);
	pace_return(d->place);
	if (fd >= 0)
		close(fd);
	if (fd >= 0 || sock_exhausted(e))
		door_breathe(d, fd >= 0 ? ENOMEM : e);
	return false;
}

static void on_listener(struct watch *w, unsigned events);

static void door_resume(struct door *d)
{
	if (atomic_load(&d->place->score->disabled))
		return;
	if (loop_watch_listener(&d->watch, d->fd, on_listener) < 0) {
		if (!timer_running(&here.breather))
			timer_start(&here.breather, BREATHER_MS);
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
	if (!d->paused || timer_running(&here.breather) || timer_running(&d->pacing))
		return;
	room_ask();
	if (!full(d->place))
		door_resume(d);
}

static void doors_resume(void)
{
	list_for_each(n, &here.doors) {
		struct door *d = container_of(n, struct door, node);

		if (d->paused && !timer_running(&d->pacing))
			door_resume(d);
	}
}

static void on_pacing(struct timer *t)
{
	struct door *d = container_of(t, struct door, pacing);

	if (d->paused && !timer_running(&here.breather))
		door_resume(d);
}

static void on_breather(struct timer *t)
{
	doors_resume();
}

/* A session has ended somewhere. */
static void on_room(void)
{
	if (here.conf && !timer_running(&here.breather))
		doors_resume();
}

/* Watches the socket; when the loop refuses, the breather tries again. */
static struct door *door_new(struct place *p, int fd)
{
	struct door *d = xcalloc(1, sizeof(*d));

	d->place = p;
	d->fd = fd;
	d->paused = d->early = true;
	d->watch.fd = -1;
	sock_bequeath(fd);
	timer_init(&d->pacing, on_pacing);
	list_add(&here.doors, &d->node);
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

int gate_open(struct place *p, int fd)
{
	struct door *d = door_new(p, fd);

	if (!d->paused)
		return 0;
	door_free(d);
	return -1;
}

void gate_close_all(void)
{
	timer_stop(&here.breather);
	list_for_each_safe(n, &here.doors)
		door_free(container_of(n, struct door, node));
}

static int by_fd(const void *a, const void *b)
{
	const struct gate_socket *x = a, *y = b;

	return (x->fd > y->fd) - (x->fd < y->fd);
}

void gate_renew(const struct conf *conf, const struct gate_socket *sockets, size_t n)
{
	bool *kept = xcalloc(n, sizeof(*kept));

	here.conf = conf;
	list_for_each_safe(node, &here.doors) {
		struct door *d = container_of(node, struct door, node);
		struct gate_socket key = { .fd = d->fd };
		const struct gate_socket *s = n ? bsearch(&key, sockets, n, sizeof(*sockets), by_fd) : NULL;

		if (!s) {
			door_free(d);
			continue;
		}
		kept[s - sockets] = true;
		timer_stop(&d->pacing); /* the rate may be another one now */
		d->place = s->place;
	}
	for (size_t i = 0; i < n; i++) {
		if (!kept[i])
			door_new(sockets[i].place, sockets[i].fd);
	}
	free(kept);
}

void gate_resume(void)
{
	if (!timer_running(&here.breather))
		doors_resume();
}

void gate_enable(struct place *p, bool on)
{
	atomic_store(&p->score->disabled, !on);
	list_for_each(n, &here.doors) {
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

uint32_t gate_sessions(void)
{
	return atomic_load(&all.sessions);
}

const atomic_uint *gate_count(void)
{
	return &all.sessions;
}

void gate_set_maxconn(uint32_t n)
{
	atomic_store(&all.maxconn, n);
	room_made();
}

uint32_t gate_maxconn(void)
{
	unsigned n = atomic_load_explicit(&all.maxconn, memory_order_relaxed);

	return n || !here.conf ? n : here.conf->global.maxconn;
}

void gate_init(const struct conf *conf, gate_client *on_client)
{
	here.conf = conf;
	here.on_client = on_client;
	list_init(&here.doors);
	timer_init(&here.breather, on_breather);
	room_on(on_room);
}

void gate_fini(void)
{
	gate_close_all();
	here.conf = NULL;
}
