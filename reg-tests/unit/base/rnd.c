/* Random numbers: repeatable when seeded, unbiased, different otherwise. */
#include "mctunnel/base/rnd.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_bytes(void **state)
{
	unsigned char a[1000], b[1000];
	unsigned ones = 0;

	memset(a, 0, sizeof(a));
	rnd_bytes(a, sizeof(a));
	rnd_bytes(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	for (size_t i = 0; i < sizeof(a); i++)
		ones += (unsigned)__builtin_popcount(a[i]);
	assert_in_range(ones, 3600, 4400);
	b[0] = 7;
	rnd_bytes(b, 0);
	assert_int_equal(b[0], 7);
}

static void test_seed_repeats(void **state)
{
	uint64_t first[10];

	rnd_seed(5);
	for (int i = 0; i < 10; i++)
		first[i] = rnd_u64();
	rnd_seed(6);
	assert_int_not_equal(rnd_u64(), first[0]);
	rnd_seed(5);
	for (int i = 0; i < 10; i++)
		assert_int_equal(rnd_u64(), first[i]);
	assert_int_not_equal(first[0], first[1]);
}

static void test_bits_are_even(void **state)
{
	unsigned count[64] = { 0 };

	rnd_seed(1);
	for (int i = 0; i < 10000; i++) {
		uint64_t x = rnd_u64();

		for (int bit = 0; bit < 64; bit++)
			count[bit] += x >> bit & 1;
	}
	for (int bit = 0; bit < 64; bit++)
		assert_in_range(count[bit], 4700, 5300);
}

static void test_below(void **state)
{
	unsigned count[7] = { 0 }, low = 0;

	rnd_seed(2);
	assert_int_equal(rnd_below(1), 0);
	for (int i = 0; i < 70000; i++) {
		uint32_t x = rnd_below(7);

		assert_true(x < 7);
		count[x]++;
	}
	for (int i = 0; i < 7; i++)
		assert_in_range(count[i], 9500, 10500);
	/* Without refusals, numbers divisible by three would come up twice as often below this bound. */
	for (int i = 0; i < 30000; i++)
		low += rnd_below(3u << 30) % 3 == 0;
	assert_in_range(low, 9400, 10600);
}

static void *draw(void *out)
{
	*(uint64_t *)out = rnd_u64();
	return NULL;
}

static void test_unseeded_threads_differ(void **state)
{
	uint64_t drawn[2];

	for (int i = 0; i < 2; i++) {
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, draw, &drawn[i]), 0);
		pthread_join(thread, NULL);
	}
	assert_int_not_equal(drawn[0], drawn[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_seed_repeats),
		cmocka_unit_test(test_bits_are_even),
		cmocka_unit_test(test_below),
		cmocka_unit_test(test_unseeded_threads_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
