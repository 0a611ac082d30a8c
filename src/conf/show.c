/* The values in force, written from the rows of the schema. Knows no key by name. */
#include "mctunnel/conf/show.h"

#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/schema.h"
#include "mctunnel/conf/value.h"

#include <string.h>

static const char *word_of(const struct row *row, const char *field)
{
	int value;

	memcpy(&value, field, sizeof(value));
	for (const struct word *w = row->words; w->name; w++) {
		if (w->value == value)
			return w->name;
	}
	return NULL;
}

static uint64_t number_of(const struct row *row, const char *field)
{
	return row->size == sizeof(uint64_t) ? *(const uint64_t *)field : *(const uint32_t *)field;
}

static const char *text_of(const struct row *row, const char *field)
{
	switch (row->kind) {
	case KIND_WORD: return word_of(row, field);
	case KIND_BIND:
	case KIND_DIAL:
	case KIND_PROXY: return ((const struct endpoint *)field)->text;
	case KIND_ROUTE: return ((const struct conf_route *)field)->text;
	default: return *(char *const *)field;
	}
}

static void scalar(FILE *out, const struct row *row, const char *field, bool json)
{
	char text[32];

	switch (row->kind) {
	case KIND_INT: fprintf(out, "%llu", (unsigned long long)number_of(row, field)); break;
	case KIND_TIME:
	case KIND_SIZE:
		if (json)
			fprintf(out, "%llu", (unsigned long long)number_of(row, field));
		else
			fprintf(out, "\"%s\"", value_show(row->kind, number_of(row, field), text, sizeof(text)));
		break;
	case KIND_MODE: fprintf(out, "\"%04o\"", (unsigned)number_of(row, field)); break;
	case KIND_BOOL: fputs(*(const bool *)field ? "true" : "false", out); break;
	default: str_json(out, text_of(row, field));
	}
}

static bool has_text(const struct row *row, const char *field)
{
	return row->kind <= KIND_MODE || row->kind == KIND_BOOL || text_of(row, field);
}

static void many(FILE *out, const struct row *row, const char *base, bool json)
{
	const char *v = *(char *const *)(base + row->offset);
	size_t n = *(const size_t *)(base + row->count);

	fputc('[', out);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? ", " : json ? "" : " ", out);
		scalar(out, row, v + i * value_size(row->kind), json);
	}
	fputs(json || !n ? "]" : " ]", out);
}

static bool shown(const struct row *row)
{
	return !row->later && (row->size || row->sub);
}

/* A group that would know its place, and has none, was not written: without its section there is no hub, and a listener without tls ends none. */
static bool missing(const char *base, const struct row *row)
{
	const struct conf_where *at;

	if (row->kind != KIND_GROUP || row->sub->at == NO_PLACE)
		return false;
	at = (const struct conf_where *)(const void *)(base + row->offset + row->sub->at);
	return !at->file;
}

static void text_section(FILE *out, const struct section *s, const char *base, const char *prefix);

static void text_row(FILE *out, const struct row *row, const char *base, const char *key)
{
	char element[192];

	if (row->kind == KIND_GROUP) {
		text_section(out, row->sub, base + row->offset, key);
	} else if (row->kind == KIND_LIST) {
		for (size_t i = 0; i < *(const size_t *)(base + row->count); i++) {
			snprintf(element, sizeof(element), "%.160s[%zu]", key, i);
			text_section(out, row->sub, *(char *const *)(base + row->offset) + i * row->sub->size, element);
		}
	} else if (row->many || has_text(row, base + row->offset)) {
		fprintf(out, "%s = ", key);
		if (row->many)
			many(out, row, base, false);
		else
			scalar(out, row, base + row->offset, false);
		fputc('\n', out);
	}
}

static void text_section(FILE *out, const struct section *s, const char *base, const char *prefix)
{
	char key[256];

	for (size_t i = 0; i < s->rows_n; i++) {
		snprintf(key, sizeof(key), "%.190s%s%s", prefix, *prefix ? "." : "", s->rows[i].name);
		if (shown(&s->rows[i]) && !missing(base, &s->rows[i]))
			text_row(out, &s->rows[i], base, key);
	}
}

static void json_section(FILE *out, const struct conf *c, const struct section *s, const char *base);

static void json_list(FILE *out, const struct conf *c, const struct row *row, const char *base)
{
	fputc('[', out);
	for (size_t i = 0; i < *(const size_t *)(base + row->count); i++) {
		fputs(i ? ",\n" : "\n", out);
		json_section(out, c, row->sub, *(char *const *)(base + row->offset) + i * row->sub->size);
	}
	fputc(']', out);
}

static void json_row(FILE *out, const struct conf *c, const struct row *row, const char *base)
{
	if (row->kind == KIND_GROUP)
		json_section(out, c, row->sub, base + row->offset);
	else if (row->kind == KIND_LIST)
		json_list(out, c, row, base);
	else if (row->many)
		many(out, row, base, true);
	else
		scalar(out, row, base + row->offset, true);
}

static void json_section(FILE *out, const struct conf *c, const struct section *s, const char *base)
{
	bool first = true;

	fputc('{', out);
	for (size_t i = 0; i < s->rows_n; i++) {
		if (!shown(&s->rows[i]) || missing(base, &s->rows[i]))
			continue;
		fprintf(out, "%s\"%s\": ", first ? "" : base == (const char *)c ? ",\n" : ", ", s->rows[i].name);
		json_row(out, c, &s->rows[i], base);
		first = false;
	}
	fputc('}', out);
}

void conf_show(const struct conf *c, FILE *out, bool json)
{
	if (!json) {
		text_section(out, &schema_root, (const char *)c, "");
		return;
	}
	json_section(out, c, &schema_root, (const char *)c);
	fputc('\n', out);
}
