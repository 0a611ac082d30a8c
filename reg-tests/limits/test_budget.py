#!/usr/bin/env python3
"""global.memory: many clients who do not read while their targets pour. The budget holds, and others go on."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

BUDGET = 4  # MiB, the least there can be
STOPPED = 400
OTHER = 12  # MiB: what sessions need besides their data, 4 KiB each, and room for the allocator


def pour(s):
    block = b"x" * 65536
    while True:
        s.sendall(block)


def test_stopped_readers(run):
    echo, flood = tcp.Server(run, tcp.echo), tcp.Server(run, pour)
    p = scene.pair(run, {"echo": echo.target, "flood": flood.target}, settings={"memory": "%dm" % BUDGET}, program=scene.release_binary())
    chatter = tcp.Chatter(p.listen["echo"])
    chatter.go_on(20)
    programs = (p.hub, p.agent)
    before = [proc.resident(x.worker())[0] for x in programs]
    held = [tcp.open_socket(p.listen["flood"]) for _ in range(STOPPED)]
    began, highest = time.monotonic(), [0, 0]
    while time.monotonic() - began < 4:
        for i, x in enumerate(programs):
            highest[i] = max(highest[i], proc.resident(x.worker())[0])
        time.sleep(0.05)
    chatter.go_on(20)
    grown = [(h - b) / 1048576 for h, b in zip(highest, before)]
    ended = p.hub.log("session")
    reasons = sorted({r["reason"] for r in ended})
    times = chatter.times[20:]
    say("budget %d MiB, %d stopped readers: hub + %.1f MiB, agent + %.1f MiB; %d ended %s" % (BUDGET, STOPPED, *grown, len(ended), reasons))
    say("a session that is used all the time: " + harness.spread(times))
    check(set(reasons) <= {"resources"}, "ended with", reasons)
    for who, mib in zip(("hub", "agent"), grown):
        check(mib < BUDGET + OTHER, who, "has grown by %.1f MiB" % mib)
    for _ in range(5):
        tcp.ask(p.listen["echo"])
    for s in held:
        tcp.reset(s)
    chatter.go_on(5)
    chatter.stop()
    p.hub.nothing_left()
    tcp.ask(p.listen["echo"])


if __name__ == "__main__":
    harness.main(globals())
