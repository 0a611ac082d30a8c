/* Counts by key that all threads share: how often, and how often lately. A counter is known by its name, so that a reload does not begin anew; it is there
 * as long as somebody holds it. Every call may be made on any thread. */
#ifndef MCTUNNEL_SCRIPT_COUNTER_H
#define MCTUNNEL_SCRIPT_COUNTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNTER_KEY_MAX 255
#define COUNTER_SIZE_MAX 10000000u
#define COUNTER_PERIODS 4 /* that rates are asked for, of one counter */

struct counter;

/* size: keys remembered at once, the one counted longest ago makes room; expire_ms: a key is forgotten when it has not been counted for so long, 0: never.
 * Of a counter that is there already both are changed. The caller holds it until counter_put(). */
struct counter *counter_get(const char *name, uint32_t size, uint64_t expire_ms);
void counter_put(struct counter *c);

/* Counts n more and tells the sum. len is at most COUNTER_KEY_MAX. false: no memory, and nothing was counted. */
bool counter_add(struct counter *c, const char *key, size_t len, int64_t n, int64_t *sum) __attribute__((warn_unused_result));
int64_t counter_value(struct counter *c, const char *key, size_t len); /* 0: not there */
/* What was counted in the last period, about: counts of the period before are taken as evenly spread. Rates of a period are known from the first time on that
 * somebody asks for it. false: too many periods. */
bool counter_rate(struct counter *c, const char *key, size_t len, uint64_t period_ms, double *rate);
size_t counter_keys(const struct counter *c);

#endif
