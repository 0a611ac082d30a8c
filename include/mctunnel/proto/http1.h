/* HTTP/1.0 and 1.1 messages (RFC 9112): heads parsed strictly, bodies followed. Bytes in, facts out; no I/O, no memory of its own. What a receiver behind us could
 * read differently is refused, never repaired: bare CR or LF, NUL, folded lines, blanks before a colon, several or odd Content-Length, Content-Length with
 * Transfer-Encoding, any coding but a single "chunked", chunk sizes that overflow, empty names, Host missing, twice or contradicting an absolute target. */
#ifndef MCTUNNEL_PROTO_HTTP1_H
#define MCTUNNEL_PROTO_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HTTP1_FIELDS_MAX 100
#define HTTP1_METHOD_MAX 32
#define HTTP1_NAME_MAX 255       /* bytes of a field's name */
#define HTTP1_OPTIONS_MAX 32     /* words in all Connection fields of a head */
#define HTTP1_EXTENSION_MAX 512  /* bytes of a chunk's extensions */
#define HTTP1_TRAILERS_MAX 8192  /* bytes of all trailers */

struct http1_text { /* inside the caller's buffer; not ended by a NUL */
	const char *at;
	uint32_t len;
};

struct http1_field {
	struct http1_text name, value; /* value without blanks around it */
	bool hop;                      /* belongs to this connection only: Connection and what it names, Keep-Alive, Proxy-Connection, TE, Upgrade, Transfer-Encoding, HTTP2-Settings */
};

enum http1_framing {
	HTTP1_NONE,    /* no body */
	HTTP1_LENGTH,  /* `length` bytes */
	HTTP1_CHUNKED,
	HTTP1_CLOSE,   /* answers: until the connection ends */
	HTTP1_TUNNEL,  /* answers: 101, or 2xx to CONNECT: opaque bytes both ways from here */
};

struct http1_head {
	struct http1_text method, target; /* requests */
	struct http1_text authority;      /* requests: host and port, from the absolute target or CONNECT's, else from Host; len 0: there is none (HTTP/1.0) */
	struct http1_text path, query;    /* requests: of the target; path "/" where an absolute one has none, "*" of OPTIONS, empty of CONNECT; query with its '?' */
	unsigned status;                  /* answers */
	struct http1_text phrase;         /* answers */
	unsigned minor;                   /* HTTP/1.minor: 0 or 1 */
	enum http1_framing framing;
	uint64_t length;
	bool keep_alive;      /* the sender means to go on after this message */
	bool expect_continue; /* requests: Expect: 100-continue */
	bool upgrade;         /* HTTP/1.1, Connection: upgrade with an Upgrade field that does not name h2c (requests in such a connection would pass by the rules) */
	size_t fields_n;
	struct http1_field fields[HTTP1_FIELDS_MAX];
};

struct http1_error {
	unsigned status;    /* to answer with: 400, 414, 431, 501, 505; of an answer 502 */
	size_t offset;      /* of the byte at fault, in the bytes given */
	const char *text;   /* a sentence */
};

/* Length of the head (with the empty line) once it is whole; 0: more is needed; -1: *err. len grows from call to call over the same bytes, buf may move. What the outcome is depends
 * on the bytes alone, not on how they came. A request line that does not end within `max` bytes is 414, a head 431. Up to four empty lines before a request are skipped (and belong
 * to its length). *out points into buf, and is good with a length only. */
ssize_t http1_request(struct http1_head *out, const char *buf, size_t len, size_t max, struct http1_error *err);
/* method: of the request that is answered (HEAD, CONNECT matter). */
ssize_t http1_answer(struct http1_head *out, const char *buf, size_t len, size_t max, const char *method, struct http1_error *err);

/* First field of that name (any case), NULL: none. */
const struct http1_field *http1_find(const struct http1_head *h, const char *name);
bool http1_is(struct http1_text t, const char *word); /* in any case */

/* The body as it comes. Zeroed and begun for each message. */
struct http1_body {
	enum http1_framing framing;
	uint64_t left;     /* of a length, or of the chunk at hand */
	bool done;         /* the message has ended */
	uint64_t max;      /* bytes of content it may have, set after http1_body_begin; 0: any number. More is malformed (413) */
	uint64_t content;  /* bytes of content so far */
	bool answer;
	uint8_t state, digits, name_len;
	uint32_t extra;    /* bytes of the chunk's extensions, of the trailers so far */
	char name[20];     /* of the trailer at hand, as far as it matters */
};
void http1_body_begin(struct http1_body *b, const struct http1_head *h);
/* Takes from the n bytes at `in` up to and with one piece of content: returns bytes taken (0: n is 0 or the body is done), of which the last data->len are content (data->len may be 0).
 * -1: malformed; *err. To be called until it has taken all or b->done. Bytes taken may be passed on as they are: they are a well-formed part of the body. Refused as well: blanks
 * after a chunk's size, a chunk of 2 GiB or more in a request (an old target's 32 bits), trailers that frame or route the message, or say who sent it. */
ssize_t http1_body_take(struct http1_body *b, const char *in, size_t n, struct http1_text *data, struct http1_error *err);
/* What follows are the trailers and the empty line that ends them (at most HTTP1_TRAILERS_MAX bytes). http1_body_take stops here once, so that who wants them knows where they begin. */
bool http1_body_at_trailers(const struct http1_body *b);

/* A path as rules see it (RFC 3986 section 6.2.2): %XX of unreserved characters undone, other %XX in upper case, dot segments resolved, slashes in a row made one.
 * Writes at most len + 1 bytes, NUL included; returns the length; -1: %00 or a malformed %XX. */
ssize_t http1_normalise(char *out, struct http1_text path);

#endif
