#!/usr/bin/env python3
"""Rules of a listener of mode tcp: by source and port; deny and reject are a RST; a list from a file follows a reload, and so does who waits in the queue."""
import json
import os
import ssl
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from ctl import admin_settings, command, reload
from harness import equal


def world(run, rules, **listener):
    a, b = tcp.Server(run, tcp.banner("a")), tcp.Server(run, tcp.banner("b"))
    hub = scene.Hub(run, {"in": dict(rules=tuple(rules), **listener)}, settings=admin_settings(run, "hub")).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("a", a.target), scene.service("b", b.target)]).start()
    hub.wait_links(2)
    return hub


def session(hub, n=1):
    return harness.wait_until(lambda: hub.log("session")[n - 1:], "%d lines of sessions" % n)[0]


def test_first_rule_that_applies(run):
    hub = world(run, [{"src": "192.0.2.0/24", "action": "deny"}, {"src": "127.0.0.1", "dst_port": "1-2", "route": "site-a/b"},
                      {"src": ["::1", "127.0.0.0/8"], "route": "site-a/a"}, {"route": "site-a/b"}])
    equal(tcp.ask_name(hub.listen["in"]), "a", "served by")
    equal(session(hub)["route"], "site-a/a", "route in the log")


def refused(run, action, reason):
    hub = world(run, [{"src": "127.0.0.1", "action": action}, {"route": "site-a/a"}])
    tcp.expect_turned_away(hub.listen["in"], "a client that is %s" % reason)
    line = session(hub)
    equal((line["reason"], line["end"]), (reason, "PR"), "the line in the log")


def test_deny(run):
    refused(run, "deny", "denied")


def test_reject(run):
    refused(run, "reject", "rejected")


def test_no_rule_and_no_route(run):
    hub = world(run, [{"src": "192.0.2.0/24", "route": "site-a/a"}])
    tcp.expect_turned_away(hub.listen["in"], "a client no rule concerns")
    equal(session(hub)["reason"], "no_route", "reason")


def test_route_to_nowhere(run):
    hub = world(run, [{"sni": "~^(?<site>[a-z]+)$", "route": "${site}/a"}], mode="tls")
    with tcp.open_socket(hub.listen["in"]) as s:
        out = ssl.MemoryBIO()
        try:
            ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="nosuch").do_handshake()
        except ssl.SSLWantReadError:
            pass
        s.sendall(out.read())
        line = session(hub)
    equal((line["reason"], line["route"], line["text"]), ("no_route", None, "no such route: nosuch/a"), "the line in the log")
    equal(json.loads(command(run, "hub", "show stat json"))[0]["mode"], "tls", "mode in show stat")


def test_no_rule_but_a_route(run):
    hub = world(run, [{"src": "192.0.2.0/24", "route": "site-a/a"}], route="site-a/b")
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by")


def test_routes_in_order(run):
    hub = world(run, [{"route": ["site-a/gone", "site-a/b"]}])
    equal(tcp.ask_name(hub.listen["in"]), "b", "served by the second route")


def test_list_from_a_file_is_read_again(run):
    path = run.path("guests.lst")
    with open(path, "w") as f:
        f.write("# nobody from here\n192.0.2.0/24\n")
    hub = world(run, [{"src": "@" + path, "route": "site-a/a"}, {"route": "site-a/b"}])
    equal(tcp.ask_name(hub.listen["in"]), "b", "before")
    with open(path, "a") as f:
        f.write("127.0.0.0/8  # now we are\n")
    reload(hub, lambda c: None)
    equal(tcp.ask_name(hub.listen["in"]), "a", "after the reload")


def test_the_queue_follows_new_rules(run):
    hub = world(run, [{"route": "site-a/gone"}], timeouts={"queue": "60s"})
    s = tcp.open_socket(hub.listen["in"])
    hub.wait_metric("mctunnel_queue_sessions", lambda n: n == 1)
    reload(hub, lambda c: c["listeners"][0].update(rules=({"route": "site-a/b"},)))
    equal(tcp.recv_exactly(s, 2), b"b\n", "served after the reload by")


if __name__ == "__main__":
    harness.main(globals())
