/* For tests: stands in the place of base/log and keeps the last record as text. To be included once by a test. */
#include "mctunnel/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
	char line[1024]; /* EVENT KEY=VALUE ... */
	int lines;       /* records since logged_clear() */
} logged;

static inline void logged_clear(void)
{
	memset(&logged, 0, sizeof(logged));
}

/* What the last record says of a key. */
static inline long long logged_int(const char *key)
{
	char word[64];
	const char *at;

	snprintf(word, sizeof(word), " %s=", key);
	at = strstr(logged.line, word);
	assert_non_null(at);
	return strtoll(at + strlen(word), NULL, 10);
}

bool log_wants(enum log_level level)
{
	return level <= LOG_INFO;
}

void log_begin(struct log_rec *r, enum log_level level, const char *event)
{
	logged.lines++;
	snprintf(logged.line, sizeof(logged.line), "%s", event);
}

void log_str(struct log_rec *r, const char *key, const char *value)
{
	size_t len = strlen(logged.line);

	snprintf(logged.line + len, sizeof(logged.line) - len, " %s=%s", key, value ? value : "-");
}

void log_int(struct log_rec *r, const char *key, int64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)value);
	log_str(r, key, text);
}

void log_end(struct log_rec *r)
{
}

void log_say(enum log_level level, const char *fmt, ...)
{
}
