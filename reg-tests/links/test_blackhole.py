#!/usr/bin/env python3
"""A network that goes silent (no FIN, no RST): found by the heartbeat, survived by every session. In namespaces."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import netns
import scene
import tcp
from harness import check, equal, say


def start(run, services, timeouts=None):
    """A hub on our side, an agent and its targets in a namespace of their own."""
    inside = netns.Namespace(run)
    run.host = "10.99.0.1"
    targets = {name: tcp.Server(run, handler, listener=inside.call(tcp.listening, (inside.address, 4000 + i)))
               for i, (name, handler) in enumerate(services.items())}
    hub = scene.Hub(run, {name: "site-a/" + name for name in services}, hub={"heartbeat": scene.QUICK}, timeouts=timeouts).start().wait_ready()
    rows = [scene.service(name, server.target) for name, server in targets.items()]
    agent = scene.Agent(run, hub.authority, [hub.address], rows, launcher=inside.launcher(), settings={"metrics": None}).start()
    hub.wait_links(2)
    return inside, hub, agent, targets


def break_and_mend(run, break_it, mend):
    inside, hub, agent, targets = start(run, {"echo": tcp.echo, "bulk": lambda s: tcp.exchange(s, 40 << 20, 1)})
    chatter = tcp.Chatter(hub.listen["echo"])
    with tcp.open_socket(hub.listen["bulk"], 60) as s:
        job = harness.Background(tcp.exchange, s, 40 << 20, 2)
        for i in range(3):
            chatter.go_on()
            began = time.monotonic()
            getattr(inside, break_it)()
            hub.wait_links(0)
            say("found dead after %.0f ms" % (1000 * (time.monotonic() - began)))
            began = time.monotonic()
            getattr(inside, mend)()
            chatter.go_on(1)
            say("goes on after %.0f ms" % (1000 * (time.monotonic() - began)))
        sent, received = job.finish(100, "transfer")
    theirs, ours = targets["bulk"].result()
    equal((ours, received), (sent, theirs), "transfer")
    chatter.stop()
    hub.nothing_left()
    equal({r["reason"] for r in hub.wait_log("session", count=2)}, {"done"}, "reasons of the ends")
    check([r for x in (hub, agent) for r in x.log("link_down", reason="link_dead")], "no link was found dead")


def test_cable_pulled(run):
    break_and_mend(run, "pull", "plug")


def test_packets_vanish(run):
    break_and_mend(run, "swallow", "spit")


def test_one_way_only(run):
    break_and_mend(run, "deafen", "undeafen")


if __name__ == "__main__":
    try:
        netns.enter_own()
    except harness.Skipped as e:
        print("skipped:", e)
        sys.exit(77)
    harness.main(globals())
