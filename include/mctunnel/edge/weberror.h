/* Answers the hub gives by itself: errors, redirects. Short text that says what is the matter and under which id the log knows of it. */
#ifndef MCTUNNEL_EDGE_WEBERROR_H
#define MCTUNNEL_EDGE_WEBERROR_H

#include "mctunnel/base/reason.h"

#include <stdbool.h>
#include <stddef.h>

#define WEBERROR_MAX 10240 /* bytes of an answer: a location may be long */

struct weberror {
	unsigned status;
	const char *text;            /* a sentence; NULL: what the status means */
	const char *session, *request; /* ids; NULL or "": none */
	const char *field;           /* one more: "Name: value"; NULL */
	const char *location;        /* of a redirect; NULL */
	bool head;                   /* the request was HEAD: no body */
	bool close, keep;            /* as in webhead_answer */
};

/* Bytes written; what does not fit is left out as a whole. size >= WEBERROR_MAX. */
size_t weberror_make(char *out, size_t size, const struct weberror *e);
/* What a client is answered when its request comes to this end before a byte of the answer. */
unsigned weberror_status(enum reason why);

#endif
