/* Heads of messages between HTTP/2 and HTTP/1.1. Text in, text out. */
#ifndef MCTUNNEL_EDGE_TRANSLATE_H
#define MCTUNNEL_EDGE_TRANSLATE_H

#include "mctunnel/proto/h2_server.h" /* struct h2_field */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http1_head;

/* A request of HTTP/2 on its way to be a head of HTTP/1.1. Zeroed at first. */
struct translation {
	char *text;           /* owned: the head, once translate_end has returned 0 */
	size_t len, size;
	size_t max;           /* bytes; what is longer is refused */
	char *method, *path, *authority, *cookies, *length; /* owned */
	size_t cookies_len;
	bool chunked;         /* the body is to be sent in chunks */
	bool grpc;            /* content-type application/grpc...: its target speaks HTTP/2 */
	bool host, trailers;  /* the client said host; te: trailers */
	bool too_long, no_memory;
};

/* A field, as h2_mux hands it out: pseudo-header fields first. */
void translate_field(struct translation *t, const char *name, const char *value);
/* That was all. bare: without framing, for a head that only says where a stream goes. Status to refuse it with (400, 431, 500, 501), 0: good. */
unsigned translate_end(struct translation *t, bool fin, bool bare);
void translate_free(struct translation *t);

/* The fields of an answer for HTTP/2: :status first, names in lower case, without what concerns one connection. Returns how many; 0: it does not fit. Texts are put into space. */
size_t translate_answer(const struct http1_head *h, struct h2_field *out, size_t max, char *space, size_t size);

/* The trailers of such an answer, as http1_body_take found them well formed: each of their fields, its name in lower case, is told. Texts are good during the call only. */
void translate_trailers(char *text, size_t len, void (*on_field)(void *arg, const char *name, const char *value), void *arg);

#endif
