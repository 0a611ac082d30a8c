/* Hash map: linear probing in a table of a power of two, at most three quarters full. Deleting moves the
 * followers back, so there are no tombstones and the table never decays. Keys up to 16 bytes (session ids) lie in the
 * table itself. The hash is SipHash-1-3 under a key of the process: keys come from peers. */
#include "mctunnel/base/map.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE_KEY 16
#define CAP_MIN 16

struct entry {
	void *value; /* borrowed; NULL: free place */
	uint32_t hash, len;
	union {
		unsigned char bytes[INLINE_KEY];
		void *copy; /* owned */
	} key;
};

struct map {
	struct entry *table; /* owned */
	size_t cap, count;
};

static uint64_t process_key[2];
static pthread_once_t key_made = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	rnd_bytes(process_key, sizeof(process_key));
}

static uint64_t rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static void sip_rounds(uint64_t v[4], int n)
{
	while (n-- > 0) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

static uint64_t little_endian(const unsigned char *p, size_t len)
{
	uint64_t word = 0;

	for (size_t i = 0; i < len; i++)
		word |= (uint64_t)p[i] << (8 * i);
	return word;
}

static void sip_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_rounds(v, 1);
	v[0] ^= word;
}

static uint64_t siphash13(const uint64_t key[2], const void *data, size_t len)
{
	uint64_t v[4] = { key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
			  key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573) };
	const unsigned char *p = data;
	size_t left = len;

	for (; left >= 8; p += 8, left -= 8)
		sip_word(v, little_endian(p, 8));
	sip_word(v, little_endian(p, left) | (uint64_t)(len & 255) << 56);
	v[2] ^= 255;
	sip_rounds(v, 3);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static const void *key_of(const struct entry *e)
{
	return e->len <= INLINE_KEY ? e->key.bytes : e->key.copy;
}

static void put_key(struct entry *e, const void *key, size_t len)
{
	void *place = e->key.bytes;

	e->len = (uint32_t)len;
	if (len > INLINE_KEY)
		place = e->key.copy = xmalloc(len);
	if (len > 0)
		memcpy(place, key, len);
}

static void drop_key(struct entry *e)
{
	if (e->len > INLINE_KEY)
		free(e->key.copy);
}

struct map *map_new(void)
{
	struct map *m = xmalloc(sizeof(*m));

	pthread_once(&key_made, make_key);
	m->cap = CAP_MIN;
	m->count = 0;
	m->table = xcalloc(m->cap, sizeof(*m->table));
	return m;
}

void map_free(struct map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->cap; i++)
		if (m->table[i].value)
			drop_key(&m->table[i]);
	free(m->table);
	free(m);
}

static uint32_t hash_key(const void *key, size_t len)
{
	BUG_ON(len > UINT32_MAX);
	return (uint32_t)siphash13(process_key, key, len);
}

/* The key's place, or the free one where it would go. */
static struct entry *find(const struct map *m, const void *key, size_t len, uint32_t hash)
{
	size_t i = hash & (m->cap - 1);

	for (;; i = (i + 1) & (m->cap - 1)) {
		struct entry *e = &m->table[i];

		if (!e->value)
			return e;
		if (e->hash == hash && e->len == len && (len == 0 || memcmp(key_of(e), key, len) == 0))
			return e;
	}
}

static bool resize(struct map *m, size_t cap)
{
	struct entry *table = calloc(cap, sizeof(*table));

	if (!table)
		return false;
	for (size_t i = 0; i < m->cap; i++) {
		size_t at = m->table[i].hash & (cap - 1);

		if (!m->table[i].value)
			continue;
		while (table[at].value)
			at = (at + 1) & (cap - 1);
		table[at] = m->table[i];
	}
	free(m->table);
	m->table = table;
	m->cap = cap;
	return true;
}

void *map_get(const struct map *m, const void *key, size_t len)
{
	return find(m, key, len, hash_key(key, len))->value;
}

void *map_set(struct map *m, const void *key, size_t len, void *value)
{
	uint32_t hash = hash_key(key, len);
	struct entry *e = find(m, key, len, hash);
	void *before = e->value;

	BUG_ON(!value);
	if (!before && (m->count + 1) * 4 > m->cap * 3) {
		if (!resize(m, m->cap * 2))
			die("out of memory");
		e = find(m, key, len, hash);
	}
	if (!before) {
		put_key(e, key, len);
		e->hash = hash;
		m->count++;
	}
	e->value = value;
	return before;
}

/* Whoever was pushed past the gap comes back into it, and leaves the next gap. */
static void close_gap(struct map *m, size_t gap)
{
	size_t mask = m->cap - 1;

	for (size_t i = (gap + 1) & mask; m->table[i].value; i = (i + 1) & mask) {
		size_t home = m->table[i].hash & mask;

		if (((i - home) & mask) < ((i - gap) & mask))
			continue;
		m->table[gap] = m->table[i];
		gap = i;
	}
	memset(&m->table[gap], 0, sizeof(m->table[gap]));
}

void *map_del(struct map *m, const void *key, size_t len)
{
	struct entry *e = find(m, key, len, hash_key(key, len));
	void *value = e->value;

	if (!value)
		return NULL;
	drop_key(e);
	close_gap(m, (size_t)(e - m->table));
	m->count--;
	if (m->cap > CAP_MIN && m->count * 8 < m->cap)
		resize(m, m->cap / 2); /* it may fail: the larger table serves as well */
	return value;
}

size_t map_count(const struct map *m)
{
	return m->count;
}

void *map_get_str(const struct map *m, const char *key)
{
	return map_get(m, key, strlen(key));
}

void *map_set_str(struct map *m, const char *key, void *value)
{
	return map_set(m, key, strlen(key), value);
}

void *map_del_str(struct map *m, const char *key)
{
	return map_del(m, key, strlen(key));
}

void *map_next(const struct map *m, size_t *pos)
{
	while (*pos < m->cap) {
		void *value = m->table[(*pos)++].value;

		if (value)
			return value;
	}
	return NULL;
}
