/* The brake of one session: the limits of bytes a second it is under, its own ones and those it shares with others of its listener, tunnel or service. */
#ifndef MCTUNNEL_EDGE_BRAKE_H
#define MCTUNNEL_EDGE_BRAKE_H

#include <stddef.h>
#include <stdint.h>

struct brake;
struct flow;

enum brake_way { BRAKE_IN, BRAKE_OUT }; /* from the conn, to the conn */

/* on_loose: bytes may flow again after brake_room gave none. NULL: no memory. */
struct brake *brake_new(void (*on_loose)(void *owner), void *owner) __attribute__((warn_unused_result));
void brake_free(struct brake *b); /* NULL is allowed */
/* One more limit (at most 6 each way; rate 0: none). shared: outlives the brake; NULL: a flow of its own. */
void brake_add(struct brake *b, enum brake_way way, struct flow *shared, uint64_t rate);
/* Bytes that may be moved now; 0: none, on_loose is called once more may. */
size_t brake_room(struct brake *b, enum brake_way way);
void brake_moved(struct brake *b, enum brake_way way, size_t bytes);
/* Before a move to another thread, where brake_room is to be asked again. */
void brake_leave(struct brake *b);

#endif
