/* The status page, for people, and the same as JSON. */
#ifndef MCTUNNEL_ADMIN_STATUS_H
#define MCTUNNEL_ADMIN_STATUS_H

#include <stdio.h>

struct metrics_state;

void status_init(const struct metrics_state *state); /* borrowed */
/* Keeps the history of the last minutes, on the calling thread's loop. */
void status_start(void);
void status_stop(void);

/* See struct http_page. */
int status_page(FILE *out);
const char *status_policy(void);
int status_json(FILE *out);

#endif
