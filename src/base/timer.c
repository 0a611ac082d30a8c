/* The timer wheel of a thread. A timer lies at the level of the highest 6-bit digit in which its time differs from
 * the wheel's, in the slot of that digit; so every lower level comes before every higher one, and the next slot is
 * found by two bit scans. Advancing to a slot of a higher level spreads its timers over the lower ones.
 * Nine levels reach 2^54 ms: there is no list of far timers. Knows time only from clock_ms(). */
#include "mctunnel/base/timer.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"

#define DIGIT 6
#define SLOTS (1 << DIGIT)
#define LEVELS 9
#define TIME_MAX ((UINT64_C(1) << (DIGIT * LEVELS)) - 1)
#define WAIT_MAX_MS 60000

static _Thread_local struct {
	uint64_t now;      /* every timer in a slot is later than this */
	unsigned levels;   /* bit set: the level has timers */
	bool ready, running;
	size_t count;      /* timers that run */
	uint64_t filled[LEVELS];
	struct list slot[LEVELS][SLOTS]; /* valid where its bit in filled is set */
	struct list due, firing;
} wheel;

static uint64_t wheel_time(void)
{
	uint64_t ms = clock_ms();

	return ms < TIME_MAX ? ms : TIME_MAX;
}

static void prepare(void)
{
	if (!wheel.ready) {
		list_init(&wheel.due);
		list_init(&wheel.firing);
		wheel.ready = true;
	}
	if (!wheel.levels)
		wheel.now = wheel_time();
}

static void place(struct timer *t, struct list *if_due)
{
	int level;
	unsigned digit;

	if (t->at_ms <= wheel.now) {
		list_add(if_due, &t->node);
		return;
	}
	level = (63 - __builtin_clzll(t->at_ms ^ wheel.now)) / DIGIT;
	digit = (t->at_ms >> (level * DIGIT)) % SLOTS;
	if (!(wheel.filled[level] >> digit & 1))
		list_init(&wheel.slot[level][digit]);
	wheel.filled[level] |= UINT64_C(1) << digit;
	wheel.levels |= 1u << level;
	list_add(&wheel.slot[level][digit], &t->node);
}

static void mark_empty(int level, unsigned digit)
{
	wheel.filled[level] &= ~(UINT64_C(1) << digit);
	if (!wheel.filled[level])
		wheel.levels &= ~(1u << level);
}

void timer_init(struct timer *t, void (*on_fire)(struct timer *))
{
	list_init(&t->node);
	t->at_ms = 0;
	t->on_fire = on_fire;
}

void timer_start(struct timer *t, uint64_t delay_ms)
{
	uint64_t now = wheel_time();

	timer_stop(t);
	prepare();
	t->at_ms = delay_ms < TIME_MAX - now ? now + delay_ms : TIME_MAX;
	wheel.count++;
	place(t, &wheel.due);
}

/* The last of its list leaves the head behind; if that is a slot, its bit has to go too. */
void timer_stop(struct timer *t)
{
	struct list *left = t->node.next;
	uintptr_t at = (uintptr_t)left - (uintptr_t)wheel.slot;

	if (!timer_running(t))
		return;
	list_del(&t->node);
	wheel.count--;
	if (list_empty(left) && at < sizeof(wheel.slot)) {
		at /= sizeof(struct list);
		mark_empty((int)(at / SLOTS), at % SLOTS);
	}
}

bool timer_running(const struct timer *t)
{
	return !list_empty(&t->node);
}

/* The start of the first slot that has timers; only when there is one. */
static uint64_t first_slot(int *level, unsigned *digit)
{
	uint64_t above;

	*level = __builtin_ctz(wheel.levels);
	*digit = (unsigned)__builtin_ctzll(wheel.filled[*level]);
	above = wheel.now >> (*level * DIGIT) & ~(uint64_t)(SLOTS - 1);
	return (above | *digit) << (*level * DIGIT);
}

static void advance(uint64_t target)
{
	while (wheel.levels) {
		struct list batch;
		unsigned digit;
		int level;
		uint64_t start = first_slot(&level, &digit);

		if (start > target)
			break;
		wheel.now = start;
		list_init(&batch);
		list_splice(&batch, &wheel.slot[level][digit]);
		mark_empty(level, digit);
		while (!list_empty(&batch)) {
			struct timer *t = list_first(&batch, struct timer, node);

			list_del(&t->node);
			place(t, &wheel.firing);
		}
	}
	if (wheel.now < target)
		wheel.now = target;
}

/* What is started from on_fire and due at once goes to the list `due`, so it waits for the next run. */
void timers_run(void)
{
	BUG_ON(wheel.running);
	prepare();
	wheel.running = true;
	list_splice(&wheel.firing, &wheel.due);
	advance(wheel_time());
	while (!list_empty(&wheel.firing)) {
		struct timer *t = list_first(&wheel.firing, struct timer, node);

		list_del(&t->node);
		wheel.count--;
		t->on_fire(t);
	}
	wheel.running = false;
}

size_t timers_count(void)
{
	return wheel.count;
}

int timers_wait_ms(void)
{
	uint64_t now = wheel_time(), start;
	unsigned digit;
	int level;

	prepare();
	if (!list_empty(&wheel.due) || !list_empty(&wheel.firing))
		return 0;
	if (!wheel.levels)
		return -1;
	start = first_slot(&level, &digit);
	if (start <= now)
		return 0;
	return start - now < WAIT_MAX_MS ? (int)(start - now) : WAIT_MAX_MS;
}
