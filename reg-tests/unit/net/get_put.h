/* For tests: a conn that is read into one piece of memory, and written from one. */
#include "mctunnel/net/conn.h"

#include <stdint.h>
#include <string.h>

static inline ssize_t get(struct conn *c, void *buf, size_t size)
{
	struct iovec iov = { buf, size };

	return conn_readv(c, &iov, 1);
}

static inline ssize_t put(struct conn *c, const char *text)
{
	struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };

	return conn_writev(c, &iov, 1);
}
