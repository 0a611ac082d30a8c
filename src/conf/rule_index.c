/* The index of rules. A value of a condition has a list of rules; sets of texts and networks lead from what a client is to the lists of the values that match it.
 * Owns lists and sets. Whether a rule's other conditions hold is not looked at. */
#include "mctunnel/conf/rule_index.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/textset.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define KEYS (RULE_KEY_SRC + 1)
#define VALUES_MAX 1000 /* a condition with more is its own index: it is looked up in as a whole */

struct list {
	struct rule_numbers rules; /* owned */
	uint32_t id;
	uint32_t sharers; /* rules that have the value at all */
};

struct rule_index {
	uint8_t *keys;       /* owned: of the rules */
	struct list **lists; /* owned, by id */
	size_t lists_n;
	struct textset *texts[RULE_FIELD_COUNT]; /* owned: ids; NULL: there are none */
	struct netset *src;                      /* the same */
	struct rule_numbers rest;
	struct map *names; /* of lists, by condition and value, while it is built */
};

static void append(struct rule_numbers *l, uint32_t rule)
{
	if (l->n && l->v[l->n - 1] == rule)
		return; /* the same value twice */
	if ((l->n & (l->n - 1)) == 0)
		l->v = xrealloc(l->v, (l->n ? 2 * l->n : 1) * sizeof(*l->v));
	l->v[l->n++] = rule;
}

static const struct conf_strings *key_values(const struct conf_rule *r, unsigned k)
{
	return k == RULE_KEY_SRC ? &r->src : rule_values(r, k);
}

static struct list *list_new(struct rule_index *x)
{
	struct list *l = xcalloc(1, sizeof(*l));

	if ((x->lists_n & (x->lists_n - 1)) == 0)
		x->lists = xrealloc(x->lists, (x->lists_n ? 2 * x->lists_n : 1) * sizeof(struct list *));
	l->id = (uint32_t)x->lists_n;
	return x->lists[x->lists_n++] = l;
}

static struct list *list_of(struct rule_index *x, unsigned k, const char *value)
{
	bool fold = k != RULE_KEY_SRC && rule_folds(k);
	char name[1 + TEXTSET_TEXT_MAX];
	size_t len = strlen(value);

	BUG_ON(len > TEXTSET_TEXT_MAX);
	name[0] = (char)k;
	for (size_t i = 0; i < len; i++)
		name[i + 1] = (char)(fold ? tolower((unsigned char)value[i]) : value[i]);
	struct list *l = map_get(x->names, name, len + 1);
	if (!l) {
		l = list_new(x);
		map_set(x->names, name, len + 1, l);
	}
	return l;
}

static bool can_be_key(const struct conf_rule *r, unsigned k)
{
	const struct conf_strings *v = key_values(r, k);

	for (size_t i = 0; v->n <= VALUES_MAX && i < v->n; i++) {
		if (k != RULE_KEY_SRC && !textset_takes(v->v[i]))
			return false;
	}
	return v->n > 0 && v->n <= VALUES_MAX;
}

static void count_values(struct rule_index *x, const struct conf_rule *r)
{
	for (unsigned k = 0; k < KEYS; k++) {
		const struct conf_strings *v = key_values(r, k);
		size_t n = can_be_key(r, k) ? v->n : 0;
		for (size_t i = 0; i < n; i++)
			list_of(x, k, v->v[i])->sharers++;
	}
}

/* How many rules a client that has one of the values must be compared with at worst; among equals, whole names are better than beginnings, endings and networks. */
static uint64_t key_cost(struct rule_index *x, const struct conf_rule *r, unsigned k)
{
	const struct conf_strings *v = key_values(r, k);
	uint64_t cost = 0;

	for (size_t i = 0; i < v->n; i++) {
		uint64_t n = 2 * (uint64_t)list_of(x, k, v->v[i])->sharers + (k == RULE_KEY_SRC || strchr(v->v[i], '*'));
		cost = n > cost ? n : cost;
	}
	return cost;
}

static unsigned choose_key(struct rule_index *x, const struct conf_rule *r)
{
	unsigned best = RULE_KEY_NONE;
	uint64_t least = UINT64_MAX;

	for (unsigned k = 0; k < KEYS; k++) {
		uint64_t cost = can_be_key(r, k) ? key_cost(x, r, k) : UINT64_MAX;
		if (cost >= least)
			continue;
		least = cost;
		best = k;
	}
	return best;
}

static void put_value(struct rule_index *x, unsigned k, const char *value, uint32_t id)
{
	char err[256];

	if (k != RULE_KEY_SRC && !x->texts[k])
		x->texts[k] = textset_new(rule_folds(k));
	if (k == RULE_KEY_SRC && !x->src)
		x->src = netset_new();
	if (k != RULE_KEY_SRC)
		textset_add(x->texts[k], value, id);
	else if (netset_add(x->src, value, id, err, sizeof(err)) < 0)
		bug_panic(__FILE__, __LINE__, "%s", err);
}

static void enter(struct rule_index *x, const struct conf_rule *r, uint32_t number)
{
	unsigned k = choose_key(x, r);

	x->keys[number] = (uint8_t)k;
	if (r->never)
		return;
	if (k == RULE_KEY_NONE) {
		append(&x->rest, number);
		return;
	}
	const struct conf_strings *v = key_values(r, k);
	for (size_t i = 0; i < v->n; i++) {
		struct list *l = list_of(x, k, v->v[i]);
		if (l->rules.n == 0)
			put_value(x, k, v->v[i], l->id);
		append(&l->rules, number);
	}
}

struct rule_index *rule_index_new(const struct conf_rule *rules, size_t n)
{
	struct rule_index *x = xcalloc(1, sizeof(*x));

	x->keys = xcalloc(n + 1, sizeof(*x->keys));
	x->names = map_new();
	for (size_t i = 0; i < n; i++)
		count_values(x, &rules[i]);
	for (size_t i = 0; i < n; i++)
		enter(x, &rules[i], (uint32_t)i);
	map_free(x->names);
	x->names = NULL;
	return x;
}

void rule_index_free(struct rule_index *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->lists_n; i++) {
		free(x->lists[i]->rules.v);
		free(x->lists[i]);
	}
	for (unsigned f = 0; f < RULE_FIELD_COUNT; f++)
		textset_free(x->texts[f]);
	netset_free(x->src);
	free(x->lists);
	free(x->rest.v);
	free(x->keys);
	free(x);
}

unsigned rule_index_key(const struct rule_index *x, size_t rule)
{
	return x->keys[rule];
}

struct visitor {
	const struct rule_index *x;
	rule_index_visit *visit;
	void *arg;
};

static bool pass_on(void *arg, uint32_t id)
{
	const struct visitor *v = arg;

	return v->visit(v->arg, &v->x->lists[id]->rules);
}

void rule_index_text(const struct rule_index *x, enum rule_field f, const char *text, size_t len, rule_index_visit *visit, void *arg)
{
	if (x->texts[f])
		textset_each(x->texts[f], text, len, pass_on, &(struct visitor){ x, visit, arg });
}

void rule_index_src(const struct rule_index *x, const struct addr *a, rule_index_visit *visit, void *arg)
{
	if (x->src)
		netset_each(x->src, a, pass_on, &(struct visitor){ x, visit, arg });
}

const struct rule_numbers *rule_index_rest(const struct rule_index *x)
{
	return &x->rest;
}
