/* Scripts of a thread: a state of Lua, filled with what scripts are given and with the scripts themselves, thrown away and made anew when they have filled it.
 * Owns the script and all that a state leaves outside of it. What a state can do lies in lua_*.c, what it is asked in lua_ask.c; which thread it belongs to, and
 * when a configuration comes into force, is known above. */
#include "mctunnel/script/lua.h"

#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/script/lookup.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"

#include <lua.h>
#include <stdlib.h>

#ifndef LOAD_MS       /* a fuzzer has less patience */
#define LOAD_MS 200   /* budget of loading */
#endif
#define RENEW_MS 1000 /* between two states of which the first was full */

static void open_api(lua_State *L)
{
	lua_newtable(L);
	script_open_hooks(L);
	script_open_counts(L);
	script_open_lookups(L);
	script_open_log(L);
	script_open_time(L);
	script_set_str(L, "version", MCTUNNEL_VERSION);
	lua_setglobal(L, "mctunnel");
}

static int open_all(lua_State *L)
{
	lua_settop(L, 0);
	script_open_run(L);
	script_open_library(L);
	script_open_modules(L);
	script_open_client(L);
	open_api(L);
	return 0;
}

static void empty(struct script *s)
{
	script_close_state(s);
	script_forget_hooks(s);
}

/* A new state with everything loaded. false: fault tells. */
static bool begin(struct script *s)
{
	bool good;

	if (!script_open_state(s))
		return false;
	s->file = "";
	s->budget.loading = true;
	good = script_run(s, open_all, NULL, LOAD_MS) && script_run(s, script_load_all, NULL, LOAD_MS);
	if (!s->fault.file[0] && s->file[0])
		fault_place(&s->fault, s->file, s->fault.line);
	s->file = NULL;
	s->budget.loading = false;
	if (!good)
		empty(s);
	return good;
}

static void renew(struct script *s)
{
	bool wanted_agents = s->ops.wants_agents;
	struct script_fault before = s->fault;

	s->renewed_ms = clock_ms();
	s->quiet = true;
	if (begin(s)) {
		s->fault = before;
		return;
	}
	s->ops.wants_agents = wanted_agents; /* they are refused */
	log_error("scripts cannot be loaded again: %s:%d: %s", s->fault.file, s->fault.line, s->fault.text);
}

/* What a script keeps fills its state. What it has counted and looked up lies elsewhere. */
void script_make_room(struct script *s)
{
	lua_gc(s->L, LUA_GCCOLLECT);
	if (s->budget.memory < s->budget.limit / 4 * 3 || clock_ms() - s->renewed_ms < RENEW_MS)
		return;
	log_error("scripts keep %zu of %zu bytes (global.lua.memory): they begin anew on this thread", s->budget.memory, s->budget.limit);
	empty(s);
	s->renewals++;
	renew(s);
}

bool script_is_open(struct script *s)
{
	if (!s->L && clock_ms() - s->renewed_ms >= RENEW_MS)
		renew(s);
	return s->L;
}

/* ---- from the begin of a configuration to its end ---- */

struct script *script_new(struct conf *conf, struct script *sibling, bool checking, struct script_fault *fault)
{
	struct script *s = xcalloc(1, sizeof(*s));

	s->conf = conf_get(conf);
	s->shelf = sibling ? shelf_hold(sibling->shelf) : shelf_new();
	s->checking = checking;
	s->quiet = checking || sibling;
	s->budget.limit = conf->global.lua.memory;
	s->policies = map_new();
	if (begin(s))
		return s;
	*fault = s->fault;
	script_free(s);
	return NULL;
}

void script_free(struct script *s)
{
	if (!s)
		return;
	if (script_used() == s)
		script_use(NULL);
	empty(s);
	map_free(s->policies);
	shelf_put(s->shelf);
	conf_put(s->conf);
	free(s);
}

/* ---- what is known of a state ---- */

void script_figures(const struct script *s, struct script_figures *out)
{
	const struct budget *b = &s->budget;

	*out = (struct script_figures){ .memory = b->memory, .memory_peak = b->peak, .memory_limit = b->limit,
		.instructions = (uint64_t)(b->granted - (b->left > 0 ? b->left : 0)), .renewals = s->renewals };
}

const struct script_fault *script_last_fault(const struct script *s)
{
	return &s->fault;
}
