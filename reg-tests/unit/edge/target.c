/* The agent's services with a dial, sessions and pumps that do as the test says: refusals, reasons, PROXY header, moves. */
#include "edge/target.c"

#include "kept_conf.h"
#include "logged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

struct pump {
	void *owner;
	const struct pump_events *ev;
	struct conn *c;
};

static struct {
	struct conf conf;
	struct conf_service services[3];
	struct pump pump; /* the only one */
	int refusals, dials, cancels, established, doomed;
	enum reason refused;
	void (*on_done)(void *arg, struct dial_result *r);
	void *arg;
	bool no_session, no_dial;
} t;

void link_refuse(struct link *l, int32_t stream, enum reason why)
{
	t.refusals++;
	t.refused = why;
}

struct session *session_accept(struct link *l, int32_t stream, const struct h2_fields *f, uint32_t resume_ms, const struct session_events *ev, void *owner)
{
	return t.no_session ? NULL : (struct session *)owner;
}

void session_established(struct session *s, const char *target)
{
	assert_string_equal(target, "127.0.0.1:5432");
	t.established++;
}

struct dial *dial_start(const struct endpoint *e, const struct dial_options *o, void (*done)(void *arg, struct dial_result *r), void *arg)
{
	assert_true(o->timeout_ms > 0 && o->timeout_ms <= 5000);
	t.dials++;
	t.on_done = done;
	t.arg = arg;
	return t.no_dial ? NULL : (struct dial *)&t;
}

void dial_cancel(struct dial *d)
{
	t.cancels++;
}

const struct session_events pump_session_events;

struct pump *pump_new(const struct pump_options *o, const struct pump_events *ev, void *owner)
{
	assert_int_equal(o->local_reset, REASON_TARGET_RESET);
	t.pump = (struct pump){ .owner = owner, .ev = ev };
	return &t.pump;
}

void pump_start(struct pump *p, struct session *s, struct conn *c)
{
	assert_null(c);
}

void pump_conn(struct pump *p, struct conn *c)
{
	p->c = c;
}

static void pump_end(enum reason why)
{
	if (t.pump.c)
		conn_abort(t.pump.c);
	t.pump.ev->on_done(t.pump.owner, why);
	t.pump.owner = NULL;
}

void pump_abort(struct pump *p, enum reason why)
{
	pump_end(why);
}

void pump_abort_soon(struct pump *p)
{
	t.doomed++;
}

struct session *pump_session(struct pump *p)
{
	return (struct session *)p;
}

uint64_t pump_in(const struct pump *p)
{
	return 1;
}

uint64_t pump_out(const struct pump *p)
{
	return 2;
}

bool pump_half_closed(const struct pump *p)
{
	return true;
}

bool pump_limit(struct pump *p, enum brake_way way, struct flow *shared, uint64_t rate)
{
	assert_int_equal(rate, 0);
	return true;
}

void pump_free(struct pump *p)
{
	p->owner = NULL;
}

static void request(const char *service)
{
	struct h2_fields f = { .session = "0123456789abcdef0123456789abcdef", .client = "192.0.2.7:4711", .local = "192.0.2.1:5432", .listener = "db",
			      .sni = "www.example.com", .alpn = "h2" };

	snprintf(f.service, sizeof(f.service), "%s", service);
	target_request(NULL, 1, &f, "hub-a");
}

/* The dial's answer; the other end of the socket, or -1. */
static int dialled(int error)
{
	struct dial_result r = { .fd = -1, .error = error, .why = "because" };
	int fds[2] = { -1, -1 };

	if (!error) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		r.fd = fds[0];
		assert_int_equal(addr_parse(&r.to, "127.0.0.1:5432"), 0);
	}
	t.on_done(t.arg, &r);
	return fds[1];
}

static int set_up(void **state)
{
	memset(&t, 0, sizeof(t));
	logged_clear();
	t.services[0] = (struct conf_service){ .name = (char *)"web", .target.text = (char *)"127.0.0.1:80", .timeouts.connect = 5000, .maxconn = 1 };
	t.services[1] = (struct conf_service){ .name = (char *)"db", .timeouts.connect = 5000, .send_proxy = SEND_PROXY_V1 };
	t.services[2] = (struct conf_service){ .name = (char *)"v2", .timeouts.connect = 5000, .send_proxy = SEND_PROXY_V2 };
	t.conf.agent.services = t.services;
	t.conf.agent.services_n = 3;
	loop_init();
	target_init(&t.conf);
	return 0;
}

static int tear_down(void **state)
{
	struct mem_usage u;

	target_fini();
	loop_fini();
	assert_int_equal(t.conf.refs, 0);
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

static void refuses_what_it_cannot_serve(void **state)
{
	request("ssh");
	assert_int_equal(t.refused, REASON_NO_SERVICE);
	request("web");
	assert_int_equal(t.refusals, 1);
	request("web");
	assert_int_equal(t.refused, REASON_AGENT_FULL);
	pump_end(REASON_CLIENT_RESET);
	assert_int_equal(t.cancels, 1);
	assert_non_null(strstr(logged.line, " target=127.0.0.1:80 connect=-1 total=0 up=2 down=1 end=CC reason=client_reset "));
	t.no_session = true;
	request("web");
	assert_int_equal(t.refused, REASON_RESOURCES);
	assert_int_equal(t.refusals, 3);
}

static void tells_why_the_target_is_not_reached(void **state)
{
	static const struct {
		int error;
		const char *word;
	} cases[] = {
		{ ECONNREFUSED, "end=SC reason=target_refused" },     { ETIMEDOUT, "end=sC reason=target_timeout" },
		{ EHOSTUNREACH, "end=SC reason=target_unreachable" }, { ENOENT, "end=SC reason=target_unreachable" },
		{ EMFILE, "end=RC reason=resources" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		request("web");
		dialled(cases[i].error);
		assert_non_null(strstr(logged.line, cases[i].word));
		assert_null(t.pump.owner);
	}
}

static void connects_and_says_who_comes(void **state)
{
	char got[128] = "";
	int peer;

	request("db");
	peer = dialled(0);
	assert_int_equal(t.established, 1);
	assert_true(recv(peer, got, sizeof(got) - 1, 0) > 0);
	assert_string_equal(got, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 5432\r\n");
	pump_end(REASON_DONE);
	assert_string_equal(logged.line, "session service=db hub=hub-a client=192.0.2.7:4711 listener=db target=127.0.0.1:5432 connect=0 total=0 up=2 down=1 "
				   "end=-- reason=done id=0123456789abcdef0123456789abcdef");
	close(peer);
}

static void says_what_the_hub_knows(void **state)
{
	static const char fields[] = "\x01\0\x02h2\x02\0\x0fwww.example.com\x05\0\x20" "0123456789abcdef0123456789abcdef";
	char got[256];
	int peer;

	request("v2");
	peer = dialled(0);
	assert_int_equal(recv(peer, got, sizeof(got), 0), 28 + sizeof(fields) - 1);
	assert_memory_equal(got + 28, fields, sizeof(fields) - 1);
	pump_end(REASON_DONE);
	close(peer);
}

static void dials_anew_after_a_move(void **state)
{
	int peer;

	request("db");
	t.pump.ev->on_leave(t.pump.owner);
	assert_int_equal(t.cancels, 1);
	t.pump.ev->on_arrive(t.pump.owner);
	assert_int_equal(t.dials, 2);
	peer = dialled(0);
	t.pump.ev->on_leave(t.pump.owner);
	t.pump.ev->on_arrive(t.pump.owner);
	assert_int_equal(t.dials, 2);
	pump_end(REASON_LOST);
	assert_non_null(strstr(logged.line, " end=SL reason=lost "));
	close(peer);
}

/* The client would have waited for timeouts.connect. */
static void no_memory_to_dial_anew(void **state)
{
	request("db");
	t.pump.ev->on_leave(t.pump.owner);
	t.no_dial = true;
	t.pump.ev->on_arrive(t.pump.owner);
	assert_int_equal(t.doomed, 1);
	pump_end(REASON_RESOURCES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(refuses_what_it_cannot_serve, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tells_why_the_target_is_not_reached, set_up, tear_down),
		cmocka_unit_test_setup_teardown(connects_and_says_who_comes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(says_what_the_hub_knows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(dials_anew_after_a_move, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_memory_to_dial_anew, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
