#!/usr/bin/env python3
"""Descriptors run out: accepting pauses without spinning, nobody is refused, /metrics answers, and it recovers by itself."""
import contextlib
import os
import resource
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

SPARE = 40
RESERVE = 16  # not for clients


def limit(pid, n):
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (n, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def used(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def come(address, word):
    s = tcp.open_socket(address)
    s.sendall(word)
    s.setblocking(False)
    return s


def hold(address, count):
    """Clients who connect and say something; who is served is seen later."""
    return [come(address, b"%04d" % i) for i in range(count)]


def hold_some(address, count):
    """The same where many are refused, some so fast that connecting or speaking sees it."""
    held = []
    for i in range(count):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            held.append(come(address, b"%04d" % i))
    return held


def served(held):
    n = 0
    for s in held:
        try:
            n += len(s.recv(4, 2)) == 4  # MSG_PEEK
        except BlockingIOError:
            pass
    return n


def exhaust(run, starved):
    """starved(p): the program whose worker runs out."""
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.target}, timeouts={"queue": "30s"})
    tcp.ask(p.listen["echo"])
    program = starved(p)
    worker = program.worker()
    limit(worker, used(worker) + SPARE)
    return p, program, worker


def test_hub(run):
    p, hub, worker = exhaust(run, lambda p: p.hub)
    held = hold(p.listen["echo"], 3 * SPARE)
    harness.wait_until(lambda: served(held) >= SPARE - RESERVE - 4, "as many as there are descriptors for")
    cpu, began = proc.cpu_seconds(worker), time.monotonic()
    harness.stays(lambda: hub.running() and served(held) <= SPARE - RESERVE + run.threads + 4, 2, "the others wait")
    share = (proc.cpu_seconds(worker) - cpu) / (time.monotonic() - began)
    first = served(held)
    answered = hub.get("/metrics")[0]
    paused = harness.wait_until(lambda: [r for r in hub.log("message", level="warning") if "accepting pauses" in r["text"]], "a word in the log")
    check(len(paused) == 1, "it is said %d times" % len(paused))
    for s in held[:first]:
        tcp.reset(s)
    rest = held[first:]
    while rest:
        harness.wait_until(lambda: served(rest) > 0, "one more to be served")
        n = served(rest)
        for s in [s for s in rest if served([s])]:
            tcp.reset(s)
            rest.remove(s)
    hub.nothing_left()
    tcp.ask(p.listen["echo"])
    say("%d of %d served at first, %.0f %% CPU while full, /metrics said %d meanwhile; then all were served" %
        (first, len(held), 100 * share, answered))
    equal(answered, 200, "/metrics while there are no descriptors")
    check(share < 0.2, "it spins: %.0f %% CPU" % (100 * share))


def test_hub_under_a_flood_of_knocks(run):
    """Whoever connects to the port for agents and says nothing cannot take the last descriptors either."""
    p, hub, worker = exhaust(run, lambda p: p.hub)
    chatter = tcp.Chatter(p.listen["echo"])
    held = [tcp.open_socket(p.hub.address) for _ in range(3 * SPARE)]
    cpu, began = proc.cpu_seconds(worker), time.monotonic()
    time.sleep(1)
    share = (proc.cpu_seconds(worker) - cpu) / (time.monotonic() - began)
    equal(hub.get("/metrics")[0], 200, "/metrics meanwhile")
    chatter.go_on(10)
    say("%d descriptors of %d are open, %.0f %% CPU, /metrics answers" % (used(worker), resource.prlimit(worker, resource.RLIMIT_NOFILE)[0], 100 * share))
    check(share < 0.3, "it spins")
    for s in held:
        tcp.reset(s)
    harness.wait_until(lambda: works(p.listen["echo"]), "new sessions")
    chatter.stop()
    equal(hub.metric("mctunnel_links"), 2, "links")


def test_agent(run):
    """Its targets cannot be connected to: those sessions end with a reason, the others and the links live on."""
    p, agent, worker = exhaust(run, lambda p: p.agent)
    chatter = tcp.Chatter(p.listen["echo"])
    held = hold_some(p.listen["echo"], 2 * SPARE)
    ended = p.hub.wait_log("session", SPARE // 2, reason="resources")
    reasons = sorted({r["reason"] for r in p.hub.log("session")[1:]})
    say("%d ended with %s, %d served" % (len(ended), ", ".join(reasons), served_or_gone(held)))
    equal(reasons, ["resources"], "reasons")
    chatter.go_on(10)
    for s in held:
        tcp.reset(s)
    harness.wait_until(lambda: works(p.listen["echo"]), "new sessions")
    chatter.stop()
    equal(p.hub.metric("mctunnel_links"), 2, "links")


def served_or_gone(held):
    n = 0
    for s in held:
        try:
            n += served([s])
        except OSError:
            pass
    return n


def works(address):
    try:
        tcp.ask(address)
        return True
    except (OSError, harness.Failed):
        return False


def test_worker_starts_with_too_few(run):
    """No worker comes up; the master says so, backs off, and gives up instead of leaving clients in the queue for ever."""
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.target})
    time.sleep(1.1)  # stable
    hub = p.hub
    hub.errors = lambda: ""
    master, old = hub.master(), hub.worker()
    limit(master, used(master) + 2)
    os.kill(old, signal.SIGKILL)
    hub.wait_log("message", 3, level="alert")
    check(hub.running(), "the master has ended at once")
    say([r["text"] for r in hub.log("message", level="alert")][-1])
    limit(master, 4096)
    harness.wait_until(lambda: hub.get("/readyz")[0] == 200, "it to recover")
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])


if __name__ == "__main__":
    harness.main(globals())
