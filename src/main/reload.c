/* The master's side of a reload. A process of its own reads and checks (loader.c); what it has read the master turns into a snapshot, binds
 * what is new, and sends both to the worker, which changes over or refuses. Only then is the old configuration let go, so that at any moment
 * the next worker can be started with the last good one, whatever stands in the files.
 * Owns what is to come until it is in force. Does not know what the worker does with it. */
#include "mctunnel/main/reload.h"

#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/renew.h"
#include "mctunnel/main/logs.h"
#include "mctunnel/main/notify.h"
#include "mctunnel/main/store.h"
#include "mctunnel/main/sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX 15000

static void begin(struct reload *r);

/* ---- the end ---- */

static void over(struct reload *r)
{
	r->state = RELOAD_NONE;
	notify_send("READY=1");
	if (!r->again)
		return;
	r->again = false;
	begin(r);
}

static void log_lines(enum log_level level, const char *what, const char *text)
{
	while (*text) {
		int len = (int)strcspn(text, "\n");

		log_say(level, "%s: %.*s", what, len, text);
		text += len + (text[len] == '\n');
	}
}

/* The worker tells whoever asked there. */
static void refuse(struct reload *r, const char *text)
{
	log_lines(LOG_ERROR, "reload refused, the old configuration stays", text);
	if (*r->place.control >= 0 && control_say(*r->place.control, CONTROL_REFUSED, r->ticket, text) < 0)
		log_error("cannot tell the worker of the refused reload: %s", strerror(errno));
	over(r);
}

static void abandon(struct reload *r)
{
	binding_abandon(&r->next);
	log_set_free(r->logs);
	r->logs = NULL;
	conf_put(r->conf);
	free(r->found);
	r->conf = NULL;
	r->found = NULL;
}

static void done(struct reload *r)
{
	struct reload_place *p = &r->place;

	binding_close_gone(*p->sockets, *p->sockets_n, &r->next);
	free(*p->sockets);
	conf_put(*p->conf);
	*p->conf = r->conf;
	*p->sockets = r->next.sockets;
	*p->sockets_n = r->next.n;
	free(r->next.origins);
	r->next = (struct binding_next){ .n = 0 };
	r->conf = NULL;
	if (r->logs)
		log_replace(r->logs);
	r->logs = NULL;
	log_lines(LOG_WARNING, "reload", r->found);
	free(r->found);
	r->found = NULL;
	store_sync(*p->sockets, *p->sockets_n);
	over(r);
}

/* ---- handing it to the worker ---- */

static int send_fresh(struct reload *r, int control)
{
	int fds[CONTROL_FDS], n = 0;

	for (size_t i = 0; i < r->next.n; i++) {
		if (r->next.origins[i] < 0)
			fds[n++] = r->next.sockets[i].fd;
		if (n < CONTROL_FDS && (i + 1 < r->next.n || n == 0))
			continue;
		if (control_send(control, CONTROL_SOCKETS, NULL, 0, fds, n) < 0)
			return -1;
		n = 0;
	}
	return 0;
}

static int send_all(struct reload *r, int bundle, int control)
{
	struct control_load l = { .ticket = r->ticket, .sockets = (uint32_t)r->next.n, .fresh = (uint32_t)r->next.fresh };
	size_t origins = r->next.n * sizeof(*r->next.origins), size = sizeof(l) + origins;
	int fds[CONTROL_FDS] = { bundle }, n = 0, rc;
	uint8_t *bytes;

	if (size > CONTROL_MAX) {
		errno = EMSGSIZE;
		return -1;
	}
	if (r->logs)
		l.logs = logs_fds(r->logs, fds + 1, &n);
	bytes = xmalloc(size);
	memcpy(bytes, &l, sizeof(l));
	memcpy(bytes + sizeof(l), r->next.origins, origins);
	rc = control_send(control, CONTROL_LOAD, bytes, size, fds, 1 + n);
	free(bytes);
	return rc == 0 ? send_fresh(r, control) : -1;
}

/* Without a worker the next one starts with it. */
static void hand_over(struct reload *r, int bundle)
{
	int control = *r->place.control;
	char why[160];

	r->state = RELOAD_CHANGING;
	if (control < 0) {
		done(r);
	} else if (send_all(r, bundle, control) < 0) {
		snprintf(why, sizeof(why), "[ALERT] the worker cannot be told: %s", strerror(errno));
		abandon(r);
		refuse(r, why);
	}
}

/* ---- what was read ---- */

struct text {
	char bytes[TEXT_MAX];
	size_t len;
};

static void add_line(void *arg, const char *line)
{
	struct text *t = arg;
	int n = snprintf(t->bytes + t->len, sizeof(t->bytes) - t->len, "%s\n", line);

	if (n > 0 && t->len + (size_t)n < sizeof(t->bytes))
		t->len += (size_t)n;
	t->bytes[t->len] = '\0';
}

static void ignore_finding(void *arg, bool alert, const char *line)
{
}

static void ignore_key(void *arg, const char *key)
{
}

static struct conf *unpack(int bundle)
{
	struct files *files = files_unpack(bundle);

	return files ? conf_load_files(files, ignore_finding, NULL) : NULL;
}

static int take_logs(struct reload *r, struct text *why)
{
	const struct conf *old = *r->place.conf;

	if (logs_same(r->conf, old))
		return 0;
	r->logs = logs_open(r->conf, old, r->debug, add_line, why);
	return r->logs ? 0 : -1;
}

static void take(struct reload *r, int bundle)
{
	const struct conf *old = *r->place.conf;
	struct binding_held held = { old, *r->place.sockets, *r->place.sockets_n };
	static struct text why; /* large; one reload at a time */

	why.len = 0;
	r->conf = unpack(bundle);
	if (!r->conf) {
		abandon(r);
		refuse(r, "[ALERT] what was read cannot be used here");
		return;
	}
	conf_keep(r->conf, old, ignore_key, NULL); /* the worker does the same, and says so */
	if (take_logs(r, &why) < 0 || binding_renew(&held, r->conf, &r->next, add_line, &why) < 0) {
		abandon(r);
		refuse(r, why.bytes);
		return;
	}
	hand_over(r, bundle);
}

bool reload_reap(struct reload *r, int pid, int status)
{
	char *text;
	int bundle;

	if (r->state != RELOAD_READING || pid != r->loader.pid)
		return false;
	bundle = loader_end(&r->loader, status, &text);
	if (bundle < 0) {
		refuse(r, text);
		free(text);
		return true;
	}
	r->found = text;
	take(r, bundle);
	close(bundle);
	return true;
}

/* ---- what is asked and answered ---- */

/* The files may have been rotated. The worker cannot open them itself where it lacks the rights. */
static void renew_logs(struct reload *r)
{
	struct log_set *s = logs_again(*r->place.conf);
	int fds[CONTROL_FDS], n;
	struct control_logs l = { logs_fds(s, fds, &n) };

	if (*r->place.control >= 0 && n > 0 && control_send(*r->place.control, CONTROL_LOGS, &l, sizeof(l), fds, n) < 0)
		log_error("cannot give the worker its log files anew: %s", strerror(errno));
	log_renew(s);
}

static void begin(struct reload *r)
{
	r->ticket = r->asked;
	notify_send("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_ms() * 1000);
	renew_logs(r);
	log_notice("reload: reading the configuration");
	if (loader_start(&r->loader, r->paths, r->paths_n, r->in_child, r->arg) < 0) {
		refuse(r, "[ALERT] no process can be started to read the configuration");
		return;
	}
	r->state = RELOAD_READING;
}

void reload_ask(struct reload *r, uint32_t ticket)
{
	if (ticket)
		r->asked = ticket;
	if (r->state == RELOAD_NONE)
		begin(r);
	else
		r->again = true;
}

void reload_answered(struct reload *r, const struct control_msg *m)
{
	const char *text;
	const struct control_ticket *t = control_ticket_of(m, &text);

	if (r->state != RELOAD_CHANGING || !t || t->ticket != r->ticket)
		return;
	if (text[0] == '\0') {
		done(r);
		return;
	}
	abandon(r);
	log_lines(LOG_ERROR, "reload refused by the worker, the old configuration stays", text);
	over(r);
}

/* It may have been the new configuration that killed it. */
void reload_worker_gone(struct reload *r)
{
	r->asked = 0; /* nobody there waits any more */
	if (r->state != RELOAD_CHANGING)
		return;
	abandon(r);
	log_error("reload failed: the worker died while it changed over; the old configuration stays");
	over(r);
}

void reload_look(struct reload *r, uint64_t now)
{
	if (r->state == RELOAD_READING)
		loader_look(&r->loader, now);
}

void reload_end(struct reload *r)
{
	r->again = false;
	if (r->state == RELOAD_CHANGING)
		abandon(r);
	r->state = RELOAD_NONE;
}
