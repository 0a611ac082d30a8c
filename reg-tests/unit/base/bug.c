/* Death in a child: the signal and what is left on stderr. */
#include "mctunnel/base/bug.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char text[65536];

/* Runs fn in a child; returns its status, what it wrote to stderr is in text. */
static int in_child(void (*fn)(void))
{
	int fds[2], status = 0;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		dup2(fds[1], STDERR_FILENO);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGABRT, SIG_DFL);
		fn();
		_exit(77);
	}
	close(fds[1]);
	while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int count(const char *needle)
{
	int n = 0;

	for (const char *p = text; (p = strstr(p, needle)); p++)
		n++;
	return n;
}

static void panic(void)
{
	bug_catch_signals();
	bug_panic("some.c", 42, "value %d", 7);
}

static void break_invariant(void)
{
	volatile int two = 2;

	BUG_ON(two == 3);
	BUG_ON(two == 2);
}

static void give_up(void)
{
	die("no %s", "socket");
}

static void send_abort(void)
{
	bug_catch_signals();
	raise(SIGABRT);
}

static void test_panic_reports_once_and_aborts(void **state)
{
	int status = in_child(panic);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_int_equal(count("BUG at some.c:42: value 7\n"), 1);
	assert_int_equal(count("died of"), 0);
	assert_true(count("\n") > 2);
}

static void test_bug_on(void **state)
{
	int status = in_child(break_invariant);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(count("two == 2"), 1);
	assert_int_equal(count("two == 3"), 0);
}

static void test_die_exits_with_one(void **state)
{
	int status = in_child(give_up);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
	assert_int_equal(count(": no socket\n"), 1);
}

static void test_abort_is_caught_and_still_kills(void **state)
{
	int status = in_child(send_abort);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_int_equal(count("died of SIGABRT\n"), 1);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void fault(void)
{
	volatile int *volatile nowhere = NULL;

	bug_catch_signals();
	*nowhere = 1;
}

static volatile int depth = 1 << 30;

static int deeper(volatile char *above)
{
	volatile char here[4096];

	here[0] = above[0];
	return depth-- > 0 ? deeper(here) + here[0] : 0;
}

static void overflow_stack(void)
{
	char zero = 0;

	bug_catch_signals();
	deeper(&zero);
}

static void test_fault(void **state)
{
	int status = in_child(fault);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	assert_int_equal(count("died of SIGSEGV\n"), 1);
	assert_true(count("\n") > 2);
}

static void test_stack_overflow(void **state)
{
	int status = in_child(overflow_stack);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	assert_int_equal(count("died of SIGSEGV\n"), 1);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_panic_reports_once_and_aborts),
		cmocka_unit_test(test_bug_on),
		cmocka_unit_test(test_die_exits_with_one),
		cmocka_unit_test(test_abort_is_caught_and_still_kills),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(test_fault),
		cmocka_unit_test(test_stack_overflow),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
