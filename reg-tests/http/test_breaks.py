#!/usr/bin/env python3
"""Either side of a request breaks off in its middle: the other side must learn it, and never take a part for the whole."""
import contextlib
import os
import signal
import socket
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEADS = {"length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
         "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
         "close": b"HTTP/1.1 200 OK\r\n\r\n",
         "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"}
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


class Target:
    """Takes a head, says what it is told to, and ends as it is told to; `ends` is how each connection ended."""

    def __init__(self, run):
        self.say, self.end, self.heard = b"", None, threading.Event()
        self.server = tcp.Server(run, self._serve)

    def _serve(self, s):
        got = b""
        while b"\r\n\r\n" not in got:
            data = s.recv(65536)
            if not data:
                return "nothing"
            got += data
        s.sendall(self.say)
        self.heard.set()
        if self.end:
            self.end(s)
            return None
        with contextlib.suppress(ConnectionResetError):
            while data := s.recv(65536):
                got += data
            return "end", got
        return "reset", got


def scenario(run, **more):
    target = Target(run)
    hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/web"}}, **more).start()
    hub.wait_ready()
    agent = scene.Agent(run, hub.authority, [hub.address], [scene.service("web", target.server.target)]).start()
    hub.wait_links(2)
    return hub, agent, target


def ask(hub, request, first):
    """A client that has had the beginning of its answer."""
    s = tcp.open_socket(hub.listen["web"])
    s.sendall(request)
    got = b""
    while first not in got:
        data = s.recv(65536)
        check(data, "the connection ended after", got)
        got += data
    return s


def each_framing(target):
    for name, head in HEADS.items():
        target.say = head + b"some of it"
        yield name, UPGRADE if name == "upgrade" else GET


def test_target_resets(run):
    hub, _, target = scenario(run)
    target.end = tcp.reset
    for name, request in each_framing(target):
        # what it said before its RST may be lost with it, and then it is a 502
        with tcp.open_socket(hub.listen["web"]) as s:
            s.sendall(request)
            got, end = b"", "eof"
            try:
                while not got.startswith(b"HTTP/1.1 502 ") and (data := s.recv(65536)):
                    got += data
            except ConnectionResetError:
                end = "reset"
        check(end == "reset" or got.startswith(b"HTTP/1.1 502 "), name, "ended with", end, "after", got)
    hub.nothing_left()


def test_agent_is_killed(run):
    """Nothing can be resumed with an agent that is gone: an answer that only its end delimits must not end well."""
    hub, agent, target = scenario(run, timeouts={"resume": "300ms"})
    clients = {name: ask(hub, request, b"some of it") for name, request in each_framing(target)}
    os.killpg(agent.master(), signal.SIGKILL)
    agent.abandon()
    for name, s in clients.items():
        tcp.expect_reset(s, name)
        s.close()
    hub.nothing_left()


def test_client_leaves(run):
    """The target learns it, at once, whether the client waits, sends or reads."""
    hub, _, target = scenario(run)
    target.say = b""
    for leave in (tcp.reset, socket.socket.close):
        s = tcp.open_socket(hub.listen["web"])
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome")
        target.heard.wait(harness.PATIENCE)
        target.heard.clear()
        leave(s)
        how, got = target.server.result()
        equal(how, "reset", "what the target sees of a body that is cut short")
        check(got.endswith(b"\r\n\r\nsome") or got.endswith(b"\r\n\r\n"), got)
    s = tcp.open_socket(hub.listen["web"])
    s.sendall(GET)
    target.heard.wait(harness.PATIENCE)
    tcp.reset(s)
    equal(target.server.result()[0], "reset", "what the target sees of a client that does not wait for its answer")
    for name, request in each_framing(target):
        tcp.reset(ask(hub, request, b"some of it"))
        equal(target.server.result()[0], "reset", name + ": what the target sees of a client that does not read its answer")
    hub.nothing_left()


def test_target_tires_of_waiting(run):
    """A kept connection ends just as the next request sets out: one that changes nothing is asked again, and the client does not notice."""
    connections = [0]

    def serve(s):
        connections[0] += 1
        odd, patience = connections[0] % 2, harness.PATIENCE  # for the first request
        with contextlib.suppress(ConnectionResetError):
            while True:
                got = b""
                while not got.endswith(b"\r\n\r\n"):
                    s.settimeout(patience)
                    try:
                        more = s.recv(65536)
                    except socket.timeout:
                        more = b""
                    if not more:
                        if odd:
                            tcp.reset(s)
                        return
                    got += more
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                patience = 0.004

    hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/web"}}).start()
    hub.wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("web", tcp.Server(run, serve).target)]).start()
    hub.wait_links(2)
    with tcp.open_socket(hub.listen["web"]) as s:
        for i in range(400):
            s.sendall(GET)
            got = b""
            while not got.endswith(b"\r\n\r\nok"):
                more = s.recv(65536)
                check(more, "the connection ended at request", i, got)
                got += more
                check(got.startswith(b"HTTP/1.1 200 "[:len(got)]), "request", i, "was answered", got)
            time.sleep(i % 20 * 0.0005)
    say("400 requests over %d connections to the target" % connections[0])
    check(connections[0] > 20, "connections to the target:", connections[0])
    hub.nothing_left()


def test_answer_before_a_reset(run):
    """A target that does not want the body answers and closes, which is a RST as there is something unread: the answer is the client's."""
    def serve(s):
        s.recv(100)
        s.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")

    hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/web"}}).start()
    hub.wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("web", tcp.Server(run, serve).target)]).start()
    hub.wait_links(2)
    for i in range(200):
        with tcp.open_socket(hub.listen["web"]) as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20000)
            got = b""
            while not got.endswith(b"\r\n\r\nbig"):
                more = s.recv(65536)
                check(more, "the connection ended at request", i, got)
                got += more
                check(got.startswith(b"HTTP/1.1 413 "[:len(got)]), "request", i, "was answered", got)
    hub.nothing_left()


def test_upgraded_ends(run):
    """After 101 each direction ends on its own, in good order."""
    hub, _, target = scenario(run)

    def echo(s):
        while data := s.recv(65536):
            s.sendall(data)
        s.sendall(b"last words")

    target.say, target.end = HEADS["upgrade"], echo
    with ask(hub, UPGRADE, b"\r\n\r\n") as s:
        s.sendall(b"hello")
        equal(tcp.recv_exactly(s, 5), b"hello", "echo")
        s.shutdown(socket.SHUT_WR)
        equal(tcp.recv_exactly(s, 10), b"last words", "what comes after the client's end")
        tcp.expect_eof(s)
    hub.nothing_left()
    hub.wait_log("session", reason="done", status=101)


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
