/* The rings of the last records: order, overwriting, cutting; records that the log keeps whatever its targets take. */
#include "mctunnel/base/ring.h"

#include "mctunnel/base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state)
{
	ring_open();
	return 0;
}

static int tear_down(void **state)
{
	ring_close();
	return 0;
}

/* For a reader that wants only what comes now. */
static uint64_t newest(enum ring_id ring)
{
	uint64_t seq = 0;
	char buf[64];

	while (ring_next(ring, &seq, false, buf, sizeof(buf)))
		;
	return seq;
}

static void keep(enum ring_id ring, const char *text)
{
	ring_keep(ring, text, strlen(text), "{}", 2);
}

static void gives_back_in_order(void **state)
{
	uint64_t seq = newest(RING_EVENTS);
	char buf[64];

	assert_int_equal(ring_next(RING_EVENTS, &seq, false, buf, sizeof(buf)), 0);
	keep(RING_EVENTS, "one");
	keep(RING_EVENTS, "two");
	assert_int_equal(ring_next(RING_EVENTS, &seq, false, buf, sizeof(buf)), 3);
	assert_string_equal(buf, "one");
	assert_int_equal(ring_next(RING_EVENTS, &seq, true, buf, sizeof(buf)), 2);
	assert_string_equal(buf, "{}");
	assert_int_equal(ring_next(RING_EVENTS, &seq, false, buf, sizeof(buf)), 0);
}

static void forgets_the_oldest(void **state)
{
	uint64_t seq = newest(RING_ERRORS);
	char buf[64];

	for (int i = 0; i < 3 * RING_ERRORS_MAX; i++) {
		snprintf(buf, sizeof(buf), "record %d", i);
		keep(RING_ERRORS, buf);
	}
	for (int i = 2 * RING_ERRORS_MAX; i < 3 * RING_ERRORS_MAX; i++) {
		char wanted[64];

		snprintf(wanted, sizeof(wanted), "record %d", i);
		assert_true(ring_next(RING_ERRORS, &seq, false, buf, sizeof(buf)) > 0);
		assert_string_equal(buf, wanted);
	}
	assert_int_equal(ring_next(RING_ERRORS, &seq, false, buf, sizeof(buf)), 0);
}

static void cuts(void **state)
{
	uint64_t seq = newest(RING_EVENTS);
	char buf[5];

	keep(RING_EVENTS, "a long record");
	assert_int_equal(ring_next(RING_EVENTS, &seq, false, buf, sizeof(buf)), 4);
	assert_string_equal(buf, "a lo");
}

static void keeps_what_the_log_says(void **state)
{
	uint64_t events = newest(RING_EVENTS), errors = newest(RING_ERRORS);
	char buf[256], err[128];

	assert_int_equal(log_open("/dev/null", LOG_TEXT, LOG_ALERT, err, sizeof(err)), 0);
	assert_true(log_wants(LOG_NOTICE));
	assert_false(log_wants(LOG_INFO));
	log_notice("it %s", "happened");
	log_warning("it went wrong");
	log_info("never mind");
	assert_true(ring_next(RING_EVENTS, &events, false, buf, sizeof(buf)) > 0);
	assert_non_null(strstr(buf, " notice it happened"));
	assert_true(ring_next(RING_EVENTS, &events, true, buf, sizeof(buf)) > 0);
	assert_non_null(strstr(buf, "\"text\":\"it went wrong\"}"));
	assert_int_equal(ring_next(RING_EVENTS, &events, false, buf, sizeof(buf)), 0);
	assert_true(ring_next(RING_ERRORS, &errors, false, buf, sizeof(buf)) > 0);
	assert_null(strchr(buf, '\n'));
	assert_int_equal(ring_next(RING_ERRORS, &errors, false, buf, sizeof(buf)), 0);
	ring_close();
	assert_false(log_wants(LOG_NOTICE));
	log_close_all();
}

static atomic_bool over;

static void *keep_writing(void *arg)
{
	volatile uint32_t *at = &((struct ring_page *)arg)->at;

	while (!atomic_load(&over)) {
		*at = 8;
		*at = 4000;
	}
	return NULL;
}

/* A worker that was taken over may have left processes that go on writing into the page while the master reads it. */
static void page_that_changes_while_it_is_read(void **state)
{
	enum { ROOM = 16, READS = 200000 };
	struct ring_page *page = calloc(1, sizeof(*page));
	char *buf = malloc(ROOM); /* so that a sanitizer knows its end */
	pthread_t thread;

	memset(page->events, '\n', sizeof(page->events));
	atomic_store(&over, false);
	assert_int_equal(pthread_create(&thread, NULL, keep_writing, page), 0);
	for (int i = 0; i < READS; i++) {
		memset(buf, 'x', ROOM);
		ring_page_events(page, buf, ROOM);
		if (strnlen(buf, ROOM) >= ROOM)
			break;
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	assert_true(strnlen(buf, ROOM) < ROOM);
	free(buf);
	free(page);
}

static void panic_without_an_end(void **state)
{
	struct ring_page *page = malloc(sizeof(*page));
	char buf[sizeof(page->panic) + 1];

	memset(page, 'a', sizeof(*page));
	ring_share(page);
	ring_panic(buf, sizeof(buf));
	assert_int_equal(strlen(buf), sizeof(page->panic));
	ring_panic(buf, 10);
	assert_string_equal(buf, "aaaaaaaaa");
	ring_share(NULL);
	ring_panic(buf, sizeof(buf));
	assert_string_equal(buf, "");
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(gives_back_in_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(forgets_the_oldest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cuts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(keeps_what_the_log_says, set_up, tear_down),
		cmocka_unit_test(page_that_changes_while_it_is_read),
		cmocka_unit_test(panic_without_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
