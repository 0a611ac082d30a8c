/* Messages between master and worker, good ones and impossible ones. */
#include "main/control.c"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int ends[2];
static struct control_msg got;

static int set_up(void **state)
{
	return control_pair(ends);
}

static int tear_down(void **state)
{
	close(ends[0]);
	close(ends[1]);
	return 0;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void letters_keep_their_borders(void **state)
{
	assert_int_equal(control_send(ends[0], CONTROL_READY, NULL, 0, NULL, 0), 0);
	assert_int_equal(control_say(ends[0], CONTROL_ANSWER, 7, "a\nb"), 0);
	assert_int_equal(control_recv(ends[1], &got, false), 1);
	assert_int_equal(got.what, CONTROL_READY);
	assert_int_equal(got.len, 0);
	assert_int_equal(control_recv(ends[1], &got, false), 1);
	const char *text;
	assert_int_equal(control_ticket_of(&got, &text)->ticket, 7);
	assert_string_equal(text, "a\nb");
	assert_int_equal(control_recv(ends[1], &got, false), -1);
	assert_int_equal(errno, EAGAIN);
	close(ends[0]);
	assert_int_equal(control_recv(ends[1], &got, false), 0);
	ends[0] = ends[1];
	ends[1] = -1;
}

static void long_text_is_cut(void **state)
{
	static char text[100000];
	const char *out;

	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(control_say(ends[0], CONTROL_REFUSED, 1, text), 0);
	assert_int_equal(control_recv(ends[1], &got, false), 1);
	assert_non_null(control_ticket_of(&got, &out));
	assert_int_equal(strlen(out), TEXT_MAX);
}

static void too_long_is_none(void **state)
{
	static uint8_t big[CONTROL_MAX + 100];

	big[0] = 'L';
	assert_int_equal(send(ends[0], big, sizeof(big), 0), sizeof(big));
	assert_int_equal(control_recv(ends[1], &got, true), -1);
	assert_int_equal(errno, EBADMSG);
	assert_int_equal(send(ends[0], big, CONTROL_MAX + 1, 0), CONTROL_MAX + 1);
	assert_int_equal(control_recv(ends[1], &got, true), 1);
	assert_int_equal(got.len, CONTROL_MAX);
}

static void descriptors_come_along_or_are_closed(void **state)
{
	int fds[CONTROL_FDS], before;

	for (int i = 0; i < CONTROL_FDS; i++)
		fds[i] = ends[0];
	assert_int_equal(control_send(ends[0], CONTROL_SOCKETS, NULL, 0, fds, CONTROL_FDS), 0);
	assert_int_equal(control_recv(ends[1], &got, true), 1);
	assert_int_equal(got.fds_n, CONTROL_FDS);
	for (int i = 0; i < CONTROL_FDS; i++)
		close(got.fds[i]);
	before = dup(0);
	close(before);
	assert_int_equal(control_send(ends[0], CONTROL_SOCKETS, NULL, 0, fds, 3), 0);
	assert_int_equal(control_recv(ends[1], &got, false), 1);
	assert_int_equal(got.fds_n, 0);
	assert_false(is_open(before));
}

static void never_blocks(void **state)
{
	int n = 0;

	while (control_say(ends[0], CONTROL_ANSWER, 1, "text") == 0)
		assert_true(++n < 100000);
	assert_int_equal(errno, EAGAIN);
}

static void no_ticket(void **state)
{
	const char *text;

	assert_int_equal(control_send(ends[0], CONTROL_ASK_RELOAD, "abc", 3, NULL, 0), 0);
	assert_int_equal(control_recv(ends[1], &got, false), 1);
	assert_null(control_ticket_of(&got, &text));
}

static const struct control_load *load(uint32_t sockets, uint32_t fresh, const int32_t *origins, size_t n, size_t held)
{
	struct control_load l = { .sockets = sockets, .fresh = fresh };
	const int32_t *out;

	got.what = CONTROL_LOAD;
	got.fds_n = 1;
	got.len = sizeof(l) + n * sizeof(*origins);
	memcpy(got.bytes, &l, sizeof(l));
	memcpy(got.bytes + sizeof(l), origins, n * sizeof(*origins));
	return control_load_of(&got, held, &out);
}

static void lists_of_sockets(void **state)
{
	static const int32_t good[] = { 1, -1, 0, -1 }, twice[] = { 1, 1 }, beyond[] = { 2 }, below[] = { -2 };
	const int32_t *out;

	assert_non_null(load(4, 2, good, 4, 2));
	assert_non_null(load(0, 0, good, 0, 2));
	assert_null(load(4, 1, good, 4, 2));
	assert_null(load(5, 2, good, 4, 2));
	assert_null(load(3, 2, good, 4, 2));
	assert_null(load(UINT32_MAX, 2, good, 4, 2));
	assert_null(load(2, 0, twice, 2, 2));
	assert_null(load(1, 0, beyond, 1, 2));
	assert_null(load(1, 0, below, 1, 2));
	assert_non_null(load(4, 2, good, 4, 2));
	got.fds_n = 0;
	assert_null(control_load_of(&got, 2, &out));
	got.fds_n = 1;
	((struct control_load *)got.bytes)->logs = 5;
	assert_null(control_load_of(&got, 2, &out));
	got.fds_n = 3;
	assert_non_null(control_load_of(&got, 2, &out));
	got.fds_n = 1;
	got.len = sizeof(struct control_load) - 1;
	assert_null(control_load_of(&got, 2, &out));
	got.len = sizeof(struct control_load) + 3;
	assert_null(control_load_of(&got, 2, &out));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(letters_keep_their_borders), TEST(long_text_is_cut), TEST(too_long_is_none), TEST(descriptors_come_along_or_are_closed),
		TEST(never_blocks),               TEST(no_ticket),        TEST(lists_of_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
