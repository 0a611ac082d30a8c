/* Sockets: how they are made, accepted, connected and given to another process.
 * Owns nothing: descriptors belong to the caller from the moment they are returned. The one rule kept here is that a
 * TCP socket dies with RST (SO_LINGER 0) until somebody says that its end is in good order.
 * It does not know what is spoken over them, nor the loop. */
#define _GNU_SOURCE
#include "mctunnel/net/sock.h"

#include "mctunnel/base/bug.h"

#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS_MAX 64
#define DRAIN_READS 16 /* of 4 KiB, at an orderly end */

static void set_int(int fd, int level, int option, int value)
{
	/* best effort: every caller can live without it, and not every kernel has all of them */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void set_linger(int fd, bool reset_at_close)
{
	struct linger l = { .l_onoff = reset_at_close, .l_linger = 0 };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static int stream_socket(int family)
{
	return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static void tcp_options(int fd)
{
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_linger(fd, true);
}

void sock_bequeath(int listener)
{
	tcp_options(listener);
}

/* BBR paces each connection by a timer, which is what a network wants. Within a host there is none: only the timer is left, and costs
 * a quarter of the CPU of all that is carried. Must be said before the connection is made; what is accepted has it from its listener. */
static void do_not_pace(int fd)
{
	static atomic_int by_default; /* asked once: 1 BBR, -1 another */
	char name[16] = "";
	socklen_t len = sizeof(name) - 1;
	int paced = atomic_load_explicit(&by_default, memory_order_relaxed);

	if (!paced) {
		paced = getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0 && strncmp(name, "bbr", 3) == 0 ? 1 : -1;
		atomic_store_explicit(&by_default, paced, memory_order_relaxed);
	}
	if (paced < 0)
		return;
	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", strlen("cubic")) < 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno")); /* every kernel has it */
}

static int close_keep_errno(int fd)
{
	int e = errno;

	close(fd);
	errno = e;
	return -1;
}

/* Is there somebody behind this path? Anything but a plain refusal counts as yes. */
static bool unix_alive(const struct addr *a)
{
	int fd = stream_socket(AF_UNIX);
	bool alive;

	if (fd < 0)
		return true;
	alive = connect(fd, &a->u.sa, a->len) == 0 || (errno != ECONNREFUSED && errno != ENOENT);
	close(fd);
	return alive;
}

/* Only a socket is ever removed: connecting to a file is refused too. */
static bool remove_stale(const struct addr *a)
{
	struct stat st;

	if (lstat(a->u.un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode) || unix_alive(a))
		return false;
	return unlink(a->u.un.sun_path) == 0;
}

static int bind_unix(int fd, const struct addr *a)
{
	if (bind(fd, &a->u.sa, a->len) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return -1;
	if (!remove_stale(a)) {
		errno = EADDRINUSE;
		return -1;
	}
	return bind(fd, &a->u.sa, a->len);
}

static int bind_inet(int fd, const struct addr *a, bool both_families)
{
	int yes = 1;

	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (a->u.sa.sa_family == AF_INET6) {
		int v6only = !both_families;

		set_int(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
		if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) < 0 && both_families)
			return -1;
	}
	set_int(fd, IPPROTO_IP, IP_FREEBIND, 1);
	(void)setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &yes, sizeof(yes)); /* to send from an address that has moved away */
	return bind(fd, &a->u.sa, a->len);
}

static int listen_on(const struct addr *a, bool both_families)
{
	int fd = stream_socket(a->u.sa.sa_family), rc;

	if (fd < 0)
		return -1;
	if (addr_is_loopback(a))
		do_not_pace(fd);
	sock_bequeath(fd);
	rc = a->u.sa.sa_family == AF_UNIX ? bind_unix(fd, a) : bind_inet(fd, a, both_families);
	if (rc < 0 || listen(fd, INT_MAX) < 0) /* the kernel lowers it to somaxconn */
		return close_keep_errno(fd);
	return fd;
}

static int listen_any(uint16_t port)
{
	struct addr a = { .len = sizeof(a.u.in6) };
	int fd;

	a.u.in6.sin6_family = AF_INET6;
	a.u.in6.sin6_port = htons(port);
	fd = listen_on(&a, true);
	if (fd >= 0 || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL && errno != ENOPROTOOPT))
		return fd;
	memset(&a, 0, sizeof(a));
	a.len = sizeof(a.u.in4);
	a.u.in4.sin_family = AF_INET;
	a.u.in4.sin_port = htons(port);
	return listen_on(&a, false);
}

static const char *listen_hint(int e)
{
	if (e == EADDRINUSE)
		return " (is another process listening there?)";
	return e == EACCES ? " (a port below 1024 needs root or CAP_NET_BIND_SERVICE, a path a folder one may write)" : "";
}

int sock_listen(const struct endpoint *e, char *err, size_t errsize)
{
	char text[ADDR_TEXT];
	int fd;

	BUG_ON(!e->any && !e->addr.len);
	fd = e->any ? listen_any(addr_port(&e->addr)) : listen_on(&e->addr, false);
	if (fd < 0)
		snprintf(err, errsize, "cannot listen on %s: %s%s", e->text ? e->text : addr_text(&e->addr, text, sizeof(text)),
			 strerror(errno), listen_hint(errno));
	return fd;
}

/* Errors of the connection that was about to be accepted; the listener itself is fine. */
static bool only_this_one(int e)
{
	return e == EINTR || e == ECONNABORTED || e == EPROTO || e == ENETDOWN || e == EHOSTDOWN || e == ENONET ||
	       e == EHOSTUNREACH || e == ENETUNREACH || e == ENOPROTOOPT;
}

int sock_accept(int listener, struct addr *peer, bool *early)
{
	struct addr from;
	int fd;

	do {
		memset(&from, 0, sizeof(from));
		from.len = sizeof(from.u);
		fd = accept4(listener, &from.u.sa, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fd < 0 && only_this_one(errno));
	if (fd < 0) {
		if (early && errno == EAGAIN)
			*early = false;
		return -1;
	}
	if (early && *early && from.u.sa.sa_family != AF_UNIX)
		tcp_options(fd);
	if (peer)
		*peer = from;
	return fd;
}

int sock_connect(const struct addr *to)
{
	int fd;

	BUG_ON(!to->len);
	fd = stream_socket(to->u.sa.sa_family);
	if (fd < 0)
		return -1;
	if (to->u.sa.sa_family != AF_UNIX)
		tcp_options(fd);
	if (addr_is_loopback(to))
		do_not_pace(fd);
	if (connect(fd, &to->u.sa, to->len) < 0 && errno != EINPROGRESS && errno != EINTR)
		return close_keep_errno(fd);
	return fd;
}

/* To an address within this host the kernel is often done before connect() returns, but says so only when it is asked again. */
int sock_connected(int fd, const struct addr *to)
{
	if (to->u.sa.sa_family != AF_UNIX && !addr_is_loopback(to))
		return EINPROGRESS;
	if (connect(fd, &to->u.sa, to->len) == 0 || errno == EISCONN)
		return 0;
	return errno == EALREADY || errno == EAGAIN || errno == EINTR ? EINPROGRESS : errno;
}

int sock_error(int fd)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		return errno;
	return e;
}

bool sock_exhausted(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

void sock_orderly(int fd)
{
	set_linger(fd, false);
}

static void throw_away_input(int fd)
{
	char waste[4096];

	for (int i = 0; i < DRAIN_READS; i++) {
		if (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) <= 0)
			return;
	}
}

void sock_end(int fd, bool orderly)
{
	set_linger(fd, !orderly);
	if (orderly) {
		(void)shutdown(fd, SHUT_WR);
		throw_away_input(fd);
	}
	close(fd);
}

void sock_user_timeout(int fd, uint32_t ms)
{
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)(ms > INT_MAX ? INT_MAX : ms));
}

void sock_keepalive(int fd, uint32_t idle_s)
{
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)idle_s);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)(idle_s / 3 + 1));
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

void sock_notsent_lowat(int fd, uint32_t bytes)
{
	set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)(bytes > INT_MAX ? INT_MAX : bytes));
}

void sock_local(int fd, struct addr *out)
{
	memset(out, 0, sizeof(*out));
	out->len = sizeof(out->u);
	if (getsockname(fd, &out->u.sa, &out->len) < 0)
		out->len = 0;
}

/* Asked by binding: the other ways to know need rights, or files, that a worker may not have. */
bool sock_is_here(const struct addr *a)
{
	struct addr any_port = *a;
	int fd;
	bool gone;

	if (a->u.sa.sa_family == AF_INET)
		any_port.u.in4.sin_port = 0;
	else if (a->u.sa.sa_family == AF_INET6)
		any_port.u.in6.sin6_port = 0;
	else
		return true;
	fd = socket(a->u.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true;
	gone = bind(fd, &any_port.u.sa, any_port.len) < 0 && errno == EADDRNOTAVAIL;
	close(fd);
	return !gone;
}

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

ssize_t sock_send_fds(int fd, const void *data, size_t len, const int *fds, int n)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	ssize_t sent;

	BUG_ON(n < 0 || n > FDS_MAX || !len);
	if (n > 0) {
		memset(&control, 0, sizeof(control));
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
	}
	do {
		sent = sendmsg(fd, &m, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent;
}

/* Collects what came; what there is no room for is closed, never leaked. */
static int take_fds(struct msghdr *m, int *fds, int room)
{
	int got = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (got < room)
				fds[got++] = fd;
			else
				close(fd);
		}
	}
	return got;
}

ssize_t sock_recv_fds(int fd, void *data, size_t size, int *fds, int *n)
{
	struct iovec iov = { .iov_base = data, .iov_len = size };
	union control control;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control) };
	int room = *n;
	ssize_t got;

	*n = 0;
	do {
		got = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -1;
	*n = take_fds(&m, fds, room);
	if (!(m.msg_flags & MSG_CTRUNC))
		return got;
	while (*n > 0) /* some were lost on the way (no descriptors left): a half message is none */
		close(fds[--*n]);
	errno = EMFILE;
	return -1;
}
