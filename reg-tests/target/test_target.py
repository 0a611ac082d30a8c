#!/usr/bin/env python3
"""What targets see: the client's address by PROXY protocol, versions 1 and 2."""
import os
import socket
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import equal


def read_v1(s):
    line = b""
    while not line.endswith(b"\r\n"):
        line += tcp.recv_exactly(s, 1)
    words = line.decode().split()
    equal(words[:2], ["PROXY", "TCP4"])
    return (words[2], int(words[4])), (words[3], int(words[5]))


def read_v2(s):
    head = tcp.recv_exactly(s, 16)
    equal(head[:12], b"\r\n\r\n\0\r\nQUIT\n", "signature")
    equal(head[12:14], b"\x21\x11", "version and family")
    rest = tcp.recv_exactly(s, struct.unpack("!H", head[14:])[0])
    src, dst, sport, dport = struct.unpack("!4s4sHH", rest[:12])
    kind, size = struct.unpack("!BH", rest[12:15])
    equal((kind, size, len(rest)), (5, 32, 12 + 3 + 32), "the only field of a plain client: the session's id")
    equal(len(bytes.fromhex(rest[15:].decode())), 16, "id")
    return (socket.inet_ntoa(src), sport), (socket.inet_ntoa(dst), dport)


def proxied(run, version, reader):
    def handler(s):
        header = reader(s)
        tcp.echo(s)
        return header

    server = tcp.Server(run, handler)
    p = scene.pair(run, {"x": server.target}, service_options={"send_proxy": version})
    for data in (b"", b"hello\n", b"x" * 100000):
        with tcp.open_socket(p.listen["x"]) as s:
            mine = s.getsockname()
            s.sendall(data)
            equal(tcp.recv_exactly(s, len(data)), data, "echo after the header")
            s.shutdown(socket.SHUT_WR)
            tcp.expect_eof(s)
        result = server.result()
        equal(result, (mine, p.listen["x"]), "addresses in the header")


def test_send_proxy_v1(run):
    proxied(run, "v1", read_v1)


def test_send_proxy_v2(run):
    proxied(run, "v2", read_v2)


if __name__ == "__main__":
    harness.main(globals())
