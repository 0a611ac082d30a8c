#!/usr/bin/env python3
"""Connections to targets that serve one request after the other: whose, how long, and for whom not."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
import web
from harness import equal

OLD = 20  # seconds: less than the age at which a connection is not used again anyway

def start(run, service=None, **options):
    p = scene.Pair()
    p.origin = web.Origin(run)
    p.hub = scene.Hub(run, {"web": {"route": "site-a/x", "mode": "http"}}, tunnels=[scene.tunnel(agents=("edge-1", "edge-2"))], **options).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("x", p.origin.target, **(service or {}))], links=1).start()
    p.hub.wait_links(1)
    p.web = p.hub.listen["web"]
    return p


def connection(p, method="GET", path="/", **more):
    """On which connection to the target one client's only request went."""
    with web.Client(p.web) as c:
        m = c.ask(path, method, **more)
        equal(m.status, 200)
        return int(m.get("X-Connection") or p.origin.last().connection)


def test_safe_requests_share_connections(run):
    p = start(run)
    equal([connection(p) for _ in range(4)], [1] * 4)
    equal(connection(p, "POST", body=b"x"), 2, "a first request that is not safe")
    with web.Client(p.web) as c:
        first = c.ask("/").get("X-Connection")
        equal(c.ask("/", "POST", body=b"x").get("X-Connection"), first, "a later one goes where the client's others went")


def test_not_after_a_login_of_the_connection(run):
    p = start(run)
    p.origin.special["/login"] = web.answer(401, b"", (("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", "NTLM")), phrase="Unauthorized")
    with web.Client(p.web) as c:
        equal(c.ask("/login").status, 401)
        equal(c.ask("/").get("X-Connection"), "1", "the client itself")
        equal(connection(p), 2, "somebody else")
        equal(c.ask("/").get("X-Connection"), "1")
    with web.Client(p.web) as c:
        c.ask("/", fields=(("Authorization", "Negotiate abcd"),))
        number = c.ask("/").get("X-Connection")
        with web.Client(p.web) as other:
            equal(other.ask("/").get("X-Connection") != number, True)


def test_not_where_the_target_hears_who_it_is(run):
    p = scene.Pair()
    origin = web.Origin(run)
    origin.headers = []

    def with_header(s):
        header = b""
        while not header.endswith(b"\n"):
            header += s.recv(1)
        origin.headers.append(header)
        return origin._serve(s)
    server = tcp.Server(run, with_header)
    p.hub = scene.Hub(run, {"web": {"route": "site-a/x", "mode": "http"}}).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("x", server.target, send_proxy="v1")]).start()
    p.hub.wait_links(2)
    p.web = p.hub.listen["web"]
    with web.Client(p.web) as a, web.Client(p.web) as b:
        first, second = a.ask("/").get("X-Connection"), b.ask("/").get("X-Connection")
        equal(first != second, True)
        equal([a.ask("/").get("X-Connection"), b.ask("/").get("X-Connection")], [first, second], "each has its own again")
        ports = {h.split()[4] for h in origin.headers}
        equal(ports, {b"%d" % c.s.getsockname()[1] for c in (a, b)}, "ports in the headers")


def test_not_after_the_target_said_more_than_asked(run):
    p = start(run)
    p.origin.special["/more"] = web.answer(200, b"x") + web.answer(200, b"poison")
    with web.Client(p.web) as c:
        equal(c.ask("/more").text, "x")
        equal(c.ask("/").text, "origin")
        equal(c.ask("/").text, "origin")


def test_idle_ones_end_by_themselves(run):
    p = start(run)
    with web.Client(p.web) as c:
        c.ask("/")
        p.hub.wait_metric("mctunnel_sessions", 1)
        p.hub.nothing_left()
        p.agent.nothing_left()
        equal(c.ask("/").get("X-Connection"), "2")
    equal({r["reason"] for r in p.agent.wait_log("session", count=1)}, {"done"}, "ends of idle ones")


def test_a_full_service_is_waited_for(run):
    p = start(run, {"maxconn": 2}, timeouts={"queue": "30s"})

    def client(i):
        for k in range(10):
            with web.Client(p.web) as c:
                equal(c.ask("/%d-%d" % (i, k), "POST" if k % 2 else "GET", body=b"x" if k % 2 else None).status, 200)
    for b in [harness.Background(client, i) for i in range(8)]:
        b.finish()


def test_what_is_idle_makes_room(run):
    p = start(run, {"maxconn": 1}, timeouts={"queue": "3s"})
    with web.Client(p.web) as a, web.Client(p.web) as b:
        for _ in range(5):
            equal(a.ask("/", "POST", body=b"a").status, 200)
            equal(b.ask("/", "POST", body=b"b").status, 200)


def test_not_over_an_agent_that_drains(run):
    p = start(run)
    other = web.Origin(run, "other")
    second = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("x", other.target)], name="edge-2", links=1).start()
    p.hub.wait_links(2)
    with web.Client(p.web) as c:
        first = c.ask("/").text
        equal(c.ask("/").text, first, "the connection that is kept")
        (p.agent if first == "origin" else second).send(10)
        harness.wait_until(lambda: c.ask("/").text != first, "requests to leave the agent that drains", OLD)
    (p.agent if first == "origin" else second).ended(0)


def test_a_fallback_is_left_as_soon_as_the_first_route_serves(run):
    p = scene.Pair()
    main, spare = web.Origin(run, "main"), web.Origin(run, "spare")
    tunnels = [scene.tunnel("site-a"), scene.tunnel("site-b", agents=("edge-2",))]
    p.hub = scene.Hub(run, {"web": {"route": ["site-a/x", "site-b/x"], "mode": "http"}}, tunnels=tunnels).start().wait_ready()
    scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("x", spare.target)], name="edge-2", tunnel_name="site-b").start()
    p.hub.wait_links(2)
    with web.Client(p.hub.listen["web"]) as c:
        equal([c.ask("/").get("X-Turn") for _ in range(3)], ["1", "2", "3"], "requests on one connection of the fallback")
        scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("x", main.target)]).start()
        p.hub.wait_links(4)
        harness.wait_until(lambda: c.ask("/").text == "main", "requests to come back to the first route", OLD)
        equal({c.ask("/").text for _ in range(3)}, {"main"})


def test_a_reload_ends_what_is_idle(run):
    p = start(run)
    with web.Client(p.web) as c:
        equal(c.ask("/").get("X-Connection"), "1")
        p.hub.config["listeners"][0]["rules"] = ({"path": "/no", "action": "deny"},)
        p.hub.configure(p.hub.config)
        p.hub.send(1)
        harness.wait_until(lambda: c.ask("/no").status == 403, "the new rules to hold for a client that is there")
        equal(int(c.ask("/").get("X-Connection")) > 1, True)


if __name__ == "__main__":
    harness.main(globals())
