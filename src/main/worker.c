/* The worker: brings up hub and agent on every thread, tells the master when it serves, and ends in good order. The table of contents of the
 * forwarding process; what the parts do is theirs. Owns what is in force (regime.c) and this process's copies of the listening sockets;
 * at a reload it has made aside what shall be in force (build.c), and lets every thread go over to it. */
#include "mctunnel/main/worker.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/admin/metrics.h"
#include "mctunnel/admin/socket.h"
#include "mctunnel/admin/vip.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/ring.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/series.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/edge/carrier.h"
#include "mctunnel/edge/check.h"
#include "mctunnel/edge/departure.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/generation.h"
#include "mctunnel/edge/hub.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/event/aside.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/main/binding.h"
#include "mctunnel/main/build.h"
#include "mctunnel/main/control.h"
#include "mctunnel/main/logs.h"
#include "mctunnel/main/notify.h"
#include "mctunnel/main/privs.h"
#include "mctunnel/main/regime.h"
#include "mctunnel/main/sockets.h"
#include "mctunnel/net/resolve.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/session.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_LOOK_MS 50
#define CHUNK_BYTES (16u << 10)
#define MORSEL_BYTES (2u << 10)
#define DAY_MS (24u * 3600 * 1000)
#define RELAX_MS 5000 /* half of what a thread keeps and does not need is freed as often */
#define TRIM_MS 30000 /* not more often: who wants memory of malloc may have to wait for it */

enum phase { STARTING, SERVING, DRAINING, STOPPING };

struct change { /* a reload under way */
	struct build *build; /* owned; NULL: there is none, or it has been taken */
	struct regime next;  /* owned; conf NULL: not made yet */
	struct generation *generation; /* shared; with next */
	struct log_set *logs; /* owned; NULL: as before */
	uint32_t log_bits;  /* as in CONTROL_LOAD */
	int log_fds[CONTROL_FDS], log_fds_n; /* owned; none once logs is made */
	int32_t *origins;   /* owned: of next.sockets among those of now */
	size_t origins_n;
	uint32_t ticket;
	int *fresh;         /* owned, with their descriptors until next has them */
	size_t fresh_n, fresh_wanted;
	struct frontend_socket *listeners; /* owned, while threads change over */
	size_t listeners_n;
	int *hub_sockets;   /* owned, as well */
	struct notes notes;
	uint64_t began_ms;
};

struct outcome { /* of the last reload that was asked for */
	uint32_t ticket; /* up to this one */
	bool done;
	char *text; /* owned */
};

struct worker {
	const struct worker_args *args; /* borrowed */
	struct conf *conf;              /* borrowed from now */
	struct regime now, before;      /* owned; before: while threads may still use it */
	uint8_t hub_instance[16], agent_instance[16];
	struct watch control, signals;
	struct timer drain;
	uint64_t drain_until_ms;
	bool orphan;                    /* the master died */
	_Atomic int phase;
	int exit_code;
	struct change change;
	uint32_t ticket;                /* of the last who asked for a reload */
	bool again;                     /* without a master: somebody asked while one was under way */
	struct outcome outcome;
	struct timer expiry;
};

static struct worker me; /* written by thread 0, and before the threads start */

/* ---- asking every thread to do something, and going on when all have ---- */

struct round { /* one for each time: stopping may be ordered while draining is still being answered */
	void (*act)(void);
	void (*then)(void); /* on thread 0, after the last */
	int answers;
};

struct order {
	struct msg msg;
	struct round *round;
};

static void run_answer(struct msg *m)
{
	struct order *o = container_of(m, struct order, msg);
	struct round *r = o->round;
	free(o);
	if (++r->answers < thread_count())
		return;
	r->then();
	free(r);
}

static void run_order(struct msg *m)
{
	struct order *o = container_of(m, struct order, msg);
	o->round->act();
	o->msg.run = run_answer;
	thread_post(0, &o->msg);
}

static void order_all(void (*act)(void), void (*then)(void))
{
	struct round *r = xcalloc(1, sizeof *r);
	*r = (struct round){.act = act, .then = then};
	for (int t = 0; t < thread_count(); t++) {
		struct order *o = xcalloc(1, sizeof *o);
		*o = (struct order){.msg.run = run_order, .round = r};
		thread_post(t, &o->msg);
	}
}

static void tell_master(enum control what)
{
	if (me.args->control >= 0 && control_send(me.args->control, what, NULL, 0, NULL, 0) != 0)
		log_warning("cannot tell the master '%c': %s", what, strerror(errno));
}

/* ---- stopping ---- */

static void close_pages(void)
{
	metrics_close();
	admin_close();
}

static void stop_here(void)
{
	registry_stop();
	check_stop();
	frontend_close_all();
	frontend_stop();
	if (me.conf->agent.set)
		dialer_stop();
	if (me.conf->hub.set) {
		hub_close_all();
		hub_stop();
	}
	registry_stop();
	session_stop_all(REASON_STOPPED);
	if (thread_self() == 0)
		close_pages();
}

static void stop(int exit_code)
{
	if (me.phase == STOPPING)
		return;
	me.phase = STOPPING;
	me.exit_code = exit_code;
	timer_stop(&me.drain);
	order_all(stop_here, threads_stop);
}

static void depart(void)
{
	departure_run();
}

static void nothing(void);

static void on_drain(struct timer *t)
{
	struct mem_usage use;
	if (me.orphan && me.conf->hub.set) /* it has no admin socket where it could be told that the address has moved */
		order_all(depart, nothing);
	mem_usage(MEM_SESSION, &use);
	bool over = use.used == 0 && frontend_sessions() == 0;
	if (!over && clock_ms() < me.drain_until_ms) {
		timer_start(&me.drain, DRAIN_LOOK_MS);
		return;
	}
	if (!over)
		log_warning("soft stop: %zu sessions were still there after global.hard_stop_after and end now", use.used);
	stop(0);
}

static void drain_here(void)
{
	frontend_close_all();
	if (me.conf->hub.set) {
		hub_close_all();
		hub_drain();
	}
	check_stop();
	if (me.conf->agent.set)
		dialer_drain();
}

/* While it drains for its master, a worker can still be asked how it is; one that is alone makes way for whoever starts next. */
static bool kept_to_the_end(const char *name)
{
	return !me.orphan && (strcmp(name, "metrics") == 0 || strncmp(name, "admin.", 6) == 0);
}

static void close_sockets(void)
{
	if (me.orphan)
		close_pages();
	for (size_t i = 0; i < me.now.sockets_n; i++)
		if (!kept_to_the_end(me.now.sockets[i].name))
			close(me.now.sockets[i].fd);
	timer_start(&me.drain, DRAIN_LOOK_MS);
}

static void drain(const char *why)
{
	if (me.phase >= DRAINING)
		return;
	log_notice("draining: %s; sessions have %u ms to end", why, me.conf->global.hard_stop_after);
	me.phase = DRAINING;
	me.args->shared->draining = 1;
	tell_master(CONTROL_DRAINING);
	me.drain_until_ms = clock_ms() + me.conf->global.hard_stop_after;
	order_all(drain_here, close_sockets);
}

/* ---- reload ---- */

static void settle(uint32_t ticket, bool good, const char *text)
{
	free(me.outcome.text);
	me.outcome = (struct outcome){ticket, good, xstrdup(text)};
	metrics_count_reload(good);
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

static void forget_change(void)
{
	struct change *c = &me.change;
	build_free(c->build);
	regime_free(&c->next);
	generation_put(c->generation);
	log_set_free(c->logs);
	close_all(c->log_fds, (size_t)c->log_fds_n);
	close_all(c->fresh, c->fresh_n);
	free(c->fresh);
	free(c->origins);
	free(c->listeners);
	free(c->hub_sockets);
	memset(c, 0, sizeof *c);
}

static void answer_master(uint32_t ticket, const char *text)
{
	if (me.args->control >= 0 && control_say(me.args->control, CONTROL_ANSWER, ticket, text) != 0)
		log_error("cannot tell the master how the reload ended: %s", strerror(errno));
}

static void log_lines(enum log_level level, const char *what, const char *text)
{
	while (*text) {
		int len = (int)strcspn(text, "\n");
		log_say(level, "%s: %.*s", what, len, text);
		text += len + (text[len] == '\n');
	}
}

static void reload_alone(void);

/* The wishes that came meanwhile, with what the files say now. */
static void go_on(void)
{
	bool again = me.again;
	forget_change();
	me.again = false;
	if (again)
		reload_alone();
}

static void refuse_change(const char *why)
{
	uint32_t ticket = me.change.ticket;
	log_lines(LOG_ERROR, "reload refused, the old configuration stays", why);
	answer_master(ticket, why);
	settle(ticket, false, why);
	go_on();
}

/* On every thread, between two turns. */
static void change_here(void)
{
	struct change *c = &me.change;
	script_use(regime_script(&me.now, (size_t)thread_self()));
	frontend_reload(c->listeners, c->listeners_n);
	check_reload();
	target_reload();
	if (me.conf->hub.set) {
		hub_reload(me.conf, me.now.hub_tls, c->hub_sockets);
		hub_changed();
	}
	if (me.conf->agent.set)
		dialer_reload(me.conf, me.now.agent_tls);
}

static void change_others(void)
{
	if (thread_self() != 0)
		change_here();
}

/* No thread listens there any more. Others still have a copy (the master, systemd's store), so it is shut as well: whoever is told that the
 * reload is done finds it refused. */
static void close_gone(void)
{
	struct change *c = &me.change;
	bool *kept = xcalloc(me.before.sockets_n + 1, sizeof *kept);
	for (size_t i = 0; i < me.now.sockets_n; i++)
		if (c->origins[i] >= 0)
			kept[c->origins[i]] = true;
	for (size_t i = 0; i < me.before.sockets_n; i++) {
		if (kept[i])
			continue;
		(void)shutdown(me.before.sockets[i].fd, SHUT_RDWR);
		close(me.before.sockets[i].fd);
	}
	free(kept);
}

static void move_metrics(void)
{
	int fd = regime_metrics_socket(&me.now);
	if (me.phase != STOPPING && fd != regime_metrics_socket(&me.before) && metrics_move(fd) != 0)
		log_error("metrics: cannot be served at their new address: %s", strerror(errno));
}

static void limit_memory(void);

struct farewell {
	struct aside aside;
	struct regime regime; /* owned */
};

static void bid_farewell(struct aside *a)
{
	struct farewell *f = container_of(a, struct farewell, aside);
	regime_free(&f->regime);
	free(f);
}

static void let_go_of_before(void)
{
	struct farewell *f = xcalloc(1, sizeof *f);
	f->regime = me.before;
	me.before = (struct regime){.conf = NULL};
	aside_run(&f->aside, bid_farewell);
}

static void changed(void)
{
	struct change *c = &me.change;
	char err[512];
	bool more = me.conf->global.maxconn > me.before.conf->global.maxconn;
	move_metrics();
	answer_master(c->ticket, ""); /* before anything is shut: if we die it must not go back to sockets that are */
	close_gone();
	let_go_of_before();
	limit_memory();
	if (more && privs_raise_files(me.conf, err, sizeof err) < 0)
		notes_add(&c->notes, "%s\n", err);
	if (c->logs)
		log_replace(c->logs);
	c->logs = NULL;
	log_notice("reload done in %llu ms: %zu listeners, %zu tunnels, %zu services", (unsigned long long)(clock_ms() - c->began_ms),
		   me.conf->listeners_n, me.conf->tunnels_n, me.conf->agent.services_n);
	log_lines(LOG_WARNING, "reload", c->notes.text);
	settle(c->ticket, true, c->notes.text);
	regime_warn_of_expiry(&me.now);
	go_on();
}

/* Thread 0 goes first, at once: what it says of listeners by number the others get in the order in which it was said. */
static void change_over(void)
{
	struct change *c = &me.change;
	me.before = me.now;
	me.now = c->next;
	c->next = (struct regime){.conf = NULL};
	me.conf = me.now.conf;
	c->listeners = regime_listeners(&me.now, &c->listeners_n);
	c->hub_sockets = regime_hub_sockets(&me.now);
	frontend_prepare(c->generation);
	c->generation = NULL;
	check_prepare(me.conf);
	target_prepare(me.conf);
	change_here();
	order_all(change_others, changed);
}

/* Sockets in the order of the list; those that stay are known by their place in the old one. */
static void list_sockets(void)
{
	struct change *c = &me.change;
	size_t fresh = 0;
	c->next.sockets_n = worker_sockets(c->next.conf, &c->next.sockets);
	BUG_ON(c->next.sockets_n != c->origins_n);
	for (size_t i = 0; i < c->origins_n; i++)
		c->next.sockets[i].fd = c->origins[i] >= 0 ? me.now.sockets[c->origins[i]].fd : c->fresh[fresh++];
	c->fresh_n = 0;
}

static void begin_change(uint32_t ticket)
{
	BUG_ON(me.change.build || me.change.next.conf || me.before.conf);
	me.change = (struct change){.ticket = ticket, .began_ms = clock_ms()};
}

static void start_build(int bundle, void (*done)(struct build *))
{
	struct build *b = xcalloc(1, sizeof *b);
	*b = (struct build){.bundle = bundle, .paths = me.args->paths, .paths_n = me.args->paths_n, .before = conf_get(me.conf),
			    .ticket_key = me.args->shared->ticket_key, .done = done};
	me.change.build = b;
	build_start(b);
}

/* -1: refused. */
static int take_build(void)
{
	struct change *c = &me.change;
	struct build *b = c->build;
	const char *why = me.phase >= DRAINING ? "the program is stopping" : b->why;
	if (why) {
		refuse_change(why);
		return -1;
	}
	c->next = b->next;
	c->generation = b->generation;
	c->notes = b->notes;
	b->next = (struct regime){.conf = NULL};
	b->generation = NULL;
	c->build = NULL;
	build_free(b);
	return 0;
}

/* Even when they are not to be used: their descriptors are ours. By now every thread builds records also as the new targets
 * want them, and all have turned before these come into force, so none is lost. */
static void take_logs(const struct conf *conf)
{
	struct change *c = &me.change;
	if (!conf)
		return;
	struct log_set *s = logs_take(conf, me.args->debug, c->log_bits, c->log_fds);
	BUG_ON(!s); /* the master has opened them */
	c->log_fds_n = 0;
	if (logs_same(conf, me.conf))
		log_set_free(s);
	else
		c->logs = s;
}

/* Once it is made, and all fresh sockets are there. */
static void go_over(void)
{
	struct change *c = &me.change;
	if (!c->next.conf || c->fresh_n < c->fresh_wanted)
		return;
	if (me.phase >= DRAINING) { /* since then */
		refuse_change("the program is stopping");
		return;
	}
	list_sockets();
	change_over();
}

static void on_built(struct build *b)
{
	take_logs(b->conf);
	if (take_build() == 0)
		go_over();
}

static void on_logs(const struct control_msg *m)
{
	const struct control_logs *l = control_logs_of(m);
	BUG_ON(!l);
	struct log_set *s = logs_take(me.conf, false, l->logs, m->fds);
	BUG_ON(!s);
	log_renew(s);
}

static void on_load(const struct control_msg *m)
{
	const int32_t *origins;
	const struct control_load *l = control_load_of(m, me.now.sockets_n, &origins);
	struct change *c = &me.change;
	BUG_ON(!l); /* the master's word */
	begin_change(l->ticket);
	c->log_bits = l->logs;
	c->log_fds_n = m->fds_n - 1;
	memcpy(c->log_fds, m->fds + 1, (size_t)c->log_fds_n * sizeof *c->log_fds);
	c->origins_n = l->sockets;
	c->origins = xcalloc(l->sockets + 1, sizeof *c->origins);
	memcpy(c->origins, origins, l->sockets * sizeof *c->origins);
	c->fresh_wanted = l->fresh;
	c->fresh = xcalloc(l->fresh + 1, sizeof *c->fresh);
	start_build(m->fds[0], on_built);
}

static void on_sockets(const struct control_msg *m)
{
	struct change *c = &me.change;
	bool waiting = c->fresh_n < c->fresh_wanted;
	for (int i = 0; i < m->fds_n; i++) {
		if (c->fresh_n < c->fresh_wanted)
			c->fresh[c->fresh_n++] = m->fds[i];
		else
			close(m->fds[i]); /* of a change that was refused */
	}
	if (waiting)
		go_over();
}

static void on_refused(const struct control_msg *m)
{
	const char *text;
	const struct control_ticket *t = control_ticket_of(m, &text);
	if (t)
		settle(t->ticket, false, text);
}

/* Without a master: all of it here, with the rights that are left. */

static void add_failure(void *arg, const char *line)
{
	notes_add(arg, "%s\n", line);
}

static int bind_alone(struct conf *conf)
{
	struct binding_held held = {me.conf, me.now.sockets, me.now.sockets_n};
	struct binding_next next;
	struct change *c = &me.change;
	if (binding_renew(&held, conf, &next, add_failure, &c->notes) < 0)
		return -1;
	c->next.sockets = next.sockets;
	c->next.sockets_n = next.n;
	c->origins = next.origins;
	return 0;
}

static int open_logs_alone(const struct conf *conf)
{
	if (logs_same(conf, me.conf))
		return 0;
	me.change.logs = logs_open(conf, me.conf, me.args->debug, add_failure, &me.change.notes);
	return me.change.logs ? 0 : -1;
}

static void on_built_alone(struct build *b)
{
	struct change *c = &me.change;
	if (take_build() != 0)
		return;
	if (open_logs_alone(c->next.conf) == 0 && bind_alone(c->next.conf) == 0)
		change_over();
	else
		refuse_change(c->notes.text);
}

/* For all who have asked so far. */
static void reload_alone(void)
{
	if (me.change.build || me.before.conf) {
		me.again = true;
		return;
	}
	log_reopen();
	begin_change(me.ticket);
	start_build(-1, on_built_alone);
}

/* An operator asks at the admin socket. */

static uint32_t ask_reload(void)
{
	struct control_ticket t = {++me.ticket};
	if (me.phase >= DRAINING)
		settle(t.ticket, false, "the program is stopping");
	else if (me.args->control < 0)
		reload_alone();
	else if (control_send(me.args->control, CONTROL_ASK_RELOAD, &t, sizeof t, NULL, 0) != 0)
		settle(t.ticket, false, "the master does not answer");
	return t.ticket;
}

static int reload_outcome(uint32_t ticket, const char **text)
{
	if (me.outcome.ticket < ticket)
		return 0;
	*text = me.outcome.text;
	return me.outcome.done ? 1 : -1;
}

/* ---- what tells us to stop ---- */

static void on_control(struct watch *w, unsigned events)
{
	static struct control_msg m; /* large */
	int n;
	while ((n = control_recv(w->fd, &m, true)) == 1) {
		switch (m.what) {
		case CONTROL_SOFT_STOP: drain("soft stop"); break;
		case CONTROL_STOP: stop(0); break;
		case CONTROL_LOAD: on_load(&m); break;
		case CONTROL_SOCKETS: on_sockets(&m); break;
		case CONTROL_REFUSED: on_refused(&m); break;
		case CONTROL_LOGS: on_logs(&m); break;
		}
	}
	if (n == 0) {
		loop_unwatch(w);
		me.orphan = true;
		notify_unfit(me.args->health_fd);
		prctl(PR_SET_NAME, "mctunnel-orphan", 0, 0, 0); /* no worker for keepalived's track_process */
		log_alert("the master is gone: nobody would restart this worker, so it gives up its listening sockets");
		drain("the master is gone");
	}
}

static void on_signal(struct watch *w, unsigned events)
{
	struct signalfd_siginfo info;
	while (read(w->fd, &info, sizeof info) == (ssize_t)sizeof info) {
		bool grace = info.ssi_signo == SIGTERM && getpid() == 1 && me.phase < DRAINING; /* alone in a container, see master.c */
		if (info.ssi_signo == SIGHUP)
			reload_alone();
		else if (info.ssi_signo == SIGUSR1 || grace)
			drain("soft stop");
		else
			stop(info.ssi_signo == SIGINT ? 130 : 0);
	}
}

/* The signals that are orders. */
static sigset_t orders(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGHUP); /* ignored in a worker that has a master */
	return set;
}

static void watch_orders(void)
{
	sigset_t set = orders();
	int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0 || loop_watch(&me.signals, fd, on_signal) != 0)
		die("cannot watch signals: %s", strerror(errno));
	if (me.args->control >= 0 && loop_watch(&me.control, me.args->control, on_control) != 0)
		die("cannot watch the master: %s", strerror(errno));
}

/* ---- starting ---- */

static bool is_ready(void)
{
	return me.phase == SERVING;
}

static uint64_t restarts(void)
{
	return me.args->shared->restarts;
}

static struct conf *conf_in_force(void)
{
	return me.conf;
}

static const char *phase_word(void)
{
	static const char *const words[] = { "starting", "serving", "draining", "stopping" };

	return words[me.phase];
}

static const struct metrics_state metrics_state = {is_ready, restarts, conf_in_force, phase_word};

/* An operator asks. The master would start another worker if it did not know. */
static void stop_program(bool softly)
{
	if (me.args->control >= 0)
		tell_master(softly ? CONTROL_SOFT_STOP : CONTROL_STOP);
	else if (softly)
		drain("soft stop");
	else
		stop(0);
}

static const struct admin_state admin_state = {conf_in_force, phase_word, restarts, stop_program, ask_reload, reload_outcome};

static void run_ready(struct msg *m)
{
	hub_changed();
	free(m);
}

static void tell_hubs(void)
{
	for (int t = 0; t < thread_count() && me.conf->hub.set; t++) {
		struct msg *m = xcalloc(1, sizeof *m);
		m->run = run_ready;
		thread_post(t, m);
	}
}

static void serving(void)
{
	if (me.phase != STARTING)
		return;
	me.phase = SERVING;
	tell_hubs();
	log_notice("serving: version %s, %d threads, %zu listeners%s%s", MCTUNNEL_VERSION, thread_count(), me.conf->listeners_n,
		   me.conf->hub.set ? ", hub " : "", me.conf->hub.set ? me.conf->hub.name : "");
	tell_master(CONTROL_READY);
}

static const struct conf_listener *find_listener(const char *name, size_t len)
{
	for (size_t i = 0; i < me.conf->listeners_n; i++)
		if (strlen(me.conf->listeners[i].name) == len && memcmp(me.conf->listeners[i].name, name, len) == 0)
			return &me.conf->listeners[i];
	return NULL;
}

static int open_socket(const struct worker_socket *s)
{
	if (strncmp(s->name, "listener.", 9) == 0) {
		const char *name = s->name + 9;
		const struct conf_listener *l = find_listener(name, (size_t)(strrchr(name, '.') - name));
		BUG_ON(!l);
		return frontend_open(me.conf, l, s->fd);
	}
	if (strncmp(s->name, "hub.", 4) == 0)
		return hub_open(s->fd, (unsigned)strtoul(s->name + 4, NULL, 10));
	if (strncmp(s->name, "admin.", 6) == 0)
		return thread_self() == 0 ? admin_open(&me.args->conf->global.admin[strtoul(s->name + 6, NULL, 10)], s->fd) : 0;
	return thread_self() == 0 ? metrics_open(s->fd) : 0;
}

static void nothing(void)
{
}

static void on_expiry(struct timer *t)
{
	regime_warn_of_expiry(&me.now);
	timer_start(t, DAY_MS);
}

/* ---- giving memory back ---- */

static _Thread_local struct timer relax;
static struct aside trimming;
static atomic_bool trimming_waits;
static _Atomic uint64_t next_trim_ms;

static void trim(struct aside *a)
{
	atomic_store(&trimming_waits, false);
	mem_trim();
}

static void on_relax(struct timer *t)
{
	if (mem_relax() && clock_ms() >= atomic_load(&next_trim_ms) && !atomic_exchange(&trimming_waits, true)) {
		atomic_store(&next_trim_ms, clock_ms() + TRIM_MS);
		aside_run(&trimming, trim);
	}
	timer_start(t, RELAX_MS);
}

/* What checks find concerns sessions first, so that no hub sends us one meanwhile. */
static void on_checked(const char *service)
{
	target_checked(service);
	dialer_changed();
}

static const struct check_events check_events = {.on_change = on_checked};

static void setup(int thread)
{
	char err[200];
	if (resolve_init(err, sizeof err) != 0)
		log_warning("no names can be resolved: %s", err);
	tls_thread_init();
	carrier_thread_init();
	session_thread_init();
	registry_init();
	script_use(regime_script(&me.now, (size_t)thread));
	frontend_init(me.conf, me.now.sites);
	if (me.conf->hub.set)
		hub_init(me.conf, me.now.hub_tls, me.hub_instance, is_ready);
	check_init(me.conf, &check_events);
	target_init(me.conf);
	if (me.conf->agent.set)
		dialer_init(me.conf, me.now.agent_tls, me.agent_instance);
	timer_init(&relax, on_relax);
	timer_start(&relax, RELAX_MS);
	for (size_t i = 0; i < me.now.sockets_n; i++)
		if (open_socket(&me.now.sockets[i]) != 0)
			die("cannot watch the socket of %s: %s", me.now.sockets[i].name, strerror(errno));
	if (thread != 0)
		return;
	aside_open();
	watch_orders();
	timer_init(&me.drain, on_drain);
	timer_init(&me.expiry, on_expiry);
	on_expiry(&me.expiry);
	order_all(nothing, serving); /* each thread answers once its loop turns */
}

static void teardown(int thread)
{
	if (thread == 0)
		aside_close();
	timer_stop(&relax);
	if (me.conf->agent.set)
		dialer_fini();
	target_fini();
	check_fini();
	if (me.conf->hub.set)
		hub_fini();
	frontend_fini();
	script_use(NULL);
	registry_fini();
	resolve_fini();
	carrier_thread_fini();
	session_thread_fini();
	if (thread == 0 && me.signals.fd > 0) {
		int fd = me.signals.fd;
		loop_unwatch(&me.signals);
		close(fd);
	}
}

static void block_signals(void)
{
	sigset_t set = orders();
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* The budget for data in flight: three quarters as large pieces, one as small ones. */
static void limit_memory(void)
{
	mem_limit(MEM_CHUNK, me.conf->global.memory / 4 * 3 / CHUNK_BYTES);
	mem_limit(MEM_MORSEL, me.conf->global.memory / 4 / MORSEL_BYTES);
	mem_ballast();
}

static void begin_regime(void)
{
	const struct worker_args *a = me.args;
	char err[300];
	if (regime_make(&me.now, a->conf, a->shared->ticket_key, err, sizeof err) != 0)
		die("%s", err);
	me.conf = me.now.conf;
	me.now.sockets_n = a->sockets_n;
	me.now.sockets = xcalloc(a->sockets_n + 1, sizeof *me.now.sockets);
	if (a->sockets_n > 0) /* an agent may have none */
		memcpy(me.now.sockets, a->sockets, a->sockets_n * sizeof *me.now.sockets);
}

static void end_regime(void)
{
	forget_change();
	regime_free(&me.before);
	regime_free(&me.now);
	free(me.outcome.text);
}

int worker_run(const struct worker_args *args)
{
	char err[256];
	memset(&me, 0, sizeof me);
	me.args = args;
	me.control.fd = me.signals.fd = -1;
	rnd_bytes(me.hub_instance, sizeof me.hub_instance);
	rnd_bytes(me.agent_instance, sizeof me.agent_instance);
	block_signals();
	begin_regime();
	limit_memory();
	if (me.conf->global.metrics_max_series)
		series_limit(me.conf->global.metrics_max_series);
	metrics_init(&metrics_state);
	admin_init(&admin_state);
	vip_init(&args->shared->vip, &args->shared->vip_unanswered);
	ring_open();
	tzset(); /* scripts ask for the local time, and a chroot has no zones */
	if (privs_drop(err, sizeof err) != 0) {
		log_alert("the worker cannot start: %s", err);
		end_regime();
		return 1;
	}
	if (log_start() != 0)
		die("cannot start the log's thread: %s", strerror(errno));
	threads_run((int)me.conf->global.threads, args->shared->heartbeat, setup, teardown);
	end_regime();
	log_notice("stopped");
	log_stop();
	ring_close();
	return me.exit_code;
}
