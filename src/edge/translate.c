/* HTTP/2 and HTTP/1.1 say the same in different words (RFC 9113, section 8): pseudo-header fields are the request line, cookies come in pieces, and what HTTP/1.1 says
 * of a connection HTTP/2 has no fields for. Owns the text under construction.
 * Values are well-formed already: h2_mux has refused others. */
#include "mctunnel/edge/translate.h"

#include "mctunnel/proto/http1.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 1024

static void add(struct translation *t, const char *text, size_t n)
{
	size_t size = t->size ? t->size : FIRST_SIZE;
	char *grown;

	if (t->too_long || t->no_memory)
		return;
	if (t->len + n > t->max) {
		t->too_long = true;
		return;
	}
	while (size < t->len + n)
		size *= 2;
	if (size != t->size) {
		grown = realloc(t->text, size);
		t->no_memory = !grown;
		if (!grown)
			return;
		t->text = grown;
		t->size = size;
	}
	memcpy(t->text + t->len, text, n);
	t->len += n;
}

static void add_text(struct translation *t, const char *text)
{
	add(t, text, strlen(text));
}

static void add_field(struct translation *t, const char *name, const char *value)
{
	add_text(t, name);
	add(t, ": ", 2);
	add_text(t, value);
	add(t, "\r\n", 2);
}

static void keep(struct translation *t, char **place, const char *value)
{
	if (*place)
		return; /* h2_mux lets no second one pass */
	if (strlen(value) > t->max) {
		t->too_long = true;
		return;
	}
	*place = strdup(value);
	t->no_memory |= !*place;
}

/* RFC 9113, 8.2.3 */
static void add_cookie(struct translation *t, const char *value)
{
	size_t n = strlen(value), len = t->cookies_len;
	char *grown;

	if (len + n + 3 > t->max) {
		t->too_long = true;
		return;
	}
	grown = realloc(t->cookies, len + n + 3);
	if (!grown) {
		t->no_memory = true;
		return;
	}
	t->cookies = grown;
	t->cookies_len = len + (size_t)snprintf(grown + len, n + 3, "%s%s", len ? "; " : "", value);
}

static void pseudo_field(struct translation *t, const char *name, const char *value)
{
	if (strcmp(name, ":method") == 0)
		keep(t, &t->method, value);
	else if (strcmp(name, ":path") == 0)
		keep(t, &t->path, value);
	else if (strcmp(name, ":authority") == 0)
		keep(t, &t->authority, value);
}

/* The request line and Host come before the fields, but are complete only when the first field is there. */
static void begin(struct translation *t)
{
	if (t->len > 0 || !t->method || !t->path)
		return;
	add_text(t, t->method);
	add(t, " ", 1);
	add_text(t, t->path);
	add_text(t, " HTTP/1.1\r\n");
	if (t->authority)
		add_field(t, "host", t->authority);
}

void translate_field(struct translation *t, const char *name, const char *value)
{
	if (name[0] == ':') {
		pseudo_field(t, name, value);
		return;
	}
	begin(t);
	if (strcmp(name, "cookie") == 0) {
		add_cookie(t, value);
		return;
	}
	if (strcmp(name, "te") == 0) {
		t->trailers = true;
		return;
	}
	if (strcmp(name, "host") == 0) {
		/* who says both must mean the same */
		if (t->authority && strcasecmp(t->authority, value) == 0)
			return;
		t->host = true;
	}
	if (strcmp(name, "content-length") == 0) {
		keep(t, &t->length, value);
		return;
	}
	if (strcmp(name, "content-type") == 0 && strncmp(value, "application/grpc", 16) == 0 && (value[16] == '\0' || strchr("+;", value[16])))
		t->grpc = true;
	add_field(t, name, value);
}

unsigned translate_end(struct translation *t, bool fin, bool bare)
{
	begin(t);
	if (!t->method || !t->path)
		return t->too_long ? 431 : t->no_memory ? 503 : 501; /* CONNECT has no path */
	if (t->authority && t->host)
		return 400;
	if (t->cookies)
		add_field(t, "cookie", t->cookies);
	if (t->trailers && !bare)
		add_text(t, "te: trailers\r\nconnection: te\r\n");
	t->chunked = !fin && !t->length && !bare;
	if (t->length && !bare)
		add_field(t, "content-length", t->length);
	if (t->chunked)
		add_text(t, "transfer-encoding: chunked\r\n");
	add(t, "\r\n", 2);
	return t->too_long ? 431 : t->no_memory ? 503 : 0;
}

void translate_free(struct translation *t)
{
	free(t->text);
	free(t->method);
	free(t->path);
	free(t->authority);
	free(t->cookies);
	free(t->length);
	memset(t, 0, sizeof(*t));
}

/* Answers. */

struct space {
	char *at;
	size_t left;
};

static const char *put(struct space *s, struct http1_text t, bool lower)
{
	char *start = s->at;

	if (t.len >= s->left)
		return NULL;
	for (uint32_t i = 0; i < t.len; i++)
		s->at[i] = lower ? (char)tolower((unsigned char)t.at[i]) : t.at[i];
	s->at[t.len] = '\0';
	s->at += t.len + 1;
	s->left -= t.len + 1;
	return start;
}

size_t translate_answer(const struct http1_head *h, struct h2_field *out, size_t max, char *space, size_t size)
{
	struct space s = { space, size };
	char status[12];
	size_t n = 0;

	snprintf(status, sizeof(status), "%03u", h->status % 1000);
	out[n].name = ":status";
	out[n++].value = put(&s, (struct http1_text){ status, 3 }, false);
	for (size_t i = 0; i < h->fields_n; i++) {
		const struct http1_field *f = &h->fields[i];

		if (f->hop)
			continue;
		if (n == max)
			return 0;
		out[n].name = put(&s, f->name, true);
		out[n].value = put(&s, f->value, false);
		if (!out[n].name || !out[n].value)
			return 0;
		n++;
	}
	return n;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* A line without its end; it is cut up. */
static void tell_trailer(char *line, void (*on_field)(void *arg, const char *name, const char *value), void *arg)
{
	char *value = strchr(line, ':'), *end = line + strlen(line);

	*value++ = '\0';
	while (is_blank(*value))
		value++;
	while (end > value && is_blank(end[-1]))
		*--end = '\0';
	for (char *c = line; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	if (strcmp(line, "proxy-connection") != 0) /* of one connection, and an error in HTTP/2; the others of this sort are no trailers anywhere */
		on_field(arg, line, value);
}

void translate_trailers(char *text, size_t len, void (*on_field)(void *arg, const char *name, const char *value), void *arg)
{
	char *end;

	for (; len > 2 && (end = memchr(text, '\r', len)) && end > text; len -= (size_t)(end + 2 - text), text = end + 2) {
		*end = '\0';
		tell_trailer(text, on_field, arg);
	}
}
