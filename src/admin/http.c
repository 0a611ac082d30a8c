/* A small HTTP server: visits to the metrics address. Owns its visits (one connection, one request each), nothing else. Whatever a visitor does, it costs at
 * most a head of 8 KiB, a piece of an answer and a minute, times a hundred. A long page is made in pieces, one a turn of the loop, so that who else lives on
 * the thread waits for a piece at most. What the pages say is not known here. */
#define _GNU_SOURCE
#include "mctunnel/admin/http.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_MAX 8192
#define VISITS_MAX 100
#define PATIENCE_MS 5000 /* for the request, and again for taking each piece of the answer */
#define VISIT_MS 60000   /* for all of it */
#define BREATHER_MS 100  /* without accepting, when descriptors or memory are used up */

struct visit {
	struct list node;
	struct conn *conn; /* owned */
	struct timer patience;
	uint64_t until_ms;
	char *answer; /* owned; the piece being sent; NULL: the request is not complete */
	size_t answer_len, sent;
	const struct http_page *page; /* of the job */
	void *job;                    /* owned; NULL: there are no more pieces */
	struct deferred again;        /* the next piece is to be made */
	bool chunked, shut;
	size_t head_len;
	char head[HEAD_MAX + 1];
};

static struct {
	const struct http_page *pages; /* borrowed; NULL before http_init */
	size_t pages_n;
	int listener; /* borrowed; -1: closed */
	struct watch watch;
	struct timer breather;
	struct list visits;
	unsigned visits_n;
} web = { .listener = -1 };

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

static void put_head(FILE *f, int status, const char *type, const char *policy)
{
	fprintf(f, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s", status, phrase(status), type, status == 405 ? "Allow: GET, HEAD\r\n" : "");
	fprintf(f, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
		   "Content-Security-Policy: %s\r\nConnection: close\r\n", policy ? policy : "default-src 'none'");
}

/* body: owned by the caller, may hold anything. The answer is NULL when there is no memory. */
static char *compose(int status, const struct http_page *p, const char *body, size_t body_len, bool head_only, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	if (!f)
		return NULL;
	put_head(f, status, p->type, p->policy ? p->policy() : NULL);
	fprintf(f, "Content-Length: %zu\r\n\r\n", body_len);
	if (!head_only)
		fwrite(body, 1, body_len, f);
	if (fclose(f) == 0)
		return text;
	free(text);
	return NULL;
}

static char *error_answer(int status, bool head_only, size_t *len)
{
	static const struct http_page plain = { .type = "text/plain; charset=utf-8" };

	return compose(status, &plain, phrase(status), strlen(phrase(status)), head_only, len);
}

static char *whole_answer(const struct http_page *p, bool head_only, size_t *len)
{
	char *body = NULL, *answer = NULL;
	size_t body_len;
	FILE *f = open_memstream(&body, &body_len);
	int status = f ? p->make(f) : 0;

	if (f && fclose(f) == 0)
		answer = compose(status, p, body, body_len, head_only, len);
	free(body);
	return answer;
}

/* The head; the pieces follow. To HTTP/1.0 the end of the connection is the end of the page. */
static char *long_answer(struct visit *v, const struct http_page *p, bool head_only, bool chunked, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	if (!f)
		return NULL;
	put_head(f, 200, p->type, NULL);
	fputs(chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n", f);
	if (fclose(f) == 0 && (head_only || (v->job = p->begin()))) {
		v->page = p;
		v->chunked = chunked;
		return text;
	}
	free(text);
	return NULL;
}

/* Instead of the piece before. false: no memory. */
static bool next_piece(struct visit *v)
{
	char *piece = NULL, size[24];
	size_t len;
	FILE *f = open_memstream(&piece, &len);
	bool more = f && v->page->more(v->job, f);

	free(v->answer);
	v->answer = NULL;
	v->sent = v->answer_len = 0;
	if (!f || fclose(f) != 0) {
		free(piece);
		return false;
	}
	if (!more) {
		v->page->end(v->job);
		v->job = NULL;
	}
	f = open_memstream(&v->answer, &v->answer_len);
	if (!f) {
		free(piece);
		return false;
	}
	snprintf(size, sizeof(size), "%zx\r\n", len);
	if (v->chunked && len > 0)
		fputs(size, f);
	fwrite(piece, 1, len, f);
	if (v->chunked)
		fprintf(f, "%s%s", len > 0 ? "\r\n" : "", more ? "" : "0\r\n\r\n");
	free(piece);
	return fclose(f) == 0;
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

static char *answer_to(struct visit *v, char *request_line, size_t *len)
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
	for (size_t i = 0; i < web.pages_n; i++) {
		const struct http_page *p = &web.pages[i];

		if (strcmp(path, p->path) == 0)
			return p->make ? whole_answer(p, head_only, len) : long_answer(v, p, head_only, version[7] == '1', len);
	}
	return error_answer(404, head_only, len);
}

/* Visits. */

static void look_for_visitors(void);

static void leave(struct visit *v, bool orderly)
{
	timer_stop(&v->patience);
	loop_undefer(&v->again);
	if (v->job)
		v->page->end(v->job);
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
	v->answer = status == 200 ? answer_to(v, v->head, &v->answer_len) : error_answer(status, false, &v->answer_len);
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
	if (v->job) {
		loop_defer(&v->again);
		return false;
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

static void on_again(struct deferred *d)
{
	struct visit *v = container_of(d, struct visit, again);

	if (clock_ms() > v->until_ms || !next_piece(v)) {
		leave(v, false);
		return;
	}
	timer_start(&v->patience, PATIENCE_MS);
	if (write_answer(v))
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
	deferred_init(&v->again, on_again);
	v->until_ms = clock_ms() + VISIT_MS;
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

void http_init(const struct http_page *pages, size_t n)
{
	BUG_ON(!pages || web.pages);
	web.pages = pages;
	web.pages_n = n;
	web.watch.fd = -1;
	list_init(&web.visits);
	timer_init(&web.breather, on_breather);
}

int http_open(int fd)
{
	BUG_ON(!web.pages || web.listener >= 0);
	if (loop_watch_listener(&web.watch, fd, on_listener) < 0)
		return -1;
	web.listener = fd;
	return 0;
}

void http_close(void)
{
	if (!web.pages)
		return;
	loop_unwatch(&web.watch);
	web.listener = -1;
	timer_stop(&web.breather);
	while (!list_empty(&web.visits))
		leave(list_first(&web.visits, struct visit, node), false);
	web.pages = NULL;
}
