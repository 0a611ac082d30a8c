/* Counters that scripts publish at /metrics: mctunnel_lua_NAME_total, with labels. They are there from their first mention to the end of the process. */
#ifndef MCTUNNEL_SCRIPT_METRIC_H
#define MCTUNNEL_SCRIPT_METRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRIC_LABELS 8
#define METRICS_MAX 100 /* in a process */

struct metric;

/* The same metric for the same name and labels; of one whose labels have changed a new one takes the name. NULL: a sentence in err. Any thread. */
struct metric *metric_get(const char *name, const char *help, size_t labels_n, const char *const *labels, char *err, size_t errsize);
size_t metric_labels(const struct metric *m);
/* values: as many as there are labels. Beyond series_max() sets of them, all of them count as "other". Any thread. */
void metric_add(struct metric *m, const char *const *values, uint64_t n);

/* ---- for readers; any thread ---- */

const struct metric *metric_next(const struct metric *m); /* NULL: the first; NULL at the end */
const char *metric_name(const struct metric *m);
const char *metric_help(const struct metric *m); /* escaped */
/* The next series after *cursor (NULL at first): its labels as Prometheus writes them, "" when there are none. */
bool metric_series(const struct metric *m, const void **cursor, const char **labels, uint64_t *value);

#endif
