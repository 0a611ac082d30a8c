#!/usr/bin/env python3
"""Clients of HTTP/2 that leave things undone: a head that never ends, a body that never comes, an answer that is never read, interim answers without end for somebody who
does not read. None of them may keep a connection, or grow the hub, without end."""
import contextlib
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import raw
import scene
import tcp
import web
from harness import check

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TIMES = {"http_request": "500ms", "idle": "1s"}
LIMIT = 20 << 20
BIG = b"x" * 3000000


def talk(s):
    """Answers a POST before its body is there, everything else with much; /interim never gets a final answer."""
    with contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            more = s.recv(65536)
            if not more:
                return
            head += more
        if head.startswith(b"GET /interim"):
            while True:
                s.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: " + b"l" * 4000 + b"\r\n\r\n")
        elif head.startswith(b"GET /begun"):
            s.settimeout(1)
            while True:
                s.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: " + b"l" * 4000 + b"\r\n\r\n")
        elif head.startswith(b"POST"):
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
            s.recv(65536)
        else:
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG)


def start(run, **times):
    server = tcp.Server(run, talk)
    hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/a", "timeouts": dict(TIMES, **times)}}, environment=raw.FRUGAL).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("a", server.target)]).start()
    hub.wait_links(2)
    return hub


def request(path="/", method="GET", fin=True, end=True):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
    return raw.headers(1, fields, fin=fin, end=end)


def opened(hub, data, window=None):
    s = tcp.open_socket(hub.listen["web"])
    s.sendall(PREFACE + (raw.settings(window=window) if window is not None else raw.settings()) + data)
    return s


def until_closed(s, what):
    """Whatever comes before is read."""
    s.settimeout(harness.PATIENCE)
    try:
        while s.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise harness.Failed(what + ": is kept for ever") from None
    s.close()


def test_heads_that_never_end(run):
    hub = start(run)
    whole = request(end=False)
    for what, data in (("a head without its continuation", whole), ("half a frame", whole[:12]), ("a frame's header", whole[:9])):
        until_closed(opened(hub, data), what)
    hub.nothing_left()


def test_a_body_that_never_comes(run):
    hub = start(run)
    until_closed(opened(hub, request(method="POST", fin=False)), "a request that was answered before it was whole")
    until_closed(opened(hub, request(path="/%zz", method="POST", fin=False)), "a malformed request that is not whole")
    hub.nothing_left()


def test_an_answer_that_is_not_wanted(run):
    hub = start(run)
    until_closed(opened(hub, request(), window=0), "an answer that the client gives no credit for")
    hub.nothing_left()


def test_interim_answers_without_end(run):
    hub = start(run)
    s = opened(hub, request("/interim"))
    before = proc.resident(hub.worker())[0]
    with contextlib.suppress(harness.Failed):
        harness.wait_until(lambda: proc.resident(hub.worker())[0] - before > LIMIT, "growth", 3, 0.05)
        raise AssertionError("the hub grows without end")
    s.close()
    hub.nothing_left()


def test_an_interim_answer_half_read(run):
    """HTTP/1.1: the target ends when a part of an interim answer is out: our own answer follows the rest of it."""
    hub = start(run, http_request="20s")  # the time it has to read all that
    with web.Client(hub.listen["web"]) as c:
        c.request("/begun")
        hub.wait_log("session", path="/begun")
        interim = []
        status = c.answer(interim=interim).status
        check(status in (502, 504) and len(interim) > 10, status, "at last, after", len(interim), "interim answers")
    hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
