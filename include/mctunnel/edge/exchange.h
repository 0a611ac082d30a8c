/* An exchange: one HTTP request and its answer, between a client's conn and a session. Moves the bytes both ways, straight from one into the other, as far as the messages' framing
 * allows; once an upgrade was agreed on, opaque bytes until both have ended. Plain data of its owner (web), who sees to time, errors and what comes before and after. */
#ifndef MCTUNNEL_EDGE_EXCHANGE_H
#define MCTUNNEL_EDGE_EXCHANGE_H

#include "mctunnel/base/reason.h"
#include "mctunnel/proto/http1.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct brake;
struct conn;
struct iovec;
struct series;
struct session;

/* Bytes that were read too far, or that the conn did not take; at most some ten KiB. Zeroes: none. */
struct spill {
	char *buf; /* owned; NULL: none */
	uint32_t at, len;
};
bool spill_keep(struct spill *s, const char *from, size_t n) __attribute__((warn_unused_result)); /* into an empty one; false: no memory */
size_t spill_left(const struct spill *s);
void spill_drop(struct spill *s);
/* 0: all was written, or the conn takes no more now (spill_left() tells which); CONN_FAILED. */
int spill_write(struct spill *s, struct conn *c);

struct exchange { /* zeroes, but for what is to be set */
	struct conn *c;            /* set, borrowed: the client's */
	struct spill *in, *out;    /* set, borrowed: of the connection */
	const char *method;        /* set, borrowed */
	bool old, keep, upgrade;   /* set: an HTTP/1.0 client; it means to go on after the answer; it asks for an upgrade */
	bool last;                 /* set: the connection ends with this answer, whatever it means */
	struct http1_body body;    /* set: begun with the request's head */
	const char *head;          /* set, borrowed: what the target gets */
	uint32_t head_len, head_at;
	struct session *s;         /* set when there is one, borrowed */
	struct series *up_series, *down_series; /* set with it, borrowed: bytes are counted there */
	struct brake *brake;       /* set with it, borrowed; NULL: no limit of bandwidth */

	struct http1_body answer;
	uint64_t up, down, moved_ms; /* bytes given to the session, to the client; when the last of them was */
	unsigned status;             /* of the final answer; 0: not known yet */
	bool heard;                  /* a byte of an answer has come */
	bool final, begun;           /* the final head has been read; a byte of it is on its way to the client */
	bool closing, lingering;     /* with final: the client's connection ends with this answer; and it may not know yet */
	bool target_keeps, binds;    /* the target goes on as well; a login that is bound to the connection was spoken of */
	bool in_ended, out_ended;    /* opaque: the directions that have ended */
	bool stalled;                /* the session has no room for what can be read */

	enum reason why;             /* of EXCHANGE_FAILED */
	const char *text;            /* more about it; NULL */
	unsigned refusal;            /* the status that says it best; 0: the reason's */

	char *part;                  /* inner: of the answer's head */
	size_t part_len;
	uint64_t checked;            /* inner: of a chunked answer: bytes at the session's front that are good */
	bool unchunk;                /* inner: chunks are undone */
};

enum exchange_outcome {
	EXCHANGE_WAITS,  /* nothing more now: for the conn or the session */
	EXCHANGE_MORE,   /* it could go on, but others have their turn */
	EXCHANGE_DONE,   /* both are complete as far as they will be; what is in `out` is yet to be written */
	EXCHANGE_FAILED, /* see why, text */
};

enum exchange_outcome exchange_run(struct exchange *x) __attribute__((warn_unused_result));
/* From now on opaque: what is in `out` goes first. */
void exchange_open(struct exchange *x, unsigned status);
bool exchange_opaque(const struct exchange *x);
/* DONE: does the session serve another request? The request was sent whole, and nothing came unasked. */
bool exchange_whole(const struct exchange *x);
bool exchange_reusable(const struct exchange *x);
void exchange_fini(struct exchange *x);

/* Each thread: the buffers through which heads pass. Theirs to use, when no exchange runs: bytes read, and text made. */
#define EXCHANGE_READ (16u << 10)                          /* bytes read at once where more than a message may come */
#define EXCHANGE_HEAD (64u << 10)                          /* the longest head */
#define EXCHANGE_IN (EXCHANGE_HEAD + 2 * EXCHANGE_READ)
#define EXCHANGE_OUT (2 * EXCHANGE_HEAD + (16u << 10))     /* a head with what is added */
struct exchange_space {
	char in[EXCHANGE_IN], out[EXCHANGE_OUT];
	struct http1_head head; /* the one looked at last: points into `in`, or into the session */
	struct http1_error err;
};
void exchange_init(void);
struct exchange_space *exchange_space(void);
void exchange_thread_fini(void);

#endif
