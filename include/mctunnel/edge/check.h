/* Health checks of the agent's targets: each service with a check has one thread that checks it; every thread can ask how it stands. */
#ifndef MCTUNNEL_EDGE_CHECK_H
#define MCTUNNEL_EDGE_CHECK_H

#include "mctunnel/edge/probe.h"

#include <stdbool.h>
#include <stddef.h>

struct conf;

/* Called on every thread, soon after a service has changed: up, down, its weight, why, or that it has no check any more. */
struct check_events {
	void (*on_change)(const char *service);
};

/* Each thread: init, then reload as often as wished after one prepare for all, stop (no checks any more; what they found stays), fini. */
void check_init(struct conf *conf, const struct check_events *ev);
void check_prepare(struct conf *conf);
void check_reload(void);
void check_stop(void);
void check_fini(void);

/* How a service stands. false: it has no check (out is zeroed). Any thread; a lock is held for a moment. */
struct check_view {
	bool up;
	struct probe_result why;  /* the check that made it what it is; INI: there was none */
	struct probe_result last; /* the newest one */
	char words[32];           /* UP 1/3 */
	uint32_t health;          /* 0 to rise + fall - 1 */
	uint64_t since_ms;        /* when it went up or down, or began; not after the caller's clock_ms() */
	uint64_t last_ms;         /* of the newest check; 0: there was none */
	uint32_t weight;          /* at the moment, of the configured one */
	uint64_t checks, failed, falls;
};
bool check_view(const char *service, struct check_view *out);

/* All services of conf that have a check, as they are at one moment; take may not call check. Returns the number of that moment: it is greater after each change
 * that on_change tells of, and after check_prepare. */
uint64_t check_survey(const struct conf *conf, void (*take)(void *arg, size_t service, const struct check_view *v), void *arg);

/* So many sessions in a row could not be connected, the last for that reason: it is down without a check. Any thread. */
void check_condemn(const char *service, enum check_status status, const char *text);

#endif
