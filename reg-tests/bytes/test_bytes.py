#!/usr/bin/env python3
"""Bytes through a tunnel: every size, both directions, many sessions, checksummed."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import equal, say

EDGES = (16 << 10, 16375, 64 << 10, 256 << 10)
SIZES = sorted({0, 1, 2, 1000, 1 << 20, *(edge + d for edge in EDGES for d in (-1, 0, 1))})


class Exchanger:
    """Handler: sends `n` bytes while it receives, so that both directions are busy."""

    def __init__(self):
        self.n, self.seed = 0, 0

    def __call__(self, s):
        return tcp.exchange(s, self.n, self.seed)


def both_ways(server, handler, address, up, down, seed):
    handler.n, handler.seed = down, seed + 1
    with tcp.open_socket(address) as s:
        sent, received = tcp.exchange(s, up, seed)
    result = server.result()
    if isinstance(result, Exception):
        raise harness.Failed("the target saw: %r" % result)
    theirs, ours = result
    equal(ours, sent, "what the target got of %d bytes" % up)
    equal(received, theirs, "what the client got of %d bytes" % down)


def start(run):
    handler = Exchanger()
    server = tcp.Server(run, handler)
    p = scene.pair(run, {"x": server.target})
    return p, server, handler


def test_sizes(run):
    p, server, handler = start(run)
    for n in SIZES:
        both_ways(server, handler, p.listen["x"], n, n, n)
        both_ways(server, handler, p.listen["x"], n, 0, n)
        both_ways(server, handler, p.listen["x"], 0, n, n)
    p.hub.nothing_left()
    p.agent.nothing_left()
    say("%d sizes up to %d" % (len(SIZES), SIZES[-1]))


def test_100_mib_both_ways(run):
    p, server, handler = start(run)
    for up, down in ((100 << 20, 0), (0, 100 << 20), (100 << 20, 100 << 20)):
        began = time.monotonic()
        both_ways(server, handler, p.listen["x"], up, down, 5)
        say("up %3d MiB, down %3d MiB: %.0f MB/s" % (up >> 20, down >> 20, (up + down) / 1e6 / (time.monotonic() - began)))
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_byte_counts_in_the_log(run):
    p, server, handler = start(run)
    both_ways(server, handler, p.listen["x"], 12345, 678, 1)
    p.hub.wait_log("session", reason="done", up=12345, down=678, listener="x", agent="edge-1", end="--")


def test_1000_parallel_sessions(run):
    server = tcp.Crowd(run)
    p = scene.pair(run, {"echo": server.target})
    times = tcp.crowd(p.listen["echo"], 1000, 65000)
    say("1000 sessions at once, 65000 bytes each:", harness.spread(times))
    p.hub.nothing_left()
    p.agent.nothing_left()
    ended = p.hub.wait_log("session", count=1000, reason="done")
    equal(len(ended), 1000, "log lines of sessions")
    equal(len({r["id"] for r in ended}), 1000, "different session ids")


def test_many_short_sessions(run):
    server = tcp.Crowd(run)
    p = scene.pair(run, {"echo": server.target})
    began, rounds = time.monotonic(), 10
    for _ in range(rounds):
        tcp.crowd(p.listen["echo"], 200, 10)
    say("%.0f sessions a second" % (rounds * 200 / (time.monotonic() - began)))
    p.hub.nothing_left()
    p.agent.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
