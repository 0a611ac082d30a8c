/* Messages between master and worker. The socket keeps their borders (SOCK_SEQPACKET); here they get their parts, and what cannot be is
 * refused: the worker may have been taken over by somebody. Owns nothing but the descriptors of a message that is refused. */
#define _GNU_SOURCE
#include "mctunnel/main/control.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/net/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TEXT_MAX 16000

int control_pair(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
}

int control_send(int fd, enum control what, const void *bytes, size_t len, const int *fds, int fds_n)
{
	uint8_t *m;
	ssize_t n;

	BUG_ON(len > CONTROL_MAX || fds_n > CONTROL_FDS);
	m = xmalloc(len + 1);
	m[0] = (uint8_t)what;
	if (len)
		memcpy(m + 1, bytes, len);
	n = sock_send_fds(fd, m, len + 1, fds, fds_n);
	free(m);
	return n == (ssize_t)len + 1 ? 0 : -1;
}

int control_say(int fd, enum control what, uint32_t ticket, const char *text)
{
	struct control_ticket t = { ticket };
	size_t len = strnlen(text, TEXT_MAX);
	char bytes[sizeof(t) + TEXT_MAX];

	memcpy(bytes, &t, sizeof(t));
	memcpy(bytes + sizeof(t), text, len);
	return control_send(fd, what, bytes, sizeof(t) + len, NULL, 0);
}

static void drop_fds(struct control_msg *m)
{
	while (m->fds_n > 0)
		close(m->fds[--m->fds_n]);
}

int control_recv(int fd, struct control_msg *m, bool with_fds)
{
	uint8_t all[CONTROL_MAX + 2];
	ssize_t n;

	m->fds_n = with_fds ? CONTROL_FDS : 0;
	n = sock_recv_fds(fd, all, sizeof(all), m->fds, &m->fds_n);
	if (n <= 0)
		return (int)n;
	if (n == (ssize_t)sizeof(all)) {
		drop_fds(m);
		errno = EBADMSG;
		return -1;
	}
	m->what = (char)all[0];
	m->len = (size_t)n - 1;
	memcpy(m->bytes, all + 1, m->len);
	m->bytes[m->len] = 0;
	return 1;
}

const struct control_ticket *control_ticket_of(const struct control_msg *m, const char **text)
{
	if (m->len < sizeof(struct control_ticket))
		return NULL;
	*text = (const char *)m->bytes + sizeof(struct control_ticket);
	return (const struct control_ticket *)m->bytes;
}

const struct control_logs *control_logs_of(const struct control_msg *m)
{
	const struct control_logs *l = (const struct control_logs *)m->bytes;

	return m->len == sizeof(*l) && m->fds_n == __builtin_popcount(l->logs) ? l : NULL;
}

static bool origins_good(const int32_t *origins, const struct control_load *l, size_t held)
{
	bool *taken = xcalloc(held + 1, sizeof(*taken));
	uint32_t fresh = 0;
	bool good = true;

	for (uint32_t i = 0; i < l->sockets && good; i++) {
		if (origins[i] == -1) {
			fresh++;
			continue;
		}
		good = origins[i] >= 0 && (size_t)origins[i] < held && !taken[origins[i]];
		if (good)
			taken[origins[i]] = true;
	}
	free(taken);
	return good && fresh == l->fresh;
}

const struct control_load *control_load_of(const struct control_msg *m, size_t held, const int32_t **origins)
{
	const struct control_load *l = (const struct control_load *)m->bytes;

	if (m->len < sizeof(*l) || m->fds_n != 1 + __builtin_popcount(l->logs) || (m->len - sizeof(*l)) % sizeof(int32_t) != 0)
		return NULL;
	*origins = (const int32_t *)(m->bytes + sizeof(*l));
	if (l->sockets != (m->len - sizeof(*l)) / sizeof(int32_t) || !origins_good(*origins, l, held))
		return NULL;
	return l;
}
