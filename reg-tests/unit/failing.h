/* For unit tests: the Nth allocation of this thread fails, whoever asks for it, libraries too. Stands in the place of malloc() and its kin; to be included once by a test. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

void *__interceptor_malloc(size_t size) __attribute__((weak));
void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
void *__interceptor_realloc(void *p, size_t size) __attribute__((weak));
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t size);

#define EARLY __attribute__((no_sanitize_thread)) /* called before a sanitizer is ready */

static _Thread_local unsigned failing; /* 0: none; else so many allocations from now on */

EARLY static bool fails_now(void)
{
	if (failing == 0 || --failing > 0)
		return false;
	errno = ENOMEM;
	return true;
}

EARLY void *malloc(size_t size)
{
	if (fails_now())
		return NULL;
	return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

EARLY void *calloc(size_t n, size_t size)
{
	if (fails_now())
		return NULL;
	return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

EARLY void *realloc(void *p, size_t size)
{
	if (size && fails_now())
		return NULL;
	return __interceptor_realloc ? __interceptor_realloc(p, size) : __libc_realloc(p, size);
}

/* Whether the one that was to fail has: then there may be more behind it. */
static bool has_failed(void)
{
	bool yes = failing == 0;

	failing = 0;
	return yes;
}
