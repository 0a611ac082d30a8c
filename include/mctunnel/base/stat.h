/* Counters and gauges of the process: one row of the table makes the enum, the metric's name, its help
 * and type. Each thread counts for itself (relaxed atomics, no contention); readers add the threads up. */
#ifndef MCTUNNEL_BASE_STAT_H
#define MCTUNNEL_BASE_STAT_H

#include <stdint.h>

enum stat_type { STAT_COUNTER, STAT_GAUGE };

#define STATS(X)                                                                                        \
	X(SESSIONS, GAUGE, "mctunnel_sessions", "Sessions carried now")                                 \
	X(LINKS, GAUGE, "mctunnel_links", "Links that are up")                                          \
	X(SESSIONS_OPENED, COUNTER, "mctunnel_sessions_opened_total", "Sessions opened")                \
	X(SESSIONS_PARKED, GAUGE, "mctunnel_sessions_parked", "Sessions waiting for a link to resume on") \
	X(SESSIONS_RESUMED, COUNTER, "mctunnel_sessions_resumed_total", "Sessions resumed on another link") \
	X(SESSIONS_LOST, COUNTER, "mctunnel_sessions_lost_total", "Sessions that could not be resumed")  \
	X(SESSIONS_MOVED, COUNTER, "mctunnel_sessions_moved_total", "Sessions moved to another thread") \
	X(QUEUE, GAUGE, "mctunnel_queue_sessions", "Clients waiting for an agent")                      \
	X(BYTES_UP, COUNTER, "mctunnel_bytes_up_total", "Bytes carried from clients to targets")        \
	X(BYTES_DOWN, COUNTER, "mctunnel_bytes_down_total", "Bytes carried from targets to clients")    \
	X(LINK_HANDSHAKES, COUNTER, "mctunnel_link_handshakes_total", "TLS handshakes of links completed") \
	X(LINK_HANDSHAKES_RESUMED, COUNTER, "mctunnel_link_handshakes_resumed_total", "of which resumed") \
	X(CLIENT_HANDSHAKES, COUNTER, "mctunnel_client_handshakes_total", "TLS handshakes with clients of listeners completed") \
	X(CLIENT_HANDSHAKES_RESUMED, COUNTER, "mctunnel_client_handshakes_resumed_total", "of which resumed") \
	X(LINK_REFUSED, COUNTER, "mctunnel_links_refused_total", "Links refused: identity, protocol, limits") \
	X(LINK_BROKEN, COUNTER, "mctunnel_links_broken_total", "Links that ended without a goodbye")     \
	X(HEALTH_CALLERS, GAUGE, "mctunnel_grpc_health_connections", "Connections that ask for health by gRPC") \
	X(HEALTH_REFUSED, COUNTER, "mctunnel_grpc_health_refused_total", "of those: refused or cut off, too many or breaking the protocol") \
	X(LOG_DROPPED, COUNTER, "mctunnel_log_dropped_total", "Log lines dropped because a target was slow") \
	X(ACCEPT_PAUSED, COUNTER, "mctunnel_accept_paused_total", "Times accepting paused at a limit")           \
	X(VIP_CHANGES, COUNTER, "mctunnel_vip_changes_total", "Times keepalived has told another role")   \
	X(PATTERN_OVERRUNS, COUNTER, "mctunnel_pattern_overruns_total", "Matches of expressions given up at a limit; a rule that refuses clients has refused that one") \
	X(LUA_ERRORS, COUNTER, "mctunnel_lua_errors_total", "Errors of Lua scripts; the client was denied")

enum stat_id {
#define STAT_ENUM(id, type, name, help) STAT_##id,
	STATS(STAT_ENUM)
#undef STAT_ENUM
	STAT_COUNT
};

struct stat_row {
	const char *name, *help;
	enum stat_type type;
};
extern const struct stat_row stat_rows[STAT_COUNT];

/* On the calling thread's own set. n may be negative for gauges. */
void stat_add(enum stat_id id, int64_t n);

/* Sum over all threads that ever counted; any thread may ask. */
int64_t stat_sum(enum stat_id id);

#endif
