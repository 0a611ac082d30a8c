/* How a target stands: HAProxy's counting, as a table of checks and what they make of it. */
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/standing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect_words(const struct standing *s, const char *want)
{
	char words[32];

	standing_words(s, words, sizeof(words));
	assert_string_equal(words, want);
}

/* Each letter of checks is one: '+' good, '-' bad; words are what it is afterwards, divided by commas. */
static void drive(struct standing *s, const char *checks, const char *words)
{
	uint64_t now = 1000;

	for (; *checks; checks++) {
		size_t len = strcspn(words, ",");
		char want[32] = "";
		bool was_up = standing_up(s);
		enum standing_change change = standing_note(s, *checks == '+', ++now);

		memcpy(want, words, len);
		words += len + (words[len] == ',');
		expect_words(s, want);
		assert_int_equal(change, standing_up(s) == was_up ? STANDING_SAME : was_up ? STANDING_FELL : STANDING_ROSE);
		if (change != STANDING_SAME)
			assert_int_equal(s->since_ms, now);
	}
	assert_string_equal(words, "");
}

static void test_counting(void **state)
{
	static const struct {
		uint32_t rise, fall;
		bool up;
		const char *checks, *words;
	} rows[] = {
		{ 2, 3, false, "+---++-+", "UP,UP 2/3,UP 1/3,DOWN,DOWN 1/2,UP,UP 2/3,UP" },
		{ 2, 3, false, "-+-++", "DOWN,DOWN 1/2,DOWN,DOWN 1/2,UP" },
		{ 2, 3, true, "-++", "DOWN,DOWN 1/2,UP" },
		{ 2, 3, true, "+--+-", "UP 2/3,UP 1/3,DOWN,DOWN 1/2,DOWN" },
		{ 1, 1, false, "+-+-", "UP,DOWN,UP,DOWN" },
		{ 1, 1, true, "+-", "UP,DOWN" },
		{ 3, 1, false, "+-++-+++", "UP,DOWN,DOWN 1/3,DOWN 2/3,DOWN,DOWN 1/3,DOWN 2/3,UP" },
		{ 1, 4, false, "+--+---", "UP,UP 3/4,UP 2/4,UP 3/4,UP 2/4,UP 1/4,DOWN" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct conf_check c = { .rise = rows[i].rise, .fall = rows[i].fall };
		struct standing s;

		standing_init(&s, &c, rows[i].up, 500);
		assert_int_equal(standing_up(&s), rows[i].up);
		assert_int_equal(s.since_ms, 500);
		drive(&s, rows[i].checks, rows[i].words);
	}
}

static void test_condemned(void **state)
{
	struct conf_check c = { .rise = 2, .fall = 3 };
	struct standing s;

	standing_init(&s, &c, false, 500);
	drive(&s, "++", "UP,UP");
	assert_int_equal(standing_condemn(&s, 2000), STANDING_FELL);
	assert_int_equal(s.since_ms, 2000);
	assert_int_equal(standing_condemn(&s, 2001), STANDING_SAME);
	assert_int_equal(s.since_ms, 2000);
	expect_words(&s, "DOWN");
	drive(&s, "++", "DOWN 1/2,UP");
}

static void test_adapts(void **state)
{
	struct conf_check c = { .rise = 2, .fall = 3 }, other = { .rise = 5, .fall = 1 };
	struct standing s;

	standing_init(&s, &c, false, 500);
	drive(&s, "+-", "UP,UP 2/3");
	standing_adapt(&s, &other);
	expect_words(&s, "UP");
	drive(&s, "-++", "DOWN,DOWN 1/5,DOWN 2/5");
	standing_adapt(&s, &c);
	expect_words(&s, "DOWN");
}

static void test_pauses(void **state)
{
	struct conf_check c = { .rise = 2, .fall = 2, .interval = 2000, .fastinter = 500, .downinter = 5000 };
	struct standing s;

	standing_init(&s, &c, false, 0);
	assert_int_equal(standing_pause(&s, &c), 500);
	standing_note(&s, true, 1);
	assert_int_equal(standing_pause(&s, &c), 2000);
	standing_note(&s, false, 2);
	assert_int_equal(standing_pause(&s, &c), 500);
	standing_note(&s, false, 3);
	assert_int_equal(standing_pause(&s, &c), 5000);
	standing_note(&s, true, 4);
	assert_int_equal(standing_pause(&s, &c), 500);
	c.fastinter = c.downinter = 0;
	assert_int_equal(standing_pause(&s, &c), 2000);
}

static void test_slowstart(void **state)
{
	struct conf_check c = { .rise = 1, .fall = 1, .slowstart = 1000 };
	struct standing s;

	standing_init(&s, &c, false, 0);
	standing_note(&s, true, 10); /* the first time it just begins */
	assert_int_equal(standing_weight(&s, &c, 100, 10), 100);
	assert_int_equal(standing_next_step(&s, &c, 10), 0);
	standing_note(&s, false, 20);
	assert_int_equal(standing_next_step(&s, &c, 20), 0);
	standing_note(&s, true, 5000);
	uint64_t now = 5000;
	uint32_t last = 0, steps = 0, wait;
	do {
		uint32_t weight = standing_weight(&s, &c, 100, now);

		assert_true(weight > last);
		last = weight;
		steps++;
		wait = standing_next_step(&s, &c, now);
		assert_int_equal(standing_weight(&s, &c, 0, now), 0);
		assert_true(standing_weight(&s, &c, 1, now) == 1);
		now += wait;
	} while (wait);
	assert_int_equal(last, 100);
	assert_int_equal(steps, STANDING_STEPS);
	assert_int_equal(now, 6000);
	c.slowstart = 0;
	assert_int_equal(standing_weight(&s, &c, 256, 5001), 256);
	standing_note(&s, false, 7000);
	c.slowstart = 1000;
	assert_int_equal(standing_next_step(&s, &c, 7000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counting), cmocka_unit_test(test_condemned), cmocka_unit_test(test_adapts),
		cmocka_unit_test(test_pauses), cmocka_unit_test(test_slowstart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
