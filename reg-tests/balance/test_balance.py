#!/usr/bin/env python3
"""Which agent serves a client: fallback to a second tunnel, balance over the agents of one."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


def test_fallback_to_a_second_tunnel(run):
    a, b = tcp.Server(run, tcp.banner("a")), tcp.Server(run, tcp.banner("b"))
    tunnels = [scene.tunnel("site-a", ["edge-a"]), scene.tunnel("site-b", ["edge-b"])]
    hub = scene.Hub(run, {"web": {"route": ["site-a/web", "site-b/web"]}}, tunnels).start().wait_ready()
    agents = {}
    for letter, server in (("b", b), ("a", a)):
        agents[letter] = scene.Agent(run, hub.authority, [hub.address], [scene.service("web", server.target)], name="edge-" + letter,
                                     tunnel_name="site-" + letter).start()
        hub.wait_links(2 if letter == "b" else 4)
        equal(tcp.ask_name(hub.listen["web"]), letter, "which tunnel")
    agents["a"].stop()
    hub.wait_links(2)
    equal(tcp.ask_name(hub.listen["web"]), "b", "which tunnel, after the first has gone")


def count_names(address, n):
    names = {}
    for _ in range(n):
        name = tcp.ask_name(address)
        names[name] = names.get(name, 0) + 1
    return names


def two_agents(run, balance, weights=(100, 100)):
    servers = [tcp.Server(run, tcp.banner("edge-%d" % i)) for i in (1, 2)]
    hub = scene.Hub(run, {"web": "site-a/web"}, [scene.tunnel(agents=["edge-1", "edge-2"], balance=balance)]).start().wait_ready()
    agents = [scene.Agent(run, hub.authority, [hub.address], [scene.service("web", s.target, weight=w)], name="edge-%d" % i).start()
              for i, s, w in zip((1, 2), servers, weights)]
    hub.wait_links(4)
    return hub, agents


def test_balance_roundrobin(run):
    hub, agents = two_agents(run, "roundrobin")
    names = count_names(hub.listen["web"], 40)
    say(names)
    check(min(names.get("edge-1", 0), names.get("edge-2", 0)) >= 15, names)
    agents[0].stop()
    hub.wait_links(2)
    equal(count_names(hub.listen["web"], 10), {"edge-2": 10}, "after one has gone")


def test_balance_weights(run):
    hub, _ = two_agents(run, "roundrobin", (150, 50))
    names = count_names(hub.listen["web"], 80)
    say(names)
    check(45 <= names.get("edge-1", 0) <= 75, names)


def test_balance_leastconn(run):
    hub, _ = two_agents(run, "leastconn")
    held = [tcp.open_socket(hub.listen["web"]) for _ in range(20)]
    names = [s.makefile("rb").readline().decode().strip() for s in held]
    say({n: names.count(n) for n in set(names)})
    check(8 <= names.count("edge-1") <= 12, names)
    for s in held:
        tcp.reset(s)


def always_one(run, balance):
    hub, _ = two_agents(run, balance)
    names = count_names(hub.listen["web"], 12)
    say(names)
    equal(len(names), 1, "agents used")


def test_balance_source(run):
    always_one(run, "source")


def test_balance_first(run):
    always_one(run, "first")


if __name__ == "__main__":
    harness.main(globals())
