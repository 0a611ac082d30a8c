/* What the failover lab looks with: clients that arrive at a fixed pace, sessions that stay, and the target both reach. One line of output
 * for each thing that happened, with times of CLOCK_MONOTONIC in milliseconds, so that somebody else may say what they mean.
 *   probe target HOST:PORT NAME             a server: says NAME and a line feed; a client that says 't' gets a byte every 50 ms, what
 *                                           others say comes back
 *   probe clients HOST:PORT EVERY_MS LIMIT_MS
 *                                           a client every so many ms: "BEGAN ENDED ok|refused|reset|closed|timeout|..."; ok: it got the name
 *   probe sessions HOST:PORT EACH           so many of each kind: busy (asks every 50 ms), listening (gets a byte every 50 ms), idle;
 *                                           "up KIND NAME T", "end KIND how T"
 * They run until they are killed. Nothing of the program is used: this is the client's side. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PEERS 8192
#define BEAT_MS 50

enum kind { FREE, CLIENT, BUSY, LISTENING, IDLE, SERVED, TICKING };

struct peer {
	enum kind kind;
	int fd;
	double began;
	bool up; /* has the name */
};

static const char *const words[] = { "free", "client", "busy", "listening", "idle", "served", "ticking" };
static struct peer peers[PEERS];
static struct sockaddr_in where;
static int epoll = -1, listener = -1;
static double limit_ms;
static const char *name = "";

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void fail(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(int fd, unsigned events, void *data)
{
	struct epoll_event e = { .events = events, .data.ptr = data };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
		fail("epoll");
}

static void parse_where(const char *text)
{
	const char *colon = strrchr(text, ':');
	char host[64] = "";

	if (colon && (size_t)(colon - text) < sizeof(host))
		memcpy(host, text, (size_t)(colon - text));
	where.sin_family = AF_INET;
	where.sin_port = htons(colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : 0);
	if (inet_pton(AF_INET, host, &where.sin_addr) != 1 || where.sin_port == 0) {
		fprintf(stderr, "probe: %s is not HOST:PORT\n", text);
		exit(1);
	}
}

static struct peer *peer_new(enum kind kind, int fd)
{
	int one = 1;

	for (int i = 0; i < PEERS; i++) {
		if (peers[i].kind != FREE)
			continue;
		peers[i] = (struct peer){ kind, fd, now(), false };
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		return &peers[i];
	}
	close(fd);
	return NULL;
}

static void peer_free(struct peer *p)
{
	close(p->fd);
	p->kind = FREE;
}

/* ---- clients and sessions ---- */

static const char *how(int error)
{
	switch (error) {
	case 0: return "closed";
	case ECONNREFUSED: return "refused";
	case ECONNRESET: return "reset";
	case ETIMEDOUT: return "timeout";
	case EHOSTUNREACH: return "unreachable";
	}
	return strerror(error);
}

static void ended(struct peer *p, const char *word)
{
	if (p->kind == CLIENT)
		printf("%.1f %.1f %s\n", p->began, now(), word);
	else if (p->kind <= IDLE)
		printf("end %s %s %.1f\n", words[p->kind], word, now());
	peer_free(p);
}

static void start(enum kind kind)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct peer *p = fd < 0 ? NULL : peer_new(kind, fd);

	if (!p)
		fail("too many connections at once");
	watch(fd, EPOLLIN | EPOLLRDHUP, p);
	if (connect(fd, (struct sockaddr *)&where, sizeof(where)) < 0 && errno != EINPROGRESS)
		ended(p, how(errno));
}

static void got_name(struct peer *p, const char *text, size_t len)
{
	p->up = true;
	if (p->kind == CLIENT) {
		ended(p, "ok");
		return;
	}
	printf("up %s %.*s %.1f\n", words[p->kind], (int)strcspn(text, "\n"), text, now());
	if (p->kind == LISTENING && send(p->fd, "t", 1, MSG_NOSIGNAL) != 1)
		ended(p, how(errno));
}

static void beat(void)
{
	double t = now();

	for (struct peer *p = peers; p < peers + PEERS; p++) {
		if (p->kind == CLIENT && t - p->began > limit_ms)
			ended(p, "timeout");
		else if (((p->kind == BUSY && p->up) || p->kind == TICKING) && send(p->fd, "x", 1, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
			ended(p, how(errno));
	}
}

/* ---- the target ---- */

static void serve(void)
{
	size_t len = strlen(name);
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct peer *p = peer_new(SERVED, fd);

		if (!p)
			continue;
		if (send(fd, name, len, MSG_NOSIGNAL) != (ssize_t)len)
			peer_free(p);
		else
			watch(fd, EPOLLIN | EPOLLRDHUP, p);
	}
}

static void answer(struct peer *p, const char *bytes, size_t len)
{
	if (bytes[0] == 't')
		p->kind = TICKING;
	else if (send(p->fd, bytes, len, MSG_NOSIGNAL) < 0)
		peer_free(p);
}

/* ---- the loop ---- */

static void on_peer(struct peer *p)
{
	char bytes[256];
	ssize_t n = recv(p->fd, bytes, sizeof(bytes), 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		ended(p, how(n < 0 ? errno : 0));
	else if (p->kind >= SERVED)
		answer(p, bytes, (size_t)n);
	else if (!p->up)
		got_name(p, bytes, (size_t)n);
}

static int timer(double ms)
{
	struct timespec ts = { .tv_sec = (time_t)(ms / 1e3), .tv_nsec = (long)(ms * 1e6) % 1000000000 };
	struct itimerspec t = { ts, ts };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

	if (fd < 0 || timerfd_settime(fd, 0, &t, NULL) < 0)
		fail("timer");
	return fd;
}

static uint64_t rung(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void run(double every_ms)
{
	static char arrivals, beats, door;
	int pace = every_ms > 0 ? timer(every_ms) : -1, pulse = timer(BEAT_MS);
	struct epoll_event e[64];

	if (pace >= 0)
		watch(pace, EPOLLIN, &arrivals);
	watch(pulse, EPOLLIN, &beats);
	if (listener >= 0)
		watch(listener, EPOLLIN, &door);
	for (;;) {
		int n = epoll_wait(epoll, e, 64, -1);

		for (int i = 0; i < n; i++) {
			void *p = e[i].data.ptr;

			if (p == &arrivals) {
				for (uint64_t k = rung(pace); k > 0; k--)
					start(CLIENT);
			} else if (p == &beats) {
				rung(pulse);
				beat();
			} else if (p == &door) {
				serve();
			} else if (((struct peer *)p)->kind != FREE) {
				on_peer(p);
			}
		}
	}
}

static void listen_there(void)
{
	int one = 1;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&where, sizeof(where)) < 0 || listen(listener, 1024) < 0)
		fail("listen");
}

int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (argc > 2)
		parse_where(argv[2]);
	if (strcmp(mode, "target") == 0 && argc == 4) {
		if (asprintf((char **)&name, "%s\n", argv[3]) < 0)
			return 1;
		listen_there();
		run(0);
	} else if (strcmp(mode, "clients") == 0 && argc == 5) {
		limit_ms = strtod(argv[4], NULL);
		run(strtod(argv[3], NULL));
	} else if (strcmp(mode, "sessions") == 0 && argc == 4) {
		for (int i = (int)strtol(argv[3], NULL, 10); i > 0; i--) {
			start(BUSY);
			start(LISTENING);
			start(IDLE);
		}
		run(0);
	}
	fprintf(stderr, "usage: see the first lines of probe.c\n");
	return 1;
}
