/* Stands in the place of malloc() and its kin, before AddressSanitizer's functions or glibc's. Who includes it, once in a program or library to be
 * preloaded, says with malloc_refused() which of them fail. */
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

/* Whether this call, from there, gets no memory. */
static bool malloc_refused(const char *call, const void *caller);

EARLY static bool malloc_fails(const char *call, const void *caller)
{
	if (!malloc_refused(call, caller))
		return false;
	errno = ENOMEM;
	return true;
}

EARLY void *malloc(size_t size)
{
	if (malloc_fails("malloc", __builtin_return_address(0)))
		return NULL;
	return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

EARLY void *calloc(size_t n, size_t size)
{
	if (malloc_fails("calloc", __builtin_return_address(0)))
		return NULL;
	return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

EARLY void *realloc(void *p, size_t size)
{
	if (size && malloc_fails("realloc", __builtin_return_address(0)))
		return NULL;
	return __interceptor_realloc ? __interceptor_realloc(p, size) : __libc_realloc(p, size);
}
