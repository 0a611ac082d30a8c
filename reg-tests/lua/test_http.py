#!/usr/bin/env python3
"""Policies of mode http: asked for each request, also on one connection; the examples at work: tokens, tenants, a canary, a maintenance page."""
import os
import shutil
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
import web
from ctl import admin_settings, reload
from harness import check, equal

EXAMPLES = os.path.join(harness.TOP, "etc", "examples")


def world(run, scripts, policies, rules=None):
    """scripts: texts, or names of examples; a listener for each policy."""
    shutil.copytree(EXAMPLES, run.path("etc"))
    load = []
    for i, script in enumerate(scripts):
        load.append(run.path("etc/lua/" + script if script.endswith(".lua") else "own-%d.lua" % i))
        if not script.endswith(".lua"):
            with open(load[-1], "w") as f:
                f.write(script)
    rows = {name: dict({"mode": "http", "route": "site-a/web", "policy": name}, **({"rules": rules} if rules else {})) for name in policies}
    hub = scene.Hub(run, rows, settings=dict(admin_settings(run, "hub"), lua={"load": load})).start().wait_ready()
    hub.origins = {name: web.Origin(run, name) for name in ("web", "web-next")}
    services = [scene.service(name, o.target) for name, o in hub.origins.items()]
    scene.Agent(run, hub.authority, [hub.address], services).start()
    hub.wait_links(2)
    return hub


FIELDS = """
mctunnel.policy("fields", function(c)
  assert(c.method == "POST" and c.host == "www.test" and c.path == "/a/b" and c.query == "?x=1" and c.route == "site-a/web" and c.listener == "fields")
  assert(c.header("X-One") == "1" and c:header("x-two") == "2" and c.header("x-two", 2) == "3" and c.header("none") == nil and #c.id > 0)
  assert(c.src_port > 0 and mctunnel.cidr(c.src, "127.0.0.0/8") and c.tls == false)
  return "allow"
end)
"""


def test_fields(run):
    hub = world(run, [FIELDS], ["fields"])
    with web.Client(hub.listen["fields"]) as c:
        m = c.ask("/a/b?x=1", "POST", host="WWW.test:80", fields=(("X-One", "1"), ("X-Two", "2"), ("X-Two", "3")), body=b"abc")
        equal((m.status, m.text), (200, "web"), "answer; " + str(hub.log("lua_error")))


ANSWERS = """
mctunnel.policy("by_path", function(c)
  if c.path == "/deny" then return "deny" end
  if c.path == "/later" then return "deny", "come back later", 503 end
  if c.path == "/next" then return "route", "site-a/web-next" end
  if c.path == "/fail" then error("boom") end
  if c.path == "/reject" then return "reject" end
  return "allow"
end)
"""


def test_each_request_is_asked_about(run):
    hub = world(run, [ANSWERS], ["by_path"])
    with web.Client(hub.listen["by_path"]) as c:
        for path, status, text in [("/", 200, "web"), ("/deny", 403, None), ("/next", 200, "web-next"), ("/later", 503, None), ("/fail", 403, None),
                                   ("/", 200, "web"), ("/next", 200, "web-next"), ("/deny", 403, None)]:
            m = c.ask(path)
            equal(m.status, status, path)
            if text:
                equal(m.text, text, path)
            if path == "/later":
                check("come back later" in m.text, "what the policy said is not in:", m.text)
            if path == "/fail":
                check("boom" not in m.text, "the error is none of the client's business:", m.text)
    with web.Client(hub.listen["by_path"]) as c:
        c.send("GET /reject HTTP/1.1\r\nHost: x\r\n\r\n")
        tcp.expect_reset(c.s, "a request that is rejected")
    equal([r["reason"] for r in hub.wait_log("session", 9)].count("policy"), 5, "requests that ended by the policy")
    equal(hub.metric('mctunnel_lua_calls_total{function="by_path",result="allow"}'), 2, "calls that allowed")


def test_a_rule_that_denies_is_not_overruled(run):
    hub = world(run, ['mctunnel.policy("p", function(c) return "allow" end)'], ["p"],
                rules=({"path": "/secret", "action": "deny"}, {"route": "site-a/web"}))
    with web.Client(hub.listen["p"]) as c:
        equal(c.ask("/secret").status, 403, "what a rule denies")
        equal(c.ask("/").status, 200, "what it does not")


ENDS = """
local bytes = mctunnel.metric("bytes", "Bytes by tunnel", { "tunnel", "service", "reason" })
local count = mctunnel.metric("requests", "Requests", { "reason" })
mctunnel.on_session_end(function(e)
  assert(e.listener == "p" and e.total_ms >= 0)
  count:inc(e.reason)
  if e.tunnel then bytes:inc(e.up + e.down, e.tunnel, e.service, e.reason) end
end)
mctunnel.policy("p", function(c) return "allow" end)
"""


def test_each_request_is_accounted(run):
    """Also those of one connection, and those that were refused."""
    hub = world(run, [ENDS], ["p"], rules=({"path": "/secret", "action": "deny"}, {"route": "site-a/web"}))
    with web.Client(hub.listen["p"]) as c:
        for _ in range(5):
            equal(c.ask("/", "POST", body=bytes(1000)).status, 200)
        equal(c.ask("/secret").status, 403)
    hub.wait_metric('mctunnel_lua_requests_total{reason="denied"}', 1)
    lines = hub.wait_log("session", 5, reason="done")
    hub.wait_metric('mctunnel_lua_bytes_total{tunnel="site-a",service="web",reason="done"}', sum(int(r["up"]) + int(r["down"]) for r in lines))
    equal(hub.metric('mctunnel_lua_requests_total{reason="done"}'), 5, "requests that were served")
    equal(hub.metric("mctunnel_lua_errors_total"), 0, "errors")


def test_tokens(run):
    hub = world(run, ["tokens.lua"], ["tokens"])
    with web.Client(hub.listen["tokens"]) as c:
        equal(c.ask("/").status, 401, "without a token")
        equal(c.ask("/", fields=(("Authorization", "Bearer nonsense"),)).status, 401, "with a wrong one")
        equal(c.ask("/", fields=(("Authorization", "Bearer not-a-secret-1"),)).text, "web", "with a good one")
        with open(run.path("etc/lua/tokens.map"), "w") as f:
            f.write("new-token carol\n")
        reload(hub, lambda c: None)
        equal(c.ask("/", fields=(("Authorization", "Bearer not-a-secret-1"),)).status, 401, "with one that is gone")
        equal(c.ask("/", fields=(("Authorization", "Bearer new-token"),)).text, "web", "with a new one")
        for _ in range(40):
            status = c.ask("/").status
        equal(status, 429, "after 40 failures")
    equal(hub.metric('mctunnel_lua_token_requests_total{owner="alice"}'), 1, "requests by alice")


def test_tenants(run):
    hub = world(run, ["tenants.lua"], ["tenants"])
    with web.Client(hub.listen["tenants"]) as c:
        seen = [c.ask("/", host="small.test").status for _ in range(130)]
        check(seen[:90] == [200] * 90 and seen[-1] == 429, "statuses:", seen)
        equal(c.ask("/", host="acme.test").status, 200, "another tenant")
        equal(c.ask("/", host="nobody").status, 404, "no tenant")
    hub.wait_metric('mctunnel_lua_tenant_refused_total{tenant="small"}', seen.count(429))


def test_canary_and_maintenance(run):
    hub = world(run, ["canary.lua", "maintenance.lua"], ["canary", "maintenance"])
    with web.Client(hub.listen["canary"]) as c:
        equal(c.ask("/", fields=(("X-Canary", "yes"),)).text, "web-next", "who wants it")
        equal(c.ask("/", fields=(("X-Canary", "no"),)).text, "web", "who does not")
    with web.Client(hub.listen["maintenance"]) as c:
        m = c.ask("/")
        equal(m.status, 503, "while we work on it")
        check("back soon" in m.text, m.text)
        with open(run.path("etc/lua/maintenance.lst"), "w") as f:
            f.write("open\n")
        reload(hub, lambda c: None)
        equal(c.ask("/").text, "web", "afterwards")


if __name__ == "__main__":
    harness.main(globals())
