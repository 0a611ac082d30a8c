/* One event loop a thread, over epoll (edge-triggered). A turn: wait; ready descriptors (the mailbox is one of them);
 * timers; deferred work (writes are gathered there, what a thread posted to itself is run); then what was freed
 * in the turn becomes reusable.
 * All calls act on the calling thread's loop. */
#ifndef MCTUNNEL_EVENT_LOOP_H
#define MCTUNNEL_EVENT_LOOP_H

#include "mctunnel/base/list.h"

#include <stdbool.h>
#include <stdint.h>

#define LOOP_READ 1u
#define LOOP_WRITE 2u
#define LOOP_HUP 4u       /* the peer is gone in both directions, or an error is pending */
#define LOOP_PEER_SHUT 8u /* the peer has ended its direction; data may still be there */

/* A watched descriptor; embedded in its owner, which must outlive the turn in which it unwatches. */
struct watch {
	int fd; /* -1: not watched; so is a zeroed watch */
	void (*on_ready)(struct watch *w, unsigned events);
};

/* Work for the end of this turn; embedded. Queued at most once at a time. */
struct deferred {
	struct list node;
	void (*run)(struct deferred *d);
};

void loop_init(void); /* makes the thread's loop; dies when the kernel refuses */
void loop_fini(void);

/* Reports edges for both directions until unwatched. 0, or -1 with errno. */
int loop_watch(struct watch *w, int fd, void (*on_ready)(struct watch *, unsigned)) __attribute__((warn_unused_result));
/* For listening sockets: level-triggered readability, one thread woken (EPOLLEXCLUSIVE). */
int loop_watch_listener(struct watch *w, int fd, void (*on_ready)(struct watch *, unsigned)) __attribute__((warn_unused_result));
/* To be called before the descriptor is closed, which is the caller's task. No on_ready after this, also not in this
 * turn. Does nothing when not watched. */
void loop_unwatch(struct watch *w);
/* The same when the descriptor is closed next, nobody else has it (no dup, no other process), and so the kernel forgets it by itself. */
void loop_forget(struct watch *w);

void deferred_init(struct deferred *d, void (*run)(struct deferred *));
void loop_defer(struct deferred *d); /* from within a run(): same turn while the turn is short, else the next one at once */
void loop_undefer(struct deferred *d);

void loop_run(void);  /* until loop_stop(), also one that came before this call */
void loop_stop(void); /* of this thread; the current turn is completed */
bool loop_turn(int max_wait_ms); /* one turn (tests, foreign loops); false once stopped */

/* How the thread's loop is doing. */
struct loop_figures {
	uint64_t turns;
	uint64_t busy_us, idle_us; /* working / waiting, since it was made */
	unsigned load;             /* percent of the last second or so that it worked */
};
void loop_figures(struct loop_figures *out);

/* Where the loop notes at each turn that it lives (clock ms, CLOCK_MONOTONIC), for the master; may be NULL.
 * The loop then wakes at least every 500 ms. */
void loop_heartbeat(volatile uint64_t *place);

#endif
