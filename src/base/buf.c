/* Byte queues: a singly linked list of chunks, filled at the tail, emptied at the head. Two sizes of chunk, so that
 * a flow of keystrokes does not hold 16 KiB. No chunk in a queue is empty, and a chunk once filled never moves;
 * that is what keeps cursors good. Between reserve and commit the chunks not yet filled hang behind the tail.
 * How much a queue may hold is its owner's business; how much all may hold is the pools'. */
#include "mctunnel/base/buf.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"

#include <string.h>

struct chunk {
	struct chunk *next;
	uint16_t begin, end, room; /* bytes begin..end of data are filled, room can still follow */
	uint16_t kind;
	unsigned char data[];
};

#define MORSEL_CAP (2048 - sizeof(struct chunk))

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The kind that suits when so many bytes are still to come. */
static struct chunk *chunk_for(size_t bytes)
{
	enum mem_kind kind = bytes > MORSEL_CAP ? MEM_CHUNK : MEM_MORSEL;
	size_t cap = kind == MEM_CHUNK ? BUFQ_CHUNK : MORSEL_CAP;
	struct chunk *c = mem_get(kind, sizeof(*c) + cap);

	if (!c)
		return NULL;
	c->next = NULL;
	c->begin = c->end = 0;
	c->room = (uint16_t)cap;
	c->kind = (uint16_t)kind;
	return c;
}

/* Where the chunks reserved but not filled begin. */
static struct chunk **spares(struct bufq *q)
{
	return q->tail ? &q->tail->next : &q->head;
}

static void free_spares(struct bufq *q)
{
	struct chunk **link = spares(q), *c = *link;

	*link = NULL;
	while (c) {
		struct chunk *next = c->next;

		mem_put(c->kind, c);
		c = next;
	}
}

/* Takes n bytes of the room that was made as filled, copying them from data if there is any. */
static void fill(struct bufq *q, const unsigned char *data, size_t n)
{
	struct chunk *c = q->tail ? q->tail : q->head;

	q->len += n;
	for (; n > 0; c = c->next) {
		size_t part;

		BUG_ON(!c);
		part = smaller(n, c->room);
		if (part == 0)
			continue;
		if (data) {
			memcpy(c->data + c->end, data, part);
			data += part;
		}
		c->end += part;
		c->room -= part;
		n -= part;
		q->tail = c;
	}
}

static void offer(struct iovec *iov, struct chunk *c, size_t *want)
{
	iov->iov_base = c->data + c->end;
	iov->iov_len = smaller(*want, c->room);
	*want -= iov->iov_len;
}

int bufq_reserve(struct bufq *q, size_t want, struct iovec *iov, int max)
{
	struct chunk **link = spares(q);
	int n = 0;

	BUG_ON(*link);
	if (q->tail && q->tail->room > 0 && want > 0 && max > 0)
		offer(&iov[n++], q->tail, &want);
	for (; want > 0 && n < max; link = &(*link)->next) {
		*link = chunk_for(want);
		if (!*link && !q->head) /* the large ones are used up: whoever has nothing yet goes on with a small one */
			*link = chunk_for(1);
		if (!*link)
			break;
		offer(&iov[n++], *link, &want);
	}
	return n;
}

/* A chunk with little in it makes way for a morsel. Nothing may have been in the queue before, so no cursor is inside. */
static void shrink(struct bufq *q)
{
	struct chunk *old = q->head, *c;

	if (old->kind != MEM_CHUNK || old->end > MORSEL_CAP)
		return;
	c = chunk_for(old->end);
	if (!c)
		return;
	memcpy(c->data, old->data, old->end);
	c->end = old->end;
	c->room -= old->end;
	q->head = q->tail = c;
	mem_put(MEM_CHUNK, old);
}

void bufq_commit(struct bufq *q, size_t written)
{
	struct chunk *before = q->tail;

	fill(q, NULL, written);
	free_spares(q);
	if (!before && q->tail && q->head == q->tail)
		shrink(q);
}

/* Chunks for n bytes more than the tail has room for, or none at all. */
static int grow(struct bufq *q, size_t n)
{
	struct chunk **link = spares(q);

	BUG_ON(*link);
	for (n -= smaller(n, q->tail ? q->tail->room : 0); n > 0; link = &(*link)->next) {
		*link = chunk_for(n);
		if (!*link) {
			free_spares(q);
			return -1;
		}
		n -= smaller(n, (*link)->room);
	}
	return 0;
}

int bufq_append(struct bufq *q, const void *data, size_t len)
{
	if (grow(q, len) != 0)
		return -1;
	fill(q, data, len);
	return 0;
}

int bufq_peek(const struct bufq *q, struct iovec *iov, int max)
{
	int n = 0;

	for (struct chunk *c = q->head; c && n < max; c = c->next, n++) {
		iov[n].iov_base = c->data + c->begin;
		iov[n].iov_len = c->end - c->begin;
	}
	return n;
}

void bufq_drop(struct bufq *q, size_t n)
{
	BUG_ON(n > q->len);
	q->len -= n;
	q->dropped += n;
	while (n > 0) {
		struct chunk *c = q->head;
		size_t part = smaller(n, c->end - c->begin);

		n -= part;
		c->begin += part;
		if (c->begin < c->end)
			return;
		q->head = c->next;
		mem_put(c->kind, c);
	}
	if (!q->head)
		q->tail = NULL;
}

void bufq_clear(struct bufq *q)
{
	bufq_drop(q, q->len);
}

/* A cursor behind the head lies in a chunk that has bytes before it not yet dropped, or at such a chunk's end. */
static void settle(const struct bufq *q, struct buf_cursor *c)
{
	if (c->at > q->dropped)
		return;
	c->at = q->dropped;
	c->chunk = q->head;
	c->off = q->head ? q->head->begin : 0;
}

/* Bytes at the cursor in its chunk. It stays at a chunk's end until it is asked, because the chunk that follows may not be there yet. */
static size_t here(struct buf_cursor *c)
{
	while (c->chunk && c->off == c->chunk->end && c->chunk->next) {
		c->chunk = c->chunk->next;
		c->off = 0;
	}
	return c->chunk ? c->chunk->end - c->off : 0;
}

static void step(struct buf_cursor *c, size_t n)
{
	c->off += n;
	c->at += n;
}

size_t bufq_next(const struct bufq *q, struct buf_cursor *c, const void **at, size_t len)
{
	size_t n;

	settle(q, c);
	n = smaller(here(c), len);
	if (n > 0)
		*at = c->chunk->data + c->off;
	step(c, n);
	return n;
}

size_t bufq_rest(const struct bufq *q, struct buf_cursor *c)
{
	settle(q, c);
	return here(c);
}

size_t bufq_read(const struct bufq *q, struct buf_cursor *c, void *dst, size_t len)
{
	unsigned char *to = dst;
	const void *from;
	size_t got = 0, n;

	while (got < len && (n = bufq_next(q, c, &from, len - got)) > 0) {
		memcpy(to + got, from, n);
		got += n;
	}
	return got;
}

void bufq_seek(const struct bufq *q, struct buf_cursor *c, size_t skip)
{
	BUG_ON(skip > q->len);
	c->at = q->dropped;
	settle(q, c);
	while (skip > 0) {
		size_t part = smaller(here(c), skip);

		step(c, part);
		skip -= part;
	}
}
