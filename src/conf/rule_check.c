/* Checks of rules. Each finding names the line of the rule, of the key or of the list's file that is at fault. Which networks and expressions are well formed, value.c
 * has said before; here it is what they are good for. */
#include "mctunnel/conf/rule_check.h"

#include "mctunnel/base/mem.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/template.h"
#include "mctunnel/conf/cover.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/conf/route.h"
#include "mctunnel/conf/rule.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LENGTH_MAX 63

struct group_of { /* an expression that catches, of a condition */
	unsigned condition; /* a field, or RULE_FIELD_COUNT + i: the i-th header */
	struct pattern *p;  /* owned */
};

struct check {
	struct conf_listener *l;
	struct conf_rule *r;
	const struct routes *routes;
	struct findings *f;
	struct group_of *groups; /* owned: of r */
	size_t groups_n;
};

static const char *mode_name(const struct conf_listener *l)
{
	static const char *const names[] = { [MODE_TCP] = "tcp", [MODE_TLS] = "tls", [MODE_HTTP] = "http", [MODE_CONNECT] = "connect" };

	return names[l->mode];
}

static bool ends_tls(const struct conf_listener *l)
{
	return l->tls.at.file;
}

/* Conditions and the mode */

static void not_known(struct check *k, const char *name, const void *field, const char *where)
{
	alert_on(k->f, field, &k->r->at, "'%s' is known in %s only: the mode of this listener is %s", name, where, mode_name(k->l));
}

static void check_hello(struct check *k, enum rule_field field)
{
	const struct conf_strings *v = rule_values(k->r, field);

	if (!v->v || k->l->mode == MODE_TLS || ends_tls(k->l))
		return;
	if (k->l->mode == MODE_TCP)
		not_known(k, rule_field_name(field), &v->v, "mode tls, and where TLS ends at the listener ('tls'),");
	else if (k->l->accept_proxy.n == 0)
		warn_on(k->f, &v->v, &k->r->at, "'%s' is never known here: TLS does not end at this listener (there is no 'tls')", rule_field_name(field));
}

static void check_mode(struct check *k)
{
	const struct conf_rule *r = k->r;
	bool http = k->l->mode == MODE_HTTP;

	check_hello(k, RULE_sni);
	check_hello(k, RULE_alpn);
	if (r->host.v && !http && k->l->mode != MODE_CONNECT)
		not_known(k, "host", &r->host.v, "modes http and connect");
	if (r->path.v && !http)
		not_known(k, "path", &r->path.v, "mode http");
	if (r->method.v && !http)
		not_known(k, "method", &r->method.v, "mode http");
	if (r->header_n && !http)
		not_known(k, "header", &r->header[0].at, "mode http");
	if (r->rewrite && !http)
		alert_on(k->f, &r->rewrite, &r->at, "there is a path in mode http only: the mode of this listener is %s", mode_name(k->l));
	if (r->redirect && !http)
		alert_on(k->f, &r->redirect, &r->at, "redirects are possible in mode http only: the mode of this listener is %s", mode_name(k->l));
}

/* Values that can never match */

static bool is_plain(const char *value)
{
	return value && value[0] != '~';
}

/* A '~' was forgotten: '^' begins no text that a client sends. */
static bool check_tilde(struct check *k, char *const *value)
{
	if (!is_plain(*value) || (**value != '^' && !strstr(*value, "(?<")))
		return false;
	warn_on(k->f, value, &k->r->at, "\"%s\" looks like an expression: those begin with '~'", *value);
	return true;
}

static void check_path(struct check *k, char *const *value)
{
	if (check_tilde(k, value) || !is_plain(*value))
		return;
	if (strchr(*value, '?'))
		warn_on(k->f, value, &k->r->at, "\"%s\" never matches: the query is no part of the path", *value);
	else if (**value != '/' && **value != '*')
		warn_on(k->f, value, &k->r->at, "\"%s\" never matches: a path begins with '/'", *value);
}

static void check_host(struct check *k, char *const *value)
{
	const char *colon = is_plain(*value) ? strrchr(*value, ':') : NULL;

	if (check_tilde(k, value))
		return;
	if (!colon || colon[1] == '\0' || colon[1 + strspn(colon + 1, "0123456789")] != '\0' || (strchr(*value, ':') != colon && colon[-1] != ']'))
		return;
	warn_on(k->f, value, &k->r->at, "\"%s\" never matches: the host is compared without port (dst_port is for that)", *value);
}

static void check_method(struct check *k, char *const *value)
{
	bool upper = false, lower = false;

	for (const char *c = is_plain(*value) ? *value : ""; *c; c++) {
		upper |= isupper((unsigned char)*c) != 0;
		lower |= islower((unsigned char)*c) != 0;
	}
	if (lower && !upper)
		warn_on(k->f, value, &k->r->at, "\"%s\": methods are compared exactly, and clients send them in upper case", *value);
}

static bool is_token(const char *s)
{
	for (const char *c = s; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("!#$%&'*+-.^_`|~", *c))
			return false;
	}
	return *s;
}

static void check_values(struct check *k)
{
	struct conf_rule *r = k->r;

	for (size_t i = 0; i < r->path.n; i++)
		check_path(k, &r->path.v[i]);
	for (size_t i = 0; i < r->host.n; i++)
		check_host(k, &r->host.v[i]);
	for (size_t i = 0; i < r->method.n; i++)
		check_method(k, &r->method.v[i]);
	for (size_t i = 0; i < r->header_n; i++) {
		if (r->header[i].name && !is_token(r->header[i].name))
			alert_on(k->f, &r->header[i].name, &r->at, "\"%s\" is no name of a field", r->header[i].name);
	}
}

/* A list without lines is no condition in the snapshot, and a rule without it would apply to everybody. */
static void check_empty(struct check *k, const char *name, const struct conf_strings *v)
{
	if (!v->v || v->n)
		return;
	k->r->never = true;
	warn_on(k->f, &v->v, &k->r->at, "there is nothing in the list of '%s': this rule never applies", name);
}

static void check_lists(struct check *k)
{
	check_empty(k, "src", &k->r->src);
	check_empty(k, "dst_port", &k->r->dst_port);
	for (unsigned i = 0; i < RULE_FIELD_COUNT; i++)
		check_empty(k, rule_field_name(i), rule_values(k->r, i));
}

/* The action and what it needs */

static void without_use(struct check *k, const char *name, const void *field)
{
	static const char *const actions[] = { [ACTION_ROUTE] = "route", [ACTION_DENY] = "deny", [ACTION_REJECT] = "reject", [ACTION_REDIRECT] = "redirect" };

	alert_on(k->f, field, &k->r->at, "'%s' is of no use with action \"%s\"", name, actions[k->r->action]);
}

static void check_use(struct check *k, bool route, bool redirect, bool status)
{
	struct conf_rule *r = k->r;

	if (r->route.v && !route)
		without_use(k, "route", &r->route.v);
	if (r->rewrite && !route)
		without_use(k, "rewrite", &r->rewrite);
	if (r->redirect && !redirect)
		without_use(k, "redirect", &r->redirect);
	if (r->status && !status)
		without_use(k, "status", &r->status);
}

static void check_deny(struct check *k)
{
	const struct conf_rule *r = k->r;

	if (r->status && r->status < 400)
		alert_on(k->f, &r->status, &r->at, "%u is no status of a deny: 400 to 599 is expected", r->status);
	else if (r->status && (k->l->mode == MODE_TCP || k->l->mode == MODE_TLS))
		warn_on(k->f, &r->status, &r->at, "in mode %s a client gets a RST, no status", mode_name(k->l));
}

static void check_redirect(struct check *k)
{
	static const uint32_t good[] = { 0, 301, 302, 303, 307, 308 };
	const struct conf_rule *r = k->r;
	bool found = false;

	if (!r->redirect)
		alert_on(k->f, &r->action, &r->at, "'redirect' is missing: where to?");
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		found |= r->status == good[i];
	if (!found)
		alert_on(k->f, &r->status, &r->at, "%u is no status of a redirect: 301, 302, 303, 307 or 308 is expected", r->status);
}

static void check_action(struct check *k)
{
	struct conf_rule *r = k->r;
	bool said = findings_where(k->f, &r->action, NULL).file;

	if (r->redirect && !said)
		r->action = ACTION_REDIRECT;
	switch (r->action) {
	case ACTION_ROUTE:
		if (!r->route.v && k->l->route_n == 0)
			alert_on(k->f, &r->at, NULL, "'route' is missing here, and the listener has none");
		check_use(k, true, false, false);
		break;
	case ACTION_DENY:
		check_use(k, false, false, true);
		check_deny(k);
		break;
	case ACTION_REJECT:
		check_use(k, false, false, false);
		break;
	case ACTION_REDIRECT:
		check_use(k, false, true, true);
		check_redirect(k);
		break;
	}
}

/* Templates */

static void add_groups(struct check *k, unsigned condition, const char *value)
{
	char err[256];
	struct pattern *p = value && value[0] == '~' ? pattern_new(value, false, err, sizeof(err)) : NULL;

	if (!p)
		return;
	k->groups = xrealloc(k->groups, (k->groups_n + 1) * sizeof(*k->groups));
	k->groups[k->groups_n++] = (struct group_of){ condition, p };
}

static void find_groups(struct check *k)
{
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++) {
		const struct conf_strings *v = rule_values(k->r, f);
		for (size_t i = 0; i < v->n; i++)
			add_groups(k, f, v->v[i]);
	}
	for (size_t i = 0; i < k->r->header_n; i++)
		add_groups(k, RULE_FIELD_COUNT + (unsigned)i, k->r->header[i].value);
}

static void drop_groups(struct check *k)
{
	for (size_t i = 0; i < k->groups_n; i++)
		pattern_free(k->groups[i].p);
	free(k->groups);
	k->groups = NULL;
	k->groups_n = 0;
}

static bool catches(const struct pattern *p, const char *name)
{
	const char *group;

	for (size_t i = 0; (group = pattern_capture(p, i)); i++) {
		if (strcmp(group, name) == 0)
			return true;
	}
	return false;
}

static size_t values_of(const struct check *k, unsigned condition)
{
	return condition < RULE_FIELD_COUNT ? rule_values(k->r, condition)->n : 1;
}

/* The expressions of a condition that catch the name. */
static size_t catchers(const struct check *k, unsigned condition, const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < k->groups_n; i++)
		n += k->groups[i].condition == condition && catches(k->groups[i].p, name);
	return n;
}

static void suggest_groups(const struct check *k, struct suggest *s)
{
	const char *group;

	for (size_t i = 0; i < k->groups_n; i++) {
		for (size_t j = 0; (group = pattern_capture(k->groups[i].p, j)); j++)
			suggest_try(s, group);
	}
}

static void check_reference(struct check *k, const struct template_piece *p, const void *field, bool location)
{
	unsigned conditions = RULE_FIELD_COUNT + (unsigned)k->r->header_n;
	bool some = false, always = false;
	char name[64];

	snprintf(name, sizeof(name), "%.*s", (int)p->len, p->at);
	if (location && (strcmp(name, "host") == 0 || strcmp(name, "path") == 0))
		return;
	for (unsigned c = 0; c < conditions; c++) {
		size_t n = catchers(k, c, name);
		some |= n > 0;
		always |= n > 0 && n == values_of(k, c);
	}
	struct suggest s = { .word = name };
	suggest_groups(k, &s);
	if (!some)
		alert_on(k->f, field, &k->r->at, "\"${%s}\": no expression of this rule has a group (?<%s>...)%s", name, name, suggest_text(&s));
	else if (!always)
		warn_on(k->f, field, &k->r->at, "\"${%s}\" stays empty where a value matches that has no group (?<%s>...)", name, name);
}

/* Copies the template with '*' for each reference; false: it was reported. */
static bool check_template(struct check *k, const char *template, const void *field, char *out, size_t size)
{
	struct template_piece p;
	struct strbuf b;
	bool good = true;

	strbuf_init(&b, out, size);
	while (template_next(&template, &p)) {
		if (p.kind == TEMPLATE_BAD) {
			alert_on(k->f, field, &k->r->at, "behind \"${\", a name and '}' are expected (\"$${\" stands for \"${\" itself)");
			good = false;
		}
		if (p.kind == TEMPLATE_NAME)
			check_reference(k, &p, field, field == &k->r->redirect);
		if (p.kind == TEMPLATE_NAME)
			strbuf_add(&b, "*");
		else
			strbuf_add(&b, "%.*s", (int)p.len, p.at);
	}
	return good;
}

static bool is_part(const char *s)
{
	size_t len = strlen(s);

	for (const char *c = s; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("._-*", *c))
			return false;
	}
	return len > 0 && (len <= NAME_LENGTH_MAX || strchr(s, '*'));
}

static void check_route(struct check *k, char *const *route)
{
	char form[512];

	if (!*route || !check_template(k, *route, route, form, sizeof(form)))
		return;
	char *slash = strchr(form, '/');
	if (slash)
		*slash = '\0';
	/* in form, stars stand for references: one of the operator's own is no part of a name */
	if (!slash || !is_part(form) || !is_part(slash + 1) || strchr(*route, '*'))
		alert_on(k->f, route, &k->r->at, "\"%s\" is not a route: \"TUNNEL/SERVICE\" is expected, names of letters, digits, '.', '_', '-' and \"${NAME}\"", *route);
	else
		routes_check(k->routes, form, slash + 1, route);
}

static void check_rewrite(struct check *k, char *const *rewrite)
{
	char form[4200];

	if (!check_template(k, *rewrite, rewrite, form, sizeof(form)))
		return;
	if (form[0] != '/' && strncmp(*rewrite, "${", 2) != 0)
		alert_on(k->f, rewrite, &k->r->at, "a path begins with '/'");
	else if (strpbrk(form, "?#"))
		alert_on(k->f, rewrite, &k->r->at, "the query stays as it came: there can be no '?' and no '#' in the path");
	else if (strchr(form, ' '))
		alert_on(k->f, rewrite, &k->r->at, "there can be no blank in a path: it is written \"%%20\"");
}

static bool has_scheme(const char *s)
{
	size_t n = 0;

	while (isalnum((unsigned char)s[n]) || (n && s[n] && strchr("+.-", s[n])))
		n++;
	return n > 0 && s[n] == ':';
}

static void check_location(struct check *k, char *const *redirect)
{
	char form[4200];

	if (!check_template(k, *redirect, redirect, form, sizeof(form)))
		return;
	if (form[0] != '/' && !has_scheme(form) && strncmp(*redirect, "${", 2) != 0)
		alert_on(k->f, redirect, &k->r->at, "a location begins with '/' or is a URL such as \"https://${host}${path}\"");
	else if (strchr(form, ' '))
		alert_on(k->f, redirect, &k->r->at, "there can be no blank in a location: it is written \"%%20\"");
}

static size_t groups_of(const struct pattern *p)
{
	size_t n = 0;

	while (pattern_capture(p, n))
		n++;
	return n;
}

/* Of each condition one expression catches. */
static void check_captures(struct check *k)
{
	unsigned conditions = RULE_FIELD_COUNT + (unsigned)k->r->header_n;
	size_t sum = 0;

	for (unsigned c = 0; c < conditions; c++) {
		size_t most = 0;
		for (size_t i = 0; i < k->groups_n; i++) {
			size_t n = k->groups[i].condition == c ? groups_of(k->groups[i].p) : 0;
			most = n > most ? n : most;
		}
		sum += most;
	}
	if (sum > PATTERN_CAPTURES)
		alert_on(k->f, &k->r->at, NULL, "%zu groups with a name are too many: the maximum of a rule is %d", sum, PATTERN_CAPTURES);
}

static void check_templates(struct check *k)
{
	struct conf_rule *r = k->r;

	find_groups(k);
	check_captures(k);
	if (r->route.n > RULE_ROUTES_MAX)
		alert_on(k->f, &r->route.v, &r->at, "%zu routes are too many: the maximum is %d", r->route.n, RULE_ROUTES_MAX);
	for (size_t i = 0; i < r->route.n; i++)
		check_route(k, &r->route.v[i]);
	if (r->rewrite)
		check_rewrite(k, &r->rewrite);
	if (r->redirect)
		check_location(k, &r->redirect);
	drop_groups(k);
}

/* The rules together */

static void on_covered(void *arg, size_t rule, size_t by)
{
	const struct check *k = arg;
	const struct conf_rule *r = &k->l->rules[rule], *before = &k->l->rules[by];

	warn_on(k->f, &r->at, NULL, "never reached: the rule at %s:%d applies whenever this one would", before->at.file, before->at.line);
}

static bool is_whole(const struct conf_strings *v)
{
	for (size_t i = 0; i < v->n; i++) {
		if (!v->v[i])
			return false;
	}
	return true;
}

static bool rule_is_whole(const struct conf_rule *r)
{
	bool whole = is_whole(&r->src) && is_whole(&r->dst_port);

	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++)
		whole &= is_whole(rule_values(r, f));
	for (size_t i = 0; i < r->header_n; i++)
		whole &= r->header[i].name != NULL;
	return whole;
}

void rule_check(struct conf_listener *l, const struct routes *routes, struct findings *f)
{
	struct check k = { .l = l, .routes = routes, .f = f };
	bool whole = true;

	for (size_t i = 0; i < l->rules_n; i++) {
		k.r = &l->rules[i];
		check_mode(&k);
		check_lists(&k);
		check_values(&k);
		check_action(&k);
		check_templates(&k);
		whole &= rule_is_whole(k.r);
	}
	if (whole)
		cover_find(l->rules, l->rules_n, on_covered, &k);
}
