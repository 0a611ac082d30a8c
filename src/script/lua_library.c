/* The sandbox: of Lua's own library scripts have what cannot reach out. What could run on unseen is wrapped, so that the budget is asked before it begins, and so is
 * what catches errors, so that nothing goes on when the budget is gone. Owns nothing; does not know what else scripts are given. */
#include "mctunnel/script/lua_inside.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <string.h>

#define COROUTINE_COST 1000 /* each has a count of its own until the first look */

/* ---- what catches errors, and coroutines ---- */

/* What catches errors must not catch that all is used up. */
static int guarded_end(lua_State *L, int status, lua_KContext context)
{
	return script_of(L)->budget.spent ? script_raise_spent(L) : lua_gettop(L);
}

/* Upvalues: the function, what it costs. */
static int guarded(lua_State *L)
{
	script_charge(L, lua_tointeger(L, lua_upvalueindex(2)));
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, guarded_end);
	return guarded_end(L, LUA_OK, 0);
}

/* After an error of on_count() hooks are off until the stack is unwound: nothing of a script may run there. Upvalue: the script's handler. */
static int handler(lua_State *L)
{
	if (script_of(L)->budget.spent)
		return 1;
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, 1);
	return 1;
}

/* Upvalues as of guarded(). */
static int guarded_xpcall(lua_State *L)
{
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_pushvalue(L, 2);
	lua_pushcclosure(L, handler, 1);
	lua_replace(L, 2);
	return guarded(L);
}

/* The library's own would close the variables of a coroutine that has failed, for the same reason with hooks off. Upvalue: the coroutine. */
static int wrapped(lua_State *L)
{
	lua_State *co = lua_tothread(L, lua_upvalueindex(1));
	int args = lua_gettop(L), n, status;

	script_charge(L, 1);
	if (!lua_checkstack(co, args))
		return luaL_error(L, "too many arguments to resume");
	lua_xmove(L, co, args);
	status = lua_resume(co, L, args, &n);
	if (script_of(L)->budget.spent)
		return script_raise_spent(L);
	if (status != LUA_OK && status != LUA_YIELD) {
		if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD) /* else it is one that runs */
			lua_resetthread(co);
		lua_xmove(co, L, 1);
		return lua_error(L);
	}
	luaL_checkstack(L, n, "too many results to resume");
	lua_xmove(co, L, n);
	return n;
}

static int wrap_coroutine(lua_State *L)
{
	script_charge(L, COROUTINE_COST);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_State *co = lua_newthread(L);
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 1);
	lua_pushcclosure(L, wrapped, 1);
	return 1;
}

/* ---- the library's own loops ---- */

/* How they go: over a table, over a range of arguments, ... */
enum span { SPAN_TABLE, SPAN_SORT, SPAN_MOVE, SPAN_UNPACK, SPAN_CONCAT, SPAN_BYTE, SPAN_REP, SPAN_FORMAT };

static lua_Integer range(lua_State *L, int from, lua_Integer last)
{
	lua_Integer i = luaL_optinteger(L, from, 1), j = luaL_optinteger(L, from + 1, last), n;

	if (j < i)
		return 0;
	return __builtin_sub_overflow(j, i, &n) ? LUA_MAXINTEGER : n;
}

/* A length that a script makes up would not be the one that the loop then has. */
static lua_Integer table_length(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argcheck(L, luaL_getmetafield(L, 1, "__len") == LUA_TNIL, 1, "its metatable has __len, which cannot be used here");
	return (lua_Integer)lua_rawlen(L, 1);
}

static lua_Integer repetition(lua_State *L)
{
	size_t len, between;
	lua_Integer n = luaL_checkinteger(L, 2), total;

	luaL_checklstring(L, 1, &len);
	luaL_optlstring(L, 3, "", &between);
	if (n <= 0)
		return 0;
	return __builtin_mul_overflow(n, (lua_Integer)(len + between + 1), &total) ? LUA_MAXINTEGER : total / 8;
}

/* s:byte(i [, j]) */
static lua_Integer bytes(lua_State *L)
{
	size_t size;
	luaL_checklstring(L, 1, &size);
	lua_Integer len = (lua_Integer)size, i = luaL_optinteger(L, 2, 1), j = luaL_optinteger(L, 3, i);

	i = i < 0 ? (i < -len ? 1 : len + i + 1) : i;
	j = j < 0 ? (j < -len ? 0 : len + j + 1) : j > len ? len : j;
	return j > i ? (j - i) / 4 : 0;
}

/* What a format may cost at most, by its length. */
static lua_Integer format_cost(lua_State *L)
{
	size_t len;

	luaL_optlstring(L, 1, "", &len);
	return (lua_Integer)len * 8;
}

static lua_Integer span_of(lua_State *L, enum span span)
{
	lua_Integer n;

	switch (span) {
	case SPAN_TABLE: return table_length(L) / 4;
	case SPAN_SORT:
		n = table_length(L);
		return n * (65 - __builtin_clzll((unsigned long long)n | 1)) / 4;
	case SPAN_MOVE: return (table_length(L), range(L, 2, 0));
	case SPAN_UNPACK: return range(L, 2, table_length(L));
	case SPAN_CONCAT: return range(L, 3, table_length(L));
	case SPAN_BYTE: return bytes(L);
	case SPAN_REP: return repetition(L);
	case SPAN_FORMAT: return format_cost(L);
	}
	return 0;
}

/* Upvalues: the function, its span. */
static int measured(lua_State *L)
{
	script_charge(L, span_of(L, (enum span)lua_tointeger(L, lua_upvalueindex(2))));
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* ---- functions of our own in the place of the library's ---- */

/* Finalizers run where no hook counts. */
static int set_metatable(lua_State *L)
{
	int type = lua_type(L, 2);

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
	if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
		return luaL_error(L, "cannot change a protected metatable");
	if (type == LUA_TTABLE) {
		lua_pushliteral(L, "__gc");
		luaL_argcheck(L, lua_rawget(L, 2) == LUA_TNIL, 2, "there is no __gc here");
	}
	lua_settop(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

static int collect_garbage(lua_State *L)
{
	luaL_argcheck(L, strcmp(luaL_optstring(L, 1, "count"), "count") == 0, 1, "only \"count\" is there");
	lua_pushnumber(L, (lua_Number)script_of(L)->budget.memory / 1024);
	return 1;
}

/* ---- what there is ---- */

static const char *const base_names[] = { "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen", "rawset",
	"select", "tonumber", "tostring", "type", "xpcall", "_G", "_VERSION", "string", "table", "math", "utf8", "coroutine", "os", NULL };
static const char *const string_names[] = { "byte", "char", "format", "len", "lower", "rep", "reverse", "sub", "upper", NULL };
static const char *const os_names[] = { "clock", "date", "difftime", "time", NULL };

static bool listed(const char *const *names, const char *name)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names;
}

/* Of the table on top only these stay. */
static void keep_only(lua_State *L, const char *const *names)
{
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		lua_pop(L, 1);
		if (listed(names, lua_tostring(L, -1)))
			continue;
		lua_pushvalue(L, -1);
		lua_pushnil(L);
		lua_rawset(L, -4);
	}
}

/* A function of the table on top is called by another from now on. */
static void wrap(lua_State *L, const char *name, lua_CFunction with, lua_Integer upvalue)
{
	lua_getfield(L, -1, name);
	lua_pushinteger(L, upvalue);
	lua_pushcclosure(L, with, 2);
	lua_setfield(L, -2, name);
}

static void open_string(lua_State *L)
{
	luaL_requiref(L, "string", luaopen_string, 1);
	keep_only(L, string_names);
	script_open_patterns(L);
	wrap(L, "rep", measured, SPAN_REP);
	wrap(L, "byte", measured, SPAN_BYTE);
	wrap(L, "format", measured, SPAN_FORMAT);
	lua_pushliteral(L, "");
	lua_getmetatable(L, -1);
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_settop(L, 0);
}

static void open_table(lua_State *L)
{
	luaL_requiref(L, "table", luaopen_table, 1);
	wrap(L, "insert", measured, SPAN_TABLE);
	wrap(L, "remove", measured, SPAN_TABLE);
	wrap(L, "sort", measured, SPAN_SORT);
	wrap(L, "move", measured, SPAN_MOVE);
	wrap(L, "unpack", measured, SPAN_UNPACK);
	wrap(L, "concat", measured, SPAN_CONCAT);
	lua_settop(L, 0);
}

static void open_coroutine(lua_State *L)
{
	luaL_requiref(L, "coroutine", luaopen_coroutine, 1);
	wrap(L, "create", guarded, COROUTINE_COST);
	lua_pushcfunction(L, wrap_coroutine);
	lua_setfield(L, -2, "wrap");
	wrap(L, "resume", guarded, 0);
	wrap(L, "close", guarded, 0);
	lua_settop(L, 0);
}

static void open_os(lua_State *L)
{
	luaL_requiref(L, "os", luaopen_os, 1);
	keep_only(L, os_names);
	wrap(L, "date", measured, SPAN_FORMAT);
	lua_settop(L, 0);
}

static void open_base(lua_State *L)
{
	luaL_requiref(L, "_G", luaopen_base, 1);
	keep_only(L, base_names);
	wrap(L, "pcall", guarded, 0);
	wrap(L, "xpcall", guarded_xpcall, 0);
	lua_pushcfunction(L, set_metatable);
	lua_setfield(L, -2, "setmetatable");
	lua_pushcfunction(L, collect_garbage);
	lua_setfield(L, -2, "collectgarbage");
	lua_settop(L, 0);
}

void script_open_library(lua_State *L)
{
	luaL_requiref(L, "math", luaopen_math, 1);
	luaL_requiref(L, "utf8", luaopen_utf8, 1);
	lua_settop(L, 0);
	open_string(L);
	open_table(L);
	open_coroutine(L);
	open_os(L);
	open_base(L);
}
