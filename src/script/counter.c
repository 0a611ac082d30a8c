/* Counters of scripts. Owns all of them, by name, and their keys: in parts, each with a lock, a map and a list in the order in which keys were last counted,
 * so that expiry and making room take what stands first. Nothing is done while nobody counts. Does not know what is counted. */
#include "mctunnel/script/counter.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 16
#define EXPIRE_AT_ONCE 4 /* keys that are looked at for their age with each one that is counted */

struct window {
	uint64_t began_ms;
	double now, before; /* counted in this period, and in the one before */
};

struct key {
	struct list node; /* the one counted longest ago is first */
	uint64_t counted_ms;
	int64_t value;
	struct window windows[COUNTER_PERIODS];
	uint32_t len;
	char text[];
};

struct part {
	pthread_mutex_t lock;
	struct map *keys; /* struct key, owned */
	struct list order;
} __attribute__((aligned(64)));

struct counter {
	struct counter *next;
	unsigned refs;
	char *name; /* owned */
	atomic_uint_fast64_t expire_ms;
	atomic_uint size;
	_Atomic uint64_t periods[COUNTER_PERIODS]; /* ms; 0: free */
	atomic_size_t count;
	struct part parts[PARTS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for the list, names, refs, and for adding a period */
static struct counter *counters;

/* ---- counters ---- */

static struct counter *counter_new(const char *name)
{
	struct counter *c = aligned_alloc(64, sizeof(*c));

	if (!c)
		die("out of memory");
	memset(c, 0, sizeof(*c));
	c->name = xstrdup(name);
	for (int i = 0; i < PARTS; i++) {
		pthread_mutex_init(&c->parts[i].lock, NULL);
		c->parts[i].keys = map_new();
		list_init(&c->parts[i].order);
	}
	c->next = counters;
	counters = c;
	return c;
}

struct counter *counter_get(const char *name, uint32_t size, uint64_t expire_ms)
{
	struct counter *c;

	pthread_mutex_lock(&lock);
	for (c = counters; c && strcmp(c->name, name) != 0; c = c->next)
		;
	if (!c)
		c = counter_new(name);
	c->refs++;
	atomic_store(&c->size, size);
	atomic_store(&c->expire_ms, expire_ms);
	pthread_mutex_unlock(&lock);
	return c;
}

static void forget(struct counter *c, struct part *p, struct key *k)
{
	map_del(p->keys, k->text, k->len);
	list_del(&k->node);
	free(k);
	atomic_fetch_sub(&c->count, 1);
}

static void counter_free(struct counter *c)
{
	for (int i = 0; i < PARTS; i++) {
		struct part *p = &c->parts[i];

		while (!list_empty(&p->order))
			forget(c, p, list_first(&p->order, struct key, node));
		map_free(p->keys);
		pthread_mutex_destroy(&p->lock);
	}
	free(c->name);
	free(c);
}

void counter_put(struct counter *c)
{
	struct counter **at = &counters;
	bool last;

	pthread_mutex_lock(&lock);
	last = --c->refs == 0;
	while (last && *at != c)
		at = &(*at)->next;
	if (last)
		*at = c->next;
	pthread_mutex_unlock(&lock);
	if (last)
		counter_free(c);
}

/* ---- windows ---- */

/* Each thread has its own idea of now; they differ by a turn of the loop. */
static uint64_t since(uint64_t then, uint64_t now)
{
	return now > then ? now - then : 0;
}

static void window_turn(struct window *w, uint64_t now, uint64_t period)
{
	uint64_t age = since(w->began_ms, now);

	if (!w->began_ms) { /* the first one begins with the first count */
		w->began_ms = now;
		return;
	}
	if (age < period)
		return;
	w->before = age < 2 * period ? w->now : 0;
	w->now = 0;
	w->began_ms = now - age % period;
}

static double window_rate(struct window *w, uint64_t now, uint64_t period)
{
	window_turn(w, now, period);
	return w->now + w->before * (double)(period - since(w->began_ms, now)) / (double)period;
}

static void count_windows(struct counter *c, struct key *k, uint64_t now, int64_t n)
{
	for (int i = 0; i < COUNTER_PERIODS; i++) {
		uint64_t period = atomic_load_explicit(&c->periods[i], memory_order_relaxed);

		if (!period)
			return;
		window_turn(&k->windows[i], now, period);
		k->windows[i].now += (double)n;
	}
}

/* -1: all places are taken by others. */
static int period_index(struct counter *c, uint64_t period_ms)
{
	int found = -1;

	for (int i = 0; i < COUNTER_PERIODS; i++) {
		if (atomic_load_explicit(&c->periods[i], memory_order_relaxed) == period_ms)
			return i;
	}
	pthread_mutex_lock(&lock);
	for (int i = 0; i < COUNTER_PERIODS && found < 0; i++) {
		uint64_t there = atomic_load(&c->periods[i]);

		if (there == 0)
			atomic_store(&c->periods[i], period_ms);
		if (there == 0 || there == period_ms)
			found = i;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

/* ---- keys; under the part's lock ---- */

static struct part *part_of(struct counter *c, const char *key, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)key[i]) * 16777619u;
	return &c->parts[(h ^ h >> 16) % PARTS];
}

static bool expired(struct counter *c, const struct key *k, uint64_t now)
{
	uint64_t expire = atomic_load_explicit(&c->expire_ms, memory_order_relaxed);

	return expire && since(k->counted_ms, now) >= expire;
}

static struct key *key_find(struct counter *c, struct part *p, const char *key, size_t len)
{
	struct key *k = map_get(p->keys, key, len);

	if (!k || !expired(c, k, clock_ms()))
		return k;
	forget(c, p, k);
	return NULL;
}

/* Each part has its share of the room. */
static void make_room(struct counter *c, struct part *p, uint64_t now)
{
	size_t most = atomic_load_explicit(&c->size, memory_order_relaxed) / PARTS + 1;

	for (int i = 0; !list_empty(&p->order); i++) {
		struct key *oldest = list_first(&p->order, struct key, node);

		if (map_count(p->keys) < most && (i >= EXPIRE_AT_ONCE || !expired(c, oldest, now)))
			return;
		forget(c, p, oldest);
	}
}

static struct key *key_new(struct counter *c, struct part *p, const char *key, size_t len)
{
	struct key *k;

	make_room(c, p, clock_ms());
	k = calloc(1, sizeof(*k) + len + 1);
	if (!k)
		return NULL;
	memcpy(k->text, key, len);
	k->len = (uint32_t)len;
	list_init(&k->node);
	map_set(p->keys, k->text, len, k);
	atomic_fetch_add(&c->count, 1);
	return k;
}

bool counter_add(struct counter *c, const char *key, size_t len, int64_t n, int64_t *sum)
{
	struct part *p = part_of(c, key, len);
	uint64_t now = clock_ms();
	struct key *k;

	pthread_mutex_lock(&p->lock);
	k = key_find(c, p, key, len);
	if (!k)
		k = key_new(c, p, key, len);
	if (k) {
		if (__builtin_add_overflow(k->value, n, &k->value))
			k->value = n < 0 ? INT64_MIN : INT64_MAX;
		*sum = k->value;
		count_windows(c, k, now, n);
		k->counted_ms = now;
		list_del(&k->node);
		list_add(&p->order, &k->node);
	}
	pthread_mutex_unlock(&p->lock);
	return k != NULL;
}

int64_t counter_value(struct counter *c, const char *key, size_t len)
{
	struct part *p = part_of(c, key, len);
	int64_t value;
	struct key *k;

	pthread_mutex_lock(&p->lock);
	k = key_find(c, p, key, len);
	value = k ? k->value : 0;
	pthread_mutex_unlock(&p->lock);
	return value;
}

bool counter_rate(struct counter *c, const char *key, size_t len, uint64_t period_ms, double *rate)
{
	struct part *p = part_of(c, key, len);
	int i = period_index(c, period_ms);
	struct key *k;

	*rate = 0;
	if (i < 0)
		return false;
	pthread_mutex_lock(&p->lock);
	k = key_find(c, p, key, len);
	if (k)
		*rate = window_rate(&k->windows[i], clock_ms(), period_ms);
	pthread_mutex_unlock(&p->lock);
	return true;
}

size_t counter_keys(const struct counter *c)
{
	return atomic_load(&c->count);
}
