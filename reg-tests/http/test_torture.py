#!/usr/bin/env python3
"""Clients and targets at their worst, at once, at random: requests and answers mutated, cut anywhere, reset, half-closed, stalled, early, too long, while
links are cut and the configuration is reloaded. What must hold: whoever asks properly in between is answered properly (by a target that behaves), nobody
dies, and at the end nothing is left. `--seconds N` (8) for each number of threads, `--seed N`."""
import contextlib
import os
import random
import socket
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import relay
import scene
import tcp
from harness import check, equal, say


def option(name, default):
    """Taken off the command line."""
    if name not in sys.argv:
        return default
    i = sys.argv.index(name)
    value = int(sys.argv[i + 1])
    del sys.argv[i:i + 2]
    return value


SECONDS = option("--seconds", 8)
SEED = option("--seed", int(time.time()))

REQUESTS = [
    b"GET /bad/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /bad/a HTTP/1.0\r\n\r\n",
    b"HEAD /bad/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET http://a/bad/a?b HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nCookie: a=b; c=d\r\n\r\n",
    b"POST /bad/b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
    b"POST /bad/b HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000,
    b"PUT /bad/c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT /bad/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"y" * 65535 + b"\r\n0\r\n\r\n",
    b"GET /bad/u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\r\n\0\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /reject HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /bad/%2e%2e/nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"z" * 300000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"c" * 4096 + b"\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nopaque",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nend",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
]


def mutate(r, data):
    """Mostly as it is; else bytes changed, lost, doubled, or cut off."""
    if r.random() < 0.6:
        return data
    data = bytearray(data)
    for _ in range(r.randrange(1, 4)):
        at, head = r.randrange(len(data) + 1), r.randrange(min(len(data), 120) + 1)
        what = r.randrange(5)
        if what == 0:
            data[head:head + 1] = bytes([r.choice((0, 9, 10, 13, 32, 58, 255, r.randrange(256)))])
        elif what == 1:
            del data[head:head + r.randrange(1, 5)]
        elif what == 2:
            data[head:head] = data[head:head + r.randrange(1, 20)]
        elif what == 3:
            data[at:at] = r.choice((b"\r\n", b"\r\n\r\n", b"\n", b"GET / HTTP/1.1\r\n", b"Content-Length: 3\r\n"))
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def send_in_pieces(r, s, data):
    for _ in range(r.choice((1, 1, 1, 2, 5))):
        n = r.randrange(len(data) + 1)
        s.sendall(data[:n])
        data = data[n:]
        if r.random() < 0.3:
            time.sleep(r.random() * 0.02)
    s.sendall(data)


def leave(r, s):
    """In good order, half, or not."""
    how = r.randrange(5)
    if how == 0:
        tcp.reset(s)
        return
    if how == 1:
        s.shutdown(socket.SHUT_WR)
    if how < 4:
        s.settimeout(r.random() * 0.3)
        while s.recv(r.choice((10, 65536))):
            pass


class Bad:
    """What misbehaves, each connection from a seed of its own."""

    def __init__(self):
        self.lock, self.n = threading.Lock(), 0

    def random(self):
        with self.lock:
            self.n += 1
            return random.Random(SEED * 1000003 + self.n)

    def target(self, s):
        r = self.random()
        with contextlib.suppress(OSError):
            while r.random() < 0.9:
                s.settimeout(r.choice((0.02, 0.5)))
                with contextlib.suppress(socket.timeout):
                    if not s.recv(r.choice((1, 100, 65536))):
                        break
                s.settimeout(5)
                send_in_pieces(r, s, mutate(r, r.choice(ANSWERS)))
            leave(r, s)

    def client(self, address):
        r = self.random()
        with contextlib.suppress(OSError):
            with tcp.open_socket(address, 5) as s:
                for _ in range(r.choice((1, 1, 2, 5))):
                    send_in_pieces(r, s, mutate(r, b"".join(r.choice(REQUESTS) for _ in range(r.choice((1, 1, 1, 3))))))
                    if r.random() < 0.5:
                        s.settimeout(r.random() * 0.1)
                        with contextlib.suppress(socket.timeout):
                            s.recv(65536)
                        s.settimeout(5)
                leave(r, s)


def good_target(s):
    """Says back what was asked for."""
    f = s.makefile("rb")
    while first := f.readline():
        n = 0
        while line := f.readline().strip().lower():
            if line.startswith(b"content-length:"):
                n = int(line.split(b":")[1])
        body = first.split(b" ")[1] + f.read(n)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def good_client(address, until):
    """Every answer must be its own."""
    r, n = random.Random(SEED), 0
    s = tcp.open_socket(address)
    f = s.makefile("rb")
    while time.monotonic() < until:
        n += 1
        body = b"q" * r.randrange(2000)
        s.sendall(b"POST /good/%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (n, len(body), body))
        first, length = f.readline(), 0
        while line := f.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = f.read(length)
        check(first.startswith(b"HTTP/1.1 200 "), "request", n, "was answered", first, answer)
        equal(answer, b"/good/%d%s" % (n, body), "answer %d" % n)
    s.close()
    return n


def test_torture(run):
    say("--seed", SEED)
    bad = Bad()
    targets = {"bad": tcp.Server(run, bad.target).target, "good": tcp.Server(run, good_target).target}
    rules = ({"path": "/bad/*", "route": "site-a/bad"}, {"path": "/good/*", "route": "site-a/good"}, {"path": "/reject", "action": "reject"})
    row = {"mode": "http", "rules": rules}
    hub = scene.Hub(run, {"web": row, "hasty": dict(row, timeouts={"http_request": "300ms", "idle": "1s"})}, timeouts={"queue": "20s"}).start()
    hub.wait_ready()
    between = relay.Relay(run, hub.address)
    scene.Agent(run, hub.authority, [between.address], [scene.service(k, v) for k, v in targets.items()]).start()
    hub.wait_links(2)
    until = time.monotonic() + SECONDS

    def worse():
        while time.monotonic() < until:
            bad.client(hub.listen["hasty"])

    worst = [harness.Background(worse) for _ in range(12)]
    best = [harness.Background(good_client, hub.listen["web"], until) for _ in range(2)]
    turn = 0
    while time.monotonic() < until:
        time.sleep(0.3)
        turn += 1
        hub.must_run()
        if turn % 3 == 0:
            between.cut("one" if turn % 2 else "rst")
        if turn % 5 == 0:
            hub.send(1)
    done = sum(b.finish() for b in best)
    for w in worst:
        w.finish()
    check(done > 10, "only", done, "good requests")
    say("%d connections at their worst, %d good requests" % (bad.n, done))
    hub.nothing_left()
    hub.must_run()


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
