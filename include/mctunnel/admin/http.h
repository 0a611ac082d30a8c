/* A small HTTP server for the metrics address: GET and HEAD of a few pages, one request a connection, HTTP/1.0 and 1.1. A page is made at once, or in
 * pieces, each when the visitor has taken the one before. All of it lives on one thread. */
#ifndef MCTUNNEL_ADMIN_HTTP_H
#define MCTUNNEL_ADMIN_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define HTTP_PIECE 65536 /* what a piece should have at most, about */

struct http_page {
	const char *path, *type;
	int (*make)(FILE *out);             /* all at once; returns the status, 0: no memory */
	const char *(*policy)(void);        /* after make: its Content-Security-Policy; NULL: nothing is allowed */
	void *(*begin)(void);               /* in pieces, when there is no make; NULL: no memory */
	bool (*more)(void *job, FILE *out); /* adds a piece; false: it was the last */
	void (*end)(void *job);             /* also when the visitor has gone before */
};

/* Once, before http_open; pages are borrowed. */
void http_init(const struct http_page *pages, size_t n);

/* Accepts on a listening socket, on the calling thread's loop. The descriptor is borrowed until http_close, and never shut down. -1 with errno when the
 * loop refuses. */
int http_open(int fd) __attribute__((warn_unused_result));

/* Stops accepting and breaks what is under way; on the thread of http_open, before its loop ends. Without http_init it does nothing. */
void http_close(void);

#endif
