/* A carrier joins a link to the connection it runs over: reads and decrypts all that has come, gathers what is to be sent and writes once a turn. */
#ifndef MCTUNNEL_EDGE_CARRIER_H
#define MCTUNNEL_EDGE_CARRIER_H

#include "mctunnel/proto/h2.h"
#include "mctunnel/tunnel/link.h"

struct carrier;
struct conn;

struct carrier_events {
	void (*on_hello)(void *owner, enum h2_frame type, const char *json, size_t len);
	void (*on_request)(void *owner, int32_t stream, const struct h2_fields *f); /* agent */
	void (*on_goaway)(void *owner, enum reason why);
	void (*on_strand)(void *owner, struct list *node); /* optional: see link_events */
	/* The end, however it came (once; end of turn). The owner takes the link down: link_down(carrier_link(c), why, parking), then carrier_free(c). text: a sentence. */
	void (*on_down)(void *owner, enum reason why, const char *text);
};

/* Takes over a TLS conn that is up. NULL: no memory (conn is still the caller's). */
struct carrier *carrier_new(enum h2_role role, struct conn *c, uint32_t max_streams, const struct carrier_events *ev, void *owner) __attribute__((warn_unused_result));
struct link *carrier_link(struct carrier *c);
struct conn *carrier_conn(struct carrier *c);
/* Before link_down: sends at once what the link has to say, as far as the kernel takes it; carrier_free will then close in good order. */
void carrier_farewell(struct carrier *c);
/* No on_down. The link must be down; it is freed as well. In good order after carrier_farewell or on_down(DONE), else with RST. */
void carrier_free(struct carrier *c);
/* It cannot go on: on_down(why, text) at the end of the turn. */
void carrier_fail(struct carrier *c, enum reason why, const char *text);
/* Closes in good order once everything said so far is sent; then on_down(DONE). */
void carrier_finish(struct carrier *c);

/* The buffers of the calling thread: made at its start, where memory is sure to be; else by the first carrier. */
void carrier_thread_init(void);
void carrier_thread_fini(void);

/* Move to another thread; between them only the message carries it. Attach: -1 when the loop refuses (carrier_free it). */
void carrier_detach(struct carrier *c);
int carrier_attach(struct carrier *c) __attribute__((warn_unused_result));

#endif
