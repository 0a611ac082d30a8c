/* The end of a process whose state can no longer be trusted: message, backtrace, death by signal.
 * Everything here runs when memory may already be broken, so nothing allocates and output goes
 * straight to descriptor 2. It knows nothing of the log. */
#define _GNU_SOURCE
#include "mctunnel/base/bug.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAMES_MAX 64
#define HANDLER_STACK 65536

static _Thread_local bool reported; /* this thread's backtrace is already on stderr */
static _Thread_local char handler_stack[HANDLER_STACK];

static const struct {
	int number;
	bool sanitizer_does_better;
	const char *name;
} caught[] = {
	{ SIGSEGV, true, "SIGSEGV" }, { SIGBUS, true, "SIGBUS" },   { SIGFPE, true, "SIGFPE" },
	{ SIGILL, true, "SIGILL" },   { SIGABRT, false, "SIGABRT" },
};
#define CAUGHT_COUNT (sizeof(caught) / sizeof(caught[0]))

static int copy_fd = -1;

static void put_to(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void put_text(const char *text)
{
	put_to(STDERR_FILENO, text);
	if (copy_fd >= 0)
		put_to(copy_fd, text);
}

static void put_backtrace(void)
{
	void *frames[FRAMES_MAX];
	int n = backtrace(frames, FRAMES_MAX);

	backtrace_symbols_fd(frames, n, STDERR_FILENO);
	if (copy_fd >= 0)
		backtrace_symbols_fd(frames, n, copy_fd);
}

void bug_copy_to(int fd)
{
	copy_fd = fd;
}

void bug_panic(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n = snprintf(text, sizeof(text), "BUG at %s:%d: ", file, line);

	if (n < 0 || (size_t)n >= sizeof(text))
		n = 0;
	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	put_text(text);
	put_text("\n");
	reported = true;
	put_backtrace();
	abort();
}

void die(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	put_text(program_invocation_short_name);
	put_text(": ");
	put_text(text);
	put_text("\n");
	quick_exit(1); /* other threads go on meanwhile: what libraries free at exit() they may be using */
}

/* SA_RESETHAND has already restored the default action: raise() ends the process, as does a second fault in here. */
static void on_deadly(int signal_number)
{
	const char *name = "signal";

	for (size_t i = 0; i < CAUGHT_COUNT; i++)
		if (caught[i].number == signal_number)
			name = caught[i].name;
	if (!reported) {
		reported = true;
		put_text("died of ");
		put_text(name);
		put_text("\n");
		put_backtrace();
	}
	raise(signal_number);
}

/* Overflow of the stack is a SIGSEGV too, hence a stack of its own; one that is there already is kept. */
static void give_handler_stack(void)
{
	stack_t old, stack = { .ss_sp = handler_stack, .ss_size = sizeof(handler_stack) };

	if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE))
		sigaltstack(&stack, NULL);
}

void bug_catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_deadly, .sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER };
	void *frame;

	/* The first backtrace() loads a library, which allocates: not possible inside the handler. */
	if (backtrace(&frame, 1) < 0)
		return;
	give_handler_stack();
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < CAUGHT_COUNT; i++) {
#ifdef __SANITIZE_ADDRESS__
		if (caught[i].sanitizer_does_better)
			continue;
#endif
		sigaction(caught[i].number, &action, NULL);
	}
}
