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

/* A record in both its forms, without the newline; copied. */
void ring_keep(enum ring_id ring, const char *text, size_t text_len, const char *json, size_t json_len);

/* The oldest record that is newer than *seq (0 at first), as text or JSON, cut to size; *seq becomes its number. 0: there is none. */
size_t ring_next(enum ring_id ring, uint64_t *seq, bool json, char *buf, size_t size);

#endif
