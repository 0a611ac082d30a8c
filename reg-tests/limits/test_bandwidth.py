#!/usr/bin/env python3
"""Bandwidth: of one session, and of all of a listener, tunnel or service together; each way by itself; nothing is lost, and others are not slowed."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, say

SIZE = 300000
RATE = 300000


def world(run, listener=None, tunnel=None, service=None):
    server = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"in": dict({"route": "site-a/echo"}, **(listener or {})), "free": "site-b/echo"},
                    [scene.tunnel(**(tunnel or {})), scene.tunnel("site-b", agents=["edge-2"])]).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target, **(service or {}))]).start()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)], name="edge-2", tunnel_name="site-b").start()
    hub.wait_links(4)
    return hub


def seconds(address, n=1):
    """How long n echoes of SIZE bytes take, all at once; the bytes are checked."""
    began = time.monotonic()
    tasks = [harness.Background(lambda seed=i: tcp.exchange(tcp.open_socket(address), SIZE, seed + 1)) for i in range(n)]
    for t in tasks:
        t.finish(60)
    return time.monotonic() - began


def slowed(run, took, least, what):
    say("%s: %.2f s for what may take %.2f s" % (what, took, least))
    # what is in flight in sockets and rings when the limit begins to count makes it a little less
    check(took >= least * 0.85, what, "took only", took, "s instead of", least)


def test_of_a_session(run):
    hub = world(run, listener={"limits": {"session_up": RATE}})
    slowed(run, seconds(hub.listen["in"]), SIZE / RATE, "session_up")
    hub.nothing_left()


def test_of_a_session_down(run):
    hub = world(run, listener={"limits": {"session_down": RATE}})
    slowed(run, seconds(hub.listen["in"]), SIZE / RATE, "session_down")


def test_two_sessions_of_their_own(run):
    """Both have the whole rate, and so need no longer than one."""
    hub = world(run, listener={"limits": {"session_up": RATE}})
    for _ in range(5):  # what they shared would always take twice as long; a busy machine does so at times
        two = seconds(hub.listen["in"], 2)
        slowed(run, two, SIZE / RATE, "two sessions")
        if two < 1.6 * SIZE / RATE:
            return
    raise harness.Failed("two took %.2f s" % two)


def test_of_a_listener(run):
    hub = world(run, listener={"limits": {"down": RATE}})
    slowed(run, seconds(hub.listen["in"], 2), 2 * SIZE / RATE, "two sessions share the listener's")


def test_of_a_tunnel(run):
    hub = world(run, tunnel={"limits": {"up": RATE}})
    slowed(run, seconds(hub.listen["in"], 2), 2 * SIZE / RATE, "two sessions share the tunnel's")


def test_of_a_service(run):
    hub = world(run, service={"limits": {"up": RATE}})
    slowed(run, seconds(hub.listen["in"]), SIZE / RATE, "the service's")


def test_others_are_not_slowed(run):
    hub = world(run, listener={"limits": {"session_up": RATE // 10}})
    slow = tcp.open_socket(hub.listen["in"])
    task = harness.Background(lambda: tcp.exchange(slow, SIZE, 3))
    took = seconds(hub.listen["free"])
    check(task.is_alive(), "the slow one was through before the fast one")
    say("beside it, without limit: %.2f s" % took)
    tcp.reset(slow)


if __name__ == "__main__":
    harness.main(globals())
