#!/usr/bin/env python3
"""/metrics: figures with labels follow what happens, on the hub and on the agent; the format is what promtool wants."""
import json
import os
import shutil
import signal
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import relay
import scene
import tcp
from harness import check, equal


def lint(*programs):
    if not shutil.which("promtool"):
        raise harness.Skipped("there is no promtool")
    for program in programs:
        text = program.get("/metrics")[1]
        p = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        equal((p.returncode, p.stdout, p.stderr), (0, "", ""), "promtool check metrics")


def labels(**values):
    return "{" + ",".join('%s="%s"' % v for v in values.items()) + "}"


def ended(reason, listener="echo", service="echo"):
    return "mctunnel_sessions_total" + labels(listener=listener, tunnel="site-a", service=service, reason=reason)


def carried(direction):
    return "mctunnel_bytes_total" + labels(listener="echo", tunnel="site-a", service="echo", direction=direction)


def test_sessions_and_bytes(run):
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.address, "nobody": (run.host, run.port())})
    for _ in range(3):
        tcp.ask(p.listen["echo"], b"0123456789")
    p.hub.wait_metric(ended("done"), 3)
    m = p.hub.metrics()
    equal((m[carried("up")], m[carried("down")]), (30, 30), "bytes")
    equal(m["mctunnel_connection_establishment_seconds_count"], 3, "established")
    equal(m["mctunnel_queue_seconds_count"], 3, "queued")
    # a session that lives is in bytes, but not among those that have ended
    with tcp.open_socket(p.listen["echo"]) as s:
        s.sendall(b"x" * 1000)
        tcp.recv_exactly(s, 1000)
        p.hub.wait_metric(carried("down"), 1030)
        p.hub.wait_metric('mctunnel_agent_sessions{tunnel="site-a",agent="edge-1"}', 1)
        p.hub.wait_metric('mctunnel_listener_sessions{listener="echo"}', 1)
        p.agent.wait_metric('mctunnel_service_sessions{service="echo"}', 1)
        equal(p.hub.metric(ended("done")), 3)
        tcp.reset(s)
    p.hub.wait_metric(ended("client_reset"), 1)
    tcp.refused_after(p.listen["nobody"])
    p.hub.wait_metric(ended("target_refused", "nobody", "nobody"), 1)
    p.agent.wait_metric('mctunnel_target_failures_total{service="nobody",reason="target_refused"}', 1)
    p.agent.wait_metric('mctunnel_service_sessions_total{service="echo",reason="done"}', 3)
    m = p.agent.metrics()
    equal(m["mctunnel_target_connect_seconds_count" + labels(service="echo")], 4, "targets connected")
    equal(m['mctunnel_hub_links{hub="hub"}'], p.links, "links to the hub")
    equal((m["mctunnel_bytes_up_total"], m["mctunnel_bytes_down_total"]), (1030, 1030), "bytes on the agent")
    lint(p.hub, p.agent)


def test_links(run):
    server = tcp.Server(run, tcp.echo)
    between = []

    def via(address):
        between.append(relay.Relay(run, address))
        return between[0].address

    p = scene.pair(run, {"echo": server.address}, via=via, hub={"heartbeat": {"interval": "200ms", "timeout": "10s"}})
    name = "mctunnel_agent_reconnections_total" + labels(tunnel="site-a", agent="edge-1")
    equal(p.hub.metric(name), 0, "reconnections at first")
    p.hub.wait_metric("mctunnel_link_rtt_seconds" + labels(tunnel="site-a", agent="edge-1"), lambda v: 0 < v < 1)
    p.agent.wait_metric('mctunnel_hub_rtt_seconds{hub="hub"}', lambda v: 0 < v < 1)
    equal(between[0].cut("rst"), p.links, "links cut")
    p.hub.wait_metric(name, p.links)
    p.agent.wait_metric(name, p.links)
    p.hub.wait_links(p.links)
    equal(p.hub.metric("mctunnel_service_up" + labels(tunnel="site-a", service="echo", agent="edge-1")), 1, "service up")
    p.agent.stop()
    p.hub.wait_metric("mctunnel_agents", 0)
    check("\nmctunnel_service_up{" not in p.hub.get("/metrics")[1], "a service without an agent")
    lint(p.hub)


def test_waiting_is_measured(run):
    hub = scene.Hub(run, {"echo": "site-a/echo"}, timeouts={"queue": "300ms"}).start().wait_ready()
    tcp.refused_after(hub.listen["echo"])
    hub.wait_metric(ended("no_agent"), 1)
    hub.wait_metric("mctunnel_queue_seconds_count", 1)
    m = hub.metrics()
    check(0.25 <= m["mctunnel_queue_seconds_sum"] < 10, "waited", m["mctunnel_queue_seconds_sum"])
    equal(m["mctunnel_connection_establishment_seconds_count"], 0, "established")


def start_agents(run, hub, count, *options):
    """Agents agent-1 ... of the tunnel site-a in one process; comes back when all are there."""
    tool = proc.start(run, [relay.tool("agents"), "--hub", "%s:%d" % hub.address, "--server-name", "hub.test", "--pki", hub.authority.dir,
                            "--count", str(count), "--tunnel", "site-a", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = tool.stdout.readline()
    hub.wait_metric("mctunnel_agents", count, 60)
    return line


def test_the_limit(run):
    """More agents than there may be series: some are left out or counted together, and that is said."""
    hub = scene.Hub(run, {"echo": "site-a/echo-1"}, [scene.tunnel(agents=["agent-%d" % i for i in range(1, 8)])])
    hub.config["global"]["metrics"]["max_series"] = 3
    hub.configure(hub.config)
    hub.start().wait_ready()
    start_agents(run, hub, 7)
    hub.wait_metric("mctunnel_metrics_series_dropped" + labels(family="mctunnel_link_rtt_seconds"), 4)  # all were measured
    m = hub.metrics()
    for family in ("mctunnel_service_up", "mctunnel_link_rtt_seconds", "mctunnel_agent_reconnections_total"):
        rows = [name for name in m if name.startswith(family + "{")]
        dropped = m["mctunnel_metrics_series_dropped" + labels(family=family)]
        other = family + labels(tunnel="other", agent="other") in m
        equal((len(rows), dropped, other), (3 + other, 4, family.endswith("_total")), family)
    lint(hub)


def test_scraped_during_reloads(run):
    """Listeners and tunnels come and go; every scrape is whole and good, and reloads are counted."""
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.address})
    row = {"name": "more", "bind": "%s:%d" % (run.host, run.port()), "mode": "tcp", "route": "site-b/echo"}
    few, many = dict(p.hub.config), dict(p.hub.config)
    many["listeners"] = few["listeners"] + (row,)
    many["tunnels"] = few["tunnels"] + (scene.tunnel("site-b"),)
    for i in range(10):
        p.hub.configure(dict(few if i % 2 else many))
        p.hub.send(signal.SIGHUP)
        # at least one scrape while it is under way
        while p.hub.metric('mctunnel_reloads_total{result="ok"}') <= i:
            p.hub.must_run()
        equal('mctunnel_listener_sessions{listener="more"}' in p.hub.metrics(), i % 2 == 0, "the new listener is shown")
        equal(len(json.loads(p.hub.get("/status.json")[1])["listeners"]), 1 if i % 2 else 2, "listeners on the page")
    lint(p.hub)
    bad = dict(few, listeners=(dict(row, route="nowhere/x"),))
    p.hub.configure(bad)
    p.hub.send(signal.SIGHUP)
    p.hub.wait_metric('mctunnel_reloads_total{result="failed"}', 1)
    p.hub.configure(few)
    tcp.ask(p.listen["echo"])


if __name__ == "__main__":
    harness.main(globals())
