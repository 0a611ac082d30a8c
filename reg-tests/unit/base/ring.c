/* The page a process leaves to the next one. */
#include "base/ring.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct ring_page page;
static char text[8192];

static void keep(const char *line)
{
	ring_keep(RING_EVENTS, line, strlen(line), "{}", 2);
}

static void open_page(void)
{
	memset(&page, 0, sizeof(page));
	ring_share(&page);
	ring_open();
}

static void close_page(void)
{
	ring_close();
	ring_share(NULL);
}

static void events_in_order(void **state)
{
	open_page();
	ring_page_events(&page, text, sizeof(text));
	assert_string_equal(text, "");
	keep("one");
	keep("two");
	ring_keep(RING_ERRORS, "not an event", 12, "{}", 2);
	ring_page_events(&page, text, sizeof(text));
	assert_string_equal(text, "one\ntwo\n");
	close_page();
}

/* Only whole lines, only the newest, whatever the room. */
static void a_full_page(void **state)
{
	char line[64];

	open_page();
	for (int i = 0; i < 1000; i++) {
		snprintf(line, sizeof(line), "event number %d", i);
		keep(line);
	}
	for (size_t room = 1; room < sizeof(page.events) + 100; room++) {
		ring_page_events(&page, text, room);
		assert_true(strlen(text) < room);
		assert_true(text[0] == '\0' || strncmp(text, "event number ", 13) == 0);
		assert_true(text[0] == '\0' || strcmp(text + strlen(text) - 17, "event number 999\n") == 0);
	}
	assert_true(strlen(text) > sizeof(page.events) - 20);
	close_page();
}

static void a_line_longer_than_the_page(void **state)
{
	static char line[6000];

	open_page();
	memset(line, 'x', sizeof(line) - 1);
	keep(line);
	keep("short");
	ring_page_events(&page, text, sizeof(text));
	assert_string_equal(text, "short\n");
	close_page();
}

static void nothing_shared(void **state)
{
	ring_open();
	keep("one");
	assert_string_equal(ring_panic(), "");
	ring_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_in_order),
		cmocka_unit_test(a_full_page),
		cmocka_unit_test(a_line_longer_than_the_page),
		cmocka_unit_test(nothing_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
