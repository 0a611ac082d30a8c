/* Rules: which one applies, compared with a list that is read from the top; what captures become; and, with an argument, what a match costs. */
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/cover.h"
#include "mctunnel/tunnel/facts.h"
#include "mctunnel/tunnel/rules.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <cmocka.h>

#include "../failing.h"

/* A listener made by hand */

static struct conf_listener l;

static struct conf_rule *rule(void)
{
	if ((l.rules_n & (l.rules_n - 1)) == 0)
		l.rules = xrealloc(l.rules, (l.rules_n ? 2 * l.rules_n : 1) * sizeof(*l.rules));
	l.rules[l.rules_n] = (struct conf_rule){ 0 };
	return &l.rules[l.rules_n++];
}

static void add(struct conf_strings *s, const char *text)
{
	s->v = xrealloc(s->v, (s->n + 1) * sizeof(char *));
	s->v[s->n++] = xstrdup(text);
}

static void add_header(struct conf_rule *r, const char *name, const char *value)
{
	r->header = xrealloc(r->header, (r->header_n + 1) * sizeof(*r->header));
	r->header[r->header_n++] = (struct conf_header){ .name = xstrdup(name), .value = value ? xstrdup(value) : NULL };
}

static void add_default(const char *tunnel, const char *service)
{
	l.route = xrealloc(l.route, (l.route_n + 1) * sizeof(*l.route));
	l.route[l.route_n++] = (struct conf_route){ .tunnel = xstrdup(tunnel), .service = xstrdup(service) };
}

static void strings_free(struct conf_strings *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
}

static void rule_free(struct conf_rule *r)
{
	strings_free(&r->src);
	strings_free(&r->dst_port);
	strings_free(&r->sni);
	strings_free(&r->alpn);
	strings_free(&r->host);
	strings_free(&r->path);
	strings_free(&r->method);
	strings_free(&r->route);
	for (size_t i = 0; i < r->header_n; i++) {
		free(r->header[i].name);
		free(r->header[i].value);
	}
	free(r->header);
	free(r->rewrite);
	free(r->redirect);
}

static int clear_listener(void **state)
{
	for (size_t i = 0; i < l.rules_n; i++)
		rule_free(&l.rules[i]);
	free(l.rules);
	for (size_t i = 0; i < l.route_n; i++) {
		free(l.route[i].tunnel);
		free(l.route[i].service);
	}
	free(l.route);
	l = (struct conf_listener){ 0 };
	return 0;
}

static struct addr ip(const char *text)
{
	struct addr a = { .len = sizeof(a.u.in4) };

	a.u.in4.sin_family = AF_INET;
	assert_int_equal(inet_pton(AF_INET, text, &a.u.in4.sin_addr), 1);
	return a;
}

static const char *field(const void *arg, const char *name, size_t i)
{
	for (const char *const *p = arg; *p; p += 2) {
		if (strcasecmp(p[0], name) == 0 && i-- == 0)
			return p[1];
	}
	return NULL;
}

static struct verdict v;

static const struct verdict *ask(const struct facts *f)
{
	struct rules *r = rules_new(&l);

	memset(&v, 0xa5, sizeof(v));
	rules_match(r, f, &v);
	rules_free(r);
	return &v;
}

static const char *verdict_text(const struct facts *f)
{
	static char out[20000];
	static const char *const kinds[] = { "route", "deny", "reject", "redirect", "none" };
	size_t n;

	ask(f);
	n = (size_t)snprintf(out, sizeof(out), "%s", kinds[v.kind]);
	if (v.rule)
		n += (size_t)snprintf(out + n, sizeof(out) - n, " #%zu", v.index);
	for (size_t i = 0; v.kind == VERDICT_ROUTE && i < v.route_n; i++)
		n += (size_t)snprintf(out + n, sizeof(out) - n, " %s/%s", v.route[i].tunnel, v.route[i].service);
	if (v.kind == VERDICT_ROUTE && v.rewrite)
		n += (size_t)snprintf(out + n, sizeof(out) - n, " -> %s", v.rewrite);
	if (v.kind == VERDICT_DENY)
		n += (size_t)snprintf(out + n, sizeof(out) - n, " %u", v.status);
	if (v.kind == VERDICT_REDIRECT)
		snprintf(out + n, sizeof(out) - n, " %u %s", v.status, v.location);
	return out;
}

/* Verdicts */

static void without_rules_the_route_stands(void **state)
{
	struct facts f = { .src = ip("192.0.2.1") };

	assert_string_equal(verdict_text(&f), "none");
	add_default("site-a", "ssh");
	add_default("site-b", "ssh");
	assert_string_equal(verdict_text(&f), "route site-a/ssh site-b/ssh");
}

static void the_first_rule_decides(void **state)
{
	struct conf_rule *r = rule();
	add(&r->src, "192.0.2.0/24");
	r->action = ACTION_DENY;
	r = rule();
	add(&r->host, "A.example.com");
	add(&r->route, "site-a/web");
	r = rule();
	add(&r->host, "*.example.com");
	add(&r->method, "GET");
	r->action = ACTION_REJECT;
	r = rule();
	add(&r->host, "~^(?<site>[a-z]+)\\.example\\.com$");
	add(&r->route, "${site}/web");
	add(&r->route, "spare/web");

	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.9"), .host = "a.example.com" }), "deny #0 403");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.3.9"), .host = "a.example.com" }), "route #1 site-a/web");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.3.9"), .host = "b.example.com", .method = "GET" }), "reject #2");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.3.9"), .host = "b.example.com", .method = "get" }), "route #3 b/web spare/web");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.3.9"), .host = "b.example.org", .method = "GET" }), "none");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.3.9") }), "none");
}

static void what_is_not_known_does_not_hold(void **state)
{
	struct facts f = { .src = ip("192.0.2.1"), .dst_port = 80 };

	add(&rule()->sni, "*");
	add(&rule()->alpn, "*");
	add(&rule()->host, "*");
	add(&rule()->path, "~");
	l.rules_n--; /* an empty expression is refused */
	strings_free(&l.rules[l.rules_n].path);
	add(&rule()->path, "*");
	add(&rule()->method, "*");
	add_header(rule(), "X-Any", NULL);
	add(&rule()->dst_port, "81");
	assert_string_equal(verdict_text(&f), "none");
	rule()->action = ACTION_DENY;
	assert_string_equal(verdict_text(&f), "deny #7 403");
}

static void a_request_on_the_connection_of_another_name(void **state)
{
	struct facts f = { .src = ip("192.0.2.1"), .sni = "a.example.com", .host = "b.example.com" };
	struct conf_rule *r = rule();

	add(&r->sni, "a.example.com");
	add(&r->route, "a/web");
	assert_string_equal(verdict_text(&f), "route #0 a/web"); /* only mode http has requests */
	l.mode = MODE_HTTP;
	assert_string_equal(verdict_text(&f), "deny 421");
	f.host = "a.example.com";
	assert_string_equal(verdict_text(&f), "route #0 a/web");
	f.host = "";
	assert_string_equal(verdict_text(&f), "route #0 a/web");
	f.host = "b.example.com";
	f.sni = NULL;
	assert_string_equal(verdict_text(&f), "none");
	f.sni = "a.example.com";
	add(&r->host, "b.*"); /* it says itself what belongs together */
	assert_string_equal(verdict_text(&f), "route #0 a/web");
	l.mode = MODE_TCP;
}

static void ports_headers_and_alpn(void **state)
{
	const char *fields[] = { "Accept", "text/html", "x-tenant", "b", "X-Tenant", "acme", NULL };
	const char *alpn[] = { "h2", "http/1.1" };
	struct facts f = { .src = ip("192.0.2.1"), .dst_port = 8050, .alpn = alpn, .alpn_n = 2, .header = field, .header_arg = fields };
	struct conf_rule *r = rule();

	add(&r->dst_port, "443");
	add(&r->dst_port, "8000-8049");
	r = rule();
	add(&r->alpn, "H2"); /* alpn does not fold */
	r = rule();
	add_header(r, "X-Tenant", "~^(?<t>ac[a-z]*)$");
	add_header(r, "accept", "text/*");
	add(&r->alpn, "http/1.1");
	add(&r->dst_port, "8050-8050");
	add(&r->route, "${t}/web");
	assert_string_equal(verdict_text(&f), "route #2 acme/web");
	add_header(r, "Accept", "text");
	assert_string_equal(verdict_text(&f), "none");
}

static void statuses_and_redirects(void **state)
{
	struct facts f = { .src = ip("192.0.2.1"), .host = "h.example.com", .path = "/a/b", .query = "?x=1" };
	struct conf_rule *r = rule();

	add(&r->path, "/a/b");
	r->action = ACTION_REDIRECT;
	r->redirect = xstrdup("https://${host}${path}");
	assert_string_equal(verdict_text(&f), "redirect #0 302 https://h.example.com/a/b?x=1");
	r->status = 308;
	free(r->redirect);
	r->redirect = xstrdup("${path}");
	assert_string_equal(verdict_text(&f), "redirect #0 308 /a/b?x=1");
	r->action = ACTION_DENY;
	r->status = 451;
	assert_string_equal(verdict_text(&f), "deny #0 451");
}

static void a_redirect_stays_where_its_template_points(void **state)
{
	struct facts f = { .src = ip("192.0.2.1"), .host = "h", .path = "/out//evil.example/x", .query = "?a=<b>\r\nSet-Cookie: \x80" };
	struct conf_rule *r = rule();

	add(&r->path, "~^/out(?<rest>/.*)$");
	r->action = ACTION_REDIRECT;
	r->redirect = xstrdup("${rest}");
	assert_string_equal(verdict_text(&f), "redirect #0 302 /evil.example/x");
	free(r->redirect);
	r->redirect = xstrdup("/${rest}");
	assert_string_equal(verdict_text(&f), "redirect #0 302 /evil.example/x");
	free(r->redirect);
	r->redirect = xstrdup("//other${path}");
	assert_string_equal(verdict_text(&f), "redirect #0 302 //other/out//evil.example/x?a=%3Cb%3E%0D%0ASet-Cookie:%20%80");
}

static void captures_are_checked(void **state)
{
	static const struct {
		const char *path, *expected;
	} rows[] = {
		{ "/c/site-a/api/v1", "route #0 site-a/web -> /api/v1" },
		{ "/c/site-a", "route #0 site-a/web -> /" },
		{ "/c/site-a/", "route #0 site-a/web -> /" },
		{ "/c/site%20a/x", "none #0" },
		{ "/c//x", "none #0" },
		{ "/c/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/x", "none #0" },
		{ "/c/a/x y\n?#\xc3", "route #0 a/web -> /x%20y%0A%3F%23\xc3" },
		{ "/d", "none" },
	};
	struct conf_rule *r = rule();

	add(&r->path, "~(?s)^/c/(?<site>[^/]*)(?<rest>/.*)?$");
	add(&r->route, "${site}/web");
	r->rewrite = xstrdup("${rest}");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .path = rows[i].path }), rows[i].expected);
}

static void a_bad_route_leaves_the_others(void **state)
{
	struct conf_rule *r = rule();

	add(&r->host, "~^(?<site>.*)\\.x$");
	add(&r->route, "${site}/web");
	add(&r->route, "spare/${site}");
	add(&r->route, "spare/web");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "a.x" }), "route #0 a/web spare/a spare/web");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "a/b.x" }), "route #0 spare/web");
}

static void a_rule_may_take_the_listeners_route(void **state)
{
	struct conf_rule *r = rule();

	add_default("site-a", "web");
	add(&r->path, "/old/*");
	r->rewrite = xstrdup("/new");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .path = "/old/x" }), "route #0 site-a/web -> /new");
}

/* Two captures that are harmless alone lead to the parent together. */
static void dot_segments_do_not_come_about(void **state)
{
	static const struct {
		const char *path, *expected;
	} rows[] = {
		{ "/./x", "none #0" }, /* does not come from a normalised path, but a policy may ask */
		{ "/a/.b", "route #0 s/web -> /x/a.b" },
		{ "/./.", "none #0" },
		{ "/%2e/%2E", "none #0" },
		{ "/./.b", "route #0 s/web -> /x/..b" },
		{ "/.../", "route #0 s/web -> /x/..." },
	};
	struct conf_rule *r = rule();

	add(&r->path, "~^/(?<a>[^/]*)/(?<b>[^/x]*)");
	add(&r->route, "s/web");
	r->rewrite = xstrdup("/x/${a}${b}");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .path = rows[i].path }), rows[i].expected);
}

static void what_does_not_fit_is_refused(void **state)
{
	static char path[RULES_TEXT + 1]; /* expressions look at no longer one */
	struct facts f = { .src = ip("192.0.2.1"), .path = path, .query = "" };
	struct conf_rule *r = rule();

	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	add(&r->path, "~^/(?<all>.*)$");
	add(&r->route, "s/web");
	r->rewrite = xstrdup("/y/${all}");
	assert_string_equal(verdict_text(&f), "none #0");
	assert_true(v.too_long);
	path[RULES_TEXT - 50] = '\0';
	ask(&f);
	assert_int_equal(v.kind, VERDICT_ROUTE);
	assert_int_equal(strlen(v.rewrite), RULES_TEXT - 50 + 2);
	for (size_t len = RULES_TEXT - 50; len < RULES_TEXT; len++) { /* all the edges */
		memset(path, 'x', RULES_TEXT);
		path[0] = '/';
		path[len] = '\0';
		ask(&f);
		assert_int_equal(v.too_long, v.kind == VERDICT_NONE);
	}
	r->action = ACTION_REDIRECT;
	r->redirect = xstrdup("http://x/${all}");
	assert_string_equal(verdict_text(&f), "none #0");
	assert_true(v.too_long);
}

static void the_needs_are_known(void **state)
{
	struct rules *r;

	add(&rule()->src, "10.0.0.0/8");
	add(&rule()->dst_port, "22");
	r = rules_new(&l);
	assert_false(rules_need_request(r));
	rules_free(r);
	add_header(rule(), "x", NULL);
	r = rules_new(&l);
	assert_true(rules_need_request(r));
	rules_free(r);
}

static void fill_lists(int n)
{
	struct conf_rule *r = rule();
	char text[64];

	for (int i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "h%d.example.com", i);
		add(&r->host, text);
		snprintf(text, sizeof(text), "/p%d/*", i);
		add(&r->path, text);
	}
	add(&r->path, "~^/x(?<n>[0-9]+)$");
	add(&r->route, "s/w${n}");
}

/* Both those that are taken apart for the index and those that are looked up in as a whole. */
static void who_refuses_does_not_let_by(void **state)
{
	static char path[4096];
	struct facts f = { .src = ip("192.0.2.1"), .path = path };
	struct conf_rule *r = rule();

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 2] = 'b';
	add_default("s", "web");
	add(&r->path, "~^(a|aa)+$");
	add(&r->route, "s/other");
	assert_string_equal(verdict_text(&f), "route s/web"); /* it cannot be told: no match */
	r = rule();
	add(&r->path, "~^(a|aa)+$");
	add(&r->method, "POST");
	r->action = ACTION_DENY;
	assert_string_equal(verdict_text(&f), "route s/web"); /* for it does not depend on that */
	f.method = "POST";
	assert_string_equal(verdict_text(&f), "deny #1 403");
	r->action = ACTION_REJECT;
	assert_string_equal(verdict_text(&f), "reject #1");
}

static void *match_without_memory(void *arg)
{
	struct rules *r = arg;
	struct facts f = { .src = ip("192.0.2.1"), .path = "/guarded/x" };
	bool failed;

	failing = 1;
	rules_match(r, &f, &v);
	failed = has_failed();
	assert_true(failed);
	assert_int_equal(v.kind, VERDICT_RESOURCES);
	assert_null(v.rule);
	rules_match(r, &f, &v);
	assert_int_equal(v.index, 0);
	return NULL;
}

/* In a thread that has not matched yet: it would go where nobody guards it, or be denied by the rule for all others. */
static void no_memory_is_no_other_rule(void **state)
{
	struct rules *r;
	pthread_t t;

	add(&rule()->path, "~^/guarded/");
	add(&l.rules[0].route, "s/guard");
	add_default("s", "web");
	r = rules_new(&l);
	assert_int_equal(pthread_create(&t, NULL, match_without_memory, r), 0);
	pthread_join(t, NULL);
	rules_free(r);
}

static void long_lists_are_sets(void **state)
{
	fill_lists(300);
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h299.example.com", .path = "/p0/y" }), "route #0 s/w");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h0.example.com", .path = "/x12" }), "route #0 s/w12");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h0.example.com", .path = "/p300/" }), "none");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h300.example.com", .path = "/p0/" }), "none");
	fill_lists(1500);
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h299.example.com", .path = "/p0/y" }), "route #0 s/w");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h299.example.com", .path = "/p300/y" }), "route #1 s/w");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "H1499.example.com", .path = "/x77" }), "route #1 s/w77");
	assert_string_equal(verdict_text(&(struct facts){ .src = ip("192.0.2.1"), .host = "h1500.example.com", .path = "/x77" }), "none");
}

/* The index against a list that is read from the top */

static unsigned lot = 99;

static unsigned draw(unsigned n)
{
	lot = lot * 1103515245u + 12345u;
	return (lot >> 16) % n;
}

static const char *const hosts[] = { "a.example.com", "b.example.com", "x.a.example.com", "example.com", "other.org", "EXAMPLE.com" };
static const char *const host_patterns[] = { "a.example.com", "B.Example.com", "*.example.com", "*.a.example.com", "*", "a*com", "~^[ab]\\.", "other.org", "x.*", "~org$" };
static const char *const paths[] = { "/", "/api", "/api/", "/api/v1/x", "/API", "/img/a.png", "/x" };
static const char *const path_patterns[] = { "/", "/api", "/api/*", "/api/v1/*", "*.png", "/*/*", "~^/a", "/x", "*", "~x$" };
static const char *const snis[] = { "s.example.com", "t.example.com", "s.other.org" };
static const char *const sni_patterns[] = { "s.example.com", "*.example.com", "~^s", "*.org" };
static const char *const methods[] = { "GET", "POST", "HEAD" };
static const char *const networks[] = { "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "0.0.0.0/0", "10.1.2.0/25" };
static const char *const sources[] = { "10.0.0.1", "10.1.0.1", "10.1.2.3", "10.1.2.200", "192.0.2.1", "203.0.113.1" };
static const char *const protocols[] = { "h2", "http/1.1", "acme-tls/1" };
static const char *const protocol_patterns[] = { "h2", "http/*", "*", "~^a" };
static const char *const ports[] = { "80", "443", "80-443", "0-65535" };

#define ONE_OF(table) table[draw(sizeof(table) / sizeof(table[0]))]
#define SOME_OF(strings, table)                                  \
	do {                                                     \
		if (draw(3) == 0) {                              \
			for (unsigned k = draw(3); k-- + 1 > 0;) \
				add(strings, ONE_OF(table));     \
		}                                                \
	} while (0)

static void random_rule(void)
{
	struct conf_rule *r = rule();

	do {
		SOME_OF(&r->host, host_patterns);
		SOME_OF(&r->path, path_patterns);
		SOME_OF(&r->sni, sni_patterns);
		SOME_OF(&r->method, methods);
		SOME_OF(&r->alpn, protocol_patterns);
		SOME_OF(&r->src, networks);
		SOME_OF(&r->dst_port, ports);
		if (draw(8) == 0)
			add_header(r, "X-Tenant", draw(2) ? ONE_OF(methods) : NULL);
	} while (!r->host.n && !r->path.n && !r->sni.n && !r->src.n && draw(50));
	r->action = ACTION_DENY;
}

static struct {
	struct pattern *p;
	bool fold;
} made[64]; /* expressions are dear to make */
static size_t made_n;

static const struct pattern *make(const char *text, bool fold)
{
	char err[128];

	for (size_t i = 0; i < made_n; i++) {
		if (made[i].fold == fold && strcmp(pattern_text(made[i].p), text) == 0)
			return made[i].p;
	}
	made[made_n].fold = fold;
	return made[made_n++].p = pattern_new(text, fold, err, sizeof(err));
}

static bool naive_text(const struct conf_strings *s, const char *text, bool fold)
{
	bool yes = s->n == 0;

	for (size_t i = 0; text && i < s->n; i++)
		yes |= pattern_match(make(s->v[i], fold), text, strlen(text), NULL);
	return yes;
}

static bool naive_alpn(const struct conf_strings *s, const struct facts *f)
{
	bool yes = s->n == 0;

	for (size_t i = 0; i < f->alpn_n; i++)
		yes |= naive_text(s, f->alpn[i], false);
	return yes;
}

static bool naive_src(const struct conf_strings *s, const struct addr *a)
{
	struct netset *set = netset_new();
	char err[128];

	for (size_t i = 0; i < s->n; i++)
		assert_int_equal(netset_add(set, s->v[i], 0, err, sizeof(err)), 0);
	bool yes = s->n == 0 || netset_has(set, a);
	netset_free(set);
	return yes;
}

static bool naive_port(const struct conf_strings *s, unsigned port)
{
	for (size_t i = 0; i < s->n; i++) {
		unsigned from = 0, to = 0;
		int n = sscanf(s->v[i], "%u-%u", &from, &to);

		if (port >= from && port <= (n == 2 ? to : from))
			return true;
	}
	return s->n == 0;
}

static bool naive_header(const struct conf_rule *r, const struct facts *f)
{
	for (size_t i = 0; i < r->header_n; i++) {
		const char *value = f->header(f->header_arg, r->header[i].name, 0);

		if (!value || (r->header[i].value && strcmp(r->header[i].value, value) != 0))
			return false;
	}
	return true;
}

static int naive(const struct facts *f)
{
	for (size_t i = 0; i < l.rules_n; i++) {
		const struct conf_rule *r = &l.rules[i];

		if (naive_src(&r->src, &f->src) && naive_port(&r->dst_port, f->dst_port) && naive_text(&r->sni, f->sni, true) && naive_text(&r->host, f->host, true) &&
		    naive_text(&r->path, f->path, false) && naive_text(&r->method, f->method, false) && naive_alpn(&r->alpn, f) &&
		    naive_header(r, f))
			return (int)i;
	}
	return -1;
}

static bool covered[64];
static size_t covered_n;

static void on_covered(void *arg, size_t rule, size_t by)
{
	assert_true(by < rule && rule < l.rules_n);
	covered[rule] = true;
	covered_n++;
}

/* And rules of which it was said that they are never reached are not. */
static void the_index_agrees_with_a_list(void **state)
{
	unsigned matched = 0, asked = 0;

	for (int round = 0; round < 150; round++) {
		struct rules *r;

		clear_listener(state);
		for (unsigned n = 1 + draw(30); n > 0; n--)
			random_rule();
		r = rules_new(&l);
		memset(covered, 0, sizeof(covered));
		cover_find(l.rules, l.rules_n, on_covered, NULL);
		for (int k = 0; k < 60; k++) {
			const char *fields[] = { "x-tenant", ONE_OF(methods), NULL };
			struct facts f = { .src = ip(ONE_OF(sources)), .dst_port = draw(2) ? 80 : 443, .header = field, .header_arg = draw(2) ? (const void *)fields : fields + 2 };

			if (draw(10)) {
				f.host = ONE_OF(hosts);
				f.path = ONE_OF(paths);
				f.method = ONE_OF(methods);
			}
			const char *alpn[] = { ONE_OF(protocols), ONE_OF(protocols) };
			if (draw(2))
				f.sni = ONE_OF(snis);
			f.alpn = alpn;
			f.alpn_n = draw(3);
			rules_match(r, &f, &v);
			int expected = naive(&f);
			if (expected < 0)
				assert_null(v.rule);
			else
				assert_ptr_equal(v.rule, &l.rules[expected]);
			assert_false(v.rule && covered[v.index]);
			matched += expected >= 0;
			asked++;
		}
		rules_free(r);
	}
	while (made_n)
		pattern_free(made[--made_n].p);
	assert_true(matched > asked / 4 && matched < asked);
	assert_true(covered_n > 100);
}

/* What a match costs */

static void thousands(void)
{
	char text[64];

	for (int i = 0; i < 1000; i++) {
		struct conf_rule *r = rule();
		snprintf(text, sizeof(text), "10.%d.%d.0/24", i / 250, i % 250);
		add(&r->src, text);
		r->action = ACTION_DENY;
	}
	for (int i = 0; i < 20; i++) {
		struct conf_rule *r = rule();
		snprintf(text, sizeof(text), "~^/app%d/(?<rest>.*)$", i);
		add(&r->path, text);
		add(&r->route, "s/web");
	}
	for (int i = 0; i < 10000; i++) {
		struct conf_rule *r = rule();
		snprintf(text, sizeof(text), "customer-%d.example.com", i);
		add(&r->host, text);
		add(&r->route, "s/web");
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void measure(const struct rules *r, const char *what, struct facts f, int n)
{
	double start = now();

	for (int i = 0; i < n; i++)
		rules_match(r, &f, &v);
	printf("%-52s %8.0f ns a match (%s #%zu)\n", what, (now() - start) / n * 1e9, v.rule ? "rule" : "none", v.index);
}

static void costs(int n)
{
	double start = now();
	struct rules *r;

	thousands();
	r = rules_new(&l);
	printf("10,000 hosts, 1,000 networks, 20 expressions: made ready in %.1f ms\n", (now() - start) * 1e3);
	measure(r, "a host near the end, no expression matches", (struct facts){ .src = ip("192.0.2.1"), .host = "customer-9999.example.com", .path = "/some/path" }, n);
	measure(r, "a network", (struct facts){ .src = ip("10.3.200.7"), .host = "customer-9999.example.com", .path = "/some/path" }, n);
	measure(r, "the last expression", (struct facts){ .src = ip("192.0.2.1"), .host = "customer-1.example.com", .path = "/app19/some/path" }, n);
	measure(r, "nothing matches", (struct facts){ .src = ip("192.0.2.1"), .host = "nobody.example.com", .path = "/some/path" }, n);
	measure(r, "no path (mode tls)", (struct facts){ .src = ip("192.0.2.1"), .host = "customer-9999.example.com" }, n);
	rules_free(r);
}

static void thousands_of_rules_work(void **state)
{
	struct rules *r;

	thousands();
	r = rules_new(&l);
	rules_match(r, &(struct facts){ .src = ip("192.0.2.1"), .host = "customer-9999.example.com", .path = "/" }, &v);
	assert_int_equal(v.index, 11019);
	rules_match(r, &(struct facts){ .src = ip("192.0.2.1"), .host = "customer-9999.example.com", .path = "/app3/" }, &v);
	assert_int_equal(v.index, 1003);
	rules_match(r, &(struct facts){ .src = ip("10.3.249.1"), .host = "customer-9999.example.com", .path = "/app3/" }, &v);
	assert_int_equal(v.index, 999);
	rules_free(r);
}

/* With an argument: so many matches are timed. */
int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_teardown(f, clear_listener)
	const struct CMUnitTest tests[] = {
		TEST(without_rules_the_route_stands),
		TEST(the_first_rule_decides),
		TEST(what_is_not_known_does_not_hold),
		TEST(ports_headers_and_alpn),
		TEST(a_request_on_the_connection_of_another_name),
		TEST(statuses_and_redirects),
		TEST(a_redirect_stays_where_its_template_points),
		TEST(captures_are_checked),
		TEST(a_bad_route_leaves_the_others),
		TEST(a_rule_may_take_the_listeners_route),
		TEST(dot_segments_do_not_come_about),
		TEST(what_does_not_fit_is_refused),
		TEST(the_needs_are_known),
		TEST(who_refuses_does_not_let_by),
		TEST(no_memory_is_no_other_rule),
		TEST(long_lists_are_sets),
		TEST(the_index_agrees_with_a_list),
		TEST(thousands_of_rules_work),
	};

	if (argc > 1) {
		costs((int)strtol(argv[1], NULL, 10));
		return clear_listener(NULL);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
