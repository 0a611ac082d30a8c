/* The metrics address: a small HTTP server for Prometheus, for health checks and for whoever looks at / with a browser.
 * Owns its visits (one connection, one request each), nothing else: figures are read where they are kept, at the moment of the
 * request. Whatever a visitor does, it costs at most a head of 8 KiB, one answer and ten seconds, times a hundred.
 * Knows nothing of the worker but what metrics_state tells. */
#define _GNU_SOURCE
#include "mctunnel/admin/metrics.h"

#include "mctunnel/admin/vip.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/tunnel/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 8192
#define VISITS_MAX 100
#define PATIENCE_MS 5000 /* for the request, and again for taking the answer */
#define BREATHER_MS 100  /* without accepting, when descriptors or memory are used up */

struct visit {
	struct list node;
	struct conn *conn; /* owned */
	struct timer patience;
	char *answer; /* owned; NULL: the request is not complete */
	size_t answer_len, sent;
	bool shut;
	size_t head_len;
	char head[HEAD_MAX + 1];
};

static struct {
	const struct metrics_state *state;
	int listener; /* borrowed; -1: closed */
	struct watch watch;
	struct timer breather;
	struct list visits;
	unsigned visits_n;
	int statm; /* owned: /proc/self/statm, -1: none */
	DIR *fds;  /* owned: /proc/self/fd, or NULL */
	double started;
} web = { .listener = -1, .statm = -1 };

/* Figures of the process. */

static double wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* -1: cannot be known. */
static int64_t resident_bytes(void)
{
	char text[128], *rest;
	ssize_t n = web.statm < 0 ? -1 : pread(web.statm, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = '\0';
	(void)strtoull(text, &rest, 10); /* the whole size comes first */
	return (int64_t)strtoull(rest, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static int64_t open_descriptors(void)
{
	int64_t n = 0;

	if (!web.fds)
		return -1;
	rewinddir(web.fds);
	for (const struct dirent *e; (e = readdir(web.fds));)
		n += e->d_name[0] != '.';
	return n;
}

/* Prometheus text. */

static void put_escaped(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", f);
		else if (*text == '\\' || *text == '"')
			fprintf(f, "\\%c", *text);
		else
			fputc(*text, f);
	}
}

static void family(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(FILE *f, const char *name, int64_t value)
{
	fprintf(f, "%s %" PRId64 "\n", name, value);
}

static void gauge(FILE *f, const char *name, const char *help, int64_t value)
{
	if (value < 0)
		return;
	family(f, name, "gauge", help);
	sample(f, name, value);
}

static void labelled(FILE *f, const char *name, const char *label, const char *value, uint64_t n)
{
	fprintf(f, "%s{%s=\"", name, label);
	put_escaped(f, value);
	fprintf(f, "\"} %" PRIu64 "\n", n);
}

static void put_state(FILE *f)
{
	family(f, "mctunnel_build_info", "gauge", "The program's version; always 1");
	labelled(f, "mctunnel_build_info", "version", MCTUNNEL_VERSION, 1);
	gauge(f, "mctunnel_ready", "1 when new sessions are accepted, 0 when not", web.state->ready());
	gauge(f, "mctunnel_agents", "Agents with at least one link that is up", (int64_t)registry_agents());
	family(f, "mctunnel_vip_state", "gauge", "1 for the role that keepalived told last, 0 for the others");
	for (int s = 0; s < VIP_COUNT; s++)
		labelled(f, "mctunnel_vip_state", "state", vip_word((enum vip_state)s), vip_get() == (enum vip_state)s);
	family(f, "mctunnel_worker_restarts_total", "counter", "Times the master had to start a worker again");
	sample(f, "mctunnel_worker_restarts_total", (int64_t)web.state->restarts());
}

static void put_counters(FILE *f)
{
	for (int i = 0; i < STAT_COUNT; i++) {
		const struct stat_row *row = &stat_rows[i];

		family(f, row->name, row->type == STAT_COUNTER ? "counter" : "gauge", row->help);
		sample(f, row->name, stat_sum((enum stat_id)i));
	}
}

static void put_memory(FILE *f)
{
	struct mem_usage u;

	family(f, "mctunnel_memory_objects", "gauge", "Pooled objects in use");
	for (int kind = 0; kind < MEM_KIND_COUNT; kind++) {
		mem_usage((enum mem_kind)kind, &u);
		labelled(f, "mctunnel_memory_objects", "kind", u.name, u.used);
	}
	family(f, "mctunnel_memory_bytes", "gauge", "Memory of pooled objects in use");
	for (int kind = 0; kind < MEM_KIND_COUNT; kind++) {
		mem_usage((enum mem_kind)kind, &u);
		if (kind != MEM_OTHER) /* of many sizes */
			labelled(f, "mctunnel_memory_bytes", "kind", u.name, (uint64_t)u.used * u.size);
	}
}

static void put_process(FILE *f)
{
	struct rlimit r;

	family(f, "process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds");
	fprintf(f, "process_cpu_seconds_total %.6f\n", cpu_seconds());
	family(f, "process_start_time_seconds", "gauge", "Start time of the process since the Unix epoch in seconds");
	fprintf(f, "process_start_time_seconds %.3f\n", web.started);
	gauge(f, "process_resident_memory_bytes", "Resident memory size in bytes", resident_bytes());
	gauge(f, "process_open_fds", "Number of open file descriptors", open_descriptors());
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
		gauge(f, "process_max_fds", "Maximum number of open file descriptors", (int64_t)r.rlim_cur);
}

static int metrics_page(FILE *f)
{
	put_state(f);
	put_counters(f);
	put_memory(f);
	put_process(f);
	return 200;
}

/* The other pages. */

static int health_page(FILE *f)
{
	fputs("ok\n", f);
	return 200;
}

static int ready_page(FILE *f)
{
	bool ready = web.state->ready();

	fputs(ready ? "ready\n" : "not ready\n", f);
	return ready ? 200 : 503;
}

static void line(FILE *f, const char *what, int64_t value)
{
	fprintf(f, "<tr><th>%s<td>%" PRId64 "\n", what, value);
}

static int status_page(FILE *f)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>mctunnel</title>\n"
	      "<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\n"
	      "<style>body{font:1em sans-serif;margin:2em}th{text-align:left;font-weight:normal;padding-right:2em}"
	      "td{text-align:right}</style>\n", f);
	fprintf(f, "<h1>mctunnel " MCTUNNEL_VERSION "</h1>\n<p>%s\n<table>\n", web.state->ready() ? "ready" : "not ready");
	line(f, "up for, seconds", (int64_t)(wall_clock() - web.started));
	line(f, "agents", (int64_t)registry_agents());
	line(f, "links", stat_sum(STAT_LINKS));
	line(f, "sessions", stat_sum(STAT_SESSIONS));
	line(f, "sessions waiting for a link", stat_sum(STAT_SESSIONS_PARKED));
	line(f, "clients waiting for an agent", stat_sum(STAT_QUEUE));
	line(f, "sessions opened", stat_sum(STAT_SESSIONS_OPENED));
	line(f, "sessions resumed", stat_sum(STAT_SESSIONS_RESUMED));
	line(f, "sessions lost", stat_sum(STAT_SESSIONS_LOST));
	line(f, "bytes from clients", stat_sum(STAT_BYTES_UP));
	line(f, "bytes to clients", stat_sum(STAT_BYTES_DOWN));
	line(f, "restarts of the worker", (int64_t)web.state->restarts());
	if (resident_bytes() >= 0)
		line(f, "resident memory, KiB", resident_bytes() / 1024);
	fputs("</table>\n<p><a href=\"/metrics\">metrics</a> <a href=\"/healthz\">healthz</a> <a href=\"/readyz\">readyz</a>\n", f);
	return 200;
}

#define PLAIN "text/plain; charset=utf-8"

static const struct page {
	const char *path, *type;
	int (*make)(FILE *f); /* returns the status */
} pages[] = {
	{ "/", "text/html; charset=utf-8", status_page },
	{ "/metrics", "text/plain; version=0.0.4; charset=utf-8", metrics_page },
	{ "/healthz", PLAIN, health_page },
	{ "/readyz", PLAIN, ready_page },
};

/* HTTP. */

static const char *phrase(int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 431: return "Request Header Fields Too Large";
	case 503: return "Service Unavailable";
	case 505: return "HTTP Version Not Supported";
	}
	BUG_ON(true);
	return NULL;
}

/* body: owned by the caller, may hold anything. The answer is NULL when there is no memory. */
static char *compose(int status, const char *type, const char *body, size_t body_len, bool head_only, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	if (!f)
		return NULL;
	fprintf(f, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s", status, phrase(status), type, body_len,
		status == 405 ? "Allow: GET, HEAD\r\n" : "");
	fputs("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
	      "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nConnection: close\r\n\r\n", f);
	if (!head_only)
		fwrite(body, 1, body_len, f);
	if (fclose(f) == 0)
		return text;
	free(text);
	return NULL;
}

static char *error_answer(int status, bool head_only, size_t *len)
{
	return compose(status, PLAIN, phrase(status), strlen(phrase(status)), head_only, len);
}

static char *page_answer(const struct page *p, bool head_only, size_t *len)
{
	char *body = NULL, *answer = NULL;
	size_t body_len;
	FILE *f = open_memstream(&body, &body_len);
	int status = f ? p->make(f) : 0;

	if (f && fclose(f) == 0)
		answer = compose(status, p->type, body, body_len, head_only, len);
	free(body);
	return answer;
}

/* Cuts the next word off a request line. */
static char *word(char **rest)
{
	char *start = *rest, *end = start + strcspn(start, " ");

	*rest = *end ? end + 1 : end;
	*end = '\0';
	return start;
}

/* The path alone: without a query, and without scheme and host (RFC 9112 section 3.2.2). */
static const char *path_of(char *target)
{
	target[strcspn(target, "?")] = '\0';
	if (strncasecmp(target, "http://", 7) != 0)
		return target;
	target = strchr(target + 7, '/');
	return target ? target : "/";
}

static char *answer_to(char *request_line, size_t *len)
{
	const char *method = word(&request_line);
	char *target = word(&request_line);
	const char *version = word(&request_line), *path;
	bool head_only = strcmp(method, "HEAD") == 0;

	if (!*method || !*target || strncmp(version, "HTTP/", 5) != 0 || *request_line)
		return error_answer(400, false, len);
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
		return error_answer(505, head_only, len);
	if (!head_only && strcmp(method, "GET") != 0)
		return error_answer(405, false, len);
	path = path_of(target);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		if (strcmp(path, pages[i].path) == 0)
			return page_answer(&pages[i], head_only, len);
	return error_answer(404, head_only, len);
}

/* Visits. */

static void look_for_visitors(void);

static void leave(struct visit *v, bool orderly)
{
	timer_stop(&v->patience);
	list_del(&v->node);
	if (orderly)
		conn_close(v->conn);
	else
		conn_abort(v->conn);
	free(v->answer);
	mem_put(MEM_OTHER, v);
	web.visits_n--;
	look_for_visitors();
}

static void on_patience(struct timer *t)
{
	struct visit *v = container_of(t, struct visit, patience);

	leave(v, v->shut);
}

/* Is the head complete? A bare LF ends a line too; only what is new is looked at. */
static bool head_complete(const struct visit *v, size_t before)
{
	const char *from = v->head + (before > 3 ? before - 3 : 0);
	size_t len = (size_t)(v->head + v->head_len - from);

	return memmem(from, len, "\n\r\n", 3) || memmem(from, len, "\n\n", 2);
}

/* False when the visit is over. */
static bool answer(struct visit *v, bool complete)
{
	char *end = v->head + strcspn(v->head, "\r\n");
	int status = !complete ? 431 : !*end ? 400 : 200;

	*end = '\0'; /* of the request line; a NUL within it was one too many */
	v->answer = status == 200 ? answer_to(v->head, &v->answer_len) : error_answer(status, false, &v->answer_len);
	if (!v->answer) {
		leave(v, false);
		return false;
	}
	timer_start(&v->patience, PATIENCE_MS);
	return true;
}

static bool read_head(struct visit *v)
{
	while (!v->answer) {
		struct iovec iov = { v->head + v->head_len, HEAD_MAX - v->head_len };
		size_t before = v->head_len;
		ssize_t n = v->conn->readable ? conn_readv(v->conn, &iov, 1) : CONN_AGAIN;

		if (n == CONN_AGAIN)
			return false;
		if (n <= 0) {
			leave(v, n == 0);
			return false;
		}
		v->head_len += (size_t)n;
		v->head[v->head_len] = '\0';
		bool complete = head_complete(v, before);
		if ((complete || v->head_len == HEAD_MAX) && !answer(v, complete))
			return false;
	}
	return true;
}

static bool write_answer(struct visit *v)
{
	while (v->sent < v->answer_len) {
		struct iovec iov = { v->answer + v->sent, v->answer_len - v->sent };
		ssize_t n = v->conn->writable ? conn_writev(v->conn, &iov, 1) : CONN_AGAIN;

		if (n == CONN_AGAIN)
			return false;
		if (n == CONN_FAILED) {
			leave(v, false);
			return false;
		}
		v->sent += (size_t)n;
	}
	if (v->shut || conn_shut(v->conn) == 0) {
		v->shut = true;
		return true;
	}
	leave(v, false);
	return false;
}

/* What still comes is thrown away until the visitor has closed: closing first could make a RST of the answer. */
static void wait_for_goodbye(struct visit *v)
{
	struct iovec iov = { v->head, HEAD_MAX };
	ssize_t n = 1;

	for (int reads = 0; n > 0 && reads < 16 && v->conn->readable; reads++)
		n = conn_readv(v->conn, &iov, 1);
	if (n == 0 || n == CONN_FAILED || v->conn->readable) /* gone, or it sends and sends */
		leave(v, n == 0);
}

static void on_event(struct conn *c)
{
	struct visit *v = c->owner;

	if (read_head(v) && write_answer(v))
		wait_for_goodbye(v);
}

/* Returns false when there is nobody, or no room. */
static bool admit(void)
{
	struct visit *v;
	int fd = sock_accept(web.listener, NULL, NULL);

	if (fd < 0 && errno != EAGAIN)
		timer_start(&web.breather, BREATHER_MS);
	if (fd < 0)
		return false;
	v = mem_get(MEM_OTHER, sizeof(*v));
	if (v)
		v->conn = conn_tcp(fd, on_event, v);
	if (!v || !v->conn) {
		mem_put(MEM_OTHER, v);
		close(fd);
		timer_start(&web.breather, BREATHER_MS);
		return false;
	}
	timer_init(&v->patience, on_patience);
	timer_start(&v->patience, PATIENCE_MS);
	list_add(&web.visits, &v->node);
	web.visits_n++;
	return true;
}

static void on_listener(struct watch *w, unsigned events)
{
	while (web.visits_n < VISITS_MAX && admit())
		;
	if (web.visits_n >= VISITS_MAX || timer_running(&web.breather))
		loop_unwatch(&web.watch);
}

/* Watches the listener again when it was left alone and there is room. */
static void look_for_visitors(void)
{
	if (web.listener < 0 || web.watch.fd >= 0 || web.visits_n >= VISITS_MAX || timer_running(&web.breather))
		return;
	if (loop_watch_listener(&web.watch, web.listener, on_listener) < 0)
		timer_start(&web.breather, BREATHER_MS);
}

static void on_breather(struct timer *t)
{
	look_for_visitors();
}

void metrics_init(const struct metrics_state *state)
{
	BUG_ON(!state || !state->ready || !state->restarts || web.state);
	web.state = state;
	web.watch.fd = -1;
	web.started = wall_clock();
	web.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	web.fds = opendir("/proc/self/fd");
	list_init(&web.visits);
	timer_init(&web.breather, on_breather);
}

int metrics_open(int fd)
{
	BUG_ON(!web.state || web.listener >= 0);
	if (loop_watch_listener(&web.watch, fd, on_listener) < 0)
		return -1;
	web.listener = fd;
	return 0;
}

void metrics_close(void)
{
	if (!web.state)
		return;
	loop_unwatch(&web.watch);
	web.listener = -1;
	timer_stop(&web.breather);
	while (!list_empty(&web.visits))
		leave(list_first(&web.visits, struct visit, node), false);
	if (web.statm >= 0)
		close(web.statm);
	if (web.fds)
		closedir(web.fds);
	web.statm = -1;
	web.fds = NULL;
	web.state = NULL;
}
