/* The metrics address: the table of its pages, and those that are two words long. What the others say is theirs (prometheus, status); how a
 * visitor is served is http's. */
#include "mctunnel/admin/metrics.h"

#include "mctunnel/admin/http.h"
#include "mctunnel/admin/process.h"
#include "mctunnel/admin/prometheus.h"
#include "mctunnel/admin/status.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/series.h"

static const struct metrics_state *state; /* NULL: closed */

static int health_page(FILE *f)
{
	fputs("ok\n", f);
	return 200;
}

static int ready_page(FILE *f)
{
	bool ready = state->ready();

	fputs(ready ? "ready\n" : "not ready\n", f);
	return ready ? 200 : 503;
}

#define PLAIN "text/plain; charset=utf-8"

static const struct http_page pages[] = {
	{ .path = "/", .type = "text/html; charset=utf-8", .make = status_page, .policy = status_policy },
	{ .path = "/status.json", .type = "application/json", .make = status_json },
	{ .path = "/metrics", .type = "text/plain; version=0.0.4; charset=utf-8", .begin = prometheus_begin, .more = prometheus_more, .end = prometheus_end },
	{ .path = "/healthz", .type = PLAIN, .make = health_page },
	{ .path = "/readyz", .type = PLAIN, .make = ready_page },
};

void metrics_count_reload(bool done)
{
	series_add(series_of(RELOADS, done ? "ok" : "failed"), 1);
}

void metrics_init(const struct metrics_state *s)
{
	BUG_ON(!s || !s->ready || !s->restarts || !s->conf || !s->phase || state);
	state = s;
	process_init();
	(void)series_of(RELOADS, "ok");
	(void)series_of(RELOADS, "failed");
	prometheus_init(s);
	status_init(s);
	http_init(pages, sizeof(pages) / sizeof(pages[0]));
}

int metrics_open(int fd)
{
	if (http_open(fd) < 0)
		return -1;
	status_start();
	return 0;
}

int metrics_move(int fd)
{
	http_close();
	status_stop();
	http_init(pages, sizeof(pages) / sizeof(pages[0]));
	return fd < 0 ? 0 : metrics_open(fd);
}

void metrics_close(void)
{
	if (!state)
		return;
	http_close();
	status_stop();
	process_fini();
	state = NULL;
}
