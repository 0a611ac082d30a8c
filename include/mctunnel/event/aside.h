/* Work that would hold up a loop: making and freeing what a whole configuration needs. One thread does it, piece after piece, in the order in which it
 * was handed over. What works there finds no loop, no timers and nothing else that belongs to a loop's thread; log, series, malloc and whatever
 * is counted atomically are as anywhere. */
#ifndef MCTUNNEL_EVENT_ASIDE_H
#define MCTUNNEL_EVENT_ASIDE_H

#include <stdbool.h>

/* Embedded in what is worked on. run() owns it: it frees it, or brings it to a thread of the loops with thread_post(). */
struct aside {
	struct aside *next;
	void (*run)(struct aside *a);
};

/* Any thread may hand over. Where there is no such thread (none was opened, the kernel refuses one), or from within it, run() is called at once. */
void aside_run(struct aside *a, void (*run)(struct aside *a));

void aside_open(void);
/* Returns when everything that was handed over has run. While the loops' mailboxes are open, for it may post. */
void aside_close(void);
bool aside_closing(void); /* what takes long and is of no use any more should end early */

#endif
