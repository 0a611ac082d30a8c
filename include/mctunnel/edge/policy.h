/* What scripts may say about clients, agents and sessions, as the edge asks it. The floor of scripts lies above: it hands its functions down here before threads start. */
#ifndef MCTUNNEL_EDGE_POLICY_H
#define MCTUNNEL_EDGE_POLICY_H

#include "mctunnel/base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct facts;

enum policy_kind { POLICY_ALLOW, POLICY_DENY, POLICY_REJECT, POLICY_ROUTE };

struct policy_answer {
	enum policy_kind kind;
	unsigned status;       /* of DENY: 403 unless the script said another */
	char reason[128];      /* of DENY: what the script said, or "" */
	char tunnel[64], service[64]; /* of ROUTE */
	uint64_t rate_up, rate_down;  /* limits for this session, bytes a second; 0: none said */
	bool failed;           /* the script erred: denied (fail closed) */
	bool starved;          /* it failed because memory is used up: that is why the client is refused */
};

struct policy_agent {
	const char *name, *tunnel, *addr, *cert; /* cert: its subject */
	const char *const *services;
	size_t services_n;
};

struct policy_end { /* of a session */
	const char *listener, *client, *route, *tunnel, *service, *agent, *target, *id, *reason, *sni, *host; /* may be NULL */
	uint64_t up, down;           /* bytes */
	int64_t queue_ms, connect_ms, total_ms; /* -1: not reached */
};

struct policy_ops {
	/* Asks the function of that name about a client or request. route: where the rules lead, "TUNNEL/SERVICE", or NULL. id: of the session or request, for lines in the log. */
	void (*ask)(const char *name, const struct facts *f, const char *route, const char *id, struct policy_answer *out);
	/* May the agent be let in? DONE; POLICY or RESOURCES: why. */
	enum reason (*agent)(const struct policy_agent *a, char *why, size_t size);
	void (*end)(const struct policy_end *e);
	bool wants_agents, wants_ends; /* somebody has registered for them: else they are not called */
};

/* Each thread has its own (scripts differ from thread to thread at a reload); ops NULL: there are no scripts. Borrowed until the next call. */
void policy_use(const struct policy_ops *ops);
/* Without scripts: a policy asked for by name is denied (failed), agents are let in. */
void policy_ask(const char *name, const struct facts *f, const char *route, const char *id, struct policy_answer *out);
enum reason policy_agent(const struct policy_agent *a, char *why, size_t size);
bool policy_wants_ends(void);
void policy_end(const struct policy_end *e);

#endif
