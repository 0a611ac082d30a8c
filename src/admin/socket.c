/* The connections of the admin sockets: lines in, answers out, one command of a client at a time.
 * Owns the clients and what they have sent; an answer is asked for its next piece only when the client has taken the one before.
 * Whatever a client does, it costs a line of 4 KiB and one piece, times 256.
 * Does not know any command (commands.c). */
#define _GNU_SOURCE
#include "mctunnel/admin/socket.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/admin/commands.h"
#include "mctunnel/admin/show.h"
#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_SIZE 4096
#define CLIENTS_MAX 256
#define PATIENCE_MS 10000
#define BREATHER_MS 100 /* without accepting, when descriptors or memory are used up */

static const char prompt_text[] = "\n> ";

struct door { /* a listening socket */
	struct list node;
	int level;
	char name[ADDR_TEXT];
	struct watch watch;
	int fd; /* borrowed */
};

struct client {
	struct list node;
	struct conn *conn; /* owned */
	struct asker asker;
	struct timer patience;
	struct answer *answer;       /* owned; NULL: none under way */
	bool there;                  /* the answer's piece is, and is being written */
	const char *text;            /* borrowed: what is being written */
	size_t left;                 /* of it */
	char *rest;                  /* of the line whose commands are being answered; NULL: none is */
	bool interactive, leaving;   /* leaving: closed when all is written */
	bool shut;                   /* nothing more to write: its end is awaited */
	bool ended;                  /* it has ended its direction */
	size_t line_len, line_used;  /* bytes in line; of these, those of the line being answered */
	char line[LINE_SIZE];
};

static struct {
	const struct admin_state *state;
	struct list doors, clients;
	unsigned clients_n;
	struct timer breather;
} admin;

static void work(struct client *cl);
static void look_for_clients(void);

/* ---- the end ---- */

static void leave(struct client *cl, bool orderly)
{
	timer_stop(&cl->patience);
	list_del(&cl->node);
	answer_drop(cl->answer);
	if (orderly)
		conn_close(cl->conn);
	else
		conn_abort(cl->conn);
	mem_put(MEM_OTHER, cl);
	admin.clients_n--;
	look_for_clients();
}

static void on_patience(struct timer *t)
{
	struct client *cl = container_of(t, struct client, patience);

	leave(cl, cl->shut);
}

/* It is the client's turn, to send or to take something. Who thinks at a prompt has time. */
static void wait_for_client(struct client *cl)
{
	if (cl->interactive && !cl->left && !cl->shut)
		timer_stop(&cl->patience);
	else if (!timer_running(&cl->patience))
		timer_start(&cl->patience, PATIENCE_MS);
}

/* ---- output ---- */

static void say(struct client *cl, const char *text, size_t len)
{
	cl->text = text;
	cl->left = len;
}

/* true when all is written. */
static bool write_out(struct client *cl)
{
	while (cl->left > 0) {
		struct iovec iov = { (void *)(uintptr_t)cl->text, cl->left };
		ssize_t n = cl->conn->writable ? conn_writev(cl->conn, &iov, 1) : CONN_AGAIN;

		if (n == CONN_AGAIN) {
			wait_for_client(cl);
			return false;
		}
		if (n == CONN_FAILED) {
			leave(cl, false);
			return false;
		}
		timer_stop(&cl->patience);
		cl->text += n;
		cl->left -= (size_t)n;
	}
	return true;
}

/* ---- commands ---- */

static void apply(struct client *cl, enum effect effect)
{
	switch (effect) {
	case EFFECT_NONE: break;
	case EFFECT_PROMPT: cl->interactive = true; break;
	case EFFECT_QUIT: cl->leaving = true; break;
	case EFFECT_NUMBERS: cl->asker.numbers = true; break;
	case EFFECT_PLAIN: cl->asker.numbers = false; break;
	}
}

static void answer_over(struct client *cl)
{
	apply(cl, cl->answer->effect);
	cl->leaving |= cl->answer->broken;
	answer_drop(cl->answer);
	cl->answer = NULL;
	cl->there = false;
}

static void on_more(void *owner)
{
	struct client *cl = owner;

	cl->there = true;
	say(cl, cl->answer->text.v, cl->answer->text.len);
	work(cl);
}

/* Goes on with the answer. false: it is on its way, or the client must take something first, or it is gone. */
static bool go_on(struct client *cl)
{
	while (cl->answer) {
		if (!cl->there) {
			timer_stop(&cl->patience);
			cl->there = answer_more(cl->answer);
			if (!cl->there)
				return false;
			say(cl, cl->answer->text.v, cl->answer->text.len);
		}
		if (!write_out(cl))
			return false;
		if (cl->answer->done)
			answer_over(cl);
		else
			cl->there = false;
	}
	return true;
}

static void ask(struct client *cl, const char *command)
{
	cl->answer = commands_ask(&cl->asker, command, on_more, cl);
	cl->leaving |= !cl->answer;
}

static void refuse(struct client *cl, const char *sentence)
{
	cl->answer = commands_refuse(&cl->asker, sentence, on_more, cl);
	cl->rest = NULL;
	cl->leaving = true;
}

/* The next command of the line; false: there is none. */
static bool next_command(struct client *cl)
{
	while (cl->rest && !cl->leaving) {
		char *command = commands_cut(&cl->rest);

		if (!command) {
			cl->rest = NULL;
			return false;
		}
		if (command[strspn(command, " \t")]) {
			ask(cl, command);
			return true;
		}
	}
	return false;
}

/* ---- input ---- */

static bool has_control(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 0x7f)
			return true;
	}
	return false;
}

/* A line is there: its commands come next. */
static void take_line(struct client *cl, size_t len)
{
	char *line = cl->line;

	cl->line_used = len + 1;
	if (len > 0 && line[len - 1] == '\r')
		len--;
	line[len] = '\0';
	cl->rest = line;
	if (has_control(line, len))
		refuse(cl, "There are control characters in the line.");
}

static void line_done(struct client *cl)
{
	memmove(cl->line, cl->line + cl->line_used, cl->line_len - cl->line_used);
	cl->line_len -= cl->line_used;
	cl->line_used = 0;
	cl->rest = NULL;
}

/* What is left behind the last line feed is a line too when there will be no more. */
static bool find_line(struct client *cl)
{
	char *end = memchr(cl->line, '\n', cl->line_len);

	if (!end && cl->ended && cl->line_len > 0 && cl->line_len < LINE_SIZE) {
		end = cl->line + cl->line_len++;
		*end = '\n';
	}
	if (end)
		take_line(cl, (size_t)(end - cl->line));
	else if (cl->line_len == LINE_SIZE)
		refuse(cl, "The line is too long: at most 4095 bytes.");
	return end || cl->leaving;
}

/* false: nothing now, or the client is gone. */
static bool read_in(struct client *cl)
{
	struct iovec iov = { cl->line + cl->line_len, LINE_SIZE - cl->line_len };
	ssize_t n = cl->conn->readable && iov.iov_len ? conn_readv(cl->conn, &iov, 1) : CONN_AGAIN;

	if (n == CONN_FAILED) {
		leave(cl, false);
		return false;
	}
	if (n == CONN_AGAIN) {
		wait_for_client(cl);
		return false;
	}
	timer_stop(&cl->patience);
	cl->ended = n == 0;
	cl->line_len += (size_t)n;
	return true;
}

/* false: there is none yet. */
static bool await_line(struct client *cl)
{
	while (!find_line(cl)) {
		if (cl->ended) {
			cl->leaving = true;
			return true;
		}
		if (!read_in(cl))
			return false;
	}
	return true;
}

/* What still comes is thrown away until the client has closed, so that it reads its answer before it learns that we are gone. */
static void wait_for_goodbye(struct client *cl)
{
	struct iovec iov = { cl->line, LINE_SIZE };
	ssize_t n = 1;

	if (!cl->shut && conn_shut(cl->conn) != 0) {
		leave(cl, false);
		return;
	}
	cl->shut = true;
	for (int reads = 0; n > 0 && reads < 512 && cl->conn->readable; reads++)
		n = conn_readv(cl->conn, &iov, 1);
	if (cl->ended || n == 0 || n == CONN_FAILED || cl->conn->readable)
		leave(cl, n != CONN_FAILED);
	else
		wait_for_client(cl);
}

/* ---- a client ---- */

/* Between lines. */
static void line_over(struct client *cl)
{
	line_done(cl);
	if (!cl->interactive)
		cl->leaving = true;
	else if (!cl->leaving)
		say(cl, prompt_text, sizeof(prompt_text) - 1);
}

/* As far as it goes now; the client may be gone afterwards. */
static void work(struct client *cl)
{
	while (go_on(cl)) {
		if (!write_out(cl))
			return;
		if (cl->leaving) {
			wait_for_goodbye(cl);
			return;
		}
		if (next_command(cl))
			continue;
		if (cl->line_used)
			line_over(cl);
		else if (!await_line(cl))
			return;
	}
}

/* Also while an answer is on its way: who has hung up needs none. */
static void on_event(struct conn *c)
{
	struct client *cl = c->owner;

	if (cl->shut)
		wait_for_goodbye(cl);
	else if (cl->answer && !cl->there && c->hup)
		leave(cl, false);
	else if (!cl->answer || cl->there)
		work(cl);
}

static void identify(struct client *cl, const struct door *d, const struct addr *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct asker *k = &cl->asker;

	k->state = admin.state;
	k->level = d->level;
	k->uid = k->pid = -1;
	str_copy(k->where, sizeof(k->where), d->name);
	addr_text(peer, k->who, sizeof(k->who));
	if (getsockopt(cl->conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid > 0) {
		k->uid = cred.uid;
		k->pid = cred.pid;
	}
}

/* false when there is nobody, or no room. */
static bool admit(struct door *d)
{
	struct addr peer;
	struct client *cl;
	int fd = sock_accept(d->fd, &peer, NULL);

	if (fd < 0 && errno != EAGAIN)
		timer_start(&admin.breather, BREATHER_MS);
	if (fd < 0)
		return false;
	cl = mem_get(MEM_OTHER, sizeof(*cl));
	if (cl)
		cl->conn = conn_tcp(fd, on_event, cl);
	if (!cl || !cl->conn) {
		mem_put(MEM_OTHER, cl);
		close(fd);
		timer_start(&admin.breather, BREATHER_MS);
		return false;
	}
	timer_init(&cl->patience, on_patience);
	timer_start(&cl->patience, PATIENCE_MS);
	identify(cl, d, &peer);
	list_add(&admin.clients, &cl->node);
	admin.clients_n++;
	return true;
}

static void close_doors(void)
{
	list_for_each(n, &admin.doors)
		loop_unwatch(&container_of(n, struct door, node)->watch);
}

static void on_door(struct watch *w, unsigned events)
{
	struct door *d = container_of(w, struct door, watch);

	while (admin.clients_n < CLIENTS_MAX && admit(d))
		;
	if (admin.clients_n >= CLIENTS_MAX || timer_running(&admin.breather))
		close_doors();
}

/* Opens the doors again when they were closed and there is room. */
static void look_for_clients(void)
{
	if (!admin.state || admin.clients_n >= CLIENTS_MAX || timer_running(&admin.breather))
		return;
	list_for_each(n, &admin.doors) {
		struct door *d = container_of(n, struct door, node);

		if (d->watch.fd < 0 && loop_watch_listener(&d->watch, d->fd, on_door) < 0)
			timer_start(&admin.breather, BREATHER_MS);
	}
}

static void on_breather(struct timer *t)
{
	look_for_clients();
}

void admin_init(const struct admin_state *state)
{
	BUG_ON(admin.state);
	admin.state = state;
	admin.clients_n = 0;
	list_init(&admin.doors);
	list_init(&admin.clients);
	timer_init(&admin.breather, on_breather);
	show_clear();
}

int admin_open(const struct conf_admin *c, int fd)
{
	struct door *d = xcalloc(1, sizeof(*d));

	BUG_ON(!admin.state);
	d->level = c->level;
	str_copy(d->name, sizeof(d->name), c->bind.text);
	d->fd = fd;
	if (loop_watch_listener(&d->watch, fd, on_door) < 0) {
		free(d);
		return -1;
	}
	list_add(&admin.doors, &d->node);
	return 0;
}

void admin_close(void)
{
	if (!admin.state)
		return;
	close_doors();
	list_for_each_safe(n, &admin.doors) {
		list_del(n);
		free(container_of(n, struct door, node));
	}
	while (!list_empty(&admin.clients))
		leave(list_first(&admin.clients, struct client, node), false);
	timer_stop(&admin.breather);
	admin.state = NULL;
}
