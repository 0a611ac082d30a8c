/* The gRPC health checking protocol, grpc.health.v1.Health with Check, Watch and List, as a server on one connection: bytes in, bytes out.
 * Knows HTTP/2 (by h2_server), gRPC and the few messages; no sockets, no clock. What is healthy is its owner's knowledge. */
#ifndef MCTUNNEL_PROTO_GRPC_HEALTH_H
#define MCTUNNEL_PROTO_GRPC_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRPC_HEALTH_STREAMS 8       /* calls at once on a connection */
#define GRPC_HEALTH_FIELDS 4096     /* bytes of header fields of a call */
#define GRPC_HEALTH_MESSAGE 4096    /* bytes of a request */
#define GRPC_HEALTH_LISTED 100      /* services that List tells; with more it refuses */
#define GRPC_HEALTH_NAME_MAX 160

enum health_status { HEALTH_UNKNOWN, HEALTH_SERVING, HEALTH_NOT_SERVING, HEALTH_SERVICE_UNKNOWN }; /* as on the wire */

struct grpc_health;
struct health_list;

/* Called from within the functions below; may not call them, but health_list_add. */
struct grpc_health_events {
	enum health_status (*status)(void *owner, const char *service);
	void (*list)(void *owner, struct health_list *l); /* health_list_add for each service there is, once, until that is false; or health_list_fail */
	/* A status was told (to Watch: each time); status HEALTH_UNKNOWN: the call was refused, service is "" then. */
	void (*answered)(void *owner, const char *service, enum health_status status);
	bool (*watch_begins)(void *owner); /* false: there are too many */
	void (*watch_ends)(void *owner);
};

bool health_list_add(struct health_list *l, const char *service, enum health_status status);
void health_list_fail(struct health_list *l); /* no memory to find out all of them */

struct grpc_health *grpc_health_new(const struct grpc_health_events *ev, void *owner) __attribute__((warn_unused_result)); /* NULL: no memory */
void grpc_health_free(struct grpc_health *h); /* watch_ends is called for what is left */

void grpc_health_input(struct grpc_health *h, const uint8_t *data, size_t len);
size_t grpc_health_output(struct grpc_health *h, uint8_t *dst, size_t size); /* 0: nothing to say now */
bool grpc_health_wants_output(const struct grpc_health *h);

/* Something may have changed: who watches is told, unless it is what they were told last. */
void grpc_health_changed(struct grpc_health *h);

/* The end: GOAWAY, calls are cut. flood: because the client overdoes it. */
void grpc_health_goaway(struct grpc_health *h, bool flood);
bool grpc_health_over(const struct grpc_health *h);   /* input is thrown away; close when there is no output left */
bool grpc_health_broken(const struct grpc_health *h); /* because the client broke the protocol or a limit */

uint32_t grpc_health_take_frames(struct grpc_health *h); /* received since the last call */

#endif
