/* Names to addresses, over c-ares.
 * A thread owns one channel, the watches of its sockets, a copy of /etc/hosts (read again when it changes; after a chroot the last
 * copy stays) and the last good answers of at most 64 names, for the time when the name servers are gone.
 * It does not know what the addresses are for. */
#define _GNU_SOURCE
#include "mctunnel/net/resolve.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/event/loop.h"

#include <ares.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/time.h>

#define ANSWER_MAX 16
#define CACHE_MAX 64
#define HOSTS_MAX 4096 /* lines of /etc/hosts that are kept */
#define NAME_MAX_LEN 256
#define TIMEOUT_MS 1000 /* of the first try, the second waits twice as long: within a usual connect timeout */
#define TRIES 2
#define PATIENCE_MS 300 /* then the last good answer will do, and the new one is only remembered */

static const char hosts_path[] = "/etc/hosts";

struct answer {
	size_t n;
	struct addr addrs[ANSWER_MAX];
};

struct resolve {
	struct resolver *resolver;
	void (*on_done)(void *arg, const struct resolved *r);
	void *arg;
	uint16_t port;
	bool asking;    /* c-ares holds a pointer to it */
	bool cancelled; /* nobody waits for it; goes when c-ares lets go of it */
	bool answered;  /* waits in the list of deferred work */
	bool starved;
	struct deferred deliver;
	struct timer patience;
	struct answer answer;
	char why[96];
	char name[NAME_MAX_LEN];
};

struct lookup_socket {
	struct list node;
	struct watch watch;
	bool wants_write;
};

struct last_good {
	struct list node; /* the oldest first */
	struct answer answer;
	char name[NAME_MAX_LEN];
};

struct host_line {
	struct addr addr;
	char *name; /* owned */
};

struct resolver {
	ares_channel channel;
	struct timer timer;
	struct list sockets, cache;
	unsigned cached;
	struct host_line *hosts; /* owned */
	size_t host_count;
	struct timespec hosts_time;
	bool blind; /* a socket of c-ares could not be watched: nothing would come of what it asks */
};

/* c-ares asks for both families, and says what one of them came to when it had no memory for the other. */
static _Thread_local bool refused; /* an allocation of c-ares was, since it was called */

static void *take_memory(size_t n)
{
	void *p = malloc(n);

	refused |= n && !p;
	return p;
}

static void *change_memory(void *old, size_t n)
{
	void *p = realloc(old, n);

	refused |= n && !p;
	return p;
}

static _Thread_local struct resolver *self;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int library_status;

/* ---- /etc/hosts ---- */

static void forget_hosts(struct resolver *r)
{
	for (size_t i = 0; i < r->host_count; i++)
		free(r->hosts[i].name);
	free(r->hosts);
	r->hosts = NULL;
	r->host_count = 0;
}

static bool parse_ip(struct addr *out, const char *text)
{
	char with_port[80];

	snprintf(with_port, sizeof(with_port), strchr(text, ':') ? "[%s]:0" : "%s:0", text);
	return addr_parse(out, with_port) == 0;
}

static void add_hosts_line(struct resolver *r, char *line)
{
	static const char blank[] = " \t\r\n";
	struct addr a;
	char *save, *word;

	line[strcspn(line, "#")] = 0;
	word = strtok_r(line, blank, &save);
	if (!word || !parse_ip(&a, word))
		return;
	while (r->host_count < HOSTS_MAX && (word = strtok_r(NULL, blank, &save))) {
		r->hosts = xrealloc(r->hosts, (r->host_count + 1) * sizeof(*r->hosts));
		r->hosts[r->host_count].addr = a;
		r->hosts[r->host_count++].name = xstrdup(word);
	}
}

static void read_hosts(struct resolver *r)
{
	struct stat st;
	char *line = NULL;
	size_t size = 0;
	FILE *f;

	if (stat(hosts_path, &st) < 0 || (st.st_mtim.tv_sec == r->hosts_time.tv_sec && st.st_mtim.tv_nsec == r->hosts_time.tv_nsec))
		return;
	f = fopen(hosts_path, "re");
	if (!f)
		return;
	forget_hosts(r);
	r->hosts_time = st.st_mtim;
	while (getline(&line, &size, f) > 0)
		add_hosts_line(r, line);
	if (!feof(f))
		r->hosts_time = (struct timespec){ 0, 0 }; /* some lines are missing: once more, next time */
	free(line);
	fclose(f);
}

static bool known_already(const struct answer *a, const struct addr *b)
{
	for (size_t i = 0; i < a->n; i++) {
		if (addr_equal(&a->addrs[i], b))
			return true;
	}
	return false;
}

static void answer_add(struct answer *a, const struct addr *b)
{
	if (a->n < ANSWER_MAX && !known_already(a, b))
		a->addrs[a->n++] = *b;
}

static void look_in_hosts(struct resolver *r, const char *name, struct answer *out)
{
	read_hosts(r);
	for (size_t i = 0; i < r->host_count; i++) {
		if (strcasecmp(r->hosts[i].name, name) == 0)
			answer_add(out, &r->hosts[i].addr);
	}
}

/* ---- answers ---- */

/* RFC 8305 section 4: the families alternate, beginning with the one that is first now. */
static void interleave(struct answer *a)
{
	struct answer out = { .n = 0 };
	bool taken[ANSWER_MAX] = { false };
	sa_family_t want = a->n ? a->addrs[0].u.sa.sa_family : 0;

	while (out.n < a->n) {
		size_t pick = ANSWER_MAX;

		for (size_t i = a->n; i-- > 0;) {
			if (!taken[i] && (a->addrs[i].u.sa.sa_family == want || pick == ANSWER_MAX ||
					  a->addrs[pick].u.sa.sa_family != want))
				pick = i;
		}
		taken[pick] = true;
		out.addrs[out.n++] = a->addrs[pick];
		want = a->addrs[pick].u.sa.sa_family == AF_INET6 ? AF_INET : AF_INET6;
	}
	*a = out;
}

static void set_port(struct answer *a, uint16_t port)
{
	for (size_t i = 0; i < a->n; i++) {
		if (a->addrs[i].u.sa.sa_family == AF_INET6)
			a->addrs[i].u.in6.sin6_port = htons(port);
		else
			a->addrs[i].u.in4.sin_port = htons(port);
	}
}

static struct last_good *last_good(struct resolver *r, const char *name)
{
	list_for_each(p, &r->cache) {
		struct last_good *g = container_of(p, struct last_good, node);

		if (strcasecmp(g->name, name) == 0)
			return g;
	}
	return NULL;
}

static void drop_last_good(struct resolver *r, struct last_good *g)
{
	list_del(&g->node);
	free(g);
	r->cached--;
}

static void remember(struct resolver *r, const char *name, const struct answer *a)
{
	struct last_good *g = last_good(r, name);

	if (g)
		drop_last_good(r, g);
	else if (r->cached == CACHE_MAX)
		drop_last_good(r, list_first(&r->cache, struct last_good, node));
	g = malloc(sizeof(*g));
	if (!g)
		return; /* only a convenience */
	g->answer = *a;
	str_copy(g->name, sizeof(g->name), name);
	list_add(&r->cache, &g->node);
	r->cached++;
}

/* Nobody waits for it any more. */
static void let_go(struct resolve *q)
{
	timer_stop(&q->patience);
	loop_undefer(&q->deliver);
	q->cancelled = true;
	if (!q->asking)
		mem_put(MEM_OTHER, q);
}

static void deliver(struct deferred *d)
{
	struct resolve *q = container_of(d, struct resolve, deliver);

	interleave(&q->answer);
	set_port(&q->answer, q->port);
	q->on_done(q->arg, &(struct resolved){ q->answer.addrs, q->answer.n, q->why, q->starved && q->answer.n == 0 });
	let_go(q);
}

static void answered(struct resolve *q)
{
	timer_stop(&q->patience);
	q->answered = true;
	loop_defer(&q->deliver);
}

static void on_patience(struct timer *t)
{
	struct resolve *q = container_of(t, struct resolve, patience);
	const struct last_good *g = last_good(q->resolver, q->name);

	if (!g)
		return;
	q->answer = g->answer;
	answered(q);
}

static const char *status_text(int status)
{
	switch (status) {
	case ARES_ENOTFOUND:
		return "name does not exist";
	case ARES_ENODATA:
		return "name has no address";
	case ARES_ETIMEOUT:
		return "timed out";
	case ARES_ECONNREFUSED:
		return "no name server can be reached";
	case ARES_ESERVFAIL:
		return "name server failed";
	case ARES_EREFUSED:
		return "name server refused";
	case ARES_EBADNAME:
		return "not a possible name";
	case ARES_ENOMEM:
		return "no memory";
	default:
		return ares_strerror(status);
	}
}

/* The name may still be good: it is the servers that failed. */
static bool servers_failed(int status)
{
	return status != ARES_ENOTFOUND && status != ARES_ENODATA && status != ARES_EBADNAME;
}

static void take_nodes(struct answer *a, const struct ares_addrinfo *info)
{
	for (const struct ares_addrinfo_node *n = info->nodes; n; n = n->ai_next) {
		struct addr b = { .len = 0 };

		if ((n->ai_family != AF_INET && n->ai_family != AF_INET6) || n->ai_addrlen > sizeof(b.u))
			continue;
		b.len = n->ai_addrlen;
		memcpy(&b.u, n->ai_addr, n->ai_addrlen);
		answer_add(a, &b);
	}
}

static void on_ares(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct resolve *q = arg;
	struct answer fresh = { .n = 0 };
	const struct last_good *g = NULL;

	q->asking = false;
	if (status == ARES_SUCCESS)
		take_nodes(&fresh, info);
	ares_freeaddrinfo(info);
	if (fresh.n > 0)
		remember(q->resolver, q->name, &fresh);
	if (q->cancelled || status == ARES_EDESTRUCTION) {
		let_go(q);
		return;
	}
	if (q->answered)
		return;
	if (fresh.n == 0 && (refused || servers_failed(status)))
		g = last_good(q->resolver, q->name);
	q->answer = g ? g->answer : fresh;
	q->starved = refused || status == ARES_ENOMEM || status == ARES_ECANCELLED;
	str_copy(q->why, sizeof(q->why), status_text(q->starved ? ARES_ENOMEM : status == ARES_SUCCESS ? ARES_ENODATA : status));
	answered(q);
}

/* ---- c-ares and the loop ---- */

/* After each call of c-ares. A question of which a part is lost would only time out, or find half an answer: all end now, and are told why. */
static void set_timer(struct resolver *r)
{
	struct timeval tv, *next;

	if (r->blind || refused)
		ares_cancel(r->channel);
	r->blind = refused = false;
	next = ares_timeout(r->channel, NULL, &tv);
	if (next)
		timer_start(&r->timer, (uint64_t)next->tv_sec * 1000 + (uint64_t)next->tv_usec / 1000 + 1);
	else
		timer_stop(&r->timer);
}

static void on_timer(struct timer *t)
{
	struct resolver *r = container_of(t, struct resolver, timer);

	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	set_timer(r);
}

static struct lookup_socket *find_socket(struct resolver *r, int fd)
{
	list_for_each(p, &r->sockets) {
		struct lookup_socket *s = container_of(p, struct lookup_socket, node);

		if (s->watch.fd == fd)
			return s;
	}
	return NULL;
}

static void on_socket(struct watch *w, unsigned events);

/* c-ares need not read until nothing is left, so an edge may be owed: watching anew reports what is there. */
static void watch_anew(struct lookup_socket *s)
{
	int fd = s->watch.fd;

	loop_unwatch(&s->watch);
	if (loop_watch(&s->watch, fd, on_socket) < 0) {
		self->blind = true;
		list_del(&s->node);
		mem_put(MEM_OTHER, s);
	}
}

static void on_socket(struct watch *w, unsigned events)
{
	struct lookup_socket *s = container_of(w, struct lookup_socket, watch);
	struct resolver *r = self;
	bool read = events & (LOOP_READ | LOOP_HUP | LOOP_PEER_SHUT), write = (events & LOOP_WRITE) && s->wants_write;
	int fd = w->fd;

	if (!read && !write)
		return;
	ares_process_fd(r->channel, read ? fd : ARES_SOCKET_BAD, write ? fd : ARES_SOCKET_BAD);
	s = find_socket(r, fd); /* it may be gone */
	if (s && read)
		watch_anew(s);
	set_timer(r);
}

static void add_socket(struct resolver *r, int fd)
{
	struct lookup_socket *s = mem_get(MEM_OTHER, sizeof(*s));

	if (s && loop_watch(&s->watch, fd, on_socket) == 0) {
		list_add(&r->sockets, &s->node);
		return;
	}
	mem_put(MEM_OTHER, s);
	r->blind = true;
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct lookup_socket *s = find_socket(r, fd);

	if (!s && (readable || writable)) {
		add_socket(r, fd);
		s = find_socket(r, fd);
	}
	if (!s)
		return;
	if (!readable && !writable) {
		loop_unwatch(&s->watch);
		list_del(&s->node);
		mem_put(MEM_OTHER, s);
		return;
	}
	if (writable && !s->wants_write) {
		s->wants_write = true;
		watch_anew(s);
		return;
	}
	s->wants_write = writable;
}

static void library_init(void)
{
	library_status = ares_library_init_mem(ARES_LIB_INIT_ALL, take_memory, free, change_memory);
}

int resolve_init(char *err, size_t errsize)
{
	struct ares_options o = { .timeout = TIMEOUT_MS, .tries = TRIES, .sock_state_cb = on_socket_state, .lookups = (char[]){ "b" } };
	struct resolver *r;
	int status;

	BUG_ON(self);
	pthread_once(&once, library_init);
	r = xcalloc(1, sizeof(*r));
	o.sock_state_cb_data = r;
	status = library_status;
	if (status == ARES_SUCCESS)
		status = ares_init_options(&r->channel, &o, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_LOOKUPS);
	if (status != ARES_SUCCESS) {
		snprintf(err, errsize, "cannot set up the resolver: %s", ares_strerror(status));
		free(r);
		return -1;
	}
	list_init(&r->sockets);
	list_init(&r->cache);
	timer_init(&r->timer, on_timer);
	read_hosts(r);
	self = r;
	return 0;
}

void resolve_fini(void)
{
	struct resolver *r = self;

	if (!r)
		return;
	ares_destroy(r->channel); /* unwatches its sockets, frees what is under way */
	BUG_ON(!list_empty(&r->sockets));
	timer_stop(&r->timer);
	while (!list_empty(&r->cache))
		drop_last_good(r, list_first(&r->cache, struct last_good, node));
	forget_hosts(r);
	free(r);
	self = NULL;
}

/* RFC 6761: localhost never leaves the host, whatever the file says. */
static void add_localhost(const char *name, struct answer *out)
{
	struct addr a;

	if (out->n == 0 && strcasecmp(name, "localhost") == 0) {
		if (parse_ip(&a, "::1"))
			answer_add(out, &a);
		if (parse_ip(&a, "127.0.0.1"))
			answer_add(out, &a);
	}
}

struct resolve *resolve_start(const char *host, uint16_t port, void (*on_done)(void *arg, const struct resolved *r), void *arg)
{
	const struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct resolver *r = self;
	struct resolve *q;

	BUG_ON(!r);
	q = mem_get(MEM_OTHER, sizeof(*q));
	if (!q)
		return NULL;
	q->resolver = r;
	q->on_done = on_done;
	q->arg = arg;
	q->port = port;
	deferred_init(&q->deliver, deliver);
	timer_init(&q->patience, on_patience);
	if (!str_copy(q->name, sizeof(q->name), host)) {
		str_copy(q->why, sizeof(q->why), "not a possible name");
		answered(q);
		return q;
	}
	look_in_hosts(r, host, &q->answer);
	add_localhost(host, &q->answer);
	if (q->answer.n > 0) {
		answered(q);
		return q;
	}
	q->asking = true;
	timer_start(&q->patience, PATIENCE_MS);
	ares_getaddrinfo(r->channel, host, NULL, &hints, on_ares, q);
	set_timer(r);
	return q;
}

void resolve_cancel(struct resolve *q)
{
	let_go(q);
}
