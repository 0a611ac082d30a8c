/* The time until which what has flowed takes at the allowed rate is all there is. What was not used is saved up for a moment only, so that late timers
 * do not cost bandwidth.
 * Does not know what flows, nor who waits. */
#include "mctunnel/base/flow.h"

#include "mctunnel/base/clock.h"

#define SECOND_NS UINT64_C(1000000000)
#define MILLI_NS UINT64_C(1000000)
#define SAVED_NS (50 * MILLI_NS)
#define PIECES_A_SECOND 50
#define PIECE_MIN 512
#define PIECE_MAX (256u << 10)

uint64_t flow_wait_ms(struct flow *f, uint64_t rate)
{
	uint64_t until = atomic_load(&f->free_ns), now = clock_us() * 1000;

	return until > now ? (until - now + MILLI_NS - 1) / MILLI_NS : 0;
}

/* No overflow: what takes longer than a century counts as that. */
static uint64_t time_of(uint64_t rate, size_t bytes)
{
	unsigned __int128 ns = (unsigned __int128)bytes * SECOND_NS / rate;

	return ns > UINT64_C(1) << 60 ? UINT64_C(1) << 60 : (uint64_t)ns;
}

void flow_add(struct flow *f, uint64_t rate, size_t bytes)
{
	uint64_t now = clock_us() * 1000, old = atomic_load(&f->free_ns), from;

	do {
		from = now > SAVED_NS && old < now - SAVED_NS ? now - SAVED_NS : old;
	} while (!atomic_compare_exchange_weak(&f->free_ns, &old, from + time_of(rate, bytes)));
}

size_t flow_piece(uint64_t rate)
{
	uint64_t n = rate / PIECES_A_SECOND;

	return n < PIECE_MIN ? PIECE_MIN : n > PIECE_MAX ? PIECE_MAX : (size_t)n;
}
