/* Many agents in one process, for tests of a hub: real TLS, real links, real sessions, each agent with a certificate, a name and an
 * instance of its own. Sessions are echoed, or just held. Uses the program's library from the conn to the session engine; what
 * dialer, registry and target do in the program is done here, for many agents at once and on one thread.
 * Certificates are signed here with the CA's key of mctunnel-pki, because running openssl a thousand times takes too long. */
#define _GNU_SOURCE
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/list.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/rnd.h"
#include "mctunnel/base/str.h"
#include "mctunnel/base/timer.h"
#include "mctunnel/edge/carrier.h"
#include "mctunnel/event/loop.h"
#include "mctunnel/net/conn.h"
#include "mctunnel/net/dial.h"
#include "mctunnel/net/resolve.h"
#include "mctunnel/net/tls.h"
#include "mctunnel/proto/hello.h"
#include "mctunnel/tunnel/link.h"
#include "mctunnel/tunnel/session.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define DIAL_MS 10000
#define GREET_MS 20000
#define RETRY_MS 1000
#define RESUME_MS 30000
#define STREAMS 20000

static const char usage[] =
	"usage: agents --hub HOST:PORT --pki DIR [options]\n"
	"  --hub HOST:PORT   where the hub is; several of its addresses: the agents share them, for looking for a free port takes the longer the more\n"
	"                    connections an address has\n"
	"  --pki DIR         of mctunnel-pki: ca.pem and ca.key, which signs the agents' certificates\n"
	"  --count N         agents (1), named agent-1 ... agent-N\n"
	"  --first I         the first one's number (1)\n"
	"  --prefix TEXT     of their names (agent-)\n"
	"  --tunnel NAME     that all of them serve; default: each one the tunnel of its own name\n"
	"  --links L         of each agent (1)\n"
	"  --services K      of each agent (1), named echo-1 ... echo-K\n"
	"  --server-name S   in the hub's certificate; default: HOST\n"
	"  --at-once M       links being made at any time (64)\n"
	"  --first-at-once M the same until all have been tried once (as --at-once)\n"
	"  --hold            sessions are accepted and read, but nothing is echoed\n"
	"  --once            a link that is lost is not made again\n"
	"  --hub-pid PID     print the memory of this process before and after\n"
	"When all links have been tried it prints one line with the times they took, then it stays until its input ends or SIGTERM\n"
	"comes; SIGUSR1 prints the state; at SIGUSR2 all links are lost at once. Whenever all are up again it prints one line with the times that took\n"
	"from the first loss. Exit code 0: every link came up.\n";

enum { HUBS_MAX = 16 };

static struct {
	struct endpoint hubs[HUBS_MAX];
	unsigned hubs_n;
	char server_name[256];
	const char *pki, *prefix, *tunnel;
	unsigned count, first, links, services, at_once, first_at_once;
	bool hold, once;
	pid_t hub_pid;
} opt = { .prefix = "agent-", .count = 1, .first = 1, .links = 1, .services = 1, .at_once = 64 };

struct agent {
	char name[HELLO_NAME_MAX];
	uint8_t instance[16];
	struct tls *tls;
	struct tls_ticket *ticket; /* owned, or NULL */
};

enum state { WAITING, DIALLING, HANDSHAKING, GREETING, UP, REFUSED };

struct uplink {
	struct agent *agent;
	struct list node; /* in all.waiting */
	enum state state;
	struct dial *dial;
	struct conn *conn;
	struct carrier *carrier;
	struct timer timer; /* deadline, or the next try */
	uint64_t began_us;
	bool tried, greeted; /* came to an end the first time; in good order */
};

static struct {
	struct agent *agents;
	struct uplink *uplinks;
	unsigned n, busy, tried, up, ups, downs, refused, resumed, lost;
	uint32_t *took_us; /* of the links that came up first */
	unsigned took_n;
	uint64_t lost_us;  /* the first loss since all were up; 0: none */
	uint32_t *back_us; /* since then: of each that came up */
	unsigned back_n, back_resumed;
	uint64_t began_us, sessions, bytes;
	long rss_before;
	char *cert_key;
	struct list waiting, parked;
	struct watch signals, input;
	struct tls_files files; /* what all have in common */
	EVP_PKEY *ca_key, *key;
	X509 *ca;
	bool reported, stopping;
} all;

/* ---- certificates ---- */

static FILE *open_file(const char *name)
{
	char *path = xasprintf("%s/%s", opt.pki, name);
	FILE *f = fopen(path, "r");

	if (!f)
		die("%s: %s", path, strerror(errno));
	free(path);
	return f;
}

static char *pem_text(BIO *b)
{
	char *data, *text;
	long len = BIO_get_mem_data(b, &data);

	text = xmalloc((size_t)len + 1);
	memcpy(text, data, (size_t)len);
	text[len] = '\0';
	BIO_free(b);
	return text;
}

static char *cert_pem(X509 *cert)
{
	BIO *b = BIO_new(BIO_s_mem());

	PEM_write_bio_X509(b, cert);
	return pem_text(b);
}

static char *key_pem(EVP_PKEY *key)
{
	BIO *b = BIO_new(BIO_s_mem());

	PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL);
	return pem_text(b);
}

static void load_ca(void)
{
	FILE *f = open_file("ca.pem");

	all.ca = PEM_read_X509(f, NULL, NULL, NULL);
	fclose(f);
	f = open_file("ca.key");
	all.ca_key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	all.key = EVP_EC_gen("P-256");
	if (!all.ca || !all.ca_key || !all.key)
		die("%s: ca.pem or ca.key cannot be used", opt.pki);
	all.files.ca = cert_pem(all.ca);
	all.files.key = key_pem(all.key);
}

static void add_extension(X509 *cert, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, all.ca, cert, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	if (!e || X509_add_ext(cert, e, -1) != 1)
		die("cannot make a certificate with %s", value);
	X509_EXTENSION_free(e);
}

/* All agents share one key: only their names differ. */
static char *issue(const char *name, long serial)
{
	char *san = xasprintf("DNS:%s", name), *text;
	X509 *cert = X509_new();

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1000000 + serial);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 30 * 86400);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(all.ca));
	X509_set_pubkey(cert, all.key);
	add_extension(cert, NID_subject_alt_name, san);
	add_extension(cert, NID_ext_key_usage, "clientAuth");
	if (X509_sign(cert, all.ca_key, EVP_sha256()) == 0)
		die("cannot sign a certificate");
	text = cert_pem(cert);
	X509_free(cert);
	free(san);
	return text;
}

static void agent_init(struct agent *a, unsigned number)
{
	char err[200], *cert;
	struct tls_files f = all.files;

	snprintf(a->name, sizeof(a->name), "%s%u", opt.prefix, number);
	rnd_bytes(a->instance, sizeof(a->instance));
	f.cert = cert = issue(a->name, (long)number);
	f.cert_path = f.key_path = f.ca_path = a->name;
	a->tls = tls_client(&f, err, sizeof(err));
	if (!a->tls)
		die("%s", err);
	free(cert);
}

/* ---- sessions: an echo as the target ---- */

struct echo {
	struct session *s;
};

/* Moves what there is room for; false when the rest has to wait. */
static bool echo_some(struct session *s)
{
	struct iovec in, out;

	while (session_peek(s, &in, 1) > 0) {
		size_t n;

		if (session_reserve(s, &out, 1) == 0)
			return false;
		n = in.iov_len < out.iov_len ? in.iov_len : out.iov_len;
		memcpy(out.iov_base, in.iov_base, n);
		session_commit(s, n);
		session_consume(s, n);
		all.bytes += n;
	}
	return true;
}

static void swallow(struct session *s)
{
	struct iovec in;

	while (session_peek(s, &in, 1) > 0)
		session_consume(s, in.iov_len);
}

static void on_readable(void *owner)
{
	struct echo *e = owner;

	if (opt.hold)
		swallow(e->s);
	else if (!echo_some(e->s))
		return;
	if (!session_ended(e->s))
		return;
	session_fin(e->s);
	session_release(e->s);
	free(e);
}

static void on_end(void *owner, enum reason why, bool refused)
{
	free(owner);
}

static void on_open(void *owner, const char *target)
{
}

static void on_move(void *owner)
{
	BUG_ON(true); /* there is one thread */
}

static const struct session_events echo_events = {
	.on_open = on_open,
	.on_readable = on_readable,
	.on_writable = on_readable,
	.on_end = on_end,
	.on_leave = on_move,
	.on_arrive = on_move,
};

static void resume(struct link *l, int32_t stream, const struct h2_fields *f)
{
	uint8_t id[16];
	struct session *s = str_unhex(id, sizeof(id), f->session) ? session_find(id) : NULL;

	if (!s || memcmp(session_peer(s), link_peer(l), 16) != 0) {
		all.lost++;
		link_refuse(l, stream, REASON_LOST);
		return;
	}
	all.resumed++;
	session_unlink(s, &all.parked);
	session_resumed(s, l, stream, f);
}

static void on_request(void *owner, int32_t stream, const struct h2_fields *f)
{
	struct uplink *u = owner;
	struct link *l = carrier_link(u->carrier);
	struct echo *e;

	if (f->resume) {
		resume(l, stream, f);
		return;
	}
	if (strncmp(f->service, "echo-", 5) != 0) {
		link_refuse(l, stream, REASON_NO_SERVICE);
		return;
	}
	e = xcalloc(1, sizeof(*e));
	e->s = session_accept(l, stream, f, RESUME_MS, &echo_events, e);
	if (!e->s) {
		free(e);
		link_refuse(l, stream, REASON_RESOURCES);
		return;
	}
	all.sessions++;
	session_established(e->s, "echo");
}

/* ---- figures ---- */

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double ms_of(const uint32_t *sorted, unsigned n, unsigned percent)
{
	return n ? sorted[(uint64_t)(n - 1) * percent / 100] / 1000.0 : 0;
}

static double took_ms(unsigned percent)
{
	return ms_of(all.took_us, all.took_n, percent);
}

static void report_back(void)
{
	printf("back: links=%u resumed=%u ms_50=%.1f ms_95=%.1f ms_100=%.1f\n", all.back_n, all.back_resumed, ms_of(all.back_us, all.back_n, 50),
	       ms_of(all.back_us, all.back_n, 95), ms_of(all.back_us, all.back_n, 100));
	fflush(stdout);
	all.lost_us = 0;
	all.back_n = all.back_resumed = 0;
}

static void count_lost(void)
{
	all.up--;
	all.downs++;
	if (all.lost_us == 0)
		all.lost_us = clock_us();
}

/* They come in order of time, so that nothing has to be sorted; one that is lost again meanwhile counts twice. */
static void count_up(bool resumed)
{
	all.up++;
	all.ups++;
	if (all.lost_us == 0)
		return;
	if (all.back_n < all.n)
		all.back_us[all.back_n++] = (uint32_t)(clock_us() - all.lost_us);
	all.back_resumed += resumed;
	if (all.up == all.n)
		report_back();
}

/* Resident memory that is the process's own, in KiB. */
static long rss_of(pid_t pid)
{
	char path[64], line[200];
	long rss = 0, own = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
	f = fopen(path, "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "VmRSS: %ld", &rss);
		sscanf(line, "RssAnon: %ld", &own);
	}
	fclose(f);
	return own >= 0 ? own : rss;
}

static void print_state(void)
{
	struct mem_usage u;

	mem_usage(MEM_SESSION, &u);
	printf("state: links_up=%u came_up=%u went_down=%u refused=%u sessions_now=%zu sessions=%llu resumed=%u lost=%u echoed=%llu inputs=%llu rss_kib=%ld\n",
	       all.up, all.ups, all.downs, all.refused, u.used, (unsigned long long)all.sessions, all.resumed, all.lost,
	       (unsigned long long)all.bytes, (unsigned long long)link_input_number(), rss_of(getpid()));
	fflush(stdout);
}

static void report(void)
{
	double seconds = (double)(clock_us() - all.began_us) / 1e6;

	all.reported = true;
	qsort(all.took_us, all.took_n, sizeof(*all.took_us), by_value);
	printf("links: up=%u of=%u agents=%u seconds=%.2f ms_50=%.1f ms_95=%.1f ms_100=%.1f\n", all.took_n, all.n, opt.count,
	       seconds, took_ms(50), took_ms(95), took_ms(100));
	if (opt.hub_pid && all.took_n)
		printf("memory: hub_kib_before=%ld hub_kib_after=%ld kib_a_link=%.1f\n", all.rss_before, rss_of(opt.hub_pid),
		       (double)(rss_of(opt.hub_pid) - all.rss_before) / all.took_n);
	fflush(stdout);
}

/* ---- links ---- */

static void start_some(void);

/* Dialling, handshake and greeting are over, one way or the other. */
static void settled(struct uplink *u, bool good)
{
	all.busy--;
	u->greeted |= good;
	if (!u->tried) {
		u->tried = true;
		all.tried++;
		if (good)
			all.took_us[all.took_n++] = (uint32_t)(clock_us() - u->began_us);
	}
	if (all.tried == all.n && !all.reported)
		report();
	start_some();
}

static void keep_ticket(struct uplink *u)
{
	struct tls_ticket *t = tls_take_ticket(carrier_conn(u->carrier));

	if (!t)
		return;
	tls_ticket_free(u->agent->ticket);
	u->agent->ticket = t;
}

static void down(struct uplink *u, enum reason why, const char *text)
{
	bool was_up = u->state == UP, was_busy = u->state != UP && u->state != WAITING && u->state != REFUSED;

	if (was_up)
		count_lost();
	if (!was_up && !u->tried)
		fprintf(stderr, "%s: %s\n", u->agent->name, text);
	if (u->dial)
		dial_cancel(u->dial);
	if (u->conn)
		conn_abort(u->conn);
	if (u->carrier) {
		keep_ticket(u);
		link_down(carrier_link(u->carrier), why, &all.parked);
		carrier_free(u->carrier);
	}
	u->dial = NULL;
	u->conn = NULL;
	u->carrier = NULL;
	timer_stop(&u->timer);
	u->state = WAITING;
	if (!opt.once && !all.stopping)
		timer_start(&u->timer, was_up ? rnd_below(50) : RETRY_MS / 2 + rnd_below(RETRY_MS));
	if (was_busy)
		settled(u, false);
}

static void on_down(void *owner, enum reason why, const char *text)
{
	down(owner, why, text && text[0] ? text : reason_text(why));
}

static void on_goaway(void *owner, enum reason why)
{
	struct uplink *u = owner;

	carrier_finish(u->carrier); /* its sessions go on over the next link */
}

static void on_hello(void *owner, enum h2_frame type, const char *json, size_t len)
{
	struct uplink *u = owner;
	struct hub_hello h;
	char err[160];

	if (u->state != GREETING || type != H2_FRAME_HUB)
		return;
	if (hello_hub_parse(&h, json, len, err, sizeof(err)) < 0)
		die("the hub's HUB frame: %s", err);
	if (h.accepted) {
		timer_stop(&u->timer);
		link_set_peer(carrier_link(u->carrier), h.instance);
		link_heartbeat(carrier_link(u->carrier), h.heartbeat_interval_ms, h.heartbeat_timeout_ms);
		u->state = UP;
		count_up(tls_resumed(carrier_conn(u->carrier)));
		settled(u, true);
	} else {
		fprintf(stderr, "%s: refused: %s: %s\n", u->agent->name, h.reason, h.text);
		all.refused++;
		u->state = REFUSED;
		settled(u, false);
		carrier_finish(u->carrier);
	}
	hello_hub_fini(&h);
}

static const struct carrier_events carrier_events = {
	.on_hello = on_hello,
	.on_request = on_request,
	.on_goaway = on_goaway,
	.on_down = on_down,
};

static void greet(struct uplink *u)
{
	struct agent_hello h = { .protocol = HELLO_PROTOCOL, .services_n = opt.services };
	size_t len;
	char *json;

	u->carrier = carrier_new(H2_AGENT, u->conn, STREAMS, &carrier_events, u);
	if (!u->carrier)
		die("out of memory");
	u->conn = NULL;
	u->state = GREETING;
	str_copy(h.name, sizeof(h.name), u->agent->name);
	str_copy(h.tunnel, sizeof(h.tunnel), opt.tunnel ? opt.tunnel : u->agent->name);
	str_copy(h.version, sizeof(h.version), MCTUNNEL_VERSION);
	memcpy(h.instance, u->agent->instance, sizeof(h.instance));
	h.services = xcalloc(h.services_n, sizeof(*h.services));
	for (size_t i = 0; i < h.services_n; i++) {
		snprintf(h.services[i].name, sizeof(h.services[i].name), "echo-%zu", i + 1);
		h.services[i].weight = 100;
		h.services[i].up = true;
	}
	json = hello_agent_build(&h, &len);
	if (!json)
		die("out of memory");
	link_hello(carrier_link(u->carrier), H2_FRAME_AGENT, json, len);
	free(json);
	free(h.services);
}

static void on_tls(struct conn *c)
{
	struct uplink *u = c->owner;

	if (tls_state(c) == TLS_FAILED)
		down(u, REASON_LINK_CLOSED, tls_failure(c));
	else if (tls_state(c) == TLS_UP)
		greet(u);
}

static void not_yet(struct conn *c)
{
}

static void on_dialled(void *arg, struct dial_result *r)
{
	struct uplink *u = arg;
	struct conn *plain;

	u->dial = NULL;
	if (r->fd < 0) {
		down(u, REASON_LINK_CLOSED, r->why);
		return;
	}
	plain = conn_tcp(r->fd, not_yet, u);
	if (!plain)
		die("out of memory");
	u->state = HANDSHAKING;
	timer_start(&u->timer, GREET_MS);
	u->conn = tls_connect(u->agent->tls, plain, opt.server_name, u->agent->ticket, on_tls, u);
	if (!u->conn)
		die("out of memory");
}

static void on_timer(struct timer *t)
{
	struct uplink *u = container_of(t, struct uplink, timer);

	if (u->state != WAITING) {
		down(u, REASON_LINK_DEAD, "no welcome in time");
		return;
	}
	list_add(&all.waiting, &u->node);
	start_some();
}

static void start(struct uplink *u)
{
	struct dial_options o = { .timeout_ms = DIAL_MS, .second_attempt = true };

	all.busy++;
	u->began_us = clock_us();
	u->state = DIALLING;
	u->dial = dial_start(&opt.hubs[(size_t)(u - all.uplinks) % opt.hubs_n], &o, on_dialled, u);
	if (!u->dial)
		die("out of memory");
}

static void start_some(void)
{
	while (all.busy < (all.reported ? opt.at_once : opt.first_at_once) && !list_empty(&all.waiting) && !all.stopping) {
		struct uplink *u = list_first(&all.waiting, struct uplink, node);

		list_del(&u->node);
		start(u);
	}
}

/* ---- life ---- */

static void stop(void)
{
	if (all.stopping)
		return;
	all.stopping = true;
	if (!all.reported)
		report();
	print_state();
	loop_stop();
}

static void lose_all(void)
{
	for (unsigned i = 0; i < all.n; i++) {
		if (all.uplinks[i].state == UP)
			down(&all.uplinks[i], REASON_LINK_CLOSED, "lost as ordered");
	}
}

static void on_signal(struct watch *w, unsigned events)
{
	struct signalfd_siginfo info;

	while (read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			print_state();
		else if (info.ssi_signo == SIGUSR2)
			lose_all();
		else
			stop();
	}
}

static void on_input(struct watch *w, unsigned events)
{
	char waste[256];
	ssize_t n;

	while ((n = read(STDIN_FILENO, waste, sizeof(waste))) > 0)
		;
	if (n == 0)
		stop();
}

static void watch_outside(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0 || loop_watch(&all.signals, fd, on_signal) < 0)
		die("cannot watch signals: %s", strerror(errno));
	/* a terminal or pipe; a file or /dev/null has no end to wait for */
	if (loop_watch(&all.input, STDIN_FILENO, on_input) < 0 && errno != EPERM)
		die("cannot watch the input: %s", strerror(errno));
}

static void more_descriptors(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &r);
	}
}

static unsigned number(const char *text, uint64_t max)
{
	uint64_t n;

	if (!str_u64(text, max, &n) || n == 0)
		die("'%s' is not a number from 1 to %llu", text, (unsigned long long)max);
	return (unsigned)n;
}

static void parse_hub(const char *text)
{
	struct endpoint *e = &opt.hubs[opt.hubs_n];
	char err[200];

	if (opt.hubs_n == HUBS_MAX)
		die("--hub: %d are enough", HUBS_MAX);
	if (endpoint_parse(e, text, ENDPOINT_DIAL, err, sizeof(err)) < 0)
		die("--hub: %s", err);
	if (opt.hubs_n++ > 0)
		return;
	if (e->host)
		str_copy(opt.server_name, sizeof(opt.server_name), e->host);
	else
		addr_host_text(&e->addr, opt.server_name, sizeof(opt.server_name));
}

static void take_option(int c, const char *value, const char **server_name)
{
	switch (c) {
	case 'h': parse_hub(value); break;
	case 'p': opt.pki = value; break;
	case 'c': opt.count = number(value, 100000); break;
	case 'f': opt.first = number(value, 1000000); break;
	case 'x': opt.prefix = value; break;
	case 't': opt.tunnel = value; break;
	case 'l': opt.links = number(value, 100); break;
	case 's': opt.services = number(value, HELLO_SERVICES_MAX); break;
	case 'n': *server_name = value; break;
	case 'm': opt.at_once = number(value, 100000); break;
	case 'M': opt.first_at_once = number(value, 100000); break;
	case 'o': opt.hold = true; break;
	case '1': opt.once = true; break;
	case 'P': opt.hub_pid = (pid_t)number(value, INT32_MAX); break;
	default: fputs(usage, stderr); exit(1);
	}
}

static void parse_options(int argc, char **argv)
{
	static const struct option rows[] = {
		{ "hub", 1, NULL, 'h' },      { "pki", 1, NULL, 'p' },         { "count", 1, NULL, 'c' },   { "first", 1, NULL, 'f' },
		{ "prefix", 1, NULL, 'x' },   { "tunnel", 1, NULL, 't' },      { "links", 1, NULL, 'l' },   { "services", 1, NULL, 's' },
		{ "hold", 0, NULL, 'o' },     { "server-name", 1, NULL, 'n' }, { "at-once", 1, NULL, 'm' }, { "once", 0, NULL, '1' },
		{ "hub-pid", 1, NULL, 'P' },  { "first-at-once", 1, NULL, 'M' }, { 0 },
	};
	const char *server_name = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", rows, NULL)) != -1)
		take_option(c, optarg, &server_name);
	if (!opt.first_at_once)
		opt.first_at_once = opt.at_once;
	if (server_name)
		str_copy(opt.server_name, sizeof(opt.server_name), server_name);
	if (!opt.hubs_n || !opt.pki || optind < argc) {
		fputs(usage, stderr);
		exit(1);
	}
}

static void init_all(void)
{
	all.n = opt.count * opt.links;
	all.agents = xcalloc(opt.count, sizeof(*all.agents));
	all.uplinks = xcalloc(all.n, sizeof(*all.uplinks));
	all.took_us = xcalloc(all.n, sizeof(*all.took_us));
	all.back_us = xcalloc(all.n, sizeof(*all.back_us));
	list_init(&all.waiting);
	list_init(&all.parked);
	for (unsigned i = 0; i < opt.count; i++)
		agent_init(&all.agents[i], opt.first + i);
	for (unsigned i = 0; i < all.n; i++) {
		struct uplink *u = &all.uplinks[i];

		u->agent = &all.agents[i % opt.count];
		timer_init(&u->timer, on_timer);
		list_add(&all.waiting, &u->node);
	}
}

static int end_all(void)
{
	for (unsigned i = 0; i < all.n; i++) {
		struct uplink *u = &all.uplinks[i];

		if (u->state == UP)
			link_goaway(carrier_link(u->carrier), REASON_STOPPED);
		if (u->carrier)
			carrier_finish(u->carrier);
	}
	for (int turn = 0; turn < 100 && all.up > 0; turn++)
		loop_turn(10);
	for (unsigned i = 0; i < all.n; i++)
		down(&all.uplinks[i], REASON_STOPPED, reason_text(REASON_STOPPED));
	session_end_list(&all.parked, REASON_STOPPED);
	session_stop_all(REASON_STOPPED);
	for (unsigned i = 0; i < opt.count; i++) {
		tls_ticket_free(all.agents[i].ticket);
		tls_put(all.agents[i].tls);
	}
	return all.took_n == all.n ? 0 : 1;
}

int main(int argc, char **argv)
{
	char err[200];
	int rc;

	signal(SIGPIPE, SIG_IGN);
	parse_options(argc, argv);
	more_descriptors();
	load_ca();
	loop_init();
	if (resolve_init(err, sizeof(err)) < 0)
		die("%s", err);
	init_all();
	watch_outside();
	clock_update();
	all.began_us = clock_us();
	all.rss_before = opt.hub_pid ? rss_of(opt.hub_pid) : 0;
	start_some();
	loop_run();
	rc = end_all();
	resolve_fini();
	return rc;
}
