#!/usr/bin/env python3
"""Agents come back: after a hub's restart at once, to every hub, through a proxy; links are spread and resumed."""
import contextlib
import errno
import os
import socket
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki
import scene
import tcp
from harness import check, equal, say


def test_back_after_the_hubs_restart(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    p.hub.stop()
    began = time.monotonic()
    p.hub.start().wait_links(2)
    say("hub's start to both links up: %.0f ms" % (1000 * (time.monotonic() - began)))
    tcp.ask(p.listen["echo"])


def test_back_after_a_long_absence(run):
    """While the hub is away the agent tries with back-off, not in a loop."""
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    p.hub.stop()
    attempts = counting_listener(p.hub.address, 3)
    say("%d attempts in 3 s" % attempts)
    check(2 <= attempts <= 60, "attempts")
    began = time.monotonic()
    p.hub.start().wait_links(2)
    say("both links up after %.1f s" % (time.monotonic() - began))
    tcp.ask(p.listen["echo"])


def counting_listener(address, seconds):
    """Accepts and resets for a while; how many came."""
    n, until = 0, time.monotonic() + seconds
    with tcp.listening(address) as listener:
        while time.monotonic() < until:
            listener.settimeout(max(0.01, until - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                tcp.reset(listener.accept()[0])
                n += 1
    return n


def test_links_to_all_hubs(run):
    authority = pki.Pki(run.path("pki"))
    echo = tcp.Server(run, tcp.echo)
    hubs = [scene.Hub(run, {"echo": "site-a/echo"}, authority=authority, name=name).start().wait_ready() for name in ("hub-a", "hub-b")]
    agent = scene.Agent(run, authority, [h.address for h in hubs], [scene.service("echo", echo.target)]).start()
    for h in hubs:
        h.wait_links(2)
        tcp.ask(h.listen["echo"])
    hubs[0].stop()
    tcp.ask(hubs[1].listen["echo"])
    equal(hubs[1].metric("mctunnel_links"), 2, "links to the other hub")
    hubs[0].start().wait_links(2)
    tcp.ask(hubs[0].listen["echo"])
    agent.nothing_left()


def free_port_of_ipv6():
    """Of ::1, which all tests share: below those that connections get meanwhile, and another one in each process."""
    for port in range(10000 + os.getpid() % 10000, 30000):
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", port))
                return port
            except OSError as e:
                if e.errno != errno.EADDRINUSE:
                    raise harness.Skipped("no IPv6 on this machine") from None
    raise harness.Failed("no port is free")


def test_by_name_and_ipv6(run):
    """A hub's name is resolved and all its addresses are tried: here one that refuses (127.0.0.1) and one that answers (::1)."""
    port = free_port_of_ipv6()
    names = {a[4][0] for a in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    say("localhost is", sorted(names))
    hub = scene.Hub(run, {"echo": "site-a/echo"}, hub={"bind": {"address": "[::1]:%d" % port}}).start().wait_ready()
    echo = tcp.Server(run, tcp.echo)
    agent = scene.Agent(run, hub.authority, [("localhost" if "::1" in names else "[::1]", port)], [scene.service("echo", echo.target)]).start()
    hub.wait_links(2)
    tcp.ask(hub.listen["echo"])
    up = agent.wait_log("link_up", 2)
    check(all(r["addr"].startswith("[::1]:") for r in up), up)


def test_resumed_handshakes(run):
    """A link that comes back resumes its TLS session."""
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    tcp.ask(p.listen["echo"])
    p.hub.kill_worker()
    p.hub.wait_links(2)
    m = p.hub.metrics()
    say("handshakes %d, resumed %d" % (m["mctunnel_link_handshakes_total"], m["mctunnel_link_handshakes_resumed_total"]))
    check(m["mctunnel_link_handshakes_resumed_total"] >= 1, "no handshake was resumed across the worker's restart")


class ConnectProxy:
    """An HTTP CONNECT proxy; remembers what was asked of it."""

    def __init__(self, run, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
        self.asked, self.answer = [], answer
        self.server = tcp.Server(run, self.serve)
        self.address = self.server.address

    def serve(self, s):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += tcp.recv_exactly(s, 1)
        self.asked.append(head.decode())
        s.sendall(self.answer)
        if b" 200 " not in self.answer:
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        with tcp.open_socket((host, int(port)), 300) as upstream:
            back = threading.Thread(target=self.copy, args=(upstream, s), daemon=True)
            back.start()
            self.copy(s, upstream)
            back.join()

    @staticmethod
    def copy(source, sink):
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                if not data:
                    break
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def test_through_an_http_proxy(run):
    proxy = ConnectProxy(run)
    url = "http://joe:secret@%s:%d" % proxy.address
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, agent={"proxy": url})
    tcp.ask(p.listen["echo"], b"x" * 100000)
    first = proxy.asked[0]
    say(first.splitlines()[0])
    check(first.startswith("CONNECT %s:%d HTTP/1.1\r\n" % p.hub.address), first)
    check("Proxy-Authorization: Basic am9lOnNlY3JldA==" in first, first)
    check("\r\nHost: " in first, first)


def test_the_proxy_refuses(run):
    proxy = ConnectProxy(run, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    hub = scene.Hub(run, {"x": "site-a/x"}).start().wait_ready()
    agent = scene.Agent(run, hub.authority, [hub.address], [scene.service("x", (run.host, 1))],
                        agent={"proxy": "http://%s:%d" % proxy.address}).start()
    harness.wait_until(lambda: [r for r in agent.log() if "403" in str(r)], "a log line that tells the proxy's answer")
    harness.wait_until(lambda: len(proxy.asked) >= 4, "retries")
    equal(hub.metric("mctunnel_links"), 0)
    proxy.answer = ConnectProxy.__init__.__defaults__[0]
    hub.wait_links(2)


if __name__ == "__main__":
    harness.main(globals())
