/* Reads lists of one entry a line. Knows nothing of what the entries mean; owns nothing. */
#include "mctunnel/conf/lines.h"

#include "mctunnel/base/mem.h"

#include <stdbool.h>
#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Where the entry ends that begins at s: before a comment, or at the end of the line. */
static const char *entry_end(const char *s, const char *end)
{
	for (const char *c = s; c < end; c++) {
		if (*c == '#' && (c == s || is_blank(c[-1])))
			end = c;
	}
	while (end > s && is_blank(end[-1]))
		end--;
	return end;
}

static char *copy(const char *s, size_t len)
{
	char *text = xmalloc(len + 1);

	memcpy(text, s, len);
	text[len] = '\0';
	return text;
}

char *lines_next(struct lines *l)
{
	if (l->at == 0 && l->len >= 3 && memcmp(l->text, "\xef\xbb\xbf", 3) == 0)
		l->at = 3; /* a byte order mark */
	while (l->at < l->len) {
		const char *s = l->text + l->at, *eol = memchr(s, '\n', l->len - l->at);
		const char *end = eol ? eol : l->text + l->len;

		l->at = (size_t)(end - l->text) + (eol ? 1 : 0);
		l->line++;
		while (s < end && is_blank(*s))
			s++;
		end = entry_end(s, end);
		if (end > s)
			return copy(s, (size_t)(end - s));
	}
	return NULL;
}
