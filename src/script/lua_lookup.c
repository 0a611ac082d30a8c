/* What scripts look up: mctunnel.list() and map() from files, which all states of a configuration share (lookup.h), and mctunnel.cidr(), for which
 * networks that scripts have written down are kept as they were compiled. Owns what the objects of a state hold. Does not know how a lookup is made. */
#include "mctunnel/base/addr.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/script/lookup.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"

#include <arpa/inet.h>
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#define LIST "mctunnel.list"
#define MAP "mctunnel.map"
#define NETWORK "mctunnel.network"
#define NETS_MAX 1000    /* compiled networks that are kept */
#define NETWORK_COST 500 /* instructions, to compile one */

/* ---- lists and maps from files ---- */

static void put_lookup(void *held)
{
	lookup_put(held);
}

/* A relative path is seen from the folder of the script. */
static const char *absolute(lua_State *L, const char *path)
{
	const char *file = script_of(L)->file, *slash = strrchr(file, '/');

	if (*path == '/' || !slash)
		return lua_pushstring(L, path);
	lua_pushlstring(L, file, (size_t)(slash - file + 1));
	lua_pushstring(L, path);
	lua_concat(L, 2);
	return lua_tostring(L, -1);
}

static struct lookup *read_lookup(lua_State *L, enum lookup_kind kind, const char *path)
{
	struct script *s = script_of(L);
	char err[200];
	const char *why, *text;
	struct lookup *l;
	size_t len;
	int line = 0;

	text = script_read_file(s, path, &len, &why);
	if (!text)
		luaL_error(L, "cannot read '%s': %s", path, why);
	l = lookup_new(kind, text, len, &line, err, sizeof(err));
	if (!l)
		luaL_error(L, "%s:%d: %s", path, line, err);
	return shelf_add(s->shelf, kind, path, l);
}

/* Upvalue: the kind. */
static int make_lookup(lua_State *L)
{
	enum lookup_kind kind = (enum lookup_kind)lua_tointeger(L, lua_upvalueindex(1));
	const char *path;
	struct lookup *l;
	struct box *b;

	script_only_while_loading(L, kind == LOOKUP_LIST ? "mctunnel.list()" : "mctunnel.map()");
	path = absolute(L, luaL_checkstring(L, 1));
	l = shelf_get(script_of(L)->shelf, kind, path);
	if (!l)
		l = read_lookup(L, kind, path);
	b = script_new_box(L, kind == LOOKUP_LIST ? LIST : MAP, put_lookup);
	b->held = lookup_hold(l);
	return 1;
}

/* What is not there is in no list: a field of a client may be nil. */
static int list_has(lua_State *L)
{
	struct lookup *l = script_self(L);
	size_t len;
	const char *word = luaL_optlstring(L, 2, NULL, &len);

	lua_pushboolean(L, word && lookup_has(l, word, len));
	return 1;
}

static int map_get_value(lua_State *L)
{
	struct lookup *l = script_self(L);
	size_t len;
	const char *word = luaL_optlstring(L, 2, NULL, &len), *value = word ? lookup_get(l, word, len) : NULL;

	lua_settop(L, 3);
	if (value)
		lua_pushstring(L, value);
	return 1; /* else the default, the third argument */
}

/* Of a list or a map. */
static int count_words(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)lookup_count(script_self(L)));
	return 1;
}

/* ---- networks ---- */

static void free_network(void *held)
{
	netset_free(held);
}

/* false: a client without an address, of a Unix socket. */
static bool check_addr(lua_State *L, int arg, struct addr *out)
{
	const char *text = luaL_checkstring(L, arg);

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &out->u.in4.sin_addr) == 1) {
		out->u.in4.sin_family = AF_INET;
		out->len = sizeof(out->u.in4);
	} else if (inet_pton(AF_INET6, text, &out->u.in6.sin6_addr) == 1) {
		out->u.in6.sin6_family = AF_INET6;
		out->len = sizeof(out->u.in6);
	} else if (strncmp(text, "unix:", 5) != 0 && strcmp(text, "-") != 0) {
		luaL_argerror(L, arg, "an address is expected, without a port");
	}
	return out->len > 0;
}

/* Compiled, from the cache or new. */
static const struct netset *check_network(lua_State *L, int arg)
{
	struct script *s = script_of(L);
	char err[200];
	struct box *b;

	lua_rawgeti(L, LUA_REGISTRYINDEX, s->nets_ref);
	lua_pushvalue(L, arg);
	if (lua_rawget(L, -2) == LUA_TUSERDATA)
		return ((struct box *)lua_touserdata(L, -1))->held;
	lua_pop(L, 1);
	b = script_new_box(L, NETWORK, free_network);
	b->held = netset_new();
	if (netset_add(b->held, luaL_checkstring(L, arg), 0, err, sizeof(err)) < 0)
		luaL_argerror(L, arg, lua_pushstring(L, err));
	script_charge(L, NETWORK_COST);
	if (s->nets_n < NETS_MAX) {
		lua_pushvalue(L, arg);
		lua_pushvalue(L, -2);
		lua_rawset(L, -4);
		s->nets_n++;
	}
	return b->held;
}

static bool in_list(lua_State *L, int arg, const struct addr *a)
{
	struct lookup *l = script_unbox(L, arg, LIST);

	if (lookup_networks(l))
		luaL_error(L, "that list is not one of networks: %s", lookup_networks(l));
	return lookup_holds(l, a);
}

static int cidr(lua_State *L)
{
	struct addr a;
	bool has = check_addr(L, 1, &a), found = false;
	int n = lua_gettop(L);

	luaL_checkany(L, 2);
	for (int i = 2; i <= n; i++) { /* all of them, so that a mistake is seen at once */
		bool in = lua_type(L, i) == LUA_TSTRING ? netset_has(check_network(L, i), &a) : in_list(L, i, &a);

		found |= in;
		lua_settop(L, n);
	}
	lua_pushboolean(L, has && found);
	return 1;
}

/* ---- all of them ---- */

void script_open_lookups(lua_State *L)
{
	static const luaL_Reg list_methods[] = { { "has", list_has }, { "count", count_words }, { NULL, NULL } };
	static const luaL_Reg map_methods[] = { { "get", map_get_value }, { "count", count_words }, { NULL, NULL } };
	static const luaL_Reg network_methods[] = { { NULL, NULL } };
	struct script *s = script_of(L);

	lua_newtable(L);
	s->nets_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	s->nets_n = 0;
	script_new_type(L, LIST, list_methods);
	script_new_type(L, MAP, map_methods);
	script_new_type(L, NETWORK, network_methods);
	script_set_function(L, "list", make_lookup, LOOKUP_LIST);
	script_set_function(L, "map", make_lookup, LOOKUP_MAP);
	lua_pushcfunction(L, cidr);
	lua_setfield(L, -2, "cidr");
}
