/* For unit tests: the Nth allocation of this thread fails, whoever asks for it, libraries too. To be included once by a test. */
#include "../lib/allocator.h"

static _Thread_local unsigned failing; /* 0: none; else so many allocations from now on */
static _Thread_local bool lasting;     /* then all that follow fail as well */

EARLY static bool malloc_refused(const char *call, const void *caller)
{
	static _Thread_local bool refusing;

	if (failing > 0)
		refusing = --failing == 0;
	else
		refusing &= lasting;
	return refusing;
}

/* Whether the one that was to fail has: then there may be more behind it. */
static bool has_failed(void)
{
	bool yes = failing == 0;

	failing = 0;
	lasting = false;
	return yes;
}
