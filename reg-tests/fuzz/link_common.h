/* For link_hub.c and link_agent.c: a link whose other end is the input, and owners of its sessions. */
#include "../unit/tunnel/flat.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/session.h"

#include <stdlib.h>
#include <string.h>

#define OWNERS 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct owner {
	struct session *s;
	bool fin;
};

static struct {
	struct link *l;
	struct owner owner[OWNERS];
	struct list parked;
	uint64_t us, ids;
	uint8_t habits; /* bits: what the owners do */
	bool dead;
} fuzz;

/* Ids that a corpus can name. */
void rnd_bytes(void *buf, size_t len)
{
	memset(buf, 0x11, len);
	memcpy(buf, &fuzz.ids, sizeof fuzz.ids < len ? sizeof fuzz.ids : len);
	fuzz.ids++;
}

static void owner_read(struct owner *o)
{
	struct iovec iov[4];
	for (int n; o->s && (n = session_peek(o->s, iov, 4)) > 0;) {
		session_consume(o->s, iov[0].iov_len > 1 && (fuzz.habits & 1) ? iov[0].iov_len / 2 : iov[0].iov_len);
		if (fuzz.habits & 2)
			return;
	}
}

static void owner_write(struct owner *o, size_t len)
{
	struct iovec iov[2];
	if (!o->s || o->fin || session_reserve(o->s, iov, 2) == 0)
		return;
	if (len > iov[0].iov_len)
		len = iov[0].iov_len;
	memset(iov[0].iov_base, 'o', len);
	session_commit(o->s, len);
}

static void owner_fin(struct owner *o)
{
	if (o->s && !o->fin) {
		o->fin = true;
		session_fin(o->s);
	}
}

static void owner_release(struct owner *o)
{
	if (o->s && o->fin && session_ended(o->s)) {
		session_release(o->s);
		o->s = NULL;
	}
}

static void owner_open(void *arg, const char *target)
{
	owner_write(arg, 100);
}

static void owner_readable(void *arg)
{
	struct owner *o = arg;
	if (!(fuzz.habits & 4))
		owner_read(o);
	if (o->s && session_ended(o->s))
		owner_fin(o);
	owner_release(o);
}

static void owner_writable(void *arg)
{
	owner_write(arg, 1000);
}

static void owner_end(void *arg, enum reason why, bool refused)
{
	((struct owner *)arg)->s = NULL;
}

static void owner_nothing(void *arg)
{
}

static const struct session_events owner_events = {.on_open = owner_open,
						   .on_readable = owner_readable,
						   .on_writable = owner_writable,
						   .on_end = owner_end,
						   .on_leave = owner_nothing,
						   .on_arrive = owner_nothing};

static void link_nothing(void *arg)
{
}

static void link_hello_came(void *arg, enum h2_frame type, const char *json, size_t len)
{
	BUG_ON(json[len] != 0 && len > 0);
}

static void link_closing(void *arg, enum reason why)
{
}

static void link_died(void *arg, enum reason why)
{
	BUG_ON(fuzz.dead);
	fuzz.dead = true;
}

static void say(void)
{
	static uint8_t out[64 << 10];
	for (int i = 0; i < 100 && !fuzz.dead && link_wants_output(fuzz.l); i++)
		if (link_flat(fuzz.l, out, sizeof out) == 0)
			break;
}

static void hear(const uint8_t *data, size_t len)
{
	if (fuzz.dead)
		return;
	uint8_t *piece = xmalloc(len);
	memcpy(piece, data, len);
	BUG_ON(link_input(fuzz.l, piece, len) != 0 && !fuzz.dead);
	free(piece);
}

static void turn(const uint8_t *data, size_t len)
{
	hear(data, len);
	say();
	fuzz.us += 7000;
	clock_set_us(fuzz.us);
	timers_run();
	for (int i = 0; i < OWNERS; i++)
		if (!(fuzz.habits & 4) || len % 3 == 0)
			owner_readable(&fuzz.owner[i]);
	mem_reclaim();
}

/* The rest in pieces: the whole, or such that frames and fields are torn. */
static void feed(const uint8_t *data, size_t size)
{
	static const size_t sizes[] = {1 << 20, 1, 7, 9, 64, 333, 4096, 16384};
	size_t piece = sizes[fuzz.habits >> 5];
	while (size > 0 && !fuzz.dead) {
		size_t n = size < piece ? size : piece;
		turn(data, n);
		data += n;
		size -= n;
	}
}

static void start(enum h2_role role, const struct link_events *ev, uint8_t habits)
{
	memset(&fuzz, 0, sizeof fuzz);
	fuzz.habits = habits;
	fuzz.us = 1000000;
	clock_set_us(fuzz.us);
	list_init(&fuzz.parked);
	fuzz.l = link_new(role, ev, NULL, 5);
	BUG_ON(!fuzz.l);
	link_heartbeat(fuzz.l, 1000, 60000);
	say();
}

static void finish(void)
{
	static const enum mem_kind kinds[] = {MEM_SESSION, MEM_LINK, MEM_CHUNK, MEM_MORSEL};
	for (int i = 0; i < OWNERS; i += 2)
		if (fuzz.owner[i].s) {
			session_abort(fuzz.owner[i].s, REASON_CLIENT_RESET);
			fuzz.owner[i].s = NULL;
		}
	say();
	link_down(fuzz.l, REASON_LINK_CLOSED, &fuzz.parked);
	link_free(fuzz.l);
	session_end_list(&fuzz.parked, REASON_STOPPED);
	session_stop_all(REASON_STOPPED);
	mem_reclaim();
	BUG_ON(session_count() > 0 || timers_wait_ms() != -1);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		struct mem_usage use;
		mem_usage(kinds[i], &use);
		BUG_ON(use.used);
	}
}
