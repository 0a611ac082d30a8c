/* What remains of a session, or of a request: its line in the log, its series, and what scripts hear of it. */
#ifndef MCTUNNEL_EDGE_RECORD_H
#define MCTUNNEL_EDGE_RECORD_H

#include "mctunnel/base/reason.h"

#include <stdint.h>

struct record { /* strings may be NULL; times -1: not reached */
	const char *listener, *client, *route, *tunnel, *service, *agent, *target, *id;
	int64_t queue_ms, connect_ms, total_ms;
	uint64_t up, down;
	uint32_t sessions, listener_sessions; /* now, in the process and of the listener */
	char phase;                           /* R request, Q queue, C connect, H head of the answer, D data, L last data, '-' */
	enum reason why;
	const char *text;                     /* more about it: what a policy or a parser said */
	const char *sni, *cert;
	/* HTTP */
	const char *method, *host, *path;
	unsigned status; /* 0: none was answered */
	const char *request; /* id of the request */
};

struct trip_view;
void record_trip(struct record *r, const struct trip_view *v); /* where it went, and how long that took; borrows the strings */
void record_end(const struct record *r);

#endif
