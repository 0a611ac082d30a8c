/* The extension frames AGENT and HUB: who is there, what it offers, what is accepted (doc/protocol.md). JSON in and out; no state, no I/O. */
#ifndef MCTUNNEL_PROTO_HELLO_H
#define MCTUNNEL_PROTO_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HELLO_NAME_MAX 64      /* with the NUL */
#define HELLO_SERVICES_MAX 4096
#define HELLO_SIZE_MAX (256u << 10) /* bytes of JSON */
#define HELLO_PROTOCOL 1

struct hello_service {
	char name[HELLO_NAME_MAX];
	uint16_t weight;   /* 0..256 */
	bool up;           /* its health check passes (or it has none) */
	uint32_t maxconn;  /* 0: no limit */
	bool proxy;        /* its target is told who the client is (PROXY header): a session is for one client alone. True when the agent does not say */
	/* Of its health check; status "": it has none. */
	char status[8];    /* L4CON */
	uint32_t code;     /* of HTTP or gRPC; 0: none */
	char text[64];     /* what was found */
	uint64_t since_ms; /* how long it has been up, or down, when the frame was made */
};

/* AGENT: sent by the agent after the handshake and, whole, at each change. */
struct agent_hello {
	char name[HELLO_NAME_MAX], tunnel[HELLO_NAME_MAX], version[32];
	uint8_t instance[16];  /* drawn at each start of the process */
	uint32_t protocol;
	bool draining;
	uint64_t serial; /* of two frames of one instance, the one with the greater was made later */
	struct hello_service *services; /* owned */
	size_t services_n;
};

/* HUB: the answer. */
struct hub_hello {
	char name[HELLO_NAME_MAX], version[32];
	uint8_t instance[16];
	uint32_t protocol;
	bool accepted;          /* false: the link will be closed; reason says why */
	char reason[32];        /* a reason_word() */
	char text[160];         /* for the log */
	uint32_t retry_after_ms; /* 0: as the agent likes */
	uint32_t heartbeat_interval_ms, heartbeat_timeout_ms;
	uint32_t resume_ms;     /* how long the hub keeps parked sessions */
	char (*refused)[HELLO_NAME_MAX]; /* owned: services not allowed */
	size_t refused_n;
};

/* Build: malloc'ed JSON, *len bytes; NULL when memory is used up. */
char *hello_agent_build(const struct agent_hello *h, size_t *len);
char *hello_hub_build(const struct hub_hello *h, size_t *len);

/* Parse whatever a peer sent: 0, -1 (it is wrong) or HELLO_STARVED (no memory to read it), with a sentence in err. Unknown keys are ignored (later versions);
 * missing ones and values out of range are errors. On success the caller frees with ..._fini. Names must match [A-Za-z0-9._-]{1,63}. */
#define HELLO_STARVED (-2)
int hello_agent_parse(struct agent_hello *out, const char *json, size_t len, char *err, size_t errsize) __attribute__((warn_unused_result));
int hello_hub_parse(struct hub_hello *out, const char *json, size_t len, char *err, size_t errsize) __attribute__((warn_unused_result));
void hello_agent_fini(struct agent_hello *h);
void hello_hub_fini(struct hub_hello *h);

#endif
