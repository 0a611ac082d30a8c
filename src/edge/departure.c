/* Ends what belongs to a virtual address that has moved. The host that has it now knows these connections not, so that whoever sends gets a RST
 * from there; who only waits would wait for ever. Owns nothing; when an address may have moved, it does not know.
 * The RST leaves with the address as its source, which needs a socket that may send from addresses of others (see sock_listen). */
#include "mctunnel/edge/departure.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/hub.h"
#include "mctunnel/net/sock.h"

#define ADDRESSES 8 /* own ones that are asked for once; a hub has few */

struct departure {
	struct addr known[ADDRESSES];
	bool here[ADDRESSES];
	size_t n;
	unsigned count;
};

static bool is_here(struct departure *d, int fd)
{
	struct addr local;
	size_t i = 0;

	if (fd < 0)
		return true;
	sock_local(fd, &local);
	while (i < d->n && !addr_same_host(&d->known[i], &local))
		i++;
	if (i < d->n)
		return d->here[i];
	if (d->n == ADDRESSES)
		return sock_is_here(&local);
	d->known[d->n] = local;
	d->here[d->n] = sock_is_here(&local);
	return d->here[d->n++];
}

static enum visit visit(struct departure *d, int fd)
{
	if (is_here(d, fd))
		return VISIT_NEXT;
	d->count++;
	return VISIT_MOVE;
}

static enum visit on_client(void *arg, const struct frontend_client *c)
{
	return visit(arg, c->fd);
}

static enum visit on_link(void *arg, const struct hub_link *l)
{
	return visit(arg, l->fd);
}

unsigned departure_run(void)
{
	struct departure d = { .n = 0 };
	uint64_t clients = 0, links = 0;

	while (!frontend_each(&clients, on_client, &d))
		;
	while (!hub_each(&links, on_link, &d))
		;
	return d.count;
}
