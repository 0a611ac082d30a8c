/* Pools. Each object has a header in front, which links it while it is not in use and tells double
 * and foreign puts; the object itself stays untouched until it is handed out again. A thread owns
 * its graveyard (put in this turn) and its free lists (put before); the counts of objects in use
 * and the limits are the process's. What the objects are is not known here. */
#define _GNU_SOURCE
#include "mctunnel/base/mem.h"

#include "mctunnel/base/bug.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define KEEP_BYTES_DEFAULT 0u
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define KEEP_BYTES_DEFAULT (8u << 20)
#endif
#ifndef KEEP_BYTES
#define KEEP_BYTES KEEP_BYTES_DEFAULT
#endif
#define KEEP_OBJECTS 4096
#define TRIM_BYTES (4u << 20)
#define BALLAST_BYTES (2u << 20)

enum { IN_USE = 0x4d43, PUT = 0x7075, FREE = 0x6672 };

struct head {
	struct head *next;
	uint32_t size;
	uint16_t kind, state;
};
_Static_assert(sizeof(struct head) == 16, "keeps malloc's alignment");

/* A line of cache each, so that kinds do not disturb one another. */
static struct kind {
	_Atomic size_t size, used, limit, kept;
	_Atomic uint64_t failed;
} __attribute__((aligned(64))) kinds[MEM_KIND_COUNT];

static const struct {
	const char *name, *help;
} names[MEM_KIND_COUNT] = {
#define MEM_NAME(id, name, help) [MEM_##id] = { name, help },
	MEM_KINDS(MEM_NAME)
#undef MEM_NAME
};

static _Thread_local struct {
	struct head *grave; /* owned, of all kinds */
	struct {
		struct head *free; /* owned */
		size_t count, least, told; /* now; the fewest since mem_relax(); what it has told the others */
	} kept[MEM_KIND_COUNT];
	size_t freed; /* bytes, since mem_relax() */
} pool;

static _Atomic size_t freed; /* bytes, since mem_trim() */

static void fix_size(enum mem_kind kind, size_t size)
{
	size_t none = 0;

	if (atomic_load_explicit(&kinds[kind].size, memory_order_relaxed) == size)
		return;
	BUG_ON(size == 0 || size > UINT32_MAX);
	if (kind == MEM_OTHER)
		return;
	if (!atomic_compare_exchange_strong(&kinds[kind].size, &none, size))
		BUG_ON(none != size);
}

/* Counts first and looks then, so that threads together never exceed the limit. */
static bool admit(struct kind *k)
{
	size_t before = atomic_fetch_add_explicit(&k->used, 1, memory_order_relaxed);
	size_t limit = atomic_load_explicit(&k->limit, memory_order_relaxed);

	return limit == 0 || before < limit;
}

/* The ballast: dropped when the system refuses memory, so that admin socket and metrics have some, and taken up again when there is
 * enough. Never touched, so that it is address space only. */
static _Atomic(void *) ballast; /* owned */
static atomic_bool without;

/* false: it was given up before. */
static bool drop_ballast(void)
{
	void *p = atomic_exchange(&ballast, NULL);

	atomic_store(&without, true);
	if (p)
		munmap(p, BALLAST_BYTES);
	return p;
}

/* Not by malloc, which would keep it for one of its arenas. Something must be left when it is there: twice as much is asked for. */
void mem_ballast(void)
{
	void *none = NULL, *p;

	if (atomic_load(&ballast))
		return;
	p = mmap(NULL, 2 * BALLAST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return;
	munmap((char *)p + BALLAST_BYTES, BALLAST_BYTES);
	if (!atomic_compare_exchange_strong(&ballast, &none, p))
		munmap(p, BALLAST_BYTES);
	atomic_store(&without, false);
}

bool mem_short(void)
{
	return atomic_load_explicit(&without, memory_order_relaxed);
}

static void *refuse(struct kind *k)
{
	atomic_fetch_sub_explicit(&k->used, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&k->failed, 1, memory_order_relaxed);
	return NULL;
}

static bool is_data(enum mem_kind kind)
{
	return kind == MEM_CHUNK || kind == MEM_MORSEL;
}

static struct head *from_system(enum mem_kind kind, size_t size)
{
	size_t all = sizeof(struct head) + size;
	struct head *h = !is_data(kind) ? calloc(1, all) : malloc(all);

	if (!h) {
		drop_ballast();
		return NULL;
	}
	h->size = (uint32_t)size;
	h->kind = (uint16_t)kind;
	return h;
}

static struct head *from_kept(enum mem_kind kind)
{
	struct head *h = pool.kept[kind].free;

	if (!h)
		return NULL;
	BUG_ON(h->state != FREE || h->kind != kind);
	pool.kept[kind].free = h->next;
	pool.kept[kind].count--;
	if (pool.kept[kind].count < pool.kept[kind].least)
		pool.kept[kind].least = pool.kept[kind].count;
	if (!is_data(kind))
		memset(h + 1, 0, h->size);
	return h;
}

void *mem_get(enum mem_kind kind, size_t size)
{
	struct kind *k = &kinds[kind];
	struct head *h;

	fix_size(kind, size);
	if (!admit(k))
		return refuse(k);
	h = from_kept(kind);
	if (!h && is_data(kind) && mem_short())
		mem_ballast();
	if (!h && !(is_data(kind) && mem_short()))
		h = from_system(kind, size);
	if (!h)
		return refuse(k);
	h->state = IN_USE;
	return h + 1;
}

void mem_put(enum mem_kind kind, void *obj)
{
	struct head *h;

	if (!obj)
		return;
	h = (struct head *)obj - 1;
	BUG_ON(h->state != IN_USE || h->kind != kind);
	h->state = PUT;
	h->next = pool.grave;
	pool.grave = h;
	atomic_fetch_sub_explicit(&kinds[kind].used, 1, memory_order_relaxed);
	ASAN_POISON_MEMORY_REGION(obj, h->size);
}

static bool worth_keeping(const struct head *h)
{
	size_t count = pool.kept[h->kind].count;

	return h->kind != MEM_OTHER && count < KEEP_OBJECTS && (count + 1) * h->size <= KEEP_BYTES;
}

static void release(struct head *h)
{
	h->state = FREE;
	pool.freed += sizeof(*h) + h->size;
	free(h);
}

static void bury(struct head *h)
{
	ASAN_UNPOISON_MEMORY_REGION(h + 1, h->size);
	if (!worth_keeping(h)) {
		release(h);
		return;
	}
	h->state = FREE;
	h->next = pool.kept[h->kind].free;
	pool.kept[h->kind].free = h;
	pool.kept[h->kind].count++;
}

void mem_reclaim(void)
{
	while (pool.grave) {
		struct head *h = pool.grave;

		pool.grave = h->next;
		bury(h);
	}
}

/* Frees n of the kept ones, and tells how many are left. */
static void thin(int kind, size_t n)
{
	size_t before = pool.kept[kind].told;

	for (; n > 0; n--) {
		struct head *h = pool.kept[kind].free;

		pool.kept[kind].free = h->next;
		pool.kept[kind].count--;
		release(h);
	}
	pool.kept[kind].least = pool.kept[kind].told = pool.kept[kind].count;
	atomic_fetch_add_explicit(&kinds[kind].kept, pool.kept[kind].told - before, memory_order_relaxed);
}

/* Half of it each time, so that neither the next wave of clients finds nothing nor a single turn frees thousands. */
bool mem_relax(void)
{
	size_t sum;

	for (int kind = 0; kind < MEM_KIND_COUNT; kind++)
		thin(kind, (pool.kept[kind].least + 1) / 2);
	sum = atomic_fetch_add_explicit(&freed, pool.freed, memory_order_relaxed) + pool.freed;
	pool.freed = 0;
	return sum >= TRIM_BYTES;
}

void mem_trim(void)
{
	atomic_store_explicit(&freed, 0, memory_order_relaxed);
	malloc_trim(0);
}

void mem_drain(void)
{
	mem_reclaim();
	for (int kind = 0; kind < MEM_KIND_COUNT; kind++)
		thin(kind, pool.kept[kind].count);
}

void mem_limit(enum mem_kind kind, size_t objects)
{
	atomic_store_explicit(&kinds[kind].limit, objects, memory_order_relaxed);
}

void mem_usage(enum mem_kind kind, struct mem_usage *out)
{
	struct kind *k = &kinds[kind];

	out->name = names[kind].name;
	out->help = names[kind].help;
	out->size = atomic_load_explicit(&k->size, memory_order_relaxed);
	out->used = atomic_load_explicit(&k->used, memory_order_relaxed);
	out->kept = atomic_load_explicit(&k->kept, memory_order_relaxed);
	out->limit = atomic_load_explicit(&k->limit, memory_order_relaxed);
	out->failed = atomic_load_explicit(&k->failed, memory_order_relaxed);
}

static void *or_die(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

void *mem_calloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	return p || !drop_ballast() ? p : calloc(n, size);
}

void *mem_realloc(void *p, size_t size)
{
	void *bigger = realloc(p, size);

	return bigger || !drop_ballast() ? bigger : realloc(p, size);
}

void *xmalloc(size_t size)
{
	return or_die(mem_realloc(NULL, size ? size : 1));
}

void *xcalloc(size_t n, size_t size)
{
	return or_die(n && size ? mem_calloc(n, size) : mem_calloc(1, 1));
}

void *xrealloc(void *p, size_t size)
{
	return or_die(mem_realloc(p, size ? size : 1));
}

char *xstrdup(const char *s)
{
	return or_die(strdup(s));
}

char *xasprintf(const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return or_die(n < 0 ? NULL : text);
}
