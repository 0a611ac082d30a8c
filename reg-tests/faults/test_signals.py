#!/usr/bin/env python3
"""Signals twice, in the wrong order, in storms: defined and idempotent."""
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


def start(run, hub=None, **settings):
    server = tcp.Server(run, tcp.echo)
    return scene.pair(run, {"echo": server.target}, hub=hub, settings=settings)


def drains(p):
    return [r for r in p.hub.log("message") if r["text"].startswith("draining:")]


def test_usr1_twice(run):
    """The second one neither starts the time anew nor ends anything."""
    p = start(run, hard_stop_after="8s")
    s = tcp.open_socket(p.listen["echo"])
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    began = time.monotonic()
    p.hub.send(signal.SIGUSR1)
    harness.wait_until(lambda: drains(p), "the drain")
    time.sleep(6)
    again = time.monotonic()
    for _ in range(5):
        p.hub.send(signal.SIGUSR1)
    s.sendall(b"y")
    equal(tcp.recv_exactly(s, 1), b"y", "a session in the drain")
    tcp.expect_reset(s, "client")
    took = time.monotonic() - began
    p.hub.ended(0)
    equal(len(drains(p)), 1, "drains begun")
    say("hard_stop_after = 8 s, USR1 again after %.1f s: ended after %.1f s" % (again - began, took))
    check(7.9 <= took < again - began + 7.9, took)


def test_term_during_usr1(run):
    p = start(run, hard_stop_after="30s")
    s = tcp.open_socket(p.listen["echo"])
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    p.hub.send(signal.SIGUSR1)
    harness.wait_until(lambda: drains(p), "the drain")
    began = time.monotonic()
    p.hub.send(signal.SIGTERM)
    tcp.expect_reset(s, "client")
    p.hub.ended(0)
    say("ended after %.2f s" % (time.monotonic() - began))
    check(time.monotonic() - began < 20, "TERM was not obeyed in the drain")


def test_usr1_during_term(run):
    p = start(run)
    p.hub.send(signal.SIGTERM)
    for _ in range(20):
        try:
            p.hub.send(signal.SIGUSR1)
        except ProcessLookupError:
            break
    p.hub.ended(0)


def test_hup_storm(run):
    """A thousand HUPs: whatever a reload does, sessions go on, nothing grows."""
    p = start(run)
    chatter = tcp.Chatter(p.listen["echo"])
    master, worker = p.hub.master(), p.hub.worker()
    before = [len(os.listdir("/proc/%d/fd" % pid)) for pid in (master, worker)]
    for i in range(1000):
        p.hub.send(signal.SIGHUP)
        if i % 100 == 0:
            chatter.go_on(1)
    chatter.go_on(20)
    equal(p.hub.worker(), worker, "the worker")
    tcp.ask(p.listen["echo"])
    times = chatter.stop()
    harness.wait_until(lambda: len(os.listdir("/proc/%d/fd" % master)) <= before[0], "no descriptor to be left in the master")
    harness.wait_until(lambda: len(os.listdir("/proc/%d/fd" % worker)) <= before[1] + 2, "no descriptor to be left in the worker")
    say("a session meanwhile: " + harness.spread(times))


def test_others_do_nothing(run):
    """What has no meaning changes nothing."""
    p = start(run)
    worker = p.hub.worker()
    for number in (signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT):
        for pid in (p.hub.master(), worker):
            os.kill(pid, number)
    tcp.ask(p.listen["echo"])
    equal(p.hub.worker(), worker, "the worker")
    check(proc.alive(p.hub.master()), "the master is gone")


def test_stopped_and_continued(run):
    """Both processes, as a shell's job control does: nobody is taken for hung."""
    p = start(run)
    chatter = tcp.Chatter(p.listen["echo"])
    time.sleep(1.1)
    master, worker = p.hub.master(), p.hub.worker()
    for pid in (master, worker):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    for pid in (worker, master):
        os.kill(pid, signal.SIGCONT)
    chatter.go_on(10)
    chatter.stop()
    equal(p.hub.worker(), worker, "the worker")


def test_all_stood_still(run):
    """As a machine that was paused: nobody takes the other side's silence for its death."""
    p = start(run, hub={"heartbeat": {"interval": "500ms", "timeout": "2500ms"}})
    chatter = tcp.Chatter(p.listen["echo"])
    pids = [x for program in (p.hub, p.agent) for x in (program.master(), program.worker())]
    for _ in range(3):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)  # longer than the heartbeat's timeout
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        chatter.go_on(5)
    chatter.stop()
    equal([r["reason"] for program in (p.hub, p.agent) for r in program.log("link_down")], [], "links that broke")


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
