/* The commands without a socket: words, levels, typing errors, forms of answers, and that the table makes sense. */
#include "admin/commands.c"

#include "mctunnel/base/mem.h"
#include "mctunnel/event/loop.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct conf conf;
static const char *phase = "serving";
static int stops;

static struct conf *get_conf(void)
{
	return &conf;
}

static const char *get_phase(void)
{
	return phase;
}

static uint64_t get_restarts(void)
{
	return 7;
}

static void stop(bool softly)
{
	stops += softly ? 10 : 1;
}

static const struct admin_state state = { .conf = get_conf, .phase = get_phase, .restarts = get_restarts, .stop = stop };

static struct conf_tunnel site = { .name = (char *)"site-a", .agents = { (char *[]){ (char *)"edge-1", (char *)"a\tb\"c" }, 2 }, .services = { (char *[]){ (char *)"web-*" }, 1 } };

static int set_up(void **s)
{
	loop_init();
	phase = "serving";
	stops = 0;
	conf = (struct conf){ .global = { .maxconn = 100 }, .tunnels = NULL };
	return 0;
}

static int tear_down(void **s)
{
	loop_fini();
	mem_drain();
	return 0;
}

static bool more_came;

static void on_more(void *owner)
{
	more_came = true;
}

static void collect(char *out, size_t size, struct answer *a)
{
	size_t len = strlen(out);

	assert_true(len + a->text.len < size);
	memcpy(out + len, a->text.v, a->text.len);
	out[len + a->text.len] = '\0';
}

static const char *answer_to(struct asker *k, const char *command)
{
	static char out[65536];
	struct answer *a = commands_ask(k, command, on_more, NULL);

	assert_non_null(a);
	out[0] = '\0';
	do {
		more_came = false;
		if (!answer_more(a)) {
			while (!more_came)
				loop_turn(100);
		}
		collect(out, sizeof(out), a);
	} while (!a->done);
	answer_drop(a);
	return out;
}

static const char *ask_as(int level, const char *command)
{
	struct asker k = { .state = &state, .level = level, .where = "test", .uid = -1, .pid = -1 };

	return answer_to(&k, command);
}

static const char *ask(const char *command)
{
	return ask_as(ADMIN, command);
}

#define assert_says(command, words) assert_non_null(strstr(ask(command), words))

static void the_table_makes_sense(void **s)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		assert_true(c->help[0] && c->help[strlen(c->help) - 1] == '.');
		assert_true(c->min <= c->max);
		assert_true(c->max <= ANSWER_ARGS);
		assert_int_equal(c->max > 0, c->args[0] != '\0');
		assert_int_equal(c->min == 0, c->args[0] == '\0' || c->args[0] == '[');
		assert_true(strncmp(c->words, "show ", 5) != 0 || c->flags & COMMAND_JSON);
		assert_true(!(c->flags & COMMAND_CHANGES) || c->level > USER);
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(c->words, commands[k].words);
	}
}

static void knows_words(void **s)
{
	assert_string_equal(ask("show version"), MCTUNNEL_VERSION "\n\n");
	assert_string_equal(ask("  show \t version  "), MCTUNNEL_VERSION "\n\n");
	assert_string_equal(ask("show vers"), MCTUNNEL_VERSION "\n\n");
	assert_string_equal(ask("show version json"), "{\n\"version\": \"" MCTUNNEL_VERSION "\"\n}\n\n");
	assert_says("show version now", "Usage: show version [json]\n");
	assert_says("show vrsion", "The nearest:\n  show version\n");
	assert_says("show", "  show info\n");
	assert_says("show s", "  show sessions [ID]\n");
	assert_says("Show version", "  show version\n");
	assert_says("zzzz", "Unknown command: 'zzzz'. 'help' lists all.\n");
	assert_says("sto", "  stop\n");
	assert_int_equal(stops, 0);
	assert_says("a b c d e f g h i j k l m n o p q r s t u v w x y z", "Unknown command");
	assert_says("show sessions 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", "Usage");
	assert_says("help show se", "show services");
	assert_says("help nonsense", "No command begins with 'nonsense'");
}

static void guards_levels(void **s)
{
	assert_string_equal(ask_as(USER, "show sessions"), "Permission denied\n\n");
	assert_string_equal(ask_as(OPERATOR, "stop"), "Permission denied\n\n");
	assert_string_equal(ask_as(OPERATOR, "show env"), "Permission denied\n\n");
	assert_int_equal(stops, 0);
	assert_null(strstr(ask_as(USER, "help"), "shutdown"));
	assert_null(strstr(ask_as(USER, "shutdwn link 5"), "shutdown link"));
	assert_string_equal(ask("stop"), "Stopping.\n\n");
	assert_string_equal(ask("soft-stop"), "Draining.\n\n");
	assert_int_equal(stops, 11);
}

static void numbers_severities(void **s)
{
	struct asker k = { .state = &state, .level = ADMIN, .numbers = true };

	assert_string_equal(answer_to(&k, "stop"), "[6]: Stopping.\n\n");
	assert_string_equal(answer_to(&k, "enable tunnel x"), "[3]: There is no tunnel 'x'.\n\n");
}

static void makes_tables(void **s)
{
	conf.tunnels = &site;
	conf.tunnels_n = 1;
	assert_says("show agents", "# tunnel\tagent\tstatus\t");
	assert_says("show agents", "\nsite-a\ta?b\"c\tDOWN\t0\t0\t-\t");
	assert_says("show agents json", "[\n{\"tunnel\":\"site-a\",\"agent\":\"edge-1\",\"status\":\"DOWN\",");
	assert_says("show agents json", "\"agent\":\"a\\u0009b\\\"c\"");
	assert_says("show agents json", "\"rtt_ms\":null");
	conf.tunnels_n = 0;
	assert_string_equal(ask("show agents json"), "[]\n\n");
	assert_string_equal(ask("show sessions json"), "[]\n\n");
	assert_string_equal(ask("show errors json"), "[]\n\n");
	assert_string_equal(ask("show errors"), "\n");
	assert_says("show stat", "# pxname,svname,qcur,");
	assert_string_equal(ask("show stat json"), "[]\n\n");
	assert_says("show info", "\nRestarts: 7\n");
	assert_says("show sessions abc", "There is no session abc.");
}

static void finds_names(void **s)
{
	conf.tunnels = &site;
	conf.tunnels_n = 1;
	assert_says("drain agent edge-2", "There is no agent 'edge-2' (did you mean 'edge-1'?).");
	assert_says("disable service site-a/db", "There is no service 'site-a/db'.");
	assert_says("disable service web", "A service is named TUNNEL/SERVICE.");
	assert_says("set weight edge-1 web 257", "A weight is a number from 0 to 256.");
	assert_says("shutdown link x", "The ID of a link is a number");
	assert_says("set vip king", "Roles are");
}

static void waits(void **s)
{
	assert_string_equal(ask("wait ready"), "Ready.\n\n");
	phase = "draining";
	assert_string_equal(ask("wait ready 0"), "Not ready: draining.\n\n");
	assert_string_equal(ask("wait ready 120ms"), "Not ready: draining.\n\n");
	assert_says("wait ready soon", "begins with no digit");
}

static void cuts_lines(void **s)
{
	char line[] = "one;two\\;2 ;; three\\", *rest = line;

	assert_string_equal(commands_cut(&rest), "one");
	assert_string_equal(commands_cut(&rest), "two\\;2 ");
	assert_string_equal(commands_cut(&rest), "");
	assert_string_equal(commands_cut(&rest), " three\\");
	assert_null(commands_cut(&rest));
	assert_says("enable tunnel a\\ b\\;c\\\\", "'a b;c\\'");
}

static void prints_references(void **s)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	commands_print_manual(f);
	commands_print_completion(f);
	fclose(f);
	for (size_t i = 0; i < COMMANDS; i++)
		assert_non_null(strstr(text, commands[i].words));
	assert_non_null(strstr(text, "\"shutdown sessions\") words=\" agent listener \""));
	free(text);
}

/* One that is dropped while it waits or before it began leaves nothing behind. */
static void drops(void **s)
{
	struct asker k = { .state = &state, .level = ADMIN };
	struct answer *a = commands_ask(&k, "show info", on_more, NULL);

	answer_drop(a);
	phase = "draining";
	a = commands_ask(&k, "wait ready 10s", on_more, NULL);
	assert_false(answer_more(a));
	answer_drop(a);
	answer_drop(NULL);
	loop_turn(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_table_makes_sense, set_up, tear_down),
		cmocka_unit_test_setup_teardown(knows_words, set_up, tear_down),
		cmocka_unit_test_setup_teardown(guards_levels, set_up, tear_down),
		cmocka_unit_test_setup_teardown(numbers_severities, set_up, tear_down),
		cmocka_unit_test_setup_teardown(makes_tables, set_up, tear_down),
		cmocka_unit_test_setup_teardown(finds_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cuts_lines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(prints_references, set_up, tear_down),
		cmocka_unit_test_setup_teardown(drops, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
