#!/usr/bin/env python3
"""maxconn: ten times as many clients come at once; exactly maxconn are served, the others wait, nobody is refused."""
import os
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say

MAXCONN = 20


class Client:
    """Says one word at once and waits for it to come back."""

    def __init__(self, address, n):
        self.word = b"client %d\n" % n
        self.s = tcp.open_socket(address)
        self.s.sendall(self.word)
        self.s.setblocking(False)
        self.got, self.error = b"", None

    def served(self):
        try:
            while len(self.got) < len(self.word):
                data = self.s.recv(100)
                if not data:
                    raise harness.Failed("the end instead of an answer")
                self.got += data
        except BlockingIOError:
            return False
        return self.got == self.word

    def leave(self):
        self.s.setblocking(True)
        self.s.shutdown(socket.SHUT_WR)
        tcp.expect_eof(self.s)
        self.s.close()


def burst(run, settings=None, listener=None, tunnel=None):
    """Sessions are counted at the target and in the metrics."""
    server = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"echo": dict({"route": "site-a/echo"}, **(listener or {}))}, [scene.tunnel(**(tunnel or {}))],
                    settings=settings, timeouts={"queue": "60s"}).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    waiting, total = [Client(hub.listen["echo"], i) for i in range(10 * MAXCONN)], 10 * MAXCONN
    began, waves = time.monotonic(), 0

    def sessions():
        return max(len(server.live), int(hub.metric("mctunnel_sessions")))

    while waiting:
        waves += 1
        want = min(MAXCONN, len(waiting))
        harness.wait_until(lambda: sum(c.served() for c in waiting) >= want, "%d clients to be served" % want)
        # those who left may still be counted for a moment, here or there; who is served too many stays
        harness.wait_until(lambda: sessions() == want, "%d sessions, and no more" % want)
        if waves == 1:
            harness.stays(lambda: sum(c.served() for c in waiting) == MAXCONN and sessions() <= MAXCONN, 0.5, "exactly maxconn are served")
        now = [c for c in waiting if c.served()]
        check(len(now) <= MAXCONN, "%d are served at once" % len(now))
        for c in now:
            c.leave()
        waiting = [c for c in waiting if c not in now]
    say("%d clients, maxconn %d: all served in %d waves, %.1f s; 0 refused" % (total, MAXCONN, waves, time.monotonic() - began))
    hub.nothing_left()
    equal(len(hub.wait_log("session", total)), total, "sessions in the log")
    equal(len(hub.log("session", end="--")), total, "sessions in good order")


def test_of_the_process(run):
    burst(run, settings={"maxconn": MAXCONN})


def test_of_a_listener(run):
    burst(run, listener={"maxconn": MAXCONN})


def test_of_a_tunnel(run):
    """Here clients are accepted and wait in the hub's queue."""
    burst(run, tunnel={"maxconn": MAXCONN})


def test_another_listener_goes_on(run):
    """One listener at its limit does not hold up the others."""
    server = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"full": {"route": "site-a/echo", "maxconn": 1}, "other": "site-a/echo"}).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    clients = [Client(hub.listen["full"], i) for i in range(5)]
    harness.wait_until(lambda: any(c.served() for c in clients), "the first to be served")
    for _ in range(20):
        tcp.ask(hub.listen["other"])
    equal(sum(c.served() for c in clients), 1, "served by the full one")
    for c in clients:
        tcp.reset(c.s)


if __name__ == "__main__":
    harness.main(globals())
