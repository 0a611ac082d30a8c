#!/usr/bin/env python3
"""Memory that a wave of clients needed goes back: what the threads of hub and agent keep for reuse, and pages to the system. The release build: sanitizers keep nothing."""
import json
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import proc
import scene
import tcp
from harness import say

CLIENTS, BYTES = 300, 200000


def kept(run, name):
    """Bytes, as of the last seconds."""
    return sum(row["kept"] * row["size"] for row in json.loads(ctl.command(run, name, "show memory json")))


def test_memory_goes_back_after_a_wave(run):
    program = scene.release_binary()
    if "asan" in program or "tsan" in program:
        raise harness.Skipped("there is no release build")
    target = tcp.Crowd(run)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings=ctl.admin_settings(run, "hub"), program=program).start().wait_ready()
    agent = scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", target.target)], program=program,
                        settings=ctl.admin_settings(run, "edge-1")).start()
    hub.wait_links(2)
    workers = {p.name: p.worker() for p in (hub, agent)}
    tcp.crowd(hub.listen["echo"], CLIENTS, BYTES)
    peak = {}

    def reached():
        peak.update({name: max(peak.get(name, 0), kept(run, name)) for name in workers})
        return all(n > 1 << 20 for n in peak.values())
    harness.wait_until(reached, "threads that keep what the wave needed", 20, 0.2)
    before = {name: proc.resident(pid)[0] for name, pid in workers.items()}
    harness.wait_until(lambda: all(kept(run, name) < peak[name] / 10 for name in workers), "it to go back", 60, 0.5)
    harness.wait_until(lambda: all(proc.resident(pid)[0] < before[name] - peak[name] / 4 for name, pid in workers.items()), "the system to get it back", 60, 0.5)
    for name, pid in workers.items():
        say("%s: %d KiB kept after the wave, %d KiB left of it; private memory %d, then %d KiB" % (name, peak[name] >> 10, kept(run, name) >> 10,
                                                                                                  before[name] >> 10, proc.resident(pid)[0] >> 10))


if __name__ == "__main__":
    harness.main(globals())
