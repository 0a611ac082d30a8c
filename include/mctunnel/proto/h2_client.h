/* HTTP/2 with prior knowledge as a client of one small request (gRPC health of targets): bytes in, events out. Lives in h2.c, the one file that knows nghttp2, and shares
 * nothing else with links. */
#ifndef MCTUNNEL_PROTO_H2_CLIENT_H
#define MCTUNNEL_PROTO_H2_CLIENT_H

#include "mctunnel/proto/h2_server.h" /* struct h2_field */

#define H2_CLIENT_BODY 256    /* bytes of the request's body */
#define H2_CLIENT_FIELDS 8192 /* bytes of header fields of the answer, as RFC 9113 section 6.5.2 counts them; more is a broken answer */

struct h2_client;

/* Called from within h2_client_input only. */
struct h2_client_events {
	void (*on_field)(void *owner, const char *name, const char *value); /* :status first; trailers too */
	void (*on_data)(void *owner, const uint8_t *data, size_t len);
	void (*on_end)(void *owner, uint32_t code); /* the last event: 0 when the answer is whole, else why it was cut */
};

/* Fields: :method first, at most 8. NULL: no memory. */
struct h2_client *h2_client_new(const struct h2_client_events *ev, void *owner, const struct h2_field *f, size_t n, const uint8_t *body, size_t len)
    __attribute__((warn_unused_result));
void h2_client_free(struct h2_client *c); /* no event any more; NULL is allowed */

/* False: what came is not HTTP/2, breaks it, or breaks a limit, or memory is used up. Then there is no event any more. Some of it shows only after the output that follows:
 * call it again then, with len 0. */
bool h2_client_input(struct h2_client *c, const uint8_t *data, size_t len);
bool h2_client_starved(const struct h2_client *c); /* it was memory */
size_t h2_client_output(struct h2_client *c, uint8_t *dst, size_t size); /* bytes to send; 0: none now */

#endif
