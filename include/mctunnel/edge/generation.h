/* What a configuration means to listeners and tunnels: counts, limits and rules. One for each configuration, shared by the threads; counts go on by name from one to the
 * next. A client stays with the one it came under. */
#ifndef MCTUNNEL_EDGE_GENERATION_H
#define MCTUNNEL_EDGE_GENERATION_H

#include "mctunnel/base/flow.h"
#include "mctunnel/base/pace.h"
#include "mctunnel/event/aside.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct conf_listener;
struct conf_tunnel;
struct map;
struct netset;
struct quota;
struct rules;
struct tls_site;

struct tally { /* what has been */
	atomic_uint_fast64_t total, failed, up, down;
};

struct score { /* of a listener or a tunnel, by its name: goes from one generation to the next */
	atomic_uint refs, sessions;
	struct pace pace;     /* of a listener: accepting */
	struct flow up, down; /* bytes of all sessions, where they are limited */
	struct quota *quota;  /* owned; of a listener: what a client address may */
	struct tally tally;
	atomic_bool disabled;
};

struct site { /* a tunnel as the clients see it */
	const struct conf_tunnel *t;
	struct score *score; /* shared */
};

struct way { /* a route */
	struct site *site;
	const char *text, *service; /* "TUNNEL/SERVICE", and its second half */
};

struct place { /* a listener, all its sockets on all threads */
	const struct conf_listener *l;
	struct score *score; /* shared */
	struct way *ways;    /* owned: of l->route, for clients no rule concerns */
	struct rules *rules; /* owned */
	struct netset *proxies; /* owned: accept_proxy; NULL: nobody's header is expected */
	struct tls_site *tls;   /* shared: TLS that ends here; NULL: none */
};

struct generation {
	atomic_uint refs;
	struct aside end;     /* freed aside */
	struct conf *conf;    /* shared */
	struct site *sites;   /* owned: of conf->tunnels */
	struct place *places; /* owned: of conf->listeners */
	struct map *by_name;  /* owned: struct site by the tunnel's name */
};

/* With the counts of old (NULL: from nothing). sites: one for each listener, NULL where TLS does not end; NULL: nowhere. References are taken. */
struct generation *generation_new(struct conf *conf, struct tls_site *const *sites, const struct generation *old);
struct generation *generation_get(struct generation *g);
void generation_put(struct generation *g); /* NULL is allowed */

struct site *generation_site(const struct generation *g, const char *tunnel);    /* NULL: there is no such tunnel */
struct place *generation_place(const struct generation *g, const char *listener); /* NULL: none of that name */

#endif
