/* Texts of any length, as streams of stdio. A failed allocation is remembered until the end, so that nobody takes a text for whole that is not.
 * Owns a text's memory while it is written; of what is written it knows nothing. */
#define _GNU_SOURCE
#include "mctunnel/base/text.h"

#include "mctunnel/base/mem.h"

#include <stdint.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define ROOM_MIN 8192u /* as much as stdio takes on top: where there is none, the ballast goes now */

struct stream {
	struct text *text;
	size_t room; /* of text->v, with the NUL */
};

static bool grow(struct stream *s, size_t wanted)
{
	size_t room = s->room ? s->room : ROOM_MIN;
	char *v;

	while (room < wanted)
		room *= 2;
	if (room == s->room)
		return true;
	v = mem_realloc(s->text->v, room);
	if (!v)
		return false;
	s->text->v = v;
	s->room = room;
	return true;
}

static ssize_t add(void *cookie, const char *from, size_t n)
{
	struct stream *s = cookie;
	struct text *t = s->text;

	if (t->broken || n > SIZE_MAX / 4 - t->len || !grow(s, t->len + n + 1)) {
		t->broken = true;
		return 0;
	}
	memcpy(t->v + t->len, from, n);
	t->len += n;
	t->v[t->len] = '\0';
	return (ssize_t)n;
}

static int end(void *cookie)
{
	free(cookie);
	return 0;
}

FILE *text_open(struct text *t)
{
	struct stream *s = mem_calloc(1, sizeof(*s));
	FILE *f = NULL;

	*t = (struct text){ NULL, 0, false };
	if (s) {
		s->text = t;
		if (grow(s, 1))
			f = fopencookie(s, "w", (cookie_io_functions_t){ .write = add, .close = end });
	}
	if (f) {
		t->v[0] = '\0';
		return f;
	}
	free(s);
	free(t->v);
	*t = (struct text){ NULL, 0, true };
	return NULL;
}

size_t text_size(const struct text *t, FILE *f)
{
	return t->len + __fpending(f);
}

bool text_close(struct text *t, FILE *f)
{
	if (f && fclose(f) == 0 && !t->broken)
		return true;
	free(t->v);
	*t = (struct text){ NULL, 0, true };
	return false;
}
