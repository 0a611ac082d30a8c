/* Tells systemd and keepalived how the program is.
 * systemd: datagrams to the Unix socket named in the environment, the whole of sd_notify's protocol that we need, so no
 * libsystemd. keepalived: a file with one digit. Both are told only by the master: a worker could be an attacker's. */
#define _GNU_SOURCE
#include "mctunnel/main/notify.h"

#include "mctunnel/base/str.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define BARRIER_MS 1000

static int notify_fd = -1;
static uint64_t watchdog_ms;
static const char *health_path; /* borrowed */
static int health_told = -1;

static int connect_to(const char *path)
{
	static const struct timeval patience = { .tv_sec = 1 }; /* a busy systemd may lose a word, not hold us up */
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	int fd;

	if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof(un.sun_path))
		return -1;
	memcpy(un.sun_path, path, len);
	if (path[0] == '@')
		un.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) == 0)
		return fd;
	close(fd);
	return -1;
}

static uint64_t read_watchdog(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t limit, whose;

	if (!usec || !str_u64(usec, UINT64_MAX, &limit))
		return 0;
	if (pid && (!str_u64(pid, INT_MAX, &whose) || whose != (uint64_t)getpid()))
		return 0;
	return limit / 2000 > 0 ? limit / 2000 : 1;
}

void notify_open(const char *health_file)
{
	const char *path = getenv("NOTIFY_SOCKET");

	health_path = health_file;
	health_told = -1;
	if (path)
		notify_fd = connect_to(path);
	watchdog_ms = notify_fd >= 0 ? read_watchdog() : 0;
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

void notify_close(void)
{
	if (notify_fd >= 0)
		close(notify_fd);
	notify_fd = -1;
}

void notify_send(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int len;

	if (notify_fd < 0)
		return;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len > 0)
		(void)send(notify_fd, text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1, MSG_NOSIGNAL);
}

/* FDPOLL=0: a listening socket never hangs up. */
void notify_store(const char *name, int fd)
{
	char text[320];
	int len = snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);

	if (notify_fd >= 0 && len < (int)sizeof(text))
		(void)sock_send_fds(notify_fd, text, (size_t)len, &fd, 1);
}

void notify_unstore(const char *name)
{
	notify_send("FDSTOREREMOVE=1\nFDNAME=%s", name);
}

/* systemd closes the end it has been sent when it has come so far. */
void notify_barrier(void)
{
	int ends[2];

	if (notify_fd < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return;
	if (sock_send_fds(notify_fd, "BARRIER=1", 9, &ends[1], 1) > 0) {
		close(ends[1]);
		poll(&(struct pollfd){ .fd = ends[0] }, 1, BARRIER_MS);
	} else {
		close(ends[1]);
	}
	close(ends[0]);
}

uint64_t notify_watchdog_ms(void)
{
	return watchdog_ms;
}

/* Both contents are as long, and written in one piece: a reader sees the one or the other. In place, because the worker has the file open. */
static int write_digit(int fd, const char *content)
{
	return pwrite(fd, content, 2, 0) == 2 && ftruncate(fd, 2) == 0 ? 0 : -1;
}

/* Where somebody else has made it: a folder of ours lets us put another one in its place. */
static int replace_file(const char *path, const char *content)
{
	char tmp[PATH_MAX];
	int fd, n = snprintf(tmp, sizeof(tmp), "%s.new", path);
	ssize_t len = (ssize_t)strlen(content);

	if (n < 0 || (size_t)n >= sizeof(tmp)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -1;
	if (write(fd, content, (size_t)len) != len) {
		close(fd);
		return -1;
	}
	return close(fd) == 0 ? rename(tmp, path) : -1;
}

static int write_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644), rc;

	if (fd < 0)
		return errno == EACCES || errno == ELOOP ? replace_file(path, content) : -1;
	rc = write_digit(fd, content);
	return close(fd) == 0 ? rc : -1;
}

int notify_health_fd(void)
{
	return health_path ? open(health_path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
}

void notify_unfit(int fd)
{
	if (fd < 0)
		return;
	(void)write_digit(fd, "1\n"); /* who else could be told? */
	close(fd);
}

int notify_health(bool serve, char *err, size_t errsize)
{
	if (!health_path || health_told == (int)serve)
		return 0;
	if (write_file(health_path, serve ? "0\n" : "1\n") < 0) {
		snprintf(err, errsize, "cannot write health file %s: %s", health_path, strerror(errno));
		return -1;
	}
	health_told = serve;
	return 0;
}
