/* The rules of a listener, made ready: which one applies to a client, and where that leads. Exact names, suffixes ("*.example.com") and networks are looked up,
 * not scanned, so that thousands of rules cost little. Immutable; any thread may ask. */
#ifndef MCTUNNEL_TUNNEL_RULES_H
#define MCTUNNEL_TUNNEL_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct conf_listener;
struct conf_rule;
struct facts;
struct rules;

/* l was checked by conf_load, so nothing is wrong with it; it is borrowed until rules_free. */
struct rules *rules_new(const struct conf_listener *l);
void rules_free(struct rules *r);

#define RULES_ROUTES 16
#define RULES_TEXT 8192

enum verdict_kind {
	VERDICT_ROUTE,
	VERDICT_DENY,
	VERDICT_REJECT,
	VERDICT_REDIRECT,
	VERDICT_NONE,     /* no rule applies and the listener has no route */
	VERDICT_RESOURCES /* no memory to find out which rule applies; rule NULL */
};

struct rules_route {
	const char *tunnel, *service;
};

struct verdict {
	enum verdict_kind kind;
	const struct conf_rule *rule; /* NULL: none applied, the listener's route stands (or DENY, see below) */
	size_t index;                 /* of the rule */
	unsigned status;              /* of DENY (403) and REDIRECT (302) */
	bool too_long;                /* NONE, because what the rule makes of the request does not fit below */
	size_t route_n;
	struct rules_route route[RULES_ROUTES]; /* captures filled in; not yet looked for */
	const char *rewrite;  /* NULL: as it came; the path, without query */
	const char *location; /* of REDIRECT */
	size_t text_len;
	char text[RULES_TEXT]; /* what the members above point to */
};

/* Run top down: the first rule all of whose conditions hold; or, of those that deny or reject, where an expression gave up at its limits. What fills a capture is checked:
 * a route with a part that is no name (letters, digits, '.', '_', '-') is left out, and without any other it is VERDICT_NONE (rule set), as when a rewritten path would have
 * dot segments; a location or path never holds control characters (they are %-escaped), and a location leads to another host only where the template says so.
 * Where a rule of mode http looks at sni and not at host, a request whose host is not the name that its connection was made for is denied (421, rule NULL): clients of HTTP/2 use
 * one connection for all names of its certificate. out need not be cleared before. */
void rules_match(const struct rules *r, const struct facts *f, struct verdict *out);

/* Would it need what only a ClientHello or a request tells? (mode tcp: no rule may; conf_load refuses it.) */
bool rules_need_request(const struct rules *r);

#endif
