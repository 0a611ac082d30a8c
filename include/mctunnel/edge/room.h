/* Room below a limit: tells threads that wait for it that some count has gone down. */
#ifndef MCTUNNEL_EDGE_ROOM_H
#define MCTUNNEL_EDGE_ROOM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

void room_init(void);                     /* each thread */
void room_fini(void);                     /* no on_room any more on this thread */
void room_on(void (*on_room)(void));      /* called on this thread, in the order of these calls, once for each room_ask that was answered; a few may ask */
void room_ask(void);                      /* to be called before the last look at the counts, so that no end of a session is missed */
void room_made(void);                     /* after a count went down; any thread */

/* A count never exceeds its maximum (0: none), not even for a moment, so that nobody is turned away by somebody who only tries. */
bool count_take(atomic_uint *count, uint32_t max) __attribute__((warn_unused_result));

#endif
