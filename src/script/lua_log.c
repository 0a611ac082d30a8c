/* mctunnel.log() and print(): lines of scripts in the log of the process, with the function that is called and the session it is asked about.
 * Owns nothing; does not know where the log goes. */
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/tunnel/facts.h"

#include <lauxlib.h>
#include <lua.h>

#define LOG_COST 500 /* instructions, a line */

void script_say(lua_State *L, enum log_level level, const char *text)
{
	struct script *s = script_of(L);
	const struct question *q = s->question;
	struct log_rec r;

	script_charge(L, LOG_COST);
	if (s->file && s->quiet)
		return;
	log_begin(&r, level, "lua");
	log_str(&r, "text", text);
	if (s->running)
		log_str(&r, "function", s->running->name);
	if (q) {
		log_str(&r, "listener", q->facts->listener);
		log_str(&r, "id", q->id);
	}
	log_end(&r);
}

static int log_text(lua_State *L)
{
	const char *word = luaL_checkstring(L, 1), *text = luaL_tolstring(L, 2, NULL);
	int level = log_level_parse(word);

	luaL_argcheck(L, level >= 0, 1, "one of alert, error, warning, notice, info, debug is expected");
	script_say(L, (enum log_level)level, text);
	return 0;
}

static int print(lua_State *L)
{
	int n = lua_gettop(L);
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	for (int i = 1; i <= n; i++) {
		if (i > 1)
			luaL_addchar(&b, ' ');
		luaL_tolstring(L, i, NULL);
		luaL_addvalue(&b);
	}
	luaL_pushresult(&b);
	script_say(L, LOG_INFO, lua_tostring(L, -1));
	return 0;
}

void script_open_log(lua_State *L)
{
	lua_pushcfunction(L, log_text);
	lua_setfield(L, -2, "log");
	lua_register(L, "print", print);
}
