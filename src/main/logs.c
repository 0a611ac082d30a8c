/* The targets of the log, from a configuration to a set that base/log can put in force. The process with the rights opens them, the one
 * without gets their descriptors. As that process may be root while the worker, or whoever took it over, owns the folder, symbolic links
 * are followed only at start. Owns nothing; when a set comes into force is known by master and worker. */
#define _GNU_SOURCE
#include "mctunnel/main/logs.h"

#include "mctunnel/base/log.h"
#include "mctunnel/conf/conf.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOGS_MAX 31 /* beside the bundle in one message */

static const struct conf_log without = { .target = (char *)"stderr", .format = LOG_TEXT, .level = LOG_INFO };

static size_t count_of(const struct conf *c)
{
	return c->global.log_n ? c->global.log_n : 1;
}

static const struct conf_log *element(const struct conf *c, size_t i)
{
	return c->global.log_n ? &c->global.log[i] : &without;
}

static bool has(const struct conf *c, const char *target)
{
	for (size_t i = 0; c && i < count_of(c); i++) {
		if (strcmp(element(c, i)->target, target) == 0)
			return true;
	}
	return false;
}

static int add(struct log_set *s, const struct conf_log *l, bool debug, int fd, char *err, size_t errsize)
{
	return log_set_add(s, l->target, (enum log_format)l->format, debug ? LOG_DEBUG : (enum log_level)l->level, fd, err, errsize);
}

static int report(const struct conf_log *l, size_t i, const char *err, binding_report *on_failure, void *arg)
{
	char line[1024];

	if (l == &without)
		snprintf(line, sizeof(line), "[ALERT] %s", err);
	else
		snprintf(line, sizeof(line), "%s:%d: [ALERT] global.log[%zu]: %s", l->at.file, l->at.line, i, err);
	on_failure(arg, line);
	return -1;
}

struct log_set *logs_open(const struct conf *conf, const struct conf *before, bool debug, binding_report *on_failure, void *arg)
{
	struct log_set *s = log_set_new(!before);
	char err[300];
	int rc = 0;

	for (size_t i = 0; i < count_of(conf); i++) {
		const struct conf_log *l = element(conf, i);

		if (add(s, l, debug, LOG_OPEN, err, sizeof(err)) == 0)
			continue;
		if (!has(before, l->target) || add(s, l, debug, LOG_KEEP, err, sizeof(err)) < 0)
			rc = report(l, i, err, on_failure, arg);
	}
	if (rc == 0)
		return s;
	log_set_free(s);
	return NULL;
}

static bool is_link(const char *path)
{
	struct stat st;

	return path[0] == '/' && lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

struct log_set *logs_again(const struct conf *conf)
{
	struct log_set *s = log_set_new(false);
	char err[300], ignored[300];

	for (size_t i = 0; i < count_of(conf); i++) {
		const struct conf_log *l = element(conf, i);
		bool link = is_link(l->target);

		if (!link && add(s, l, false, LOG_OPEN, err, sizeof(err)) == 0)
			continue;
		if (!link)
			log_warning("%s; the old one is kept", err);
		if (add(s, l, false, LOG_KEEP, ignored, sizeof(ignored)) < 0)
			break; /* not of a configuration that came into force */
	}
	return s;
}

uint32_t logs_fds(const struct log_set *s, int *fds, int *n)
{
	uint32_t logs = 0;

	*n = 0;
	for (int i = 0; i < LOGS_MAX; i++) {
		int fd = log_set_fd(s, i);

		if (fd < 0)
			continue;
		logs |= 1u << i;
		fds[(*n)++] = fd;
	}
	return logs;
}

struct log_set *logs_take(const struct conf *conf, bool debug, uint32_t logs, const int *fds)
{
	struct log_set *s = log_set_new(false);
	char err[300];
	bool good = true;

	for (size_t i = 0; i < LOGS_MAX; i++) {
		int fd = logs & 1u << i ? *fds++ : LOG_KEEP;

		if (i < count_of(conf))
			good &= add(s, element(conf, i), debug, fd, err, sizeof(err)) == 0;
		else if (fd >= 0)
			close(fd);
	}
	if (good)
		return s;
	log_set_free(s);
	return NULL;
}

bool logs_same(const struct conf *a, const struct conf *b)
{
	if (a->global.log_n != b->global.log_n)
		return false;
	for (size_t i = 0; i < a->global.log_n; i++) {
		const struct conf_log *x = &a->global.log[i], *y = &b->global.log[i];

		if (strcmp(x->target, y->target) != 0 || x->format != y->format || x->level != y->level)
			return false;
	}
	return true;
}
