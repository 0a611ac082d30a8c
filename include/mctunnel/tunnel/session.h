/* A session: one client connection carried end to end, as two streams of bytes with offsets. It outlives its link: what the other side has
 * not consumed yet is kept, and goes on over the next link from the exact byte. No sockets in here: its owner (edge/pump) moves bytes between it and a conn.
 * One thread at a time. See doc/internals/session.md. */
#ifndef MCTUNNEL_TUNNEL_SESSION_H
#define MCTUNNEL_TUNNEL_SESSION_H

#include "mctunnel/base/list.h"
#include "mctunnel/base/reason.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct session;
struct link;
struct h2_fields;

/* The owner's part. Called from link_input, timers or deferred work, never from within a session_ call of the owner,
 * except where noted. */
struct session_events {
	void (*on_open)(void *owner, const char *target); /* hub: the agent has reached the target */
	void (*on_readable)(void *owner);                 /* bytes or the end have come: session_peek until empty */
	void (*on_writable)(void *owner);                 /* room for more after session_reserve gave none */
	/* The session has ended from the other side, by a timeout or by the loss of its agent; it is gone when this returns: do not call it again
	 * (no session_release). refused: the other side had consumed nothing, so the hub may try elsewhere: session_keep from within this call. */
	void (*on_end)(void *owner, enum reason why, bool refused);
	void (*on_leave)(void *owner);  /* about to move to another thread: unwatch, stop timers */
	void (*on_arrive)(void *owner); /* on the new thread: watch, start timers */
};

/* What the hub tells the agent about the client; all but the service may be NULL. */
struct session_about {
	const char *service, *client, *local, *listener;
	const char *sni, *alpn; /* the name it asked for in TLS; the protocol agreed on */
};

/* Hub: opens on a link; the client's bytes may follow at once. NULL: no memory or the link takes no more streams.
 * connect_ms: an answer must come within this time; resume_ms: how long it may be parked. */
struct session *session_open(struct link *l, const struct session_about *about, uint32_t connect_ms, uint32_t resume_ms,
			     const struct session_events *ev, void *owner) __attribute__((warn_unused_result));
/* Hub, only inside on_end(refused = true): the session lives on without a link, with all the client's bytes. It may wait, be moved to another thread
 * (session_leave, session_arrive), and ends by session_reopen or session_abort. */
void session_keep(struct session *s);
/* Hub, a kept session: opens anew, from byte 0, on another link. -1: that link takes no more streams; still kept. */
int session_reopen(struct session *s, struct link *l) __attribute__((warn_unused_result));

/* Agent: takes a request that link_events.on_request announced. NULL: no memory (refuse with REASON_RESOURCES). */
struct session *session_accept(struct link *l, int32_t stream, const struct h2_fields *f, uint32_t resume_ms,
			       const struct session_events *ev, void *owner) __attribute__((warn_unused_result));
void session_established(struct session *s, const char *target); /* agent: the target is connected: answers 200 */

/* Towards the other side. Room for bytes, as at most max pieces; 0: none now (on_writable follows). Then commit what was written there, 0 allowed. */
int session_reserve(struct session *s, struct iovec *iov, int max);
void session_commit(struct session *s, size_t n);
void session_fin(struct session *s); /* our side's stream of bytes has ended (the local socket's FIN) */

/* From the other side. */
int session_peek(const struct session *s, struct iovec *iov, int max);
void session_consume(struct session *s, size_t n); /* n bytes were written to the local socket */
bool session_ended(const struct session *s);       /* the other side's FIN came, and everything before it was consumed */

/* The local side is through: both directions ended in good order (session_fin called, session_ended true): the owner lets go, the session sees to its tail by itself. */
void session_release(struct session *s);
/* The local side broke or gives up: the other side is told `why`; the owner is not called again. */
void session_abort(struct session *s, enum reason why);
/* The same, but what was committed before is sent first, if that takes no longer than a second. */
void session_part(struct session *s, enum reason why);

const char *session_id(const struct session *s); /* 32 hex digits (a buffer of the thread, good until the 4th next call) */
uint64_t session_sent(const struct session *s);  /* bytes taken from the local side */
uint64_t session_got(const struct session *s);   /* bytes given to the local side */
bool session_established_p(const struct session *s);
bool session_parked(const struct session *s);
void *session_owner(const struct session *s); /* NULL once released */

/* For registry and carriers (tunnel floor and edge): */

/* This thread's session of that id (16 bytes), NULL: none. */
struct session *session_find(const uint8_t id[16]);
size_t session_count(void);
void session_count_to(atomic_uint *place); /* where this thread's count is also kept from now on, for other threads to see; NULL: nowhere */
/* Takes it off its link (agent only: because the hub asks for it on another one) or its parking list, for a move; on_leave is called; then, on
 * the new thread, session_arrive (on_arrive is called), and session_resume / session_resumed / session_park decide what becomes of it. */
void session_leave(struct session *s);
void session_arrive(struct session *s);
/* Into a list of sessions without a link (struct session's first member is its list node); ends with RESUME_TIMEOUT by itself. */
void session_park(struct session *s, struct list *parked);
struct session *session_of_node(struct list *node);
/* Hub: goes on over another link of the same agent instance. -1: the link takes no more streams: still parked. */
int session_resume(struct session *s, struct link *l) __attribute__((warn_unused_result));
/* Agent: the hub asks to go on, on this stream. The session must be off any link (session_leave/arrive or parked). Answers the stream in any case. */
void session_resumed(struct session *s, struct link *l, int32_t stream, const struct h2_fields *f);
/* Agent, where a hub was told that a session is LOST (on every thread that may hold one of its links): for so long an opening request of that id, still
 * unread on a dead link, is refused: the hub may have brought the client elsewhere. */
void session_bar(const uint8_t id[16], uint32_t ms);
/* Takes it off its link and parks it: a newer link claims it. */
void session_unlink(struct session *s, struct list *parked);
/* Instance id of the process at its other end. */
const uint8_t *session_peer(const struct session *s);
uint32_t session_epoch(const struct session *s);

/* No link of their peer is left: requests of a hub that have no answer and carried no byte yet may go elsewhere at once (on_end, refused). The others stay. */
void session_give_back(struct list *parked);

/* Ends every session of a parking list / every one of this thread that is neither on a link nor parked. */
void session_end_list(struct list *parked, enum reason why);
void session_stop_all(enum reason why);
/* The thread's tables: made at its start, where memory is sure to be; else by the first session. */
void session_thread_init(void);
void session_thread_fini(void);

#endif
