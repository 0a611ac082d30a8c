/* The rules of a listener. A client's names and address lead to few rules by the index (conf/rule_index.h); of these, and of those that must be scanned, the first one whose
 * other conditions hold decides, and what its expressions have caught fills its templates. Owns patterns and sets; what a tunnel is, or whether it has agents, is
 * not known here. */
#include "mctunnel/tunnel/rules.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/choice.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/template.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/rule_index.h"
#include "mctunnel/tunnel/facts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 63
#define NO_RULE UINT32_MAX

_Static_assert(RULES_ROUTES >= RULE_ROUTES_MAX, "a verdict has room for all routes");

struct ports {
	uint32_t from, to;
};

struct header {
	const char *name;      /* borrowed */
	struct pattern *value; /* owned; NULL: any */
};

struct rule {
	const struct conf_rule *c;
	unsigned key; /* the condition the index finds it by, which holds then */
	struct netset *src; /* owned; NULL: no condition */
	struct ports *ports; /* owned */
	struct choice *texts[RULE_FIELD_COUNT]; /* owned; NULL: no condition */
	struct header *headers; /* owned */
};

struct rules {
	const struct conf_listener *l;
	struct rule *v; /* owned */
	size_t n;
	struct rule_index *index; /* owned */
	bool need_request;
	bool by_sni; /* requests of another name do not belong on a connection */
};

/* Making them */

static struct pattern *make_pattern(const char *text, bool fold)
{
	char err[512];
	struct pattern *p = pattern_new(text, fold, err, sizeof(err));

	BUG_ON(!p); /* conf_load has tried it */
	return p;
}

static void make_net(struct netset *s, const char *text, uint32_t value)
{
	char err[256];

	BUG_ON(netset_add(s, text, value, err, sizeof(err)) < 0);
}

static void make_ports(struct rule *r)
{
	const struct conf_strings *from = &r->c->dst_port;

	r->ports = xcalloc(from->n + 1, sizeof(*r->ports));
	for (size_t i = 0; i < from->n; i++) {
		char *end;

		r->ports[i].from = r->ports[i].to = (uint32_t)strtoul(from->v[i], &end, 10);
		if (*end == '-')
			r->ports[i].to = (uint32_t)strtoul(end + 1, NULL, 10);
	}
}

static void make_rule(struct rule *r, const struct conf_rule *c)
{
	r->c = c;
	if (c->src.n) {
		r->src = netset_new();
		for (size_t i = 0; i < c->src.n; i++)
			make_net(r->src, c->src.v[i], 0);
	}
	make_ports(r);
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++) {
		const struct conf_strings *v = rule_values(c, f);
		if (v->n)
			r->texts[f] = choice_new(v->v, v->n, rule_folds(f));
	}
	r->headers = xcalloc(c->header_n + 1, sizeof(*r->headers));
	for (size_t i = 0; i < c->header_n; i++) {
		r->headers[i].name = c->header[i].name;
		if (c->header[i].value)
			r->headers[i].value = make_pattern(c->header[i].value, false);
	}
}

static bool needs_request(const struct conf_rule *c)
{
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++) {
		if (rule_values(c, f)->n)
			return true;
	}
	return c->header_n > 0;
}

struct rules *rules_new(const struct conf_listener *l)
{
	struct rules *r = xcalloc(1, sizeof(*r));

	r->l = l;
	r->n = l->rules_n;
	r->v = xcalloc(r->n + 1, sizeof(*r->v));
	r->index = rule_index_new(l->rules, l->rules_n);
	for (size_t i = 0; i < r->n; i++) {
		make_rule(&r->v[i], &l->rules[i]);
		r->v[i].key = rule_index_key(r->index, i);
		r->need_request |= needs_request(&l->rules[i]);
		r->by_sni |= l->mode == MODE_HTTP && l->rules[i].sni.n > 0 && l->rules[i].host.n == 0;
	}
	return r;
}

static void rule_fini(struct rule *r)
{
	netset_free(r->src);
	free(r->ports);
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++)
		choice_free(r->texts[f]);
	for (size_t i = 0; i < r->c->header_n; i++)
		pattern_free(r->headers[i].value);
	free(r->headers);
}

void rules_free(struct rules *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		rule_fini(&r->v[i]);
	rule_index_free(r->index);
	free(r->v);
	free(r);
}

bool rules_need_request(const struct rules *r)
{
	return r->need_request;
}

/* Asking them */

struct text {
	const char *at; /* NULL: not known */
	size_t len;
};

struct search {
	const struct rules *r;
	const struct facts *f;
	struct text texts[RULE_FIELD_COUNT]; /* not of alpn, of which there are several */
	uint32_t best;
	struct captures caught[2];
	int good; /* those of the best rule */
};

static struct text text_of(const char *s)
{
	return (struct text){ s, s ? strlen(s) : 0 };
}

static bool match_alpn(const struct choice *t, const struct facts *f, struct captures *c)
{
	for (size_t i = 0; i < f->alpn_n; i++) {
		if (choice_match(t, f->alpn[i], strlen(f->alpn[i]), c))
			return true;
	}
	return false;
}

static bool match_header(const struct header *h, const struct facts *f, struct captures *c)
{
	const char *value;

	for (size_t i = 0; f->header && (value = f->header(f->header_arg, h->name, i)); i++) {
		if (!h->value || pattern_match(h->value, value, strlen(value), c))
			return true;
	}
	return false;
}

static bool match_ports(const struct rule *r, uint16_t port)
{
	for (size_t i = 0; i < r->c->dst_port.n; i++) {
		if (port >= r->ports[i].from && port <= r->ports[i].to)
			return true;
	}
	return r->c->dst_port.n == 0;
}

/* The condition it was found by holds. */
static bool holds(const struct search *s, const struct rule *r, struct captures *c)
{
	if (!match_ports(r, s->f->dst_port))
		return false;
	if (r->src && r->key != RULE_KEY_SRC && !netset_has(r->src, &s->f->src))
		return false;
	for (unsigned f = 0; f < RULE_alpn; f++) {
		const struct text *t = &s->texts[f];
		if (r->texts[f] && r->key != f && !(t->at && choice_match(r->texts[f], t->at, t->len, c)))
			return false;
	}
	if (r->texts[RULE_alpn] && r->key != RULE_alpn && !match_alpn(r->texts[RULE_alpn], s->f, c))
		return false;
	for (size_t i = 0; i < r->c->header_n; i++) {
		if (!match_header(&r->headers[i], s->f, c))
			return false;
	}
	return true;
}

/* What cannot be found out within the limits of an expression is no match, but for rules that refuse: they do not let a client by for that. */
static bool rule_applies(const struct search *s, const struct rule *r, struct captures *c)
{
	uint64_t before = pattern_overruns();

	if (holds(s, r, c))
		return true;
	return (r->c->action == ACTION_DENY || r->c->action == ACTION_REJECT) && pattern_overruns() != before;
}

/* Ascending: what comes behind the best one so far need not be looked at. */
static bool try_rules(void *arg, const struct rule_numbers *l)
{
	struct search *s = arg;

	for (size_t i = 0; i < l->n && l->v[i] < s->best; i++) {
		struct captures *c = &s->caught[!s->good];

		c->n = 0;
		if (!rule_applies(s, &s->r->v[l->v[i]], c))
			continue;
		s->best = l->v[i];
		s->good = !s->good;
		break;
	}
	return s->best > 0;
}

static void find(struct search *s)
{
	const struct rule_index *x = s->r->index;

	for (unsigned f = 0; f < RULE_alpn && s->best > 0; f++) {
		if (s->texts[f].at)
			rule_index_text(x, f, s->texts[f].at, s->texts[f].len, try_rules, s);
	}
	for (size_t i = 0; i < s->f->alpn_n && s->best > 0; i++)
		rule_index_text(x, RULE_alpn, s->f->alpn[i], strlen(s->f->alpn[i]), try_rules, s);
	if (s->best > 0)
		rule_index_src(x, &s->f->src, try_rules, s);
	try_rules(s, rule_index_rest(x));
}

/* Filling in what they have caught */

enum use { USE_ROUTE, USE_REWRITE, USE_LOCATION };

struct fill {
	struct verdict *out;
	const struct captures *c;
	const struct facts *f;
	enum use use;
	bool bad, full;
};

static void put(struct fill *f, char c)
{
	struct verdict *o = f->out;

	if (o->text_len + 1 < sizeof(o->text))
		o->text[o->text_len++] = c;
	else
		f->full = true;
}

static bool is_name_char(char c)
{
	return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-';
}

/* Must a byte that a client has sent be written as %XX? */
static bool must_escape(enum use use, unsigned char c)
{
	if (c <= ' ' || c == 0x7f)
		return true;
	return use == USE_REWRITE ? c == '?' || c == '#' : c >= 0x80 || strchr("\"<>\\^`{|}", c);
}

static void put_caught(struct fill *f, const char *at, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)at[i];

		if (f->use == USE_ROUTE)
			f->bad |= !is_name_char(at[i]);
		if (f->use == USE_ROUTE || !must_escape(f->use, c)) {
			put(f, at[i]);
			continue;
		}
		put(f, '%');
		put(f, digits[c >> 4]);
		put(f, digits[c & 15]);
	}
}

static bool is_word(const struct template_piece *p, const char *word)
{
	return strlen(word) == p->len && memcmp(p->at, word, p->len) == 0;
}

static void put_name(struct fill *f, const struct template_piece *p)
{
	for (size_t i = 0; i < f->c->n; i++) {
		if (!is_word(p, f->c->v[i].name))
			continue;
		put_caught(f, f->c->v[i].at, f->c->v[i].len);
		return;
	}
	if (f->use != USE_LOCATION)
		return;
	const struct text host = text_of(f->f->host), path = text_of(f->f->path), query = text_of(f->f->query);
	if (is_word(p, "host"))
		put_caught(f, host.at, host.len);
	if (!is_word(p, "path"))
		return;
	put_caught(f, path.at, path.len);
	put_caught(f, query.at, query.len);
}

/* The template filled in, NUL-terminated, in the verdict's text. */
static char *expand(struct fill *f, const char *template)
{
	char *start = f->out->text + f->out->text_len;
	struct template_piece p;

	while (template_next(&template, &p)) {
		if (p.kind == TEMPLATE_NAME)
			put_name(f, &p);
		for (size_t i = 0; p.kind == TEMPLATE_TEXT && i < p.len; i++)
			put(f, p.at[i]);
	}
	f->out->text[f->out->text_len] = '\0';
	if (f->out->text_len + 1 < sizeof(f->out->text))
		f->out->text_len++;
	else
		f->full = true;
	return start;
}

static bool is_name(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n <= NAME_MAX_LEN;
}

/* One that leads nowhere is left out: the next one is tried, as if it had no agents. */
static void add_route(struct verdict *out, const struct captures *c, const struct facts *f, const char *template)
{
	struct fill fill = { .out = out, .c = c, .f = f, .use = USE_ROUTE };
	char *text = expand(&fill, template), *slash = strchr(text, '/');

	if (fill.bad || fill.full || !slash || out->route_n == RULES_ROUTES)
		return;
	*slash = '\0';
	if (!is_name(text) || !is_name(slash + 1))
		return;
	out->route[out->route_n].tunnel = text;
	out->route[out->route_n++].service = slash + 1;
}

/* "." at s, or its disguise; its length. */
static size_t dot(const char *s)
{
	if (*s == '.')
		return 1;
	return s[0] == '%' && s[1] == '2' && (s[2] == 'e' || s[2] == 'E') ? 3 : 0;
}

/* What was caught may have put "." or ".." together anew, which would lead out of where the template points. */
static bool has_dot_segment(const char *path)
{
	for (const char *s = strchr(path, '/'); s; s = strchr(s, '/')) {
		s++;
		size_t one = dot(s), two = one ? dot(s + one) : 0;
		if (one && (s[one + two] == '/' || s[one + two] == '\0'))
			return true;
	}
	return false;
}

static void rewrite(struct verdict *out, const struct captures *c, const struct facts *f, const char *template)
{
	struct fill fill = { .out = out, .c = c, .f = f, .use = USE_REWRITE };

	put(&fill, '/'); /* which "${rest}" may lack */
	char *path = expand(&fill, template);
	out->rewrite = *path == '/' ? path : path - 1;
	out->too_long = fill.full;
	if (fill.full || has_dot_segment(out->rewrite))
		out->kind = VERDICT_NONE;
}

static void redirect(struct verdict *out, const struct captures *c, const struct facts *f)
{
	struct fill fill = { .out = out, .c = c, .f = f, .use = USE_LOCATION };
	const char *template = out->rule->redirect, *to = expand(&fill, template);

	/* a path of "//elsewhere/" would lead to that host */
	while (strncmp(template, "//", 2) != 0 && to[0] == '/' && to[1] == '/')
		to++;
	out->location = to;
	out->too_long = fill.full;
	if (fill.full)
		out->kind = VERDICT_NONE;
}

static void default_routes(const struct conf_listener *l, struct verdict *out)
{
	for (size_t i = 0; i < l->route_n && i < RULES_ROUTES; i++) {
		out->route[i].tunnel = l->route[i].tunnel;
		out->route[i].service = l->route[i].service;
		out->route_n++;
	}
}

static void decide(const struct search *s, struct verdict *out)
{
	const struct captures *c = &s->caught[s->good];
	const struct conf_rule *rule = out->rule;

	switch (rule->action) {
	case ACTION_DENY:
		out->kind = VERDICT_DENY;
		out->status = rule->status ? rule->status : 403;
		return;
	case ACTION_REJECT:
		out->kind = VERDICT_REJECT;
		return;
	case ACTION_REDIRECT:
		out->kind = VERDICT_REDIRECT;
		out->status = rule->status ? rule->status : 302;
		redirect(out, c, s->f);
		return;
	}
	for (size_t i = 0; i < rule->route.n; i++)
		add_route(out, c, s->f, rule->route.v[i]);
	if (rule->route.n == 0)
		default_routes(s->r->l, out);
	out->kind = out->route_n ? VERDICT_ROUTE : VERDICT_NONE;
	if (rule->rewrite && out->route_n)
		rewrite(out, c, s->f, rule->rewrite);
}

static void clear(struct verdict *out)
{
	out->kind = VERDICT_NONE;
	out->rule = NULL;
	out->index = 0;
	out->status = 0;
	out->too_long = false;
	out->route_n = 0;
	out->rewrite = out->location = NULL;
	out->text_len = 0;
}

/* The connection was made for another name: what rules say of sni would not be about this request. */
static bool misdirected(const struct rules *r, const struct facts *f)
{
	return r->by_sni && f->sni && f->host && f->host[0] && strcmp(f->sni, f->host) != 0;
}

void rules_match(const struct rules *r, const struct facts *f, struct verdict *out)
{
	uint64_t shortages = pattern_shortages();
	struct search s;

	s.r = r;
	s.f = f;
	s.best = NO_RULE;
	s.good = 0;
	s.texts[RULE_host] = text_of(f->host);
	s.texts[RULE_sni] = text_of(f->sni);
	s.texts[RULE_path] = text_of(f->path);
	s.texts[RULE_method] = text_of(f->method);
	clear(out);
	if (misdirected(r, f)) {
		out->kind = VERDICT_DENY;
		out->status = 421;
		return;
	}
	find(&s);
	if (pattern_shortages() != shortages) { /* the rule that should have decided may be one that was passed over */
		out->kind = VERDICT_RESOURCES;
		return;
	}
	if (s.best != NO_RULE) {
		out->index = s.best;
		out->rule = r->v[s.best].c;
		decide(&s, out);
		return;
	}
	default_routes(r->l, out);
	out->kind = out->route_n ? VERDICT_ROUTE : VERDICT_NONE;
}
