#!/usr/bin/env python3
"""Listeners of mode connect: where CONNECT leads, who may use it, and what follows it."""
import base64
import crypt
import os
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
import web
from harness import check, equal


def start(run, listener=None, target=None, **options):
    p = scene.Pair()
    p.echo = tcp.Server(run, target or tcp.echo)
    p.hub = scene.Hub(run, {"proxy": dict({"mode": "connect"}, **(listener or {}))}, **options).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("echo", p.echo.target), scene.service("dead", "%s:%d" % (run.host, run.port()))]).start()
    p.hub.wait_links(2)
    p.proxy = p.hub.listen["proxy"]
    return p


RULES = {"rules": ({"host": "~^(?<service>[^.]+)\\.(?<site>[^.]+)$", "dst_port": ["1-99"], "route": "${site}/${service}"}, {"host": "denied", "action": "deny"})}


def connect(c, to, fields=()):
    c.request(to, "CONNECT", host=to, fields=fields)
    m = c.head()
    return m if m.status == 200 else c.body(m)


def basic(user):
    return (("Proxy-Authorization", "Basic " + base64.b64encode(user.encode()).decode()),)


def test_opaque_bytes_follow(run):
    p = start(run, RULES)
    blob = bytes(range(256)) * 4096
    with web.Client(p.proxy) as c:
        equal(connect(c, "echo.site-a:22").status, 200)
        c.send(blob)
        equal(c.take(len(blob)) == blob, True)
        c.send("last words")
        c.s.shutdown(1)
        equal(c.rest(), b"last words")
    with web.Client(p.proxy) as c: # bytes that come along with the head
        c.send(b"CONNECT echo.site-a:22 HTTP/1.1\r\nHost: echo.site-a:22\r\n\r\nearly" + blob)
        equal(c.head().status, 200)
        equal(c.take(5 + len(blob)) == b"early" + blob, True)
    r = p.hub.wait_log("session", status=200)[0]
    equal((r["route"], r["host"], r["method"], r["end"]), ("site-a/echo", "echo.site-a:22", "CONNECT", "--"))
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_names_lead_there_without_rules(run):
    p = start(run)
    with web.Client(p.proxy) as c:
        equal(connect(c, "ECHO.site-a:80").status, 200)
    with web.Client(p.proxy) as c:
        equal(connect(c, "echo.site-z:80").status, 404)
        equal(connect(c, "echo:80").status, 404, "the connection goes on")
        equal(connect(c, "echo.site-a:80").status, 200)


def test_refusals(run):
    p = start(run, RULES)
    with web.Client(p.proxy) as c:
        equal(connect(c, "echo.site-a:100").status, 404, "a port that no rule has")
        equal(connect(c, "denied:80").status, 403)
        equal(connect(c, "dead.site-a:80").status, 502)
        m = c.ask("/")
        equal((m.status, m.get("Allow")), (405, "CONNECT"))
        equal(connect(c, "echo.site-a:80").status, 200)
    for line in ("CONNECT echo.site-a HTTP/1.1", "CONNECT /x HTTP/1.1", "CONNECT http://echo.site-a:80/ HTTP/1.1"):
        with web.Client(p.proxy) as c:
            c.send(line + "\r\nHost: echo.site-a\r\n\r\n")
            equal(c.answer().status, 400, line)


def test_users(run):
    hashed = crypt.crypt("pass:word", "$6$rounds=5000$saltsalt$")
    p = start(run, {"users": ["alice:secret", "bob:" + hashed]})
    with web.Client(p.proxy) as c:
        m = connect(c, "echo.site-a:80")
        check(m.status == 407 and m.get("Proxy-Authenticate").startswith("Basic realm="), m.line, m.fields)
        for user in ("alice:", "alice:secre", "alice:secrets", ":secret", "carol:secret", "alice"):
            equal(connect(c, "echo.site-a:80", basic(user)).status, 407, user)
        equal(connect(c, "echo.site-a:80", (("Proxy-Authorization", "Basic !!!"),)).status, 407)
        equal(connect(c, "echo.site-a:80", (("Proxy-Authorization", "Bearer abc"),)).status, 407)
        equal(connect(c, "echo.site-a:80", basic("alice:secret")).status, 200)
        c.send("x")
        equal(c.take(1), b"x")
    for _ in range(20): # the hash is computed once on each thread
        with web.Client(p.proxy) as c:
            harness.wait_until(lambda: connect(c, "echo.site-a:80", basic("bob:pass:word")).status == 200, "bob to come in")
    with web.Client(p.proxy) as c:
        harness.wait_until(lambda: connect(c, "echo.site-a:80", basic("bob:wrong")).status == 407, "a wrong password to be refused")
    equal(p.hub.wait_log("session", status=407)[0]["reason"], "denied")
    check("secret" not in open(p.hub.log_path).read(), "a password is in the log")


def curl(*how):
    got = subprocess.run(["curl", "-sS", "-m", "60", "--proxytunnel", "--noproxy", "", *how], capture_output=True, text=True)
    return got.returncode, got.stdout


def test_curl(run):
    """A foreign client: through the proxy to a target that speaks HTTP, as a user and as nobody."""
    origin = web.Origin(run)
    p = start(run, {"users": ["alice:secret"]}, target=origin._serve)
    proxy = "http://%%s%s:%d" % p.proxy
    equal(curl("-x", proxy % "alice:secret@", "http://echo.site-a:80/a", "http://echo.site-a:80/b"), (0, "originorigin"))
    equal([m.path for m in origin.requests], ["/a", "/b"], "requests through one tunnel")
    code, body = curl("-x", proxy % "", "http://echo.site-a:80/c")
    check(code == 56 and not body, "curl without a user ended with", code, body)
    check(curl("-x", proxy % "alice:secret@", "http://echo.site-z:80/d")[0] == 56, "a tunnel that does not exist")
    equal(len(origin.requests), 2, "requests at the target")


def test_a_target_that_speaks_first_and_a_reset(run):
    p = start(run, target=tcp.banner("SSH"))
    with web.Client(p.proxy) as c:
        connect(c, "echo.site-a:22")
        equal(c.take(4), b"SSH\n")
        tcp.reset(c.s)
    p.hub.wait_log("session", reason="client_reset")
    p.agent.wait_log("session", reason="client_reset")


def test_nothing_is_said_before_connect_is_through(run):
    p = start(run, timeouts={"http_request": "1s", "idle": "600ms"})
    with web.Client(p.proxy) as c:
        c.send("CONNECT echo")
        equal(c.answer().status, 408)
    began = time.monotonic()
    with web.Client(p.proxy) as c:
        connect(c, "echo.site-a:22")
        tcp.expect_reset(c.s, "an idle tunnel")
        check(time.monotonic() - began > 0.5, "idle for less than its time")
    p.hub.wait_log("session", reason="idle")


if __name__ == "__main__":
    harness.main(globals())
