#!/usr/bin/env python3
"""What strangers may send where a listener looks at first bytes: PROXY headers and ClientHellos with bytes changed, cut, doubled, in random pieces and with random ends.
Nobody dies, nothing remains, and who behaves is served all the time."""
import os
import random
import socket
import ssl
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import tcp
from harness import equal

CLIENTS = 300  # of each kind
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def real_hello():
    out = ssl.MemoryBIO()
    try:
        hello.context(protocols=["h2", "http/1.1"]).wrap_bio(ssl.MemoryBIO(), out, server_hostname="www.a.test").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def mutated(rnd, data):
    data = bytearray(data)
    for _ in range(rnd.choice((0, 1, 1, 2, 5))):
        at = rnd.randrange(len(data))
        kind = rnd.randrange(4)
        if kind == 0:
            data[at] = rnd.choice((0, 1, 0x7f, 0xff, rnd.randrange(256)))
        elif kind == 1:
            del data[at:at + rnd.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = data[at:at + rnd.randrange(1, 40)]
        else:
            data[at:at + 2] = struct.pack("!H", rnd.choice((0, 1, 0xff, 0x4000, 0xffff)))
        if not data:
            return b"\0"
    return bytes(data)


def attack(rnd, address, data):
    """Sends in pieces as far as it is listened to, then ends in one way or the other, or leaves it to the other side."""
    with tcp.open_socket(address) as s:
        try:
            while data:
                n = rnd.choice((1, 3, 50, 5000))
                s.sendall(data[:n])
                data = data[n:]
            how = rnd.randrange(3)
            if how == 0:
                tcp.reset(s)
            elif how == 1:
                s.shutdown(socket.SHUT_WR)
                s.settimeout(0.05)
                s.recv(1000)
        except OSError:
            pass


def test_first_bytes(run):
    sites = pki.Pki(run.path("sites"))
    cert = sites.make("a", "a", ("www.a.test",))
    target = hello.server(run, cert)
    echo = tcp.Server(run, tcp.echo)
    tls = {"cert": cert[0], "key": cert[1]}
    hub = scene.Hub(run, {"pass": {"mode": "tls", "route": "site-a/tls"}, "end": {"route": "site-a/echo", "tls": tls},
                          "proxied": {"route": "site-a/echo", "accept_proxy": ["127.0.0.0/8"]},
                          "both": {"route": "site-a/echo", "tls": tls, "accept_proxy": ["127.0.0.0/8"]}}, timeouts={"client_hello": "5s", "idle": "10s"})
    hub.start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("tls", target.target), scene.service("echo", echo.target)]).start()
    hub.wait_links(2)
    worker = hub.worker()
    seed = random.randrange(1 << 30)
    harness.say("seed", seed)
    rnd = random.Random(seed)
    first = real_hello()
    v1 = b"PROXY TCP4 198.51.100.9 198.51.100.1 4711 443\r\n"
    v2 = SIGNATURE + b"\x21\x11\0\x13" + bytes(range(12)) + b"\2\0\4a.bc"
    kinds = {"pass": (first, hello.records(first[5:], 7)), "end": (first, hello.records(first[5:], 7)), "proxied": (v1, v2), "both": (v1 + first, v2 + first)}
    for i in range(CLIENTS):
        for name, seeds in kinds.items():
            attack(rnd, hub.listen[name], mutated(rnd, rnd.choice(seeds)))
        if i % 30 == 0:
            with hello.connect(hub.listen["pass"], "www.a.test", authority=sites) as s:
                hello.echo(s)
            with hello.connect(hub.listen["end"], "www.a.test", authority=sites) as s:
                hello.echo(s)
    equal(hub.worker(), worker, "the worker")
    for name in kinds:
        hub.wait_metric('mctunnel_listener_sessions{listener="%s"}' % name, 0)
    hub.nothing_left()
    reasons = {}
    for line in hub.log("session"):
        reasons[line["reason"]] = reasons.get(line["reason"], 0) + 1
    harness.say(reasons)
    for reason in ("bad_request", "client_tls", "client_reset"):
        harness.check(reasons.get(reason), "nobody ended with", reason, reasons)


if __name__ == "__main__":
    harness.main(globals())
