/* Files of words for scripts. Owns a copy of the text, cut into words and values in place, a map to them, and the set of networks when the words are such.
 * Does not know where the text came from. */
#include "mctunnel/script/lookup.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r"

struct lookup {
	atomic_uint refs;
	enum lookup_kind kind;
	char *text;           /* owned */
	struct map *words;    /* to the value, within text */
	struct netset *nets;  /* owned; NULL: not all are networks */
	char why[160];        /* not */
};

static void add_network(struct lookup *l, const char *word, int line)
{
	char err[120];

	if (!l->nets || netset_add(l->nets, word, 0, err, sizeof(err)) == 0)
		return;
	snprintf(l->why, sizeof(l->why), "line %d: %s", line, err);
	netset_free(l->nets);
	l->nets = NULL;
}

/* -1: a map's line without a value. */
static int add_line(struct lookup *l, char *text, int line)
{
	char *value, *end;

	text += strspn(text, BLANKS);
	if (*text == '\0' || *text == '#')
		return 0;
	for (end = text + strlen(text); strchr(BLANKS, end[-1]); end--)
		;
	*end = '\0';
	value = l->kind == LOOKUP_MAP ? text + strcspn(text, BLANKS) : end;
	if (l->kind == LOOKUP_MAP && *value == '\0')
		return -1;
	if (*value)
		*value++ = '\0';
	map_set_str(l->words, text, value + strspn(value, BLANKS));
	if (l->kind == LOOKUP_LIST)
		add_network(l, text, line);
	return 0;
}

struct lookup *lookup_new(enum lookup_kind kind, const char *text, int *line, char *err, size_t errsize)
{
	struct lookup *l = xcalloc(1, sizeof(*l));

	l->refs = 1;
	l->kind = kind;
	l->text = xstrdup(text);
	l->words = map_new();
	l->nets = kind == LOOKUP_LIST ? netset_new() : NULL;
	*line = 0;
	for (char *at = l->text, *next; at; at = next) {
		next = strchr(at, '\n');
		if (next)
			*next++ = '\0';
		++*line;
		if (add_line(l, at, *line) == 0)
			continue;
		snprintf(err, errsize, "a word without a value: a line of a map is WORD VALUE");
		lookup_put(l);
		return NULL;
	}
	return l;
}

struct lookup *lookup_hold(struct lookup *l)
{
	atomic_fetch_add(&l->refs, 1);
	return l;
}

void lookup_put(struct lookup *l)
{
	if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	map_free(l->words);
	netset_free(l->nets);
	explicit_bzero(l->text, strlen(l->text));
	free(l->text);
	free(l);
}

const char *lookup_get(const struct lookup *l, const char *word, size_t len)
{
	return map_get(l->words, word, len);
}

bool lookup_has(const struct lookup *l, const char *word, size_t len)
{
	return lookup_get(l, word, len) != NULL;
}

size_t lookup_count(const struct lookup *l)
{
	return map_count(l->words);
}

const char *lookup_networks(const struct lookup *l)
{
	return l->nets ? NULL : l->kind == LOOKUP_MAP ? "it is a map" : l->why;
}

bool lookup_holds(const struct lookup *l, const struct addr *a)
{
	return l->nets && netset_has(l->nets, a);
}
