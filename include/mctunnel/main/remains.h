/* What a worker leaves behind when it dies: its last words (backtrace) and its last events, kept by the master for the log and
 * for the next worker's `show errors`. */
#ifndef MCTUNNEL_MAIN_REMAINS_H
#define MCTUNNEL_MAIN_REMAINS_H

struct ring_page;

/* In the master, before the fork. Without it (no descriptors left) there are only the events. */
void remains_prepare(void);
/* In the worker: from now on its last words and events are kept. */
void remains_leave(struct ring_page *page);
/* In the master, when the worker has died; how: a sentence that says which and how. Its last words are logged, page->panic is
 * written, page->events is empty for the next one. */
void remains_collect(struct ring_page *page, const char *how);
/* In the master, when the worker has ended as it should. */
void remains_forget(struct ring_page *page);

#endif
