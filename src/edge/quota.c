/* The table of client addresses of one listener, in shards with a lock each. An address is in the list of the quiet ones while none of its sessions is there; from its
 * head it is forgotten, after a while or because a new one needs the place. An address with sessions is never forgotten, so that none has more than it may;
 * when only such are left, further ones go unlimited, and the table stays bounded.
 * Does not know what happens to a client over its limit. */
#include "mctunnel/edge/quota.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS 16
#define QUIET_MS 10000 /* longer than a rate looks back */
#define SWEEP 2        /* that are forgotten at a time, so that no call takes long */
#define SECOND_NS UINT64_C(1000000000)
#define MILLI_NS UINT64_C(1000000)

struct visitor {
	struct list node; /* of the quiet ones, or in none */
	uint8_t key[17];  /* family, masked address */
	uint32_t sessions;
	uint64_t quiet_ms; /* since when */
	uint64_t due_ns;   /* when the next session is due at an even rate */
};

struct shard {
	pthread_mutex_t lock;
	struct map *visitors; /* owned, by key; owns the visitors */
	struct list quiet;
};

struct quota {
	struct shard shards[SHARDS];
};

struct quota *quota_new(void)
{
	struct quota *q = xcalloc(1, sizeof(*q));

	for (int i = 0; i < SHARDS; i++) {
		pthread_mutex_init(&q->shards[i].lock, NULL);
		q->shards[i].visitors = map_new();
		list_init(&q->shards[i].quiet);
	}
	return q;
}

static void forget(struct shard *s, struct visitor *v)
{
	list_del(&v->node);
	map_del(s->visitors, v->key, sizeof(v->key));
	free(v);
}

void quota_free(struct quota *q)
{
	if (!q)
		return;
	for (int i = 0; i < SHARDS; i++) {
		struct shard *s = &q->shards[i];

		list_for_each_safe(n, &s->quiet)
			forget(s, container_of(n, struct visitor, node));
		map_free(s->visitors);
		pthread_mutex_destroy(&s->lock);
	}
	free(q);
}

static void mask(uint8_t *bytes, size_t len, uint32_t bits)
{
	for (size_t i = 0; i < len; i++) {
		uint32_t left = bits > i * 8 ? bits - (uint32_t)i * 8 : 0;

		if (left < 8)
			bytes[i] &= (uint8_t)(0xff00 >> left);
	}
}

/* false: no address that has limits. */
static bool key_of(uint8_t key[17], const struct conf_limits *l, const struct addr *a)
{
	const uint8_t *v6 = a->u.in6.sin6_addr.s6_addr;
	bool mapped = a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->u.in6.sin6_addr);

	memset(key, 0, 17);
	if (a->len == 0 || (a->u.sa.sa_family != AF_INET && a->u.sa.sa_family != AF_INET6))
		return false;
	if (a->u.sa.sa_family == AF_INET6 && !mapped) {
		key[0] = 6;
		memcpy(key + 1, v6, 16);
		mask(key + 1, 16, l->client_prefix6);
		return true;
	}
	key[0] = 4;
	memcpy(key + 1, mapped ? (const void *)(v6 + 12) : (const void *)&a->u.in4.sin_addr, 4);
	mask(key + 1, 4, l->client_prefix4);
	return true;
}

static struct shard *shard_of(struct quota *q, const uint8_t key[17])
{
	uint32_t h = 2166136261u;

	for (int i = 0; i < 17; i++)
		h = (h ^ key[i]) * 16777619u;
	return &q->shards[(h ^ h >> 16) % SHARDS];
}

static void sweep(struct shard *s)
{
	for (int i = 0; i < SWEEP && !list_empty(&s->quiet); i++) {
		struct visitor *v = list_first(&s->quiet, struct visitor, node);

		if (clock_ms() - v->quiet_ms < QUIET_MS)
			return;
		forget(s, v);
	}
}

/* OK with NULL: no room. */
static enum quota_result visitor_new(struct shard *s, const uint8_t key[17], uint32_t max, struct visitor **out)
{
	struct visitor *v;

	*out = NULL;
	if (map_count(s->visitors) >= (max + SHARDS - 1) / SHARDS) {
		if (list_empty(&s->quiet))
			return QUOTA_OK;
		forget(s, list_first(&s->quiet, struct visitor, node));
	}
	v = calloc(1, sizeof(*v));
	if (!v)
		return QUOTA_RESOURCES;
	list_init(&v->node);
	memcpy(v->key, key, sizeof(v->key));
	map_set(s->visitors, v->key, sizeof(v->key), v);
	*out = v;
	return QUOTA_OK;
}

/* 0: it may, and counts; else the milliseconds until then. A second's worth may come at once. */
static uint64_t take_rate(struct visitor *v, uint32_t rate)
{
	uint64_t now = clock_us() * 1000, interval, ahead;

	if (rate == 0)
		return 0;
	interval = SECOND_NS / rate;
	ahead = SECOND_NS - interval;
	if (v->due_ns > now + ahead)
		return (v->due_ns - now - ahead + MILLI_NS - 1) / MILLI_NS;
	v->due_ns = (v->due_ns > now ? v->due_ns : now) + interval;
	return 0;
}

static enum quota_result enter(struct visitor *v, const struct conf_limits *l, uint64_t *wait_ms)
{
	if (l->client_sessions && v->sessions >= l->client_sessions)
		return QUOTA_SESSIONS;
	*wait_ms = take_rate(v, l->client_rate);
	if (*wait_ms)
		return QUOTA_RATE;
	v->sessions++;
	return QUOTA_OK;
}

static void settle(struct shard *s, struct visitor *v)
{
	list_del(&v->node);
	if (v->sessions)
		return;
	v->quiet_ms = clock_ms();
	list_add(&s->quiet, &v->node);
}

enum quota_result quota_enter(struct quota *q, const struct conf_limits *l, const struct addr *client, struct visitor **out, uint64_t *wait_ms)
{
	enum quota_result result = QUOTA_OK;
	struct visitor *v;
	struct shard *s;
	uint8_t key[17];

	*out = NULL;
	if ((l->client_sessions == 0 && l->client_rate == 0) || !key_of(key, l, client))
		return QUOTA_OK;
	s = shard_of(q, key);
	pthread_mutex_lock(&s->lock);
	sweep(s);
	v = map_get(s->visitors, key, sizeof(key));
	if (!v)
		result = visitor_new(s, key, l->clients, &v);
	if (v) {
		result = enter(v, l, wait_ms);
		settle(s, v);
		*out = result == QUOTA_OK ? v : NULL;
	}
	pthread_mutex_unlock(&s->lock);
	return result;
}

enum quota_result quota_again(struct quota *q, const struct conf_limits *l, struct visitor *v, uint64_t *wait_ms)
{
	struct shard *s;

	if (!v)
		return QUOTA_OK;
	s = shard_of(q, v->key);
	pthread_mutex_lock(&s->lock);
	*wait_ms = take_rate(v, l->client_rate);
	pthread_mutex_unlock(&s->lock);
	return *wait_ms ? QUOTA_RATE : QUOTA_OK;
}

void quota_leave(struct quota *q, struct visitor *v)
{
	struct shard *s;

	if (!v)
		return;
	s = shard_of(q, v->key);
	pthread_mutex_lock(&s->lock);
	v->sessions--;
	settle(s, v);
	pthread_mutex_unlock(&s->lock);
}

size_t quota_visitors(struct quota *q)
{
	size_t n = 0;

	for (int i = 0; i < SHARDS; i++) {
		pthread_mutex_lock(&q->shards[i].lock);
		n += map_count(q->shards[i].visitors);
		pthread_mutex_unlock(&q->shards[i].lock);
	}
	return n;
}
