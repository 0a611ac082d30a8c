/* Finds rules that are never reached: a rule covers a later one if each of its conditions holds whenever that one's do. By the index of the rules each is compared with
 * those it shares a value with, and with a bounded number of them, so that ten thousand rules are checked in a moment. Borrows the rules; reports nothing itself. */
#include "mctunnel/conf/cover.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/choice.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/conf/rule_index.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define COMPARED_MAX 256 /* with one rule */

struct side { /* a rule, made ready when it is first compared */
	struct choice *texts[RULE_FIELD_COUNT]; /* owned; NULL: no condition */
	struct netset *src;                     /* the same */
};

struct cover {
	const struct conf_rule *rules;
	struct side **sides; /* owned */
	struct rule_index *index;
};

struct comparison {
	struct cover *c;
	size_t rule, by; /* by: rule itself, while none is found */
	unsigned left;
};

static struct side *side_of(struct cover *c, size_t rule)
{
	const struct conf_rule *r = &c->rules[rule];
	char err[256];

	if (c->sides[rule])
		return c->sides[rule];
	struct side *s = c->sides[rule] = xcalloc(1, sizeof(*s));
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++) {
		const struct conf_strings *v = rule_values(r, f);
		if (v->n)
			s->texts[f] = choice_new(v->v, v->n, rule_folds(f));
	}
	if (r->src.n)
		s->src = netset_new();
	for (size_t i = 0; i < r->src.n; i++)
		BUG_ON(netset_add(s->src, r->src.v[i], 0, err, sizeof(err)) < 0);
	return s;
}

static void side_free(struct side *s)
{
	if (!s)
		return;
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++)
		choice_free(s->texts[f]);
	netset_free(s->src);
	free(s);
}

static bool covers_texts(const struct choice *a, const struct conf_strings *b)
{
	for (size_t i = 0; a && i < b->n; i++) {
		if (!choice_covers(a, b->v[i]))
			return false;
	}
	return !a || b->n > 0;
}

static bool covers_src(const struct netset *a, const struct conf_strings *b)
{
	for (size_t i = 0; a && i < b->n; i++) {
		if (!netset_covers(a, b->v[i]))
			return false;
	}
	return !a || b->n > 0;
}

static void read_ports(const char *text, unsigned long *from, unsigned long *to)
{
	char *end;

	*from = *to = strtoul(text, &end, 10);
	if (*end == '-')
		*to = strtoul(end + 1, NULL, 10);
}

static bool within_ports(const struct conf_strings *a, const char *ports)
{
	unsigned long from, to, low, high;

	read_ports(ports, &from, &to);
	for (size_t i = 0; i < a->n; i++) {
		read_ports(a->v[i], &low, &high);
		if (from >= low && to <= high)
			return true;
	}
	return false;
}

static bool covers_ports(const struct conf_strings *a, const struct conf_strings *b)
{
	for (size_t i = 0; a->n && i < b->n; i++) {
		if (!within_ports(a, b->v[i]))
			return false;
	}
	return a->n == 0 || b->n > 0;
}

static bool covers_header(const struct conf_header *a, const struct conf_rule *b)
{
	for (size_t i = 0; i < b->header_n; i++) {
		const struct conf_header *h = &b->header[i];

		if (strcasecmp(a->name, h->name) == 0 && (!a->value || (h->value && strcmp(a->value, h->value) == 0)))
			return true;
	}
	return false;
}

/* Does a apply whenever b would? */
static bool covers(struct cover *c, size_t a, size_t b)
{
	const struct conf_rule *ra = &c->rules[a], *rb = &c->rules[b];
	const struct side *s = side_of(c, a);

	if (!covers_ports(&ra->dst_port, &rb->dst_port) || !covers_src(s->src, &rb->src))
		return false;
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++) {
		if (!covers_texts(s->texts[f], rule_values(rb, f)))
			return false;
	}
	for (size_t i = 0; i < ra->header_n; i++) {
		if (!covers_header(&ra->header[i], rb))
			return false;
	}
	return true;
}

static bool compare(void *arg, const struct rule_numbers *l)
{
	struct comparison *k = arg;

	for (size_t i = 0; i < l->n && l->v[i] < k->rule && k->left; i++, k->left--) {
		if (!covers(k->c, l->v[i], k->rule))
			continue;
		k->by = l->v[i];
		return false;
	}
	return k->left > 0;
}

/* An address of the network: whatever network holds all of it holds this one. */
static struct addr address_of(const char *network)
{
	struct addr a = { .len = sizeof(a.u.in6) };
	char text[INET6_ADDRSTRLEN];

	snprintf(text, sizeof(text), "%.*s", (int)strcspn(network, "/"), network);
	if (inet_pton(AF_INET6, text, &a.u.in6.sin6_addr) == 1) {
		a.u.in6.sin6_family = AF_INET6;
		return a;
	}
	a.len = sizeof(a.u.in4);
	a.u.in4.sin_family = AF_INET;
	if (inet_pton(AF_INET, text, &a.u.in4.sin_addr) != 1)
		a.u.in4.sin_addr.s_addr = 0; /* "*" */
	return a;
}

static size_t find_cover(struct cover *c, size_t rule)
{
	struct comparison k = { .c = c, .rule = rule, .by = rule, .left = COMPARED_MAX };
	const struct conf_rule *r = &c->rules[rule];

	for (unsigned f = 0; f < RULE_FIELD_COUNT && k.by == rule; f++) {
		const struct conf_strings *v = rule_values(r, f);
		if (v->n)
			rule_index_text(c->index, f, v->v[0], strlen(v->v[0]), compare, &k);
	}
	if (k.by == rule && r->src.n) {
		struct addr a = address_of(r->src.v[0]);
		rule_index_src(c->index, &a, compare, &k);
	}
	if (k.by == rule)
		compare(&k, rule_index_rest(c->index));
	return k.by;
}

static bool has_conditions(const struct conf_rule *r)
{
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++) {
		if (rule_values(r, f)->n)
			return true;
	}
	return r->src.n || r->dst_port.n || r->header_n;
}

void cover_find(const struct conf_rule *rules, size_t n, void (*found)(void *arg, size_t rule, size_t by), void *arg)
{
	struct cover c = { .rules = rules, .sides = xcalloc(n + 1, sizeof(*c.sides)), .index = rule_index_new(rules, n) };
	size_t always = n; /* the first rule that always applies */

	for (size_t i = 0; i < n; i++) {
		size_t by = rules[i].never ? i : always < n ? always : find_cover(&c, i);
		if (by != i)
			found(arg, i, by);
		if (always == n && !rules[i].never && !has_conditions(&rules[i]))
			always = i;
	}
	for (size_t i = 0; i < n; i++)
		side_free(c.sides[i]);
	free(c.sides);
	rule_index_free(c.index);
}
