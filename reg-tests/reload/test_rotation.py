#!/usr/bin/env python3
"""Logrotate: a log file that was renamed goes on under its name after a reload; one that was not is left alone."""
import os
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal


def reloads(path):
    try:
        with open(path) as f:
            return f.read().count("reload done")
    except FileNotFoundError:
        return 0


def test_renamed_log(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    path, old = p.hub.log_path, p.hub.log_path + ".1"
    p.hub.send(signal.SIGHUP)
    harness.wait_until(lambda: reloads(path) == 1, "the first reload")
    inode = os.stat(path).st_ino
    os.rename(path, old)
    p.hub.send(signal.SIGHUP)
    harness.wait_until(lambda: reloads(path) == 1, "a new file")
    check(os.stat(path).st_ino != inode, "still the old file")
    equal(reloads(old), 1, "reloads in the old file")
    tcp.ask(p.listen["echo"])
    p.hub.wait_log("session")


if __name__ == "__main__":
    harness.main(globals())
