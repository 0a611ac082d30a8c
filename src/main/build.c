/* Makes the next regime on the thread that works aside, so that no loop stands still for thousands of rules and certificates. Owns what it has made until
 * the worker takes it. Which regime is in force, and how the loops go over to the next, is the worker's; nothing here touches what belongs to a loop. */
#include "mctunnel/main/build.h"

#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/renew.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/main/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void notes_add(struct notes *n, const char *fmt, ...)
{
	size_t room = sizeof(n->text) - n->len;
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(n->text + n->len, room, fmt, args);
	va_end(args);
	if (len > 0 && (size_t)len < room)
		n->len += (size_t)len;
	n->text[n->len] = '\0';
}

static void add_finding(void *arg, bool alert, const char *line)
{
	notes_add(arg, "%s\n", line);
}

static void ignore_finding(void *arg, bool alert, const char *line)
{
}

static void note_kept(void *arg, const char *key)
{
	notes_add(arg, "%s: only a restart changes it; it stays as it was\n", key);
}

static const char *load_bundle(struct build *b)
{
	struct files *files = files_unpack(b->bundle);

	b->conf = files ? conf_load_files(files, ignore_finding, NULL) : NULL;
	return b->conf ? NULL : "what was read cannot be used here";
}

static const char *load_paths(struct build *b)
{
	b->conf = conf_load(b->paths, b->paths_n, add_finding, &b->notes);
	return b->conf && verify_conf(b->conf, add_finding, &b->notes) == 0 ? NULL : b->notes.text;
}

static const char *put_to_work(struct build *b)
{
	if (b->conf->hub.set != b->before->hub.set)
		return "section hub: only a restart adds or removes it";
	if (b->conf->agent.set != b->before->agent.set)
		return "section agent: only a restart adds or removes it";
	conf_keep(b->conf, b->before, note_kept, &b->notes);
	if (regime_make(&b->next, b->conf, b->ticket_key, b->err, sizeof(b->err)) < 0)
		return b->err;
	b->generation = frontend_make(b->conf, b->next.sites);
	return NULL;
}

static void run_done(struct msg *m)
{
	struct build *b = container_of(m, struct build, msg);

	b->done(b);
}

static void make(struct aside *a)
{
	struct build *b = container_of(a, struct build, aside);

	b->why = b->bundle >= 0 ? load_bundle(b) : load_paths(b);
	if (!b->why)
		b->why = put_to_work(b);
	b->good = !b->why;
	b->msg.run = run_done;
	thread_post(0, &b->msg);
}

void build_start(struct build *b)
{
	aside_run(&b->aside, make);
}

void build_free(struct build *b)
{
	if (!b)
		return;
	if (b->bundle >= 0)
		close(b->bundle);
	regime_free(&b->next);
	generation_put(b->generation);
	conf_put(b->conf);
	conf_put(b->before);
	free(b);
}
