/* A pump joins a conn (client's or target's socket) and a session: moves the bytes both ways, carries each side's end, minds timeouts. The only code that knows both. */
#ifndef MCTUNNEL_EDGE_PUMP_H
#define MCTUNNEL_EDGE_PUMP_H

#include "mctunnel/base/reason.h"
#include "mctunnel/edge/brake.h"

#include <stdbool.h>
#include <stdint.h>

struct pump;
struct conn;
struct session;
struct session_events;
struct series;

struct pump_options {
	uint32_t idle_ms, half_closed_ms; /* 0: none */
	enum reason local_reset;          /* what a RST of the conn means: CLIENT_RESET on the hub, TARGET_RESET on the agent */
	bool client_side;                 /* the conn is a client's (hub): its bytes are counted in STAT_BYTES_UP and _DOWN */
	bool target_side;                 /* the conn is a target's: the same, the other way round */
};

/* Called from conn's and session's events, timers and deferred work, never from within pump_start or pump_conn. */
struct pump_events {
	void (*on_open)(void *owner, const char *target);
	/* Once, at the end: the conn is closed and the session let go; the pump is freed when this returns. */
	void (*on_done)(void *owner, enum reason why);
	/* The agent refused and nothing was consumed: return true when the owner has called session_reopen with success; else on_done follows. May be NULL. */
	bool (*on_refused)(void *owner, enum reason why);
	/* The session moves to another thread, and with it the pump and its conn: the owner follows. May be NULL. */
	void (*on_leave)(void *owner);
	void (*on_arrive)(void *owner);
};

/* Made first, without a session: its session_events are to be given to session_open / session_accept with the pump as owner. Takes over c when pump_start is called. */
struct pump *pump_new(const struct pump_options *o, const struct pump_events *ev, void *owner) __attribute__((warn_unused_result));
extern const struct session_events pump_session_events;
/* Where the bytes from and to the conn are counted too, from now on. */
void pump_count(struct pump *p, struct series *up, struct series *down);
/* No more than so many bytes a second, from the conn (BRAKE_IN) or to it (see brake.h); rate 0: nothing is changed. false: no memory. */
bool pump_limit(struct pump *p, enum brake_way way, struct flow *shared, uint64_t rate) __attribute__((warn_unused_result));
/* Begins to move. Client bytes flow at once, also before the session is open. c may be NULL on the agent until the target is connected: call pump_conn then. */
void pump_start(struct pump *p, struct session *s, struct conn *c);
void pump_conn(struct pump *p, struct conn *c);
/* The session ends and the conn is aborted, on_done is called. */
void pump_abort(struct pump *p, enum reason why);
void pump_abort_soon(struct pump *p); /* for want of resources; from within on_arrive, where it must not end */
struct session *pump_session(struct pump *p); /* NULL in on_done */
/* Bytes taken from the conn / given to the conn. */
uint64_t pump_in(const struct pump *p);
uint64_t pump_out(const struct pump *p);
bool pump_half_closed(const struct pump *p); /* one direction has ended */
int pump_fd(const struct pump *p);           /* of its conn, -1: none */
void pump_free(struct pump *p);              /* only one that was never started */

#endif
