/* Choices of patterns. Owns the patterns, and a set of those that can be looked up when they are more than a few. */
#include "mctunnel/base/choice.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/pattern.h"
#include "mctunnel/base/textset.h"

#include <stdlib.h>
#include <string.h>

#define FEW 4

struct choice {
	struct pattern **v; /* owned; expressions first */
	size_t n;
	struct textset *set; /* owned; NULL: there are few */
};

static struct pattern *make(const char *text, bool fold)
{
	char err[512];
	struct pattern *p = pattern_new(text, fold, err, sizeof(err));

	BUG_ON(!p);
	return p;
}

struct choice *choice_new(char *const *patterns, size_t n, bool fold)
{
	struct choice *c = xcalloc(1, sizeof(*c));
	size_t simple = 0, rest = 0;

	for (size_t i = 0; i < n; i++)
		simple += textset_takes(patterns[i]);
	if (simple > FEW)
		c->set = textset_new(fold);
	rest = c->set ? n - simple : n;
	c->v = rest ? xcalloc(rest, sizeof(*c->v)) : NULL;
	for (int regex = 1; regex >= 0; regex--) {
		for (size_t i = 0; i < n; i++) {
			if ((patterns[i][0] == '~') != regex)
				continue;
			if (c->set && textset_takes(patterns[i]))
				textset_add(c->set, patterns[i], 0);
			else
				c->v[c->n++] = make(patterns[i], fold);
		}
	}
	return c;
}

void choice_free(struct choice *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++)
		pattern_free(c->v[i]);
	free(c->v);
	textset_free(c->set);
	free(c);
}

bool choice_match(const struct choice *c, const char *text, size_t len, struct captures *caught)
{
	for (size_t i = 0; i < c->n; i++) {
		if (pattern_match(c->v[i], text, len, caught))
			return true;
	}
	return c->set && textset_has(c->set, text, len);
}

static bool is_everything(const struct pattern *p)
{
	const char *text = pattern_text(p);

	return pattern_kind(p) == PATTERN_GLOB && text[strspn(text, "*")] == '\0';
}

/* What an expression matches is known only where everything is matched, or where it is the same one. */
static bool covers_regex(const struct choice *c, const char *regex)
{
	for (size_t i = 0; i < c->n; i++) {
		if (is_everything(c->v[i]) || strcmp(pattern_text(c->v[i]), regex) == 0)
			return true;
	}
	return c->set && textset_has(c->set, "", 0); /* "*" is in it */
}

/* A glob that matches another one's text, stars and all, matches all that those stars stand for. */
bool choice_covers(const struct choice *c, const char *pattern)
{
	size_t len = strlen(pattern);
	bool glob = strchr(pattern, '*');

	if (pattern[0] == '~')
		return covers_regex(c, pattern);
	for (size_t i = 0; i < c->n; i++) {
		if (!(glob && pattern_kind(c->v[i]) == PATTERN_REGEX) && pattern_match(c->v[i], pattern, len, NULL))
			return true;
	}
	return c->set && textset_has(c->set, pattern, len);
}
