/* The map: the hash against known answers, then random use against an array. */
#include "base/map.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* Answers of another implementation (CPython's, with the key 0) for the bytes 0, 1, 2, ... */
static void test_siphash(void **state)
{
	static const struct {
		size_t len;
		uint64_t hash;
	} known[] = {
		{ 1, UINT64_C(0x68a914128e01e473) },  { 7, UINT64_C(0x2f098ab0c751325a) },
		{ 8, UINT64_C(0xead411e67ebe2eea) },  { 9, UINT64_C(0x75927f9d95124362) },
		{ 15, UINT64_C(0xf30eb725bb91c9ea) }, { 16, UINT64_C(0x8972188433a5c5b7) },
		{ 33, UINT64_C(0x7fb71d24dfa4c9f6) },
	};
	const uint64_t zero[2] = { 0, 0 }, other[2] = { 0, 1 };
	unsigned char data[40];

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)i;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		assert_int_equal(siphash13(zero, data, known[i].len), known[i].hash);
		assert_int_not_equal(siphash13(other, data, known[i].len), known[i].hash);
	}
}

static void test_set_get_del(void **state)
{
	struct map *m = map_new();
	int one, two;

	assert_true(process_key[0] && process_key[1]);
	assert_null(map_get_str(m, "a"));
	assert_null(map_del_str(m, "a"));
	assert_null(map_set_str(m, "a", &one));
	assert_ptr_equal(map_get_str(m, "a"), &one);
	assert_ptr_equal(map_set_str(m, "a", &two), &one);
	assert_int_equal(map_count(m), 1);
	assert_ptr_equal(map_del_str(m, "a"), &two);
	assert_null(map_get_str(m, "a"));
	assert_int_equal(map_count(m), 0);
	map_free(m);
	map_free(NULL);
}

static void test_keys_are_bytes_and_copied(void **state)
{
	struct map *m = map_new();
	char key[40] = "0123456789abcdefghijklmnopqrstuvwxyz";
	int values[40], empty;

	for (size_t len = 1; len <= sizeof(key); len++)
		assert_null(map_set(m, key, len, &values[len - 1]));
	assert_null(map_set(m, NULL, 0, &empty));
	assert_int_equal(map_count(m), sizeof(key) + 1);
	for (size_t len = 1; len <= sizeof(key); len++) {
		char copy[40];

		memcpy(copy, key, len);
		assert_ptr_equal(map_get(m, copy, len), &values[len - 1]);
	}
	memset(key, 'x', sizeof(key));
	assert_null(map_get(m, key, 20));
	assert_null(map_get(m, "a\0b", 3));
	assert_null(map_set(m, "a\0b", 3, &values[0]));
	assert_null(map_get(m, "a\0c", 3));
	assert_ptr_equal(map_get_str(m, ""), &empty);
	map_free(m);
}

enum { KEYS = 3000 };
static char present[KEYS]; /* the values: addresses in here */
static uint32_t seed;

static uint32_t chance(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)seed * n) >> 32);
}

/* Long and short keys, so that both ways of keeping them are used. */
static const char *name(uint32_t i)
{
	static char text[64];

	snprintf(text, sizeof(text), i % 3 ? "k%u" : "a key that does not fit %u", i);
	return text;
}

static void assert_same(const struct map *m, uint32_t keys)
{
	static bool seen[KEYS];
	size_t pos = 0, count = 0;
	char *value;

	memset(seen, 0, sizeof(seen));
	while ((value = map_next(m, &pos))) {
		assert_in_range(value - present, 0, keys - 1);
		assert_true(*value && !seen[value - present]);
		seen[value - present] = true;
		count++;
	}
	assert_int_equal(count, map_count(m));
	for (uint32_t i = 0; i < keys; i++) {
		assert_int_equal(seen[i], present[i]);
		assert_ptr_equal(map_get_str(m, name(i)), present[i] ? &present[i] : NULL);
	}
}

static void random_use(uint32_t keys, int steps, int share_of_sets, struct map *m)
{
	for (int i = 0; i < steps; i++) {
		uint32_t k = chance(keys);
		void *before = present[k] ? &present[k] : NULL;

		if (chance(100) < (uint32_t)share_of_sets) {
			assert_ptr_equal(map_set_str(m, name(k), &present[k]), before);
			present[k] = 1;
		} else {
			assert_ptr_equal(map_del_str(m, name(k)), before);
			present[k] = 0;
		}
	}
	assert_same(m, keys);
}

static void test_random_use(void **state)
{
	static const uint32_t sizes[] = { 5, 12, 13, 100, KEYS };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct map *m = map_new();
		int steps = (int)sizes[i] * 5;

		seed = (uint32_t)i;
		memset(present, 0, sizeof(present));
		random_use(sizes[i], steps, 80, m);
		random_use(sizes[i], steps, 50, m);
		random_use(sizes[i], steps, 5, m);
		random_use(sizes[i], steps, 60, m);
		map_free(m);
	}
}

/* All keys crowded at the table's end: gaps close across the wrap. */
static void test_collisions_at_the_wrap(void **state)
{
	for (uint32_t victim = 0; victim < 10; victim++) {
		struct map *m = map_new();
		uint32_t crowd[10], n = 0;

		memset(present, 0, sizeof(present));
		for (uint32_t k = 0; n < 10; k++)
			if ((hash_key(name(k), strlen(name(k))) & (CAP_MIN - 1)) >= CAP_MIN - 3 && k < KEYS)
				crowd[n++] = k;
		for (uint32_t i = 0; i < n; i++) {
			map_set_str(m, name(crowd[i]), &present[crowd[i]]);
			present[crowd[i]] = 1;
		}
		assert_int_equal(m->cap, CAP_MIN);
		assert_same(m, KEYS);
		assert_non_null(map_del_str(m, name(crowd[victim])));
		present[crowd[victim]] = 0;
		assert_same(m, KEYS);
		map_free(m);
	}
}

static void test_shrinks_again(void **state)
{
	struct map *m = map_new();

	for (uint32_t i = 0; i < KEYS; i++)
		map_set_str(m, name(i), &present[i]);
	assert_in_range(m->cap, KEYS, KEYS * 4);
	for (uint32_t i = 0; i < KEYS; i++)
		assert_ptr_equal(map_del_str(m, name(i)), &present[i]);
	assert_int_equal(m->cap, CAP_MIN);
	map_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siphash),
		cmocka_unit_test(test_set_get_del),
		cmocka_unit_test(test_keys_are_bytes_and_copied),
		cmocka_unit_test(test_random_use),
		cmocka_unit_test(test_collisions_at_the_wrap),
		cmocka_unit_test(test_shrinks_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
