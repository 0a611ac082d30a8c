/* Who is there: agents' links (on the hub) or hubs' links (on the agent), and the sessions that wait for one. Each thread has a replica; thread 0 decides on
 * claims, so that two agents of one name cannot both win; changes travel as messages. See doc/internals/registry.md. */
#ifndef MCTUNNEL_TUNNEL_REGISTRY_H
#define MCTUNNEL_TUNNEL_REGISTRY_H

#include "mctunnel/base/addr.h"
#include "mctunnel/base/reason.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/proto/hello.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link;
struct list;
struct h2_fields;

/* What a peer (an agent instance, or a hub instance) has said of itself; immutable, shared by the threads. */
struct advert {
	atomic_uint refs;
	char name[HELLO_NAME_MAX];   /* certificate name of the agent; name of the hub */
	char tunnel[HELLO_NAME_MAX]; /* hub side only */
	uint8_t instance[16];
	char addr[ADDR_TEXT];
	char version[32];
	bool draining;
	uint64_t serial;   /* of the AGENT frame it was made of: what is older than what is known changes nothing */
	uint64_t heard_ms; /* clock_ms() when that came: services[].since_ms is before this */
	struct hello_service *services; /* owned; only those that were accepted */
	size_t services_n;
	atomic_uint *sessions; /* shared by all adverts of the instance: sessions carried for it, all threads (owned through its own count, see registry.c) */
	atomic_uint *rtt_us;   /* the same way: of that link of the instance that was measured last; 0: none was */
};
struct advert *advert_new(void);
struct advert *advert_get(struct advert *a);
void advert_put(struct advert *a);

void registry_init(void); /* each thread, before anything else here */
void registry_stop(void); /* no session goes on elsewhere any more; parked ones end with STOPPED (again after links went down) */
void registry_fini(void);

/* A link of this thread was greeted: may it join? on_verdict is called once, later in this turn or in a later one, on this thread, unless the claim's link id was withdrawn
 * by registry_gone. thread: where the link shall live from now on (spread over threads). NAME_IN_USE when another instance of that name has a live link that is not
 * draining (hub side only; on the agent two hubs of one name are welcome). Takes a reference of advert. max_links: of the process. */
struct registry_verdict {
	uint64_t id;
	bool accepted;
	enum reason why;
	int thread;
};
uint64_t registry_claim(struct advert *a, bool unique_names, uint32_t max_links, void (*on_verdict)(void *arg, const struct registry_verdict *v), void *arg);

/* The accepted link lives on this thread now and carries sessions; parked sessions come to it. Every thread hears of it. */
void registry_up(uint64_t id, struct link *l, struct advert *a);
/* It said something new (services, health, draining). */
void registry_update(uint64_t id, struct advert *a);
/* It takes no new sessions any more (GOAWAY). */
void registry_retire(uint64_t id);
/* It is gone (or the claim is given up). Its sessions were parked by link_down into registry_parking(id): they go on elsewhere at once if they can. */
void registry_gone(uint64_t id);
/* Where link_down puts the sessions of that link. Never NULL. */
struct list *registry_parking(uint64_t id);

/* Hub: link_events.on_strand of that link. The session waits with the others of its agent, and goes on as soon as a link takes it. */
void registry_strand(uint64_t id, struct list *node);

/* This thread's link of that id, NULL when it is not here (any more). */
struct link *registry_link(uint64_t id);

enum pick_result { PICK_OK, PICK_NONE, PICK_FULL };
struct pick {
	int thread;             /* where the link lives */
	uint64_t link;          /* id */
	struct advert *advert;  /* one reference for the caller */
};
/* Chooses agent and link for a new session of tunnel/service by the tunnel's balance; avoid: instances tried already for this client (16 bytes each). */
enum pick_result registry_pick(const struct conf_tunnel *t, const char *service, const struct addr *client, const uint8_t (*avoid)[16], size_t avoid_n,
			       struct pick *out);

/* on_change is called on this thread (end of turn) after links, services or marks came, went or changed. A few may ask; each is called until registry_stop. */
void registry_on_change(void (*on_change)(void));

/* on_news is called on thread 0, once for each advert of an instance that another one replaces (both good during the call). One may ask. */
void registry_on_news(void (*on_news)(const struct advert *before, const struct advert *now));

/* Would the agent that has said this be given new sessions of the service now (a draining one, one whose links retire, a service that is down or closed: no)? */
bool registry_serves(const struct advert *a, const char *service);

/* Does some agent offer the service (NULL: any)? DOWN: only such as are ill, draining, or barred by an operator. */
enum registry_offer { OFFER_NONE, OFFER_DOWN, OFFER_UP };
enum registry_offer registry_offer(const char *tunnel, const char *service);

/* Agent side: a hub asks on link `id` (of this thread) to resume the session: finds it on whichever thread it is, brings it here and calls session_resumed,
 * or refuses with LOST. */
void registry_claim_session(uint64_t id, int32_t stream, const struct h2_fields *f);

/* For pages and logs. */
size_t registry_agents(void); /* instances with a link */
size_t registry_links(void);

/* What an operator has said of agents, services and tunnels; by name, so that it outlives their links. To be told to every thread. */
enum registry_mark {
	MARK_TUNNEL,  /* "TUNNEL": no new sessions (value 1) */
	MARK_SERVICE, /* "TUNNEL/SERVICE": the same */
	MARK_AGENT,   /* "AGENT": draining (1), disabled (2): no new sessions either way */
	MARK_WEIGHT,  /* "AGENT/SERVICE": the value is the weight, instead of what the agent says */
};
#define MARK_NONE (-1)
void registry_mark(enum registry_mark what, const char *name, int value); /* value MARK_NONE: as if nothing had been said */
int registry_marked(enum registry_mark what, const char *name);           /* MARK_NONE: nothing was said */

/* Who is there, by tunnel and name: *out is malloc'ed, its adverts are references; registry_snapshot_free releases both. *out NULL: no memory,
 * which is not the same as nobody. */
struct registry_agent {
	struct advert *advert;
	uint32_t links;
};
size_t registry_snapshot(struct registry_agent **out);
void registry_snapshot_free(struct registry_agent *agents, size_t n);

#endif
