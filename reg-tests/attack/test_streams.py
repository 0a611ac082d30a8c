#!/usr/bin/env python3
"""The same agent, with sessions: it breaks the rules about streams, answers, credit, ends and memory."""
import os
import socket
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import raw
import tcp
from harness import check, equal, say
from raw import frame, headers
from victim import Scene

CODES = [0, 1, 7, 8, 14, 0xffffffff] + [raw.REASON + n for n in range(0, 30, 2)] + [raw.REASON + 13, raw.REASON + 15]


# Each gets the attacker's link and a session on it (client, stream): what it sends is up to it.
SESSIONS = {
    "credit for nothing": lambda a, s, n: raw.credit(n, 1),
    "credit beyond the window": lambda a, s, n: raw.credit(n, 0x7fffffff) * 3,
    "credit of zero": lambda a, s, n: raw.credit(n, 0),
    "data beyond the window": lambda a, s, n: frame(raw.DATA, b"x" * 16384, 0, n) * 400,
    "data padded": lambda a, s, n: frame(raw.DATA, b"\xff" + b"x" * 300, 8, n) * 100,
    "data longer than a frame may be": lambda a, s, n: frame(raw.DATA, b"x" * 16385, 0, n),
    "data after the end": lambda a, s, n: frame(raw.DATA, b"x", raw.END_STREAM, n) + frame(raw.DATA, b"y", 0, n),
    "two ends": lambda a, s, n: frame(raw.DATA, b"", raw.END_STREAM, n) * 2,
    "a second answer": lambda a, s, n: headers(n, [(":status", "200")]) * 3,
    "trailers": lambda a, s, n: headers(n, [("x", "y")], fin=True),
    "trailers without an end": lambda a, s, n: headers(n, [("x", "y")]) * 3,
    "data for unknown streams": lambda a, s, n: b"".join(frame(raw.DATA, b"x", 0, n + 1 + i) for i in range(20)),
    "answers on streams never opened": lambda a, s, n: headers(n + 200, [(":status", "200")]),
    "a request": lambda a, s, n: raw.connect(2),
    "a resuming request from the wrong side": lambda a, s, n: raw.connect(n + 2, "resume", fields=[("mct-resume", "1"), ("mct-offset", "0")]),
    "data on stream 0": lambda a, s, n: frame(raw.DATA, b"x"),
    "settings on a stream": lambda a, s, n: frame(raw.SETTINGS, b"", 0, n),
    "a ping of 7 bytes": lambda a, s, n: frame(raw.PING, b"1234567"),
    "a window that grows too far": lambda a, s, n: raw.settings(window=0x7fffffff) + raw.credit(n, 5),
    "a window of nothing": lambda a, s, n: raw.settings(window=0) * 5,
    "a cycle of priorities": lambda a, s, n: b"".join(frame(raw.PRIORITY, struct.pack("!IB", p, 1), 0, q) for p, q in ((n, n + 2), (n + 2, n), (n, n))),
    "goaway, then data": lambda a, s, n: frame(raw.GOAWAY, struct.pack("!II", n, 2)) + frame(raw.DATA, b"x" * 100, 0, n),
    "goaway below the stream": lambda a, s, n: frame(raw.GOAWAY, struct.pack("!II", 0, 0)) + frame(raw.DATA, b"x" * 100, 0, n),
    "garbage": lambda a, s, n: os.urandom(3000),
    "a block that is no HPACK": lambda a, s, n: frame(raw.HEADERS, b"\xff" * 50, 4, n),
    "continuations without end": lambda a, s, n: headers(n, [("a", "b")], end=False) + frame(raw.CONTINUATION, raw.literal("c", "d" * 1000), 0, n) * 3000,
    "empty continuations": lambda a, s, n: headers(n, [("a", "b")], end=False) + frame(raw.CONTINUATION, b"", 0, n) * 30000,
    "a bomb": lambda a, s, n: b"".join(headers(n, raw.literal("x", "y" * 4000, True) + b"\xbe" * 16000) for _ in range(20)),
}

# Answers to the request, instead of a good one.
ANSWERS = {
    "no status": [("mct-target", "x")], "status twice": [(":status", "200"), (":status", "404")], "a status of letters": [(":status", "abc")],
    "status 0": [(":status", "000")], "status 999": [(":status", "999")], "100": [(":status", "100")], "101": [(":status", "101")],
    "a NUL": [(":status", "200"), ("mct-target", b"a\0b")], "a line": [(":status", "200"), ("mct-target", b"a\r\n\x1b[2Jb")],
    "a long target": [(":status", "200"), ("mct-target", "t" * 5000)], "an offset": [(":status", "200"), ("mct-offset", "9" * 19), ("mct-fin", "1")],
    "a minus": [(":status", "200"), ("mct-offset", "-1")], "a resume": [(":status", "200"), ("mct-resume", "4294967295")],
    "a reason": [(":status", "503"), ("mct-reason", "r" * 500)], "an odd reason": [(":status", "403"), ("mct-reason", "\x1b%s%n")],
    "capitals": [(":status", "200"), ("Mct-Target", "x")], "too late a pseudo field": [("x", "y"), (":status", "200")],
    "a length": [(":status", "200"), ("content-length", "5")], "8 KB": [(":status", "200")] + [("n%d" % i, "v" * 900) for i in range(12)],
}


def test_sessions(run):
    """Breaking the rules about one stream or the link costs the attacker's session or link, nothing else."""
    s = Scene(run, timeouts={"connect": "1s", "resume": "1s", "queue": "1s"})
    for name, made in SESSIONS.items():
        a = s.attacker()
        c, n = s.session(a)
        c.sendall(b"x")
        a.push(made(a, c, n), 0.05)
        a.take(0.05)
        a.close()
        c.close()
        s.hub.wait_links(2)
        check(s.hub.running() and not s.chat.thread.error, name, s.chat.thread.error)
    s.unharmed()
    s.over()


def test_answers(run):
    s = Scene(run, timeouts={"connect": "1s", "resume": "1s", "queue": "200ms"})
    a = s.attacker()
    for name, fields in ANSWERS.items():
        for fin in (False, True):
            c = s.client()
            a.send(headers(a.request(), fields, fin))
            check(a.alive(), name, "has closed the link")
            c.close()
    a.close()
    s.hub.wait_metric("mctunnel_sessions", 1)
    with open(s.hub.log_path, "rb") as f:
        check(all(32 <= b or b == 10 for b in f.read()), "raw control characters in the log")
    s.over()


def test_resets(run):
    """RST_STREAM with every code, at every moment."""
    s = Scene(run, timeouts={"connect": "1s", "resume": "1s", "queue": "200ms"})
    a = s.attacker()
    for code in CODES:
        for moment in range(3):
            c = s.client()
            n = a.request()
            if moment == 1:
                a.accept(n)
            elif moment == 2:
                a.send(headers(n, [(":status", "200")]), frame(raw.DATA, b"x", raw.END_STREAM, n))
            a.send(raw.reset(n, code))
            a.take()
            a.frames.clear()
            c.close()
    check(a.alive(), "the link")
    a.close()
    s.hub.wait_metric("mctunnel_sessions", 1)
    s.over()


def test_memory(run):
    """Clients that read nothing, an agent that fills all windows: the others' sessions go on, and the memory comes back."""
    s = Scene(run, settings={"memory": "32m"})
    a = s.attacker()
    streams = [s.session(a)[1] for _ in range(40)]
    for c in s.clients:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    piece = [b"".join(frame(raw.DATA, b"x" * 16000, 0, n) for n in streams)] * 250
    for data in piece:
        a.push(data, 0.01)
        if a.closed:
            break
    say("the hub has grown by %.1f MB" % (s.grown() / 1e6), "closed" if a.closed else "", s.hub.metric("mctunnel_sessions"), "sessions")
    before = len(s.chat.times)
    with tcp.open_socket(s.good) as bulk:
        sent, got = tcp.exchange(bulk, 8 << 20, 7)
        equal(got, sent, "a transfer beside")
    check(s.grown() < 80 << 20, "more than its memory")
    s.unharmed()
    a.close()
    for c in s.clients:
        c.close()
    s.hub.wait_metric("mctunnel_sessions", 1)
    harness.wait_until(lambda: s.grown() < 60 << 20, "memory to be given back, not %d bytes" % s.grown())
    s.over()


if __name__ == "__main__":
    harness.main(globals())
