/* The findings of one run of conf_load(): their wording, their count, their limit, and the places of fields.
 * Knows nothing about what is checked. */
#include "mctunnel/conf/finding.h"

#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mark {
	struct conf_where at;
	char key[]; /* as the operator knows it */
};

struct findings {
	conf_report *report;
	void *arg;
	struct map *marks; /* by the field's address; owned */
	unsigned alerts, warnings;
};

struct findings *findings_new(conf_report *report, void *arg)
{
	struct findings *f = xcalloc(1, sizeof(*f));

	f->report = report;
	f->arg = arg;
	f->marks = map_new();
	return f;
}

void findings_free(struct findings *f)
{
	size_t pos = 0;

	for (void *m; (m = map_next(f->marks, &pos));)
		free(m);
	map_free(f->marks);
	free(f);
}

unsigned findings_alerts(const struct findings *f)
{
	return f->alerts;
}

static void say(struct findings *f, bool alert, struct conf_where at, const char *key, const char *sentence)
{
	const char *file = at.file ? at.file : "-";
	char *line = xasprintf("%s:%d: [%s] %s: %s", file, at.line, alert ? "ALERT" : "WARNING", key, sentence);

	f->report(f->arg, alert, line);
	free(line);
}

static void __attribute__((format(printf, 5, 0)))
find(struct findings *f, bool alert, struct conf_where at, const char *key, const char *fmt, va_list ap)
{
	char sentence[1024];
	unsigned n = alert ? ++f->alerts : ++f->warnings;

	if (n > FINDINGS_MAX_ALERTS)
		return;
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	say(f, alert, at, key, sentence);
	if (n == FINDINGS_MAX_ALERTS && alert)
		say(f, true, at, "file", "that is enough: further alerts are not shown");
}

void alert_at(struct findings *f, struct conf_where at, const char *key, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	find(f, true, at, key, fmt, ap);
	va_end(ap);
}

void warn_at(struct findings *f, struct conf_where at, const char *key, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	find(f, false, at, key, fmt, ap);
	va_end(ap);
}

void findings_mark(struct findings *f, const void *field, struct conf_where at, const char *key)
{
	size_t len = strlen(key) + 1;
	struct mark *m = xmalloc(sizeof(*m) + len);

	m->at = at;
	memcpy(m->key, key, len);
	free(map_set(f->marks, &field, sizeof(field), m));
}

static const struct mark *mark_of(const struct findings *f, const void *field, const void *owner)
{
	static const struct mark none = { .key = "configuration" };
	const struct mark *m = map_get(f->marks, &field, sizeof(field));

	if (!m)
		m = map_get(f->marks, &owner, sizeof(owner));
	return m ? m : &none;
}

struct conf_where findings_where(const struct findings *f, const void *field, const void *owner)
{
	return mark_of(f, field, owner)->at;
}

void alert_on(struct findings *f, const void *field, const void *owner, const char *fmt, ...)
{
	const struct mark *m = mark_of(f, field, owner);
	va_list ap;

	va_start(ap, fmt);
	find(f, true, m->at, m->key, fmt, ap);
	va_end(ap);
}

void warn_on(struct findings *f, const void *field, const void *owner, const char *fmt, ...)
{
	const struct mark *m = mark_of(f, field, owner);
	va_list ap;

	va_start(ap, fmt);
	find(f, false, m->at, m->key, fmt, ap);
	va_end(ap);
}

void suggest_try(struct suggest *s, const char *candidate)
{
	unsigned limit = strlen(s->word) < 4 ? 1 : 2 + (unsigned)strlen(s->word) / 8;

	if (strlen(s->word) > 64)
		return;
	unsigned distance = str_distance(s->word, candidate);
	if (distance > limit || distance >= strlen(candidate) || (s->best && distance >= s->distance))
		return;
	s->best = candidate;
	s->distance = distance;
}

const char *suggest_text(struct suggest *s)
{
	s->text[0] = '\0';
	if (s->best)
		snprintf(s->text, sizeof(s->text), " (did you mean '%.64s'?)", s->best);
	return s->text;
}
