/* A TCP relay for tests, put between an agent and a hub: it carries bytes until it is told to do harm.
 * Usage: relay LISTEN-IP UPSTREAM-IP:PORT. Prints "listening IP:PORT", then obeys lines on stdin and answers each with "ok ...":
 *   cut rst|fin   ends every connection      freeze [new]  stops forwarding, silently; "new": for later connections too
 *   cut one       resets one, the next one each time
 *   thaw          forwards again             pause/resume  leaves new connections in the kernel's queue
 *   reject on|off resets new connections     delay MS      holds bytes back in each direction
 *   split N       writes pieces of 1..N      stats         connections now, accepted in all, bytes carried
 * Ends with its stdin. One thread, edge-triggered epoll; owns everything it opens. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 256 << 10, SEGMENTS = 1024, TURNS = 8 };

struct segment {
	uint64_t due_us;
	size_t len;
};

/* One direction: bytes read at one end, to be written at the other. */
struct flow {
	char *buf;
	size_t head, len;
	struct segment seg[SEGMENTS];
	unsigned seg_head, seg_n;
	bool eof, shut;
};

struct pair {
	struct pair *next;
	int fd[2]; /* agent's side, hub's side */
	struct flow flow[2];
	bool connected, frozen, again, dead;
};

static struct {
	int epoll, listener;
	struct sockaddr_in upstream;
	struct pair *pairs;
	uint64_t now_us, bytes, accepted, delay_us;
	size_t split;
	bool freeze_new, reject;
} relay;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void read_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	relay.now_us = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void watch(int fd, void *arg, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = arg };

	if (epoll_ctl(relay.epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
		die("epoll_ctl");
}

static void set_linger(int fd, bool reset)
{
	struct linger l = { .l_onoff = reset, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static void end_pair(struct pair *p, bool reset)
{
	if (p->dead)
		return;
	p->dead = true;
	for (int i = 0; i < 2; i++) {
		set_linger(p->fd[i], reset);
		close(p->fd[i]);
	}
}

static int ring_parts(struct iovec iov[2], char *buf, size_t from, size_t len)
{
	size_t first = BUFFER - from < len ? BUFFER - from : len;

	iov[0] = (struct iovec){ buf + from, first };
	iov[1] = (struct iovec){ buf, len - first };
	return len > first ? 2 : 1;
}

/* Returns whether anything came; an error is in errno, which is EAGAIN when there is none. */
static bool take(struct flow *f, int fd)
{
	struct iovec iov[2];
	ssize_t n;

	errno = EAGAIN;
	if (f->eof || f->len == BUFFER || f->seg_n == SEGMENTS)
		return false;
	n = readv(fd, iov, ring_parts(iov, f->buf, (f->head + f->len) % BUFFER, BUFFER - f->len));
	if (n > 0) {
		f->seg[(f->seg_head + f->seg_n++) % SEGMENTS] = (struct segment){ relay.now_us + relay.delay_us, (size_t)n };
		f->len += (size_t)n;
	}
	f->eof = n == 0;
	if (n >= 0)
		errno = EAGAIN;
	return n >= 0;
}

static size_t due_bytes(const struct flow *f)
{
	size_t due = 0;

	for (unsigned i = 0; i < f->seg_n; i++) {
		const struct segment *s = &f->seg[(f->seg_head + i) % SEGMENTS];

		if (s->due_us > relay.now_us)
			break;
		due += s->len;
	}
	if (relay.split && due > 1) {
		size_t piece = 1 + (size_t)rand() % relay.split;

		due = due < piece ? due : piece;
	}
	return due;
}

static void written(struct flow *f, size_t n)
{
	f->head = (f->head + n) % BUFFER;
	f->len -= n;
	relay.bytes += n;
	while (n) {
		struct segment *s = &f->seg[f->seg_head];
		size_t part = s->len < n ? s->len : n;

		s->len -= part;
		n -= part;
		if (s->len)
			break;
		f->seg_head = (f->seg_head + 1) % SEGMENTS;
		f->seg_n--;
	}
}

static bool give(struct flow *f, int fd)
{
	struct iovec iov[2];
	size_t due = due_bytes(f);
	ssize_t n;

	errno = EAGAIN;
	if (f->len == 0 && f->eof && !f->shut) {
		f->shut = true;
		shutdown(fd, SHUT_WR);
		errno = EAGAIN;
		return true;
	}
	if (due == 0)
		return false;
	n = writev(fd, iov, ring_parts(iov, f->buf, f->head, due));
	if (n <= 0)
		return false;
	written(f, (size_t)n);
	errno = EAGAIN;
	return true;
}

/* Returns whether anything moved; ends the pair when either end has failed. */
static bool pump_flow(struct pair *p, int from)
{
	bool took = take(&p->flow[from], p->fd[from]), gave;
	int failed = errno == EAGAIN ? 0 : errno;

	gave = give(&p->flow[from], p->fd[!from]);
	if (failed || errno != EAGAIN) {
		end_pair(p, true);
		return false;
	}
	return took || gave;
}

/* Moves what can be moved, a few turns at most, so that no pair starves the others. */
static void pump(struct pair *p)
{
	bool moved = true;

	p->again = false;
	if (p->frozen || !p->connected)
		return;
	for (int turn = 0; turn < TURNS && moved && !p->dead; turn++) {
		moved = pump_flow(p, 0);
		if (!p->dead)
			moved |= pump_flow(p, 1);
		if (!p->dead && p->flow[0].shut && p->flow[1].shut)
			end_pair(p, false);
	}
	p->again = moved && !p->dead;
}

static void finish_connecting(struct pair *p)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(int), peer_len = sizeof(peer);
	int failed = 0;

	getsockopt(p->fd[1], SOL_SOCKET, SO_ERROR, &failed, &len);
	if (failed)
		end_pair(p, true);
	else
		p->connected = getpeername(p->fd[1], (struct sockaddr *)&peer, &peer_len) == 0;
}

static void on_pair(struct pair *p)
{
	if (!p->dead && !p->connected)
		finish_connecting(p);
	if (!p->dead)
		pump(p);
}

static void open_pair(int client)
{
	struct pair *p = calloc(1, sizeof(*p));
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (!p || fd < 0)
		die("socket");
	if (connect(fd, (struct sockaddr *)&relay.upstream, sizeof(relay.upstream)) != 0 && errno != EINPROGRESS) {
		set_linger(client, true);
		close(client);
		close(fd);
		free(p);
		return;
	}
	p->fd[0] = client;
	p->fd[1] = fd;
	p->frozen = relay.freeze_new;
	p->next = relay.pairs;
	relay.pairs = p;
	for (int i = 0; i < 2; i++) {
		setsockopt(p->fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (!(p->flow[i].buf = malloc(BUFFER)))
			die("malloc");
		watch(p->fd[i], p, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	}
}

static void on_listener(void)
{
	int fd = accept4(relay.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	relay.accepted++;
	if (relay.reject) {
		set_linger(fd, true);
		close(fd);
		return;
	}
	open_pair(fd);
}

static unsigned cut(bool reset)
{
	unsigned n = 0;

	for (struct pair *p = relay.pairs; p; p = p->next, n++)
		end_pair(p, reset);
	return n;
}

/* The newest are first in the list: counting from there, each is met in turn. */
static unsigned cut_one(void)
{
	static unsigned turns;
	unsigned skip = 0;

	for (struct pair *p = relay.pairs; p; p = p->next)
		skip += !p->dead;
	if (skip == 0)
		return 0;
	skip = turns++ % skip;
	for (struct pair *p = relay.pairs; p; p = p->next) {
		if (!p->dead && skip-- == 0) {
			end_pair(p, true);
			return 1;
		}
	}
	return 0;
}

static unsigned freeze(bool on)
{
	unsigned n = 0;

	for (struct pair *p = relay.pairs; p; p = p->next, n++) {
		p->frozen = on;
		p->again = true;
	}
	return n;
}

static unsigned count(void)
{
	unsigned n = 0;

	for (struct pair *p = relay.pairs; p; p = p->next)
		n += !p->dead;
	return n;
}

static void accepting(bool on)
{
	struct epoll_event ev = { .events = on ? EPOLLIN : 0, .data.ptr = &relay.listener };

	epoll_ctl(relay.epoll, EPOLL_CTL_MOD, relay.listener, &ev);
}

static unsigned obey(const char *line)
{
	unsigned n = 0;

	if (sscanf(line, "delay %u", &n) == 1)
		relay.delay_us = (uint64_t)n * 1000;
	else if (sscanf(line, "split %u", &n) == 1)
		relay.split = n;
	else if (!strcmp(line, "cut one"))
		n = cut_one();
	else if (!strncmp(line, "cut ", 4))
		n = cut(!strcmp(line, "cut rst"));
	else if (!strcmp(line, "freeze") || !strcmp(line, "freeze new"))
		n = freeze(true), relay.freeze_new = line[6] != '\0';
	else if (!strcmp(line, "thaw"))
		n = freeze(false), relay.freeze_new = false;
	else if (!strcmp(line, "pause") || !strcmp(line, "resume"))
		accepting(line[0] == 'r');
	else if (!strncmp(line, "reject ", 7))
		relay.reject = !strcmp(line, "reject on");
	else if (strcmp(line, "stats"))
		fprintf(stderr, "relay: what is \"%s\"?\n", line), exit(1);
	return n;
}

static void on_stdin(void)
{
	static char line[256];
	static size_t len;
	ssize_t n = read(0, line + len, sizeof(line) - 1 - len);
	char *end;

	if (n <= 0)
		exit(0);
	len += (size_t)n;
	line[len] = '\0';
	while ((end = memchr(line, '\n', len))) {
		*end++ = '\0';
		printf("ok %u", obey(line));
		printf(" %u %llu %llu\n", count(), (unsigned long long)relay.accepted, (unsigned long long)relay.bytes);
		fflush(stdout);
		len -= (size_t)(end - line);
		memmove(line, end, len + 1);
	}
}

/* What died in this turn; those that want another turn get it. Returns whether someone does. */
static bool reap(void)
{
	bool again = false;

	for (struct pair **at = &relay.pairs, *p; (p = *at);) {
		if (!p->dead && (p->again || relay.delay_us || relay.split))
			pump(p);
		again |= p->again;
		if (p->dead) {
			*at = p->next;
			free(p->flow[0].buf);
			free(p->flow[1].buf);
			free(p);
		} else {
			at = &p->next;
		}
	}
	return again;
}

static void listen_on(const char *ip)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);

	relay.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (inet_pton(AF_INET, ip, &at.sin_addr) != 1 || bind(relay.listener, (struct sockaddr *)&at, len) != 0 ||
	    listen(relay.listener, 4096) != 0 || getsockname(relay.listener, (struct sockaddr *)&at, &len) != 0)
		die(ip);
	printf("listening %s:%u\n", ip, ntohs(at.sin_port));
	fflush(stdout);
}

static void parse_upstream(char *text)
{
	char *colon = strrchr(text, ':');

	if (!colon)
		die(text);
	*colon = '\0';
	relay.upstream.sin_family = AF_INET;
	relay.upstream.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, text, &relay.upstream.sin_addr) != 1)
		die(text);
}

static void turn(bool again)
{
	struct epoll_event ev[64];
	bool timed = relay.delay_us || relay.split;
	int n = epoll_wait(relay.epoll, ev, 64, again ? 0 : timed ? 1 : -1);

	read_clock();
	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr == &relay.listener)
			on_listener();
		else if (ev[i].data.ptr == &relay)
			on_stdin();
		else
			on_pair(ev[i].data.ptr);
	}
}

int main(int argc, char **argv)
{
	bool again = false;

	if (argc != 3) {
		fprintf(stderr, "usage: relay LISTEN-IP UPSTREAM-IP:PORT\n");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	relay.epoll = epoll_create1(EPOLL_CLOEXEC);
	parse_upstream(argv[2]);
	listen_on(argv[1]);
	watch(relay.listener, &relay.listener, EPOLLIN);
	watch(0, &relay, EPOLLIN);
	for (;;) {
		turn(again);
		again = reap();
	}
}
