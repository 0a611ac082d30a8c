/* What pools keep for reuse, and how it goes back; under sanitizers too, where the pools of the program keep nothing. */
#define KEEP_BYTES (8u << 20)
#include "base/mem.c"

#include <pthread.h>
#include <setjmp.h>

#include <cmocka.h>

enum { SIZE = 100, WAVE = 1000 };

static void *wave[WAVE];

static size_t kept(enum mem_kind kind)
{
	struct mem_usage u;

	mem_usage(kind, &u);
	return u.kept;
}

static void get_all(enum mem_kind kind, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		wave[i] = mem_get(kind, SIZE);
		assert_non_null(wave[i]);
	}
}

static void put_all(enum mem_kind kind, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mem_put(kind, wave[i]);
	mem_reclaim();
}

static bool relax(int times)
{
	bool worth = false;

	for (int i = 0; i < times; i++)
		worth = mem_relax() || worth;
	return worth;
}

static void test_what_a_wave_needed_goes_back(void **state)
{
	get_all(MEM_SESSION, WAVE);
	put_all(MEM_SESSION, WAVE);
	relax(1);
	assert_int_equal(kept(MEM_SESSION), WAVE); /* it was needed just now */
	relax(1);
	assert_int_equal(kept(MEM_SESSION), WAVE / 2);
	relax(12);
	assert_int_equal(kept(MEM_SESSION), 0);
}

static void test_what_is_needed_is_kept(void **state)
{
	for (int i = 0; i < 20; i++) {
		get_all(MEM_SESSION, WAVE);
		put_all(MEM_SESSION, WAVE);
		relax(1);
		assert_int_equal(kept(MEM_SESSION), WAVE);
	}
	for (int i = 0; i < 40; i++) {
		get_all(MEM_SESSION, 100);
		put_all(MEM_SESSION, 100);
		relax(1);
	}
	assert_in_range(kept(MEM_SESSION), 100, 101);
	mem_drain();
	assert_int_equal(kept(MEM_SESSION), 0);
}

static void *get_on_thread(void *arg)
{
	get_all(MEM_REQUEST, WAVE);
	return NULL;
}

/* What one thread gets and another one puts, for ever: nothing is taken from those that the other one keeps. */
static void test_what_others_got_does_not_pile_up(void **state)
{
	for (int i = 0; i < 10; i++) {
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, get_on_thread, NULL), 0);
		pthread_join(thread, NULL);
		put_all(MEM_REQUEST, WAVE);
		relax(1);
	}
	assert_in_range(kept(MEM_REQUEST), WAVE, 2 * WAVE);
	mem_drain();
}

static void test_trimming_is_worthwhile_when_much_was_freed(void **state)
{
	enum { BIG = 1 << 20 };

	relax(1);
	atomic_store(&freed, 0);
	for (int i = 0; i < 3; i++)
		mem_put(MEM_OTHER, mem_get(MEM_OTHER, BIG));
	mem_reclaim();
	assert_false(mem_relax());
	mem_put(MEM_OTHER, mem_get(MEM_OTHER, BIG));
	mem_reclaim();
	assert_true(mem_relax());
	assert_true(mem_relax());
	mem_trim();
	assert_false(mem_relax());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_a_wave_needed_goes_back),
		cmocka_unit_test(test_what_is_needed_is_kept),
		cmocka_unit_test(test_what_others_got_does_not_pile_up),
		cmocka_unit_test(test_trimming_is_worthwhile_when_much_was_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
