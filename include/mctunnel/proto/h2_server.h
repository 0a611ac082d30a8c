/* HTTP/2 as a server of a few small requests at a time, for strangers (gRPC health): bytes in, events out. Lives in h2.c, the one file that knows
 * nghttp2, and shares nothing else with links. Whoever sends more fields than allowed, or breaks the protocol, gets a GOAWAY, and it is over. */
#ifndef MCTUNNEL_PROTO_H2_SERVER_H
#define MCTUNNEL_PROTO_H2_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" /* what every client says first */
#define H2_NO_ERROR 0
#define H2_ENHANCE_YOUR_CALM 11

struct h2_server;

/* What a request says of itself; longer values are cut. Empty: not said. */
struct h2_request {
	char method[16], path[128], content_type[64], encoding[32]; /* encoding: grpc-encoding */
};

struct h2_field {
	const char *name, *value;
};

/* Called from within h2_server_input and h2_server_output only; may call any function below but these two and h2_server_free. */
struct h2_server_events {
	/* Returns what is handed to the events below as `stream`; NULL refuses (REFUSED_STREAM). */
	void *(*on_request)(void *owner, int32_t id, const struct h2_request *r);
	void (*on_data)(void *owner, void *stream, const uint8_t *data, size_t len);
	void (*on_fin)(void *owner, void *stream);
	void (*on_closed)(void *owner, void *stream); /* the last one of a stream, whoever ended it */
	/* Copies up to `room` bytes of the answer's body. With *fin they are the last ones: h2_server_trailers was called just before, or there are none.
	 * 0 without *fin: nothing now (h2_server_wake later). */
	size_t (*pull)(void *owner, void *stream, uint8_t *dst, size_t room, bool *fin);
};

/* max_streams at once; max_fields: bytes of header fields of one request, as RFC 9113 section 6.5.2 counts them. NULL: no memory. */
struct h2_server *h2_server_new(const struct h2_server_events *ev, void *owner, uint32_t max_streams, uint32_t max_fields) __attribute__((warn_unused_result));
void h2_server_free(struct h2_server *s); /* no event any more */

void h2_server_input(struct h2_server *s, const uint8_t *data, size_t len);
size_t h2_server_output(struct h2_server *s, uint8_t *dst, size_t size); /* bytes to send; 0: none now */
bool h2_server_wants_output(const struct h2_server *s);
bool h2_server_over(const struct h2_server *s);   /* what comes is thrown away; close when there is no output left */
bool h2_server_broken(const struct h2_server *s); /* over because the client broke the protocol or a limit */

/* The header of an answer; fin: that is all of it. Fields: :status first. */
void h2_server_answer(struct h2_server *s, int32_t id, const struct h2_field *f, size_t n, bool fin);
void h2_server_trailers(struct h2_server *s, int32_t id, const struct h2_field *f, size_t n); /* from within pull */
void h2_server_wake(struct h2_server *s, int32_t id);
void h2_server_goaway(struct h2_server *s, uint32_t code);

/* Frames of any kind received since the last call, and one for each 128 bytes: what a limit on floods counts. */
uint32_t h2_server_take_frames(struct h2_server *s);

#endif
