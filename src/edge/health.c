/* Health on the hub's port: joins a connection and the gRPC health server, and knows what is healthy: readiness from the worker, tunnels from
 * configuration and registry. Owns the callers of its thread and the limits on them: how many, how long without a Watch, how many frames. Strangers
 * come here, so whoever overdoes it is sent away, and no caller is read from for long in one turn. */
#include "mctunnel/edge/health.h"

#include "mctunnel/base/buf.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/proto/grpc_health.h"
#include "mctunnel/tunnel/registry.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CALLERS_MAX 1000
#define WATCHES_MAX 1000
#define PATIENCE_MS 5000    /* from one answer to the next, without a Watch */
#define GOODBYE_MS 1000     /* for taking the GOAWAY and closing */
#define FLOOD_BURST 1000u   /* frames at once, and ... */
#define FLOOD_RATE 200u     /* ... a second from then on */
#define PIECE 4096
#define PIECES 8            /* read in one turn */
#define DEAD_AFTER_S 30     /* a caller's machine that is gone */

struct caller {
	struct list node;
	struct conn *conn;          /* owned */
	struct grpc_health *health; /* owned */
	struct bufq unsent;
	struct deferred serve;
	struct timer patience;
	unsigned watches;
	uint32_t flood;             /* level of the bucket */
	uint64_t flood_ms;
	bool eof, shut;             /* the caller has ended; we have */
};

static _Thread_local struct {
	struct conf *const *conf;
	bool (*ready)(void);
	struct list callers;
	bool stopping;
} me;

static atomic_uint callers_n, watches_n; /* of the process */

/* ---- what is healthy ---- */

static const struct conf_tunnel *find_tunnel(const char *name, size_t len)
{
	const struct conf *conf = *me.conf;
	for (size_t i = 0; i < conf->tunnels_n; i++)
		if (strlen(conf->tunnels[i].name) == len && memcmp(conf->tunnels[i].name, name, len) == 0)
			return &conf->tunnels[i];
	return NULL;
}

static bool names_service(const struct conf_tunnel *t, const char *service)
{
	for (size_t i = 0; i < t->services.n; i++)
		if (strcmp(t->services.v[i], service) == 0 && !strchr(service, '*'))
			return true;
	return false;
}

/* A service that the configuration allows by a pattern only is known as long as an agent offers it. */
static enum health_status tunnel_status(const char *name)
{
	const char *slash = strchr(name, '/'), *service = slash ? slash + 1 : NULL;
	const struct conf_tunnel *t = find_tunnel(name, slash ? (size_t)(slash - name) : strlen(name));
	if (!t)
		return HEALTH_SERVICE_UNKNOWN;
	enum registry_offer offer = registry_offer(t->name, service);
	if (offer == OFFER_NONE && service && !names_service(t, service))
		return HEALTH_SERVICE_UNKNOWN;
	return offer == OFFER_UP ? HEALTH_SERVING : HEALTH_NOT_SERVING;
}

static enum health_status status(void *owner, const char *service)
{
	enum health_status s = HEALTH_SERVING;
	if (service[0] && strcmp(service, "readiness") != 0 && strcmp(service, "liveness") != 0)
		s = tunnel_status(service);
	bool alive = !me.stopping && (strcmp(service, "liveness") == 0 || me.ready());
	return s == HEALTH_SERVING && !alive ? HEALTH_NOT_SERVING : s;
}

struct listing {
	struct health_list *list;
	struct map *seen; /* owned */
};

static bool list_pair(struct listing *l, const char *tunnel, const char *service)
{
	char name[GRPC_HEALTH_NAME_MAX];
	struct strbuf b;
	strbuf_init(&b, name, sizeof name);
	strbuf_add(&b, service ? "%s/%s" : "%s", tunnel, service);
	if (map_set_str(l->seen, name, l))
		return true;
	return health_list_add(l->list, name, status(NULL, name));
}

static bool list_tunnel(struct listing *l, const struct conf_tunnel *t)
{
	bool room = list_pair(l, t->name, NULL);
	for (size_t i = 0; i < t->services.n && room; i++)
		if (names_service(t, t->services.v[i]))
			room = list_pair(l, t->name, t->services.v[i]);
	return room;
}

static void list_offers(struct listing *l)
{
	struct registry_agent *agents;
	size_t n = registry_snapshot(&agents);
	bool room = true;
	if (!agents)
		health_list_fail(l->list);
	for (size_t i = 0; i < n && room; i++) {
		const struct advert *a = agents[i].advert;
		for (size_t k = 0; k < a->services_n && room; k++)
			if (find_tunnel(a->tunnel, strlen(a->tunnel)))
				room = list_pair(l, a->tunnel, a->services[k].name);
	}
	registry_snapshot_free(agents, n);
}

static void list(void *owner, struct health_list *out)
{
	static const char *const own[] = {"", "readiness", "liveness"};
	const struct conf *conf = *me.conf;
	struct listing l = {out, map_new()};
	bool room = true;
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		health_list_add(out, own[i], status(NULL, own[i]));
	for (size_t i = 0; i < conf->tunnels_n && room; i++)
		room = list_tunnel(&l, &conf->tunnels[i]);
	if (room)
		list_offers(&l);
	map_free(l.seen);
}

/* ---- events of the server ---- */

/* Names that strangers choose make no series. */
static void count(const char *service, enum health_status s)
{
	static const char *const words[] = {"refused", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
	bool known = s == HEALTH_SERVING || s == HEALTH_NOT_SERVING;
	series_add(series_of(HEALTH_CHECKS, known ? service : "other", words[s]), 1);
	if (s != HEALTH_SERVING)
		series_add(series_alone(HEALTH_FAILURES), 1);
}

static void on_answered(void *owner, const char *service, enum health_status s)
{
	struct caller *c = owner;
	count(service, s);
	if (c->watches == 0 && !c->shut)
		timer_start(&c->patience, PATIENCE_MS);
}

static bool on_watch_begins(void *owner)
{
	struct caller *c = owner;
	if (atomic_fetch_add(&watches_n, 1) >= WATCHES_MAX) {
		atomic_fetch_sub(&watches_n, 1);
		return false;
	}
	c->watches++;
	timer_stop(&c->patience);
	return true;
}

static void on_watch_ends(void *owner)
{
	struct caller *c = owner;
	atomic_fetch_sub(&watches_n, 1);
	if (--c->watches == 0)
		timer_start(&c->patience, PATIENCE_MS);
}

static const struct grpc_health_events health_events = {
	.status = status,
	.list = list,
	.answered = on_answered,
	.watch_begins = on_watch_begins,
	.watch_ends = on_watch_ends,
};

/* ---- a caller ---- */

static void leave(struct caller *c, bool orderly)
{
	if (grpc_health_broken(c->health))
		stat_add(STAT_HEALTH_REFUSED, 1);
	grpc_health_free(c->health);
	timer_stop(&c->patience);
	loop_undefer(&c->serve);
	list_del(&c->node);
	if (orderly)
		conn_close(c->conn);
	else
		conn_abort(c->conn);
	bufq_clear(&c->unsent);
	mem_put(MEM_OTHER, c);
	atomic_fetch_sub(&callers_n, 1);
	stat_add(STAT_HEALTH_CALLERS, -1);
}

static void judge_flood(struct caller *c)
{
	uint64_t now = clock_ms(), leaked = (now - c->flood_ms) * FLOOD_RATE / 1000;
	if (leaked > 0) {
		c->flood = leaked > c->flood ? 0 : c->flood - (uint32_t)leaked;
		c->flood_ms = now;
	}
	c->flood += grpc_health_take_frames(c->health);
	if (c->flood > FLOOD_BURST)
		grpc_health_goaway(c->health, true);
}

/* False: the connection is broken. */
static bool read_some(struct caller *c)
{
	uint8_t piece[PIECE];
	struct iovec iov = {piece, sizeof piece};
	for (int i = 0; i < PIECES && c->conn->readable && !c->eof; i++) {
		ssize_t n = conn_readv(c->conn, &iov, 1);
		if (n == CONN_FAILED)
			return false;
		c->eof = n == 0;
		if (n <= 0)
			continue;
		grpc_health_input(c->health, piece, (size_t)n); /* after the end it throws away */
		judge_flood(c);
	}
	if (c->conn->readable && !c->eof)
		loop_defer(&c->serve);
	return true;
}

static bool write_all(struct caller *c)
{
	uint8_t piece[PIECE];
	if (conn_flush(c->conn, &c->unsent) < 0)
		return false;
	while (c->unsent.len == 0 && conn_unsent(c->conn) == 0) {
		size_t len = grpc_health_output(c->health, piece, sizeof piece);
		if (len == 0)
			return true;
		if (bufq_append(&c->unsent, piece, len) != 0 || conn_flush(c->conn, &c->unsent) < 0)
			return false;
	}
	return true;
}

static bool all_said(const struct caller *c)
{
	return c->unsent.len == 0 && conn_unsent(c->conn) == 0 && !grpc_health_wants_output(c->health);
}

/* Our end is said first, and what still comes is thrown away until the caller's: closing at once could make a RST of the GOAWAY. */
static bool say_end(struct caller *c)
{
	if (c->shut)
		return true;
	c->shut = true;
	timer_start(&c->patience, GOODBYE_MS);
	return conn_shut(c->conn) == 0;
}

/* May free the caller. */
static void serve(struct caller *c)
{
	bool good = read_some(c) && (c->shut || write_all(c));
	if (good && !c->eof && grpc_health_over(c->health) && all_said(c))
		good = say_end(c);
	if (!good || c->eof)
		leave(c, good);
}

static void run_serve(struct deferred *d)
{
	serve(container_of(d, struct caller, serve));
}

static void on_conn(struct conn *conn)
{
	serve(conn->owner);
}

static void on_patience(struct timer *t)
{
	struct caller *c = container_of(t, struct caller, patience);
	if (grpc_health_over(c->health)) {
		leave(c, false);
		return;
	}
	grpc_health_goaway(c->health, false);
	timer_start(&c->patience, GOODBYE_MS);
	serve(c);
}

static struct caller *make_caller(struct conn *conn)
{
	struct caller *c = mem_get(MEM_OTHER, sizeof *c);
	if (!c)
		return NULL;
	c->conn = conn;
	c->flood_ms = clock_ms();
	list_init(&c->node);
	timer_init(&c->patience, on_patience);
	deferred_init(&c->serve, run_serve);
	c->health = grpc_health_new(&health_events, c);
	if (c->health)
		return c;
	mem_put(MEM_OTHER, c);
	return NULL;
}

static bool take_place(void)
{
	if (atomic_fetch_add(&callers_n, 1) < CALLERS_MAX)
		return true;
	atomic_fetch_sub(&callers_n, 1);
	return false;
}

void health_welcome(struct conn *conn)
{
	bool place = !me.stopping && take_place();
	struct caller *c = place ? make_caller(conn) : NULL;
	if (!c) {
		if (place)
			atomic_fetch_sub(&callers_n, 1);
		stat_add(STAT_HEALTH_REFUSED, 1);
		conn_abort(conn);
		return;
	}
	conn->owner = c;
	conn->on_event = on_conn;
	sock_keepalive(conn_fd(conn), DEAD_AFTER_S);
	sock_user_timeout(conn_fd(conn), DEAD_AFTER_S * 1000);
	list_add(&me.callers, &c->node);
	stat_add(STAT_HEALTH_CALLERS, 1);
	timer_start(&c->patience, PATIENCE_MS);
	loop_defer(&c->serve);
}

void health_changed(void)
{
	list_for_each (n, &me.callers) {
		struct caller *c = container_of(n, struct caller, node);
		if (c->watches == 0)
			continue;
		grpc_health_changed(c->health);
		loop_defer(&c->serve);
	}
}

void health_stop(void)
{
	me.stopping = true;
	list_for_each_safe (n, &me.callers) {
		struct caller *c = container_of(n, struct caller, node);
		grpc_health_changed(c->health);
		bool good = c->shut || write_all(c);
		grpc_health_goaway(c->health, false);
		leave(c, good && (c->shut || write_all(c)) && all_said(c));
	}
}

void health_init(struct conf *const *conf, bool (*ready)(void))
{
	memset(&me, 0, sizeof me);
	me.conf = conf;
	me.ready = ready;
	list_init(&me.callers);
	registry_on_change(health_changed);
}
