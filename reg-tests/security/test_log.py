#!/usr/bin/env python3
"""Strangers whose words reach the log (path, host, fields, names of TLS) cannot make lines of their own, nor say control characters to a terminal: in every format."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import scene
import tcp
import web
from harness import check

FORMATS = ("json", "text")


def provoke(hub):
    with web.Client(hub.listen["web"]) as c:
        c.request("/x%0d%0aforged", fields=(("X-Request-ID", "a b\"forged"), ("User-Agent", "forged\x80\xff")))
        c.answer()
    for raw in (b"GET /\x1b[31mforged HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\"forged\"= HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\nforged\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\nX: \0forged\r\n\r\n", b"GET /\xc2\x9b31mforged HTTP/1.1\r\nHost: a\r\n\r\n"):
        with tcp.open_socket(hub.listen["web"]) as s:
            s.sendall(raw)
            s.shutdown(1)
            while s.recv(65536):
                pass
    for name in ("a\nforged.test", "\x1b[31mforged", "forged\"=x", "\x9bforged"):
        with tcp.open_socket(hub.listen["sni"]) as s:
            s.sendall(hello.records(hello.message(hello.server_name(name))))
            while s.recv(65536):
                pass


def test_each_format(run):
    path = run.path("other.log")
    for i, form in enumerate(FORMATS):
        hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/a"}, "sni": {"mode": "tls", "rules": ({"sni": "none.test", "route": "site-a/a"},)}},
                        name="hub%d" % i, timeouts={"queue": "100ms"},
                        settings={"log": ({"target": run.path("hub%d.log" % i), "format": "json", "level": "info"}, {"target": path + form, "format": form, "level": "info"})})
        hub.start().wait_ready()
        provoke(hub)
        hub.wait_log("session", 6)
        hub.stop()
        for name in (path + form, hub.log_path):
            with open(name, "rb") as f:
                lines = f.read().split(b"\n")
            forged = [line for line in lines if b"forged" in line]
            check(forged, form, ": nothing of it was logged, so nothing is shown")
            for line in lines[:-1]:
                check(not line.startswith((b"forged", b".test")), form, "a line of a stranger:", line)
                check(all(c >= 32 for c in line) and b"\x7f" not in line and b"\xc2\x9b" not in line, form, "control characters:", line)


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
