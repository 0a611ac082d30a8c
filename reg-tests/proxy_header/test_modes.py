#!/usr/bin/env python3
"""PROXY headers in every mode: what a header before the client's bytes says is believed where requests or hellos are read as well, and targets hear the client's
address, the name and protocol of TLS that ended at the listener, and the session's id."""
import os
import socket
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import tcp
import web
from harness import equal

CLIENT = "198.51.100.9:4711"
V1 = b"PROXY TCP4 198.51.100.9 198.51.100.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + socket.inet_aton("198.51.100.9") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 4711, 443)


def read_header(s):
    """A header of version 2: the source, and {type: value} of its TLVs."""
    head = tcp.recv_exactly(s, 16)
    equal(head[:12], V2[:12], "signature")
    rest = tcp.recv_exactly(s, struct.unpack("!H", head[14:])[0])
    at, tlvs = 12, {}
    while at < len(rest):
        kind, size = struct.unpack("!BH", rest[at:at + 3])
        tlvs[kind] = rest[at + 3:at + 3 + size]
        at += 3 + size
    return "%s:%d" % (socket.inet_ntoa(rest[:4]), struct.unpack("!H", rest[8:10])[0]), tlvs


class World:
    """The target reads a header, then speaks HTTP or echoes."""

    def __init__(self, run, http=False, **listener):
        self.headers = []
        origin = web.Origin(run)

        def handler(s):
            self.headers.append(read_header(s))
            return origin._serve(s) if http else tcp.echo(s)

        self.origin, server = origin, tcp.Server(run, handler)
        self.authority = pki.Pki(run.path("sites"))
        if listener.pop("ends_tls", False):
            cert, key = self.authority.make("one", "one", ("one.test",))
            listener["tls"] = {"cert": [cert], "key": key, **({"alpn": ["echo/1"]} if not http else {})}
        self.hub = scene.Hub(run, {"in": dict({"route": "site-a/x"}, **listener)}).start().wait_ready()
        scene.Agent(run, self.hub.authority, [self.hub.address], [scene.service("x", server.target, send_proxy="v2")]).start()
        self.hub.wait_links(2)
        self.address = self.hub.listen["in"]


TRUSTED = {"accept_proxy": ["127.0.0.0/8"]}


def test_http(run):
    w = World(run, True, mode="http", **TRUSTED)
    for header in (V1, V2):
        with web.Client(w.address) as c:
            c.send(header + b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n")
            equal(c.answer().status, 200)
            equal(c.ask("/b").status, 200, "the next request of the connection")
    equal([m.get("X-Forwarded-For") for m in w.origin.requests], ["198.51.100.9"] * 4, "addresses in the requests")
    equal({h[0] for h in w.headers}, {CLIENT}, "addresses in the headers at the target")
    w.hub.wait_log("session", 4, client=CLIENT, status=200)
    with web.Client(w.address) as c:
        c.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        tcp.expect_reset(c.s, "a request without a header")


def test_connect(run):
    w = World(run, mode="connect", **TRUSTED)
    with web.Client(w.address) as c:
        c.send(V2 + b"CONNECT x.site-a:1 HTTP/1.1\r\nHost: x.site-a:1\r\n\r\nhello")
        equal(c.head().status, 200)
        equal(c.take(5), b"hello")
    equal(w.headers[0][0], CLIENT, "the address at the target")


def test_passthrough(run):
    w = World(run, mode="tls", rules=({"sni": "www.a.test", "route": "site-a/x"},), route=None, **TRUSTED)
    for header in (V1, V2):
        data = hello.records(hello.message(hello.server_name("www.a.test")))
        with tcp.open_socket(w.address) as s:
            s.sendall(header + data)
            equal(tcp.recv_exactly(s, len(data)), data, "echo")
    equal([(source, tlvs[2]) for source, tlvs in w.headers], [(CLIENT, b"www.a.test")] * 2, "address and name at the target")


def test_tls_ends_here(run):
    """Mode tcp: name and protocol agreed on (1: ALPN, 2: authority, 5: unique id)."""
    w = World(run, ends_tls=True, mode="tcp")
    with hello.connect(w.address, "one.test", authority=w.authority, protocols=["other", "echo/1"]) as s:
        equal(s.selected_alpn_protocol(), "echo/1")
        hello.echo(s)
        who = "%s:%d" % s.getsockname()
        hello.close(s)
    line = w.hub.wait_log("session", client=who)[0]
    equal(w.headers, [(who, {1: b"echo/1", 2: b"one.test", 5: line["id"].encode()})])


def test_https(run):
    """Mode http: the name, and the id of the session; a target that gets HTTP/1.1 is not told the protocol of the other side."""
    w = World(run, True, ends_tls=True, mode="http")
    with hello.connect(w.address, "one.test", authority=w.authority, protocols=["http/1.1"]) as s:
        who = "%s:%d" % s.getsockname()
        s.sendall(b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n")
        equal(tcp.recv_exactly(s, 15), b"HTTP/1.1 200 OK")
    line = w.hub.wait_log("session", client=who)[0]
    equal(w.headers, [(who, {2: b"one.test", 5: line["id"].encode()})])


if __name__ == "__main__":
    harness.main(globals())
