/* The dry run of a script: words of the command line become facts, a state is made as for a worker, and what its functions say is printed. Nothing runs but this. */
#include "mctunnel/script/dryrun.h"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/mem.h"
#include "mctunnel/base/str.h"
#include "mctunnel/conf/conf.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/conf/value.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/script/lua.h"
#include "mctunnel/tunnel/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MANY 64 /* headers, services, names of ALPN, folders */

static struct run {
	const char *file, *policy, *route;
	struct facts facts;
	const char *alpn[MANY], *headers[MANY], *services[MANY];
	char *folders[MANY];
	size_t headers_n, folders_n;
	struct policy_agent agent;
	struct policy_end end;
	bool ends, json;
	uint32_t times;
	uint64_t memory, budget_ms;
	size_t shown;
} run;

/* ---- words ---- */

static int wrong(const char *option, const char *text)
{
	fprintf(stderr, "lua: %s: %s\n", option, text);
	return -1;
}

static int take_addr(const char *option, const char *text, struct addr *out)
{
	char *with_port = xasprintf(strchr(text, ':') && strchr(text, ':') != strrchr(text, ':') && *text != '[' ? "[%s]:0" : "%s:0", text);
	int rc = 0;

	if (addr_parse(out, text) < 0 && addr_parse(out, with_port) < 0)
		rc = wrong(option, "an address is expected, with a port or without");
	free(with_port);
	return rc;
}

static int take_number(const char *option, const char *text, enum kind kind, uint64_t max, uint64_t *out)
{
	const struct row row = { .kind = kind, .size = sizeof(*out), .max = max };
	char err[160];

	return value_parse(&row, text, "", out, err, sizeof(err)) < 0 ? wrong(option, err) : 0;
}

static void take_alpn(char *text)
{
	for (char *next; text && run.facts.alpn_n < MANY; text = next) {
		next = strchr(text, ',');
		if (next)
			*next++ = '\0';
		run.alpn[run.facts.alpn_n++] = text;
	}
}

static int take_header(char *text)
{
	if (!strchr(text, ':'))
		return wrong("--header", "\"NAME: VALUE\" is expected");
	if (run.headers_n < MANY)
		run.headers[run.headers_n++] = text;
	return 0;
}

static const struct {
	const char *name, *arg, *help;
	const char **text; /* where it goes, when that is all */
} options[] = {
	{ "--policy", "NAME", "the policy to ask; default: all of them", &run.policy },
	{ "--listener", "NAME", "the client: the listener it came to", &run.facts.listener },
	{ "--src", "ADDR[:PORT]", "its address", NULL },
	{ "--dst", "ADDR:PORT", "the address it came to", NULL },
	{ "--sni", "NAME", "the name it asked for in TLS", &run.facts.sni },
	{ "--alpn", "A,B", "the protocols it offers in TLS", NULL },
	{ "--tls", NULL, "it speaks TLS", NULL },
	{ "--cert", "NAME", "the name in its certificate", &run.facts.cert },
	{ "--method", "WORD", "the request: its method; default with --host or --path: GET", &run.facts.method },
	{ "--host", "NAME", "its host", &run.facts.host },
	{ "--path", "PATH", "its path; with '?' and a query", &run.facts.path },
	{ "--header", "NAME: VALUE", "a field of it; repeatable", NULL },
	{ "--route", "TUNNEL/SERVICE", "where the rules lead", &run.route },
	{ "--agent", "NAME", "ask on_agent about this one; with --tunnel, --addr, --cert, --service (repeatable)", &run.agent.name },
	{ "--tunnel", "NAME", "of an agent, or of a session that has ended", &run.agent.tunnel },
	{ "--addr", "ADDR", "of an agent", &run.agent.addr },
	{ "--service", "NAME", "of an agent, or of a session that has ended", NULL },
	{ "--end", NULL, "tell on_session_end of a session; with --tunnel, --service, --reason, --up, --down", NULL },
	{ "--reason", "WORD", "why it has ended; default: done", &run.end.reason },
	{ "--up", "BYTES", "what it has carried", NULL },
	{ "--down", "BYTES", "the same", NULL },
	{ "--times", "N", "ask so often; the answer is the last one", NULL },
	{ "--lib", "FOLDER", "where require() looks; default: the folder of FILE; repeatable", NULL },
	{ "--memory", "SIZE", "as global.lua.memory", NULL },
	{ "--budget", "TIME", "as global.lua.budget", NULL },
	{ "--json", NULL, "answers as JSON", NULL },
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

static void usage(void)
{
	fputs("Usage: mctunnelctl lua FILE [options]\n", stderr);
	for (size_t i = 0; i < OPTIONS; i++)
		fprintf(stderr, "  %-11s %-15s %s\n", options[i].name, options[i].arg ? options[i].arg : "", options[i].help);
}

static int take(const char *name, char *value)
{
	uint64_t n = 0;
	int rc = 0;

	if (strcmp(name, "--tls") == 0) {
		run.facts.tls = true;
	} else if (strcmp(name, "--json") == 0) {
		run.json = true;
	} else if (strcmp(name, "--end") == 0) {
		run.ends = true;
	} else if (strcmp(name, "--src") == 0) {
		rc = take_addr(name, value, &run.facts.src);
	} else if (strcmp(name, "--dst") == 0) {
		rc = take_addr(name, value, &run.facts.dst);
		run.facts.dst_port = addr_port(&run.facts.dst);
	} else if (strcmp(name, "--alpn") == 0) {
		take_alpn(value);
	} else if (strcmp(name, "--header") == 0) {
		rc = take_header(value);
	} else if (strcmp(name, "--service") == 0 && run.agent.services_n < MANY) {
		run.services[run.agent.services_n++] = run.end.service = value;
	} else if (strcmp(name, "--lib") == 0 && run.folders_n < MANY) {
		run.folders[run.folders_n++] = value;
	} else if (strcmp(name, "--up") == 0) {
		rc = take_number(name, value, KIND_SIZE, INT64_MAX, &run.end.up);
	} else if (strcmp(name, "--down") == 0) {
		rc = take_number(name, value, KIND_SIZE, INT64_MAX, &run.end.down);
	} else if (strcmp(name, "--memory") == 0) {
		rc = take_number(name, value, KIND_SIZE, 1u << 30, &run.memory);
	} else if (strcmp(name, "--budget") == 0) {
		rc = take_number(name, value, KIND_TIME, 1000, &run.budget_ms);
	} else if (strcmp(name, "--times") == 0) {
		rc = take_number(name, value, KIND_INT, 1000000, &n);
		run.times = n ? (uint32_t)n : 1;
	}
	return rc;
}

static int take_words(int n, char **words)
{
	for (int i = 0; i < n; i++) {
		size_t o = 0;

		while (o < OPTIONS && strcmp(options[o].name, words[i]) != 0)
			o++;
		if (o == OPTIONS && *words[i] != '-' && !run.file) {
			run.file = words[i];
			continue;
		}
		if (o == OPTIONS || (options[o].arg && i + 1 == n)) {
			wrong(words[i], o == OPTIONS ? "there is no such option" : "a value is missing");
			return -1;
		}
		char *value = options[o].arg ? words[++i] : NULL;
		if (options[o].text)
			*options[o].text = value;
		else if (take(options[o].name, value) < 0)
			return -1;
	}
	return run.file ? 0 : wrong("FILE", "a script is expected");
}

/* ---- what is asked about ---- */

static const char *find_header(const void *arg, const char *name, size_t i)
{
	for (size_t h = 0; h < run.headers_n; h++) {
		size_t len = strcspn(run.headers[h], ":");

		if (strlen(name) == len && strncasecmp(name, run.headers[h], len) == 0 && i-- == 0)
			return run.headers[h] + len + 1 + strspn(run.headers[h] + len + 1, " ");
	}
	return NULL;
}

static void complete(void)
{
	char *query = run.facts.path ? strchr(run.facts.path, '?') : NULL;

	if (!run.facts.listener)
		run.facts.listener = "dry-run";
	if (run.facts.host || run.facts.path || run.headers_n || run.facts.method) {
		run.facts.method = run.facts.method ? run.facts.method : "GET";
		run.facts.host = run.facts.host ? run.facts.host : "";
		run.facts.query = query ? xstrdup(query) : "";
		run.facts.path = run.facts.path ? run.facts.path : "/";
		run.facts.header = find_header;
	}
	if (query)
		*query = '\0'; /* within a word of the command line */
	run.facts.alpn = run.alpn;
	run.agent.services = run.services;
	run.agent.cert = run.facts.cert;
	run.end.listener = run.facts.listener;
	run.end.tunnel = run.agent.tunnel;
	run.end.host = run.facts.host;
	run.end.sni = run.facts.sni;
	run.end.id = "dry-run";
	run.end.reason = run.end.reason ? run.end.reason : "done";
}

/* ---- answers ---- */

static void put(const char *key, const char *text)
{
	if (!run.json) {
		printf("%s: %s\n", key, text);
		return;
	}
	printf("%s\"%s\":", run.shown++ ? "," : "", key);
	str_json(stdout, text);
}

static void put_number(const char *key, double n)
{
	char text[40];

	snprintf(text, sizeof(text), "%.15g", n);
	if (run.json)
		printf("%s\"%s\":%s", run.shown++ ? "," : "", key, text);
	else
		put(key, text);
}

static void put_fault(const struct script_fault *f)
{
	char place[540];

	put("answer", "error");
	snprintf(place, sizeof(place), "%s:%d", f->file, f->line);
	put("place", place);
	put("text", f->text);
	if (f->trace[0])
		put("trace", f->trace);
}

static void put_answer(const struct policy_answer *a)
{
	static const char *const words[] = { [POLICY_ALLOW] = "allow", [POLICY_DENY] = "deny", [POLICY_REJECT] = "reject", [POLICY_ROUTE] = "route" };
	char route[140];

	put("answer", words[a->kind]);
	if (a->kind == POLICY_DENY) {
		put_number("status", a->status);
		put("reason", a->reason);
	} else if (a->kind == POLICY_ROUTE) {
		snprintf(route, sizeof(route), "%s/%s", a->tunnel, a->service);
		put("route", route);
	}
	if (a->rate_up || a->rate_down) {
		put_number("rate_up", (double)a->rate_up);
		put_number("rate_down", (double)a->rate_down);
	}
}

static void put_cost(const struct script *s, const struct script_hook *h)
{
	struct script_figures f;

	script_figures(s, &f);
	put_number("calls", (double)h->calls);
	put_number("mean_us", h->calls ? (double)(h->sum_ns / h->calls) / 1000 : 0);
	put_number("instructions", (double)f.instructions); /* counted in steps */
	put_number("memory", (double)f.memory);
}

/* ---- asking ---- */

/* false: it failed. */
static bool ask_policy(const struct script *s, const char *name)
{
	struct policy_answer a;

	for (uint32_t i = 0; i < run.times; i++)
		policy_ask(name, &run.facts, run.route, "dry-run", &a);
	if (a.failed)
		put_fault(script_last_fault(s));
	else
		put_answer(&a);
	return !a.failed;
}

static bool ask_agent(const struct script *s)
{
	char why[128] = "";
	bool allowed = policy_agent(&run.agent, why, sizeof(why)) == REASON_DONE;
	bool failed = script_last_fault(s)->text[0];

	if (failed)
		put_fault(script_last_fault(s));
	else
		put("answer", allowed ? "allow" : "deny");
	if (!failed && !allowed)
		put("reason", why);
	return !failed;
}

static bool tell_end(const struct script *s)
{
	policy_end(&run.end);
	if (script_last_fault(s)->text[0])
		put_fault(script_last_fault(s));
	else
		put("answer", "done");
	return !script_last_fault(s)->text[0];
}

static bool wanted(const struct script_hook *h)
{
	switch (h->kind) {
	case SCRIPT_POLICY: return run.policy ? strcmp(run.policy, h->name) == 0 : !run.agent.name && !run.ends;
	case SCRIPT_AGENT: return run.agent.name != NULL;
	default: return run.ends;
	}
}

static bool ask_hook(const struct script *s, size_t i, struct script_hook *h)
{
	bool good = h->kind == SCRIPT_POLICY ? ask_policy(s, h->name) : h->kind == SCRIPT_AGENT ? ask_agent(s) : tell_end(s);

	if (script_hook(s, i, h))
		put_cost(s, h);
	return good;
}

static void say_none(void)
{
	if (run.policy)
		fprintf(stderr, "lua: %s registers no policy '%s'\n", run.file, run.policy);
	else if (run.agent.name || run.ends)
		fprintf(stderr, "lua: %s registers no %s\n", run.file, run.agent.name ? "on_agent" : "on_session_end");
	else
		fprintf(stderr, "lua: %s can be loaded, but registers no policy (--agent and --end try its other functions)\n", run.file);
}

/* Functions for agents and ends are asked together, so once. */
static int ask_all(const struct script *s)
{
	bool good = true, seen[3] = { false };
	struct script_hook h;
	size_t asked = 0;

	for (size_t i = 0; script_hook(s, i, &h); i++) {
		if (!wanted(&h) || (h.kind != SCRIPT_POLICY && seen[h.kind]))
			continue;
		seen[h.kind] = true;
		if (run.json)
			fputs(asked ? ",\n{" : "[{", stdout);
		else if (asked)
			putchar('\n');
		asked++;
		run.shown = 0;
		put("function", h.name);
		good &= ask_hook(s, i, &h);
		if (run.json)
			putchar('}');
	}
	if (run.json)
		puts(asked ? "]" : "[]");
	if (asked == 0)
		say_none();
	return good && asked ? 0 : 1;
}

static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? xasprintf("%.*s", (int)(slash - path), path) : xstrdup(".");
}

static int ask_file(void)
{
	char *file = (char *)run.file, *folder = folder_of(run.file);
	struct conf conf = { .refs = 1, .files = files_new() };
	struct script_fault fault;
	struct script *s;
	int rc = 1;

	if (run.folders_n == 0)
		run.folders[run.folders_n++] = folder;
	conf.global.lua = (struct conf_lua){ .load = { &file, 1 }, .path = { run.folders, run.folders_n }, .memory = run.memory, .budget_ms = (uint32_t)run.budget_ms };
	s = script_new(&conf, NULL, true, &fault);
	if (s) {
		script_use(s);
		rc = ask_all(s);
		script_free(s);
	} else {
		fprintf(stderr, "%s:%d: [ALERT] %s\n", fault.file, fault.line, fault.text);
	}
	files_free(conf.files);
	free(folder);
	return rc;
}

int dryrun(int n, char **words)
{
	run = (struct run){ .times = 1, .memory = 16u << 20, .budget_ms = 1 };
	if (take_words(n, words) < 0) {
		usage();
		return 1;
	}
	complete();
	return ask_file();
}
