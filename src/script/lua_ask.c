/* What the edge asks (edge/policy.h): about a client, about an agent, and the word that a session has ended. Each question becomes a call of what was registered
 * for it, under its tally; a function that fails, rests or answers nonsense has refused whoever was asked about. Owns who answers on this thread. */
#include "mctunnel/base/map.h"
#include "mctunnel/base/reason.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"
#include "mctunnel/tunnel/facts.h"

#include <lauxlib.h>
#include <lua.h>
#include <string.h>

static _Thread_local struct script *own;

/* ---- calls ---- */

static void on_failure(struct script *s, struct hook *h, const struct question *q)
{
	if (!s->fault.line)
		fault_place(&s->fault, h->file, h->line);
	stat_add(STAT_LUA_ERRORS, 1);
	tally_result(&h->tally, h->name, TALLY_ERROR);
	fault_log(&s->log, &s->fault, h->name, q ? q->facts->listener : NULL, q ? q->id : NULL);
}

static bool call_it(struct script *s, struct hook *h, lua_CFunction body, void *arg)
{
	uint64_t took;
	bool good;

	s->running = h;
	good = script_run(s, body, arg, s->conf->global.lua.budget_ms);
	s->running = NULL;
	took = budget_now_ns() - s->budget.began_ns;
	tally_call(&h->tally, took);
	if (s->budget.spent && !budget_is_starved(&s->budget))
		tally_waste(&h->tally, s->budget.began_ns, took);
	return good;
}

/* false: it failed, and that has been told; s->no_memory says whether for that. */
static bool call(struct script *s, struct hook *h, lua_CFunction body, void *arg, const struct question *q)
{
	s->no_memory = false;
	if (tally_rests(&h->tally)) { /* who is asked about meanwhile is denied, and others do not wait */
		fault_clear(&s->fault);
		fault_text(&s->fault, "it is not called for a moment: it has used up its budget too often");
		on_failure(s, h, q);
		return false;
	}
	if (call_it(s, h, body, arg))
		return true;
	s->no_memory = budget_is_starved(&s->budget);
	on_failure(s, h, q);
	if (s->budget.starved)
		script_make_room(s);
	return false;
}

/* For the body of a call: its argument. The function is all that is on the stack then. */
static void *begin_call(lua_State *L)
{
	void *arg = lua_touserdata(L, 1);

	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX, script_of(L)->running->ref);
	return arg;
}

/* ---- clients ---- */

static void take_deny(lua_State *L, struct policy_answer *a)
{
	lua_Integer status = lua_isnil(L, 3) ? 403 : lua_tointeger(L, 3);

	if (!lua_isnil(L, 2) && lua_type(L, 2) != LUA_TSTRING)
		luaL_error(L, "the reason behind \"deny\" is a %s, a string is expected", luaL_typename(L, 2));
	if (status < 400 || status > 599)
		luaL_error(L, "the status behind \"deny\" is '%s', 400 to 599 is expected", luaL_tolstring(L, 3, NULL));
	str_copy(a->reason, sizeof(a->reason), lua_isnil(L, 2) ? "" : lua_tostring(L, 2));
	a->status = (unsigned)status;
}

static void take_route(lua_State *L, struct policy_answer *a)
{
	const char *route = lua_tostring(L, 2), *slash = route ? strchr(route, '/') : NULL;
	size_t len = slash ? (size_t)(slash - route) : 0;

	if (!slash || len == 0 || len >= sizeof(a->tunnel) || !slash[1] || strlen(slash + 1) >= sizeof(a->service) || strchr(slash + 1, '/'))
		luaL_error(L, "behind \"route\" a \"TUNNEL/SERVICE\" is expected, not '%s'", luaL_tolstring(L, 2, NULL));
	memcpy(a->tunnel, route, len);
	a->tunnel[len] = '\0';
	str_copy(a->service, sizeof(a->service), slash + 1);
}

/* The function's values are all that is on the stack. */
static void take_answer(lua_State *L, struct policy_answer *a)
{
	const char *word = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";

	if (strcmp(word, "allow") == 0) {
		a->kind = POLICY_ALLOW;
	} else if (strcmp(word, "deny") == 0) {
		a->kind = POLICY_DENY;
		take_deny(L, a);
	} else if (strcmp(word, "reject") == 0) {
		a->kind = POLICY_REJECT;
	} else if (strcmp(word, "route") == 0) {
		a->kind = POLICY_ROUTE;
		take_route(L, a);
	} else {
		luaL_error(L, "the policy returned '%s'; \"allow\", \"deny\", \"reject\" or \"route\" is expected", luaL_tolstring(L, 1, NULL));
	}
}

static int ask_function(lua_State *L)
{
	struct question *q = begin_call(L);

	lua_rawgeti(L, LUA_REGISTRYINDEX, script_of(L)->client_ref);
	lua_call(L, 1, 3);
	take_answer(L, q->answer);
	return 0;
}

static void refuse(struct policy_answer *out, const char *why)
{
	*out = (struct policy_answer){ .kind = POLICY_DENY, .status = 403, .failed = true };
	str_copy(out->reason, sizeof(out->reason), why);
}

static void ask_client(const char *name, const struct facts *f, const char *route, const char *id, struct policy_answer *out)
{
	static const enum tally_result results[] = { [POLICY_ALLOW] = TALLY_ALLOW, [POLICY_DENY] = TALLY_DENY, [POLICY_REJECT] = TALLY_REJECT,
		[POLICY_ROUTE] = TALLY_ROUTE };
	struct script *s = own;
	struct hook *h = script_is_open(s) ? map_get_str(s->policies, name) : NULL;
	struct policy_answer answer = { .kind = POLICY_DENY, .status = 403 };
	struct question q = { .facts = f, .route = route, .id = id, .answer = &answer };
	bool good;

	if (!h) {
		stat_add(STAT_LUA_ERRORS, 1);
		refuse(out, "the policy is not available");
		return;
	}
	s->question = &q;
	good = call(s, h, ask_function, &q, &q);
	s->question = NULL;
	if (!good) {
		refuse(out, "the policy failed");
		out->starved = s->no_memory;
		return;
	}
	tally_result(&h->tally, h->name, results[answer.kind]);
	*out = answer;
}

/* ---- agents ---- */

struct agent_question {
	const struct policy_agent *agent;
	bool allowed;
	char why[128];
};

static void push_agent(lua_State *L, const struct policy_agent *a)
{
	lua_createtable(L, 0, 5);
	script_set_str(L, "name", a->name);
	script_set_str(L, "tunnel", a->tunnel);
	script_set_str(L, "addr", a->addr);
	script_set_str(L, "cert", a->cert);
	script_push_words(L, a->services, a->services_n);
	lua_setfield(L, -2, "services");
}

static int ask_about_agent(lua_State *L)
{
	struct agent_question *q = begin_call(L);
	const char *word;

	push_agent(L, q->agent);
	lua_call(L, 1, 2);
	word = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
	q->allowed = strcmp(word, "allow") == 0;
	if (!q->allowed && strcmp(word, "deny") != 0)
		luaL_error(L, "on_agent returned '%s'; \"allow\" or \"deny\" is expected", luaL_tolstring(L, 1, NULL));
	if (!q->allowed && lua_type(L, 2) == LUA_TSTRING)
		str_copy(q->why, sizeof(q->why), lua_tostring(L, 2));
	return 0;
}

static enum reason ask_agent_hook(struct script *s, struct hook *h, const struct policy_agent *a, char *why, size_t size)
{
	struct agent_question q = { .agent = a, .why = "the policy does not allow it" };

	if (!call(s, h, ask_about_agent, &q, NULL)) {
		str_copy(why, size, s->no_memory ? reason_text(REASON_RESOURCES) : "the policy failed");
		return s->no_memory ? REASON_RESOURCES : REASON_POLICY;
	}
	tally_result(&h->tally, h->name, q.allowed ? TALLY_ALLOW : TALLY_DENY);
	if (!q.allowed)
		str_copy(why, size, q.why);
	return q.allowed ? REASON_DONE : REASON_POLICY;
}

/* All of them must allow it. */
static enum reason ask_agent(const struct policy_agent *a, char *why, size_t size)
{
	struct script *s = own;
	enum reason verdict = REASON_DONE;

	if (!script_is_open(s)) {
		str_copy(why, size, "the policy is not available");
		return REASON_POLICY;
	}
	for (size_t i = 0; i < s->hooks_n && verdict == REASON_DONE; i++) {
		if (s->hooks[i]->kind == SCRIPT_AGENT)
			verdict = ask_agent_hook(s, s->hooks[i], a, why, size);
	}
	return verdict;
}

/* ---- ends of sessions ---- */

static int tell_end(lua_State *L)
{
	const struct policy_end *e = *(const struct policy_end **)begin_call(L);

	lua_createtable(L, 0, 17);
	script_set_str(L, "listener", e->listener);
	script_set_str(L, "client", e->client);
	script_set_str(L, "route", e->route);
	script_set_str(L, "tunnel", e->tunnel);
	script_set_str(L, "service", e->service);
	script_set_str(L, "agent", e->agent);
	script_set_str(L, "target", e->target);
	script_set_str(L, "id", e->id);
	script_set_str(L, "reason", e->reason);
	script_set_str(L, "sni", e->sni);
	script_set_str(L, "host", e->host);
	script_set_int(L, "up", (lua_Integer)e->up);
	script_set_int(L, "down", (lua_Integer)e->down);
	script_set_int(L, "queue_ms", e->queue_ms);
	script_set_int(L, "connect_ms", e->connect_ms);
	script_set_int(L, "total_ms", e->total_ms);
	lua_call(L, 1, 0);
	return 0;
}

static void tell_ends(const struct policy_end *e)
{
	struct script *s = own;

	for (size_t i = 0; script_is_open(s) && i < s->hooks_n; i++) {
		struct hook *h = s->hooks[i];

		if (h->kind == SCRIPT_END && call(s, h, tell_end, &e, NULL))
			tally_result(&h->tally, h->name, TALLY_DONE);
	}
}

/* ---- who answers ---- */

void script_use(struct script *s)
{
	own = s;
	if (s) {
		s->ops.ask = ask_client;
		s->ops.agent = ask_agent;
		s->ops.end = tell_ends;
	}
	policy_use(s ? &s->ops : NULL);
}

struct script *script_used(void)
{
	return own;
}
