/* Pools of fixed-size objects, one set a thread, counted for `show memory`.
 * An object given back is reused only after the loop turn (mem_reclaim), so a
 * pointer seen earlier in the turn never names a new object. Under ASan every object is a
 * malloc() of its own. Objects may be freed by another thread than the one that made them. */
#ifndef MCTUNNEL_BASE_MEM_H
#define MCTUNNEL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mem_kind {
#define MEM_KINDS(X)                                     \
	X(SESSION, "session", "durable sessions")        \
	X(LINK, "link", "links and their carriers")      \
	X(CONN, "conn", "sockets of clients, targets and links") \
	X(PUMP, "pump", "joints of a socket and a session") \
	X(REQUEST, "request", "HTTP requests under way") \
	X(CHUNK, "chunk", "16 KiB pieces of data in flight") \
	X(MORSEL, "morsel", "2 KiB pieces of data in flight") \
	X(MSG, "message", "messages between threads")    \
	X(OTHER, "other", "everything else that is pooled")
#define MEM_ENUM(id, name, help) MEM_##id,
	MEM_KINDS(MEM_ENUM)
#undef MEM_ENUM
	MEM_KIND_COUNT
};

/* Zeroed memory (CHUNK and MORSEL: not zeroed) of the size every object of this kind has (the first
 * call fixes it for kinds other than OTHER; BUG if another size is asked for later). NULL when the
 * kind's limit or memory is used up: the caller refuses this one connection. */
void *mem_get(enum mem_kind kind, size_t size) __attribute__((warn_unused_result));

/* Gives back; NULL is allowed. The content may be read until the end of the turn, under ASan not. */
void mem_put(enum mem_kind kind, void *obj);

/* Keeps some memory aside, or again does. When the system refuses memory it is given up, and then data gets none (mem_get gives NULL). */
void mem_ballast(void);
/* It is given up: take nothing new in, and call mem_ballast() now and then. */
bool mem_short(void);

/* Called by the loop at the end of each turn: what was put may now be reused. */
void mem_reclaim(void);

/* Every few seconds: of what this thread keeps for reuse, frees half of what it has not needed since the last
 * call. Also what other threads got and this one put again and again does not pile up so. true: so much has been freed since the last mem_trim(),
 * by all threads, that another one is worth its time. */
bool mem_relax(void) __attribute__((warn_unused_result));
/* Gives the system back what malloc does not need. May take milliseconds, a tenth of one for each MiB: not in a loop. */
void mem_trim(void);

/* Frees what this thread has put or keeps for reuse (end of the thread, tests). */
void mem_drain(void);

/* Process-wide limit in objects of a kind, 0 = none. Set before threads start or from any thread. */
void mem_limit(enum mem_kind kind, size_t objects);

struct mem_usage {
	const char *name, *help;
	size_t size, used, limit; /* bytes an object (OTHER: 0); objects */
	size_t kept;              /* objects for reuse, when the threads last called mem_relax() */
	uint64_t failed;          /* requests refused */
};
void mem_usage(enum mem_kind kind, struct mem_usage *out); /* sums over threads; any thread may ask */

/* calloc() and realloc() for what must not fail easily, like answers to operators: before they give NULL the ballast is given up. size > 0. */
void *mem_calloc(size_t n, size_t size) __attribute__((malloc, warn_unused_result));
void *mem_realloc(void *p, size_t size) __attribute__((warn_unused_result));

/* As these, and die: configuration, tables, never per connection. */
void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));

#endif
