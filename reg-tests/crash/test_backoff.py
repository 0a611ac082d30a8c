#!/usr/bin/env python3
"""A worker that never gets ready: back-off, then the master gives up so that another host can take over."""
import os
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, say


def test_a_worker_that_never_gets_ready(run):
    """Deaths within the first second: back-off, and after ten in a row the master gives up, closes the sockets and fails."""
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    tcp.ask(p.listen["echo"])
    time.sleep(1.1)  # from now on its death is not a failed start
    began, old = time.monotonic(), 0
    for _ in range(11):  # the first had been ready for a second, it does not count
        old = p.hub.worker(other_than=old)
        os.kill(old, signal.SIGKILL)
    p.hub.ended(1)
    say("gave up after %.1f s" % (time.monotonic() - began))
    check(tcp.refused(p.listen["echo"]), "the sockets are still open")


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
