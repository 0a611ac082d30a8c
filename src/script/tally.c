/* Figures of a script's function: how often it was called, how long that took, what came of it. And the brake for functions that use up their budget again and
 * again: at most a tenth of a thread's time is theirs. Owns nothing. */
#include "mctunnel/script/tally.h"

#include "mctunnel/base/series.h"
#include "mctunnel/script/budget.h"

static const char *const words[TALLY_RESULTS] = { "allow", "deny", "reject", "route", "done", "error" };

void tally_call(struct tally *t, uint64_t ns)
{
	unsigned log2 = ns < 4 ? 0 : 63 - (unsigned)__builtin_clzll(ns);
	unsigned i = ns < 4 ? (unsigned)ns : log2 * 4 + (unsigned)(ns >> (log2 - 2) & 3);

	t->calls++;
	t->sum_ns += ns;
	t->max_ns = ns > t->max_ns ? ns : t->max_ns;
	t->buckets[i < TALLY_BUCKETS ? i : TALLY_BUCKETS - 1]++;
}

void tally_result(struct tally *t, const char *function, enum tally_result r)
{
	if (!t->results[r])
		t->results[r] = series_of(LUA_CALLS, function, words[r]);
	series_add(t->results[r], 1);
	t->errors += r == TALLY_ERROR;
}

uint64_t tally_quantile_ns(const struct tally *t, double part)
{
	uint64_t want = (uint64_t)((double)t->calls * part), seen = 0;

	for (unsigned i = 0; i < TALLY_BUCKETS; i++) {
		seen += t->buckets[i];
		if (seen > want)
			return i < 8 ? i : (UINT64_C(4) + i % 4 + 1) << (i / 4 - 2);
	}
	return t->max_ns;
}

void tally_waste(struct tally *t, uint64_t began_ns, uint64_t ns)
{
	if (!t->waste_ns)
		t->waste_at_ns = began_ns;
	t->waste_ns += ns;
}

bool tally_rests(struct tally *t)
{
	uint64_t now, leaked;

	if (!t->waste_ns)
		return false;
	now = budget_now_ns();
	leaked = (now - t->waste_at_ns) / TALLY_WASTE_SHARE;
	t->waste_ns = leaked > t->waste_ns ? 0 : t->waste_ns - leaked;
	t->waste_at_ns = now;
	return t->waste_ns > TALLY_WASTE_NS;
}
