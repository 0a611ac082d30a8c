/* The worker: brings up hub and agent on every thread, tells the master when it serves, and ends in good order. The table of contents of the
 * forwarding process; what the parts do is theirs. Owns the TLS contexts and this process's copies of the listening sockets. */
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
#include "mctunnel/base/timer.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/edge/carrier.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/hub.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/main/privs.h"
#include "mctunnel/net/resolve.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/tunnel/registry.h"
#include "mctunnel/tunnel/session.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define DRAIN_LOOK_MS 50
#define CHUNK_BYTES (16u << 10)
#define MORSEL_BYTES (2u << 10)

enum phase { STARTING, SERVING, DRAINING, STOPPING };

struct worker {
	const struct worker_args *args; /* borrowed */
	struct conf *conf;              /* borrowed */
	struct tls **hub_tls;           /* owned, one per hub.bind */
	struct tls *agent_tls;          /* owned */
	uint8_t hub_instance[16], agent_instance[16];
	struct watch control, signals;
	struct timer drain;
	uint64_t drain_until_ms;
	_Atomic int phase;
	int exit_code;
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

static void tell_master(char what)
{
	if (me.args->control >= 0 && send(me.args->control, &what, 1, MSG_NOSIGNAL) != 1)
		log_warning("cannot tell the master '%c': %s", what, strerror(errno));
}

/* ---- stopping ---- */

static void stop_here(void)
{
	registry_stop();
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
	if (thread_self() == 0) {
		metrics_close();
		admin_close();
	}
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

static void on_drain(struct timer *t)
{
	struct mem_usage use;
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
	if (me.conf->agent.set)
		dialer_drain();
}

static void close_sockets(void)
{
	for (size_t i = 0; i < me.args->sockets_n; i++)
		if (strcmp(me.args->sockets[i].name, "metrics") != 0 && strncmp(me.args->sockets[i].name, "admin.", 6) != 0)
			close(me.args->sockets[i].fd);
	timer_start(&me.drain, DRAIN_LOOK_MS);
}

static void drain(const char *why)
{
	if (me.phase >= DRAINING)
		return;
	log_notice("draining: %s; sessions have %u ms to end", why, me.conf->global.hard_stop_after);
	me.phase = DRAINING;
	me.args->shared->draining = 1;
	tell_master('D');
	me.drain_until_ms = clock_ms() + me.conf->global.hard_stop_after;
	order_all(drain_here, close_sockets);
}

/* ---- what tells us to stop ---- */

static void on_control(struct watch *w, unsigned events)
{
	char c;
	ssize_t n;
	while ((n = recv(w->fd, &c, 1, MSG_DONTWAIT)) == 1) {
		if (c == 'S')
			drain("soft stop");
		else if (c == 'T')
			stop(0);
	}
	if (n == 0) {
		loop_unwatch(w);
		log_alert("the master is gone: nobody would restart this worker, so it gives up its listening sockets");
		drain("the master is gone");
	}
}

static void on_signal(struct watch *w, unsigned events)
{
	struct signalfd_siginfo info;
	while (read(w->fd, &info, sizeof info) == (ssize_t)sizeof info) {
		bool grace = info.ssi_signo == SIGTERM && getpid() == 1 && me.phase < DRAINING; /* alone in a container, see master.c */
		if (info.ssi_signo == SIGUSR1 || grace)
			drain("soft stop");
		else
			stop(info.ssi_signo == SIGINT ? 130 : 0);
	}
}

static void watch_orders(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
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
		tell_master(softly ? 'S' : 'T');
	else if (softly)
		drain("soft stop");
	else
		stop(0);
}

static const struct admin_state admin_state = {conf_in_force, phase_word, restarts, stop_program};

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
	tell_master('R');
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
		return thread_self() == 0 ? admin_open(&me.conf->global.admin[strtoul(s->name + 6, NULL, 10)], s->fd) : 0;
	return thread_self() == 0 ? metrics_open(s->fd) : 0;
}

static void nothing(void)
{
}

static void setup(int thread)
{
	char err[200];
	if (resolve_init(err, sizeof err) != 0)
		log_warning("no names can be resolved: %s", err);
	registry_init();
	frontend_init(me.conf);
	if (me.conf->hub.set)
		hub_init(me.conf, me.hub_tls, me.hub_instance, is_ready);
	target_init(me.conf);
	if (me.conf->agent.set)
		dialer_init(me.conf, me.agent_tls, me.agent_instance);
	for (size_t i = 0; i < me.args->sockets_n; i++)
		if (open_socket(&me.args->sockets[i]) != 0)
			die("cannot watch the socket of %s: %s", me.args->sockets[i].name, strerror(errno));
	if (thread != 0)
		return;
	watch_orders();
	timer_init(&me.drain, on_drain);
	order_all(nothing, serving); /* each thread answers once its loop turns */
}

static void teardown(int thread)
{
	if (me.conf->agent.set)
		dialer_fini();
	target_fini();
	if (me.conf->hub.set)
		hub_fini();
	frontend_fini();
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

static const char *content(const char *path)
{
	size_t len;
	const char *why, *text = path ? files_read(me.conf->files, path, &len, &why) : NULL;
	return text;
}

static struct tls *server_tls(const struct conf_tls_bind *b)
{
	char err[300];
	struct tls_files f = {.cert_path = b->cert,
			      .cert = content(b->cert),
			      .key_path = b->key,
			      .key = content(b->key),
			      .ca_path = b->client_ca,
			      .ca = content(b->client_ca),
			      .crl_path = b->crl,
			      .crl = content(b->crl)};
	struct tls *t = tls_server(&f, me.args->shared->ticket_key, err, sizeof err);
	if (!t)
		die("hub.bind: %s", err);
	return t;
}

static struct tls *client_tls(const struct conf_agent *a)
{
	char err[300];
	struct tls_files f = {.cert_path = a->cert,
			      .cert = content(a->cert),
			      .key_path = a->key,
			      .key = content(a->key),
			      .ca_path = a->ca,
			      .ca = content(a->ca)};
	struct tls *t = tls_client(&f, err, sizeof err);
	if (!t)
		die("agent.tls: %s", err);
	return t;
}

static void make_tls(void)
{
	me.hub_tls = xcalloc(me.conf->hub.bind_n + 1, sizeof *me.hub_tls);
	for (size_t i = 0; i < me.conf->hub.bind_n; i++)
		me.hub_tls[i] = server_tls(&me.conf->hub.bind[i]);
	if (me.conf->agent.set)
		me.agent_tls = client_tls(&me.conf->agent);
}

static void free_tls(void)
{
	for (size_t i = 0; i < me.conf->hub.bind_n; i++)
		tls_put(me.hub_tls[i]);
	free(me.hub_tls);
	tls_put(me.agent_tls);
}

static void block_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* The budget for data in flight: three quarters as large pieces, one as small ones. */
static void limit_memory(void)
{
	mem_limit(MEM_CHUNK, me.conf->global.memory / 4 * 3 / CHUNK_BYTES);
	mem_limit(MEM_MORSEL, me.conf->global.memory / 4 / MORSEL_BYTES);
}

int worker_run(const struct worker_args *args)
{
	char err[256];
	memset(&me, 0, sizeof me);
	me.args = args;
	me.conf = args->conf;
	me.control.fd = me.signals.fd = -1;
	rnd_bytes(me.hub_instance, sizeof me.hub_instance);
	rnd_bytes(me.agent_instance, sizeof me.agent_instance);
	block_signals();
	limit_memory();
	make_tls();
	if (me.conf->global.metrics_max_series)
		series_limit(me.conf->global.metrics_max_series);
	metrics_init(&metrics_state);
	admin_init(&admin_state);
	vip_init(&args->shared->vip);
	ring_open();
	if (privs_drop(err, sizeof err) != 0) {
		log_alert("the worker cannot start: %s", err);
		free_tls();
		return 1;
	}
	if (log_start() != 0)
		die("cannot start the log's thread: %s", strerror(errno));
	threads_run((int)me.conf->global.threads, args->shared->heartbeat, setup, teardown);
	free_tls();
	log_notice("stopped");
	log_stop();
	ring_close();
	return me.exit_code;
}

/* ---- the sockets a configuration needs ---- */

static void add_socket(struct worker_socket **out, size_t *n, const char *name)
{
	*out = xrealloc(*out, (*n + 1) * sizeof **out);
	struct worker_socket *s = &(*out)[(*n)++];
	memset(s, 0, sizeof *s);
	snprintf(s->name, sizeof s->name, "%s", name);
	s->fd = -1;
}

size_t worker_sockets(const struct conf *conf, struct worker_socket **out)
{
	char name[160];
	size_t n = 0;
	*out = NULL;
	for (size_t i = 0; i < conf->hub.bind_n; i++) {
		snprintf(name, sizeof name, "hub.%zu", i);
		add_socket(out, &n, name);
	}
	for (size_t i = 0; i < conf->listeners_n; i++) {
		for (size_t k = 0; k < conf->listeners[i].bind_n; k++) {
			snprintf(name, sizeof name, "listener.%s.%zu", conf->listeners[i].name, k);
			add_socket(out, &n, name);
		}
	}
	for (size_t i = 0; i < conf->global.admin_n; i++) {
		snprintf(name, sizeof name, "admin.%zu", i);
		add_socket(out, &n, name);
	}
	if (conf->global.metrics.text)
		add_socket(out, &n, "metrics");
	return n;
}

static const struct endpoint *listener_endpoint(const struct conf *conf, const char *rest)
{
	const char *dot = strrchr(rest, '.');
	if (!dot)
		return NULL;
	size_t len = (size_t)(dot - rest), k = strtoul(dot + 1, NULL, 10);
	for (size_t i = 0; i < conf->listeners_n; i++) {
		const struct conf_listener *l = &conf->listeners[i];
		if (strlen(l->name) == len && memcmp(l->name, rest, len) == 0)
			return k < l->bind_n ? &l->bind[k] : NULL;
	}
	return NULL;
}

const struct endpoint *worker_socket_endpoint(const struct conf *conf, const char *name)
{
	if (strcmp(name, "metrics") == 0)
		return conf->global.metrics.text ? &conf->global.metrics : NULL;
	if (strncmp(name, "listener.", 9) == 0)
		return listener_endpoint(conf, name + 9);
	if (strncmp(name, "admin.", 6) == 0) {
		size_t i = strtoul(name + 6, NULL, 10);
		return i < conf->global.admin_n ? &conf->global.admin[i].bind : NULL;
	}
	if (strncmp(name, "hub.", 4) == 0) {
		size_t i = strtoul(name + 4, NULL, 10);
		return i < conf->hub.bind_n ? &conf->hub.bind[i].address : NULL;
	}
	return NULL;
}
