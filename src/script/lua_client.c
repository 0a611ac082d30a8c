/* The client that a policy is asked about, as its script has it: fields are looked up when they are asked for, in facts that are borrowed for the call.
 * Owns one object, which serves all calls: kept beyond its call it has nothing to tell. Does not know who asks. */
#include "mctunnel/base/addr.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"
#include "mctunnel/tunnel/facts.h"

#include <lauxlib.h>
#include <lua.h>

#define CLIENT "mctunnel.client"

enum field { FIELD_LISTENER, FIELD_SRC, FIELD_SRC_PORT, FIELD_DST, FIELD_DST_PORT, FIELD_SNI, FIELD_ALPN, FIELD_TLS, FIELD_CERT, FIELD_METHOD, FIELD_HOST,
	FIELD_PATH, FIELD_QUERY, FIELD_ROUTE, FIELD_ID, FIELDS };
static const char *const field_names[FIELDS] = { "listener", "src", "src_port", "dst", "dst_port", "sni", "alpn", "tls", "cert", "method", "host",
	"path", "query", "route", "id" };

static const struct question *asked(lua_State *L)
{
	const struct question *q = script_of(L)->question;

	if (!q)
		luaL_error(L, "the client is only there while a policy is asked about it");
	return q;
}

static void push_field(lua_State *L, const struct question *q, enum field field)
{
	const struct facts *f = q->facts;
	char text[ADDR_TEXT];

	switch (field) {
	case FIELD_LISTENER: lua_pushstring(L, f->listener); break;
	case FIELD_SRC: lua_pushstring(L, addr_host_text(&f->src, text, sizeof(text))); break;
	case FIELD_SRC_PORT: lua_pushinteger(L, addr_port(&f->src)); break;
	case FIELD_DST: lua_pushstring(L, addr_host_text(&f->dst, text, sizeof(text))); break;
	case FIELD_DST_PORT: lua_pushinteger(L, f->dst_port); break;
	case FIELD_SNI: lua_pushstring(L, f->sni); break;
	case FIELD_ALPN: script_push_words(L, f->alpn, f->alpn_n); break;
	case FIELD_TLS: lua_pushboolean(L, f->tls); break;
	case FIELD_CERT: lua_pushstring(L, f->cert); break;
	case FIELD_METHOD: lua_pushstring(L, f->method); break;
	case FIELD_HOST: lua_pushstring(L, f->host); break;
	case FIELD_PATH: lua_pushstring(L, f->path); break;
	case FIELD_QUERY: lua_pushstring(L, f->query); break;
	case FIELD_ROUTE: lua_pushstring(L, q->route); break;
	default: lua_pushstring(L, q->id); break;
	}
}

static int no_field(lua_State *L)
{
	struct suggest s = { .word = luaL_tolstring(L, 2, NULL) };

	for (int i = 0; i < FIELDS; i++)
		suggest_try(&s, field_names[i]);
	suggest_try(&s, "header");
	suggest_try(&s, "limit_rate");
	return luaL_error(L, "a client has no field '%s'%s", s.word, suggest_text(&s));
}

/* Upvalue: what each name stands for, a number or a function. */
static int client_index(lua_State *L)
{
	const struct question *q = asked(L);

	lua_settop(L, 2);
	lua_pushvalue(L, 2);
	switch (lua_rawget(L, lua_upvalueindex(1))) {
	case LUA_TNUMBER: push_field(L, q, (enum field)lua_tointeger(L, -1)); return 1;
	case LUA_TFUNCTION: return 1;
	}
	return no_field(L);
}

/* c.header(name [, i]) as well as c:header(name [, i]). */
static int client_header(lua_State *L)
{
	const struct facts *f = asked(L)->facts;
	int at = luaL_testudata(L, 1, CLIENT) ? 2 : 1;
	const char *name = luaL_checkstring(L, at);
	lua_Integer i = luaL_optinteger(L, at + 1, 1);

	luaL_argcheck(L, i >= 1 && i < 10000, at + 1, "they are counted from 1");
	lua_pushstring(L, f->header ? f->header(f->header_arg, name, (size_t)i - 1) : NULL);
	return 1;
}

static int client_limit_rate(lua_State *L)
{
	struct policy_answer *a = asked(L)->answer;
	uint64_t up, down;

	luaL_checkudata(L, 1, CLIENT);
	up = script_check_number(L, 2, KIND_SIZE, UINT64_C(1) << 50);
	down = lua_isnoneornil(L, 3) ? up : script_check_number(L, 3, KIND_SIZE, UINT64_C(1) << 50);
	a->rate_up = up;
	a->rate_down = down;
	return 0;
}

static int client_log(lua_State *L)
{
	asked(L);
	luaL_checkudata(L, 1, CLIENT);
	script_say(L, LOG_INFO, luaL_tolstring(L, 2, NULL));
	return 0;
}

void script_open_client(lua_State *L)
{
	struct script *s = script_of(L);
	static const luaL_Reg methods[] = { { "header", client_header }, { "limit_rate", client_limit_rate }, { "log", client_log }, { NULL, NULL } };

	lua_newuserdatauv(L, 0, 0);
	luaL_newmetatable(L, CLIENT);
	lua_newtable(L);
	for (int i = 0; i < FIELDS; i++)
		script_set_int(L, field_names[i], i);
	luaL_setfuncs(L, methods, 0);
	lua_pushcclosure(L, client_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_setmetatable(L, -2);
	s->client_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}
