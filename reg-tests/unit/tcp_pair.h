/* For unit tests: a connected pair over loopback, for what a socketpair does not know (TCP's states, RST, addresses). Neither end blocks, and
 * to close one says RST, as for all of net/sock (see sock_orderly); the caller closes both. */
#ifndef MCTUNNEL_TEST_TCP_PAIR_H
#define MCTUNNEL_TEST_TCP_PAIR_H

#include "mctunnel/net/sock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

/* fd[0] has been accepted, fd[1] has connected. */
static inline void tcp_pair(int fd[2])
{
	struct endpoint e = { .text = NULL };
	char err[200];
	int s;

	assert_int_equal(addr_parse(&e.addr, "127.0.0.1:0"), 0);
	s = sock_listen(&e, err, sizeof(err));
	assert_true(s >= 0);
	sock_local(s, &e.addr);
	fd[1] = sock_connect(&e.addr);
	assert_true(fd[1] >= 0);
	while ((fd[0] = sock_accept(s, NULL, NULL)) < 0)
		assert_int_equal(errno, EAGAIN);
	close(s);
}

#endif
