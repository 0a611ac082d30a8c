/* Assertions that stay on in production: a broken invariant ends the worker,
 * and the master starts another; going on with a broken state would spread. */
#ifndef MCTUNNEL_BASE_BUG_H
#define MCTUNNEL_BASE_BUG_H

/* Writes the message and a backtrace to stderr, then abort(). Never returns. */
void bug_panic(const char *file, int line, const char *fmt, ...)
    __attribute__((noreturn, cold, format(printf, 3, 4)));

/* Writes the message to stderr and exits with 1, as by quick_exit(): for what cannot be had at start. */
void die(const char *fmt, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));

/* Installs handlers for SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT that write a
 * backtrace to stderr and then die of the same signal (core dumps stay possible). */
void bug_catch_signals(void);

/* All that is written to stderr by the above goes to fd as well; -1: not any more. */
void bug_copy_to(int fd);

#define BUG_ON(cond)                                                \
	do {                                                        \
		if (__builtin_expect(!!(cond), 0))                  \
			bug_panic(__FILE__, __LINE__, "%s", #cond); \
	} while (0)

#endif
