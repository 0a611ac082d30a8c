/* From one configuration to the next: what only a restart changes stays as it was. The rows marked `restart` say which keys those are, so
 * that this, the reference and the answer to `reload` cannot disagree. Owns nothing. */
#include "mctunnel/conf/renew.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/schema.h"
#include "mctunnel/conf/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct renewal {
	void (*note)(void *arg, const char *key);
	void *arg;
	char key[256];
};

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_number(enum kind kind)
{
	return kind == KIND_INT || kind == KIND_SIZE || kind == KIND_TIME || kind == KIND_MODE || kind == KIND_WORD;
}

static bool is_endpoint(enum kind kind)
{
	return kind == KIND_BIND || kind == KIND_DIAL || kind == KIND_PROXY;
}

static bool same_scalar(const struct row *row, const char *a, const char *b)
{
	if (is_number(row->kind))
		return memcmp(a, b, row->size) == 0;
	if (is_endpoint(row->kind))
		return same_text(((const struct endpoint *)a)->text, ((const struct endpoint *)b)->text);
	return same_text(*(char *const *)a, *(char *const *)b);
}

/* Lists marked `restart` hold scalars only. */
static bool same_element(const struct section *s, const char *a, const char *b)
{
	for (size_t i = 0; i < s->rows_n; i++) {
		const struct row *row = &s->rows[i];

		if (row->size && !row->later && !same_scalar(row, a + row->offset, b + row->offset))
			return false;
	}
	return true;
}

static bool same_list(const struct row *row, const char *a, const char *b)
{
	size_t n = *(const size_t *)(a + row->count);
	const char *x = *(char *const *)(a + row->offset), *y = *(char *const *)(b + row->offset);

	if (n != *(const size_t *)(b + row->count))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!same_element(row->sub, x + i * row->sub->size, y + i * row->sub->size))
			return false;
	}
	return true;
}

static void copy_scalar(const struct row *row, char *to, const char *from)
{
	char err[256];

	if (is_number(row->kind)) {
		memcpy(to, from, row->size);
		return;
	}
	value_fini(row, to);
	if (is_endpoint(row->kind)) {
		const char *text = ((const struct endpoint *)from)->text;

		memset(to, 0, sizeof(struct endpoint));
		if (text && endpoint_parse((struct endpoint *)to, text, row->kind == KIND_BIND ? ENDPOINT_BIND : ENDPOINT_DIAL, err, sizeof(err)) < 0)
			bug_panic(__FILE__, __LINE__, "%s was good once: %s", text, err);
		return;
	}
	const char *text = *(char *const *)from;
	*(char **)to = text ? xstrdup(text) : NULL;
}

static void drop_list(const struct row *row, char *base)
{
	char *v = *(char **)(base + row->offset);
	size_t n = *(size_t *)(base + row->count);

	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < row->sub->rows_n; k++) {
			const struct row *r = &row->sub->rows[k];

			if (r->size && !r->later)
				value_fini(r, v + i * row->sub->size + r->offset);
		}
	}
	free(v);
}

/* Where its elements stand is no longer known: that file's name goes with the old configuration. */
static void copy_list(const struct row *row, char *to, const char *from)
{
	size_t n = *(const size_t *)(from + row->count), size = row->sub->size;
	const char *old = *(char *const *)(from + row->offset);
	char *v = n ? xcalloc(n, size) : NULL;

	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < row->sub->rows_n; k++) {
			const struct row *r = &row->sub->rows[k];

			if (r->size && !r->later)
				copy_scalar(r, v + i * size + r->offset, old + i * size + r->offset);
		}
	}
	drop_list(row, to);
	*(char **)(to + row->offset) = v;
	*(size_t *)(to + row->count) = n;
}

static void keep(struct renewal *k, const struct section *s, char *to, const char *from);

static void keep_row(struct renewal *k, const struct row *row, char *to, const char *from)
{
	size_t up = strlen(k->key);
	bool list = row->kind == KIND_LIST;

	snprintf(k->key + up, sizeof(k->key) - up, "%s%s", up ? "." : "", row->name);
	if (row->kind == KIND_GROUP && !row->inherit) {
		keep(k, row->sub, to + row->offset, from + row->offset);
	} else if (row->restart && !(list ? same_list(row, to, from) : same_scalar(row, to + row->offset, from + row->offset))) {
		if (list)
			copy_list(row, to, from);
		else
			copy_scalar(row, to + row->offset, from + row->offset);
		k->note(k->arg, k->key);
	}
	k->key[up] = '\0';
}

static void keep(struct renewal *k, const struct section *s, char *to, const char *from)
{
	for (size_t i = 0; i < s->rows_n; i++) {
		if (!s->rows[i].later)
			keep_row(k, &s->rows[i], to, from);
	}
}

void conf_keep(struct conf *c, const struct conf *before, void (*note)(void *arg, const char *key), void *arg)
{
	struct renewal k = { .note = note, .arg = arg };

	keep(&k, &schema_root, (char *)c, (const char *)before);
}
