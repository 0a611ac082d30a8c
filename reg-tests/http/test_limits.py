#!/usr/bin/env python3
"""Limits of listeners of mode http: requests a second and sessions of one address, bandwidth."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
import web
from harness import check, equal, say


def start(run, limits, **options):
    p = scene.Pair()
    p.origin = web.Origin(run)
    p.hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/x", "limits": limits}}, **options).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("x", p.origin.target)]).start()
    p.hub.wait_links(2)
    p.web = p.hub.listen["web"]
    return p


def test_requests_a_second(run):
    p = start(run, {"client_rate": 2})
    with web.Client(p.web) as c:
        answers = [c.ask("/%d" % i) for i in range(30)]  # the more, the slower the machine may be
        equal({m.status for m in answers}, {200, 429})
        check(all(m.get("Retry-After") == "1" for m in answers if m.status == 429), "429 without Retry-After")
        harness.wait_until(lambda: c.ask("/later").status == 200, "a request to be served again")
    equal({r["reason"] for r in p.hub.wait_log("session", status=429)}, {"rate"})


def test_requests_that_wait(run):
    p = start(run, {"client_rate": 5, "over": "queue"})
    began = time.monotonic()
    with web.Client(p.web) as c:
        c.send("GET /p HTTP/1.1\r\nHost: t\r\n\r\n" * 10)
        equal([c.answer().status for _ in range(10)], [200] * 10)
        equal(c.ask("/post", "POST", body=b"x" * 1000).status, 200)
    check(time.monotonic() - began > 0.8, "eleven requests at 5 a second, 5 of them at once, took", time.monotonic() - began)


def test_requests_that_are_rejected(run):
    p = start(run, {"client_rate": 1, "over": "reject"})
    with web.Client(p.web) as c:
        equal(c.ask("/").status, 200)
        try:
            for _ in range(20):  # more than a second may pass between two of them
                c.request("/")
                m = c.answer()
                equal(m and m.status, 200, "until it is rejected")
            raise harness.Failed("20 requests were served at one a second")
        except ConnectionResetError:
            pass


def test_sessions_of_one_address(run):
    p = start(run, {"client_sessions": 2})
    with web.Client(p.web) as a, web.Client(p.web) as b:
        equal([a.ask("/").status, b.ask("/").status], [200, 200])
        with web.Client(p.web) as c:  # connects only now: threads accept in any order
            m = c.ask("/")
            equal((m.status, m.get("Connection")), (429, "close"))
            c.ended()
        a.s.close()
        harness.wait_until(lambda: web.Client(p.web).ask("/").status == 200, "a place to be free again")


def test_bandwidth(run):
    p = start(run, {"session_down": 400000, "session_up": 400000})
    data = bytes(1 << 18)
    p.origin.special["/big"] = web.answer(200, data)
    p.origin.special["/chunks"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000\r\n" + data + b"\r\n0\r\n\r\n"
    with web.Client(p.web) as c:
        for what in (lambda: c.ask("/big").body, lambda: c.ask("/chunks").body, lambda: c.ask("/up", "POST", body=data) and p.origin.last().body):
            began = time.monotonic()
            equal(len(what()), len(data))
            took = time.monotonic() - began
            say("256 KiB at 400 kB/s: %.2f s" % took)
            check(took > 0.3, "too fast: %.2f s" % took)


if __name__ == "__main__":
    harness.main(globals())
