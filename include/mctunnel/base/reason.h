/* Why a session, a link or a check ended: one table for the log, metrics, admin socket and the wire. */
#ifndef MCTUNNEL_BASE_REASON_H
#define MCTUNNEL_BASE_REASON_H

#include <stdint.h>

/* id, word, HTTP status for a refusal (0: never one), first letter of the end state, sentence.
 * The order is the wire's: an RST_STREAM carries REASON_WIRE + index. Add at the end only. */
#define REASONS(X)                                                                              \
	X(DONE, "done", 0, '-', "both sides ended in good order")                               \
	X(CLIENT_RESET, "client_reset", 0, 'C', "the client broke the connection")              \
	X(TARGET_RESET, "target_reset", 0, 'S', "the target broke the connection")              \
	X(IDLE, "idle", 0, 'c', "no bytes in either direction for timeouts.idle")               \
	X(HALF_CLOSED, "half_closed", 0, 'c', "one side had ended and the other said nothing for timeouts.half_closed") \
	X(NO_SERVICE, "no_service", 404, 'S', "the agent offers no such service")               \
	X(DENIED, "denied", 403, 'P', "not allowed")                                            \
	X(TARGET_REFUSED, "target_refused", 502, 'S', "the target refused the connection")      \
	X(TARGET_TIMEOUT, "target_timeout", 504, 's', "the target did not answer within timeouts.connect") \
	X(TARGET_UNREACHABLE, "target_unreachable", 502, 'S', "the target cannot be reached")   \
	X(AGENT_FULL, "agent_full", 503, 'S', "the agent's service is at its maxconn")          \
	X(DRAINING, "draining", 503, 'S', "the other side is draining")                         \
	X(NO_AGENT, "no_agent", 0, 's', "no agent for the route came up within timeouts.queue") \
	X(LOST, "lost", 410, 'S', "the other side knows the session no more")                   \
	X(RESUME_TIMEOUT, "resume_timeout", 0, 's', "no link came back within timeouts.resume") \
	X(PROTOCOL, "protocol", 400, 'I', "the other side broke the protocol")                  \
	X(RESOURCES, "resources", 503, 'R', "out of memory, descriptors or budget")             \
	X(STOPPED, "stopped", 0, 'K', "the process was stopped")                                \
	X(KILLED, "killed", 0, 'K', "ended by the operator")                                    \
	X(LINK_DEAD, "link_dead", 0, 'D', "nothing was heard within heartbeat.timeout")         \
	X(LINK_CLOSED, "link_closed", 0, 'D', "the connection was closed")                      \
	X(IDENTITY, "identity", 403, 'P', "the certificate does not entitle to this")           \
	X(NAME_IN_USE, "name_in_use", 409, 'P', "another agent of this name is up")             \
	X(FLOOD, "flood", 0, 'P', "more requests than the other side may make")                 \
	X(LIMIT, "limit", 503, 'R', "a limit of the configuration is reached")                  \
	X(HUB_RESTARTED, "hub_restarted", 0, 'D', "the hub came back as a new process")         \
	X(CONNECT_TIMEOUT, "connect_timeout", 0, 's', "the agent did not answer within timeouts.connect") \
	X(NO_ROUTE, "no_route", 0, 'P', "no rule and no route leads anywhere")                  \
	X(REJECTED, "rejected", 0, 'P', "a rule rejected the client")                           \
	X(REDIRECTED, "redirected", 0, 'L', "the client was sent elsewhere")                    \
	X(POLICY, "policy", 0, 'P', "the Lua policy did not allow it")                          \
	X(RATE, "rate", 0, 'P', "more than this client may")                                    \
	X(BAD_REQUEST, "bad_request", 0, 'P', "the client's request or header is malformed")    \
	X(CLIENT_TIMEOUT, "client_timeout", 0, 'c', "the client did not say in time what it wants") \
	X(CLIENT_TLS, "client_tls", 0, 'P', "the TLS handshake with the client failed")         \
	X(BAD_ANSWER, "bad_answer", 0, 'P', "what the target answered is not HTTP")             \
	X(ANSWER_TIMEOUT, "answer_timeout", 0, 's', "the target did not answer the request in time") \
	X(SERVICE_DOWN, "service_down", 503, 'D', "the service was marked down by its check")   \
	X(MOVED, "moved", 0, 'K', "the virtual address is on another host now")

enum reason {
#define REASON_ENUM(id, word, status, letter, text) REASON_##id,
	REASONS(REASON_ENUM)
#undef REASON_ENUM
	REASON_COUNT
};

#define REASON_WIRE 0x6d630000u

const char *reason_word(enum reason r);
const char *reason_text(enum reason r);
char reason_letter(enum reason r);
int reason_status(enum reason r);

/* From the wire. A code that is not ours: TARGET_RESET / CLIENT_RESET cannot be told apart there, so the caller names its default. */
uint32_t reason_code(enum reason r);
enum reason reason_from_code(uint32_t code, enum reason otherwise);
enum reason reason_from_word(const char *word, enum reason otherwise);

#endif
