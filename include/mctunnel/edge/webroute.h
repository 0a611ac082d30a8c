/* Where an HTTP request goes: what is known of it is put before the listener's rules and its policy. */
#ifndef MCTUNNEL_EDGE_WEBROUTE_H
#define MCTUNNEL_EDGE_WEBROUTE_H

#include "mctunnel/base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;
struct http1_head;
struct place;
struct rules_route;

struct webroute_ask {
	const struct http1_head *head;
	const struct place *place;
	const struct addr *src, *dst;
	bool tls;
	const char *sni, *alpn, *cert; /* NULL: none */
	const char *id;                /* of the request */
};

enum webroute_kind { WEBROUTE_GO, WEBROUTE_REFUSE, WEBROUTE_REJECT, WEBROUTE_REDIRECT };

struct webroute { /* strings are good until the thread's next call */
	enum webroute_kind kind;
	const struct rules_route *routes; /* of GO; NULL: the listener's own */
	size_t routes_n;
	const char *rewrite;               /* the path for the target; NULL: as it came */
	unsigned status;                   /* of REFUSE, REDIRECT */
	enum reason why;                   /* of all but GO */
	const char *text;                  /* a sentence, NULL: none */
	const char *location;              /* of REDIRECT */
	uint64_t rate_up, rate_down;       /* bytes a second, 0: no limit: what the policy said */
};

void webroute(struct webroute *out, const struct webroute_ask *ask);
/* Host and port of an authority ("[::1]:80"): host in lower case, without brackets and without a dot at its end, cut where it does not fit; the port, 0: none. */
uint16_t webroute_host(char *host, size_t size, const char *authority, size_t len);

#endif
