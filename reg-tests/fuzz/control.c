/* Fuzzes what a worker that was taken over can tell its master: messages over their socket, and the page both have in their memory. The first byte says how many descriptors come
 * along, the next two how many sockets the master holds and where the page's events end. Parts of a message lie within it; a list of origins names each socket once. */
#define _GNU_SOURCE
#include "mctunnel/main/control.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/ring.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void message(const struct control_msg *m, size_t held)
{
	const uint8_t *end = m->bytes + m->len;
	const struct control_ticket *t;
	const struct control_load *l;
	const int32_t *origins;
	const char *text;

	t = control_ticket_of(m, &text);
	BUG_ON(t && ((const uint8_t *)(t + 1) > end || (const uint8_t *)text > end || strlen(text) > m->len));
	const struct control_logs *logs = control_logs_of(m);
	BUG_ON(logs && (const uint8_t *)(logs + 1) != end);
	l = control_load_of(m, held, &origins);
	if (!l)
		return;
	BUG_ON((const uint8_t *)(origins + l->sockets) != end || l->fresh > l->sockets || l->sockets - l->fresh > held);
	for (uint32_t i = 0; i < l->sockets; i++) {
		BUG_ON(origins[i] < -1 || origins[i] >= (int32_t)held);
		for (uint32_t k = 0; k < i && origins[i] >= 0; k++)
			BUG_ON(origins[i] == origins[k]);
	}
}

static void page(const uint8_t *data, size_t size, uint32_t at)
{
	struct ring_page *p = calloc(1, sizeof(*p));
	size_t room = 1 + at % sizeof(p->events);
	char *buf = malloc(room);

	BUG_ON(!p || !buf);
	p->at = at;
	memcpy(p->events, data, size < sizeof(p->events) ? size : sizeof(p->events));
	memset(p->panic, 'x', sizeof(p->panic));
	memcpy(p->panic, data, size < sizeof(p->panic) ? size : sizeof(p->panic));
	memset(buf, 'x', room);
	ring_page_events(p, buf, room);
	BUG_ON(!memchr(buf, '\0', room));
	ring_share(p);
	memset(buf, 'x', room);
	ring_panic(buf, room);
	BUG_ON(!memchr(buf, '\0', room));
	ring_share(NULL);
	free(buf);
	free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct control_msg m;
	uint32_t at;

	if (size < 8 || size - 8 > CONTROL_MAX)
		return 0;
	memcpy(&at, data + 4, sizeof(at));
	m.fds_n = data[0] % (CONTROL_FDS + 1);
	m.what = (char)data[1];
	m.len = size - 8;
	memcpy(m.bytes, data + 8, m.len);
	m.bytes[m.len] = 0;
	message(&m, data[2]);
	page(data + 8, size - 8, at);
	return 0;
}
