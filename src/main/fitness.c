/* Judges whether the virtual address should be on this host. A worker that is gone for a moment, because its master has just started
 * another one, is no reason to move it; one that hangs, or does not come back in time, is. Coming back takes longer than going, so that the
 * address does not flap. Owns nothing; whom it tells is the master's business. */
#include "mctunnel/main/fitness.h"

#define HELD_UP_MS (3 * FITNESS_LOOK_MS) /* between two looks: this process, or the whole machine, stood still */

static uint64_t oldest(const volatile uint64_t *beats, size_t n, uint64_t now)
{
	uint64_t found = now;

	for (size_t i = 0; i < n; i++) {
		uint64_t beat = beats[i];

		if (beat > 0 && beat < found)
			found = beat;
	}
	return found;
}

static void remember(struct fitness *f, const struct fitness_facts *facts, uint64_t now)
{
	uint64_t beat;

	if (now - f->looked_at > HELD_UP_MS)
		f->trusted_from = now;
	f->looked_at = now;
	if (!facts->ready)
		return;
	beat = oldest(facts->beats, facts->n, now);
	if (beat > f->seen_at)
		f->seen_at = beat;
}

bool fitness_look(struct fitness *f, const struct fitness_facts *facts, uint64_t limit, uint64_t now)
{
	uint64_t since;

	remember(f, facts, now);
	if (f->seen_at == 0)
		return false;
	since = f->seen_at > f->trusted_from ? f->seen_at : f->trusted_from;
	if (now - since > limit || facts->failures >= FITNESS_FAILURES) {
		f->doubted = true;
		f->well_from = 0;
		return false;
	}
	if (!f->doubted)
		return true;
	if (!facts->ready)
		f->well_from = 0;
	else if (f->well_from == 0)
		f->well_from = now;
	if (f->well_from == 0 || now - f->well_from < FITNESS_STABLE_MS)
		return false;
	f->doubted = false;
	return true;
}
