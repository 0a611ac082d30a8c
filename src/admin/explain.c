/* The command `route`: puts a client that an operator describes before a listener's rules, as the frontend does with real ones, and tells which rule applies and where
 * it leads at this moment. Opens nothing; policies are named, not asked. */
#include "mctunnel/admin/explain.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/webroute.h"
#include "mctunnel/proto/http1.h"
#include "mctunnel/tunnel/facts.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/rules.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIST_MAX 8 /* of --alpn, --header */
#define TEXT_MAX 4096 /* a line of the admin socket is shorter */

struct client { /* as described */
	const char *listener, *src, *host, *path, *method, *sni, *port;
	const char *alpn[LIST_MAX];
	size_t alpn_n;
	char *headers[LIST_MAX]; /* "Name: value", cut at the colon */
	const char *values[LIST_MAX];
	size_t headers_n;
	char host_text[256], path_text[TEXT_MAX], query[TEXT_MAX];
	struct facts facts;
};

/* The description */

static const char **option(struct client *c, const char *name)
{
	const struct {
		const char *name;
		const char **value;
	} options[] = {
		{ "--listener", &c->listener }, { "--src", &c->src }, { "--host", &c->host }, { "--path", &c->path },
		{ "--method", &c->method }, { "--sni", &c->sni }, { "--port", &c->port },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (strcmp(options[i].name, name) == 0)
			return options[i].value;
	}
	return NULL;
}

static bool add_header(struct answer *a, struct client *c, char *text)
{
	char *colon = strchr(text, ':');

	if (!colon || colon == text) {
		answer_say(a, true, "A header is written \"Name: value\", not '%.80s'.", text);
		return false;
	}
	*colon = '\0';
	c->values[c->headers_n] = colon + 1 + strspn(colon + 1, " \t");
	c->headers[c->headers_n++] = text;
	return true;
}

static bool take_option(struct answer *a, struct client *c, const char *name, char *value)
{
	const char **single = option(c, name);
	bool alpn = strcmp(name, "--alpn") == 0, header = strcmp(name, "--header") == 0;

	if (!single && !alpn && !header) {
		answer_say(a, true, "Unknown option '%.80s': --listener, --src, --port, --host, --path, --method, --sni, --alpn, --header are known.", name);
		return false;
	}
	if (!value) {
		answer_say(a, true, "The value of %s is missing.", name);
		return false;
	}
	if ((single && *single) || (alpn && c->alpn_n == LIST_MAX) || (header && c->headers_n == LIST_MAX)) {
		answer_say(a, true, single ? "%s stands there twice." : "There are too many %s.", name);
		return false;
	}
	if (header)
		return add_header(a, c, value);
	if (alpn)
		c->alpn[c->alpn_n++] = value;
	else
		*single = value;
	return true;
}

static bool take_options(struct answer *a, struct client *c)
{
	for (int i = 0; i < a->argc; i += 2) {
		if (!take_option(a, c, a->argv[i], i + 1 < a->argc ? a->argv[i + 1] : NULL))
			return false;
	}
	return true;
}

static const struct place *find_place(struct answer *a, const struct generation *g, const struct client *c)
{
	struct suggest s = { .word = c->listener ? c->listener : "" };

	if (!g || g->conf->listeners_n == 0) {
		answer_say(a, true, "There are no listeners here.");
		return NULL;
	}
	if (!c->listener && g->conf->listeners_n == 1)
		return &g->places[0];
	if (!c->listener) {
		answer_say(a, true, "Which listener? --listener NAME; 'show listeners' lists them.");
		return NULL;
	}
	const struct place *p = generation_place(g, c->listener);
	for (size_t i = 0; !p && i < g->conf->listeners_n; i++)
		suggest_try(&s, g->conf->listeners[i].name);
	if (!p)
		answer_say(a, true, "There is no listener '%.80s'%s.", c->listener, suggest_text(&s));
	return p;
}

static const char *header(const void *arg, const char *name, size_t i)
{
	const struct client *c = arg;

	for (size_t k = 0; k < c->headers_n; k++) {
		if (strcasecmp(c->headers[k], name) == 0 && i-- == 0)
			return c->values[k];
	}
	return NULL;
}

static bool set_src(struct answer *a, struct client *c)
{
	struct addr *src = &c->facts.src;

	if (!c->src)
		return true;
	if (inet_pton(AF_INET, c->src, &src->u.in4.sin_addr) == 1) {
		src->len = sizeof(src->u.in4);
		src->u.in4.sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, c->src, &src->u.in6.sin6_addr) == 1) {
		src->len = sizeof(src->u.in6);
		src->u.in6.sin6_family = AF_INET6;
	} else {
		answer_say(a, true, "'%.80s' is no address.", c->src);
		return false;
	}
	return true;
}

static bool set_port(struct answer *a, struct client *c, const struct conf_listener *l)
{
	uint64_t port;

	if (l->bind_n)
		c->facts.dst_port = addr_port(&l->bind[0].addr);
	if (!c->port)
		return true;
	if (!str_u64(c->port, 65535, &port)) {
		answer_say(a, true, "'%.80s' is no port.", c->port);
		return false;
	}
	c->facts.dst_port = (uint16_t)port;
	return true;
}

/* As the frontend sees it: the host in lower case and without port, the path normalised and without query. */
static bool set_request(struct answer *a, struct client *c, const struct conf_listener *l)
{
	const char *path = c->path ? c->path : l->mode == MODE_HTTP ? "/" : "";
	size_t len = strcspn(path, "?#");
	uint16_t port = webroute_host(c->host_text, sizeof(c->host_text), c->host ? c->host : "", c->host ? strlen(c->host) : 0);

	if (http1_normalise(c->path_text, (struct http1_text){ path, (uint32_t)len }) < 0) {
		answer_say(a, true, "The path '%.80s' is malformed: it would be answered with 400.", path);
		return false;
	}
	if (path[len] == '?')
		snprintf(c->query, sizeof(c->query), "%.*s", (int)strcspn(path + len, "#"), path + len);
	if (l->mode == MODE_CONNECT && port && !c->port)
		c->facts.dst_port = port;
	c->facts.host = c->host_text;
	c->facts.path = c->path_text;
	c->facts.query = c->query;
	c->facts.method = c->method ? c->method : l->mode == MODE_CONNECT ? "CONNECT" : "GET";
	c->facts.header = header;
	c->facts.header_arg = c;
	return true;
}

static void lower(char *s)
{
	for (; *s; s++)
		*s = *s >= 'A' && *s <= 'Z' ? (char)(*s + ('a' - 'A')) : *s;
}

static bool describe(struct answer *a, struct client *c, const struct conf_listener *l)
{
	bool request = l->mode == MODE_HTTP || l->mode == MODE_CONNECT;

	c->facts.listener = l->name;
	if (c->sni)
		lower((char *)c->sni); /* a word of the answer's own line */
	c->facts.sni = c->sni;
	c->facts.alpn = c->alpn;
	c->facts.alpn_n = c->alpn_n;
	c->facts.tls = c->sni || c->alpn_n || l->tls.at.file || l->mode == MODE_TLS;
	if (!set_src(a, c) || !set_port(a, c, l))
		return false;
	if (!request && (c->host || c->path || c->method || c->headers_n)) {
		answer_say(a, true, "Hosts, paths, methods and headers are known in modes http and connect only.");
		return false;
	}
	return !request || set_request(a, c, l);
}

/* Where it leads */

static bool is_allowed(const struct conf_tunnel *t, const char *service)
{
	for (size_t i = 0; i < t->services.n; i++) {
		if (str_glob(t->services.v[i], service))
			return true;
	}
	return false;
}

static const char *state_of(const struct generation *g, const char *tunnel, const char *service)
{
	static const char *const offers[] = { [OFFER_NONE] = "NONE", [OFFER_DOWN] = "DOWN", [OFFER_UP] = "UP" };
	const struct site *site = generation_site(g, tunnel);

	if (!site)
		return "UNKNOWN";
	return is_allowed(site->t, service) ? offers[registry_offer(tunnel, service)] : "DENIED";
}

/* Modes connect without rules and route: the client names tunnel and service, as webroute.c has it. */
static void by_name(struct client *c, const struct conf_listener *l, struct verdict *v)
{
	char *dot = strchr(c->host_text, '.');

	if (l->mode != MODE_CONNECT || v->kind != VERDICT_NONE || l->rules_n > 0 || !dot || dot == c->host_text || !dot[1])
		return;
	*dot = '\0';
	v->kind = VERDICT_ROUTE;
	v->route[0].tunnel = dot + 1;
	v->route[0].service = c->host_text;
	v->route_n = 1;
}

static void tell_rule(struct answer *a, const struct place *p, const struct verdict *v)
{
	char at[600];

	answer_pair(a, "listener", p->l->name);
	if (!v->rule) {
		answer_pair(a, "rule", NULL);
		return;
	}
	snprintf(at, sizeof(at), "%s:%d", v->rule->at.file, v->rule->at.line);
	answer_pair_int(a, "rule", (int64_t)v->index);
	answer_pair(a, "at", at);
}

static const char *why_none(const struct verdict *v)
{
	if (!v->rule)
		return "no rule applies, and the listener has no route";
	return v->too_long ? "what the rule makes of the request is too long" : "what the rule has caught makes no name of a tunnel or service, or no path";
}

static void json_routes(struct answer *a, const struct generation *g, const struct verdict *v)
{
	FILE *out = answer_pair_json(a, "routes");

	fputc('[', out);
	for (size_t i = 0; i < v->route_n; i++)
		fprintf(out, "%s{\"route\":\"%s/%s\",\"status\":\"%s\"}", i ? "," : "", v->route[i].tunnel, v->route[i].service,
			state_of(g, v->route[i].tunnel, v->route[i].service)); /* names need no escapes */
	fputc(']', out);
}

static void tell_routes(struct answer *a, const struct generation *g, const struct verdict *v)
{
	char text[200], to[200] = "";

	for (size_t i = 0; i < v->route_n; i++) {
		const char *state = state_of(g, v->route[i].tunnel, v->route[i].service);

		if (!to[0] && strcmp(state, "UP") == 0)
			snprintf(to, sizeof(to), "%s/%s", v->route[i].tunnel, v->route[i].service);
		snprintf(text, sizeof(text), "%s/%s %s", v->route[i].tunnel, v->route[i].service, state);
		if (a->form == FORM_TEXT)
			answer_pair(a, "route", text);
	}
	if (a->form == FORM_JSON)
		json_routes(a, g, v);
	answer_pair(a, "to", to[0] ? to : NULL);
}

static void tell(struct answer *a, const struct generation *g, const struct place *p, const struct verdict *v)
{
	static const char *const actions[] = { [VERDICT_ROUTE] = "route", [VERDICT_DENY] = "deny", [VERDICT_REJECT] = "reject", [VERDICT_REDIRECT] = "redirect", [VERDICT_NONE] = "none" };

	if (v->kind == VERDICT_RESOURCES) {
		answer_say(a, true, "There is no memory to find out.");
		return;
	}
	tell_rule(a, p, v);
	answer_pair(a, "action", actions[v->kind]);
	if (v->kind == VERDICT_NONE)
		answer_pair(a, "why", why_none(v));
	if (v->kind == VERDICT_DENY || v->kind == VERDICT_REDIRECT)
		answer_pair_int(a, "status", v->status);
	if (v->kind == VERDICT_REDIRECT)
		answer_pair(a, "location", v->location);
	if (v->kind != VERDICT_ROUTE && v->kind != VERDICT_NONE)
		return;
	if (v->kind == VERDICT_ROUTE)
		tell_routes(a, g, v);
	if (v->kind == VERDICT_ROUTE && v->rewrite)
		answer_pair(a, "rewrite", v->rewrite);
	if (p->l->policy)
		answer_pair(a, "policy", p->l->policy);
}

int explain_route(struct answer *a)
{
	const struct generation *g = frontend_generation();
	struct client c = { 0 };
	struct verdict v;

	if (!take_options(a, &c))
		return ANSWER_DONE;
	const struct place *p = find_place(a, g, &c);
	if (!p || !describe(a, &c, p->l))
		return ANSWER_DONE;
	rules_match(p->rules, &c.facts, &v);
	by_name(&c, p->l, &v);
	tell(a, g, p, &v);
	return ANSWER_DONE;
}
