/* A small HTTP server: visits to the metrics address. Owns its visits (one connection, one request each), nothing else. Whatever a visitor does, it costs at
 * most a head of 8 KiB, a piece of an answer and a minute, times a hundred. A long page is made in pieces, one a turn of the loop, so that who else lives on
 * the thread waits for a piece at most. What the pages say is not known here. */
#define _GNU_SOURCE
#include "mctunnel/admin/http.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/text.h"
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
#define SIZE_ROOM 10     /* of a chunk: eight digits and an end of line */
#define BREATHER_MS 100  /* without accepting, when descriptors or memory are used up */

struct visit {
	struct list node;
	struct conn *conn; /* owned */
	struct timer patience;
	uint64_t until_ms;
	struct text answer; /* the piece being sent; NULL: the request is not complete */
	size_t sent;
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
	bool early;   /* see sock_accept() */
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

/* Of what makes an answer: false: no memory. */
static bool compose(struct visit *v, int status, const struct http_page *p, const struct text *body, bool head_only)
{
	FILE *f = text_open(&v->answer);

	if (!f)
		return false;
	put_head(f, status, p->type, p->policy ? p->policy() : NULL);
	fprintf(f, "Content-Length: %zu\r\n\r\n", body->len);
	if (!head_only)
		fwrite(body->v, 1, body->len, f);
	return text_close(&v->answer, f);
}

static bool error_answer(struct visit *v, int status, bool head_only)
{
	static const struct http_page plain = { .type = "text/plain; charset=utf-8" };
	const char *words = phrase(status);

	return compose(v, status, &plain, &(struct text){ .v = (char *)(uintptr_t)words, .len = strlen(words) }, head_only);
}

static bool whole_answer(struct visit *v, const struct http_page *p, bool head_only)
{
	struct text body;
	FILE *f = text_open(&body);
	int status = f ? p->make(f) : 0;
	bool ok = text_close(&body, f) && status > 0 && compose(v, status, p, &body, head_only);

	free(body.v);
	return ok;
}

/* The head; the pieces follow. To HTTP/1.0 the end of the connection is the end of the page. */
static bool long_answer(struct visit *v, const struct http_page *p, bool head_only, bool chunked)
{
	FILE *f = text_open(&v->answer);

	if (!f)
		return false;
	put_head(f, 200, p->type, NULL);
	fputs(chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n", f);
	v->page = p;
	v->chunked = chunked;
	return text_close(&v->answer, f) && (head_only || (v->job = p->begin()));
}

/* Instead of the piece before. false: no memory. The size of a chunk is told before it, and known behind it: it has its place. */
static bool next_piece(struct visit *v)
{
	char size[SIZE_ROOM + 1];
	size_t room = v->chunked ? SIZE_ROOM : 0, len;
	bool more;
	FILE *f;

	free(v->answer.v);
	v->sent = 0;
	f = text_open(&v->answer);
	if (!f)
		return false;
	fprintf(f, "%*s", (int)room, "");
	more = v->page->more(v->job, f);
	len = text_size(&v->answer, f) - room;
	if (v->chunked)
		fprintf(f, "%s%s", len > 0 ? "\r\n" : "", more ? "" : "0\r\n\r\n");
	if (!text_close(&v->answer, f))
		return false;
	if (len == 0)
		v->sent = room; /* a chunk of none would be the last */
	else if (room)
		memcpy(v->answer.v, size, (size_t)snprintf(size, sizeof(size), "%08zx\r\n", len));
	if (!more) {
		v->page->end(v->job);
		v->job = NULL;
	}
	return true;
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

static bool answer_to(struct visit *v, char *request_line)
{
	const char *method = word(&request_line);
	char *target = word(&request_line);
	const char *version = word(&request_line), *path;
	bool head_only = strcmp(method, "HEAD") == 0;

	if (!*method || !*target || strncmp(version, "HTTP/", 5) != 0 || *request_line)
		return error_answer(v, 400, false);
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
		return error_answer(v, 505, head_only);
	if (!head_only && strcmp(method, "GET") != 0)
		return error_answer(v, 405, false);
	path = path_of(target);
	for (size_t i = 0; i < web.pages_n; i++) {
		const struct http_page *p = &web.pages[i];

		if (strcmp(path, p->path) == 0)
			return p->make ? whole_answer(v, p, head_only) : long_answer(v, p, head_only, version[7] == '1');
	}
	return error_answer(v, 404, head_only);
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
	free(v->answer.v);
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
	if (!(status == 200 ? answer_to(v, v->head) : error_answer(v, status, false))) {
		leave(v, false);
		return false;
	}
	timer_start(&v->patience, PATIENCE_MS);
	return true;
}

static bool read_head(struct visit *v)
{
	while (!v->answer.v) {
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
	while (v->sent < v->answer.len) {
		struct iovec iov = { v->answer.v + v->sent, v->answer.len - v->sent };
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
	int fd = sock_accept(web.listener, NULL, &web.early);

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
	sock_bequeath(fd);
	web.early = true;
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
