/* The next regime, made aside from the loops: read, checked, with its TLS contexts, scripts and rules. */
#ifndef MCTUNNEL_MAIN_BUILD_H
#define MCTUNNEL_MAIN_BUILD_H

#include "mctunnel/event/aside.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/main/regime.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct generation;

struct notes { /* lines for whoever asked for the reload; what has no room is left out */
	char text[4000];
	size_t len;
};
void notes_add(struct notes *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct build {
	/* from what; set by the caller */
	int bundle;               /* owned: files that somebody has checked; -1: to be read from the disk and checked */
	const char *const *paths; /* borrowed: of the disk */
	size_t paths_n;
	struct conf *before;      /* shared: what is in force meanwhile */
	const uint8_t *ticket_key; /* borrowed: the process's own */
	void (*done)(struct build *b); /* on thread 0 */

	/* what has come of it */
	bool good;
	struct conf *conf;      /* shared; NULL: could not be loaded */
	struct regime next;     /* owned; when good, without sockets */
	struct generation *generation; /* shared; when good, for frontend_prepare() */
	struct notes notes;     /* findings, keys that stay as they are */
	const char *why;        /* borrowed or in err; when not good */
	char err[300];

	struct aside aside;
	struct msg msg;
};

/* done is called later, unless the threads stop before; b is the caller's again when it is, or after aside_close(). Between the two nothing may change
 * what is in force. */
void build_start(struct build *b);
void build_free(struct build *b); /* with all that was not taken out of it; NULL is allowed */

#endif
