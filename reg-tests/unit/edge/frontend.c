/* The frontend with real sockets, and a registry and pumps that do as the test says: placing, queue, limits, refusals, the log line. */
#include "edge/frontend.c"

#include "kept_agents.h"
#include "kept_conf.h"
#include "logged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#define CLIENTS 4
#define HOPS_MAX 8 /* as trip.c has them */
#define RETRIES_MAX 8

struct pump {
	void *owner;
	struct conn *c;
	bool done;
};

static struct {
	struct conf conf;
	struct conf_tunnel tunnel;
	struct conf_listener listener;
	struct conf_route route;
	struct advert agents[2];
	atomic_uint carried[2];
	size_t agents_n; /* that are there */
	bool full;       /* all their links are */
	bool unable;     /* links take no session anew */
	void (*on_change[4])(void);
	struct pump *pumps[CLIENTS * 2];
	int pumps_n, reopened, aborted;
	int fd; /* listening */
	int client[CLIENTS];
} t;

/* What the frontend uses. */

enum pick_result registry_pick(const struct conf_tunnel *tunnel, const char *service, const struct addr *client, const uint8_t (*avoid)[16], size_t avoid_n,
			       struct pick *out)
{
	assert_ptr_equal(tunnel, &t.tunnel);
	assert_string_equal(service, "ssh");
	for (size_t i = 0; i < t.agents_n; i++) {
		if (is_avoided(&t.agents[i], avoid, avoid_n))
			continue;
		if (t.full)
			return PICK_FULL;
		*out = (struct pick){ .thread = 0, .link = i + 1, .advert = advert_get(&t.agents[i]) };
		return PICK_OK;
	}
	return PICK_NONE;
}

void registry_on_change(void (*change)(void))
{
	int i = 0;

	while (t.on_change[i])
		i++;
	t.on_change[i] = change;
}

static void registry_changes(void)
{
	for (int i = 0; i < 4 && t.on_change[i]; i++)
		t.on_change[i]();
}

struct session *session_open(struct link *l, const struct session_about *about, uint32_t connect_ms, uint32_t resume_ms, const struct session_events *ev,
			     void *owner)
{
	assert_string_equal(about->service, "ssh");
	assert_string_equal(about->listener, "door");
	return (struct session *)owner;
}

int session_reopen(struct session *s, struct link *l)
{
	t.reopened++;
	return t.unable ? -1 : 0;
}

void session_keep(struct session *s)
{
}

void session_abort(struct session *s, enum reason why)
{
	t.aborted++;
}

const struct session_events pump_session_events;

struct pump *pump_new(const struct pump_options *o, const struct pump_events *ev, void *owner)
{
	struct pump *p = calloc(1, sizeof(*p));

	assert_true(o->client_side);
	p->owner = owner;
	return p;
}

void pump_start(struct pump *p, struct session *s, struct conn *c)
{
	p->c = c;
	t.pumps[t.pumps_n++] = p;
	c->on_event = not_yet;
}

struct session *pump_session(struct pump *p)
{
	return (struct session *)p;
}

uint64_t pump_in(const struct pump *p)
{
	return 11;
}

uint64_t pump_out(const struct pump *p)
{
	return 22;
}

bool pump_half_closed(const struct pump *p)
{
	return false;
}

void pump_count(struct pump *p, struct series *up, struct series *down)
{
}

bool pump_limit(struct pump *p, enum brake_way way, struct flow *shared, uint64_t rate)
{
	assert_int_equal(rate, 0);
	return true;
}

int pump_fd(const struct pump *p)
{
	return conn_fd(p->c);
}

void pump_free(struct pump *p)
{
	free(p);
}

static void pump_end(int i, enum reason why)
{
	struct pump *p = t.pumps[i];

	p->done = true;
	conn_abort(p->c);
	pump_events.on_done(p->owner, why);
}

void pump_abort(struct pump *p, enum reason why)
{
	p->done = true;
	conn_abort(p->c);
	pump_events.on_done(p->owner, why);
}

/* The world. */

static int listen_here(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static void turns(int n)
{
	while (n-- > 0)
		loop_turn(1);
}

static void connect_client(int i)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	assert_int_equal(getsockname(t.fd, (struct sockaddr *)&a, &len), 0);
	t.client[i] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(t.client[i], (struct sockaddr *)&a, len), 0);
	turns(2);
}

/* 0: a clean end, else -errno; -EAGAIN: open. */
static int client_sees(int i)
{
	char c;
	ssize_t n = recv(t.client[i], &c, 1, MSG_DONTWAIT);

	return n < 0 ? -errno : (int)n;
}

static int set_up(void **state)
{
	memset(&t, 0, sizeof(t));
	logged_clear();
	t.route = (struct conf_route){ .text = (char *)"site-a/ssh", .tunnel = (char *)"site-a", .service = (char *)"ssh" };
	t.tunnel = (struct conf_tunnel){ .name = (char *)"site-a" };
	t.listener = (struct conf_listener){ .name = (char *)"door", .route = &t.route, .route_n = 1 };
	t.listener.timeouts = (struct conf_timeouts){ .connect = 1000, .queue = 60000, .idle = 60000 };
	t.conf.global.maxconn = 100;
	t.conf.tunnels = &t.tunnel;
	t.conf.tunnels_n = 1;
	t.conf.listeners = &t.listener;
	t.conf.listeners_n = 1;
	name_agents(t.agents, t.carried, 2);
	t.fd = listen_here();
	loop_init();
	frontend_init(&t.conf, NULL);
	assert_int_equal(frontend_open(&t.conf, &t.listener, t.fd), 0);
	return 0;
}

static int tear_down(void **state)
{
	struct mem_usage u;

	for (int i = 0; i < t.pumps_n; i++) {
		if (!t.pumps[i]->done)
			pump_end(i, REASON_STOPPED);
		free(t.pumps[i]);
	}
	frontend_fini();
	turns(1); /* messages on their way */
	loop_fini();
	for (int i = 0; i < CLIENTS; i++) {
		if (t.client[i])
			close(t.client[i]);
	}
	close(t.fd);
	assert_int_equal(frontend_sessions(), 0);
	expect_idle_agents(t.agents, 2);
	assert_int_equal(t.conf.refs, 0);
	assert_int_equal(stat_sum(STAT_QUEUE), 0);
	assert_int_equal(stat_sum(STAT_SESSIONS), 0);
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

static void places_a_client_and_logs_its_end(void **state)
{
	t.agents_n = 1;
	connect_client(0);
	assert_int_equal(t.pumps_n, 1);
	assert_int_equal(frontend_sessions(), 1);
	assert_int_equal(t.carried[0], 1);
	pump_events.on_open(t.pumps[0]->owner, "127.0.0.1:22");
	pump_end(0, REASON_DONE);
	assert_non_null(strstr(logged.line, "session listener=door client=127.0.0.1:"));
	assert_non_null(strstr(logged.line, " route=site-a/ssh agent=edge-0 target=127.0.0.1:22 queue="));
	assert_non_null(strstr(logged.line, " up=11 down=22 sessions=1/1 end=-- reason=done id=0123456789abcdef0123456789abcdef"));
	assert_int_equal(frontend_sessions(), 0);
}

static void waits_for_an_agent(void **state)
{
	connect_client(0);
	assert_int_equal(t.pumps_n, 0);
	assert_int_equal(stat_sum(STAT_QUEUE), 1);
	assert_int_equal(client_sees(0), -EAGAIN);
	t.agents_n = 1;
	registry_changes();
	assert_int_equal(t.pumps_n, 1);
	assert_int_equal(stat_sum(STAT_QUEUE), 0);
	pump_end(0, REASON_TARGET_REFUSED);
	assert_non_null(strstr(logged.line, " connect=-1 "));
	assert_non_null(strstr(logged.line, " end=SC reason=target_refused"));
}

static void refuses_when_no_agent_comes(void **state)
{
	t.listener.timeouts.queue = 20;
	connect_client(0);
	for (int i = 0; i < 100 && frontend_sessions(); i++)
		turns(1);
	assert_int_equal(client_sees(0), -ECONNRESET);
	assert_non_null(strstr(logged.line, " agent=- target=- queue="));
	assert_true(logged_int("queue") > 0 && logged_int("total") > 0);
	assert_int_equal(logged_int("connect"), -1);
	assert_non_null(strstr(logged.line, " end=sQ reason=no_agent id=-"));
}

static void stops_accepting_at_the_limit(void **state)
{
	t.agents_n = 1;
	t.conf.global.maxconn = 2;
	for (int i = 0; i < 3; i++)
		connect_client(i);
	assert_int_equal(t.pumps_n, 2);
	turns(3);
	assert_int_equal(t.pumps_n, 2);
	assert_int_equal(client_sees(2), -EAGAIN);
	pump_end(0, REASON_DONE);
	turns(3);
	assert_int_equal(t.pumps_n, 3);
	t.conf.global.maxconn = 100;
	t.listener.maxconn = 2;
	connect_client(3);
	assert_int_equal(t.pumps_n, 3);
	pump_end(1, REASON_DONE);
	turns(3);
	assert_int_equal(t.pumps_n, 4);
}

static void waits_at_the_limit_of_the_tunnel(void **state)
{
	t.agents_n = 1;
	t.tunnel.maxconn = 1;
	connect_client(0);
	connect_client(1);
	assert_int_equal(t.pumps_n, 1);
	assert_int_equal(stat_sum(STAT_QUEUE), 1);
	turns(3);
	assert_int_equal(t.pumps_n, 1);
	pump_end(0, REASON_DONE);
	turns(2);
	assert_int_equal(t.pumps_n, 2);
	assert_int_equal(stat_sum(STAT_QUEUE), 0);
}

/* Nobody says when a link has room again. */
static void waits_for_a_full_link(void **state)
{
	t.agents_n = 1;
	t.full = true;
	connect_client(0);
	assert_int_equal(stat_sum(STAT_QUEUE), 1);
	t.full = false;
	for (int i = 0; i < 1000 && t.pumps_n == 0; i++)
		turns(1);
	assert_int_equal(t.pumps_n, 1);
}

/* The request went down with its link, and no other one is there just now. */
static void waits_for_links_with_a_session(void **state)
{
	t.agents_n = 1;
	connect_client(0);
	t.agents_n = 0;
	assert_true(pump_events.on_refused(t.pumps[0]->owner, REASON_LOST));
	assert_int_equal(t.carried[0], 0);
	turns(3);
	assert_int_equal(t.reopened, 0);
	t.agents_n = 1;
	for (int i = 0; i < 1000 && t.reopened == 0; i++)
		turns(1);
	assert_int_equal(t.reopened, 1);
	assert_int_equal(t.carried[0], 1);
	t.agents_n = 0;
	t.listener.timeouts.queue = 20;
	assert_true(pump_events.on_refused(t.pumps[0]->owner, REASON_LOST));
	for (int i = 0; i < 1000 && !t.pumps[0]->done; i++)
		turns(1);
	assert_non_null(strstr(logged.line, " reason=no_agent "));
}

/* The session is given up once, though it had been kept. */
static void gives_up_when_no_link_takes_it(void **state)
{
	t.agents_n = 2;
	connect_client(0);
	t.unable = true;
	assert_false(pump_events.on_refused(t.pumps[0]->owner, REASON_TARGET_REFUSED));
	assert_int_equal(t.reopened, HOPS_MAX);
	assert_int_equal(t.aborted, 1);
	assert_int_equal(t.carried[0], 0);
}

static void tries_another_agent(void **state)
{
	t.agents_n = 2;
	connect_client(0);
	assert_int_equal(t.carried[0], 1);
	assert_true(pump_events.on_refused(t.pumps[0]->owner, REASON_AGENT_FULL));
	assert_int_equal(t.reopened, 1);
	assert_int_equal(t.carried[0], 0);
	assert_int_equal(t.carried[1], 1);
	assert_false(pump_events.on_refused(t.pumps[0]->owner, REASON_TARGET_REFUSED));
	pump_end(0, REASON_TARGET_REFUSED);
	assert_non_null(strstr(logged.line, " agent=edge-1 "));
}

static void asks_again_when_the_request_was_lost(void **state)
{
	t.agents_n = 1;
	connect_client(0);
	for (int i = 0; i < RETRIES_MAX; i++)
		assert_true(pump_events.on_refused(t.pumps[0]->owner, REASON_LOST));
	assert_int_equal(t.carried[0], 1);
	assert_false(pump_events.on_refused(t.pumps[0]->owner, REASON_LOST));
}

static void drops_only_who_broke_the_connection(void **state)
{
	struct linger l = { .l_onoff = 1 };

	connect_client(0);
	connect_client(1);
	assert_int_equal(stat_sum(STAT_QUEUE), 2);
	shutdown(t.client[0], SHUT_WR);
	setsockopt(t.client[1], SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(t.client[1]);
	t.client[1] = 0;
	turns(3);
	assert_int_equal(stat_sum(STAT_QUEUE), 1);
	assert_non_null(strstr(logged.line, " end=CQ reason=client_reset"));
	t.agents_n = 1;
	registry_changes();
	assert_int_equal(t.pumps_n, 1);
}

static void ends_who_waits_when_stopped(void **state)
{
	connect_client(0);
	frontend_close_all();
	frontend_stop();
	assert_int_equal(client_sees(0), -ECONNRESET);
	assert_non_null(strstr(logged.line, " end=KQ reason=stopped"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(places_a_client_and_logs_its_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(waits_for_an_agent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refuses_when_no_agent_comes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stops_accepting_at_the_limit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(waits_at_the_limit_of_the_tunnel, set_up, tear_down),
		cmocka_unit_test_setup_teardown(waits_for_a_full_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(waits_for_links_with_a_session, set_up, tear_down),
		cmocka_unit_test_setup_teardown(gives_up_when_no_link_takes_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tries_another_agent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(asks_again_when_the_request_was_lost, set_up, tear_down),
		cmocka_unit_test_setup_teardown(drops_only_who_broke_the_connection, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ends_who_waits_when_stopped, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
