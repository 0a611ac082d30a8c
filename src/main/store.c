/* systemd's store of descriptors: it holds duplicates of the listening sockets and hands them to the next master, so that clients
 * wait in the kernel's queue while there is no process at all.
 * Owns what was handed over and has not been adopted, and remembers what systemd holds: name and inode, because the same name may
 * mean another socket after a reload. Which sockets there are, the master knows; how systemd is told, notify.c. */
#include "mctunnel/main/store.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/main/notify.h"
#include "mctunnel/main/sockets.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_FD 3 /* where systemd puts them */
#define HANDED_MAX 4096
#define NAME_SIZE 256

struct stored {
	char name[NAME_SIZE];
	ino_t inode;
	int fd; /* owned: handed over, not adopted yet; else -1 */
	bool good;
};

static struct stored *held; /* owned */
static size_t held_n;

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static void remember(const char *name, size_t len, int fd, bool handed)
{
	struct stored *s;

	held = xrealloc(held, (held_n + 1) * sizeof(*held));
	s = &held[held_n++];
	memset(s, 0, sizeof(*s));
	memcpy(s->name, name, len < sizeof(s->name) ? len : sizeof(s->name) - 1);
	s->inode = inode_of(fd);
	s->fd = handed ? fd : -1;
}

static size_t handed_over(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	uint64_t whose, n;

	if (!pid || !count || !str_u64(pid, INT_MAX, &whose) || whose != (uint64_t)getpid() || !str_u64(count, HANDED_MAX, &n))
		return 0;
	return (size_t)n;
}

void store_open(void)
{
	const char *names = getenv("LISTEN_FDNAMES");
	size_t n = handed_over();

	for (size_t i = 0; i < n; i++) {
		int fd = FIRST_FD + (int)i;
		size_t len = names ? strcspn(names, ":") : 0;

		if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
			remember(names ? names : "", len, fd, true);
		if (names)
			names += names[len] ? len + 1 : len;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

/* ---- adopting ---- */

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) == 0 ? value : -1;
}

static bool is_any(int fd, const struct addr *a)
{
	if (a->u.sa.sa_family == AF_INET)
		return a->u.in4.sin_addr.s_addr == INADDR_ANY;
	return a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr) && option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0;
}

/* A file that has been removed or replaced leads to this socket no longer; connecting tells, but would be a client. */
static bool file_is_there(const struct addr *a)
{
	struct stat st;

	return lstat(a->u.un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static bool listens_at(int fd, const struct endpoint *e)
{
	struct addr a = { .len = sizeof(a.u) };

	if (option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1 || option(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM || getsockname(fd, &a.u.sa, &a.len) < 0)
		return false;
	if (e->any)
		return is_any(fd, &a) && addr_port(&a) == addr_port(&e->addr);
	if (!addr_equal(&a, &e->addr))
		return false;
	if (a.u.sa.sa_family == AF_INET6)
		return option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1;
	return a.u.sa.sa_family != AF_UNIX || file_is_there(&a);
}

int store_adopt(const struct endpoint *e)
{
	for (size_t i = 0; i < held_n; i++) {
		int fd = held[i].fd;

		if (fd < 0 || !listens_at(fd, e) || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
			continue;
		held[i].fd = -1;
		return fd;
	}
	return -1;
}

/* ---- keeping ---- */

static bool to_be_kept(const struct worker_socket *s)
{
	return s->fd >= 0 && strncmp(s->name, "admin.", 6) != 0;
}

static bool is_among(const struct stored *h, const struct worker_socket *sockets, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (to_be_kept(&sockets[i]) && strcmp(sockets[i].name, h->name) == 0 && inode_of(sockets[i].fd) == h->inode)
			return true;
	return false;
}

/* systemd gives up all it has under a name, the good one too: that is stored anew. */
static bool shares_its_name(const struct stored *h)
{
	for (size_t i = 0; i < held_n; i++)
		if (&held[i] != h && strcmp(held[i].name, h->name) == 0)
			return true;
	return false;
}

static bool is_held(const struct worker_socket *s)
{
	for (size_t i = 0; i < held_n; i++)
		if (strcmp(held[i].name, s->name) == 0)
			return true;
	return false;
}

static void let_go(struct stored *h)
{
	if (h->fd >= 0) {
		log_notice("closing the socket %s that systemd has kept: the configuration does not ask for it any more", h->name);
		close(h->fd);
	}
	notify_unstore(h->name);
}

/* Those that go come first: systemd takes no second duplicate of a socket it has, whatever its name. */
void store_sync(const struct worker_socket *sockets, size_t n)
{
	size_t left = 0;

	for (size_t i = 0; i < held_n; i++) {
		held[i].good = is_among(&held[i], sockets, n) && !shares_its_name(&held[i]);
		if (!held[i].good)
			let_go(&held[i]);
	}
	for (size_t i = 0; i < held_n; i++)
		if (held[i].good)
			held[left++] = held[i];
	held_n = left;
	for (size_t i = 0; i < n; i++) {
		if (!to_be_kept(&sockets[i]) || is_held(&sockets[i]))
			continue;
		notify_store(sockets[i].name, sockets[i].fd);
		remember(sockets[i].name, strlen(sockets[i].name), sockets[i].fd, false);
	}
}
