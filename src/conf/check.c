/* The meaning of a configuration as a whole: defaults that depend on other things, and every rule that joins two keys or asks
 * the machine (users, files). Any pointer may still be NULL here: a missing key was reported before. What is inside of certificates is tls_files.c's. */
#define _GNU_SOURCE
#include "mctunnel/conf/check.h"

#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/conf/listener_tls.h"
#include "mctunnel/conf/route.h"
#include "mctunnel/conf/rule.h"
#include "mctunnel/conf/rule_check.h"
#include "mctunnel/conf/ticket_keys.h"
#include "mctunnel/conf/value.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BINDS 10000

struct check {
	struct conf *conf;
	struct findings *findings;
};

static uint32_t usable_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	int n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > 64 ? 64 : (uint32_t)n;
}

/* The host's name as far as it makes a name of ours. */
static char *host_name(void)
{
	char name[64] = "";

	if (gethostname(name, sizeof(name) - 1) < 0 || name[0] == '\0')
		return xstrdup("localhost");
	for (char *p = name; *p; p++) {
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", *p))
			*p = '-';
	}
	return xstrdup(name);
}

static void default_to(char **field, const char *value)
{
	if (!*field && value)
		*field = xstrdup(value);
}

static void complete_global(struct conf_global *g)
{
	if (g->threads == 0)
		g->threads = usable_cpus();
	if (g->log_n > 0)
		return;
	g->log = xcalloc(1, sizeof(*g->log));
	g->log_n = 1;
	g->log[0] = (struct conf_log){ .target = xstrdup("stderr"), .format = LOG_TEXT, .level = LOG_INFO };
}

static void complete_hub(struct conf_hub *h)
{
	if (!h->name)
		h->name = host_name();
	for (size_t i = 0; i < h->bind_n; i++)
		default_to(&h->bind[i].key, h->bind[i].cert);
}

static void complete_tunnel(struct conf_tunnel *t)
{
	if (t->agents.n > 0 || !t->name)
		return;
	t->agents.v = xcalloc(1, sizeof(char *));
	t->agents.v[0] = xstrdup(t->name);
	t->agents.n = 1;
}

static void complete_agent(struct conf_agent *a)
{
	if (!a->name)
		a->name = host_name();
	default_to(&a->tunnel, a->name);
	default_to(&a->key, a->cert);
}

static void complete(struct conf *c)
{
	complete_global(&c->global);
	if (c->hub.set)
		complete_hub(&c->hub);
	for (size_t i = 0; i < c->tunnels_n; i++)
		complete_tunnel(&c->tunnels[i]);
	if (c->agent.set)
		complete_agent(&c->agent);
}

/* Only a Unix socket has rights. */
static void check_admin(struct check *k)
{
	struct conf_global *g = &k->conf->global;

	for (size_t i = 0; i < g->admin_n; i++) {
		struct endpoint *e = &g->admin[i].bind;

		if (e->text && e->addr.u.sa.sa_family != AF_UNIX)
			warn_on(k->findings, e, NULL, "everybody who can reach \"%s\" may give commands there: a Unix socket has rights", e->text);
	}
}

/* They are run later, when all else is right. */
static void check_scripts(struct check *k)
{
	const struct conf_strings *load = &k->conf->global.lua.load;
	const char *why;
	size_t len;

	for (size_t i = 0; i < load->n; i++) {
		if (load->v[i] && !files_read(k->conf->files, load->v[i], &len, &why))
			alert_on(k->findings, &load->v[i], &load->v, "\"%s\" cannot be read: %s", load->v[i], why);
	}
}

static void check_global(struct check *k)
{
	struct conf_global *g = &k->conf->global;
	struct stat st;

	check_admin(k);
	check_scripts(k);
	if (files_closed(k->conf->files))
		return; /* in a chroot there are no users */
	if (g->user && !getpwnam(g->user))
		alert_on(k->findings, &g->user, NULL, "there is no user \"%s\"", g->user);
	if (g->group && !getgrnam(g->group))
		alert_on(k->findings, &g->group, NULL, "there is no group \"%s\"", g->group);
	if (!g->chroot)
		return;
	if (stat(g->chroot, &st) < 0)
		alert_on(k->findings, &g->chroot, NULL, "\"%s\": %s", g->chroot, strerror(errno));
	else if (!S_ISDIR(st.st_mode))
		alert_on(k->findings, &g->chroot, NULL, "\"%s\" is not a directory", g->chroot);
}

static bool check_file(struct check *k, char *const *path, const void *owner)
{
	const char *why;
	size_t len;

	if (!*path)
		return false;
	if (!files_read(k->conf->files, *path, &len, &why))
		alert_on(k->findings, path, owner, "\"%s\" cannot be read: %s", *path, why);
	else if (len == 0)
		alert_on(k->findings, path, owner, "\"%s\" is empty", *path);
	else
		return true;
	return false;
}

static void check_pair(struct check *k, char *const *cert, char *const *key, const void *owner)
{
	bool one_file = *cert && *key && strcmp(*cert, *key) == 0;
	bool readable = check_file(k, cert, owner);

	if (!one_file)
		readable = check_file(k, key, owner);
	if (readable && *key && files_world_readable(k->conf->files, *key))
		warn_on(k->findings, key, owner, "\"%s\" holds a key that others than its owner may read (chmod 600)", *key);
}

static void check_ticket_keys(struct check *k)
{
	char *const *path = &k->conf->global.ticket_keys;
	uint8_t keys[TICKET_KEYS_MAX][TICKET_KEY_BYTES];
	const char *why;
	char err[128];
	size_t len;

	if (!check_file(k, path, NULL))
		return;
	if (ticket_keys_parse(files_read(k->conf->files, *path, &len, &why), keys, err, sizeof(err)) < 0)
		alert_on(k->findings, path, NULL, "\"%s\": %s", *path, err);
	else if (files_world_readable(k->conf->files, *path))
		warn_on(k->findings, path, NULL, "\"%s\" holds keys that others than its owner may read (chmod 600)", *path);
	explicit_bzero(keys, sizeof(keys));
}

static void check_heartbeat(struct check *k, const uint32_t *interval, const uint32_t *timeout)
{
	char a[32], b[32];

	if (*timeout > *interval)
		return;
	value_show(KIND_TIME, *timeout, a, sizeof(a));
	value_show(KIND_TIME, *interval, b, sizeof(b));
	alert_on(k->findings, timeout, interval, "heartbeat.timeout (%s) must be longer than heartbeat.interval (%s)", a, b);
}

static void check_hub(struct check *k)
{
	struct conf_hub *h = &k->conf->hub;

	check_ticket_keys(k);
	check_heartbeat(k, &h->heartbeat_interval, &h->heartbeat_timeout);
	for (size_t i = 0; i < h->bind_n; i++) {
		struct conf_tls_bind *b = &h->bind[i];
		check_pair(k, &b->cert, &b->key, b);
		check_file(k, &b->client_ca, b);
		check_file(k, &b->crl, b);
	}
	if (k->conf->tunnels_n == 0)
		warn_on(k->findings, &h->at, NULL, "no tunnels: no agent can be let in");
}

/* Enters a name into names; reports one that is there already. */
static void check_unique(struct check *k, struct map *names, char *const *name, void *owner)
{
	if (!*name)
		return;
	char *const *other = map_get_str(names, *name);
	if (!other) {
		map_set_str(names, *name, (void *)name);
		return;
	}
	struct conf_where at = findings_where(k->findings, other, NULL);
	alert_on(k->findings, name, owner, "\"%s\" is taken already at %s:%d", *name, at.file, at.line);
}

static void check_tunnels(struct check *k)
{
	struct map *names = map_new();

	for (size_t i = 0; i < k->conf->tunnels_n; i++) {
		struct conf_tunnel *t = &k->conf->tunnels[i];
		check_unique(k, names, &t->name, t);
		if (t->services.n == 0)
			warn_on(k->findings, &t->services, t, "no services: agents may offer nothing here");
	}
	map_free(names);
}

/* Without a word of the password. */
static void check_users(struct check *k, const struct conf_listener *l)
{
	if (l->users.n > 0 && l->mode != MODE_CONNECT)
		alert_on(k->findings, &l->users.v, NULL, "users are asked for their name in mode connect only");
	for (size_t i = 0; i < l->users.n; i++) {
		const char *user = l->users.v[i], *colon = user ? strchr(user, ':') : NULL;

		if (user && (!colon || colon == user || !colon[1]))
			alert_on(k->findings, &l->users.v[i], NULL, "this is not \"NAME:PASSWORD\"");
	}
}

static void check_listeners(struct check *k)
{
	struct map *names = map_new();
	struct routes *routes = routes_new(k->conf, k->findings);

	for (size_t i = 0; i < k->conf->listeners_n; i++) {
		struct conf_listener *l = &k->conf->listeners[i];
		check_unique(k, names, &l->name, l);
		if (l->name && l->route_n == 0 && l->rules_n == 0 && !l->policy && l->mode != MODE_CONNECT)
			alert_on(k->findings, &l->at, NULL, "neither 'route' nor 'rules' nor 'policy': there is no way for clients");
		if (l->route_n > RULE_ROUTES_MAX)
			alert_on(k->findings, &l->route, NULL, "%zu routes are too many: the maximum is %d", l->route_n, RULE_ROUTES_MAX);
		for (size_t j = 0; j < l->route_n; j++) {
			if (l->route[j].text)
				routes_check(routes, l->route[j].tunnel, l->route[j].service, &l->route[j]);
		}
		check_users(k, l);
		listener_tls_check(k->conf, l, k->findings);
		rule_check(l, routes, k->findings);
	}
	routes_free(routes);
	map_free(names);
}

static bool is_wildcard(const struct addr *a)
{
	if (a->u.sa.sa_family == AF_INET)
		return a->u.in4.sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr);
}

/* Would the kernel refuse to let both listen? */
static bool overlap(const struct endpoint *a, const struct endpoint *b)
{
	bool local_a = a->addr.u.sa.sa_family == AF_UNIX, local_b = b->addr.u.sa.sa_family == AF_UNIX;

	if (local_a || local_b)
		return local_a && local_b && addr_equal(&a->addr, &b->addr);
	if (a->port != b->port)
		return false;
	if (a->any || b->any)
		return true;
	if (a->addr.u.sa.sa_family != b->addr.u.sa.sa_family)
		return false;
	return addr_equal(&a->addr, &b->addr) || is_wildcard(&a->addr) || is_wildcard(&b->addr);
}

struct binds {
	const struct endpoint **v;
	size_t n;
};

static void add_bind(struct check *k, struct binds *b, const struct endpoint *e)
{
	if (!e->text)
		return;
	for (size_t i = 0; i < b->n; i++) {
		if (!overlap(b->v[i], e))
			continue;
		struct conf_where at = findings_where(k->findings, b->v[i], NULL);
		alert_on(k->findings, e, NULL, "\"%s\" is bound already as \"%s\" at %s:%d", e->text, b->v[i]->text, at.file, at.line);
		return;
	}
	if (b->n == MAX_BINDS)
		alert_on(k->findings, e, NULL, "more than %d addresses to listen on", MAX_BINDS);
	else
		b->v[b->n++] = e;
}

static void check_binds(struct check *k)
{
	struct conf *c = k->conf;
	struct binds b = { .v = xcalloc(MAX_BINDS, sizeof(*b.v)) };

	add_bind(k, &b, &c->global.metrics);
	for (size_t i = 0; i < c->global.admin_n; i++)
		add_bind(k, &b, &c->global.admin[i].bind);
	for (size_t i = 0; i < c->hub.bind_n; i++)
		add_bind(k, &b, &c->hub.bind[i].address);
	for (size_t i = 0; i < c->listeners_n; i++) {
		for (size_t j = 0; j < c->listeners[i].bind_n; j++)
			add_bind(k, &b, &c->listeners[i].bind[j]);
	}
	free(b.v);
}

static void check_hubs(struct check *k)
{
	struct conf_agent *a = &k->conf->agent;
	struct map *seen = map_new();

	for (size_t i = 0; i < a->hubs_n; i++) {
		struct endpoint *e = &a->hubs[i];
		if (!e->text)
			continue;
		if (map_set_str(seen, e->text, e))
			alert_on(k->findings, e, &a->at, "\"%s\" is listed twice", e->text);
		if (!e->host && e->addr.u.sa.sa_family == AF_UNIX && !a->server_name)
			alert_on(k->findings, e, &a->at, "a hub on a Unix socket needs tls.server_name");
	}
	map_free(seen);
}

static bool given(struct check *k, const void *field)
{
	return findings_where(k->findings, field, NULL).file != NULL;
}

/* A key that the check's type has no use for is a mistake somewhere. */
static void check_of_type(struct check *k, const struct conf_check *c, const void *field, bool of_use, const char *types)
{
	if (!of_use && given(k, field))
		alert_on(k->findings, field, c, "only checks of type %s have this", types);
}

static bool is_word(const char *s, const char *more)
{
	for (; *s; s++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", *s) && !strchr(more, *s))
			return false;
	return true;
}

static bool is_graphic(const char *s)
{
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

/* What is sent to the target as it stands. */
static void check_texts(struct check *k, const struct conf_check *c)
{
	if (c->path && (c->path[0] != '/' || !is_graphic(c->path)))
		alert_on(k->findings, &c->path, c, "a path begins with '/' and has no blanks or control characters (write those as %%XX)");
	if (c->method && !is_word(c->method, "!#$%&'*+-.^_`|~"))
		alert_on(k->findings, &c->method, c, "\"%s\" is no HTTP method", c->method);
	if (c->host && !is_word(c->host, "-._:[]"))
		alert_on(k->findings, &c->host, c, "\"%s\" is no host name", c->host);
	else if (c->host && c->type == CHECK_TLS && strpbrk(c->host, ":[]"))
		alert_on(k->findings, &c->host, c, "the server name of TLS is a name without a port");
}

static void check_times(struct check *k, const struct conf_check *c)
{
	if (c->fastinter && c->fastinter < 10)
		alert_on(k->findings, &c->fastinter, c, "0, or at least 10ms");
	if (c->downinter && c->downinter < 10)
		alert_on(k->findings, &c->downinter, c, "0, or at least 10ms");
}

static void check_health(struct check *k, const struct conf_service *s)
{
	const struct conf_check *c = &s->check;
	bool http = c->type == CHECK_HTTP, tls = c->type == CHECK_TLS, grpc = c->type == CHECK_GRPC;

	if (c->type == CHECK_NONE)
		return;
	check_of_type(k, c, &c->path, http, "http");
	check_of_type(k, c, &c->method, http, "http");
	if (c->expect.n)
		check_of_type(k, c, &c->expect.v[0], http, "http");
	check_of_type(k, c, &c->service, grpc, "grpc");
	check_of_type(k, c, &c->host, http || tls || grpc, "http, tls and grpc");
	check_texts(k, c);
	check_times(k, c);
}

static void check_agent(struct check *k)
{
	struct conf_agent *a = &k->conf->agent;
	struct map *names = map_new();

	check_heartbeat(k, &a->heartbeat_interval, &a->heartbeat_timeout);
	if (a->backoff_max < a->backoff_min)
		alert_on(k->findings, &a->backoff_max, &a->backoff_min, "backoff.max is shorter than backoff.min");
	check_pair(k, &a->cert, &a->key, &a->at);
	check_file(k, &a->ca, &a->at);
	check_hubs(k);
	for (size_t i = 0; i < a->services_n; i++) {
		check_unique(k, names, &a->services[i].name, &a->services[i]);
		check_health(k, &a->services[i]);
	}
	map_free(names);
}

/* Tunnels and listeners are a hub's. */
static void check_sections(struct check *k, const char *first)
{
	struct conf *c = k->conf;

	if (!c->hub.set && !c->agent.set)
		alert_at(k->findings, (struct conf_where){ first, 0 }, "file", "neither a 'hub' nor an 'agent' section: there is nothing to do");
	if (c->hub.set)
		return;
	if (c->tunnels_n)
		alert_on(k->findings, &c->tunnels[0], NULL, "tunnels need a 'hub' section");
	if (c->listeners_n)
		alert_on(k->findings, &c->listeners[0], NULL, "listeners need a 'hub' section");
}

void check_conf(struct conf *c, const char *first, struct findings *f)
{
	struct check k = { .conf = c, .findings = f };

	complete(c);
	check_sections(&k, first);
	check_global(&k);
	if (c->hub.set)
		check_hub(&k);
	check_tunnels(&k);
	check_listeners(&k);
	check_binds(&k);
	if (c->agent.set)
		check_agent(&k);
}
