/* Fuzzes what gets into metrics from outside: names, help and labels that scripts make up, values of labels that strangers choose. Lines of the input: name, help, label, value.
 * What is published must be what Prometheus reads: one line, quotes closed, known escapes only, UTF-8; and a value that is short and well-formed comes back as it was. */
#include "script/metric.c"

#include "mctunnel/base/bug.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

static bool is_utf8(const char *s)
{
	for (size_t n; *s; s += n) {
		n = str_utf8(s);
		if (n == 0)
			return false;
	}
	return true;
}

/* Behind the opening quote, up to behind the closing one; undone into out. */
static const char *read_value(const char *at, char *out)
{
	for (; *at != '"'; at++) {
		BUG_ON(*at == '\0' || *at == '\n');
		if (*at == '\\') {
			at++;
			BUG_ON(*at != '\\' && *at != '"' && *at != 'n');
			*out++ = *at == 'n' ? '\n' : *at;
		} else {
			*out++ = *at;
		}
	}
	*out = '\0';
	return at + 1;
}

static void check_labels(const struct metric *m, const char *text, const char *const *values)
{
	char value[VALUE_MAX];

	BUG_ON(!is_utf8(text));
	for (size_t i = 0; i < m->labels_n; i++) {
		size_t len = strspn(text, WORD);

		BUG_ON(len != strlen(m->labels[i]) || memcmp(text, m->labels[i], len) != 0);
		BUG_ON(text[len] != '=' || text[len + 1] != '"');
		text = read_value(text + len + 2, value);
		if (values && strlen(values[i]) < VALUE_MAX / 2 - 1 && is_utf8(values[i]))
			BUG_ON(strcmp(value, values[i]) != 0);
		BUG_ON(i + 1 < m->labels_n && *text++ != ',');
	}
	BUG_ON(*text);
}

static void check_metric(const struct metric *m)
{
	const void *cursor = NULL;
	const char *text;
	uint64_t n, all = 0;

	BUG_ON(strspn(metric_name(m), WORD) != strlen(metric_name(m)) || strncmp(metric_name(m), "mctunnel_lua_", 13) != 0);
	BUG_ON(strchr(metric_help(m), '\n') || !is_utf8(metric_help(m)) || !*metric_help(m));
	while (metric_series(m, &cursor, &text, &n)) {
		check_labels(m, text, NULL);
		all += n;
	}
	BUG_ON(all > 2);
}

static void count(struct metric *m, const char *const *values)
{
	const void *cursor = NULL;
	const char *text;
	uint64_t n;

	metric_add(m, values, 2);
	BUG_ON(!metric_series(m, &cursor, &text, &n));
	if (m->labels_n > 0)
		check_labels(m, text, values);
}

static void forget(struct metric *m)
{
	for (struct point *p = atomic_load(&m->first), *next; p; p = next) {
		next = atomic_load(&p->next);
		free(p);
	}
	map_free(m->points);
	for (size_t i = 0; i < m->labels_n; i++)
		free(m->labels[i]);
	free(m->help);
	free(m);
}

static void try_one(const char *name, const char *help, size_t n, const char *const *labels, const char *const *values)
{
	char err[200] = "";
	struct metric *m = metric_get(name, help, n, labels, err, sizeof(err));

	BUG_ON(!m != (err[0] != '\0'));
	if (m)
		count(m, values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *labels[METRIC_LABELS + 2], *values[METRIC_LABELS + 2];
	char *text = strndup((const char *)data, size), *rest = text, *name = strsep(&rest, "\n"), *help = strsep(&rest, "\n");
	size_t n = 0;

	for (; rest && n < METRIC_LABELS + 2; n++) {
		labels[n] = strsep(&rest, "\x1f\n");
		values[n] = rest ? strsep(&rest, "\x1f") : "";
	}
	try_one(name, help, n, labels, values);
	for (const struct metric *m = NULL; (m = metric_next(m));)
		check_metric(m);
	for (struct metric *m = atomic_load(&metrics), *next; m; m = next) {
		next = atomic_load(&m->next);
		forget(m);
	}
	atomic_store(&metrics, NULL);
	free(text);
	return 0;
}
