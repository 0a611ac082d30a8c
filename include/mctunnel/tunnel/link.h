/* A link: one connection between hub and agent that carries sessions; disposable. Bytes in, bytes out; its owner (edge/carrier) moves them. Heartbeats and limits are in here, on base/timer. */
#ifndef MCTUNNEL_TUNNEL_LINK_H
#define MCTUNNEL_TUNNEL_LINK_H

#include "mctunnel/base/list.h"
#include "mctunnel/base/reason.h"
#include "mctunnel/proto/h2.h"

#include <stdatomic.h>

struct link;
struct rider;

struct link_events {
	void (*on_output)(void *owner); /* link_output has something to give (called once until it was asked) */
	void (*on_hello)(void *owner, enum h2_frame type, const char *json, size_t len);
	/* Agent: the hub opens (f->resume false) or resumes a session. Answer now or later: session_accept, session_resumed or link_refuse. */
	void (*on_request)(void *owner, int32_t stream, const struct h2_fields *f);
	void (*on_goaway)(void *owner, enum reason why); /* the other side will open or take no new sessions here */
	/* Optional. The session of this node cannot go on here though the link lives (the other side refused more streams): session_park it, and resume it elsewhere. */
	void (*on_strand)(void *owner, struct list *node);
	void (*on_dead)(void *owner, enum reason why);   /* LINK_DEAD, PROTOCOL, FLOOD, RESOURCES: the owner must call link_down and close; may come from within link_input and timers */
};

struct link *link_new(enum h2_role role, const struct link_events *ev, void *owner, uint32_t max_streams) __attribute__((warn_unused_result));
/* From now on: PING each interval when idle, dead when nothing is heard for timeout. */
void link_heartbeat(struct link *l, uint32_t interval_ms, uint32_t timeout_ms);

/* Bytes that arrived. Sessions' owners are called before this returns. -1: broken (on_dead was called). */
int link_input(struct link *l, const uint8_t *data, size_t len) __attribute__((warn_unused_result));
/* Bytes to send, as h2_output; 0: nothing more now. */
ssize_t link_output(struct link *l, struct h2_sink *k);
bool link_wants_output(const struct link *l);

/* The process stops: every session here ends with `why` and is told so to the other side, then GOAWAY. link_down follows. */
void link_stop(struct link *l, enum reason why);
/* The connection is gone or to be given up: its sessions go to `parked` (those that cannot go on end). Afterwards only link_free. */
void link_down(struct link *l, enum reason why, struct list *parked);
void link_free(struct link *l);

void link_hello(struct link *l, enum h2_frame type, const char *json, size_t len);
bool link_hello_unsent(const struct link *l); /* the other side does not read: do not say more */
/* Who is at the other end (instance id of its process): a session is resumed only by whom it was opened with. */
void link_set_peer(struct link *l, const uint8_t instance[16]);
const uint8_t *link_peer(const struct link *l);
bool link_stream_open(const struct link *l, int32_t stream);
void link_goaway(struct link *l, enum reason why);                    /* no new sessions here */
void link_refuse(struct link *l, int32_t stream, enum reason why);    /* agent: answers a request with a refusal */
bool link_can_open(const struct link *l);

/* Stops / restarts its timers around a move to another thread. */
void link_leave(struct link *l);
void link_arrive(struct link *l);

/* Where the RTT is also kept from now on; the place must outlive the link. */
void link_rtt_to(struct link *l, atomic_uint *place);
uint32_t link_rtt_us(const struct link *l); /* smoothed; 0: not measured yet */
/* The least that was measured: without what waits in queues. 0: not known yet. */
uint32_t link_rtt_least_us(const struct link *l);
size_t link_sessions(const struct link *l);
bool link_idle(const struct link *l);             /* no session, nothing to send */

/* For session.c. */

/* A session as the link sees it: the first member of struct session, and what h2 knows as the owner of the stream. */
struct rider {
	struct list node;                    /* of the link's riders, or of its tail */
	struct list ready_node, credit_node; /* of link_ready and link_credit, or in none */
	uint64_t barrier;                    /* in the tail: what it waits for */
	const struct rider_events *ev;
};

/* What its stream says, and what the link asks of it. */
struct rider_events {
	void (*answered)(struct rider *r, const struct h2_fields *f);
	void (*data_came)(struct rider *r, const uint8_t *data, size_t len); /* data is good until deliver */
	void (*fin_came)(struct rider *r);
	void (*credited)(struct rider *r, uint32_t bytes);
	void (*was_reset)(struct rider *r, uint32_t code);
	void (*closed)(struct rider *r, uint32_t code);
	size_t (*ready)(struct rider *r, size_t room, bool *fin);
	size_t (*next)(struct rider *r, const void **at, size_t len);
	void (*made)(struct rider *r, size_t len, bool fin);
	void (*deliver)(struct rider *r);      /* all input of the turn is in: calls the owner, keeps what it did not take */
	void (*flush_credit)(struct rider *r); /* output is being made: says what was consumed */
	void (*confirmed)(struct rider *r);    /* the barrier was answered */
	void (*park)(struct rider *r, struct list *parked);
	void (*stop)(struct rider *r, enum reason why);
};

struct h2 *link_h2(struct link *l);
void link_touch(struct link *l);         /* output is due: this turn */
void link_lazy(struct link *l);          /* output is due within 20 ms, or with the next that goes out anyway */
uint64_t link_barrier(struct link *l);   /* number of the PING whose answer proves that everything sent until now has arrived */
void link_join(struct link *l, struct rider *r);      /* among those with a stream */
void link_join_tail(struct link *l, struct rider *r); /* among those that wait for a barrier */
void link_part(struct link *l, struct rider *r);      /* out of either */
void link_strand(struct link *l, struct rider *r);    /* calls on_strand */
uint64_t link_input_number(void);                     /* of the thread's running or last link_input: places in its data are good that long */
/* Refuses with what else f says; its status and reason are set here. */
void link_refuse_with(struct link *l, int32_t stream, enum reason why, struct h2_fields *f);
struct list *link_ready(struct link *l);  /* sessions with input of this turn */
struct list *link_credit(struct link *l); /* sessions with something to say about what they consumed */

#endif
