#!/usr/bin/env python3
"""What a dead worker leaves: its backtrace is in the log once, and the next worker shows it, with the last events."""
import json
import os
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


def hub_with_admin(run):
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings={"admin": ({"bind": "unix:" + run.path("admin.sock"), "level": "admin"},)}).start()
    hub.errors = lambda: ""  # backtraces are expected
    hub.wait_ready()
    return hub


def ask(run, line):
    with tcp.open_socket(run.path("admin.sock")) as s:
        s.sendall(line.encode() + b"\n")
        return b"".join(iter(lambda: s.recv(65536), b"")).decode()


def die(hub, number):
    old = hub.worker()
    os.kill(old, number)
    hub.worker(other_than=old)
    hub.wait_ready()
    return old


def test_backtrace(run):
    hub = hub_with_admin(run)
    equal(ask(run, "show errors").strip(), "", "errors before")
    old = die(hub, signal.SIGABRT)
    shown = ask(run, "show errors")
    first = shown.splitlines()[0]
    check("worker %d was killed by signal 6" % old in first, first)
    check("its last words:" in shown and "died of SIGABRT" in shown, shown)
    check("main" in shown.split("its last events:")[0], "no backtrace in", shown)
    check("serving: version" in shown.split("its last events:")[1], "no events in", shown)
    check(len(shown) < 16384, "too long")
    words = [r["text"] for r in hub.log("message") if "last words" in r.get("text", "")]
    equal(sum("died of SIGABRT" in w for w in words), 1, "backtraces in the log")
    check(len(words) > 2, "no backtrace in the log")
    say("%d lines of last words, %d bytes shown" % (len(words), len(shown)))
    for row in json.loads(ask(run, "show errors json")):
        check(isinstance(row, dict), row)
    check(any(r.get("event") == "panic" for r in json.loads(ask(run, "show errors json"))), "not in JSON")


def test_killed(run):
    """SIGKILL leaves no words; events there are. Only the last death is shown."""
    hub = hub_with_admin(run)
    die(hub, signal.SIGABRT)
    second = die(hub, signal.SIGKILL)
    shown = ask(run, "show errors")
    check("worker %d was killed by signal 9" % second in shown and "SIGABRT" not in shown, shown)
    check("its last words" not in shown and "serving: version" in shown, shown)


def descriptors(hub):
    return len(os.listdir("/proc/%d/fd" % hub.master()))


def test_many_deaths_leak_nothing(run):
    hub = hub_with_admin(run)
    die(hub, signal.SIGABRT)
    before = descriptors(hub)
    for _ in range(4):
        die(hub, signal.SIGABRT)
    harness.wait_until(lambda: descriptors(hub) <= before, "the master to have %d descriptors again, not %d" % (before, descriptors(hub)))


if __name__ == "__main__":
    harness.main(globals())
