/* The registry with several threads played by one: each has its replica, mailboxes are lists, and the test says whose turn it is.
 * Links and sessions are fakes that only say where they are. */
#include "tunnel/registry.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define THREADS 3
#define LINKS 9
#define SESSIONS 16

struct link {
	bool dead, full;
	int thread;
	unsigned riding;
	uint8_t peer[16];
	int refusals;
	enum reason refused; /* the last one */
	bool stream_closed;
	uint64_t id;         /* in the registry */
	struct list sessions;
};

struct session {
	struct list node; /* first */
	uint8_t id[16], peer[16];
	uint32_t epoch;
	int thread;       /* -1: on its way */
	struct link *link;
	bool ended;
	bool unanswered; /* and without a byte: may go elsewhere */
	enum reason why;
	int moves;
};

static struct {
	int self, count;
	struct replica replicas[THREADS];
	struct msg *first[THREADS], *last[THREADS]; /* mailboxes */
	struct link links[LINKS];
	struct session sessions[SESSIONS];
	size_t sessions_n;
	int changes[THREADS];
	int bars[THREADS];
	bool stopped[THREADS];
	uint32_t random;
	struct registry_verdict verdict;
	int verdicts;
} t;

/* ---- threads ---- */

static void as(int thread)
{
	t.replicas[t.self] = me;
	me = t.replicas[thread];
	t.self = thread;
}

int thread_self(void)
{
	return t.self;
}

int thread_count(void)
{
	return t.count;
}

void thread_post(int thread, struct msg *m)
{
	m->next = NULL;
	if (t.first[thread])
		t.last[thread]->next = m;
	else
		t.first[thread] = m;
	t.last[thread] = m;
}

/* The thread's next message; false: none. */
static bool deliver_one(int to)
{
	struct msg *m = t.first[to];
	int back = t.self;

	if (!m)
		return false;
	t.first[to] = m->next;
	as(to);
	m->run(m);
	as(back);
	return true;
}

static void settle(void)
{
	while (deliver_one(0) || deliver_one(1) || deliver_one(2))
		continue;
}

static uint32_t roll(uint32_t n)
{
	t.random = t.random * 1664525 + 1013904223;
	return (t.random >> 8) % n;
}

uint32_t rnd_below(uint32_t n)
{
	return roll(n);
}

/* ---- loop and timers ---- */

void loop_defer(struct deferred *d)
{
	d->run(d);
}

void loop_undefer(struct deferred *d)
{
}

void timer_init(struct timer *tm, void (*on_fire)(struct timer *))
{
	tm->on_fire = on_fire;
	tm->at_ms = 0;
}

void timer_start(struct timer *tm, uint64_t delay_ms)
{
	tm->at_ms = delay_ms;
}

void timer_stop(struct timer *tm)
{
	tm->at_ms = 0;
}

bool timer_running(const struct timer *tm)
{
	return tm->at_ms != 0;
}

static bool fire_again(void)
{
	if (!timer_running(&me.again))
		return false;
	timer_stop(&me.again);
	on_again(&me.again);
	return true;
}

/* ---- links ---- */

bool link_can_open(const struct link *l)
{
	assert_int_equal(l->thread, t.self);
	return !l->dead && !l->full;
}

void link_set_peer(struct link *l, const uint8_t instance[16])
{
	memcpy(l->peer, instance, 16);
}

const uint8_t *link_peer(const struct link *l)
{
	return l->peer;
}

void link_rtt_to(struct link *l, atomic_uint *place)
{
}

bool link_stream_open(const struct link *l, int32_t stream)
{
	assert_int_equal(l->thread, t.self);
	return !l->dead && !l->stream_closed;
}

void link_refuse(struct link *l, int32_t stream, enum reason why)
{
	assert_int_equal(l->thread, t.self);
	l->refusals++;
	l->refused = why;
}

/* ---- sessions ---- */

struct session *session_of_node(struct list *node)
{
	return container_of(node, struct session, node);
}

const uint8_t *session_peer(const struct session *s)
{
	return s->peer;
}

uint32_t session_epoch(const struct session *s)
{
	return s->epoch;
}

static void off(struct session *s)
{
	assert_int_equal(s->thread, t.self);
	list_del(&s->node);
	if (s->link)
		s->link->riding--;
	s->link = NULL;
}

static void ride(struct session *s, struct link *l)
{
	off(s);
	list_add(&l->sessions, &s->node);
	s->link = l;
	l->riding++;
}

void session_park(struct session *s, struct list *parked)
{
	off(s);
	list_add(parked, &s->node);
}

void session_leave(struct session *s)
{
	off(s);
	s->thread = -1;
	s->moves++;
}

void session_arrive(struct session *s)
{
	assert_int_equal(s->thread, -1);
	s->thread = t.self;
}

int session_resume(struct session *s, struct link *l)
{
	if (!link_can_open(l))
		return -1;
	assert_null(s->link);
	s->epoch++;
	ride(s, l);
	return 0;
}

void session_resumed(struct session *s, struct link *l, int32_t stream, const struct h2_fields *f)
{
	if (f->epoch <= s->epoch) {
		link_refuse(l, stream, REASON_PROTOCOL);
		return;
	}
	s->epoch = f->epoch;
	ride(s, l);
}

struct session *session_find(const uint8_t id[16])
{
	for (size_t i = 0; i < t.sessions_n; i++) {
		struct session *s = &t.sessions[i];

		if (s->thread == t.self && !s->ended && memcmp(s->id, id, 16) == 0)
			return s;
	}
	return NULL;
}

void session_bar(const uint8_t id[16], uint32_t ms)
{
	t.bars[t.self]++;
}

void session_end_list(struct list *l, enum reason why)
{
	while (!list_empty(l)) {
		struct session *s = session_of_node(l->next);

		off(s);
		s->ended = true;
		s->why = why;
	}
}

void session_give_back(struct list *l)
{
	list_for_each_safe(n, l) {
		struct session *s = session_of_node(n);

		if (!s->unanswered)
			continue;
		off(s);
		s->ended = true;
		s->why = REASON_LOST;
	}
}

/* ---- the scene ---- */

static void on_change_of_thread(void)
{
	t.changes[t.self]++;
}

static void begin(int threads)
{
	memset(&t, 0, sizeof(t));
	t.count = threads;
	t.random = 1;
	for (int i = 0; i < threads; i++) {
		as(i);
		registry_init();
		registry_on_change(on_change_of_thread);
	}
	as(0);
}

static void end(void)
{
	settle();
	for (int i = 0; i < t.count; i++) {
		as(i);
		registry_stop();
	}
	settle();
	for (int i = 0; i < t.count; i++) {
		as(i);
		registry_fini();
	}
	for (size_t i = 0; i < t.sessions_n; i++)
		assert_true(t.sessions[i].ended || t.sessions[i].link);
}

static struct advert *advert_of(const char *name, const char *tunnel, uint8_t instance, const char *service, unsigned weight)
{
	struct advert *a = advert_new();

	str_copy(a->name, sizeof(a->name), name);
	str_copy(a->tunnel, sizeof(a->tunnel), tunnel);
	memset(a->instance, instance, sizeof(a->instance));
	a->services = xcalloc(1, sizeof(*a->services));
	a->services_n = 1;
	str_copy(a->services[0].name, sizeof(a->services[0].name), service);
	a->services[0].up = true;
	a->services[0].weight = (uint16_t)weight;
	return a;
}

static void on_verdict(void *arg, const struct registry_verdict *v)
{
	assert_ptr_equal(arg, &t);
	t.verdict = *v;
	t.verdicts++;
}

static uint64_t claim(struct advert *a, bool unique, uint32_t max)
{
	int before = t.verdicts;
	uint64_t id = registry_claim(a, unique, max, on_verdict, &t);

	assert_int_equal(t.verdicts, before); /* never from within */
	return id;
}

/* An advert is used up by this. */
static enum reason verdict_on(struct advert *a, bool unique)
{
	uint64_t id = claim(a, unique, 100);
	int before = t.verdicts;

	settle();
	assert_int_equal(t.verdicts, before + 1);
	assert_int_equal(t.verdict.id, id);
	registry_gone(id);
	settle();
	advert_put(a);
	return t.verdict.accepted ? REASON_DONE : t.verdict.why;
}

static struct link *up(int thread, struct advert *a)
{
	struct link *l = NULL;

	as(thread);
	for (int i = 0; i < LINKS && !l; i++)
		l = t.links[i].id ? NULL : &t.links[i];
	memset(l, 0, sizeof(*l));
	list_init(&l->sessions);
	l->thread = thread;
	l->id = claim(a, false, 100);
	settle();
	assert_true(t.verdict.accepted);
	registry_up(l->id, l, a);
	return l;
}

static struct link *agent_up(int thread, const char *name, uint8_t instance)
{
	struct advert *a = advert_of(name, "site", instance, "ssh", 100);
	struct link *l = up(thread, a);

	advert_put(a);
	settle();
	return l;
}

static struct link *hub_up(int thread, const char *name, uint8_t instance)
{
	struct advert *a = advert_of(name, "", instance, "", 0);
	struct link *l = up(thread, a);

	advert_put(a);
	settle();
	return l;
}

static void down(struct link *l)
{
	struct list *parked;

	as(l->thread);
	l->dead = true;
	parked = registry_parking(l->id);
	while (!list_empty(&l->sessions))
		session_park(session_of_node(l->sessions.next), parked);
	registry_gone(l->id);
	l->id = 0;
}

static struct session *session_on(struct link *l)
{
	struct session *s = &t.sessions[t.sessions_n++];

	list_init(&s->node);
	memset(s->id, (int)t.sessions_n, sizeof(s->id));
	memcpy(s->peer, l->peer, sizeof(s->peer));
	s->thread = l->thread;
	as(l->thread);
	ride(s, l);
	return s;
}

/* ---- claims ---- */

static void test_names(void **state)
{
	begin(1);
	struct link *l = agent_up(0, "edge", 1);
	assert_int_equal(verdict_on(advert_of("edge", "site", 2, "ssh", 1), true), REASON_NAME_IN_USE);
	assert_int_equal(verdict_on(advert_of("edge", "site", 2, "ssh", 1), false), REASON_DONE);
	assert_int_equal(verdict_on(advert_of("edge", "site", 1, "ssh", 1), true), REASON_DONE);
	assert_int_equal(verdict_on(advert_of("other", "site", 2, "ssh", 1), true), REASON_DONE);
	assert_int_equal(verdict_on(advert_of("edge", "elsewhere", 2, "ssh", 1), true), REASON_DONE);
	struct advert *a = advert_of("edge", "site", 1, "ssh", 1);
	a->draining = true;
	registry_update(l->id, a);
	advert_put(a);
	assert_int_equal(verdict_on(advert_of("edge", "site", 2, "ssh", 1), true), REASON_DONE);
	down(l);
	end();
}

/* Of two that ask at once one wins, though neither is up yet. */
static void test_two_at_once(void **state)
{
	struct advert *a = advert_of("edge", "site", 1, "ssh", 1), *b = advert_of("edge", "site", 2, "ssh", 1);

	begin(3);
	as(1);
	claim(a, true, 100);
	as(2);
	claim(b, true, 100);
	settle();
	assert_int_equal(t.verdicts, 2);
	assert_false(t.verdict.accepted);
	assert_int_equal(t.verdict.why, REASON_NAME_IN_USE);
	as(0);
	assert_int_equal(registry_links(), 1);
	advert_put(a);
	advert_put(b);
	end();
}

static void test_limit(void **state)
{
	struct advert *a = advert_of("edge", "site", 1, "ssh", 1);

	begin(1);
	claim(a, true, 2);
	claim(a, true, 2);
	settle();
	assert_true(t.verdict.accepted);
	claim(a, true, 2);
	settle();
	assert_false(t.verdict.accepted);
	assert_int_equal(t.verdict.why, REASON_LIMIT);
	advert_put(a);
	end();
}

static void test_withdrawn_claim(void **state)
{
	for (int thread = 0; thread < 3; thread++) {
		struct advert *a = advert_of("edge", "site", 1, "ssh", 1);

		begin(3);
		as(thread);
		registry_gone(claim(a, true, 100));
		settle();
		assert_int_equal(t.verdicts, 0);
		as(0);
		assert_int_equal(registry_links(), 0);
		assert_int_equal(registry_agents(), 0);
		advert_put(a);
		end();
	}
}

static void test_claim_after_stop(void **state)
{
	begin(2);
	registry_stop();
	as(1);
	assert_int_equal(verdict_on(advert_of("edge", "site", 1, "ssh", 1), true), REASON_STOPPED);
	end();
}

static int proposed(struct advert *a, int from)
{
	as(from);
	claim(a, true, 100);
	settle();
	assert_true(t.verdict.accepted);
	return t.verdict.thread;
}

static void test_threads_are_spread(void **state)
{
	struct advert *a = advert_of("a", "site", 1, "ssh", 1), *b = advert_of("b", "site", 2, "ssh", 1);
	unsigned seen = 0;

	begin(3);
	for (int i = 0; i < 3; i++)
		seen |= 1u << proposed(a, 1);
	assert_int_equal(seen, 7); /* claims count already */
	assert_int_equal(proposed(b, 2), 2); /* all alike: it stays */
	assert_int_not_equal(proposed(b, 2), 2);
	advert_put(a);
	advert_put(b);
	end();
}

/* ---- news ---- */

static int news_heard;
static bool news_up;

static void on_news(const struct advert *before, const struct advert *now)
{
	news_heard++;
	assert_true(now->serial >= before->serial);
	news_up = now->services[0].up;
}

static void says(struct link *l, uint64_t serial, bool up)
{
	struct advert *a = advert_of("edge", "site", 1, "ssh", 100);

	as(l->thread);
	a->serial = serial;
	a->services[0].up = up;
	registry_update(l->id, a);
	advert_put(a);
	settle();
}

/* What comes late over a slow link changes nothing, whichever thread it comes to; thread 0 alone tells. */
static void test_slow_links_bring_no_old_news(void **state)
{
	static const struct {
		int link;
		uint64_t serial;
		bool up, up_now;
		int heard;
	} rows[] = {
		{ 0, 5, false, false, 1 }, { 1, 4, true, false, 0 }, { 1, 5, false, false, 1 }, { 0, 7, true, true, 1 }, { 1, 6, false, true, 0 },
		{ 1, 7, true, true, 1 },   { 0, 3, false, true, 0 }, { 0, 8, false, false, 1 },
	};

	begin(3);
	as(0);
	registry_on_news(on_news);
	struct link *links[] = {agent_up(1, "edge", 1), agent_up(2, "edge", 1)};
	settle();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		news_heard = 0;
		says(links[rows[i].link], rows[i].serial, rows[i].up);
		assert_int_equal(news_heard, rows[i].heard);
		if (news_heard)
			assert_int_equal(news_up, rows[i].up_now);
		for (int k = 0; k < 3; k++) {
			as(k);
			assert_int_equal(registry_offer("site", "ssh"), rows[i].up_now ? OFFER_UP : OFFER_DOWN);
		}
	}
	as(1);
	down(links[0]);
	as(2);
	down(links[1]);
	end();
}

static void test_news_reach_every_thread(void **state)
{
	begin(3);
	struct link *l = agent_up(1, "edge", 1);
	struct conf_tunnel tunnel = {.name = (char *)"site"};
	struct pick pick;

	for (int i = 0; i < 3; i++) {
		as(i);
		assert_int_equal(registry_links(), 1);
		assert_int_equal(registry_agents(), 1);
		assert_int_equal(registry_offer("site", "ssh"), OFFER_UP);
		assert_ptr_equal(registry_link(l->id), i == 1 ? l : NULL);
		assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_OK);
		assert_int_equal(pick.thread, 1);
		assert_int_equal(pick.link, l->id);
		advert_put(pick.advert);
		assert_true(t.changes[i] > 0);
	}
	as(1);
	struct advert *a = advert_of("edge", "site", 1, "ssh", 100);
	a->services[0].up = false;
	registry_update(l->id, a);
	advert_put(a);
	settle();
	for (int i = 0; i < 3; i++) {
		as(i);
		assert_int_equal(registry_offer("site", "ssh"), OFFER_DOWN);
		assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_NONE);
	}
	down(l);
	settle();
	for (int i = 0; i < 3; i++) {
		as(i);
		assert_int_equal(registry_links(), 0);
		assert_int_equal(registry_agents(), 0);
		assert_int_equal(map_count(me.peers), 0);
		assert_int_equal(registry_offer("site", "ssh"), OFFER_NONE);
	}
	end();
}

static void test_retired_link_takes_nothing_new(void **state)
{
	struct conf_tunnel tunnel = {.name = (char *)"site"};
	struct pick pick;

	begin(2);
	struct link *l = agent_up(0, "edge", 1);
	registry_retire(l->id);
	settle();
	for (int i = 0; i < 2; i++) {
		as(i);
		assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_NONE);
	}
	down(l);
	end();
}

/* ---- choosing ---- */

static struct conf_tunnel tunnel_with(enum balance balance)
{
	return (struct conf_tunnel){.name = (char *)"site", .balance = balance};
}

static char picked(const struct conf_tunnel *tunnel, const char *client)
{
	struct pick pick;
	struct addr a;
	char name;

	assert_int_equal(addr_parse(&a, client), 0);
	if (registry_pick(tunnel, "ssh", &a, NULL, 0, &pick) != PICK_OK)
		return '-';
	name = pick.advert->name[0];
	advert_put(pick.advert);
	return name;
}

static struct link *agent_of_weight(const char *name, uint8_t instance, unsigned weight)
{
	struct advert *a = advert_of(name, "site", instance, "ssh", weight);
	struct link *l = up(0, a);

	advert_put(a);
	settle();
	return l;
}

static void test_roundrobin_and_weights(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_ROUNDROBIN);
	int n[256] = {0};

	begin(1);
	agent_of_weight("a", 1, 200);
	agent_of_weight("b", 2, 100);
	agent_of_weight("c", 3, 0);
	for (int i = 0; i < 300; i++)
		n[(unsigned char)picked(&tunnel, "192.0.2.1:1")]++;
	assert_int_equal(n['a'], 200);
	assert_int_equal(n['b'], 100);
	end();
}

static void test_leastconn(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_LEASTCONN);
	int n[256] = {0};

	begin(1);
	agent_of_weight("a", 1, 100);
	agent_of_weight("b", 2, 50);
	for (int i = 0; i < 30; i++) {
		struct pick pick;
		assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_OK);
		atomic_fetch_add(pick.advert->sessions, 1);
		n[(unsigned char)pick.advert->name[0]]++;
		advert_put(pick.advert);
	}
	assert_in_range(n['a'], 19, 21);
	end();
}

static void test_random(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_RANDOM);
	int n[256] = {0};

	begin(1);
	agent_of_weight("a", 1, 75);
	agent_of_weight("b", 2, 25);
	for (int i = 0; i < 1000; i++)
		n[(unsigned char)picked(&tunnel, "192.0.2.1:1")]++;
	assert_in_range(n['a'], 680, 820);
	assert_int_equal(n['a'] + n['b'], 1000);
	end();
}

/* Who had an agent that stays keeps it when another one goes. */
static void test_source(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_SOURCE);
	char before[64], text[32];
	int moved = 0;

	begin(1);
	agent_of_weight("a", 1, 1);
	agent_of_weight("b", 2, 1);
	struct link *l = agent_of_weight("c", 3, 1);
	for (int i = 0; i < 64; i++) {
		snprintf(text, sizeof(text), "192.0.2.%d:%d", i, i + 1);
		before[i] = picked(&tunnel, text);
		snprintf(text, sizeof(text), "192.0.2.%d:%d", i, i + 1000);
		assert_int_equal(picked(&tunnel, text), before[i]);
	}
	down(l);
	for (int i = 0; i < 64; i++) {
		snprintf(text, sizeof(text), "192.0.2.%d:1", i);
		char now = picked(&tunnel, text);
		if (before[i] == 'c')
			moved++;
		else
			assert_int_equal(now, before[i]);
	}
	assert_in_range(moved, 8, 40);
	end();
}

static void test_first(void **state)
{
	char *order[] = {(char *)"c", (char *)"a", (char *)"b"};
	struct conf_tunnel tunnel = tunnel_with(BALANCE_FIRST);

	tunnel.agents.v = order;
	tunnel.agents.n = 3;
	begin(1);
	agent_of_weight("a", 1, 1);
	agent_of_weight("b", 2, 200);
	assert_int_equal(picked(&tunnel, "192.0.2.1:1"), 'a');
	struct link *l = agent_of_weight("c", 3, 1);
	assert_int_equal(picked(&tunnel, "192.0.2.1:1"), 'c');
	down(l);
	assert_int_equal(picked(&tunnel, "192.0.2.1:1"), 'a');
	end();
}

static void test_avoid_and_draining(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_ROUNDROBIN);
	uint8_t avoid[2][16];
	struct pick pick;

	begin(1);
	struct link *l = agent_of_weight("a", 1, 100);
	agent_of_weight("b", 2, 100);
	memset(avoid[0], 2, 16);
	memset(avoid[1], 1, 16);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(registry_pick(&tunnel, "ssh", NULL, (const uint8_t(*)[16])avoid, 1, &pick), PICK_OK);
		assert_string_equal(pick.advert->name, "a");
		advert_put(pick.advert);
	}
	assert_int_equal(registry_pick(&tunnel, "ssh", NULL, (const uint8_t(*)[16])avoid, 2, &pick), PICK_NONE);
	assert_int_equal(registry_pick(&tunnel, "http", NULL, NULL, 0, &pick), PICK_NONE);
	struct advert *a = advert_of("a", "site", 1, "ssh", 100);
	a->draining = true;
	registry_update(l->id, a);
	advert_put(a);
	for (int i = 0; i < 4; i++)
		assert_int_equal(picked(&tunnel, "192.0.2.1:1"), 'b');
	registry_mark(MARK_AGENT, "b", 1);
	assert_int_equal(picked(&tunnel, "192.0.2.1:1"), '-');
	registry_mark(MARK_AGENT, "b", MARK_NONE);
	assert_int_equal(picked(&tunnel, "192.0.2.1:1"), 'b');
	end();
}

/* A client must know that it waits for room, not for an agent: only then is it called when a session ends. */
static void test_full_is_not_away(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_ROUNDROBIN);
	struct pick pick;

	begin(1);
	assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_NONE);
	struct link *l = agent_up(0, "edge", 1);
	l->full = true;
	assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_FULL);
	struct link *second = agent_up(0, "edge", 1);
	assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_OK);
	assert_int_equal(pick.link, second->id);
	advert_put(pick.advert);
	end();
}

/* Whoever knows the instance id of another tunnel's agent gets nothing of that tunnel. */
static void test_instance_of_another_tunnel(void **state)
{
	struct conf_tunnel tunnel = tunnel_with(BALANCE_ROUNDROBIN);
	struct pick pick;

	begin(2);
	struct link *l = agent_up(1, "edge", 1);
	struct session *s = session_on(l);
	struct advert *a = advert_of("thief", "elsewhere", 1, "ssh", 256);
	struct link *theirs = up(0, a);
	advert_put(a);
	settle();
	for (int i = 0; i < 4; i++) {
		as(0);
		assert_int_equal(registry_pick(&tunnel, "ssh", NULL, NULL, 0, &pick), PICK_OK);
		assert_int_equal(pick.link, l->id);
		advert_put(pick.advert);
	}
	down(l);
	settle();
	assert_null(s->link);
	assert_int_equal(theirs->riding, 0);
	end();
}

/* ---- sessions without a link ---- */

static void test_parked_sessions_go_on(void **state)
{
	begin(3);
	struct link *a = agent_up(0, "edge", 1), *b = agent_up(0, "edge", 1), *c = agent_up(2, "edge", 1);
	struct session *s = session_on(a);
	down(a);
	assert_ptr_equal(s->link, b); /* at once, and not further than necessary */
	down(b);
	settle();
	assert_ptr_equal(s->link, c);
	assert_int_equal(s->thread, 2);
	down(c);
	settle();
	assert_null(s->link);
	assert_false(s->ended);
	struct link *d = agent_up(1, "edge", 1);
	assert_ptr_equal(s->link, d);
	assert_int_equal(s->moves, 2);
	down(d);
	end();
}

static void test_agent_waits_for_the_hub(void **state)
{
	begin(2);
	struct link *a = hub_up(0, "hub", 1), *b = hub_up(0, "hub", 1);
	struct session *s = session_on(a);
	down(a);
	settle();
	assert_null(s->link);
	assert_int_equal(b->riding, 0);
	end();
	assert_int_equal(s->why, REASON_STOPPED);
}

/* Links of two threads are full: no to and fro, and when there is room it is used. */
static void test_sent_session_stays(void **state)
{
	begin(2);
	struct link *a = agent_up(0, "edge", 1), *b = agent_up(1, "edge", 1), *c = agent_up(0, "edge", 1);
	struct session *s = session_on(a);
	b->full = c->full = true;
	down(a); /* of b it is not known that it is full */
	settle();
	assert_int_equal(s->thread, 1);
	assert_int_equal(s->moves, 1);
	as(1);
	for (int i = 0; i < 3; i++) {
		assert_true(fire_again());
		settle();
		assert_int_equal(s->moves, 1);
	}
	b->full = false;
	assert_true(fire_again());
	assert_ptr_equal(s->link, b);
	assert_false(fire_again());
	end();
}

static void test_stranded_session_goes_on(void **state)
{
	begin(1);
	struct link *a = agent_up(0, "edge", 1);
	struct session *s = session_on(a);
	a->full = true;
	registry_strand(a->id, &s->node);
	assert_null(s->link);
	assert_int_equal(a->riding, 0);
	assert_true(fire_again());
	assert_null(s->link);
	a->full = false;
	assert_true(fire_again());
	assert_ptr_equal(s->link, a);
	down(a);
	end();
}

static void test_namesakes_are_buried(void **state)
{
	begin(2);
	struct link *a = agent_up(1, "edge", 1), *other = agent_up(1, "other", 9);
	struct session *s = session_on(a), *theirs = session_on(other);
	down(a);
	down(other);
	settle();
	assert_false(s->ended);
	agent_up(0, "edge", 2);
	assert_true(s->ended);
	assert_int_equal(s->why, REASON_LOST);
	assert_false(theirs->ended);
	end();
}

static void test_hub_restarted(void **state)
{
	begin(1);
	struct link *a = hub_up(0, "hub", 1);
	struct session *s = session_on(a);
	hub_up(0, "hub", 2);
	assert_false(s->ended); /* both are there */
	down(a);
	assert_true(s->ended);
	assert_int_equal(s->why, REASON_HUB_RESTARTED);
	end();
}

/* The successor is there when the session arrives on a thread where its agent is gone already. */
static void test_buried_on_arrival(void **state)
{
	begin(2);
	struct link *a = agent_up(0, "edge", 1), *b = agent_up(1, "edge", 1);
	struct session *s = session_on(a);
	down(a); /* s is on its way to b, and so is the news */
	down(b);
	agent_up(1, "edge", 2); /* delivers everything */
	assert_true(s->ended);
	assert_int_equal(s->why, REASON_LOST);
	end();
}

/* Requests go to another agent when the last link is down, be they parked here or still on their way. */
/* All links are lost at once, but not noticed at once: those of an agent that is drained are still there when its successor has none. */
static void test_leaving_namesake_buries_nobody(void **state)
{
	begin(2);
	struct advert *old = advert_of("edge", "site", 1, "ssh", 100);
	struct link *a = up(0, old);
	old->draining = true;
	struct link *b = agent_up(1, "edge", 2);
	struct session *s = session_on(b);
	down(b);
	settle();
	assert_false(s->ended);
	down(a);
	settle();
	assert_false(s->ended);
	agent_up(0, "edge", 2);
	assert_false(s->ended);
	assert_ptr_not_equal(s->link, b);
	advert_put(old);
	end();
}

static void test_leaving_hub_buries_nobody(void **state)
{
	begin(1);
	struct link *a = hub_up(0, "hub", 1), *b = hub_up(0, "hub", 2);
	struct session *s = session_on(b);
	registry_retire(a->id);
	down(b);
	assert_false(s->ended);
	down(a);
	assert_false(s->ended);
	hub_up(0, "hub", 3);
	assert_true(s->ended);
	assert_int_equal(s->why, REASON_HUB_RESTARTED);
	end();
}

static void test_requests_are_given_back(void **state)
{
	begin(2);
	struct link *a = agent_up(0, "edge", 1), *b = agent_up(1, "edge", 1);
	struct session *here = session_on(b), *moving = session_on(a), *answered = session_on(b);
	here->unanswered = moving->unanswered = true;
	down(a); /* moving is on its way to b */
	assert_false(moving->ended);
	down(b);
	settle();
	assert_true(here->ended);
	assert_true(moving->ended);
	assert_int_equal(moving->why, REASON_LOST);
	assert_false(answered->ended);
	end();
}

static void test_arrival_on_a_stopped_thread(void **state)
{
	begin(2);
	struct link *a = agent_up(0, "edge", 1);
	agent_up(1, "edge", 1);
	struct session *s = session_on(a);
	down(a);
	as(1);
	registry_stop();
	settle();
	assert_true(s->ended);
	assert_int_equal(s->why, REASON_STOPPED);
	end();
}

/* ---- a hub asks for a session ---- */

static void ask(struct link *l, const struct session *s, uint32_t epoch)
{
	struct h2_fields f = {.resume = true, .epoch = epoch};

	str_hex(f.session, s->id, sizeof(s->id));
	as(l->thread);
	registry_claim_session(l->id, 5, &f);
}

static void test_search_here(void **state)
{
	begin(1);
	struct link *a = hub_up(0, "hub", 1), *b = hub_up(0, "hub", 1), *foreign = hub_up(0, "hub-2", 2);
	struct session *s = session_on(a);
	ask(b, s, 1);
	assert_ptr_equal(s->link, b); /* though a is up */
	ask(foreign, s, 2);
	settle();
	assert_ptr_equal(s->link, b);
	assert_int_equal(foreign->refused, REASON_LOST);
	down(b);
	ask(a, s, 2);
	assert_ptr_equal(s->link, a);
	down(a);
	end();
}

static void test_search_elsewhere(void **state)
{
	for (int from = 0; from < 3; from++) {
		for (int to = 0; to < 3; to++) {
			begin(3);
			struct link *a = hub_up(from, "hub", 1), *b = hub_up(to, "hub", 1);
			struct session *s = session_on(a);
			ask(b, s, 1);
			settle();
			assert_ptr_equal(s->link, b);
			assert_int_equal(s->thread, to);
			assert_int_equal(b->refusals, 0);
			down(b);
			end();
		}
	}
}

static void test_search_in_vain(void **state)
{
	struct session nobody = {.id = {77}};

	begin(3);
	struct link *a = hub_up(0, "hub", 1);
	hub_up(2, "hub", 1);
	ask(a, &nobody, 1);
	settle();
	assert_int_equal(a->refusals, 1);
	assert_int_equal(a->refused, REASON_LOST);
	assert_int_equal(t.bars[0], 0); /* there the request to open it cannot be any more */
	assert_int_equal(t.bars[1], 0);
	assert_int_equal(t.bars[2], 1);
	end();
}

/* The hub opens sessions as soon as it has said welcome, before our registry has. */
static void test_search_bars_where_links_are_to_be(void **state)
{
	struct search_msg q = {.link = 0};
	struct advert *a = advert_of("hub", "", 1, "", 0);

	begin(2);
	memset(q.peer, 1, sizeof(q.peer));
	q.link = hub_up(0, "hub", 1)->id;
	as(1);
	assert_false(may_hold_request(&q));
	uint64_t id = claim(a, false, 100);
	assert_true(may_hold_request(&q));
	registry_gone(id);
	assert_false(may_hold_request(&q));
	advert_put(a);
	end();
}

/* A hub asked on one link, that broke, it asked on another: the earlier request arrives last and must not take the session away. */
static void test_overtaken_request(void **state)
{
	begin(3);
	struct link *a = hub_up(2, "hub", 1), *b = hub_up(0, "hub", 1), *c = hub_up(2, "hub", 1);
	struct session *s = session_on(a);
	ask(b, s, 1); /* on its way to thread 1 */
	ask(c, s, 2); /* there already */
	assert_ptr_equal(s->link, c);
	settle();
	assert_ptr_equal(s->link, c);
	assert_int_equal(b->refused, REASON_PROTOCOL);
	/* and on one thread, when the later one is read first */
	struct link *d = hub_up(2, "hub", 1);
	ask(d, s, 2);
	settle();
	assert_ptr_equal(s->link, c);
	assert_int_equal(d->refused, REASON_PROTOCOL);
	down(c);
	end();
}

/* It is found, but the link that asked is gone when it arrives: it waits for the next request. */
static void test_asking_link_is_gone(void **state)
{
	begin(3);
	struct link *a = hub_up(2, "hub", 1), *b = hub_up(0, "hub", 1);
	struct session *s = session_on(a);
	ask(b, s, 1);
	down(b);
	settle();
	assert_null(s->link);
	assert_false(s->ended);
	struct link *c = hub_up(1, "hub", 1);
	ask(c, s, 2);
	settle();
	assert_ptr_equal(s->link, c);
	down(c);
	end();
}

/* A second request while the session travels because of the first, in any order of messages. */
static void test_travelling_session_is_met(void **state)
{
	for (uint32_t seed = 1; seed < 2000; seed++) {
		begin(3);
		struct link *a = hub_up((int)(seed % 3), "hub", 1), *b = hub_up((int)(seed / 3 % 3), "hub", 1), *c = hub_up((int)(seed / 9 % 3), "hub", 1);
		struct session *s = session_on(a);
		t.random = seed * 7919;
		ask(b, s, 1);
		for (uint32_t n = roll(6); n > 0; n--)
			deliver_one((int)roll(3));
		down(b);
		for (uint32_t n = roll(4); n > 0; n--)
			deliver_one((int)roll(3));
		ask(c, s, 2);
		for (int n = 0; n < 200; n++)
			deliver_one((int)roll(3));
		settle();
		assert_ptr_equal(s->link, c);
		assert_int_equal(c->refusals, 0);
		down(c);
		end();
	}
}

/* ---- everything at once ---- */

/* Hub: links of an agent come and go on three threads, messages take their time: no session is lost, none on two links, none stuck. */
static void test_any_order(void **state)
{
	for (uint32_t seed = 1; seed < 400; seed++) {
		int waiting = 0;

		begin(3);
		t.random = seed * 2654435761u;
		for (int step = 0; step < 300; step++) {
			struct link *l = &t.links[roll(LINKS - 1)];
			if (!l->id && roll(4) == 0) {
				agent_up((int)roll(3), "a", 1);
			} else if (l->id && roll(6) == 0) {
				down(l);
			} else if (l->id && t.sessions_n < SESSIONS && roll(3) == 0) {
				session_on(l);
			}
			for (uint32_t n = roll(8); n > 0; n--)
				deliver_one((int)roll(3));
			as((int)roll(3));
			fire_again();
		}
		settle();
		agent_up(0, "a", 1);
		settle();
		for (size_t i = 0; i < t.sessions_n; i++) {
			struct session *s = &t.sessions[i];
			assert_false(s->ended);
			waiting += s->link == NULL;
		}
		assert_int_equal(waiting, 0);
		for (int i = 0; i < LINKS; i++)
			if (t.links[i].id)
				down(&t.links[i]);
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_withdrawn_claim),
		cmocka_unit_test(test_claim_after_stop),
		cmocka_unit_test(test_threads_are_spread),
		cmocka_unit_test(test_news_reach_every_thread),
		cmocka_unit_test(test_slow_links_bring_no_old_news),
		cmocka_unit_test(test_retired_link_takes_nothing_new),
		cmocka_unit_test(test_roundrobin_and_weights),
		cmocka_unit_test(test_leastconn),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_source),
		cmocka_unit_test(test_first),
		cmocka_unit_test(test_avoid_and_draining),
		cmocka_unit_test(test_full_is_not_away),
		cmocka_unit_test(test_instance_of_another_tunnel),
		cmocka_unit_test(test_parked_sessions_go_on),
		cmocka_unit_test(test_agent_waits_for_the_hub),
		cmocka_unit_test(test_sent_session_stays),
		cmocka_unit_test(test_stranded_session_goes_on),
		cmocka_unit_test(test_namesakes_are_buried),
		cmocka_unit_test(test_leaving_namesake_buries_nobody),
		cmocka_unit_test(test_leaving_hub_buries_nobody),
		cmocka_unit_test(test_hub_restarted),
		cmocka_unit_test(test_buried_on_arrival),
		cmocka_unit_test(test_requests_are_given_back),
		cmocka_unit_test(test_arrival_on_a_stopped_thread),
		cmocka_unit_test(test_search_here),
		cmocka_unit_test(test_search_elsewhere),
		cmocka_unit_test(test_search_in_vain),
		cmocka_unit_test(test_search_bars_where_links_are_to_be),
		cmocka_unit_test(test_overtaken_request),
		cmocka_unit_test(test_asking_link_is_gone),
		cmocka_unit_test(test_travelling_session_is_met),
		cmocka_unit_test(test_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
