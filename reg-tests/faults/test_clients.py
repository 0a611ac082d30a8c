#!/usr/bin/env python3
"""Clients that come to do harm, or to look: floods of connect and reset, port scans, silence. Nothing is left behind, others go on."""
import os
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

FLOOD = 3000


def start(run, **options):
    server = tcp.Server(run, tcp.echo)
    return scene.pair(run, {"echo": server.target}, **options), server


def descriptors(p):
    return [len(os.listdir("/proc/%d/fd" % x.worker())) for x in (p.hub, p.agent)]


def flood(run, visit, listener):
    """visit(address): one client. Descriptors and sessions return to where they were, a session in use goes on."""
    p, server = start(run)
    tcp.ask(p.listen["echo"])
    chatter = tcp.Chatter(p.listen["echo"])
    chatter.go_on(5)
    before, began = descriptors(p), time.monotonic()
    address = p.listen["echo"] if listener else p.hub.address
    for _ in range(FLOOD):
        visit(address)
    took = time.monotonic() - began
    chatter.go_on(5)
    times = chatter.stop()
    p.hub.nothing_left()
    harness.wait_until(lambda: not server.live, "the target's connections to end")
    harness.wait_until(lambda: all(now <= then for now, then in zip(descriptors(p), before)), "descriptors to be back at %s" % before)
    loud = [r for r in p.hub.log() if r["level"] in ("error", "alert")]
    equal(loud, [], "errors in the log")
    if listener:
        reasons = sorted({r["reason"] for r in p.hub.log("session")})
    else:
        reasons = sorted({r.get("reason") for r in p.hub.log("link_refused")})
    say("%d in %.1f s; ended with %s; meanwhile %s" % (FLOOD, took, ", ".join(map(str, reasons)), harness.spread(times)))
    tcp.ask(p.listen["echo"])
    equal(p.hub.metric("mctunnel_links"), 2, "links")


def reset(address):
    tcp.reset(tcp.open_socket(address))


def scan(address):
    tcp.open_socket(address).close()


def test_connect_and_reset(run):
    flood(run, reset, True)


def test_port_scan(run):
    flood(run, scan, True)


def test_connect_and_reset_at_the_hub(run):
    flood(run, reset, False)


def test_port_scan_at_the_hub(run):
    flood(run, scan, False)


def test_silence(run):
    """Who connects and says nothing is let go after timeouts.idle, at both ends."""
    p, server = start(run, timeouts={"idle": "1s"})
    before = descriptors(p)
    began = time.monotonic()
    held = [tcp.open_socket(p.listen["echo"]) for _ in range(50)]
    for s in held:
        try:
            tcp.expect_closed(s, "a silent client")
        except ConnectionResetError:
            pass
    took = time.monotonic() - began
    p.hub.nothing_left()
    harness.wait_until(lambda: not server.live, "the target's connections to end")
    harness.wait_until(lambda: all(now <= then for now, then in zip(descriptors(p), before)), "descriptors to be back")
    reasons = sorted({r["reason"] for r in p.hub.wait_log("session", 50)})
    say("idle = 1 s: gone after %.1f s with %s" % (took, ", ".join(reasons)))
    equal(len(reasons), 1, "reasons")
    check(took >= 0.9, took)


def test_reset_in_a_transfer(run):
    """Is known at the target at once."""
    p, server = start(run)
    waits = []
    for _ in range(20):
        s = tcp.open_socket(p.listen["echo"])
        s.sendall(b"x" * 100000)
        tcp.recv_exactly(s, 1000)
        began = time.monotonic()
        tcp.reset(s)
        check(isinstance(server.result(), ConnectionResetError), "the target saw no reset")
        waits.append(time.monotonic() - began)
    say("the target saw the reset after " + harness.spread(waits))
    p.hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
