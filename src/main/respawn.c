/* When a worker is started again, when it counts as hung, and when to give up.
 * Owns only numbers: no process, no signal, no clock, so that a unit test drives it through hours in a moment. */
#include "mctunnel/main/respawn.h"

#define HELD_UP_MS 1500 /* between two looks that should be at most 500 ms apart */

void respawn_started(struct respawn *r, uint64_t now)
{
	r->started_at = now;
	r->ready_at = 0;
	r->looked_at = now;
	r->trusted_from = now;
}

void respawn_ready(struct respawn *r, uint64_t now)
{
	if (r->ready_at == 0)
		r->ready_at = now;
}

static int delay_after(unsigned failures)
{
	int delay = RESPAWN_DELAY_MIN_MS;

	if (failures == 1) /* may be chance */
		return 0;
	while (--failures > 1 && delay < RESPAWN_DELAY_MAX_MS)
		delay *= 2;
	return delay < RESPAWN_DELAY_MAX_MS ? delay : RESPAWN_DELAY_MAX_MS;
}

int respawn_died(struct respawn *r, uint64_t now)
{
	if (r->ready_at > 0 && now - r->ready_at >= RESPAWN_STABLE_MS) {
		r->failures = 0;
		return 0;
	}
	if (++r->failures >= RESPAWN_FAILURES_MAX)
		return -1;
	return delay_after(r->failures);
}

bool respawn_hangs(struct respawn *r, const volatile uint64_t *beats, size_t n, uint64_t now)
{
	if (now - r->looked_at > HELD_UP_MS)
		r->trusted_from = now;
	r->looked_at = now;
	if (now - r->trusted_from <= RESPAWN_HANG_MS)
		return false;
	for (size_t i = 0; i < n; i++) {
		uint64_t beat = beats[i];

		if (beat > 0 && beat < now && now - beat > RESPAWN_HANG_MS)
			return true;
	}
	return r->ready_at == 0 && now - r->started_at > RESPAWN_START_MS;
}
