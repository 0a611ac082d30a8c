/* For LD_PRELOAD: once armed, one allocation fails, the Nth of the process from then on (or `run` of them in a row).
 * Armed by the signal SIGRTMIN + 5, which brings N in its lower 24 bits and `run` above them. What fails is said on stderr. */
#define _GNU_SOURCE
#include "../lib/allocator.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long left; /* 0: not armed */
static atomic_long run;

static void on_arm(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	atomic_store(&run, info->si_value.sival_int >> 24);
	atomic_store(&left, info->si_value.sival_int & 0xffffff);
}

__attribute__((constructor)) static void prepare(void)
{
	struct sigaction s = { .sa_sigaction = on_arm, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigaction(SIGRTMIN + 5, &s, NULL);
}

static bool malloc_refused(const char *call, const void *caller)
{
	static const char text[] = "failmalloc: failed\n";
	long n = atomic_load_explicit(&left, memory_order_relaxed);

	(void)call;
	(void)caller;
	if (n == 0)
		return false;
	n = atomic_fetch_sub(&left, 1);
	if (n > 1)
		return false;
	if (n < 1 || atomic_fetch_sub(&run, 1) <= 1)
		atomic_store(&left, 0);
	else
		atomic_store(&left, 1);
	if (n < 1)
		return false;
	if (write(2, text, sizeof(text) - 1) < 0)
		errno = 0;
	return true;
}
