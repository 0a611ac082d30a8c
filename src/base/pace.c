/* The time at which the next event is due is all there is: each event moves it on by one interval, in one atomic step.
 * An event that comes late, because a timer has only milliseconds or a turn of the loop was long, leaves some of its
 * lateness to the next, so that the rate is reached; half an interval of it keeps any second below rate + 1.
 * Does not know what the events are, nor who waits for them. */
#include "mctunnel/base/pace.h"

#include "mctunnel/base/clock.h"

#define SECOND_NS UINT64_C(1000000000)
#define MILLI_NS UINT64_C(1000000)
#define LATE_NS (2 * MILLI_NS) /* at least, for rates with many events in a turn of a timer */

uint64_t pace_take(struct pace *p, uint32_t rate)
{
	uint64_t interval, late, now, due, next = atomic_load(&p->next_ns);

	if (rate == 0)
		return 0;
	now = clock_us() * 1000;
	interval = SECOND_NS / rate;
	late = interval / 2 > LATE_NS ? interval / 2 : LATE_NS;
	do {
		if (next > now)
			return (next - now + MILLI_NS - 1) / MILLI_NS;
		due = now - next > late ? now - late : next;
	} while (!atomic_compare_exchange_weak(&p->next_ns, &next, due + interval));
	return 0;
}

void pace_give(struct pace *p, uint32_t rate)
{
	if (rate)
		atomic_fetch_sub(&p->next_ns, SECOND_NS / rate);
}
