/* The dialer with dials, TLS, carriers and a registry that do as the test says, and a clock that the test sets:
 * greeting, requests at the wrong time, refusals, back-off, replacement at a goodbye, complaints. */
#include "edge/dialer.c"

#include "kept_conf.h"
#include "logged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

struct carrier {
	void *owner;
	const struct carrier_events *ev;
	bool finishing;
};

static struct {
	struct conf conf;
	struct endpoint hub;
	struct conf_service service;
	uint64_t us;
	int dials, cancels, refusals, requests, searches, ups, gones, retired, frees, tickets, links_alive;
	enum reason refused;
	void (*on_dialled)(void *arg, struct dial_result *r);
	void *dialling;
	struct conn conn;
	enum tls_state tls;
	struct carrier carriers[64];
	int carriers_n;
	bool idle;
	void (*on_verdict)(void *arg, const struct registry_verdict *v);
	void *claimant;
	uint64_t id;
	char hello[4096];
	int hellos;
	bool checked, up; /* the service has a check; what it says */
	uint64_t moment;
} t;

struct dial *dial_start(const struct endpoint *e, const struct dial_options *o, void (*done)(void *arg, struct dial_result *r), void *arg)
{
	assert_true(o->second_attempt);
	t.dials++;
	t.on_dialled = done;
	t.dialling = arg;
	return (struct dial *)&t;
}

void dial_cancel(struct dial *d)
{
	t.cancels++;
}

struct conn *conn_tcp(int fd, void (*on_event)(struct conn *), void *owner)
{
	close(fd);
	return &t.conn;
}

void conn_abort(struct conn *c)
{
}

int conn_fd(const struct conn *c)
{
	return 0;
}

void sock_user_timeout(int fd, uint32_t ms)
{
}

struct conn *tls_connect(struct tls *tls, struct conn *plain, const char *server_name, const struct tls_ticket *ticket, void (*on_event)(struct conn *), void *owner)
{
	assert_string_equal(server_name, "hub.example.com");
	plain->on_event = on_event;
	plain->owner = owner;
	return plain;
}

enum tls_state tls_state(const struct conn *c)
{
	return t.tls;
}

const char *tls_failure(const struct conn *c)
{
	return "certificate has expired (CN=hub)";
}

bool tls_resumed(const struct conn *c)
{
	return true;
}

const char *tls_alpn(const struct conn *c)
{
	return "mctunnel/1";
}

struct tls_ticket *tls_take_ticket(struct conn *c)
{
	t.tickets++;
	return malloc(1);
}

void tls_ticket_free(struct tls_ticket *ticket)
{
	t.tickets -= ticket != NULL;
	free(ticket);
}

struct carrier *carrier_new(enum h2_role role, struct conn *c, uint32_t max_streams, const struct carrier_events *ev, void *owner)
{
	struct carrier *k = &t.carriers[t.carriers_n++];

	assert_int_equal(role, H2_AGENT);
	*k = (struct carrier){ .owner = owner, .ev = ev };
	t.links_alive++;
	return k;
}

struct link *carrier_link(struct carrier *c)
{
	return (struct link *)c;
}

struct conn *carrier_conn(struct carrier *c)
{
	return &t.conn;
}

void carrier_free(struct carrier *c)
{
	t.frees++;
	t.links_alive--;
}

void carrier_finish(struct carrier *c)
{
	c->finishing = true;
}

void link_down(struct link *l, enum reason why, struct list *parked)
{
}

void link_heartbeat(struct link *l, uint32_t interval_ms, uint32_t timeout_ms)
{
	assert_int_equal(timeout_ms, 3000);
}

void link_hello(struct link *l, enum h2_frame type, const char *json, size_t len)
{
	snprintf(t.hello, sizeof(t.hello), "%.*s", (int)len, json);
	t.hellos++;
}

void link_stop(struct link *l, enum reason why)
{
}

void carrier_farewell(struct carrier *c)
{
}

void link_set_peer(struct link *l, const uint8_t instance[16])
{
}

void link_refuse(struct link *l, int32_t stream, enum reason why)
{
	t.refusals++;
}

bool link_idle(const struct link *l)
{
	return t.idle;
}

size_t link_sessions(const struct link *l)
{
	return 0;
}

struct advert *advert_new(void)
{
	struct advert *a = calloc(1, sizeof(*a));

	a->refs = 1;
	return a;
}

void advert_put(struct advert *a)
{
	free(a);
}

uint64_t registry_claim(struct advert *a, bool unique_names, uint32_t max_links, void (*on_answer)(void *arg, const struct registry_verdict *v), void *arg)
{
	assert_string_equal(a->name, "hub-a");
	assert_false(unique_names);
	t.on_verdict = on_answer;
	t.claimant = arg;
	return ++t.id;
}

void registry_up(uint64_t id, struct link *l, struct advert *a)
{
	t.ups++;
}

void registry_retire(uint64_t id)
{
	t.retired++;
}

void registry_gone(uint64_t id)
{
	t.gones++;
}

struct list *registry_parking(uint64_t id)
{
	static struct list parked;

	list_init(&parked);
	return &parked;
}

void registry_claim_session(uint64_t id, int32_t stream, const struct h2_fields *f)
{
	t.searches++;
}

void target_request(struct link *l, int32_t stream, const struct h2_fields *f, const char *hub)
{
	assert_string_equal(hub, "hub-a");
	t.requests++;
}

uint64_t check_survey(const struct conf *conf, void (*take)(void *arg, size_t service, const struct check_view *v), void *arg)
{
	struct check_view v = { .up = t.up, .weight = 7, .since_ms = clock_ms() - 1234, .why = { .status = t.up ? CHECK_L7OK : CHECK_L7STS, .code = 503 } };

	if (t.checked)
		take(arg, 0, &v);
	return t.moment;
}

static void pass_ms(uint64_t ms)
{
	while (ms--) {
		t.us += 1000;
		clock_set_us(t.us);
		timers_run();
	}
	mem_reclaim();
}

static void dialled(int error)
{
	struct dial_result r = { .fd = -1, .error = error, .why = "connection refused" };

	if (!error) {
		r.fd = dup(0);
		assert_int_equal(addr_parse(&r.to, "192.0.2.1:8443"), 0);
	}
	t.on_dialled(t.dialling, &r);
}

static void handshake(enum tls_state result)
{
	dialled(0);
	t.tls = result;
	t.conn.on_event(&t.conn);
}

static struct carrier *newest(void)
{
	return &t.carriers[t.carriers_n - 1];
}

static void hub_says(bool accepted, uint32_t retry_after_ms)
{
	struct hub_hello h = { .name = "hub-a", .version = "1", .protocol = HELLO_PROTOCOL, .accepted = accepted, .retry_after_ms = retry_after_ms };
	char *json;
	size_t len;

	h.heartbeat_interval_ms = 1000;
	h.heartbeat_timeout_ms = 3000;
	h.resume_ms = 30000;
	snprintf(h.reason, sizeof(h.reason), "%s", accepted ? "" : "name_in_use");
	snprintf(h.text, sizeof(h.text), "%s", accepted ? "" : "another edge-1 is up");
	json = hello_hub_build(&h, &len);
	newest()->ev->on_hello(newest()->owner, H2_FRAME_HUB, json, len);
	free(json);
}

static void verdict(bool accepted)
{
	struct registry_verdict v = { .id = t.id, .accepted = accepted, .why = REASON_LIMIT };

	t.on_verdict(t.claimant, &v);
}

static void go_up(void)
{
	handshake(TLS_UP);
	hub_says(true, 0);
	verdict(true);
}

static void ask(bool resume)
{
	struct h2_fields f = { .service = "web", .resume = resume };

	newest()->ev->on_request(newest()->owner, 1, &f);
}

static int set_up(void **state)
{
	struct conf_agent *a = &t.conf.agent;
	uint8_t instance[16] = { 1 };

	memset(&t, 0, sizeof(t));
	logged_clear();
	t.us = 1000000;
	clock_set_us(t.us);
	t.hub = (struct endpoint){ .text = (char *)"hub.example.com:8443", .host = (char *)"hub.example.com", .port = 8443 };
	t.service = (struct conf_service){ .name = (char *)"web", .weight = 100 };
	*a = (struct conf_agent){ .name = (char *)"edge-1", .tunnel = (char *)"site-a", .hubs = &t.hub, .hubs_n = 1, .links = 1 };
	a->backoff_min = 1000;
	a->backoff_max = 8000;
	a->services = &t.service;
	a->services_n = 1;
	t.conf.global.maxconn = 100;
	t.conf.global.hard_stop_after = 5000;
	dialer_init(&t.conf, (struct tls *)&t, instance);
	pass_ms(2);
	assert_int_equal(t.dials, 1);
	return 0;
}

static int tear_down(void **state)
{
	struct mem_usage u;

	dialer_fini();
	assert_int_equal(dialer_links(), 0);
	assert_int_equal(t.links_alive, 0);
	assert_int_equal(t.tickets, 0);
	assert_int_equal(t.conf.refs, 0);
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

static void greets_and_serves(void **state)
{
	handshake(TLS_UP);
	assert_non_null(strstr(t.hello, "edge-1"));
	ask(false);
	assert_int_equal(t.refusals, 1); /* before the welcome */
	hub_says(true, 0);
	ask(false);
	assert_int_equal(t.requests, 1);
	ask(true);
	assert_int_equal(t.searches, 0); /* not before the registry knows the link */
	verdict(true);
	assert_int_equal(t.searches, 1);
	assert_int_equal(dialer_links(), 1);
	assert_string_equal(logged.line, "link_up hub=hub-a addr=192.0.2.1:8443 agent=edge-1 tunnel=site-a resumed=yes ms=1");
	ask(true);
	assert_int_equal(t.searches, 2);
	pass_ms(20000); /* no deadline runs any more */
	assert_int_equal(dialer_links(), 1);
}

static void comes_back_at_once_and_then_calmly(void **state)
{
	int before;

	go_up();
	pass_ms(STABLE_MS);
	newest()->ev->on_down(newest()->owner, REASON_LINK_DEAD, "");
	assert_non_null(strstr(logged.line, "link_down hub=hub-a addr=192.0.2.1:8443 reason=link_dead"));
	assert_int_equal(t.gones, 1);
	pass_ms(JITTER_MS + 1);
	assert_int_equal(t.dials, 2);
	dialled(ECONNREFUSED);
	pass_ms(499);
	assert_int_equal(t.dials, 2);
	pass_ms(502);
	assert_int_equal(t.dials, 3);
	for (int i = 0; i < 10; i++) {
		before = t.dials;
		dialled(ECONNREFUSED);
		pass_ms(499);
		assert_int_equal(t.dials, before);
		pass_ms(7502);
		assert_int_equal(t.dials, before + 1);
	}
	go_up(); /* for a moment only: the pause is short again */
	before = t.dials;
	newest()->ev->on_down(newest()->owner, REASON_LINK_CLOSED, "");
	pass_ms(1001);
	assert_int_equal(t.dials, before + 1);
}

static void complains_once_a_minute(void **state)
{
	t.tls = TLS_FAILED;
	handshake(TLS_FAILED);
	assert_string_equal(logged.line, "link_failed hub=hub.example.com:8443 addr=192.0.2.1:8443 text=certificate has expired (CN=hub) count=1");
	for (int i = 0; i < 5; i++) {
		pass_ms(8001);
		handshake(TLS_FAILED);
	}
	assert_int_equal(logged.lines, 1);
	pass_ms(8001);
	dialled(ECONNREFUSED);
	assert_int_equal(logged.lines, 2);
	pass_ms(30000);
	handshake(TLS_FAILED);
	assert_int_equal(logged.lines, 3);
	assert_non_null(strstr(logged.line, " count=6"));
}

static void heeds_the_hubs_hint(void **state)
{
	handshake(TLS_UP);
	hub_says(false, 2000);
	assert_true(newest()->finishing);
	newest()->ev->on_down(newest()->owner, REASON_DONE, "");
	assert_string_equal(logged.line, "link_refused hub=hub.example.com:8443 addr=192.0.2.1:8443 reason=name_in_use text=another edge-1 is up count=1");
	pass_ms(1999);
	assert_int_equal(t.dials, 1);
	pass_ms(600);
	assert_int_equal(t.dials, 2);
}

static void gives_up_a_silent_hub(void **state)
{
	handshake(TLS_UP);
	pass_ms(GREET_MS + 1);
	assert_int_equal(t.frees, 1);
	assert_non_null(strstr(logged.line, "no welcome within 10 s"));
}

static void replaces_a_link_before_it_goes(void **state)
{
	struct carrier *first;

	go_up();
	first = newest();
	first->ev->on_goaway(first->owner, REASON_DRAINING);
	assert_int_equal(t.retired, 1);
	pass_ms(JITTER_MS + 1000);
	assert_int_equal(t.dials, 2);
	go_up();
	assert_int_equal(dialer_links(), 2);
	assert_false(first->finishing);
	t.idle = true;
	pass_ms(RETIRE_POLL_MS + 1);
	assert_true(first->finishing);
	first->ev->on_down(first->owner, REASON_DONE, "");
	assert_int_equal(dialer_links(), 1);
	pass_ms(1000);
	assert_int_equal(t.dials, 2); /* nobody misses it */
}

static void makes_no_link_when_draining(void **state)
{
	go_up();
	dialer_drain();
	hub_says(true, 0);
	assert_non_null(strstr(t.hello, "\"draining\":true"));
	newest()->ev->on_down(newest()->owner, REASON_LINK_CLOSED, "");
	pass_ms(10000);
	assert_int_equal(t.dials, 1);
}

static void changes(bool up)
{
	t.up = up;
	t.moment++;
	on_changed(&here.change); /* as the loop does at the end of a turn */
}

static void expect_hello(int hellos, const char *words)
{
	assert_int_equal(t.hellos, hellos);
	if (!strstr(t.hello, words))
		fail_msg("%s is not in %s", words, t.hello);
}

/* However much happens until the hub answers: one AGENT frame after the other, and the last one says how it is. */
static void tells_what_checks_find(void **state)
{
	t.checked = true;
	handshake(TLS_UP);
	expect_hello(1, "\"up\":false");
	changes(true);
	changes(false);
	changes(true);
	expect_hello(1, "\"serial\":0");
	hub_says(true, 0); /* while the registry is asked as well */
	expect_hello(2, "\"serial\":6");
	expect_hello(2, "\"weight\":7,\"up\":true");
	expect_hello(2, "\"check\":{\"status\":\"L7OK\",\"code\":503,\"text\":\"good answer\",\"since_ms\":1234}");
	changes(false);
	hub_says(true, 0);
	expect_hello(3, "\"up\":false");
	verdict(true);
	hub_says(true, 0);
	expect_hello(3, "\"status\":\"L7STS\"");
	changes(true);
	expect_hello(4, "\"up\":true");
	dialer_drain();
	expect_hello(4, "\"draining\":false");
	hub_says(true, 0);
	expect_hello(5, "\"draining\":true,\"serial\":11");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(greets_and_serves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(comes_back_at_once_and_then_calmly, set_up, tear_down),
		cmocka_unit_test_setup_teardown(complains_once_a_minute, set_up, tear_down),
		cmocka_unit_test_setup_teardown(heeds_the_hubs_hint, set_up, tear_down),
		cmocka_unit_test_setup_teardown(gives_up_a_silent_hub, set_up, tear_down),
		cmocka_unit_test_setup_teardown(replaces_a_link_before_it_goes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(makes_no_link_when_draining, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tells_what_checks_find, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
