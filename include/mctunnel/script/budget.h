/* What a call into a script may use: instructions, memory, time. Whatever is used up first ends the call. */
#ifndef MCTUNNEL_SCRIPT_BUDGET_H
#define MCTUNNEL_SCRIPT_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGET_PER_MS 100000 /* instructions for a millisecond: what a slow machine does, counting included */

struct budget { /* zero it, with limit set */
	size_t memory, peak, limit; /* bytes, of the state */
	bool loading;          /* no limit of one piece of memory */
	const char *spent;     /* NULL, or the sentence that says what was used up: the call is over */
	bool starved;          /* it was memory of the state */
	long granted, left;    /* instructions of this call; left is below 0: none */
	uint64_t began_ns;     /* of this call, by CLOCK_MONOTONIC */

	/* Of budget.c. */
	uint64_t cpu_ns, limit_ns;
	size_t refused;
};

uint64_t budget_now_ns(void); /* CLOCK_MONOTONIC */

void budget_begin(struct budget *b, uint64_t ms);
/* Takes n instructions. false: they are used up, or something else was before. */
bool budget_take(struct budget *b, int64_t n);
/* The same, with a look at the clock; when instructions have been run. */
bool budget_step(struct budget *b, int64_t n);

/* An allocator as Lua wants it (ud: a struct budget): memory costs instructions, too. */
void *budget_allocate(void *ud, void *p, size_t osize, size_t nsize);

/* Memory of the process is used up: the call is over. */
void budget_starve(struct budget *b);
bool budget_is_starved(const struct budget *b); /* so it was */

extern const char budget_no_memory[]; /* the sentence */

#endif
