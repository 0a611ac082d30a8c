/* Who waits for room below a limit says so with a bit of its thread; whoever makes room takes the bits and knocks at those threads. Many ends of
 * sessions in a row make one knock, and while nobody waits an end costs one look at a word.
 * Does not know what is counted. */
#include "mctunnel/edge/room.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/event/thread.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LISTENERS 4

struct knock {
	struct msg msg;
	atomic_bool posted;
};

static struct {
	atomic_uint_fast64_t wanted; /* a bit for each thread */
	struct knock knocks[THREAD_MAX];
} all;

static _Thread_local struct {
	void (*on_room[LISTENERS])(void);
	size_t n;
} here;

static void on_knock(struct msg *m)
{
	struct knock *k = (struct knock *)m;

	atomic_store(&k->posted, false);
	for (size_t i = 0; i < here.n; i++)
		here.on_room[i]();
}

bool count_take(atomic_uint *count, uint32_t max)
{
	unsigned n = atomic_load(count);

	do {
		if (max && n >= max)
			return false;
	} while (!atomic_compare_exchange_weak(count, &n, n + 1));
	return true;
}

void room_init(void)
{
	here.n = 0;
}

void room_fini(void)
{
	here.n = 0;
}

void room_on(void (*on_room)(void))
{
	BUG_ON(here.n == LISTENERS);
	here.on_room[here.n++] = on_room;
}

void room_ask(void)
{
	atomic_fetch_or(&all.wanted, UINT64_C(1) << thread_self());
}

static void knock_at(int thread)
{
	struct knock *k = &all.knocks[thread];

	if (atomic_exchange(&k->posted, true))
		return;
	k->msg.run = on_knock;
	thread_post(thread, &k->msg);
}

void room_made(void)
{
	uint64_t who = atomic_load(&all.wanted) ? atomic_exchange(&all.wanted, 0) : 0;

	for (int i = 0; who; i++, who >>= 1) {
		if (who & 1)
			knock_at(i);
	}
}
