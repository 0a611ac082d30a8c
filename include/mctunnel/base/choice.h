/* Several patterns (base/pattern.h) of which one must match: few are tried, of many those are looked up that can be. Immutable; any thread may match. */
#ifndef MCTUNNEL_BASE_CHOICE_H
#define MCTUNNEL_BASE_CHOICE_H

#include <stdbool.h>
#include <stddef.h>

struct captures;
struct choice;

/* BUG if a pattern is none: pattern_new() has taken each of them before. */
struct choice *choice_new(char *const *patterns, size_t n, bool fold);
void choice_free(struct choice *c); /* NULL is allowed */

/* Expressions are tried first, in their order, because they catch. */
bool choice_match(const struct choice *c, const char *text, size_t len, struct captures *caught);
/* Does it match whatever the pattern matches? false: no, or it cannot be told. */
bool choice_covers(const struct choice *c, const char *pattern);

#endif
