/* Brakes: the tightest limit counts, shared ones are shared, and the bytes of a second come to the rate. */
#include "edge/brake.c"

#include "mctunnel/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static uint64_t now_us;
static int loosened;

static void on_loose(void *owner)
{
	loosened++;
}

static void at(uint64_t us)
{
	now_us = us;
	clock_set_us(us);
	timers_run();
}

/* Moves what it may, for so long; returns the bytes. */
static size_t run(struct brake *b, enum brake_way way, uint64_t ms)
{
	size_t sum = 0, n;

	for (uint64_t end = now_us + ms * 1000; now_us < end; at(now_us + 1000)) {
		while ((n = brake_room(b, way)) > 0) {
			brake_moved(b, way, n);
			sum += n;
		}
	}
	return sum;
}

static void keeps_its_rate(void **state)
{
	struct brake *b = brake_new(on_loose, NULL);
	size_t n;

	at(1000000000);
	brake_add(b, BRAKE_IN, NULL, 1000000);
	brake_add(b, BRAKE_IN, NULL, 4000000);
	n = run(b, BRAKE_IN, 10000);
	assert_in_range(n, 9900000, 10200000);
	assert_true(loosened > 10);
	assert_true(brake_room(b, BRAKE_OUT) > 1u << 20); /* the other way has none */
	brake_free(b);
}

static void shares(void **state)
{
	struct brake *a = brake_new(on_loose, NULL), *b = brake_new(on_loose, NULL);
	struct flow both = { 0 };
	size_t n = 0;

	at(2000000000);
	brake_add(a, BRAKE_OUT, &both, 500000);
	brake_add(b, BRAKE_OUT, &both, 500000);
	for (int i = 0; i < 1000; i++)
		n += run(i % 2 ? a : b, BRAKE_OUT, 10);
	assert_in_range(n, 4900000, 5200000);
	brake_free(a);
	brake_free(b);
}

/* Quiet time is not saved up. */
static void no_burst_after_a_pause(void **state)
{
	struct brake *b = brake_new(on_loose, NULL);

	at(3000000000);
	brake_add(b, BRAKE_IN, NULL, 100000);
	run(b, BRAKE_IN, 1000);
	at(now_us + 3600000000);
	assert_in_range(run(b, BRAKE_IN, 1000), 99000, 110000);
	brake_free(b);
}

static void goes_on_elsewhere(void **state)
{
	struct brake *b = brake_new(on_loose, NULL);

	at(9000000000);
	brake_add(b, BRAKE_IN, NULL, 1000);
	brake_moved(b, BRAKE_IN, 1000);
	assert_int_equal(brake_room(b, BRAKE_IN), 0);
	loosened = 0;
	brake_leave(b);
	at(now_us + 10000000);
	assert_int_equal(loosened, 0);
	assert_true(brake_room(b, BRAKE_IN) > 0);
	brake_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_its_rate),
		cmocka_unit_test(shares),
		cmocka_unit_test(no_burst_after_a_pause),
		cmocka_unit_test(goes_on_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
