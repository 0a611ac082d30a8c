/* string.find, match, gmatch and gsub over a matcher of our own (match.h), because the library's can be given a pattern that takes it years. They do what the
 * library's do, and each search is paid for out of the budget. Owns nothing; what a pattern means is known to match.c. */
#define _GNU_SOURCE
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/match.h"

#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <string.h>

#define MATCH_SHARE 4 /* comparisons that cost as much as an instruction */

static void match_begin(lua_State *L, struct match *m, int subject, int pattern)
{
	size_t len, pattern_len;
	const char *s = luaL_checklstring(L, subject, &len), *p = luaL_checklstring(L, pattern, &pattern_len);

	memset(m, 0, sizeof(*m));
	m->subject = s;
	m->subject_end = s + len;
	m->pattern = p;
	m->pattern_end = p + pattern_len;
}

/* One search, paid for. */
static const char *match_next(lua_State *L, struct match *m, const char *from, bool anchored, const char **end)
{
	long left = script_of(L)->budget.left, may = left < 0 ? 0 : left > LONG_MAX / MATCH_SHARE ? LONG_MAX : left * MATCH_SHARE;
	const char *at;

	m->left = may;
	at = match_find(m, from, anchored, end);
	script_charge(L, m->left < 0 ? LUA_MAXINTEGER : (may - m->left) / MATCH_SHARE + 1);
	if (m->error)
		luaL_error(L, "%s", m->error);
	return at;
}

static void push_capture(lua_State *L, const struct match *m, int i)
{
	if (m->capture[i].len == MATCH_OPEN)
		luaL_error(L, "unfinished capture");
	if (m->capture[i].len == MATCH_POSITION)
		lua_pushinteger(L, m->capture[i].at - m->subject + 1);
	else
		lua_pushlstring(L, m->capture[i].at, (size_t)m->capture[i].len);
}

/* All captures, or the whole match where there are none. */
static int push_captures(lua_State *L, const struct match *m, const char *at, const char *end)
{
	if (m->captures == 0 && at) {
		lua_pushlstring(L, at, (size_t)(end - at));
		return 1;
	}
	luaL_checkstack(L, m->captures, "too many captures");
	for (int i = 0; i < m->captures; i++)
		push_capture(L, m, i);
	return m->captures;
}

/* Where a search begins, counted from the end when it is negative; NULL: behind the end. */
static const char *start_of(lua_State *L, const struct match *m, int arg)
{
	lua_Integer at = luaL_optinteger(L, arg, 1), len = m->subject_end - m->subject;

	if (at < 0)
		at = at < -len ? 1 : len + at + 1;
	else if (at == 0)
		at = 1;
	return at > len + 1 ? NULL : m->subject + at - 1;
}

static bool take_anchor(struct match *m)
{
	bool anchored = m->pattern < m->pattern_end && *m->pattern == '^';

	m->pattern += anchored;
	return anchored;
}

static bool is_plain(const struct match *m)
{
	for (const char *p = m->pattern; p < m->pattern_end; p++) {
		if (*p && strchr("^$*+?.([%-", *p))
			return false;
	}
	return true;
}

static int find_plain(lua_State *L, const struct match *m, const char *from)
{
	size_t len = (size_t)(m->pattern_end - m->pattern);
	const char *at;

	script_charge(L, (m->subject_end - from) / 32);
	at = memmem(from, (size_t)(m->subject_end - from), m->pattern, len);
	if (!at) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushinteger(L, at - m->subject + 1);
	lua_pushinteger(L, at - m->subject + (lua_Integer)len);
	return 2;
}

static int string_search(lua_State *L, bool find)
{
	struct match m;
	const char *from, *at, *end;
	bool anchored;

	match_begin(L, &m, 1, 2);
	from = start_of(L, &m, 3);
	if (from && find && (lua_toboolean(L, 4) || is_plain(&m)))
		return find_plain(L, &m, from);
	anchored = take_anchor(&m);
	at = from ? match_next(L, &m, from, anchored, &end) : NULL;
	if (!at) {
		lua_pushnil(L);
		return 1;
	}
	if (!find)
		return push_captures(L, &m, at, end);
	lua_pushinteger(L, at - m.subject + 1);
	lua_pushinteger(L, end - m.subject);
	return 2 + push_captures(L, &m, NULL, NULL);
}

static int string_find(lua_State *L)
{
	return string_search(L, true);
}

static int string_match(lua_State *L)
{
	return string_search(L, false);
}

/* Upvalues: subject, pattern, where to go on (from 0), where the last match has ended (-1: none). */
static int gmatch_step(lua_State *L)
{
	struct match m;
	const char *at, *end;
	lua_Integer from = lua_tointeger(L, lua_upvalueindex(3)), last = lua_tointeger(L, lua_upvalueindex(4));

	match_begin(L, &m, lua_upvalueindex(1), lua_upvalueindex(2));
	for (const char *s = m.subject + from; s <= m.subject_end; s = at + 1) {
		at = match_next(L, &m, s, false, &end);
		if (!at)
			break;
		if (end - m.subject == last) /* empty, right behind the last */
			continue;
		lua_pushinteger(L, end - m.subject);
		lua_copy(L, -1, lua_upvalueindex(3));
		lua_replace(L, lua_upvalueindex(4));
		return push_captures(L, &m, at, end);
	}
	return 0;
}

static int string_gmatch(lua_State *L)
{
	struct match m;
	const char *from;

	match_begin(L, &m, 1, 2);
	from = start_of(L, &m, 3);
	lua_settop(L, 2);
	lua_pushinteger(L, from ? from - m.subject : m.subject_end - m.subject + 1);
	lua_pushinteger(L, -1);
	lua_pushcclosure(L, gmatch_step, 4);
	return 1;
}

/* ---- what replaces a match ---- */

/* "%1", "%0", "%%" in the text that replaces. */
static void add_text(lua_State *L, luaL_Buffer *b, const struct match *m, const char *at, const char *end)
{
	size_t len;
	const char *r = lua_tolstring(L, 3, &len);

	for (const char *stop = r + len; r < stop; r++) {
		int i = r[0] == '%' && r + 1 < stop ? r[1] - '1' : 0;

		if (*r != '%') {
			luaL_addchar(b, *r);
			continue;
		}
		r++;
		if (r < stop && *r == '%') {
			luaL_addchar(b, '%');
		} else if (r < stop && (*r == '0' || (*r == '1' && m->captures == 0))) {
			luaL_addlstring(b, at, (size_t)(end - at));
		} else if (r == stop || i < 0 || i > 8) {
			luaL_error(L, "invalid use of '%%' in replacement string");
		} else if (i >= m->captures) {
			luaL_error(L, "invalid capture index %%%d in replacement string", i + 1);
		} else {
			push_capture(L, m, i);
			luaL_tolstring(L, -1, NULL);
			lua_remove(L, -2);
			luaL_addvalue(b);
		}
	}
}

/* What a function or a table says about a match; false and nil leave it as it was. */
static void add_asked(lua_State *L, luaL_Buffer *b, const struct match *m, const char *at, const char *end)
{
	if (lua_type(L, 3) == LUA_TFUNCTION) {
		lua_pushvalue(L, 3);
		lua_call(L, push_captures(L, m, at, end), 1);
	} else {
		if (m->captures)
			push_capture(L, m, 0);
		else
			lua_pushlstring(L, at, (size_t)(end - at));
		lua_gettable(L, 3);
	}
	if (!lua_toboolean(L, -1)) {
		lua_pop(L, 1);
		luaL_addlstring(b, at, (size_t)(end - at));
		return;
	}
	if (!lua_isstring(L, -1))
		luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
	luaL_addvalue(b);
}

static int string_gsub(lua_State *L)
{
	int type = lua_type(L, 3);
	bool text = type == LUA_TNUMBER || type == LUA_TSTRING;
	struct match m;
	const char *s, *at, *end, *last = NULL;
	lua_Integer most, n = 0;
	luaL_Buffer b;

	match_begin(L, &m, 1, 2);
	luaL_argexpected(L, text || type == LUA_TFUNCTION || type == LUA_TTABLE, 3, "string/function/table");
	most = luaL_optinteger(L, 4, m.subject_end - m.subject + 1);
	s = m.subject;
	luaL_buffinit(L, &b);
	for (bool anchored = take_anchor(&m), over = false; n < most && !over; over = anchored) {
		at = match_next(L, &m, s, anchored, &end);
		if (!at)
			break;
		luaL_addlstring(&b, s, (size_t)(at - s));
		s = at;
		if (end != last) {
			n++;
			(text ? add_text : add_asked)(L, &b, &m, at, end);
			s = last = end;
		} else if (s < m.subject_end) { /* empty, right behind the last */
			luaL_addchar(&b, *s++);
		} else {
			break;
		}
	}
	luaL_addlstring(&b, s, (size_t)(m.subject_end - s));
	luaL_pushresult(&b);
	lua_pushinteger(L, n);
	return 2;
}

void script_open_patterns(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "find", string_find }, { "match", string_match }, { "gmatch", string_gmatch }, { "gsub", string_gsub }, { NULL, NULL },
	};

	luaL_setfuncs(L, functions, 0);
}
