/* Scripts: what they can do, and that nothing they do harms anybody else. Each wrong script is followed by a call of a good one in the same state. */
#define _GNU_SOURCE
#include "mctunnel/script/lua.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/clock.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/stat.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/script/lua_inside.h"
#include "mctunnel/script/metric.h"
#include "mctunnel/tunnel/facts.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../failing.h"

static char folder[] = "/tmp/script-XXXXXX";

static const char *path_of(const char *name)
{
	static char path[4][128];
	static unsigned turn;
	char *out = path[turn++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", folder, name);
	return out;
}

static void put_file(const char *name, const char *text)
{
	FILE *f = fopen(path_of(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static struct conf *conf_of(const char *script)
{
	static struct conf c;
	static char *load[1], *folders[1];

	put_file("policy.lua", script);
	files_free(c.files);
	free(load[0]);
	free(folders[0]);
	memset(&c, 0, sizeof(c));
	c.refs = 1;
	c.files = files_new();
	load[0] = xstrdup(path_of("policy.lua"));
	folders[0] = xstrdup(folder);
	c.global.lua = (struct conf_lua){ .load = { load, 1 }, .path = { folders, 1 }, .memory = 16u << 20, .budget_ms = 1 };
	return &c;
}

static struct script_fault fault;

static struct script *load_with(struct conf *c)
{
	struct script *s = script_new(c, NULL, true, &fault);

	if (!s)
		print_message("%s:%d: %s\n", fault.file, fault.line, fault.text);
	assert_non_null(s);
	script_use(s);
	return s;
}

static struct script *load(const char *script)
{
	return load_with(conf_of(script));
}

static const char *field(const void *arg, const char *name, size_t i)
{
	return strcasecmp(name, "x-tenant") == 0 && i < 2 ? (i ? "second" : "acme") : NULL;
}

static const char *const offered[] = { "h2", "http/1.1" };

static struct addr src, dst; /* read once, which takes memory */

static struct facts client(void)
{
	struct facts f = { .src = src, .dst = dst, .listener = "web", .dst_port = 443, .tls = true, .sni = "a.example.com", .alpn = offered, .alpn_n = 2, .cert = "alice",
			   .method = "GET", .host = "www.example.com", .path = "/admin/x", .query = "?a=1", .header = field };

	return f;
}

static struct policy_answer ask(const char *name)
{
	struct facts f = client();
	struct policy_answer a;

	memset(&a, 0x55, sizeof(a));
	policy_ask(name, &f, "site-a/web", "id1", &a);
	return a;
}

/* Its policy 'p' allows, also a second time, when there is something that the first call has left. */
static void allows(const char *script)
{
	struct script *s = load(script);

	for (int i = 0; i < 2; i++) {
		assert_int_equal(ask("p").kind, POLICY_ALLOW);
		assert_string_equal(script_last_fault(s)->text, "");
	}
	script_free(s);
}

/* ---- what a policy says ---- */

static void answers(void **state)
{
	struct script *s = load(
	    "mctunnel.policy('allow', function(c) return 'allow' end)"
	    "mctunnel.policy('deny', function(c) return 'deny' end)"
	    "mctunnel.policy('why', function(c) return 'deny', 'outside' end)"
	    "mctunnel.policy('status', function(c) return 'deny', 'later', 503 end)"
	    "mctunnel.policy('reject', function(c) return 'reject' end)"
	    "mctunnel.policy('route', function(c) return 'route', 'site-b/admin' end)"
	    "mctunnel.policy('rate', function(c) c:limit_rate('1m') return 'allow' end)"
	    "mctunnel.policy('rates', function(c) c:limit_rate(1000, '2k') return 'allow' end)");
	struct policy_answer a;

	a = ask("allow");
	assert_int_equal(a.kind, POLICY_ALLOW);
	assert_false(a.failed);
	assert_int_equal(a.rate_up + a.rate_down, 0);
	a = ask("deny");
	assert_int_equal(a.kind, POLICY_DENY);
	assert_int_equal(a.status, 403);
	assert_string_equal(a.reason, "");
	assert_false(a.failed);
	assert_string_equal(ask("why").reason, "outside");
	a = ask("status");
	assert_string_equal(a.reason, "later");
	assert_int_equal(a.status, 503);
	assert_int_equal(ask("reject").kind, POLICY_REJECT);
	a = ask("route");
	assert_int_equal(a.kind, POLICY_ROUTE);
	assert_string_equal(a.tunnel, "site-b");
	assert_string_equal(a.service, "admin");
	a = ask("rate");
	assert_int_equal(a.rate_up, 1 << 20);
	assert_int_equal(a.rate_down, 1 << 20);
	a = ask("rates");
	assert_int_equal(a.rate_up, 1000);
	assert_int_equal(a.rate_down, 2048);
	script_free(s);
}

static void fields(void **state)
{
	allows(
	    "mctunnel.policy('p', function(c)\n"
	    "assert(c.listener == 'web' and c.src == '10.1.2.3' and c.src_port == 4567 and c.dst_port == 443 and c.dst == '192.0.2.1')\n"
	    "assert(c.sni == 'a.example.com' and #c.alpn == 2 and c.alpn[1] == 'h2' and c.alpn[2] == 'http/1.1' and c.cert == 'alice' and c.tls == true)\n"
	    "assert(c.method == 'GET' and c.host == 'www.example.com' and c.path == '/admin/x' and c.query == '?a=1')\n"
	    "assert(c.route == 'site-a/web' and c.id == 'id1')\n"
	    "assert(c.header('X-Tenant') == 'acme' and c:header('x-tenant') == 'acme' and c.header('x-tenant', 2) == 'second')\n"
	    "assert(c.header('x-tenant', 3) == nil and c:header('other') == nil)\n"
	    "c:log('hello') mctunnel.log('info', 'there') print('a', 1)\n"
	    "return 'allow' end)");
}

static void fields_of_plain_tcp_are_nil(void **state)
{
	struct script *s = load("mctunnel.policy('p', function(c)\n"
				"assert(c.sni == nil and c.method == nil and c.host == nil and c.path == nil and c.query == nil and c.header('a') == nil)\n"
				"assert(#c.alpn == 0 and c.tls == false and c.cert == nil and c.src == 'unix:') return 'allow' end)");
	struct facts f = { .listener = "tcp" };
	struct policy_answer a;

	f.src.len = sizeof(sa_family_t);
	f.src.u.sa.sa_family = AF_UNIX;
	policy_ask("p", &f, NULL, NULL, &a);
	assert_string_equal(script_last_fault(s)->text, "");
	assert_int_equal(a.kind, POLICY_ALLOW);
	script_free(s);
}

static void without_scripts_policies_deny(void **state)
{
	struct policy_agent g = { .name = "a" };
	char why[64];

	script_use(NULL);
	assert_int_equal(ask("p").kind, POLICY_DENY);
	assert_true(ask("p").failed);
	assert_int_equal(policy_agent(&g, why, sizeof(why)), REASON_DONE);
	assert_false(policy_wants_ends());
}

static void agents(void **state)
{
	static const char *const services[] = { "ssh", "web" };
	struct script *s = load("mctunnel.on_agent(function(a)\n"
				"assert(a.name == 'edge-1' and a.tunnel == 'site-a' and a.addr == '10.0.0.1:99' and a.cert == 'CN=edge-1' and a.services[2] == 'web')\n"
				"return 'allow' end)\n"
				"mctunnel.on_agent(function(a) if #a.services > 1 then return 'deny', 'too many' end return 'allow' end)");
	struct policy_agent g = { "edge-1", "site-a", "10.0.0.1:99", "CN=edge-1", services, 2 };
	char why[64] = "";

	assert_int_equal(policy_agent(&g, why, sizeof(why)), REASON_POLICY);
	assert_string_equal(why, "too many");
	script_free(s);
	s = load("mctunnel.on_agent(function(a) return 'allow' end)");
	assert_int_equal(policy_agent(&g, why, sizeof(why)), REASON_DONE);
	script_free(s);
	s = load("mctunnel.on_agent(function(a) error('x') end)");
	assert_int_equal(policy_agent(&g, why, sizeof(why)), REASON_POLICY);
	script_free(s);
	s = load("mctunnel.on_agent(function(a) end)");
	assert_int_equal(policy_agent(&g, why, sizeof(why)), REASON_POLICY);
	script_free(s);
}

static void ends(void **state)
{
	struct script *s = load("local bytes = mctunnel.counter('bytes')\n"
				"mctunnel.on_session_end(function(e) assert(e.sni == nil and e.queue_ms == -1 and e.reason == 'done')\n"
				"bytes:incr(e.tunnel, e.up + e.down) end)\n"
				"mctunnel.policy('p', function(c) return 'deny', tostring(bytes:get('site-a')) end)");
	struct policy_end e = { .tunnel = "site-a", .reason = "done", .up = 10, .down = 20, .queue_ms = -1 };

	assert_true(policy_wants_ends());
	policy_end(&e);
	policy_end(&e);
	assert_string_equal(ask("p").reason, "60");
	script_free(s);
}

/* ---- what goes wrong ---- */

static const struct {
	const char *what, *body, *text; /* text: part of what is logged */
} wrong[] = {
	{ "error", "error('boom')", "boom" },
	{ "error without a place", "error('boom', 0)", "boom" },
	{ "error(nil)", "error(nil)", "nil value" },
	{ "error with a table", "error({ code = 1 })", "table value" },
	{ "error that speaks", "error(setmetatable({}, { __tostring = function() return 'spoken' end }))", "spoken" },
	{ "error that speaks nonsense", "error(setmetatable({}, { __tostring = function() return 5 end }))", "" },
	{ "error that fails to speak", "error(setmetatable({}, { __tostring = function() error('again') end }))", "" },
	{ "error that never ends to speak", "error(setmetatable({}, { __tostring = function() while true do end end }))", "" },
	{ "call of nil", "nothing()", "attempt to call a nil value" },
	{ "nothing returned", "", "'nil'" },
	{ "a number returned", "return 1", "'1'" },
	{ "true returned", "return true", "'true'" },
	{ "a word that is none", "return 'allowed'", "'allowed'" },
	{ "a table returned", "return {}", "table" },
	{ "a reason that is none", "return 'deny', {}", "reason" },
	{ "a status that is none", "return 'deny', 'x', 200", "status" },
	{ "a route that is none", "return 'route', 'site-a'", "TUNNEL/SERVICE" },
	{ "a route with two slashes", "return 'route', 'a/b/c'", "TUNNEL/SERVICE" },
	{ "no route", "return 'route'", "TUNNEL/SERVICE" },
	{ "a route that is too long", "return 'route', ('x'):rep(70) .. '/web'", "TUNNEL/SERVICE" },
	{ "a rate that is none", "c:limit_rate('fast')", "digit" },
	{ "a rate of zero", "c:limit_rate(0)", "too little" },
	{ "a negative rate", "c:limit_rate(-5)", "negative" },
	{ "a field that is none", "return c.hots", "did you mean 'host'" },
	{ "a field that is no word", "return c[{}]", "no field" },
	{ "a field that is set", "c.host = 'x'", "attempt to index" },
	{ "no end", "while true do end", "budget" },
	{ "no end in pcall", "while true do pcall(function() while true do end end) end", "budget" },
	{ "no end in xpcall's handler", "xpcall(error, function() while true do end end)", "budget" },
	{ "no end in nested pcalls", "local function f() pcall(f) while true do end end f()", "" },
	{ "no end in a coroutine", "while true do coroutine.resume(coroutine.create(function() while true do end end)) end", "budget" },
	{ "no end of coroutines", "while true do coroutine.resume(coroutine.create(function() for i = 1, 200 do end end)) end", "budget" },
	{ "no end of yields", "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end", "budget" },
	{ "a wrapped coroutine", "coroutine.wrap(function() while true do end end)()", "budget" },
	{ "__close in a coroutine after the end", "coroutine.wrap(function() local x <close> = setmetatable({}, { __close = function() while true do end end })"
	  " while true do end end)()", "budget" },
	{ "coroutine.close after the end", "local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() while true do end end })"
	  " while true do end end) coroutine.resume(co) coroutine.close(co)", "budget" },
	{ "no end in close", "local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() while true do end end })"
	  " coroutine.yield() end) coroutine.resume(co) coroutine.close(co)", "budget" },
	{ "error in a wrapped coroutine", "coroutine.wrap(function() error('inside') end)()", "inside" },
	{ "a dead coroutine", "local co = coroutine.wrap(function() end) co() co()", "dead" },
	{ "a coroutine in itself", "local co co = coroutine.wrap(function() co() end) co()", "non-suspended" },
	{ "xpcall in xpcall's handler", "local function h() xpcall(error, h) while true do end end xpcall(error, h)", "" },
	{ "yield of the policy itself", "coroutine.yield()", "outside a coroutine" },
	{ "coroutine leak", "local t = {} while true do t[#t + 1] = coroutine.create(function() coroutine.yield() end) coroutine.resume(t[#t]) end", "" },
	{ "no end in a metamethod", "local t = setmetatable({}, { __index = function() while true do end end }) return t.x", "budget" },
	{ "no end in __close", "do local x <close> = setmetatable({}, { __close = function() while true do end end }) end", "budget" },
	{ "__close after the end", "local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end", "budget" },
	{ "no end in a sort", "table.sort({ 3, 2, 1, 5, 4, 9, 7 }, function(a, b) while true do end end)", "budget" },
	{ "no end in gsub", "(('x'):rep(1000)):gsub('x', function() while true do end end)", "budget" },
	{ "recursion", "local function f() return 1 + f() end f()", "" },
	{ "recursion through C", "local t = {} setmetatable(t, { __tostring = tostring }) tostring(t)", "C stack overflow" },
	{ "recursion through pcall", "local function f() return pcall(f) end f() error('over')", "" },
	{ "recursion of an index", "local t = {} for i = 1, 3000 do t = setmetatable({}, { __index = t }) end return t.x", "" },
	{ "recursion of gsub", "local function f(x) return (x:gsub('.', f)) end f('a')", "C stack overflow" },
	{ "a string of 1 GB", "return ('x'):rep(1 << 30)", "" },
	{ "a string of 1 GB, piece by piece", "local s = 'x' while true do s = s .. s end", "" },
	{ "a string of 1 GB, in pcall", "local s = 'x' while true do pcall(function() s = s .. s end) end", "" },
	{ "rep of nothing", "return (''):rep(1 << 60)", "budget" },
	{ "rep of nothing with nothing between", "return (''):rep(1 << 60, '')", "budget" },
	{ "rep that overflows", "return ('xx'):rep(math.maxinteger)", "" },
	{ "a table without end", "local t = {} for i = 1, 1e9 do t[i] = i end", "" },
	{ "tables without end", "local t = {} while true do t = { t } end", "" },
	{ "garbage without end", "while true do local t = { {}, {}, {} } end", "budget" },
	{ "concat without end", "local t = {} for i = 1, 50000 do t[i] = ('x'):rep(1000) end return table.concat(t)", "" },
	{ "concat of what is not there", "return table.concat(setmetatable({}, { __index = tostring }), '', 1, 1 << 50)", "budget" },
	{ "move without end", "table.move({}, 1, 1 << 60, 2)", "budget" },
	{ "unpack without end", "return table.unpack({}, 1, 1 << 40)", "budget" },
	{ "insert into a length that lies", "table.insert(setmetatable({}, { __len = function() return 1 << 60 end }), 1, 'x')", "__len" },
	{ "insert into a border far away", "local t = {} for i = 0, 60 do t[1 << i] = 1 end t[3] = 1 table.insert(t, 1, 'x') error('over')", "" },
	{ "sort of much", "local t = {} for i = 1, 9000 do t[i] = -i end table.sort(t) table.sort(t) table.sort(t) table.sort(t)", "budget" },
	{ "a date of many dates", "return os.date(('%c'):rep(100000))", "budget" },
	{ "a format of many numbers", "local t = {} for i = 1, 9000 do t[i] = 1e300 end return (('%99.99f'):rep(9000)):format(table.unpack(t))", "budget" },
	{ "backtracking", "return (('a'):rep(3000)):find('.-.-.-.-.-.-b')", "budget" },
	{ "backtracking of match", "return (('a'):rep(3000)):match('(a*)(a*)(a*)(a*)(a*)b')", "budget" },
	{ "backtracking of gmatch", "for x in (('a'):rep(3000)):gmatch('a*a*a*a*a*b') do end", "budget" },
	{ "backtracking of gsub", "return (('a'):rep(3000)):gsub('a-a-a-a-a-b', '')", "budget" },
	{ "backtracking of %b", "return (('('):rep(100000)):find('%b()')", "budget" },
	{ "a pattern that is none", "return ('a'):find('[a')", "missing ']'" },
	{ "a pattern that is too complex", "return (('a'):rep(300)):match(('(a'):rep(300))", "" },
	{ "__gc", "setmetatable({}, { __gc = function() while true do end end })", "__gc" },
	{ "a metatable of strings", "getmetatable('').__index = nil", "" },
	{ "the metatable of the client", "getmetatable(c).__index = nil", "" },
	{ "os.execute", "os.execute('true')", "nil value" },
	{ "os.exit", "os.exit()", "nil value" },
	{ "os.getenv", "os.getenv('PATH')", "nil value" },
	{ "os.remove", "os.remove('/tmp/x')", "nil value" },
	{ "io", "io.open('/etc/passwd')", "nil value" },
	{ "debug", "debug.sethook()", "nil value" },
	{ "package", "package.loadlib('x', 'y')", "nil value" },
	{ "load", "load('return 1')", "nil value" },
	{ "loadstring", "loadstring('return 1')", "nil value" },
	{ "dofile", "dofile('/etc/passwd')", "nil value" },
	{ "loadfile", "loadfile('/etc/passwd')", "nil value" },
	{ "string.dump", "string.dump(function() end)", "nil value" },
	{ "collectgarbage", "collectgarbage('stop')", "count" },
	{ "require later", "require('later')", "while scripts are loaded" },
	{ "a map later", "mctunnel.map('/etc/passwd')", "while scripts are loaded" },
	{ "a policy later", "mctunnel.policy('later', function() end)", "while scripts are loaded" },
	{ "a counter later", "mctunnel.counter('later')", "while scripts are loaded" },
	{ "an address that is none", "return mctunnel.cidr('localhost', '10.0.0.0/8')", "address" },
	{ "a network that is none", "return mctunnel.cidr(c.src, '10.0.0.0/33')", "" },
	{ "no network", "return mctunnel.cidr(c.src)", "" },
	{ "a list that is none", "return mctunnel.cidr(c.src, {})", "" },
	{ "a method of another", "local m = c.limit_rate m({}, 5)", "" },
	{ "a level that is none", "mctunnel.log('loud', 'x')", "alert" },
	{ "a log without end", "while true do c:log('x') end", "budget" },
	{ "a date that is none", "mctunnel.date(1e300)", "" },
};

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wrong_scripts(void **state)
{
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		char *script = xasprintf("mctunnel.policy('good', function(c) if c.src == '10.1.2.3' then return 'allow' end end)\n"
					 "mctunnel.policy('wrong', function(c)\n%s\nend)\n", wrong[i].body);
		struct script *s = load(script);
		uint64_t errors = (uint64_t)stat_sum(STAT_LUA_ERRORS), began = cpu_ns(), took;
		struct policy_answer a = ask("wrong");

		took = cpu_ns() - began;
		if (!a.failed || !strstr(s->fault.text, wrong[i].text) || s->fault.line < 2 || took > 100000000)
			fail_msg("%s: failed %d, %s:%d: %s, %.1f ms", wrong[i].what, a.failed, s->fault.file, s->fault.line, s->fault.text, (double)took / 1e6);
		if (took > 10000000)
			print_message("%s: %.1f ms of CPU\n", wrong[i].what, (double)took / 1e6);
		assert_int_equal(a.kind, POLICY_DENY);
		assert_int_equal(a.rate_up, 0);
		assert_int_equal((uint64_t)stat_sum(STAT_LUA_ERRORS), errors + 1);
		for (int again = 0; again < 3; again++)
			assert_int_equal(ask("good").kind, POLICY_ALLOW);
		s->hooks[1]->tally.waste_ns = 0;
		assert_true(ask("wrong").failed);
		assert_int_equal(ask("good").kind, POLICY_ALLOW);
		script_free(s);
		free(script);
	}
}

static const struct {
	const char *script, *text;
	int line;
} unloadable[] = {
	{ "local x = ", "unexpected symbol", 1 },
	{ "\n\nx = = 1\n", "unexpected symbol", 3 },
	{ "\n  nothing()\n", "attempt to call a nil value", 2 },
	{ "error({})", "table value", 1 },
	{ "while true do end", "budget", 1 },
	{ "local s = 'x' while true do s = s .. s end", "memory", 0 },
	{ "mctunnel.policy('p')", "function expected", 1 },
	{ "mctunnel.policy('', print)", "name", 1 },
	{ "mctunnel.policy('p', print) mctunnel.policy('p', print)", "already", 1 },
	{ "for i = 1, 1000 do mctunnel.policy('p' .. i, print) end", "maximum", 1 },
	{ "mctunnel.map('missing')", "no such file", 1 },
	{ "mctunnel.map('policy.lua')", "without a value", 1 },
	{ "\nrequire('missing')", "there is no module", 2 },
	{ "require('../x')", "letters", 1 },
	{ "require('broken')", "unexpected symbol", 1 },
	{ "mctunnel.metric('a b', 'x')", "no name", 1 },
	{ "mctunnel.metric('a', 'x', {'__b'})", "no name", 1 },
	{ "mctunnel.metric('a', 'x', {'b', 'b'})", "twice", 1 },
	{ "mctunnel.counter('c', { size = 0 })", "too little", 1 },
	{ "mctunnel.counter('c', { expire = 'soon' })", "digit", 1 },
	{ "coroutine.wrap(function() while true do end end)()", "budget", 1 },
	{ "\x1bLua", "", 0 },
	{ "return function( ((((", "", 1 },
};

static void unloadable_scripts(void **state)
{
	put_file("broken.lua", "x = = 1");
	for (size_t i = 0; i < sizeof(unloadable) / sizeof(unloadable[0]); i++) {
		struct conf *c = conf_of(unloadable[i].script);
		struct script *s = script_new(c, NULL, true, &fault);

		if (s || !strstr(fault.text, unloadable[i].text) || !strstr(fault.file, "/policy.lua") || fault.line != unloadable[i].line)
			fail_msg("%s: %s:%d: %s", unloadable[i].script, fault.file, fault.line, fault.text);
	}
}

static void deep_nesting_does_not_parse(void **state)
{
	char script[5000] = "return ";
	struct conf *c;

	memset(script + 7, '(', sizeof(script) - 8);
	c = conf_of(script);
	assert_null(script_new(c, NULL, true, &fault));
	assert_non_null(strstr(fault.text, "overflow"));
}

/* What it keeps fills its memory, call by call. */
static void a_leak_ends_in_a_new_state(void **state)
{
	struct conf *c = conf_of("local kept = {}\nmctunnel.policy('p', function(c) for i = 1, 50 do kept[#kept + 1] = { i } end return 'allow' end)");
	struct script_figures f;
	struct script *s;
	int failed = 0;

	c->global.lua.memory = 1u << 20;
	s = load_with(c);
	for (int i = 0; i < 5000; i++) {
		bool bad = ask("p").failed;

		failed += bad;
		assert_int_equal(bad, s->fault.text[0] != '\0');
		s->hooks[0]->tally.waste_ns = 0; /* else it would rest */
	}
	script_figures(s, &f);
	assert_true(f.renewals >= 1);
	assert_true(failed >= 1);
	assert_true(f.memory_peak <= f.memory_limit);
	clock_set_us(clock_us() + 2000000);
	for (int i = 0; i < 5000 && f.renewals < 2; i++) {
		ask("p");
		s->hooks[0]->tally.waste_ns = 0;
		script_figures(s, &f);
	}
	assert_true(f.renewals >= 2);
	assert_false(ask("p").failed);
	script_free(s);
}

static void a_function_that_is_always_too_slow_rests(void **state)
{
	struct script *s = load("mctunnel.policy('slow', function(c) while true do end end)\nmctunnel.policy('good', function(c) return 'allow' end)");
	struct script_hook h;
	uint64_t began = budget_now_ns();
	int rested = 0;

	for (int i = 0; i < 1000; i++) {
		assert_true(ask("slow").failed);
		rested += strstr(s->fault.text, "too often") != NULL;
		assert_int_equal(ask("good").kind, POLICY_ALLOW);
	}
	script_hook(s, 0, &h);
	assert_true(rested > 500);
	assert_int_equal(h.errors, 1000);
	assert_int_equal(h.calls + (uint64_t)rested, 1000);
	/* so much at once, then a tenth */
	assert_true(h.sum_ns <= TALLY_WASTE_NS + h.max_ns * 2 + (budget_now_ns() - began) / TALLY_WASTE_SHARE);
	s->hooks[0]->tally.waste_at_ns -= 10000000000;
	ask("slow");
	assert_non_null(strstr(s->fault.text, "budget of instructions"));
	script_free(s);
}

/* Neither for who is asked about, whatever a script makes of an error, nor against him. */
static void no_memory_is_no_answer(void **state)
{
	struct script *s = load("local seen = mctunnel.counter('seen', { size = 10000 })\nlocal n = 0\n"
				"mctunnel.policy('p', function(c)\n"
				"n = n + 1\n"
				"if pcall(function() local t = {} for i = 1, 20 do t[i] = { c.src .. ' ' .. n .. ' ' .. i } end seen:incr(t[1][1]) end) then return 'reject' end\n"
				"return 'allow' end)");
	struct policy_answer a;
	bool failed = true;
	int starved = 0;

	tally_result(&s->hooks[0]->tally, "p", TALLY_ERROR); /* its series is there */
	for (int all = 0; all < 2; all++, failed = true) {
		for (unsigned n = 1; failed; n++) {
			lasting = all;
			failing = n;
			a = ask("p");
			failed = has_failed();
			starved += a.starved;
			if (a.kind == POLICY_REJECT)
				continue;
			assert_int_equal(a.kind, POLICY_DENY);
			assert_true(failed && a.starved);
			assert_string_equal(s->fault.text, "there is no memory left in this process");
		}
		assert_true(starved > all * 20);
	}
	assert_int_equal(s->hooks[0]->tally.waste_ns, 0);
	script_free(s);
}

static void coroutines_that_are_left_behind_are_collected(void **state)
{
	struct script *s = load("mctunnel.policy('p', function(c) for i = 1, 20 do coroutine.wrap(function() coroutine.yield() end)() end return 'allow' end)");

	for (int i = 0; i < 10000; i++)
		assert_int_equal(ask("p").kind, POLICY_ALLOW);
	script_free(s);
}

static void the_client_cannot_be_kept(void **state)
{
	struct script *s = load("local kept\nmctunnel.policy('p', function(c) kept = c return 'allow' end)\n"
				"mctunnel.on_session_end(function(e) return kept.host end)");
	struct policy_end e = { .reason = "done" };

	assert_int_equal(ask("p").kind, POLICY_ALLOW);
	policy_end(&e);
	assert_non_null(strstr(s->fault.text, "only there while"));
	script_free(s);
}

static void errors_have_place_and_trace(void **state)
{
	struct script *s = load("local function inner()\n  error('boom')\nend\nlocal function outer()\n  inner()\n  return 1\nend\n"
				"mctunnel.policy('p', function(c)\n  outer()\n  return 'allow'\nend)");

	assert_true(ask("p").failed);
	assert_string_equal(s->fault.text, "boom");
	assert_int_equal(s->fault.line, 2);
	assert_string_equal(s->fault.file, path_of("policy.lua"));
	assert_string_equal(s->fault.trace, "policy.lua:2 (inner) < policy.lua:5 (outer) < policy.lua:9");
	script_free(s);
}

/* ---- what scripts are given ---- */

static void modules(void **state)
{
	mkdir(path_of("lib"), 0700);
	put_file("lib/office.lua", "local m = { name = ... } function m.open() return true end return m");
	put_file("loop.lua", "local again = require('loop') return { again = again }");
	allows("local o = require('lib.office') assert(o == require('lib.office') and o.name == 'lib.office')\n"
	       "assert(require('loop').again == true)\n"
	       "mctunnel.policy('p', function(c) return require('lib.office').open() and 'allow' or 'deny' end)");
}

static void lists_and_maps(void **state)
{
	put_file("tokens.map", "# comment\n\n  tok1   alice and others \r\ntok2\tbob\n");
	put_file("office.lst", "10.0.0.0/8\n2001:db8::/32\n# x\n192.0.2.7\n");
	put_file("words.lst", "one\n two \n");
	allows("local t, o, w = mctunnel.map('tokens.map'), mctunnel.list('office.lst'), mctunnel.list('words.lst')\n"
	       "assert(t:get('tok1') == 'alice and others' and t:get('tok2') == 'bob' and t:get('x') == nil and t:get('x', 'y') == 'y' and t:get(nil) == nil)\n"
	       "assert(t:count() == 2 and o:count() == 3 and w:has('two') and not w:has('three') and not w:has(nil))\n"
	       "assert(mctunnel.cidr('10.2.3.4', o) and mctunnel.cidr('2001:db8::1', o) and mctunnel.cidr('192.0.2.7', o) and not mctunnel.cidr('192.0.2.8', o))\n"
	       "assert(mctunnel.cidr('192.0.2.8', o, '192.0.2.0/24') and mctunnel.cidr('::ffff:10.0.0.1', '10.0.0.0/8') and not mctunnel.cidr('unix:', '0.0.0.0/0'))\n"
	       "assert(not pcall(mctunnel.cidr, '10.0.0.1', w) and not pcall(o.count, t) and not pcall(t.get, o, 'x') and not pcall(o.has))\n"
	       "mctunnel.policy('p', function(c) return mctunnel.cidr(c.src, '10.0.0.0/8', '192.168.0.0/16') and o and 'allow' or 'deny' end)");
}

/* A worker reads nothing that was not read when it was tried, and its threads share what files hold. */
static void files_are_those_that_were_checked(void **state)
{
	struct conf *c;
	struct script *s, *one, *two;

	put_file("shared.lst", "a\n");
	c = conf_of("local l = mctunnel.list('shared.lst') mctunnel.policy('p', function() return l:has('a') and 'allow' or 'deny' end)");
	assert_null(script_new(c, NULL, false, &fault));
	assert_non_null(strstr(fault.text, "was not read"));
	s = load_with(c);
	script_free(s);
	put_file("shared.lst", "b\n");
	unlink(path_of("policy.lua"));
	one = script_new(c, NULL, false, &fault);
	two = script_new(c, one, false, &fault);
	assert_ptr_equal(one->shelf, two->shelf);
	script_free(one);
	script_use(two);
	assert_int_equal(ask("p").kind, POLICY_ALLOW);
	script_free(two);
}

static void counters_of_scripts(void **state)
{
	static const char script[] = "local t = mctunnel.counter('survivor', { size = 1000, expire = '10m' })\n"
				     "mctunnel.policy('p', function(c) assert(t:rate(c.src, '10s') >= 0) return 'deny', tostring(t:incr(c.src)) end)\n"
				     "mctunnel.policy('rate', function(c) return 'deny', ('%.0f'):format(t:rate(c.src, '10s')) end)\n"
				     "mctunnel.policy('other', function(c) return 'deny', tostring(t:get('x')) end)";
	struct script *s = load(script), *next;

	assert_string_equal(ask("p").reason, "1");
	assert_string_equal(ask("p").reason, "2");
	assert_string_equal(ask("rate").reason, "2");
	assert_string_equal(ask("other").reason, "0");
	next = load_with(s->conf); /* a reload: the new state is there before the old one goes */
	script_free(s);
	script_use(next);
	assert_string_equal(ask("p").reason, "3");
	script_free(next);
	s = load(script);
	assert_string_equal(ask("p").reason, "1");
	script_free(s);
}

static void metrics_of_scripts(void **state)
{
	struct script *s = load("local m = mctunnel.metric('seen', 'Seen \"so\" often', { 'who', 'what' }) local n = mctunnel.metric('plain_total', '')\n"
				"mctunnel.policy('p', function(c) m:inc('a', 1) m:inc(5, 'a', 1) m:inc('b', nil) n:inc() n:inc(3) return 'allow' end)\n"
				"mctunnel.policy('few', function(c) m:inc('a') end)\n"
				"mctunnel.policy('down', function(c) n:inc(-1) end)");
	const struct metric *m = NULL, *seen = NULL, *plain = NULL;
	const void *cursor = NULL;
	const char *labels;
	uint64_t value;

	assert_int_equal(ask("p").kind, POLICY_ALLOW);
	assert_true(ask("few").failed);
	assert_true(ask("down").failed);
	while ((m = metric_next(m))) {
		seen = strcmp(metric_name(m), "mctunnel_lua_seen_total") == 0 ? m : seen;
		plain = strcmp(metric_name(m), "mctunnel_lua_plain_total") == 0 ? m : plain;
	}
	assert_non_null(seen);
	assert_non_null(plain);
	assert_string_equal(metric_help(seen), "Seen \"so\" often");
	assert_true(metric_series(seen, &cursor, &labels, &value));
	assert_string_equal(labels, "who=\"a\",what=\"1\"");
	assert_int_equal(value, 6);
	assert_true(metric_series(seen, &cursor, &labels, &value));
	assert_string_equal(labels, "who=\"b\",what=\"nil\"");
	assert_false(metric_series(seen, &cursor, &labels, &value));
	cursor = NULL;
	assert_true(metric_series(plain, &cursor, &labels, &value));
	assert_int_equal(value, 4);
	script_free(s);
}

static void time_and_date(void **state)
{
	allows("mctunnel.policy('p', function(c)\n"
	       "local d = mctunnel.date(0, true) assert(d.year == 1970 and d.month == 1 and d.day == 1 and d.hour == 0 and d.min == 0 and d.wday == 5)\n"
	       "assert(d.weekday == 'thu' and d.yday == 1 and d.isdst == false and mctunnel.date().year >= 2024)\n"
	       "assert(mctunnel.time() > 1.7e9 and mctunnel.monotonic() > 0 and os.time() > 1.7e9 and os.date('!%Y', 0) == '1970')\n"
	       "return 'allow' end)");
}

/* What is cheap must not be counted as dear. */
static void ordinary_work_fits_the_budget(void **state)
{
	allows("mctunnel.policy('p', function(c)\n"
	       "local s, n, parts = ('abcdefghij'):rep(100), 0, {}\n"
	       "for i = 1, #s do n = n + s:byte(i) end\n"
	       "for i = -#s, -1 do n = n - s:byte(i) end assert(n == 0)\n"
	       "for i = 1, 200 do parts[i] = ('%s=%d'):format('key', i) end\n"
	       "table.sort(parts) local all = table.concat(parts, '&') assert(#all > 1000)\n"
	       "local seen = 0 for k, v in all:gmatch('([^&=]+)=([^&=]*)') do seen = seen + 1 end assert(seen == 200)\n"
	       "assert(select('#', s:byte(1, -1)) == 1000 and select('#', s:byte(5)) == 1 and select('#', s:byte(0, 0)) == 0)\n"
	       "return 'allow' end)");
}

static void figures(void **state)
{
	struct script *s = load("mctunnel.policy('p', function(c) if c.path then error('x') end return 'allow' end)");
	struct script_hook h;
	struct facts f = { .listener = "tcp" };
	struct policy_answer a;

	for (int i = 0; i < 10; i++)
		policy_ask("p", &f, NULL, NULL, &a);
	ask("p");
	assert_true(script_hook(s, 0, &h));
	assert_false(script_hook(s, 1, &h));
	assert_int_equal(h.calls, 11);
	assert_int_equal(h.errors, 1);
	assert_true(h.p50_ns > 0 && h.p50_ns <= h.p99_ns && h.sum_ns >= h.max_ns);
	assert_true(script_has(s, "p") && !script_has(s, "q"));
	script_free(s);
}

/* ---- patterns are Lua's: the library's own say the same ---- */

static lua_State *original(void)
{
	static lua_State *L;

	if (!L) {
		L = luaL_newstate();
		luaL_openlibs(L);
	}
	lua_settop(L, 0);
	return L;
}

static void add_values(lua_State *L, int from, char *out, size_t size)
{
	struct strbuf b;

	strbuf_init(&b, out, size);
	for (int i = from; i <= lua_gettop(L); i++) {
		strbuf_add(&b, "[%s]", luaL_tolstring(L, i, NULL));
		lua_pop(L, 1);
	}
}

static const char compare[] = "local name, s, p, x = ...\n"
			      "if name == 'gmatch' then local t = {} for a, b in s:gmatch(p) do t[#t + 1] = tostring(a) .. ',' .. tostring(b) end return table.concat(t, ';') end\n"
			      "return string[name](s, p, x)";

static void call_one(lua_State *L, const char *name, const char *s, const char *p, const char *x, char *out, size_t size)
{
	assert_int_equal(luaL_loadstring(L, compare), LUA_OK);
	lua_pushstring(L, name);
	lua_pushstring(L, s);
	lua_pushstring(L, p);
	lua_pushstring(L, x);
	if (!x)
		lua_pop(L, 1);
	if (lua_pcall(L, x ? 4 : 3, LUA_MULTRET, 0) == LUA_OK)
		add_values(L, 1, out, size);
	else
		snprintf(out, size, "error");
	lua_settop(L, 0);
}

static unsigned draw(unsigned n)
{
	static uint64_t seed = 42;

	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % n;
}

static void random_text(char *out, const char *const *pieces, unsigned n, unsigned most)
{
	*out = '\0';
	for (unsigned i = draw(most + 1); i > 0; i--)
		str_copy(out + strlen(out), 100, pieces[draw(n)]);
}

static void patterns_are_the_same(void **state)
{
	static const char *const pieces[] = { "a", "b", ".", "%a", "%d", "%S", "%w", "[ab]", "[^a]", "[a-c1]", "[]]", "[%d_]", "*", "+", "-", "?", "(", ")", "()", "^", "$",
		"%b()", "%f[%a]", "%f[%A]", "%1", "%2", "%%", "%.", "[", "]", "%", "x", "[^%s]", "%b", "%f" };
	static const char *const letters[] = { "a", "b", "c", "1", "2", " ", "(", ")", "]", "_", "%", "x", "aa", "ab" };
	static const char *const replacements[] = { "", "x", "%0", "%1", "<%1%2>", "%%", "%9", "%" };
	static const char *const names[] = { "find", "match", "gmatch", "gsub" };
	struct script *s = load("");
	char subject[200], pattern[200], want[2000], got[2000];
	unsigned matched = 0;

	for (int i = 0; i < 12000; i++) {
		const char *name = names[draw(4)], *x = strcmp(name, "gsub") == 0 ? replacements[draw(8)] : draw(4) ? NULL : draw(2) ? "2" : "-2";

		random_text(subject, letters, 14, 8);
		random_text(pattern, pieces, 35, 5);
		if (strcmp(name, "gmatch") == 0)
			x = NULL;
		s->budget.left = 1000000;
		s->budget.began_ns = budget_now_ns();
		call_one(original(), name, subject, pattern, x, want, sizeof(want));
		call_one(s->L, name, subject, pattern, x, got, sizeof(got));
		matched += strcmp(want, "[nil]") != 0 && strcmp(want, "error") != 0;
		if (strcmp(want, got) != 0)
			fail_msg("%s('%s', '%s', %s): %s instead of %s", name, subject, pattern, x ? x : "nil", got, want);
	}
	assert_true(matched > 2000);
	script_free(s);
	lua_close(original());
}

/* Not a test: what a call costs. */
static void price(void **state)
{
	static const struct {
		const char *name, *body;
	} policies[] = {
		{ "allow", "return 'allow'" },
		{ "network, path", "if not mctunnel.cidr(c.src, '10.0.0.0/8') then return 'deny', 'outside' end if c.path and c.path:match('^/other') then return 'reject' end return 'allow'" },
		{ "counter with a rate", "t:incr(c.src) if t:rate(c.src, '10s') > 1e9 then return 'deny', 'too many', 429 end return 'allow'" },
		{ "office hours", "local d = mctunnel.date() if d.hour > 25 then return 'deny' end return 'allow'" },
		{ "header, metric", "m:inc(c.header('x-tenant') or 'none') return 'allow'" },
	};

	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		char *script = xasprintf("local t = mctunnel.counter('price') local m = mctunnel.metric('price', 'x', { 'tenant' })\n"
					 "mctunnel.policy('p', function(c) %s end)", policies[i].body);
		struct script *s = load(script);
		struct script_hook h;

		for (int n = 0; n < 5000; n++)
			assert_int_equal(ask("p").kind, POLICY_ALLOW);
		script_hook(s, 0, &h);
		print_message("%-20s mean %5.0f ns, half below %5.0f, 99 of 100 below %5.0f\n", policies[i].name, (double)h.sum_ns / (double)h.calls,
			      (double)h.p50_ns, (double)h.p99_ns);
		script_free(s);
		free(script);
	}
}

static int begin(void **state)
{
	return mkdtemp(folder) && addr_parse(&src, "10.1.2.3:4567") == 0 && addr_parse(&dst, "192.0.2.1:443") == 0 ? 0 : -1;
}

static int end(void **state)
{
	char *command = xasprintf("rm -rf '%s'", folder);
	int rc;

	files_free(conf_of("")->files);
	rc = system(command);
	free(command);
	return rc;
}

int main(void)
{
	alarm(100); /* a script that cannot be stopped must not stop the tests */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),
		cmocka_unit_test(fields),
		cmocka_unit_test(fields_of_plain_tcp_are_nil),
		cmocka_unit_test(without_scripts_policies_deny),
		cmocka_unit_test(agents),
		cmocka_unit_test(ends),
		cmocka_unit_test(wrong_scripts),
		cmocka_unit_test(unloadable_scripts),
		cmocka_unit_test(deep_nesting_does_not_parse),
		cmocka_unit_test(a_leak_ends_in_a_new_state),
		cmocka_unit_test(a_function_that_is_always_too_slow_rests),
		cmocka_unit_test(coroutines_that_are_left_behind_are_collected),
		cmocka_unit_test(the_client_cannot_be_kept),
		cmocka_unit_test(no_memory_is_no_answer),
		cmocka_unit_test(errors_have_place_and_trace),
		cmocka_unit_test(modules),
		cmocka_unit_test(lists_and_maps),
		cmocka_unit_test(files_are_those_that_were_checked),
		cmocka_unit_test(counters_of_scripts),
		cmocka_unit_test(metrics_of_scripts),
		cmocka_unit_test(time_and_date),
		cmocka_unit_test(ordinary_work_fits_the_budget),
		cmocka_unit_test(figures),
		cmocka_unit_test(patterns_are_the_same),
		cmocka_unit_test(price),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
