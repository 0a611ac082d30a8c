/* The session engine, one rule at a time; sim.c tries it as a whole. */
#include "tunnel/session.c"

#include "pair.h"

#include <inttypes.h>

static struct side hub, agent;
static struct user client, target;

static void accept_now(struct side *me, int32_t stream, const struct h2_fields *f)
{
	target.s = session_accept(me->l, stream, f, 30000, &user_events, &target);
	assert_non_null(target.s);
}

static void accept_and_establish(struct side *me, int32_t stream, const struct h2_fields *f)
{
	if (f->resume) {
		uint8_t id[16];
		assert_true(str_unhex(id, sizeof id, f->session));
		struct session *s = session_find(id);
		if (s)
			session_resumed(s, me->l, stream, f);
		else
			link_refuse(me->l, stream, REASON_LOST);
		return;
	}
	accept_now(me, stream, f);
	session_established(target.s, "192.0.2.1:80");
}

static void links(bool raw_hub, bool raw_agent)
{
	side_open(&hub, H2_HUB, raw_hub, 100);
	side_open(&agent, H2_AGENT, raw_agent, 100);
	agent.on_request = raw_agent ? NULL : accept_and_establish;
	settle_pair(&hub, &agent);
	if (!raw_hub)
		hub.sent.n[SETTINGS] = 0;
}

static void open_client(void)
{
	client.s = session_open(hub.l, &web, 10000, 30000, &user_events, &client);
	assert_non_null(client.s);
}

/* The agent takes the request, but its target does not answer. */
static void await_target(void)
{
	links(false, false);
	agent.on_request = accept_now;
	open_client();
}

static void up(void)
{
	links(false, false);
	open_client();
	settle_pair(&hub, &agent);
	assert_int_equal(client.opens, 1);
	assert_string_equal(client.target, "192.0.2.1:80");
}

static int fresh(void **state)
{
	memset(&client, 0, sizeof client);
	memset(&target, 0, sizeof target);
	pass_ms(1000);
	return 0;
}

static void down(void)
{
	side_close(&hub);
	side_close(&agent);
}

static void finish(void)
{
	if (client.s)
		user_abort(&client, REASON_CLIENT_RESET);
	if (target.s)
		user_abort(&target, REASON_TARGET_RESET);
	down();
	session_end_list(&hub.parked, REASON_STOPPED);
	session_end_list(&agent.parked, REASON_STOPPED);
	session_stop_all(REASON_STOPPED);
}

/* New links; the sessions of the old ones are parked. */
static void relink(void)
{
	struct list h, a;
	down();
	list_init(&h);
	list_init(&a);
	list_splice(&h, &hub.parked);
	list_splice(&a, &agent.parked);
	links(false, false);
	list_splice(&hub.parked, &h);
	list_splice(&agent.parked, &a);
}

/* ---- bytes ---- */

static void test_there_and_back(void **state)
{
	up();
	client.greedy = target.greedy = true;
	assert_int_equal(user_write(&client, 100), 100);
	assert_int_equal(user_write(&target, 200), 200);
	settle_pair(&hub, &agent);
	assert_int_equal(target.got, 100);
	assert_int_equal(client.got, 200);
	session_fin(client.s);
	session_fin(target.s);
	settle_pair(&hub, &agent);
	assert_true(session_ended(client.s) && session_ended(target.s));
	user_release(&client);
	user_release(&target);
	assert_int_equal(session_count(), 2); /* until the proof is there */
	pass_ms(25);
	settle_pair(&hub, &agent);
	assert_int_equal(session_count(), 0);
	finish();
}

static void test_frames_fit_records(void **state)
{
	up();
	target.greedy = true;
	for (size_t n = 0; n < 1 << 20;) {
		n += user_write(&client, 1 << 20);
		settle_pair(&hub, &agent);
	}
	assert_int_equal(hub.sent.longest, H2_DATA_MAX);
	finish();
}

/* ... and begins with a chunk when the last one did not, so that the rest is sent from where it lies. */
static void test_large_frames_end_with_a_chunk(void **state)
{
	bool fin;
	up();
	target.greedy = true;
	user_write(&client, 100);
	settle_pair(&hub, &agent);
	client.s->out.limit = RING_MAX;
	user_write(&client, 10 * BUFQ_CHUNK);
	assert_int_equal(client.s->out.end - client.s->out.sent, 10 * BUFQ_CHUNK);
	assert_int_equal(ready(&client.s->r, BUFQ_CHUNK, &fin), BUFQ_CHUNK);
	size_t n = ready(&client.s->r, 4 * BUFQ_CHUNK, &fin);
	assert_true(n > 3 * BUFQ_CHUNK && n < 4 * BUFQ_CHUNK);
	assert_int_equal(n, bufq_rest(&client.s->out.ring, &client.s->out.cur) + 3 * BUFQ_CHUNK);
	assert_int_equal(ready(&client.s->r, 100 * BUFQ_CHUNK, &fin), 10 * BUFQ_CHUNK);
	settle_pair(&hub, &agent);
	finish();
}

static void test_quick_reader_gets_a_larger_ring(void **state)
{
	up();
	target.greedy = true;
	for (int i = 0; i < 400; i++) {
		user_write(&client, SIZE_MAX);
		settle_pair(&hub, &agent);
		if (i % 2)
			pass_ms(1);
	}
	assert_int_equal(client.s->out.limit, RING_MAX);
	pass_ms(RING_IDLE_MS + 1);
	user_write(&client, 1);
	assert_int_equal(client.s->out.limit, RING_MIN);
	finish();
}

static void test_slow_reader_does_not(void **state)
{
	up();
	for (int i = 0; i < 200; i++) {
		user_write(&client, SIZE_MAX);
		settle_pair(&hub, &agent);
		pass_ms(1);
	}
	assert_int_equal(client.s->out.end, RING_MIN); /* stalled: not a byte more */
	for (int i = 0; i < 200; i++) {
		user_write(&client, SIZE_MAX);
		settle_pair(&hub, &agent);
		user_read(&target, 4096);
		pass_ms(10);
	}
	assert_int_equal(client.s->out.limit, RING_MIN);
	assert_true(target.s->in.backlog.len <= RING_MIN);
	finish();
}

/* A ring that takes longer than the link's round trips to empty is not what holds the flow up: a larger one would only leave the CPU's cache. */
static void test_ring_suits_the_round_trip(void **state)
{
	up();
	target.greedy = true;
	for (int i = 0; i < 200; i++) {
		user_write(&client, SIZE_MAX);
		pass_ms(5);
		settle_pair(&hub, &agent);
	}
	assert_int_equal(client.s->out.limit, RING_MIN);
	relink();
	assert_int_equal(session_resume(client.s, hub.l), 0);
	carry(&hub, &agent);
	pass_ms(5);
	settle_pair(&hub, &agent);
	assert_int_equal(link_rtt_least_us(hub.l), 5000);
	for (int i = 0; i < 200; i++) {
		user_write(&client, SIZE_MAX);
		pass_ms(5);
		settle_pair(&hub, &agent);
	}
	assert_true(client.s->out.limit > RING_MIN);
	finish();
}

static void test_budget_halts_growth(void **state)
{
	up();
	mem_limit(MEM_CHUNK, 8);
	target.greedy = true;
	for (int i = 0; i < 100; i++) {
		user_write(&client, SIZE_MAX);
		settle_pair(&hub, &agent);
		pass_ms(1);
	}
	assert_true(client.s->out.limit <= 128 << 10);
	assert_int_equal(client.ends + target.ends, 0);
	finish();
}

/* ---- credit ---- */

static void test_small_messages_are_credited_lazily(void **state)
{
	up();
	target.greedy = true;
	unsigned before = agent.sent.n[CREDIT];
	user_write(&client, 100);
	settle_pair(&hub, &agent);
	assert_int_equal(target.got, 100);
	assert_int_equal(agent.sent.n[CREDIT], before);
	pass_ms(19);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before);
	pass_ms(2);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before + 1);
	assert_int_equal(agent.sent.last_credit, 100);
	user_write(&client, 50);
	carry(&hub, &agent);
	user_write(&target, 1); /* an answer takes it along */
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before + 2);
	finish();
}

static void test_bulk_is_credited_early(void **state)
{
	up();
	client.s->out.limit = RING_MAX;
	client.s->out.idle_since_ms = clock_ms();
	user_write(&client, 1 << 20);
	settle_pair(&hub, &agent);
	unsigned before = agent.sent.n[CREDIT];
	user_read(&target, (256 << 10) - 1);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before);
	user_read(&target, 1); /* a quarter of what is under way */
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before + 1);
	assert_int_equal(agent.sent.last_credit, 256 << 10);
	finish();
}

static void test_drained_is_credited_at_once(void **state)
{
	up();
	user_write(&client, 5000);
	settle_pair(&hub, &agent);
	unsigned before = agent.sent.n[CREDIT];
	user_read(&target, 4999);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before);
	user_read(&target, 1);
	settle_pair(&hub, &agent);
	assert_int_equal(agent.sent.n[CREDIT], before + 1);
	finish();
}

static void test_credit_after_the_end(void **state)
{
	up();
	user_write(&client, 10000);
	session_fin(client.s);
	settle_pair(&hub, &agent);
	user_read(&target, SIZE_MAX);
	settle_pair(&hub, &agent);
	assert_int_equal(client.s->out.ring.len, 0);
	finish();
}

static void test_too_much_credit_ends_that_session_only(void **state)
{
	struct user second = {.s = NULL};
	links(false, true);
	open_client();
	settle_pair(&hub, &agent);
	int32_t first = agent.stream;
	struct h2_fields ok = {.status = 200};
	assert_int_equal(h2_answer(agent.raw, first, &ok, false), 0);
	second.s = session_open(hub.l, &web, 10000, 30000, &user_events, &second);
	user_write(&client, 100);
	settle_pair(&hub, &agent);
	h2_credit(agent.raw, first, 101);
	settle_pair(&hub, &agent);
	assert_int_equal(client.ends, 1);
	assert_int_equal(client.why, REASON_PROTOCOL);
	assert_int_equal(agent.reset_code, reason_code(REASON_PROTOCOL));
	assert_false(hub.dead);
	assert_int_equal(second.ends, 0);
	session_abort(second.s, REASON_CLIENT_RESET);
	finish();
}

/* ---- memory ---- */

static void test_sender_waits_for_memory(void **state)
{
	up();
	target.greedy = true;
	mem_limit(MEM_CHUNK, 1);
	mem_limit(MEM_MORSEL, 1);
	void *chunk = mem_get(MEM_CHUNK, BUFQ_CHUNK + sizeof(struct { void *n; uint16_t a[4]; }));
	void *morsel = mem_get(MEM_MORSEL, 2048);
	assert_int_equal(user_write(&client, 100), 0);
	assert_true(client.s->out.blocked);
	pass_ms(MEMORY_RETRY_MS + 1);
	assert_false(client.s->out.blocked); /* was asked to try again */
	assert_int_equal(user_write(&client, 100), 0);
	mem_put(MEM_CHUNK, chunk);
	mem_put(MEM_MORSEL, morsel);
	mem_reclaim();
	assert_int_equal(user_write(&client, 100), 100);
	settle_pair(&hub, &agent);
	assert_int_equal(target.got, 100);
	assert_int_equal(client.ends + target.ends, 0);
	finish();
}

static void test_receiver_without_memory_ends_one_session(void **state)
{
	up();
	user_write(&client, 10000);
	mem_limit(MEM_CHUNK, 1);
	mem_limit(MEM_MORSEL, 1);
	settle_pair(&hub, &agent);
	assert_int_equal(target.why, REASON_RESOURCES);
	assert_int_equal(client.why, REASON_RESOURCES);
	assert_int_equal(client.ends, 1);
	assert_false(hub.dead || agent.dead);
	finish();
}

static void test_idle_holds_nothing(void **state)
{
	up();
	target.greedy = client.greedy = true;
	user_write(&client, 16000);
	user_write(&target, 300);
	settle_pair(&hub, &agent);
	pass_ms(25);
	settle_pair(&hub, &agent);
	assert_int_equal(used(MEM_CHUNK) + used(MEM_MORSEL), 0);
	assert_int_equal(timers_wait_ms(), -1);
	print_message("a session takes %zu bytes\n", sizeof(struct session));
	assert_true(sizeof(struct session) <= 1024);
	finish();
}

/* ---- opening ---- */

static enum reason refuse_why;

static void refuse_request(struct side *me, int32_t stream, const struct h2_fields *f)
{
	link_refuse(me->l, stream, refuse_why);
}

static void test_refusals_name_their_reason(void **state)
{
	links(false, false);
	agent.on_request = refuse_request;
	for (refuse_why = 0; refuse_why < REASON_COUNT; refuse_why++) {
		if (reason_status(refuse_why) == 0)
			continue;
		open_client();
		user_write(&client, 10);
		settle_pair(&hub, &agent);
		assert_int_equal(client.why, refuse_why);
		assert_true(client.refused);
		assert_null(client.s);
	}
	finish();
}

static void test_unknown_refusals_by_status(void **state)
{
	static const struct {
		uint16_t status;
		enum reason why;
	} rows[] = {{403, REASON_DENIED}, {404, REASON_NO_SERVICE}, {500, REASON_PROTOCOL}, {301, REASON_PROTOCOL}};
	links(false, true);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct h2_fields f = {.status = rows[i].status, .reason = "no_such_word"};
		open_client();
		settle_pair(&hub, &agent);
		assert_int_equal(h2_answer(agent.raw, agent.stream, &f, true), 0);
		settle_pair(&hub, &agent);
		assert_int_equal(client.why, rows[i].why);
	}
	finish();
}

static void test_target_refuses_after_accept(void **state)
{
	await_target();
	user_write(&client, 10);
	settle_pair(&hub, &agent);
	user_abort(&target, REASON_TARGET_REFUSED);
	settle_pair(&hub, &agent);
	assert_int_equal(client.why, REASON_TARGET_REFUSED);
	assert_true(client.refused);
	finish();
}

static void test_kept_session_starts_anew(void **state)
{
	links(false, false);
	agent.on_request = refuse_request;
	refuse_why = REASON_AGENT_FULL;
	open_client();
	client.keep = true;
	user_write(&client, 1000);
	settle_pair(&hub, &agent);
	assert_int_equal(client.ends, 1);
	assert_non_null(client.s);
	session_leave(client.s); /* to another thread and back */
	session_arrive(client.s);
	user_write(&client, 500);
	agent.on_request = accept_and_establish;
	target.greedy = true;
	assert_int_equal(session_reopen(client.s, hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.opens, 1);
	assert_int_equal(target.got, 1500);
	finish();
}

static void test_connect_timeout(void **state)
{
	await_target();
	settle_pair(&hub, &agent);
	pass_ms(9999);
	assert_int_equal(client.ends, 0);
	pass_ms(2);
	assert_int_equal(client.why, REASON_CONNECT_TIMEOUT);
	assert_true(client.refused); /* nothing was sent */
	settle_pair(&hub, &agent);
	assert_int_equal(target.why, REASON_CONNECT_TIMEOUT);
	open_client();
	user_write(&client, 1);
	settle_pair(&hub, &agent);
	pass_ms(10001);
	assert_int_equal(client.ends, 2);
	assert_false(client.refused); /* who knows what became of it */
	settle_pair(&hub, &agent);
	assert_int_equal(target.ends, 2);
	finish();
}

/* ---- resets ---- */

static void test_reset_with_bytes_in_flight(void **state)
{
	up();
	user_write(&client, 10000);
	user_write(&target, 10000);
	carry(&hub, &agent);
	user_read(&target, SIZE_MAX); /* credit is on its way, and is for a ring that is gone */
	user_abort(&client, REASON_CLIENT_RESET);
	carry(&agent, &hub);
	settle_pair(&hub, &agent);
	assert_int_equal(target.ends, 1);
	assert_int_equal(target.why, REASON_CLIENT_RESET);
	finish();
}

static void expect_last_words(uint64_t got)
{
	settle_pair(&hub, &agent);
	pass_ms(1);
	settle_pair(&hub, &agent);
	assert_int_equal(client.got, got);
	assert_int_equal(client.ends, 1);
	assert_int_equal(client.why, REASON_TARGET_RESET);
	assert_int_equal(target.ends, 0);
	finish();
}

static void test_last_words_come_before_the_reset(void **state)
{
	up();
	client.greedy = true;
	user_write(&client, 10000); /* nobody reads it */
	user_write(&target, 10000);
	session_part(target.s, REASON_TARGET_RESET);
	target.s = NULL;
	expect_last_words(10000);
}

static void test_last_words_go_on_over_another_link(void **state)
{
	up();
	client.greedy = true;
	user_write(&target, 10000);
	carry(&agent, &hub);
	user_write(&target, 3000);
	session_part(target.s, REASON_TARGET_RESET);
	target.s = NULL;
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	expect_last_words(13000);
}

static void test_last_words_are_not_waited_for(void **state)
{
	up();
	client.greedy = true;
	user_write(&target, 10000);
	session_part(target.s, REASON_TARGET_RESET);
	target.s = NULL;
	pass_ms(PARTING_MS + 1); /* nothing could be sent */
	expect_last_words(0);
}

static void test_without_last_words(void **state)
{
	up();
	client.greedy = true;
	user_write(&target, 10000);
	settle_pair(&hub, &agent);
	session_part(target.s, REASON_TARGET_RESET);
	target.s = NULL;
	expect_last_words(10000);
}

static void test_foreign_codes(void **state)
{
	links(false, true);
	for (uint32_t code = 0; code < 14; code++) {
		struct h2_fields ok = {.status = 200};
		open_client();
		settle_pair(&hub, &agent);
		assert_int_equal(h2_answer(agent.raw, agent.stream, &ok, false), 0);
		settle_pair(&hub, &agent);
		h2_reset(agent.raw, agent.stream, code);
		settle_pair(&hub, &agent);
		assert_int_equal(client.why, code == H2_REFUSED_STREAM ? REASON_DRAINING : REASON_TARGET_RESET);
		assert_int_equal(client.ends, code + 1);
	}
	finish();
}

static void test_done_is_no_reason_for_a_reset(void **state)
{
	links(false, true);
	open_client();
	settle_pair(&hub, &agent);
	h2_reset(agent.raw, agent.stream, reason_code(REASON_DONE));
	settle_pair(&hub, &agent);
	assert_int_equal(client.why, REASON_PROTOCOL);
	finish();
}

static void test_reset_of_a_parked_session_is_told_later(void **state)
{
	up();
	relink();
	user_abort(&target, REASON_IDLE);
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.why, REASON_IDLE);
	assert_false(client.refused);
	finish();
}

/* It was asked for by a thread that had read the time a moment later than this one: that is no long time ago. */
static void test_clock_of_another_thread(void **state)
{
	await_target();
	user_write(&client, 100);
	settle_pair(&hub, &agent);
	client.s->asked_ms = clock_ms() + 5;
	relink();
	for (int i = 0; i < 5; i++)
		pass_ms(10);
	assert_int_equal(client.ends, 0);
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.ends, 0);
	finish();
}

/* Its peer is gone: what nobody can have consumed may go elsewhere at once. */
static void test_given_back(void **state)
{
	await_target();
	settle_pair(&hub, &agent);
	relink();
	session_give_back(&hub.parked);
	assert_int_equal(client.ends, 1);
	assert_int_equal(client.why, REASON_LOST);
	assert_true(client.refused);
	finish();
}

static void test_sent_bytes_are_not_given_back(void **state)
{
	await_target();
	user_write(&client, 10); /* who knows what the target has got */
	settle_pair(&hub, &agent);
	relink();
	session_give_back(&hub.parked);
	assert_int_equal(client.ends, 0);
	pass_ms(9900);
	assert_int_equal(client.ends, 0);
	pass_ms(200); /* parked, it is waited for no longer than on a link */
	assert_int_equal(client.why, REASON_CONNECT_TIMEOUT);
	assert_false(client.refused);
	finish();
}

static void test_answered_is_not_given_back(void **state)
{
	up();
	relink();
	session_give_back(&hub.parked);
	pass_ms(20000);
	assert_int_equal(client.ends, 0);
	finish();
}

static void test_own_end_is_told_over_the_next_link(void **state)
{
	up();
	user_write(&target, 10000);
	carry(&agent, NULL); /* the hub never has memory for them, but hears of it only after a resume */
	relink();
	mem_limit(MEM_CHUNK, 1);
	mem_limit(MEM_MORSEL, 1);
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	carry(&hub, &agent);
	carry(&agent, &hub);
	assert_int_equal(client.why, REASON_RESOURCES);
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(target.why, REASON_RESOURCES);
	finish();
}

/* ---- resuming ---- */

static void test_bytes_lost_with_a_link_come_again(void **state)
{
	up();
	user_write(&client, 10000);
	user_write(&target, 7000);
	carry(&hub, NULL);
	carry(&agent, NULL);
	relink();
	target.greedy = client.greedy = true;
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(target.got, 10000);
	assert_int_equal(client.got, 7000);
	assert_false(timer_running(&client.s->timer) || timer_running(&target.s->timer));
	assert_int_equal(client.opens, 1);
	finish();
}

static void test_unread_bytes_come_again(void **state)
{
	up();
	user_write(&client, 10000);
	settle_pair(&hub, &agent);
	user_read(&target, 3000);
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(target.s->in.backlog.len, 7000);
	user_read(&target, SIZE_MAX);
	assert_int_equal(target.got, 10000);
	finish();
}

static void test_unread_bytes_before_an_end_stay(void **state)
{
	up();
	user_write(&client, 10000);
	session_fin(client.s);
	settle_pair(&hub, &agent);
	user_read(&target, 3000);
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.sent.longest, 0); /* only the end itself is repeated */
	assert_int_equal(client.s->out.ring.len, 0);
	user_read(&target, SIZE_MAX);
	assert_int_equal(target.got, 10000);
	assert_true(session_ended(target.s));
	finish();
}

static void test_resume_timeout(void **state)
{
	up();
	down();
	pass_ms(29999);
	assert_int_equal(client.ends + target.ends, 0);
	pass_ms(2);
	assert_int_equal(client.why, REASON_RESUME_TIMEOUT);
	assert_int_equal(target.why, REASON_RESUME_TIMEOUT);
	finish();
}

static void test_resume_is_answered_when_the_target_is(void **state)
{
	await_target();
	settle_pair(&hub, &agent);
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.opens, 0);
	session_established(target.s, "192.0.2.1:80");
	settle_pair(&hub, &agent);
	assert_int_equal(client.opens, 1);
	assert_null(client.s->about);
	finish();
}

static void test_request_that_never_arrived(void **state)
{
	links(false, false);
	open_client();
	user_write(&client, 100);
	carry(&hub, NULL);
	client.keep = true;
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.why, REASON_LOST);
	assert_true(client.refused);
	target.greedy = true;
	assert_int_equal(session_reopen(client.s, hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(target.got, 100);
	finish();
}

static void test_barred_request_is_refused(void **state)
{
	uint8_t id[16];
	links(false, false);
	open_client();
	memcpy(id, client.s->id, sizeof id);
	session_bar(id, 30000);
	assert_null(session_find(id));
	agent.on_request = NULL;
	settle_pair(&hub, &agent);
	assert_null(session_accept(agent.l, agent.stream, &agent.f, 30000, &user_events, &target));
	pass_ms(9000);
	assert_int_equal(session_count(), 2);
	pass_ms(21001);
	assert_int_equal(session_count(), 0);
	finish();
}

/* Everything was there, but the PING's answer was lost with the link; the other side has gone already. */
static void test_only_the_proof_is_missing(void **state)
{
	up();
	user_write(&target, 5000);
	session_fin(client.s);
	session_fin(target.s);
	settle_pair(&hub, &agent);
	assert_true(session_ended(target.s));
	user_release(&target);
	pass_ms(25);
	carry(&agent, &hub);
	carry(&hub, &agent); /* the agent has its proof, not the hub */
	assert_int_equal(session_count(), 1);
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	settle_pair(&hub, &agent);
	assert_int_equal(client.ends, 0);
	assert_int_equal(user_read(&client, SIZE_MAX), 5000);
	assert_true(session_ended(client.s));
	user_release(&client);
	assert_int_equal(session_count(), 0);
	finish();
}

/* The same on the agent: nobody will ask again. */
static void test_proof_lost_on_the_agent(void **state)
{
	up();
	user_write(&client, 5000);
	session_fin(client.s);
	session_fin(target.s);
	settle_pair(&hub, &agent);
	user_release(&client);
	pass_ms(25);
	carry(&hub, &agent);
	carry(&agent, &hub);
	assert_int_equal(session_count(), 1);
	down();
	pass_ms(30001);
	assert_int_equal(target.ends, 0);
	assert_int_equal(user_read(&target, SIZE_MAX), 5000);
	assert_true(session_ended(target.s));
	user_release(&target);
	assert_int_equal(session_count(), 0);
	finish();
}

/* ---- what a faulty or late peer may say ---- */

static struct h2_fields request(struct session *s, uint32_t epoch, uint64_t offset, bool fin)
{
	struct h2_fields f = {.service = "resume", .resume = true, .epoch = epoch, .has_offset = true, .offset = offset, .fin = fin};
	str_hex(f.session, s->id, sizeof s->id);
	return f;
}

/* A session with 1000 bytes sent by the target, 400 of them consumed by a hub that is not ours. */
static void raw_hub_up(void)
{
	struct h2_fields f = {.service = "web", .session = "00112233445566778899aabbccddeeff"};
	links(true, false);
	hub.stream = h2_connect(hub.raw, &f, &hub);
	settle_pair(&hub, &agent);
	user_write(&target, 1000);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.got, 1000);
	h2_credit(hub.raw, hub.stream, 400);
	settle_pair(&hub, &agent);
	assert_int_equal(target.s->out.acked, 400);
}

static void raw_hub_asks(struct h2_fields f)
{
	hub.answers = 0;
	hub.stream = h2_connect(hub.raw, &f, &hub);
	settle_pair(&hub, &agent);
	assert_int_equal(hub.answers, 1);
}

static void test_offsets_out_of_range_are_refused(void **state)
{
	raw_hub_up();
	session_unlink(target.s, &agent.parked);
	settle_pair(&hub, &agent);
	struct h2_fields none = request(target.s, 1, 0, false);
	none.has_offset = false;
	const struct h2_fields bad[] = {none, request(target.s, 1, 399, false), request(target.s, 1, 1001, false), request(target.s, 1, INT64_MAX, false),
					request(target.s, 1, 1000, true)};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		raw_hub_asks(bad[i]);
		assert_int_equal(hub.f.status, 400);
		assert_true(session_parked(target.s));
	}
	hub.got = 0;
	raw_hub_asks(request(target.s, 1, 600, false));
	assert_int_equal(hub.f.status, 200);
	assert_int_equal(hub.got, 400);
	assert_int_equal(target.ends, 0);
	finish();
}

static void test_older_requests_do_not_disturb(void **state)
{
	raw_hub_up();
	raw_hub_asks(request(target.s, 5, 500, false));
	assert_int_equal(hub.f.status, 200);
	int32_t good = hub.stream;
	for (uint32_t epoch = 0; epoch <= 5; epoch++) {
		raw_hub_asks(request(target.s, epoch, 500, false));
		assert_int_equal(hub.f.status, 400);
	}
	assert_int_equal(target.s->stream, good);
	assert_int_equal(target.s->state, OPEN);
	raw_hub_asks(request(target.s, 6, 1000, false));
	assert_int_equal(hub.f.status, 200);
	assert_int_equal(target.s->out.ring.len, 0);
	assert_int_equal(target.ends, 0);
	finish();
}

static void test_bad_answers_end_the_session(void **state)
{
	const struct h2_fields bad[] = {{.status = 200},
					{.status = 200, .has_offset = true, .offset = 101},
					{.status = 200, .has_offset = true, .offset = 100, .fin = true}};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct h2_fields ok = {.status = 200};
		links(false, true);
		memset(&client, 0, sizeof client);
		open_client();
		settle_pair(&hub, &agent);
		assert_int_equal(h2_answer(agent.raw, agent.stream, &ok, false), 0);
		user_write(&client, 100);
		settle_pair(&hub, &agent);
		down();
		struct session *s = session_of_node(hub.parked.next);
		list_del(hub.parked.next);
		links(false, true);
		assert_int_equal(session_resume(s, hub.l), 0);
		settle_pair(&hub, &agent);
		assert_true(agent.f.resume && agent.f.epoch == 1 && agent.f.has_offset);
		assert_int_equal(h2_answer(agent.raw, agent.stream, &bad[i], false), 0);
		settle_pair(&hub, &agent);
		assert_int_equal(client.why, REASON_PROTOCOL);
		assert_int_equal(agent.reset_code, reason_code(REASON_PROTOCOL));
		finish();
	}
}

static void test_data_after_the_end(void **state)
{
	raw_hub_up();
	target.s->in.fin = true; /* as after a resume with mct-fin */
	hub.send = 1;
	h2_wake(hub.raw, hub.stream);
	settle_pair(&hub, &agent);
	assert_int_equal(target.why, REASON_PROTOCOL);
	assert_false(agent.dead);
	finish();
}

static void test_twice_the_same_id(void **state)
{
	raw_hub_up();
	agent.on_request = NULL;
	struct h2_fields f = {.service = "web", .session = "00112233445566778899aabbccddeeff"};
	h2_connect(hub.raw, &f, &hub);
	settle_pair(&hub, &agent);
	assert_null(session_accept(agent.l, agent.stream, &agent.f, 30000, &user_events, &target));
	finish();
}

static void test_link_closed_code_parks(void **state)
{
	raw_hub_up();
	h2_reset(hub.raw, hub.stream, reason_code(REASON_LINK_CLOSED));
	settle_pair(&hub, &agent);
	assert_int_equal(target.ends, 0);
	assert_true(session_parked(target.s));
	raw_hub_asks(request(target.s, 1, 400, false));
	assert_int_equal(hub.f.status, 200);
	finish();
}

/* A GOAWAY crosses the request to go on: the session is not harmed. */
static void test_goaway_strands_a_resume(void **state)
{
	up();
	relink();
	h2_goaway(link_h2(agent.l), 0, "draining"); /* a link says DRAIN, which harms nobody */
	link_touch(agent.l);
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	carry(&agent, &hub);
	settle_pair(&hub, &agent);
	assert_int_equal(client.ends, 0);
	assert_false(list_empty(&hub.parked));
	relink();
	assert_int_equal(session_resume(session_of_node(hub.parked.next), hub.l), 0);
	client.greedy = true;
	user_write(&target, 10);
	settle_pair(&hub, &agent);
	assert_int_equal(client.got, 10);
	finish();
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, nothing_left)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_there_and_back),
		T(test_frames_fit_records),
		T(test_large_frames_end_with_a_chunk),
		T(test_quick_reader_gets_a_larger_ring),
		T(test_slow_reader_does_not),
		T(test_ring_suits_the_round_trip),
		T(test_budget_halts_growth),
		T(test_small_messages_are_credited_lazily),
		T(test_bulk_is_credited_early),
		T(test_drained_is_credited_at_once),
		T(test_credit_after_the_end),
		T(test_too_much_credit_ends_that_session_only),
		T(test_sender_waits_for_memory),
		T(test_receiver_without_memory_ends_one_session),
		T(test_idle_holds_nothing),
		T(test_refusals_name_their_reason),
		T(test_unknown_refusals_by_status),
		T(test_target_refuses_after_accept),
		T(test_kept_session_starts_anew),
		T(test_connect_timeout),
		T(test_reset_with_bytes_in_flight),
		T(test_last_words_come_before_the_reset),
		T(test_last_words_go_on_over_another_link),
		T(test_last_words_are_not_waited_for),
		T(test_without_last_words),
		T(test_foreign_codes),
		T(test_done_is_no_reason_for_a_reset),
		T(test_reset_of_a_parked_session_is_told_later),
		T(test_clock_of_another_thread),
		T(test_given_back),
		T(test_sent_bytes_are_not_given_back),
		T(test_answered_is_not_given_back),
		T(test_own_end_is_told_over_the_next_link),
		T(test_bytes_lost_with_a_link_come_again),
		T(test_unread_bytes_come_again),
		T(test_unread_bytes_before_an_end_stay),
		T(test_resume_timeout),
		T(test_resume_is_answered_when_the_target_is),
		T(test_request_that_never_arrived),
		T(test_barred_request_is_refused),
		T(test_only_the_proof_is_missing),
		T(test_proof_lost_on_the_agent),
		T(test_offsets_out_of_range_are_refused),
		T(test_older_requests_do_not_disturb),
		T(test_bad_answers_end_the_session),
		T(test_data_after_the_end),
		T(test_twice_the_same_id),
		T(test_link_closed_code_parks),
		T(test_goaway_strands_a_resume),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	session_thread_fini();
	return failed;
}
