#!/usr/bin/env python3
"""Scripts as an operator meets them: what -c says, reloads good and bad and under load, modules and lists, a chroot, the dry run, the examples."""
import json
import os
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki
import scene
import tcp
from ctl import admin_settings, command, reload
from harness import check, equal

EXAMPLES = os.path.join(harness.TOP, "etc", "examples", "lua")


def write(run, name, text):
    os.makedirs(os.path.dirname(run.path(name)), exist_ok=True)
    with open(run.path(name), "w") as f:
        f.write(text)
    return run.path(name)


def hub_of(run, listeners, load, lua=None, environment=None, **settings):
    settings = dict(admin_settings(run, "hub"), lua=dict({"load": load}, **(lua or {})), **settings)
    return scene.Hub(run, listeners, settings=settings, environment=environment)


def serve(run, hub):
    hub.start().wait_ready()
    a, b = tcp.Server(run, tcp.banner("a")), tcp.Server(run, tcp.banner("b"))
    scene.Agent(run, hub.authority, [hub.address], [scene.service("a", a.target), scene.service("b", b.target)]).start()
    hub.wait_links(2)
    return hub


# ---- -c ----

def findings(run, authority, script, policy="p", load=True):
    path = write(run, "policy.lua", script)
    settings = {"lua": {"load": path}} if load else {}
    hub = scene.Hub(run, {"in": {"route": "site-a/a", "policy": policy}}, settings=settings, authority=authority)
    done = subprocess.run([scene.binary(), "-c", "-f", hub.config_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line for line in done.stdout.splitlines() if "ALERT" in line]
    equal(done.returncode, 1 if lines else 0, done.stdout)
    return lines


def test_what_c_says(run):
    path, authority = run.path("policy.lua"), pki.Pki(run.path("pki"))
    equal(findings(run, authority, 'mctunnel.policy("p", function() return "allow" end)'), [], "a good script")
    for script, wanted in [("\nx = = 1", "%s:2: [ALERT] global.lua.load: unexpected symbol near '='"),
                           ("\n\nnothing()", "%s:3: [ALERT] global.lua.load: attempt to call a nil value (global 'nothing')"),
                           ("while true do end", "%s:1: [ALERT] global.lua.load: it has used up its budget of instructions (global.lua.budget)"),
                           ('mctunnel.map("none.map")', "%s:1: [ALERT] global.lua.load: cannot read '" + run.path("none.map") + "': no such file")]:
        equal(findings(run, authority, script), [wanted % path], script)
    told = findings(run, authority, 'mctunnel.policy("office_hours", function() end)', "ofice_hours")
    check(len(told) == 1 and told[0].endswith("listeners[0].policy: no script registers a policy 'ofice_hours' (did you mean 'office_hours'?)"), told)
    told = findings(run, authority, "", "p", load=False)
    check(len(told) == 1 and "there are no scripts" in told[0], told)


# ---- reload ----

def test_reload(run):
    path = write(run, "policy.lua", 'mctunnel.policy("p", function() return "route", "site-a/a" end)')
    hub = serve(run, hub_of(run, {"in": {"route": "site-a/b", "policy": "p"}}, path))
    equal(tcp.ask_name(hub.listen["in"]), "a", "served by")
    write(run, "policy.lua", 'mctunnel.policy("p", function() return "allow" end)')
    reload(hub, lambda c: None)
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by, after the reload")
    write(run, "policy.lua", "\n\noh no")
    answer = reload(hub, lambda c: None, good=False)
    check("%s:3: [ALERT]" % path in answer, answer)
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by, after a reload that was refused")
    write(run, "policy.lua", 'mctunnel.policy("other", function() return "allow" end)')
    answer = reload(hub, lambda c: None, good=False)
    check("no script registers a policy 'p'" in answer, answer)
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by, after another that was refused")

    def drop(config):
        del config["global"]["lua"]
        for row in config["listeners"]:
            row.pop("policy", None)
    reload(hub, drop)
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by, without scripts")
    equal(command(run, "hub", "show lua").count("\n"), 2, "lines of show lua")


def test_counts_live_through_reloads(run):
    path = write(run, "policy.lua", 'local t = mctunnel.counter("t") local m = mctunnel.metric("asked", "x")\n'
                 'mctunnel.policy("p", function() m:inc() if t:incr("all") > 4 then return "route", "site-a/b" end return "allow" end)')
    hub = serve(run, hub_of(run, {"in": {"route": "site-a/a", "policy": "p"}}, path))
    for i in range(6):
        equal(tcp.ask_name(hub.listen["in"]), "a" if i < 4 else "b", "served by")
        reload(hub, lambda c: None)
    equal(hub.metric("mctunnel_lua_asked_total"), 6, "counted by the script")


def test_reload_under_load(run):
    good = 'local l = mctunnel.list("list.lst") mctunnel.policy("p", function(c) assert(l:has("x")) return "route", "site-a/%s" end)'
    write(run, "list.lst", "x\n")
    path = write(run, "policy.lua", good % "a")
    hub = serve(run, hub_of(run, {"in": {"route": "site-a/a", "policy": "p"}}, path))
    stop = []

    def load():
        n = 0
        while not stop:
            check(tcp.ask_name(hub.listen["in"]) in "ab", "served by somebody else")
            n += 1
        return n
    clients = [harness.Background(load) for _ in range(3)]
    for i in range(12):
        write(run, "policy.lua", "error('no')" if i % 3 == 2 else good % "ab"[i % 2])
        reload(hub, lambda c: None, good=i % 3 != 2)
    stop.append(True)
    check(sum(c.finish() for c in clients) > 20, "hardly any client was served")
    equal(hub.log("lua_error"), [], "errors")


# ---- files ----

def test_modules_and_lists(run):
    write(run, "lib/site.lua", 'return { name = "b" }')
    write(run, "clients.lst", "127.0.0.0/8  # all of us\n")
    path = write(run, "policy.lua", 'local site, ours = require("site"), mctunnel.list("clients.lst")\n'
                 'mctunnel.policy("p", function(c) if mctunnel.cidr(c.src, ours) then return "route", "site-a/" .. site.name end return "reject" end)')
    hub = serve(run, hub_of(run, {"in": {"route": "site-a/a", "policy": "p"}}, path, lua={"path": run.path("lib")}))
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by")
    write(run, "lib/site.lua", 'return { name = "a" }')
    reload(hub, lambda c: None)
    equal(tcp.ask_name(hub.listen["in"]), "a", "served by, after the module has changed")
    write(run, "clients.lst", "192.0.2.0/24\n")
    reload(hub, lambda c: None)
    try:
        tcp.expect_reset(tcp.open_socket(hub.listen["in"]), "a client that is not in the list any more")
    except ConnectionResetError:
        pass


def test_a_restart_needs_no_file(run):
    path = write(run, "policy.lua", 'local l = mctunnel.list("list.lst") mctunnel.policy("p", function() return "route", "site-a/" .. (l:has("b") and "b" or "a") end)')
    write(run, "list.lst", "b\n")
    hub = serve(run, hub_of(run, {"in": {"route": "site-a/a", "policy": "p"}}, path))
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by")
    os.unlink(path)
    os.unlink(run.path("list.lst"))
    hub.worker(other_than=hub.kill_worker())
    hub.wait_ready()
    hub.wait_links(2)
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by the next worker")


def test_in_a_chroot(run):
    if os.geteuid() != 0:
        raise harness.Skipped("needs root")
    os.makedirs(run.path("empty"))
    os.chmod(run.dir, 0o755)
    path = write(run, "policy.lua", 'local l = mctunnel.list("list.lst") local hour = mctunnel.date().hour\n'
                 'local function later() return (tonumber(os.date("%H")) - hour) % 24 end\n'  # an hour may just have begun
                 'mctunnel.policy("p", function() return "route", "site-a/" .. (l:has("b") and later() <= 1 and "b" or "a") end)')
    write(run, "list.lst", "b\n")
    hub = serve(run, hub_of(run, {"in": {"route": "site-a/a", "policy": "p"}}, path, chroot=run.path("empty"), user="nobody", group="nogroup",
                             environment={"ASAN_OPTIONS": "exitcode=99:abort_on_error=0:detect_leaks=0"}))
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by")
    write(run, "list.lst", "a\n")
    reload(hub, lambda c: None)
    equal(tcp.ask_name(hub.listen["in"]), "a", "served by, after the reload")


# ---- the dry run ----

def ctl():
    return os.path.join(os.path.dirname(scene.binary()), "mctunnelctl")


def dry(script, *words, code=0):
    done = subprocess.run([ctl(), "lua", script, "--json"] + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    equal(done.returncode, code, done.stdout + done.stderr)
    return json.loads(done.stdout) if done.stdout else done.stderr


def answer(script, *words):
    found = dry(script, *words)
    equal(len(found), 1, "functions asked")
    row = found[0]
    return (row["answer"],) + tuple(row[k] for k in ("status", "reason", "route", "rate_up") if k in row)


def example(name):
    return os.path.join(EXAMPLES, name)


def test_examples(run):
    if run.threads > 1:
        return
    equal(answer(example("office_hours.lua"), "--src", "10.0.9.7"), ("allow",))
    check(answer(example("office_hours.lua"), "--src", "192.0.2.7")[0] in ("allow", "deny"), "office hours")
    tokens = example("tokens.lua"), "--host", "api"
    equal(answer(*tokens), ("deny", 401, "a valid bearer token is needed"))
    equal(answer(*tokens, "--header", "Authorization: Bearer wrong"), ("deny", 401, "a valid bearer token is needed"))
    equal(answer(*tokens, "--header", "authorization: bearer not-a-secret-2"), ("allow",))
    equal(answer(*tokens, "--times", "40")[1:], (429, "too many wrong tokens"))
    tenants = example("tenants.lua"), "--host"
    equal(answer(*tenants, "acme.example.com", "--times", "150"), ("allow", 10 << 20))
    equal(answer(*tenants, "other.example.com", "--times", "90"), ("allow", 256 << 10))
    equal(answer(*tenants, "other.example.com", "--times", "150")[:2], ("deny", 429))
    equal(answer(*tenants, "other")[:2], ("deny", 404))
    canary = example("canary.lua"), "--host", "www", "--src"
    equal(answer(*canary, "192.0.2.1", "--header", "X-Canary: yes"), ("route", "site-a/web-next"))
    equal(answer(*canary, "192.0.2.1", "--header", "X-Canary: no"), ("route", "site-a/web"))
    chosen = sum(answer(*canary, "192.0.2.%d" % i)[1] == "site-a/web-next" for i in range(60))
    check(0 < chosen < 15, "of 60 clients so many get the new version:", chosen)
    equal(answer(example("maintenance.lua"), "--src", "203.0.113.7")[:2], ("deny", 503))
    equal(answer(example("maintenance.lua"), "--src", "192.0.2.7"), ("allow",))
    accounting = example("accounting.lua")
    equal(answer(accounting, "--end", "--tunnel", "site-a", "--service", "web", "--up", "12k", "--down", "3m"), ("done",))
    equal(answer(accounting, "--agent", "edge-1", "--tunnel", "site-a", "--addr", "192.0.2.9"), ("allow",))
    equal(answer(accounting, "--agent", "edge-1", "--tunnel", "site-a", "--addr", "198.51.100.9")[0], "deny")
    equal(answer(accounting, "--agent", "edge-2", "--tunnel", "site-b", "--addr", "198.51.100.9"), ("allow",))


def test_dry_run(run):
    if run.threads > 1:
        return
    path = write(run, "p.lua", 'mctunnel.policy("one", function(c) return "deny", table.concat({ c.src, c.src_port, c.dst_port, c.sni, c.alpn[2], c.cert, tostring(c.tls),'
                 ' c.method, c.host, c.path, c.query, c.header("A"), c.header("a", 2), c.route, c.listener }, " ") end)\n'
                 'mctunnel.policy("two", function(c) error("x") end)')
    words = ("--src", "[2001:db8::1]:5", "--dst", "192.0.2.1:443", "--sni", "s", "--alpn", "h2,x", "--cert", "me", "--tls", "--host", "h", "--path", "/p?q=1",
             "--header", "a: 1", "--header", "A:2", "--route", "t/s", "--listener", "l")
    equal(answer(path, "--policy", "one", *words)[2], "2001:db8::1 5 443 s x me true GET h /p ?q=1 1 2 t/s l")
    failed = dry(path, code=1)
    equal([row["answer"] for row in failed], ["error", "error"], "policies that fail")
    equal((failed[1]["place"], failed[1]["text"]), (path + ":2", "x"), "where")
    check("budget" in dry(write(run, "q.lua", "while true do end"), code=1), "a script that does not load")
    check("no such option" in dry(path, "--what", code=1), "an option that is none")
    text = subprocess.run([ctl(), "lua", path, "--policy", "two"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    check("answer: error\n" in text and "text: x\n" in text, text)


if __name__ == "__main__":
    harness.main(globals())
