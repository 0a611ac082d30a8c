/* For LD_PRELOAD: once armed, one allocation fails, the Nth of the process from then on (or `run` of them in a row).
 * Armed by the signal SIGRTMIN + 5, which brings N in its lower 24 bits and `run` above them. What fails is said on stderr.
 * Knows the allocator of glibc only. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t size);

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

static int fails(void)
{
	static const char text[] = "failmalloc: failed\n";
	long n = atomic_load_explicit(&left, memory_order_relaxed);

	if (n == 0)
		return 0;
	n = atomic_fetch_sub(&left, 1);
	if (n > 1)
		return 0;
	if (n < 1 || atomic_fetch_sub(&run, 1) <= 1)
		atomic_store(&left, 0);
	else
		atomic_store(&left, 1);
	if (n < 1)
		return 0;
	if (write(2, text, sizeof(text) - 1) < 0)
		errno = 0;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return size && fails() ? NULL : __libc_realloc(p, size);
}
