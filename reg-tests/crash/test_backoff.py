#!/usr/bin/env python3
"""A worker that never gets ready: back-off, then the master gives up so that another host can take over."""
import os
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, say


def kill_each(program, killed):
    """Kills the worker that is there, unless it was killed before. True when the master has ended."""
    for pid in proc.children(program.master()):
        if pid not in killed and proc.name(pid) == "mctunnel-worker":
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    return not program.running()


def test_a_worker_that_never_gets_ready(run):
    """Deaths within the first second: back-off, and after ten in a row the master gives up, closes the sockets and fails."""
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    tcp.ask(p.listen["echo"])
    time.sleep(1.1)  # from now on its death is not a failed start
    began, killed = time.monotonic(), set()
    harness.wait_until(lambda: kill_each(p.hub, killed), "the master to give up", 100, 0.002)
    p.hub.ended(1)
    say("gave up after %d workers and %.1f s" % (len(killed), time.monotonic() - began))
    check(len(killed) > 10, "gave up too early")  # more, where one could live for a second
    check(tcp.refused(p.listen["echo"]), "the sockets are still open")


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
