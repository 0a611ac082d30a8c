/* Queues of bytes in pooled chunks: rings of unacknowledged data, backlogs, output waiting for a socket.
 * A queue that is empty holds no memory. Chunks come from the pools CHUNK and MORSEL, whose limits
 * (mem_limit) are the process's budget for data in flight. */
#ifndef MCTUNNEL_BASE_BUF_H
#define MCTUNNEL_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define BUFQ_CHUNK 16375 /* bytes of a large chunk: with the head of a DATA frame they fill a TLS record */

struct chunk;

struct bufq {
	struct chunk *head, *tail; /* owned */
	size_t len;                /* bytes */
	uint64_t dropped;          /* bytes ever taken away: the stream offset of the head */
};

/* A place inside a queue. Zero it to begin at the head. It stays good over any append, commit and drop; dropping
 * past it carries it along to the new head. It belongs to one queue: when that is zeroed, so is the cursor. */
struct buf_cursor {
	struct chunk *chunk; /* borrowed, looked at only while at > dropped: then it cannot have been freed */
	size_t off;          /* inside chunk */
	uint64_t at;         /* stream offset; up to `dropped` it means the head */
};

/* Room for up to `want` more bytes at the end, as at most `max` pieces; returns the number of pieces, 0 when there
 * is no memory. The first piece may be the small rest of the last chunk, so ask for two at least.
 * Must be followed by bufq_commit (0 allowed) before any other call. */
int bufq_reserve(struct bufq *q, size_t want, struct iovec *iov, int max);
void bufq_commit(struct bufq *q, size_t written);

/* Copies to the end. Returns 0, or -1 (nothing appended) when there is no memory. */
int bufq_append(struct bufq *q, const void *data, size_t len) __attribute__((warn_unused_result));

/* The first bytes, at most `max` pieces; returns the number of pieces. */
int bufq_peek(const struct bufq *q, struct iovec *iov, int max);

/* Takes away the first n bytes (n <= len). */
void bufq_drop(struct bufq *q, size_t n);
void bufq_clear(struct bufq *q);

/* Copies up to len bytes from the cursor on into dst and moves it; returns how many. */
size_t bufq_read(const struct bufq *q, struct buf_cursor *c, void *dst, size_t len);

/* What is contiguous at the cursor, at most len bytes, in place (good until it is dropped); moves the cursor behind it. Returns how many, 0 at the end. */
size_t bufq_next(const struct bufq *q, struct buf_cursor *c, const void **at, size_t len);

/* How many bytes follow the cursor in its chunk: what comes then begins another. */
size_t bufq_rest(const struct bufq *q, struct buf_cursor *c);

/* Puts the cursor `skip` bytes behind the head (skip <= len), also backwards. */
void bufq_seek(const struct bufq *q, struct buf_cursor *c, size_t skip);

#endif
