/* The rules of a listener. Each rule is entered under one of its conditions: that whose values the fewest rules share, if they are texts or networks that can be
 * looked up; else it is scanned. A match looks up the client's names and address, and tests what it finds there, in each list from the top, up to the best rule so far.
 * Owns patterns, sets and lists; what a tunnel is, or whether it has agents, is not known here. */
#include "mctunnel/tunnel/rules.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/template.h"
#include "mctunnel/base/textset.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/tunnel/facts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define FEW 4 /* literals that are compared one by one */
#define NAME_MAX_LEN 63
#define NO_RULE UINT32_MAX

enum field { HOST, SNI, PATH, METHOD, ALPN, FIELDS };
enum { KEY_SRC = FIELDS, KEYS, KEY_NONE = KEYS }; /* what a rule may be found by: a field, or src */

static const struct {
	size_t offset; /* of the values in struct conf_rule */
	bool fold;
} fields[FIELDS] = {
	[HOST] = { offsetof(struct conf_rule, host), true },
	[SNI] = { offsetof(struct conf_rule, sni), true },
	[PATH] = { offsetof(struct conf_rule, path), false },
	[METHOD] = { offsetof(struct conf_rule, method), false },
	[ALPN] = { offsetof(struct conf_rule, alpn), false },
};

struct texts { /* the values of one condition: one must match */
	struct pattern **v; /* owned; expressions come first, because they catch */
	size_t n;
	struct textset *set; /* owned; NULL: the rest is few */
};

struct ports {
	uint32_t from, to;
};

struct header {
	const char *name;      /* borrowed */
	struct pattern *value; /* owned; NULL: any */
};

struct rule {
	const struct conf_rule *c;
	unsigned key; /* the condition it is found by, which holds then */
	struct netset *src; /* owned; NULL: no condition */
	struct ports *ports; /* owned */
	struct texts texts[FIELDS];
	struct header *headers; /* owned */
};

struct list { /* rules that share a value, ascending */
	uint32_t *v; /* owned */
	uint32_t n;
	uint32_t id;
	uint32_t sharers; /* rules that have it at all */
};

struct rules {
	const struct conf_listener *l;
	struct rule *v;
	size_t n;
	struct list **lists; /* owned */
	size_t lists_n;
	struct textset *texts[FIELDS]; /* owned: ids of lists */
	struct netset *src;               /* the same */
	struct list scan;
	bool need_request;
};

/* Making them */

static const struct conf_strings *values(const struct conf_rule *c, enum field f)
{
	return (const struct conf_strings *)((const char *)c + fields[f].offset);
}

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

static bool is_regex(const char *text)
{
	return text[0] == '~';
}

static void make_texts(struct texts *t, const struct conf_strings *from, bool fold)
{
	size_t simple = 0;

	for (size_t i = 0; i < from->n; i++)
		simple += textset_takes(from->v[i]);
	if (simple > FEW)
		t->set = textset_new(fold);
	t->v = xcalloc(from->n + 1, sizeof(*t->v));
	for (int regex = 1; regex >= 0; regex--) {
		for (size_t i = 0; i < from->n; i++) {
			if (is_regex(from->v[i]) != regex)
				continue;
			if (t->set && textset_takes(from->v[i]))
				textset_add(t->set, from->v[i], 0);
			else
				t->v[t->n++] = make_pattern(from->v[i], fold);
		}
	}
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
	r->key = KEY_NONE;
	if (c->src.n) {
		r->src = netset_new();
		for (size_t i = 0; i < c->src.n; i++)
			make_net(r->src, c->src.v[i], 0);
	}
	make_ports(r);
	for (size_t f = 0; f < FIELDS; f++)
		make_texts(&r->texts[f], values(c, f), fields[f].fold);
	r->headers = xcalloc(c->header_n + 1, sizeof(*r->headers));
	for (size_t i = 0; i < c->header_n; i++) {
		r->headers[i].name = c->header[i].name;
		if (c->header[i].value)
			r->headers[i].value = make_pattern(c->header[i].value, false);
	}
}

static void list_append(struct list *l, uint32_t rule)
{
	if (l->n && l->v[l->n - 1] == rule)
		return; /* the same value twice */
	if ((l->n & (l->n - 1)) == 0)
		l->v = xrealloc(l->v, (l->n ? 2 * (size_t)l->n : 1) * sizeof(*l->v));
	l->v[l->n++] = rule;
}

static const struct conf_strings *key_values(const struct conf_rule *c, unsigned k)
{
	return k == KEY_SRC ? &c->src : values(c, (enum field)k);
}

/* The list of a value; names holds them by condition and text. */
static struct list *list_of(struct rules *r, struct map *names, unsigned k, const char *text)
{
	size_t len = strlen(text);
	char *name = xmalloc(len + 1);

	name[0] = (char)k;
	for (size_t i = 0; i < len; i++)
		name[i + 1] = (char)(k != KEY_SRC && fields[k].fold ? tolower((unsigned char)text[i]) : text[i]);
	struct list *l = map_get(names, name, len + 1);
	if (!l) {
		l = xcalloc(1, sizeof(*l));
		map_set(names, name, len + 1, l);
		if ((r->lists_n & (r->lists_n - 1)) == 0)
			r->lists = xrealloc(r->lists, (r->lists_n ? 2 * r->lists_n : 1) * sizeof(struct list *));
		l->id = (uint32_t)r->lists_n;
		r->lists[r->lists_n++] = l;
	}
	free(name);
	return l;
}

static bool can_be_key(const struct conf_rule *c, unsigned k)
{
	const struct conf_strings *v = key_values(c, k);

	for (size_t i = 0; i < v->n; i++) {
		if (k != KEY_SRC && !textset_takes(v->v[i]))
			return false;
	}
	return v->n > 0;
}

static void count_values(struct rules *r, struct map *names, const struct conf_rule *c)
{
	for (unsigned k = 0; k < KEYS; k++) {
		for (size_t i = 0; can_be_key(c, k) && i < key_values(c, k)->n; i++)
			list_of(r, names, k, key_values(c, k)->v[i])->sharers++;
	}
}

/* How many rules a client that has one of the values must be compared with, at worst; twice, that half of it says whether names are whole. */
static uint64_t key_cost(struct rules *r, struct map *names, const struct conf_rule *c, unsigned k)
{
	const struct conf_strings *v = key_values(c, k);
	uint64_t cost = 0;

	for (size_t i = 0; i < v->n; i++) {
		uint64_t n = 2 * (uint64_t)list_of(r, names, k, v->v[i])->sharers + (k == KEY_SRC || strchr(v->v[i], '*'));
		cost = n > cost ? n : cost;
	}
	return cost;
}

static unsigned choose_key(struct rules *r, struct map *names, const struct conf_rule *c)
{
	unsigned best = KEY_NONE;
	uint64_t least = UINT64_MAX;

	for (unsigned k = 0; k < KEYS; k++) {
		uint64_t cost = can_be_key(c, k) ? key_cost(r, names, c, k) : UINT64_MAX;
		if (cost >= least)
			continue;
		least = cost;
		best = k;
	}
	return best;
}

static void enter(struct rules *r, struct map *names, uint32_t number)
{
	struct rule *rule = &r->v[number];
	unsigned k = rule->key = choose_key(r, names, rule->c);

	if (k == KEY_NONE) {
		list_append(&r->scan, number);
		return;
	}
	const struct conf_strings *v = key_values(rule->c, k);
	for (size_t i = 0; i < v->n; i++) {
		struct list *l = list_of(r, names, k, v->v[i]);
		if (l->n == 0 && k == KEY_SRC)
			make_net(r->src, v->v[i], l->id);
		else if (l->n == 0)
			textset_add(r->texts[k], v->v[i], l->id);
		list_append(l, number);
	}
}

static bool needs_request(const struct conf_rule *c)
{
	for (size_t f = 0; f < FIELDS; f++) {
		if (values(c, f)->n)
			return true;
	}
	return c->header_n > 0;
}

struct rules *rules_new(const struct conf_listener *l)
{
	struct rules *r = xcalloc(1, sizeof(*r));
	struct map *names = map_new();

	r->l = l;
	r->n = l->rules_n;
	r->v = xcalloc(r->n + 1, sizeof(*r->v));
	r->src = netset_new();
	for (unsigned k = 0; k < FIELDS; k++)
		r->texts[k] = textset_new(fields[k].fold);
	for (size_t i = 0; i < r->n; i++) {
		make_rule(&r->v[i], &l->rules[i]);
		count_values(r, names, &l->rules[i]);
		r->need_request |= needs_request(&l->rules[i]);
	}
	for (size_t i = 0; i < r->n; i++)
		enter(r, names, (uint32_t)i);
	map_free(names);
	return r;
}

static void rule_fini(struct rule *r)
{
	netset_free(r->src);
	free(r->ports);
	for (size_t f = 0; f < FIELDS; f++) {
		for (size_t i = 0; i < r->texts[f].n; i++)
			pattern_free(r->texts[f].v[i]);
		free(r->texts[f].v);
		textset_free(r->texts[f].set);
	}
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
	for (size_t i = 0; i < r->lists_n; i++) {
		free(r->lists[i]->v);
		free(r->lists[i]);
	}
	for (unsigned k = 0; k < FIELDS; k++)
		textset_free(r->texts[k]);
	netset_free(r->src);
	free(r->lists);
	free(r->scan.v);
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
	struct text texts[FIELDS]; /* not ALPN, of which there are several */
	uint32_t best;
	struct captures caught[2];
	int good; /* those of the best rule */
};

static struct text text_of(const char *s)
{
	return (struct text){ s, s ? strlen(s) : 0 };
}

static bool match_texts(const struct texts *t, const struct text *s, struct captures *c)
{
	if (!s->at)
		return false;
	for (size_t i = 0; i < t->n; i++) {
		if (pattern_match(t->v[i], s->at, s->len, c))
			return true;
	}
	return t->set && textset_has(t->set, s->at, s->len);
}

static bool match_alpn(const struct texts *t, const struct facts *f, struct captures *c)
{
	for (size_t i = 0; i < f->alpn_n; i++) {
		struct text s = text_of(f->alpn[i]);
		if (match_texts(t, &s, c))
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
	if (r->src && r->key != KEY_SRC && !netset_has(r->src, &s->f->src))
		return false;
	for (size_t f = 0; f < ALPN; f++) {
		if (values(r->c, f)->n && r->key != f && !match_texts(&r->texts[f], &s->texts[f], c))
			return false;
	}
	if (r->c->alpn.n && r->key != ALPN && !match_alpn(&r->texts[ALPN], s->f, c))
		return false;
	for (size_t i = 0; i < r->c->header_n; i++) {
		if (!match_header(&r->headers[i], s->f, c))
			return false;
	}
	return true;
}

static void try_list(struct search *s, const struct list *l)
{
	for (size_t i = 0; i < l->n && l->v[i] < s->best; i++) {
		struct captures *c = &s->caught[!s->good];

		c->n = 0;
		if (!holds(s, &s->r->v[l->v[i]], c))
			continue;
		s->best = l->v[i];
		s->good = !s->good;
		return;
	}
}

static bool visit(void *arg, uint32_t list)
{
	struct search *s = arg;

	try_list(s, s->r->lists[list]);
	return s->best > 0;
}

static void find(struct search *s)
{
	for (unsigned f = 0; f < ALPN && s->best > 0; f++) {
		if (s->texts[f].at)
			textset_each(s->r->texts[f], s->texts[f].at, s->texts[f].len, visit, s);
	}
	for (size_t i = 0; i < s->f->alpn_n && s->best > 0; i++)
		textset_each(s->r->texts[ALPN], s->f->alpn[i], strlen(s->f->alpn[i]), visit, s);
	if (s->best > 0)
		netset_each(s->r->src, &s->f->src, visit, s);
	try_list(s, &s->r->scan);
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

void rules_match(const struct rules *r, const struct facts *f, struct verdict *out)
{
	struct search s;

	s.r = r;
	s.f = f;
	s.best = NO_RULE;
	s.good = 0;
	s.texts[HOST] = text_of(f->host);
	s.texts[SNI] = text_of(f->sni);
	s.texts[PATH] = text_of(f->path);
	s.texts[METHOD] = text_of(f->method);
	clear(out);
	find(&s);
	if (s.best != NO_RULE) {
		out->index = s.best;
		out->rule = r->v[s.best].c;
		decide(&s, out);
		return;
	}
	default_routes(r->l, out);
	out->kind = out->route_n ? VERDICT_ROUTE : VERDICT_NONE;
}
