/* Lua: the only file that knows the library. It owns the states, their memory and budgets, the sandbox, and the functions scripts are given.
 *
 * The rules it is built on: nothing throws outside run(); whatever a script can make the library do is counted (instructions by a hook, bytes by the
 * allocator, the lengths that the library's own loops work off before they begin, patterns by a matcher of our own); and once a call has used up what it may, every
 * further step of it fails too, so that no pcall() can go on. It knows nothing of listeners, threads or files beyond what it is handed. */
#define _GNU_SOURCE
#include "mctunnel/script/lua.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/log.h"
#include "mctunnel/base/map.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/netset.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/finding.h"
#include "mctunnel/conf/value.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/script/budget.h"
#include "mctunnel/script/counter.h"
#include "mctunnel/script/lookup.h"
#include "mctunnel/script/match.h"
#include "mctunnel/script/metric.h"
#include "mctunnel/script/tally.h"
#include "mctunnel/tunnel/facts.h"

#include <arpa/inet.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEP 250             /* instructions between two looks at the budget */
#ifndef LOAD_MS              /* a fuzzer has less patience */
#define LOAD_MS 200          /* budget of loading */
#endif
#define COROUTINE_COST 1000  /* each has a count of its own until the first look */
#define LOG_COST 500
#define HOOKS_MAX 256
#define NETS_MAX 1000        /* compiled networks that are kept */
#define RENEW_MS 1000        /* between two states of which the first was full */

const char *const script_kinds[] = { "policy", "on_agent", "on_session_end" };

struct hook { /* a registered function */
	enum script_kind kind;
	char name[96];
	char *file; /* owned; where the function is */
	int line;
	int ref;    /* in the registry */
	struct tally tally;
};

struct question { /* a call under way */
	struct hook *hook;
	const struct facts *facts;
	const char *route, *id;
	struct policy_answer *answer;
};

struct script {
	struct conf *conf; /* shared */
	lua_State *L;      /* owned; NULL: it could not be made anew */
	struct shelf *shelf;
	struct policy_ops ops;
	bool checking, quiet; /* quiet: says nothing while it loads */
	struct map *policies; /* hooks by name */
	struct hook **hooks;  /* owned */
	size_t hooks_n;
	int client, nets, spent_text; /* references */
	size_t nets_n;

	const char *file; /* the script that is being loaded; NULL: all are */
	struct question *question; /* NULL: none is asked */
	const struct hook *running; /* NULL: none */

	struct budget budget;
	struct script_fault fault;

	uint64_t renewed_ms, renewals;
	struct fault_log log;
};

static _Thread_local struct script *own;

static struct script *of(lua_State *L)
{
	return *(struct script **)lua_getextraspace(L);
}

/* ---- where something went wrong ---- */

static const char *source_name(const lua_Debug *ar)
{
	return ar->source[0] == '@' ? ar->source + 1 : ar->short_src;
}

static const char *file_name(const char *path)
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
		fault_place(&s->fault, source_name(&ar), ar.currentline);
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
		strbuf_add(&b, "%s%.60s:%d", n++ ? " < " : "", file_name(source_name(&ar)), ar.currentline);
		if (ar.name)
			strbuf_add(&b, " (%.40s)", ar.name);
	}
}

static void note_text(struct script *s, lua_State *L, const char *text)
{
	lua_Debug ar;

	if (find_place(L, &ar)) {
		fault_place(&s->fault, source_name(&ar), ar.currentline);
		fault_said(&s->fault, ar.short_src, text);
	} else if (s->file) {
		fault_syntax(&s->fault, s->file, text);
	} else {
		fault_text(&s->fault, text);
	}
}

/* The message handler of run(): while the stack still stands. */
static int on_fault(lua_State *L)
{
	struct script *s = of(L);
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

static int raise_spent(lua_State *L)
{
	struct script *s = of(L);

	if (!s->fault.line)
		note_place(s, L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, s->spent_text);
	return lua_error(L);
}

static void on_count(lua_State *L, lua_Debug *ar)
{
	if (budget_step(&of(L)->budget, STEP))
		return;
	lua_sethook(L, on_count, LUA_MASKCOUNT, 1); /* nothing more on this stack */
	raise_spent(L);
}

/* Before work that the hook does not see. */
static void charge(lua_State *L, lua_Integer n)
{
	if (!budget_take(&of(L)->budget, n))
		raise_spent(L);
}

static int on_panic(lua_State *L)
{
	bug_panic(__FILE__, __LINE__, "Lua: %s", lua_tostring(L, -1));
}

static const char *status_words(int status)
{
	return status == LUA_ERRMEM ? budget_no_memory : status == LUA_ERRERR ? "an error while an error was dealt with" : "it failed";
}

/* Calls body with a light pointer to arg. false: fault tells what went wrong, and that is all that came of it. */
static bool run(struct script *s, lua_CFunction body, void *arg, uint64_t ms)
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

/* ---- the sandbox: functions that are safe with a wrapper ---- */

/* What catches errors must not catch that all is used up. */
static int guarded_end(lua_State *L, int status, lua_KContext context)
{
	return of(L)->budget.spent ? raise_spent(L) : lua_gettop(L);
}

/* Upvalues: the function, what it costs. */
static int guarded(lua_State *L)
{
	charge(L, lua_tointeger(L, lua_upvalueindex(2)));
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, guarded_end);
	return guarded_end(L, LUA_OK, 0);
}

/* After an error of on_count() hooks are off until the stack is unwound: nothing of a script may run there. Upvalue: the script's handler. */
static int handler(lua_State *L)
{
	if (of(L)->budget.spent)
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

	charge(L, 1);
	if (!lua_checkstack(co, args))
		return luaL_error(L, "too many arguments to resume");
	lua_xmove(L, co, args);
	status = lua_resume(co, L, args, &n);
	if (of(L)->budget.spent)
		return raise_spent(L);
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
	charge(L, COROUTINE_COST);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_State *co = lua_newthread(L);
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 1);
	lua_pushcclosure(L, wrapped, 1);
	return 1;
}

/* How the library's own loops go: over a table, over a range of arguments, ... */
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
	charge(L, span_of(L, (enum span)lua_tointeger(L, lua_upvalueindex(2))));
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

static void wrap(lua_State *L, const char *name, lua_CFunction with, lua_Integer upvalue)
{
	lua_getfield(L, -1, name);
	lua_pushinteger(L, upvalue);
	lua_pushcclosure(L, with, 2);
	lua_setfield(L, -2, name);
}

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
	lua_pushnumber(L, (lua_Number)of(L)->budget.memory / 1024);
	return 1;
}

/* ---- patterns ---- */

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
	long left = of(L)->budget.left, may = left < 0 ? 0 : left > LONG_MAX / MATCH_SHARE ? LONG_MAX : left * MATCH_SHARE;
	const char *at;

	m->left = may;
	at = match_find(m, from, anchored, end);
	charge(L, m->left < 0 ? LUA_MAXINTEGER : (may - m->left) / MATCH_SHARE + 1);
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

	charge(L, (m->subject_end - from) / 32);
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

/* ---- the sandbox ---- */

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

static void open_string(lua_State *L)
{
	static const luaL_Reg patterns[] = {
		{ "find", string_find }, { "match", string_match }, { "gmatch", string_gmatch }, { "gsub", string_gsub }, { NULL, NULL },
	};

	luaL_requiref(L, "string", luaopen_string, 1);
	keep_only(L, string_names);
	luaL_setfuncs(L, patterns, 0);
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

/* ---- files; only while scripts are loaded ---- */

static void only_while_loading(lua_State *L, const char *what)
{
	if (!of(L)->file)
		luaL_error(L, "%s can only be called while scripts are loaded", what);
}

static const char *read_file(struct script *s, const char *path, size_t *len, const char **why)
{
	if (s->checking || files_path(s->conf->files, path))
		return files_read(s->conf->files, path, len, why);
	*why = "it was not read when the configuration was checked";
	return NULL;
}

/* Runs a file; its values are on the stack. args: how many are there already. */
static void run_file(lua_State *L, const char *path, const char *text, size_t len, int args)
{
	struct script *s = of(L);
	const char *before = s->file;

	s->file = path;
	if (luaL_loadbufferx(L, text, len, lua_pushfstring(L, "@%s", path), "t") != LUA_OK)
		lua_error(L);
	lua_remove(L, -2);
	lua_insert(L, -1 - args);
	lua_call(L, args, args);
	s->file = before;
}

static int load_scripts(lua_State *L)
{
	struct script *s = of(L);
	const struct conf_strings *load = &s->conf->global.lua.load;

	for (size_t i = 0; i < load->n; i++) {
		const char *why, *text;
		size_t len;

		s->file = load->v[i];
		text = read_file(s, load->v[i], &len, &why);
		if (!text)
			return luaL_error(L, "cannot read it: %s", why);
		run_file(L, load->v[i], text, len, 0);
	}
	return 0;
}

static bool is_module(const char *name)
{
	return name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")] == '\0' && *name && *name != '.' && !strstr(name, "..");
}

/* Where the module is; its path is on the stack then. NULL: an error on the stack instead. */
static const char *find_module(lua_State *L, const char *name, size_t *len)
{
	struct script *s = of(L);
	const struct conf_strings *folders = &s->conf->global.lua.path;
	const char *why, *text, *file = luaL_gsub(L, name, ".", "/");
	int base = lua_gettop(L);

	lua_pushfstring(L, "there is no module '%s':", name);
	for (size_t i = 0; i < folders->n; i++) {
		const char *path = lua_pushfstring(L, "%s/%s.lua", folders->v[i], file);

		text = read_file(s, path, len, &why);
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
	only_while_loading(L, "require() of what is not there yet");
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

static void open_require(lua_State *L)
{
	if (of(L)->conf->global.lua.path.n == 0)
		return;
	lua_newtable(L);
	lua_pushcclosure(L, require, 1);
	lua_setglobal(L, "require");
}

/* ---- arguments ---- */

static uint64_t check_number(lua_State *L, int arg, enum kind kind, uint64_t max)
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

#define TIME_MAX (UINT64_C(366) * 24 * 3600 * 1000)

static const char *check_key(lua_State *L, int arg, size_t *len)
{
	const char *key = luaL_checklstring(L, arg, len);

	luaL_argcheck(L, *len <= COUNTER_KEY_MAX, arg, "a key has at most 255 bytes");
	return key;
}

/* ---- objects that hold something of ours ---- */

struct box {
	void *held;
};

static void *unbox(lua_State *L, int arg, const char *type)
{
	return ((struct box *)luaL_checkudata(L, arg, type))->held;
}

/* An empty one, on top of the stack; it is filled when nothing can fail any more. */
static struct box *new_box(lua_State *L, const char *type)
{
	struct box *b = lua_newuserdatauv(L, sizeof(*b), 0);

	b->held = NULL;
	luaL_setmetatable(L, type);
	return b;
}

static void new_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction free_it)
{
	luaL_newmetatable(L, type);
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	if (free_it) {
		lua_pushcfunction(L, free_it);
		lua_setfield(L, -2, "__gc");
	}
	lua_settop(L, 0);
}

/* ---- counters ---- */

#define COUNTER "mctunnel.counter"

static int counter_free_box(lua_State *L)
{
	struct box *b = lua_touserdata(L, 1);

	if (b->held)
		counter_put(b->held);
	b->held = NULL;
	return 0;
}

static int make_counter(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	uint64_t size = 100000, expire = 0;
	struct box *b;

	only_while_loading(L, "mctunnel.counter()");
	luaL_argcheck(L, *name && strlen(name) < 64, 1, "a name has 1 to 63 bytes");
	if (!lua_isnoneornil(L, 2)) {
		luaL_checktype(L, 2, LUA_TTABLE);
		if (lua_getfield(L, 2, "size") != LUA_TNIL)
			size = check_number(L, -1, KIND_INT, COUNTER_SIZE_MAX);
		if (lua_getfield(L, 2, "expire") != LUA_TNIL)
			expire = check_number(L, -1, KIND_TIME, TIME_MAX);
	}
	b = new_box(L, COUNTER);
	b->held = counter_get(name, (uint32_t)size, expire);
	return 1;
}

static int counter_incr(lua_State *L)
{
	struct counter *c = unbox(L, 1, COUNTER);
	size_t len;
	const char *key = check_key(L, 2, &len);

	lua_pushinteger(L, counter_add(c, key, len, luaL_optinteger(L, 3, 1)));
	return 1;
}

static int counter_get_value(lua_State *L)
{
	struct counter *c = unbox(L, 1, COUNTER);
	size_t len;
	const char *key = check_key(L, 2, &len);

	lua_pushinteger(L, counter_value(c, key, len));
	return 1;
}

static int counter_get_rate(lua_State *L)
{
	struct counter *c = unbox(L, 1, COUNTER);
	size_t len;
	const char *key = check_key(L, 2, &len);
	double rate;

	if (!counter_rate(c, key, len, check_number(L, 3, KIND_TIME, TIME_MAX), &rate))
		return luaL_error(L, "rates of a counter can be asked for over %d periods", COUNTER_PERIODS);
	lua_pushnumber(L, rate);
	return 1;
}

static const luaL_Reg counter_methods[] = {
	{ "incr", counter_incr }, { "get", counter_get_value }, { "rate", counter_get_rate }, { NULL, NULL },
};

/* ---- metrics ---- */

#define METRIC "mctunnel.metric"

static size_t read_labels(lua_State *L, int arg, const char *labels[METRIC_LABELS])
{
	size_t n = 0;

	if (lua_isnoneornil(L, arg))
		return 0;
	luaL_checktype(L, arg, LUA_TTABLE);
	luaL_argcheck(L, lua_rawlen(L, arg) <= METRIC_LABELS, arg, "a metric has at most 8 labels");
	for (; n < lua_rawlen(L, arg); n++) {
		luaL_argcheck(L, lua_rawgeti(L, arg, (lua_Integer)n + 1) == LUA_TSTRING, arg, "it is a list of names");
		labels[n] = lua_tostring(L, -1); /* stays on the stack, and in the table */
	}
	return n;
}

static int make_metric(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *help = luaL_optstring(L, 2, ""), *labels[METRIC_LABELS];
	size_t n = read_labels(L, 3, labels);
	char err[200];
	struct box *b;

	only_while_loading(L, "mctunnel.metric()");
	b = new_box(L, METRIC);
	b->held = metric_get(name, help, n, labels, err, sizeof(err));
	if (!b->held)
		return luaL_error(L, "%s", err);
	return 1;
}

static int metric_inc(lua_State *L)
{
	struct metric *m = unbox(L, 1, METRIC);
	size_t n = metric_labels(m);
	bool amount = (size_t)lua_gettop(L) == n + 2;
	lua_Integer by = amount ? luaL_checkinteger(L, 2) : 1;
	const char *values[METRIC_LABELS];

	if (!amount && (size_t)lua_gettop(L) != n + 1)
		return luaL_error(L, "this metric has %d labels: m:inc([n,] with a value for each)", (int)n);
	luaL_argcheck(L, by >= 0, 2, "a counter never goes down");
	for (size_t i = 0; i < n; i++)
		values[i] = luaL_tolstring(L, (int)i + (amount ? 3 : 2), NULL);
	metric_add(m, values, (uint64_t)by);
	return 0;
}

static const luaL_Reg metric_methods[] = { { "inc", metric_inc }, { NULL, NULL } };

/* ---- lists and maps from files ---- */

#define LIST "mctunnel.list"
#define MAP "mctunnel.map"

static int lookup_free_box(lua_State *L)
{
	struct box *b = lua_touserdata(L, 1);

	lookup_put(b->held);
	b->held = NULL;
	return 0;
}

/* A relative path is seen from the folder of the script. */
static const char *absolute(lua_State *L, const char *path)
{
	const char *file = of(L)->file, *slash = strrchr(file, '/');

	if (*path == '/' || !slash)
		return lua_pushstring(L, path);
	lua_pushlstring(L, file, (size_t)(slash - file + 1));
	lua_pushstring(L, path);
	lua_concat(L, 2);
	return lua_tostring(L, -1);
}

static struct lookup *read_lookup(lua_State *L, enum lookup_kind kind, const char *path)
{
	struct script *s = of(L);
	char err[200];
	const char *why, *text;
	struct lookup *l;
	size_t len;
	int line = 0;

	text = read_file(s, path, &len, &why);
	if (!text)
		luaL_error(L, "cannot read '%s': %s", path, why);
	l = lookup_new(kind, text, len, &line, err, sizeof(err));
	if (!l)
		luaL_error(L, "%s:%d: %s", path, line, err);
	return shelf_add(s->shelf, kind, path, l);
}

static int make_lookup(lua_State *L, enum lookup_kind kind)
{
	const char *path;
	struct lookup *l;
	struct box *b;

	only_while_loading(L, kind == LOOKUP_LIST ? "mctunnel.list()" : "mctunnel.map()");
	path = absolute(L, luaL_checkstring(L, 1));
	l = shelf_get(of(L)->shelf, kind, path);
	if (!l)
		l = read_lookup(L, kind, path);
	b = new_box(L, kind == LOOKUP_LIST ? LIST : MAP);
	b->held = lookup_hold(l);
	return 1;
}

static int make_list(lua_State *L)
{
	return make_lookup(L, LOOKUP_LIST);
}

static int make_map(lua_State *L)
{
	return make_lookup(L, LOOKUP_MAP);
}

/* What is not there is in no list: a field of a client may be nil. */
static int list_has(lua_State *L)
{
	struct lookup *l = unbox(L, 1, LIST);
	size_t len;
	const char *word = luaL_optlstring(L, 2, NULL, &len);

	lua_pushboolean(L, word && lookup_has(l, word, len));
	return 1;
}

static int list_count(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)lookup_count(unbox(L, 1, LIST)));
	return 1;
}

static int map_get_value(lua_State *L)
{
	struct lookup *l = unbox(L, 1, MAP);
	size_t len;
	const char *word = luaL_optlstring(L, 2, NULL, &len), *value = word ? lookup_get(l, word, len) : NULL;

	lua_settop(L, 3);
	if (value)
		lua_pushstring(L, value);
	return 1; /* else the default, the third argument */
}

static int map_count_words(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)lookup_count(unbox(L, 1, MAP)));
	return 1;
}

static const luaL_Reg list_methods[] = { { "has", list_has }, { "count", list_count }, { NULL, NULL } };
static const luaL_Reg map_methods[] = { { "get", map_get_value }, { "count", map_count_words }, { NULL, NULL } };

/* ---- networks ---- */

#define NETWORK "mctunnel.network"

static int network_free_box(lua_State *L)
{
	struct box *b = lua_touserdata(L, 1);

	netset_free(b->held);
	b->held = NULL;
	return 0;
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
	struct script *s = of(L);
	char err[200];
	struct box *b;

	lua_rawgeti(L, LUA_REGISTRYINDEX, s->nets);
	lua_pushvalue(L, arg);
	if (lua_rawget(L, -2) == LUA_TUSERDATA)
		return ((struct box *)lua_touserdata(L, -1))->held;
	lua_pop(L, 1);
	b = new_box(L, NETWORK);
	b->held = netset_new();
	if (netset_add(b->held, luaL_checkstring(L, arg), 0, err, sizeof(err)) < 0)
		luaL_argerror(L, arg, lua_pushstring(L, err));
	charge(L, LOG_COST);
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
	struct lookup *l = unbox(L, arg, LIST);

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

/* ---- time ---- */

static int epoch_time(lua_State *L)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	lua_pushnumber(L, (lua_Number)ts.tv_sec + (lua_Number)(ts.tv_nsec / 1000) / 1e6);
	return 1;
}

static int monotonic(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)(budget_now_ns() / 1000) / 1e6);
	return 1;
}

static void set_int(lua_State *L, const char *key, lua_Integer value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, key);
}

static void set_str(lua_State *L, const char *key, const char *value)
{
	lua_pushstring(L, value); /* NULL: nil */
	lua_setfield(L, -2, key);
}

static int date(lua_State *L)
{
	static const char *const days[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" };
	lua_Number when = luaL_optnumber(L, 1, (lua_Number)time(NULL));
	time_t t;
	struct tm tm;

	luaL_argcheck(L, when > -1e11 && when < 1e11, 1, "a time in seconds is expected");
	t = (time_t)when;
	if (!(lua_toboolean(L, 2) ? gmtime_r : localtime_r)(&t, &tm))
		return luaL_error(L, "that time has no date");
	lua_createtable(L, 0, 10);
	set_int(L, "year", tm.tm_year + 1900);
	set_int(L, "month", tm.tm_mon + 1);
	set_int(L, "day", tm.tm_mday);
	set_int(L, "hour", tm.tm_hour);
	set_int(L, "min", tm.tm_min);
	set_int(L, "sec", tm.tm_sec);
	set_int(L, "wday", tm.tm_wday + 1);
	set_int(L, "yday", tm.tm_yday + 1);
	set_str(L, "weekday", days[tm.tm_wday]);
	lua_pushboolean(L, tm.tm_isdst > 0);
	lua_setfield(L, -2, "isdst");
	return 1;
}

/* ---- log ---- */

static void say(struct script *s, enum log_level level, const char *text)
{
	const struct question *q = s->question;
	struct log_rec r;

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
	charge(L, LOG_COST);
	say(of(L), (enum log_level)level, text);
	return 0;
}

static int print(lua_State *L)
{
	int n = lua_gettop(L);
	luaL_Buffer b;

	charge(L, LOG_COST);
	luaL_buffinit(L, &b);
	for (int i = 1; i <= n; i++) {
		if (i > 1)
			luaL_addchar(&b, ' ');
		luaL_tolstring(L, i, NULL);
		luaL_addvalue(&b);
	}
	luaL_pushresult(&b);
	say(of(L), LOG_INFO, lua_tostring(L, -1));
	return 0;
}

/* ---- the client that is asked about ---- */

#define CLIENT "mctunnel.client"

enum field { FIELD_LISTENER, FIELD_SRC, FIELD_SRC_PORT, FIELD_DST, FIELD_DST_PORT, FIELD_SNI, FIELD_ALPN, FIELD_TLS, FIELD_CERT, FIELD_METHOD, FIELD_HOST,
	FIELD_PATH, FIELD_QUERY, FIELD_ROUTE, FIELD_ID, FIELDS };
static const char *const field_names[FIELDS] = { "listener", "src", "src_port", "dst", "dst_port", "sni", "alpn", "tls", "cert", "method", "host",
	"path", "query", "route", "id" };

static const struct question *asked(lua_State *L)
{
	const struct question *q = of(L)->question;

	if (!q)
		luaL_error(L, "the client is only there while a policy is asked about it");
	return q;
}

static void push_alpn(lua_State *L, const struct facts *f)
{
	lua_createtable(L, (int)f->alpn_n, 0);
	for (size_t i = 0; i < f->alpn_n; i++) {
		lua_pushstring(L, f->alpn[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
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
	case FIELD_ALPN: push_alpn(L, f); break;
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
	struct policy_answer *a = (asked(L), of(L)->question->answer);
	uint64_t up, down;

	luaL_checkudata(L, 1, CLIENT);
	up = check_number(L, 2, KIND_SIZE, UINT64_C(1) << 50);
	down = lua_isnoneornil(L, 3) ? up : check_number(L, 3, KIND_SIZE, UINT64_C(1) << 50);
	a->rate_up = up;
	a->rate_down = down;
	return 0;
}

static int client_log(lua_State *L)
{
	asked(L);
	luaL_checkudata(L, 1, CLIENT);
	charge(L, LOG_COST);
	say(of(L), LOG_INFO, luaL_tolstring(L, 2, NULL));
	return 0;
}

static void open_client(lua_State *L)
{
	struct script *s = of(L);
	static const luaL_Reg methods[] = { { "header", client_header }, { "limit_rate", client_limit_rate }, { "log", client_log }, { NULL, NULL } };

	lua_newuserdatauv(L, 0, 0);
	luaL_newmetatable(L, CLIENT);
	lua_newtable(L);
	for (int i = 0; i < FIELDS; i++)
		set_int(L, field_names[i], i);
	luaL_setfuncs(L, methods, 0);
	lua_pushcclosure(L, client_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_setmetatable(L, -2);
	s->client = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* ---- registering ---- */

static void add_hook(lua_State *L, enum script_kind kind, const char *name, int arg)
{
	struct script *s = of(L);
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
	h->file = xstrdup(source_name(&ar));
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

	only_while_loading(L, "mctunnel.policy()");
	luaL_argcheck(L, *name && strlen(name) < sizeof(((struct hook *)NULL)->name), 1, "a name has 1 to 95 bytes");
	if (map_get_str(of(L)->policies, name))
		return luaL_error(L, "there is a policy '%s' already", name);
	add_hook(L, SCRIPT_POLICY, name, 2);
	return 0;
}

/* These have no name but where they are. */
static int register_place(lua_State *L, enum script_kind kind)
{
	char name[96];
	lua_Debug ar;

	only_while_loading(L, script_kinds[kind]);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_pushvalue(L, 1);
	lua_getinfo(L, ">S", &ar);
	snprintf(name, sizeof(name), "%.80s:%d", file_name(source_name(&ar)), ar.linedefined);
	add_hook(L, kind, name, 1);
	return 0;
}

static int register_agent(lua_State *L)
{
	return register_place(L, SCRIPT_AGENT);
}

static int register_end(lua_State *L)
{
	return register_place(L, SCRIPT_END);
}

static void open_api(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "policy", register_policy }, { "on_agent", register_agent }, { "on_session_end", register_end },
		{ "counter", make_counter }, { "metric", make_metric }, { "list", make_list }, { "map", make_map },
		{ "cidr", cidr }, { "log", log_text }, { "time", epoch_time }, { "monotonic", monotonic }, { "date", date }, { NULL, NULL },
	};

	new_type(L, COUNTER, counter_methods, counter_free_box);
	new_type(L, METRIC, metric_methods, NULL);
	new_type(L, LIST, list_methods, lookup_free_box);
	new_type(L, MAP, map_methods, lookup_free_box);
	new_type(L, NETWORK, (const luaL_Reg[]){ { NULL, NULL } }, network_free_box);
	open_client(L);
	luaL_newlib(L, functions);
	set_str(L, "version", MCTUNNEL_VERSION);
	lua_setglobal(L, "mctunnel");
	lua_pushcfunction(L, print);
	lua_setglobal(L, "print");
}

static int open_all(lua_State *L)
{
	struct script *s = of(L);

	lua_settop(L, 0);
	lua_pushliteral(L, "the call is over");
	s->spent_text = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_newtable(L);
	s->nets = luaL_ref(L, LUA_REGISTRYINDEX);
	luaL_requiref(L, "math", luaopen_math, 1);
	luaL_requiref(L, "utf8", luaopen_utf8, 1);
	lua_settop(L, 0);
	open_string(L);
	open_table(L);
	open_coroutine(L);
	open_os(L);
	open_base(L);
	open_require(L);
	open_api(L);
	return 0;
}

/* ---- what a policy answers ---- */

static void take_deny(lua_State *L, struct policy_answer *a)
{
	lua_Integer status = lua_isnil(L, 3) ? 403 : lua_tointeger(L, 3);

	if (!lua_isnil(L, 2) && lua_type(L, 2) != LUA_TSTRING)
		luaL_error(L, "the reason behind \"deny\" is a %s, a string is expected", luaL_typename(L, 2));
	if (status < 400 || status > 599)
		luaL_error(L, "the status behind \"deny\" is '%s', 400 to 599 is expected", luaL_tolstring(L, 3, NULL));
	str_copy(a->reason, sizeof(a->reason), lua_isnil(L, 2) ? "" : lua_tostring(L, 2));
	a->status = (unsigned)status;
}

static void take_route(lua_State *L, struct policy_answer *a)
{
	const char *route = lua_tostring(L, 2), *slash = route ? strchr(route, '/') : NULL;
	size_t len = slash ? (size_t)(slash - route) : 0;

	if (!slash || len == 0 || len >= sizeof(a->tunnel) || !slash[1] || strlen(slash + 1) >= sizeof(a->service) || strchr(slash + 1, '/'))
		luaL_error(L, "behind \"route\" a \"TUNNEL/SERVICE\" is expected, not '%s'", luaL_tolstring(L, 2, NULL));
	memcpy(a->tunnel, route, len);
	a->tunnel[len] = '\0';
	str_copy(a->service, sizeof(a->service), slash + 1);
}

/* The function's values are all that is on the stack. */
static void take_answer(lua_State *L, struct policy_answer *a)
{
	const char *word = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";

	if (strcmp(word, "allow") == 0) {
		a->kind = POLICY_ALLOW;
	} else if (strcmp(word, "deny") == 0) {
		a->kind = POLICY_DENY;
		take_deny(L, a);
	} else if (strcmp(word, "reject") == 0) {
		a->kind = POLICY_REJECT;
	} else if (strcmp(word, "route") == 0) {
		a->kind = POLICY_ROUTE;
		take_route(L, a);
	} else {
		luaL_error(L, "the policy returned '%s'; \"allow\", \"deny\", \"reject\" or \"route\" is expected", luaL_tolstring(L, 1, NULL));
	}
}

/* ---- calls ---- */

static void on_failure(struct script *s, struct hook *h, const struct question *q)
{
	if (!s->fault.line)
		fault_place(&s->fault, h->file, h->line);
	stat_add(STAT_LUA_ERRORS, 1);
	tally_result(&h->tally, h->name, TALLY_ERROR);
	fault_log(&s->log, &s->fault, h->name, q ? q->facts->listener : NULL, q ? q->id : NULL);
}

static void make_room(struct script *s);
static bool is_open(struct script *s);

static bool call_it(struct script *s, struct hook *h, lua_CFunction body, void *arg)
{
	uint64_t took;
	bool good;

	s->running = h;
	good = run(s, body, arg, s->conf->global.lua.budget_ms);
	s->running = NULL;
	took = budget_now_ns() - s->budget.began_ns;
	tally_call(&h->tally, took);
	if (s->budget.spent)
		tally_waste(&h->tally, s->budget.began_ns, took);
	return good;
}

/* false: it failed, and that has been told. */
static bool call(struct script *s, struct hook *h, lua_CFunction body, void *arg, const struct question *q)
{
	if (tally_rests(&h->tally)) { /* who is asked about meanwhile is denied, and others do not wait */
		fault_clear(&s->fault);
		fault_text(&s->fault, "it is not called for a moment: it has used up its budget too often");
		on_failure(s, h, q);
		return false;
	}
	if (call_it(s, h, body, arg))
		return true;
	on_failure(s, h, q);
	if (s->budget.starved)
		make_room(s);
	return false;
}

static int ask_function(lua_State *L)
{
	struct question *q = lua_touserdata(L, 1);

	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX, q->hook->ref);
	lua_rawgeti(L, LUA_REGISTRYINDEX, of(L)->client);
	lua_call(L, 1, 3);
	take_answer(L, q->answer);
	return 0;
}

static void refuse(struct policy_answer *out, const char *why)
{
	*out = (struct policy_answer){ .kind = POLICY_DENY, .status = 403, .failed = true };
	str_copy(out->reason, sizeof(out->reason), why);
}

static void ask_client(const char *name, const struct facts *f, const char *route, const char *id, struct policy_answer *out)
{
	static const enum tally_result results[] = { [POLICY_ALLOW] = TALLY_ALLOW, [POLICY_DENY] = TALLY_DENY, [POLICY_REJECT] = TALLY_REJECT,
		[POLICY_ROUTE] = TALLY_ROUTE };
	struct script *s = own;
	struct hook *h = is_open(s) ? map_get_str(s->policies, name) : NULL;
	struct policy_answer answer = { .kind = POLICY_DENY, .status = 403 };
	struct question q = { .hook = h, .facts = f, .route = route, .id = id, .answer = &answer };
	bool good;

	if (!h) {
		stat_add(STAT_LUA_ERRORS, 1);
		refuse(out, "the policy is not available");
		return;
	}
	s->question = &q;
	good = call(s, h, ask_function, &q, &q);
	s->question = NULL;
	if (!good) {
		refuse(out, "the policy failed");
		return;
	}
	tally_result(&h->tally, h->name, results[answer.kind]);
	*out = answer;
}

/* ---- agents ---- */

struct agent_question {
	const struct hook *hook;
	const struct policy_agent *agent;
	bool allowed;
	char why[128];
};

static void push_agent(lua_State *L, const struct policy_agent *a)
{
	lua_createtable(L, 0, 5);
	set_str(L, "name", a->name);
	set_str(L, "tunnel", a->tunnel);
	set_str(L, "addr", a->addr);
	set_str(L, "cert", a->cert);
	lua_createtable(L, (int)a->services_n, 0);
	for (size_t i = 0; i < a->services_n; i++) {
		lua_pushstring(L, a->services[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "services");
}

static int ask_about_agent(lua_State *L)
{
	struct agent_question *q = lua_touserdata(L, 1);
	const char *word;

	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX, q->hook->ref);
	push_agent(L, q->agent);
	lua_call(L, 1, 2);
	word = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
	q->allowed = strcmp(word, "allow") == 0;
	if (!q->allowed && strcmp(word, "deny") != 0)
		luaL_error(L, "on_agent returned '%s'; \"allow\" or \"deny\" is expected", luaL_tolstring(L, 1, NULL));
	if (!q->allowed && lua_type(L, 2) == LUA_TSTRING)
		str_copy(q->why, sizeof(q->why), lua_tostring(L, 2));
	return 0;
}

static bool ask_agent_hook(struct script *s, struct hook *h, const struct policy_agent *a, char *why, size_t size)
{
	struct agent_question q = { .hook = h, .agent = a, .why = "the policy does not allow it" };

	if (!call(s, h, ask_about_agent, &q, NULL)) {
		str_copy(why, size, "the policy failed");
		return false;
	}
	tally_result(&h->tally, h->name, q.allowed ? TALLY_ALLOW : TALLY_DENY);
	if (!q.allowed)
		str_copy(why, size, q.why);
	return q.allowed;
}

/* All of them must allow it. */
static bool ask_agent(const struct policy_agent *a, char *why, size_t size)
{
	struct script *s = own;

	if (!is_open(s)) {
		str_copy(why, size, "the policy is not available");
		return false;
	}
	for (size_t i = 0; i < s->hooks_n; i++) {
		if (s->hooks[i]->kind == SCRIPT_AGENT && !ask_agent_hook(s, s->hooks[i], a, why, size))
			return false;
	}
	return true;
}

/* ---- ends of sessions ---- */

struct end_message {
	const struct hook *hook;
	const struct policy_end *end;
};

static int tell_end(lua_State *L)
{
	const struct end_message *m = lua_touserdata(L, 1);
	const struct policy_end *e = m->end;

	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX, m->hook->ref);
	lua_createtable(L, 0, 17);
	set_str(L, "listener", e->listener);
	set_str(L, "client", e->client);
	set_str(L, "route", e->route);
	set_str(L, "tunnel", e->tunnel);
	set_str(L, "service", e->service);
	set_str(L, "agent", e->agent);
	set_str(L, "target", e->target);
	set_str(L, "id", e->id);
	set_str(L, "reason", e->reason);
	set_str(L, "sni", e->sni);
	set_str(L, "host", e->host);
	set_int(L, "up", (lua_Integer)e->up);
	set_int(L, "down", (lua_Integer)e->down);
	set_int(L, "queue_ms", e->queue_ms);
	set_int(L, "connect_ms", e->connect_ms);
	set_int(L, "total_ms", e->total_ms);
	lua_call(L, 1, 0);
	return 0;
}

static void tell_ends(const struct policy_end *e)
{
	struct script *s = own;

	for (size_t i = 0; is_open(s) && i < s->hooks_n; i++) {
		struct end_message m = { .hook = s->hooks[i], .end = e };

		if (m.hook->kind == SCRIPT_END && call(s, s->hooks[i], tell_end, &m, NULL))
			tally_result(&s->hooks[i]->tally, m.hook->name, TALLY_DONE);
	}
}

/* ---- states ---- */

static void forget_hooks(struct script *s)
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

static void close_state(struct script *s)
{
	if (s->L)
		lua_close(s->L);
	s->L = NULL;
	s->nets_n = 0;
	BUG_ON(s->budget.memory != 0);
}

/* A new state with everything loaded. false: fault tells. */
static bool open_state(struct script *s)
{
	bool good;

	s->L = lua_newstate(budget_allocate, &s->budget);
	if (!s->L) {
		fault_text(&s->fault, budget_no_memory);
		return false;
	}
	*(struct script **)lua_getextraspace(s->L) = s;
	lua_atpanic(s->L, on_panic);
	lua_sethook(s->L, on_count, LUA_MASKCOUNT, STEP);
	s->file = "";
	s->budget.loading = true;
	good = run(s, open_all, NULL, LOAD_MS) && run(s, load_scripts, NULL, LOAD_MS);
	if (!s->fault.file[0] && s->file[0])
		fault_place(&s->fault, s->file, s->fault.line);
	s->file = NULL;
	s->budget.loading = false;
	if (good)
		return true;
	close_state(s);
	forget_hooks(s);
	return false;
}

static void renew(struct script *s)
{
	bool wanted_agents = s->ops.wants_agents;
	struct script_fault before = s->fault;

	s->renewed_ms = clock_ms();
	s->quiet = true;
	if (open_state(s)) {
		s->fault = before;
		return;
	}
	s->ops.wants_agents = wanted_agents; /* they are refused */
	log_error("scripts cannot be loaded again: %s:%d: %s", s->fault.file, s->fault.line, s->fault.text);
}

/* After a call that got no memory: what a script keeps fills its state. What it has counted and looked up lies elsewhere. */
static void make_room(struct script *s)
{
	lua_gc(s->L, LUA_GCCOLLECT);
	if (s->budget.memory < s->budget.limit / 4 * 3 || clock_ms() - s->renewed_ms < RENEW_MS)
		return;
	log_error("scripts keep %zu of %zu bytes (global.lua.memory): they begin anew on this thread", s->budget.memory, s->budget.limit);
	close_state(s);
	forget_hooks(s);
	s->renewals++;
	renew(s);
}

/* It may have been refused before. */
static bool is_open(struct script *s)
{
	if (!s->L && clock_ms() - s->renewed_ms >= RENEW_MS)
		renew(s);
	return s->L;
}

struct script *script_new(struct conf *conf, struct script *sibling, bool checking, struct script_fault *fault)
{
	struct script *s = xcalloc(1, sizeof(*s));

	s->conf = conf_get(conf);
	s->shelf = sibling ? shelf_hold(sibling->shelf) : shelf_new();
	s->checking = checking;
	s->quiet = checking || sibling;
	s->budget.limit = conf->global.lua.memory;
	s->ops = (struct policy_ops){ .ask = ask_client, .agent = ask_agent, .end = tell_ends };
	s->policies = map_new();
	if (open_state(s))
		return s;
	*fault = s->fault;
	script_free(s);
	return NULL;
}

void script_free(struct script *s)
{
	if (!s)
		return;
	if (own == s)
		script_use(NULL);
	close_state(s);
	forget_hooks(s);
	map_free(s->policies);
	shelf_put(s->shelf);
	conf_put(s->conf);
	free(s);
}

void script_use(struct script *s)
{
	own = s;
	policy_use(s ? &s->ops : NULL);
}

struct script *script_used(void)
{
	return own;
}

/* ---- what is known of a state ---- */

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
