#!/usr/bin/env python3
"""The worker dies and dies again: nobody new is refused or left waiting, those who were connected see a reset, never a clean end."""
import errno
import os
import signal
import socket
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
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
    check(p.hub.metric("mctunnel_worker_restarts_total") >= KILLS, "restarts counted:", p.hub.metric("mctunnel_worker_restarts_total"))


def established(p, server):
    """A session that has carried bytes both ways."""
    s = tcp.open_socket(p.listen["echo"])
    s.sendall(b"hello")
    equal(tcp.recv_exactly(s, 5), b"hello")
    return s


def both_ends_reset(p, server, kill):
    s = established(p, server)
    began = time.monotonic()
    kill()
    tcp.expect_reset(s, "client")
    client = time.monotonic() - began
    result = server.result()
    check(isinstance(result, ConnectionResetError), "the target saw", repr(result))
    say("client saw its reset after %.0f ms" % (1000 * client))


def echo_pair(run, settings=None):
    server = tcp.Server(run, tcp.echo)
    return scene.pair(run, {"echo": server.target}, settings=settings), server


def test_hubs_worker_killed_resets_both_ends(run):
    p, server = echo_pair(run)
    both_ends_reset(p, server, p.hub.kill_worker)
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    p.agent.nothing_left()


def test_hubs_worker_crashes(run):
    """SIGSEGV is no different."""
    p, server = echo_pair(run)
    both_ends_reset(p, server, lambda: os.kill(p.hub.worker(), signal.SIGSEGV))
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    p.hub.stop()
    p.hub.errors = lambda: ""  # the backtrace is expected


def test_agents_worker_killed_resets_both_ends(run):
    p, server = echo_pair(run)
    both_ends_reset(p, server, p.agent.kill_worker)
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    p.hub.nothing_left()


def test_agent_killed_whole(run):
    """Nobody says goodbye for it: the hub waits for timeouts.resume."""
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.target}, timeouts={"resume": "3s"})

    def kill():
        p.agent.abandon()
        for pid in proc.members(p.agent.master()):
            os.kill(pid, signal.SIGKILL)

    both_ends_reset(p, server, kill)
    p.hub.wait_links(0)
    p.hub.nothing_left()
    p.agent.popen.wait()
    p.agent.start()
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])


def test_master_killed(run):
    """The worker closes its listening sockets, serves those it has to their end, and goes."""
    p, server = echo_pair(run, {"hard_stop_after": "40s"})
    chatter = tcp.Chatter(p.listen["echo"])
    worker = p.hub.worker()
    p.hub.abandon()
    os.kill(p.hub.master(), signal.SIGKILL)
    p.hub.popen.wait()
    harness.wait_until(lambda: refused(p.listen["echo"]), "new clients to be refused", 10)
    check(refused(p.hub.address), "the agents' address is still open")
    chatter.go_on(20)
    check(proc.alive(worker), "the worker went too early")
    chatter.stop()
    check(proc.wait_gone(worker, 5), "the worker stays on, although its last session has ended")


def refused(address):
    try:
        tcp.reset(tcp.open_socket(address))
        return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False


def test_hung_worker_is_replaced(run):
    p, _ = echo_pair(run)
    stable(p)
    old = p.hub.worker()
    began = time.monotonic()
    os.kill(old, signal.SIGSTOP)
    harness.wait_until(lambda: not proc.alive(old), "the hung worker to be killed", 10)
    killed = time.monotonic() - began
    tcp.ask(p.listen["echo"])
    say("killed after %.1f s, serving again after %.1f s" % (killed, time.monotonic() - began))
    check(1 <= killed <= 4, "killed after %.1f s" % killed)


def test_client_that_comes_while_the_worker_is_dead(run):
    """It waits in the kernel's queue, then in the hub's, and is served."""
    p, _ = echo_pair(run)
    stable(p)
    old = p.hub.kill_worker()
    began = time.monotonic()
    tcp.ask(p.listen["echo"])
    say("served %.0f ms after the kill" % (1000 * (time.monotonic() - began)))
    p.hub.worker(other_than=old)


def test_a_worker_that_never_gets_ready(run):
    """Deaths within the first second: back-off, and after ten in a row the master gives up, closes the sockets and fails."""
    p, _ = echo_pair(run)
    stable(p)
    began, old, deaths = time.monotonic(), 0, 0
    while p.hub.running() and time.monotonic() < began + 60:
        new = [pid for pid in proc.children(p.hub.master()) if pid != old]
        if not new:
            time.sleep(0.001)
            continue
        old = new[0]
        deaths += 1
        try:
            os.kill(old, signal.SIGKILL)
        except ProcessLookupError:
            pass
    took = time.monotonic() - began
    check(not p.hub.running(), "the master still tries after %d deaths" % deaths)
    p.hub.abandon()
    check(p.hub.popen.returncode > 0, "exit code", p.hub.popen.returncode)
    check(refused(p.listen["echo"]), "the sockets are still open")
    say("gave up after %d deaths, %.1f s" % (deaths, took))
    check(10 <= deaths <= 12, deaths, "deaths")


if __name__ == "__main__":
    harness.main(globals())
