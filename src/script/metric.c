/* Metrics of scripts. Owns them and their series, which are never freed, so that readers need no lock; limits bound both. Counting takes the metric's lock
 * to find the series: scripts count seldom compared with what else they do. */
#include "mctunnel/script/metric.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX 80
#define VALUE_MAX 200

struct point { /* a series */
	struct point *_Atomic next;
	_Atomic uint64_t value;
	char labels[];
};

struct metric {
	struct metric *_Atomic next;
	atomic_bool replaced; /* by one of the same name and other labels */
	char name[NAME_MAX + 24], *help;
	size_t labels_n;
	char *labels[METRIC_LABELS]; /* owned */
	pthread_mutex_t lock; /* for the map and for adding */
	struct map *points;   /* by their labels */
	struct point *_Atomic first;
	struct point *last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for adding metrics */
static struct metric *_Atomic metrics;

/* ---- names ---- */

static bool is_name(const char *s)
{
	size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

	return len > 0 && s[len] == '\0' && len < NAME_MAX && !(*s >= '0' && *s <= '9');
}

static int check_names(const char *name, size_t n, const char *const *labels, char *err, size_t errsize)
{
	if (!is_name(name))
		return snprintf(err, errsize, "'%.40s' is no name of a metric: letters, digits and '_' are", name);
	if (n > METRIC_LABELS)
		return snprintf(err, errsize, "%zu labels are too many: the maximum is %d", n, METRIC_LABELS);
	for (size_t i = 0; i < n; i++) {
		if (!is_name(labels[i]) || strncmp(labels[i], "__", 2) == 0)
			return snprintf(err, errsize, "'%.40s' is no name of a label: letters, digits and '_' are", labels[i]);
		for (size_t k = 0; k < i; k++) {
			if (strcmp(labels[k], labels[i]) == 0)
				return snprintf(err, errsize, "the label '%.40s' is there twice", labels[i]);
		}
	}
	return 0;
}

static void full_name(char *out, size_t size, const char *name)
{
	size_t len = strlen(name);
	bool total = len > 6 && strcmp(name + len - 6, "_total") == 0;

	snprintf(out, size, "mctunnel_lua_%s%s", name, total ? "" : "_total");
}

/* One line, as the format wants it. */
static char *escape_help(const char *help)
{
	char text[400];

	series_escape(text, sizeof(text), help && *help ? help : "Counted by a script");
	for (char *from = text, *to = text;; from++) {
		if (from[0] == '\\' && from[1] == '"') /* not in help */
			continue;
		*to++ = *from;
		if (!*from)
			return xstrdup(text);
	}
}

/* ---- metrics ---- */

static bool same_labels(const struct metric *m, size_t n, const char *const *labels)
{
	bool same = m->labels_n == n;

	for (size_t i = 0; same && i < n; i++)
		same = strcmp(m->labels[i], labels[i]) == 0;
	return same;
}

static struct metric *metric_new(const char *name, const char *help, size_t n, const char *const *labels)
{
	struct metric *m = xcalloc(1, sizeof(*m));

	str_copy(m->name, sizeof(m->name), name);
	m->help = escape_help(help);
	m->labels_n = n;
	for (size_t i = 0; i < n; i++)
		m->labels[i] = xstrdup(labels[i]);
	pthread_mutex_init(&m->lock, NULL);
	m->points = map_new();
	return m;
}

/* Under the lock. */
static struct metric *find_or_add(const char *name, const char *help, size_t n, const char *const *labels)
{
	struct metric *_Atomic *at = &metrics;
	struct metric *found = NULL;
	size_t count = 0;

	for (struct metric *m; (m = atomic_load(at)); at = &m->next, count++) {
		if (strcmp(m->name, name) != 0)
			continue;
		if (same_labels(m, n, labels))
			found = m;
		atomic_store(&m->replaced, found != m);
	}
	if (found || count == METRICS_MAX)
		return found;
	atomic_store(at, metric_new(name, help, n, labels));
	return atomic_load(at);
}

struct metric *metric_get(const char *name, const char *help, size_t labels_n, const char *const *labels, char *err, size_t errsize)
{
	char full[NAME_MAX + 24];
	struct metric *m;

	if (check_names(name, labels_n, labels, err, errsize) != 0)
		return NULL;
	full_name(full, sizeof(full), name);
	pthread_mutex_lock(&lock);
	m = find_or_add(full, help, labels_n, labels);
	pthread_mutex_unlock(&lock);
	if (m && labels_n == 0)
		metric_add(m, NULL, 0); /* it is there from the beginning */
	if (!m)
		snprintf(err, errsize, "there are %d metrics of scripts already, which is the maximum", METRICS_MAX);
	return m;
}

size_t metric_labels(const struct metric *m)
{
	return m->labels_n;
}

/* ---- counting ---- */

/* values NULL: all of them "other". */
static size_t labels_text(const struct metric *m, const char *const *values, char *out, size_t size)
{
	char value[VALUE_MAX];
	struct strbuf b;

	strbuf_init(&b, out, size);
	for (size_t i = 0; i < m->labels_n; i++) {
		series_escape(value, sizeof(value), values ? values[i] : "other");
		strbuf_add(&b, "%s%s=\"%s\"", i ? "," : "", m->labels[i], value);
	}
	return b.len;
}

static struct point *point_add(struct metric *m, const char *labels, size_t len)
{
	struct point *p = xcalloc(1, sizeof(*p) + len + 1);

	memcpy(p->labels, labels, len);
	map_set(m->points, labels, len, p);
	if (m->last)
		atomic_store_explicit(&m->last->next, p, memory_order_release);
	else
		atomic_store_explicit(&m->first, p, memory_order_release);
	m->last = p;
	return p;
}

void metric_add(struct metric *m, const char *const *values, uint64_t n)
{
	char text[METRIC_LABELS * (NAME_MAX + VALUE_MAX + 4)];
	size_t len = labels_text(m, values, text, sizeof(text));
	struct point *p;

	pthread_mutex_lock(&m->lock);
	p = map_get(m->points, text, len);
	if (!p && map_count(m->points) >= series_max()) {
		len = labels_text(m, NULL, text, sizeof(text));
		p = map_get(m->points, text, len);
	}
	if (!p)
		p = point_add(m, text, len);
	pthread_mutex_unlock(&m->lock);
	atomic_fetch_add_explicit(&p->value, n, memory_order_relaxed);
}

/* ---- reading ---- */

const struct metric *metric_next(const struct metric *m)
{
	do
		m = atomic_load_explicit(m ? &m->next : &metrics, memory_order_acquire);
	while (m && atomic_load_explicit(&m->replaced, memory_order_relaxed));
	return m;
}

const char *metric_name(const struct metric *m)
{
	return m->name;
}

const char *metric_help(const struct metric *m)
{
	return m->help;
}

bool metric_series(const struct metric *m, const void **cursor, const char **labels, uint64_t *value)
{
	const struct point *before = *cursor;
	const struct point *p = before ? atomic_load_explicit(&before->next, memory_order_acquire) : atomic_load_explicit(&m->first, memory_order_acquire);

	if (!p)
		return false;
	*cursor = p;
	*labels = p->labels;
	*value = atomic_load_explicit(&p->value, memory_order_relaxed);
	return true;
}
