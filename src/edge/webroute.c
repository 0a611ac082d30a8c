/* The way of an HTTP request, from the listener's rules and policy. Owns the thread's texts that facts, rules and answer point to: a head is not ended by NULs, and what
 * rules look at is normalised, while the target gets it as it came. Does not know connections. */
#include "mctunnel/edge/webroute.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/proto/http1.h"
#include "mctunnel/tunnel/facts.h"
#include "mctunnel/tunnel/rules.h"

#include <string.h>

#define HEAD_MAX (64u << 10) /* the most that listener.max_head allows */

static _Thread_local struct {
	char method[HTTP1_METHOD_MAX + 1], host[256], query[HEAD_MAX + 1], path[HEAD_MAX + 1];
	char values[HEAD_MAX + HTTP1_FIELDS_MAX]; /* of fields that were asked for: all of them fit */
	const char *value[HTTP1_FIELDS_MAX];      /* each of them in there; NULL: not yet */
	size_t values_len;
	struct verdict verdict;
	struct policy_answer policy;
	struct rules_route said; /* not by rules */
	char route[160]; /* the first, as policies see it */
	char name[2][64];
	const char *alpn[1];
} here;

static void copy(char *out, size_t size, struct http1_text t)
{
	size_t n = t.len < size ? t.len : size - 1;

	if (n > 0)
		memcpy(out, t.at, n);
	out[n] = '\0';
}

uint16_t webroute_host(char *host, size_t size, const char *authority, size_t len)
{
	const char *close = memchr(authority, ']', len), *colon = memchr(close ? close : authority, ':', len - (size_t)((close ? close : authority) - authority));
	size_t n = colon ? (size_t)(colon - authority) : len, at = 0;
	unsigned port = 0;

	for (const char *c = colon ? colon + 1 : authority + len; c < authority + len; c++)
		port = port * 10 + (unsigned)(*c - '0');
	for (size_t i = 0; i < n && at + 1 < size; i++) {
		char c = authority[i];

		if (c != '[' && c != ']')
			host[at++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
	}
	if (at > 1 && host[at - 1] == '.')
		at--; /* the same name, written out to the root */
	host[at] = '\0';
	return (uint16_t)port;
}

/* What rules have caught points into values: each keeps its place for the request. */
static const char *value_of(const struct http1_head *h, size_t field)
{
	struct http1_text t = h->fields[field].value;

	if (here.value[field])
		return here.value[field];
	char *place = here.values + here.values_len;
	copy(place, sizeof(here.values) - here.values_len, t);
	here.values_len += strlen(place) + 1;
	return here.value[field] = place;
}

static const char *header(const void *arg, const char *name, size_t i)
{
	const struct http1_head *h = arg;

	for (size_t k = 0; k < h->fields_n; k++) {
		if (http1_is(h->fields[k].name, name) && i-- == 0)
			return value_of(h, k);
	}
	return NULL;
}

/* false: the path is malformed. */
static bool gather(struct facts *f, const struct webroute_ask *a)
{
	const struct http1_head *h = a->head;
	uint16_t port = 0;

	copy(here.method, sizeof(here.method), h->method);
	copy(here.query, sizeof(here.query), h->query);
	here.host[0] = '\0';
	here.values_len = 0;
	memset(here.value, 0, h->fields_n * sizeof(here.value[0]));
	if (h->authority.len > 0)
		port = webroute_host(here.host, sizeof(here.host), h->authority.at, h->authority.len);
	if (http1_normalise(here.path, h->path) < 0)
		return false;
	here.alpn[0] = a->alpn;
	*f = (struct facts){ .listener = a->place->l->name, .src = *a->src, .dst = *a->dst, .dst_port = addr_port(a->dst), .tls = a->tls, .sni = a->sni, .cert = a->cert,
			     .alpn = here.alpn, .alpn_n = a->alpn ? 1 : 0, .method = here.method, .host = here.host, .path = here.path, .query = here.query,
			     .header = header, .header_arg = h };
	if (a->place->l->mode == MODE_CONNECT)
		f->dst_port = port;
	return true;
}

static void refuse(struct webroute *out, unsigned status, enum reason why, const char *text)
{
	*out = (struct webroute){ .kind = WEBROUTE_REFUSE, .status = status, .why = why, .text = text };
}

/* The listener has neither rules nor a route. A CONNECT proxy understands SERVICE.TUNNEL then. */
static void by_name(struct webroute *out, const struct webroute_ask *a)
{
	char *dot = strchr(here.host, '.');

	if (a->place->l->mode != MODE_CONNECT || a->place->l->rules_n > 0 || !dot || dot == here.host || !dot[1]) {
		refuse(out, 404, REASON_NO_ROUTE, NULL);
		return;
	}
	*dot = '\0';
	here.said = (struct rules_route){ .tunnel = dot + 1, .service = here.host };
	*out = (struct webroute){ .kind = WEBROUTE_GO, .routes = &here.said, .routes_n = 1 };
}

static void go(struct webroute *out, const struct verdict *v)
{
	*out = (struct webroute){ .kind = WEBROUTE_GO, .rewrite = v->rewrite };
	if (v->rule) {
		out->routes = v->route;
		out->routes_n = v->route_n;
	}
}

static void by_rules(struct webroute *out, const struct webroute_ask *a, const struct facts *f)
{
	struct verdict *v = &here.verdict;

	if (a->place->rules) {
		rules_match(a->place->rules, f, v);
	} else {
		v->kind = a->place->l->route_n > 0 ? VERDICT_ROUTE : VERDICT_NONE;
		v->rule = NULL;
		v->rewrite = NULL;
	}
	switch (v->kind) {
	case VERDICT_ROUTE: go(out, v); break;
	case VERDICT_DENY: refuse(out, v->status, REASON_DENIED, NULL); break;
	case VERDICT_RESOURCES: refuse(out, 503, REASON_RESOURCES, NULL); break;
	case VERDICT_REJECT: *out = (struct webroute){ .kind = WEBROUTE_REJECT, .why = REASON_REJECTED }; break;
	case VERDICT_REDIRECT:
		*out = (struct webroute){ .kind = WEBROUTE_REDIRECT, .why = REASON_REDIRECTED, .status = v->status, .location = v->location };
		break;
	case VERDICT_NONE:
		if (v->rule)
			refuse(out, v->too_long ? 414 : 404, REASON_NO_ROUTE, NULL);
		else
			by_name(out, a);
	}
}

static const char *first_route(const struct webroute *r, const struct place *p)
{
	struct strbuf b;

	if (!r->routes)
		return p->l->route_n > 0 ? p->l->route[0].text : NULL;
	if (r->routes_n == 0)
		return NULL;
	strbuf_init(&b, here.route, sizeof(here.route));
	strbuf_add(&b, "%s/%s", r->routes[0].tunnel, r->routes[0].service);
	return here.route;
}

/* A path that a rule has rewritten stays so where the policy says another route. */
static void reroute(struct webroute *out, const struct policy_answer *p)
{
	str_copy(here.name[0], sizeof(here.name[0]), p->tunnel);
	str_copy(here.name[1], sizeof(here.name[1]), p->service);
	here.said = (struct rules_route){ .tunnel = here.name[0], .service = here.name[1] };
	out->routes = &here.said;
	out->routes_n = 1;
}

static void by_policy(struct webroute *out, const struct webroute_ask *a, const struct facts *f)
{
	struct policy_answer *p = &here.policy;

	policy_ask(a->place->l->policy, f, first_route(out, a->place), a->id, p);
	if (p->starved) {
		refuse(out, 503, REASON_RESOURCES, NULL);
		return;
	}
	out->rate_up = p->rate_up;
	out->rate_down = p->rate_down;
	switch (p->kind) {
	case POLICY_ALLOW: break;
	case POLICY_DENY: refuse(out, p->status ? p->status : 403, REASON_POLICY, p->reason[0] ? p->reason : NULL); break;
	case POLICY_REJECT: *out = (struct webroute){ .kind = WEBROUTE_REJECT, .why = REASON_POLICY }; break;
	case POLICY_ROUTE: reroute(out, p); break;
	}
}

void webroute(struct webroute *out, const struct webroute_ask *ask)
{
	struct facts f;
	bool none;

	if (!gather(&f, ask)) {
		refuse(out, 400, REASON_BAD_REQUEST, "The path is malformed.");
		return;
	}
	by_rules(out, ask, &f);
	/* a policy may know a way where the rules know none */
	none = out->kind == WEBROUTE_REFUSE && out->why == REASON_NO_ROUTE && out->status == 404;
	if (ask->place->l->policy && (out->kind == WEBROUTE_GO || none)) {
		struct webroute before = *out;

		if (none)
			*out = (struct webroute){ .kind = WEBROUTE_GO, .routes = &here.said, .routes_n = 0 };
		by_policy(out, ask, &f);
		if (out->kind == WEBROUTE_GO && out->routes && out->routes_n == 0)
			*out = before;
	}
}
