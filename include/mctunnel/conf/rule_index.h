/* A list of rules by what they ask for: each is entered under that of its conditions whose values the fewest rules share, where these can be looked up (texts without
 * expressions, networks); the rest must be scanned. Immutable; any thread may look. */
#ifndef MCTUNNEL_CONF_RULE_INDEX_H
#define MCTUNNEL_CONF_RULE_INDEX_H

#include "mctunnel/conf/rule.h"

struct rule_index;

/* The rules are good, and borrowed for the call. Those that never apply are left out. */
struct rule_index *rule_index_new(const struct conf_rule *rules, size_t n);
void rule_index_free(struct rule_index *x); /* NULL is allowed */

#define RULE_KEY_SRC RULE_FIELD_COUNT
#define RULE_KEY_NONE (RULE_FIELD_COUNT + 1)
/* The condition a rule is entered under: a field, RULE_KEY_SRC or RULE_KEY_NONE. */
unsigned rule_index_key(const struct rule_index *x, size_t rule);

struct rule_numbers { /* ascending */
	uint32_t *v;
	size_t n;
};
/* false: that was enough. */
typedef bool rule_index_visit(void *arg, const struct rule_numbers *rules);

/* Calls visit for the rules entered under a text, or under a network of the address; a rule may come several times. */
void rule_index_text(const struct rule_index *x, enum rule_field f, const char *text, size_t len, rule_index_visit *visit, void *arg);
void rule_index_src(const struct rule_index *x, const struct addr *a, rule_index_visit *visit, void *arg);
const struct rule_numbers *rule_index_rest(const struct rule_index *x); /* under nothing */

#endif
