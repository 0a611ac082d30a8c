#!/usr/bin/env python3
"""Who has no certificate, at the hub's port: silent, slow, rude. Links and sessions go on, agents get in, nothing is left behind."""
import os
import socket
import ssl
import struct
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import raw
import scene
import tcp
from harness import check, equal, say

HANDSHAKES = 48


def scene_of(run):
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.address}, hub={"handshakes": HANDSHAKES})
    p.chat = tcp.Chatter(p.listen["echo"])
    p.server = server
    return p


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def over(p, fds):
    p.chat.go_on()
    tcp.ask(p.listen["echo"])
    pid = p.hub.worker()
    harness.wait_until(lambda: descriptors(pid) <= fds + 8, "descriptors to be closed")
    harness.wait_until(lambda: proc.cpu_of(pid) < 0.3, "the hub to be idle after the attack")
    say("echo beside: " + harness.spread(p.chat.stop()))
    check(len(p.hub.log("link_refused")) < 400, "too many log lines")


def test_silent_ones_keep_nobody_out(run):
    """More silent connections than there are handshakes: an agent that comes later is a link long before they time out."""
    p = scene_of(run)
    fds = descriptors(p.hub.worker())
    silent = [tcp.open_socket(p.hub.address) for _ in range(4 * HANDSHAKES)]
    for i, s in enumerate(silent):
        s.sendall((b"", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP", b"\x16")[i % 4])
    time.sleep(0.3)
    began = time.monotonic()
    late = scene.Agent(run, p.hub.authority, [p.dialled], [scene.service("late", p.server.address)], name="edge-1", file="late",
                       agent={"backoff": {"min": "100ms", "max": "300ms"}})
    p.agent.stop()
    late.start()
    p.hub.wait_log("link_up", p.links + 1, timeout=20)  # in order, ten seconds for each round of handshakes, it would take twice as long
    say("a newcomer is in after %.1f s" % (time.monotonic() - began))
    check(p.hub.log("link_refused", reason="limit"), "nobody was given up")
    p.hub.wait_links(2)
    for s in silent:
        s.close()
    p.chat.thread.join(5)
    late.stop()
    harness.wait_until(lambda: descriptors(p.hub.worker()) <= fds, "descriptors to be closed")


def hellos():
    """Things that are no good beginning."""
    yield b"\x16\x03\x01\x40\x00" + os.urandom(16384)
    yield b"\x16\x03\x01\xff\xff" + os.urandom(65535)
    yield b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield raw.PREFACE + os.urandom(500)
    yield raw.PREFACE + raw.frame(raw.HEADERS, os.urandom(200), 4, 1)
    yield b"SSH-2.0-\r\n"
    yield os.urandom(3)
    yield b"\x15\x03\x01\x00\x02\x02\x28" * 100
    yield b"\x14\x03\x03\x00\x01\x01" * 500
    yield b"\0" * 100000
    # a ClientHello that never ends: a huge handshake message in many records
    yield b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"\x16\x03\x01\x40\x00" + b"a" * 16384


def test_garbage(run):
    p = scene_of(run)
    fds = descriptors(p.hub.worker())
    for _ in range(15):
        for data in hellos():
            s = tcp.open_socket(p.hub.address)
            try:
                s.sendall(data)
            except OSError:
                pass
            if _ % 3 == 0:
                tcp.reset(s)
            else:
                s.close()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for alpn in (None, "http/1.1", raw.ALPN):
            for _ in range(3):
                c = raw.client_context(p.hub.authority, None, alpn)
                c.maximum_version = version
                try:
                    with c.wrap_socket(tcp.open_socket(p.hub.address)) as s:
                        s.settimeout(1)
                        s.sendall(raw.settings(window=1) + raw.hello(raw.AGENT, raw.advert("edge-1", "site-a")))
                        s.recv(1000)
                except OSError:
                    pass
    equal(len(p.hub.log("link_up")), 2, "links")
    over(p, fds)


def test_storm(run):
    """Connections that end at once, by RST or FIN, some thousands."""
    p = scene_of(run)
    fds = descriptors(p.hub.worker())
    deadline, n = time.monotonic() + 3, 0
    while time.monotonic() < deadline:
        s = tcp.open_socket(p.hub.address)
        if n % 3 == 0:
            s.sendall(b"\x16\x03\x01")
        if n % 4 == 0:
            s.close()
        else:
            tcp.reset(s)
        n += 1
    say("%d connections" % n)
    over(p, fds)


def test_slow_handshake(run):
    """A ClientHello byte by byte takes its place for 10 s, no longer; one-byte records are no trouble."""
    p = scene_of(run)
    out, rest = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = raw.client_context(p.hub.authority, p.hub.authority.agent("edge-1")).wrap_bio(rest, out, server_hostname="hub.test")
    try:
        o.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    body = hello[5:]
    s = tcp.open_socket(p.hub.address)
    s.sendall(b"".join(b"\x16\x03\x01\x00\x01" + body[i:i + 1] for i in range(len(body))))  # records of one byte
    answer = s.recv(4096)
    check(answer[:1] in (b"\x16", b"\x15"), "an answer to the hello in pieces", answer[:5])
    t = tcp.open_socket(p.hub.address)
    began = time.monotonic()
    t.settimeout(0.1)
    try:
        for i in range(200):
            t.sendall(hello[i:i + 1])
            try:
                if not t.recv(10):
                    break
            except socket.timeout:
                pass
    except OSError:
        pass
    took = time.monotonic() - began
    check(8 < took < 18, "a slow handshake lasted %.1f s" % took)
    s.close()
    over(p, 10000)


if __name__ == "__main__":
    harness.main(globals())
