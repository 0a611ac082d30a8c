/* The commands of the admin socket that change something: switches, kills, limits, the end of the program.
 * What is known to every thread is told to each of them, by the answer itself on its way round. Who gave the command is logged
 * by commands.c before anything here is called. */
#include "mctunnel/admin/change.h"

#include "mctunnel/admin/answer.h"
#include "mctunnel/admin/command.h"
#include "mctunnel/admin/show.h"
#include "mctunnel/admin/vip.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/conf/schema.h"
#include "mctunnel/conf/value.h"
#include "mctunnel/edge/departure.h"
#include "mctunnel/edge/dialer.h"
#include "mctunnel/edge/frontend.h"
#include "mctunnel/edge/hub.h"
#include "mctunnel/edge/target.h"
#include "mctunnel/event/thread.h"
#include "mctunnel/tunnel/registry.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define KILLS_A_CALL 500
#define LOOKS_A_CALL 5000
#define DEPART_MS 50

/* ---- names: of the configuration ---- */

static int no_such(struct answer *a, const char *what, struct suggest *s)
{
	answer_say(a, true, "There is no %s '%.64s'%s.", what, s->word, suggest_text(s));
	return ANSWER_DONE;
}

/* -1 after having said so. */
static int find_listener(struct answer *a, const char *name)
{
	const struct conf *c = a->state->conf();
	struct suggest s = { .word = name };

	for (size_t i = 0; i < c->listeners_n; i++) {
		if (strcmp(c->listeners[i].name, name) == 0)
			return (int)i;
		suggest_try(&s, c->listeners[i].name);
	}
	return no_such(a, "listener", &s);
}

static const struct conf_tunnel *find_tunnel(struct answer *a, const char *name, size_t len)
{
	const struct conf *c = a->state->conf();
	char word[72];
	struct suggest s = { .word = word };

	snprintf(word, sizeof(word), "%.*s", (int)(len < 70 ? len : 70), name);
	for (size_t i = 0; i < c->tunnels_n; i++) {
		if (strcmp(c->tunnels[i].name, word) == 0)
			return &c->tunnels[i];
		suggest_try(&s, c->tunnels[i].name);
	}
	no_such(a, "tunnel", &s);
	return NULL;
}

static bool find_agent(struct answer *a, const char *name)
{
	const struct conf *c = a->state->conf();
	struct suggest s = { .word = name };

	for (size_t i = 0; i < c->tunnels_n; i++) {
		for (size_t k = 0; k < c->tunnels[i].agents.n; k++) {
			if (strcmp(c->tunnels[i].agents.v[k], name) == 0)
				return true;
			suggest_try(&s, c->tunnels[i].agents.v[k]);
		}
	}
	no_such(a, "agent", &s);
	return false;
}

static bool find_service(struct answer *a, const char *path)
{
	const char *slash = strchr(path, '/');
	const struct conf_tunnel *t;
	struct suggest s = { .word = path };

	if (!slash) {
		answer_say(a, true, "A service is named TUNNEL/SERVICE.");
		return false;
	}
	t = find_tunnel(a, path, (size_t)(slash - path));
	if (!t)
		return false;
	for (size_t i = 0; i < t->services.n; i++) {
		if (str_glob(t->services.v[i], slash + 1))
			return true;
	}
	no_such(a, "service", &s);
	return false;
}

/* ---- switches ---- */

static int listener(struct answer *a, bool on)
{
	if (thread_self() == 0) {
		int i = find_listener(a, a->argv[0]);

		if (i < 0)
			return ANSWER_DONE;
		a->index = (uint64_t)i;
	}
	frontend_enable(a->index, on);
	return answer_next_thread(a, true);
}

int change_listener_on(struct answer *a)
{
	return listener(a, true);
}

int change_listener_off(struct answer *a)
{
	return listener(a, false);
}

static int mark(struct answer *a, enum registry_mark what, const char *name, int value)
{
	registry_mark(what, name, value);
	return answer_next_thread(a, true);
}

static int tunnel(struct answer *a, int value)
{
	if (thread_self() == 0 && !find_tunnel(a, a->argv[0], strlen(a->argv[0])))
		return ANSWER_DONE;
	return mark(a, MARK_TUNNEL, a->argv[0], value);
}

int change_tunnel_on(struct answer *a)
{
	return tunnel(a, MARK_NONE);
}

int change_tunnel_off(struct answer *a)
{
	return tunnel(a, 1);
}

static int agent(struct answer *a, int value)
{
	if (thread_self() == 0 && !find_agent(a, a->argv[0]))
		return ANSWER_DONE;
	return mark(a, MARK_AGENT, a->argv[0], value);
}

int change_agent_on(struct answer *a)
{
	return agent(a, MARK_NONE);
}

int change_agent_off(struct answer *a)
{
	return agent(a, 2);
}

int change_agent_drain(struct answer *a)
{
	return agent(a, 1);
}

static int service(struct answer *a, int value)
{
	if (thread_self() == 0 && !find_service(a, a->argv[0]))
		return ANSWER_DONE;
	return mark(a, MARK_SERVICE, a->argv[0], value);
}

int change_service_on(struct answer *a)
{
	return service(a, MARK_NONE);
}

int change_service_off(struct answer *a)
{
	return service(a, 1);
}

int change_weight(struct answer *a)
{
	char name[140];
	uint64_t n;

	if (thread_self() == 0 && !find_agent(a, a->argv[0]))
		return ANSWER_DONE;
	if (!str_u64(a->argv[2], 256, &n)) {
		answer_say(a, true, "A weight is a number from 0 to 256.");
		return ANSWER_DONE;
	}
	snprintf(name, sizeof(name), "%.64s/%.64s", a->argv[0], a->argv[1]);
	return mark(a, MARK_WEIGHT, name, (int)n);
}

/* ---- kills; a->count counts them ---- */

struct kill {
	struct answer *a;
	const char *id, *agent, *listener; /* one of them */
	uint64_t link;
	unsigned looks, kills;
};

static enum visit killed(struct kill *k, bool match)
{
	if (match) {
		k->a->count++;
		k->kills++;
	}
	return match ? VISIT_KILL : ++k->looks < LOOKS_A_CALL ? VISIT_NEXT : VISIT_STOP;
}

static enum visit kill_client(void *arg, const struct frontend_client *c)
{
	struct kill *k = arg;
	bool match = (k->id && strcmp(c->id, k->id) == 0) || (k->agent && c->agent && strcmp(c->agent, k->agent) == 0) ||
		     (k->listener && strcmp(c->listener, k->listener) == 0);

	if (k->kills >= KILLS_A_CALL) {
		k->looks = LOOKS_A_CALL;
		return match ? killed(k, true) : VISIT_STOP;
	}
	return killed(k, match);
}

static enum visit kill_job(void *arg, const struct target_job *j)
{
	struct kill *k = arg;

	return killed(k, k->id && strcmp(j->id, k->id) == 0);
}

/* This thread's share; stage 0 are clients, 1 are the agent's own sessions. */
static bool kill_here(struct answer *a, struct kill *k)
{
	if (a->stage == 0) {
		if (!frontend_each(&a->cursor, kill_client, k))
			return false;
		a->stage = 1;
		a->cursor = 0;
	}
	if (!target_each(&a->cursor, kill_job, k))
		return false;
	a->stage = 0;
	return true;
}

int kill_session(struct answer *a)
{
	struct kill k = { .a = a, .id = a->argv[0] };
	int next = answer_next_thread(a, kill_here(a, &k));

	if (next == ANSWER_DONE && a->count == 0)
		answer_say(a, true, "There is no session %.64s.", a->argv[0]);
	return next;
}

static int kill_many(struct answer *a, struct kill *k)
{
	int next = answer_next_thread(a, kill_here(a, k));

	if (next == ANSWER_DONE)
		answer_say(a, false, "%llu sessions ended.", (unsigned long long)a->count);
	return next;
}

int kill_sessions_agent(struct answer *a)
{
	struct kill k = { .a = a, .agent = a->argv[0] };

	if (thread_self() == 0 && a->cursor == 0 && !find_agent(a, a->argv[0]))
		return ANSWER_DONE;
	return kill_many(a, &k);
}

int kill_sessions_listener(struct answer *a)
{
	struct kill k = { .a = a, .listener = a->argv[0] };

	if (thread_self() == 0 && a->cursor == 0 && find_listener(a, a->argv[0]) < 0)
		return ANSWER_DONE;
	return kill_many(a, &k);
}

static enum visit kill_hub_link(void *arg, const struct hub_link *l)
{
	struct kill *k = arg;

	return killed(k, l->id == k->link);
}

static enum visit kill_uplink(void *arg, const struct dialer_link *l)
{
	struct kill *k = arg;

	return killed(k, l->id == k->link && (strcmp(l->state, "up") == 0 || strcmp(l->state, "retiring") == 0));
}

int kill_link(struct answer *a)
{
	struct kill k = { .a = a };
	int next;

	if (!str_u64(a->argv[0], UINT64_MAX, &k.link) || k.link == 0) {
		answer_say(a, true, "The ID of a link is a number, see show links.");
		return ANSWER_DONE;
	}
	a->cursor = 0; /* links are few: all of a thread at once */
	while (!hub_each(&a->cursor, kill_hub_link, &k))
		k.looks = 0;
	a->cursor = 0;
	while (!dialer_each(&a->cursor, kill_uplink, &k))
		k.looks = 0;
	next = answer_next_thread(a, true);
	if (next == ANSWER_DONE && a->count == 0)
		answer_say(a, true, "There is no link %.20s.", a->argv[0]);
	return next;
}

/* ---- the process ---- */

int set_maxconn(struct answer *a)
{
	struct rlimit r = { 0 };
	uint64_t n;

	if (!str_u64(a->argv[0], 10000000, &n) || n == 0) {
		answer_say(a, true, "maxconn is a number from 1 to 10000000.");
		return ANSWER_DONE;
	}
	frontend_set_maxconn((uint32_t)n);
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur != RLIM_INFINITY && n > r.rlim_cur)
		answer_say(a, false, "The process may only have %llu descriptors: accepting will pause when they are used up.", (unsigned long long)r.rlim_cur);
	return ANSWER_DONE;
}

int set_log_level(struct answer *a)
{
	int level = log_level_parse(a->argv[0]);

	if (level < 0)
		answer_say(a, true, "Levels are alert, error, warning, notice, info, debug.");
	else
		log_set_level((enum log_level)level);
	return ANSWER_DONE;
}

static void vip_over(void *unused)
{
	vip_answered();
}

/* Clients are reset a moment later, so that what was under way when the address moved still arrives. */
int set_vip(struct answer *a)
{
	int next;

	if (a->stage == 0) {
		vip_asked(); /* before it is known */
		a->data_free = vip_over;
		if (vip_set(a->argv[0]) < 0) {
			answer_say(a, true, "Roles are master, backup, fault.");
			return ANSWER_DONE;
		}
		a->stage = 1;
		a->until_ms = vip_get() == VIP_MASTER ? 0 : clock_ms() + DEPART_MS;
	}
	if (thread_self() == 0 && clock_ms() < a->until_ms)
		return ANSWER_WAIT;
	if (vip_get() != VIP_MASTER)
		a->count += departure_run();
	next = answer_next_thread(a, true);
	if (next == ANSWER_DONE && a->count > 0)
		log_notice("%llu clients and links of an address that this host has no longer have been reset", (unsigned long long)a->count);
	return next;
}

int clear_counters(struct answer *a)
{
	frontend_clear();
	show_clear();
	return ANSWER_DONE;
}

int stop_now(struct answer *a)
{
	answer_say(a, false, "Stopping.");
	a->state->stop(false);
	return ANSWER_DONE;
}

int stop_softly(struct answer *a)
{
	answer_say(a, false, "Draining.");
	a->state->stop(true);
	return ANSWER_DONE;
}

static void say_lines(struct answer *a, bool error, const char *text)
{
	while (*text) {
		int len = (int)strcspn(text, "\n");

		answer_say(a, error, "%.*s", len, text);
		text += len + (text[len] == '\n');
	}
}

int reload(struct answer *a)
{
	const char *text;
	int outcome;

	if (a->stage++ == 0)
		a->index = a->state->reload();
	outcome = a->state->reloaded((uint32_t)a->index, &text);
	if (outcome == 0)
		return ANSWER_WAIT;
	answer_say(a, outcome < 0, outcome < 0 ? "Refused, the old configuration stays:" : "Reloaded.");
	say_lines(a, outcome < 0, text);
	return ANSWER_DONE;
}

int not_available(struct answer *a)
{
	answer_say(a, true, "'%s' is not available in this version.", a->command->words);
	return ANSWER_DONE;
}

/* ---- waiting ---- */

static bool parse_time(struct answer *a, uint32_t *ms)
{
	static const struct row row = { .name = "time", .kind = KIND_TIME, .size = sizeof(uint32_t), .max = 86400000 };
	char err[256];

	if (a->argc == 0 || value_parse(&row, a->argv[0], "", ms, err, sizeof(err)) == 0)
		return true;
	answer_say(a, true, "%s.", err);
	return false;
}

int wait_ready(struct answer *a)
{
	const char *phase = a->state->phase();
	uint32_t ms = 10000;

	if (strcmp(phase, "serving") == 0) {
		answer_say(a, false, "Ready.");
		return ANSWER_DONE;
	}
	if (a->stage++ == 0) {
		if (!parse_time(a, &ms))
			return ANSWER_DONE;
		a->until_ms = clock_ms() + ms;
	}
	if (clock_ms() < a->until_ms)
		return ANSWER_WAIT;
	answer_say(a, true, "Not ready: %s.", phase);
	return ANSWER_DONE;
}
