/* HTTP/2 of a link over nghttp2 (included by h2.c only): bytes in, events out. The hub is the client role, the agent the server role.
 * Knows frames, header fields and streams; no sockets, no clock, no sessions. Header fields: doc/protocol.md. */
#ifndef MCTUNNEL_PROTO_H2_H
#define MCTUNNEL_PROTO_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define H2_DATA_MAX 16375          /* payload of a DATA frame: with its header it fills one TLS record; ... */
#define H2_BULK_MAX (15 * H2_DATA_MAX) /* ... and of the largest that h2_row() allows */
#define H2_STREAM_WINDOW (4u << 20) /* what a peer may have in flight towards us on one stream */
#define H2_FIELD_MAX 192
#define H2_REFUSED_STREAM 7         /* code of a reset: nothing was done with the stream */

enum h2_role { H2_HUB, H2_AGENT };

/* DRAIN: no new sessions here, the payload is a reason_word(). GOAWAY is kept for the very end, because nghttp2 falls silent once that was said and
 * no stream is open, and the tails of sessions still need their PING. */
enum h2_frame { H2_FRAME_AGENT = 0xf0, H2_FRAME_HUB = 0xf1, H2_FRAME_DRAIN = 0xf2 };

/* The fields of a CONNECT request or of its answer. Empty strings and zeros: not sent. */
struct h2_fields {
	uint16_t status;                /* answers only */
	char service[64];               /* :authority */
	char session[33];               /* mct-session: 32 hex digits */
	char client[H2_FIELD_MAX];      /* mct-client: address of the client */
	char local[H2_FIELD_MAX];       /* mct-local: the address it connected to */
	char listener[64];              /* mct-listener */
	char sni[256];                  /* mct-sni: the name the client asked for in TLS */
	char alpn[64];                  /* mct-alpn: the protocol agreed on with the client in TLS */
	char reason[32];                /* mct-reason, with a refusal */
	char target[H2_FIELD_MAX];      /* mct-target: address reached, with the 200 */
	bool resume;                    /* mct-resume is there */
	uint32_t epoch;                 /* mct-resume: how many times the session was resumed */
	bool has_offset;                /* mct-offset is there */
	uint64_t offset;                /* mct-offset: bytes consumed from the other side */
	bool fin;                       /* mct-fin: the other side's end was received too */
};

struct h2;

/* Called from within h2_input and h2_output only. `stream` is what h2_connect / h2_bind gave for the stream (NULL: none).
 * Callbacks may call any h2 function but h2_input, h2_output and h2_free. */
struct h2_events {
	void (*on_request)(void *owner, int32_t id, const struct h2_fields *f, bool fin);      /* agent role */
	void (*on_answer)(void *owner, void *stream, const struct h2_fields *f, bool fin);     /* hub role */
	void (*on_data)(void *owner, void *stream, const uint8_t *data, size_t len);
	void (*on_fin)(void *owner, void *stream);
	void (*on_credit)(void *owner, void *stream, uint32_t bytes);
	void (*on_reset)(void *owner, void *stream, uint32_t code);
	/* Last event of a stream: everything of it has been put into h2_output's bytes. code: 0 after both ends, else why it was cut. */
	void (*on_closed)(void *owner, void *stream, uint32_t code);
	void (*on_pong)(void *owner, uint64_t value); /* answer to an h2_ping */
	void (*on_hello)(void *owner, enum h2_frame type, const char *json, size_t len); /* put together from its pieces */
	void (*on_goaway)(void *owner, const char *text, size_t len); /* GOAWAY or DRAIN; text is not ended by a NUL */
	/* How many bytes, at most `room`, the stream has to send now; *fin is set when its end follows them. 0 without *fin: nothing (h2_wake later). */
	size_t (*ready)(void *owner, void *stream, size_t room, bool *fin);
	/* The bytes that ready() announced: those that are contiguous, at most len; called again until it has given all. */
	size_t (*next)(void *owner, void *stream, const void **at, size_t len);
	/* The frame is made; fin as ready() said. */
	void (*made)(void *owner, void *stream, size_t len, bool fin);
};

/* max_streams: how many the other side may open (agent role). NULL when memory is used up. */
struct h2 *h2_new(enum h2_role role, const struct h2_events *ev, void *owner, uint32_t max_streams) __attribute__((warn_unused_result));
void h2_free(struct h2 *h); /* no callback is called any more */

/* 0, or -1: the peer broke the protocol or memory is used up; the link must be closed (a last h2_output may carry the GOAWAY). h2_error says why. */
int h2_input(struct h2 *h, const uint8_t *data, size_t len) __attribute__((warn_unused_result));
const char *h2_error(const struct h2 *h);
bool h2_starved(const struct h2 *h); /* it was memory: the peer has done nothing wrong */

/* Where output goes. iov[0..n) are its bytes in their order, in buf or, what streams send, where next() said; good until input or the next output. */
struct h2_sink {
	uint8_t *buf; /* borrowed: `size` bytes */
	size_t size;  /* of all output; 32768 at least */
	struct iovec *iov; /* borrowed: `max` of them, 2 at least */
	int max, n;
};
/* Frames to send, control frames first, then streams in turn: returns the bytes (0: nothing to say now), -1 as above. */
ssize_t h2_output(struct h2 *h, struct h2_sink *k);
/* So many bytes, from H2_DATA_MAX (at first) to H2_BULK_MAX, a stream may send before it is the turn of others, if the peer takes them in one frame. */
void h2_row(struct h2 *h, uint32_t bytes);
bool h2_wants_output(const struct h2 *h);

/* Hub role: opens a stream; returns its id, -1 when the link can take no more (limit, numbers used up, goaway). */
int32_t h2_connect(struct h2 *h, const struct h2_fields *f, void *stream);
bool h2_can_connect(const struct h2 *h);
uint32_t h2_max_streams(const struct h2 *h); /* how many the other side allows to be open at once */
/* Agent role: ties an incoming stream to its owner; data that came before is lost unless bound within on_request. */
void h2_bind(struct h2 *h, int32_t id, void *stream);
/* Agent role: answers. fin: END_STREAM with it, then a reset (refusals). 0 or -1 when the stream is gone. */
int h2_answer(struct h2 *h, int32_t id, const struct h2_fields *f, bool fin);
bool h2_stream_open(const struct h2 *h, int32_t id);

void h2_wake(struct h2 *h, int32_t id);                  /* the stream has something to send again */
void h2_credit(struct h2 *h, int32_t id, uint32_t bytes); /* WINDOW_UPDATE: so many bytes were consumed */
void h2_reset(struct h2 *h, int32_t id, uint32_t code);   /* RST_STREAM; on_closed follows */
void h2_ping(struct h2 *h, uint64_t value);
void h2_hello(struct h2 *h, enum h2_frame type, const char *json, size_t len); /* copied; sent in pieces of a frame */
bool h2_hello_unsent(const struct h2 *h);                /* some piece is still to be given out by h2_output */
void h2_drain(struct h2 *h, const char *text);                 /* a DRAIN frame */
void h2_goaway(struct h2 *h, uint32_t code, const char *text); /* GOAWAY: the connection is closed next */
/* The same as the last word: h2_output, then the end, no h2_input between. The agent's names the last request it has seen, so that the hub takes those
 * that cross it elsewhere. */
void h2_farewell(struct h2 *h, const char *text);

/* Control frames (PING, SETTINGS, RST_STREAM, empty DATA, unknown) received since the last call: for the flood limit. */
uint32_t h2_take_glitches(struct h2 *h);

#endif
