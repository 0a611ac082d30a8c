/* probe with a dial that does as the test says and a clock that the test sets: what a connection that cannot be made is called, and when it is the agent's own
 * fault. What targets answer is seen by reg-tests/target_checks. */
#include "edge/probe.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct {
	uint64_t us;
	void (*on_dialled)(void *arg, struct dial_result *r);
	void *dialling;
	uint32_t timeout_ms;
	bool cancelled;
	int results;
	struct probe_result result;
} t;

struct dial *dial_start(const struct endpoint *e, const struct dial_options *o, void (*done)(void *arg, struct dial_result *r), void *arg)
{
	assert_false(o->second_attempt);
	t.timeout_ms = o->timeout_ms;
	t.on_dialled = done;
	t.dialling = arg;
	return (struct dial *)&t;
}

void dial_cancel(struct dial *d)
{
	t.cancelled = true;
}

static void on_result(void *arg, const struct probe_result *r)
{
	assert_ptr_equal(arg, &t);
	t.results++;
	t.result = *r;
}

static struct conf_service service = { .name = (char *)"x", .check = { .type = CHECK_TCP, .timeout = 500 } };

static struct probe *start(void)
{
	memset(&t, 0, sizeof(t));
	t.us = 1000000;
	clock_set_us(t.us);
	return probe_start(&service, NULL, on_result, &t);
}

static void nothing_left(void)
{
	struct mem_usage u;

	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
}

static void test_words(void **state)
{
	static const struct {
		int error;
		bool named;
		uint64_t ms;
		enum check_status status;
		const char *text;
	} rows[] = {
		{ ECONNREFUSED, false, 0, CHECK_L4CON, "Connection refused" },
		{ EHOSTUNREACH, false, 3, CHECK_L4CON, "No route to host" },
		{ EHOSTUNREACH, true, 3, CHECK_L4CON, "cannot resolve ?a?: no such name" },
		{ ECONNREFUSED, true, 3, CHECK_L4CON, "Connection refused" },
		{ ENOENT, false, 0, CHECK_L4CON, "No such file or directory" },
		{ ETIMEDOUT, false, 500, CHECK_L4TOUT, "" },
		{ ETIMEDOUT, false, 600, CHECK_L4TOUT, "" },
		{ ETIMEDOUT, false, 601, CHECK_SOCKERR, "the agent was held up" },
		{ ECONNREFUSED, false, 601, CHECK_L4CON, "Connection refused" },
		{ EMFILE, false, 0, CHECK_SOCKERR, "Too many open files" },
		{ ENOBUFS, false, 0, CHECK_SOCKERR, "No buffer space available" },
		{ ENOMEM, true, 0, CHECK_SOCKERR, "Cannot allocate memory" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct dial_result r = { .fd = -1, .error = rows[i].error, .why = "cannot resolve \1a\377: no such name" };

		service.target.host = (char *)(rows[i].named ? "a" : NULL);
		assert_non_null(start());
		assert_int_equal(t.timeout_ms, 500);
		clock_set_us(t.us + rows[i].ms * 1000);
		t.on_dialled(t.dialling, &r);
		assert_int_equal(t.results, 1);
		assert_int_equal(t.result.status, rows[i].status);
		assert_string_equal(t.result.text, rows[i].text);
		assert_int_equal(t.result.took_us, rows[i].ms * 1000);
		assert_false(t.cancelled);
		nothing_left();
	}
	service.target.host = NULL;
}

static void test_cancelled(void **state)
{
	struct probe *p = start();

	assert_non_null(p);
	probe_cancel(p);
	assert_true(t.cancelled);
	assert_int_equal(t.results, 0);
	nothing_left();
}

static int broken_with;

static ssize_t break_readv(struct conn *c, const struct iovec *iov, int n)
{
	c->error = broken_with;
	return CONN_FAILED;
}

static void close_nothing(struct conn *c, bool orderly)
{
}

/* An answer that cannot be read for want of memory is no bad one. */
static void test_broken_while_it_waits(void **state)
{
	static const struct conn_ops ops = { .readv = break_readv, .close = close_nothing };
	static const struct {
		int error;
		enum check_status status;
	} rows[] = { { ECONNRESET, CHECK_L7RSP }, { ENOMEM, CHECK_SOCKERR }, { ENOBUFS, CHECK_SOCKERR } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct conn c = { .ops = &ops };
		struct probe *p = start();

		assert_non_null(p);
		p->dial = NULL;
		p->head = malloc(HEAD_MAX);
		p->conn = &c;
		c.owner = p;
		broken_with = rows[i].error;
		on_conn(&c);
		assert_int_equal(t.results, 1);
		assert_int_equal(t.result.status, rows[i].status);
		nothing_left();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_broken_while_it_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
