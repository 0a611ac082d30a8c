/* What is found wrong with a configuration: counted, limited, and worded "FILE:LINE: [ALERT] key: sentence".
 * Remembers where each field was written, so that a check made later can still name the line. */
#ifndef MCTUNNEL_CONF_FINDING_H
#define MCTUNNEL_CONF_FINDING_H

#include "mctunnel/conf/conf.h"

#define FINDINGS_MAX_ALERTS 50

struct findings;

struct findings *findings_new(conf_report *report, void *arg);
void findings_free(struct findings *f);
unsigned findings_alerts(const struct findings *f);

/* key: "listeners[0].bind", or "file" or "syntax" when no key is at fault. line 0 stands for a whole file.
 * Past the limit nothing more is reported, only counted. */
void alert_at(struct findings *f, struct conf_where at, const char *key, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void warn_at(struct findings *f, struct conf_where at, const char *key, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Remembers where a field of the snapshot was written and under which key; at.file must outlive f. */
void findings_mark(struct findings *f, const void *field, struct conf_where at, const char *key);

/* The place of a field; of owner (also marked) when the field was left to its default. */
struct conf_where findings_where(const struct findings *f, const void *field, const void *owner);
void alert_on(struct findings *f, const void *field, const void *owner, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void warn_on(struct findings *f, const void *field, const void *owner, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Looks for the word an operator may have meant. Zero it with the wrong word set, try the candidates, print. */
struct suggest {
	const char *word, *best;
	unsigned distance;
	char text[96];
};
void suggest_try(struct suggest *s, const char *candidate);
const char *suggest_text(struct suggest *s); /* " (did you mean 'x'?)" or "" */

#endif
