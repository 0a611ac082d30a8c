/* Sets of texts. Literals are in a hash map; beginnings and endings ("/api/", ".example.com") are in one each, which is asked for every length that occurs there, and only
 * where the byte at the cut is one that occurs at that length: mostly '.' or '/'. So a look costs a few hashes, however many texts there are. */
#include "mctunnel/base/textset.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct reach { /* the ends of one length */
	size_t len;
	uint64_t edges[4]; /* a bit for each byte that stands at the cut */
};

struct ends {
	struct map *map;     /* owned: value + 1 by the text without star */
	struct reach *reach; /* owned */
	size_t reach_n;
};

struct textset {
	bool fold;
	struct map *exact; /* owned */
	struct ends begin, end;
};

struct look { /* a text, as far as it can matter, in the set's case */
	size_t len;           /* of the whole */
	const char *head, *tail; /* its first and last bytes, up to TEXTSET_TEXT_MAX */
	size_t cut;           /* so many */
	char buf[2][TEXTSET_TEXT_MAX];
};

struct textset *textset_new(bool fold)
{
	struct textset *s = xcalloc(1, sizeof(*s));

	s->fold = fold;
	s->exact = map_new();
	s->begin.map = map_new();
	s->end.map = map_new();
	return s;
}

void textset_free(struct textset *s)
{
	if (!s)
		return;
	map_free(s->exact);
	map_free(s->begin.map);
	map_free(s->end.map);
	free(s->begin.reach);
	free(s->end.reach);
	free(s);
}

bool textset_takes(const char *pattern)
{
	const char *star = strchr(pattern, '*');
	size_t len = strlen(pattern);

	if (pattern[0] == '~' || len > TEXTSET_TEXT_MAX)
		return false;
	return !star || star[1] == '\0' || (star == pattern && !strchr(star + 1, '*'));
}

static void fold_to(char *out, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + ('a' - 'A') : text[i]);
}

static struct reach *reach_of(struct ends *e, size_t len)
{
	for (size_t i = 0; i < e->reach_n; i++) {
		if (e->reach[i].len == len)
			return &e->reach[i];
	}
	e->reach = xrealloc(e->reach, (e->reach_n + 1) * sizeof(*e->reach));
	e->reach[e->reach_n] = (struct reach){ .len = len };
	return &e->reach[e->reach_n++];
}

static void put(struct map *m, const char *key, size_t len, uint32_t value)
{
	if (!map_get(m, key, len))
		map_set(m, key, len, (void *)((uintptr_t)value + 1));
}

/* edge: the byte at the cut. */
static void add_end(struct ends *e, const char *key, size_t len, uint8_t edge, uint32_t value)
{
	struct reach *r = reach_of(e, len);

	r->edges[edge / 64] |= 1ull << edge % 64;
	put(e->map, key, len, value);
}

void textset_add(struct textset *s, const char *pattern, uint32_t value)
{
	char key[TEXTSET_TEXT_MAX];
	size_t len = strlen(pattern);

	BUG_ON(!textset_takes(pattern));
	if (s->fold)
		fold_to(key, pattern, len);
	else
		memcpy(key, pattern, len);
	if (len && key[len - 1] == '*')
		add_end(&s->begin, key, len - 1, len > 1 ? (uint8_t)key[len - 2] : 0, value);
	else if (len && key[0] == '*')
		add_end(&s->end, key + 1, len - 1, (uint8_t)key[1], value);
	else
		put(s->exact, key, len, value);
}

static void prepare(struct look *l, const struct textset *s, const char *text, size_t len)
{
	l->len = len;
	l->cut = len < TEXTSET_TEXT_MAX ? len : TEXTSET_TEXT_MAX;
	l->head = text;
	l->tail = text + len - l->cut;
	if (!s->fold)
		return;
	fold_to(l->buf[0], l->head, l->cut);
	l->head = l->buf[0];
	if (l->cut < len)
		fold_to(l->buf[1], l->tail, l->cut);
	l->tail = l->buf[l->cut < len];
}

struct visitor {
	bool (*visit)(void *arg, uint32_t value);
	void *arg;
};

/* false: that was enough. */
static bool ask(const struct map *m, const char *key, size_t len, const struct visitor *v)
{
	void *found = map_get(m, key, len);

	return !found || v->visit(v->arg, (uint32_t)((uintptr_t)found - 1));
}

static bool has_edge(const struct reach *r, uint8_t edge)
{
	return r->len == 0 || r->edges[edge / 64] >> edge % 64 & 1;
}

static bool ask_ends(const struct ends *e, const struct look *l, bool begin, const struct visitor *v)
{
	for (size_t i = 0; i < e->reach_n; i++) {
		const struct reach *r = &e->reach[i];

		if (r->len > l->cut)
			continue;
		const char *key = begin ? l->head : l->tail + l->cut - r->len;
		if (r->len && !has_edge(r, (uint8_t)(begin ? key[r->len - 1] : key[0])))
			continue;
		if (!ask(e->map, key, r->len, v))
			return false;
	}
	return true;
}

void textset_each(const struct textset *s, const char *text, size_t len, bool (*visit)(void *arg, uint32_t value), void *arg)
{
	struct visitor v = { visit, arg };
	struct look l;

	prepare(&l, s, text, len);
	if (len <= TEXTSET_TEXT_MAX && !ask(s->exact, l.head, len, &v))
		return;
	if (ask_ends(&s->begin, &l, true, &v))
		ask_ends(&s->end, &l, false, &v);
}

static bool found(void *arg, uint32_t value)
{
	*(bool *)arg = true;
	return false;
}

bool textset_has(const struct textset *s, const char *text, size_t len)
{
	bool yes = false;

	textset_each(s, text, len, found, &yes);
	return yes;
}
