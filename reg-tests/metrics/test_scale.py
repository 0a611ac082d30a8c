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
WAIT = 0.05  # of a session for a page, in seconds, at most


def scrape(program, path):
    """How long it took, and its size."""
    began, size = time.monotonic(), 0
    with tcp.open_socket(program.metrics_address) as s:
        s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode())
        while piece := s.recv(1 << 18):
            size += len(piece)
    return time.monotonic() - began, size


def scrapes(program, path, chatter, n):
    """The times they took, for each of them the slowest echo meanwhile, and the size of the last."""
    took, slowest = [], []
    for _ in range(n):
        first = len(chatter.times)
        seconds, size = scrape(program, path)
        last = len(chatter.times)  # under way when it ended
        harness.wait_until(lambda: len(chatter.times) > last, "an echo")
        took.append(seconds)
        slowest.append(max(chatter.times[first:last + 1]))
        time.sleep(0.05)
    return took, slowest, size


def nobody_waits(program, path, chatter, share):
    """An echo takes less than WAIT, and than this share of the scrape. What a scrape does to sessions it does each time; what a busy machine does, it does
    now and then."""
    for _ in range(5):
        took, slowest, size = scrapes(program, path, chatter, 20)
        say("%s: %d KiB, %s" % (path, size >> 10, harness.spread(took)))
        say("slowest echo beside:  ", harness.spread(slowest))
        shares = [s / t for s, t in zip(slowest, took)]
        if harness.percentile(slowest, 25) < WAIT and harness.percentile(shares, 25) < share:
            return
    raise harness.Failed("sessions wait for " + path)


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
    hub.wait_links(AGENTS, 200)
    say("%d agents are up after %.1f s" % (AGENTS, time.monotonic() - began))
    hub.wait_metric('mctunnel_metrics_series_dropped{family="mctunnel_link_rtt_seconds"}', 0)
    chatter = tcp.Chatter(hub.listen["echo"], every=0.001)
    time.sleep(1)
    say("echo, no scrapes:     ", harness.spread(list(chatter.times)))
    nobody_waits(hub, "/metrics", chatter, 0.6)  # made in pieces
    nobody_waits(hub, "/status.json", chatter, float("inf"))  # short, and made at once
    chatter.stop()
    check(hub.get("/metrics")[1].count("\nmctunnel_service_up{") == AGENTS, "services")
    for a in agents:
        a.stdin.close()
    hub.wait_metric("mctunnel_agents", 0, 60)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    harness.main(globals(), threads=(1,))
