/* What a text must look like: a literal, a glob ("*.example.com") or a PCRE2 ("~^/(?<site>[a-z]+)/"). PCRE2 is included by pattern.c only.
 * Immutable once made; any thread may match. Match limits are set so that a hostile text costs a bounded time. */
#ifndef MCTUNNEL_BASE_PATTERN_H
#define MCTUNNEL_BASE_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATTERN_CAPTURES 32 /* named groups of one expression; more are an error */
#define PATTERN_NAME_MAX 32
#define PATTERN_TEXT_MAX 8192 /* bytes an expression looks at; a longer text is over the limit */

enum pattern_kind { PATTERN_LITERAL, PATTERN_GLOB, PATTERN_REGEX };

struct pattern;

/* fold: upper and lower case are the same. NULL: a sentence in err, with the position for expressions. */
struct pattern *pattern_new(const char *text, bool fold, char *err, size_t errsize) __attribute__((warn_unused_result));
void pattern_free(struct pattern *p);
enum pattern_kind pattern_kind(const struct pattern *p);
const char *pattern_text(const struct pattern *p); /* as written */
/* Names of the groups: 0 .. n-1, NULL beyond. */
const char *pattern_capture(const struct pattern *p, size_t i);

/* What the named groups of the patterns that matched have caught; points into the texts that were matched. */
struct captures {
	size_t n;
	struct capture {
		const char *name; /* of the pattern */
		const char *at;
		size_t len;
	} v[PATTERN_CAPTURES];
};

/* Expressions need not cover the whole text, literals and globs do. Named groups are added to c (which may be NULL). Over the match limit: no match, counted. */
bool pattern_match(const struct pattern *p, const char *text, size_t len, struct captures *c);
uint64_t pattern_overruns(void); /* matches given up at a limit so far, by the calling thread */
/* Matches that were not tried, or not to the end, because memory was used up, by the calling thread: whether the text matches is not known, pattern_match() said no. */
uint64_t pattern_shortages(void);

#endif
