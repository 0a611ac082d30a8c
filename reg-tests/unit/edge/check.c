/* check with probes that find what the test says, messages that are delivered when it says, and its clock: when checks are made, what is told, what a reload keeps. */
#include "edge/check.c"

#include "kept_conf.h"
#include "logged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

struct probe {
	const struct conf_service *s;
	void (*on_done)(void *arg, const struct probe_result *r);
	void *arg;
};

static struct {
	uint64_t us;
	struct probe *probe; /* the one under way; the tests have one service with a check at a time */
	int started, cancelled, told;
	struct msg *first, **last;
} t;

struct probe *probe_start(const struct conf_service *s, struct tls *tls, void (*on_done)(void *, const struct probe_result *), void *arg)
{
	assert_null(t.probe);
	t.probe = calloc(1, sizeof(*t.probe));
	*t.probe = (struct probe){ s, on_done, arg };
	t.started++;
	return t.probe;
}

void probe_cancel(struct probe *p)
{
	assert_ptr_equal(p, t.probe);
	free(p);
	t.probe = NULL;
	t.cancelled++;
}

void thread_post(int thread, struct msg *m)
{
	assert_int_equal(thread, 0);
	m->next = NULL;
	*t.last = m;
	t.last = &m->next;
}

int thread_self(void)
{
	return 0;
}

int thread_count(void)
{
	return 1;
}

static void on_change(const char *service)
{
	assert_string_equal(service, "x");
	t.told++;
}

static const struct check_events check_events = { on_change };

static void deliver(void)
{
	while (t.first) {
		struct msg *m = t.first;

		t.first = m->next;
		if (!t.first)
			t.last = &t.first;
		m->run(m);
	}
}

static void pass_ms(uint64_t ms)
{
	while (ms--) {
		t.us += 1000;
		clock_set_us(t.us);
		timers_run();
		deliver();
	}
}

/* Milliseconds until a check begins. */
static unsigned until_check(unsigned patience)
{
	unsigned ms = 0;

	while (!t.probe && ms < patience) {
		pass_ms(1);
		ms++;
	}
	assert_non_null(t.probe);
	return ms;
}

static void finds(enum check_status status)
{
	struct probe *p = t.probe;
	struct probe_result r = { .status = status };

	assert_non_null(p);
	t.probe = NULL;
	p->on_done(p->arg, &r);
	free(p);
	deliver();
}

static struct check_view seen(void)
{
	struct check_view v;

	assert_true(check_view("x", &v));
	return v;
}

static void expect_words(const char *words)
{
	assert_string_equal(seen().words, words);
}

static struct conf_service services[4];
static struct conf confs[4];

/* Configuration i: one service, "x". */
static struct conf *conf(int i, const char *target, const struct conf_check *c)
{
	services[i] = (struct conf_service){ .name = (char *)"x", .target.text = (char *)(uintptr_t)target, .weight = 100, .check = *c };
	confs[i] = (struct conf){ .agent = { .set = true, .services = &services[i], .services_n = 1 } };
	return &confs[i];
}

static const struct conf_check usual = {
	.type = CHECK_TCP, .interval = 1000, .fastinter = 200, .downinter = 3000, .timeout = 500, .rise = 2, .fall = 3, .jitter = 10,
};

static void begin(const struct conf_check *c)
{
	memset(&t, 0, sizeof(t));
	logged_clear();
	t.last = &t.first;
	t.us = 5000000;
	clock_set_us(t.us);
	check_init(conf(0, "a:1", c), &check_events);
}

static void end(void)
{
	check_fini();
	deliver();
	assert_null(t.probe);
	for (size_t i = 0; i < sizeof(confs) / sizeof(confs[0]); i++)
		assert_int_equal(atomic_load(&confs[i].refs), 0);
	memset(confs, 0, sizeof(confs));
}

static void up(void)
{
	until_check(FIRST_MS + 1);
	finds(CHECK_L4OK);
	expect_words("UP");
}

static void reload(struct conf *c)
{
	check_prepare(c);
	check_reload();
	deliver();
}

static void test_start(void **state)
{
	begin(&usual);
	assert_int_equal(seen().why.status, CHECK_INI);
	assert_false(seen().up);
	until_check(FIRST_MS + 1);
	assert_int_equal(t.told, 0);
	finds(CHECK_L4OK);
	assert_true(seen().up);
	assert_int_equal(t.told, 1);
	assert_string_equal(logged.line, "check service=x target=a:1 state=UP status=L4OK text=connected ms=0");
	end();
	begin(&usual);
	until_check(FIRST_MS + 1);
	finds(CHECK_L4CON);
	assert_string_equal(logged.line, "check service=x target=a:1 state=DOWN status=L4CON text=cannot be connected ms=0");
	assert_int_equal(logged.lines, 1);
	until_check(4000);
	finds(CHECK_L4CON);
	assert_int_equal(logged.lines, 1);
	assert_int_equal(t.told, 1);
	until_check(4000);
	finds(CHECK_L4TOUT); /* another reason: hubs hear of it, the log does not */
	assert_int_equal(logged.lines, 1);
	assert_int_equal(t.told, 2);
	assert_int_equal(seen().why.status, CHECK_L4TOUT);
	end();
}

static void expect_pause(uint32_t ms)
{
	unsigned got = until_check(2 * ms);

	assert_in_range(got, ms - ms / 10, ms + ms / 10 + 1);
}

static void test_pace(void **state)
{
	begin(&usual);
	up();
	for (int i = 0; i < 20; i++) {
		expect_pause(1000);
		finds(CHECK_L4OK);
	}
	expect_pause(1000);
	finds(CHECK_L4CON);
	expect_pause(200);
	finds(CHECK_L4CON);
	expect_words("UP 1/3");
	assert_int_equal(t.told, 1);
	expect_pause(200);
	finds(CHECK_L4CON);
	expect_words("DOWN");
	assert_int_equal(t.told, 2);
	expect_pause(3000);
	finds(CHECK_L4OK);
	expect_words("DOWN 1/2");
	assert_int_equal(seen().why.status, CHECK_L4CON);
	assert_int_equal(seen().last.status, CHECK_L4OK);
	expect_pause(200);
	finds(CHECK_L4OK);
	expect_words("UP");
	expect_pause(1000);
	assert_int_equal(seen().falls, 1);
	assert_int_equal(seen().failed, 3);
	assert_int_equal(logged.lines, 3);
	end();
}

static void test_says_nothing(void **state)
{
	begin(&usual);
	until_check(FIRST_MS + 1);
	finds(CHECK_SOCKERR);
	assert_false(seen().up);
	until_check(4000);
	finds(CHECK_L4OK);
	expect_words("UP");
	for (int i = 0; i < 5; i++) {
		until_check(2000);
		finds(CHECK_SOCKERR);
	}
	expect_words("UP");
	assert_int_equal(seen().last.status, CHECK_SOCKERR);
	assert_int_equal(seen().why.status, CHECK_L4OK);
	assert_int_equal(t.told, 1);
	end();
}

static void test_condemned(void **state)
{
	begin(&usual);
	up();
	check_condemn("y", CHECK_L4CON, "nobody");
	check_condemn("x", CHECK_L4CON, "5 sessions");
	assert_true(seen().up);
	deliver();
	expect_words("DOWN");
	assert_string_equal(seen().why.text, "5 sessions");
	assert_int_equal(t.told, 2);
	check_condemn("x", CHECK_L4TOUT, "again");
	deliver();
	assert_int_equal(t.told, 2);
	assert_string_equal(seen().why.text, "5 sessions");
	expect_pause(3000);
	end();
}

static void test_reload_keeps(void **state)
{
	struct conf_check other = usual;

	begin(&usual);
	up();
	uint64_t since = seen().since_ms;
	until_check(2000);
	reload(conf(1, "a:1", &usual));
	assert_int_equal(t.cancelled, 0);
	assert_int_equal(atomic_load(&confs[0].refs), 1); /* of the check under way */
	finds(CHECK_L4CON);
	expect_words("UP 2/3");
	until_check(2000);
	assert_ptr_equal(t.probe->s, &services[1]);
	assert_int_equal(atomic_load(&confs[0].refs), 0);
	other.rise = 4;
	other.timeout = 600;
	reload(conf(2, "a:1", &other));
	assert_int_equal(t.cancelled, 1);
	expect_words("UP");
	assert_int_equal(seen().since_ms, since);
	until_check(FIRST_MS + 1);
	assert_ptr_equal(t.probe->s, &services[2]);
	end();
}

static void test_reload_forgets(void **state)
{
	struct conf_check none = { .type = CHECK_NONE };
	struct check_view v;

	begin(&usual);
	up();
	until_check(2000);
	reload(conf(1, "b:1", &usual)); /* another target */
	assert_int_equal(t.cancelled, 1);
	assert_false(seen().up);
	assert_int_equal(seen().why.status, CHECK_INI);
	until_check(FIRST_MS + 1);
	finds(CHECK_L4CON);
	reload(conf(2, "b:1", &none));
	assert_false(check_view("x", &v));
	int started = t.started;
	pass_ms(5000);
	assert_int_equal(t.started, started);
	reload(conf(3, "b:1", &usual)); /* it was served until now */
	assert_true(seen().up);
	expect_words("UP 1/3");
	until_check(FIRST_MS + 1);
	finds(CHECK_L4CON);
	assert_false(seen().up);
	end();
}

static void test_slow_start(void **state)
{
	struct conf_check c = usual;

	c.slowstart = 900;
	c.rise = c.fall = 1;
	c.interval = 100000;
	c.downinter = 10;
	begin(&c);
	up();
	assert_int_equal(seen().weight, 100);
	check_condemn("x", CHECK_L4CON, "");
	deliver();
	until_check(100);
	int told = t.told;
	finds(CHECK_L4OK);
	assert_int_equal(t.told, told + 1);
	for (int i = 1; i < 10; i++) {
		assert_int_equal(seen().weight, 10 * i);
		assert_int_equal(t.told, told + i);
		pass_ms(100);
	}
	assert_int_equal(seen().weight, 100);
	pass_ms(1000);
	assert_int_equal(t.told, told + 10);
	end();
}

struct survey {
	int n;
	bool up;
};

static void take(void *arg, size_t service, const struct check_view *v)
{
	struct survey *s = arg;

	assert_int_equal(service, 0);
	s->n++;
	s->up = v->up;
}

/* A later moment has a greater number, the same one has the same. */
static void test_survey(void **state)
{
	struct survey s = { 0 };

	begin(&usual);
	uint64_t first = check_survey(&confs[0], take, &s), second;
	assert_int_equal(s.n, 1);
	assert_false(s.up);
	until_check(FIRST_MS + 1);
	assert_int_equal(check_survey(&confs[0], take, &s), first);
	finds(CHECK_L4OK);
	second = check_survey(&confs[0], take, &s);
	assert_true(second > first && s.up);
	until_check(2000);
	finds(CHECK_L4CON);
	assert_int_equal(check_survey(&confs[0], take, &s), second);
	check_prepare(conf(1, "a:1", &usual));
	assert_true(check_survey(&confs[0], take, &s) > second);
	check_reload();
	end();
}

static void test_stopped(void **state)
{
	begin(&usual);
	up();
	until_check(2000);
	check_condemn("x", CHECK_L4CON, "");
	check_stop();
	assert_int_equal(t.cancelled, 1);
	deliver();
	int started = t.started;
	pass_ms(10000);
	assert_int_equal(t.started, started);
	assert_true(seen().up);
	check_stop();
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),	      cmocka_unit_test(test_pace),	     cmocka_unit_test(test_says_nothing),
		cmocka_unit_test(test_condemned),     cmocka_unit_test(test_reload_keeps),   cmocka_unit_test(test_reload_forgets),
		cmocka_unit_test(test_slow_start),    cmocka_unit_test(test_survey),	     cmocka_unit_test(test_stopped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
