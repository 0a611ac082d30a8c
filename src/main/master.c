/* The master: holds the listening sockets, keeps one worker alive, tells systemd and keepalived.
 * It forks the worker without exec: the child has the checked configuration and the sockets in memory, so a crash costs
 * milliseconds. For that it has a single thread, and writes its few log lines itself: a fork takes no other thread along, but
 * whatever locks it held. It parses nothing that comes from a network; a reload is read by a process of its own (loader.c).
 * What a worker does, and when one is to be given up (respawn.c), it does not know. */
#define _GNU_SOURCE
#include "mctunnel/main/master.h"

#include "mctunnel/admin/vip.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/main/binding.h"
#include "mctunnel/main/control.h"
#include "mctunnel/main/daemonise.h"
#include "mctunnel/main/fitness.h"
#include "mctunnel/main/logs.h"
#include "mctunnel/main/notify.h"
#include "mctunnel/main/pidfile.h"
#include "mctunnel/main/privs.h"
#include "mctunnel/main/reload.h"
#include "mctunnel/main/remains.h"
#include "mctunnel/main/respawn.h"
#include "mctunnel/main/sockets.h"
#include "mctunnel/main/store.h"
#include "mctunnel/main/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_MS 2000        /* a worker told to stop is killed after so long */
#define DRAIN_EXTRA_MS 2000 /* beyond hard_stop_after, which the worker keeps itself */
#define ABORT_MS 200        /* from SIGABRT, for the backtrace, to SIGKILL */
#define LOOK_MS 500         /* at the heartbeats; more often for a health file */
#define YIELD_LOOK_MS 5     /* at the role */
#define BEATS (sizeof(((struct worker_shared *)0)->heartbeat) / sizeof(uint64_t))

enum phase { PHASE_SERVE, PHASE_YIELD, PHASE_DRAIN, PHASE_STOP, PHASE_END };

struct departure { /* how it ends */
	enum phase phase;
	int exit_code;
	enum control order;
	uint64_t patience_ms;
};

struct master {
	struct conf *conf; /* shared: the one in force */
	const struct master_options *options;
	struct reload reload;
	struct worker_socket *sockets; /* owned */
	size_t sockets_n;
	struct worker_shared *shared; /* owned */
	struct respawn respawn;
	struct fitness fitness;
	enum phase phase;
	struct departure departure; /* in PHASE_YIELD */
	int exit_code;
	int signal_fd, control; /* -1: none */
	pid_t worker;           /* 0: none */
	bool hung;              /* this worker has been found hung and told to abort */
	bool announced;         /* systemd has been told READY */
	uint64_t restart_at, kill_at, watchdog_at, leave_at; /* 0: not planned */
};

static void say_health(bool serve)
{
	char err[256];

	if (notify_health(serve, err, sizeof(err)) < 0)
		log_error("%s", err);
}

/* May the virtual address be here? */
static void judge(struct master *m, uint64_t now)
{
	const struct respawn *r = &m->respawn;
	bool stable = r->ready_at > 0 && now - r->ready_at >= RESPAWN_STABLE_MS;
	struct fitness_facts facts = { .ready = m->worker && !m->hung && !m->shared->draining && r->ready_at > 0, .beats = m->shared->heartbeat, .n = BEATS,
				       .failures = stable ? 0 : r->failures };
	bool was_doubted = m->fitness.doubted, fit;

	if (m->phase != PHASE_SERVE || !m->conf->global.health_file)
		return;
	fit = fitness_look(&m->fitness, &facts, m->conf->global.health_timeout, now);
	say_health(fit);
	if (m->fitness.doubted != was_doubted)
		log_warning("the health file says %s: %s", fit ? "0, serve" : "1, move the virtual address",
			    fit ? "the worker does well again" : "the worker hangs, or is gone for too long");
}

static void tell_worker(struct master *m, enum control what)
{
	if (m->control >= 0 && control_send(m->control, what, NULL, 0, NULL, 0) < 0)
		log_error("cannot tell the worker '%c': %s", what, strerror(errno));
}

/* ---- the worker's side of the fork ---- */

static void write_title(const struct master_options *o)
{
	static char title[] = "mctunnel-worker";
	char *end;
	size_t size;

	prctl(PR_SET_NAME, title, 0, 0, 0);
	program_invocation_short_name = title; /* it points into what is overwritten below */
	if (o->argc < 1)
		return;
	end = o->argv[0];
	for (int i = 0; i < o->argc && o->argv[i] == end; i++)
		end += strlen(end) + 1;
	size = (size_t)(end - o->argv[0]);
	memset(o->argv[0], 0, size);
	memcpy(o->argv[0], title, size > sizeof(title) ? sizeof(title) : size - 1);
}

/* The worker gives up its privileges itself, when it has read what only they let it read. */
static int run_worker(struct master *m, int control)
{
	const struct worker_args args = { .conf = m->conf,
					  .sockets = m->sockets,
					  .sockets_n = m->sockets_n,
					  .shared = m->shared,
					  .control = control,
					  .health_fd = m->options->no_master ? -1 : notify_health_fd(),
					  .debug = m->options->debug,
					  .paths = m->options->paths,
					  .paths_n = m->options->paths_n };

	return worker_run(&args);
}

static void become_worker(struct master *m, int control)
{
	sigset_t none;
	int rc;

	close(m->signal_fd);
	remains_leave(&m->shared->remains);
	notify_close();
	pidfile_forget();
	daemonise_forget();
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	write_title(m->options);
	rc = run_worker(m, control);
	free(m->sockets);
	exit(rc);
}

/* The process that reads for a reload. */
static void become_loader(void *arg)
{
	struct master *m = arg;
	sigset_t none;

	close(m->signal_fd);
	if (m->control >= 0)
		close(m->control);
	binding_close(m->sockets, m->sockets_n);
	notify_close();
	pidfile_forget();
	daemonise_forget();
	prctl(PR_SET_NAME, "mctunnel-loader", 0, 0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- starting ---- */

static void close_control(struct master *m)
{
	if (m->control >= 0)
		close(m->control);
	m->control = -1;
}

static int fork_worker(struct master *m)
{
	int pair[2];
	pid_t pid;

	if (control_pair(pair) < 0)
		return -1;
	remains_prepare();
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		become_worker(m, pair[1]);
	}
	close(pair[1]);
	m->control = pair[0];
	if (pid < 0) {
		close_control(m);
		return -1;
	}
	m->worker = pid;
	return 0;
}

static void after_death(struct master *m);

static void start_worker(struct master *m)
{
	m->restart_at = m->kill_at = 0;
	m->hung = false;
	memset((void *)m->shared->heartbeat, 0, sizeof(m->shared->heartbeat));
	m->shared->draining = 0;
	respawn_started(&m->respawn, clock_ms());
	if (fork_worker(m) < 0) {
		log_alert("cannot start a worker: %s", strerror(errno));
		after_death(m);
		return;
	}
	log_notice("worker started: pid %ld, restarts %u", (long)m->worker, m->shared->restarts);
}

/* ---- stopping ---- */

static void end(struct master *m, int exit_code)
{
	m->exit_code = exit_code;
	m->phase = PHASE_END;
}

static void depart(struct master *m, const struct departure *how)
{
	m->phase = how->phase;
	m->exit_code = how->exit_code;
	m->kill_at = clock_ms() + how->patience_ms;
	binding_close(m->sockets, m->sockets_n);
	if (how->phase == PHASE_DRAIN) /* else the next one may take them over: a restart refuses nobody */
		store_sync(NULL, 0);
	notify_send("STOPPING=1\nSTATUS=%s", how->phase == PHASE_DRAIN ? "draining" : "stopping");
	if (!m->worker)
		m->phase = PHASE_END;
	else
		tell_worker(m, how->order);
}

/* Who has the virtual address gives it away first, and serves until it has gone: so nobody finds a closed door. */
static void leave(struct master *m, const struct departure *how)
{
	uint32_t grace = m->conf->global.vip_grace;

	reload_end(&m->reload);
	say_health(false);
	if (m->phase != PHASE_SERVE || !m->conf->global.health_file || !m->worker || m->shared->vip != VIP_MASTER || grace == 0) {
		depart(m, how);
		return;
	}
	log_notice("waiting at most %u ms for the virtual address to move", grace);
	notify_send("STOPPING=1\nSTATUS=waiting for the virtual address to move");
	m->departure = *how;
	m->leave_at = clock_ms() + grace;
	m->phase = PHASE_YIELD;
}

static void look_at_role(struct master *m, uint64_t now)
{
	bool moved = m->shared->vip != VIP_MASTER;

	if ((!moved || m->shared->vip_unanswered) && now < m->leave_at)
		return;
	if (!moved)
		log_warning("the virtual address has not moved within global.vip_grace");
	depart(m, &m->departure);
}

static void stop_at_once(struct master *m, int exit_code)
{
	if (m->phase == PHASE_STOP)
		return;
	log_notice("stopping at once");
	leave(m, &(struct departure){ PHASE_STOP, exit_code, CONTROL_STOP, STOP_MS });
}

static void stop_softly(struct master *m)
{
	if (m->phase != PHASE_SERVE)
		return;
	log_notice("soft stop: draining for at most %u ms", m->conf->global.hard_stop_after);
	leave(m, &(struct departure){ PHASE_DRAIN, 0, CONTROL_SOFT_STOP, (uint64_t)m->conf->global.hard_stop_after + DRAIN_EXTRA_MS });
}

static void give_up(struct master *m)
{
	log_alert("giving up: %u workers in a row have died before they were ready for %d ms; closing the listening sockets",
		  m->respawn.failures, RESPAWN_STABLE_MS);
	binding_close(m->sockets, m->sockets_n);
	store_sync(NULL, 0);
	say_health(false);
	notify_send("STOPPING=1\nSTATUS=giving up: the worker keeps dying");
	end(m, 1);
}

/* ---- what happens ---- */

static void after_death(struct master *m)
{
	int delay;

	if (m->phase == PHASE_YIELD)
		m->exit_code = m->departure.exit_code;
	if (m->phase != PHASE_SERVE) {
		m->phase = PHASE_END;
		return;
	}
	delay = respawn_died(&m->respawn, clock_ms());
	if (delay < 0) {
		give_up(m);
		return;
	}
	notify_send("STATUS=restarting the worker (restarts: %u)", m->shared->restarts);
	m->shared->restarts++;
	m->restart_at = clock_ms() + (uint64_t)delay;
	if (delay > 0)
		log_warning("the next worker starts in %d ms (failed starts in a row: %u)", delay, m->respawn.failures);
}

static void log_death(const struct master *m, int status)
{
	uint64_t uptime = clock_ms() - m->respawn.started_at;
	enum log_level level = m->phase == PHASE_SERVE ? LOG_ALERT : WIFSIGNALED(status) ? LOG_WARNING : LOG_NOTICE;
	char how[64], text[160];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
			 WCOREDUMP(status) ? ", core dumped" : "");
	else
		snprintf(how, sizeof(how), "has exited with %d", WEXITSTATUS(status));
	snprintf(text, sizeof(text), "worker %ld %s%s: uptime %llu ms, restarts %u", (long)m->worker, how, m->hung ? " after it hung" : "",
		 (unsigned long long)uptime, m->shared->restarts);
	log_say(level, "%s", text);
	if (status == 0)
		remains_forget(&m->shared->remains);
	else
		remains_collect(&m->shared->remains, text);
}

static void reap(struct master *m)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (reload_reap(&m->reload, pid, status) || pid != m->worker)
			continue;
		log_death(m, status);
		m->worker = 0;
		close_control(m);
		reload_worker_gone(&m->reload);
		after_death(m);
	}
}

static void on_ready(struct master *m)
{
	char first[64] = "";

	respawn_ready(&m->respawn, clock_ms());
	if (m->phase != PHASE_SERVE)
		return;
	judge(m, clock_ms());
	if (!m->announced) {
		notify_barrier(); /* the sockets are in safe hands */
		snprintf(first, sizeof(first), "READY=1\nMAINPID=%ld\n", (long)getpid());
	}
	notify_send("%sSTATUS=serving (worker %ld, restarts: %u)", first, (long)m->worker, m->shared->restarts);
	m->announced = true;
	daemonise_done();
}

static void on_draining(struct master *m)
{
	log_notice("the worker drains");
	say_health(false);
	notify_send("STATUS=draining");
}

static void reload(struct master *m, uint32_t ticket)
{
	if (m->phase == PHASE_SERVE)
		reload_ask(&m->reload, ticket);
}

static void on_wish(struct master *m, const struct control_msg *said)
{
	const char *text;
	const struct control_ticket *t = control_ticket_of(said, &text);

	if (t)
		reload(m, t->ticket);
}

static void on_said(struct master *m, const struct control_msg *said)
{
	switch (said->what) {
	case CONTROL_READY: on_ready(m); break;
	case CONTROL_DRAINING: on_draining(m); break;
	case CONTROL_SOFT_STOP: stop_softly(m); break;
	case CONTROL_STOP: stop_at_once(m, 0); break;
	case CONTROL_ASK_RELOAD: on_wish(m, said); break;
	case CONTROL_ANSWER: reload_answered(&m->reload, said); break;
	}
}

static void read_control(struct master *m)
{
	static struct control_msg said; /* large */
	int n = control_recv(m->control, &said, false);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EBADMSG))
		close_control(m); /* it is dying: its death will tell */
	else if (n > 0)
		on_said(m, &said);
}

/* A container is ended with TERM, which then means: finish what you have within the time of grace. The second one means now. */
static void on_term(struct master *m)
{
	if (getpid() == 1 && m->phase == PHASE_SERVE)
		stop_softly(m);
	else
		stop_at_once(m, 0);
}

static void on_signal(struct master *m, uint32_t number)
{
	switch (number) {
	case SIGTERM: on_term(m); break;
	case SIGINT: stop_at_once(m, 128 + SIGINT); break;
	case SIGUSR1: stop_softly(m); break;
	case SIGHUP: reload(m, 0); break;
	case SIGUSR2: log_notice("upgrade is not available in this version"); break;
	case SIGCHLD: reap(m); break;
	}
}

static void read_signals(struct master *m)
{
	struct signalfd_siginfo info;

	while (m->phase != PHASE_END && read(m->signal_fd, &info, sizeof(info)) == sizeof(info))
		on_signal(m, info.ssi_signo);
}

/* ---- time ---- */

static void on_hang(struct master *m)
{
	log_alert("worker %ld hangs: a loop has not turned for more than %d ms; ending it", (long)m->worker, RESPAWN_HANG_MS);
	say_health(false);
	m->hung = true;
	m->kill_at = clock_ms() + ABORT_MS;
	kill(m->worker, SIGABRT);
}

static void on_patience_lost(struct master *m)
{
	m->kill_at = 0;
	if (m->phase == PHASE_DRAIN && !m->hung) {
		log_warning("the drain has taken too long");
		stop_at_once(m, m->exit_code);
		return;
	}
	if (!m->hung)
		log_warning("worker %ld does not stop; killing it", (long)m->worker);
	kill(m->worker, SIGKILL);
}

static void feed_watchdog(struct master *m, uint64_t now)
{
	uint64_t every = notify_watchdog_ms();

	if (every == 0 || now < m->watchdog_at || m->hung)
		return;
	notify_send("WATCHDOG=1");
	m->watchdog_at = now + every;
}

static void look_at_worker(struct master *m, uint64_t now)
{
	if (m->phase != PHASE_STOP && !m->hung && respawn_hangs(&m->respawn, m->shared->heartbeat, BEATS, now))
		on_hang(m);
	if (m->kill_at > 0 && now >= m->kill_at)
		on_patience_lost(m);
	feed_watchdog(m, now);
}

static void on_time(struct master *m)
{
	uint64_t now = clock_ms();

	reload_look(&m->reload, now);
	judge(m, now);
	if (m->phase == PHASE_YIELD)
		look_at_role(m, now);
	if (m->worker)
		look_at_worker(m, now);
	else if (m->restart_at > 0 && now >= m->restart_at && m->phase == PHASE_SERVE)
		start_worker(m);
}

static int until(uint64_t when, uint64_t now, int at_most)
{
	if (when == 0 || when > now + (uint64_t)at_most)
		return at_most;
	return when > now ? (int)(when - now) : 0;
}

static void wait_for_something(struct master *m)
{
	struct pollfd p[2] = { { .fd = m->signal_fd, .events = POLLIN }, { .fd = m->control, .events = POLLIN } };
	uint64_t now = clock_ms();
	int wait = until(m->kill_at, now, m->phase == PHASE_YIELD ? YIELD_LOOK_MS : m->conf->global.health_file ? FITNESS_LOOK_MS : LOOK_MS);

	wait = until(m->worker ? 0 : m->restart_at, now, wait);
	if (m->worker && notify_watchdog_ms() > 0)
		wait = until(m->watchdog_at, now, wait);
	poll(p, 2, wait);
	clock_update();
	if (p[1].revents)
		read_control(m);
	if (p[0].revents)
		read_signals(m);
}

static void supervise(struct master *m)
{
	start_worker(m);
	while (m->phase != PHASE_END) {
		wait_for_something(m);
		if (m->phase != PHASE_END)
			on_time(m);
	}
}

/* ---- beginning and end ---- */

static int say(const char *what)
{
	fprintf(stderr, "[ALERT] %s\n", what);
	return -1;
}

static void say_line(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int open_logs(const struct conf *conf, const struct master_options *o)
{
	struct log_set *s = logs_open(conf, NULL, o->debug, say_line, NULL);

	if (!s)
		return -1;
	log_replace(s);
	return 0;
}

static int open_signals(void)
{
	static const int numbers[] = { SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(&set, numbers[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Everything that can fail with a message to the one who started us. */
static int prepare(struct master *m)
{
	const char *pid_file = m->options->pid_file;
	char err[512];

	if (privs_possible(err, sizeof(err)) < 0)
		return say(err);
	if (privs_raise_files(m->conf, err, sizeof(err)) < 0 && !m->options->quiet)
		fprintf(stderr, "[WARNING] %s\n", err);
	store_open();
	notify_open(m->conf->global.health_file); /* before daemonising: WATCHDOG_PID is ours of now */
	if (m->options->daemonise && daemonise_start() < 0)
		return say("cannot go into the background");
	if (pid_file && pidfile_take(pid_file, err, sizeof(err)) < 0)
		return say(err);
	if (open_logs(m->conf, m->options) < 0 || binding_open(m->conf, &m->sockets, &m->sockets_n) < 0)
		return -1;
	/* only now: a second instance that failed to bind must not speak for the first */
	if (!m->options->no_master && notify_health(false, err, sizeof(err)) < 0)
		return say(err);
	return 0;
}

static int run_alone(struct master *m)
{
	static struct worker_shared alone;

	rnd_bytes(alone.ticket_key, sizeof(alone.ticket_key));
	m->shared = &alone;
	notify_close();
	store_sync(m->sockets, m->sockets_n);
	daemonise_done();
	return run_worker(m, -1);
}

static int run_master(struct master *m)
{
	void *page = mmap(NULL, sizeof(*m->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return 1;
	m->shared = page;
	rnd_bytes(m->shared->ticket_key, sizeof(m->shared->ticket_key));
	m->signal_fd = open_signals();
	if (m->signal_fd < 0)
		return 1;
	store_sync(m->sockets, m->sockets_n);
	supervise(m);
	log_notice("the master ends with exit code %d", m->exit_code);
	close(m->signal_fd);
	munmap(page, sizeof(*m->shared));
	return m->exit_code;
}

int master_run(struct conf *conf, const struct master_options *o)
{
	struct master m = { .conf = conf_get(conf), .options = o, .signal_fd = -1, .control = -1 };
	int rc = 1;

	m.reload = (struct reload){ .paths = o->paths,
				    .paths_n = o->paths_n,
				    .debug = o->debug,
				    .place = { &m.conf, &m.sockets, &m.sockets_n, &m.control },
				    .in_child = become_loader,
				    .arg = &m };
	clock_update();
	if (prepare(&m) == 0)
		rc = o->no_master ? run_alone(&m) : run_master(&m);
	if (!o->no_master)
		binding_close(m.sockets, m.sockets_n);
	free(m.sockets);
	conf_put(m.conf);
	log_close_all();
	pidfile_drop();
	notify_close();
	return rc;
}
