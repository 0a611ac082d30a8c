/* The registry: which agents (or, on an agent, which hubs) are there, over which links, on which threads.
 * Owns this thread's replica and the parking lists of sessions without a link. Thread 0 decides on claims; what happens to a link is told to every
 * thread by messages, in order. Sessions follow their links: to another link of this thread, or in a message to another thread. */
#include "mctunnel/tunnel/registry.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/proto/h2.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>

#define ON_CHANGE_MAX 4 /* one for each module that asks */
#define LEAN 1         /* sessions that a thread may carry more than another before clients go there */
#define CLAIM_ROUNDS 2 /* a session on its way between two threads is met in the second round */
#define LINKS_OF_NAME 128
#define AGAIN_MS 50    /* between two looks at links that were full */
#define BAR_MS 10000   /* long enough for a dead link to be found out */

struct counter { /* sessions of an instance; shared by its adverts */
	atomic_uint refs, n, rtt_us;
};

/* Tunnel and agent are part of it: whoever knows an agent's instance id, but is entitled to another name, is somebody else. */
struct peer_key {
	uint8_t instance[16];
	char tunnel[HELLO_NAME_MAX], agent[HELLO_NAME_MAX]; /* zeroes to the end; both empty: a hub */
};

struct peer { /* an instance: of an agent on the hub, of a hub on the agent */
	struct list site_node;         /* of its tunnel's peers */
	struct list entries;           /* its links */
	struct list parked;            /* sessions of this thread that wait for one */
	struct advert *advert;         /* shared: the newest */
	struct peer_key key;
	int wrr;                       /* smooth weighted round robin */
};

struct entry { /* a link, here or on another thread */
	uint64_t id;
	int thread;
	bool up, retiring;
	struct link *link;             /* borrowed; NULL: on another thread */
	struct peer *peer;
	struct list node;
};

struct site { /* a tunnel's peers */
	struct list peers;
};

struct claim { /* waits for thread 0 */
	void (*on_verdict)(void *arg, const struct registry_verdict *v);
	void *arg;
};

struct replica {
	struct map *entries, *peers, *sites, *claims; /* owned */
	struct map *marks;                            /* owned: what operators said; a mark's value + 1 as a pointer */
	struct list nowhere;                          /* parking of links that never joined */
	struct deferred change;
	struct timer again;                           /* runs while sessions are parked though their peer has links */
	void (*on_change[ON_CHANGE_MAX])(void);
	void (*on_news)(const struct advert *before, const struct advert *now); /* thread 0 only */
	size_t agents;                                /* agent instances with a link */
	unsigned links_on[THREAD_MAX];                /* by thread */
	bool stopping;
};

static _Thread_local struct replica me;
static atomic_uint_fast64_t next_id = 1;
static atomic_uint sessions_on[THREAD_MAX]; /* each thread's own, for the others to see */

/* ---- adverts ---- */

struct advert *advert_new(void)
{
	struct advert *a = xcalloc(1, sizeof *a);
	atomic_init(&a->refs, 1);
	return a;
}

struct advert *advert_get(struct advert *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

static void counter_put(struct counter *c)
{
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		free(c);
}

static struct counter *counter_of(const struct advert *a)
{
	return a->sessions ? container_of(a->sessions, struct counter, n) : NULL;
}

void advert_put(struct advert *a)
{
	if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
		return;
	counter_put(counter_of(a));
	free(a->services);
	free(a);
}

/* Before the advert is shared with other threads. */
static void share_counter(struct advert *a, const struct advert *with)
{
	struct counter *c = with ? counter_of(with) : NULL;
	if (a->sessions)
		return;
	if (!c) {
		c = xcalloc(1, sizeof *c);
	}
	atomic_fetch_add(&c->refs, 1);
	a->sessions = &c->n;
	a->rtt_us = &c->rtt_us;
}

static bool of_agent(const struct advert *a)
{
	return a->tunnel[0] != 0;
}

/* ---- the replica ---- */

static struct entry *entry_find(uint64_t id)
{
	return map_get(me.entries, &id, sizeof id);
}

static struct peer_key key_of(const struct advert *a)
{
	struct peer_key k = {.instance = {0}};
	memcpy(k.instance, a->instance, sizeof k.instance);
	str_copy(k.tunnel, sizeof k.tunnel, a->tunnel);
	if (of_agent(a))
		str_copy(k.agent, sizeof k.agent, a->name);
	return k;
}

static struct peer *peer_find(const struct advert *a)
{
	struct peer_key k = key_of(a);
	return map_get(me.peers, &k, sizeof k);
}

static struct peer *hub_find(const uint8_t instance[16])
{
	struct peer_key k = {.tunnel = ""};
	memcpy(k.instance, instance, sizeof k.instance);
	return map_get(me.peers, &k, sizeof k);
}

static struct site *site_get(const char *tunnel)
{
	struct site *s = map_get_str(me.sites, tunnel);
	if (!s) {
		s = xcalloc(1, sizeof *s);
		list_init(&s->peers);
		map_set_str(me.sites, tunnel, s);
	}
	return s;
}

static struct peer *peer_get(struct advert *a)
{
	struct peer *p = peer_find(a);
	if (p)
		return p;
	p = xcalloc(1, sizeof *p);
	p->key = key_of(a);
	p->advert = advert_get(a);
	list_init(&p->entries);
	list_init(&p->parked);
	list_init(&p->site_node);
	list_add(&site_get(a->tunnel)->peers, &p->site_node);
	map_set(me.peers, &p->key, sizeof p->key, p);
	return p;
}

static void peer_free(struct peer *p)
{
	map_del(me.peers, &p->key, sizeof p->key);
	list_del(&p->site_node);
	advert_put(p->advert);
	free(p);
}

/* Each link brings what the agent says, and one link may be slower than another. */
static void peer_set_advert(struct peer *p, struct advert *a)
{
	struct advert *old = p->advert;
	if (a->serial < old->serial)
		return;
	if (me.on_news && a != old)
		me.on_news(old, a);
	p->advert = advert_get(a);
	advert_put(old);
}

/* Peers without links and without sessions are forgotten; their sessions end by their own timers, so look again at every change. */
static void sweep(const char *tunnel)
{
	struct site *s = site_get(tunnel);
	list_for_each_safe (n, &s->peers) {
		struct peer *p = container_of(n, struct peer, site_node);
		if (list_empty(&p->entries) && list_empty(&p->parked))
			peer_free(p);
	}
}

static void changed(void)
{
	if (me.on_change[0])
		loop_defer(&me.change);
}

static void run_change(struct deferred *d)
{
	for (int i = 0; i < ON_CHANGE_MAX && me.on_change[i]; i++)
		me.on_change[i]();
}

static struct entry *entry_add(uint64_t id, int thread, struct advert *a)
{
	struct entry *e = xcalloc(1, sizeof *e);
	e->id = id;
	e->thread = thread;
	e->peer = peer_get(a);
	list_init(&e->node);
	if (list_empty(&e->peer->entries) && of_agent(a))
		me.agents++;
	list_add(&e->peer->entries, &e->node);
	map_set(me.entries, &e->id, sizeof e->id, e);
	me.links_on[thread]++;
	return e;
}

static void entry_del(struct entry *e)
{
	struct peer *p = e->peer;
	map_del(me.entries, &e->id, sizeof e->id);
	list_del(&e->node);
	me.links_on[e->thread]--;
	free(e);
	if (list_empty(&p->entries) && of_agent(p->advert))
		me.agents--;
}

/* ---- sessions follow links ---- */

struct move_msg {
	struct msg msg;
	struct session *session;
	struct advert *advert;
};

static void go_on(struct peer *p);
static void lost_all(struct peer *p);

static void run_move(struct msg *m)
{
	struct move_msg *mm = container_of(m, struct move_msg, msg);
	struct peer *p = peer_get(mm->advert);
	session_arrive(mm->session);
	session_park(mm->session, &p->parked);
	if (me.stopping)
		session_end_list(&p->parked, REASON_STOPPED);
	else if (list_empty(&p->entries))
		lost_all(p);
	else
		go_on(p);
	advert_put(mm->advert);
	free(mm);
}

static void move(struct session *s, const struct entry *e)
{
	struct move_msg *mm = xcalloc(1, sizeof *mm);
	mm->msg.run = run_move;
	mm->session = s;
	mm->advert = advert_get(e->peer->advert);
	session_leave(s);
	thread_post(e->thread, &mm->msg);
}

/* Staying saves a message; going elsewhere pays when this thread carries clearly more. */
static bool better(const struct entry *e, const struct entry *than)
{
	unsigned a = atomic_load_explicit(&sessions_on[e->thread], memory_order_relaxed);
	unsigned b = atomic_load_explicit(&sessions_on[than->thread], memory_order_relaxed);
	if (!e->link == !than->link)
		return a < b;
	return e->link ? a <= b + LEAN + b / 4 : a + LEAN + a / 4 < b;
}

/* The next usable link of the peer: one of this thread unless another carries clearly fewer sessions; equals take turns. */
static struct entry *next_entry(struct peer *p)
{
	struct entry *found = NULL;
	list_for_each (n, &p->entries) {
		struct entry *e = container_of(n, struct entry, node);
		if (!e->up || e->retiring || (e->link && !link_can_open(e->link)))
			continue;
		if (!found || better(e, found))
			found = e;
	}
	if (found) {
		list_del(&found->node);
		list_add(&p->entries, &found->node);
	}
	return found;
}

/* A session that was sent here stays, as long as there are links here: two threads with full links would else send it to and fro. */
static bool resume_here(struct peer *p)
{
	bool any = false;
	list_for_each (n, &p->entries) {
		struct entry *e = container_of(n, struct entry, node);
		if (!e->link || !e->up || e->retiring)
			continue;
		any = true;
		while (!list_empty(&p->parked) && session_resume(session_of_node(p->parked.next), e->link) == 0)
			continue;
	}
	return any;
}

/* Who is left found links full (or gone, but we do not know yet). */
static void look_again(const struct peer *p)
{
	if (!list_empty(&p->parked) && !list_empty(&p->entries) && !timer_running(&me.again))
		timer_start(&me.again, AGAIN_MS);
}

/* Hub: the parked sessions of an agent instance go on over its links. */
static void unpark(struct peer *p)
{
	if (me.stopping || !of_agent(p->advert))
		return; /* an agent waits for the hub to ask */
	list_for_each_safe (n, &p->parked) {
		struct entry *e = next_entry(p);
		if (!e)
			break;
		if (!e->link)
			move(session_of_node(n), e);
		else if (session_resume(session_of_node(n), e->link) != 0)
			break;
	}
	look_again(p);
}

/* The same for sessions that shall not be sent elsewhere as long as there are links here. */
static void go_on(struct peer *p)
{
	if (me.stopping || !of_agent(p->advert))
		return;
	if (resume_here(p))
		look_again(p);
	else
		unpark(p);
}

static void on_again(struct timer *t)
{
	size_t pos = 0;
	for (struct peer *p; (p = map_next(me.peers, &pos));)
		if (!list_empty(&p->parked))
			go_on(p);
}

/* Links may be full at the moment: that is not ill. */
static bool is_there(const struct peer *p)
{
	list_for_each (n, &p->entries) {
		const struct entry *e = container_of(n, struct entry, node);
		if (e->up && !e->retiring)
			return !p->advert->draining;
	}
	return false;
}

/* An instance without links whose name came back as another process is dead: nobody will resume its sessions. Where that process is on its way out, as one
 * whose master has died, the other one is its successor. */
static void bury_namesakes(const struct peer *p)
{
	if (!is_there(p))
		return;
	struct site *s = site_get(p->advert->tunnel);
	enum reason why = of_agent(p->advert) ? REASON_LOST : REASON_HUB_RESTARTED;
	list_for_each (n, &s->peers) {
		struct peer *other = container_of(n, struct peer, site_node);
		if (other != p && list_empty(&other->entries) && strcmp(other->advert->name, p->advert->name) == 0)
			session_end_list(&other->parked, why);
	}
}

/* The newcomer of its name may have been there first. */
static void bury_replaced(struct peer *p)
{
	struct site *s = site_get(p->advert->tunnel);
	list_for_each (n, &s->peers) {
		struct peer *other = container_of(n, struct peer, site_node);
		if (is_there(other) && strcmp(other->advert->name, p->advert->name) == 0) {
			bury_namesakes(other);
			return;
		}
	}
}

/* No link of the instance is left, as far as this thread knows. */
static void lost_all(struct peer *p)
{
	session_give_back(&p->parked);
	bury_replaced(p);
}

static void apply_up(uint64_t id, int thread, struct advert *a, struct link *l)
{
	struct entry *e = entry_find(id);
	if (!e)
		e = entry_add(id, thread, a);
	me.links_on[e->thread]--;
	me.links_on[thread]++;
	e->thread = thread;
	e->up = true;
	e->link = l;
	peer_set_advert(e->peer, a);
	bury_namesakes(e->peer);
	unpark(e->peer);
	changed();
}

static void apply_gone(uint64_t id)
{
	struct entry *e = entry_find(id);
	if (!e)
		return;
	struct peer *p = e->peer;
	char tunnel[HELLO_NAME_MAX];
	str_copy(tunnel, sizeof tunnel, p->advert->tunnel);
	entry_del(e);
	if (list_empty(&p->entries))
		lost_all(p);
	else
		unpark(p);
	sweep(tunnel);
	changed();
}

static void apply_update(uint64_t id, struct advert *a)
{
	struct entry *e = entry_find(id);
	if (!e)
		return;
	peer_set_advert(e->peer, a);
	changed();
}

static void apply_retire(uint64_t id)
{
	struct entry *e = entry_find(id);
	if (!e)
		return;
	e->retiring = true;
	changed();
}

/* ---- news between threads ---- */

enum news { NEWS_UP, NEWS_UPDATE, NEWS_RETIRE, NEWS_GONE };

struct news_msg {
	struct msg msg;
	enum news what;
	uint64_t id;
	int thread;
	struct advert *advert;
};

static void run_news(struct msg *m)
{
	struct news_msg *n = container_of(m, struct news_msg, msg);
	if (!me.stopping && me.entries) {
		switch (n->what) {
		case NEWS_UP: apply_up(n->id, n->thread, n->advert, NULL); break;
		case NEWS_UPDATE: apply_update(n->id, n->advert); break;
		case NEWS_RETIRE: apply_retire(n->id); break;
		case NEWS_GONE: apply_gone(n->id); break;
		}
	}
	advert_put(n->advert);
	free(n);
}

static void tell(int to, enum news what, uint64_t id, struct advert *a)
{
	struct news_msg *n = xcalloc(1, sizeof *n);
	*n = (struct news_msg){.msg.run = run_news, .what = what, .id = id, .thread = thread_self(), .advert = a ? advert_get(a) : NULL};
	thread_post(to, &n->msg);
}

static void tell_others(enum news what, uint64_t id, struct advert *a)
{
	for (int t = 0; t < thread_count(); t++)
		if (t != thread_self())
			tell(t, what, id, a);
}

void registry_up(uint64_t id, struct link *l, struct advert *a)
{
	link_set_peer(l, a->instance);
	if (a->rtt_us)
		link_rtt_to(l, a->rtt_us);
	tell_others(NEWS_UP, id, a);
	apply_up(id, thread_self(), a, l);
}

void registry_update(uint64_t id, struct advert *a)
{
	struct entry *e = entry_find(id);
	if (!e)
		return;
	share_counter(a, e->peer->advert);
	tell_others(NEWS_UPDATE, id, a);
	apply_update(id, a);
}

void registry_retire(uint64_t id)
{
	const struct entry *e = entry_find(id);
	if (e && e->retiring)
		return; /* the other side may say it as often as it likes */
	tell_others(NEWS_RETIRE, id, NULL);
	apply_retire(id);
}

void registry_gone(uint64_t id)
{
	free(map_del(me.claims, &id, sizeof id));
	tell_others(NEWS_GONE, id, NULL);
	apply_gone(id);
}

struct list *registry_parking(uint64_t id)
{
	struct entry *e = entry_find(id);
	return e ? &e->peer->parked : &me.nowhere;
}

void registry_strand(uint64_t id, struct list *node)
{
	struct entry *e = entry_find(id);
	session_park(session_of_node(node), registry_parking(id));
	if (e)
		look_again(e->peer);
}

struct link *registry_link(uint64_t id)
{
	struct entry *e = entry_find(id);
	return e && e->up ? e->link : NULL;
}

/* ---- claims ---- */

struct claim_msg {
	struct msg msg;
	uint64_t id;
	int from;
	struct advert *advert;
	bool unique;
	uint32_t max_links;
	struct registry_verdict verdict;
};

static void run_verdict(struct msg *m)
{
	struct claim_msg *c = container_of(m, struct claim_msg, msg);
	struct claim *waiting = me.claims ? map_del(me.claims, &c->id, sizeof c->id) : NULL;
	if (waiting)
		waiting->on_verdict(waiting->arg, &c->verdict);
	else if (c->verdict.accepted)
		tell(0, NEWS_GONE, c->id, NULL); /* given up meanwhile */
	free(waiting);
	advert_put(c->advert);
	free(c);
}

/* One name shall not use up what is there for all: an agent has at most 64 links, and as many again while those die. */
static bool too_many_links(const struct advert *a)
{
	unsigned links = 0;
	list_for_each (n, &site_get(a->tunnel)->peers) {
		const struct peer *p = container_of(n, struct peer, site_node);
		if (strcmp(p->advert->name, a->name) != 0)
			continue;
		list_for_each (e, &p->entries)
			links++;
	}
	return links >= LINKS_OF_NAME;
}

static bool name_in_use(const struct advert *a)
{
	struct site *s = site_get(a->tunnel);
	list_for_each (n, &s->peers) {
		struct peer *p = container_of(n, struct peer, site_node);
		bool same = memcmp(p->key.instance, a->instance, sizeof a->instance) == 0;
		if (!same && !list_empty(&p->entries) && !p->advert->draining && strcmp(p->advert->name, a->name) == 0)
			return true;
	}
	return false;
}

/* Where the instance has the fewest links, then where there are the fewest at all, then where it is already. */
static int choose_thread(const struct advert *a, int from)
{
	unsigned own[THREAD_MAX] = {0};
	const struct peer *p = peer_find(a);
	if (p) {
		list_for_each (n, &p->entries)
			own[container_of(n, struct entry, node)->thread]++;
	}
	int best = from;
	for (int t = 0; t < thread_count(); t++)
		if (own[t] < own[best] || (own[t] == own[best] && me.links_on[t] < me.links_on[best]))
			best = t;
	return best;
}

static void run_claim(struct msg *m)
{
	struct claim_msg *c = container_of(m, struct claim_msg, msg);
	struct registry_verdict *v = &c->verdict;
	v->id = c->id;
	if (me.stopping || !me.entries) {
		v->why = REASON_STOPPED;
	} else if (c->max_links && (map_count(me.entries) >= c->max_links || (of_agent(c->advert) && too_many_links(c->advert)))) {
		v->why = REASON_LIMIT;
	} else if (c->unique && name_in_use(c->advert)) {
		v->why = REASON_NAME_IN_USE;
	} else {
		const struct peer *p = peer_find(c->advert);
		share_counter(c->advert, p ? p->advert : NULL);
		v->accepted = true;
		v->thread = choose_thread(c->advert, c->from);
		entry_add(c->id, v->thread, c->advert);
	}
	c->msg.run = run_verdict;
	thread_post(c->from, &c->msg);
}

uint64_t registry_claim(struct advert *a, bool unique_names, uint32_t max_links, void (*on_verdict)(void *, const struct registry_verdict *),
			void *arg)
{
	struct claim_msg *c = xcalloc(1, sizeof *c);
	struct claim *waiting = xcalloc(1, sizeof *waiting);
	uint64_t id = atomic_fetch_add(&next_id, 1);
	*waiting = (struct claim){on_verdict, arg};
	map_set(me.claims, &id, sizeof id, waiting);
	*c = (struct claim_msg){
		.msg.run = run_claim, .id = id, .from = thread_self(), .advert = advert_get(a), .unique = unique_names, .max_links = max_links};
	thread_post(0, &c->msg);
	return id;
}

/* ---- choosing ---- */

static const struct hello_service *offered(const struct advert *a, const char *service)
{
	for (size_t i = 0; i < a->services_n; i++)
		if (strcmp(a->services[i].name, service) == 0)
			return &a->services[i];
	return NULL;
}

static bool avoided(const struct peer *p, const uint8_t (*avoid)[16], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(avoid[i], p->key.instance, 16) == 0)
			return true;
	return false;
}

/* Of links on other threads it is not known whether they are full. */
static enum pick_result room_of(const struct peer *p)
{
	enum pick_result room = PICK_NONE;
	list_for_each (n, &p->entries) {
		const struct entry *e = container_of(n, struct entry, node);
		if (!e->up || e->retiring)
			continue;
		if (!e->link || link_can_open(e->link))
			return PICK_OK;
		room = PICK_FULL;
	}
	return room;
}

void registry_on_news(void (*on_news)(const struct advert *before, const struct advert *now))
{
	if (thread_self() == 0)
		me.on_news = on_news;
}

/* ---- what operators said ---- */

static void mark_key(char *key, size_t size, enum registry_mark what, const char *name)
{
	struct strbuf b;
	strbuf_init(&b, key, size);
	strbuf_add(&b, "%d %s", (int)what, name);
}

void registry_mark(enum registry_mark what, const char *name, int value)
{
	char key[2 * HELLO_NAME_MAX + 4];
	mark_key(key, sizeof key, what, name);
	if (!me.marks)
		return;
	if (value == MARK_NONE)
		map_del_str(me.marks, key);
	else
		map_set_str(me.marks, key, (void *)(intptr_t)(value + 1));
	changed();
}

int registry_marked(enum registry_mark what, const char *name)
{
	char key[2 * HELLO_NAME_MAX + 4];
	if (!me.marks || map_count(me.marks) == 0)
		return MARK_NONE;
	mark_key(key, sizeof key, what, name);
	return (int)(intptr_t)map_get_str(me.marks, key) - 1;
}

static int marked_pair(enum registry_mark what, const char *a, const char *b)
{
	char name[2 * HELLO_NAME_MAX];
	struct strbuf text;
	if (map_count(me.marks) == 0)
		return MARK_NONE;
	strbuf_init(&text, name, sizeof name);
	strbuf_add(&text, "%s/%s", a, b);
	return registry_marked(what, name);
}

static bool closed_by_operator(const char *tunnel, const char *service)
{
	return registry_marked(MARK_TUNNEL, tunnel) != MARK_NONE || marked_pair(MARK_SERVICE, tunnel, service) != MARK_NONE;
}

/* 0: no sessions for this one. */
static unsigned weight_of(const struct peer *p, const struct hello_service *o)
{
	int said = registry_marked(MARK_AGENT, p->advert->name) != MARK_NONE ? 0 : marked_pair(MARK_WEIGHT, p->advert->name, o->name);
	return said == MARK_NONE ? o->weight : (unsigned)said;
}

static int by_name(const void *a, const void *b)
{
	const struct advert *x = ((const struct registry_agent *)a)->advert, *y = ((const struct registry_agent *)b)->advert;
	int order = strcmp(x->tunnel, y->tunnel);
	if (order == 0)
		order = strcmp(x->name, y->name);
	return order ? order : memcmp(x->instance, y->instance, sizeof x->instance);
}

size_t registry_snapshot(struct registry_agent **out)
{
	size_t n = 0, pos = 0;
	*out = mem_calloc((me.peers ? map_count(me.peers) : 0) + 1, sizeof **out);
	if (!*out || !me.peers)
		return 0;
	for (struct peer *p; (p = map_next(me.peers, &pos));) {
		uint32_t links = 0;
		list_for_each (e, &p->entries)
			links += container_of(e, struct entry, node)->up;
		if (links)
			(*out)[n++] = (struct registry_agent){advert_get(p->advert), links};
	}
	qsort(*out, n, sizeof **out, by_name);
	return n;
}

void registry_snapshot_free(struct registry_agent *agents, size_t n)
{
	for (size_t i = 0; i < n; i++)
		advert_put(agents[i].advert);
	free(agents);
}

/* What one agent adds to the answer. */
static enum registry_offer offer_of(const struct peer *p, const char *service)
{
	enum registry_offer best = OFFER_NONE;
	for (size_t i = 0; i < p->advert->services_n && best != OFFER_UP; i++) {
		const struct hello_service *o = &p->advert->services[i];
		if (service && strcmp(o->name, service) != 0)
			continue;
		best = o->up && weight_of(p, o) > 0 && is_there(p) && !closed_by_operator(p->advert->tunnel, o->name) ? OFFER_UP : OFFER_DOWN;
	}
	return best;
}

enum registry_offer registry_offer(const char *tunnel, const char *service)
{
	const struct site *s = me.sites ? map_get_str(me.sites, tunnel) : NULL;
	enum registry_offer best = OFFER_NONE;
	if (!s)
		return OFFER_NONE;
	list_for_each (n, &s->peers) {
		const struct peer *p = container_of(n, struct peer, site_node);
		enum registry_offer o = list_empty(&p->entries) ? OFFER_NONE : offer_of(p, service);
		if (o > best)
			best = o;
	}
	return best;
}

bool registry_serves(const struct advert *a, const char *service)
{
	struct peer *p = peer_find(a);
	const struct hello_service *o = p ? offered(p->advert, service) : NULL;
	return o && o->up && weight_of(p, o) > 0 && !p->advert->draining && room_of(p) != PICK_NONE && !closed_by_operator(p->advert->tunnel, service);
}

#define CANDIDATES 256

struct candidates {
	struct peer *peer[CANDIDATES];
	unsigned weight[CANDIDATES], total;
	size_t n;
	bool full; /* others would do, but for their links */
};

static void collect(struct candidates *c, const char *tunnel, const char *service, const uint8_t (*avoid)[16], size_t avoid_n)
{
	struct site *s = map_get_str(me.sites, tunnel);
	c->n = c->total = 0;
	c->full = false;
	if (!s || closed_by_operator(tunnel, service))
		return;
	list_for_each (n, &s->peers) {
		struct peer *p = container_of(n, struct peer, site_node);
		const struct hello_service *o = offered(p->advert, service);
		unsigned weight = o ? weight_of(p, o) : 0;
		if (!o || !o->up || weight == 0 || p->advert->draining || avoided(p, avoid, avoid_n))
			continue;
		enum pick_result room = room_of(p);
		c->full |= room == PICK_FULL;
		if (room != PICK_OK)
			continue;
		c->peer[c->n] = p;
		c->weight[c->n++] = weight;
		c->total += weight;
		if (c->n == CANDIDATES)
			break;
	}
}

static size_t by_roundrobin(struct candidates *c)
{
	size_t best = 0;
	for (size_t i = 0; i < c->n; i++) {
		c->peer[i]->wrr += (int)c->weight[i];
		if (c->peer[i]->wrr > c->peer[best]->wrr)
			best = i;
	}
	c->peer[best]->wrr -= (int)c->total;
	return best;
}

static size_t by_leastconn(struct candidates *c)
{
	size_t best = 0, ties = 0;
	uint64_t least = UINT64_MAX;
	for (size_t i = 0; i < c->n; i++) {
		uint64_t load = (uint64_t)(atomic_load_explicit(c->peer[i]->advert->sessions, memory_order_relaxed) + 1) * 65536 / c->weight[i];
		if (load < least) {
			least = load;
			ties = 0;
		}
		if (load == least && rnd_below((uint32_t)++ties) == 0)
			best = i;
	}
	return best;
}

static size_t by_random(struct candidates *c)
{
	uint32_t at = rnd_below(c->total);
	size_t i = 0;
	while (at >= c->weight[i])
		at -= c->weight[i++];
	return i;
}

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	h ^= h >> 32;
	return h * 0x9e3779b97f4a7c15ull;
}

/* Rendezvous hashing: a client keeps its agent as long as that is there, whoever else comes or goes. */
static size_t by_source(struct candidates *c, const struct addr *client)
{
	char host[ADDR_TEXT];
	size_t best = 0;
	uint64_t most = 0;
	addr_host_text(client, host, sizeof host);
	for (size_t i = 0; i < c->n; i++) {
		uint64_t h = mix(mix(0xcbf29ce484222325ull, host, strlen(host)), c->peer[i]->advert->name, strlen(c->peer[i]->advert->name));
		if (h >= most) {
			most = h;
			best = i;
		}
	}
	return best;
}

static size_t by_order(struct candidates *c, const struct conf_tunnel *t)
{
	for (size_t k = 0; k < t->agents.n; k++)
		for (size_t i = 0; i < c->n; i++)
			if (strcmp(c->peer[i]->advert->name, t->agents.v[k]) == 0)
				return i;
	return 0;
}

static size_t choose(struct candidates *c, const struct conf_tunnel *t, const struct addr *client)
{
	switch (t->balance) {
	case BALANCE_LEASTCONN: return by_leastconn(c);
	case BALANCE_RANDOM: return by_random(c);
	case BALANCE_SOURCE: return by_source(c, client);
	case BALANCE_FIRST: return by_order(c, t);
	case BALANCE_ROUNDROBIN: break;
	}
	return by_roundrobin(c);
}

enum pick_result registry_pick(const struct conf_tunnel *t, const char *service, const struct addr *client, const uint8_t (*avoid)[16], size_t avoid_n,
			       struct pick *out)
{
	struct candidates c;
	collect(&c, t->name, service, avoid, avoid_n);
	if (c.n == 0)
		return c.full ? PICK_FULL : PICK_NONE;
	struct peer *p = c.peer[choose(&c, t, client)];
	struct entry *e = next_entry(p);
	if (!e)
		return PICK_NONE;
	*out = (struct pick){.thread = e->thread, .link = e->id, .advert = advert_get(p->advert)};
	return PICK_OK;
}

/* ---- agent: finding a session that a hub wants to go on with ---- */

struct search_msg {
	struct msg msg;
	uint64_t link;
	int home, hops;
	int32_t stream;
	uint8_t id[16], peer[16];
	struct session *found;
	enum reason why; /* of the refusal, when it is not found */
	struct h2_fields fields;
};

static struct session *own_session(const uint8_t id[16], const uint8_t peer[16])
{
	struct session *s = session_find(id);
	return s && memcmp(session_peer(s), peer, 16) == 0 ? s : NULL;
}

static void hand_over(struct session *s, struct link *l, int32_t stream, const struct h2_fields *f)
{
	if (l && link_stream_open(l, stream))
		session_resumed(s, l, stream, f);
}

/* The hub has asked again since, on another link, and that was faster: the session must not be taken from there. */
static bool outdated(const struct session *s, const struct h2_fields *f)
{
	return f->epoch <= session_epoch(s);
}

static struct list *parking_of(const uint8_t instance[16])
{
	struct peer *p = hub_find(instance);
	return p ? &p->parked : &me.nowhere;
}

/* A request to open the session may still be unread on a link that the hub has given up and we have not. */
static bool may_hold_request(const struct search_msg *q)
{
	const struct peer *p = hub_find(q->peer);
	if (map_count(me.claims) > 0)
		return true; /* the hub opens sessions on a link as soon as it has said welcome */
	if (!p)
		return false;
	list_for_each (n, &p->entries) {
		const struct entry *e = container_of(n, struct entry, node);
		if (e->link && e->id != q->link)
			return true;
	}
	return false;
}

static void not_found(struct search_msg *q)
{
	bool last_round = q->hops >= (CLAIM_ROUNDS - 1) * thread_count();
	if (last_round && q->why == REASON_LOST && me.entries && may_hold_request(q))
		session_bar(q->id, BAR_MS);
	if (++q->hops < CLAIM_ROUNDS * thread_count()) {
		thread_post((thread_self() + 1) % thread_count(), &q->msg);
		return;
	}
	/* Home again: rounds are whole. */
	struct link *l = me.entries ? registry_link(q->link) : NULL;
	if (l && link_stream_open(l, q->stream))
		link_refuse(l, q->stream, q->why);
	free(q);
}

/* At home it stays on its link until the request has been found good. */
static void bring_home(struct search_msg *q, struct session *s)
{
	if (thread_self() != q->home) {
		q->found = s;
		session_leave(s);
		thread_post(q->home, &q->msg);
		return;
	}
	hand_over(s, registry_link(q->link), q->stream, &q->fields);
	free(q);
}

static void run_search(struct msg *m)
{
	struct search_msg *q = container_of(m, struct search_msg, msg);
	if (q->found) {
		struct list *parking = parking_of(q->peer);
		session_arrive(q->found);
		session_park(q->found, parking);
		hand_over(q->found, registry_link(q->link), q->stream, &q->fields);
		if (me.stopping)
			session_end_list(parking, REASON_STOPPED);
		free(q);
		return;
	}
	struct session *s = own_session(q->id, q->peer);
	if (s && !outdated(s, &q->fields)) {
		bring_home(q, s);
		return;
	}
	if (s)
		q->why = REASON_PROTOCOL;
	not_found(q);
}

void registry_claim_session(uint64_t id, int32_t stream, const struct h2_fields *f)
{
	struct link *l = registry_link(id);
	struct search_msg *q = xcalloc(1, sizeof *q);
	if (!l || !str_unhex(q->id, sizeof q->id, f->session)) {
		if (l)
			link_refuse(l, stream, REASON_PROTOCOL);
		free(q);
		return;
	}
	memcpy(q->peer, link_peer(l), sizeof q->peer);
	q->msg.run = run_search;
	q->link = id;
	q->home = thread_self();
	q->stream = stream;
	q->fields = *f;
	q->why = REASON_LOST;
	q->hops = -1; /* this visit is none */
	run_search(&q->msg);
}

/* ---- life ---- */

void registry_on_change(void (*on_change)(void))
{
	int i = 0;
	while (i < ON_CHANGE_MAX && me.on_change[i])
		i++;
	BUG_ON(i == ON_CHANGE_MAX);
	me.on_change[i] = on_change;
}

size_t registry_agents(void)
{
	return me.agents;
}

size_t registry_links(void)
{
	return me.entries ? map_count(me.entries) : 0;
}

void registry_init(void)
{
	session_count_to(&sessions_on[thread_self()]);
	memset(&me, 0, sizeof me);
	me.entries = map_new();
	me.peers = map_new();
	me.sites = map_new();
	me.claims = map_new();
	me.marks = map_new();
	list_init(&me.nowhere);
	deferred_init(&me.change, run_change);
	timer_init(&me.again, on_again);
}

static void end_parked(void)
{
	size_t pos = 0;
	for (struct peer *p; (p = map_next(me.peers, &pos));)
		session_end_list(&p->parked, REASON_STOPPED);
	session_end_list(&me.nowhere, REASON_STOPPED);
}

void registry_stop(void)
{
	me.stopping = true;
	memset(me.on_change, 0, sizeof me.on_change);
	loop_undefer(&me.change);
	timer_stop(&me.again);
	end_parked();
}

void registry_fini(void)
{
	size_t pos = 0;
	registry_stop();
	for (struct entry *e; (e = map_next(me.entries, &pos));)
		free(e);
	pos = 0;
	for (struct peer *p; (p = map_next(me.peers, &pos));) {
		advert_put(p->advert);
		free(p);
	}
	pos = 0;
	for (struct site *s; (s = map_next(me.sites, &pos));)
		free(s);
	pos = 0;
	for (struct claim *c; (c = map_next(me.claims, &pos));)
		free(c);
	session_count_to(NULL);
	map_free(me.entries);
	map_free(me.peers);
	map_free(me.sites);
	map_free(me.claims);
	map_free(me.marks);
	me.entries = me.peers = me.sites = me.claims = me.marks = NULL;
}
