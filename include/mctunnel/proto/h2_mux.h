/* HTTP/2 messages of others, both roles: clients that speak it to a listener (server), targets of gRPC (client). Bytes in, events out; bodies flow with credit by hand. Lives in
 * h2.c, the one file that knows nghttp2, and shares nothing else with links. What breaks RFC 9113 or a limit ends the connection or the stream; header fields that are
 * handed out are well-formed: names in lower case, no forbidden bytes, pseudo-header fields first and complete. */
#ifndef MCTUNNEL_PROTO_H2_MUX_H
#define MCTUNNEL_PROTO_H2_MUX_H

#include "mctunnel/proto/h2_server.h" /* struct h2_field, codes */

#define H2_MUX_FIELDS 128              /* at most, to send */
#define H2_MUX_WINDOW (64u << 10)      /* what the other side may have in flight on one stream */
#define H2_CANCEL 8
#define H2_INTERNAL_ERROR 2
#define H2_STREAM_REFUSED 7

struct h2_mux;

enum h2_block { H2_REQUEST, H2_INTERIM, H2_ANSWER, H2_TRAILERS };

/* Called from within h2_mux_input and h2_mux_output only; may call any function below but these two and h2_mux_free. `stream` is never NULL. */
struct h2_mux_events {
	/* Server: a stream begins. NULL refuses it. */
	void *(*on_stream)(void *owner, int32_t id);
	/* A field of a block; when the block is whole, on_block. */
	void (*on_field)(void *owner, void *stream, const char *name, const char *value);
	void (*on_block)(void *owner, void *stream, enum h2_block what, bool fin);
	void (*on_data)(void *owner, void *stream, const uint8_t *data, size_t len); /* to be answered by h2_mux_consume, now or later */
	void (*on_fin)(void *owner, void *stream);                                  /* after data or trailers; not when a block says fin */
	void (*on_closed)(void *owner, void *stream, uint32_t code);                /* the last one of a stream; 0: in good order */
	/* As in h2_server.h; trailers by h2_mux_trailers. */
	size_t (*pull)(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin);
};

struct h2_mux_options {
	bool server;
	uint32_t max_streams; /* at once (server) */
	uint32_t max_fields;  /* bytes of one header block, as RFC 9113 section 6.5.2 counts them */
};

struct h2_mux *h2_mux_new(const struct h2_mux_options *o, const struct h2_mux_events *ev, void *owner) __attribute__((warn_unused_result));
void h2_mux_free(struct h2_mux *m); /* no event any more; NULL is allowed */

void h2_mux_input(struct h2_mux *m, const uint8_t *data, size_t len);
size_t h2_mux_output(struct h2_mux *m, uint8_t *dst, size_t size); /* bytes to send; 0: none now */
bool h2_mux_wants_output(const struct h2_mux *m);
bool h2_mux_over(const struct h2_mux *m);   /* what comes is thrown away; close when there is no output left */
bool h2_mux_broken(const struct h2_mux *m); /* over because the other side broke the protocol or a limit */
bool h2_mux_starved(const struct h2_mux *m); /* over because memory is used up: break the connection, the other side must not take what it has for whole */

/* Client: opens a stream. Fields: :method first. fin: no body. The id, -1: not possible. */
int32_t h2_mux_open(struct h2_mux *m, void *stream, const struct h2_field *f, size_t n, bool fin);
/* Server: :status first. fin: no body. An interim answer may come before. */
void h2_mux_answer(struct h2_mux *m, int32_t id, const struct h2_field *f, size_t n, bool fin);
void h2_mux_interim(struct h2_mux *m, int32_t id, const struct h2_field *f, size_t n);
void h2_mux_trailers(struct h2_mux *m, int32_t id, const struct h2_field *f, size_t n); /* from within pull, with *fin */
void h2_mux_wake(struct h2_mux *m, int32_t id);                      /* there is something to pull again */
void h2_mux_consume(struct h2_mux *m, int32_t id, size_t bytes);     /* of on_data: the other side may send as many more */
void h2_mux_reset(struct h2_mux *m, int32_t id, uint32_t code);
void h2_mux_drain(struct h2_mux *m);               /* GOAWAY: streams that are there go on */
void h2_mux_goaway(struct h2_mux *m, uint32_t code); /* the end */

/* Frames since the last call that move nothing: resets, pings, settings, empty data, unknown ones. What a limit on floods counts. */
uint32_t h2_mux_take_glitches(struct h2_mux *m);

#endif
