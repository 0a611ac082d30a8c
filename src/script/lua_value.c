/* What the functions for scripts are made with: arguments as the configuration has them, fields of tables, objects that hold something of ours.
 * Owns what objects hold, until they are collected. Does not know what that is, nor the script. */
#include "mctunnel/base/str.h"
#include "mctunnel/conf/value.h"
#include "mctunnel/script/lua_value.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>

uint64_t script_check_number(lua_State *L, int arg, enum kind kind, uint64_t max)
{
	const struct row row = { .kind = kind, .size = sizeof(uint64_t), .min = 1, .max = max };
	char text[48], err[160];
	uint64_t n = 0;

	if (lua_isinteger(L, arg))
		snprintf(text, sizeof(text), "%lld", (long long)lua_tointeger(L, arg));
	else if (lua_type(L, arg) == LUA_TNUMBER)
		snprintf(text, sizeof(text), "%.0f", lua_tonumber(L, arg));
	else
		str_copy(text, sizeof(text), luaL_checkstring(L, arg));
	if (value_parse(&row, text, "", &n, err, sizeof(err)) < 0)
		luaL_argerror(L, arg, lua_pushstring(L, err));
	return n;
}

/* ---- into the table on top ---- */

void script_set_int(lua_State *L, const char *key, int64_t value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, key);
}

void script_set_str(lua_State *L, const char *key, const char *value)
{
	lua_pushstring(L, value); /* NULL: nil */
	lua_setfield(L, -2, key);
}

void script_set_function(lua_State *L, const char *key, lua_CFunction function, int upvalue)
{
	lua_pushinteger(L, upvalue);
	lua_pushcclosure(L, function, 1);
	lua_setfield(L, -2, key);
}

void script_push_words(lua_State *L, const char *const *words, size_t n)
{
	lua_createtable(L, (int)n, 0);
	for (size_t i = 0; i < n; i++) {
		lua_pushstring(L, words[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

/* ---- objects ---- */

static int free_box(lua_State *L)
{
	struct box *b = lua_touserdata(L, 1);

	if (b->held && b->put)
		b->put(b->held);
	b->held = NULL;
	return 0;
}

void script_new_type(lua_State *L, const char *type, const luaL_Reg *methods)
{
	luaL_newmetatable(L, type);
	lua_newtable(L);
	lua_pushstring(L, type);
	luaL_setfuncs(L, methods, 1);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_pushcfunction(L, free_box);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
}

struct box *script_new_box(lua_State *L, const char *type, void (*put)(void *held))
{
	struct box *b = lua_newuserdatauv(L, sizeof(*b), 0);

	*b = (struct box){ .put = put };
	luaL_setmetatable(L, type);
	return b;
}

void *script_unbox(lua_State *L, int arg, const char *type)
{
	return ((struct box *)luaL_checkudata(L, arg, type))->held;
}

void *script_self(lua_State *L)
{
	return script_unbox(L, 1, lua_tostring(L, lua_upvalueindex(1)));
}
