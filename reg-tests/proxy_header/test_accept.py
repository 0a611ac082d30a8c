#!/usr/bin/env python3
"""Listeners behind proxies (accept_proxy): headers of both versions, whole and in pieces, are believed from those who may send them, everywhere: rules, log, target."""
import os
import queue
import shutil
import socket
import struct
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from ctl import admin_settings, reload
from harness import equal

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT, BEFORE = ("198.51.100.9", 4711), ("198.51.100.1", 443)


def v1(src=CLIENT, dst=BEFORE):
    return b"PROXY TCP4 %s %s %d %d\r\n" % (src[0].encode(), dst[0].encode(), src[1], dst[1])


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def v2(src=CLIENT, dst=BEFORE, tlvs=b"", command=0x21, family=0x11):
    body = socket.inet_aton(src[0]) + socket.inet_aton(dst[0]) + struct.pack("!HH", src[1], dst[1]) + tlvs
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def v2_checked():
    head = v2(tlvs=b"\3\0\4\0\0\0\0" + b"\2\0\3a.b")
    return head.replace(b"\3\0\4\0\0\0\0", b"\3\0\4" + struct.pack("!I", crc32c(head)))


LOCAL = SIGNATURE + b"\x20\0\0\0"
UNKNOWN = b"PROXY UNKNOWN ffff:: ::1 1 2\r\n"


def read_header(s):
    """A header of version 2, as a target sees it: (source, destination)."""
    head = tcp.recv_exactly(s, 16)
    equal(head[:12], SIGNATURE, "signature")
    rest = tcp.recv_exactly(s, struct.unpack("!H", head[14:])[0])
    src, dst, sport, dport = struct.unpack("!4s4sHH", rest[:12])
    return (socket.inet_ntoa(src), sport), (socket.inet_ntoa(dst), dport)


def handler(s):
    header = read_header(s)
    tcp.echo(s)
    return header


def world(run, timeouts=None, **listener):
    row = dict({"route": "site-a/x", "accept_proxy": ["127.0.0.0/8"]}, **listener)
    server = tcp.Server(run, handler)
    hub = scene.Hub(run, {"in": row}, settings=admin_settings(run, "hub"), timeouts=timeouts)
    hub.start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("x", server.target, send_proxy="v2")]).start()
    hub.wait_links(2)
    return hub, server


def served(hub, server, pieces, data=b"hello\n"):
    """The header in pieces, then data: what the target is told, and our own address."""
    with tcp.open_socket(hub.listen["in"]) as s:
        mine = s.getsockname()
        for piece in pieces:
            s.sendall(piece)
        s.sendall(data)
        equal(tcp.recv_exactly(s, len(data)), data, "echo after the header")
        s.shutdown(socket.SHUT_WR)
        tcp.expect_eof(s)
    return server.result(), mine


def text(address):
    return "%s:%d" % address


def test_both_versions(run):
    hub, server = world(run)
    for header in (v1(), v2(), v2_checked(), v2(tlvs=b"\xe0\x01\x00" + b"x" * 256)):
        told, _ = served(hub, server, [header])
        equal(told, (CLIENT, BEFORE), "addresses at the target")
    hub.wait_log("session", 4, client=text(CLIENT), reason="done")


def test_header_and_data_at_once(run):
    hub, server = world(run)
    with tcp.open_socket(hub.listen["in"]) as s:
        s.sendall(v2() + b"at once")
        equal(tcp.recv_exactly(s, 7), b"at once", "echo")
    equal(server.result(), (CLIENT, BEFORE), "addresses at the target")


def test_header_in_pieces_of_a_byte(run):
    hub, server = world(run)
    for header in (v1(), v2_checked()):
        told, _ = served(hub, server, [header[i:i + 1] for i in range(len(header))])
        equal(told, (CLIENT, BEFORE), "addresses at the target")


def test_the_connections_own_addresses(run):
    hub, server = world(run)
    for header in (LOCAL, UNKNOWN, b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x21\0\0\0", v2(command=0x20)):
        told, mine = served(hub, server, [header])
        equal(told, (mine, hub.listen["in"]), "addresses at the target")
        hub.wait_log("session", client=text(mine), reason="done")


def test_behind_haproxy(run):
    """The protocol's own program, with everything it can say."""
    if not shutil.which("haproxy"):
        raise harness.Skipped("needs haproxy")
    hub, server = world(run)
    fronts = {how: (run.host, run.port()) for how in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority")}
    with open(run.path("haproxy.cfg"), "w") as f:
        f.write("defaults\n mode tcp\n timeout client 30s\n timeout server 30s\n timeout connect 30s\n")
        for i, (how, address) in enumerate(fronts.items()):
            f.write("listen l%d\n bind %s\n unique-id-format abc%%pid\n server s %s %s\n" % (i, text(address), text(hub.listen["in"]), how))
    proxy = proc.start(run, ["haproxy", "-db", "-f", run.path("haproxy.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for how, address in fronts.items():
        harness.wait_until(lambda: not tcp.refused(address), "haproxy to listen")
        with tcp.open_socket(address) as s:
            mine = s.getsockname()
            s.sendall(b"hello")
            equal(tcp.recv_exactly(s, 5), b"hello", "echo")
        harness.wait_until(lambda: (mine, address) in iter_results(server), "the target to be told of " + how)
    proxy.terminate()
    proxy.wait()


def iter_results(server):
    """What the target was told so far, but for the probes of this test."""
    while True:
        try:
            yield server.results.get_nowait()
        except queue.Empty:
            return


def test_rules_see_the_client(run):
    hub, server = world(run, rules=({"src": "198.51.100.0/24", "action": "deny"}, {"route": "site-a/x"}))
    equal(served(hub, server, [v1(("203.0.113.5", 1))])[0], (("203.0.113.5", 1), BEFORE), "addresses at the target")
    with tcp.open_socket(hub.listen["in"]) as s:
        s.sendall(v1())
        tcp.expect_reset(s, "a client that is denied")
    hub.wait_log("session", client=text(CLIENT), reason="denied")


def bad(hub, data, reason, words):
    """Sent, refused with a RST, and logged with our own address."""
    s = tcp.open_socket(hub.listen["in"])
    mine = s.getsockname()
    s.sendall(data)
    tcp.expect_reset(s, repr(data))
    s.close()
    line = hub.wait_log("session", client=text(mine))[0]
    equal(line["reason"], reason, "reason of %r" % data)
    harness.check(words in line.get("text", ""), line)


def test_bad_headers(run):
    hub, server = world(run)
    bad(hub, b"GET / HTTP/1.1\r\n\r\n", "bad_request", "no PROXY header")
    bad(hub, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n", "bad_request", "port")
    bad(hub, b"PROXY TCP4 1.2.3 5.6.7.8 1 7\r\n", "bad_request", "address")
    bad(hub, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 7\n", "bad_request", "CR LF")
    bad(hub, b"PROXY UNKNOWN " + b"x" * 200, "bad_request", "107")
    bad(hub, v2(command=0x31), "bad_request", "version")
    bad(hub, SIGNATURE + b"\x21\x11\0\x01x", "bad_request", "too short")
    bad(hub, v2(tlvs=b"\3\0\4abcd"), "bad_request", "checksum")
    bad(hub, v2(tlvs=b"\5\1\0x"), "bad_request", "TLV")
    equal(served(hub, server, [v1()])[0], (CLIENT, BEFORE), "a good one after all those")
    hub.wait_metric("mctunnel_listener_sessions", 0)


def test_closed_within_the_header(run):
    hub, server = world(run)
    with tcp.open_socket(hub.listen["in"]) as s:
        mine = s.getsockname()
        s.sendall(v1()[:20])
        s.shutdown(socket.SHUT_WR)
        tcp.expect_reset(s, "a client that ends too early")
    equal(hub.wait_log("session", client=text(mine))[0]["reason"], "client_reset", "reason")
    s = tcp.open_socket(hub.listen["in"])
    mine = s.getsockname()
    s.sendall(v1()[:20])
    tcp.reset(s)
    equal(hub.wait_log("session", client=text(mine))[0]["reason"], "client_reset", "reason")
    hub.wait_metric("mctunnel_listener_sessions", 0)


def test_silent(run):
    hub, _ = world(run, {"client_hello": "1s"})
    began = time.monotonic()
    with tcp.open_socket(hub.listen["in"]) as s:
        mine = s.getsockname()
        s.sendall(v1()[:20])
        tcp.expect_reset(s, "a client that says no more")
    harness.check(time.monotonic() - began > 0.9, "too early")
    line = hub.wait_log("session", client=text(mine))[0]
    equal(line["reason"], "client_timeout", "reason")
    harness.check("PROXY header" in line["text"], line)


def test_who_may_not_send_one(run):
    hub, server = world(run, accept_proxy=["192.0.2.0/24", "::1"])
    try:
        with tcp.open_socket(hub.listen["in"]) as s:
            tcp.expect_reset(s, "a client that is no proxy")
    except ConnectionResetError:
        pass  # before it knew that it was connected
    line = hub.wait_log("session", reason="denied")[0]
    equal(line["client"].rpartition(":")[0], "127.0.0.1", "address in the log")
    reload(hub, lambda c: c["listeners"][0].update(accept_proxy=["127.0.0.0/8"]))
    equal(served(hub, server, [v1()])[0], (CLIENT, BEFORE), "addresses at the target, after a reload")


def test_limits_count_the_clients(run):
    """maxconn counts connections as they come; nothing is left of those that never said who they are."""
    hub, server = world(run, maxconn=3)
    idle = [tcp.open_socket(hub.listen["in"]) for _ in range(3)]
    hub.wait_metric("mctunnel_listener_sessions", 3)
    for s in idle:
        tcp.reset(s)
    hub.wait_metric("mctunnel_listener_sessions", 0)
    equal(served(hub, server, [v2()])[0], (CLIENT, BEFORE), "addresses at the target")


if __name__ == "__main__":
    harness.main(globals())
