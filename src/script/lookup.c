/* Files of words for scripts. Owns their lines, a map to them, and the set of networks when the words are such. Does not know where the text came from. */
#include "mctunnel/script/lookup.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/conf/lines.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t"

struct lookup {
	atomic_uint refs;
	enum lookup_kind kind;
	struct map *words;   /* to their lines (owned), each cut behind the word; the value follows the cut */
	struct netset *nets; /* owned; NULL: not all are networks */
	char why[160];       /* not */
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

/* The line is the map's then. -1: it is a map's, without a value. */
static int add_line(struct lookup *l, char *text, int line)
{
	size_t len = l->kind == LOOKUP_MAP ? strcspn(text, BLANKS) : strlen(text);

	if (l->kind == LOOKUP_LIST)
		add_network(l, text, line);
	else if (!text[len])
		return -1;
	text[len] = '\0';
	free(map_set(l->words, text, len, text));
	return 0;
}

struct lookup *lookup_new(enum lookup_kind kind, const char *text, size_t len, int *line, char *err, size_t errsize)
{
	struct lookup *l = xcalloc(1, sizeof(*l));
	struct lines lines = { .text = text, .len = len };

	l->refs = 1;
	l->kind = kind;
	l->words = map_new();
	l->nets = kind == LOOKUP_LIST ? netset_new() : NULL;
	for (char *at; (at = lines_next(&lines));) {
		*line = lines.line;
		if (add_line(l, at, lines.line) == 0)
			continue;
		free(at);
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
	size_t pos = 0;

	if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	for (char *line; (line = map_next(l->words, &pos));)
		free(line);
	map_free(l->words);
	netset_free(l->nets);
	free(l);
}

const char *lookup_get(const struct lookup *l, const char *word, size_t len)
{
	const char *line = map_get(l->words, word, len);

	if (!line || l->kind == LOOKUP_LIST)
		return line ? "" : NULL;
	return line + len + 1 + strspn(line + len + 1, BLANKS);
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

/* ---- shelves ---- */

struct shelf {
	atomic_uint refs;
	pthread_mutex_t lock;
	struct map *lookups[2]; /* by kind: by path, each held once */
};

struct shelf *shelf_new(void)
{
	struct shelf *f = xcalloc(1, sizeof(*f));

	f->refs = 1;
	pthread_mutex_init(&f->lock, NULL);
	f->lookups[LOOKUP_LIST] = map_new();
	f->lookups[LOOKUP_MAP] = map_new();
	return f;
}

struct shelf *shelf_hold(struct shelf *f)
{
	atomic_fetch_add(&f->refs, 1);
	return f;
}

void shelf_put(struct shelf *f)
{
	if (atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	for (int kind = 0; kind < 2; kind++) {
		size_t pos = 0;

		for (struct lookup *l; (l = map_next(f->lookups[kind], &pos));)
			lookup_put(l);
		map_free(f->lookups[kind]);
	}
	pthread_mutex_destroy(&f->lock);
	free(f);
}

struct lookup *shelf_get(struct shelf *f, enum lookup_kind kind, const char *path)
{
	struct lookup *l;

	pthread_mutex_lock(&f->lock);
	l = map_get_str(f->lookups[kind], path);
	pthread_mutex_unlock(&f->lock);
	return l;
}

struct lookup *shelf_add(struct shelf *f, enum lookup_kind kind, const char *path, struct lookup *l)
{
	struct lookup *there;

	pthread_mutex_lock(&f->lock);
	there = map_get_str(f->lookups[kind], path);
	if (!there)
		map_set_str(f->lookups[kind], path, l);
	pthread_mutex_unlock(&f->lock);
	if (!there)
		return l;
	lookup_put(l);
	return there;
}
