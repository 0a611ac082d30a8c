/* What one client address may: sessions at once and new ones a second, on one listener. One table for all threads, bounded; who is quiet is forgotten. */
#ifndef MCTUNNEL_EDGE_QUOTA_H
#define MCTUNNEL_EDGE_QUOTA_H

#include <stddef.h>
#include <stdint.h>

struct addr;
struct conf_limits;
struct quota;
struct visitor; /* a client address in the table */

struct quota *quota_new(void);
void quota_free(struct quota *q); /* nobody has entered any more */

enum quota_result { QUOTA_OK, QUOTA_SESSIONS, QUOTA_RATE, QUOTA_RESOURCES };

/* A new session: OK counts it, and *out is to be given to quota_leave at its end (NULL is possible: the table is full of others that are there). RATE: *wait_ms says when to ask
 * again. RESOURCES: no memory to count it. Unix sockets have no limit. */
enum quota_result quota_enter(struct quota *q, const struct conf_limits *l, const struct addr *client, struct visitor **out, uint64_t *wait_ms)
    __attribute__((warn_unused_result));
/* One more request of a session that has entered. */
enum quota_result quota_again(struct quota *q, const struct conf_limits *l, struct visitor *v, uint64_t *wait_ms) __attribute__((warn_unused_result));
void quota_leave(struct quota *q, struct visitor *v); /* NULL is allowed */

size_t quota_visitors(struct quota *q); /* in the table now */

#endif
