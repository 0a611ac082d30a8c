/* Budgets of calls into scripts: instructions, of which memory and the work of library functions take their share; the memory of a state; and CPU time, in case
 * that instructions are slow. Owns no memory but counts it. Does not know what runs. */
#include "mctunnel/script/budget.h"

#include <limits.h>
#include <stdlib.h>
#include <time.h>

#define SLOW 5               /* times the budget in CPU time is the end in any case */
#define BYTES_PER_STEP 32    /* of memory asked for: as much as an instruction */
#define BLOCK_MAX (1u << 20) /* bytes at once during a call */
#define BLOCK_SMALL 4096     /* bytes that are given even when nothing is left: the next step will tell soon enough */

static const char no_instructions[] = "it has used up its budget of instructions (global.lua.budget)";
static const char no_time[] = "it takes too long (global.lua.budget)";
static const char no_block[] = "it wants more memory at once than a call may have (1 MiB)";
static const char no_process_memory[] = "there is no memory left in this process";
const char budget_no_memory[] = "it wants more memory than it may have (global.lua.memory)";

static uint64_t read_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t budget_now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

void budget_begin(struct budget *b, uint64_t ms)
{
	b->left = b->granted = (long)ms * BUDGET_PER_MS;
	b->limit_ns = ms * SLOW * 1000000u;
	b->cpu_ns = 0;
	b->began_ns = budget_now_ns();
	b->spent = NULL;
	b->starved = false;
	b->refused = 0;
}

static void spend(struct budget *b, const char *what)
{
	if (!b->spent)
		b->spent = what;
}

bool budget_take(struct budget *b, int64_t n)
{
	if (!b->spent && n > 0)
		b->left = n <= b->left ? b->left - (long)n : -1;
	if (b->left < 0)
		spend(b, no_instructions);
	return !b->spent;
}

void budget_starve(struct budget *b)
{
	spend(b, no_process_memory);
}

bool budget_is_starved(const struct budget *b)
{
	return b->spent == no_process_memory;
}

/* Time waiting for a CPU does not count. */
static bool too_slow(struct budget *b)
{
	if (!b->cpu_ns)
		b->cpu_ns = read_clock(CLOCK_THREAD_CPUTIME_ID);
	return budget_now_ns() - b->began_ns >= b->limit_ns && read_clock(CLOCK_THREAD_CPUTIME_ID) - b->cpu_ns >= b->limit_ns;
}

bool budget_step(struct budget *b, int64_t n)
{
	if (budget_take(b, n) && too_slow(b))
		spend(b, no_time);
	return !b->spent;
}

/* Who gets nothing collects garbage and asks once more. */
static bool may_grow(struct budget *b, size_t size, size_t more)
{
	const char *why = NULL;

	if (b->left > 0)
		b->left -= (long)(more / BYTES_PER_STEP);
	if (b->memory + more > b->limit)
		why = budget_no_memory;
	else if (!b->loading && size > BLOCK_MAX)
		why = no_block;
	else if (b->left < 0 && size > BLOCK_SMALL)
		why = no_instructions;
	if (!why)
		return true;
	if (b->refused == size && !b->spent) {
		b->spent = why;
		b->starved = why == budget_no_memory;
	}
	b->refused = size;
	return false;
}

/* So does who gets nothing from the process. */
static void *nothing(struct budget *b, size_t size)
{
	if (b->refused == size)
		budget_starve(b);
	b->refused = size;
	return NULL;
}

void *budget_allocate(void *ud, void *p, size_t osize, size_t nsize)
{
	struct budget *b = ud;
	size_t had = p ? osize : 0; /* else it says what the memory is for */
	void *q;

	if (nsize == 0) {
		free(p);
		b->memory -= had;
		return NULL;
	}
	if (nsize > had && !may_grow(b, nsize, nsize - had))
		return NULL;
	q = realloc(p, nsize);
	if (!q && nsize > had)
		return nothing(b, nsize);
	if (!q)
		q = p; /* larger than it need be */
	if (nsize > had)
		b->refused = 0;
	b->memory += nsize - had;
	b->peak = b->memory > b->peak ? b->memory : b->peak;
	return q;
}
