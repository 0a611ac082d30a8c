/* For the unit tests of session and link: two ends in memory, either a link or a bare h2 that says what a link never would,
 * and a wire between them that counts frames. */
#include "flat.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/proto/h2.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/session.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA = 0, HEADERS = 1, RST = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, CREDIT = 8 };

struct frames { /* of one direction */
	uint8_t head[9];
	size_t have, skip;
	unsigned n[256];
	uint32_t longest, last_credit, last_reset;
	uint8_t payload[8];
	size_t payload_n;
	bool preface;
};

struct side {
	struct link *l;      /* one of both */
	struct h2 *raw;
	struct frames sent;
	bool dead;
	enum reason dead_why, goaway_why;
	unsigned hellos, goaways, requests, answers, resets, pongs;
	char *hello;
	size_t hello_len;
	int32_t stream;      /* of the last request, or opened by the test */
	struct h2_fields f;  /* of the last request or answer */
	uint32_t reset_code;
	struct list parked;
	void (*on_request)(struct side *me, int32_t stream, const struct h2_fields *f);
	size_t send, credit; /* raw: bytes to send; credited */
	uint64_t got;
	bool fin;
};

static uint64_t now_us;

static inline void pass_ms(uint64_t ms)
{
	now_us += ms * 1000;
	clock_set_us(now_us);
	timers_run();
	mem_reclaim();
}

static inline void end_frame(struct frames *fr)
{
	const uint8_t *p = fr->payload;
	uint32_t word = (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
	if (fr->head[3] == CREDIT)
		fr->last_credit = word;
	if (fr->head[3] == RST)
		fr->last_reset = word;
	fr->have = fr->payload_n = 0;
}

static inline void begin_frame(struct frames *fr)
{
	fr->skip = (size_t)fr->head[0] << 16 | fr->head[1] << 8 | fr->head[2];
	fr->n[fr->head[3]]++;
	if (fr->head[3] == DATA && fr->skip > fr->longest)
		fr->longest = (uint32_t)fr->skip;
	if (fr->skip == 0)
		end_frame(fr);
}

static inline void count_frames(struct frames *fr, const uint8_t *data, size_t len)
{
	const uint8_t *end = data + len;
	if (fr->preface && len > 0) {
		assert_true(len >= 24);
		data += 24;
		fr->preface = false;
	}
	while (data < end) {
		if (fr->have < 9) {
			fr->head[fr->have++] = *data++;
			if (fr->have == 9)
				begin_frame(fr);
			continue;
		}
		size_t part = (size_t)(end - data) < fr->skip ? (size_t)(end - data) : fr->skip;
		for (size_t i = 0; i < part && fr->payload_n < sizeof fr->payload; i++)
			fr->payload[fr->payload_n++] = data[i];
		data += part;
		fr->skip -= part;
		if (fr->skip == 0)
			end_frame(fr);
	}
}

/* ---- a link's events ---- */

static inline void side_output(void *owner)
{
}

static inline void side_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
	struct side *me = owner;
	me->hellos++;
	free(me->hello);
	me->hello = malloc(len + 1);
	if (me->hello)
		memcpy(me->hello, json, len);
	me->hello_len = len;
}

static inline void side_request(void *owner, int32_t stream, const struct h2_fields *f)
{
	struct side *me = owner;
	me->requests++;
	me->stream = stream;
	me->f = *f;
	if (me->on_request)
		me->on_request(me, stream, f);
}

static inline void side_goaway(void *owner, enum reason why)
{
	struct side *me = owner;
	me->goaways++;
	me->goaway_why = why;
}

static inline void side_strand(void *owner, struct list *node)
{
	struct side *me = owner;
	session_park(session_of_node(node), &me->parked);
}

static inline void side_dead(void *owner, enum reason why)
{
	struct side *me = owner;
	assert_false(me->dead);
	me->dead = true;
	me->dead_why = why;
}

static const struct link_events side_events = {.on_output = side_output,
					       .on_hello = side_hello,
					       .on_request = side_request,
					       .on_goaway = side_goaway,
					       .on_strand = side_strand,
					       .on_dead = side_dead};

/* ---- a bare h2's events ---- */

static inline void raw_request(void *owner, int32_t stream, const struct h2_fields *f, bool fin)
{
	h2_bind(((struct side *)owner)->raw, stream, owner);
	side_request(owner, stream, f);
}

static inline void raw_answer(void *owner, void *stream, const struct h2_fields *f, bool fin)
{
	struct side *me = owner;
	me->answers++;
	me->f = *f;
}

static inline void raw_data(void *owner, void *stream, const uint8_t *data, size_t len)
{
	((struct side *)owner)->got += len;
}

static inline void raw_fin(void *owner, void *stream)
{
	((struct side *)owner)->fin = true;
}

static inline void raw_credit(void *owner, void *stream, uint32_t bytes)
{
	((struct side *)owner)->credit += bytes;
}

static inline void raw_reset(void *owner, void *stream, uint32_t code)
{
	struct side *me = owner;
	me->resets++;
	me->reset_code = code;
}

static inline void raw_closed(void *owner, void *stream, uint32_t code)
{
}

static inline void raw_pong(void *owner, uint64_t value)
{
	((struct side *)owner)->pongs++;
}

static inline void raw_goaway(void *owner, const char *text, size_t len)
{
	((struct side *)owner)->goaways++;
}

static inline size_t raw_ready(void *owner, void *stream, size_t room, bool *fin)
{
	struct side *me = owner;
	return me->send < room ? me->send : room;
}

static uint8_t raw_bytes[10000]; /* what a raw side sends, again and again */

static inline size_t raw_next(void *owner, void *stream, const void **at, size_t len)
{
	*at = raw_bytes;
	return len < sizeof raw_bytes ? len : sizeof raw_bytes;
}

static inline void raw_made(void *owner, void *stream, size_t len, bool fin)
{
	((struct side *)owner)->send -= len;
}

static const struct h2_events raw_events = {.on_request = raw_request,
					    .on_answer = raw_answer,
					    .on_data = raw_data,
					    .on_fin = raw_fin,
					    .on_credit = raw_credit,
					    .on_reset = raw_reset,
					    .on_closed = raw_closed,
					    .on_pong = raw_pong,
					    .on_hello = side_hello,
					    .on_goaway = raw_goaway,
					    .ready = raw_ready,
					    .next = raw_next,
					    .made = raw_made};

/* ---- the wire ---- */

static inline bool side_input(struct side *to, const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len);
	if (!copy)
		copy = malloc(len); /* where one allocation fails, ours shall not */
	memcpy(copy, data, len);
	int rv = to->l ? link_input(to->l, copy, len) : h2_input(to->raw, copy, len);
	free(copy);
	return rv == 0;
}

/* Gives what `from` has to say to `to` (NULL: it is lost); false when there was nothing. */
static inline bool carry(struct side *from, struct side *to)
{
	static uint8_t out[256 << 10];
	if (from->dead || (!from->l && !from->raw))
		return false;
	if (from->l && !link_wants_output(from->l))
		return false;
	ssize_t n = from->l ? link_flat(from->l, out, sizeof out) : h2_flat(from->raw, out, sizeof out);
	if (n <= 0)
		return false;
	count_frames(&from->sent, out, (size_t)n);
	if (to && !to->dead)
		(void)side_input(to, out, (size_t)n);
	return true;
}

static inline void settle_pair(struct side *a, struct side *b)
{
	bool more = true;
	for (int i = 0; more && i < 100000; i++) {
		more = carry(a, b);
		more |= carry(b, a);
	}
	assert_false(more);
	mem_reclaim();
}

static inline void side_open(struct side *s, enum h2_role role, bool raw, uint32_t max_streams)
{
	memset(s, 0, sizeof *s);
	list_init(&s->parked);
	s->sent.preface = role == H2_HUB;
	if (raw)
		s->raw = h2_new(role, &raw_events, s, max_streams);
	else
		s->l = link_new(role, &side_events, s, max_streams);
	assert_true(s->raw || s->l);
}

static inline void side_close(struct side *s)
{
	if (s->l) {
		link_down(s->l, REASON_LINK_CLOSED, &s->parked);
		link_free(s->l);
	}
	h2_free(s->raw);
	free(s->hello);
	s->l = NULL;
	s->raw = NULL;
	s->hello = NULL;
}

/* ---- owners ---- */

struct user { /* of a session */
	struct session *s;
	unsigned opens, ends;
	enum reason why;
	bool refused, keep, greedy; /* greedy: reads all at once */
	uint64_t got;
	char target[64];
};

static inline size_t user_read(struct user *u, size_t max)
{
	struct iovec iov[8];
	size_t sum = 0;
	int n;
	while (u->s && max > 0 && (n = session_peek(u->s, iov, 8)) > 0) {
		size_t k = 0;
		for (int i = 0; i < n; i++)
			k += iov[i].iov_len;
		k = k < max ? k : max;
		session_consume(u->s, k);
		sum += k;
		max -= k;
	}
	u->got += sum;
	return sum;
}

static inline size_t user_write(struct user *u, size_t max)
{
	struct iovec iov[4];
	size_t sum = 0;
	int n;
	while (max > 0 && (n = session_reserve(u->s, iov, 4)) > 0) {
		size_t k = 0;
		for (int i = 0; i < n; i++) {
			size_t part = iov[i].iov_len < max - k ? iov[i].iov_len : max - k;
			memset(iov[i].iov_base, 'u', part);
			k += part;
		}
		session_commit(u->s, k);
		sum += k;
		max -= k;
	}
	return sum;
}

static inline void user_abort(struct user *u, enum reason why)
{
	session_abort(u->s, why);
	u->s = NULL;
}

static inline void user_release(struct user *u)
{
	session_release(u->s);
	u->s = NULL;
}

static inline void user_open(void *owner, const char *target)
{
	struct user *u = owner;
	u->opens++;
	snprintf(u->target, sizeof u->target, "%s", target);
}

static inline void user_readable(void *owner)
{
	struct user *u = owner;
	if (u->greedy)
		user_read(u, SIZE_MAX);
}

static inline void user_nothing(void *owner)
{
}

static inline void user_end(void *owner, enum reason why, bool refused)
{
	struct user *u = owner;
	u->ends++;
	u->why = why;
	u->refused = refused;
	if (refused && u->keep)
		session_keep(u->s);
	else
		u->s = NULL;
}

static const struct session_events user_events = {.on_open = user_open,
						  .on_readable = user_readable,
						  .on_writable = user_nothing,
						  .on_end = user_end,
						  .on_leave = user_nothing,
						  .on_arrive = user_nothing};

static const struct session_about web = {.service = "web", .client = "203.0.113.9:4711", .local = "198.51.100.1:80", .listener = "front"};

static inline size_t used(enum mem_kind kind)
{
	struct mem_usage u;
	mem_usage(kind, &u);
	return u.used;
}

/* After each test. */
static inline int nothing_left(void **state)
{
	mem_limit(MEM_CHUNK, 0);
	mem_limit(MEM_MORSEL, 0);
	mem_reclaim();
	assert_int_equal(session_count(), 0);
	assert_int_equal(used(MEM_SESSION) + used(MEM_LINK) + used(MEM_CHUNK) + used(MEM_MORSEL), 0);
	assert_int_equal(timers_wait_ms(), -1);
	return 0;
}
