/* The pages of the metrics address as they are served: figures, health, the status page and its JSON. */
#define _GNU_SOURCE
#include "admin/metrics.c"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/ring.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/tunnel/registry.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define AGENTS 30

static struct {
	bool ready;
	int listener;
	struct addr at;
	struct conf conf;
	struct advert agents[AGENTS];
	struct hello_service services[AGENTS][2];
	atomic_uint sessions, rtt_us;
	size_t agents_n;
	char text[4 << 20];
	bool no_memory;
} t;

static struct conf_tunnel tunnels[] = { { .name = (char *)"site-a" } };
static struct conf_listener listeners[] = { { .name = (char *)"web<script>" } };

/* Instead of registry and frontend. */

size_t registry_agents(void)
{
	return t.agents_n;
}

size_t registry_snapshot(struct registry_agent **out)
{
	*out = t.no_memory ? NULL : calloc(t.agents_n + 1, sizeof(**out));
	if (t.no_memory)
		return 0;
	for (size_t i = 0; i < t.agents_n; i++)
		(*out)[i] = (struct registry_agent){ advert_get(&t.agents[i]), 2 };
	return t.agents_n;
}

const struct conf *frontend_conf(void)
{
	return &t.conf;
}

void frontend_listener(size_t index, struct frontend_figures *out)
{
	*out = (struct frontend_figures){ .sessions = 7, .total = 70, .enabled = true };
}

void frontend_tunnel(size_t index, struct frontend_figures *out)
{
	*out = (struct frontend_figures){ .sessions = 7, .total = 70, .enabled = true };
}

static bool ready(void)
{
	return t.ready;
}

static uint64_t restarts(void)
{
	return 3;
}

static struct conf *conf(void)
{
	return &t.conf;
}

static const char *phase(void)
{
	return t.ready ? "serving" : "draining";
}

static const struct metrics_state here = { ready, restarts, conf, phase };

static void add_agent(const char *tunnel, const char *name, bool up)
{
	struct advert *a = &t.agents[t.agents_n];
	struct hello_service *s = t.services[t.agents_n++];

	*a = (struct advert){ .refs = 1, .services = s, .services_n = 1, .sessions = &t.sessions, .rtt_us = &t.rtt_us };
	snprintf(a->name, sizeof(a->name), "%s", name);
	snprintf(a->tunnel, sizeof(a->tunnel), "%s", tunnel);
	*s = (struct hello_service){ .up = up };
	snprintf(s->name, sizeof(s->name), "web");
}

static int set_up(void **s)
{
	struct endpoint e;
	char err[200];

	memset(&t, 0, sizeof(t));
	t.ready = true;
	t.sessions = 5;
	t.rtt_us = 1500;
	t.conf = (struct conf){ .hub = { .set = true, .name = (char *)"hub-a" }, .tunnels = tunnels, .tunnels_n = 1, .listeners = listeners, .listeners_n = 1 };
	add_agent("site-a", "edge-1", true);
	add_agent("site-a", "edge-2", false);
	loop_init();
	assert_int_equal(endpoint_parse(&e, "127.0.0.1:0", ENDPOINT_BIND, err, sizeof(err)), 0);
	t.listener = sock_listen(&e, err, sizeof(err));
	endpoint_fini(&e);
	assert_true(t.listener >= 0);
	sock_local(t.listener, &t.at);
	metrics_init(&here);
	assert_int_equal(metrics_open(t.listener), 0);
	return 0;
}

static int tear_down(void **s)
{
	struct mem_usage u;

	metrics_close();
	metrics_close();
	close(t.listener);
	loop_fini();
	for (size_t i = 0; i < t.agents_n; i++)
		assert_int_equal(t.agents[i].refs, 1);
	mem_usage(MEM_OTHER, &u);
	assert_int_equal(u.used, 0);
	mem_drain();
	return 0;
}

/* HTTP/1.0: the body to the end. */
static const char *get(const char *path)
{
	char request[100];
	int fd = sock_connect(&t.at), n;
	size_t len = 0;

	assert_true(fd >= 0);
	n = snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\n\r\n", path);
	while (send(fd, request, (size_t)n, MSG_NOSIGNAL) < 0)
		loop_turn(1);
	for (int turns = 0; turns < 10000; turns++) {
		ssize_t got = recv(fd, t.text + len, sizeof(t.text) - 1 - len, 0);

		assert_true(got >= 0 || errno == EAGAIN);
		if (got == 0)
			break;
		len += got > 0 ? (size_t)got : 0;
		loop_turn(got > 0 ? 0 : 1);
	}
	t.text[len] = '\0';
	close(fd);
	loop_turn(0);
	return t.text;
}

static const char *body(const char *answer)
{
	const char *end = strstr(answer, "\r\n\r\n");

	assert_non_null(end);
	return end + 4;
}

static void starts_with(const char *text, const char *start)
{
	if (strncmp(text, start, strlen(start)) != 0)
		fail_msg("'%.60s' does not start with '%s'", text, start);
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("lacks '%s' in '%s'", part, text);
}

static void lacks(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' has '%s'", text, part);
}

static void figures(void **s)
{
	const char *a = get("/metrics");

	starts_with(a, "HTTP/1.1 200 OK\r\n");
	has(a, "Content-Type: text/plain; version=0.0.4");
	has(a, "\nmctunnel_build_info{version=\"" MCTUNNEL_VERSION "\"} 1\n");
	has(a, "\nmctunnel_ready 1\n");
	has(a, "\nmctunnel_agents 2\n");
	has(a, "\n# TYPE mctunnel_worker_restarts_total counter\nmctunnel_worker_restarts_total 3\n");
	has(a, "\nmctunnel_memory_bytes{kind=\"conn\"} ");
	has(a, "\nmctunnel_vip_state{state=\"unknown\"} 1\n");
	has(a, "\nmctunnel_service_up{tunnel=\"site-a\",service=\"web\",agent=\"edge-1\"} 1\n");
	has(a, "\nmctunnel_service_up{tunnel=\"site-a\",service=\"web\",agent=\"edge-2\"} 0\n");
	has(a, "\nmctunnel_link_rtt_seconds{tunnel=\"site-a\",agent=\"edge-1\"} 0.001500\n");
	has(a, "\nmctunnel_agent_sessions{tunnel=\"site-a\",agent=\"edge-2\"} 5\n");
	has(a, "\nmctunnel_reloads_total{result=\"ok\"} ");
	has(a, "\nmctunnel_queue_seconds_bucket{le=\"+Inf\"} 0\nmctunnel_queue_seconds_sum 0.000000\nmctunnel_queue_seconds_count 0\n");
	has(a, "\nmctunnel_tunnel_sessions{tunnel=\"site-a\"} 7\n");
	has(a, "\nprocess_start_time_seconds ");
	has(a, "\nprocess_resident_memory_bytes ");
	has(a, "\nprocess_open_fds ");
	has(a, "\nprocess_cpu_seconds_total ");
	for (int i = 0; i < STAT_COUNT; i++)
		has(a, stat_rows[i].name);
}

/* promtool's rules as far as they concern us: each family once, with help and type; only counters end in _total; no series twice. */
static void lint(const char *page)
{
	char *text = strdup(page), *rest = text, name[100] = "", kind[20] = "";

	for (char *l; (l = strsep(&rest, "\n")) && rest;) {
		if (strncmp(l, "# HELP ", 7) == 0) {
			assert_int_equal(sscanf(l, "# HELP %99s", name), 1);
			char again[120];
			snprintf(again, sizeof(again), "\n# HELP %s ", name);
			assert_null(strstr(rest, again));
		} else if (strncmp(l, "# TYPE ", 7) == 0) {
			char typed[100];
			assert_int_equal(sscanf(l, "# TYPE %99s %19s", typed, kind), 2);
			assert_string_equal(typed, name);
			bool total = strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_total") == 0;
			assert_int_equal(total, strcmp(kind, "counter") == 0);
		} else {
			starts_with(l, name);
			assert_true(strchr(" {_", l[strlen(name)]) != NULL);
			char *again = NULL, *value = strrchr(l, ' ');
			assert_true(asprintf(&again, "\n%.*s", (int)(value + 1 - l), l) > 0);
			if (strstr(rest, again))
				fail_msg("twice: %s", l);
			free(again);
		}
	}
	free(text);
}

static void metrics_lint(void **s)
{
	lint(body(get("/metrics")));
}

/* One instance drains, its successor is there already: one series. */
static void namesakes(void **s)
{
	t.agents[1].draining = true;
	snprintf(t.agents[1].name, sizeof(t.agents[1].name), "edge-1");
	const char *a = get("/metrics");
	has(a, "\nmctunnel_service_up{tunnel=\"site-a\",service=\"web\",agent=\"edge-1\"} 1\n");
	lint(body(a));
	t.agents[1].draining = false;
	t.agents[0].draining = true;
	t.services[1][0].up = true;
	has(get("/metrics"), "\nmctunnel_service_up{tunnel=\"site-a\",service=\"web\",agent=\"edge-1\"} 1\n");
}

static void names_are_escaped(void **s)
{
	snprintf(t.agents[1].name, sizeof(t.agents[1].name), "%s", "caf\xc3\xa9\"\\<b>\n&\xff");
	const char *a = get("/metrics");
	has(a, "agent=\"caf\xc3\xa9\\\"\\\\<b>\\n&\xef\xbf\xbd\"} 0\n");
	lint(body(a));
	a = get("/");
	has(a, "caf\xc3\xa9&quot;\\&lt;b&gt;\xef\xbf\xbd&amp;\xef\xbf\xbd");
	has(a, "web&lt;script&gt;");
	lacks(a, "<b>\n");
	lacks(a, "web<script>");
	has(get("/status.json"), "\"name\":\"caf\xc3\xa9\\\"\\\\<b>\\u000a&\\ufffd\"");
}

static void the_limit(void **s)
{
	char name[32];

	for (int i = 0; i < AGENTS - 2; i++) {
		snprintf(name, sizeof(name), "more-%d", i);
		add_agent("site-a", name, true);
	}
	series_limit(10);
	const char *a = get("/metrics");
	has(a, "\nmctunnel_metrics_series_dropped{family=\"mctunnel_service_up\"} 20\n");
	has(a, "\nmctunnel_metrics_series_dropped{family=\"mctunnel_link_rtt_seconds\"} 20\n");
	has(a, "agent=\"more-7\"");
	lacks(a, "agent=\"more-8\"");
	lint(body(a));
	series_limit(1000);
}

static void health(void **s)
{
	assert_string_equal(body(get("/healthz")), "ok\n");
	starts_with(get("/readyz"), "HTTP/1.1 200 ");
	t.ready = false;
	starts_with(get("/readyz"), "HTTP/1.1 503 ");
	starts_with(get("/healthz"), "HTTP/1.1 200 ");
	has(get("/metrics"), "\nmctunnel_ready 0\n");
}

static void status(void **s)
{
	char nonce[33], again[64];
	const char *a = get("/"), *at = strstr(a, "script-src 'nonce-");

	starts_with(a, "HTTP/1.1 200 ");
	has(a, "Content-Type: text/html");
	has(a, "<h1>hub-a</h1>");
	has(a, "<b data-figure=\"agents\" data-kind=\"count\">2</b>");
	has(a, "<td class=\"text\">edge-2");
	has(a, "<td class=\"ms\">1.50 ms");
	has(a, "<td class=\"state partly\">partly");
	lacks(a, "http://");
	lacks(a, "https://");
	assert_non_null(at);
	snprintf(nonce, sizeof(nonce), "%s", at + 18);
	snprintf(again, sizeof(again), "<script nonce=\"%s\">", nonce);
	has(a, again);
	lacks(get("/"), nonce);
}

static void json(void **s)
{
	const char *a = get("/status.json");

	starts_with(a, "HTTP/1.1 200 ");
	has(a, "Content-Type: application/json\r\n");
	has(a, "{\"name\":\"hub-a\",\"role\":\"hub\"");
	has(a, "\"agents\":2,");
	has(a, "{\"tunnel\":\"site-a\",\"name\":\"web\",\"state\":\"partly\",\"healthy\":1,\"agents\":2,\"why\":");
	has(a, "\"rtt_ms\":1.500,");
	t.rtt_us = 0;
	has(get("/status.json"), "\"rtt_ms\":null,");
}

static void agent_alone(void **s)
{
	t.conf.hub.set = false;
	t.conf.tunnels_n = t.conf.listeners_n = 0;
	t.conf.agent.set = true;
	t.conf.agent.name = (char *)"edge-1";
	t.agents_n = 0;
	add_agent("", "hub-a", true);
	add_agent("", "hub-a", true);
	const char *a = get("/metrics");
	has(a, "\nmctunnel_hub_links{hub=\"hub-a\"} 4\n");
	has(a, "\nmctunnel_hub_rtt_seconds{hub=\"hub-a\"} 0.001500\n");
	lacks(a, "mctunnel_link_rtt_seconds{");
	lint(body(a));
	a = get("/status.json");
	has(a, "\"role\":\"agent\"");
	has(a, "\"hubs\":[{\"name\":\"hub-a\"");
	has(get("/"), "<h1>edge-1</h1>");
}

/* Who asks must not be shown that there are no agents. */
static void no_memory_is_not_nobody(void **unused)
{
	FILE *f = fopen("/dev/null", "w");

	assert_non_null(f);
	t.no_memory = true;
	assert_null(prometheus_begin());
	assert_int_equal(status_page(f), 0);
	assert_int_equal(status_json(f), 0);
	t.no_memory = false;
	fclose(f);
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(figures),
		test(metrics_lint),
		test(namesakes),
		test(names_are_escaped),
		test(the_limit),
		test(health),
		test(status),
		test(json),
		test(agent_alone),
		test(no_memory_is_not_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
