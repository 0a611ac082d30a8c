/* Rules from the input: patterns, networks and templates are made as far as they are taken, and asked about clients that the input describes as well. Whatever comes
 * out must keep its promises: names are names, paths have no dot segments, nothing has control characters, the index agrees with the top-down order. */
#include "mctunnel/base/bug.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/template.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/cover.h"
#include "mctunnel/conf/rule.h"
#include "mctunnel/tunnel/facts.h"
#include "mctunnel/tunnel/rules.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RULES_MAX 12
#define VALUES_MAX 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One line a value: a letter says what it is. "n" begins the next rule; lines in upper case describe the client. */
struct input {
	char *text, *at;
	struct conf_listener l;
	struct conf_rule rules[RULES_MAX];
	char *values[RULES_MAX][RULE_FIELD_COUNT + 2][VALUES_MAX];
	struct conf_header headers[RULES_MAX][VALUES_MAX];
	struct conf_route fallback;
	struct facts facts;
	const char *alpn[VALUES_MAX];
	char *fields[VALUES_MAX];
};

static const char letters[] = "hspma"; /* as enum rule_field */

static const char *field(const void *arg, const char *name, size_t i)
{
	const struct input *in = arg;

	for (size_t k = 0; k < VALUES_MAX && in->fields[k]; k++) {
		if (strncmp(in->fields[k], name, 1) == 0 && i-- == 0)
			return in->fields[k];
	}
	return NULL;
}

static bool is_pattern(const char *text)
{
	char err[256];
	struct pattern *p = *text && strlen(text) < 256 ? pattern_new(text, false, err, sizeof(err)) : NULL;

	pattern_free(p);
	return p;
}

static bool is_network(const char *text)
{
	struct netset *s = netset_new();
	char err[256];
	int rc = strlen(text) < 256 ? netset_add(s, text, 0, err, sizeof(err)) : -1;

	netset_free(s);
	return rc == 0;
}

static void add(struct conf_strings *s, char **room, char *text)
{
	s->v = room;
	if (s->n < VALUES_MAX)
		s->v[s->n++] = text;
}

static void add_value(struct input *in, char kind, char *text)
{
	size_t n = in->l.rules_n - 1;
	struct conf_rule *r = &in->rules[n];
	const char *letter = strchr(letters, kind);

	if (letter && is_pattern(text))
		add((struct conf_strings *)rule_values(r, (enum rule_field)(letter - letters)), in->values[n][letter - letters], text);
	else if (kind == 'i' && is_network(text))
		add(&r->src, in->values[n][RULE_FIELD_COUNT], text);
	else if (kind == 'r')
		add(&r->route, in->values[n][RULE_FIELD_COUNT + 1], text);
	else if (kind == 'w')
		r->rewrite = text;
	else if (kind == 'd')
		r->redirect = text;
	else if (kind == 'x' && r->header_n < VALUES_MAX && is_pattern(text)) {
		r->header = in->headers[n];
		r->header[r->header_n++] = (struct conf_header){ .name = text, .value = text[0] == '!' ? NULL : text };
	}
}

static void add_fact(struct input *in, char kind, char *text)
{
	struct facts *f = &in->facts;

	switch (kind) {
	case 'H': f->host = text; break;
	case 'S': f->sni = text; break;
	case 'P': f->path = text; break;
	case 'M': f->method = text; break;
	case 'Q': f->query = text; break;
	case 'A':
		if (f->alpn_n < VALUES_MAX)
			in->alpn[f->alpn_n++] = text;
		break;
	case 'X':
		for (size_t i = 0; i < VALUES_MAX; i++) {
			if (in->fields[i])
				continue;
			in->fields[i] = text;
			break;
		}
		break;
	case 'I':
		f->src.len = sizeof(f->src.u.in4);
		f->src.u.in4.sin_family = AF_INET;
		memcpy(&f->src.u.in4.sin_addr, text, strlen(text) < 4 ? strlen(text) : 4);
	}
}

static void read_line(struct input *in, char *line)
{
	if (line[0] == 'n' && in->l.rules_n < RULES_MAX)
		in->l.rules_n++;
	else if (isupper((unsigned char)line[0]))
		add_fact(in, line[0], line + 1);
	else if (line[0] && in->l.rules_n)
		add_value(in, line[0], line + 1);
}

static void settle(struct conf_rule *r)
{
	r->action = r->redirect ? ACTION_REDIRECT : r->route.n ? ACTION_ROUTE : ACTION_DENY;
}

static bool is_name(const char *s)
{
	BUG_ON(strlen(s) > 63);
	for (const char *c = s; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return false;
	}
	return *s;
}

/* What the operator's template brings is checked elsewhere: only what is made of captures is judged. */
static bool is_plain(const char *template, size_t slashes_max)
{
	struct template_piece p;
	size_t slashes = 0;

	while (template_next(&template, &p)) {
		for (size_t i = 0; p.kind == TEMPLATE_TEXT && i < p.len; i++) {
			slashes += p.at[i] == '/';
			if (!isalnum((unsigned char)p.at[i]) && !strchr("_/-", p.at[i]))
				return false;
		}
		if (p.kind == TEMPLATE_BAD)
			return false;
	}
	return slashes <= slashes_max;
}

static void check_text(const char *s)
{
	for (; *s; s++)
		BUG_ON((unsigned char)*s <= ' ' || *s == 0x7f);
}

static void check_rewrite(const char *path)
{
	check_text(path);
	BUG_ON(path[0] != '/' || strpbrk(path, "?#"));
	for (const char *s = strchr(path, '/'); s; s = strchr(s + 1, '/'))
		BUG_ON(strncmp(s, "/../", 4) == 0 || strncmp(s, "/./", 3) == 0 || strcmp(s, "/..") == 0 || strcmp(s, "/.") == 0);
}

static void check_verdict(const struct verdict *v)
{
	for (size_t i = 0; v->kind == VERDICT_ROUTE && i < v->route_n; i++) {
		bool plain = true;
		for (size_t k = 0; v->rule && k < v->rule->route.n; k++)
			plain &= is_plain(v->rule->route.v[k], 1);
		BUG_ON(plain && (!is_name(v->route[i].tunnel) || !is_name(v->route[i].service)));
	}
	if (v->kind == VERDICT_ROUTE && v->rewrite && is_plain(v->rule->rewrite, SIZE_MAX))
		check_rewrite(v->rewrite);
	if (v->kind != VERDICT_REDIRECT || !is_plain(v->rule->redirect, SIZE_MAX))
		return;
	check_text(v->location);
	BUG_ON(strncmp(v->rule->redirect, "//", 2) != 0 && strncmp(v->location, "//", 2) == 0);
}

static bool any(const struct conf_strings *s, bool fold, const char *text)
{
	bool yes = false;
	char err[256];

	for (size_t i = 0; text && !yes && i < s->n; i++) {
		struct pattern *p = pattern_new(s->v[i], fold, err, sizeof(err));
		yes = pattern_match(p, text, strlen(text), NULL);
		pattern_free(p);
	}
	return yes;
}

static bool any_header(const struct input *in, const struct conf_header *h)
{
	char *v[1] = { h->value };
	struct conf_strings s = { v, 1 };
	const char *value;

	for (size_t i = 0; (value = field(in, h->name, i)); i++) {
		if (!h->value || any(&s, false, value))
			return true;
	}
	return false;
}

/* From the top, without an index. */
static bool applies(const struct input *in, const struct conf_rule *r)
{
	const char *const texts[] = { in->facts.host, in->facts.sni, in->facts.path, in->facts.method };
	struct netset *s = netset_new();
	char err[256];
	bool yes;

	for (size_t i = 0; i < r->src.n; i++)
		BUG_ON(netset_add(s, r->src.v[i], 0, err, sizeof(err)) < 0);
	yes = r->src.n == 0 || netset_has(s, &in->facts.src);
	netset_free(s);
	for (unsigned f = 0; f < RULE_alpn && yes; f++)
		yes = rule_values(r, f)->n == 0 || any(rule_values(r, f), rule_folds(f), texts[f]);
	bool alpn = r->alpn.n == 0;
	for (size_t i = 0; yes && !alpn && i < in->facts.alpn_n; i++)
		alpn = any(&r->alpn, false, in->facts.alpn[i]);
	for (size_t i = 0; yes && i < r->header_n; i++)
		yes = any_header(in, &r->header[i]);
	return yes && alpn;
}

static void check_order(const struct input *in, const struct verdict *v)
{
	for (size_t i = 0; i < in->l.rules_n; i++) {
		if (!applies(in, &in->rules[i]))
			continue;
		BUG_ON(v->rule != &in->rules[i]);
		return;
	}
	BUG_ON(v->rule);
}

static void on_covered(void *arg, size_t rule, size_t by)
{
	const struct input *in = arg;

	BUG_ON(by >= rule);
	BUG_ON(applies(in, &in->rules[rule]) && !applies(in, &in->rules[by]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct verdict v;
	struct input *in = calloc(1, sizeof(*in));
	uint64_t before = pattern_overruns();
	char *line;

	in->at = in->text = strndup((const char *)data, size);
	in->fallback = (struct conf_route){ "a/b", "a", "b" };
	in->l = (struct conf_listener){ .name = "l", .rules = in->rules, .route = &in->fallback, .route_n = 1 };
	in->facts = (struct facts){ .listener = "l", .dst_port = 80, .alpn = in->alpn, .header = field, .header_arg = in };
	while ((line = strsep(&in->at, "\n")))
		read_line(in, line);
	for (size_t i = 0; i < in->l.rules_n; i++)
		settle(&in->rules[i]);
	struct rules *r = rules_new(&in->l);
	rules_match(r, &in->facts, &v);
	check_verdict(&v);
	if (pattern_overruns() == before) { /* at its limits an expression matches nothing, whatever covers what */
		check_order(in, &v);
		cover_find(in->rules, in->l.rules_n, on_covered, in);
	}
	rules_free(r);
	free(in->text);
	free(in);
	return 0;
}
