#!/usr/bin/env python3
"""A client that reads nothing beside one that does, on the same link: the second is not held up, memory stays within the budget."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

BULK = 64 << 20
STOPPED = 8
BUDGET = 64 << 20


def rate(address):
    began = time.monotonic()
    with tcp.open_socket(address) as s:
        n, _ = tcp.recv_stream(s)
    equal(n, BULK, "bulk bytes")
    return n / 1e6 / (time.monotonic() - began)


def echo_times(address, seconds=2):
    c = tcp.Chatter(address, every=0.005)
    time.sleep(seconds)
    return c.stop()


def measure(p):
    echo = echo_times(p.listen["echo"])
    bulk = rate(p.listen["bulk"])
    return 1000 * harness.percentile(echo, 50), 1000 * harness.percentile(echo, 99), bulk


def scenario(run, stopped):
    servers = {"echo": tcp.echo, "bulk": lambda s: tcp.send_stream(s, BULK, 1), "flood": lambda s: tcp.send_stream(s, 1 << 30, 1),
               "sink": lambda s: time.sleep(100)}
    settings = {"memory": "64m"}
    p = scene.pair(run, {k: tcp.Server(run, f).target for k, f in servers.items()}, links=1, settings=settings)
    alone = measure(p)
    before = [proc.resident(x.worker())[0] for x in (p.hub, p.agent)]
    clients = stopped(p)
    beside = measure(p)
    after = [proc.resident(x.worker())[0] for x in (p.hub, p.agent)]
    say("alone:  echo p50 %.2f ms p99 %.2f ms, bulk %.0f MB/s" % alone)
    say("beside: echo p50 %.2f ms p99 %.2f ms, bulk %.0f MB/s" % beside)
    say("ratios: echo p99 %.2f, bulk %.2f" % (beside[1] / alone[1], beside[2] / alone[2]))
    for name, b, a in zip(("hub", "agent"), before, after):
        say("%s: %.1f MiB more memory" % (name, (a - b) / 1048576))
        if "asan" not in scene.binary():
            check(a - b < BUDGET + (16 << 20), name, "exceeds the budget")
    for s in clients:
        tcp.reset(s)
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_clients_that_do_not_read(run):
    scenario(run, lambda p: [tcp.open_socket(p.listen["flood"]) for _ in range(STOPPED)])


def test_targets_that_do_not_read(run):
    def stopped(p):
        clients = [tcp.open_socket(p.listen["sink"]) for _ in range(STOPPED)]
        for s in clients:
            s.settimeout(0.3)
            try:
                while True:
                    s.sendall(bytes(1 << 20))
            except TimeoutError:
                pass
        return clients

    scenario(run, stopped)


if __name__ == "__main__":
    harness.main(globals())
