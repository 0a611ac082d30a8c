/* The functions that scripts register while they are loaded: policies by name, others by where they are. Owns them, and what is known of their calls; the functions
 * themselves are Lua's. Does not know what they are asked. */
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOOKS_MAX 256

const char *const script_kinds[] = { "policy", "on_agent", "on_session_end" };

/* ---- registering ---- */

static void add_hook(lua_State *L, enum script_kind kind, const char *name, int arg)
{
	struct script *s = script_of(L);
	struct hook *h;
	lua_Debug ar;

	luaL_checktype(L, arg, LUA_TFUNCTION);
	if (s->hooks_n == HOOKS_MAX)
		luaL_error(L, "%d functions are registered already, which is the maximum", HOOKS_MAX);
	lua_pushvalue(L, arg);
	lua_getinfo(L, ">S", &ar);
	lua_pushvalue(L, arg);
	int ref = luaL_ref(L, LUA_REGISTRYINDEX);
	h = xcalloc(1, sizeof(*h));
	h->kind = kind;
	h->ref = ref;
	h->file = xstrdup(script_source_name(&ar));
	h->line = ar.linedefined;
	str_copy(h->name, sizeof(h->name), name);
	s->hooks = xrealloc(s->hooks, (s->hooks_n + 1) * sizeof(*s->hooks));
	s->hooks[s->hooks_n++] = h;
	if (kind == SCRIPT_POLICY)
		map_set_str(s->policies, h->name, h);
	s->ops.wants_agents |= kind == SCRIPT_AGENT;
	s->ops.wants_ends |= kind == SCRIPT_END;
}

static int register_policy(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);

	script_only_while_loading(L, "mctunnel.policy()");
	luaL_argcheck(L, *name && strlen(name) < sizeof(((struct hook *)NULL)->name), 1, "a name has 1 to 95 bytes");
	if (map_get_str(script_of(L)->policies, name))
		return luaL_error(L, "there is a policy '%s' already", name);
	add_hook(L, SCRIPT_POLICY, name, 2);
	return 0;
}

/* These have no name but where they are. Upvalue: their kind. */
static int register_place(lua_State *L)
{
	enum script_kind kind = (enum script_kind)lua_tointeger(L, lua_upvalueindex(1));
	char name[96];
	lua_Debug ar;

	script_only_while_loading(L, script_kinds[kind]);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_pushvalue(L, 1);
	lua_getinfo(L, ">S", &ar);
	snprintf(name, sizeof(name), "%.80s:%d", script_file_name(script_source_name(&ar)), ar.linedefined);
	add_hook(L, kind, name, 1);
	return 0;
}

void script_open_hooks(lua_State *L)
{
	lua_pushcfunction(L, register_policy);
	lua_setfield(L, -2, script_kinds[SCRIPT_POLICY]);
	script_set_function(L, script_kinds[SCRIPT_AGENT], register_place, SCRIPT_AGENT);
	script_set_function(L, script_kinds[SCRIPT_END], register_place, SCRIPT_END);
}

void script_forget_hooks(struct script *s)
{
	for (size_t i = 0; i < s->hooks_n; i++) {
		free(s->hooks[i]->file);
		free(s->hooks[i]);
	}
	free(s->hooks);
	s->hooks = NULL;
	s->hooks_n = 0;
	map_free(s->policies);
	s->policies = map_new();
}

/* ---- what is known of them ---- */

bool script_hook(const struct script *s, size_t i, struct script_hook *out)
{
	const struct hook *h;

	if (i >= s->hooks_n)
		return false;
	h = s->hooks[i];
	*out = (struct script_hook){ .kind = h->kind, .name = h->name, .calls = h->tally.calls, .errors = h->tally.errors, .sum_ns = h->tally.sum_ns,
		.max_ns = h->tally.max_ns, .p50_ns = tally_quantile_ns(&h->tally, 0.5), .p99_ns = tally_quantile_ns(&h->tally, 0.99) };
	return true;
}

bool script_has(const struct script *s, const char *policy)
{
	return map_get_str(s->policies, policy) != NULL;
}
