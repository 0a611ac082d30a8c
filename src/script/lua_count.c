/* What scripts count with: mctunnel.counter(), by key, for their own decisions; mctunnel.metric(), by label, for /metrics. They are the process's
 * (counter.h, metric.h): a state only holds them. Does not know how they are kept. */
#include "mctunnel/script/counter.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"
#include "mctunnel/script/metric.h"

#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#define COUNTER "mctunnel.counter"
#define METRIC "mctunnel.metric"
#define TIME_MAX (UINT64_C(366) * 24 * 3600 * 1000)

/* ---- counters ---- */

static void put_counter(void *held)
{
	counter_put(held);
}

static int make_counter(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	uint64_t size = 100000, expire = 0;
	struct box *b;

	script_only_while_loading(L, "mctunnel.counter()");
	luaL_argcheck(L, *name && strlen(name) < 64, 1, "a name has 1 to 63 bytes");
	if (!lua_isnoneornil(L, 2)) {
		luaL_checktype(L, 2, LUA_TTABLE);
		if (lua_getfield(L, 2, "size") != LUA_TNIL)
			size = script_check_number(L, -1, KIND_INT, COUNTER_SIZE_MAX);
		if (lua_getfield(L, 2, "expire") != LUA_TNIL)
			expire = script_check_number(L, -1, KIND_TIME, TIME_MAX);
	}
	b = script_new_box(L, COUNTER, put_counter);
	b->held = counter_get(name, (uint32_t)size, expire);
	return 1;
}

static const char *check_key(lua_State *L, int arg, size_t *len)
{
	const char *key = luaL_checklstring(L, arg, len);

	luaL_argcheck(L, *len <= COUNTER_KEY_MAX, arg, "a key has at most 255 bytes");
	return key;
}

static int counter_incr(lua_State *L)
{
	struct counter *c = script_self(L);
	size_t len;
	const char *key = check_key(L, 2, &len);
	int64_t sum;

	if (!counter_add(c, key, len, luaL_optinteger(L, 3, 1), &sum)) { /* a sum of 0 would let a client by that is over a limit */
		budget_starve(&script_of(L)->budget);
		return script_raise_spent(L);
	}
	lua_pushinteger(L, sum);
	return 1;
}

static int counter_get_value(lua_State *L)
{
	struct counter *c = script_self(L);
	size_t len;
	const char *key = check_key(L, 2, &len);

	lua_pushinteger(L, counter_value(c, key, len));
	return 1;
}

static int counter_get_rate(lua_State *L)
{
	struct counter *c = script_self(L);
	size_t len;
	const char *key = check_key(L, 2, &len);
	double rate;

	if (!counter_rate(c, key, len, script_check_number(L, 3, KIND_TIME, TIME_MAX), &rate))
		return luaL_error(L, "rates of a counter can be asked for over %d periods", COUNTER_PERIODS);
	lua_pushnumber(L, rate);
	return 1;
}

/* ---- metrics ---- */

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

	script_only_while_loading(L, "mctunnel.metric()");
	b = script_new_box(L, METRIC, NULL);
	b->held = metric_get(name, help, n, labels, err, sizeof(err));
	if (!b->held)
		return luaL_error(L, "%s", err);
	return 1;
}

static int metric_inc(lua_State *L)
{
	struct metric *m = script_self(L);
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

/* ---- both ---- */

void script_open_counts(lua_State *L)
{
	static const luaL_Reg functions[] = { { "counter", make_counter }, { "metric", make_metric }, { NULL, NULL } };
	static const luaL_Reg counter_methods[] = { { "incr", counter_incr }, { "get", counter_get_value }, { "rate", counter_get_rate }, { NULL, NULL } };
	static const luaL_Reg metric_methods[] = { { "inc", metric_inc }, { NULL, NULL } };

	script_new_type(L, COUNTER, counter_methods);
	script_new_type(L, METRIC, metric_methods);
	luaL_setfuncs(L, functions, 0);
}
