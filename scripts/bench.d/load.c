/* Load for benchmarks: a server, and clients that measure. All over loopback, blocking threads but for the server, the crowd and the arrivals.
 * Usage: load serve PORT                          the first byte of a connection chooses: E echo, S bytes without end, D discard and answer 8 bytes at the end,
 *                                                  G the HTTP request GET /N: N bytes, keep-alive. Echoes have a thread of their own.
 *        load bulk PORT down|up CONNECTIONS BYTES  prints seconds
 *        load ping PORT COUNT INTERVAL_US          one byte there and back, so many times: prints p50 p99 max in microseconds. Interval 0: the next when the
 *                                                  last is back; else at that pace, whatever is still under way
 *        load rate PORT SECONDS THREADS            connect, one byte there and back, close: prints connections a second, failures, p99 in microseconds
 *        load arrive PORT EVERY_MS SECONDS         the same at a fixed pace; a line for each: when it began (CLOCK_MONOTONIC), how long it took, in ms, and
 *                                                  ok, refused (not connected) or lost (no echo)
 *        load crowd PORT CONNECTIONS AT-ONCE       opens them, so many at a time, one echo each: prints seconds and failures, holds them until stdin ends
 *        load stall PORT                           asks for bytes without end and reads none until stdin ends
 *        load steady PORT SECONDS                  downloads for so long: prints bytes a second
 *        load delay PORT TO-PORT MS [BYTES]        a relay that holds every byte back for so long, each way; with so many bytes a second each way, for all
 *                                                  its connections together, and a queue of 5 ms
 * PORT of bulk (down), ping, steady and stall may be http:PORT: the same by HTTP requests. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256u << 10)
#define CROWD_S 30     /* who is not there by then never comes */
#define DELAY_RING (64u << 20)
#define ENDLESS 1000000000000000ull
#define QUEUE_S 0.005  /* a narrow road's queue: what comes then waits in its sender */
#define NARROW_BUFFER (64 << 10)
#define NARROW_PIECE (8u << 10)

static char zeros[PIECE];
static bool http;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in at(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static int listen_at(int port)
{
	struct sockaddr_in a = at(port);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 65535) < 0)
		fail("listen");
	return fd;
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* host: of 127.0.1.0/24, to come from; 0: the system chooses. -1: not connected. */
static int dial_from(uint8_t host, int port)
{
	struct sockaddr_in a = at(port), from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 0x100 + host - 1U) };
	struct timeval limit = { 20, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (fd < 0 || (host && bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0) || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(fd);
		return -1;
	}
	no_delay(fd);
	return fd;
}

static int dial(int port)
{
	return dial_from(0, port);
}

static int must_dial(int port, char what)
{
	int fd = dial(port);

	if (fd < 0 || (what && send(fd, &what, 1, MSG_NOSIGNAL) != 1))
		fail("connect");
	return fd;
}

/* Asks for so many bytes by HTTP and reads the head of the answer, a byte at a time: it is short, and what follows stays where it is. */
static void request(int fd, uint64_t bytes)
{
	char text[4096], c = 0;
	int n = snprintf(text, sizeof(text), "GET /%llu HTTP/1.1\r\nHost: bench\r\n\r\n", (unsigned long long)bytes), line = 1;

	if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		fail("request");
	n = 0;
	for (int i = 0; line > 0; i++) { /* an empty line ends the head */
		if (i == (int)sizeof(text) || recv(fd, &c, 1, MSG_WAITALL) != 1)
			fail("answer");
		text[i] = c;
		if (c == '\n')
			line = n;
		n = c == '\n' ? 0 : n + (c != '\r');
	}
	if (memcmp(text, "HTTP/1.1 200", 12) != 0)
		fail("not a 200");
}

/* A connection over which so many bytes come. */
static int must_ask(int port, uint64_t bytes)
{
	int fd = must_dial(port, http ? 0 : 'S');

	if (http)
		request(fd, bytes);
	return fd;
}

/* ---- server ---- */

struct peer {
	int fd, home; /* the epoll it is in */
	char what;    /* 0: not said yet */
	uint64_t bytes;
	uint64_t owed;   /* of an HTTP answer */
	char held[4096]; /* echo not taken yet, or a request not complete yet */
	ssize_t held_n;
	uint32_t events;
};

static int bulk_home = -1; /* whoever pours or takes in bulk is here, so that no echo waits for it */

static void peer_end(struct peer *p, bool orderly)
{
	if (p->what == 'D' && orderly)
		(void)!send(p->fd, &p->bytes, 8, MSG_NOSIGNAL);
	close(p->fd);
	free(p);
}

/* false: it is over. */
static bool pour(struct peer *p)
{
	for (int i = 0; i < 8 && p->owed > 0; i++) {
		ssize_t n = send(p->fd, zeros, p->owed < sizeof(zeros) ? (size_t)p->owed : sizeof(zeros), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN;
		p->owed -= (uint64_t)n;
	}
	return true;
}

/* The next request, if it is complete; its head goes out with one call, which an idle connection has room for. */
static bool answer(struct peer *p)
{
	char head[100], *end;
	int n;

	if (p->owed > 0)
		return true;
	p->held[p->held_n < (ssize_t)sizeof(p->held) ? p->held_n : (ssize_t)sizeof(p->held) - 1] = 0;
	end = strstr(p->held, "\r\n\r\n");
	if (!end)
		return p->held_n < (ssize_t)sizeof(p->held) - 1;
	p->owed = strtoull(strchr(p->held, '/') ? strchr(p->held, '/') + 1 : "0", NULL, 10);
	p->held_n -= end + 4 - p->held;
	memmove(p->held, end + 4, (size_t)p->held_n);
	n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n", (unsigned long long)p->owed);
	return send(p->fd, head, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT | (p->owed ? MSG_MORE : 0)) == n && pour(p);
}

static bool echo_held(struct peer *p)
{
	ssize_t n = p->held_n ? send(p->fd, p->held, (size_t)p->held_n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

	if (n < 0)
		return errno == EAGAIN;
	memmove(p->held, p->held + n, (size_t)(p->held_n - n));
	p->held_n -= n;
	return true;
}

/* What it can write now; false: it is over. */
static bool put(struct peer *p)
{
	switch (p->what) {
	case 'E': return echo_held(p);
	case 'S': return pour(p);
	case 'G': return pour(p) && answer(p);
	}
	return true;
}

static void take(struct peer *p, const char *buf, ssize_t n)
{
	if (n > 0 && p->what == 0) {
		p->what = buf[0];
		p->owed = p->what == 'S' ? UINT64_MAX : 0;
		buf++;
		n--;
	}
	if (p->what == 'D')
		p->bytes += (uint64_t)n;
	if ((p->what == 'E' || p->what == 'G') && n > 0) {
		memcpy(p->held + p->held_n, buf, (size_t)n);
		p->held_n += n;
	}
}

static bool read_peer(struct peer *p)
{
	static _Thread_local char buf[PIECE];

	for (int i = 0; i < 8; i++) {
		size_t room = p->what == 'D' ? sizeof(buf) : sizeof(p->held) - (size_t)p->held_n;
		ssize_t n = room ? recv(p->fd, buf, room, MSG_DONTWAIT) : -1;

		if (room == 0 || (n < 0 && errno == EAGAIN))
			return true;
		if (n <= 0) {
			peer_end(p, n == 0);
			return false;
		}
		take(p, buf, n);
		if (!put(p)) {
			peer_end(p, false);
			return false;
		}
	}
	return true;
}

/* Who has said that it is one for bulk goes where those are. */
static int home_of(const struct peer *p)
{
	return p->what == 'S' || p->what == 'D' ? bulk_home : p->home;
}

static void watch_peer(struct peer *p)
{
	struct epoll_event e = { .events = EPOLLIN | (p->owed || (p->what == 'E' && p->held_n) ? EPOLLOUT : 0), .data.ptr = p };
	int home = home_of(p);

	if (home == p->home && e.events == p->events)
		return;
	p->events = e.events;
	if (home == p->home) {
		epoll_ctl(home, EPOLL_CTL_MOD, p->fd, &e);
		return;
	}
	epoll_ctl(p->home, EPOLL_CTL_DEL, p->fd, NULL);
	p->home = home; /* from the next call on it is the other thread's */
	epoll_ctl(home, EPOLL_CTL_ADD, p->fd, &e);
}

static void meet(int home, int door)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = p };

	p->fd = accept4(door, NULL, NULL, SOCK_NONBLOCK);
	if (p->fd < 0) {
		free(p);
		return;
	}
	no_delay(p->fd);
	p->home = home;
	p->events = EPOLLIN;
	epoll_ctl(home, EPOLL_CTL_ADD, p->fd, &e);
}

static void attend(int home, int door)
{
	struct epoll_event got[256];

	for (;;) {
		int n = epoll_wait(home, got, 256, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = got[i].data.ptr;

			if (!p) {
				meet(home, door);
				continue;
			}
			if (!read_peer(p))
				continue;
			if (put(p))
				watch_peer(p);
			else
				peer_end(p, false);
		}
	}
}

static void *attend_bulk(void *arg)
{
	attend(bulk_home, -1);
	return NULL;
}

static void serve(int port)
{
	int home = epoll_create1(0), door = listen_at(port);
	struct epoll_event e = { .events = EPOLLIN };
	pthread_t t;

	bulk_home = epoll_create1(0);
	pthread_create(&t, NULL, attend_bulk, NULL);
	epoll_ctl(home, EPOLL_CTL_ADD, door, &e);
	attend(home, door);
}

/* ---- clients ---- */

struct job {
	pthread_t thread;
	int port;
	uint8_t host; /* to come from */
	bool down;
	uint64_t bytes, done, failed;
	double until;
	double *took;
	size_t took_n;
};

static void *carry(void *arg)
{
	struct job *j = arg;
	char *buf = malloc(PIECE);
	int fd = j->down ? must_ask(j->port, j->bytes) : must_dial(j->port, 'D');
	uint64_t sum = 0;

	while (sum < j->bytes) {
		size_t want = j->bytes - sum < PIECE ? (size_t)(j->bytes - sum) : PIECE;
		ssize_t n = j->down ? recv(fd, buf, want, 0) : send(fd, zeros, want, MSG_NOSIGNAL);

		if (n <= 0)
			fail("bulk");
		sum += (uint64_t)n;
	}
	if (!j->down) {
		uint64_t there = 0;

		shutdown(fd, SHUT_WR);
		if (recv(fd, &there, 8, MSG_WAITALL) != 8 || there != j->bytes)
			fail("bytes were lost");
	}
	close(fd);
	free(buf);
	return NULL;
}

static void bulk(int port, bool down, int n, uint64_t bytes)
{
	struct job *j = calloc((size_t)n, sizeof(*j));
	double began = now();

	for (int i = 0; i < n; i++) {
		j[i] = (struct job){ .port = port, .down = down, .bytes = bytes / (uint64_t)n };
		pthread_create(&j[i].thread, NULL, carry, &j[i]);
	}
	for (int i = 0; i < n; i++)
		pthread_join(j[i].thread, NULL);
	printf("%.4f\n", now() - began);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double part(double *v, size_t n, double p)
{
	size_t i = (size_t)((double)n * p);

	return n ? v[i < n ? i : n - 1] * 1e6 : 0;
}

static void say_times(double *took, size_t n)
{
	qsort(took, n, sizeof(*took), by_size);
	printf("%.1f %.1f %.1f\n", part(took, n, 0.5), part(took, n, 0.99), n ? took[n - 1] * 1e6 : 0);
}

static bool there_and_back(int fd)
{
	char c = 'x';

	if (http)
		request(fd, 1);
	else if (send(fd, &c, 1, MSG_NOSIGNAL) != 1)
		return false;
	return recv(fd, &c, 1, MSG_WAITALL) == 1;
}

/* One after the other. HTTP always goes so: not everybody takes a request before the last is answered. */
static void ping(int port, int count, int interval_us)
{
	double *took = calloc((size_t)count, sizeof(*took));
	int fd = must_dial(port, http ? 0 : 'E');

	for (int i = -20; i < count; i++) {
		double began = now();

		if (!there_and_back(fd))
			fail("ping");
		if (i >= 0)
			took[i] = now() - began;
		if (interval_us)
			usleep((useconds_t)interval_us);
	}
	say_times(took, (size_t)count);
}

/* At a pace: the n-th echo answers the n-th byte, and each counts from when its byte was due. */
static void keystrokes(int port, int count, int interval_us)
{
	double *took = calloc((size_t)count, sizeof(*took)), began, step = interval_us / 1e6;
	int fd = must_dial(port, 'E'), sent = 0, back = 0;
	char buf[256];

	if (!there_and_back(fd))
		fail("ping");
	began = now();
	while (back < count) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		double wait = sent < count ? began + sent * step - now() : 10;
		struct timespec t = { (time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9) };
		ssize_t n;

		if (wait <= 0) {
			if (send(fd, "x", 1, MSG_NOSIGNAL) != 1)
				fail("ping");
			sent++;
			continue;
		}
		if (ppoll(&p, 1, &t, NULL) == 0 && sent == count)
			fail("no echo for 10 s");
		n = p.revents ? recv(fd, buf, sizeof(buf), 0) : 0;
		if (p.revents && n <= 0)
			fail("ping");
		for (; n > 0 && back < count; n--, back++)
			took[back] = now() - (began + back * step);
	}
	say_times(took, (size_t)count);
}

/* Each from an address of its own: one has 28,000 ports, and they would be used up within a second or two. */
static void *hurry(void *arg)
{
	struct job *j = arg;

	while (now() < j->until) {
		double began = now();
		char b[2] = { 'E', 'x' };
		int fd = dial_from(j->host, j->port);

		if (fd >= 0 && send(fd, b, 2, MSG_NOSIGNAL) == 2 && recv(fd, b, 1, MSG_WAITALL) == 1) {
			if (j->took_n < 1000000)
				j->took[j->took_n++] = now() - began;
			j->done++;
		} else {
			j->failed++;
		}
		close(fd);
	}
	return NULL;
}

static void rate(int port, double seconds, int n)
{
	struct job *j = calloc((size_t)n, sizeof(*j));
	double *all, began = now();
	uint64_t done = 0, failed = 0;
	size_t k = 0;

	for (int i = 0; i < n; i++) {
		j[i] = (struct job){ .port = port, .host = (uint8_t)(i % 250 + 1), .until = began + seconds, .took = calloc(1000000, sizeof(double)) };
		pthread_create(&j[i].thread, NULL, hurry, &j[i]);
	}
	for (int i = 0; i < n; i++) {
		pthread_join(j[i].thread, NULL);
		done += j[i].done;
		failed += j[i].failed;
	}
	all = calloc(done + 1, sizeof(*all));
	for (int i = 0; i < n; i++) {
		memcpy(all + k, j[i].took, j[i].took_n * sizeof(double));
		k += j[i].took_n;
	}
	qsort(all, k, sizeof(*all), by_size);
	printf("%.1f %llu %.1f %llu\n", (double)done / (now() - began), (unsigned long long)failed, part(all, k, 0.99), (unsigned long long)done);
}

static void wait_stdin(void)
{
	char c;

	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
}

/* One more under way. */
static void add_one(int ep, int port)
{
	struct sockaddr_in a = at(port);
	struct epoll_event e;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		fail("socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINPROGRESS)
		fail("connect");
	e = (struct epoll_event){ .events = EPOLLOUT, .data.fd = fd };
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

/* 1: it has its echo; 0: it waits for it; -1: it has failed. */
static int advance(int ep, const struct epoll_event *got)
{
	struct epoll_event e = { .events = EPOLLIN, .data.fd = got->data.fd };
	char b[2] = { 'E', 'x' };

	if (!(got->events & EPOLLOUT))
		return recv(got->data.fd, b, 1, 0) == 1 ? 1 : -1;
	if (send(got->data.fd, b, 2, MSG_NOSIGNAL) != 2)
		return -1;
	epoll_ctl(ep, EPOLL_CTL_MOD, got->data.fd, &e);
	return 0;
}

/* Non-blocking connects, at most `under_way` at a time, and an echo on each. */
static void crowd(int port, int n, int under_way)
{
	struct epoll_event got[512];
	int ep = epoll_create1(0), begun = 0, over = 0, failed = 0;
	double began = now();

	while (over < n && now() < began + CROWD_S) {
		int k;

		while (begun < n && begun - over < under_way) {
			add_one(ep, port);
			begun++;
		}
		k = epoll_wait(ep, got, 512, 1000);
		for (int i = 0; i < k; i++) {
			int r = advance(ep, &got[i]);

			if (r == 0)
				continue;
			failed += r < 0;
			over++;
			epoll_ctl(ep, EPOLL_CTL_DEL, got[i].data.fd, NULL);
		}
	}
	printf("%.4f %d\n", now() - began, failed + n - over);
	wait_stdin();
}

/* ---- clients that come at a fixed pace ---- */

struct arrival {
	int fd;
	double began;
	bool connected;
};

static void arrived(struct arrival *a, const char *how)
{
	printf("%.3f %.3f %s\n", a->began * 1e3, (now() - a->began) * 1e3, how);
	close(a->fd);
	free(a);
}

static void come(int ep, int port, double due)
{
	struct sockaddr_in to = at(port);
	struct arrival *a = calloc(1, sizeof(*a));
	struct epoll_event e = { .events = EPOLLOUT, .data.ptr = a };

	*a = (struct arrival){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .began = due };
	if (a->fd < 0)
		fail("socket");
	if (connect(a->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		arrived(a, "refused");
	else
		epoll_ctl(ep, EPOLL_CTL_ADD, a->fd, &e);
}

/* true: it has gone. */
static bool proceed(int ep, struct arrival *a)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = a };
	char b[2] = { 'E', 'x' };

	if (a->connected) {
		arrived(a, recv(a->fd, b, 1, 0) == 1 ? "ok" : "lost");
		return true;
	}
	a->connected = send(a->fd, b, 2, MSG_NOSIGNAL) == 2;
	if (a->connected)
		epoll_ctl(ep, EPOLL_CTL_MOD, a->fd, &e);
	else
		arrived(a, errno == ECONNRESET || errno == EPIPE ? "lost" : "refused");
	return !a->connected;
}

static void arrive(int port, double every_ms, double seconds)
{
	struct epoll_event got[64];
	double due = now(), end = due + seconds;
	int ep = epoll_create1(0), here = 0;

	while (due < end || (here > 0 && now() < end + 10)) {
		int wait = (int)((due - now()) * 1e3), n;

		if (due < end && now() >= due) {
			come(ep, port, due);
			here++;
			due += every_ms / 1e3;
			wait = 0;
		}
		n = epoll_wait(ep, got, 64, due < end ? wait < 0 ? 0 : wait : 100);
		for (int i = 0; i < n; i++)
			here -= proceed(ep, got[i].data.ptr);
	}
	if (here > 0)
		printf("%.3f 10000 lost\n", end * 1e3); /* some have had no answer for 10 s */
}

static void stall(int port)
{
	(void)must_ask(port, ENDLESS);
	puts("stalled");
	wait_stdin();
}

static void steady(int port, double seconds)
{
	char *buf = malloc(PIECE);
	int fd = must_ask(port, ENDLESS);
	double began = now();
	uint64_t sum = 0;

	while (now() < began + seconds) {
		ssize_t n = recv(fd, buf, PIECE, 0);

		if (n <= 0)
			fail("steady");
		sum += (uint64_t)n;
	}
	printf("%.0f\n", (double)sum / (now() - began));
}

/* ---- a slow road ---- */

struct width { /* of one direction, for all connections */
	pthread_mutex_t lock;
	double rate, free_at;
};

struct road {
	int from, to;
	double delay;
	struct width *width; /* NULL: any */
	char *ring;
	size_t head, tail; /* bytes put in, taken out */
	struct stamp {
		double due;
		size_t until;
	} *stamps;
	size_t stamps_head, stamps_tail;
	bool eof;
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

#define STAMPS (1u << 16)

static void *road_out(void *arg)
{
	struct road *r = arg;

	for (;;) {
		struct stamp s;

		pthread_mutex_lock(&r->lock);
		while (r->stamps_head == r->stamps_tail && !r->eof)
			pthread_cond_wait(&r->changed, &r->lock);
		if (r->stamps_head == r->stamps_tail) {
			pthread_mutex_unlock(&r->lock);
			shutdown(r->to, SHUT_WR);
			return NULL;
		}
		s = r->stamps[r->stamps_tail % STAMPS];
		pthread_mutex_unlock(&r->lock);
		if (s.due > now())
			usleep((useconds_t)((s.due - now()) * 1e6));
		while (r->tail < s.until) {
			size_t off = r->tail % DELAY_RING, n = s.until - r->tail;
			ssize_t sent = send(r->to, r->ring + off, n < DELAY_RING - off ? n : DELAY_RING - off, MSG_NOSIGNAL);

			if (sent <= 0) {
				shutdown(r->from, SHUT_RD);
				return NULL;
			}
			pthread_mutex_lock(&r->lock);
			r->tail += (size_t)sent;
			pthread_cond_broadcast(&r->changed);
			pthread_mutex_unlock(&r->lock);
		}
		pthread_mutex_lock(&r->lock);
		r->stamps_tail++;
		pthread_cond_broadcast(&r->changed);
		pthread_mutex_unlock(&r->lock);
	}
}

/* How long what waits there takes. */
static double queue_of(struct width *w)
{
	double free_at;

	pthread_mutex_lock(&w->lock);
	free_at = w->free_at;
	pthread_mutex_unlock(&w->lock);
	return free_at - now();
}

/* When the last of n more bytes is through. */
static double pass(struct width *w, size_t n)
{
	double t = now();

	pthread_mutex_lock(&w->lock);
	w->free_at = (w->free_at > t ? w->free_at : t) + (double)n / w->rate;
	t = w->free_at;
	pthread_mutex_unlock(&w->lock);
	return t;
}

static void *road_in(void *arg)
{
	struct road *r = arg;

	for (;;) {
		size_t off, room;
		ssize_t n;
		double due;

		pthread_mutex_lock(&r->lock);
		while (r->head - r->tail >= DELAY_RING || r->stamps_head - r->stamps_tail >= STAMPS)
			pthread_cond_wait(&r->changed, &r->lock);
		off = r->head % DELAY_RING;
		room = DELAY_RING - (r->head - r->tail);
		pthread_mutex_unlock(&r->lock);
		if (r->width && room > NARROW_PIECE)
			room = NARROW_PIECE;
		while (r->width && queue_of(r->width) > QUEUE_S)
			usleep(500);
		n = recv(r->from, r->ring + off, room < DELAY_RING - off ? room : DELAY_RING - off, 0);
		due = (r->width && n > 0 ? pass(r->width, (size_t)n) : now()) + r->delay;
		pthread_mutex_lock(&r->lock);
		if (n <= 0) {
			r->eof = true;
		} else {
			r->head += (size_t)n;
			r->stamps[r->stamps_head++ % STAMPS] = (struct stamp){ due, r->head };
		}
		pthread_cond_broadcast(&r->changed);
		pthread_mutex_unlock(&r->lock);
		if (n <= 0)
			return NULL;
	}
}

static void lay(int from, int to, double delay, struct width *width)
{
	struct road *r = calloc(1, sizeof(*r));
	pthread_t t;

	*r = (struct road){ .from = from, .to = to, .delay = delay, .width = width, .ring = malloc(DELAY_RING), .stamps = calloc(STAMPS, sizeof(struct stamp)) };
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	pthread_create(&t, NULL, road_in, r);
	pthread_create(&t, NULL, road_out, r);
}

/* A narrow road takes little at a time: else the queue would be the kernel's here, not the sender's. */
static void narrow(int fd)
{
	int size = NARROW_BUFFER;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static void delay(int port, int to, int ms, double rate)
{
	static struct width widths[2];
	int door = listen_at(port);

	for (int i = 0; i < 2; i++) {
		widths[i].rate = rate;
		pthread_mutex_init(&widths[i].lock, NULL);
	}
	if (rate > 0)
		narrow(door);
	for (;;) {
		int a = accept(door, NULL, NULL), b = a >= 0 ? dial(to) : -1;
		struct timeval none = { 0, 0 };

		if (b < 0) {
			close(a);
			continue;
		}
		setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
		no_delay(a);
		if (rate > 0)
			narrow(b);
		lay(a, b, ms / 1000.0, rate > 0 ? &widths[0] : NULL);
		lay(b, a, ms / 1000.0, rate > 0 ? &widths[1] : NULL);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "", *where = argc > 2 ? argv[2] : "";
	int port = (int)strtol(strncmp(where, "http:", 5) == 0 ? where + 5 : where, NULL, 10);
	struct rlimit all;

	getrlimit(RLIMIT_NOFILE, &all);
	all.rlim_cur = all.rlim_max;
	setrlimit(RLIMIT_NOFILE, &all);
	signal(SIGPIPE, SIG_IGN);
	http = argc > 2 && strncmp(argv[2], "http:", 5) == 0;
	if (strcmp(what, "serve") == 0)
		serve(port);
	else if (strcmp(what, "bulk") == 0 && argc == 6)
		bulk(port, strcmp(argv[3], "down") == 0, (int)strtol(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	else if (strcmp(what, "ping") == 0 && argc == 5)
		(http || strcmp(argv[4], "0") == 0 ? ping : keystrokes)(port, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10));
	else if (strcmp(what, "rate") == 0 && argc == 5)
		rate(port, strtod(argv[3], NULL), (int)strtol(argv[4], NULL, 10));
	else if (strcmp(what, "arrive") == 0 && argc == 5)
		arrive(port, strtod(argv[3], NULL), strtod(argv[4], NULL));
	else if (strcmp(what, "crowd") == 0 && argc == 5)
		crowd(port, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10));
	else if (strcmp(what, "stall") == 0)
		stall(port);
	else if (strcmp(what, "steady") == 0 && argc == 4)
		steady(port, strtod(argv[3], NULL));
	else if (strcmp(what, "delay") == 0 && argc >= 5)
		delay(port, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10), argc > 5 ? strtod(argv[5], NULL) : 0);
	else {
		fprintf(stderr, "usage: see the head of load.c\n");
		return 1;
	}
	return 0;
}
