/* A link: the HTTP/2 connection between a hub and an agent, as bytes in and bytes out. Owns the h2 layer, the heartbeat and the limits on what
 * the other side may ask for; knows which sessions ride on it, but not what they carry. Its connection is the carrier's (edge). */
#include "mctunnel/tunnel/link.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"

#include <string.h>

#define LAZY_MS 20
#define FLOOD_BURST 2000u /* control frames at once, and ... */
#define FLOOD_RATE 1000u  /* ... a second from then on; above what the traffic itself explains */
#define BEAT_STEPS 10 /* of an interval: beats of links that come together cost less */
#define RTT_EVERY 5       /* heartbeat intervals between measurements on a busy link */

struct link {
	struct h2 *h2;                /* owned */
	const struct link_events *ev;
	void *owner;                  /* borrowed */
	struct list sessions, tail;   /* sessions with a stream; those that wait for a barrier, in its order */
	struct list ready, credit;    /* sessions with input of this turn / with credit to give */
	size_t sessions_n;
	struct timer lazy, beat;
	uint32_t interval_ms, timeout_ms;
	uint64_t heard_ms;            /* when the last byte came */
	uint64_t beat_ms;             /* when the next beat is due */
	uint64_t ping_sent, ping_answered, ping_wanted;
	uint64_t ping_us;             /* when ping_sent went out */
	uint64_t rtt_at_ms;
	uint32_t rtt_us, rtt_least_us;
	atomic_uint *rtt_place;       /* borrowed, or NULL */
	uint32_t flood;               /* level of the bucket */
	uint64_t flood_ms;
	uint8_t peer[16];
	bool touched, retiring, dead, peer_closing, hub;
};

/* ---- events of h2 ---- */

static void on_request(void *owner, int32_t stream, const struct h2_fields *f, bool fin)
{
	struct link *l = owner;
	if (l->dead)
		return;
	if (!f->service[0] || strlen(f->session) != 32)
		h2_reset(l->h2, stream, reason_code(REASON_PROTOCOL));
	else
		l->ev->on_request(l->owner, stream, f);
}

static void on_answer(void *owner, void *stream, const struct h2_fields *f, bool fin)
{
	struct rider *r = stream;
	r->ev->answered(r, f);
}

static void on_data(void *owner, void *stream, const uint8_t *data, size_t len)
{
	struct rider *r = stream;
	r->ev->data_came(r, data, len);
}

static void on_fin(void *owner, void *stream)
{
	struct rider *r = stream;
	r->ev->fin_came(r);
}

static void on_credit(void *owner, void *stream, uint32_t bytes)
{
	struct rider *r = stream;
	r->ev->credited(r, bytes);
}

static void on_reset(void *owner, void *stream, uint32_t code)
{
	struct rider *r = stream;
	r->ev->was_reset(r, code);
}

static void on_closed(void *owner, void *stream, uint32_t code)
{
	struct rider *r = stream;
	r->ev->closed(r, code);
}

static void take_rtt(struct link *l)
{
	uint64_t sample = clock_us() - l->ping_us;
	l->rtt_us = l->rtt_us ? (uint32_t)((7ull * l->rtt_us + sample) / 8) : (uint32_t)sample;
	if (l->rtt_us == 0)
		l->rtt_us = 1;
	if (l->rtt_least_us == 0 || sample < l->rtt_least_us)
		l->rtt_least_us = sample ? (uint32_t)sample : 1;
	l->rtt_at_ms = clock_ms();
	if (l->rtt_place)
		atomic_store_explicit(l->rtt_place, l->rtt_us, memory_order_relaxed);
}

static void on_pong(void *owner, uint64_t value)
{
	struct link *l = owner;
	if (value <= l->ping_answered || value > l->ping_sent)
		return;
	l->ping_answered = value;
	if (value == l->ping_sent)
		take_rtt(l);
	while (!list_empty(&l->tail)) {
		struct rider *r = list_first(&l->tail, struct rider, node);
		if (r->barrier > value)
			break;
		r->ev->confirmed(r);
	}
}

static void on_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
	struct link *l = owner;
	if (!l->dead)
		l->ev->on_hello(l->owner, type, json, len);
}

static void on_goaway(void *owner, const char *text, size_t len)
{
	struct link *l = owner;
	char word[32];
	size_t n = len < sizeof word - 1 ? len : sizeof word - 1;
	l->peer_closing = true;
	memcpy(word, text ? text : "", n);
	word[n] = 0;
	if (!l->dead)
		l->ev->on_goaway(l->owner, reason_from_word(word, REASON_LINK_CLOSED));
}

static size_t ready(void *owner, void *stream, size_t room, bool *fin)
{
	struct rider *r = stream;
	return r->ev->ready(r, room, fin);
}

static size_t next(void *owner, void *stream, const void **at, size_t len)
{
	struct rider *r = stream;
	return r->ev->next(r, at, len);
}

static void made(void *owner, void *stream, size_t len, bool fin)
{
	struct rider *r = stream;
	r->ev->made(r, len, fin);
}

static const struct h2_events h2_link_events = {
	.on_request = on_request,
	.on_answer = on_answer,
	.on_data = on_data,
	.on_fin = on_fin,
	.on_credit = on_credit,
	.on_reset = on_reset,
	.on_closed = on_closed,
	.on_pong = on_pong,
	.on_hello = on_hello,
	.on_goaway = on_goaway,
	.ready = ready,
	.next = next,
	.made = made,
};

/* ---- output ---- */

void link_touch(struct link *l)
{
	if (l->touched || l->dead)
		return;
	l->touched = true;
	l->ev->on_output(l->owner);
}

void link_lazy(struct link *l)
{
	if (!l->touched && !timer_running(&l->lazy) && !l->dead)
		timer_start(&l->lazy, LAZY_MS);
}

static void on_lazy(struct timer *t)
{
	link_touch(container_of(t, struct link, lazy));
}

uint64_t link_barrier(struct link *l)
{
	l->ping_wanted = l->ping_sent + 1;
	link_lazy(l);
	return l->ping_wanted;
}

/* Barriers come as often as sessions end; one PING for all that ended meanwhile is enough. */
static void ping_if_due(struct link *l)
{
	uint64_t pause_us = 500ull * (l->interval_ms && l->interval_ms < 2 * LAZY_MS ? l->interval_ms : 2 * LAZY_MS); /* beats do not wait for it */
	if (l->ping_wanted <= l->ping_sent || (l->ping_sent > 0 && clock_us() - l->ping_us < pause_us))
		return;
	l->ping_sent++;
	l->ping_us = clock_us();
	h2_ping(l->h2, l->ping_sent);
}

static enum reason broken_for(const struct link *l)
{
	return h2_starved(l->h2) ? REASON_RESOURCES : REASON_PROTOCOL;
}

ssize_t link_output(struct link *l, struct h2_sink *k)
{
	if (l->dead)
		return 0;
	l->touched = false;
	timer_stop(&l->lazy);
	while (!list_empty(&l->credit)) {
		struct rider *r = list_first(&l->credit, struct rider, credit_node);
		r->ev->flush_credit(r);
	}
	ping_if_due(l);
	ssize_t n = h2_output(l->h2, k);
	if (n < 0) {
		l->dead = true;
		l->ev->on_dead(l->owner, broken_for(l));
		return 0;
	}
	/* What h2 closed just now may wait for a barrier: its PING must be behind everything that was written above. */
	if (l->ping_wanted > l->ping_sent)
		link_lazy(l);
	return n;
}

bool link_wants_output(const struct link *l)
{
	return !l->dead && (l->touched || h2_wants_output(l->h2));
}

void link_hello(struct link *l, enum h2_frame type, const char *json, size_t len)
{
	h2_hello(l->h2, type, json, len);
	link_touch(l);
}

bool link_hello_unsent(const struct link *l)
{
	return h2_hello_unsent(l->h2);
}

void link_goaway(struct link *l, enum reason why)
{
	if (l->retiring)
		return;
	l->retiring = true;
	h2_drain(l->h2, reason_word(why));
	link_touch(l);
}

void link_refuse_with(struct link *l, int32_t stream, enum reason why, struct h2_fields *f)
{
	f->status = (uint16_t)(reason_status(why) ? reason_status(why) : 502);
	str_copy(f->reason, sizeof f->reason, reason_word(why));
	(void)h2_answer(l->h2, stream, f, true); /* -1: the hub has given it up meanwhile */
	link_touch(l);
}

void link_refuse(struct link *l, int32_t stream, enum reason why)
{
	struct h2_fields f = {.status = 0};
	link_refuse_with(l, stream, why, &f);
}

bool link_can_open(const struct link *l)
{
	return !l->dead && !l->retiring && !l->peer_closing && h2_can_connect(l->h2) && l->sessions_n < h2_max_streams(l->h2);
}

/* ---- input ---- */

static void deliver(struct link *l)
{
	while (!list_empty(&l->ready)) {
		struct rider *r = list_first(&l->ready, struct rider, ready_node);
		list_del(&r->ready_node);
		r->ev->deliver(r);
	}
}

static bool flooded(struct link *l)
{
	uint64_t leaked = (clock_ms() - l->flood_ms) * FLOOD_RATE / 1000;
	l->flood_ms = clock_ms();
	l->flood = leaked > l->flood ? 0 : l->flood - (uint32_t)leaked;
	l->flood += h2_take_glitches(l->h2);
	return l->flood > FLOOD_BURST;
}

static int die_of(struct link *l, enum reason why)
{
	if (!l->dead) {
		l->dead = true;
		l->ev->on_dead(l->owner, why);
	}
	return -1;
}

static _Thread_local uint64_t inputs;

uint64_t link_input_number(void)
{
	return inputs;
}

int link_input(struct link *l, const uint8_t *data, size_t len)
{
	if (l->dead)
		return -1;
	inputs++;
	l->heard_ms = clock_ms();
	int rv = h2_input(l->h2, data, len);
	deliver(l);
	if (rv != 0)
		return die_of(l, broken_for(l));
	if (flooded(l))
		return die_of(l, REASON_FLOOD);
	if (h2_wants_output(l->h2))
		link_touch(l);
	return l->dead ? -1 : 0;
}

/* ---- heartbeat ---- */

/* When something should have been heard, or else is to be asked for. One exchange an interval is enough for both sides: the hub waits a little longer,
 * if the timeout leaves it the time. */
static uint64_t beat_due(const struct link *l, uint64_t step)
{
	uint64_t now = clock_ms(), end = l->heard_ms + l->timeout_ms + 1;
	bool patient = l->hub && l->timeout_ms >= 2 * l->interval_ms;
	uint64_t due = l->heard_ms + l->interval_ms + (patient ? step : 0);
	if (due <= now)
		due = now + l->interval_ms;
	if (due > end)
		due = end;
	return due > now ? due : now + 1;
}

static void beat_in(struct link *l, uint64_t delay)
{
	l->beat_ms = clock_ms() + delay;
	timer_start(&l->beat, delay);
}

static void plan_beat(struct link *l)
{
	uint64_t step = l->interval_ms / BEAT_STEPS, due = beat_due(l, step), delay = due - clock_ms();
	if (step > 0 && delay > step)
		delay -= due % step;
	beat_in(l, delay);
}

/* A beat that comes this late means that the machine or this thread stood still, not the other side: what has come meanwhile is not read yet, and
 * who was stopped with us could say nothing. There is another interval for it. */
static void forgive(struct link *l)
{
	uint64_t now = clock_ms();
	if (now >= l->beat_ms + l->interval_ms && now - l->heard_ms >= l->timeout_ms)
		l->heard_ms = now + l->interval_ms - l->timeout_ms;
}

static void on_beat(struct timer *t)
{
	struct link *l = container_of(t, struct link, beat);
	forgive(l);
	uint64_t now = clock_ms(), silent = now - l->heard_ms;
	if (silent >= l->timeout_ms) {
		die_of(l, REASON_LINK_DEAD);
		return;
	}
	bool waiting = l->ping_sent > l->ping_answered;
	bool stale = now - l->rtt_at_ms >= (uint64_t)RTT_EVERY * l->interval_ms;
	if (!waiting && (silent + l->interval_ms / 8 >= l->interval_ms || stale)) {
		l->ping_wanted = l->ping_sent + 1;
		link_touch(l);
	}
	plan_beat(l);
}

void link_heartbeat(struct link *l, uint32_t interval_ms, uint32_t timeout_ms)
{
	l->interval_ms = interval_ms;
	l->timeout_ms = timeout_ms;
	l->heard_ms = clock_ms();
	beat_in(l, interval_ms);
}

/* ---- life ---- */

struct link *link_new(enum h2_role role, const struct link_events *ev, void *owner, uint32_t max_streams)
{
	struct link *l = mem_get(MEM_LINK, sizeof *l);
	if (!l)
		return NULL;
	l->ev = ev;
	l->owner = owner;
	l->hub = role == H2_HUB;
	l->heard_ms = l->flood_ms = clock_ms();
	list_init(&l->sessions);
	list_init(&l->tail);
	list_init(&l->ready);
	list_init(&l->credit);
	timer_init(&l->lazy, on_lazy);
	timer_init(&l->beat, on_beat);
	l->h2 = h2_new(role, &h2_link_events, l, max_streams);
	if (!l->h2) {
		mem_put(MEM_LINK, l);
		return NULL;
	}
	link_touch(l);
	return l;
}

static void park_all(struct link *l, struct list *from, struct list *parked)
{
	while (!list_empty(from)) {
		struct rider *r = list_first(from, struct rider, node);
		r->ev->park(r, parked);
	}
}

void link_down(struct link *l, enum reason why, struct list *parked)
{
	BUG_ON(!list_empty(&l->ready));
	l->dead = true;
	timer_stop(&l->lazy);
	timer_stop(&l->beat);
	park_all(l, &l->sessions, parked);
	park_all(l, &l->tail, parked);
}

static void stop_all(struct list *from, enum reason why)
{
	while (!list_empty(from)) {
		struct rider *r = list_first(from, struct rider, node);
		r->ev->stop(r, why);
	}
}

void link_stop(struct link *l, enum reason why)
{
	stop_all(&l->sessions, why);
	stop_all(&l->tail, why);
	l->retiring = true;
	h2_farewell(l->h2, reason_word(why));
	link_touch(l);
}

void link_free(struct link *l)
{
	BUG_ON(!list_empty(&l->sessions) || !list_empty(&l->tail));
	timer_stop(&l->lazy);
	timer_stop(&l->beat);
	h2_free(l->h2);
	mem_put(MEM_LINK, l);
}

void link_set_peer(struct link *l, const uint8_t instance[16])
{
	memcpy(l->peer, instance, sizeof l->peer);
}

const uint8_t *link_peer(const struct link *l)
{
	return l->peer;
}

bool link_stream_open(const struct link *l, int32_t stream)
{
	return !l->dead && h2_stream_open(l->h2, stream);
}

void link_leave(struct link *l)
{
	timer_stop(&l->lazy);
	timer_stop(&l->beat);
}

void link_arrive(struct link *l)
{
	if (l->interval_ms)
		plan_beat(l);
	l->touched = false;
	link_touch(l);
}

void link_rtt_to(struct link *l, atomic_uint *place)
{
	l->rtt_place = place;
	if (l->rtt_us)
		atomic_store_explicit(place, l->rtt_us, memory_order_relaxed);
}

uint32_t link_rtt_us(const struct link *l)
{
	return l->rtt_us;
}

uint32_t link_rtt_least_us(const struct link *l)
{
	return l->rtt_least_us;
}

size_t link_sessions(const struct link *l)
{
	return l->sessions_n;
}

bool link_idle(const struct link *l)
{
	return list_empty(&l->sessions) && list_empty(&l->tail) && !link_wants_output(l);
}

/* ---- for sessions ---- */

struct h2 *link_h2(struct link *l)
{
	return l->h2;
}

void link_join(struct link *l, struct rider *r)
{
	list_add(&l->sessions, &r->node);
	l->sessions_n++;
	if (l->ping_sent == 0)
		l->ping_wanted = 1; /* sessions judge by the round trip how much memory they need: the first one has it measured */
}

void link_strand(struct link *l, struct rider *r)
{
	if (l->ev->on_strand)
		l->ev->on_strand(l->owner, &r->node);
}

void link_join_tail(struct link *l, struct rider *r)
{
	list_add(&l->tail, &r->node);
	l->sessions_n++;
}

void link_part(struct link *l, struct rider *r)
{
	list_del(&r->node);
	l->sessions_n--;
}

struct list *link_ready(struct link *l)
{
	return &l->ready;
}

struct list *link_credit(struct link *l)
{
	return &l->credit;
}
