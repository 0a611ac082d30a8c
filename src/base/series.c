/* Metrics with labels. Owns families, their series, each series' parts (one a thread that ever counted there) and each thread's map from label values to
 * its parts. Nothing is ever freed: what an ended thread has counted still counts, and a reader needs no lock; the limit
 * bounds it. It does not know who counts what, nor how the figures are shown. */
#include "mctunnel/base/series.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LABELS_MAX 8
#define KEY_MAX 640
#define DROPPED_BITS 8192
#define LIMIT_DEFAULT 1000

/* Counters use the first figure; histograms all. Lines of cache of its own. */
struct series {
	_Atomic uint64_t sum, bucket[SERIES_BUCKETS + 1];
	bool histogram;
	struct series *next; /* older parts */
} __attribute__((aligned(64)));

struct member {
	const char *labels; /* owned */
	struct series *_Atomic parts;
	struct member *_Atomic next; /* newer ones */
};

static struct family_state {
	struct map *members; /* owned: by label values */
	struct member *_Atomic first;
	struct member *last, *other;
	size_t count;
	atomic_size_t dropped;
	uint8_t seen[DROPPED_BITS / 8]; /* hashes of what was dropped */
} families[FAMILY_COUNT];

/* A thread's parts; kept reachable when it has ended. */
struct cache {
	struct map *parts; /* owned: by family and label values */
	struct cache *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for families and caches, but not for counting and reading */
static struct cache *caches;
static _Thread_local struct map *own;
static atomic_size_t limit = LIMIT_DEFAULT;

const struct family_row family_rows[FAMILY_COUNT] = {
#define FAMILY_ROW(id, kind, metric, label_names, text) \
	[FAMILY_##id] = { .name = metric, .labels = label_names, .help = text, .type = SERIES_##kind },
	FAMILIES(FAMILY_ROW)
#undef FAMILY_ROW
};

const uint32_t series_bucket_ms[SERIES_BUCKETS] = { 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000 };

/* ---- labels ---- */

void series_escape(char *out, size_t size, const char *value)
{
	size_t at = 0;

	for (const char *s = value; *s;) {
		size_t len = str_utf8(s);
		const char *put = len ? s : "\xef\xbf\xbd";
		size_t put_len = len ? len : 3;
		bool escape = *s == '"' || *s == '\\' || *s == '\n';

		if (at + put_len + escape >= size)
			break;
		if (escape)
			out[at++] = '\\';
		if (*s == '\n')
			put = "n";
		memcpy(out + at, put, put_len);
		at += put_len;
		s += len ? len : 1;
	}
	out[at] = '\0';
}

static size_t labels_n(enum family f)
{
	const char *text = family_rows[f].labels;
	size_t n = *text ? 1 : 0;

	for (; *text; text++)
		n += *text == ' ';
	return n;
}

/* values NULL: all of them "other". */
static char *labels_text(enum family f, const char *const *values)
{
	const char *name = family_rows[f].labels;
	char text[KEY_MAX * LABELS_MAX], value[KEY_MAX];
	struct strbuf b;

	strbuf_init(&b, text, sizeof(text));
	for (size_t i = 0; *name; i++) {
		size_t len = strcspn(name, " ");

		series_escape(value, sizeof(value), values ? (values[i] ? values[i] : "") : "other");
		strbuf_add(&b, "%s%.*s=\"%s\"", i ? "," : "", (int)len, name, value);
		name += len + (name[len] == ' ');
	}
	return xstrdup(text);
}

/* The family's number, then the values, each with its NUL; the last may be cut. */
static size_t make_key(char key[KEY_MAX], enum family f, size_t n, const char *const *values)
{
	size_t len = 1;

	key[0] = (char)f;
	for (size_t i = 0; i < n; i++) {
		size_t room = (KEY_MAX - 1) / (n ? n : 1);

		str_copy(key + len, room, values[i] ? values[i] : "");
		len += strlen(key + len) + 1;
	}
	return len;
}

/* ---- making; under the lock ---- */

static struct member *member_add(struct family_state *s, enum family f, const char *const *values)
{
	struct member *m = xcalloc(1, sizeof(*m));

	m->labels = labels_text(f, values);
	if (s->last)
		atomic_store_explicit(&s->last->next, m, memory_order_release);
	else
		atomic_store_explicit(&s->first, m, memory_order_release);
	s->last = m;
	s->count++;
	return m;
}

static void note_dropped(struct family_state *s, const char *key, size_t len)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)key[i]) * 0x100000001b3u;
	h = (h ^ h >> 32) % DROPPED_BITS;
	if (s->seen[h / 8] & 1u << h % 8)
		return;
	s->seen[h / 8] |= (uint8_t)(1u << h % 8);
	atomic_fetch_add(&s->dropped, 1);
}

static struct member *member_get(enum family f, const char *key, size_t len, const char *const *values, bool *dropped)
{
	struct family_state *s = &families[f];
	struct member *m;

	if (!s->members)
		s->members = map_new();
	m = map_get(s->members, key, len);
	*dropped = !m && s->count >= atomic_load(&limit);
	if (!m && !*dropped) {
		m = member_add(s, f, values);
		map_set(s->members, key, len, m);
	}
	if (m)
		return m;
	note_dropped(s, key, len);
	if (!s->other)
		s->other = member_add(s, f, NULL);
	return s->other;
}

static struct series *part_new(struct member *m, enum family f)
{
	struct series *p = aligned_alloc(64, sizeof(*p));

	if (!p)
		die("out of memory");
	memset(p, 0, sizeof(*p));
	p->histogram = family_rows[f].type == SERIES_HISTOGRAM;
	p->next = atomic_load_explicit(&m->parts, memory_order_relaxed);
	atomic_store_explicit(&m->parts, p, memory_order_release);
	return p;
}

static void make_own(void)
{
	struct cache *c = xcalloc(1, sizeof(*c));

	own = c->parts = map_new();
	c->next = caches;
	caches = c;
}

/* The part of what was dropped is one of the shared "other" series, found under a key of its own, so that the map stays small. */
static struct series *part_get(enum family f, const char *key, size_t len, const char *const *values)
{
	char other = (char)f;
	bool dropped;
	struct member *m = member_get(f, key, len, values, &dropped);
	struct series *p = dropped ? map_get(own, &other, sizeof(other)) : NULL;

	if (p)
		return p;
	p = part_new(m, f);
	if (dropped)
		map_set(own, &other, sizeof(other), p);
	else
		map_set(own, key, len, p);
	return p;
}

struct series *series_get(enum family f, size_t n, const char *const *values)
{
	char key[KEY_MAX];
	size_t len = make_key(key, f, n, values);
	struct series *p = own ? map_get(own, key, len) : NULL;

	if (p)
		return p;
	BUG_ON(n != labels_n(f) || n > LABELS_MAX);
	pthread_mutex_lock(&lock);
	if (!own)
		make_own();
	p = part_get(f, key, len, values);
	pthread_mutex_unlock(&lock);
	return p;
}

/* ---- counting ---- */

/* Mostly by its own thread, but a session that moved brings its series along. */
void series_add(struct series *s, uint64_t n)
{
	atomic_fetch_add_explicit(&s->sum, n, memory_order_relaxed);
}

void series_observe_us(struct series *s, uint64_t us)
{
	int i = 0;

	BUG_ON(!s->histogram);
	while (i < SERIES_BUCKETS && us > (uint64_t)series_bucket_ms[i] * 1000)
		i++;
	atomic_fetch_add_explicit(&s->bucket[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->sum, us, memory_order_relaxed);
}

/* ---- reading ---- */

void series_limit(size_t max)
{
	atomic_store(&limit, max);
}

size_t series_max(void)
{
	return atomic_load(&limit);
}

size_t series_dropped(enum family f)
{
	return atomic_load(&families[f].dropped);
}

static void read_parts(const struct member *m, bool histogram, struct series_view *out)
{
	for (struct series *p = atomic_load_explicit(&m->parts, memory_order_acquire); p; p = p->next) {
		out->sum_us += atomic_load_explicit(&p->sum, memory_order_relaxed);
		for (int i = 0; i <= SERIES_BUCKETS && histogram; i++) {
			uint64_t n = atomic_load_explicit(&p->bucket[i], memory_order_relaxed);

			out->bucket[i] += n;
			out->value += n;
		}
	}
	if (!histogram)
		out->value = out->sum_us;
}

bool series_next(enum family f, const void **cursor, struct series_view *out)
{
	const struct member *before = *cursor;
	const struct member *m = before ? atomic_load_explicit(&before->next, memory_order_acquire) :
					  atomic_load_explicit(&families[f].first, memory_order_acquire);

	if (!m)
		return false;
	*cursor = m;
	*out = (struct series_view){ .labels = m->labels };
	read_parts(m, family_rows[f].type == SERIES_HISTOGRAM, out);
	return true;
}
