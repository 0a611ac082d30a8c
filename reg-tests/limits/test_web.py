#!/usr/bin/env python3
"""Bandwidth of listeners, tunnels and services, and the rate of a client, in modes http and connect."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
import web
from harness import check, equal, say

SIZE, RATE = 200000, 400000


def world(run, mode, listener=None, tunnel=None, service=None):
    w = scene.Pair()
    w.origin, echo = web.Origin(run), tcp.Server(run, tcp.echo)
    w.origin.special["/big"] = web.answer(200, bytes(SIZE))
    target = w.origin.target if mode == "http" else echo.target
    w.hub = scene.Hub(run, {"in": dict({"mode": mode, "route": "site-a/x"}, **({"limits": listener} if listener else {}))},
                      [scene.tunnel(**({"limits": tunnel} if tunnel else {}))]).start().wait_ready()
    scene.Agent(run, w.hub.authority, [w.hub.address], [scene.service("x", target, **({"limits": service} if service else {}))]).start()
    w.hub.wait_links(2)
    w.address = w.hub.listen["in"]
    return w


def slowed(what, ask):
    """It takes as long as these bytes must at this rate, less what is in flight when the limit begins to count."""
    began = time.monotonic()
    ask()
    took = time.monotonic() - began
    say("%s: %.2f s" % (what, took))
    check(took > 0.6 * SIZE / RATE, what, "took only", took)


def by_http(w, way):
    with web.Client(w.address) as c:
        if way.endswith("down"):
            slowed("http, " + way, lambda: equal(len(c.ask("/big").body), SIZE))
        else:
            slowed("http, " + way, lambda: equal(c.ask("/up", "POST", body=bytes(SIZE)).status, 200))
            equal(len(w.origin.last().body), SIZE)


def by_connect(w, way):
    with web.Client(w.address) as c:
        c.send("CONNECT x.site-a:1 HTTP/1.1\r\nHost: x.site-a:1\r\n\r\n")
        equal(c.head().status, 200)
        slowed("connect, " + way, lambda: tcp.exchange(c.s, SIZE, 7))


def test_http(run):
    w = world(run, "http", listener={"down": RATE}, tunnel={"up": RATE})
    by_http(w, "listener down")
    by_http(w, "tunnel up")


def test_http_service(run):
    w = world(run, "http", tunnel={"session_down": RATE}, service={"up": RATE})
    by_http(w, "tunnel session_down")
    by_http(w, "service up")


def test_http_session(run):
    w = world(run, "http", service={"session_down": RATE}, listener={"session_up": RATE})
    by_http(w, "service session_down")
    by_http(w, "listener session_up")


def test_connect_listener(run):
    by_connect(world(run, "connect", listener={"session_up": RATE}), "listener session_up")


def test_connect_tunnel(run):
    by_connect(world(run, "connect", tunnel={"down": RATE}), "tunnel down")


def test_connect_service(run):
    by_connect(world(run, "connect", service={"up": RATE}), "service up")


def test_connect_rate(run):
    """A proxy's client over its rate gets 429, or waits."""
    w = world(run, "connect", listener={"client_rate": 2})
    found = []
    for _ in range(30):  # the more, the slower the machine may be
        with web.Client(w.address) as c:
            c.send("CONNECT x.site-a:1 HTTP/1.1\r\nHost: x.site-a:1\r\n\r\n")
            m = c.head()
            found.append((m.status, m.get("Retry-After")))
    equal(found[:2], [(200, None)] * 2)
    check((429, "1") in found and set(found) <= {(200, None), (429, "1")}, found)


if __name__ == "__main__":
    harness.main(globals())
