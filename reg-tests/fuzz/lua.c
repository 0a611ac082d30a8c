/* Fuzzes scripts: any text is loaded, and every function that it registers is called with a client, an agent, an ended session. Whatever it is, it ends soon,
 * stays within its memory, and says yes only when it has said so. */
#define _GNU_SOURCE
#define LOAD_MS 2
#include "script/lua.c"

#include "mctunnel/base/addr.h"
#include "mctunnel/base/bug.h"
#include "mctunnel/conf/files.h"
#include "mctunnel/tunnel/facts.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *field(const void *arg, const char *name, size_t i)
{
	return i < 2 ? name : NULL;
}

static void ask_about_client(const char *name)
{
	static const char *const alpn[] = { "h2", "http/1.1" };
	struct facts f = { .listener = "web", .dst_port = 443, .tls = true, .sni = "a.example.com", .alpn = alpn, .alpn_n = 2, .method = "GET",
			   .host = "www.example.com", .path = "/a/b%20c", .query = "?x=1", .header = field };
	struct policy_answer a;

	BUG_ON(addr_parse(&f.src, "10.1.2.3:4567") < 0);
	policy_ask(name, &f, "site-a/web", "id", &a);
	BUG_ON(a.failed && a.kind != POLICY_DENY);
	BUG_ON(a.failed != (script_last_fault(script_used())->text[0] != '\0'));
	BUG_ON(a.kind == POLICY_ROUTE && (!a.tunnel[0] || !a.service[0]));
	BUG_ON(a.kind == POLICY_DENY && (a.status < 400 || a.status > 599));
}

static void call_all(struct script *s)
{
	static const char *const services[] = { "ssh", "web" };
	struct policy_agent g = { "edge-1", "site-a", "192.0.2.1", "CN=edge-1", services, 2 };
	struct policy_end e = { .listener = "web", .tunnel = "site-a", .reason = "done", .up = 1, .down = 2, .queue_ms = -1 };
	struct script_hook h;
	char why[64];

	for (size_t i = 0; i < 8 && script_hook(s, i, &h); i++) {
		if (h.kind == SCRIPT_POLICY)
			ask_about_client(h.name);
		BUG_ON(s->budget.peak > s->budget.limit);
	}
	if (policy_agent(&g, why, sizeof(why)) == REASON_DONE && s->ops.wants_agents)
		BUG_ON(s->fault.text[0]);
	policy_end(&e);
}

static void run_script(const char *path)
{
	char *load = (char *)path;
	struct conf c = { .refs = 1, .files = files_new() };
	struct script_fault fault;
	struct script *s;

	c.global.lua = (struct conf_lua){ .load = { &load, 1 }, .path = { &load, 1 }, .memory = 1u << 20, .budget_ms = 1 };
	s = script_new(&c, NULL, true, &fault);
	BUG_ON(!s && !fault.text[0]);
	if (s) {
		script_use(s);
		call_all(s);
		script_free(s);
	}
	files_free(c.files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool quiet;
	char path[64], err[100];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (!quiet && log_open("/dev/null", LOG_TEXT, LOG_ALERT, err, sizeof(err)) == 0)
		quiet = true;
	BUG_ON(fd < 0 || write(fd, data, size) != (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	run_script(path);
	close(fd);
	return 0;
}
