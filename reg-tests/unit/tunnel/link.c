/* A link: heartbeat, barriers, limits, its end. The sessions on it are session.c's. */
#include "tunnel/link.c"

#include "../failing.h"
#include "pair.h"

static struct side hub, agent;
static struct user client, target;

static void refuse(struct side *me, int32_t stream, const struct h2_fields *f)
{
	link_refuse(me->l, stream, REASON_TARGET_REFUSED);
}

static void take(struct side *me, int32_t stream, const struct h2_fields *f)
{
	target.s = session_accept(me->l, stream, f, 1000, &user_events, &target);
	assert_non_null(target.s);
	session_established(target.s, "192.0.2.1:80");
}

static int fresh(void **state)
{
	memset(&client, 0, sizeof client);
	memset(&target, 0, sizeof target);
	pass_ms(1000);
	return 0;
}

static void links(bool raw_hub, bool raw_agent, uint32_t max)
{
	side_open(&hub, H2_HUB, raw_hub, max);
	side_open(&agent, H2_AGENT, raw_agent, max);
	agent.on_request = raw_agent ? NULL : take;
	settle_pair(&hub, &agent);
}

static void finish(void)
{
	side_close(&hub);
	side_close(&agent);
	session_end_list(&hub.parked, REASON_STOPPED);
	session_end_list(&agent.parked, REASON_STOPPED);
	session_stop_all(REASON_STOPPED);
}

static int open_client(void)
{
	client.s = session_open(hub.l, &web, 10000, 1000, &user_events, &client);
	return client.s ? 0 : -1;
}

/* ---- heartbeat ---- */

static void beat(unsigned ms, bool connected)
{
	for (unsigned i = 0; i < ms; i += 10) {
		pass_ms(10);
		if (connected)
			settle_pair(&hub, &agent);
		while (!connected && (carry(&hub, NULL) || carry(&agent, NULL)))
			;
	}
}

static void test_idle_links_ping(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	beat(10000, true);
	assert_in_range(hub.sent.n[PING], 9, 11);
	assert_int_equal(agent.sent.n[PING], hub.sent.n[PING]);
	assert_false(hub.dead || agent.dead);
	finish();
}

/* Both sides have a timer, but one exchange an interval tells both; now and then the hub asks too, for the round trip. */
static void test_one_side_pings(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	link_heartbeat(agent.l, 1000, 3000);
	beat(100000, true);
	assert_in_range(agent.sent.n[PING] + hub.sent.n[PING], 2 * 95, 2 * 140); /* with the answers */
	assert_false(hub.dead || agent.dead);
	finish();
}

static void test_silence_is_death(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	beat(2900, false);
	assert_false(hub.dead);
	beat(200, false);
	assert_true(hub.dead);
	assert_int_equal(hub.dead_why, REASON_LINK_DEAD);
	uint8_t byte = 0, out[32768];
	assert_int_equal(link_input(hub.l, &byte, 1), -1);
	assert_int_equal(link_flat(hub.l, out, sizeof out), 0);
	assert_false(link_wants_output(hub.l) || link_can_open(hub.l));
	finish();
}

static void test_any_byte_is_life(void **state)
{
	links(false, true, 100);
	link_heartbeat(hub.l, 1000, 3000);
	for (unsigned i = 0; i < 20; i++) {
		h2_ping(agent.raw, i);
		assert_true(carry(&agent, &hub));
		beat(2000, false);
	}
	assert_false(hub.dead);
	finish();
}

/* The only bytes that come are answers, each after so long. */
static void answers_keep_alive(struct side *asks, uint32_t interval, uint32_t timeout, unsigned after)
{
	struct side *answers = asks == &hub ? &agent : &hub;
	unsigned answer = 0;
	links(false, false, 100);
	link_heartbeat(asks->l, interval, timeout);
	for (unsigned ms = 1; ms <= 20 * interval; ms++) {
		pass_ms(1);
		if (carry(asks, answers))
			answer = ms + after;
		if (answer == ms)
			carry(answers, asks);
	}
	assert_false(asks->dead);
	assert_in_range(asks->sent.n[PING], 10, 25);
	finish();
}

static void test_answers_in_time_keep_alive(void **state)
{
	static const unsigned timeouts[] = {1100, 1300, 1500, 1900, 2000, 3000};
	for (unsigned k = 0; k < 2; k++) {
		struct side *asks = k ? &hub : &agent;
		for (unsigned i = 0; i < 6; i++)
			for (unsigned phase = 0; phase < 100; phase += 11) {
				pass_ms(100 + phase - (unsigned)(clock_ms() % 100));
				answers_keep_alive(asks, 1000, timeouts[i], 60);
				answers_keep_alive(asks, 1000, timeouts[i], 99);
			}
		answers_keep_alive(asks, 10, 20, 3);
		answers_keep_alive(asks, 20, 40, 7);
		answers_keep_alive(asks, 25, 33, 3);
		answers_keep_alive(asks, 10, 15, 2);
	}
}

static void test_round_trip_is_measured(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	assert_int_equal(link_rtt_us(hub.l), 0);
	pass_ms(1000);
	assert_true(carry(&hub, &agent));
	pass_ms(40);
	assert_true(carry(&agent, &hub));
	assert_int_equal(link_rtt_us(hub.l), 40000);
	pass_ms(1000);
	assert_true(carry(&hub, &agent));
	pass_ms(120);
	assert_true(carry(&agent, &hub));
	assert_int_equal(link_rtt_us(hub.l), 50000);
	assert_int_equal(link_rtt_least_us(hub.l), 40000);
	finish();
}

static void test_moves_with_its_timers(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	link_leave(hub.l);
	assert_int_equal(timers_wait_ms(), -1);
	link_arrive(hub.l);
	assert_true(link_wants_output(hub.l));
	beat(3100, false);
	assert_true(hub.dead);
	finish();
}

static void test_late_arrival_is_judged(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	link_leave(hub.l);
	pass_ms(5000);
	link_arrive(hub.l);
	pass_ms(2);
	assert_true(hub.dead);
	finish();
}

static void test_time_that_stood_still_is_forgiven(void **state)
{
	links(false, false, 100);
	link_heartbeat(hub.l, 1000, 3000);
	link_heartbeat(agent.l, 1000, 3000);
	for (unsigned i = 0; i < 5; i++) {
		pass_ms(20000);
		assert_false(hub.dead || agent.dead);
		settle_pair(&hub, &agent);
		beat(3000, true);
	}
	pass_ms(20000);
	beat(900, false);
	assert_false(hub.dead || agent.dead);
	beat(300, false); /* an interval, and not more */
	assert_true(hub.dead && agent.dead);
	finish();
}

static void test_a_thread_that_is_late_is_not_the_silence_of_others(void **state)
{
	links(false, true, 100);
	link_heartbeat(hub.l, 1000, 3000);
	pass_ms(900);
	for (unsigned i = 0; i < 20; i++) {
		h2_ping(agent.raw, i);
		pass_ms(3500); /* what has come is there, and not read */
		assert_false(hub.dead);
		assert_true(carry(&agent, &hub));
	}
	finish();
}

/* ---- barriers ---- */

static void test_one_ping_for_many_ends(void **state)
{
	links(false, false, 1000);
	for (unsigned i = 0; i < 500; i++) {
		assert_int_equal(open_client(), 0);
		settle_pair(&hub, &agent);
		session_abort(client.s, REASON_CLIENT_RESET);
		settle_pair(&hub, &agent);
		if (i % 10 == 0)
			pass_ms(1);
	}
	pass_ms(50);
	settle_pair(&hub, &agent);
	assert_int_equal(session_count(), 0);
	assert_in_range(hub.sent.n[PING], 1, 6); /* of 20 ms each */
	assert_true(link_idle(hub.l));
	finish();
}

/* ---- limits ---- */

static void test_pings_flood(void **state)
{
	links(true, false, 100);
	unsigned sent = 0;
	for (; !agent.dead && sent < 5000; sent++) {
		h2_ping(hub.raw, sent);
		carry(&hub, &agent);
		carry(&agent, NULL);
	}
	assert_in_range(sent, 1990, 2010);
	assert_int_equal(agent.dead_why, REASON_FLOOD);
	finish();
}

static void test_slow_pings_do_not(void **state)
{
	links(true, false, 100);
	for (unsigned i = 0; i < 10000; i++) {
		h2_ping(hub.raw, i);
		carry(&hub, &agent);
		carry(&agent, &hub);
		pass_ms(1);
	}
	assert_false(agent.dead);
	finish();
}

static void test_empty_data_floods(void **state)
{
	static const uint8_t empty[] = {0, 0, 0, 0, 0, 0, 0, 0, 1};
	struct h2_fields f = {.service = "web", .session = "00112233445566778899aabbccddeeff"};
	links(true, false, 100);
	assert_int_equal(h2_connect(hub.raw, &f, &hub), 1);
	settle_pair(&hub, &agent);
	unsigned sent = 0;
	for (; !agent.dead && sent < 5000; sent++)
		(void)side_input(&agent, empty, sizeof empty);
	assert_in_range(sent, 1990, 2010);
	finish();
}

static void test_ordinary_ends_are_no_flood(void **state)
{
	links(false, false, 1000);
	agent.on_request = refuse;
	for (unsigned i = 0; i < 5000; i++) {
		assert_int_equal(open_client(), 0);
		settle_pair(&hub, &agent);
		assert_int_equal(client.why, REASON_TARGET_REFUSED);
	}
	agent.on_request = take;
	for (unsigned i = 0; i < 5000; i++) {
		assert_int_equal(open_client(), 0);
		settle_pair(&hub, &agent);
		session_abort(i % 2 ? client.s : target.s, REASON_IDLE);
		settle_pair(&hub, &agent);
		if (i % 100 == 0)
			pass_ms(25); /* for the barrier of those before */
	}
	assert_false(hub.dead || agent.dead);
	assert_int_equal(client.ends, 7500);
	assert_int_equal(target.ends, 2500);
	finish();
}

static void test_no_more_streams_than_allowed(void **state)
{
	static struct user many[4];
	links(false, false, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(link_can_open(hub.l));
		many[i].s = session_open(hub.l, &web, 10000, 1000, &user_events, &many[i]);
		assert_non_null(many[i].s);
	}
	assert_false(link_can_open(hub.l));
	assert_null(session_open(hub.l, &web, 10000, 1000, &user_events, &many[3]));
	settle_pair(&hub, &agent);
	assert_int_equal(link_sessions(agent.l), 3);
	session_abort(many[0].s, REASON_CLIENT_RESET);
	settle_pair(&hub, &agent);
	pass_ms(25);
	settle_pair(&hub, &agent);
	assert_true(link_can_open(hub.l));
	finish();
}

/* At the limit: a stream that both have ended on the hub still counts on an agent that is about to reset it. */
static void test_reset_crossing_the_end_at_the_limit(void **state)
{
	links(false, false, 1);
	assert_int_equal(open_client(), 0);
	settle_pair(&hub, &agent);
	session_fin(target.s);
	settle_pair(&hub, &agent);
	session_fin(client.s);
	uint8_t out[32768];
	ssize_t n = link_flat(hub.l, out, sizeof out);
	session_release(client.s);
	session_abort(target.s, REASON_TARGET_RESET);
	pass_ms(25);
	assert_int_equal(link_input(agent.l, out, (size_t)n), 0);
	n = link_flat(hub.l, out, sizeof out); /* the barrier */
	assert_int_equal(link_input(agent.l, out, (size_t)n), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(open_client(), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.opens, 2);
	assert_false(hub.dead || agent.dead);
	finish();
}

/* ---- hello, GOAWAY, violations ---- */

static void test_hellos(void **state)
{
	char big[100000];
	links(false, false, 100);
	memset(big, '{', sizeof big);
	link_hello(agent.l, H2_FRAME_AGENT, big, sizeof big);
	link_hello(hub.l, H2_FRAME_HUB, "{}", 2);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.hello_len, sizeof big);
	assert_memory_equal(hub.hello, big, sizeof big);
	assert_string_equal("{}", (agent.hello[2] = 0, agent.hello));
	finish();
}

static void test_too_large_hello_breaks_the_link(void **state)
{
	char *big = calloc(1, 300000);
	links(false, false, 100);
	link_hello(agent.l, H2_FRAME_AGENT, big, 300000);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.dead_why, REASON_PROTOCOL);
	assert_int_equal(hub.hellos, 0);
	free(big);
	finish();
}

static void test_goaway(void **state)
{
	links(false, false, 100);
	assert_int_equal(open_client(), 0);
	settle_pair(&hub, &agent);
	link_goaway(agent.l, REASON_DRAINING);
	link_goaway(agent.l, REASON_DRAINING);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.goaways, 1);
	assert_int_equal(hub.goaway_why, REASON_DRAINING);
	assert_false(link_can_open(hub.l));
	user_write(&client, 100); /* what is open goes on */
	settle_pair(&hub, &agent);
	assert_int_equal(user_read(&target, 1000), 100);
	finish();
}

static void test_goaway_without_words(void **state)
{
	links(true, false, 100);
	h2_goaway(hub.raw, 0, "");
	settle_pair(&hub, &agent);
	assert_int_equal(agent.goaways, 1);
	assert_int_equal(agent.goaway_why, REASON_LINK_CLOSED);
	finish();
}

static void test_violation_kills_the_link_only(void **state)
{
	static const uint8_t data_on_idle[] = {0, 0, 1, 0, 0, 0, 0, 0, 99, 'x'};
	links(false, false, 100);
	assert_int_equal(open_client(), 0);
	settle_pair(&hub, &agent);
	(void)side_input(&agent, data_on_idle, sizeof data_on_idle);
	settle_pair(&hub, &agent);
	assert_true(agent.dead);
	assert_int_equal(agent.dead_why, REASON_PROTOCOL);
	assert_int_equal(target.ends, 0);
	side_close(&agent);
	assert_true(session_parked(target.s));
	finish();
}

static void try_to_take(struct side *me, int32_t stream, const struct h2_fields *f)
{
	target.s = session_accept(me->l, stream, f, 1000, &user_events, &target);
	if (target.s)
		session_established(target.s, "192.0.2.1:80");
	else
		link_refuse(me->l, stream, REASON_RESOURCES);
}

/* A session, the Nth allocation failing. Whether one failed. */
static bool session_without_memory(unsigned n)
{
	bool failed;
	links(false, false, 100);
	agent.on_request = try_to_take;
	mem_ballast(); /* for who would die */
	failing = n;
	(void)open_client();
	settle_pair(&hub, &agent);
	failed = has_failed();
	if (hub.dead)
		assert_int_equal(hub.dead_why, REASON_RESOURCES);
	if (agent.dead)
		assert_int_equal(agent.dead_why, REASON_RESOURCES);
	/* nobody waits for what will not come */
	assert_true(client.opens || !client.s || hub.dead || agent.dead);
	if (client.ends)
		assert_int_equal(client.why, REASON_RESOURCES);
	assert_true(failed || client.opens);
	finish();
	return failed;
}

static void test_no_memory_is_not_the_other_sides_fault(void **state)
{
	unsigned n = 1;
	while (session_without_memory(n)) {
		n++;
		nothing_left(state);
		fresh(state);
	}
	assert_true(n > 10);
}

static void test_requests_without_names(void **state)
{
	static const struct h2_fields bad[] = {{.service = "web"}, {.service = "web", .session = "0011"}};
	links(true, false, 100);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_true(h2_connect(hub.raw, &bad[i], &hub) > 0);
		settle_pair(&hub, &agent);
		assert_int_equal(hub.resets, i + 1);
		assert_int_equal(hub.reset_code, reason_code(REASON_PROTOCOL));
	}
	assert_int_equal(agent.requests, 0);
	finish();
}

static void test_stop(void **state)
{
	links(false, false, 100);
	assert_int_equal(open_client(), 0);
	settle_pair(&hub, &agent);
	link_stop(agent.l, REASON_STOPPED);
	settle_pair(&hub, &agent);
	assert_int_equal(client.why, REASON_STOPPED);
	assert_int_equal(target.why, REASON_STOPPED);
	assert_int_equal(hub.goaway_why, REASON_STOPPED);
	finish();
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, nothing_left)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_idle_links_ping),
		T(test_one_side_pings),
		T(test_silence_is_death),
		T(test_any_byte_is_life),
		T(test_answers_in_time_keep_alive),
		T(test_round_trip_is_measured),
		T(test_moves_with_its_timers),
		T(test_late_arrival_is_judged),
		T(test_time_that_stood_still_is_forgiven),
		T(test_a_thread_that_is_late_is_not_the_silence_of_others),
		T(test_one_ping_for_many_ends),
		T(test_pings_flood),
		T(test_slow_pings_do_not),
		T(test_empty_data_floods),
		T(test_ordinary_ends_are_no_flood),
		T(test_no_more_streams_than_allowed),
		T(test_reset_crossing_the_end_at_the_limit),
		T(test_hellos),
		T(test_too_large_hello_breaks_the_link),
		T(test_goaway),
		T(test_goaway_without_words),
		T(test_violation_kills_the_link_only),
		T(test_no_memory_is_not_the_other_sides_fault),
		T(test_requests_without_names),
		T(test_stop),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	session_thread_fini();
	return failed;
}
