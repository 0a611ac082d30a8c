/* Patterns as Lua has them: classes, sets, repetitions, captures, %b, %f, back references. A backtracking matcher that counts each comparison, so that
 * whoever asks decides how long it may take. Owns nothing; does not know Lua. */
#include "mctunnel/script/match.h"

#include <ctype.h>
#include <string.h>

#define DEPTH_MAX 200

static const char *go(struct match *m, const char *s, const char *p);

/* Everything ends: NULL, up to match_find(). */
static const char *wrong(struct match *m, const char *sentence)
{
	if (!m->error)
		m->error = sentence;
	return NULL;
}

static bool over(const struct match *m)
{
	return m->error || m->left < 0;
}

/* ---- one character ---- */

static bool in_class(unsigned char c, unsigned char class)
{
	bool is;

	switch (tolower(class)) {
	case 'a': is = isalpha(c); break;
	case 'c': is = iscntrl(c); break;
	case 'd': is = isdigit(c); break;
	case 'g': is = isgraph(c); break;
	case 'l': is = islower(c); break;
	case 'p': is = ispunct(c); break;
	case 's': is = isspace(c); break;
	case 'u': is = isupper(c); break;
	case 'w': is = isalnum(c); break;
	case 'x': is = isxdigit(c); break;
	default: return class == c;
	}
	return isupper(class) ? !is : is;
}

/* Behind the set that begins at p; NULL: it has no end. A ']' that comes first stands for itself. */
static const char *set_end(struct match *m, const char *p)
{
	p += p + 1 < m->pattern_end && p[1] == '^' ? 2 : 1;
	for (bool first = true; p < m->pattern_end; first = false) {
		if (*p == ']' && !first)
			return p + 1;
		p += *p == '%' && p + 1 < m->pattern_end ? 2 : 1;
	}
	return wrong(m, "malformed pattern (missing ']')");
}

/* Behind the item at p, without its repetition. */
static const char *item_end(struct match *m, const char *p)
{
	if (*p == '[')
		return set_end(m, p);
	if (*p != '%')
		return p + 1;
	return p + 1 < m->pattern_end ? p + 2 : wrong(m, "malformed pattern (ends with '%')");
}

/* The set from its '[' to its ']'. */
static bool in_set(struct match *m, unsigned char c, const char *p, const char *last)
{
	bool not = p[1] == '^';

	for (p += not ? 2 : 1; p < last; p++) {
		m->left--;
		if (*p == '%' && p + 1 <= last) {
			p++;
			if (in_class(c, (unsigned char)*p))
				return !not;
		} else if (p + 2 < last && p[1] == '-') {
			p += 2;
			if ((unsigned char)p[-2] <= c && c <= (unsigned char)*p)
				return !not;
		} else if ((unsigned char)*p == c) {
			return !not;
		}
	}
	return not;
}

/* Is the character at s one that the item from p to end stands for? */
static bool single(struct match *m, const char *s, const char *p, const char *end)
{
	m->left--;
	if (s >= m->subject_end)
		return false;
	switch (*p) {
	case '.': return true;
	case '%': return in_class((unsigned char)*s, (unsigned char)p[1]);
	case '[': return in_set(m, (unsigned char)*s, p, end - 1);
	default: return *p == *s;
	}
}

/* ---- repetitions: rest is what follows ---- */

static const char *longest_first(struct match *m, const char *s, const char *p, const char *end)
{
	ptrdiff_t n = 0;

	while (!over(m) && single(m, s + n, p, end))
		n++;
	for (; n >= 0 && !over(m); n--) {
		const char *found = go(m, s + n, end + 1);

		if (found)
			return found;
	}
	return NULL;
}

static const char *shortest_first(struct match *m, const char *s, const char *p, const char *end)
{
	while (!over(m)) {
		const char *found = go(m, s, end + 1);

		if (found)
			return found;
		if (!single(m, s, p, end))
			return NULL;
		s++;
	}
	return NULL;
}

/* ---- captures ---- */

static const char *capture_open(struct match *m, const char *s, const char *p, ptrdiff_t len)
{
	const char *found;

	if (m->captures == MATCH_CAPTURES)
		return wrong(m, "too many captures");
	m->capture[m->captures].at = s;
	m->capture[m->captures].len = len;
	m->captures++;
	found = go(m, s, p);
	if (!found)
		m->captures--;
	return found;
}

static const char *capture_close(struct match *m, const char *s, const char *p)
{
	int i = m->captures - 1;
	const char *found;

	while (i >= 0 && m->capture[i].len != MATCH_OPEN)
		i--;
	if (i < 0)
		return wrong(m, "invalid pattern capture");
	m->capture[i].len = s - m->capture[i].at;
	found = go(m, s, p);
	if (!found)
		m->capture[i].len = MATCH_OPEN;
	return found;
}

/* Behind what a capture has matched, when it stands here once more. */
static const char *same_again(struct match *m, const char *s, char digit)
{
	int i = digit - '1';
	ptrdiff_t len;

	if (i < 0 || i >= m->captures || m->capture[i].len == MATCH_OPEN)
		return wrong(m, "invalid capture index in pattern");
	len = m->capture[i].len;
	if (len < 0 || m->subject_end - s < len)
		return NULL;
	m->left -= len / 16;
	return memcmp(m->capture[i].at, s, (size_t)len) == 0 ? s + len : NULL;
}

/* ---- %b and %f ---- */

/* Behind a balanced piece that begins at s. */
static const char *balanced(struct match *m, const char *s, const char *p)
{
	int open = 1;

	if (p + 1 >= m->pattern_end)
		return wrong(m, "malformed pattern (missing arguments to '%b')");
	if (s >= m->subject_end || *s != p[0])
		return NULL;
	while (++s < m->subject_end && --m->left >= 0) {
		if (*s == p[1] && --open == 0)
			return s + 1;
		open += *s == p[0] && p[0] != p[1];
	}
	return NULL;
}

/* Behind the set, when the border runs through here. */
static const char *border(struct match *m, const char *s, const char *p)
{
	unsigned char before = s == m->subject ? '\0' : (unsigned char)s[-1];
	unsigned char here = s == m->subject_end ? '\0' : (unsigned char)*s;
	const char *end;

	if (p >= m->pattern_end || *p != '[')
		return wrong(m, "missing '[' after '%f' in pattern");
	end = set_end(m, p);
	return end && !in_set(m, before, p, end - 1) && in_set(m, here, p, end - 1) ? end : NULL;
}

/* ---- the rest of a pattern ---- */

/* What has letters of its own behind '%'. *s, *p: moved behind it. -1: nothing of that; 0: no match; 1: go on. */
static int special(struct match *m, const char **s, const char **p)
{
	char letter = *p + 1 < m->pattern_end ? (*p)[1] : '\0';
	const char *next;

	if (letter == 'b') {
		next = balanced(m, *s, *p + 2);
		*p += 4;
		*s = next;
	} else if (letter == 'f') {
		next = border(m, *s, *p + 2);
		*p = next;
	} else if (isdigit((unsigned char)letter)) {
		next = same_again(m, *s, letter);
		*p += 2;
		*s = next;
	} else {
		return -1;
	}
	return next ? 1 : 0;
}

/* One item and what repeats it. *found: where all of it ends, or NULL. true: just go on behind it. */
static bool item(struct match *m, const char **s, const char **p, const char **found)
{
	const char *at = *p, *end = item_end(m, at);

	*found = NULL;
	if (!end)
		return false;
	*p = end + 1;
	switch (end < m->pattern_end ? *end : '\0') {
	case '*': *found = longest_first(m, *s, at, end); return false;
	case '-': *found = shortest_first(m, *s, at, end); return false;
	case '+':
		*found = single(m, *s, at, end) ? longest_first(m, *s + 1, at, end) : NULL;
		return false;
	case '?':
		*found = single(m, *s, at, end) ? go(m, *s + 1, end + 1) : NULL;
		return !*found;
	}
	*p = end;
	return single(m, (*s)++, at, end);
}

static const char *walk(struct match *m, const char *s, const char *p)
{
	const char *found;

	while (p < m->pattern_end) {
		int done = *p == '%' ? special(m, &s, &p) : -1;

		if (over(m) || done == 0)
			return NULL;
		if (done == 1)
			continue;
		if (*p == '(') {
			bool position = p + 1 < m->pattern_end && p[1] == ')';

			return capture_open(m, s, p + (position ? 2 : 1), position ? MATCH_POSITION : MATCH_OPEN);
		}
		if (*p == ')')
			return capture_close(m, s, p + 1);
		if (*p == '$' && p + 1 == m->pattern_end)
			return s == m->subject_end ? s : NULL;
		if (!item(m, &s, &p, &found))
			return found;
	}
	return s;
}

/* Where a match of all that stands from p on, begun at s, ends. */
static const char *go(struct match *m, const char *s, const char *p)
{
	const char *found;

	if (m->depth == DEPTH_MAX)
		return wrong(m, "pattern too complex");
	m->depth++;
	m->left--;
	found = over(m) ? NULL : walk(m, s, p);
	m->depth--;
	return over(m) ? NULL : found;
}

const char *match_find(struct match *m, const char *from, bool anchored, const char **end)
{
	m->error = NULL;
	m->depth = 0;
	do {
		m->captures = 0;
		*end = go(m, from, m->pattern);
		if (*end)
			return from;
	} while (!anchored && !over(m) && from++ < m->subject_end);
	return NULL;
}
