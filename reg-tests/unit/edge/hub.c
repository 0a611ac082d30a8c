/* A guest of the hub from its AGENT frame on: the claim, joining, and refusals of one that had joined. Carrier, link and registry are
 * fakes that note what was asked of them. */
#include "edge/hub.c"

#include "../failing.h"
#include "logged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct carrier {
	struct guest *guest;
	bool finishing, failed, freed;
};

static struct {
	struct conf conf;
	struct conf_tunnel tunnel;
	char *names[1], *services[1];
	struct carrier carrier;
	uint64_t claims, up, retired, gone, parked, stranded;
	void (*on_verdict)(void *, const struct registry_verdict *);
	void *arg;
	int hellos;
	struct list parking;
	uint64_t now_us;
} t;

/* ---- what the hub uses ---- */

struct link *carrier_link(struct carrier *c)
{
	return (struct link *)c;
}

struct conn *carrier_conn(struct carrier *c)
{
	return NULL;
}

void carrier_finish(struct carrier *c)
{
	c->finishing = true;
}

void carrier_fail(struct carrier *c, enum reason why, const char *text)
{
	c->failed = true;
}

void carrier_free(struct carrier *c)
{
	c->freed = true;
}

void link_down(struct link *l, enum reason why, struct list *parked)
{
	assert_ptr_equal(parked, &t.parking);
}

void link_hello(struct link *l, enum h2_frame type, const char *json, size_t len)
{
	t.hellos++;
}

bool link_hello_unsent(const struct link *l)
{
	return false;
}

void link_goaway(struct link *l, enum reason why)
{
}

void link_heartbeat(struct link *l, uint32_t interval_ms, uint32_t timeout_ms)
{
}

uint64_t registry_claim(struct advert *a, bool unique_names, uint32_t max_links, void (*verdict)(void *, const struct registry_verdict *), void *arg)
{
	t.on_verdict = verdict;
	t.arg = arg;
	return ++t.claims;
}

void registry_up(uint64_t id, struct link *l, struct advert *a)
{
	t.up = id;
}

void registry_update(uint64_t id, struct advert *a)
{
}

void registry_retire(uint64_t id)
{
	t.retired = id;
}

void registry_gone(uint64_t id)
{
	t.gone = id;
}

struct list *registry_parking(uint64_t id)
{
	t.parked = id;
	return &t.parking;
}

void registry_strand(uint64_t id, struct list *node)
{
	t.stranded = id;
}

size_t tls_peer_name(const struct conn *c, size_t i, char *buf, size_t size)
{
	str_copy(buf, size, "edge");
	return 1;
}

const char *tls_peer_subject(const struct conn *c)
{
	return "CN=edge";
}

bool tls_resumed(const struct conn *c)
{
	return false;
}

void tls_put(struct tls *tls)
{
}

int conn_fd(const struct conn *c)
{
	return -1;
}

void sock_user_timeout(int fd, uint32_t ms)
{
}

void comeback_up(const char *tunnel, const char *agent)
{
}

void comeback_lost(const char *tunnel, const char *agent)
{
}

void health_init(struct conf *const *conf, bool (*ready)(void))
{
}

void health_stop(void)
{
}

/* ---- the scene ---- */

static int set_up(void **state)
{
	memset(&t, 0, sizeof(t));
	list_init(&t.parking);
	t.names[0] = (char *)"edge";
	t.services[0] = (char *)"*";
	t.tunnel = (struct conf_tunnel){ .name = (char *)"site", .agents = { .v = t.names, .n = 1 }, .services = { .v = t.services, .n = 1 } };
	t.conf.tunnels = &t.tunnel;
	t.conf.tunnels_n = 1;
	t.conf.hub.name = (char *)"hub";
	t.conf.hub.heartbeat_timeout = 3000;
	t.now_us = 1000000000;
	clock_set_us(t.now_us);
	hub_init(&t.conf, NULL, (const uint8_t *)"0123456789abcdef", NULL);
	return 0;
}

static struct guest *greeted(void)
{
	struct guest *g = mem_get(MEM_OTHER, sizeof(*g));

	list_init(&g->node);
	list_init(&g->early);
	timer_init(&g->timer, on_timer);
	g->state = GUEST_SILENT;
	g->carrier = &t.carrier;
	enlist(g);
	timer_start(&g->timer, GREET_MS);
	return g;
}

static void pass_ms(uint64_t ms)
{
	t.now_us += ms * 1000;
	clock_set_us(t.now_us);
	timers_run();
}

static void say(struct guest *g, const char *name)
{
	struct hello_service s = { .name = "ssh", .weight = 1, .up = true };
	struct agent_hello h = { .protocol = HELLO_PROTOCOL, .services = &s, .services_n = 1 };
	size_t len;
	char *json;

	str_copy(h.name, sizeof(h.name), name);
	str_copy(h.tunnel, sizeof(h.tunnel), "site");
	str_copy(h.version, sizeof(h.version), "1");
	memset(h.instance, 7, sizeof(h.instance));
	json = hello_agent_build(&h, &len);
	on_hello(g, H2_FRAME_AGENT, json, len);
	free(json);
}

static void accept_claim(void)
{
	struct registry_verdict v = { .id = t.claims, .accepted = true, .thread = 0 };

	t.on_verdict(t.arg, &v);
}

static void nothing_left(void)
{
	struct mem_usage u;

	hub_fini();
	assert_true(t.carrier.freed);
	assert_int_equal(stat_sum(STAT_LINKS), 0);
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
}

/* ---- tests ---- */

static void joins(void **state)
{
	struct guest *g = greeted();

	say(g, "edge");
	assert_int_equal(t.claims, 1);
	assert_int_equal(t.up, 0);
	accept_claim();
	assert_int_equal(t.up, 1);
	assert_int_equal(stat_sum(STAT_LINKS), 1);
	on_strand(g, NULL);
	assert_int_equal(t.stranded, 1);
	on_down(g, REASON_LINK_CLOSED, "");
	assert_int_equal(t.parked, 1);
	assert_int_equal(t.gone, 1);
	nothing_left();
}

/* The verdict may be slow: the greeting's deadline must not claim a second time. */
static void claims_once(void **state)
{
	struct guest *g = greeted();
	struct registry_verdict no = { .id = 1, .why = REASON_NAME_IN_USE };

	say(g, "edge");
	pass_ms(2 * GREET_MS);
	assert_int_equal(t.claims, 1);
	g->began_ms = clock_ms();
	t.on_verdict(t.arg, &no);
	pass_ms(CLAIM_AGAIN_MS + 1);
	assert_int_equal(t.claims, 2);
	pass_ms(CLAIM_AGAIN_MS + 1);
	assert_int_equal(t.claims, 2);
	accept_claim();
	on_down(g, REASON_LINK_CLOSED, "");
	nothing_left();
}

/* However long heartbeats are: an agent gives up after GREET_MS, and would never hear why it is not welcome. */
static void a_name_in_use_is_told_in_time(void **state)
{
	struct guest *g = greeted();
	struct registry_verdict no = { .id = 1, .why = REASON_NAME_IN_USE };
	int tries = 0;

	t.conf.hub.heartbeat_timeout = 60000;
	say(g, "edge");
	for (; g->state == GUEST_CLAIMING && tries < 1000; tries++) {
		t.on_verdict(t.arg, &no);
		pass_ms(CLAIM_AGAIN_MS + 1);
	}
	assert_int_equal(g->state, GUEST_REFUSED);
	assert_in_range(tries, 2, GREET_MS / CLAIM_AGAIN_MS * 2 / 3);
	on_down(g, REASON_DONE, "");
	nothing_left();
}

/* What it carries is parked where its agent's other links find it, and it does not count for ever. */
static void refused_after_joining(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct guest *g = greeted();

		t.carrier.finishing = t.carrier.freed = false;
		t.gone = t.retired = 0;
		say(g, "edge");
		accept_claim();
		if (i)
			on_hello(g, H2_FRAME_AGENT, "nonsense", 8);
		else
			say(g, "other");
		pass_ms(2 * UPDATE_MS); /* updates are paced */
		assert_int_equal(g->state, GUEST_REFUSED);
		assert_true(t.carrier.finishing);
		assert_int_equal(t.retired, t.claims);
		assert_int_equal(t.gone, 0);
		on_down(g, REASON_DONE, "");
		assert_int_equal(t.parked, t.claims);
		assert_int_equal(t.gone, t.claims);
		assert_int_equal(stat_sum(STAT_LINKS), 0);
	}
	nothing_left();
}

/* Its GOAWAY came while the claim was under way: it must not be taken for a link with room. */
static void goodbye_before_joining(void **state)
{
	struct guest *g = greeted();

	say(g, "edge");
	on_goaway(g, REASON_DRAINING);
	assert_int_equal(t.retired, 0);
	accept_claim();
	assert_int_equal(t.retired, 1);
	on_down(g, REASON_LINK_CLOSED, "");
	nothing_left();
}

/* Without its greeting an agent waits for ten seconds; the hub took it for up, and all its clients failed. */
static void no_memory_for_the_greeting(void **state)
{
	unsigned n = 0;
	bool failed;

	do {
		struct guest *g = greeted();

		say(g, "edge");
		t.hellos = 0;
		t.carrier.failed = t.carrier.freed = false;
		mem_ballast(); /* for who would die */
		failing = ++n;
		accept_claim();
		failed = has_failed();
		assert_true(t.hellos + t.carrier.failed == 1);
		on_down(g, REASON_RESOURCES, "");
	} while (failed);
	assert_true(n > 10);
	nothing_left();
}

/* Under a new configuration nobody stays who could not be judged. */
static void no_memory_for_the_judgement(void **state)
{
	unsigned n = 0;
	bool failed;

	do {
		struct guest *g = greeted();

		t.names[0] = (char *)"edge";
		say(g, "edge");
		accept_claim();
		t.names[0] = (char *)"other";
		t.carrier.failed = t.carrier.freed = false;
		mem_ballast();
		failing = ++n;
		judge_again(g);
		failed = has_failed();
		assert_true(g->unwelcome || t.carrier.failed);
		on_down(g, REASON_RESOURCES, "");
	} while (failed);
	assert_true(n > 10);
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(joins, set_up),
		cmocka_unit_test_setup(claims_once, set_up),
		cmocka_unit_test_setup(a_name_in_use_is_told_in_time, set_up),
		cmocka_unit_test_setup(refused_after_joining, set_up),
		cmocka_unit_test_setup(goodbye_before_joining, set_up),
		cmocka_unit_test_setup(no_memory_for_the_greeting, set_up),
		cmocka_unit_test_setup(no_memory_for_the_judgement, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
