/* Going into the background (-D). */
#ifndef MCTUNNEL_MAIN_DAEMONISE_H
#define MCTUNNEL_MAIN_DAEMONISE_H

/* Returns in a child of its own session; the parent stays, passes on what the child writes to stderr, and exits with 0 when
 * the child calls daemonise_done(), or with the child's status when it ends before. -1 with errno when there can be no child. */
int daemonise_start(void) __attribute__((warn_unused_result));
void daemonise_done(void);   /* the program serves: lets the parent go; does nothing when it was never started, or again */
void daemonise_forget(void); /* in a worker: only the master may let the parent go */

#endif
