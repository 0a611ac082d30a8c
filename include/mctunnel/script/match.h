/* Lua's patterns (manual, section 6.4.1) with a limit of steps, so that no pattern can hold up a loop: the library's own matcher cannot be interrupted. */
#ifndef MCTUNNEL_SCRIPT_MATCH_H
#define MCTUNNEL_SCRIPT_MATCH_H

#include <stdbool.h>
#include <stddef.h>

#define MATCH_CAPTURES 32
#define MATCH_OPEN (-1)     /* the length of a capture that the pattern does not close */
#define MATCH_POSITION (-2) /* the length of a capture "()": where it stands is all */

struct match {
	const char *subject, *subject_end; /* borrowed */
	const char *pattern, *pattern_end; /* borrowed, without the '^' that anchors it */
	long left;                         /* steps that may still be made; below 0: they were not enough */
	const char *error;                 /* NULL, or what is wrong with the pattern */

	/* Of a match. */
	int captures;
	struct {
		const char *at;
		ptrdiff_t len;
	} capture[MATCH_CAPTURES];

	int depth; /* of match.c */
};

/* Looks for the first match that begins at from or, unless anchored, behind it. Its begin, and its end in *end. NULL: there is none, or error is set, or left
 * is below 0. */
const char *match_find(struct match *m, const char *from, bool anchored, const char **end);

#endif
