/* The targets of the log as a configuration names them. */
#ifndef MCTUNNEL_MAIN_LOGS_H
#define MCTUNNEL_MAIN_LOGS_H

#include "mctunnel/main/binding.h"

#include <stdbool.h>
#include <stdint.h>

struct conf;
struct log_set;

/* Opens them. before: the configuration in force (NULL: at start); what it has too keeps its descriptor where it cannot be opened again.
 * debug: all of them at level debug. NULL: something could not be opened, each was reported with its place. */
struct log_set *logs_open(const struct conf *conf, const struct conf *before, bool debug, binding_report *on_failure, void *arg);

/* Those that are in force once more, as far as that is possible: a file may have been rotated. */
struct log_set *logs_again(const struct conf *conf);

/* For another process: which elements have a descriptor (one bit each), and these (borrowed, room for 31; their number in *n). */
uint32_t logs_fds(const struct log_set *s, int *fds, int *n);
/* There: makes the set of them. The descriptors are taken. NULL: cannot be. */
struct log_set *logs_take(const struct conf *conf, bool debug, uint32_t logs, const int *fds);

bool logs_same(const struct conf *a, const struct conf *b);

#endif
