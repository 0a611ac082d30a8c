/* The admin socket's connections, with a producer of endless answers in place of the commands: lines however they come, backpressure, the end. */
#define _GNU_SOURCE
#include "admin/socket.c"

#include "mctunnel/admin/command.h"
#include "mctunnel/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int produced; /* calls of the endless answer */

static int echo(struct answer *a)
{
	answer_say(a, false, "%s", a->line);
	if (strcmp(a->line, "prompt") == 0)
		a->effect = EFFECT_PROMPT;
	if (strcmp(a->line, "quit") == 0)
		a->effect = EFFECT_QUIT;
	return ANSWER_DONE;
}

static int endless(struct answer *a)
{
	produced++;
	while (!answer_full(a))
		fputs("and so on, line after line, until somebody has had enough\n", a->out);
	return 0;
}

static int never(struct answer *a)
{
	return ANSWER_WAIT;
}

static const struct command echo_command = { .words = "", .args = "", .next = echo };
static const struct command endless_command = { .words = "", .args = "", .next = endless };
static const struct command never_command = { .words = "", .args = "", .next = never };

/* Instead of commands.c. */
struct answer *commands_ask(const struct asker *k, const char *text, void (*more)(void *), void *owner)
{
	struct answer *a = answer_new(more, owner);

	a->line = strdup(text);
	a->command = strcmp(text, "endless") == 0 ? &endless_command : strcmp(text, "never") == 0 ? &never_command : &echo_command;
	return a;
}

struct answer *commands_refuse(const struct asker *k, const char *text, void (*more)(void *), void *owner)
{
	return commands_ask(k, text, more, owner);
}

char *commands_cut(char **rest)
{
	char *start = *rest;

	if (!*start)
		return NULL;
	*rest = start + strcspn(start, ";");
	if (**rest)
		*(*rest)++ = '\0';
	return start;
}

static struct conf_admin where;
static char path[108];
static int listener;
static const struct admin_state state;

static int set_up(void **s)
{
	char err[200];

	loop_init();
	snprintf(path, sizeof(path), "unix:/tmp/admin-test-%d.sock", (int)getpid());
	assert_int_equal(endpoint_parse(&where.bind, path, ENDPOINT_BIND, err, sizeof(err)), 0);
	listener = sock_listen(&where.bind, err, sizeof(err));
	assert_true(listener >= 0);
	admin_init(&state);
	assert_int_equal(admin_open(&where, listener), 0);
	produced = 0;
	return 0;
}

static int tear_down(void **s)
{
	struct mem_usage u;

	admin_close();
	close(listener);
	unlink(path + 5);
	endpoint_fini(&where.bind);
	loop_turn(0);
	loop_fini();
	mem_reclaim();
	mem_drain();
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	return 0;
}

static void turns(int n)
{
	while (n-- > 0)
		loop_turn(0);
}

static int visitor(void)
{
	int fd = sock_connect(&where.bind.addr);

	assert_true(fd >= 0);
	turns(3);
	return fd;
}

static void tell(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	turns(5);
}

static void assert_heard(int fd, const char *text)
{
	char got[8192];
	ssize_t n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);

	got[n > 0 ? n : 0] = '\0';
	assert_string_equal(got, text);
}

static void assert_end(int fd)
{
	char c;

	assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), 0);
	close(fd);
	turns(3);
}

static void answers_one_line(void **s)
{
	int fd = visitor();

	tell(fd, "one;two ; ;three\nfour\n");
	assert_heard(fd, "one\n\ntwo \n\nthree\n\n");
	assert_end(fd);
	assert_int_equal(admin.clients_n, 0);
}

static void takes_bytes_as_they_come(void **s)
{
	int fd = visitor();

	for (const char *c = "hel lo"; *c; c++)
		tell(fd, (char[]){ *c, '\0' });
	assert_heard(fd, "");
	tell(fd, "\r\n");
	assert_heard(fd, "hel lo\n\n");
	assert_end(fd);
	fd = visitor();
	tell(fd, "no line feed");
	shutdown(fd, SHUT_WR);
	turns(5);
	assert_heard(fd, "no line feed\n\n");
	assert_end(fd);
	fd = visitor();
	shutdown(fd, SHUT_WR);
	turns(5);
	assert_end(fd);
}

static void prompts(void **s)
{
	int fd = visitor();

	tell(fd, "prompt\n");
	assert_heard(fd, "prompt\n\n\n> ");
	tell(fd, "one\ntwo;three\n\n");
	assert_heard(fd, "one\n\n\n> two\n\nthree\n\n\n> \n> ");
	tell(fd, "quit\nnot this\n");
	assert_heard(fd, "quit\n\n");
	assert_end(fd);
}

static void refuses_long_lines_at_once(void **s)
{
	char line[LINE_SIZE + 2];
	int fd = visitor();

	memset(line, 'x', sizeof(line));
	line[LINE_SIZE - 1] = '\0';
	tell(fd, line);
	assert_heard(fd, "");
	tell(fd, "x");
	assert_heard(fd, "The line is too long: at most 4095 bytes.\n\n");
	for (int i = 0; i < 10; i++)
		tell(fd, line); /* thrown away */
	assert_end(fd);
	fd = visitor();
	line[LINE_SIZE - 1] = '\n';
	line[LINE_SIZE] = '\0';
	tell(fd, line);
	assert_true(recv(fd, line, sizeof(line), MSG_DONTWAIT) > 0);
	assert_int_equal(line[0], 'x'); /* answered, cut as a sentence is */
	assert_end(fd);
}

static void refuses_control_characters(void **s)
{
	int fd = visitor();

	assert_int_equal(send(fd, "a\0b\n", 4, 0), 4);
	turns(5);
	assert_heard(fd, "There are control characters in the line.\n\n");
	assert_end(fd);
}

/* Pieces are made only when the one before was taken: not more than what the kernel holds and one. */
static void stops_for_who_does_not_read(void **s)
{
	char waste[65536];
	int fd = visitor(), before;

	tell(fd, "endless\n");
	turns(200);
	before = produced;
	turns(200);
	assert_int_equal(produced, before);
	assert_true(before < 20);
	for (int i = 0; i < 50; i++) {
		while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
			;
		turns(2);
	}
	assert_true(produced > before);
	close(fd); /* in the middle */
	turns(20);
	assert_int_equal(admin.clients_n, 0);
}

static void shares_the_loop(void **s)
{
	int fds[4], before;

	for (int i = 0; i < 4; i++) {
		fds[i] = visitor();
		tell(fds[i], "endless\n");
	}
	before = produced;
	turns(3);
	assert_true(produced - before <= 3);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	turns(20);
	assert_int_equal(admin.clients_n, 0);
}

static void lets_go_while_an_answer_waits(void **s)
{
	int fd = visitor();

	tell(fd, "never\n");
	assert_int_equal(admin.clients_n, 1);
	close(fd);
	turns(5);
	assert_int_equal(admin.clients_n, 0);
	fd = visitor();
	tell(fd, "never\n"); /* under way when all ends */
	admin_close();
	close(fd);
	admin_init(&state);
}

static void has_a_limit_of_clients(void **s)
{
	int fds[CLIENTS_MAX + 5];

	for (int i = 0; i < CLIENTS_MAX + 5; i++)
		fds[i] = visitor();
	assert_int_equal(admin.clients_n, CLIENTS_MAX);
	tell(fds[CLIENTS_MAX], "waits\n");
	assert_heard(fds[CLIENTS_MAX], "");
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	turns(10);
	assert_heard(fds[CLIENTS_MAX], "waits\n\n");
	for (int i = 3; i < CLIENTS_MAX + 5; i++)
		close(fds[i]);
	turns(10);
	assert_int_equal(admin.clients_n, 0);
}

static void loses_patience(void **s)
{
	uint64_t now = 1000000000;
	int silent, at_prompt, stalled;

	clock_set_us(now);
	turns(1);
	silent = visitor();
	at_prompt = visitor();
	stalled = visitor();
	tell(at_prompt, "prompt\n");
	tell(stalled, "endless\n");
	turns(100);
	for (int i = 0; i < 12; i++) {
		clock_set_us(now += 1000000);
		turns(2);
	}
	assert_int_equal(admin.clients_n, 1);
	tell(at_prompt, "quit\n");
	close(silent);
	close(at_prompt);
	close(stalled);
	turns(5);
	assert_int_equal(admin.clients_n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_one_line, set_up, tear_down),
		cmocka_unit_test_setup_teardown(takes_bytes_as_they_come, set_up, tear_down),
		cmocka_unit_test_setup_teardown(prompts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refuses_long_lines_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refuses_control_characters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stops_for_who_does_not_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(shares_the_loop, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lets_go_while_an_answer_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(has_a_limit_of_clients, set_up, tear_down),
		cmocka_unit_test_setup_teardown(loses_patience, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
