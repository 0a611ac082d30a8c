/* Generations: what each configuration means to listeners and tunnels while it is in use. Owns the counts, which go on from one generation to the next by
 * name, also while clients of the older one are still there, and the rules made ready for matching.
 * Does not know clients. */
#include "mctunnel/edge/generation.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/quota.h"
#include "mctunnel/net/tls_site.h"
#include "mctunnel/tunnel/rules.h"

#include <stdlib.h>
#include <string.h>

static struct score *score_get(struct score *s)
{
	atomic_fetch_add(&s->refs, 1);
	return s;
}

static void score_put(struct score *s)
{
	if (atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	quota_free(s->quota);
	free(s);
}

/* Old ones by name: a map, because a configuration may have thousands. */
static struct score *score_of(struct map *olds, const char *name)
{
	struct score *s = map_get_str(olds, name);

	return score_get(s ? s : xcalloc(1, sizeof(*s)));
}

static void fill_sites(struct generation *g, const struct generation *old)
{
	const struct conf *c = g->conf;
	struct map *olds = map_new();

	for (size_t i = 0; old && i < old->conf->tunnels_n; i++)
		map_set_str(olds, old->sites[i].t->name, old->sites[i].score);
	g->sites = xcalloc(c->tunnels_n, sizeof(*g->sites));
	g->by_name = map_new();
	for (size_t i = 0; i < c->tunnels_n; i++) {
		g->sites[i] = (struct site){ .t = &c->tunnels[i], .score = score_of(olds, c->tunnels[i].name) };
		map_set_str(g->by_name, c->tunnels[i].name, &g->sites[i]);
	}
	map_free(olds);
}

static struct netset *proxies_of(const struct conf_listener *l)
{
	struct netset *s = l->accept_proxy.n ? netset_new() : NULL;
	char err[160];

	for (size_t i = 0; i < l->accept_proxy.n; i++) {
		if (netset_add(s, l->accept_proxy.v[i], 0, err, sizeof(err)) < 0)
			bug_panic(__FILE__, __LINE__, "accept_proxy was not checked: %s", err);
	}
	return s;
}

static void place_init(struct place *p, const struct generation *g, const struct conf_listener *l)
{
	p->l = l;
	p->proxies = proxies_of(l);
	p->rules = rules_new(l);
	p->ways = xcalloc(l->route_n, sizeof(*p->ways));
	for (size_t i = 0; i < l->route_n; i++) {
		p->ways[i] = (struct way){ .site = generation_site(g, l->route[i].tunnel), .text = l->route[i].text, .service = l->route[i].service };
		BUG_ON(!p->ways[i].site); /* routes were checked */
	}
}

static void fill_places(struct generation *g, const struct generation *old)
{
	const struct conf *c = g->conf;
	struct map *olds = map_new();

	for (size_t i = 0; old && i < old->conf->listeners_n; i++)
		map_set_str(olds, old->places[i].l->name, old->places[i].score);
	g->places = xcalloc(c->listeners_n, sizeof(*g->places));
	for (size_t i = 0; i < c->listeners_n; i++) {
		place_init(&g->places[i], g, &c->listeners[i]);
		g->places[i].score = score_of(olds, c->listeners[i].name);
		if (!g->places[i].score->quota)
			g->places[i].score->quota = quota_new();
	}
	map_free(olds);
}

struct generation *generation_new(struct conf *conf, struct tls_site *const *sites, const struct generation *old)
{
	struct generation *g = xcalloc(1, sizeof(*g));

	atomic_init(&g->refs, 1);
	g->conf = conf_get(conf);
	fill_sites(g, old);
	fill_places(g, old);
	for (size_t i = 0; sites && i < conf->listeners_n; i++)
		g->places[i].tls = sites[i] ? tls_site_get(sites[i]) : NULL;
	return g;
}

struct generation *generation_get(struct generation *g)
{
	atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	return g;
}

static void generation_free(struct aside *a)
{
	struct generation *g = container_of(a, struct generation, end);

	for (size_t i = 0; i < g->conf->listeners_n; i++) {
		free(g->places[i].ways);
		rules_free(g->places[i].rules);
		netset_free(g->places[i].proxies);
		tls_site_put(g->places[i].tls);
		score_put(g->places[i].score);
	}
	for (size_t i = 0; i < g->conf->tunnels_n; i++)
		score_put(g->sites[i].score);
	map_free(g->by_name);
	free(g->places);
	free(g->sites);
	conf_put(g->conf);
	free(g);
}

void generation_put(struct generation *g)
{
	if (g && atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) == 1)
		aside_run(&g->end, generation_free);
}

struct site *generation_site(const struct generation *g, const char *tunnel)
{
	return map_get_str(g->by_name, tunnel);
}

struct place *generation_place(const struct generation *g, const char *listener)
{
	for (size_t i = 0; i < g->conf->listeners_n; i++) {
		if (strcmp(g->conf->listeners[i].name, listener) == 0)
			return &g->places[i];
	}
	return NULL;
}
