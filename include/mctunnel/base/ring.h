/* The last records of the log, kept in memory for the admin socket: what happened, and what went wrong. */
#ifndef MCTUNNEL_BASE_RING_H
#define MCTUNNEL_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ring_id {
	RING_EVENTS, /* level notice and more important */
	RING_ERRORS, /* level warning and more important */
	RING_COUNT
};

#define RING_EVENTS_MAX 256
#define RING_ERRORS_MAX 64

/* From now on records are kept. Any thread may keep and read; open and close from one only. */
void ring_open(void);
void ring_close(void);
bool ring_is_open(void);

/* What a process leaves to the one that follows it when it dies, in memory that both see. */
struct ring_page {
	uint32_t at;        /* bytes of events ever written */
	char events[4096];  /* by the process: its last events as lines of text, a ring */
	char panic[8192];   /* by whoever saw it die: how, its last words, its last events; a string of lines, empty: none has died */
};

/* From now on events are written there too; NULL: no longer. Before ring_open(). */
void ring_share(struct ring_page *page);
/* The last events of a page, oldest first, whole lines, as a string cut to size. What others write meanwhile may appear in it, and does no more harm. */
void ring_page_events(const struct ring_page *page, char *buf, size_t size);
/* What the process before left, as a string cut to size; "" when there was none. */
void ring_panic(char *buf, size_t size);

/* A record in both its forms, without the newline; copied. */
void ring_keep(enum ring_id ring, const char *text, size_t text_len, const char *json, size_t json_len);

/* The oldest record that is newer than *seq (0 at first), as text or JSON, cut to size; *seq becomes its number. 0: there is none. */
size_t ring_next(enum ring_id ring, uint64_t *seq, bool json, char *buf, size_t size);

#endif
