/* How a carrier ends: what it says of the end, and whether the connection is closed in good order. Link and connection are fakes. */
#include "edge/carrier.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct link {
	const struct link_events *ev;
	void *owner;
	bool wants_output;
};

static struct {
	struct link link;
	struct conn conn;
	ssize_t reads; /* the answer to the next read */
	size_t sessions, says, room; /* says: at the next output, for which there was room */
	size_t left;                 /* of each write, by the kernel, until the next turn */
	size_t unsent;
	uint32_t lowat, row;
	int closed, aborted, downs, strands;
	bool slow; /* to hear that it is down takes more than a turn has for that */
	enum reason why;
	char text[64];
} t;

/* ---- what the carrier uses ---- */

struct link *link_new(enum h2_role role, const struct link_events *ev, void *owner, uint32_t max_streams)
{
	t.link = (struct link){ .ev = ev, .owner = owner };
	return &t.link;
}

void link_free(struct link *l)
{
}

int link_input(struct link *l, const uint8_t *data, size_t len)
{
	return 0;
}

ssize_t link_output(struct link *l, struct h2_sink *k)
{
	bool wants = l->wants_output;

	l->wants_output = false;
	t.room = k->size;
	k->n = 2;
	k->iov[0] = (struct iovec){ k->buf, t.says / 2 };
	k->iov[1] = (struct iovec){ k->buf + t.says / 2, t.says - t.says / 2 };
	return wants ? (ssize_t)t.says : 0;
}

bool link_wants_output(const struct link *l)
{
	return l->wants_output;
}

size_t link_sessions(const struct link *l)
{
	return t.sessions;
}

struct h2 *link_h2(struct link *l)
{
	return NULL;
}

void h2_row(struct h2 *h, uint32_t bytes)
{
	t.row = bytes;
}

const char *h2_error(const struct h2 *h)
{
	return "";
}

ssize_t conn_readv(struct conn *c, const struct iovec *iov, int n)
{
	c->readable = false;
	return t.reads;
}

ssize_t conn_writev(struct conn *c, const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	t.unsent = t.left;
	return c->error ? CONN_FAILED : (ssize_t)sum;
}

size_t conn_unsent(const struct conn *c)
{
	return t.unsent;
}

void conn_close(struct conn *c)
{
	t.closed++;
}

void conn_abort(struct conn *c)
{
	t.aborted++;
}

int conn_fd(const struct conn *c)
{
	return -1;
}

enum tls_state tls_state(const struct conn *c)
{
	return TLS_UP;
}

const char *tls_failure(const struct conn *c)
{
	return "";
}

void sock_notsent_lowat(int fd, uint32_t bytes)
{
	t.lowat = bytes;
}

/* ---- the scene ---- */

static void on_down_here(void *owner, enum reason why, const char *text)
{
	struct share s = { 0 };

	share_begin(&s);
	while (t.slow && share_left(&s, LEAVE_US + 1))
		;
	t.downs++;
	t.why = why;
	str_copy(t.text, sizeof(t.text), text);
}

static void on_strand_here(void *owner, struct list *node)
{
	t.strands++;
}

static const struct carrier_events events = { .on_down = on_down_here, .on_strand = on_strand_here };

static int set_up(void **state)
{
	memset(&t, 0, sizeof(t));
	t.says = 10;
	loop_init();
	return 0;
}

static int tear_down(void **state)
{
	carrier_thread_fini();
	loop_fini();
	mem_drain();
	return 0;
}

static struct carrier *begin(void)
{
	struct carrier *c = carrier_new(H2_HUB, &t.conn, 0, &events, NULL);

	t.reads = CONN_AGAIN;
	t.conn.writable = true;
	loop_turn(0);
	return c;
}

static void fail_with(ssize_t reads, int error)
{
	t.reads = reads;
	t.conn.error = error;
	t.conn.readable = true;
	t.conn.on_event(&t.conn);
	loop_turn(0);
}

/* ---- tests ---- */

static void silence_found_by_tcp(void **state)
{
	struct carrier *c = begin();

	fail_with(CONN_FAILED, ETIMEDOUT);
	assert_int_equal(t.downs, 1);
	assert_int_equal(t.why, REASON_LINK_DEAD);
	assert_string_equal(t.text, strerror(ETIMEDOUT));
	carrier_free(c);
	assert_int_equal(t.aborted, 1);
}

static void silence_found_in_writing(void **state)
{
	struct carrier *c = begin();

	t.conn.error = ETIMEDOUT;
	t.link.wants_output = true;
	t.link.ev->on_output(c);
	loop_turn(0);
	assert_int_equal(t.why, REASON_LINK_DEAD);
	carrier_free(c);
}

static void other_ends(void **state)
{
	struct carrier *c = begin();

	fail_with(CONN_FAILED, ECONNRESET);
	assert_int_equal(t.why, REASON_LINK_CLOSED);
	carrier_free(c);
	c = begin();
	fail_with(0, 0);
	assert_int_equal(t.why, REASON_LINK_CLOSED);
	fail_with(0, 0);
	assert_int_equal(t.downs, 2); /* once for each */
	carrier_free(c);
	assert_int_equal(t.aborted, 2);
	assert_int_equal(t.closed, 0);
}

static void good_order_only_after_good_byes(void **state)
{
	struct carrier *c = begin();

	carrier_free(c);
	assert_int_equal(t.aborted, 1);
	c = begin();
	carrier_farewell(c);
	carrier_free(c);
	assert_int_equal(t.closed, 1);
	c = begin();
	carrier_finish(c);
	loop_turn(0);
	assert_int_equal(t.why, REASON_DONE);
	carrier_free(c);
	assert_int_equal(t.closed, 2);
	assert_int_equal(t.aborted, 1);
}

static void hands_stranded_sessions_on(void **state)
{
	struct carrier *c = begin();

	t.link.ev->on_strand(c, NULL);
	assert_int_equal(t.strands, 1);
	carrier_free(c);
}

static void pass_ms(uint64_t ms)
{
	clock_set_us((clock_ms() + ms) * 1000);
}

static void says_bytes(struct carrier *c, size_t n)
{
	t.says = n;
	t.unsent = 0;
	t.link.wants_output = true;
	t.link.ev->on_output(c);
	loop_turn(0);
}

/* A keystroke must not wait behind more than the link sends in a moment; a bulk transfer that is alone, or on a quick link, may queue more at a time. */
static void kernels_queue_suits_the_pace(void **state)
{
	struct carrier *c = begin();

	says_bytes(c, 10);
	assert_int_equal(t.lowat, LOWAT_MAX);
	t.sessions = 2;
	for (int i = 0; i < 20; i++) {
		says_bytes(c, 10000);
		assert_int_equal(t.lowat, LOWAT_SHARED);
		assert_int_equal(t.room, LOWAT_SHARED);
		pass_ms(1);
	}
	for (int i = 0; i < 3 * PACE_MS; i++) {
		says_bytes(c, 256 << 10);
		pass_ms(1);
	}
	assert_int_equal(t.lowat, 512 << 10);
	assert_int_equal(t.row, H2_BULK_MAX);
	assert_int_equal(t.room, OUTPUT_MAX);
	for (int i = 0; i < 3 * PACE_MS; i++) {
		says_bytes(c, 50000);
		pass_ms(1);
	}
	assert_int_equal(t.row, 3 * H2_DATA_MAX); /* a millisecond */
	pass_ms(60000);
	says_bytes(c, 10); /* measures */
	says_bytes(c, 10);
	assert_int_equal(t.lowat, LOWAT_SHARED);
	assert_int_equal(t.row, H2_DATA_MAX);
	carrier_free(c);
}

/* Where the network takes less than there is, what waits in the kernel is time. */
static void queue_is_short_on_a_narrow_link(void **state)
{
	struct carrier *c = begin();

	t.sessions = 2;
	t.left = 1000;
	for (int i = 0; i < 3 * PACE_MS; i++) {
		says_bytes(c, 12000); /* a millisecond: 100 Mbit/s */
		pass_ms(1);
	}
	assert_int_equal(t.lowat, LOWAT_NARROW);
	assert_int_equal(t.room, LOWAT_NARROW);
	assert_int_equal(t.row, H2_DATA_MAX);
	t.sessions = 1;
	says_bytes(c, 12000);
	assert_int_equal(t.lowat, 256 << 10); /* 32 ms, in powers of two */
	t.sessions = 2;
	t.left = 0;
	for (int i = 0; i < 3 * PACE_MS; i++) {
		says_bytes(c, 12000);
		pass_ms(1);
	}
	assert_int_equal(t.lowat, LOWAT_SHARED); /* it takes all there is: it is not narrow */
	carrier_free(c);
}

/* Each turn has time for one here, or for none on a busy machine; who carries a session does not wait for his turn. */
static void many_leave_in_turn(void **state)
{
	struct carrier *c[5];

	for (int i = 0; i < 5; i++)
		c[i] = carrier_new(H2_HUB, &t.conn, 0, &events, NULL);
	loop_turn(0);
	t.slow = true;
	for (int i = 0; i < 5; i++)
		go_down(c[i], REASON_LINK_CLOSED, "gone");
	loop_turn(0);
	assert_true(t.downs <= 1);
	carrier_free(c[3]); /* killed before its turn */
	t.sessions = 1;
	on_output(c[4]);
	t.downs = 0;
	loop_turn(0);
	assert_in_range(t.downs, 1, 2);
	for (int before = t.downs; !list_empty(&leaving.carriers); before = t.downs) {
		loop_turn(0);
		assert_true(t.downs - before <= 1);
	}
	for (int i = 0; i < 5; i++)
		if (i != 3)
			carrier_free(c[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(many_leave_in_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(silence_found_by_tcp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(silence_found_in_writing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(other_ends, set_up, tear_down),
		cmocka_unit_test_setup_teardown(good_order_only_after_good_byes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(hands_stranded_sessions_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(kernels_queue_suits_the_pace, set_up, tear_down),
		cmocka_unit_test_setup_teardown(queue_is_short_on_a_narrow_link, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
