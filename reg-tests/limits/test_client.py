#!/usr/bin/env python3
"""Limits of one client address in mode tcp: sessions at once, new ones a second; over them it is reset or waits, and others are not concerned."""
import os
import socket
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal


def world(run, limits, **listener):
    hub = scene.Hub(run, {"in": dict(route="site-a/echo", limits=limits, **listener)}).start().wait_ready()
    server = tcp.Server(run, tcp.echo)
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    return hub


def come(hub, source="127.0.0.1"):
    s = socket.create_connection(hub.listen["in"], timeout=harness.PATIENCE, source_address=(source, 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return s


def over(hub, what, source="127.0.0.1"):
    """It is reset, perhaps so fast that connecting sees it."""
    try:
        tcp.expect_reset(come(hub, source), what)
    except ConnectionResetError:
        pass


def served(s):
    s.sendall(b"ping\n")
    equal(tcp.recv_exactly(s, 5), b"ping\n", "answer")
    return s


def welcome(hub):
    try:
        return served(come(hub))
    except OSError:
        return None


def test_sessions_at_once(run):
    hub = world(run, {"client_sessions": 2})
    kept = [served(come(hub)) for _ in range(2)]
    over(hub, "a third session")
    line = hub.wait_log("session", reason="rate")[0]
    equal((line["end"], line["text"]), ("PR", "limits.client_sessions"), "the line in the log")
    other = served(come(hub, "127.0.0.2"))
    kept.pop().close()
    harness.wait_until(lambda: welcome(hub), "a place to be free again")
    served(other)


def test_the_third_waits(run):
    hub = world(run, {"client_sessions": 2, "over": "queue"}, timeouts={"queue": "60s"})
    kept = [served(come(hub)) for _ in range(2)]
    third = come(hub)
    third.sendall(b"ping\n")
    hub.wait_metric("mctunnel_queue_sessions", 1)
    kept.pop().close()
    equal(tcp.recv_exactly(third, 5), b"ping\n", "answer to the one that waited")
    hub.wait_metric("mctunnel_queue_sessions", 0)


def test_waits_no_longer_than_the_queue(run):
    hub = world(run, {"client_sessions": 1, "over": "queue"}, timeouts={"queue": "300ms"})
    kept = served(come(hub))
    over(hub, "one that waited in vain")
    equal(hub.wait_log("session", reason="rate")[0]["end"], "PR", "end")
    kept.close()


def test_new_ones_a_second(run):
    """A second's worth comes in at once; of forty more some are reset: all have connected before the first is waited for."""
    hub = world(run, {"client_rate": 10})
    clients, refused = [], 0
    for _ in range(50):
        try:
            clients.append(come(hub))
        except OSError:
            refused += 1
    for s in clients:
        try:
            served(s).close()
        except OSError:
            refused += 1
    check(refused > 0, "50 sessions at once, and none was over 10 a second")
    check(refused <= 40, "the first ten are allowed, but %d of 50 were refused" % refused)
    equal(len(hub.wait_log("session", refused, reason="rate", text="limits.client_rate")), refused, "lines in the log")
    served(come(hub, "127.0.0.3"))


def test_a_network_is_one_client(run):
    hub = world(run, {"client_sessions": 1, "client_prefix4": 24})
    kept = served(come(hub, "127.0.5.1"))
    over(hub, "the neighbour", "127.0.5.2")
    served(come(hub, "127.0.6.1"))
    kept.close()


if __name__ == "__main__":
    harness.main(globals())
