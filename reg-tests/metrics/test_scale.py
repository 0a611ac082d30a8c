#!/usr/bin/env python3
"""Metrics of a hub with thousands of agents: sessions on the same thread must not wait for a scrape. The release build is measured."""
import os
import resource
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import relay
import scene
import tcp
from harness import check, equal, say

AGENTS = 5000
EACH = 1000  # in a tunnel
FILES = 12000


def echoes(address, busy):
    """Times of echoes while busy() goes on, in seconds."""
    chatter = tcp.Chatter(address, every=0.001)
    busy()
    return chatter.stop()


def scrapes(run, program, path, n):
    """By a process of its own. Returns the times, and the size of the last."""
    out = run.path("scrape.out")
    times = []
    for _ in range(n):
        p = subprocess.run(["curl", "-sf", "-o", out, "-w", "%{time_total}", "http://%s%s" % (tcp.text(program.metrics_address), path)],
                           stdout=subprocess.PIPE, text=True)
        equal(p.returncode, 0, "curl " + path)
        times.append(float(p.stdout))
        time.sleep(0.05)
    return times, os.path.getsize(out)


def start_agents(run, hub, t):
    return proc.start(run, [relay.tool("agents"), "--hub", "%s:%d" % hub.address, "--server-name", "hub.test", "--pki", hub.authority.dir,
                            "--count", str(EACH), "--first", str(t * EACH + 1), "--tunnel", "site-%d" % t], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def test_scrape_of_many(run):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < FILES:
        raise harness.Skipped("too few descriptors")
    program = scene.release_binary()
    tunnels = [scene.tunnel("site-%d" % t, agents=["agent-%d" % (t * EACH + i) for i in range(1, EACH + 1)]) for t in range(AGENTS // EACH)]
    hub = scene.Hub(run, {"echo": "site-0/echo-1"}, tunnels, program=program, hub={"heartbeat": {"interval": "1s", "timeout": "20s"}})
    hub.config["global"]["metrics"]["max_series"] = 100000
    hub.configure(hub.config)
    hub.start().wait_ready()
    began = time.monotonic()
    agents = [start_agents(run, hub, t) for t in range(len(tunnels))]
    hub.wait_links(AGENTS, 100)
    say("%d agents are up after %.1f s" % (AGENTS, time.monotonic() - began))
    hub.wait_metric('mctunnel_metrics_series_dropped{family="mctunnel_link_rtt_seconds"}', 0)
    quiet = echoes(hub.listen["echo"], lambda: time.sleep(2))
    say("echo, no scrapes:      ", harness.spread(quiet))
    for path in ("/metrics", "/status.json"):
        measured = []
        loud = echoes(hub.listen["echo"], lambda: measured.append(scrapes(run, hub, path, 20)))
        took, size = measured[0]
        say("echo, %-15s  " % path, harness.spread(loud))
        say("%s: %d KiB, %s" % (path, size >> 10, harness.spread(took)))
        check("asan" in program or harness.percentile(loud, 99) < harness.percentile(quiet, 99) + 0.05, "sessions wait for", path)
    check(hub.get("/metrics")[1].count("\nmctunnel_service_up{") == AGENTS, "services")
    for a in agents:
        a.stdin.close()
    hub.wait_metric("mctunnel_agents", 0, 60)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    harness.main(globals(), threads=(1,))
