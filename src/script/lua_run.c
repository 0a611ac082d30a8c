/* Calls into Lua: the only place where an error of Lua's is caught, and what is known then of where it came from. Owns the state of Lua, and holds it to its
 * budget: instructions are counted by a hook, bytes by the allocator, and what the library's own loops work off is charged before they begin. Once a call has
 * used up what it may, every further step of it fails too, so that no pcall() can go on. Does not know what a state is filled with, or why it is called. */
#include "mctunnel/base/bug.h"
#include "mctunnel/base/str.h"
#include "mctunnel/script/lua_inside.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <string.h>

#define STEP 250 /* instructions between two looks at the budget */

struct script *script_of(lua_State *L)
{
	return *(struct script **)lua_getextraspace(L);
}

/* ---- where something went wrong ---- */

const char *script_source_name(const lua_Debug *ar)
{
	return ar->source[0] == '@' ? ar->source + 1 : ar->short_src;
}

const char *script_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The innermost line of a script. */
static bool find_place(lua_State *L, lua_Debug *ar)
{
	for (int level = 0; lua_getstack(L, level, ar); level++) {
		lua_getinfo(L, "Sl", ar);
		if (ar->currentline > 0)
			return true;
	}
	return false;
}

static void note_place(struct script *s, lua_State *L)
{
	lua_Debug ar;

	if (find_place(L, &ar))
		fault_place(&s->fault, script_source_name(&ar), ar.currentline);
}

static void note_trace(struct script *s, lua_State *L)
{
	struct strbuf b;
	lua_Debug ar;

	strbuf_init(&b, s->fault.trace, sizeof(s->fault.trace));
	for (int level = 0, n = 0; n < 12 && lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Sln", &ar);
		if (ar.currentline <= 0)
			continue;
		strbuf_add(&b, "%s%.60s:%d", n++ ? " < " : "", script_file_name(script_source_name(&ar)), ar.currentline);
		if (ar.name)
			strbuf_add(&b, " (%.40s)", ar.name);
	}
}

static void note_text(struct script *s, lua_State *L, const char *text)
{
	lua_Debug ar;

	if (find_place(L, &ar)) {
		fault_place(&s->fault, script_source_name(&ar), ar.currentline);
		fault_said(&s->fault, ar.short_src, text);
	} else if (s->file) {
		fault_syntax(&s->fault, s->file, text);
	} else {
		fault_text(&s->fault, text);
	}
}

/* The message handler of script_run(): while the stack still stands. */
static int on_fault(lua_State *L)
{
	struct script *s = script_of(L);
	char words[80];

	if (s->budget.spent) {
		fault_text(&s->fault, s->budget.spent);
	} else if (lua_type(L, 1) == LUA_TSTRING) {
		note_text(s, L, lua_tostring(L, 1));
	} else if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) {
		note_text(s, L, lua_tostring(L, -1));
	} else {
		snprintf(words, sizeof(words), "the error is a %s value", luaL_typename(L, 1));
		note_text(s, L, words);
	}
	note_trace(s, L);
	return 1;
}

/* ---- budgets ---- */

int script_raise_spent(lua_State *L)
{
	struct script *s = script_of(L);

	if (!s->fault.line)
		note_place(s, L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, s->spent_ref);
	return lua_error(L);
}

static void on_count(lua_State *L, lua_Debug *ar)
{
	if (budget_step(&script_of(L)->budget, STEP))
		return;
	lua_sethook(L, on_count, LUA_MASKCOUNT, 1); /* nothing more on this stack */
	script_raise_spent(L);
}

void script_charge(lua_State *L, int64_t n)
{
	if (!budget_take(&script_of(L)->budget, n))
		script_raise_spent(L);
}

/* ---- calls ---- */

static const char *status_words(int status)
{
	return status == LUA_ERRMEM ? budget_no_memory : status == LUA_ERRERR ? "an error while an error was dealt with" : "it failed";
}

bool script_run(struct script *s, lua_CFunction body, void *arg, uint64_t ms)
{
	lua_State *L = s->L;
	int status;

	fault_clear(&s->fault);
	budget_begin(&s->budget, ms);
	lua_pushcfunction(L, on_fault);
	lua_pushcfunction(L, body);
	lua_pushlightuserdata(L, arg);
	status = lua_pcall(L, 1, 0, 1);
	lua_settop(L, 0);
	if (status == LUA_OK && !s->budget.spent)
		return true;
	if (!s->fault.text[0])
		fault_text(&s->fault, s->budget.spent ? s->budget.spent : status_words(status));
	lua_sethook(L, on_count, LUA_MASKCOUNT, STEP);
	return false;
}

/* ---- the state ---- */

static int on_panic(lua_State *L)
{
	bug_panic(__FILE__, __LINE__, "Lua: %s", lua_tostring(L, -1));
}

bool script_open_state(struct script *s)
{
	s->L = lua_newstate(budget_allocate, &s->budget);
	if (!s->L) {
		fault_text(&s->fault, budget_no_memory);
		return false;
	}
	*(struct script **)lua_getextraspace(s->L) = s;
	lua_atpanic(s->L, on_panic);
	lua_sethook(s->L, on_count, LUA_MASKCOUNT, STEP);
	return true;
}

void script_open_run(lua_State *L)
{
	lua_pushliteral(L, "the call is over");
	script_of(L)->spent_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

void script_close_state(struct script *s)
{
	if (s->L)
		lua_close(s->L);
	s->L = NULL;
	BUG_ON(s->budget.memory != 0);
}
