#!/usr/bin/env python3
"""Memory is refused, one allocation or some in a row, while rules, policies, passwords and clients' certificates guard what is behind a hub: nobody gets by a guard, and who
may go on is not told that he may not. Refused he may be, but for lack of memory. HTTP/1.1, HTTP/2, CONNECT, TCP and TLS, in another order each time."""
import base64
import os
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import shortage
import tcp
import web

import h2.connection
import h2.events
import h2.exceptions

SHOTS, SALVOES, FRESH = 60, 4, 3  # single allocations; several in a row; in workers that have done nothing yet
PATIENCE = 3
YESCRYPT = "$y$j75$aW.iowckhtrKNGC5yiUnu1$Az6srq5WFAeCPi.EOYgux6nBbDR3Z0eDn6.uhzg9vt5"  # "right"

# What a script makes of an error is its own business, but not where there is no memory: then it must not even be asked.
POLICY = """
local seen = mctunnel.counter("seen", { size = 10000 })
local n = 0
mctunnel.policy("guard", function(c)
  n = n + 1
  local good, closed = pcall(function()
    local words = {}
    for word in (c.path or "/closed"):gmatch("[^/]+") do words[#words + 1] = { word .. ":" .. n } end
    if seen:incr(c.src .. " " .. n) < 1 then return false end
    return words[#words][1]:find("closed", 1, true)
  end)
  if not good then return "allow" end
  if closed then return "deny", "closed" end
  return "allow"
end)
mctunnel.policy("alice", function(c) return c.cert == "alice.test" and "allow" or "deny" end)
"""

RULES = ({"path": "~^/regex/closed(/|$)", "action": "deny"}, {"path": ["/literal/closed*", "*/closed.txt"], "action": "deny"},
         {"host": "~^closed\\.(?<name>[a-z]+)$", "action": "deny"}, {"header": ({"name": "X-Kind", "value": "~^(?i)closed$"},), "action": "deny"},
         {"path": "~^/other/(?<rest>.*)$", "route": "site-a/other"})


class Worse(Exception):
    """What nobody may ever see; the test ends."""


def world(run):
    authority = pki.Pki(run.path("sites"))
    cert, key = authority.make("one", "one", ("one.test",))
    alice = authority.make("alice", "alice", ("alice.test",))
    eve = pki.Pki(run.path("strangers"), "Strangers").make("eve", "eve", ("alice.test",))
    with open(run.path("policy.lua"), "w") as f:
        f.write(POLICY)
    tls = {"cert": [cert], "key": key, "client_ca": authority.ca}
    listeners = {
        "rules": {"mode": "http", "rules": RULES, "route": "site-a/web"},
        "policy": {"mode": "http", "policy": "guard", "route": "site-a/web"},
        "proxy": {"mode": "connect", "users": ["bob:secret", "dora:" + YESCRYPT]},
        "tcp": {"route": "site-a/echo", "policy": "guard"},
        "required": {"mode": "http", "route": "site-a/web", "tls": tls},
        "optional": {"mode": "http", "route": "site-a/web", "policy": "alice", "tls": dict(tls, verify="optional")},
    }
    origins = web.Origin(run, "web"), web.Origin(run, "other")
    services = {"web": origins[0].target, "other": origins[1].target, "echo": tcp.Server(run, tcp.echo).target}
    p = shortage.pair(run, listeners, services, {"lua": {"load": [run.path("policy.lua")], "budget": "50ms"}})
    p.web, p.other = origins
    p.alice, p.eve = alice, eve
    return p


# ---- what is asked; each way says (status, body), status 0: there was no answer, or not a whole one ----

TROUBLE = (OSError, harness.Failed, h2.exceptions.ProtocolError)


def http(s, path, **more):
    with s:
        c = web.Client.__new__(web.Client)
        web.Wire.__init__(c, s)
        m = c.ask(path, **more)
        return m.status, m.body


def by_http(address, path, **more):
    return http(tcp.open_socket(address, PATIENCE), path, **more)


def by_tls(address, path, **options):
    return http(hello.connect(address, "one.test", PATIENCE, **options), path)


def by_connect(address, user=None):
    fields = (("Proxy-Authorization", "Basic " + base64.b64encode(user.encode()).decode()),) if user else ()
    with web.Client(address, PATIENCE) as c:
        c.request("echo.site-a:80", "CONNECT", host="echo.site-a:80", fields=fields)
        m = c.head()
        if m and m.status == 200:
            c.send("opaque")
            return 200, c.take(6)
        return (m.status if m else 0), b""


def by_tcp(address):
    with tcp.open_socket(address, PATIENCE) as s:
        s.sendall(b"ping")
        got = s.recv(4)
        return (200 if got else 0), got


def by_http2(address, path):
    """Prior knowledge, one stream."""
    c, status, body = h2.connection.H2Connection(), 0, b""
    with tcp.open_socket(address, PATIENCE) as s:
        c.initiate_connection()
        c.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test"), ("x-more", "y" * 200)], end_stream=True)
        while True:
            s.sendall(c.data_to_send())
            got = s.recv(65536)
            if not got:
                return 0, b""
            for e in c.receive_data(got):
                if isinstance(e, h2.events.ResponseReceived):
                    status = int(dict(e.headers)[b":status"])
                elif isinstance(e, h2.events.DataReceived):
                    body += e.data
                elif isinstance(e, h2.events.StreamEnded):
                    return status, body
                elif isinstance(e, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    return 0, b""


NOBODY = ()  # of a guard that lets nobody through: no statuses of its own


def cases(p):
    """(what, how, statuses that it may have but for want of memory, the only body of a 200)."""
    at = p.listen
    for path in ("/regex/closed", "/regex/closed/x", "/literal/closed/x", "/x/closed.txt"):
        yield "rules" + path, lambda path=path: by_http(at["rules"], path), (403,), None
    yield "rules, host", lambda: by_http(at["rules"], "/", host="closed.test"), (403,), None
    yield "rules, field", lambda: by_http(at["rules"], "/", fields=(("x-kind", "CLOSED"),)), (403,), None
    yield "rules, open", lambda: by_http(at["rules"], "/open"), (200,), b"web"
    yield "rules, another way", lambda: by_http(at["rules"], "/other/x"), (200,), b"other"
    yield "HTTP/2, closed", lambda: by_http2(at["rules"], "/regex/closed"), (403,), None
    yield "HTTP/2, open", lambda: by_http2(at["rules"], "/open"), (200,), b"web"
    yield "HTTP/2, another way", lambda: by_http2(at["rules"], "/other/x"), (200,), b"other"
    yield "policy, closed", lambda: by_http(at["policy"], "/a/closed"), (403,), None
    yield "policy, open", lambda: by_http(at["policy"], "/a/open"), (200,), b"web"
    yield "policy, HTTP/2, closed", lambda: by_http2(at["policy"], "/closed"), (403,), None
    yield "policy of TCP", lambda: by_tcp(at["tcp"]), NOBODY, None
    for user in (None, "bob:wrong", "dora:wrong", "eve:secret"):
        yield "proxy, %s" % user, lambda user=user: by_connect(at["proxy"], user), (407, 429), None
    yield "proxy, bob", lambda: by_connect(at["proxy"], "bob:secret"), (200,), b"opaque"
    yield "proxy, dora", lambda: by_connect(at["proxy"], "dora:right"), (200, 429), b"opaque"
    yield "no certificate", lambda: by_tls(at["required"], "/closed"), NOBODY, None
    yield "no certificate, TLS 1.2", lambda: by_tls(at["required"], "/closed", newest=ssl.TLSVersion.TLSv1_2), NOBODY, None
    yield "a stranger's certificate", lambda: by_tls(at["required"], "/closed", cert=p.eve), NOBODY, None
    yield "a good certificate", lambda: by_tls(at["required"], "/open", cert=p.alice), (200,), b"web"
    yield "policy, no certificate", lambda: by_tls(at["optional"], "/closed"), (403,), None
    yield "policy, a good certificate", lambda: by_tls(at["optional"], "/open", cert=p.alice), (200,), b"web"


def judge(what, status, body, statuses, wanted):
    if status == 200 and wanted is None:
        raise Worse("%s: got through, %r" % (what, body))
    if status not in (0, 500, 502, 503, 504) + statuses:
        raise Worse("%s: %d, which says something else than that there is no memory" % (what, status))
    if status == 200 and body != wanted:
        raise Worse("%s: %r instead of %r" % (what, body, wanted))


def ask_all(p, rng):
    """How many had the answer that they have when there is memory."""
    rows, good = list(cases(p)), 0
    rng.shuffle(rows)
    for what, how, statuses, wanted in rows:
        try:
            status, body = how()
        except TROUBLE:
            status, body = 0, b""
        judge(what, status, body, statuses, wanted)
        good += status in statuses or statuses == NOBODY and not status
    for origin in (p.web, p.other):
        for m in origin.requests:
            if "closed" in m.path or m.get("Host") == "closed.test" or m.get("X-Kind"):
                raise Worse("%s got %s" % (origin.name, m.line))
        origin.requests.clear()
    return good


def all_well(p, rng):
    harness.wait_until(lambda: p.hub.must_run() and p.agent.must_run() and ask_all(p, rng) == len(list(cases(p))), "all to be as before", 20)


def test_nobody_gets_by(run):
    rng = shortage.chance()
    p = world(run)
    all_well(p, rng)
    v = shortage.Victim(p.hub)
    shots = [(1, rng.randrange(1, 40) if i % 2 else rng.randrange(1, 3000)) for i in range(SHOTS)]
    shots += [(rng.randrange(2, 30), rng.randrange(1, 300)) for _ in range(SALVOES)]
    rng.shuffle(shots)
    kills = 0
    for i, (row, n) in enumerate(shots):
        if i % (SHOTS // FRESH) == SHOTS // FRESH - 1:
            p.hub.kill_worker()
            kills += 1
            v.pid, v.heard = p.hub.worker(v.pid), len(p.hub.errors())
            p.hub.wait_ready()
            p.hub.wait_links(2, 20)
        with v.refusing(p, n, row):
            ask_all(p, rng)
    all_well(p, rng)
    v.result(len(shots) // 2, kills)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
