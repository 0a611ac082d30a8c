#!/usr/bin/env python3
"""The clock of the wall jumps a day forward and back, and signals interrupt every call: nothing times out, nothing is lost."""
import datetime
import glob
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

DAY = 86400


def faked(run, name):
    """(environment, file with the offset). The monotonic clock stays as it is."""
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        raise harness.Skipped("libfaketime is not installed")
    path = run.path(name + ".offset")
    set_offset(path, 0)
    return {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}, path


def set_offset(path, seconds):
    with open(path + ".new", "w") as f:
        f.write("%+d\n" % seconds)
    os.rename(path + ".new", path)


def wall(record):
    return datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00")).timestamp()


def test_clock_jumps(run):
    """libfaketime and sanitizers do not go together: the measured program."""
    server = tcp.Server(run, tcp.echo)
    environment, offset = faked(run, "both")
    p = scene.pair(run, {"echo": server.target}, program=scene.release_binary(), environment=environment,
                   hub={"heartbeat": {"interval": "300ms", "timeout": "1500ms"}})
    chatter = tcp.Chatter(p.listen["echo"])
    idle = tcp.open_socket(p.listen["echo"])
    idle.sendall(b"x")
    equal(tcp.recv_exactly(idle, 1), b"x")
    for count, days in enumerate((1, 0, -1, 0, 1, -1, 0), 1):
        set_offset(offset, days * DAY)
        time.sleep(1.6)  # longer than the heartbeat's timeout
        chatter.go_on(3)
        tcp.ask(p.listen["echo"])
        off = wall(p.hub.wait_log("session", count)[-1]) - time.time()  # waited for: the end of a session is written after its last byte
        check(abs(off - days * DAY) < DAY / 2, "the clock did not jump by %+d days, but %+.0f s" % (days, off))
    idle.sendall(b"y")
    equal(tcp.recv_exactly(idle, 1), b"y", "a session that was idle")
    times = chatter.stop()
    say("a session meanwhile: %s" % harness.spread(times))
    equal(p.hub.log("link_down"), [], "links that broke")
    equal([r for r in p.hub.log("session") if r["reason"] != "done"], [], "sessions that ended badly")
    check(max(times) < 10, "a session stood still")


def test_signal_storm(run):
    """Every call is interrupted all the time (CONT does nothing but that where a handler is or a wait was stopped)."""
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.target})
    pids = [x for program in (p.hub, p.agent) for x in (program.master(), program.worker())]
    going = [True]

    def storm():
        sent = 0
        while going[0]:
            for pid in pids:
                for number in (signal.SIGSTOP, signal.SIGCONT):
                    os.kill(pid, number)
                    sent += 1
            time.sleep(0.001)
        return sent
    sender = harness.Background(storm)
    began = time.monotonic()
    times = tcp.crowd(p.listen["echo"], 20, 1 << 20, 60)
    while time.monotonic() - began < 3:
        tcp.ask(p.listen["echo"])
    going[0] = False
    sent = sender.finish()
    p.hub.nothing_left()

    def idles():
        """Part of a CPU that the busiest needs; None when it is more than a little."""
        cpu = [proc.cpu_seconds(pid) for pid in pids]
        time.sleep(1)
        most = max(now - then for now, then in zip([proc.cpu_seconds(pid) for pid in pids], cpu))
        return (most,) if most < 0.2 else None
    idle, = harness.wait_until(idles, "it to rest: it spins")
    say("%d signals; 20 MiB each way: %s; idle afterwards at %.0f %% CPU" % (sent, harness.spread(times), 100 * idle))


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
