/* A carrier: a link and the TLS connection it runs over. Reads and decrypts all that has come into the thread's buffer and gives it to the link; at
 * the end of the turn takes what the link has to say and writes it with one call. Knows nothing of agents, hubs or sessions. */
#include "mctunnel/edge/carrier.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/share.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/net/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_SIZE (256u << 10)
#define OUTPUT_MAX (256u << 10)
#define FAREWELL_ROUNDS 64
#define LOWAT_MAX (1u << 20)
#define LOWAT_SHARED (128u << 10) /* several sessions: a keystroke does not wait behind more than this ... */
#define LOWAT_MS 2                /* ... or what the link sends in this time */
#define LOWAT_NARROW (32u << 10)  /* instead of both, when the network takes less than we have; then one session alone ... */
#define LOWAT_ALONE_MS 32         /* ... may have so much of it waiting */
#define PIECES 64                 /* of an output */
#define PACE_MS 8                 /* between measurements of that */
#define LEAVE_US 2000             /* of a turn, for links that went down */

struct carrier {
	struct conn *conn;       /* owned */
	struct link *link;       /* owned */
	const struct carrier_events *ev;
	void *owner;             /* borrowed */
	struct deferred flush, read, down;
	struct list leave;       /* in leaving, when it went down and no session waits for that */
	enum reason why;
	char text[192];
	uint32_t lowat;
	uint32_t pace;           /* bytes a millisecond that were sent lately */
	uint64_t paced_ms;       /* since when paced counts */
	size_t paced;
	bool held, narrow;       /* the kernel did not take all since then; in the time that pace is of */
	bool going_down, finishing;
};

/* When thousands of links break at once, each turn frees some, and others are served in between. */
static _Thread_local struct {
	struct list carriers;
	struct deferred work;
	struct share share;
	bool made;
} leaving;

static _Thread_local uint8_t *input, *output;

static uint8_t *buffer(uint8_t **b, size_t size)
{
	if (!*b)
		*b = xmalloc(size);
	return *b;
}

void carrier_thread_init(void)
{
	buffer(&input, INPUT_SIZE);
	buffer(&output, OUTPUT_MAX);
}

void carrier_thread_fini(void)
{
	free(input);
	free(output);
	input = output = NULL;
}

static void run_down(struct deferred *d)
{
	struct carrier *c = container_of(d, struct carrier, down);
	c->ev->on_down(c->owner, c->why, c->text);
}

static void run_leaving(struct deferred *d)
{
	share_begin(&leaving.share);
	while (!list_empty(&leaving.carriers) && share_left(&leaving.share, LEAVE_US)) {
		struct carrier *c = list_first(&leaving.carriers, struct carrier, leave);
		list_del(&c->leave);
		run_down(&c->down);
	}
	if (!list_empty(&leaving.carriers))
		loop_defer(d);
}

static void leave_in_turn(struct carrier *c)
{
	if (!leaving.made) {
		list_init(&leaving.carriers);
		deferred_init(&leaving.work, run_leaving);
		leaving.made = true;
	}
	list_add(&leaving.carriers, &c->leave);
	loop_defer(&leaving.work);
}

static void stay(struct carrier *c)
{
	if (list_empty(&c->leave))
		return;
	list_del(&c->leave);
	if (list_empty(&leaving.carriers))
		loop_undefer(&leaving.work);
}

static void go_down(struct carrier *c, enum reason why, const char *text)
{
	if (c->going_down)
		return;
	c->going_down = true;
	c->why = why;
	str_copy(c->text, sizeof c->text, text);
	loop_undefer(&c->flush);
	loop_undefer(&c->read);
	if (link_sessions(c->link) > 0)
		loop_defer(&c->down);
	else
		leave_in_turn(c);
}

void carrier_fail(struct carrier *c, enum reason why, const char *text)
{
	go_down(c, why, text);
}

/* ---- input ---- */

/* TCP gives up what was sent when nothing is heard of it for so long as the heartbeat may be silent: the same finding by another clock. */
static void broken(struct carrier *c)
{
	const char *text = tls_failure(c->conn);
	go_down(c, conn_reason(c->conn, c->conn->error == ETIMEDOUT ? REASON_LINK_DEAD : REASON_LINK_CLOSED), text[0] ? text : strerror(c->conn->error));
}

static void read_some(struct carrier *c)
{
	struct iovec iov = {buffer(&input, INPUT_SIZE), INPUT_SIZE};
	ssize_t n = conn_readv(c->conn, &iov, 1);
	if (n > 0) {
		int rv = link_input(c->link, iov.iov_base, (size_t)n); /* a broken link has said so by on_dead */
		if (rv == 0 && c->conn->readable && !c->going_down)
			loop_defer(&c->read);
	} else if (n == 0) {
		go_down(c, REASON_LINK_CLOSED, "closed by the other side");
	} else if (n == CONN_FAILED) {
		broken(c);
	}
}

static void run_read(struct deferred *d)
{
	struct carrier *c = container_of(d, struct carrier, read);
	if (!c->going_down && c->conn->readable)
		read_some(c);
}

/* ---- output ---- */

static void note_pace(struct carrier *c, size_t n)
{
	uint64_t ms = clock_ms() - c->paced_ms;
	if (ms >= PACE_MS) {
		c->pace = (uint32_t)(c->paced / ms);
		c->narrow = c->held;
		c->held = false;
		c->paced = 0;
		c->paced_ms = clock_ms();
	}
	c->paced += n;
	c->held |= conn_unsent(c->conn) > 0;
}

/* The kernel's queue is long for a bulk transfer that is alone, and short when other sessions may have something to say: what is in it delays them by so long as
 * the link takes to send it. */
static uint32_t wanted_lowat(const struct carrier *c)
{
	bool alone = link_sessions(c->link) <= 1;
	uint32_t lowat = c->narrow ? LOWAT_NARROW : alone ? LOWAT_MAX : LOWAT_SHARED;
	uint64_t due = (uint64_t)c->pace * (alone ? LOWAT_ALONE_MS : LOWAT_MS);
	while (lowat < LOWAT_MAX && 2 * lowat <= due)
		lowat *= 2;
	return lowat;
}

static void choose_lowat(struct carrier *c)
{
	uint32_t lowat = wanted_lowat(c);
	if (c->lowat == lowat)
		return;
	c->lowat = lowat;
	sock_notsent_lowat(conn_fd(c->conn), lowat);
}

/* How much of one session in a row: as much as the link sends in a millisecond. */
static uint32_t wanted_row(const struct carrier *c)
{
	uint32_t row = c->narrow ? 0 : c->pace / H2_DATA_MAX * H2_DATA_MAX;
	if (row < H2_DATA_MAX)
		row = H2_DATA_MAX;
	if (row > H2_BULK_MAX)
		row = H2_BULK_MAX;
	return row;
}

static void write_some(struct carrier *c)
{
	choose_lowat(c);
	h2_row(link_h2(c->link), wanted_row(c));
	struct iovec iov[PIECES];
	struct h2_sink k = {.buf = buffer(&output, OUTPUT_MAX), .size = c->lowat < OUTPUT_MAX ? c->lowat : OUTPUT_MAX, .iov = iov, .max = PIECES};
	ssize_t n = link_output(c->link, &k);
	if (n <= 0)
		return;
	ssize_t taken = conn_writev(c->conn, iov, k.n);
	if (taken == CONN_FAILED) {
		broken(c);
		return;
	}
	BUG_ON(taken != n); /* it was writable and had nothing unsent */
	note_pace(c, (size_t)n);
	if (link_wants_output(c->link))
		loop_defer(&c->flush);
}

static bool may_write(const struct carrier *c)
{
	return !c->going_down && tls_state(c->conn) == TLS_UP && conn_unsent(c->conn) == 0;
}

static void run_flush(struct deferred *d)
{
	struct carrier *c = container_of(d, struct carrier, flush);
	if (may_write(c) && link_wants_output(c->link))
		write_some(c);
	if (c->finishing && may_write(c) && !link_wants_output(c->link))
		go_down(c, REASON_DONE, "");
}

static void on_conn(struct conn *conn)
{
	struct carrier *c = conn->owner;
	if (c->going_down)
		return;
	if (conn->readable || conn->hup)
		loop_defer(&c->read);
	if (c->finishing || link_wants_output(c->link))
		loop_defer(&c->flush);
}

/* ---- events of the link ---- */

static void on_output(void *owner)
{
	struct carrier *c = owner;
	if (!c->going_down) {
		loop_defer(&c->flush);
	} else if (!list_empty(&c->leave) && link_sessions(c->link) > 0) { /* one has come meanwhile */
		stay(c);
		loop_defer(&c->down);
	}
}

static void on_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
	struct carrier *c = owner;
	c->ev->on_hello(c->owner, type, json, len);
}

static void on_request(void *owner, int32_t stream, const struct h2_fields *f)
{
	struct carrier *c = owner;
	if (c->ev->on_request)
		c->ev->on_request(c->owner, stream, f);
	else
		link_refuse(c->link, stream, REASON_DENIED);
}

static void on_goaway(void *owner, enum reason why)
{
	struct carrier *c = owner;
	c->ev->on_goaway(c->owner, why);
}

static void on_strand(void *owner, struct list *node)
{
	struct carrier *c = owner;
	if (c->ev->on_strand)
		c->ev->on_strand(c->owner, node);
}

static void on_dead(void *owner, enum reason why)
{
	struct carrier *c = owner;
	go_down(c, why, why == REASON_PROTOCOL ? h2_error(link_h2(c->link)) : reason_text(why));
}

static const struct link_events carrier_link_events = {
	.on_output = on_output,
	.on_hello = on_hello,
	.on_request = on_request,
	.on_goaway = on_goaway,
	.on_strand = on_strand,
	.on_dead = on_dead,
};

/* ---- life ---- */

struct carrier *carrier_new(enum h2_role role, struct conn *conn, uint32_t max_streams, const struct carrier_events *ev, void *owner)
{
	struct carrier *c = mem_get(MEM_OTHER, sizeof *c);
	if (!c)
		return NULL;
	c->ev = ev;
	c->owner = owner;
	c->conn = conn;
	c->why = REASON_LINK_CLOSED;
	deferred_init(&c->flush, run_flush);
	deferred_init(&c->read, run_read);
	deferred_init(&c->down, run_down);
	list_init(&c->leave);
	c->link = link_new(role, &carrier_link_events, c, max_streams);
	if (!c->link) {
		loop_undefer(&c->flush);
		mem_put(MEM_OTHER, c);
		return NULL;
	}
	conn->on_event = on_conn;
	conn->owner = c;
	loop_defer(&c->flush);
	loop_defer(&c->read);
	return c;
}

struct link *carrier_link(struct carrier *c)
{
	return c->link;
}

struct conn *carrier_conn(struct carrier *c)
{
	return c->conn;
}

static void undefer_all(struct carrier *c)
{
	stay(c);
	loop_undefer(&c->flush);
	loop_undefer(&c->read);
	loop_undefer(&c->down);
}

void carrier_farewell(struct carrier *c)
{
	for (int i = 0; i < FAREWELL_ROUNDS && may_write(c) && link_wants_output(c->link); i++)
		write_some(c);
	if (!c->going_down)
		c->why = REASON_DONE;
}

void carrier_free(struct carrier *c)
{
	undefer_all(c);
	link_free(c->link);
	if (c->why == REASON_DONE)
		conn_close(c->conn);
	else
		conn_abort(c->conn);
	mem_put(MEM_OTHER, c);
}

void carrier_finish(struct carrier *c)
{
	c->finishing = true;
	loop_defer(&c->flush);
}

void carrier_detach(struct carrier *c)
{
	undefer_all(c);
	link_leave(c->link);
	conn_detach(c->conn);
}

int carrier_attach(struct carrier *c)
{
	if (conn_attach(c->conn) != 0)
		return -1;
	link_arrive(c->link);
	loop_defer(&c->read);
	if (c->finishing || c->going_down)
		loop_defer(c->going_down ? &c->down : &c->flush);
	return 0;
}
