/* The counters. A thread's set is made when it first counts and linked into a list of the process; only its
 * thread writes to it. Sets are never freed, so what an ended thread has counted still counts. */
#include "mctunnel/base/stat.h"

#include "mctunnel/base/bug.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Lines of cache of its own: nobody else writes to them. */
struct set {
	_Atomic int64_t count[STAT_COUNT];
	struct set *next; /* older sets */
} __attribute__((aligned(64)));

const struct stat_row stat_rows[STAT_COUNT] = {
#define STAT_ROW(id, kind, metric, text) [STAT_##id] = { .name = metric, .help = text, .type = STAT_##kind },
	STATS(STAT_ROW)
#undef STAT_ROW
};

static struct set *_Atomic sets;
static _Thread_local struct set *own;

static void register_own(void)
{
	own = aligned_alloc(64, sizeof(*own));
	if (!own)
		die("out of memory");
	memset(own, 0, sizeof(*own));
	own->next = atomic_load_explicit(&sets, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&sets, &own->next, own, memory_order_release,
						      memory_order_relaxed))
		;
}

void stat_add(enum stat_id id, int64_t n)
{
	int64_t before;

	if (!own)
		register_own();
	before = atomic_load_explicit(&own->count[id], memory_order_relaxed);
	atomic_store_explicit(&own->count[id], before + n, memory_order_relaxed);
}

int64_t stat_sum(enum stat_id id)
{
	int64_t sum = 0;

	for (struct set *s = atomic_load_explicit(&sets, memory_order_acquire); s; s = s->next)
		sum += atomic_load_explicit(&s->count[id], memory_order_relaxed);
	return sum;
}
