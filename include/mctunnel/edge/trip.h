/* A trip: one client's, or one HTTP request's, way to an agent. Chooses agent and link by its routes, waits in the queue while there is none, goes to the thread of the link,
 * opens the session there, and goes on to another agent when one refuses before anything was consumed. Owns the place in the queue and the counts of tunnel and agent;
 * the session is the owner's to use and to end. */
#ifndef MCTUNNEL_EDGE_TRIP_H
#define MCTUNNEL_EDGE_TRIP_H

#include "mctunnel/base/addr.h"
#include "mctunnel/base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct generation;
struct place;
struct rules_route;
struct session;
struct session_about;
struct session_events;
struct site;
struct trip;

#define TRIP_ROUTES 16

/* The trip may be freed from within any of them. */
struct trip_events {
	/* What the agent is told of the client: service and listener are set already; strings are good until the next call on this thread. */
	void (*describe)(void *owner, struct session_about *about);
	/* It is in the queue now. */
	void (*on_wait)(void *owner);
	/* The trip goes to another thread: the owner, which follows, unwatches its descriptors and stops its timers; then it arrives there. */
	void (*on_leave)(void *owner);
	void (*on_arrive)(void *owner);
	/* The session is there, opened with session_events and session_owner: bytes may flow. */
	void (*on_session)(void *owner, struct session *s);
	/* Nobody takes it. If there is a session (agents refused it), it is still there: the owner ends it (session_abort) and frees the trip. */
	void (*on_failed)(void *owner, enum reason why);
	/* Optional. A new configuration came while it waits: trip_generation and trip_place are new ones. The owner may say other routes (trip_routes). Without:
	 * the routes stay as far as there are such tunnels. */
	void (*on_reload)(void *owner);
};

struct trip_options {
	struct generation *gen;     /* a reference is taken */
	struct place *place;        /* of gen: its timeouts, and its routes until trip_routes */
	const struct addr *client;  /* borrowed until trip_free: what balance "source" looks at */
	uint64_t since_ms;          /* from when on waiting counts (clock_ms) */
	const struct session_events *session_events;
	bool patient;               /* where all agents' services are at their maxconn, it asks again as long as it would wait in the queue */
};

/* session_owner: what session events are called with. NULL: no memory. */
struct trip *trip_new(const struct trip_options *o, const struct trip_events *ev, void *owner, void *session_owner) __attribute__((warn_unused_result));
/* The listener's own routes, or those said before, count no more: these do, the first that has an agent. REASON_DONE: there is one at least; those to no tunnel, to one that does
 * not allow the service, and what is beyond TRIP_ROUTES are left out. REASON_NO_ROUTE: that leaves none. REASON_RESOURCES: no memory for all of them. routes: borrowed for the call. */
enum reason trip_routes(struct trip *t, const struct rules_route *routes, size_t n);
/* Sets out. Any event may come from within this call. */
void trip_start(struct trip *t);
/* From within the session's on_end(refused = true), with its reason: true: the session lives on (session_keep was called), and is opened anew on another agent now or a little
 * later; on_session is not called again, the session's on_open is. false: nobody else is there, and the session is gone. */
bool trip_refused(struct trip *t, enum reason why) __attribute__((warn_unused_result));
/* To be called when the session leaves for another thread (session_events.on_leave). */
void trip_leave(struct trip *t);
/* The session was opened by its agent (on_open): times and histograms. */
void trip_established(struct trip *t, const char *target);
/* The end: the session is the owner's no more. Counts are given back; no event any more. why, up, down: for the tunnel's tally. */
void trip_free(struct trip *t, enum reason why, uint64_t up, uint64_t down);

bool trip_started(const struct trip *t);
bool trip_welcome(const struct trip *t);                  /* its agent would be given another session now */
bool trip_personal(const struct trip *t);                 /* the target is told who the client is: the session is for this one alone */
bool trip_waiting(const struct trip *t);                  /* in the queue */
struct session *trip_session(const struct trip *t);      /* NULL: none yet, or it is over */
struct generation *trip_generation(const struct trip *t); /* borrowed */
struct place *trip_place(const struct trip *t);           /* of it */
struct site *trip_site(const struct trip *t);             /* the tunnel of the agent chosen; NULL: none yet */

struct trip_view { /* strings are good until the trip goes on */
	const char *route, *tunnel, *service; /* of the agent chosen, else of the first route; NULL: none */
	const char *agent, *target, *id;      /* NULL, NULL, "": not yet */
	uint64_t link;
	uint64_t opened_ms, established_ms;   /* 0: not yet */
	int64_t queue_ms, connect_ms;         /* -1: not reached */
	char phase;                           /* where it would end now: Q, C or D */
};
void trip_view(const struct trip *t, struct trip_view *out);

/* Of the calling thread. */
void trip_init(void);
void trip_fini(void);
void trip_stop(void);                   /* those that wait fail with STOPPED, and so does every later one */
void trip_reload(struct generation *g); /* those that wait follow */

#endif
