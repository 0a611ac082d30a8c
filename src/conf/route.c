/* Routes and the tunnels they name. Owns a map of the tunnels by name, as there may be thousands of both. */
#include "mctunnel/conf/route.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/finding.h"

#include <stdlib.h>
#include <string.h>

struct routes {
	const struct conf *conf;
	struct findings *findings;
	struct map *tunnels; /* by name, the first of each; owned */
};

struct routes *routes_new(const struct conf *c, struct findings *f)
{
	struct routes *r = xcalloc(1, sizeof(*r));

	r->conf = c;
	r->findings = f;
	r->tunnels = map_new();
	for (size_t i = 0; i < c->tunnels_n; i++) {
		struct conf_tunnel *t = &c->tunnels[i];
		if (t->name && !map_get_str(r->tunnels, t->name))
			map_set_str(r->tunnels, t->name, t);
	}
	return r;
}

void routes_free(struct routes *r)
{
	map_free(r->tunnels);
	free(r);
}

static bool is_open(const char *name)
{
	return strchr(name, '*');
}

/* What a service of which only a part is known might be is not looked into. */
static bool allows(const struct conf_tunnel *t, const char *service, struct suggest *s)
{
	for (size_t i = 0; i < t->services.n; i++) {
		const char *allowed = t->services.v[i];

		if (!allowed || is_open(service) || str_glob(allowed, service))
			return true;
		suggest_try(s, allowed);
	}
	return false;
}

static void check_open(const struct routes *r, const char *tunnel, const char *service, const void *field)
{
	struct suggest s = { .word = service };
	bool found = false;

	for (size_t i = 0; i < r->conf->tunnels_n; i++) {
		const struct conf_tunnel *t = &r->conf->tunnels[i];
		if (!t->name)
			return;
		if (!str_glob(tunnel, t->name))
			continue;
		found = true;
		if (allows(t, service, &s))
			return;
	}
	if (found)
		alert_on(r->findings, field, NULL, "no tunnel that could be meant allows a service \"%s\"%s", service, suggest_text(&s));
	else
		alert_on(r->findings, field, NULL, "there is no tunnel whose name could be \"%s\"", tunnel);
}

static void no_tunnel(const struct routes *r, const char *tunnel, const void *field)
{
	struct suggest s = { .word = tunnel };

	for (size_t i = 0; i < r->conf->tunnels_n; i++) {
		if (r->conf->tunnels[i].name)
			suggest_try(&s, r->conf->tunnels[i].name);
	}
	alert_on(r->findings, field, NULL, "there is no tunnel \"%s\"%s", tunnel, suggest_text(&s));
}

void routes_check(const struct routes *r, const char *tunnel, const char *service, const void *field)
{
	struct suggest s = { .word = service };

	if (is_open(tunnel)) {
		check_open(r, tunnel, service, field);
		return;
	}
	const struct conf_tunnel *t = map_get_str(r->tunnels, tunnel);
	if (!t)
		no_tunnel(r, tunnel, field);
	else if (!allows(t, service, &s))
		alert_on(r->findings, field, NULL, "tunnel \"%s\" (%s:%d) allows no service \"%s\"%s", tunnel, t->at.file, t->at.line, service, suggest_text(&s));
}
