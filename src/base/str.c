/* Text: bounded copies, patterns, hex, numbers. No locale, no allocation, no memory of earlier calls. */
#include "mctunnel/base/str.h"

#include "mctunnel/base/bug.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORD_MAX 64
#define PAGE_WIDTH 96

bool str_copy(char *dst, size_t size, const char *src)
{
	size_t len = strnlen(src, size);
	bool fits = len < size;

	BUG_ON(size == 0);
	if (!fits)
		len = size - 1;
	memcpy(dst, src, len);
	dst[len] = '\0';
	return fits;
}

/* On a mismatch the latest star takes one character more; an earlier star never has to, so the cost is bounded. */
bool str_glob(const char *pattern, const char *text)
{
	const char *after_star = NULL, *resume = NULL;

	while (*text) {
		if (*pattern == '*') {
			after_star = ++pattern;
			resume = text;
		} else if (*pattern == *text) {
			pattern++;
			text++;
		} else if (after_star) {
			pattern = after_star;
			text = ++resume;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* One row of the table of distances between the beginnings of a and b, from the two rows before it. */
static void distance_row(const char *a, const char *b, unsigned i, unsigned (*rows)[WORD_MAX + 1])
{
	unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];

	row[0] = i;
	for (unsigned j = 1; b[j - 1]; j++) {
		row[j] = above[j - 1] + (a[i - 1] != b[j - 1]);
		row[j] = least(row[j], least(above[j], row[j - 1]) + 1);
		if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
			row[j] = least(row[j], two_above[j - 2] + 1);
	}
}

unsigned str_distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_MAX + 1], len_a = (unsigned)strlen(a), len_b = (unsigned)strlen(b);

	if (len_a > WORD_MAX || len_b > WORD_MAX)
		return strcmp(a, b) == 0 ? 0 : len_a > len_b ? len_a : len_b;
	for (unsigned j = 0; j <= len_b; j++)
		rows[0][j] = j;
	for (unsigned i = 1; i <= len_a; i++)
		distance_row(a, b, i, rows);
	return rows[len_a % 3][len_b];
}

void str_hex(char *out, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = bytes;

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool str_unhex(void *out, size_t len, const char *hex)
{
	unsigned char *p = out;

	for (size_t i = 0; i < len; i++, hex += 2) {
		int high = hex_value(hex[0]), low = high < 0 ? -1 : hex_value(hex[1]);

		if (low < 0)
			return false;
		p[i] = (unsigned char)(high << 4 | low);
	}
	return *hex == '\0';
}

static bool host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool copy_host(char *out, const char *name, size_t len)
{
	size_t label = 0;

	for (size_t i = 0; i < len; i++) {
		out[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
		if (out[i] == '.' ? label == 0 : ++label > 63 || !host_char(out[i]))
			return false;
		if (out[i] == '.')
			label = 0;
	}
	out[len] = '\0';
	return label > 0;
}

bool str_host(char *out, size_t size, const char *name, size_t len)
{
	if (len > 0 && name[len - 1] == '.')
		len--;
	if (len > 0 && len <= 253 && len < size && copy_host(out, name, len))
		return true;
	out[0] = '\0';
	return false;
}

bool str_u64(const char *s, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned digit = (unsigned)(*s - '0');

		if (digit > 9 || digit > max || n > (max - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	*out = n;
	return true;
}

void strbuf_init(struct strbuf *b, char *buf, size_t size)
{
	BUG_ON(size == 0);
	b->buf = buf;
	b->size = size;
	b->len = 0;
	b->cut = false;
	buf[0] = '\0';
}

void strbuf_add(struct strbuf *b, const char *fmt, ...)
{
	size_t room = b->size - b->len;
	va_list ap;
	int n;

	if (b->cut)
		return;
	va_start(ap, fmt);
	n = vsnprintf(b->buf + b->len, room, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < room) {
		b->len += (size_t)n;
		return;
	}
	b->cut = true;
	b->len += strnlen(b->buf + b->len, room - 1);
	b->buf[b->len] = '\0';
}

/* Length of the well-formed UTF-8 character at s (which ends in NUL), 0 when it is none. */
size_t str_utf8(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;

	if (s[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

/* Bytes that stand for themselves. */
static size_t json_plain(const char *s)
{
	size_t n = 0;

	while (s[n] >= ' ' && s[n] < 0x7f && s[n] != '"' && s[n] != '\\')
		n++;
	return n;
}

void str_json(FILE *out, const char *text)
{
	if (!text) {
		fputs("null", out);
		return;
	}
	fputc('"', out);
	for (const char *s = text; *s;) {
		size_t plain = json_plain(s), len = plain ? plain : str_utf8(s);

		if (len == 0)
			fputs("\\ufffd", out);
		else if (!plain && ((unsigned char)*s < 0x20 || *s == 0x7f))
			fprintf(out, "\\u%04x", (unsigned char)*s);
		else if (!plain && (*s == '"' || *s == '\\'))
			fprintf(out, "\\%c", *s);
		else
			fwrite(s, 1, len, out);
		s += len ? len : 1;
	}
	fputc('"', out);
}

void str_paragraph(FILE *out, int indent, const char *text)
{
	int column = 0;

	while (*text) {
		size_t len = strcspn(text, " ");

		if (column && column + 1 + (int)len > PAGE_WIDTH) {
			fputc('\n', out);
			column = 0;
		}
		column += column ? fprintf(out, " %.*s", (int)len, text) : fprintf(out, "%*s%.*s", indent, "", (int)len, text);
		text += len + strspn(text + len, " ");
	}
	fputc('\n', out);
}
