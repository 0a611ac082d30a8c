/* Fuzzes what an HTTP proxy answers to CONNECT when an agent dials by way of it. The first byte's bits: 1, it comes in two parts; 2, the proxy then closes. Who dialled gets a
 * socket only after a 2xx, with every byte behind the answer still in it, and what the proxy says never gets out of the line that is logged. */
#define _GNU_SOURCE
#include "net/dial.c"

#include "mctunnel/base/clock.h"

#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HALVES = 1, CLOSES = 2, INPUT_MAX = 20000 };

static struct {
	bool done;
	int fd, error;
	char why[WHY_MAX];
} f;

static void on_done(void *arg, struct dial_result *r)
{
	BUG_ON(f.done);
	f.done = true;
	f.fd = r->fd;
	f.error = r->error;
	str_copy(f.why, sizeof(f.why), r->why);
}

static struct dial *asking(int fd)
{
	static const struct endpoint proxy = { .text = (char *)"proxy.example:3128" };
	struct dial *d = mem_get(MEM_OTHER, sizeof(*d));

	BUG_ON(!d);
	d->endpoint = d->proxy = &proxy;
	d->on_done = on_done;
	for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
		d->attempts[i].watch.fd = -1;
	timer_init(&d->step, on_step);
	timer_init(&d->deadline, on_deadline);
	deferred_init(&d->begin, on_begin);
	BUG_ON(loop_watch(&d->proxy_watch, fd, on_proxy) < 0);
	return d;
}

/* Returns how much was said. */
static size_t say(int fd, const uint8_t *data, size_t size)
{
	size_t all = size;

	while (size > 0 && !f.done) {
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n <= 0)
			break;
		data += n;
		size -= (size_t)n;
		loop_turn(0);
	}
	return all - size;
}

/* What the winner has is the rest of what was said. */
static void check_rest(const uint8_t *data, size_t size)
{
	uint8_t rest[INPUT_MAX];
	ssize_t n = recv(f.fd, rest, sizeof(rest), MSG_DONTWAIT);
	size_t len = n > 0 ? (size_t)n : 0;

	BUG_ON(size < 12 || memcmp(data, "HTTP/1.", 7) != 0);
	BUG_ON(len > size || memcmp(data + size - len, rest, len) != 0);
	BUG_ON(data[size - len - 1] != '\n');
	close(f.fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	int ends[2];

	if (size == 0 || size > INPUT_MAX)
		return 0;
	if (!ready)
		loop_init();
	ready = true;
	f.done = false;
	BUG_ON(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0);
	struct dial *d = asking(ends[0]);
	size_t first = data[0] & HALVES ? (size - 1) / 2 : size - 1;
	size_t said = say(ends[1], data + 1, first);
	said += say(ends[1], data + 1 + said, said == first ? size - 1 - first : 0);
	if (data[0] & CLOSES)
		shutdown(ends[1], SHUT_WR);
	loop_turn(0);
	loop_turn(0);
	BUG_ON((data[0] & CLOSES) && !f.done);
	if (!f.done)
		dial_cancel(d);
	else if (f.fd >= 0)
		check_rest(data + 1, said);
	else
		BUG_ON(!f.error || !f.why[0] || strpbrk(f.why, "\r\n\t\x1b"));
	close(ends[1]);
	mem_reclaim();
	return 0;
}
