#!/usr/bin/env python3
"""As process 1 of a container: TERM drains within hard_stop_after, orphans are reaped, with a master and without."""
import os
import shutil
import signal
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say


def contain():
    """What puts a command into a namespace of processes of its own, as number 1."""
    words = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if not shutil.which("unshare") or subprocess.run(words + ("true",), stderr=subprocess.DEVNULL).returncode:
        raise harness.Skipped("no namespace of processes")
    return words


def start(run, hard_stop_after, alone=False):
    """(hub, its process 1 as seen from here)"""
    server = tcp.Server(run, tcp.echo)
    program = scene.binary()
    if alone:
        program = run.path("alone")
        with open(program, "w") as f:
            f.write('#!/bin/sh\nexec "%s" -1 "$@"\n' % scene.binary())
        os.chmod(program, 0o755)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings={"hard_stop_after": hard_stop_after}, launcher=contain(), program=program).start()
    hub.wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    return hub, proc.children(hub.popen.pid)[0]


def drains(run, alone):
    hub, first = start(run, "100s", alone)
    chatter = tcp.Chatter(hub.listen["echo"])
    chatter.go_on()
    os.kill(first, signal.SIGTERM)
    harness.wait_until(lambda: tcp.refused(hub.listen["echo"]), "new clients to be refused")
    equal(hub.get("/readyz")[0], 503, "readiness while draining")
    chatter.go_on(10)
    chatter.stop()
    began = time.monotonic()
    hub.ended(0)
    say("ended %.2f s after the last session" % (time.monotonic() - began))


def test_term_drains(run):
    drains(run, False)


def test_term_drains_without_a_master(run):
    drains(run, True)


def test_grace_ends(run):
    hub, first = start(run, "2s")
    s = tcp.open_socket(hub.listen["echo"])
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    began = time.monotonic()
    os.kill(first, signal.SIGTERM)
    tcp.expect_reset(s, "client")
    hub.ended(0)
    took = time.monotonic() - began
    say("hard_stop_after = 2 s: ended after %.1f s" % took)
    check(1.9 <= took <= 20, took)


def test_second_term_ends_at_once(run):
    hub, first = start(run, "100s")
    s = tcp.open_socket(hub.listen["echo"])
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    os.kill(first, signal.SIGTERM)
    harness.wait_until(lambda: tcp.refused(hub.listen["echo"]), "new clients to be refused")
    os.kill(first, signal.SIGTERM)
    tcp.expect_reset(s, "client")
    hub.ended(0)


def test_orphans_are_reaped(run):
    """Processes whose parent has gone become children of process 1; none stays a zombie."""
    hub, first = start(run, "1s")
    before = len(everybody(first))
    for _ in range(20):
        subprocess.run(("nsenter", "--pid=/proc/%d/ns/pid" % first, "sh", "-c", "sleep 0.05 & exit 0"), check=True)
    harness.wait_until(lambda: len(everybody(first)) <= before, "the orphans to be gone")
    check(not [p for p, f in everybody(first) if f[0] == "Z"], "a zombie")
    os.kill(first, signal.SIGTERM)
    hub.ended(0)


def everybody(parent):
    """Children, zombies too."""
    found = []
    for name in os.listdir("/proc"):
        fields = proc.stat(int(name)) if name.isdigit() else None
        if fields and int(fields[1]) == parent:
            found.append((int(name), fields))
    return found


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
