/* Metrics with labels. One row of the table makes a family: its name, type, labels and help. A series is what a family counts for one set of
 * label values, made when it is first asked for. Each thread counts in a part of its own (relaxed atomics, no contention); readers add
 * the parts up. A family has at most series_limit() series: what comes later counts in one whose labels all say "other". */
#ifndef MCTUNNEL_BASE_SERIES_H
#define MCTUNNEL_BASE_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum series_type { SERIES_COUNTER, SERIES_HISTOGRAM };

/* id, type, name, labels, help */
#define FAMILIES(X)                                                                                                                                   \
	X(SESSIONS, COUNTER, "mctunnel_sessions_total", "listener tunnel service reason", "Sessions that have ended, by where they came from and went to, and why")  \
	X(BYTES, COUNTER, "mctunnel_bytes_total", "listener tunnel service direction", "Bytes carried; direction up: from clients to targets")        \
	X(HTTP_REQUESTS, COUNTER, "mctunnel_http_requests_total", "listener tunnel service code", "HTTP requests answered, by status; code 0: the client left without an answer") \
	X(RECONNECTIONS, COUNTER, "mctunnel_agent_reconnections_total", "tunnel agent", "Links that came back after one of the agent was lost")       \
	X(ESTABLISHMENT, HISTOGRAM, "mctunnel_connection_establishment_seconds", "", "From accepting a client to its target being connected")        \
	X(QUEUE, HISTOGRAM, "mctunnel_queue_seconds", "", "From accepting a client to its session being opened on a link, or to its end without one") \
	X(SERVICE_SESSIONS, COUNTER, "mctunnel_service_sessions_total", "service reason", "On an agent: sessions of its services that have ended, and why") \
	X(TARGET_CONNECT, HISTOGRAM, "mctunnel_target_connect_seconds", "service", "On an agent: from a request to its target being connected")     \
	X(TARGET_FAILURES, COUNTER, "mctunnel_target_failures_total", "service reason", "On an agent: targets that could not be connected")           \
	X(CHECKS, COUNTER, "mctunnel_checks_total", "service status", "On an agent: checks of targets, by what they found")                          \
	X(CHECK_TIME, HISTOGRAM, "mctunnel_check_seconds", "service", "On an agent: how long checks of targets took")                               \
	X(CHECK_CHANGES, COUNTER, "mctunnel_check_changes_total", "service state", "On an agent: how often checks brought a service up or down")    \
	X(RELOADS, COUNTER, "mctunnel_reloads_total", "result", "Reloads of the configuration")                                                       \
	X(HEALTH_CHECKS, COUNTER, "mctunnel_grpc_health_checks_total", "service status", "Answers to gRPC health checks")                             \
	X(HEALTH_FAILURES, COUNTER, "mctunnel_grpc_health_check_failures_total", "", "Answers to gRPC health checks that were not SERVING")           \
	X(LUA_CALLS, COUNTER, "mctunnel_lua_calls_total", "function result", "Calls of functions of Lua scripts, and what they have answered")

enum family {
#define FAMILY_ENUM(id, type, name, labels, help) FAMILY_##id,
	FAMILIES(FAMILY_ENUM)
#undef FAMILY_ENUM
	FAMILY_COUNT
};

struct family_row {
	const char *name, *labels, *help; /* labels: divided by blanks, "": none */
	enum series_type type;
};
extern const struct family_row family_rows[FAMILY_COUNT];

struct series; /* the calling thread's part of a series */

/* series_of(SESSIONS, "web", "site-a", "http", "done"): never NULL, never freed, may be kept and used on another thread. A value of NULL is an empty
 * one. No lock but when the thread asks for these values for the first time, or when the family is full. */
struct series *series_get(enum family f, size_t n, const char *const *values) __attribute__((returns_nonnull));
#define series_of(f, ...) \
	series_get(FAMILY_##f, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *), (const char *const[]){ __VA_ARGS__ })
#define series_alone(f) series_get(FAMILY_##f, 0, NULL)

void series_add(struct series *s, uint64_t n);
void series_observe_us(struct series *s, uint64_t us); /* histograms */

/* Of series in a family; how many label sets found it full (beyond some thousands: roughly). */
void series_limit(size_t max);
size_t series_max(void);
size_t series_dropped(enum family f);

/* ---- for readers ---- */

#define SERIES_BUCKETS 14
extern const uint32_t series_bucket_ms[SERIES_BUCKETS]; /* upper bounds; a last one has no bound */

struct series_view {
	const char *labels;                   /* escaped: listener="web",tunnel="site-a", "" when there are none; good for ever */
	uint64_t value;                       /* of a counter; number of observations */
	uint64_t bucket[SERIES_BUCKETS + 1];  /* each for itself */
	uint64_t sum_us;
};
/* The next series after *cursor (NULL at first), in the order in which they were made; any thread. */
bool series_next(enum family f, const void **cursor, struct series_view *out);

/* A label's value as Prometheus wants it, cut at whole characters; what is not UTF-8 becomes U+FFFD. */
void series_escape(char *out, size_t size, const char *value);

#endif
