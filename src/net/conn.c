/* The plain conn: one connected TCP or Unix socket, watched by the thread's loop.
 * Owns the descriptor. Remembers readiness, so that the owner neither asks the kernel twice nor misses an edge.
 * Also the common entrance for other kinds of conn (tls.c): everything goes through conn->ops.
 * It does not know what the bytes mean. */
#include "mctunnel/net/conn.h"

#include "mctunnel/base/buf.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t iov_total(const struct iovec *iov, int n)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	return total;
}

static ssize_t failed(struct conn *c, int error)
{
	if (!c->error)
		c->error = error;
	return CONN_FAILED;
}

static ssize_t tcp_readv(struct conn *c, const struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
	ssize_t got;

	do {
		got = recvmsg(c->fd, &m, 0);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno != EAGAIN)
		return failed(c, errno);
	if (got < 0) {
		c->readable = false;
		return CONN_AGAIN;
	}
	if (got == 0)
		c->peer_shut = c->ended = true;
	else if ((size_t)got < iov_total(iov, n) && !c->peer_shut && !c->hup)
		c->readable = false; /* that was all; what comes later is a new edge */
	return got;
}

static ssize_t tcp_writev(struct conn *c, const struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
	ssize_t put;

	do {
		put = sendmsg(c->fd, &m, MSG_NOSIGNAL);
	} while (put < 0 && errno == EINTR);
	if (put < 0 && errno != EAGAIN)
		return failed(c, errno);
	if (put < 0 || (size_t)put < iov_total(iov, n))
		c->writable = false;
	return put < 0 ? CONN_AGAIN : put;
}

static int tcp_shut(struct conn *c)
{
	if (shutdown(c->fd, SHUT_WR) < 0)
		return (int)failed(c, errno);
	c->shut = true;
	return 0;
}

static void tcp_close(struct conn *c, bool orderly)
{
	bool over = c->shut && c->ended; /* nothing more can be read, and FIN is on its way */
	int fd = c->fd;

	loop_forget(&c->watch);
	mem_put(MEM_CONN, c);
	if (orderly && over) {
		sock_orderly(fd);
		close(fd);
	} else {
		sock_end(fd, orderly);
	}
}

static size_t tcp_unsent(const struct conn *c)
{
	return 0;
}

static const struct conn_ops tcp_ops = {
	.readv = tcp_readv,
	.writev = tcp_writev,
	.shut = tcp_shut,
	.close = tcp_close,
	.unsent = tcp_unsent,
};

void conn_note(struct conn *c, unsigned events)
{
	c->readable |= (events & (LOOP_READ | LOOP_HUP | LOOP_PEER_SHUT)) != 0;
	c->writable |= (events & (LOOP_WRITE | LOOP_HUP)) != 0;
	c->hup |= (events & LOOP_HUP) != 0;
	c->peer_shut |= (events & LOOP_PEER_SHUT) != 0;
}

static void tcp_ready(struct watch *w, unsigned events)
{
	struct conn *c = container_of(w, struct conn, watch);

	conn_note(c, events);
	c->on_event(c); /* may free c */
}

struct conn *conn_tcp(int fd, void (*on_event)(struct conn *), void *owner)
{
	struct conn *c = mem_get(MEM_CONN, sizeof(*c));

	BUG_ON(!on_event);
	if (!c) {
		errno = ENOMEM;
		return NULL;
	}
	c->ops = &tcp_ops;
	c->on_event = on_event;
	c->owner = owner;
	c->fd = fd;
	if (loop_watch(&c->watch, fd, tcp_ready) < 0) {
		int e = errno;

		mem_put(MEM_CONN, c);
		errno = e;
		return NULL;
	}
	return c;
}

int conn_release(struct conn *plain)
{
	int fd = plain->fd;

	BUG_ON(plain->ops != &tcp_ops);
	loop_unwatch(&plain->watch);
	mem_put(MEM_CONN, plain);
	return fd;
}

ssize_t conn_readv(struct conn *c, const struct iovec *iov, int n)
{
	return c->ops->readv(c, iov, n);
}

ssize_t conn_writev(struct conn *c, const struct iovec *iov, int n)
{
	return c->ops->writev(c, iov, n);
}

int conn_flush(struct conn *c, struct bufq *q)
{
	struct iovec iov[8];

	while (q->len > 0) {
		ssize_t n = conn_writev(c, iov, bufq_peek(q, iov, 8));

		if (n < 0)
			return n == CONN_AGAIN ? 0 : CONN_FAILED;
		bufq_drop(q, (size_t)n);
	}
	return 0;
}

size_t conn_unsent(const struct conn *c)
{
	return c->ops->unsent(c);
}

int conn_shut(struct conn *c)
{
	return c->ops->shut(c);
}

void conn_close(struct conn *c)
{
	c->ops->close(c, true);
}

void conn_abort(struct conn *c)
{
	c->ops->close(c, false);
}

void conn_detach(struct conn *c)
{
	loop_unwatch(&c->watch);
}

/* The flags are kept: bytes that TLS holds already are not reported by the kernel again. */
int conn_attach(struct conn *c)
{
	BUG_ON(c->watch.fd >= 0);
	return loop_watch(&c->watch, c->fd, c->watch.on_ready);
}

enum reason conn_reason(const struct conn *c, enum reason otherwise)
{
	return sock_exhausted(c->error) ? REASON_RESOURCES : otherwise;
}

int conn_fd(const struct conn *c)
{
	return c->fd;
}
