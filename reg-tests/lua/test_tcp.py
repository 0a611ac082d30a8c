#!/usr/bin/env python3
"""Policies for clients of mode tcp: each answer, what they count and publish, sessions that are told at their end, scripts that fail."""
import json
import os
import shutil
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from ctl import admin_settings, command
from harness import check, equal


def world(run, script, listeners, serve=None, agent_ready=True, **more):
    """One listener for each policy named; its route is site-a/a."""
    path = run.path("policy.lua")
    with open(path, "w") as f:
        f.write(script)
    settings = admin_settings(run, "hub")
    settings["lua"] = {"load": path}
    rows = {name: {"route": "site-a/a", "policy": name} for name in listeners}
    rows["free"] = "site-a/a"
    hub = scene.Hub(run, rows, settings=settings, **more).start().wait_ready()
    servers = [scene.service(s, tcp.Server(run, serve or tcp.banner(s)).target) for s in ("a", "b")]
    scene.Agent(run, hub.authority, [hub.address], servers).start()
    if agent_ready:
        hub.wait_links(2)
    return hub


def line(hub, listener, n=1):
    return hub.wait_log("session", n, listener=listener)[-1]


def expect_refusal(hub, name):
    """The reset may come before connect() is through."""
    try:
        tcp.expect_reset(tcp.open_socket(hub.listen[name]), "a client of " + name)
    except ConnectionResetError:
        pass


ANSWERS = """
mctunnel.policy("allow", function(c) assert(c.route == "site-a/a" and c.listener == "allow") return "allow" end)
mctunnel.policy("deny", function(c) return "deny", "outside" end)
mctunnel.policy("reject", function(c) return "reject" end)
mctunnel.policy("route", function(c) return "route", "site-a/b" end)
mctunnel.policy("nowhere", function(c) return "route", "site-x/b" end)
mctunnel.policy("fail", function(c) error("boom") end)
mctunnel.policy("endless", function(c) while true do end end)
"""


def test_answers(run):
    hub = world(run, ANSWERS, ["allow", "deny", "reject", "route", "nowhere", "fail", "endless"])
    equal(tcp.ask_name(hub.listen["allow"]), "a", "served by")
    equal(tcp.ask_name(hub.listen["route"]), "b", "served by")
    for name, reason in [("deny", "policy"), ("reject", "rejected"), ("nowhere", None), ("fail", "policy"), ("endless", "policy")]:
        expect_refusal(hub, name)
        if reason:
            equal(line(hub, name)["reason"], reason, "reason of " + name)
    equal(line(hub, "deny")["text"], "outside", "what the policy said")
    equal(line(hub, "fail")["text"], "the policy failed", "what a client's line says")
    error = hub.wait_log("lua_error", function="fail")[0]
    equal((error["text"], error["line"], error["file"]), ("boom", 7, run.path("policy.lua")), "the error")
    check("policy.lua:7" in error["trace"], "trace:", error["trace"])
    check("budget" in hub.wait_log("lua_error", function="endless")[0]["text"], "the endless one")
    equal(hub.metric("mctunnel_lua_errors_total"), 2, "errors")
    equal(hub.metric('mctunnel_lua_calls_total{function="fail",result="error"}'), 1, "calls that failed")
    equal(hub.metric('mctunnel_lua_calls_total{function="allow",result="allow"}'), 1, "calls that allowed")
    rows = json.loads(command(run, "hub", "show lua json"))
    equal(sum(r["calls"] or 0 for r in rows if r["name"] == "deny"), 1, "calls in show lua")
    equal(len([r for r in rows if r["kind"] == "state" and r["memory"] > 0]), run.threads, "states in show lua")
    equal([r["name"] for r in rows if r["kind"] == "script"], [run.path("policy.lua")], "scripts in show lua")


LIMIT = """
mctunnel.policy("slow", function(c) c:limit_rate("1m", "50k") return "allow" end)
"""


def test_limit_rate(run):
    hub = world(run, LIMIT, ["slow"], serve=tcp.echo)
    data = os.urandom(100 << 10)
    s = tcp.open_socket(hub.listen["slow"])
    began = time.monotonic()
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        more = s.recv(65536)
        check(more, "an end after", len(got))
        got += more
    took = time.monotonic() - began
    s.close()
    check(got == data, "other bytes")
    check(took > 1.0, "100 KiB at 50 KiB a second took only", took)


COUNT = """
local clients = mctunnel.counter("clients", { size = 1000, expire = "1h" })
local refused = mctunnel.metric("refused", "Clients refused", { "listener" })
mctunnel.policy("three", function(c)
  if clients:incr(c.src) > 3 then refused:inc(c.listener) return "deny", "enough" end
  return "allow"
end)
"""


def test_counters_are_of_all_threads(run):
    hub = world(run, COUNT, ["three"])
    served = 0
    for _ in range(12):
        try:
            served += tcp.ask_name(hub.listen["three"]) == "a"
        except OSError:
            pass
    equal(served, 3, "clients served")
    equal(hub.metric('mctunnel_lua_refused_total{listener="three"}'), 9, "counted by the script")
    if shutil.which("promtool"):
        done = subprocess.run(("promtool", "check", "metrics"), input=hub.get("/metrics")[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        equal((done.returncode, done.stdout), (0, ""), "what promtool says")


ENDS = """
local up = mctunnel.metric("bytes", "Bytes by tunnel", { "tunnel", "service", "reason" })
mctunnel.on_session_end(function(e)
  assert(e.listener == "free" and e.agent == "edge-1" and e.total_ms >= 0 and #e.id > 0)
  up:inc(e.up + e.down, e.tunnel, e.service, e.reason)
end)
"""


def test_ends_of_sessions(run):
    hub = world(run, ENDS, [])
    for _ in range(5):
        equal(tcp.ask_name(hub.listen["free"]), "a", "served by")
    hub.nothing_left()
    name = 'mctunnel_lua_bytes_total{tunnel="site-a",service="a",reason="done"}'
    hub.wait_metric(name, lambda v: v > 0)
    hub.wait_log("session", 5)
    ups = sum(int(r["up"]) + int(r["down"]) for r in hub.log("session"))
    hub.wait_metric(name, ups)
    equal(hub.metric("mctunnel_lua_errors_total"), 0, "errors")


AGENTS = """
mctunnel.on_agent(function(a)
  assert(a.tunnel == "site-a" and a.services[1] == "a" and mctunnel.cidr(a.addr, "127.0.0.0/8") and a.cert:find("edge%-1"))
  if a.name ~= "edge-1" then return "deny", "only edge-1" end
  return "allow"
end)
"""


def test_agents(run):
    hub = world(run, AGENTS, [])
    equal(tcp.ask_name(hub.listen["free"]), "a", "served by")
    equal(hub.log("lua_error"), [], "errors")


def test_agents_denied(run):
    hub = world(run, 'mctunnel.on_agent(function(a) return "deny", "closed today" end)', [], agent_ready=False)
    record = hub.wait_log("link_refused")[0]
    equal((record["reason"], record["text"]), ("policy", "closed today"), "why the link is refused")
    equal(hub.metric("mctunnel_links"), 0, "links")


def test_agents_when_the_script_fails(run):
    hub = world(run, 'mctunnel.on_agent(function(a) error("x") end)', [], agent_ready=False)
    equal(hub.wait_log("link_refused")[0]["text"], "the policy failed", "why the link is refused")


STORM = """
mctunnel.policy("fail", function(c) error("boom") end)
mctunnel.policy("endless", function(c) while true do pcall(string.rep, "x", 1000) end end)
mctunnel.policy("hungry", function(c) local t = {} while true do t[#t + 1] = ("x"):rep(1000) .. #t end end)
mctunnel.policy("good", function(c) return "allow" end)
"""


def test_storm_of_errors(run):
    hub = world(run, STORM, ["fail", "endless", "hungry", "good"])
    stop, began = [], time.monotonic()

    def bother(name):
        n = 0
        while not stop:
            expect_refusal(hub, name)
            n += 1
        return n
    troubles = [harness.Background(bother, name) for name in ("fail", "endless", "hungry")]
    for _ in range(100):
        equal(tcp.ask_name(hub.listen["good"]), "a", "served by")
        equal(tcp.ask_name(hub.listen["free"]), "a", "served by")
    stop.append(True)
    asked = sum(t.finish() for t in troubles)
    check(asked > 10, "asked only", asked)
    errors = len(hub.log("lua_error"))
    seconds = time.monotonic() - began
    check(errors <= (20 + seconds + 1) * 3 * run.threads, "lines in the log:", errors, "in", seconds, "s")
    equal(hub.metric('mctunnel_lua_calls_total{function="good",result="allow"}'), 100, "good calls")


if __name__ == "__main__":
    harness.main(globals())
