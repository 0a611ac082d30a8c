/* The session engine: two streams of bytes with offsets that outlive the link which carries them.
 * Owns, for each session, the bytes the other side has not consumed yet and those our side has not. WINDOW_UPDATE is the
 * acknowledgement, so one mechanism serves back-pressure, retention and memory limits. A session without traffic holds no buffer.
 * Knows nothing of sockets and threads; time comes from base/clock and base/timer. doc/internals/session.md tells the story. */
#include "mctunnel/tunnel/session.h"

#include "mctunnel/base/buf.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/proto/h2.h"
#include "mctunnel/tunnel/link.h"

#include <stdlib.h>
#include <string.h>

#define RING_MIN BUFQ_CHUNK
#define RING_MAX (256 * BUFQ_CHUNK) /* what H2_STREAM_WINDOW has room for */
#define CREDIT_MIN (16u << 10)
#define CREDIT_MAX (256u << 10)
#define CREDIT_SOON (4u << 10) /* a drained session says at once that it consumed this much: its sender may have little more */
#define GROW_WITHIN_US 500     /* a full ring consumed within this time and two round trips without queues may grow */
#define RING_IDLE_MS 1000
#define MEMORY_RETRY_MS 20
#define PARTING_MS 1000
#define SLICES 4096
#define BARRED_MAX 4096

enum state {
	OPENING,  /* hub: no answer yet; agent: the target is being connected */
	OPEN,
	RESUMING, /* hub: asked to go on, no answer yet */
	PARKED,   /* no link */
	KEPT,     /* hub: refused, its owner looks for another link */
	MOVING    /* between two threads */
};

struct outgoing { /* from the local side to the other side */
	struct bufq ring;      /* [acked, end) */
	struct buf_cursor cur; /* at `sent` */
	uint64_t acked, sent, end;
	uint64_t sent_high;    /* most that was ever sent, on any stream */
	uint64_t grow_mark, grow_us;
	uint64_t idle_since_ms;
	uint32_t limit;
	bool fin, fin_sent, confirmed, blocked;
};

struct incoming { /* from the other side to the local side */
	struct bufq backlog; /* received earlier, not consumed */
	uint64_t got, consumed, credited, peak;
	uint16_t first, last; /* slices of this turn's input, 0: none */
	bool fin;
};

struct session {
	struct rider r;                        /* first; its node is in the link's lists, a parking list, or among the thread's loose ones */
	struct session *chain;                 /* in the table (agent) */
	const struct session_events *ev;
	void *owner;                           /* borrowed; NULL: the local side is through */
	struct link *link;                     /* borrowed; NULL: parked, kept, moving or complete */
	struct h2_fields *about;               /* owned; hub until established: to ask again elsewhere */
	struct timer timer;                    /* connect or resume timeout; memory retry while OPEN */
	struct outgoing out;
	struct incoming in;
	uint64_t asked_ms;                     /* when the opening request was made */
	int32_t stream;                        /* 0: none */
	uint32_t epoch, resume_ms, connect_ms;
	uint8_t id[16], peer[16];
	uint8_t state;
	uint8_t abort_why;
	uint8_t held;
	bool agent_side, established, aborted, dead, waits_answer, kept, barred;
	bool parting;                          /* to be aborted (abort_why) when all is sent */
};

static const struct rider_events riding;
static void confirmed(struct rider *r);

static struct session *of(struct rider *r)
{
	return (struct session *)r; /* it is the first member */
}

/* ---- the slices of a turn's input: places in the link's read buffer, gone when link_input returns ---- */

struct slice {
	const uint8_t *data;
	uint32_t len;
	uint16_t next;
};
static _Thread_local struct slice *slices; /* [0] is never used */
static _Thread_local uint16_t slices_n;
static _Thread_local uint64_t slices_of; /* the link_input they belong to */

static void drop_slices(struct session *s)
{
	s->in.first = s->in.last = 0;
}

static int flatten(struct session *s)
{
	int rv = 0;
	for (uint16_t i = s->in.first; i && rv == 0; i = slices[i].next)
		rv = bufq_append(&s->in.backlog, slices[i].data, slices[i].len);
	drop_slices(s);
	return rv;
}

/* The read buffer goes: what cannot be kept counts as not received, the other side sends it again. */
static void settle_input(struct session *s)
{
	struct incoming *in = &s->in;
	if (flatten(s) == 0)
		return;
	in->got = in->consumed + in->backlog.len;
	in->fin = false;
}

void session_thread_init(void)
{
	if (!slices)
		slices = xcalloc(SLICES, sizeof *slices);
}

static int add_slice(struct session *s, const uint8_t *data, size_t len)
{
	session_thread_init();
	if (slices_of != link_input_number())
		slices_n = 1;
	slices_of = link_input_number();
	if (slices_n == SLICES)
		return flatten(s) == 0 ? bufq_append(&s->in.backlog, data, len) : -1;
	uint16_t i = slices_n++;
	slices[i] = (struct slice){data, (uint32_t)len, 0};
	if (s->in.last)
		slices[s->in.last].next = i;
	else
		s->in.first = i;
	s->in.last = i;
	return 0;
}

/* ---- the table of agent-side sessions by id, and the thread's loose sessions ---- */

static _Thread_local struct session **table;
static _Thread_local size_t table_size, table_n, count, barred_n;
static _Thread_local atomic_uint *count_place; /* borrowed: where others see count */
static _Thread_local struct list loose = {NULL, NULL}; /* complete, kept: neither on a link nor parked */

static struct list *loose_list(void)
{
	if (!loose.next)
		list_init(&loose);
	return &loose;
}

static size_t slot_of(const uint8_t id[16], size_t size)
{
	uint64_t h;
	memcpy(&h, id, sizeof h); /* the id is random already; its hub is authenticated */
	return (size_t)(h & (size - 1));
}

static void table_grow(void)
{
	size_t size = table_size ? table_size * 2 : 64;
	struct session **fresh = table_size ? calloc(size, sizeof *fresh) : xcalloc(size, sizeof *fresh);
	if (!fresh)
		return; /* longer chains, until there is memory */
	for (size_t i = 0; i < table_size; i++) {
		for (struct session *s = table[i], *next; s; s = next) {
			size_t at = slot_of(s->id, size);
			next = s->chain;
			s->chain = fresh[at];
			fresh[at] = s;
		}
	}
	free(table);
	table = fresh;
	table_size = size;
}

static void publish(void)
{
	if (count_place)
		atomic_store_explicit(count_place, (unsigned)count, memory_order_relaxed);
}

void session_count_to(atomic_uint *place)
{
	count_place = place;
	publish();
}

static void table_add(struct session *s)
{
	count++;
	publish();
	if (!s->agent_side)
		return;
	if (table_n >= table_size)
		table_grow();
	size_t at = slot_of(s->id, table_size);
	s->chain = table[at];
	table[at] = s;
	table_n++;
}

static void table_del(struct session *s)
{
	count--;
	publish();
	if (!s->agent_side)
		return;
	struct session **p = &table[slot_of(s->id, table_size)];
	while (*p != s)
		p = &(*p)->chain;
	*p = s->chain;
	if (--table_n == 0) {
		free(table);
		table = NULL;
		table_size = 0;
	}
}

static struct session *lookup(const uint8_t id[16])
{
	struct session *s = table_size ? table[slot_of(id, table_size)] : NULL;
	while (s && memcmp(s->id, id, sizeof s->id) != 0)
		s = s->chain;
	return s;
}

struct session *session_find(const uint8_t id[16])
{
	struct session *s = lookup(id);
	return s && !s->barred ? s : NULL;
}

size_t session_count(void)
{
	return count;
}

/* ---- life ---- */

static void on_timer(struct timer *t);

static struct session *make(const struct session_events *ev, void *owner)
{
	struct session *s = mem_get(MEM_SESSION, sizeof *s);
	if (!s)
		return NULL;
	s->ev = ev;
	s->owner = owner;
	s->out.limit = RING_MIN;
	list_init(&s->r.node);
	list_init(&s->r.ready_node);
	list_init(&s->r.credit_node);
	s->r.ev = &riding;
	timer_init(&s->timer, on_timer);
	return s;
}

static void hold(struct session *s)
{
	s->held++;
}

static void unhold(struct session *s)
{
	if (--s->held == 0 && s->dead)
		mem_put(MEM_SESSION, s);
}

static void set_state(struct session *s, enum state state)
{
	if (s->state == PARKED)
		stat_add(STAT_SESSIONS_PARKED, -1);
	if (state == PARKED)
		stat_add(STAT_SESSIONS_PARKED, 1);
	s->state = (uint8_t)state;
}

static void leave_lists(struct session *s)
{
	list_del(&s->r.ready_node);
	list_del(&s->r.credit_node);
	if (s->link)
		link_part(s->link, &s->r);
	else
		list_del(&s->r.node);
}

/* Off its link: a stream that is still open is cut with code. */
static void detach(struct session *s, uint32_t code)
{
	leave_lists(s);
	settle_input(s);
	if (s->link && s->stream) {
		h2_bind(link_h2(s->link), s->stream, NULL);
		h2_reset(link_h2(s->link), s->stream, code);
		link_touch(s->link);
	}
	s->link = NULL;
	s->stream = 0;
}

static void destroy(struct session *s)
{
	BUG_ON(s->dead);
	drop_slices(s);
	detach(s, reason_code(REASON_LOST));
	timer_stop(&s->timer);
	set_state(s, OPEN);
	bufq_clear(&s->out.ring);
	bufq_clear(&s->in.backlog);
	free(s->about);
	table_del(s);
	barred_n -= s->barred;
	s->dead = true;
	if (!s->held)
		mem_put(MEM_SESSION, s);
}

static bool untouched(const struct session *s)
{
	return !s->agent_side && !s->established && s->out.acked == 0 && s->in.got == 0 && s->about;
}

/* How long ago the opening request was made. The clock of the thread that made it may be a little ahead of ours. */
static uint64_t asked_for_ms(const struct session *s)
{
	uint64_t now = clock_ms();
	return now > s->asked_ms ? now - s->asked_ms : 0;
}

/* The agent does not know the session. So soon after the opening that means that the request never arrived: one that did, and one that was ended,
 * would still be kept there for the time of a resume. */
static bool never_arrived(const struct session *s)
{
	return s->out.sent_high == 0 || asked_for_ms(s) < s->resume_ms;
}

/* Ended from elsewhere: the owner hears of it, and may keep what nobody has touched. */
static void end(struct session *s, enum reason why, bool refused)
{
	void *owner = s->owner;
	refused = refused && untouched(s);
	drop_slices(s);
	detach(s, reason_code(why));
	timer_stop(&s->timer);
	if (!owner) {
		destroy(s);
		return;
	}
	hold(s);
	set_state(s, KEPT);
	list_add(loose_list(), &s->r.node);
	s->kept = false;
	s->ev->on_end(owner, why, refused);
	BUG_ON(s->kept && !refused);
	if (!s->kept && !s->dead)
		destroy(s);
	unhold(s);
}

/* Ended by us, for a reason of our own: the owner hears of it, and the other side as if the owner had given up. */
static void break_off(struct session *s, enum reason why)
{
	void *owner = s->owner;
	if (!owner)
		return; /* it gave up itself, or has no need of us any more */
	hold(s);
	session_abort(s, why);
	s->ev->on_end(owner, why, false);
	unhold(s);
}

static void time_out(struct session *s)
{
	if (s->out.sent_high == 0 || !s->owner)
		end(s, REASON_CONNECT_TIMEOUT, true);
	else
		break_off(s, REASON_CONNECT_TIMEOUT); /* the target may have got what was sent */
}

void session_keep(struct session *s)
{
	BUG_ON(s->state != KEPT);
	s->kept = true;
	s->in.fin = false;
	s->out.sent = s->out.sent_high = 0;
	s->out.fin_sent = false;
	bufq_seek(&s->out.ring, &s->out.cur, 0);
}

static void unblock(struct session *s)
{
	if (!s->out.blocked || !s->owner || s->out.ring.len >= s->out.limit)
		return;
	s->out.blocked = false;
	s->ev->on_writable(s->owner);
}

/* Both directions had ended, all of the other side's bytes are here and all of ours were sent: only the proof is missing. */
static bool all_but_proven(const struct session *s)
{
	return !s->aborted && s->in.fin && s->out.fin_sent;
}

/* The other side will not ask again: it has what it needs, or it is gone. */
static void lose(struct session *s, enum reason why, bool refused)
{
	if (all_but_proven(s)) {
		detach(s, reason_code(why));
		timer_stop(&s->timer);
		set_state(s, OPEN);
		confirmed(&s->r);
		return;
	}
	refused = refused && never_arrived(s);
	if (s->owner && !(refused && untouched(s)))
		stat_add(STAT_SESSIONS_LOST, 1);
	end(s, why, refused);
}

/* A hub's request that nobody has answered is not waited for any longer when it has lost its link. */
static bool unanswered(const struct session *s)
{
	return !s->agent_side && !s->established && !s->aborted && s->owner;
}

static void on_timer(struct timer *t)
{
	struct session *s = container_of(t, struct session, timer);
	switch ((enum state)s->state) {
	case OPENING: time_out(s); break;
	case RESUMING:
		if (s->established || s->aborted)
			lose(s, REASON_RESUME_TIMEOUT, false);
		else
			time_out(s);
		break;
	case PARKED:
		if (unanswered(s) && asked_for_ms(s) >= s->connect_ms)
			time_out(s);
		else
			lose(s, REASON_RESUME_TIMEOUT, false);
		break;
	case OPEN:
		if (s->parting)
			session_abort(s, s->abort_why);
		else
			unblock(s);
		break;
	case KEPT:
	case MOVING: BUG_ON(true);
	}
}

/* ---- opening ---- */

static void put_on_link(struct session *s, struct link *l, int32_t stream)
{
	leave_lists(s);
	s->link = l;
	s->stream = stream;
	memcpy(s->peer, link_peer(l), sizeof s->peer);
	link_join(l, &s->r);
	link_touch(l);
}

static struct h2_fields *describe(const struct session_about *about, const uint8_t id[16])
{
	struct h2_fields *f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	str_copy(f->service, sizeof f->service, about->service);
	str_copy(f->client, sizeof f->client, about->client ? about->client : "");
	str_copy(f->local, sizeof f->local, about->local ? about->local : "");
	str_copy(f->listener, sizeof f->listener, about->listener ? about->listener : "");
	str_copy(f->sni, sizeof f->sni, about->sni ? about->sni : "");
	str_copy(f->alpn, sizeof f->alpn, about->alpn ? about->alpn : "");
	str_hex(f->session, id, 16);
	return f;
}

static int ask(struct session *s, struct link *l)
{
	int32_t stream = link_can_open(l) ? h2_connect(link_h2(l), s->about, s) : -1;
	if (stream < 0)
		return -1;
	set_state(s, OPENING);
	s->asked_ms = clock_ms();
	put_on_link(s, l, stream);
	timer_start(&s->timer, s->connect_ms);
	return 0;
}

struct session *session_open(struct link *l, const struct session_about *about, uint32_t connect_ms, uint32_t resume_ms,
			     const struct session_events *ev, void *owner)
{
	struct session *s = make(ev, owner);
	if (!s)
		return NULL;
	rnd_bytes(s->id, sizeof s->id);
	s->connect_ms = connect_ms;
	s->resume_ms = resume_ms;
	s->about = describe(about, s->id);
	table_add(s);
	if (!s->about || ask(s, l) != 0) {
		destroy(s);
		return NULL;
	}
	return s;
}

int session_reopen(struct session *s, struct link *l)
{
	BUG_ON(s->state != KEPT);
	rnd_bytes(s->id, sizeof s->id); /* the one that refused may still know the old one */
	str_hex(s->about->session, s->id, sizeof s->id);
	s->epoch = 0;
	return ask(s, l);
}

struct session *session_accept(struct link *l, int32_t stream, const struct h2_fields *f, uint32_t resume_ms, const struct session_events *ev,
			       void *owner)
{
	uint8_t id[16];
	if (!str_unhex(id, sizeof id, f->session) || lookup(id) || !link_stream_open(l, stream))
		return NULL;
	struct session *s = make(ev, owner);
	if (!s)
		return NULL;
	memcpy(s->id, id, sizeof id);
	s->agent_side = true;
	s->resume_ms = resume_ms;
	table_add(s);
	set_state(s, OPENING);
	put_on_link(s, l, stream);
	h2_bind(link_h2(l), stream, s);
	return s;
}

void session_bar(const uint8_t id[16], uint32_t ms)
{
	struct session *s = barred_n < BARRED_MAX && !lookup(id) ? make(NULL, NULL) : NULL;
	if (!s)
		return;
	memcpy(s->id, id, sizeof s->id);
	s->agent_side = s->aborted = s->barred = true;
	s->abort_why = REASON_LOST;
	barred_n++;
	table_add(s);
	list_add(loose_list(), &s->r.node);
	set_state(s, PARKED);
	timer_start(&s->timer, ms);
}

/* ---- resuming ---- */

/* What we tell the other side of its bytes: all of them once its end has come, else those consumed; the rest is sent again. */
static void offset_fields(struct session *s, struct h2_fields *f)
{
	if (!s->in.fin) {
		bufq_clear(&s->in.backlog);
		drop_slices(s);
		s->in.got = s->in.consumed;
	}
	s->in.credited = s->in.got;
	if (!s->in.fin)
		s->in.credited = s->in.consumed;
	f->has_offset = true;
	f->offset = s->in.got;
	f->fin = s->in.fin;
}

/* What the other side tells us of ours: everything before is released, everything behind is sent again. */
static int rewind_to(struct session *s, const struct h2_fields *f)
{
	struct outgoing *o = &s->out;
	if (!f->has_offset || f->offset < o->acked || f->offset > o->sent_high || (f->fin && (!o->fin || f->offset != o->end)))
		return -1;
	bufq_drop(&o->ring, f->offset - o->acked);
	o->acked = o->sent = f->offset;
	o->fin_sent = o->confirmed = false;
	o->grow_mark = 0;
	bufq_seek(&o->ring, &o->cur, 0);
	return 0;
}

static void establish(struct session *s)
{
	s->established = true;
	free(s->about);
	s->about = NULL;
}

static void go_on(struct session *s)
{
	timer_stop(&s->timer);
	set_state(s, OPEN);
	h2_wake(link_h2(s->link), s->stream);
	link_touch(s->link);
	unblock(s);
	if (s->parting)
		timer_start(&s->timer, s->out.sent == s->out.end ? 0 : PARTING_MS);
}

int session_resume(struct session *s, struct link *l)
{
	struct h2_fields f = {.service = "resume", .resume = true, .epoch = s->epoch + 1};
	BUG_ON(s->agent_side || s->state != PARKED);
	if (!link_can_open(l))
		return -1;
	str_hex(f.session, s->id, sizeof s->id);
	offset_fields(s, &f);
	int32_t stream = h2_connect(link_h2(l), &f, s);
	if (stream < 0)
		return -1;
	s->epoch++;
	put_on_link(s, l, stream);
	set_state(s, RESUMING);
	timer_start(&s->timer, s->established ? s->resume_ms : s->connect_ms);
	return 0;
}

static void resume_answered(struct session *s, const struct h2_fields *f)
{
	bool first = !s->established;
	timer_stop(&s->timer);
	set_state(s, OPEN);
	if (s->aborted) {
		h2_reset(link_h2(s->link), s->stream, reason_code(s->abort_why));
		link_touch(s->link);
		return;
	}
	if (rewind_to(s, f) != 0) {
		break_off(s, REASON_PROTOCOL);
		return;
	}
	establish(s);
	stat_add(STAT_SESSIONS_RESUMED, 1);
	if (first && s->owner)
		s->ev->on_open(s->owner, f->target);
	if (!s->aborted)
		go_on(s);
}

static enum reason refusal(const struct h2_fields *f)
{
	return reason_from_word(f->reason, f->status == 403 ? REASON_DENIED : f->status == 404 ? REASON_NO_SERVICE : REASON_PROTOCOL);
}

/* A refusal with an offset ends what had been established, though we were never told; else nothing was consumed there. */
static void resume_refused(struct session *s, const struct h2_fields *f)
{
	enum reason why = refusal(f);
	if (!s->owner && !all_but_proven(s))
		destroy(s);
	else if (why == REASON_LOST)
		lose(s, why, true);
	else
		end(s, why, !f->has_offset);
}

static void opening_answered(struct session *s, const struct h2_fields *f)
{
	if (f->status < 200 || f->status >= 300) {
		end(s, refusal(f), true);
		return;
	}
	establish(s);
	timer_stop(&s->timer);
	set_state(s, OPEN);
	s->ev->on_open(s->owner, f->target);
	unblock(s);
}

static void answered(struct rider *r, const struct h2_fields *f)
{
	struct session *s = of(r);
	if (s->state == RESUMING && f->status >= 200 && f->status < 300)
		resume_answered(s, f);
	else if (s->state == RESUMING)
		resume_refused(s, f);
	else if (s->state == OPENING && !s->aborted)
		opening_answered(s, f);
}

/* The agent's answer, to an opening or a resuming request. */
static void answer(struct session *s, const char *target)
{
	struct h2_fields f = {.status = 200};
	if (s->waits_answer)
		offset_fields(s, &f);
	if (target)
		str_copy(f.target, sizeof f.target, target);
	s->waits_answer = false;
	if (s->link && s->stream)
		(void)h2_answer(link_h2(s->link), s->stream, &f, false);
}

void session_established(struct session *s, const char *target)
{
	BUG_ON(!s->agent_side || s->established);
	s->established = true;
	if (!s->stream)
		return; /* parked: answered when the hub asks again */
	answer(s, target);
	go_on(s);
}

/* The hub gets the exact reason as the answer; the session stays until that has arrived. */
static void refuse(struct session *s)
{
	struct h2_fields f = {.has_offset = s->established, .offset = s->in.consumed};
	link_refuse_with(s->link, s->stream, (enum reason)s->abort_why, &f);
}

void session_resumed(struct session *s, struct link *l, int32_t stream, const struct h2_fields *f)
{
	BUG_ON(!s->agent_side || s->dead);
	if (!link_stream_open(l, stream))
		return;
	bool given_up = s->out.confirmed; /* the hub may have come too late, and what it lacks is gone */
	if (f->epoch <= s->epoch || (!s->aborted && rewind_to(s, f) != 0)) {
		link_refuse(l, stream, given_up ? REASON_LOST : REASON_PROTOCOL);
		return; /* as before: a later request may be right */
	}
	s->epoch = f->epoch;
	detach(s, reason_code(REASON_LINK_CLOSED));
	timer_stop(&s->timer);
	put_on_link(s, l, stream);
	h2_bind(link_h2(l), stream, s);
	set_state(s, OPENING);
	if (s->aborted) {
		refuse(s);
		return;
	}
	s->waits_answer = true;
	stat_add(STAT_SESSIONS_RESUMED, 1);
	if (!s->established)
		return;
	answer(s, NULL);
	go_on(s);
}

static uint32_t patience(const struct session *s)
{
	uint64_t waited = asked_for_ms(s), left = waited < s->connect_ms ? s->connect_ms - waited : 0;

	return unanswered(s) && left < s->resume_ms ? (uint32_t)left : s->resume_ms;
}

static void park(struct session *s)
{
	s->stream = 0;
	s->waits_answer = false;
	set_state(s, PARKED);
	timer_start(&s->timer, patience(s));
}

void session_give_back(struct list *parked)
{
	list_for_each_safe (n, parked) {
		struct session *s = session_of_node(n);

		if (unanswered(s) && untouched(s) && s->out.sent_high == 0)
			end(s, REASON_LOST, true);
	}
}

void session_park(struct session *s, struct list *parked)
{
	leave_lists(s);
	settle_input(s);
	s->link = NULL;
	list_add(parked, &s->r.node);
	park(s);
}

/* The link lives on but does not carry the session any more. Whoever owns the link may park it elsewhere; else it waits where it is. */
static void strand(struct session *s)
{
	list_del(&s->r.credit_node);
	h2_bind(link_h2(s->link), s->stream, NULL);
	park(s);
	link_strand(s->link, &s->r);
}

void session_unlink(struct session *s, struct list *parked)
{
	detach(s, reason_code(REASON_LINK_CLOSED));
	session_park(s, parked);
}

/* ---- towards the other side ---- */

static void limit_ring(struct session *s)
{
	struct outgoing *o = &s->out;
	if (o->ring.len == 0 && o->limit > RING_MIN && clock_ms() - o->idle_since_ms > RING_IDLE_MS)
		o->limit = RING_MIN;
}

static void measure(struct outgoing *o)
{
	if (o->grow_mark)
		return;
	o->grow_mark = o->end;
	o->grow_us = clock_us();
}

int session_reserve(struct session *s, struct iovec *iov, int max)
{
	struct outgoing *o = &s->out;
	limit_ring(s);
	if (o->ring.len >= o->limit) {
		o->blocked = true;
		measure(o);
		return 0;
	}
	int n = bufq_reserve(&o->ring, o->limit - o->ring.len, iov, max);
	if (n == 0) {
		o->blocked = true;
		if (s->state == OPEN && !timer_running(&s->timer))
			timer_start(&s->timer, MEMORY_RETRY_MS);
	}
	return n;
}

static void wake(struct session *s)
{
	bool may_send = s->state == OPEN || (s->state == OPENING && !s->agent_side);
	if (!s->link || !s->stream || !may_send)
		return;
	h2_wake(link_h2(s->link), s->stream);
	link_touch(s->link);
}

void session_commit(struct session *s, size_t n)
{
	bool waiting = s->out.sent < s->out.end;
	BUG_ON(s->out.fin && n > 0);
	bufq_commit(&s->out.ring, n);
	s->out.end += n;
	if (n > 0 && !waiting)
		wake(s);
}

void session_fin(struct session *s)
{
	BUG_ON(s->out.fin);
	s->out.fin = true;
	wake(s);
}

/* A large frame ends with a chunk, so that the next one begins with one and is sent from where it lies. */
static size_t in_whole_chunks(struct session *s, size_t room)
{
	size_t rest = bufq_rest(&s->out.ring, &s->out.cur);
	return room < rest + BUFQ_CHUNK ? room : rest + (room - rest) / BUFQ_CHUNK * BUFQ_CHUNK;
}

static size_t ready(struct rider *r, size_t room, bool *fin)
{
	struct session *s = of(r);
	const struct outgoing *o = &s->out;
	uint64_t unsent = o->end - o->sent;
	if (s->state == RESUMING || s->aborted || (s->agent_side && s->state == OPENING))
		return 0;
	size_t n = unsent < room ? (size_t)unsent : in_whole_chunks(s, room);
	*fin = o->fin && o->sent + n == o->end;
	return n;
}

static size_t next(struct rider *r, const void **at, size_t len)
{
	struct outgoing *o = &of(r)->out;
	return bufq_next(&o->ring, &o->cur, at, len);
}

static void made(struct rider *r, size_t len, bool fin)
{
	struct session *s = of(r);
	struct outgoing *o = &s->out;
	o->sent += len;
	if (o->sent > o->sent_high)
		o->sent_high = o->sent;
	if (fin)
		o->fin_sent = true;
	if (s->parting && o->sent == o->end)
		timer_start(&s->timer, 0); /* not from in here: the frame is being made */
}

/* More room only for who empties what there is quickly: that bounds a slow reader's memory at what it needs, and many bulk flows at what stays in the
 * CPU's cache. */
static void grow_ring(struct session *s)
{
	struct outgoing *o = &s->out;
	uint64_t within = GROW_WITHIN_US + 2ull * link_rtt_least_us(s->link);
	struct mem_usage use;
	if (!o->grow_mark || o->acked < o->grow_mark)
		return;
	o->grow_mark = 0;
	if (clock_us() - o->grow_us > within || o->limit >= RING_MAX)
		return;
	mem_usage(MEM_CHUNK, &use);
	if (use.limit == 0 || use.used + o->limit * 2 / BUFQ_CHUNK <= use.limit / 2)
		o->limit *= 2;
}

static void credited(struct rider *r, uint32_t bytes)
{
	struct session *s = of(r);
	struct outgoing *o = &s->out;
	if (s->aborted)
		return;
	if (bytes > o->sent - o->acked || s->state == RESUMING || s->waits_answer) {
		break_off(s, REASON_PROTOCOL);
		return;
	}
	bufq_drop(&o->ring, bytes);
	o->acked += bytes;
	if (o->ring.len == 0) {
		bufq_seek(&o->ring, &o->cur, 0);
		o->idle_since_ms = clock_ms();
	}
	grow_ring(s);
	unblock(s);
}

/* ---- from the other side ---- */

static void data_came(struct rider *r, const uint8_t *data, size_t len)
{
	struct session *s = of(r);
	struct incoming *in = &s->in;
	if (in->fin || s->waits_answer) { /* its end was here, on a stream before this one; or it does not know yet from where to go on */
		break_off(s, REASON_PROTOCOL);
		return;
	}
	in->got += len;
	if (in->got - in->credited > in->peak)
		in->peak = in->got - in->credited;
	if (!s->owner) {
		in->consumed += len;
		return;
	}
	if (add_slice(s, data, len) != 0) {
		break_off(s, REASON_RESOURCES);
		return;
	}
	if (list_empty(&s->r.ready_node))
		list_add(link_ready(s->link), &s->r.ready_node);
}

static void fin_came(struct rider *r)
{
	struct session *s = of(r);
	s->in.fin = true;
	if (s->owner && list_empty(&s->r.ready_node))
		list_add(link_ready(s->link), &s->r.ready_node);
}

static void deliver(struct rider *r)
{
	struct session *s = of(r);
	hold(s);
	if (s->owner)
		s->ev->on_readable(s->owner);
	if (!s->dead && flatten(s) != 0)
		break_off(s, REASON_RESOURCES);
	unhold(s);
}

int session_peek(const struct session *s, struct iovec *iov, int max)
{
	int n = bufq_peek(&s->in.backlog, iov, max);
	for (uint16_t i = s->in.first; i && n < max; i = slices[i].next, n++)
		iov[n] = (struct iovec){(void *)slices[i].data, slices[i].len};
	return n;
}

/* When to say what was consumed: at once when it is a good part of what is under way, else with the next output. */
static void plan_credit(struct session *s)
{
	struct incoming *in = &s->in;
	uint64_t threshold = in->peak / 4;
	bool drained = in->consumed == in->got;
	if (!s->stream || in->consumed <= in->credited) /* after a resume with the end received, all is credited already */
		return;
	uint64_t owed = in->consumed - in->credited;
	if (threshold < CREDIT_MIN)
		threshold = CREDIT_MIN;
	if (threshold > CREDIT_MAX)
		threshold = CREDIT_MAX;
	bool due = owed >= threshold || (drained && owed >= CREDIT_SOON);
	if (!due && !drained)
		return;
	if (list_empty(&s->r.credit_node))
		list_add(link_credit(s->link), &s->r.credit_node);
	if (due)
		link_touch(s->link);
	else
		link_lazy(s->link);
}

static void flush_credit(struct rider *r)
{
	struct session *s = of(r);
	struct incoming *in = &s->in;
	list_del(&s->r.credit_node);
	if (!s->stream || in->consumed <= in->credited)
		return;
	h2_credit(link_h2(s->link), s->stream, (uint32_t)(in->consumed - in->credited));
	in->credited = in->consumed;
	in->peak -= in->peak / 8;
	if (in->got - in->credited > in->peak)
		in->peak = in->got - in->credited;
}

void session_consume(struct session *s, size_t n)
{
	struct incoming *in = &s->in;
	size_t from_backlog = n < in->backlog.len ? n : in->backlog.len;
	bufq_drop(&in->backlog, from_backlog);
	in->consumed += n;
	for (n -= from_backlog; n > 0;) {
		struct slice *sl = &slices[in->first];
		BUG_ON(!in->first);
		size_t part = n < sl->len ? n : sl->len;
		sl->data += part;
		sl->len -= (uint32_t)part;
		n -= part;
		if (sl->len == 0)
			in->first = sl->next;
	}
	if (!in->first)
		in->last = 0;
	plan_credit(s);
}

bool session_ended(const struct session *s)
{
	return s->in.fin && s->in.got == s->in.consumed;
}

/* ---- the end ---- */

static void wait_for_proof(struct session *s)
{
	struct link *l = s->link;
	link_part(l, &s->r);
	s->r.barrier = link_barrier(l);
	link_join_tail(l, &s->r);
}

static void closed(struct rider *r, uint32_t code)
{
	struct session *s = of(r);
	bool refused = code == H2_REFUSED_STREAM, asked = s->state == RESUMING;
	if (asked && refused) {
		strand(s); /* the link was about to end */
	} else if (!asked && (s->aborted || (s->out.fin_sent && s->in.fin))) {
		s->stream = 0;
		list_del(&s->r.credit_node);
		wait_for_proof(s);
	} else {
		s->stream = 0;
		end(s, reason_from_code(code, refused ? REASON_DRAINING : REASON_PROTOCOL), refused);
	}
}

/* What came with a RST is the owner's as far as it takes it at once, as with TCP. false: the session is over, or will be. */
static bool last_words(struct session *s)
{
	bool goes_on;
	if (s->agent_side || !s->owner || list_empty(&s->r.ready_node))
		return true;
	list_del(&s->r.ready_node);
	hold(s);
	s->ev->on_readable(s->owner);
	goes_on = !s->dead && !s->aborted;
	unhold(s);
	return goes_on;
}

static void was_reset(struct rider *r, uint32_t code)
{
	struct session *s = of(r);
	enum reason why = reason_from_code(code, s->agent_side ? REASON_CLIENT_RESET : REASON_TARGET_RESET);
	if (s->aborted)
		return; /* on_closed follows */
	if (why == REASON_LINK_CLOSED || (code == H2_REFUSED_STREAM && s->state == RESUMING)) {
		strand(s);
		return;
	}
	if (!last_words(s))
		return;
	h2_bind(link_h2(s->link), s->stream, NULL);
	s->stream = 0;
	if (code == H2_REFUSED_STREAM)
		end(s, REASON_DRAINING, true);
	else
		end(s, why == REASON_DONE ? REASON_PROTOCOL : why, false);
}

static void confirmed(struct rider *r)
{
	struct session *s = of(r);
	struct outgoing *o = &s->out;
	bufq_clear(&o->ring);
	bufq_seek(&o->ring, &o->cur, 0);
	o->acked = o->sent = o->end;
	o->confirmed = true;
	leave_lists(s);
	s->link = NULL;
	list_add(loose_list(), &s->r.node);
	if (!s->owner)
		destroy(s);
}

void session_release(struct session *s)
{
	BUG_ON(!s->out.fin || !session_ended(s));
	s->owner = NULL;
	if (s->out.confirmed)
		destroy(s);
}

void session_abort(struct session *s, enum reason why)
{
	BUG_ON(s->dead);
	s->owner = NULL;
	s->aborted = true;
	s->abort_why = (uint8_t)why;
	bufq_clear(&s->out.ring);
	bufq_clear(&s->in.backlog);
	drop_slices(s);
	if (s->out.confirmed || s->state == KEPT)
		destroy(s);
	else if (s->state == RESUMING || !s->stream)
		return; /* said when there is a link and its answer; or the stream is closed and waits for its proof */
	else {
		timer_stop(&s->timer);
		if (s->agent_side && s->state == OPENING)
			refuse(s);
		else
			h2_reset(link_h2(s->link), s->stream, reason_code(why));
		link_touch(s->link);
	}
}

/* ---- moving ---- */

void session_part(struct session *s, enum reason why)
{
	if (s->state != OPEN || !s->stream || s->out.sent == s->out.end) {
		session_abort(s, why);
		return;
	}
	s->owner = NULL;
	s->parting = true;
	s->abort_why = (uint8_t)why;
	bufq_clear(&s->in.backlog);
	drop_slices(s);
	s->in.consumed = s->in.got;
	timer_start(&s->timer, PARTING_MS);
}

void session_leave(struct session *s)
{
	BUG_ON(!s->agent_side && s->stream); /* what is under way to it would be lost, though the link proves its arrival */
	detach(s, reason_code(REASON_LINK_CLOSED));
	timer_stop(&s->timer);
	set_state(s, s->state == KEPT ? KEPT : MOVING);
	table_del(s);
	stat_add(STAT_SESSIONS_MOVED, 1);
	if (s->owner)
		s->ev->on_leave(s->owner);
}

void session_arrive(struct session *s)
{
	struct session *bar = s->agent_side ? lookup(s->id) : NULL;
	if (bar)
		destroy(bar); /* found after all, on the thread it comes from */
	table_add(s);
	list_add(loose_list(), &s->r.node);
	if (s->owner)
		s->ev->on_arrive(s->owner);
}

void session_end_list(struct list *l, enum reason why)
{
	while (!list_empty(l))
		end(session_of_node(l->next), why, false);
}

void session_stop_all(enum reason why)
{
	session_end_list(loose_list(), why);
}

static void park_rider(struct rider *r, struct list *parked)
{
	session_park(of(r), parked);
}

static void stop_rider(struct rider *r, enum reason why)
{
	end(of(r), why, false);
}

static const struct rider_events riding = {
	.answered = answered,
	.data_came = data_came,
	.fin_came = fin_came,
	.credited = credited,
	.was_reset = was_reset,
	.closed = closed,
	.ready = ready,
	.next = next,
	.made = made,
	.deliver = deliver,
	.flush_credit = flush_credit,
	.confirmed = confirmed,
	.park = park_rider,
	.stop = stop_rider,
};

void session_thread_fini(void)
{
	free(slices);
	free(table);
	slices = NULL;
	table = NULL;
	table_size = 0;
}

/* ---- what others may know ---- */

const char *session_id(const struct session *s)
{
	static _Thread_local char text[4][33];
	static _Thread_local unsigned turn;
	char *t = text[turn++ % 4];
	str_hex(t, s->id, sizeof s->id);
	return t;
}

uint64_t session_sent(const struct session *s)
{
	return s->out.end;
}

uint64_t session_got(const struct session *s)
{
	return s->in.consumed;
}

bool session_established_p(const struct session *s)
{
	return s->established;
}

bool session_parked(const struct session *s)
{
	return s->state == PARKED || s->state == RESUMING;
}

void *session_owner(const struct session *s)
{
	return s->owner;
}

const uint8_t *session_peer(const struct session *s)
{
	return s->peer;
}

uint32_t session_epoch(const struct session *s)
{
	return s->epoch;
}

struct session *session_of_node(struct list *node)
{
	return container_of(node, struct session, r.node);
}

