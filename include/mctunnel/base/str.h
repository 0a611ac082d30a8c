/* Small helpers for text. */
#ifndef MCTUNNEL_BASE_STR_H
#define MCTUNNEL_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Copies with truncation, always ends in NUL (size > 0); returns false when it had to cut. */
bool str_copy(char *dst, size_t size, const char *src);

/* Matches with '*' (any run of characters, also none); everything else is literal. */
bool str_glob(const char *pattern, const char *text);

/* Number of single-character edits between two words (insert, delete, replace, swap neighbours).
 * Words of more than 64 characters are not compared: 0 when equal, else the longer one's length. */
unsigned str_distance(const char *a, const char *b);

/* Bytes as lower-case hex; out has room for 2*len+1. */
void str_hex(char *out, const void *bytes, size_t len);
bool str_unhex(void *out, size_t len, const char *hex); /* exactly 2*len hex digits (either case), then NUL; else false and out is spoilt */

/* Bytes of the UTF-8 character at s (which is not at its end), 0: it is none. */
size_t str_utf8(const char *s);

/* The name of a host (len bytes) in lower case, without a dot at its end: labels of 1 to 63 letters, digits, '-' and '_', 253 characters at most.
 * false: it is none, and out is "". */
bool str_host(char *out, size_t size, const char *name, size_t len);

/* Writes a JSON string with its quotes; NULL as null. What is not UTF-8 becomes U+FFFD. */
void str_json(FILE *out, const char *s);

/* Words of text, wrapped as the pages of the reference are, each line begun with indent blanks. */
void str_paragraph(FILE *out, int indent, const char *text);

/* Whole decimal number, no sign, no blanks; false when it is not one or exceeds max. */
bool str_u64(const char *s, uint64_t max, uint64_t *out);

/* Bounded text under construction: printf into a fixed buffer; what does not fit is cut, and nothing is added after it. */
struct strbuf {
	char *buf;
	size_t size, len; /* len < size always */
	bool cut;
};
void strbuf_init(struct strbuf *b, char *buf, size_t size);
void strbuf_add(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
