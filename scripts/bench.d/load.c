/* Load for benchmarks: a server, and clients that measure. All over loopback, blocking threads but for the server and the crowd.
 * Usage: load serve PORT                          the first byte of a connection chooses: E echo, S bytes without end, D discard and answer 8 bytes at the end
 *        load bulk PORT down|up CONNECTIONS BYTES  prints seconds
 *        load ping PORT COUNT INTERVAL_US          one byte there and back, again and again: prints p50 p99 max in microseconds
 *        load rate PORT SECONDS THREADS            connect, one byte there and back, close: prints connections a second, failures, p99 in microseconds
 *        load crowd PORT CONNECTIONS AT-ONCE       opens them, so many at a time, one echo each: prints seconds and failures, holds them until stdin ends
 *        load stall PORT                           asks for bytes without end and reads none until stdin ends
 *        load steady PORT SECONDS                  downloads for so long: prints bytes a second
 *        load delay PORT TO-PORT MS                a relay that holds every byte back for so long, each way */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
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
#define DELAY_RING (64u << 20)

static char zeros[PIECE];

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

/* -1: not connected. */
static int dial(int port)
{
	struct sockaddr_in a = at(port);
	struct timeval limit = { 20, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(fd);
		return -1;
	}
	no_delay(fd);
	return fd;
}

static int must_dial(int port, char what)
{
	int fd = dial(port);

	if (fd < 0 || send(fd, &what, 1, MSG_NOSIGNAL) != 1)
		fail("connect");
	return fd;
}

/* ---- server ---- */

struct peer {
	int fd;
	char what; /* 0: not said yet */
	uint64_t bytes;
	char held[4096]; /* echo not taken yet */
	ssize_t held_n;
	uint32_t events;
};

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
	for (int i = 0; i < 8; i++) {
		ssize_t n = send(p->fd, zeros, sizeof(zeros), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN;
	}
	return true;
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

static int take(struct peer *p, const char *buf, ssize_t n)
{
	if (n > 0 && p->what == 0) {
		p->what = buf[0];
		buf++;
		n--;
	}
	if (p->what == 'D')
		p->bytes += (uint64_t)n;
	if (p->what == 'E' && n > 0) {
		memcpy(p->held + p->held_n, buf, (size_t)n);
		p->held_n += n;
		return echo_held(p) ? 0 : -1;
	}
	return 0;
}

static bool read_peer(struct peer *p)
{
	static char buf[PIECE];

	for (int i = 0; i < 8; i++) {
		size_t room = p->what == 'D' ? sizeof(buf) : sizeof(p->held) - (size_t)p->held_n;
		ssize_t n = room ? recv(p->fd, buf, room, MSG_DONTWAIT) : -1;

		if (room == 0 || (n < 0 && errno == EAGAIN))
			return true;
		if (n <= 0) {
			peer_end(p, n == 0);
			return false;
		}
		if (take(p, buf, n) < 0) {
			peer_end(p, false);
			return false;
		}
	}
	return true;
}

static void serve(int port)
{
	int ep = epoll_create1(0), door = listen_at(port);
	struct epoll_event e = { .events = EPOLLIN }, got[256];

	epoll_ctl(ep, EPOLL_CTL_ADD, door, &e);
	for (;;) {
		int n = epoll_wait(ep, got, 256, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = got[i].data.ptr;

			if (!p) {
				p = calloc(1, sizeof(*p));
				p->fd = accept4(door, NULL, NULL, SOCK_NONBLOCK);
				if (p->fd < 0) {
					free(p);
					continue;
				}
				no_delay(p->fd);
				e = (struct epoll_event){ .events = EPOLLIN, .data.ptr = p };
				epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &e);
				continue;
			}
			if (!read_peer(p))
				continue;
			if ((p->what == 'S' && !pour(p)) || (p->what == 'E' && !echo_held(p))) {
				peer_end(p, false);
				continue;
			}
			e = (struct epoll_event){ .events = EPOLLIN | (p->what == 'S' || p->held_n ? EPOLLOUT : 0), .data.ptr = p };
			if (e.events != p->events)
				epoll_ctl(ep, EPOLL_CTL_MOD, p->fd, &e);
			p->events = e.events;
		}
	}
}

/* ---- clients ---- */

struct job {
	pthread_t thread;
	int port;
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
	int fd = must_dial(j->port, j->down ? 'S' : 'D');
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

static void ping(int port, int count, int interval_us)
{
	double *took = calloc((size_t)count, sizeof(*took));
	int fd = must_dial(port, 'E');
	char c = 'x';

	for (int i = -20; i < count; i++) {
		double began = now();

		if (send(fd, &c, 1, MSG_NOSIGNAL) != 1 || recv(fd, &c, 1, MSG_WAITALL) != 1)
			fail("ping");
		if (i >= 0)
			took[i] = now() - began;
		if (interval_us)
			usleep((useconds_t)interval_us);
	}
	qsort(took, (size_t)count, sizeof(*took), by_size);
	printf("%.1f %.1f %.1f\n", part(took, (size_t)count, 0.5), part(took, (size_t)count, 0.99), took[count - 1] * 1e6);
}

static void *hurry(void *arg)
{
	struct job *j = arg;

	while (now() < j->until) {
		double began = now();
		char b[2] = { 'E', 'x' };
		int fd = dial(j->port);

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
		j[i] = (struct job){ .port = port, .until = began + seconds, .took = calloc(1000000, sizeof(double)) };
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

	while (over < n) {
		int k;

		while (begun < n && begun - over < under_way) {
			add_one(ep, port);
			begun++;
		}
		k = epoll_wait(ep, got, 512, 60000);
		if (k <= 0)
			break;
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

static void stall(int port)
{
	(void)must_dial(port, 'S');
	puts("stalled");
	wait_stdin();
}

static void steady(int port, double seconds)
{
	char *buf = malloc(PIECE);
	int fd = must_dial(port, 'S');
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

struct road {
	int from, to;
	double delay;
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

static void *road_in(void *arg)
{
	struct road *r = arg;

	for (;;) {
		size_t off, room;
		ssize_t n;

		pthread_mutex_lock(&r->lock);
		while (r->head - r->tail >= DELAY_RING || r->stamps_head - r->stamps_tail >= STAMPS)
			pthread_cond_wait(&r->changed, &r->lock);
		off = r->head % DELAY_RING;
		room = DELAY_RING - (r->head - r->tail);
		pthread_mutex_unlock(&r->lock);
		n = recv(r->from, r->ring + off, room < DELAY_RING - off ? room : DELAY_RING - off, 0);
		pthread_mutex_lock(&r->lock);
		if (n <= 0) {
			r->eof = true;
		} else {
			r->head += (size_t)n;
			r->stamps[r->stamps_head++ % STAMPS] = (struct stamp){ now() + r->delay, r->head };
		}
		pthread_cond_broadcast(&r->changed);
		pthread_mutex_unlock(&r->lock);
		if (n <= 0)
			return NULL;
	}
}

static void lay(int from, int to, double delay)
{
	struct road *r = calloc(1, sizeof(*r));
	pthread_t t;

	*r = (struct road){ .from = from, .to = to, .delay = delay, .ring = malloc(DELAY_RING), .stamps = calloc(STAMPS, sizeof(struct stamp)) };
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	pthread_create(&t, NULL, road_in, r);
	pthread_create(&t, NULL, road_out, r);
}

static void delay(int port, int to, int ms)
{
	int door = listen_at(port);

	for (;;) {
		int a = accept(door, NULL, NULL), b = a >= 0 ? dial(to) : -1;
		struct timeval none = { 0, 0 };

		if (b < 0) {
			close(a);
			continue;
		}
		setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
		no_delay(a);
		lay(a, b, ms / 1000.0);
		lay(b, a, ms / 1000.0);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int port = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
	struct rlimit all;

	getrlimit(RLIMIT_NOFILE, &all);
	all.rlim_cur = all.rlim_max;
	setrlimit(RLIMIT_NOFILE, &all);
	signal(SIGPIPE, SIG_IGN);
	if (strcmp(what, "serve") == 0)
		serve(port);
	else if (strcmp(what, "bulk") == 0 && argc == 6)
		bulk(port, strcmp(argv[3], "down") == 0, (int)strtol(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	else if (strcmp(what, "ping") == 0 && argc == 5)
		ping(port, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10));
	else if (strcmp(what, "rate") == 0 && argc == 5)
		rate(port, strtod(argv[3], NULL), (int)strtol(argv[4], NULL, 10));
	else if (strcmp(what, "crowd") == 0 && argc == 5)
		crowd(port, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10));
	else if (strcmp(what, "stall") == 0)
		stall(port);
	else if (strcmp(what, "steady") == 0 && argc == 4)
		steady(port, strtod(argv[3], NULL));
	else if (strcmp(what, "delay") == 0 && argc == 5)
		delay(port, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10));
	else {
		fprintf(stderr, "usage: see the head of load.c\n");
		return 1;
	}
	return 0;
}
