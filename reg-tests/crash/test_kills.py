#!/usr/bin/env python3
"""The worker is killed twenty times under a load of new connections: nobody is refused, nobody waits long."""
import os
import socket
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say

KILLS = 20


class Load:
    """New connections all the time, each wants one line echoed; every outcome is remembered."""

    def __init__(self, address, clients=6):
        self.address, self.going, self.lock = address, True, threading.Lock()
        self.ok, self.resets, self.refused, self.timeouts, self.other = [], 0, 0, 0, []
        self.clients = [harness.Background(self._client) for _ in range(clients)]

    def _client(self):
        while self.going:
            began = time.monotonic()
            outcome = self._once()
            with self.lock:
                self._count(outcome, began)
            time.sleep(0.002)

    def _count(self, outcome, began):
        if outcome == "ok":
            self.ok.append((began, time.monotonic() - began))
        elif isinstance(outcome, (ConnectionResetError, BrokenPipeError)):
            self.resets += 1  # it was connected when the worker died
        elif isinstance(outcome, ConnectionRefusedError):
            self.refused += 1
        elif isinstance(outcome, TimeoutError):
            self.timeouts += 1
        else:
            self.other.append(repr(outcome))

    def _once(self):
        try:
            with tcp.open_socket(self.address, 10) as s:
                s.sendall(b"ping\n")
                got = s.recv(5, socket.MSG_WAITALL)
                return "ok" if got == b"ping\n" else harness.Failed("got %r" % got)
        except OSError as e:
            return e

    def stop(self):
        self.going = False
        for c in self.clients:
            c.finish()


def ready_again(p, old):
    p.hub.worker(other_than=old)
    p.hub.wait_links(p.links)


def stable(p):
    """A worker counts as failing when it dies within its first second of being ready."""
    tcp.ask(p.listen["echo"])
    time.sleep(1.1)


def test_killed_twenty_times_under_load(run):
    p = scene.pair(run, {"echo": tcp.Crowd(run).target}, timeouts={"queue": "10s"})
    stable(p)
    load = Load(p.listen["echo"])
    time.sleep(0.5)
    kills, back = [], []
    for _ in range(KILLS):
        old = p.hub.kill_worker()
        kills.append(time.monotonic())
        ready_again(p, old)
        back.append(time.monotonic() - kills[-1])
        time.sleep(1.1)
    load.stop()
    hit = [t for began, t in load.ok if any(k - t <= began <= k + b for k, b in zip(kills, back))]
    calm = [t for began, t in load.ok if not any(k - 1 <= began <= k + b + 0.2 for k, b in zip(kills, back))]
    say("kill to both links up:      ", harness.spread(back))
    say("connections in calm times:  ", harness.spread(calm))
    say("connections around a kill:  ", harness.spread(hit))
    base = harness.percentile(calm, 50)
    say("added wait around a kill:   ", harness.spread([max(0, t - base) for t in hit]))
    say("%d good, %d reset while connected, %d refused, %d timed out" % (len(load.ok), load.resets, load.refused, load.timeouts))
    equal(load.refused, 0, "refused")
    equal(load.timeouts, 0, "timed out")
    equal(load.other, [], "other outcomes")
    check(load.resets <= KILLS * len(load.clients), "more resets than connections open when the worker died")
    check(len(hit) >= KILLS, "no connection met a kill")
    p.hub.wait_metric("mctunnel_worker_restarts_total", lambda n: n >= KILLS)


if __name__ == "__main__":
    harness.main(globals())
