/* What only a restart changes stays as it was, and is named. */
#include "conf/renew.c"

#include "mctunnel/conf/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char noted[1000];

static void note(void *arg, const char *key)
{
	size_t len = strlen(noted);

	snprintf(noted + len, sizeof(noted) - len, "%s ", key);
}

static void on_finding(void *arg, bool alert, const char *line)
{
	if (alert)
		fail_msg("%s", line);
}

#define HEAD "listeners = (); tunnels = (); agent: { hubs = \"127.0.0.1:1\"; tls: { cert = \"pem\"; ca = \"pem\"; }; " \
	     "services = ( { name = \"web\"; target = \"127.0.0.1:2\"; } ); "

static struct conf *load(const char *agent, const char *global)
{
	char folder[] = "/tmp/mctunnel-renew-XXXXXX", path[64], pem[64];
	const char *paths[] = { path };
	struct conf *c;
	FILE *f;

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.cfg", folder);
	snprintf(pem, sizeof(pem), "%s/pem", folder);
	f = fopen(pem, "w");
	fputs("x\n", f);
	fclose(f);
	chmod(pem, 0600);
	f = fopen(path, "w");
	fprintf(f, "global: { %s };\n" HEAD "%s };\n", global, agent);
	fclose(f);
	c = conf_load(paths, 1, on_finding, NULL);
	unlink(path);
	unlink(pem);
	rmdir(folder);
	assert_non_null(c);
	return c;
}

static void keep_in(struct conf *c, const struct conf *before)
{
	noted[0] = '\0';
	conf_keep(c, before, note, NULL);
}

static void nothing_to_keep(void **state)
{
	struct conf *a = load("name = \"a\";", "threads = 2; maxconn = 5;"), *b = load("name = \"a\";", "threads = 2; maxconn = 6;");

	keep_in(b, a);
	assert_string_equal(noted, "");
	assert_int_equal(b->global.maxconn, 6);
	conf_put(a);
	conf_put(b);
}

static void numbers_and_names(void **state)
{
	struct conf *a = load("name = \"a\";", "threads = 2;"), *b = load("name = \"b\"; links = 3;", "threads = 3; maxconn = 6;");

	keep_in(b, a);
	assert_string_equal(noted, "global.threads agent.name agent.tunnel ");
	assert_int_equal(b->global.threads, 2);
	assert_int_equal(b->global.maxconn, 6);
	assert_string_equal(b->agent.name, "a");
	assert_int_equal(b->agent.links, 3);
	conf_put(a);
	assert_string_equal(b->agent.tunnel, "a");
	conf_put(b);
}

static void lists(void **state)
{
	struct conf *a = load("", "admin = ( { bind = \"unix:/tmp/a\"; } );");
	struct conf *b = load("", "log = ( { target = \"stderr\"; }, { target = \"stdout\"; } );");
	struct conf *c = load("", "admin = ( { bind = \"unix:/tmp/a\"; }, { bind = \"unix:/tmp/b\"; } );");

	keep_in(b, a);
	assert_string_equal(noted, "global.admin ");
	assert_int_equal(b->global.log_n, 2);
	assert_int_equal(b->global.admin_n, 1);
	keep_in(c, b);
	assert_string_equal(noted, "global.admin ");
	conf_put(a);
	conf_put(b);
	assert_string_equal(c->global.admin[0].bind.text, "unix:/tmp/a");
	assert_int_equal(c->global.admin_n, 1);
	conf_put(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_to_keep), cmocka_unit_test(numbers_and_names), cmocka_unit_test(lists) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
