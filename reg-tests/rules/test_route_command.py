#!/usr/bin/env python3
"""`route` tells which rule applies to a client and where it leads; lists of rules come from files, also at a reload; rules decide about real clients."""
import json
import os
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import scene
import tcp
from harness import check, equal, say

RULES = (
    {"src": ["@office.lst", "192.0.2.0/24"], "path": "/admin/*", "route": "site-a/admin"},
    {"path": "/admin/*", "action": "deny", "status": 404},
    {"path": "~^/c/(?<site>[^/]+)(?<rest>/.*)?$", "rewrite": "${rest}", "route": ["${site}/web", "site-b/web"]},
    {"host": "old.example.com", "redirect": "https://new.example.com${path}", "status": 301},
    {"host": "*.example.com", "method": ["GET", "HEAD"], "header": ({"name": "X-Tenant", "value": "~^(?<t>[a-z]+)$"},), "route": "site-${t}/web"},
    {"sni": "secret.example.org", "alpn": "h2", "action": "reject"},
)


def make(run, listeners):
    """A hub; site-a's agent offers web, but not admin; site-b has none."""
    with open(run.path("office.lst"), "w") as f:
        f.write("# the office\n10.0.0.0/8\n2001:db8::/32   # and its second line\n")
    tunnels = [scene.tunnel("site-a", services=["web", "admin"]), scene.tunnel("site-b", ["edge-2"])]
    hub = scene.Hub(run, listeners, tunnels, settings=ctl.admin_settings(run, "hub")).start().wait_ready()
    server = tcp.Server(run, tcp.banner("a"))
    scene.Agent(run, hub.authority, [hub.address], [scene.service("web", server.target)]).start()
    hub.wait_links(2)
    return hub


def words(*options):
    return " ".join(o.replace("\\", "\\\\").replace(" ", "\\ ").replace(";", "\\;") for o in options)


def route(run, *options):
    """The answer as an object; its lines must say the same."""
    text = ctl.command(run, "hub", "route " + words(*options))
    answer = json.loads(ctl.command(run, "hub", "route " + words(*options) + " json"))
    lines = [line.split(": ", 1) for line in text.strip().splitlines()]
    routes = [line[1].split(" ") for line in lines if line[0] == "route"]
    equal(routes, [[r["route"], r["status"]] for r in answer.get("routes", [])], "routes as text and as JSON")
    for key, value in lines:
        check(key == "route" or value == ("-" if answer[key] is None else str(answer[key])), "text and JSON differ:", key, value, answer)
    return answer


def at(hub, answer):
    """The text of the line that the answer names."""
    name, line = answer["at"].rsplit(":", 1)
    equal(name, hub.config_path, "file of the rule")
    with open(name) as f:
        return f.read().splitlines()[int(line) - 1]


def test_route(run):
    hub = make(run, {"web": {"mode": "http", "rules": RULES, "route": "site-a/web", "accept_proxy": ["192.0.2.1"]}, "ssh": "site-a/web"})

    a = route(run, "--listener", "web", "--src", "10.1.2.3", "--path", "/admin/x")
    equal((a["rule"], a["action"], a["routes"], a["to"]), (0, "route", [{"route": "site-a/admin", "status": "NONE"}], None), "a network of the list")
    check("{" in at(hub, a), a)
    equal(route(run, "--listener", "web", "--src", "2001:db8::7", "--path", "/admin/x")["rule"], 0, "IPv6 of the list")
    equal(route(run, "--listener", "web", "--src", "192.0.2.7", "--path", "/./admin//x")["rule"], 0, "a normalised path")
    a = route(run, "--listener", "web", "--src", "203.0.113.1", "--path", "/admin/x?y=1")
    equal((a["rule"], a["action"], a["status"]), (1, "deny", 404), "from elsewhere")
    equal(route(run, "--listener", "web", "--path", "/admin/x")["rule"], 1, "nothing is known of the address")

    a = route(run, "--listener", "web", "--path", "/c/site-a/api/v1?x=1")
    equal((a["rule"], a["to"], a["rewrite"]), (2, "site-a/web", "/api/v1"), "captures")
    equal([r["status"] for r in a["routes"]], ["UP", "NONE"], "routes in order")
    a = route(run, "--listener", "web", "--path", "/c/site-x")
    equal([r["status"] for r in a["routes"]], ["UNKNOWN", "NONE"], "no such tunnel")
    equal((a["rewrite"], a["to"]), ("/", None), "an empty capture")
    a = route(run, "--listener", "web", "--path", "/c/site%20x/")
    equal([r["route"] for r in a["routes"]], ["site-b/web"], "what is no name is left out")

    a = route(run, "--listener", "web", "--host", "OLD.example.com:8080", "--path", "/a?b=c")
    equal((a["rule"], a["action"], a["status"], a["location"]), (3, "redirect", 301, "https://new.example.com/a?b=c"), "a redirect")
    a = route(run, "--listener", "web", "--host", "x.example.com", "--header", "Accept: */*", "--header", "x-tenant: a")
    equal((a["rule"], a["to"]), (4, "site-a/web"), "a header")
    equal(route(run, "--listener", "web", "--host", "x.example.com", "--header", "x-tenant: a", "--method", "POST")["rule"], None, "another method")
    equal(route(run, "--listener", "web", "--sni", "Secret.example.org", "--alpn", "h2", "--alpn", "http/1.1")["action"], "reject", "SNI and ALPN")
    a = route(run, "--listener", "web")
    equal((a["rule"], a["to"]), (None, "site-a/web"), "no rule applies")
    equal(route(run, "--listener", "ssh", "--src", "10.0.0.1")["to"], "site-a/web", "mode tcp")
    listeners = json.loads(ctl.command(run, "hub", "show listeners json"))
    equal([(row["listener"], row["rules"], row["policy"]) for row in listeners], [("web", len(RULES), None), ("ssh", 0, None)], "show listeners")


def test_refusals(run):
    make(run, {"web": {"mode": "http", "rules": RULES, "accept_proxy": ["192.0.2.1"]}, "ssh": "site-a/web", "proxy": {"mode": "connect"}})
    for options, sentence in (
            (["--listener", "wep"], "There is no listener 'wep' (did you mean 'web'?)."),
            ([], "Which listener?"),
            (["--listener"], "The value of --listener is missing."),
            (["--listener", "web", "--hots", "x"], "Unknown option '--hots'"),
            (["--listener", "web", "--listener", "web"], "--listener stands there twice."),
            (["--listener", "web", "--src", "10.0.0.0/8"], "'10.0.0.0/8' is no address."),
            (["--listener", "web", "--port", "65536"], "'65536' is no port."),
            (["--listener", "web", "--path", "/%zz"], "The path '/%zz' is malformed"),
            (["--listener", "web", "--header", "x"], "A header is written"),
            (["--listener", "web"] + ["--header", "a: b"] * 9, "There are too many --header."),
            (["--listener", "ssh", "--path", "/"], "Hosts, paths, methods and headers are known in modes http and connect only.")):
        answer = ctl.command(run, "hub", "route " + words(*options))
        check(answer.startswith(sentence), options, answer)
    a = route(run, "--listener", "proxy", "--host", "web.site-a:443")
    equal((a["rule"], a["to"]), (None, "site-a/web"), "mode connect without rules: SERVICE.TUNNEL")
    equal(route(run, "--listener", "proxy", "--host", "web:443")["action"], "none", "mode connect, another name")
    a = route(run, "--listener", "web")
    equal((a["action"], a["why"]), ("none", "no rule applies, and the listener has no route"), "no way")


def test_ctl(run):
    """mctunnelctl keeps the value of an option one word."""
    make(run, {"web": {"mode": "http", "rules": RULES, "accept_proxy": ["192.0.2.1"]}})
    program = os.path.join(os.path.dirname(scene.binary()), "mctunnelctl")
    r = subprocess.run([program, "-s", run.path("hub.sock"), "route", "--path", "/c/site-a/a b;c\\d", "--header", "X-Tenant: a b", "--json"], capture_output=True, text=True)
    equal(r.returncode, 0, "exit status; " + r.stderr)
    equal(json.loads(r.stdout)["rewrite"], "/a%20b;c\\d", "a path with a blank, a semicolon and a backslash")
    r = subprocess.run([program, "-s", run.path("hub.sock"), "route", "--listener", "nix"], capture_output=True, text=True)
    equal((r.returncode, r.stdout), (1, ""), "a refusal")


def is_reset(address):
    try:
        with tcp.open_socket(address) as s:
            s.recv(1)
            return False
    except ConnectionResetError:
        return True


def test_lists_at_a_reload(run):
    """A list is read anew, a bad one refuses the reload with its own line, an empty one fits nobody."""
    rules = ({"src": "@office.lst", "action": "deny"}, {"src": "127.0.0.0/8", "dst_port": "1-65535", "route": "site-a/web"})
    hub = make(run, {"t": {"rules": rules}})
    equal(route(run, "--src", "10.0.0.1")["action"], "deny", "at first")
    equal(tcp.ask_name(hub.listen["t"]), "a", "who is served")

    def write(text):
        with open(run.path("office.lst"), "w") as f:
            f.write(text)

    write("10.0.0.0/8\n127.0.0.1\n")
    check(ctl.command(run, "hub", "reload").startswith("Reloaded."), "a good list")
    equal(route(run, "--src", "127.0.0.1")["action"], "deny", "after the reload")
    check(is_reset(hub.listen["t"]), "who is denied")

    write("10.0.0.0/8\nnonsense\n10.0.0.1/8\n")
    answer = ctl.command(run, "hub", "reload")
    say(answer.strip())
    check(not answer.startswith("Reloaded."), answer)
    for part in ("office.lst:2: [ALERT] listeners[0].rules[0].src: \"nonsense\"", "office.lst:3: [ALERT] listeners[0].rules[0].src: \"10.0.0.1/8\""):
        check(part in answer, part, answer)
    equal(route(run, "--src", "127.0.0.1")["action"], "deny", "as before")

    write("# nobody\n")
    check(ctl.command(run, "hub", "reload").startswith("Reloaded."), "an empty list")
    harness.wait_until(lambda: [r for r in hub.log("message") if "there is nothing in the list of 'src': this rule never applies" in r["text"]], "a warning in the log")
    equal(route(run, "--src", "127.0.0.1")["rule"], 1, "an empty list fits nobody")
    equal(tcp.ask_name(hub.listen["t"]), "a", "who is served again")


def test_thousands(run):
    """Rules and lists as large as people have them are loaded in a moment: what grows with the square of their number would take minutes."""
    with open(run.path("blocked.lst"), "w") as f:
        f.writelines("%d.%d.%d.0/24\n" % (1 + i // 65536, i // 256 % 256, i % 256) for i in range(30000))
    with open(run.path("hosts.lst"), "w") as f:
        f.writelines("h%d.example.org\n" % i for i in range(30000))
    rules = [{"src": "@blocked.lst", "action": "deny"}, {"host": "@hosts.lst", "redirect": "https://example.org/"}]
    rules += [{"host": "customer-%d.example.com" % i, "rewrite": "/%d" % i} for i in range(3000)]
    rules += [{"host": "customer-17.example.com", "path": "/never"}]
    hub = make(run, {"web": {"mode": "http", "route": "site-a/web", "rules": tuple(rules)}})
    equal(route(run, "--src", "1.117.47.9")["rule"], 0, "the last network")
    equal(route(run, "--src", "1.117.48.9", "--host", "h29999.example.org")["rule"], 1, "the last host of the list")
    equal(route(run, "--src", "10.0.0.1", "--host", "customer-2999.example.com")["rewrite"], "/2999", "the last rule that can be reached")
    with open(hub.err_path) as f:
        check("rules[3002]: never reached" in f.read(), "what cannot")


if __name__ == "__main__":
    harness.main(globals())
