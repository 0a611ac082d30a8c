/* What is known of a client, or of one HTTP request, when it is decided where it goes. Plain data, borrowed from whoever asks, good for the call. */
#ifndef MCTUNNEL_TUNNEL_FACTS_H
#define MCTUNNEL_TUNNEL_FACTS_H

#include "mctunnel/base/addr.h"

struct facts {
	const char *listener;
	struct addr src, dst;    /* as the PROXY header says, where one is believed */
	uint16_t dst_port;       /* of dst; mode connect: what was asked for */
	bool tls;                /* the client speaks TLS, ended here or not */
	const char *sni;         /* NULL: none was said; lower case */
	const char *const *alpn; /* what the client offers; alpn_n 0: nothing */
	size_t alpn_n;
	const char *cert;        /* name in the client's certificate that was checked; NULL: none */
	/* HTTP only, else NULL */
	const char *method;
	const char *host;        /* lower case, without port */
	const char *path;        /* normalised, without query */
	const char *query;       /* with its '?', "" when there is none */
	/* The i-th value of a field (names in any case), NULL: there is no such. Good as long as the facts: captures point there. NULL itself where there are no fields. */
	const char *(*header)(const void *arg, const char *name, size_t i);
	const void *header_arg;
};

#endif
