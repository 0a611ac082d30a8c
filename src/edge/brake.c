/* Brakes: several limits of bytes a second applied to one session, each way. Owns the timer that lets it go on.
 * Knows neither sockets nor whose limits they are. */
#include "mctunnel/edge/brake.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/flow.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/timer.h"

#define FLOWS 6

struct limit {
	struct flow own, *flow; /* own, or borrowed */
	uint64_t rate;
};

struct brake {
	struct limit limits[2][FLOWS];
	unsigned n[2];
	struct timer timer;
	void (*on_loose)(void *owner);
	void *owner; /* borrowed */
};

static void on_timer(struct timer *t)
{
	struct brake *b = container_of(t, struct brake, timer);

	b->on_loose(b->owner);
}

struct brake *brake_new(void (*on_loose)(void *owner), void *owner)
{
	struct brake *b = mem_get(MEM_OTHER, sizeof(*b));

	if (!b)
		return NULL;
	timer_init(&b->timer, on_timer);
	b->on_loose = on_loose;
	b->owner = owner;
	return b;
}

void brake_free(struct brake *b)
{
	if (!b)
		return;
	timer_stop(&b->timer);
	mem_put(MEM_OTHER, b);
}

void brake_add(struct brake *b, enum brake_way way, struct flow *shared, uint64_t rate)
{
	struct limit *l;

	if (rate == 0)
		return;
	BUG_ON(b->n[way] == FLOWS);
	l = &b->limits[way][b->n[way]++];
	l->flow = shared ? shared : &l->own;
	l->rate = rate;
}

static void wait_for_it(struct brake *b, uint64_t ms)
{
	if (!timer_running(&b->timer))
		timer_start(&b->timer, ms);
}

size_t brake_room(struct brake *b, enum brake_way way)
{
	size_t room = SIZE_MAX;
	uint64_t longest = 0;

	for (unsigned i = 0; i < b->n[way]; i++) {
		struct limit *l = &b->limits[way][i];
		uint64_t wait = flow_wait_ms(l->flow, l->rate);
		size_t piece = flow_piece(l->rate);

		longest = wait > longest ? wait : longest;
		room = piece < room ? piece : room;
	}
	if (longest == 0)
		return room;
	wait_for_it(b, longest);
	return 0;
}

void brake_moved(struct brake *b, enum brake_way way, size_t bytes)
{
	for (unsigned i = 0; bytes && i < b->n[way]; i++)
		flow_add(b->limits[way][i].flow, b->limits[way][i].rate, bytes);
}

void brake_leave(struct brake *b)
{
	timer_stop(&b->timer);
}
