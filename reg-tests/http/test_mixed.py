#!/usr/bin/env python3
"""Requests of all kinds and sizes through kept connections to three services: each is answered by the right service with the right bytes, and the
service gets the right bytes, while all is calm, and while links are cut and the configuration is reloaded. `--full`: 100,000 requests of each, else
10,000. `--seed N`: the same requests again."""
import os
import random
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import relay
import scene
import tcp
from harness import check, equal, say

SERVICES = ("one", "two", "three")
CLIENTS = 10
BLOCK = random.Random(1).randbytes(1 << 20)


def option(name, default):
    """Taken off the command line."""
    if name not in sys.argv:
        return default
    i = sys.argv.index(name)
    words = sys.argv[i:i + (1 if isinstance(default, bool) else 2)]
    del sys.argv[i:i + len(words)]
    return True if isinstance(default, bool) else int(words[1])


FULL = option("--full", False)
SEED = option("--seed", int(time.time()))
REQUESTS = 100000 if FULL else 10000


def content(seed, n):
    """At most 512 KiB, the same for the same seed."""
    at = seed * 7919 % (len(BLOCK) // 2)
    return BLOCK[at:at + n]


def chunks(data, seed):
    r, out, at = random.Random(seed), [], 0
    while at < len(data):
        n = min(len(data) - at, r.choice((1, 16, 1000, 16384, 70000)))
        out.append(b"%x%s\r\n%s\r\n" % (n, b";a=b" if n == 16 else b"", data[at:at + n]))
        at += n
    return b"".join(out) + b"0\r\n" + b"".join(line + b"\r\n" for line in trailers(data, seed)) + b"\r\n"


def trailers(data, seed):
    return [b"x-sum: %d" % len(data), b"x-more:"][:seed % 3]


class Ended(harness.Failed):
    """The connection ended where it should not."""


class Reader:
    """Messages off a socket; whoever asks knows how they end."""
    trailers = []

    def __init__(self, s):
        self.s, self.f = s, s.makefile("rb", 1 << 16)

    def line(self):
        line = self.f.readline(1 << 16)
        if line and not line.endswith(b"\r\n"):
            raise Ended("the connection ended in the middle of a line: %r" % line)
        return line[:-2]

    def head(self):
        """(first line, {name: value}), None at the end."""
        first, fields = self.line(), {}
        if not first:
            return None
        while line := self.line():
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        return first, fields

    def exactly(self, n):
        data = self.f.read(n)
        if len(data) != n:
            raise Ended("the connection ended %d bytes too early" % (n - len(data)))
        return data

    def size(self):
        line = self.line()
        if not line:
            raise Ended("the connection ended where a chunk should begin")
        return int(line.split(b";")[0], 16)

    def body(self, fields, answer):
        self.trailers = []
        if b"transfer-encoding" in fields:
            parts = []
            while size := self.size():
                parts.append(self.exactly(size))
                equal(self.line(), b"", "end of a chunk")
            while line := self.line():
                self.trailers.append(line.lower().rstrip())
            return b"".join(parts)
        if b"content-length" in fields:
            return self.exactly(int(fields[b"content-length"]))
        return self.f.read() if answer else b""


# ---- the origin: a process for each service ----

def answer_head(status, name, verdict, *more):
    return b"\r\n".join((b"HTTP/1.1 " + status, b"X-Service: " + name.encode(), b"X-Body: " + verdict, *more)) + b"\r\n\r\n"


def serve(own, s):
    """own: the service's name; None: whichever is asked for."""
    r = Reader(s)
    while head := r.head():
        method, target, _ = head[0].split(b" ")
        _, service, seed, sent, back, kind = target.decode().split("/")
        name, seed, sent, back = own or service, int(seed), int(sent), int(back)
        if head[1].get(b"expect"):
            s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        got, data = r.body(head[1], False), content(seed + 1, back)
        good = got == content(seed, sent) and (b"transfer-encoding" not in head[1] or r.trailers == trailers(got, seed))
        verdict = b"good" if good else b"bad: %d bytes" % len(got)
        length = b"Content-Length: %d" % back
        if kind == "none":
            s.sendall(answer_head(b"204 No Content", name, verdict))
        elif kind == "same":
            s.sendall(answer_head(b"304 Not Modified", name, verdict, length))
        elif method == b"HEAD":
            s.sendall(answer_head(b"200 OK", name, verdict, length))
        elif kind == "length":
            s.sendall(answer_head(b"200 OK", name, verdict, length) + data)
        elif kind == "last":
            s.sendall(answer_head(b"200 OK", name, verdict, length, b"Connection: close") + data)
            return
        elif kind == "chunked":
            s.sendall(answer_head(b"200 OK", name, verdict, b"Transfer-Encoding: chunked") + chunks(data, seed))
        else:
            s.sendall(answer_head(b"200 OK", name, verdict) + data)
            return


def origin(host, name):
    class Nothing:
        undo = type("", (), {"callback": lambda *a: None})
    server = tcp.Server(Nothing, lambda s: serve(name, s), address=(host, 0))
    print(server.address[1], flush=True)
    while True:
        e = server.results.get()
        if not isinstance(e, ConnectionError):
            print(name, repr(e), file=sys.stderr, flush=True)


def start_origin(run, name):
    p = proc.start(run, [sys.executable, os.path.abspath(__file__), "--origin", run.host, name], stdout=subprocess.PIPE, text=True)
    return "%s:%d" % (run.host, int(p.stdout.readline()))


# ---- clients ----

class Request:
    def __init__(self, r):
        self.service, self.seed = r.choice(SERVICES), r.randrange(1 << 30)
        self.method = r.choice(("GET", "GET", "GET", "POST", "POST", "PUT", "HEAD"))
        self.kind = r.choice(("length", "length", "length", "length", "chunked", "chunked", "chunked", "none", "same", "last", "close"))
        self.sent = self.size(r) if self.method in ("POST", "PUT") else 0
        self.back = self.size(r)
        self.chunked, self.expect = r.random() < 0.4, self.sent > 0 and r.random() < 0.1

    @staticmethod
    def size(r):
        return r.randrange(r.choice((1, 2, 100, 2000, 2000, 2000, 30000, 30000)) if r.random() < 0.98 else 400000)

    def head(self):
        lines = ["%s /%s/%d/%d/%d/%s HTTP/1.1" % (self.method, self.service, self.seed, self.sent, self.back, self.kind), "Host: mixed.test"]
        if self.method in ("POST", "PUT"):
            lines.append("Transfer-Encoding: chunked" if self.chunked else "Content-Length: %d" % self.sent)
        if self.expect:
            lines.append("Expect: 100-continue")
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def body(self):
        data = content(self.seed, self.sent)
        if self.method not in ("POST", "PUT"):
            return b""
        return chunks(data, self.seed) if self.chunked else data

    def check(self, first, fields, body, after):
        what = "%s, answered %r %r" % (self.head(), first, fields)
        status = {"none": b"204", "same": b"304"}.get(self.kind, b"200")
        equal(first.split(b" ")[1], status, what)
        equal(fields.get(b"x-service"), self.service.encode(), what)
        equal(fields.get(b"x-body"), b"good", what)
        want = content(self.seed + 1, self.back) if status == b"200" and self.method != "HEAD" else b""
        if self.kind == "chunked" and want:
            equal(after, trailers(want, self.seed), what + ": trailers")
        check(body == want, what, ": %d bytes that are not those %d" % (len(body), len(want)))


class Client:
    patient = True  # waits for 100 (Continue) now and then

    def __init__(self, address, seed, timeout=60):
        self.address, self.random, self.s, self.timeout = address, random.Random(seed), None, timeout
        self.done, self.connections = 0, 0

    def connect(self):
        if not self.s:
            self.s = tcp.open_socket(self.address, self.timeout)
            self.r = Reader(self.s)
            self.connections += 1

    def close(self):
        if self.s:
            self.r.f.close()
            self.s.close()
            self.s = None

    def read_answer(self, q):
        """True: the connection goes on."""
        while True:
            head = self.r.head()
            if not head:
                raise Ended("no answer to %r" % q.head())
            if head[0].split(b" ")[1] != b"100":
                break
        first, fields = head
        bodiless = q.method == "HEAD" or q.kind in ("none", "same")
        q.check(first, fields, b"" if bodiless else self.r.body(fields, True), self.r.trailers)
        self.done += 1
        return fields.get(b"connection", b"").lower() != b"close" and (bodiless or b"content-length" in fields or b"transfer-encoding" in fields)

    def one(self):
        q = Request(self.random)
        q.expect &= self.patient
        self.s.sendall(q.head() if q.expect else q.head() + q.body())
        if q.expect:
            first, _ = self.r.head() or (b"- -", {})
            if first == b"- -":
                raise Ended("no answer to one that expects it")
            equal(first.split(b" ")[1], b"100", "what an expecting client gets first")
            self.s.sendall(q.body())
        if not self.read_answer(q):
            self.close()

    def several(self):
        """In one packet. After one whose answer ends the connection the others are not served."""
        batch = [Request(self.random) for _ in range(self.random.randrange(2, 6))]
        batch = [q for q in batch if not q.expect and q.sent < 10000]
        self.s.sendall(b"".join(q.head() + q.body() for q in batch))
        for q in batch:
            if not self.read_answer(q):
                self.close()
                return

    def run(self, n):
        while self.done < n:
            self.connect()
            if self.random.random() < 0.2:
                self.several()
            else:
                self.one()
        self.close()
        return self.done


# ---- scenarios ----

def scenario(run):
    say("--seed", SEED)
    origins = {name: start_origin(run, name) for name in SERVICES}
    rules = ({"path": "~^/(?<service>one|two)/", "route": "site-a/${service}"}, {"path": "/three/*", "route": "site-a/three"})
    hub = scene.Hub(run, {"web": {"mode": "http", "rules": rules}}, timeouts={"queue": "20s"}).start()
    hub.wait_ready()
    between = relay.Relay(run, hub.address)
    scene.Agent(run, hub.authority, [between.address], [scene.service(k, v) for k, v in origins.items()]).start()
    hub.wait_links(2)
    return hub, between


def mix(hub, harm):
    clients = [Client(hub.listen["web"], SEED + i) for i in range(CLIENTS)]
    began = time.monotonic()
    threads = [harness.Background(c.run, REQUESTS // CLIENTS) for c in clients]
    while any(t.is_alive() for t in threads):
        hub.must_run()
        harm()
        for t in threads:
            if t.error:
                raise t.error
        time.sleep(0.25)
    done = sum(t.finish() for t in threads)
    check(done >= REQUESTS, "only", done)
    say("%d requests over %d connections in %.1f s" % (done, sum(c.connections for c in clients), time.monotonic() - began))
    hub.nothing_left()


def test_calm(run):
    hub, _ = scenario(run)
    mix(hub, lambda: None)


def test_cuts_and_reloads(run):
    hub, between = scenario(run)
    rows = hub.config["listeners"]
    turns = [0, 0]

    def harm():
        turns[0] += 1
        between.cut("fin" if turns[0] % 2 else "rst")
        if turns[0] % 4 == 0:
            turns[1] += 1
            more = dict(rows[0], name="more", bind="%s:%d" % (run.host, run.port()))
            hub.configure(dict(hub.config, listeners=rows + (more,) if turns[1] % 2 else rows))
            hub.send(1)

    mix(hub, harm)
    say("%d cuts, %d reloads" % tuple(turns))
    check(turns[0] > 3, "it was over too soon")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--origin"]:
        origin(*sys.argv[2:])
    harness.main(globals(), threads=(1, 2))
