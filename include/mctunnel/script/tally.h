/* What is known of the calls of one function, on one thread; and how much of the thread's time it may waste. */
#ifndef MCTUNNEL_SCRIPT_TALLY_H
#define MCTUNNEL_SCRIPT_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#define TALLY_BUCKETS 160 /* four for each power of two nanoseconds */
#define TALLY_WASTE_NS 10000000 /* of calls that have used up their budget, before the function rests ... */
#define TALLY_WASTE_SHARE 10    /* ... until they are no more than this part of the time */

enum tally_result { TALLY_ALLOW, TALLY_DENY, TALLY_REJECT, TALLY_ROUTE, TALLY_DONE, TALLY_ERROR, TALLY_RESULTS };

struct series;

struct tally { /* zeroes */
	uint64_t calls, errors, sum_ns, max_ns;
	uint64_t waste_ns, waste_at_ns; /* a bucket, and when it was looked at last */
	uint32_t buckets[TALLY_BUCKETS];
	struct series *results[TALLY_RESULTS]; /* NULL: not yet */
};

void tally_call(struct tally *t, uint64_t ns);
/* mctunnel_lua_calls_total{function,result}, and errors. */
void tally_result(struct tally *t, const char *function, enum tally_result r);
uint64_t tally_quantile_ns(const struct tally *t, double part); /* so many of all calls took no longer, about */

void tally_waste(struct tally *t, uint64_t began_ns, uint64_t ns); /* a call, begun then, that has used up its budget */
bool tally_rests(struct tally *t); /* it is not to be called now */

#endif
