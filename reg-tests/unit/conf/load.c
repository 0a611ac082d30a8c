/* conf_load() over the tables of reg-tests/conf, over files that only a program can make, and what it makes of a file with every key. */
#include "mctunnel/conf/conf.h"

#include "mctunnel/base/log.h"
#include "mctunnel/conf/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TABLES "reg-tests/conf/"
#define LINES 128

struct heard { /* what conf_load() reported */
	char *line[LINES];
	bool alert[LINES], expected[LINES];
	size_t n, alerts;
};

static void hear(void *arg, bool alert, const char *line)
{
	struct heard *h = arg;

	assert_true(h->n < LINES);
	h->alert[h->n] = alert;
	h->alerts += alert;
	h->line[h->n++] = strdup(line);
}

static void forget(struct heard *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->line[i]);
	memset(h, 0, sizeof(*h));
}

static bool heard(struct heard *h, const char *words)
{
	for (size_t i = 0; i < h->n; i++) {
		if (!strstr(h->line[i], words))
			continue;
		h->expected[i] = true;
		return true;
	}
	return false;
}

static struct conf *load(struct heard *h, const char *path)
{
	return conf_load(&path, 1, hear, h);
}

/* ---- the tables ---- */

static void expect_line(struct heard *h, const char *path, char *line)
{
	char words[512];

	line[strcspn(line, "\n")] = '\0';
	snprintf(words, sizeof(words), "%s:%s", path, line);
	if (!heard(h, words))
		fail_msg("not said: %s", words);
}

static void check_bad(const char *path)
{
	static const char head[] = "# expect: ";
	struct heard h = { 0 };
	char line[512];
	FILE *in = fopen(path, "r");

	assert_non_null(in);
	assert_null(load(&h, path));
	while (fgets(line, sizeof(line), in)) {
		if (strncmp(line, head, sizeof(head) - 1) == 0)
			expect_line(&h, path, line + sizeof(head) - 1);
	}
	fclose(in);
	for (size_t i = 0; i < h.n; i++) {
		if (h.alert[i] && !h.expected[i])
			fail_msg("not expected: %s", h.line[i]);
	}
	forget(&h);
}

static void check_good(const char *path)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, path);

	if (!c)
		fail_msg("%s", h.n ? h.line[0] : path);
	assert_int_equal(h.alerts, 0);
	conf_put(c);
	forget(&h);
}

static size_t each(const char *folder, void (*check)(const char *path))
{
	char path[512];
	size_t n = 0;
	DIR *dir = opendir(folder);

	if (!dir)
		fail_msg("%s: run this from the top of the tree", folder);
	for (struct dirent *e; (e = readdir(dir));) {
		if (!strstr(e->d_name, ".cfg"))
			continue;
		snprintf(path, sizeof(path), "%s%s", folder, e->d_name);
		check(path);
		n++;
	}
	closedir(dir);
	return n;
}

static void test_bad_files(void **state)
{
	assert_true(each(TABLES "bad/", check_bad) > 100);
}

static void test_good_files(void **state)
{
	assert_true(each(TABLES "good/", check_good) >= 5);
}

/* The examples are good but for what only their machine has. */
static void check_example(const char *path)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, path);

	conf_put(c);
	for (size_t i = 0; i < h.n; i++) {
		if (h.alert[i] && !strstr(h.line[i], "no such file") && !strstr(h.line[i], "there is no ") && !strstr(h.line[i], "global.chroot"))
			fail_msg("%s", h.line[i]);
	}
	forget(&h);
}

static void test_examples(void **state)
{
	setenv("PKI", "/nonexistent", 1);
	assert_true(each("etc/examples/", check_example) >= 3);
	assert_true(each("etc/", check_example) >= 1);
}

/* ---- values ---- */

static void check_hub(const struct conf *c)
{
	const struct conf_hub *h = &c->hub;

	assert_true(h->set);
	assert_string_equal(h->name, "hub-a");
	assert_int_equal(h->at.line, 21);
	assert_string_equal(h->at.file, TABLES "good/full.cfg");
	assert_int_equal(h->bind_n, 2);
	assert_true(h->bind[0].address.any);
	assert_int_equal(h->bind[0].at.line, 24);
	assert_int_equal(h->bind[1].at.line, 25);
	assert_int_equal(h->bind[0].cert[0], '/');
	assert_non_null(strstr(h->bind[0].crl, "/../pki/ca.pem"));
	assert_null(h->bind[1].crl);
	assert_string_equal(h->bind[1].key, h->bind[1].cert); /* a default */
	assert_int_equal(h->heartbeat_interval, 300);
	assert_int_equal(h->heartbeat_timeout, 1000);
	assert_int_equal(h->max_links, 10);
	assert_int_equal(h->handshakes, 5);
}

static void check_sites(const struct conf *c)
{
	const struct conf_listener *l = c->listeners;

	assert_int_equal(c->tunnels_n, 2);
	assert_int_equal(c->tunnels[0].agents.n, 2);
	assert_string_equal(c->tunnels[0].services.v[1], "db-*");
	assert_int_equal(c->tunnels[0].balance, BALANCE_LEASTCONN);
	assert_int_equal(c->tunnels[1].agents.n, 1);
	assert_string_equal(c->tunnels[1].agents.v[0], "site-b");
	assert_int_equal(c->listeners_n, 2);
	assert_int_equal(l[0].bind_n, 3);
	assert_int_equal(l[0].route_n, 2);
	assert_string_equal(l[0].route[1].tunnel, "site-b");
	assert_string_equal(l[0].route[1].service, "web");
	assert_int_equal(l[0].maxconn, 7);
	assert_int_equal(l[0].timeouts.idle, 300000);
	assert_int_equal(l[0].timeouts.connect, 1000); /* from defaults */
	assert_int_equal(l[0].timeouts.queue, 0);
	assert_int_equal(l[1].timeouts.idle, 7200000);
}

static void check_checks(const struct conf_check *full, const struct conf_check *bare)
{
	assert_int_equal(full->type, CHECK_HTTP);
	assert_int_equal(full->interval, 3000);
	assert_int_equal(full->fastinter, 500);
	assert_int_equal(full->downinter, 10000);
	assert_int_equal(full->timeout, 2000);
	assert_int_equal(full->rise, 4);
	assert_int_equal(full->fall, 5);
	assert_int_equal(full->jitter, 20);
	assert_string_equal(full->path, "/healthz?x=%20");
	assert_string_equal(full->method, "HEAD");
	assert_string_equal(full->host, "web.example:80");
	assert_int_equal(full->expect.n, 2);
	assert_string_equal(full->expect.v[1], "300-399");
	assert_int_equal(full->error_limit, 7);
	assert_true(full->on_marked_down);
	assert_int_equal(full->slowstart, 60000);
	assert_int_equal(bare->type, CHECK_TCP);
	assert_int_equal(bare->interval, 2000);
	assert_int_equal(bare->rise, 2);
	assert_int_equal(bare->fall, 3);
	assert_int_equal(bare->error_limit, 10);
	assert_false(bare->on_marked_down);
}

static void check_agent(const struct conf *c)
{
	const struct conf_agent *a = &c->agent;

	assert_true(a->set);
	assert_int_equal(a->hubs_n, 2);
	assert_string_equal(a->hubs[0].host, "hub-a.example.com");
	assert_int_equal(a->links, 3);
	assert_string_equal(a->server_name, "hub.example.com");
	assert_string_equal(a->proxy.host, "proxy.corp");
	assert_int_equal(a->proxy.port, 3128);
	assert_string_equal(a->proxy_auth, "user:p@ss");
	assert_int_equal(a->backoff_min, 2000);
	assert_int_equal(a->heartbeat_interval, 500);
	assert_int_equal(a->services_n, 2);
	assert_int_equal(a->services[0].send_proxy, SEND_PROXY_V2);
	assert_int_equal(a->services[0].weight, 50);
	assert_int_equal(a->services[0].timeouts.connect, 9000);
	assert_int_equal(a->services[1].weight, 100);
	assert_int_equal(a->services[1].timeouts.resume, 60000);
	check_checks(&a->services[0].check, &a->services[1].check);
}

static void test_values(void **state)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, TABLES "good/full.cfg");
	size_t len;
	const char *why;

	assert_non_null(c);
	assert_int_equal(c->global.threads, 2);
	assert_int_equal(c->global.memory, 64 << 20);
	assert_int_equal(c->global.log_n, 3);
	assert_int_equal(c->global.log[0].format, LOG_JSON);
	assert_int_equal(c->global.log[0].level, LOG_DEBUG);
	assert_int_equal(c->global.log[1].level, LOG_INFO);
	assert_int_equal(c->global.log[2].target[0], '/');
	assert_int_equal(c->global.hard_stop_after, 120000);
	assert_int_equal(c->global.metrics.port, 9464);
	assert_int_equal(c->global.metrics_at.line, 11);
	assert_int_equal(c->global.admin_n, 2);
	assert_int_equal(c->global.admin[0].mode, 0600);
	assert_int_equal(c->global.admin[0].level, ADMIN_OPERATOR);
	assert_int_equal(c->global.admin[1].mode, 0660);
	check_hub(c);
	check_sites(c);
	check_agent(c);
	assert_non_null(files_read(c->files, c->hub.bind[0].cert, &len, &why));
	struct conf *same = conf_get(c);
	conf_put(c);
	assert_string_equal(same->hub.name, "hub-a");
	conf_put(same);
	forget(&h);
}

static void test_listener_tls(void **state)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, TABLES "good/listener-tls.cfg");
	const struct conf_listener_tls *beside, *clients, *optional;

	assert_non_null(c);
	beside = &c->listeners[0].tls;
	clients = &c->listeners[1].tls;
	optional = &c->listeners[2].tls;
	assert_int_equal(beside->pairs_n, 1);
	assert_string_equal(beside->pairs[0].cert, beside->cert.v[0]);
	assert_non_null(strstr(beside->pairs[0].key, "pki/hub.key"));
	assert_int_equal(beside->verify, VERIFY_NONE);
	assert_int_equal(beside->min, 12);
	assert_string_equal(clients->pairs[0].key, clients->key);
	assert_int_equal(clients->verify, VERIFY_REQUIRED); /* as there is a client_ca */
	assert_int_equal(clients->min, 13);
	assert_string_equal(clients->alpn.v[0], "acme/1");
	assert_int_equal(c->listeners[1].accept_proxy.n, 2);
	assert_int_equal(optional->verify, VERIFY_OPTIONAL);
	conf_put(c);
	forget(&h);
}

static void test_defaults(void **state)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, TABLES "good/agent.cfg");

	assert_non_null(c);
	assert_false(c->hub.set);
	assert_true(c->global.threads >= 1 && c->global.threads <= 64);
	assert_int_equal(c->global.maxconn, 50000);
	assert_int_equal(c->global.memory, 512 << 20);
	assert_int_equal(c->global.log_n, 1);
	assert_string_equal(c->global.log[0].target, "stderr");
	assert_null(c->global.metrics.text);
	assert_null(c->global.health_file);
	assert_string_equal(c->agent.tunnel, c->agent.name);
	assert_int_equal(c->agent.links, 2);
	assert_int_equal(c->agent.backoff_max, 60000);
	assert_int_equal(c->agent.heartbeat_timeout, 3000);
	assert_int_equal(c->agent.services[0].timeouts.idle, 3600000);
	assert_int_equal(c->agent.services[0].send_proxy, SEND_PROXY_NONE);
	conf_put(c);
	forget(&h);
}

/* ---- several files ---- */

static void test_include(void **state)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, TABLES "good/include.cfg");

	assert_non_null(c);
	assert_string_equal(c->hub.name, "inc");
	assert_string_equal(c->hub.bind[0].at.file, TABLES "good/parts/bind.inc");
	assert_int_equal(c->hub.bind[0].at.line, 1);
	assert_string_equal(c->tunnels[1].at.file, TABLES "good/parts/tunnels.inc");
	assert_int_equal(c->tunnels[1].at.line, 2);
	conf_put(c);
	forget(&h);
}

static void test_directory(void **state)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, TABLES "dir");

	assert_non_null(c);
	assert_int_equal(c->listeners_n, 2);
	assert_string_equal(c->listeners[0].name, "one"); /* 10 before 9: by bytes */
	assert_string_equal(c->listeners[1].at.file, TABLES "dir/9-tunnels.cfg");
	conf_put(c);
	forget(&h);
	assert_null(load(&h, TABLES "pki"));
	assert_true(heard(&h, TABLES "pki:0: [ALERT] file: the directory holds no *.cfg file"));
	forget(&h);
}

static void test_group_in_two_files(void **state)
{
	static const char *const paths[] = { TABLES "good/hub.cfg", TABLES "dir/10-hub.cfg" };
	struct heard h = { 0 };

	assert_null(conf_load(paths, 2, hear, &h));
	assert_true(heard(&h, TABLES "dir/10-hub.cfg:1: [ALERT] hub: 'hub' stands already at " TABLES "good/hub.cfg:2"));
	forget(&h);
	assert_null(conf_load(paths, 0, hear, &h));
	assert_true(heard(&h, "neither a 'hub' nor an 'agent'"));
	forget(&h);
}

/* ---- files only a program can make ---- */

static char folder[] = "/tmp/mctunnel-conf-XXXXXX";

static const char *in_folder(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static const char *make(const char *name, const void *data, size_t len)
{
	const char *path = in_folder(name);
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(data, 1, len, out), len);
	fclose(out);
	return path;
}

static void refused(const char *path, const char *words)
{
	struct heard h = { 0 };

	assert_null(load(&h, path));
	if (!heard(&h, words))
		fail_msg("\"%s\" is not: %s", h.n ? h.line[0] : "nothing", words);
	forget(&h);
}

static void refused_text(const char *text, const char *words)
{
	refused(make("x.cfg", text, strlen(text)), words);
}

#define AGENT(more) \
	"agent: { hubs = \"h:1\"; tls = { cert = \"c.pem\"; ca = \"c.pem\"; };" more " services = ( { name = \"s\"; target = \"127.0.0.1:1\"; } ); };"

static void taken(const char *text, size_t len)
{
	struct heard h = { 0 };
	struct conf *c = load(&h, make("x.cfg", text, len));

	if (!c)
		fail_msg("%s", h.n ? h.line[0] : "nothing said");
	conf_put(c);
	forget(&h);
}

static void test_text_forms(void **state)
{
	static const char crlf[] = "global: {\r\n maxconn = 5;\r\n};\r\n" AGENT("\r\n") "\r\n";
	static const char bom[] = "\xef\xbb\xbf" AGENT("");

	chmod(make("c.pem", "x", 1), 0600);
	taken(crlf, sizeof(crlf) - 1);
	taken(bom, sizeof(bom) - 1); /* nor is there a newline at its end */
	taken(AGENT("\t\t"), sizeof(AGENT("\t\t")) - 1);
	refused(make("x.cfg", "a = 1;\nb\0", 9), "x.cfg:2: [ALERT] file: a NUL byte");
	refused(make("x.cfg", "\xff\xfe" "a\0", 4), "x.cfg:1: [ALERT] file: this file is UTF-16");
	refused(make("x.cfg", "", 0), "x.cfg:0: [ALERT] file: neither");
	refused(make("x.cfg", "\n", 1), "x.cfg:0: [ALERT] file: neither");
	refused_text("a\r\n= \"x\r\ny\";\r\nb = c;\r\n", "x.cfg:4: [ALERT] syntax: a text needs quotes: \"c\"");
}

static void test_huge(void **state)
{
	size_t len = 10 << 20;
	char *text = malloc(len + 64);

	memset(text, 'a', len);
	refused(make("x.cfg", text, len), "[ALERT] syntax: a key of 10485760 letters");
	text[0] = '#'; /* a comment of 10 MB */
	memcpy(text + len, "\nx", 2);
	refused(make("x.cfg", text, len + 2), "x.cfg:2: [ALERT] syntax: '=' is missing");
	memcpy(text, "a = \"", 5);
	memcpy(text + len, "\";\n", 3);
	refused(make("x.cfg", text, len + 3), "x.cfg:1: [ALERT] syntax: a string has at most 64 KiB");
	memset(text, '(', len);
	memcpy(text, "a = ", 4);
	refused(make("x.cfg", text, len), "nested more than 32 deep");
	memset(text, '\n', len);
	refused(make("x.cfg", text, len), "neither a 'hub'");
	free(text);
	assert_int_equal(truncate(make("x.cfg", "", 0), (16 << 20) + 1), 0);
	refused(in_folder("x.cfg"), "larger than 16 MiB");
}

static void test_many(void **state)
{
	struct strange {
		const char *head, *item, *words;
		int n;
	} t[] = {
		{ "global: {", " x%d = 1;", "more than 100 keys in one group", 101 },
		{ "tunnels = ( { name = \"a\"; services = [ \"x\"", ", \"y%d\"", "1002 values are too many", 1001 },
		{ "listeners = ( { }", ", { }", "50002 elements are too many: the maximum is 50000", 50001 },
	};
	static const char *const tails[] = { " };", "] } );", ");" };

	for (size_t i = 0; i < 3; i++) {
		FILE *out = fopen(in_folder("x.cfg"), "w");
		fputs(t[i].head, out);
		for (int j = 0; j < t[i].n; j++)
			fprintf(out, t[i].item, j);
		fputs(tails[i], out);
		fclose(out);
		refused(in_folder("x.cfg"), t[i].words);
	}
}

static void test_enough(void **state)
{
	struct heard h = { 0 };
	FILE *out = fopen(in_folder("x.cfg"), "w");

	fputs("hub: {};\ntunnels = (\n", out);
	for (int i = 0; i < 200; i++)
		fputs("{ },\n", out);
	fputs(");\n", out);
	fclose(out);
	assert_null(load(&h, in_folder("x.cfg")));
	assert_int_equal(h.alerts, 51);
	assert_true(heard(&h, "further alerts are not shown"));
	forget(&h);
}

static void test_includes(void **state)
{
	char line[128];

	refused_text("@include \"x.cfg\"\n", "x.cfg:1: [ALERT] file: this file includes itself");
	make("y.cfg", "\n@include \"x.cfg\"\n", 18);
	refused_text("@include \"y.cfg\"\n", "y.cfg:2: [ALERT] file: this file includes itself");
	refused_text("@include \"./x.cfg\"\n", "more than 10 deep"); /* the same by another name each time */
	make("y.cfg", "\n\nhub = x;\n", 11);
	refused_text("\n@include \"y.cfg\"\n", "y.cfg:3: [ALERT] syntax: a text needs quotes");
	make("y.cfg", "a = 1;\nb = 2;\n", 14);
	refused_text("\n@include \"y.cfg\"\nc = 1;\n", "x.cfg:3: [ALERT] c: unknown key 'c'");
	for (int i = 0; i < 12; i++) { /* each includes the next three times */
		snprintf(line, sizeof(line), "@include \"%d.cfg\"\n@include \"%d.cfg\"\n@include \"%d.cfg\"\n", i + 1, i + 1, i + 1);
		char name[16];
		snprintf(name, sizeof(name), "%d.cfg", i);
		make(name, line, i < 9 ? strlen(line) : 0);
	}
	refused(in_folder("0.cfg"), "more than 1000 files are included");
	setenv("CONF_TEST", "y", 1);
	refused_text("@include \"${CONF_TEST}.cfg\"\n", "y.cfg:1: [ALERT] a: unknown key 'a'");
	refused_text("@include \"${CONF_TEST_NOT}.cfg\"\n", "x.cfg:1: [ALERT] file: the environment variable 'CONF_TEST_NOT'");
}

static void test_not_files(void **state)
{
	refused(in_folder("nosuch.cfg"), "nosuch.cfg:0: [ALERT] file: \"");
	refused(in_folder("nosuch.cfg"), "cannot be read: no such file");
	assert_int_equal(mkfifo(in_folder("fifo.cfg"), 0600), 0);
	refused(in_folder("fifo.cfg"), "is not a regular file");
	refused("/dev/zero", "is not a regular file");
	assert_int_equal(symlink("loop.cfg", in_folder("loop.cfg")), 0);
	refused(in_folder("loop.cfg"), "too many symbolic links");
	refused_text("@include \"fifo.cfg\"\n", "x.cfg:1: [ALERT] file: \"");
	refused_text("@include \"/\"\n", "is a directory");
	chmod(make("secret.cfg", "x", 1), 0);
	if (geteuid() != 0)
		refused(in_folder("secret.cfg"), "permission denied");
	unlink(in_folder("secret.cfg"));
	unlink(in_folder("fifo.cfg"));
	unlink(in_folder("loop.cfg"));
}

static void test_key_mode(void **state)
{
	static const char text[] = AGENT("");
	struct heard h = { 0 };

	chmod(make("c.pem", "x", 1), 0644);
	struct conf *c = load(&h, make("x.cfg", text, sizeof(text) - 1));
	assert_non_null(c);
	assert_true(heard(&h, "x.cfg:1: [WARNING] agent: \""));
	assert_true(heard(&h, "holds a key that others than its owner may read"));
	conf_put(c);
	forget(&h);
	chmod(make("c.pem", "x", 1), 0600);
	c = load(&h, in_folder("x.cfg"));
	assert_non_null(c);
	assert_int_equal(h.n, 0);
	conf_put(c);
	refused(make("c.pem", "", 0), "c.pem:0: [ALERT]");
	refused(in_folder("x.cfg"), "c.pem\" is empty");
}

static void test_environment(void **state)
{
	static const char text[] = "global: { maxconn = \"${CONF_TEST_MAX}\"; hard_stop_after = \"${CONF_TEST_STOP-3s}\"; };" AGENT(" name = \"a${CONF_TEST_MAX}b\";");
	struct heard h = { 0 };

	chmod(make("c.pem", "x", 1), 0600);
	setenv("CONF_TEST_MAX", "123", 1);
	struct conf *c = load(&h, make("x.cfg", text, sizeof(text) - 1));
	assert_non_null(c);
	assert_int_equal(c->global.maxconn, 123);
	assert_int_equal(c->global.hard_stop_after, 3000);
	assert_string_equal(c->agent.name, "a123b");
	conf_put(c);
	setenv("CONF_TEST_MAX", "x", 1);
	refused(in_folder("x.cfg"), "global.maxconn: \"x\" begins with no digit");
}

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	DIR *dir = opendir(folder);

	for (struct dirent *e; dir && (e = readdir(dir));)
		unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_files),    cmocka_unit_test(test_good_files),
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_values),       cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_listener_tls),
		cmocka_unit_test(test_include),      cmocka_unit_test(test_directory),
		cmocka_unit_test(test_group_in_two_files), cmocka_unit_test(test_text_forms),
		cmocka_unit_test(test_huge),         cmocka_unit_test(test_many),
		cmocka_unit_test(test_enough),       cmocka_unit_test(test_includes),
		cmocka_unit_test(test_not_files),    cmocka_unit_test(test_key_mode),
		cmocka_unit_test(test_environment),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
