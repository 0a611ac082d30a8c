/* A set of texts that are looked up, not scanned: literals, and globs whose only star is at an end ("*.example.com", or "/api/" and a star). Other patterns: base/pattern.h.
 * Immutable once filled; any thread may look. */
#ifndef MCTUNNEL_BASE_TEXTSET_H
#define MCTUNNEL_BASE_TEXTSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEXTSET_TEXT_MAX 255 /* bytes of one */

struct textset;

struct textset *textset_new(bool fold); /* fold: upper and lower case (ASCII) are the same */
void textset_free(struct textset *s);   /* NULL is allowed */

bool textset_takes(const char *pattern); /* may it be added? */
/* value: what it means to the caller; of a pattern that is there already the first one stays. */
void textset_add(struct textset *s, const char *pattern, uint32_t value);

bool textset_has(const struct textset *s, const char *text, size_t len);
/* Calls visit for the values of all patterns that match, until it returns false. */
void textset_each(const struct textset *s, const char *text, size_t len, bool (*visit)(void *arg, uint32_t value), void *arg);

#endif
