/* Files of scripts: those of the configuration, one after the other, and the modules that they require. They are opened when the configuration is checked, and run
 * whenever a state is filled; a worker opens none. Owns nothing: texts are the configuration's. Does not know what scripts do. */
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/script/lua_inside.h"

#include <lauxlib.h>
#include <lua.h>
#include <string.h>

void script_only_while_loading(lua_State *L, const char *what)
{
	if (!script_of(L)->file)
		luaL_error(L, "%s can only be called while scripts are loaded", what);
}

const char *script_read_file(struct script *s, const char *path, size_t *len, const char **why)
{
	if (s->checking || files_path(s->conf->files, path))
		return files_read(s->conf->files, path, len, why);
	*why = "it was not read when the configuration was checked";
	return NULL;
}

/* Runs a file; its values are on the stack. args: how many are there already. */
static void run_file(lua_State *L, const char *path, const char *text, size_t len, int args)
{
	struct script *s = script_of(L);
	const char *before = s->file;

	s->file = path;
	if (luaL_loadbufferx(L, text, len, lua_pushfstring(L, "@%s", path), "t") != LUA_OK)
		lua_error(L);
	lua_remove(L, -2);
	lua_insert(L, -1 - args);
	lua_call(L, args, args);
	s->file = before;
}

int script_load_all(lua_State *L)
{
	struct script *s = script_of(L);
	const struct conf_strings *load = &s->conf->global.lua.load;

	for (size_t i = 0; i < load->n; i++) {
		const char *why, *text;
		size_t len;

		s->file = load->v[i];
		text = script_read_file(s, load->v[i], &len, &why);
		if (!text)
			return luaL_error(L, "cannot read it: %s", why);
		run_file(L, load->v[i], text, len, 0);
	}
	return 0;
}

/* ---- modules ---- */

static bool is_module(const char *name)
{
	return name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")] == '\0' && *name && *name != '.' && !strstr(name, "..");
}

/* Where the module is; its path is on the stack then. NULL: an error on the stack instead. */
static const char *find_module(lua_State *L, const char *name, size_t *len)
{
	struct script *s = script_of(L);
	const struct conf_strings *folders = &s->conf->global.lua.path;
	const char *why, *text, *file = luaL_gsub(L, name, ".", "/");
	int base = lua_gettop(L);

	lua_pushfstring(L, "there is no module '%s':", name);
	for (size_t i = 0; i < folders->n; i++) {
		const char *path = lua_pushfstring(L, "%s/%s.lua", folders->v[i], file);

		text = script_read_file(s, path, len, &why);
		if (text)
			return text;
		lua_pushfstring(L, " %s: %s;", path, why);
		lua_remove(L, -2);
		lua_concat(L, 2);
	}
	lua_settop(L, base + 1);
	return NULL;
}

/* Upvalue: the modules that are there. */
static int require(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *text;
	size_t len;

	lua_settop(L, 1);
	lua_pushvalue(L, 1);
	if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
		return 1;
	script_only_while_loading(L, "require() of what is not there yet");
	luaL_argcheck(L, is_module(name), 1, "a module's name has letters, digits, '_', '-', and '.' between folders");
	text = find_module(L, name, &len);
	if (!text)
		return lua_error(L);
	lua_pushvalue(L, 1);
	lua_pushboolean(L, 1);
	lua_rawset(L, lua_upvalueindex(1)); /* for one that requires itself */
	const char *path = lua_tostring(L, -1);
	lua_pushvalue(L, 1);
	run_file(L, path, text, len, 1);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		lua_pushboolean(L, 1);
	}
	lua_pushvalue(L, 1);
	lua_pushvalue(L, -2);
	lua_rawset(L, lua_upvalueindex(1));
	return 1;
}

void script_open_modules(lua_State *L)
{
	if (script_of(L)->conf->global.lua.path.n == 0)
		return;
	lua_newtable(L);
	lua_pushcclosure(L, require, 1);
	lua_setglobal(L, "require");
}
