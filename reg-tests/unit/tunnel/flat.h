/* For tests: output as bytes in one piece. */
#ifndef MCTUNNEL_TEST_FLAT_H
#define MCTUNNEL_TEST_FLAT_H

#include "mctunnel/proto/h2.h"
#include "mctunnel/tunnel/link.h"

static inline ssize_t h2_flat(struct h2 *h, uint8_t *dst, size_t size)
{
	struct iovec all[2];
	return h2_output(h, &(struct h2_sink){.buf = dst, .size = size, .iov = all, .max = 2});
}

static inline ssize_t link_flat(struct link *l, uint8_t *dst, size_t size)
{
	struct iovec all[2];
	return link_output(l, &(struct h2_sink){.buf = dst, .size = size, .iov = all, .max = 2});
}

#endif
