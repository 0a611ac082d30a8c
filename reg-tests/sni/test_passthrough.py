#!/usr/bin/env python3
"""Listeners of mode tls: clients are taken by the name and protocols in their ClientHello to targets that end TLS themselves, whatever pieces it comes in."""
import os
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import tcp
from ctl import admin_settings, reload
from harness import equal

RULES = ({"alpn": ["acme-tls/1"], "route": "site-a/acme"},
         {"sni": ["www.a.test", "a.test"], "route": "site-a/a"},
         {"sni": "*.b.test", "route": "site-a/b"},
         {"sni": "denied.test", "action": "reject"})


class World:
    """Three TLS targets behind a listener; a fourth service that shows the bytes as they come."""

    def __init__(self, run, rules=RULES, timeouts=None, **listener):
        self.pki = pki.Pki(run.path("sites"))
        self.a = hello.server(run, self.pki.make("a", "a", ("a.test", "www.a.test")))
        self.b = hello.server(run, self.pki.make("b", "b", ("b.test", "x.b.test")), ["h2", "http/1.1"])
        self.acme = hello.server(run, self.pki.make("acme", "acme", ("a.test",)), ["acme-tls/1"])
        self.raw = tcp.Server(run, tcp.echo)
        row = dict({"mode": "tls", "rules": rules, "route": "site-a/raw"}, **listener)
        self.hub = scene.Hub(run, {"in": row}, settings=admin_settings(run, "hub"), timeouts=timeouts).start().wait_ready()
        services = [scene.service(n, getattr(self, n).target) for n in ("a", "b", "acme", "raw")]
        scene.Agent(run, self.hub.authority, [self.hub.address], services).start()
        self.hub.wait_links(2)
        self.address = self.hub.listen["in"]

    def line(self, client):
        return self.hub.wait_log("session", client="%s:%d" % client)[0]


def test_names_choose_the_target(run):
    w = World(run)
    for name, server, cert in (("a.test", w.a, "a.test"), ("WWW.A.TEST", w.a, "a.test"), ("x.b.test", w.b, "b.test")):
        with hello.connect(w.address, name) as s:
            who = s.getsockname()
            harness.check(cert.encode() in s.getpeercert(True), "the certificate of another target")
            hello.echo(s)
            hello.close(s)
        equal(server.result()[0].lower(), name.lower(), "name seen by the target")
        equal(w.line(who)["sni"], name.lower(), "sni in the log")


def test_verified_end_to_end(run):
    """The client's TLS ends at the target, nowhere before."""
    w = World(run)
    with hello.connect(w.address, "www.a.test", authority=w.pki) as s:
        equal(hello.names(s), ["a.test", "www.a.test"], "names in the certificate")
        hello.round_trip(s, os.urandom(300000))
        hello.close(s)
    w.hub.nothing_left()


def test_protocols_choose_the_target(run):
    w = World(run)
    with hello.connect(w.address, "a.test", protocols=["acme-tls/1"]) as s:
        equal(s.selected_alpn_protocol(), "acme-tls/1", "protocol")
        hello.close(s)
    equal(w.acme.result(), ("a.test", "acme-tls/1"), "at the target")
    with hello.connect(w.address, "x.b.test", protocols=["h2"]) as s:
        equal(s.selected_alpn_protocol(), "h2", "protocol")
        hello.close(s)
    equal(w.b.result(), ("x.b.test", "h2"), "at the target")


def raw(w, pieces, pause=None):
    """What the last service echoes: exactly what was sent, from the first byte on."""
    with tcp.open_socket(w.address) as s:
        who = s.getsockname()
        for piece in pieces:
            s.sendall(piece)
            if pause:
                time.sleep(pause)
        data = b"".join(pieces)
        equal(tcp.recv_exactly(s, len(data)) == data, True, "the target sees the bytes as they were sent")
        s.shutdown(socket.SHUT_WR)
        tcp.expect_eof(s)
    return w.line(who)


def test_without_a_name(run):
    w = World(run)
    line = raw(w, [hello.records(hello.message())])
    equal((line["route"], line.get("sni")), ("site-a/raw", None), "route and name")


def test_in_pieces(run):
    w = World(run)
    whole = hello.records(hello.message(hello.server_name("nobody.test"), hello.alpn("x")))
    line = raw(w, [whole[i:i + 1] for i in range(len(whole))], 0.0005)
    equal(line["sni"], "nobody.test", "name")
    many = hello.records(hello.message(hello.server_name("some.b.test.nobody")), 1)
    equal(raw(w, [many])["sni"], "some.b.test.nobody", "name in a hello of many records")
    equal(raw(w, [many[:700], many[700:] + b"and more"])["sni"], "some.b.test.nobody", "name")


def test_large_hellos(run):
    w = World(run)
    grease = hello.extension(0x2a2a, b"")
    for size in (1700, 16000, 60000):  # post-quantum keys, and what may come
        big = hello.records(hello.message(grease, hello.extension(51, bytes(size)), hello.server_name("big.test"), grease))
        equal(raw(w, [big])["sni"], "big.test", "name behind %d bytes" % size)
        equal(raw(w, [big[i:i + 1000] for i in range(0, len(big), 1000)])["sni"], "big.test", "name behind %d bytes, in pieces" % size)


def test_encrypted_hello_shows_its_outer_name(run):
    w = World(run)
    data = hello.records(hello.message(hello.extension(0xfe0d, b"\0\0\1\0\1\0\0\x20" + bytes(150)), hello.server_name("outer.test")))
    equal(raw(w, [data])["sni"], "outer.test", "name")


def bad(w, data, reason, words, end=False, alert=False):
    s = tcp.open_socket(w.address)
    who = s.getsockname()
    s.sendall(data)
    if end:
        s.shutdown(socket.SHUT_WR)
    if alert:
        equal(tcp.recv_exactly(s, 7), b"\x15\3\1\0\2\2\x32", "an alert")
        tcp.expect_eof(s)
    else:
        tcp.expect_reset(s, repr(data[:40]))
    s.close()
    line = w.line(who)
    equal(line["reason"], reason, "reason of %r" % data[:40])
    harness.check(words in line["text"], line)


def test_what_is_no_hello(run):
    w = World(run)
    bad(w, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_request", "not TLS")
    bad(w, b"\x80\x2e\x01\x03\x01" + bytes(40), "bad_request", "not TLS")
    bad(w, b"\x16\3\1\0\0", "bad_request", "length", alert=True)
    bad(w, b"\x16\3\1\0\4\2\0\0\0", "bad_request", "no ClientHello", alert=True)
    bad(w, hello.records(hello.message(hello.server_name("a.test"), hello.server_name("x.b.test"))), "bad_request", "twice", alert=True)
    bad(w, hello.records(hello.message(hello.server_name("a b"))), "bad_request", "name of a host", alert=True)
    bad(w, hello.records(b"\1\1\0\0" + bytes(1000)), "bad_request", "64 KiB", alert=True)
    bad(w, hello.records(hello.message(hello.server_name("a.test")))[:-1], "client_reset", "ClientHello", end=True)
    bad(w, b"", "client_reset", "ClientHello", end=True)
    with hello.connect(w.address, "a.test") as s:
        hello.echo(s)
    w.hub.wait_metric("mctunnel_listener_sessions", 0)


def test_too_slow(run):
    w = World(run, timeouts={"client_hello": "1s"})
    for data in (b"", hello.records(hello.message(hello.server_name("a.test")))[:-1]):
        began = time.monotonic()
        bad(w, data, "client_timeout", "ClientHello")
        harness.check(time.monotonic() - began > 0.9, "too early")


def test_rejected_and_nowhere_to_go(run):
    w = World(run, route=None)
    for name, reason in (("denied.test", "rejected"), ("nobody.test", "no_route")):
        s = tcp.open_socket(w.address)
        who = s.getsockname()
        s.sendall(hello.records(hello.message(hello.server_name(name))))
        tcp.expect_reset(s, name)
        line = w.line(who)
        equal((line["reason"], line["sni"]), (reason, name), "reason and name")


def test_name_and_protocol_reach_the_target_by_proxy_header(run):
    def handler(s):
        head = tcp.recv_exactly(s, 16)
        return tcp.recv_exactly(s, int.from_bytes(head[14:], "big"))[12:]

    server = tcp.Server(run, handler)
    hub = scene.Hub(run, {"in": {"mode": "tls", "route": "site-a/x"}}).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("x", server.target, send_proxy="v2")]).start()
    hub.wait_links(2)
    with tcp.open_socket(hub.listen["in"]) as s:
        s.sendall(hello.records(hello.message(hello.server_name("www.a.test"), hello.alpn("h2"))))
        fields = server.result()
    session_id = hub.wait_log("session")[0]["id"]
    equal(fields, b"\2\0\x0awww.a.test" + b"\5\0\x20" + session_id.encode(), "fields of the header")


def test_reload_changes_the_rules(run):
    w = World(run)
    with hello.connect(w.address, "a.test") as old:
        hello.echo(old)
        reload(w.hub, lambda c: c["listeners"][0].update(rules=({"sni": "a.test", "route": "site-a/b"},)))
        with hello.connect(w.address, "a.test") as s:
            harness.check(b"b.test" in s.getpeercert(True), "the certificate of the old target")
            hello.echo(s)
        hello.echo(old)
        hello.close(old)


if __name__ == "__main__":
    harness.main(globals())
