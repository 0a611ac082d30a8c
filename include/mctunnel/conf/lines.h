/* Lists in files ("@FILE"): one entry a line; blank lines, and what begins with '#' at the start of a line or behind a blank, do not count. */
#ifndef MCTUNNEL_CONF_LINES_H
#define MCTUNNEL_CONF_LINES_H

#include <stddef.h>

struct lines { /* zero it, with text and len set */
	const char *text; /* borrowed */
	size_t len, at;
	int line; /* of the entry that came last */
};

/* The next entry without the blanks around it, malloc'ed; NULL: there is no more. */
char *lines_next(struct lines *l);

#endif
