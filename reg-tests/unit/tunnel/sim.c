/* The session engine as a whole, without sockets: a hub and an agent, links made of byte pipes that deliver in random pieces, break at random
 * points and are mourned at different times on their two sides, owners that read, write, stall, half-close, refuse and reset at random.
 * Every byte is checked, every session must come to an end that the other side's explains, and nothing may be left behind.
 *   sim                      the normal run       sim SEED [-v]          one schedule, told
 *   sim --count N --from S   so many schedules */
#include "tunnel/session.c"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define COUNT 10000
#define LARGE_EVERY 2000 /* seeds of which one is large */
#define WIRES 4
#define TRIES 4
#define FLOWS_MAX 200
#define CLAIMS (FLOWS_MAX * 4)

/* ---- the source of chance: a seed, or a fuzzer's bytes ---- */

static struct {
	uint64_t state;
	const uint8_t *bytes;
	size_t left;
} chance;

static uint64_t mix64(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t draw(void)
{
	chance.state += UINT64_C(0x9e3779b97f4a7c15);
	return mix64(chance.state);
}

static uint64_t below(uint64_t n)
{
	uint64_t v = 0;
	if (n <= 1)
		return 0;
	if (chance.left == 0)
		return draw() % n;
	for (uint64_t max = n - 1; max > 0 && chance.left > 0; max >>= 8, chance.left--)
		v = v << 8 | *chance.bytes++;
	return v % n;
}

static bool one_in(uint64_t n)
{
	return below(n) == 0;
}

/* In place of the kernel's: an id's digits decide how long a header becomes, and so where a link can break. */
void rnd_bytes(void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)draw();
}

/* ---- the world ---- */

struct flow;

enum fate { LIVE, DONE, ABORTED, ENDED };

struct party { /* the owner of a session, as edge/pump is one */
	struct flow *f;
	struct session *s;   /* borrowed; NULL when it is over */
	uint8_t id[16];      /* of the session, as it is now */
	bool hub, open, fin, away;
	bool full, dry;      /* was told that there is no room, nothing to read: does not ask again before it is called */
	uint64_t made, total, eaten;
	uint64_t open_us;    /* agent: when its target answers */
	enum reason refuse;  /* agent: how it answers instead; DONE: not at all */
	enum fate fate;
	enum reason why;     /* how it ended or was aborted */
	uint32_t stall;      /* steps in which it reads nothing */
};

struct flow { /* a client and the targets it was brought to, one a try */
	unsigned index;
	struct party hub, agent[TRIES];
	unsigned agents, tries;
	enum reason refused; /* at the last try, by link_refuse */
	bool was_refused, kept, retry_ok;
};

struct way { /* bytes under way in one direction */
	uint8_t *data;
	size_t len, cap;
};

struct end {
	struct wire *w;
	struct link *l;      /* owned; NULL: gone */
	struct way in;
	bool hub, wants, dead;
	uint64_t asleep_us;  /* its thread has other things to do until then */
	uint64_t down_us;    /* when it learns that the wire is cut; 0: it does not */
};

struct wire {
	struct end hub, agent;
	bool used, cut;
	uint64_t retire_us;  /* a GOAWAY was sent: cut at this time */
};

struct request { /* to go on, on its way through the agent's threads */
	struct wire *w;
	struct link *l;
	int32_t stream;
	struct h2_fields f;
	uint64_t due_us;
};

static struct {
	uint64_t seed, us, quiet_until_us;
	bool loud, large, harsh, poor, draining;
	uint32_t connect_ms, resume_ms;
	unsigned flows_n, opened, chaos;
	struct flow *flow;
	struct wire wire[WIRES];
	struct list hub_parked, agent_parked;
	struct session *moving[FLOWS_MAX * 2];
	unsigned moving_n;
	struct request request[CLAIMS];
	unsigned requests_n;
	bool moved_bytes;
} sim;

static struct {
	uint64_t schedules, large, harsh, poor, sessions, done, bytes, cuts, resumes, resets, ends, refusals, keeps, reopened, moves, strands, goaways,
		timeouts, lost, stale, late, dead, resources, max_ring, parked_fin;
} seen;

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...)
{
	va_list ap;
	if (!sim.loud)
		return;
	printf("%8.3f ", (double)sim.us / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *fmt, ...)
{
	va_list ap;
	fflush(stdout);
	fprintf(stderr, "sim: seed %" PRIu64 " at %.3f ms: ", sim.seed, (double)sim.us / 1000);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	abort();
}

static const char *name(const struct party *p)
{
	static char text[4][32];
	static unsigned turn;
	char *t = text[turn++ % 4];
	if (p->hub)
		snprintf(t, sizeof text[0], "hub %u", p->f->index);
	else
		snprintf(t, sizeof text[0], "agent %u.%u", p->f->index, (unsigned)(p - p->f->agent));
	return t;
}

/* ---- bytes: each depends on its place, so that none can be lost, doubled or misplaced unseen ---- */

static uint64_t key_of(const struct flow *f, bool from_hub)
{
	return mix64(sim.seed * 1000003 + f->index * 2 + from_hub);
}

static uint8_t byte_at(uint64_t key, uint64_t at)
{
	uint64_t x = (key + (at >> 3)) * UINT64_C(0x9e3779b97f4a7c15);
	x ^= x >> 29;
	return (uint8_t)(x >> (at & 7) * 8);
}

static size_t iov_sum(const struct iovec *iov, int n)
{
	size_t sum = 0;
	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

static void write_pattern(uint64_t key, uint64_t at, const struct iovec *iov, size_t n)
{
	for (; n > 0; iov++) {
		size_t part = n < iov->iov_len ? n : iov->iov_len;
		for (size_t i = 0; i < part; i++)
			((uint8_t *)iov->iov_base)[i] = byte_at(key, at + i);
		at += part;
		n -= part;
	}
}

static void check_pattern(const struct party *p, uint64_t key, uint64_t at, const struct iovec *iov, size_t n)
{
	for (; n > 0; iov++) {
		size_t part = n < iov->iov_len ? n : iov->iov_len;
		for (size_t i = 0; i < part; i++)
			if (((const uint8_t *)iov->iov_base)[i] != byte_at(key, at + i))
				fail("%s: wrong byte at %" PRIu64, name(p), at + i);
		at += part;
		n -= part;
	}
}

/* ---- what an owner does ---- */

/* NULL: the request has not come, or the hub has turned to another try. */
static struct party *other_of(struct party *p)
{
	if (!p->hub)
		return memcmp(p->f->hub.id, p->id, sizeof p->id) == 0 ? &p->f->hub : NULL;
	for (unsigned i = 0; i < p->f->agents; i++)
		if (memcmp(p->f->agent[i].id, p->id, sizeof p->id) == 0)
			return &p->f->agent[i];
	return NULL;
}

static size_t amount(size_t max)
{
	if (max == 0)
		return 0;
	switch (below(4)) {
	case 0: return 1;
	case 1: return max < 200 ? max : 1 + below(200);
	default: return sim.draining || one_in(2) ? max : 1 + below(max);
	}
}

static void feed(struct party *p)
{
	struct iovec iov[3];
	uint64_t key = key_of(p->f, p->hub);
	if (!p->s || p->fin || p->away || p->full || (!p->hub && !p->open))
		return;
	for (int i = 0; i < 64 && p->made < p->total; i++) {
		int n = session_reserve(p->s, iov, 1 + (int)below(3));
		p->full = n == 0;
		if (n == 0)
			return;
		uint64_t left = p->total - p->made;
		size_t room = iov_sum(iov, n), k = amount(room < left ? room : (size_t)left);
		if (k > 0 && one_in(50))
			k = 0;
		write_pattern(key, p->made, iov, k);
		session_commit(p->s, k);
		p->made += k;
		sim.moved_bytes |= k > 0;
		if (!sim.draining && one_in(3))
			return;
	}
	if (p->made == p->total && (sim.draining || one_in(3))) {
		tell("%s: fin at %" PRIu64, name(p), p->made);
		p->fin = true;
		session_fin(p->s);
		sim.moved_bytes = true;
	}
}

static void let_go(struct party *p)
{
	struct party *o = other_of(p);
	if (!o && !p->hub && sim.harsh)
		o = &p->f->hub; /* it gave this try up, but has the same bytes for the next */
	if (!o || p->eaten != o->made || !o->fin)
		fail("%s: its end came after %" PRIu64 " bytes, %" PRIu64 " were sent%s", name(p), p->eaten, o ? o->made : 0, o && o->fin ? "" : " and no end");
	if (session_got(p->s) != p->eaten || session_sent(p->s) != p->made)
		fail("%s: session counts %" PRIu64 " and %" PRIu64, name(p), session_got(p->s), session_sent(p->s));
	tell("%s: done", name(p));
	p->fate = DONE;
	session_release(p->s);
	p->s = NULL;
	seen.done++;
	sim.moved_bytes = true;
}

static void eat(struct party *p)
{
	struct iovec iov[4];
	if (!p->s || p->away || (!p->hub && !p->open) || p->stall)
		return;
	for (int i = 0; i < 64 && !p->dry; i++) {
		int n = session_peek(p->s, iov, 1 + (int)below(4));
		size_t k = amount(iov_sum(iov, n));
		p->dry = n == 0;
		if (n == 0)
			break;
		check_pattern(p, key_of(p->f, !p->hub), p->eaten, iov, k);
		p->eaten += k;
		seen.bytes += k;
		session_consume(p->s, k);
		sim.moved_bytes = true;
		if (!sim.draining && one_in(4))
			break;
	}
	if (p->fin && session_ended(p->s) && (sim.draining || one_in(2)))
		let_go(p);
}

static void give_up(struct party *p, enum reason why)
{
	tell("%s: aborts with %s", name(p), reason_word(why));
	struct session *s = p->s;
	p->fate = ABORTED;
	p->why = why;
	p->s = NULL;
	seen.resets++;
	if (!p->hub && why == REASON_TARGET_RESET)
		session_part(s, why);
	else
		session_abort(s, why);
}

static void maybe_give_up(struct party *p, unsigned rarity)
{
	static const enum reason whys[] = {REASON_CLIENT_RESET, REASON_IDLE, REASON_TARGET_RESET, REASON_HALF_CLOSED, REASON_KILLED, REASON_STOPPED};
	if (p->s && !p->away && !sim.draining && (p->hub || p->open) && one_in(rarity))
		give_up(p, whys[below(sizeof whys / sizeof whys[0])]);
}

static void on_open(void *owner, const char *target)
{
	struct party *p = owner;
	tell("%s: open", name(p));
	if (!p->hub || p->open)
		fail("%s: opened twice", name(p));
	p->open = true;
	maybe_give_up(p, 60);
}

static void on_readable(void *owner)
{
	struct party *p = owner;
	p->dry = false;
	if (!one_in(4))
		eat(p);
	maybe_give_up(p, 500);
}

static void on_writable(void *owner)
{
	struct party *p = owner;
	p->full = false;
	if (!one_in(4))
		feed(p);
	maybe_give_up(p, 500);
}

/* ---- ends, and whether the other side explains them ---- */

static bool explained(struct party *p, enum reason why)
{
	struct flow *f = p->f;
	struct party *o = other_of(p);
	if (sim.harsh && (why == REASON_RESUME_TIMEOUT || why == REASON_CONNECT_TIMEOUT || why == REASON_LOST))
		return true;
	if (sim.poor && why == REASON_RESOURCES)
		return true;
	if (o && o->fate == ABORTED && o->why == why)
		return true;
	if (!o && !p->hub)
		return sim.harsh;
	if (!p->hub)
		return o && o->fate == ENDED && o->why == why && sim.harsh;
	if (f->was_refused && f->refused == why)
		return true;
	return !p->open && (why == REASON_LOST || why == REASON_DRAINING);
}

static void on_end(void *owner, enum reason why, bool refused)
{
	struct party *p = owner;
	struct party *o = other_of(p);
	tell("%s: ends with %s%s", name(p), reason_word(why), refused ? ", refused" : "");
	if (p->away || !p->s)
		fail("%s: ended while it was away or over", name(p));
	if (why == REASON_DONE || !explained(p, why))
		fail("%s: unexplained end %s", name(p), reason_word(why));
	if (refused && (!p->hub || p->open || p->eaten || (o && o->eaten)))
		fail("%s: is said to be refused, but bytes were consumed", name(p));
	seen.ends++;
	seen.timeouts += why == REASON_RESUME_TIMEOUT || why == REASON_CONNECT_TIMEOUT;
	seen.lost += why == REASON_LOST;
	seen.resources += why == REASON_RESOURCES;
	seen.refusals += refused;
	if (refused && p->f->tries < TRIES && !one_in(4)) {
		session_keep(p->s);
		p->f->kept = true;
		seen.keeps++;
		return;
	}
	p->fate = ENDED;
	p->why = why;
	p->s = NULL;
}

static void on_leave(void *owner)
{
	struct party *p = owner;
	if (p->away)
		fail("%s: leaves twice", name(p));
	p->away = true;
}

static void on_arrive(void *owner)
{
	struct party *p = owner;
	if (!p->away)
		fail("%s: arrives twice", name(p));
	p->away = false;
}

static const struct session_events party_events = {
	.on_open = on_open,
	.on_readable = on_readable,
	.on_writable = on_writable,
	.on_end = on_end,
	.on_leave = on_leave,
	.on_arrive = on_arrive,
};

/* ---- links ---- */

static void way_add(struct way *w, const uint8_t *data, size_t len)
{
	if (w->len + len > w->cap) {
		w->cap = (w->len + len) * 2;
		w->data = xrealloc(w->data, w->cap);
	}
	memcpy(w->data + w->len, data, len);
	w->len += len;
}

static void on_output(void *owner)
{
	struct end *e = owner;
	e->wants = true;
}

static void on_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
}

static void on_goaway(void *owner, enum reason why)
{
	struct end *e = owner;
	if (!e->w->retire_us)
		fail("a GOAWAY out of nothing");
}

static void on_dead(void *owner, enum reason why)
{
	struct end *e = owner;
	tell("link %d of the %s is dead: %s", (int)(e->w - sim.wire), e->hub ? "hub" : "agent", reason_word(why));
	if (why != REASON_LINK_DEAD)
		fail("a link broke of itself: %s, %s", reason_word(why), h2_error(link_h2(e->l)));
	e->dead = true;
	seen.dead++;
}

static void on_strand(void *owner, struct list *node)
{
	struct end *e = owner;
	seen.strands++;
	if (e->hub)
		session_park(session_of_node(node), &sim.hub_parked);
}

static void take_request(struct end *e, int32_t stream, const struct h2_fields *f);

static void on_request(void *owner, int32_t stream, const struct h2_fields *f)
{
	take_request(owner, stream, f);
}

static const struct link_events hub_events = {
	.on_output = on_output, .on_hello = on_hello, .on_request = on_request, .on_goaway = on_goaway, .on_strand = on_strand, .on_dead = on_dead};
static const struct link_events agent_events = {
	.on_output = on_output, .on_hello = on_hello, .on_request = on_request, .on_goaway = on_goaway, .on_strand = on_strand, .on_dead = on_dead};

static struct end *far_end(struct end *e)
{
	return e->hub ? &e->w->agent : &e->w->hub;
}

static void end_open(struct wire *w, struct end *e, bool hub, uint32_t max_streams)
{
	*e = (struct end){.w = w, .hub = hub};
	e->l = link_new(hub ? H2_HUB : H2_AGENT, hub ? &hub_events : &agent_events, e, max_streams);
	if (!e->l)
		fail("no link");
	link_heartbeat(e->l, 500, 1500);
}

static bool wire_up(const struct wire *w)
{
	return w->used && !w->cut && !w->retire_us;
}

static void wire_open(void)
{
	for (int i = 0; i < WIRES; i++) {
		struct wire *w = &sim.wire[i];
		if (w->used)
			continue;
		uint32_t max = sim.large || sim.draining || one_in(2) ? 1000 : 1 + (uint32_t)below(6);
		tell("link %d: up, at most %u streams", i, max);
		*w = (struct wire){.used = true};
		end_open(w, &w->hub, true, max);
		end_open(w, &w->agent, false, max);
		return;
	}
}

static uint64_t soon(uint64_t max_us)
{
	return sim.us + 1 + below(max_us);
}

/* From a random byte on nothing arrives, in either direction; each side learns of it in its own time, or by silence. */
static void wire_cut(struct wire *w)
{
	uint64_t late = sim.harsh ? 3000000 : 300000;
	if (w->cut)
		return;
	tell("link %d: cut", (int)(w - sim.wire));
	w->cut = true;
	w->hub.in.len = below(w->hub.in.len + 1);
	w->agent.in.len = below(w->agent.in.len + 1);
	w->hub.down_us = one_in(6) ? 0 : soon(one_in(2) ? 1000 : late);
	w->agent.down_us = one_in(6) ? 0 : soon(one_in(2) ? 1000 : late);
	seen.cuts++;
}

static void end_down(struct end *e, enum reason why)
{
	struct list *parked = e->hub ? &sim.hub_parked : &sim.agent_parked;
	tell("link %d: down on the %s's side", (int)(e->w - sim.wire), e->hub ? "hub" : "agent");
	wire_cut(e->w);
	link_down(e->l, why, parked);
	link_free(e->l);
	e->l = NULL;
	free(e->in.data);
	e->in = (struct way){.len = 0};
	for (unsigned i = 0; i < sim.requests_n;)
		if (!e->hub && sim.request[i].w == e->w)
			sim.request[i] = sim.request[--sim.requests_n];
		else
			i++;
	e->w->used = e->w->hub.l || e->w->agent.l;
}

static void end_input(struct end *e)
{
	if (!e->l || e->dead || e->in.len == 0)
		return;
	size_t n = sim.draining || one_in(3) ? e->in.len : one_in(4) ? 1 + below(e->in.len < 40 ? e->in.len : 40) : 1 + below(e->in.len);
	uint8_t *piece = xmalloc(n); /* of its exact size and freed at once, so that ASan sees who keeps a place in it */
	memcpy(piece, e->in.data, n);
	memmove(e->in.data, e->in.data + n, e->in.len - n);
	e->in.len -= n;
	sim.moved_bytes = true;
	if (link_input(e->l, piece, n) != 0 && !e->dead)
		fail("link_input fails without on_dead");
	free(piece);
}

static void end_output(struct end *e)
{
	static uint8_t out[128 << 10];
	if (!e->l || e->dead || !(e->wants || link_wants_output(e->l)))
		return;
	e->wants = false;
	struct iovec iov[20];
	struct h2_sink k = {.buf = out, .size = one_in(2) ? sizeof out : 32 << 10, .iov = iov, .max = one_in(2) ? 20 : 2};
	h2_row(link_h2(e->l), one_in(2) ? H2_BULK_MAX : H2_DATA_MAX);
	ssize_t n = link_output(e->l, &k);
	if (n < 0)
		fail("link_output: %zd", n);
	for (int i = 0; i < k.n && !e->w->cut; i++)
		way_add(&far_end(e)->in, iov[i].iov_base, iov[i].iov_len);
	sim.moved_bytes |= n > 0;
}

static void end_run(struct end *e)
{
	if (e->asleep_us > sim.us && !sim.draining)
		return;
	if (!one_in(3) || sim.draining)
		end_input(e);
	if ((!one_in(3) || sim.draining) && far_end(e)->in.len < (4u << 20))
		end_output(e);
	if (e->l && (e->dead || (e->down_us && e->down_us <= sim.us)))
		end_down(e, e->dead ? REASON_LINK_DEAD : REASON_LINK_CLOSED);
}

static struct wire *any_wire(void)
{
	return &sim.wire[below(WIRES)];
}

/* ---- the agent's part of the registry and its dialling of targets ---- */

static bool is_barred(const struct h2_fields *f)
{
	uint8_t id[16];
	return str_unhex(id, sizeof id, f->session) && lookup(id) && !session_find(id);
}

static void accept_flow(struct end *e, int32_t stream, const struct h2_fields *f)
{
	static const enum reason whys[] = {REASON_NO_SERVICE, REASON_DENIED, REASON_AGENT_FULL, REASON_DRAINING, REASON_TARGET_REFUSED};
	struct flow *fl = &sim.flow[strtoul(f->client, NULL, 10)];
	if (fl->agents == TRIES)
		fail("flow %u came more often than it was sent", fl->index);
	if (!sim.draining && one_in(12)) {
		fl->was_refused = true;
		fl->refused = whys[below(sizeof whys / sizeof whys[0])];
		tell("flow %u: refused with %s", fl->index, reason_word(fl->refused));
		link_refuse(e->l, stream, fl->refused);
		return;
	}
	struct party *p = &fl->agent[fl->agents];
	uint64_t patience = sim.harsh ? 800000 : 100000;
	*p = (struct party){.f = fl, .total = fl->agent[0].total, .open_us = one_in(3) ? sim.us : soon(patience)};
	if (!sim.draining && one_in(12))
		p->refuse = whys[4];
	p->s = session_accept(e->l, stream, f, sim.resume_ms, &party_events, p);
	if (!p->s && is_barred(f)) {
		tell("flow %u: too late", fl->index);
		seen.late++;
		link_refuse(e->l, stream, REASON_LOST);
		return;
	}
	if (!p->s) {
		if (!sim.poor)
			fail("flow %u is not accepted", fl->index);
		fl->was_refused = true;
		fl->refused = REASON_RESOURCES;
		link_refuse(e->l, stream, REASON_RESOURCES);
		return;
	}
	memcpy(p->id, p->s->id, sizeof p->id);
	fl->agents++;
	tell("%s: accepted", name(p));
}

static void dial(struct party *p)
{
	if (!p->s || p->away || p->open || p->open_us > sim.us)
		return;
	if (p->refuse) {
		give_up(p, p->refuse);
		return;
	}
	p->open = true;
	tell("%s: established", name(p));
	session_established(p->s, "192.0.2.1:80");
}

static bool is_moving(const uint8_t id[16])
{
	for (unsigned i = 0; i < sim.moving_n; i++)
		if (sim.moving[i]->agent_side && memcmp(sim.moving[i]->id, id, 16) == 0)
			return true;
	return false;
}

static void leave(struct session *s)
{
	session_leave(s);
	sim.moving[sim.moving_n++] = s;
	seen.moves++;
}

/* False: the session is on its way between two threads, or was just sent on it. */
static bool claim(struct request *r)
{
	uint8_t id[16];
	if (!link_stream_open(r->l, r->stream))
		return true;
	if (!str_unhex(id, sizeof id, r->f.session))
		fail("bad id");
	struct session *s = session_find(id);
	if (!s && is_moving(id))
		return false;
	tell("session %s claimed: %s", r->f.session, s ? s->owner ? name(s->owner) : "ownerless" : "unknown");
	if (!s) {
		session_bar(id, sim.resume_ms);
		link_refuse(r->l, r->stream, REASON_LOST);
		return true;
	}
	if (r->f.epoch <= session_epoch(s)) {
		seen.stale++;
		link_refuse(r->l, r->stream, REASON_PROTOCOL);
		return true;
	}
	if (!sim.draining && one_in(4)) {
		leave(s);
		return false;
	}
	if (one_in(2))
		session_unlink(s, &sim.agent_parked);
	session_resumed(s, r->l, r->stream, &r->f);
	return true;
}

static void run_requests(void)
{
	for (unsigned i = 0; i < sim.requests_n;) {
		struct request *r = &sim.request[i];
		if (r->due_us <= sim.us && claim(r))
			*r = sim.request[--sim.requests_n];
		else
			i++;
	}
}

static void take_request(struct end *e, int32_t stream, const struct h2_fields *f)
{
	struct request r = {.w = e->w, .l = e->l, .stream = stream, .f = *f, .due_us = soon(one_in(6) ? 300000 : 2000)};
	if (e->hub || sim.requests_n == CLAIMS)
		fail("a request that should not be");
	if (!f->resume) {
		accept_flow(e, stream, f);
		return;
	}
	if (one_in(3))
		sim.request[sim.requests_n++] = r;
	else if (!claim(&r))
		sim.request[sim.requests_n++] = r;
}

/* ---- the hub's part ---- */

static struct link *any_link(void)
{
	unsigned first = (unsigned)below(WIRES);
	for (unsigned i = 0; i < WIRES; i++) {
		struct wire *w = &sim.wire[(first + i) % WIRES];
		if (w->hub.l && !w->hub.dead && link_can_open(w->hub.l))
			return w->hub.l;
	}
	return NULL;
}

static void open_flow(void)
{
	struct link *l = any_link();
	if (!l || sim.opened == sim.flows_n)
		return;
	struct flow *f = &sim.flow[sim.opened];
	char client[16];
	snprintf(client, sizeof client, "%u", f->index);
	struct session_about about = {.service = "web", .client = client, .local = "198.51.100.1:80", .listener = "front"};
	f->hub.s = session_open(l, &about, sim.connect_ms, sim.resume_ms, &party_events, &f->hub);
	if (!f->hub.s)
		fail("session_open failed");
	memcpy(f->hub.id, f->hub.s->id, sizeof f->hub.id);
	f->tries = 1;
	sim.opened++;
	seen.sessions++;
	tell("flow %u: session %s", f->index, session_id(f->hub.s));
	tell("flow %u: opened, %" PRIu64 " and %" PRIu64 " bytes", f->index, f->hub.total, f->agent[0].total);
}

static void retry(struct flow *f)
{
	struct link *l = any_link();
	if (!f->kept || f->hub.away)
		return;
	if (!f->hub.s) {
		f->kept = false;
		return;
	}
	if (!l || (!sim.draining && !one_in(3)))
		return;
	f->was_refused = false;
	if (session_reopen(f->hub.s, l) != 0)
		return;
	tell("flow %u: opened again", f->index);
	memcpy(f->hub.id, f->hub.s->id, sizeof f->hub.id);
	f->kept = false;
	f->tries++;
	seen.reopened++;
}

static void resume_parked(void)
{
	list_for_each_safe (n, &sim.hub_parked) {
		struct session *s = session_of_node(n);
		struct link *l = any_link();
		if (!l || (!sim.draining && one_in(3)))
			continue;
		if (!sim.draining && one_in(5)) {
			leave(s);
			continue;
		}
		tell("session %s of the hub resumes", session_id(s));
		seen.parked_fin += s->out.fin_sent && s->in.fin;
		if (session_resume(s, l) == 0)
			seen.resumes++;
	}
}

static void arrive_some(void)
{
	for (unsigned i = 0; i < sim.moving_n;) {
		struct session *s = sim.moving[i];
		if (!sim.draining && one_in(2)) {
			i++;
			continue;
		}
		sim.moving[i] = sim.moving[--sim.moving_n];
		session_arrive(s);
		if (s->state != KEPT)
			session_park(s, s->agent_side ? &sim.agent_parked : &sim.hub_parked);
	}
}

/* ---- disorder ---- */

static struct flow *any_flow(void)
{
	return &sim.flow[below(sim.opened)];
}

static struct party *any_party(void)
{
	struct flow *f = any_flow();
	return f->agents && one_in(2) ? &f->agent[f->agents - 1] : &f->hub;
}

static void move_any(void)
{
	struct party *p = any_party();
	if (!p->s || p->away || sim.moving_n >= FLOWS_MAX)
		return;
	if (p->s->link || (p->s->state != PARKED && p->s->state != KEPT))
		return;
	tell("%s: moves", name(p));
	leave(p->s);
}

static void say_goaway(void)
{
	struct wire *w = any_wire();
	if (!wire_up(w) || !w->hub.l || !w->agent.l)
		return;
	tell("link %d: goaway", (int)(w - sim.wire));
	struct link *l = one_in(2) ? w->hub.l : w->agent.l;
	if (one_in(3)) /* as others might; ours says it at the very end only */
		h2_goaway(link_h2(l), 0, "draining");
	else
		link_goaway(l, REASON_DRAINING);
	link_touch(l);
	w->retire_us = soon(200000);
	seen.goaways++;
}

static void disturb(void)
{
	switch (below(sim.chaos)) {
	case 0: wire_cut(any_wire()); break;
	case 1: say_goaway(); break;
	case 2:
	case 3: move_any(); break;
	case 4: maybe_give_up(any_party(), 3); break;
	case 5: any_party()->stall = 1 + (uint32_t)below(100); break;
	case 6: any_wire()->agent.asleep_us = soon(300000); break;
	case 7: any_wire()->hub.asleep_us = soon(300000); break;
	default: break;
	}
}

static void run_wires(void)
{
	unsigned up = 0;
	for (int i = 0; i < WIRES; i++) {
		struct wire *w = &sim.wire[i];
		if (w->used) {
			end_run(&w->hub);
			end_run(&w->agent);
		}
		if (w->used && w->cut && !w->hub.l != !w->agent.l && !w->hub.down_us && !w->agent.down_us && one_in(20))
			w->hub.down_us = w->agent.down_us = soon(100000);
		if (w->used && w->retire_us && w->retire_us <= sim.us)
			wire_cut(w);
		up += wire_up(w);
	}
	if (up == 0 && (sim.draining || one_in(sim.harsh ? 60 : 10)))
		wire_open();
	else if (up < WIRES - 1 && one_in(30))
		wire_open();
}

static void run_party(struct party *p)
{
	if (!p->hub)
		dial(p);
	if (sim.draining)
		p->stall = 0;
	else if (p->stall)
		p->stall--;
	if (sim.draining || one_in(2))
		feed(p);
	if (sim.draining || one_in(2))
		eat(p);
}

static void run_flows(void)
{
	for (unsigned i = 0; i < sim.opened; i++) {
		struct flow *f = &sim.flow[i];
		retry(f);
		run_party(&f->hub);
		for (unsigned k = 0; k < f->agents; k++)
			run_party(&f->agent[k]);
	}
}

/* ---- what must hold after every step ---- */

static void check_session(const struct party *p)
{
	const struct session *s = p->s;
	const struct outgoing *o = &s->out;
	const struct incoming *in = &s->in;
	if (o->acked > o->sent || o->sent > o->end || o->sent > o->sent_high || o->ring.len != o->end - o->acked)
		fail("%s: ring %zu, acked %" PRIu64 ", sent %" PRIu64 ", end %" PRIu64, name(p), o->ring.len, o->acked, o->sent, o->end);
	if (o->ring.len > o->limit || o->limit > RING_MAX)
		fail("%s: ring of %zu bytes, limit %u", name(p), o->ring.len, o->limit);
	if (in->first || in->got - in->consumed != in->backlog.len || in->consumed != p->eaten || o->end != p->made)
		fail("%s: got %" PRIu64 ", consumed %" PRIu64 ", backlog %zu", name(p), in->got, in->consumed, in->backlog.len);
	if (in->backlog.len > RING_MAX)
		fail("%s: backlog of %zu bytes", name(p), in->backlog.len);
	if (o->ring.len > seen.max_ring)
		seen.max_ring = o->ring.len;
}

static void check_flows(void)
{
	for (unsigned i = 0; i < sim.opened; i++) {
		struct flow *f = &sim.flow[i];
		if (f->hub.s)
			check_session(&f->hub);
		for (unsigned k = 0; k < f->agents; k++)
			if (f->agent[k].s)
				check_session(&f->agent[k]);
	}
}

static void step(void)
{
	sim.moved_bytes = false;
	clock_set_us(sim.us);
	timers_run();
	run_wires();
	run_requests();
	arrive_some();
	resume_parked();
	if (sim.opened < sim.flows_n && (sim.large || one_in(4)))
		open_flow();
	if (sim.opened > 0 && !sim.draining)
		disturb();
	run_flows();
	if (!sim.large || one_in(20))
		check_flows();
	mem_reclaim();
}

static void pass_time(void)
{
	if (sim.draining && !sim.moved_bytes) {
		int ms = timers_wait_ms();
		sim.us += ms > 0 ? (uint64_t)ms * 1000 : 1000;
	} else if (one_in(100)) {
		sim.us += below(400000);
	} else {
		sim.us += below(one_in(10) ? 30000 : 2000);
	}
}

/* ---- the end of a schedule ---- */

static bool all_over(void)
{
	if (sim.opened < sim.flows_n || session_count() > 0 || sim.moving_n > 0)
		return false;
	for (unsigned i = 0; i < sim.opened; i++) {
		struct flow *f = &sim.flow[i];
		if (f->hub.s)
			return false;
		for (unsigned k = 0; k < f->agents; k++)
			if (f->agent[k].s)
				return false;
	}
	return true;
}

static void describe_rest(void)
{
	for (unsigned i = 0; i < sim.opened; i++) {
		struct flow *f = &sim.flow[i];
		for (unsigned k = 0; k <= f->agents; k++) {
			struct party *p = k ? &f->agent[k - 1] : &f->hub;
			if (p->s)
				fprintf(stderr, "%s: state %d stream %d link %p made %" PRIu64 "/%" PRIu64 " eaten %" PRIu64 " fin %d ring %zu blocked %d\n", name(p),
					p->s->state, p->s->stream, (void *)p->s->link, p->made, p->total, p->eaten, p->fin, p->s->out.ring.len,
					p->s->out.blocked);
		}
	}
}

static void check_fates(struct flow *f)
{
	struct party *h = &f->hub, *a = other_of(h);
	if (h->fate == DONE && a->fate != DONE && a->fate != ABORTED && !sim.harsh && !sim.poor)
		fail("flow %u: done on the hub, not on the agent", f->index);
	if (a && a->fate == DONE && h->fate != DONE && h->fate != ABORTED && !sim.harsh && !sim.poor)
		fail("flow %u: done on the agent, not on the hub", f->index);
	if (h->fate == ABORTED && a && a->fate == ENDED && a->why != h->why && !sim.harsh && !sim.poor)
		fail("flow %u: the hub's %s came as %s", f->index, reason_word(h->why), reason_word(a->why));
	for (unsigned k = 0; k < f->agents; k++)
		if (&f->agent[k] != a && f->agent[k].fate != ABORTED && !sim.harsh && !sim.poor)
			fail("flow %u: an early try was not refused", f->index);
}

static void check_nothing_left(void)
{
	static const enum mem_kind kinds[] = {MEM_SESSION, MEM_LINK, MEM_CHUNK, MEM_MORSEL};
	struct mem_usage use;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		mem_usage(kinds[i], &use);
		if (use.used)
			fail("%zu left of %s", use.used, use.name);
	}
	if (timers_wait_ms() != -1)
		fail("a timer runs");
	if (!list_empty(&sim.hub_parked) || !list_empty(&sim.agent_parked) || table || stat_sum(STAT_SESSIONS_PARKED) != 0)
		fail("parked sessions are left");
}

static void drain(void)
{
	uint64_t limit = sim.us + 120000000;
	sim.draining = true;
	sim.chaos = 1000;
	mem_limit(MEM_CHUNK, 0);
	mem_limit(MEM_MORSEL, 0);
	for (unsigned i = 0; !all_over(); i++) {
		if (sim.us > limit || i > 200000) {
			describe_rest();
			fail("%zu sessions do not end", session_count());
		}
		step();
		pass_time();
	}
	for (unsigned i = 0; i < sim.opened; i++)
		check_fates(&sim.flow[i]);
	for (int i = 0; i < WIRES; i++) {
		if (sim.wire[i].hub.l)
			end_down(&sim.wire[i].hub, REASON_LINK_CLOSED);
		if (sim.wire[i].agent.l)
			end_down(&sim.wire[i].agent, REASON_LINK_CLOSED);
	}
	mem_reclaim();
	check_nothing_left();
}

/* ---- a schedule ---- */

static uint64_t size_of_stream(void)
{
	switch (below(8)) {
	case 0: return 0;
	case 1: return 1 + below(10);
	case 2: return below(sim.large ? 4u << 20 : 400000);
	default: return below(sim.large ? 100000 : 40000);
	}
}

static void plan(uint64_t seed)
{
	sim.seed = seed;
	sim.us = 1000000;
	sim.draining = false;
	sim.large = seed % LARGE_EVERY == LARGE_EVERY - 1;
	sim.harsh = one_in(5);
	sim.poor = one_in(8);
	sim.connect_ms = sim.harsh ? 50 + (uint32_t)below(500) : 20000;
	sim.resume_ms = sim.harsh ? 50 + (uint32_t)below(2000) : 30000;
	sim.flows_n = sim.large ? FLOWS_MAX : 1 + (unsigned)below(6);
	sim.chaos = 10 + (unsigned)below(one_in(3) ? 300 : 60);
	sim.opened = sim.moving_n = sim.requests_n = 0;
	memset(sim.wire, 0, sizeof sim.wire);
	list_init(&sim.hub_parked);
	list_init(&sim.agent_parked);
	sim.flow = xcalloc(sim.flows_n, sizeof *sim.flow);
	for (unsigned i = 0; i < sim.flows_n; i++) {
		sim.flow[i].index = i;
		sim.flow[i].hub = (struct party){.f = &sim.flow[i], .hub = true, .total = size_of_stream()};
		sim.flow[i].agent[0].total = size_of_stream();
	}
	mem_limit(MEM_CHUNK, sim.poor ? 1 + below(20) * sim.flows_n : 0);
	mem_limit(MEM_MORSEL, sim.poor ? 1 + below(20) * sim.flows_n : 0);
}

static void run_schedule(uint64_t seed)
{
	chance.state = mix64(seed + UINT64_C(0x5851f42d4c957f2d));
	plan(seed);
	seen.schedules++;
	seen.large += sim.large;
	seen.harsh += sim.harsh;
	seen.poor += sim.poor;
	clock_set_us(sim.us);
	wire_open();
	unsigned steps = sim.large ? 600 : 30 + (unsigned)below(150);
	for (unsigned i = 0; i < steps && !all_over(); i++) {
		step();
		pass_time();
	}
	drain();
	free(sim.flow);
}

/* ---- the program ---- */

#ifndef SIM_NO_MAIN
static int report(void)
{
	const struct {
		const char *what;
		uint64_t n;
	} rows[] = {
		{"schedules", seen.schedules},
		{"harsh", seen.harsh},
		{"poor", seen.poor},
		{"sessions", seen.sessions},
		{"ends in good order", seen.done},
		{"bytes", seen.bytes},
		{"cut links", seen.cuts},
		{"goaways", seen.goaways},
		{"silent links", seen.dead},
		{"resumes", seen.resumes},
		{"of which lacked the proof only", seen.parked_fin},
		{"resets", seen.resets},
		{"ends from elsewhere", seen.ends},
		{"refusals", seen.refusals},
		{"kept", seen.keeps},
		{"opened again", seen.reopened},
		{"moves", seen.moves},
		{"stranded", seen.strands},
		{"stale requests", seen.stale},
		{"late openings", seen.late},
		{"timeouts", seen.timeouts},
		{"lost", seen.lost},
		{"out of memory", seen.resources},
		{"largest ring", seen.max_ring},
	};
	int missing = 0;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		printf("%12" PRIu64 " %s\n", rows[i].n, rows[i].what);
		missing += rows[i].n == 0;
	}
	return missing;
}

int main(int argc, char **argv)
{
	uint64_t many = COUNT, from = 0;
	bool one = argc > 1 && argv[1][0] != '-';
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "--count") == 0)
			many = strtoull(argv[i + 1], NULL, 0);
		if (strcmp(argv[i], "--from") == 0)
			from = strtoull(argv[i + 1], NULL, 0);
	}
	if (one) {
		from = strtoull(argv[1], NULL, 0);
		many = 1;
		sim.loud = argc > 2;
	}
	for (uint64_t seed = from; seed < from + many; seed++)
		run_schedule(seed);
	int missing = report();
	mem_drain();
	session_thread_fini();
	return missing > 0 && many >= COUNT;
}
#endif
