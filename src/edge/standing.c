/* The count of good and bad checks of one target. health is HAProxy's: at the top, rise + fall - 1, all is well; each bad check takes one away, and who falls
 * below rise falls to 0; each good one adds one, and who reaches rise is at the top again. Owns nothing; when to check and what follows from it
 * is check.c's. */
#include "mctunnel/edge/standing.h"

#include "mctunnel/conf/conf.h"

#include <stdio.h>

static uint32_t top(const struct standing *s)
{
	return s->rise + s->fall - 1;
}

void standing_init(struct standing *s, const struct conf_check *c, bool up, uint64_t now_ms)
{
	*s = (struct standing){ .rise = c->rise, .fall = c->fall, .health = up ? c->rise : c->rise - 1, .since_ms = now_ms };
}

void standing_adapt(struct standing *s, const struct conf_check *c)
{
	bool up = standing_up(s);

	s->rise = c->rise;
	s->fall = c->fall;
	s->health = up ? top(s) : 0;
}

enum standing_change standing_condemn(struct standing *s, uint64_t now_ms)
{
	bool up = standing_up(s);

	s->health = 0;
	s->failed = true;
	if (!up)
		return STANDING_SAME;
	s->since_ms = now_ms;
	return STANDING_FELL;
}

enum standing_change standing_note(struct standing *s, bool good, uint64_t now_ms)
{
	if (!good && s->health > s->rise) {
		s->health--;
		return STANDING_SAME;
	}
	if (!good)
		return standing_condemn(s, now_ms);
	if (standing_up(s)) {
		s->health += s->health < top(s);
		return STANDING_SAME;
	}
	if (++s->health < s->rise)
		return STANDING_SAME;
	s->health = top(s);
	s->since_ms = now_ms;
	s->risen_ms = s->failed ? now_ms : 0;
	return STANDING_ROSE;
}

bool standing_up(const struct standing *s)
{
	return s->health >= s->rise;
}

void standing_words(const struct standing *s, char *buf, size_t size)
{
	if (s->health == top(s))
		snprintf(buf, size, "UP");
	else if (standing_up(s))
		snprintf(buf, size, "UP %u/%u", s->health - s->rise + 1, s->fall);
	else if (s->health)
		snprintf(buf, size, "DOWN %u/%u", s->health, s->rise);
	else
		snprintf(buf, size, "DOWN");
}

uint32_t standing_pause(const struct standing *s, const struct conf_check *c)
{
	uint32_t ms = s->health == top(s) ? c->interval : s->health == 0 ? c->downinter : c->fastinter;

	return ms ? ms : c->interval;
}

/* Of STANDING_STEPS. */
static uint64_t steps(const struct standing *s, const struct conf_check *c, uint64_t now_ms)
{
	uint64_t age = now_ms > s->risen_ms ? now_ms - s->risen_ms : 0; /* each thread has a time of its own */

	return !s->risen_ms || age >= c->slowstart ? STANDING_STEPS : 1 + age * (STANDING_STEPS - 1) / c->slowstart;
}

uint32_t standing_weight(const struct standing *s, const struct conf_check *c, uint32_t weight, uint64_t now_ms)
{
	uint64_t now = steps(s, c, now_ms) < STANDING_STEPS ? weight * steps(s, c, now_ms) / STANDING_STEPS : weight;

	return now || !weight ? (uint32_t)now : 1;
}

uint32_t standing_next_step(const struct standing *s, const struct conf_check *c, uint64_t now_ms)
{
	uint64_t n = steps(s, c, now_ms), due;

	if (!standing_up(s) || n == STANDING_STEPS)
		return 0;
	due = s->risen_ms + (n * c->slowstart + STANDING_STEPS - 2) / (STANDING_STEPS - 1);
	return due > now_ms ? (uint32_t)(due - now_ms) : 1;
}
