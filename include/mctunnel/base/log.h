/* The log: one record a line, the same facts as text (key=value) or JSON, to several targets.
 * Once log_start() has run, a thread of its own writes, and a slow target never stops a loop: what
 * does not fit its queue is dropped and counted (STAT_LOG_DROPPED). Before that and after log_stop(), records are written
 * at once by the caller, to the targets or, while there are none, as text to stderr. Records may come from any thread; open,
 * close, level, start and stop from one thread only. A child process inherits the targets, not the writing thread. */
#ifndef MCTUNNEL_BASE_LOG_H
#define MCTUNNEL_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ALERT, LOG_ERROR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG };

enum log_format { LOG_TEXT, LOG_JSON };

/* Adds a target: "stdout", "stderr", an absolute file path, "syslog:/dev/log" or "syslog:HOST-IP:PORT" (UDP).
 * Opens it now (before privileges are dropped). Returns 0, or -1 with the reason in err. */
int log_open(const char *target, enum log_format format, enum log_level level, char *err, size_t errsize)
    __attribute__((warn_unused_result));
void log_close_all(void);

/* Targets that are open, but not in force. Making a set takes nothing from those that are. */
#define LOG_OPEN (-1) /* open it now */
#define LOG_KEEP (-2) /* the descriptor that the target of the same name has when the set comes into force */
struct log_set;
struct log_set *log_set_new(bool follow); /* follow: also where a file's path is a symbolic link */
/* fd: LOG_OPEN, LOG_KEEP, or of that target, opened by somebody else: the set's from now on, also when it fails. */
int log_set_add(struct log_set *s, const char *target, enum log_format format, enum log_level level, int fd, char *err, size_t errsize)
    __attribute__((warn_unused_result));
int log_set_fd(const struct log_set *s, int i); /* borrowed; -1: out of range, a stream, or kept */
void log_set_free(struct log_set *s);

/* Both take the set. Records that end before go to the targets as they were, all later ones to the new. */
void log_replace(struct log_set *s); /* these, instead of all that are in force */
void log_renew(struct log_set *s);   /* its descriptors, for targets of the same name that are in force */

int log_start(void) __attribute__((warn_unused_result)); /* starts the writing thread of this process */
void log_stop(void);                                     /* writes what is queued (at most 1 s), ends the thread */
void log_reopen(void);                                   /* files, after rotation; one that cannot be opened stays as it is */

/* true when some target (or base/ring) wants this level; the macros below test it first. */
bool log_wants(enum log_level level);
void log_set_level(enum log_level level); /* for all targets */
int log_level_parse(const char *word);    /* -1: no such word */

/* One record: begin, add facts, end (which hands it to the targets). Values are escaped as the format
 * demands (control characters and quotes never break a line). At most 2 KiB; longer is cut and
 * says so (cut=yes). Keys and events are the program's own words, never input. */
struct log_rec {
	char text[2048], json[2048];
	size_t text_len, json_len; /* 0: no target wants that form */
	bool text_cut, json_cut;
	enum log_level level;
};
void log_begin(struct log_rec *r, enum log_level level, const char *event);
void log_str(struct log_rec *r, const char *key, const char *value); /* NULL value: "-" / null */
void log_int(struct log_rec *r, const char *key, int64_t value);
void log_end(struct log_rec *r);

/* A plain message: event "message" in JSON, the sentence itself in text. */
void log_say(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_alert(...) log_say(LOG_ALERT, __VA_ARGS__)
#define log_error(...) log_say(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_say(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_say(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_say(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                     \
	do {                                               \
		if (log_wants(LOG_DEBUG))                  \
			log_say(LOG_DEBUG, __VA_ARGS__); \
	} while (0)

#endif
