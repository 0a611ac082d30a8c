/* The moving of one HTTP request and its answer.
 * Owns nothing but a part of an answer's head that has not come whole: the session keeps no more than its window. Bodies are read from the conn into the session's
 * memory, and written from there to the conn; what a conn or a session has no room for waits where it is, and holds its sender back. A turn moves a bounded amount.
 * Nothing is passed on that has not been checked against the framing that was announced.
 * Knows neither routes nor what an error means to the client: it only says that there was one. */
#include "mctunnel/edge/exchange.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/edge/brake.h"
#include "mctunnel/edge/webhead.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>

#define PIECES 16
#define TURN_MAX (256u << 10) /* bytes read in one go, then others have theirs */

static _Thread_local struct exchange_space *space; /* owned */

/* Spills. */

bool spill_keep(struct spill *s, const char *from, size_t n)
{
	BUG_ON(s->buf || n > EXCHANGE_OUT);
	if (n == 0)
		return true;
	s->buf = malloc(n);
	if (!s->buf)
		return false;
	memcpy(s->buf, from, n);
	s->at = 0;
	s->len = (uint32_t)n;
	return true;
}

size_t spill_left(const struct spill *s)
{
	return s->len - s->at;
}

void spill_drop(struct spill *s)
{
	free(s->buf);
	*s = (struct spill){ NULL, 0, 0 };
}

static void spill_take(struct spill *s, size_t n)
{
	s->at += (uint32_t)n;
	if (s->at == s->len)
		spill_drop(s);
}

int spill_write(struct spill *s, struct conn *c)
{
	while (s->buf && c->writable) {
		struct iovec iov = { s->buf + s->at, spill_left(s) };
		ssize_t n = conn_writev(c, &iov, 1);

		if (n == CONN_FAILED)
			return CONN_FAILED;
		if (n == CONN_AGAIN)
			break;
		spill_take(s, (size_t)n);
	}
	return 0;
}

/* Failures. All return false, or -1 where a number is wanted. */

static bool fail(struct exchange *x, enum reason why, const char *text)
{
	x->why = why;
	x->text = text;
	x->refusal = 0;
	return false;
}

static int fail_answer(struct exchange *x, const char *text)
{
	(void)fail(x, REASON_BAD_ANSWER, text);
	return -1;
}

static int fail_client(struct exchange *x)
{
	(void)fail(x, conn_reason(x->c, REASON_CLIENT_RESET), NULL);
	return -1;
}

static int fail_memory(struct exchange *x)
{
	(void)fail(x, REASON_RESOURCES, NULL);
	return -1;
}

bool exchange_opaque(const struct exchange *x)
{
	return x->body.framing == HTTP1_TUNNEL;
}

/* From the client to the target. */

static void moved_up(struct exchange *x, size_t n)
{
	if (n == 0)
		return;
	x->up += n;
	x->moved_ms = clock_ms();
	if (x->brake)
		brake_moved(x->brake, BRAKE_IN, n);
	stat_add(STAT_BYTES_UP, (int64_t)n);
	series_add(x->up_series, n);
}

static void moved_down(struct exchange *x, size_t n)
{
	if (n == 0)
		return;
	x->down += n;
	x->moved_ms = clock_ms();
	if (x->brake)
		brake_moved(x->brake, BRAKE_OUT, n);
	stat_add(STAT_BYTES_DOWN, (int64_t)n);
	series_add(x->down_series, n);
}

/* How many of the next n bytes belong to the body; -1: space->err. */
static ssize_t admit(struct http1_body *b, const char *from, size_t n)
{
	size_t sum = 0;

	while (sum < n && !b->done) {
		struct http1_text data;
		ssize_t taken = http1_body_take(b, from + sum, n - sum, &data, &space->err);

		if (taken < 0)
			return -1;
		sum += (size_t)taken;
	}
	return (ssize_t)sum;
}

static size_t total(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* No more than max bytes; returns the pieces. */
static int trim(struct iovec *iov, int n, uint64_t max)
{
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len >= max) {
			iov[i].iov_len = (size_t)max;
			return max > 0 ? i + 1 : i;
		}
		max -= iov[i].iov_len;
	}
	return n;
}

static void fill(const struct iovec *iov, const char *from, size_t n)
{
	for (; n > 0; iov++) {
		size_t part = iov->iov_len < n ? iov->iov_len : n;

		memcpy(iov->iov_base, from, part);
		from += part;
		n -= part;
	}
}

/* Room in the session; 0 pieces: none now. */
static int reserve(struct exchange *x, struct iovec *iov)
{
	int pieces = session_reserve(x->s, iov, PIECES);

	x->stalled = pieces == 0;
	return pieces;
}

static void commit(struct exchange *x, size_t n)
{
	session_commit(x->s, n);
	moved_up(x, n);
}

/* true: all of it is given. */
static bool give_head(struct exchange *x)
{
	struct iovec iov[PIECES];
	int pieces;

	while (x->head_at < x->head_len && (pieces = reserve(x, iov)) > 0) {
		size_t room = total(iov, pieces), left = x->head_len - x->head_at, n = left < room ? left : room;

		fill(iov, x->head + x->head_at, n);
		commit(x, n);
		x->head_at += (uint32_t)n;
	}
	return x->head_at == x->head_len;
}

static bool fail_body(struct exchange *x)
{
	(void)fail(x, REASON_BAD_REQUEST, space->err.text);
	x->refusal = space->err.status;
	return false;
}

/* What came along with the head, or was read too far. */
static bool give_in(struct exchange *x)
{
	struct iovec iov[PIECES];
	int pieces;

	while (x->in->buf && !x->body.done && (pieces = reserve(x, iov)) > 0) {
		const char *from = x->in->buf + x->in->at;
		size_t room = total(iov, pieces), left = spill_left(x->in);
		ssize_t n = admit(&x->body, from, left < room ? left : room);

		if (n > 0)
			fill(iov, from, (size_t)n);
		commit(x, n > 0 ? (size_t)n : 0);
		if (n < 0)
			return fail_body(x);
		spill_take(x->in, (size_t)n);
	}
	return true;
}

/* How many of the n bytes in these pieces belong to the body; -1: space->err. */
static ssize_t admit_pieces(struct http1_body *b, const struct iovec *iov, size_t n)
{
	size_t sum = 0;

	for (; sum < n && !b->done; iov++) {
		ssize_t taken = admit(b, iov->iov_base, iov->iov_len < n - sum ? iov->iov_len : n - sum);

		if (taken < 0)
			return -1;
		sum += (size_t)taken;
	}
	return (ssize_t)sum;
}

/* What follows the body is the next request's. */
static bool keep_rest(struct exchange *x, const struct iovec *iov, size_t skip, size_t n)
{
	size_t sum = 0;

	for (; n > 0; iov++) {
		size_t part = iov->iov_len < n ? iov->iov_len : n, from = skip < part ? skip : part;

		memcpy(space->in + sum, (char *)iov->iov_base + from, part - from);
		sum += part - from;
		skip -= from;
		n -= part;
	}
	return spill_keep(x->in, space->in, sum);
}

/* Bytes that may be moved now. */
static size_t room_for(struct exchange *x, enum brake_way way)
{
	return x->brake ? brake_room(x->brake, way) : SIZE_MAX;
}

/* Most that may be read at once. */
static uint64_t wanted(const struct http1_body *b, uint64_t room)
{
	uint64_t most = b->framing == HTTP1_LENGTH ? b->left : b->framing == HTTP1_CHUNKED ? EXCHANGE_READ : UINT64_MAX;

	return most < room ? most : room;
}

/* Reads into the session's memory. Bytes, 0, CONN_AGAIN or CONN_FAILED; *bad: it has failed already. */
static ssize_t read_body(struct exchange *x, bool *bad)
{
	struct iovec iov[PIECES];
	size_t room = room_for(x, BRAKE_IN);
	int pieces = room > 0 ? reserve(x, iov) : 0;
	ssize_t got, taken;

	x->stalled = pieces == 0;
	if (pieces == 0)
		return CONN_AGAIN;
	got = conn_readv(x->c, iov, trim(iov, pieces, wanted(&x->body, room)));
	taken = got > 0 ? admit_pieces(&x->body, iov, (size_t)got) : 0;
	if (taken < 0)
		*bad = !fail_body(x);
	else if (got > taken && !keep_rest(x, iov, (size_t)taken, (size_t)got))
		*bad = !fail(x, REASON_RESOURCES, NULL);
	commit(x, taken > 0 ? (size_t)taken : 0);
	return got;
}

/* The client has ended its direction, in the middle of a body or where all is opaque. */
static bool end_in(struct exchange *x)
{
	if (!exchange_opaque(x))
		return fail(x, REASON_CLIENT_RESET, "the client ended in the middle of a body");
	session_fin(x->s);
	x->in_ended = x->body.done = true;
	x->moved_ms = clock_ms();
	return true;
}

/* *more: others have their turn. */
static bool move_up(struct exchange *x, bool *more)
{
	size_t sum = 0;

	if (!give_head(x))
		return true;
	if (!give_in(x))
		return false;
	while (!x->body.done && !x->in->buf && x->c->readable && sum < TURN_MAX) {
		bool bad = false;
		ssize_t got = read_body(x, &bad);

		if (bad)
			return false;
		if (got == CONN_FAILED)
			return fail(x, conn_reason(x->c, REASON_CLIENT_RESET), NULL);
		if (got == 0)
			return end_in(x);
		if (got == CONN_AGAIN)
			break;
		sum += (size_t)got;
	}
	*more = sum >= TURN_MAX;
	return true;
}

/* From the target to the client. What passes answers: > 0: something was done; 0: nothing more now; -1: it has failed. */

/* How many of these bytes may be passed on; -1: space->err. A chunked answer is looked at once, also when the client does not take it at once. */
static ssize_t allowed(struct exchange *x, const struct iovec *iov, int n)
{
	size_t sum = total(iov, n), skip = (size_t)x->checked;

	if (x->answer.framing == HTTP1_LENGTH)
		return (ssize_t)(sum < x->answer.left ? sum : x->answer.left);
	if (x->answer.framing == HTTP1_NONE)
		return 0;
	if (x->answer.framing != HTTP1_CHUNKED)
		return (ssize_t)sum;
	for (; n > 0 && !x->answer.done; iov++, n--) {
		size_t from = skip < iov->iov_len ? skip : iov->iov_len;
		ssize_t taken = admit(&x->answer, (char *)iov->iov_base + from, iov->iov_len - from);

		skip -= from;
		if (taken < 0)
			return -1;
		x->checked += (size_t)taken;
	}
	return (ssize_t)(x->checked < sum ? x->checked : sum);
}

static void passed(struct exchange *x, size_t head, size_t body)
{
	if (body > 0)
		session_consume(x->s, body);
	if (x->answer.framing == HTTP1_LENGTH) {
		x->answer.left -= body;
		x->answer.done = x->answer.left == 0;
	} else if (x->answer.framing == HTTP1_CHUNKED) {
		x->checked -= body;
	}
	moved_down(x, head + body);
}

/* Writes a head (of head_len bytes, or none) and as much of the body as there is. */
static int pass(struct exchange *x, char *head, size_t head_len)
{
	struct iovec iov[PIECES + 1] = { { head, head_len } };
	int first = head_len > 0 ? 1 : 0, n = session_peek(x->s, iov + first, PIECES);
	ssize_t body = allowed(x, iov + first, n), put;
	size_t of_head, room;

	if (body < 0)
		return fail_answer(x, space->err.text);
	room = body > 0 ? room_for(x, BRAKE_OUT) : 0;
	if ((size_t)body > room)
		body = (ssize_t)room;
	if (head_len + (size_t)body == 0)
		return 0;
	n = trim(iov + first, n, (uint64_t)body);
	put = conn_writev(x->c, iov, first + n);
	if (put == CONN_FAILED)
		return fail_client(x);
	if (put == CONN_AGAIN)
		put = 0;
	x->begun = true;
	of_head = (size_t)put < head_len ? (size_t)put : head_len;
	if (of_head < head_len && !spill_keep(x->out, head + of_head, head_len - of_head))
		return fail_memory(x);
	passed(x, head_len, (size_t)put - of_head);
	return put > 0;
}

/* Written when there is nothing else. */
static int pass_text(struct exchange *x, size_t n)
{
	if (!spill_keep(x->out, space->out, n))
		return fail_memory(x);
	moved_down(x, n);
	return 1;
}

/* The content of chunks alone. */
static int pass_unchunked(struct exchange *x)
{
	struct iovec iov;
	size_t at = 0, n = 0;

	if (x->answer.done || session_peek(x->s, &iov, 1) == 0 || room_for(x, BRAKE_OUT) == 0)
		return 0;
	if (iov.iov_len > EXCHANGE_READ)
		iov.iov_len = EXCHANGE_READ;
	while (at < iov.iov_len && !x->answer.done) {
		struct http1_text data;
		ssize_t taken = http1_body_take(&x->answer, (char *)iov.iov_base + at, iov.iov_len - at, &data, &space->err);

		if (taken < 0)
			return fail_answer(x, space->err.text);
		memcpy(space->out + n, data.at, data.len);
		n += data.len;
		at += (size_t)taken;
	}
	session_consume(x->s, at);
	return pass_text(x, n);
}

/* Interim answers (1xx) are passed on to who understands them. fresh: bytes of the head that are still in the session. */
static int pass_interim(struct exchange *x, size_t fresh)
{
	struct webhead_answer a = { .head = &space->head };
	size_t n = webhead_answer(space->out, EXCHANGE_OUT, &a);

	session_consume(x->s, fresh);
	if (n == 0)
		return fail_answer(x, "an interim answer that is too long");
	return x->old ? 1 : pass_text(x, n);
}

/* The client's connection ends with this answer: it wants it so, or nobody could say where the answer ends or the next request begins. */
static bool last_answer(const struct exchange *x)
{
	enum http1_framing f = x->answer.framing;

	return !x->keep || x->last || !x->body.done || f == HTTP1_CLOSE || f == HTTP1_TUNNEL || x->unchunk;
}

/* What the answer means to request and connection. */
static void note_answer(struct exchange *x)
{
	const struct http1_head *h = &space->head;

	x->final = true;
	x->status = h->status;
	http1_body_begin(&x->answer, h);
	x->target_keeps = h->keep_alive;
	x->binds |= webhead_binds(h);
	x->unchunk = x->old && h->framing == HTTP1_CHUNKED;
	x->closing = last_answer(x);
	x->lingering = x->keep || !x->body.done;
	if (h->framing == HTTP1_TUNNEL)
		x->body = (struct http1_body){ .framing = HTTP1_TUNNEL };
}

static bool upgrade_wanted(const struct exchange *x)
{
	return x->body.done && (x->upgrade || strcmp(x->method, "CONNECT") == 0);
}

static int pass_final(struct exchange *x, size_t fresh)
{
	struct webhead_answer a = { .head = &space->head };
	size_t n;

	if (space->head.framing == HTTP1_TUNNEL && !upgrade_wanted(x))
		return fail_answer(x, "an upgrade that nobody has asked for");
	note_answer(x);
	if (!exchange_opaque(x)) {
		a.close = x->closing;
		a.keep = x->old && !x->closing;
		a.unchunk = x->unchunk;
	}
	n = webhead_answer(space->out, EXCHANGE_OUT, &a);
	session_consume(x->s, fresh);
	if (n == 0)
		return fail_answer(x, "a head that is too long");
	if (!x->unchunk)
		return pass(x, space->out, n);
	x->begun = true;
	return pass_text(x, n);
}

/* Part and pieces in one piece, in space->in. */
static size_t gather(struct exchange *x, const struct iovec *iov, int n)
{
	size_t len = x->part_len;

	if (len > 0)
		memcpy(space->in, x->part, len);
	for (int i = 0; i < n && len < EXCHANGE_IN; i++) {
		size_t part = iov[i].iov_len < EXCHANGE_IN - len ? iov[i].iov_len : EXCHANGE_IN - len;

		memcpy(space->in + len, iov[i].iov_base, part);
		len += part;
	}
	return len;
}

/* What there is of a head is taken out of the session. */
static int keep_part(struct exchange *x, size_t len)
{
	char *part = realloc(x->part, len);

	if (!part)
		return fail_memory(x);
	memcpy(part + x->part_len, space->in + x->part_len, len - x->part_len);
	session_consume(x->s, len - x->part_len);
	x->part = part;
	x->part_len = len;
	return 1; /* there may be more pieces than were looked at */
}

static void drop_part(struct exchange *x)
{
	free(x->part);
	x->part = NULL;
	x->part_len = 0;
}

/* As http1_answer, of what there is by now; *len: of what is in space->in, when it is not whole. */
static ssize_t look_for_head(struct exchange *x, const struct iovec *iov, int n, size_t *len)
{
	ssize_t used = 0;

	if (x->part_len == 0)
		used = http1_answer(&space->head, iov[0].iov_base, iov[0].iov_len, EXCHANGE_HEAD, x->method, &space->err);
	if (used == 0) {
		*len = gather(x, iov, n);
		used = http1_answer(&space->head, space->in, *len, EXCHANGE_HEAD, x->method, &space->err);
	}
	return used;
}

static int pass_head(struct exchange *x)
{
	struct iovec iov[PIECES];
	int n = session_peek(x->s, iov, PIECES);
	size_t fresh, len = 0;
	ssize_t used;

	if (n == 0)
		return 0;
	x->heard = true;
	used = look_for_head(x, iov, n, &len);
	if (used < 0)
		return fail_answer(x, space->err.text);
	if (used == 0)
		return keep_part(x, len);
	fresh = (size_t)used - x->part_len;
	drop_part(x);
	return space->head.status < 200 && space->head.status != 101 ? pass_interim(x, fresh) : pass_final(x, fresh);
}

static bool answered(const struct exchange *x)
{
	return x->final && x->answer.done && x->checked == 0;
}

/* The target has ended. */
static bool end_out(struct exchange *x)
{
	if (x->final && x->answer.framing == HTTP1_CLOSE) {
		x->answer.done = true;
		return true;
	}
	if (!x->final || x->answer.framing != HTTP1_TUNNEL)
		return fail(x, REASON_TARGET_RESET, "the target ended before its answer did");
	if (conn_shut(x->c) == CONN_FAILED)
		return fail(x, conn_reason(x->c, REASON_CLIENT_RESET), NULL);
	x->out_ended = x->answer.done = true;
	x->moved_ms = clock_ms();
	return true;
}

static bool move_down(struct exchange *x)
{
	int more = 1;

	while (spill_write(x->out, x->c) == 0) {
		if (x->out->buf || answered(x))
			return true;
		if (!x->c->writable || more == 0)
			return !session_ended(x->s) || end_out(x);
		more = !x->final ? pass_head(x) : x->unchunk ? pass_unchunked(x) : pass(x, NULL, 0);
		if (more < 0)
			return false;
	}
	return fail(x, conn_reason(x->c, REASON_CLIENT_RESET), NULL);
}

/* Both. */

/* A RST can be seen by its error only, where nothing is read. */
static bool gone(const struct exchange *x)
{
	return (x->stalled || x->body.done) && x->c->hup && sock_error(conn_fd(x->c)) != 0;
}

enum exchange_outcome exchange_run(struct exchange *x)
{
	bool was_opaque = exchange_opaque(x), more = false;

	if (gone(x) && !fail(x, REASON_CLIENT_RESET, NULL))
		return EXCHANGE_FAILED;
	if (!move_up(x, &more) || !move_down(x))
		return EXCHANGE_FAILED;
	if (exchange_opaque(x) && !was_opaque) /* what the client had said already */
		return exchange_run(x);
	if (exchange_opaque(x) ? x->in_ended && x->out_ended : answered(x))
		return EXCHANGE_DONE;
	return more ? EXCHANGE_MORE : EXCHANGE_WAITS;
}

void exchange_open(struct exchange *x, unsigned status)
{
	x->status = status;
	x->final = x->begun = x->closing = true;
	x->body = x->answer = (struct http1_body){ .framing = HTTP1_TUNNEL };
}

bool exchange_whole(const struct exchange *x)
{
	return x->body.done && x->head_at == x->head_len;
}

bool exchange_reusable(const struct exchange *x)
{
	struct iovec iov;

	return exchange_whole(x) && x->target_keeps && session_peek(x->s, &iov, 1) == 0;
}

void exchange_fini(struct exchange *x)
{
	drop_part(x);
}

/* Threads. */

void exchange_init(void)
{
	space = xmalloc(sizeof(*space)); /* much of it is never touched */
}

struct exchange_space *exchange_space(void)
{
	return space;
}

void exchange_thread_fini(void)
{
	free(space);
	space = NULL;
}
