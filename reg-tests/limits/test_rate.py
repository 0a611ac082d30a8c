#!/usr/bin/env python3
"""rate_limit: a burst of three times the rate is spread over three seconds; everybody is served, nobody refused."""
import datetime
import signal
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

RATE = 20


class Client:
    def __init__(self, address, n):
        self.word = b"client %d\n" % n
        self.s = tcp.open_socket(address)
        self.s.sendall(self.word)

    def served(self):
        """Waits for the answer."""
        got = b""
        while len(got) < len(self.word):
            data = self.s.recv(100)
            check(data, "the end instead of an answer")
            got += data
        equal(got, self.word, "the answer")
        self.s.close()


def hub_of(run, listeners, settings=None):
    server = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, listeners, settings=settings).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    return hub


def lines(hub, names):
    return [r for r in hub.log("session") if r["listener"] in names]


def accepted(hub, n, names, before):
    """When each session was accepted, by the log's lines behind those `before`."""
    harness.wait_until(lambda: len(lines(hub, names)) >= before + n, "%d sessions in the log" % n)
    records = lines(hub, names)[before:]
    equal(sorted({r["end"] for r in records}), ["--"], "ends")
    at = [datetime.datetime.fromisoformat(r["time"].replace("Z", "+00:00")).timestamp() - r["total"] / 1000 for r in records]
    equal(len(at), n, "sessions in the log")
    return sorted(at)


def densest(at):
    return max(sum(1 for b in at if a <= b < a + 1) for a in at)


def burst(run, hub, names, n=3 * RATE):
    """The rate is not exceeded; and it is reached. A busy machine may come late, or write a line later than its length is counted to: not each time."""
    for _ in range(4):
        length, most = one_burst(hub, names, n)
        if length < (n / RATE) * 1.25 + 0.2 and most <= RATE + 2:
            break
    else:
        raise harness.Failed("each time accepting %d took longer, or more than %d came in a second" % (n, RATE))
    hub.nothing_left()


def one_burst(hub, names, n):
    """How long accepting took, and how many were accepted in one second at most."""
    worker, before = hub.worker(), len(lines(hub, names))
    cpu, began = proc.cpu_seconds(worker), time.monotonic()
    clients = [Client(hub.listen[names[i % len(names)]], i) for i in range(n)]
    for c in clients:
        c.served()
    took, cpu = time.monotonic() - began, proc.cpu_seconds(worker) - cpu
    at = accepted(hub, n, names, before)
    say("%d clients at %d a second: all served in %.2f s; at most %d in any second; %.2f s of CPU" % (n, RATE, took, densest(at), cpu))
    check(took >= (n - 2) / RATE, "all served in", took)
    check(cpu < took * 0.5, "CPU while waiting:", cpu)
    return at[-1] - at[0], densest(at)


def test_of_a_listener(run):
    hub = hub_of(run, {"echo": {"route": "site-a/echo", "rate_limit": RATE}, "free": "site-a/echo"})
    # the other listener goes on meanwhile, and what it does does not count here
    for _ in range(3 * RATE):
        tcp.ask(hub.listen["free"])
    burst(run, hub, ["echo"])


def test_of_the_process(run):
    burst(run, hub_of(run, {"a": "site-a/echo", "b": "site-a/echo"}, {"rate_limit": RATE}), ["a", "b"])


def test_with_maxconn(run):
    """Both limits at once: whoever holds the place leaves, and the pace goes on."""
    burst(run, hub_of(run, {"echo": {"route": "site-a/echo", "rate_limit": RATE, "maxconn": 3}}), ["echo"], RATE)


def test_reload(run):
    """From one a second to none: those who wait are served at once."""
    hub = hub_of(run, {"echo": {"route": "site-a/echo", "rate_limit": 1}})
    clients = [Client(hub.listen["echo"], i) for i in range(50)]
    clients.pop(0).served()
    config = dict(hub.config)
    config["listeners"][0]["rate_limit"] = 0
    hub.configure(config)
    began = time.monotonic()
    os.kill(hub.master(), signal.SIGHUP)
    for c in clients:
        c.served()
    check(time.monotonic() - began < 20, "took", time.monotonic() - began)
    hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
