/* A text of any length, written by stdio. open_memstream() would do, but does not say when there was no memory: then the middle of its text is missing, or all of it. */
#ifndef MCTUNNEL_BASE_TEXT_H
#define MCTUNNEL_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct text { /* from text_open() to text_close() it must not move */
	char *v; /* owned; ends in NUL */
	size_t len;
	bool broken;
};

/* Begins it, whatever was in it before. NULL: no memory; text_close() takes that too. */
FILE *text_open(struct text *t) __attribute__((warn_unused_result));
/* Bytes written until now. */
size_t text_size(const struct text *t, FILE *f);
/* Ends it. true: v holds all that was written, and is the caller's to free(). false: there was no memory for some of it; v is NULL. */
bool text_close(struct text *t, FILE *f) __attribute__((warn_unused_result));

#endif
