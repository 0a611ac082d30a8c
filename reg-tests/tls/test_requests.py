#!/usr/bin/env python3
"""Requests over TLS that ends at the listener: what the handshake said decides about them, and a request on the connection of another name is sent away."""
import os
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import web
from ctl import admin_settings, command
from harness import equal


def start(run, rules, script=None, **listener):
    p = scene.Pair()
    p.authority = pki.Pki(run.path("pki-all"))
    cert, key = p.authority.make("both", "both", ("a.test", "b.test"))
    row = dict({"mode": "http", "rules": rules, "tls": {"cert": [cert], "key": key}}, **listener)
    settings = admin_settings(run, "hub")
    if script:
        with open(run.path("policy.lua"), "w") as f:
            f.write(script)
        settings["lua"] = {"load": [run.path("policy.lua")]}
    p.hub = scene.Hub(run, {"web": row}, authority=p.authority, settings=settings).start().wait_ready()
    p.origins = {name: web.Origin(run, name) for name in ("one", "two")}
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service(n, o.target) for n, o in p.origins.items()]).start()
    p.hub.wait_links(2)
    p.web = p.hub.listen["web"]
    return p


class Client(web.Client):
    """Of HTTP/1.1, over TLS for that name."""

    def __init__(self, p, name, protocols=("http/1.1",)):
        web.Wire.__init__(self, hello.connect(p.web, name, authority=p.authority, protocols=protocols))


def curl(p, name, *how):
    """Status and body."""
    got = subprocess.run(["curl", "-sS", "-m", "60", "--cacert", p.authority.ca, "-w", "\n%{http_code}", "--connect-to", "%s:443:%s:%d" % (name, *p.web), *how, "https://%s/" % name],
                         capture_output=True, text=True)
    equal(got.returncode, 0, "curl: " + got.stderr)
    body, _, status = got.stdout.rpartition("\n")
    return int(status), body


def test_protocol_agreed_on(run):
    """Rules and policies of mode http know it."""
    policy = 'mctunnel.policy("p", function(c) if #c.alpn > 1 or (c.alpn[1] or "none") ~= c.header("X-Expect") then return "deny" end return "allow" end)'
    p = start(run, ({"alpn": "h2", "route": "site-a/two"}, {"route": "site-a/one"}), policy, policy="p")
    equal(curl(p, "a.test", "--http2", "-H", "X-Expect: h2"), (200, "two"), "HTTP/2")
    equal(curl(p, "a.test", "--http1.1", "-H", "X-Expect: http/1.1"), (200, "one"), "HTTP/1.1")
    with Client(p, "a.test", ()) as c:
        equal(c.ask("/", host="a.test", fields=(("X-Expect", "none"),)).text, "one", "no protocol agreed on")


def test_misdirected(run):
    """Rules choose by server name: HTTP/2 clients use one connection for every name of its certificate, and must be told to make another."""
    p = start(run, ({"sni": "a.test", "route": "site-a/one"}, {"sni": "b.test", "route": "site-a/two"}))
    for how in ("--http1.1", "--http2"):
        equal([curl(p, name, how) for name in ("a.test", "b.test")], [(200, "one"), (200, "two")], how)
        equal(curl(p, "a.test", how, "-H", "Host: b.test")[0], 421, how + ", another host")
    with Client(p, "a.test") as c:
        m = c.ask("/x", host="B.test:8443")
        equal(m.status, 421)
        harness.check("request: " in m.text, "no id in:", m.text)
        equal(c.ask("/", host="A.test:8443").text, "one", "the connection goes on")
    equal(len(p.origins["two"].requests), 2, "requests at the other target")
    line = p.hub.wait_log("session", status=421)[0]
    equal((line["reason"], line["sni"]), ("denied", "a.test"))
    answer = command(run, "hub", "route --listener web --sni a.test --host b.test")
    harness.check("421" in answer, answer)


def test_names_that_belong_together(run):
    """A rule that looks at both says itself what may go together; without rules for server names, the host alone decides."""
    p = start(run, ({"sni": "a.test", "host": "b.test", "route": "site-a/two"}, {"host": "*.test", "route": "site-a/one"}))
    equal(curl(p, "a.test", "--http2", "-H", "Host: b.test"), (200, "two"))
    equal(curl(p, "b.test", "--http2", "-H", "Host: a.test"), (200, "one"))


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
