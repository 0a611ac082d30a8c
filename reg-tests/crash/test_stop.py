#!/usr/bin/env python3
"""Stopping on purpose: at once, softly, and what ends then."""
import os
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say


def start(run, settings=None):
    server = tcp.Server(run, tcp.echo)
    return scene.pair(run, {"echo": server.target}, settings=settings), server


def test_stop_at_once(run):
    p, server = start(run)
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        s = tcp.open_socket(p.listen["echo"])
        s.sendall(b"x")
        equal(tcp.recv_exactly(s, 1), b"x")
        began = time.monotonic()
        p.hub.stop(number, code)
        say("stopped in %.0f ms" % (1000 * (time.monotonic() - began)))
        tcp.expect_reset(s, "client")
        check(isinstance(server.result(), ConnectionResetError), "the target saw no reset")
        p.hub.start().wait_links(2)


def test_orders_that_overtake_each_other(run):
    """A stop that comes while the threads still start, or are still being told to drain."""
    hub = scene.Hub(run, {"echo": "site-a/echo"})
    for i in range(12):
        hub.start()
        if i % 3:
            hub.wait_ready()
        worker = hub.worker()
        if i % 3 == 1:
            os.kill(worker, signal.SIGUSR1)
        if i % 3 == 2:
            hub.send(signal.SIGUSR1)
        os.kill(hub.master() if i % 3 == 2 else worker, signal.SIGTERM)
        harness.wait_until(lambda: not proc.alive(worker), "worker to end")
        if hub.running():
            hub.send(signal.SIGTERM)
        harness.wait_until(lambda: not hub.running(), "the hub to end")
        hub.abandon()


def test_soft_stop_lets_sessions_end(run):
    p, _ = start(run, {"hard_stop_after": "100s"})
    chatter = tcp.Chatter(p.listen["echo"])
    p.hub.send(signal.SIGUSR1)
    harness.wait_until(lambda: tcp.refused(p.listen["echo"]), "new clients to be refused")
    chatter.go_on(20)
    chatter.stop()
    began = time.monotonic()
    p.hub.ended(0)
    say("ended %.1f s after the last session" % (time.monotonic() - began))


def test_soft_stop_has_a_limit(run):
    p, _ = start(run)
    s = tcp.open_socket(p.listen["echo"])
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    began = time.monotonic()
    p.hub.send(signal.SIGUSR1)
    tcp.expect_reset(s, "client")
    p.hub.ended(0)
    took = time.monotonic() - began
    say("hard_stop_after = 5 s: ended after %.1f s" % took)
    check(4 <= took <= 20, took)


def test_agents_soft_stop(run):
    """A draining agent gets no new sessions, those it has go on; another takes over."""
    servers = [tcp.Server(run, tcp.banner("edge-%d" % i)) for i in (1, 2)]
    hub = scene.Hub(run, {"web": "site-a/web"}, [scene.tunnel(agents=["edge-1", "edge-2"], balance="first")]).start().wait_ready()
    agents = {}
    for i, server in zip((1, 2), servers):
        name = "edge-%d" % i
        agents[name] = scene.Agent(run, hub.authority, [hub.address], [scene.service("web", server.target)], name=name,
                                   settings={"hard_stop_after": "60s"}).start()
    hub.wait_links(4)
    held = tcp.open_socket(hub.listen["web"])
    lines = held.makefile("rb")
    first = lines.readline().decode().strip()
    other = "edge-2" if first == "edge-1" else "edge-1"
    agents[first].send(signal.SIGUSR1)
    harness.wait_until(lambda: tcp.ask_name(hub.listen["web"]) == other, "the other agent to take over")
    for _ in range(10):
        equal(tcp.ask_name(hub.listen["web"]), other, "who serves")
    held.sendall(b"still here\n")
    equal(lines.readline(), b"still here\n", "the session on the draining agent")
    held.shutdown(1)
    equal(lines.read(), b"", "its end")
    agents[first].ended(0)


if __name__ == "__main__":
    harness.main(globals())
