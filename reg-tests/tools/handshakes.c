/* What a link's TLS handshake costs the hub's side in processor time: full ones, and ones resumed with a ticket, over loopback. The agent's side is a
 * process of its own. Rounds of both take turns; the best of them is told with the median, because whatever else runs on the machine only adds. */
#define _GNU_SOURCE
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/sock.h"
#include "mctunnel/net/tls.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 200

static const char usage[] =
	"usage: handshakes --pki DIR [--crl] [--each N] [--rounds R]\n"
	"  --pki DIR    with ca.pem, hub.pem, hub.key, edge-1.pem, edge-1.key and crl.pem, of mctunnel-pki\n"
	"  --crl        the hub checks the revocation list\n"
	"  --each N     handshakes of a kind in a round (200)\n"
	"  --rounds R   (10)\n"
	"  --agent      measure the agent's side\n";

static struct {
	const char *pki;
	bool crl, agent;
	unsigned each, rounds;
} opt = { .each = 200, .rounds = 10 };

static struct {
	struct tls *tls;
	struct watch listener;
	struct conn *c;
	struct tls_ticket *ticket; /* owned: of the agent's side */
	struct addr hub;
	unsigned done, resumed;
	double began_us, full[ROUNDS], again[ROUNDS];
} run;

static char *slurp(const char *name)
{
	char *path = xasprintf("%s/%s", opt.pki, name), *text = xcalloc(1, 65536);
	FILE *f = fopen(path, "r");

	if (!f || fread(text, 1, 65535, f) == 0)
		die("%s: %s", path, strerror(errno));
	fclose(f);
	free(path);
	return text;
}

static struct tls *load(bool hub)
{
	static const uint8_t key[1][TLS_TICKET_KEY] = { "measured" };
	struct tls_files f = { .cert_path = "cert", .key_path = "key", .ca_path = "ca", .crl_path = "crl" };
	char err[200] = "";
	struct tls *t;

	f.cert = slurp(hub ? "hub.pem" : "edge-1.pem");
	f.key = slurp(hub ? "hub.key" : "edge-1.key");
	f.ca = slurp("ca.pem");
	f.crl = hub && opt.crl ? slurp("crl.pem") : NULL;
	t = hub ? tls_server(&f, &(struct tls_ticket_keys){ key, 1 }, err, sizeof(err)) : tls_client(&f, err, sizeof(err));
	if (!t)
		die("%s", err);
	return t;
}

static double cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(void)
{
	qsort(run.full, opt.rounds, sizeof(double), by_value);
	qsort(run.again, opt.rounds, sizeof(double), by_value);
	printf("%s: full best=%.0f median=%.0f us; resumed best=%.0f median=%.0f us%s\n", opt.agent ? "agent" : "hub", run.full[0],
	       run.full[opt.rounds / 2], run.again[0], run.again[opt.rounds / 2], opt.crl ? " (revocation list)" : "");
	fflush(stdout);
}

/* Both sides count alike. The first round is not counted: a round is `each` full handshakes, then as many resumed ones. */
static void count(bool resumed)
{
	unsigned round = run.done / opt.each / 2, at = run.done % (2 * opt.each);

	run.resumed += resumed;
	run.done++;
	if (resumed != (at >= opt.each))
		die("handshake %u is %s", run.done, resumed ? "resumed" : "full");
	if (++at % opt.each)
		return;
	if (round > 0)
		(at == opt.each ? run.full : run.again)[round - 1] = (cpu_us() - run.began_us) / opt.each;
	run.began_us = cpu_us();
	if (run.done == 2 * opt.each * (opt.rounds + 1))
		loop_stop();
}

/* ---- the hub's side ---- */

static void on_plain(struct conn *c)
{
}

static void on_hub_event(struct conn *c)
{
	struct iovec iov = { "x", 1 };
	char waste[16];

	if (tls_state(c) == TLS_FAILED)
		die("hub: %s", tls_failure(c));
	if (tls_state(c) != TLS_UP)
		return;
	if (!c->owner) {
		c->owner = c;
		if (conn_writev(c, &iov, 1) != 1)
			die("hub: cannot write");
	}
	iov = (struct iovec){ waste, sizeof(waste) };
	if (conn_readv(c, &iov, 1) == CONN_AGAIN)
		return;
	if (!opt.agent)
		count(tls_resumed(c));
	conn_abort(c);
}

static void on_accept(struct watch *w, unsigned events)
{
	int fd;

	while ((fd = sock_accept(w->fd, NULL, NULL)) >= 0) {
		struct conn *plain = conn_tcp(fd, on_plain, NULL);

		if (!plain || !tls_accept(run.tls, plain, on_hub_event, NULL))
			die("out of memory");
	}
}

static void be_hub(int listener)
{
	loop_init();
	run.tls = load(true);
	if (loop_watch_listener(&run.listener, listener, on_accept) < 0)
		die("cannot watch");
	loop_run();
}

/* ---- the agent's side ---- */

static void next(struct deferred *d);

static struct deferred again = { .run = next };

static void on_agent_event(struct conn *c)
{
	char waste[16];
	struct iovec iov = { waste, sizeof(waste) };

	if (tls_state(c) == TLS_FAILED)
		die("agent: %s", tls_failure(c));
	if (tls_state(c) != TLS_UP || conn_readv(c, &iov, 1) <= 0)
		return;
	tls_ticket_free(run.ticket);
	run.ticket = tls_take_ticket(c);
	count(tls_resumed(c));
	conn_close(c);
	loop_defer(&again);
}

static void next(struct deferred *d)
{
	int fd = sock_connect(&run.hub);
	struct conn *plain = fd >= 0 ? conn_tcp(fd, on_plain, NULL) : NULL;
	bool full = run.done % (2 * opt.each) < opt.each;

	if (!plain || !tls_connect(run.tls, plain, "127.0.0.1", full ? NULL : run.ticket, on_agent_event, NULL))
		die("cannot connect");
}

static void be_agent(void)
{
	loop_init();
	run.tls = load(false);
	deferred_init(&again, next);
	loop_defer(&again);
	loop_run();
}

static void parse(int argc, char **argv)
{
	static const struct option rows[] = { { "pki", 1, NULL, 'p' }, { "crl", 0, NULL, 'c' }, { "each", 1, NULL, 'e' },
					      { "rounds", 1, NULL, 'r' }, { "agent", 0, NULL, 'a' }, { 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "", rows, NULL)) != -1) {
		if (c == 'p')
			opt.pki = optarg;
		else if (c == 'c')
			opt.crl = true;
		else if (c == 'a')
			opt.agent = true;
		else if (c == 'e')
			opt.each = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'r')
			opt.rounds = (unsigned)strtoul(optarg, NULL, 10);
		else
			opt.each = 0;
	}
	if (opt.pki && opt.each > 0 && opt.rounds > 0 && opt.rounds <= ROUNDS)
		return;
	fputs(usage, stderr);
	exit(1);
}

int main(int argc, char **argv)
{
	struct endpoint e = { .text = NULL };
	char err[200];
	bool hub;
	int listener;
	pid_t other;

	parse(argc, argv);
	if (addr_parse(&e.addr, "127.0.0.1:0") < 0)
		return 1;
	listener = sock_listen(&e, err, sizeof(err));
	if (listener < 0)
		die("%s", err);
	sock_local(listener, &run.hub);
	other = fork();
	if (other < 0)
		die("fork: %s", strerror(errno));
	hub = (other == 0) == opt.agent; /* the parent is what is measured */
	if (other == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (hub)
		be_hub(listener);
	else
		be_agent();
	if (other == 0)
		return 0;
	report();
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	return 0;
}
