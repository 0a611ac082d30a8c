/* mctunnel.time(), monotonic() and date(): what the clocks say. Owns nothing; does not know the script. */
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/lua_value.h"

#include <lauxlib.h>
#include <lua.h>
#include <time.h>

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
	script_set_int(L, "year", tm.tm_year + 1900);
	script_set_int(L, "month", tm.tm_mon + 1);
	script_set_int(L, "day", tm.tm_mday);
	script_set_int(L, "hour", tm.tm_hour);
	script_set_int(L, "min", tm.tm_min);
	script_set_int(L, "sec", tm.tm_sec);
	script_set_int(L, "wday", tm.tm_wday + 1);
	script_set_int(L, "yday", tm.tm_yday + 1);
	script_set_str(L, "weekday", days[tm.tm_wday]);
	lua_pushboolean(L, tm.tm_isdst > 0);
	lua_setfield(L, -2, "isdst");
	return 1;
}

void script_open_time(lua_State *L)
{
	static const luaL_Reg functions[] = { { "time", epoch_time }, { "monotonic", monotonic }, { "date", date }, { NULL, NULL } };

	luaL_setfuncs(L, functions, 0);
}
