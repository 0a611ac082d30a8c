/* Pools: reuse only after the turn, counts, limits, objects that die on another thread. */
#include "mctunnel/base/mem.h"

#include "../failing.h"

#include <pthread.h>
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

#define CONN_SIZE 200

static struct mem_usage usage(enum mem_kind kind)
{
	struct mem_usage u;

	mem_usage(kind, &u);
	return u;
}

static void *conn(void)
{
	void *p = mem_get(MEM_CONN, CONN_SIZE);

	assert_non_null(p);
	return p;
}

static bool all_zero(const unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

static bool aborts(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		close(STDERR_FILENO);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_reuse_waits_for_the_turn(void **state)
{
	unsigned char *a = conn(), *b;

	assert_true(all_zero(a, CONN_SIZE));
	memset(a, 0x5a, CONN_SIZE);
	mem_put(MEM_CONN, a);
	b = conn();
	assert_ptr_not_equal(a, b);
#ifndef __SANITIZE_ADDRESS__
	assert_int_equal(a[0], 0x5a);
	assert_int_equal(a[CONN_SIZE - 1], 0x5a);
	mem_reclaim();
	assert_ptr_equal(conn(), a);
	assert_true(all_zero(a, CONN_SIZE));
	mem_put(MEM_CONN, a);
#endif
	mem_put(MEM_CONN, b);
	mem_put(MEM_CONN, NULL);
	mem_drain();
}

static void test_usage(void **state)
{
	void *a, *b;

	a = conn();
	b = conn();
	assert_string_equal(usage(MEM_CONN).name, "conn");
	assert_int_equal(usage(MEM_CONN).size, CONN_SIZE);
	assert_int_equal(usage(MEM_CONN).used, 2);
	mem_put(MEM_CONN, a);
	assert_int_equal(usage(MEM_CONN).used, 1);
	mem_put(MEM_CONN, b);
	mem_drain();
	assert_int_equal(usage(MEM_CONN).used, 0);
}

static void test_limit(void **state)
{
	void *a, *b;

	mem_limit(MEM_CONN, 2);
	a = conn();
	b = conn();
	assert_null(mem_get(MEM_CONN, CONN_SIZE));
	assert_null(mem_get(MEM_CONN, CONN_SIZE));
	assert_int_equal(usage(MEM_CONN).failed, 2);
	assert_int_equal(usage(MEM_CONN).used, 2);
	mem_put(MEM_CONN, a);
	a = conn();
	mem_limit(MEM_CONN, 0);
	mem_put(MEM_CONN, conn());
	mem_put(MEM_CONN, a);
	mem_put(MEM_CONN, b);
	mem_drain();
	assert_int_equal(usage(MEM_CONN).used, 0);
}

static void test_other_has_any_size(void **state)
{
	unsigned char *a = mem_get(MEM_OTHER, 10), *b = mem_get(MEM_OTHER, 5000);

	assert_true(all_zero(b, 5000));
	memset(a, 1, 10);
	memset(b, 1, 5000);
	mem_put(MEM_OTHER, a);
	mem_put(MEM_OTHER, b);
	mem_reclaim();
	b = mem_get(MEM_OTHER, 6000);
	assert_true(all_zero(b, 6000));
	mem_put(MEM_OTHER, b);
	mem_drain();
}

/* More than a thread keeps: nothing may be lost or handed out twice. */
static void test_many(void **state)
{
	enum { MANY = 6000 };
	static uint32_t *all[MANY];

	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < MANY; i++) {
			all[i] = mem_get(MEM_MSG, 64);
			assert_non_null(all[i]);
			all[i][0] = i;
		}
		for (uint32_t i = 0; i < MANY; i++) {
			assert_int_equal(all[i][0], i);
			mem_put(MEM_MSG, all[i]);
		}
		mem_reclaim();
	}
	assert_int_equal(usage(MEM_MSG).used, 0);
	mem_drain();
}

static void *put_on_thread(void *obj)
{
	mem_put(MEM_CONN, obj);
	mem_put(MEM_CONN, conn());
	mem_drain();
	return NULL;
}

static void test_put_on_another_thread(void **state)
{
	pthread_t thread;
	void *keep = conn();

	assert_int_equal(pthread_create(&thread, NULL, put_on_thread, conn()), 0);
	pthread_join(thread, NULL);
	assert_int_equal(usage(MEM_CONN).used, 1);
	mem_put(MEM_CONN, keep);
	mem_drain();
}

enum { CROWD = 4, CROWD_LIMIT = 50 };
static pthread_barrier_t full;

static void *take_all(void *count)
{
	void *mine[CROWD_LIMIT + 1];
	int n = 0;

	while ((mine[n] = mem_get(MEM_PUMP, 100)))
		n++;
	*(int *)count = n;
	pthread_barrier_wait(&full);
	while (n > 0)
		mem_put(MEM_PUMP, mine[--n]);
	mem_drain();
	return NULL;
}

/* A refused request counts for a moment, so a neighbour may be refused early, but never late. */
static void test_limit_holds_for_all_threads(void **state)
{
	pthread_t threads[CROWD];
	int counts[CROWD], sum = 0;

	mem_limit(MEM_PUMP, CROWD_LIMIT);
	pthread_barrier_init(&full, NULL, CROWD);
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_all, &counts[i]), 0);
	for (int i = 0; i < CROWD; i++) {
		pthread_join(threads[i], NULL);
		sum += counts[i];
	}
	assert_in_range(sum, 1, CROWD_LIMIT);
	assert_int_equal(usage(MEM_PUMP).used, 0);
	assert_int_equal(usage(MEM_PUMP).failed, CROWD);
	pthread_barrier_destroy(&full);
}

static void other_size(void)
{
	mem_put(MEM_CONN, mem_get(MEM_CONN, CONN_SIZE));
	mem_put(MEM_CONN, mem_get(MEM_CONN, CONN_SIZE + 1));
}

static void put_twice(void)
{
	void *a = mem_get(MEM_CONN, CONN_SIZE);

	mem_put(MEM_CONN, a);
	mem_put(MEM_CONN, a);
}

static void put_as_other_kind(void)
{
	mem_put(MEM_LINK, mem_get(MEM_CONN, CONN_SIZE));
}

static void test_misuse_is_a_bug(void **state)
{
	assert_true(aborts(other_size));
	assert_true(aborts(put_twice));
	assert_true(aborts(put_as_other_kind));
}

static void test_malloc_family(void **state)
{
	char *s = xasprintf("%s-%d", "a", 5), *copy = xstrdup(s);
	unsigned char *zero = xcalloc(3, 100);

	assert_string_equal(copy, "a-5");
	assert_true(all_zero(zero, 300));
	zero = xrealloc(zero, 400);
	s = xrealloc(s, 0);
	free(s);
	free(copy);
	free(zero);
	free(xmalloc(0));
	free(xcalloc(0, 5));
}

/* No memory at all for a moment; sanitizers do not survive that. */
static void test_refusal_drops_the_ballast(void **state)
{
	struct rlimit none = { .rlim_cur = 0, .rlim_max = RLIM_INFINITY }, before;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip();
#endif
	mem_ballast();
	assert_false(mem_short());
	assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
	none.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
	void *p = mem_get(MEM_OTHER, 1u << 30);
	mem_ballast();
	bool was_short = mem_short();
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_null(p);
	assert_true(was_short);
	mem_ballast();
	assert_false(mem_short());
}

/* Who must not fail asks again when the ballast has been given up; the second time it is the end. */
static void test_the_ballast_is_for_who_must_not_fail(void **state)
{
	void *p;

	mem_ballast();
	failing = 1;
	p = xmalloc(100);
	assert_true(has_failed() && mem_short());
	mem_ballast();
	assert_false(mem_short());
	failing = 1;
	p = xrealloc(p, 200);
	assert_true(has_failed() && mem_short());
	failing = 1;
	assert_null(mem_realloc(p, 300));
	failing = 1;
	assert_null(mem_calloc(1, 300));
	assert_true(has_failed());
	free(p);
	mem_ballast();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reuse_waits_for_the_turn),
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_other_has_any_size),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_put_on_another_thread),
		cmocka_unit_test(test_limit_holds_for_all_threads),
		cmocka_unit_test(test_misuse_is_a_bug),
		cmocka_unit_test(test_malloc_family),
		cmocka_unit_test(test_refusal_drops_the_ballast),
		cmocka_unit_test(test_the_ballast_is_for_who_must_not_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
