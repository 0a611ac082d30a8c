/* Trips, with a registry, links and sessions that do as the test says: routes in order, the queue and its time, agents that refuse, limits, counts, reloads, the end. */
#include <stdbool.h>
#include <stdlib.h>

static bool no_heap;

static void *try_realloc(void *old, size_t size)
{
	return no_heap ? NULL : realloc(old, size);
}

#define realloc try_realloc
#include "edge/trip.c"
#undef realloc

#include "kept_agents.h"
#include "kept_conf.h"

#include "mctunnel/event/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define AGENTS 4

static struct {
	struct conf conf;
	struct conf_tunnel tunnels[2];
	struct conf_listener listener;
	struct conf_route routes[2];
	struct generation *gen;
	struct advert agents[AGENTS]; /* 0, 1 of the first tunnel, the others of the second */
	atomic_uint carried[AGENTS];
	bool there[AGENTS];
	bool full, unable, no_memory; /* all links; sessions are not opened anew; or not at all */
	void (*on_change)(void);
	uint64_t now;
	/* what was heard */
	int waits, sessions, aborted, reopened, kept, last;
	int failed;
	enum reason why;
	char service[32];
} w;

static struct session *const the_session = (struct session *)&w;

/* ---- what trips use ---- */

enum pick_result registry_pick(const struct conf_tunnel *t, const char *service, const struct addr *client, const uint8_t (*avoid)[16], size_t avoid_n,
			       struct pick *out)
{
	int first = t == &w.tunnels[0] ? 0 : 2;

	for (int i = first; i < first + 2; i++) {
		if (!w.there[i] || is_avoided(&w.agents[i], avoid, avoid_n))
			continue;
		if (w.full)
			return PICK_FULL;
		*out = (struct pick){ .thread = 0, .link = (uint64_t)i + 1, .advert = advert_get(&w.agents[i]) };
		w.last = i;
		return PICK_OK;
	}
	return PICK_NONE;
}

void registry_on_change(void (*change)(void))
{
	w.on_change = change;
}

struct session *session_open(struct link *l, const struct session_about *about, uint32_t connect_ms, uint32_t resume_ms, const struct session_events *ev,
			     void *owner)
{
	str_copy(w.service, sizeof(w.service), about->service);
	assert_string_equal(about->listener, "door");
	return w.no_memory ? NULL : the_session;
}

int session_reopen(struct session *s, struct link *l)
{
	w.reopened++;
	return w.unable ? -1 : 0;
}

void session_keep(struct session *s)
{
	w.kept++;
}

void session_abort(struct session *s, enum reason why)
{
	w.aborted++;
}

/* ---- the owner ---- */

static void describe(void *owner, struct session_about *about)
{
}

static void on_wait(void *owner)
{
	w.waits++;
}

static void on_nothing(void *owner)
{
	fail();
}

static void on_session(void *owner, struct session *s)
{
	assert_ptr_equal(s, the_session);
	w.sessions++;
}

static void on_failed(void *owner, enum reason why)
{
	w.failed++;
	w.why = why;
}

static const struct trip_events events = { describe, on_wait, on_nothing, on_nothing, on_session, on_failed, NULL };

/* ---- the world ---- */

static int set_up(void **state)
{
	static char *services[] = { (char *)"ssh", (char *)"web-*" };

	memset(&w, 0, sizeof(w));
	name_agents(w.agents, w.carried, AGENTS);
	w.tunnels[0] = (struct conf_tunnel){ .name = (char *)"site-a", .services = { services, 1 } };
	w.tunnels[1] = (struct conf_tunnel){ .name = (char *)"site-b", .services = { services + 1, 1 } };
	w.routes[0] = (struct conf_route){ .text = (char *)"site-a/ssh", .tunnel = (char *)"site-a", .service = (char *)"ssh" };
	w.routes[1] = (struct conf_route){ .text = (char *)"site-b/web-1", .tunnel = (char *)"site-b", .service = (char *)"web-1" };
	w.listener = (struct conf_listener){ .name = (char *)"door", .route = w.routes, .route_n = 2 };
	w.listener.timeouts = (struct conf_timeouts){ .connect = 1000, .queue = 5000 };
	w.conf = (struct conf){ .tunnels = w.tunnels, .tunnels_n = 2, .listeners = &w.listener, .listeners_n = 1 };
	loop_init();
	clock_set_us(w.now = 1000000000);
	room_init();
	trip_init();
	w.gen = generation_new(&w.conf, NULL, NULL);
	return 0;
}

static void turns(int n)
{
	while (n-- > 0)
		loop_turn(0);
}

static void pass(uint32_t ms)
{
	clock_set_us(w.now += (uint64_t)ms * 1000);
	turns(3);
}

static int tear_down(void **state)
{
	struct mem_usage u;

	trip_fini();
	room_fini();
	turns(3);
	expect_idle_agents(w.agents, AGENTS);
	for (int i = 0; i < 2; i++)
		assert_int_equal(atomic_load(&w.gen->sites[i].score->sessions), 0);
	assert_int_equal(atomic_load(&w.gen->refs), 1);
	generation_put(w.gen);
	loop_fini();
	mem_reclaim();
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	return 0;
}

static struct trip *make(bool patient)
{
	static const struct addr client;
	struct trip_options o = { .gen = w.gen, .place = &w.gen->places[0], .client = &client, .since_ms = clock_ms(), .patient = patient };
	struct trip *t = trip_new(&o, &events, NULL, NULL);

	assert_non_null(t);
	return t;
}

static struct trip *start(void)
{
	struct trip *t = make(false);

	trip_start(t);
	return t;
}

static void expect_at(const struct trip *t, int agent)
{
	struct trip_view v;

	trip_view(t, &v);
	assert_string_equal(v.agent, w.agents[agent].name);
	assert_int_equal(atomic_load(&w.carried[agent]), 1);
}

/* ---- tests ---- */

static void takes_the_first_route_that_can(void **state)
{
	struct trip_view v;
	struct trip *t;

	w.there[2] = true;
	t = start();
	assert_int_equal(w.sessions, 1);
	assert_string_equal(w.service, "web-1");
	expect_at(t, 2);
	trip_view(t, &v);
	assert_string_equal(v.route, "site-b/web-1");
	assert_string_equal(v.tunnel, "site-b");
	assert_int_equal(v.phase, 'C');
	pass(30);
	trip_established(t, "127.0.0.1:80");
	trip_view(t, &v);
	assert_string_equal(v.target, "127.0.0.1:80");
	assert_int_equal(v.phase, 'D');
	assert_int_equal(v.queue_ms, 0);
	assert_int_equal(v.connect_ms, 30);
	trip_free(t, REASON_DONE, 10, 20);
	assert_int_equal(atomic_load(&w.gen->sites[1].score->tally.up), 10);
	assert_int_equal(atomic_load(&w.gen->sites[1].score->tally.down), 20);
	assert_int_equal(atomic_load(&w.gen->sites[1].score->tally.failed), 0);
	w.there[0] = true;
	t = start();
	expect_at(t, 0);
	trip_free(t, REASON_LOST, 0, 0);
	assert_int_equal(atomic_load(&w.gen->sites[0].score->tally.failed), 1);
}

static void waits_for_an_agent(void **state)
{
	struct trip *t = start();

	assert_int_equal(w.waits, 1);
	assert_true(trip_waiting(t));
	pass(4000);
	w.there[1] = true;
	w.on_change();
	assert_int_equal(w.sessions, 1);
	assert_false(trip_waiting(t));
	expect_at(t, 1);
	pass(60000);
	assert_int_equal(w.failed, 0);
	trip_free(t, REASON_DONE, 0, 0);
}

static void waits_no_longer_than_the_queue(void **state)
{
	struct trip *t = start();

	pass(4900);
	assert_int_equal(w.failed, 0);
	pass(200);
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.why, REASON_NO_AGENT);
	assert_false(trip_waiting(t));
	w.there[0] = true;
	w.on_change(); /* too late */
	assert_int_equal(w.sessions, 0);
	trip_free(t, w.why, 0, 0);
}

/* Nobody tells when a link is not full any more. */
static void looks_again_at_full_links(void **state)
{
	struct trip *t;

	w.there[0] = w.full = true;
	t = start();
	assert_int_equal(w.waits, 1);
	pass(FULL_MS + 10);
	assert_int_equal(w.sessions, 0);
	w.full = false;
	pass(FULL_MS + 10);
	assert_int_equal(w.sessions, 1);
	trip_free(t, REASON_DONE, 0, 0);
}

static void says_what_it_lacks(void **state)
{
	struct trip *t;

	w.there[0] = w.full = true;
	w.listener.route_n = 1;
	t = start();
	pass(5100);
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.why, REASON_AGENT_FULL);
	trip_free(t, w.why, 0, 0);
}

static void keeps_the_limit_of_a_tunnel(void **state)
{
	struct trip *a, *b;

	w.there[0] = true;
	w.tunnels[0].maxconn = 1;
	a = start();
	b = start();
	assert_int_equal(w.sessions, 1);
	assert_true(trip_waiting(b));
	trip_free(a, REASON_DONE, 0, 0);
	turns(3);
	assert_int_equal(w.sessions, 2); /* the room that was made was told of */
	trip_free(b, REASON_DONE, 0, 0);
}

static void goes_on_to_those_who_have_not_refused(void **state)
{
	struct trip *t;

	w.there[0] = w.there[1] = w.there[3] = true;
	t = start();
	expect_at(t, 0);
	assert_true(trip_refused(t, REASON_TARGET_REFUSED));
	expect_at(t, 1);
	assert_true(trip_refused(t, REASON_TARGET_REFUSED));
	expect_at(t, 3); /* the next route */
	assert_int_equal(atomic_load(&w.carried[0]) + atomic_load(&w.carried[1]), 0);
	assert_false(trip_refused(t, REASON_TARGET_REFUSED));
	assert_int_equal(w.aborted, 1);
	assert_int_equal(w.reopened, 2);
	trip_free(t, REASON_TARGET_REFUSED, 0, 0);
}

/* The link was lost with the request: that is not the agent's word. */
static void asks_an_agent_again_that_said_nothing(void **state)
{
	struct trip *t;

	w.there[0] = true;
	t = start();
	assert_true(trip_refused(t, REASON_LOST));
	expect_at(t, 0);
	w.there[0] = false;
	assert_true(trip_refused(t, REASON_LOST)); /* links come back soon */
	assert_int_equal(w.aborted, 0);
	w.there[0] = true;
	pass(FULL_MS + 10);
	expect_at(t, 0);
	assert_int_equal(w.reopened, 2);
	trip_free(t, REASON_DONE, 0, 0);
}

static void does_not_ask_for_ever(void **state)
{
	struct trip *t;
	int asked = 0;

	w.there[0] = true;
	t = start();
	while (trip_refused(t, REASON_LOST))
		assert_true(++asked <= RETRIES_MAX);
	assert_int_equal(asked, RETRIES_MAX);
	trip_free(t, REASON_LOST, 0, 0);
}

static void gives_up_when_no_link_comes_back(void **state)
{
	struct trip *t;

	w.there[0] = true;
	t = start();
	w.there[0] = false;
	assert_true(trip_refused(t, REASON_LOST));
	for (int i = 0; i < 200 && !w.failed; i++)
		pass(FULL_MS);
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.why, REASON_NO_AGENT);
	trip_free(t, w.why, 0, 0);
}

/* Where all say that they are full, a patient one comes again. */
static void is_patient(void **state)
{
	struct trip *t = make(true);

	w.there[0] = true;
	trip_start(t);
	for (int i = 0; i < 3 * RETRIES_MAX; i++) {
		assert_true(trip_refused(t, REASON_AGENT_FULL));
		pass(FULL_MS + 10);
		expect_at(t, 0);
	}
	trip_free(t, REASON_DONE, 0, 0);
}

static enum reason route(struct trip *t, const char *tunnel, const char *service)
{
	return trip_routes(t, &(struct rules_route){ tunnel, service }, 1);
}

static void has_routes_of_its_own(void **state)
{
	struct trip *t = make(false);
	struct rules_route routes[] = { { "site-c", "ssh" }, { "site-a", "web-1" }, { "site-b", "web-7" } };

	assert_int_equal(route(t, "site-c", "ssh"), REASON_NO_ROUTE);
	assert_int_equal(route(t, "site-a", "web-1"), REASON_NO_ROUTE); /* the tunnel does not allow it */
	assert_int_equal(trip_routes(t, routes, 2), REASON_NO_ROUTE);
	assert_int_equal(trip_routes(t, routes, 3), REASON_DONE);
	w.there[0] = w.there[3] = true;
	trip_start(t);
	assert_string_equal(w.service, "web-7");
	expect_at(t, 3);
	trip_free(t, REASON_DONE, 0, 0);
}

/* What is beyond is left out. */
static void has_as_many_routes_as_there_may_be(void **state)
{
	struct trip *t = make(false);
	struct rules_route routes[TRIP_ROUTES + 1];

	for (int i = 0; i < TRIP_ROUTES; i++)
		routes[i] = (struct rules_route){ "site-b", "web-7" };
	routes[TRIP_ROUTES] = (struct rules_route){ "site-a", "ssh" };
	assert_int_equal(trip_routes(t, routes, TRIP_ROUTES + 1), REASON_DONE);
	w.there[0] = true;
	trip_start(t);
	assert_true(trip_waiting(t));
	trip_free(t, REASON_STOPPED, 0, 0);
}

static void no_memory_is_no_wrong_route(void **state)
{
	struct trip *t = make(false);
	struct rules_route routes[] = { { "site-b", "web-7" }, { "site-c", "ssh" } };

	no_heap = true;
	assert_int_equal(route(t, "site-b", "web-7"), REASON_RESOURCES);
	assert_int_equal(trip_routes(t, routes, 2), REASON_RESOURCES);
	no_heap = false;
	assert_int_equal(trip_routes(t, routes, 2), REASON_DONE);
	w.there[3] = true;
	trip_start(t);
	assert_string_equal(w.service, "web-7");
	trip_free(t, REASON_DONE, 0, 0);
}

/* Cut, it would be another one. */
static void a_route_too_long_leads_nowhere(void **state)
{
	struct trip *t = make(false);
	char service[200] = "web-";

	memset(service + 4, '7', sizeof(service) - 5);
	assert_int_equal(route(t, "site-b", service), REASON_NO_ROUTE);
	assert_int_equal(trip_routes(t, (struct rules_route[]){ { "site-b", service }, { "site-b", "web-7" } }, 2), REASON_DONE);
	w.there[3] = true;
	trip_start(t);
	assert_string_equal(w.service, "web-7");
	trip_free(t, REASON_DONE, 0, 0);
}

static void no_route_leads_nowhere(void **state)
{
	struct trip *t = make(false);
	struct trip_view v;

	assert_int_equal(trip_routes(t, NULL, 0), REASON_NO_ROUTE);
	w.there[0] = true;
	trip_start(t);
	assert_true(trip_waiting(t));
	trip_view(t, &v);
	assert_null(v.route);
	assert_null(v.agent);
	trip_free(t, REASON_STOPPED, 0, 0);
}

static void no_memory_for_a_session(void **state)
{
	struct trip *t;

	w.there[0] = w.no_memory = true;
	t = start();
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.why, REASON_RESOURCES);
	trip_free(t, w.why, 0, 0);
}

static void who_waits_follows_a_reload(void **state)
{
	static struct conf_listener listener;
	static struct conf next;
	struct generation *old = w.gen;
	struct trip *t = start();

	listener = w.listener;
	listener.route = &w.routes[1];
	listener.route_n = 1;
	next = w.conf;
	next.listeners = &listener;
	w.there[0] = true; /* not on the new route */
	w.gen = generation_new(&next, NULL, old);
	trip_reload(w.gen);
	assert_true(trip_waiting(t));
	assert_ptr_equal(trip_generation(t), w.gen);
	w.there[2] = true;
	w.on_change();
	expect_at(t, 2);
	assert_int_equal(atomic_load(&old->refs), 1);
	generation_put(old);
	trip_free(t, REASON_DONE, 0, 0);
}

static void own_routes_stay_as_far_as_they_exist(void **state)
{
	static struct conf_tunnel tunnels[2];
	static struct conf_listener listener;
	static struct conf next;
	struct generation *old = w.gen;
	struct trip *t = make(false);

	assert_int_equal(trip_routes(t, (struct rules_route[]){ { "site-a", "ssh" }, { "site-b", "web-7" } }, 2), REASON_DONE);
	trip_start(t);
	tunnels[0] = w.tunnels[0];
	tunnels[0].name = (char *)"site-c";
	tunnels[1] = w.tunnels[1];
	listener = w.listener;
	listener.route_n = 0;
	next = w.conf;
	next.tunnels = tunnels;
	next.listeners = &listener;
	no_heap = true; /* it needs none for that */
	w.gen = generation_new(&next, NULL, old);
	trip_reload(w.gen);
	no_heap = false;
	assert_true(trip_waiting(t));
	assert_int_equal(atomic_load(&old->refs), 1);
	w.there[0] = w.there[3] = true;
	w.on_change();
	expect_at(t, 3);
	assert_string_equal(w.service, "web-7");
	generation_put(old);
	trip_free(t, REASON_DONE, 0, 0);
}

static void the_end(void **state)
{
	struct trip *a = start(), *b;

	trip_stop();
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.why, REASON_STOPPED);
	w.there[0] = true;
	b = start();
	assert_int_equal(w.failed, 2);
	assert_int_equal(w.sessions, 0);
	trip_free(a, REASON_STOPPED, 0, 0);
	trip_free(b, REASON_STOPPED, 0, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(takes_the_first_route_that_can), T(waits_for_an_agent), T(waits_no_longer_than_the_queue), T(looks_again_at_full_links), T(says_what_it_lacks),
		T(keeps_the_limit_of_a_tunnel), T(goes_on_to_those_who_have_not_refused), T(asks_an_agent_again_that_said_nothing), T(does_not_ask_for_ever),
		T(gives_up_when_no_link_comes_back), T(is_patient), T(has_routes_of_its_own), T(has_as_many_routes_as_there_may_be), T(no_route_leads_nowhere), T(no_memory_for_a_session),
		T(no_memory_is_no_wrong_route), T(a_route_too_long_leads_nowhere), T(own_routes_stay_as_far_as_they_exist),
		T(who_waits_follows_a_reload), T(the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
