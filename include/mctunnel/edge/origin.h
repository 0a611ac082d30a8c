/* An origin: a way to a target, for one HTTP request after the other: a trip and its session. While a user (web) has it, the session's events are the user's. Between two
 * requests it waits, a few seconds, in the thread's pool: for the user who had it, and for others where nothing on it belongs to one client. */
#ifndef MCTUNNEL_EDGE_ORIGIN_H
#define MCTUNNEL_EDGE_ORIGIN_H

#include "mctunnel/base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;
struct generation;
struct origin;
struct place;
struct rules_route;
struct series;
struct session;
struct site;
struct trip_view;

struct origin_events {
	void (*on_ready)(void *user); /* the session is there: bytes may flow */
	void (*on_open)(void *user);  /* its target was reached */
	void (*on_readable)(void *user);
	void (*on_writable)(void *user);
	/* The session has ended, or nobody takes it. The origin is gone when this returns; until then it may be looked at, not used. */
	void (*on_lost)(void *user, enum reason why);
	/* It goes to another thread, and the user with it. */
	void (*on_leave)(void *user);
	void (*on_arrive)(void *user);
	/* Before the session was there: it is gone, and this one, which is ready, is the user's instead. */
	void (*on_instead)(void *user, struct origin *o);
};

struct origin_want {
	struct generation *gen;
	struct place *place;            /* of gen */
	const struct addr *client, *local; /* copied */
	const char *sni;                /* what TLS of the client asked for; borrowed until on_ready; NULL: none */
	const struct rules_route *routes; /* NULL: the listener's own */
	size_t routes_n;
	uint64_t since_ms;
	bool safe;                      /* the request may be repeated: an origin may serve it that another client has used */
	struct origin **kept;           /* where the user notes the one it has put away (origin_keep) */
};

/* One that waits, and serves at once; it is the user's now. NULL: none. */
struct origin *origin_take(const struct origin_want *w, const struct origin_events *ev, void *user);
/* A new one; origin_start follows. NULL: why says REASON_NO_ROUTE (none of the routes is one) or REASON_RESOURCES (no memory). */
struct origin *origin_new(const struct origin_want *w, const struct origin_events *ev, void *user, enum reason *why);
void origin_start(struct origin *o); /* any event may come from within this call; the user may be on another thread when it returns */

/* The exchange is complete both ways. keep: into the pool, where *kept shows it until it is gone; personal: only for this user. close: ends it in good order. */
void origin_keep(struct origin *o, struct origin **kept, bool personal);
void origin_close(struct origin *o);
/* Ends it in the middle: the agent is told why. Also one that has not started, or waits. */
void origin_drop(struct origin *o, enum reason why);
/* The user has no need any more of the one it has put away: the place is NULL from now on. */
void origin_forget(struct origin **kept);

struct session *origin_session(struct origin *o); /* NULL: none yet */
struct site *origin_site(const struct origin *o); /* its tunnel, once there is a session */
bool origin_open(const struct origin *o);         /* its target was reached */
bool origin_waiting(const struct origin *o);      /* in the queue for an agent */
void origin_view(const struct origin *o, struct trip_view *out);
void origin_ended(struct origin *o); /* session_fin was called */
/* Where bytes are counted: from clients, to clients; once there is a session. */
struct series *origin_up(const struct origin *o);
struct series *origin_down(const struct origin *o);
struct series *origin_requests(struct origin *o, unsigned status); /* requests with that status */

/* Each thread. */
void origin_init(void);
void origin_renew(const struct generation *g); /* reload: those of older ones do not wait any longer */
void origin_close_idle(void);                  /* soft stop: none waits any more */
void origin_fini(void);

#endif
