#!/usr/bin/env python3
"""HTTP/2 clients whose header block never ends, or is a thousand times as large as what they send: the connection ends with GOAWAY, the hub does not grow, and others are
served meanwhile."""
import os
import select
import ssl
import struct
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki
import proc
import raw
import scene
import tcp
import web
from harness import check, equal, say

PREFACE = raw.PREFACE + raw.settings()
LIMIT = 20 << 20
PROTOCOL, COMPRESSION, CALM = 1, 9, 11
FIELDS = [(":method", "GET"), (":scheme", "http"), (":path", "/hang"), (":authority", "a")]
TABLE = raw.literal("a", "b" * 3900, indexed=True)  # the newest entry of the table: b"\xbe" names it


def begun(more=b"", stream=1, end=False):
    return raw.headers(stream, raw.block(FIELDS) + more, fin=True, end=end)


def more(data, stream=1):
    return raw.frame(raw.CONTINUATION, data, 0, stream)


# (name, what comes once, what comes again and again, codes of GOAWAY)
FLOODS = [
    ("empty CONTINUATIONs", begun(), more(b""), (CALM, PROTOCOL)),
    ("CONTINUATIONs with a field", begun(), more(raw.literal("x", "y" * 1000)), (CALM, PROTOCOL)),
    ("CONTINUATIONs with the same small field", begun(raw.literal("x", "y", indexed=True)), more(b"\xbe"), (CALM, PROTOCOL)),
    ("a field in pieces of a byte", begun(b"\x10\x01x\x7f\xff\xff\xff\x07"), more(b"y"), (CALM, COMPRESSION)),
    ("an HPACK bomb", begun(TABLE + b"\xbe" * 10000, end=True), None, (CALM, PROTOCOL)),
    ("an HPACK bomb without end", begun(TABLE), more(b"\xbe" * 16000), (CALM, PROTOCOL)),
    ("HPACK bombs in trailers", raw.headers(1, FIELDS[1:] + [(":method", "POST")]), raw.headers(1, TABLE + b"\xbe" * 10000, fin=True), (CALM, PROTOCOL)),
    ("HPACK bombs on streams too many", b"".join(begun(stream=n, end=True) for n in range(1, 401, 2)) + begun(TABLE, 401), more(b"\xbe" * 16000, 401), (CALM, PROTOCOL)),
    ("tables made small and large", begun(), more(b"\x20\x3f\xe1\x1f"), (CALM, COMPRESSION)),
]


class Others:
    """Asks on a connection of its own, until stop()."""

    def __init__(self, address):
        self.address, self.times, self.over = address, [], threading.Event()
        self.work = harness.Background(self.ask)

    def ask(self):
        with web.Client(self.address) as c:
            while not self.over.is_set():
                began = time.monotonic()
                c.request("/")
                equal(c.answer().status, 200, "somebody else's answer")
                self.times.append(time.monotonic() - began)
                time.sleep(0.01)

    def go_on(self, n):
        want = len(self.times) + n
        harness.wait_until(lambda: len(self.times) >= want or self.work.error, "answers for others")

    def stop(self):
        self.over.set()
        self.work.finish()
        return self.times


def connected(p, tls):
    s = tcp.open_socket(p.hub.listen["https" if tls else "plain"])
    if not tls:
        return s
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(p.hub.authority.ca)
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(s, server_hostname="hub.test")


def goaway(data):
    """The code of the last one; None: there is none."""
    code = None
    while len(data) >= 9:
        n = int.from_bytes(data[:3], "big")
        if data[3] == raw.GOAWAY and len(data) >= 9 + n:
            code = struct.unpack_from("!I", data, 13)[0]
        data = data[9 + n:]
    return code


def pour(s, first, again, grown):
    """Until the hub ends it: what it has said, and how many bytes it took."""
    said, sent, rest, open_until = b"", 0, memoryview(PREFACE + first), time.monotonic() + harness.PATIENCE
    s.setblocking(False)
    while time.monotonic() < open_until:
        grown()
        if not rest and again:
            rest = memoryview(again * max(1, 60000 // len(again)))
        readable, writable, _ = select.select([s], [s] if rest else [], [], 1)
        try:
            if readable:
                data = s.recv(65536)
                if not data:
                    return said, sent
                said += data
        except ssl.SSLWantReadError:
            pass
        except OSError:
            return said, sent
        try:
            if writable:
                n = s.send(rest)
                rest, sent = rest[n:], sent + n
        except ssl.SSLWantWriteError:
            pass
        except OSError:
            rest, again = b"", None  # what was said before may still be read
    raise harness.Failed("is borne")


def start(run):
    def answer(wire, m):
        return wire.rest() and False

    p = scene.Pair()
    p.origin = web.Origin(run, "a")
    p.origin.special["/hang"] = answer
    authority = pki.Pki(run.path("pki-all"))
    cert, key = authority.hub("site.test")
    row = {"mode": "http", "route": "site-a/a"}
    p.hub = scene.Hub(run, {"plain": row, "https": dict(row, tls={"cert": [cert], "key": key}), "other": row}, authority=authority,
                      environment=raw.FRUGAL).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("a", p.origin.target)]).start()
    p.hub.wait_links(2)
    return p


def test_header_blocks(run):
    p = start(run)
    others = Others(p.hub.listen["other"])
    others.go_on(5)
    for tls in (False, True):
        for what, first, again, codes in FLOODS:
            before, most = proc.resident(p.hub.worker())[0], [0]

            def grown():
                most[0] = max(most[0], proc.resident(p.hub.worker())[0] - before)
                check(most[0] < LIMIT, what, "has made the hub grow by", most[0])

            with connected(p, tls) as s:
                said, sent = pour(s, first, again, grown)
            say("%s%s: %d bytes taken, GOAWAY %s, grown by %d kB" % (what, " over TLS" if tls else "", sent, goaway(said), most[0] >> 10))
            check(goaway(said) in codes, what, "ended with", goaway(said))
            others.go_on(2)
    lines = p.hub.wait_log("session", 2 * len(FLOODS), reason="bad_request")
    check(all("HTTP/2" in r["text"] for r in lines), "lines of those who were sent away:", lines[:3])
    times = others.stop()
    say("others: " + harness.spread(times))
    p.hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
