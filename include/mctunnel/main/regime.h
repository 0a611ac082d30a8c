/* What is in force in the worker: a configuration, the TLS contexts and scripts made from it, the sockets it listens on. */
#ifndef MCTUNNEL_MAIN_REGIME_H
#define MCTUNNEL_MAIN_REGIME_H

#include "mctunnel/edge/frontend.h"

#include <stddef.h>
#include <stdint.h>

struct conf;
struct script;
struct tls;
struct tls_site;
struct worker_socket;

struct regime {
	struct conf *conf;             /* shared */
	struct tls **hub_tls;          /* owned, one per hub.bind */
	struct tls *agent_tls;         /* owned */
	struct tls_site **sites;       /* owned, one per listener; NULL where TLS does not end */
	struct script **scripts;       /* owned, one per thread */
	size_t scripts_n;              /* 0: there are none */
	struct worker_socket *sockets; /* owned, their descriptors are not */
	size_t sockets_n;
};

/* A certificate or a script that cannot be used: -1, a sentence in err, and nothing is left in r. The sockets are set by the caller. */
int regime_make(struct regime *r, struct conf *conf, const uint8_t *ticket_key, char *err, size_t errsize) __attribute__((warn_unused_result));
void regime_free(struct regime *r);

/* The sockets as the frontend wants them (sorted, malloc'ed), those of the hub by number of bind (malloc'ed), and that of the metrics (-1: none). */
struct frontend_socket *regime_listeners(const struct regime *r, size_t *n);
int *regime_hub_sockets(const struct regime *r);
int regime_metrics_socket(const struct regime *r);

struct script *regime_script(const struct regime *r, size_t thread); /* NULL: there are none */

/* A line in the log for each certificate that ends within two weeks. */
void regime_warn_of_expiry(const struct regime *r);

#endif
