/* Sockets: listening (also where something is in the way), accepting, connecting, handing descriptors over. */
#define _GNU_SOURCE
#include "mctunnel/net/sock.h"

#include "mctunnel/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int make_dir(void **state)
{
	str_copy(dir, sizeof(dir), "/tmp/mctunnel-sock-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	return rmdir(dir);
}

static int listen_text(const char *text, struct addr *where, char *err, size_t errsize)
{
	struct endpoint e;
	int fd;

	assert_int_equal(endpoint_parse(&e, text, ENDPOINT_BIND, err, errsize), 0);
	fd = sock_listen(&e, err, errsize);
	if (fd >= 0)
		sock_local(fd, where);
	endpoint_fini(&e);
	return fd;
}

static void wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	assert_int_equal(poll(&p, 1, 20000), 1);
}

static void assert_flags(int fd)
{
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void assert_options(int fd)
{
	struct linger l = { 0 };
	socklen_t len = sizeof(l);
	int no_delay = 0;

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len), 0);
	assert_int_equal(l.l_onoff, 1);
	assert_int_equal(l.l_linger, 0);
	len = sizeof(no_delay);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &len), 0);
	assert_true(no_delay);
}

static void a_listener_of_others_bequeaths(void **state)
{
	struct addr at;
	bool early = true;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), a, b;

	assert_int_equal(addr_parse(&at, "127.0.0.1:0"), 0);
	assert_int_equal(bind(s, &at.u.sa, at.len), 0);
	assert_int_equal(listen(s, 4), 0);
	sock_local(s, &at);
	b = sock_connect(&at); /* before */
	wait_for(s, POLLIN);
	sock_bequeath(s);
	a = sock_accept(s, NULL, &early);
	assert_options(a);
	assert_true(early);
	close(a);
	close(b);
	assert_int_equal(sock_accept(s, NULL, &early), -1);
	assert_int_equal(errno, EAGAIN);
	assert_false(early);
	b = sock_connect(&at);
	wait_for(s, POLLIN);
	a = sock_accept(s, NULL, &early);
	assert_options(a);
	close(a);
	close(b);
	close(s);
}

/* Asked until it is no longer under way. */
static int outcome(int fd, const struct addr *to)
{
	int e;

	while ((e = sock_connected(fd, to)) == EINPROGRESS)
		wait_for(fd, POLLOUT);
	return e;
}

static void says_when_it_is_connected(void **state)
{
	struct addr at, far;
	char err[200];
	int s = listen_text("127.0.0.1:0", &at, err, sizeof(err)), b = sock_connect(&at);

	assert_true(b >= 0);
	assert_int_equal(outcome(b, &at), 0);
	assert_int_equal(sock_connected(b, &at), 0); /* as often as it is asked */
	assert_int_equal(send(b, "x", 1, MSG_NOSIGNAL), 1);
	close(b);
	close(s);
	b = sock_connect(&at);
	if (b >= 0) {
		assert_int_equal(outcome(b, &at), ECONNREFUSED);
		close(b);
	}
	assert_int_equal(addr_parse(&far, "192.0.2.1:80"), 0);
	assert_int_equal(sock_connected(-1, &far), EINPROGRESS); /* not asked */
}

static void a_full_queue_is_not_connected(void **state)
{
	struct addr at;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), b[4], n = 0;

	assert_int_equal(addr_parse(&at, "127.0.0.1:0"), 0);
	assert_int_equal(bind(s, &at.u.sa, at.len), 0);
	assert_int_equal(listen(s, 0), 0);
	sock_local(s, &at);
	do {
		assert_true(n < 4);
		b[n] = sock_connect(&at);
		assert_true(b[n] >= 0);
	} while (sock_connected(b[n++], &at) == 0);
	assert_int_equal(sock_connected(b[n - 1], &at), EINPROGRESS);
	while (n > 0)
		close(b[--n]);
	close(s);
}

static void loopback(void **state)
{
	struct addr at, peer, local, mine;
	char err[200], c;
	int s = listen_text("127.0.0.1:0", &at, err, sizeof(err)), a, b;

	assert_true(s >= 0);
	assert_flags(s);
	assert_int_equal(sock_accept(s, &peer, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	b = sock_connect(&at);
	assert_true(b >= 0);
	assert_flags(b);
	wait_for(b, POLLOUT);
	assert_int_equal(sock_error(b), 0);
	wait_for(s, POLLIN);
	a = sock_accept(s, &peer, NULL);
	assert_true(a >= 0);
	assert_flags(a);
	sock_local(b, &mine);
	assert_true(addr_equal(&peer, &mine));
	sock_local(a, &local);
	assert_true(addr_equal(&local, &at));
	assert_options(a);
	assert_options(b);

	sock_orderly(a);
	close(a);
	wait_for(b, POLLIN);
	assert_int_equal(recv(b, &c, 1, 0), 0);
	close(b);
	close(s);
}

static bool here(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, text), 0);
	return sock_is_here(&a);
}

static void addresses_of_this_host(void **state)
{
	assert_true(here("127.0.0.1:80"));
	assert_true(here("127.1.2.3:0"));
	assert_false(here("192.0.2.1:80"));
	assert_false(here("[2001:db8::1]:80"));
	assert_true(here("[::ffff:127.0.0.1]:80")); /* as a socket of both families has it */
	assert_false(here("[::ffff:192.0.2.1]:80"));
	assert_true(here("unix:/nowhere"));
}

static void closing_without_a_word_is_a_reset(void **state)
{
	struct addr at;
	char err[200], c;
	int s = listen_text("127.0.0.1:0", &at, err, sizeof(err)), a, b = sock_connect(&at);

	wait_for(s, POLLIN);
	a = sock_accept(s, NULL, NULL);
	assert_int_equal(send(a, "x", 1, 0), 1);
	close(a);
	do
		wait_for(b, POLLIN);
	while (recv(b, &c, 1, 0) > 0);
	assert_int_equal(errno, ECONNRESET);
	close(b);
	close(s);
}

static void any_takes_both_families(void **state)
{
	struct addr at, to;
	char err[200], text[64];
	int s = listen_text("*:0", &at, err, sizeof(err)), b, a;

	assert_true(s >= 0);
	snprintf(text, sizeof(text), "127.0.0.1:%u", addr_port(&at));
	assert_int_equal(addr_parse(&to, text), 0);
	b = sock_connect(&to);
	wait_for(s, POLLIN);
	a = sock_accept(s, NULL, NULL);
	assert_true(a >= 0);
	close(a);
	close(b);
	close(s);
}

static void address_in_use(void **state)
{
	struct addr at, again;
	char err[200], text[64];
	int s = listen_text("127.0.0.1:0", &at, err, sizeof(err));

	addr_text(&at, text, sizeof(text));
	assert_int_equal(listen_text(text, &again, err, sizeof(err)), -1);
	assert_non_null(strstr(err, text));
	assert_non_null(strstr(err, "in use"));
	close(s);
}

static void refused(void **state)
{
	struct addr at;
	char err[200];
	int s = listen_text("127.0.0.1:0", &at, err, sizeof(err)), b, e;

	close(s);
	b = sock_connect(&at);
	e = errno;
	if (b >= 0) {
		wait_for(b, POLLOUT);
		e = sock_error(b);
		close(b);
	}
	assert_int_equal(e, ECONNREFUSED);
}

static void unix_path(void **state)
{
	struct addr at;
	char err[200], text[128], path[100];
	struct stat st;
	int s, t;

	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(text, sizeof(text), "unix:%s", path);
	s = listen_text(text, &at, err, sizeof(err));
	assert_true(s >= 0);
	assert_int_equal(listen_text(text, &at, err, sizeof(err)), -1); /* somebody lives there */
	t = sock_connect(&at);
	assert_true(t >= 0);
	close(t);
	close(s);

	assert_int_equal(lstat(path, &st), 0); /* left behind: replaced */
	s = listen_text(text, &at, err, sizeof(err));
	assert_true(s >= 0);
	close(s);
	unlink(path);
}

static void a_file_is_never_removed(void **state)
{
	struct addr at;
	char err[200], text[128], path[100];
	int fd;

	snprintf(path, sizeof(path), "%s/f", dir);
	snprintf(text, sizeof(text), "unix:%s", path);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(listen_text(text, &at, err, sizeof(err)), -1);
	assert_int_equal(unlink(path), 0);
}

static void descriptors(void **state)
{
	int pair[2], fds[4] = { -1, -1, -1, -1 }, n = 4, pipes[2];
	char buf[16];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(sock_send_fds(pair[0], "hello", 5, pipes, 2), 5);
	assert_int_equal(sock_recv_fds(pair[1], buf, sizeof(buf), fds, &n), 5);
	assert_int_equal(n, 2);
	assert_memory_equal(buf, "hello", 5);
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(pipes[0], buf, 1), 1);
	close(fds[0]);
	close(fds[1]);

	n = 1; /* more come than there is room for */
	assert_int_equal(sock_send_fds(pair[0], "a", 1, pipes, 2), 1);
	assert_int_equal(sock_recv_fds(pair[1], buf, sizeof(buf), fds, &n), 1);
	assert_int_equal(n, 1);
	close(fds[0]);

	n = 4; /* none */
	assert_int_equal(sock_send_fds(pair[0], "b", 1, NULL, 0), 1);
	assert_int_equal(sock_recv_fds(pair[1], buf, sizeof(buf), fds, &n), 1);
	assert_int_equal(n, 0);

	close(pair[0]);
	n = 4;
	assert_int_equal(sock_recv_fds(pair[1], buf, sizeof(buf), fds, &n), 0);
	close(pair[1]);
	close(pipes[0]);
	close(pipes[1]);
}

static void assert_paced(int fd, bool is)
{
	char name[16] = "";
	socklen_t len = sizeof(name) - 1;

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len), 0);
	assert_int_equal(strncmp(name, "bbr", 3) == 0, is);
}

/* A network of its own for this test and those after it, where connections begin with BBR. */
static void own_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd, setting;

	if (unshare(CLONE_NEWNET) < 0)
		skip(); /* not root */
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
	setting = open("/proc/sys/net/ipv4/tcp_congestion_control", O_WRONLY);
	if (setting < 0 || write(setting, "bbr", 3) != 3)
		skip(); /* a kernel without it */
	close(setting);
}

static void nothing_within_the_host_is_paced(void **state)
{
	struct addr where, peer;
	char err[256];
	int listener, far, near, wide, unset;

	own_network();
	listener = listen_text("127.0.0.1:0", &where, err, sizeof(err));
	near = sock_connect(&where);
	wait_for(listener, POLLIN);
	far = sock_accept(listener, &peer, NULL);
	wide = listen_text("0.0.0.0:0", &where, err, sizeof(err));
	unset = socket(AF_INET, SOCK_STREAM, 0);
	assert_paced(listener, false);
	assert_paced(near, false);
	assert_paced(far, false);
	assert_paced(wide, true);
	assert_paced(unset, true);
	close(listener);
	close(near);
	close(far);
	close(wide);
	close(unset);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loopback),
		cmocka_unit_test(a_listener_of_others_bequeaths),
		cmocka_unit_test(says_when_it_is_connected),
		cmocka_unit_test(a_full_queue_is_not_connected),
		cmocka_unit_test(addresses_of_this_host),
		cmocka_unit_test(closing_without_a_word_is_a_reset),
		cmocka_unit_test(any_takes_both_families),
		cmocka_unit_test(address_in_use),
		cmocka_unit_test(refused),
		cmocka_unit_test(unix_path),
		cmocka_unit_test(a_file_is_never_removed),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(nothing_within_the_host_is_paced),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
