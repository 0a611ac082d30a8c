/* For LD_PRELOAD: the Nth allocation or system call of a program's processes fails, or calls on sockets come in pieces, interrupted, or later.
 * What is wanted stands in a file that all processes map (FAIL_STATE), so a test arms it at any time and reads what was counted; it fails once, and says on stderr which call it
 * was. Waits and closes never fail, nor what a kernel never refuses. */
#define _GNU_SOURCE
#include "../lib/allocator.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ALLOCATIONS = 1, CALLS = 2, PIECES = 4, OPENSSL = 8 };
enum { DESCRIPTORS = 4096 };

struct state { /* as test_syscalls.py has it */
	_Atomic int64_t target, count; /* the Nth; 0: count only */
	_Atomic int32_t spared, what;  /* a process; bits */
	_Atomic int32_t fired, tick;
};

static struct state *state;
static struct watched {
	_Atomic int epfd;
	struct epoll_event event;
} watched[DESCRIPTORS];

/* Libraries that do not always look whether they got memory: libconfig never (only a start, or a reload's own process, use it), OpenSSL is left alone unless OPENSSL is said. */
static struct library {
	const char *name;
	uintptr_t from, to;
} libraries[] = { { "libconfig", 0, 0 }, { "libcrypto", 0, 0 }, { "libssl", 0, 0 } };
enum { LIBRARIES = sizeof(libraries) / sizeof(libraries[0]) };

static void note_library(struct library *l, const struct dl_phdr_info *info)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
			l->from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			l->to = l->from + info->dlpi_phdr[i].p_memsz;
		}
	}
}

static int look_at(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < LIBRARIES; i++) {
		if (strstr(info->dlpi_name, libraries[i].name))
			note_library(&libraries[i], info);
	}
	return 0;
}

__attribute__((constructor)) static void prepare(void)
{
	const char *path = getenv("FAIL_STATE");
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		syscall(SYS_close, fd);
	dl_iterate_phdr(look_at, NULL);
	if (p != MAP_FAILED)
		state = p;
}

static void say(const char *call)
{
	char text[80];
	size_t n = 0;

	for (const char *part = "failcall: failed "; *part; part++)
		text[n++] = *part;
	for (; *call && n < sizeof(text) - 1; call++)
		text[n++] = *call;
	text[n++] = '\n';
	syscall(SYS_write, 2, text, n);
}

static int fails(int what, const char *call, int error)
{
	int64_t n;

	if (!state || !(atomic_load_explicit(&state->what, memory_order_relaxed) & what))
		return 0;
	if (atomic_load(&state->spared) == syscall(SYS_getpid))
		return 0;
	n = atomic_fetch_add(&state->count, 1) + 1;
	if (n != atomic_load(&state->target))
		return 0;
	atomic_fetch_add(&state->fired, 1);
	say(call);
	errno = error;
	return 1;
}

/* ---- memory ---- */

static bool malloc_refused(const char *call, const void *caller)
{
	int most = state && (atomic_load_explicit(&state->what, memory_order_relaxed) & OPENSSL) ? 1 : LIBRARIES;

	for (int i = 0; i < most; i++) {
		if ((uintptr_t)caller >= libraries[i].from && (uintptr_t)caller < libraries[i].to)
			return false;
	}
	return fails(ALLOCATIONS, call, ENOMEM);
}

/* What OpenSSL allocates by way of the program's functions would pass for the program's own. */
int CRYPTO_set_mem_functions(void *take, void *change, void *give);
int CRYPTO_set_mem_functions(void *take, void *change, void *give)
{
	int (*next)(void *, void *, void *) = (int (*)(void *, void *, void *))dlsym(RTLD_NEXT, "CRYPTO_set_mem_functions");

	return getenv("FAIL_OPENSSL") && next ? next(take, change, give) : 0;
}

/* ---- calls that fail ---- */

#define NEXT(name)                                          \
	static __typeof__(name) *next;                      \
	if (!next)                                          \
	next = (__typeof__(next))dlsym(RTLD_NEXT, #name)

#define FAILING(type, name, error, parameters, arguments) \
	type name parameters                              \
	{                                                 \
		NEXT(name);                               \
		if (fails(CALLS, #name, error))           \
			return -1;                        \
		return next arguments;                    \
	}

FAILING(int, socket, EMFILE, (int d, int t, int p), (d, t, p))
FAILING(int, socketpair, EMFILE, (int d, int t, int p, int v[2]), (d, t, p, v))
FAILING(int, connect, ENETUNREACH, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
FAILING(int, bind, EADDRINUSE, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
FAILING(int, listen, EADDRINUSE, (int fd, int n), (fd, n))
FAILING(int, accept4, ENFILE, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f))
FAILING(int, getsockname, ENOBUFS, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n))
FAILING(int, getsockopt, ENOBUFS, (int fd, int l, int o, void *v, socklen_t *n), (fd, l, o, v, n))
FAILING(int, setsockopt, ENOMEM, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n))
FAILING(int, shutdown, ENOTCONN, (int fd, int how), (fd, how))
FAILING(int, epoll_create1, EMFILE, (int f), (f))
FAILING(int, eventfd, EMFILE, (unsigned n, int f), (n, f))
FAILING(int, pipe2, EMFILE, (int v[2], int f), (v, f))
FAILING(pid_t, fork, EAGAIN, (void), ())
FAILING(int, rename, ENOSPC, (const char *a, const char *b), (a, b))
FAILING(int, mkdir, ENOSPC, (const char *a, mode_t m), (a, m))
FAILING(int, ftruncate, ENOSPC, (int fd, off_t n), (fd, n))

int open(const char *path, int flags, ...)
{
	va_list list;
	mode_t mode = 0;

	NEXT(open);
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(list, flags);
		mode = va_arg(list, mode_t);
		va_end(list);
	}
	return fails(CALLS, "open", EMFILE) ? -1 : next(path, flags, mode);
}

ssize_t read(int fd, void *to, size_t n)
{
	NEXT(read);
	return n != 8 && fails(CALLS, "read", EIO) ? -1 : next(fd, to, n); /* 8: an eventfd's number is always there */
}

ssize_t write(int fd, const void *from, size_t n)
{
	NEXT(write);
	return n != 8 && fails(CALLS, "write", ENOSPC) ? -1 : next(fd, from, n);
}

/* ---- calls in pieces ---- */

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *e)
{
	NEXT(epoll_ctl);
	if (op == EPOLL_CTL_ADD && fails(CALLS, "epoll_ctl", ENOSPC))
		return -1;
	if (fd < DESCRIPTORS && e && op != EPOLL_CTL_DEL) {
		watched[fd].event = *e;
		atomic_store(&watched[fd].epfd, epfd + 1);
	}
	if (fd < DESCRIPTORS && op == EPOLL_CTL_DEL)
		atomic_store(&watched[fd].epfd, 0);
	return next(epfd, op, fd, e);
}

/* As the kernel does when there is more: another edge. */
static void tell_again(int fd)
{
	int epfd = fd < DESCRIPTORS ? atomic_load(&watched[fd].epfd) : 0;
	int before = errno;

	if (epfd && (watched[fd].event.events & EPOLLET))
		syscall(SYS_epoll_ctl, epfd - 1, EPOLL_CTL_MOD, fd, &watched[fd].event);
	errno = before;
}

/* What becomes of this call: 0: as it is, 1: one byte, -1: nothing, with errno. */
static int harm(int fd, int flags)
{
	int n;

	if (!state || !(atomic_load_explicit(&state->what, memory_order_relaxed) & PIECES) || (flags & (MSG_PEEK | MSG_DONTWAIT)))
		return 0;
	n = atomic_fetch_add(&state->tick, 1);
	atomic_fetch_add(&state->count, 1);
	if (n % 5 == 0) {
		errno = EINTR;
		return -1;
	}
	tell_again(fd);
	if (n % 5 == 1) {
		errno = EAGAIN;
		return -1;
	}
	return n % 5 < 4;
}

ssize_t recv(int fd, void *to, size_t n, int flags)
{
	int h = harm(fd, flags);

	NEXT(recv);
	if (h < 0 || (!(flags & MSG_PEEK) && fails(CALLS, "recv", ECONNRESET)))
		return -1;
	return next(fd, to, h && n ? 1 : n, flags);
}

ssize_t send(int fd, const void *from, size_t n, int flags)
{
	int h = harm(fd, flags);

	NEXT(send);
	if (h < 0 || fails(CALLS, "send", ECONNRESET))
		return -1;
	return next(fd, from, h && n ? 1 : n, flags);
}

/* *one: room for a shorter message. */
static const struct msghdr *shorten(const struct msghdr *m, struct msghdr *one, struct iovec *iov)
{
	*one = *m;
	for (size_t i = 0; i < m->msg_iovlen; i++) {
		if (m->msg_iov[i].iov_len > 0) {
			*iov = (struct iovec){ m->msg_iov[i].iov_base, 1 };
			one->msg_iov = iov;
			one->msg_iovlen = 1;
			break;
		}
	}
	return one;
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	int h = m->msg_control ? 0 : harm(fd, flags);
	struct msghdr one;
	struct iovec iov;

	NEXT(recvmsg);
	if (h < 0 || fails(CALLS, "recvmsg", ECONNRESET))
		return -1;
	return next(fd, h ? (struct msghdr *)(uintptr_t)shorten(m, &one, &iov) : m, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	int h = m->msg_control ? 0 : harm(fd, flags);
	struct msghdr one;
	struct iovec iov;

	NEXT(sendmsg);
	if (h < 0 || fails(CALLS, "sendmsg", ECONNRESET))
		return -1;
	return next(fd, h ? shorten(m, &one, &iov) : m, flags);
}
