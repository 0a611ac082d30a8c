/* The page /metrics: all figures in Prometheus' text format, in pieces. */
#ifndef MCTUNNEL_ADMIN_PROMETHEUS_H
#define MCTUNNEL_ADMIN_PROMETHEUS_H

#include <stdbool.h>
#include <stdio.h>

struct metrics_state;

void prometheus_init(const struct metrics_state *state); /* borrowed */

/* See struct http_page. Who is there is asked at the beginning, figures at the moment in which they are written. */
void *prometheus_begin(void);
bool prometheus_more(void *job, FILE *out);
void prometheus_end(void *job);

#endif
