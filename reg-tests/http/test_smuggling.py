#!/usr/bin/env python3
"""Request smuggling, through the real program: a raw target records what reaches it. The table is that of the unit test (the corpora of the fuzz
targets): none of it may pass, whatever stands before and behind it; the client gets its status, the connection ends, and the log says why."""
import contextlib
import glob
import os
import re
import socket
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal

CORPUS = os.path.join(harness.TOP, "reg-tests", "fuzz", "corpus")
GOOD = b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n"
EVIL = b"GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def table(folder, kind):
    """{name: bytes} of what must be refused."""
    rows = {}
    for path in sorted(glob.glob(os.path.join(CORPUS, folder, kind + "-*"))):
        with open(path, "rb") as f:
            rows[os.path.basename(path)] = f.read()[1:]
    check(len(rows) > 15, "where are the corpora?")
    return rows


def status_for(head):
    """What a refused head is answered with."""
    if len(head.split(b" ")[0]) > 32:
        return 501
    return 505 if re.match(rb"[A-Z]+ \S+ HTTP/(0\.9|1\.2|2\.0)\r\n", head) else 400


class Target:
    """Answers each GET with `answer`, and nothing else; knows all that came, and which connections are over."""

    def __init__(self, run, answer=OK):
        self.answer, self.lock = answer, threading.Lock()
        self.seen, self.ended, self.programs = b"", 0, []
        self.server = tcp.Server(run, self._serve)
        self.target = self.server.target

    def _serve(self, s):
        got, answered = b"", 0
        with contextlib.suppress(OSError):
            while True:
                data = s.recv(65536)
                if not data:
                    break
                got += data
                with self.lock:
                    self.seen += data
                gets = got.count(b"\r\n\r\n") if got.startswith(b"GET ") else 0
                s.sendall(self.answer * (gets - answered))
                answered = gets
        with self.lock:
            self.ended += 1

    def take(self):
        with self.lock:
            seen, self.seen = self.seen, b""
        return seen

    def settle(self):
        """Until all that the programs have begun has come here, and is over: who connects now is accepted last."""
        for p in self.programs:
            p.nothing_left()
        with tcp.open_socket(self.server.address) as s:
            s.shutdown(socket.SHUT_WR)
            tcp.expect_eof(s)
        harness.wait_until(lambda: self.ended == self.server.accepted, "the target's connections to end")


def scenario(run, answer=OK, **listener):
    target = Target(run, answer)
    hub = scene.Hub(run, {"web": dict({"mode": "http", "route": "site-a/web"}, **listener)}).start()
    hub.wait_ready()
    target.programs = [hub, scene.Agent(run, hub.authority, [hub.address], [scene.service("web", target.target)]).start()]
    hub.wait_links(2)
    return hub, target


def talk(address, data):
    """What comes back until the end, in good order or not."""
    got = b""
    with tcp.open_socket(address) as s, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        s.sendall(data)
        while True:
            try:
                more = s.recv(65536)
            except socket.timeout:
                raise harness.Failed("after %r the connection is still open; so far: %r" % (data, got)) from None
            if not more:
                break
            got += more
    return got


def test_heads(run):
    hub, target = scenario(run)
    address, refused = hub.listen["web"], 0
    for name, head in table("http_head", "request").items():
        if head.startswith(b"PRI "):
            continue  # the preface of HTTP/2
        for before, behind in ((b"", b""), (GOOD, b""), (b"", EVIL), (GOOD, EVIL)):
            got = talk(address, before + head + behind)
            what = "%s: %r, answered %r" % (name, before + head + behind, got)
            answers = re.findall(rb"HTTP/1.1 (\d+) ", got)
            equal([int(a) for a in answers], ([200] if before else []) + [status_for(head)], what)
            check(b"connection: close" in got.lower(), what)
            seen = target.take()
            check(b"evil" not in seen, what, "reached the target:", seen)
            equal(seen.count(b" HTTP/1."), 1 if before else 0, what + ": heads at the target")
            refused += 1
    records = hub.wait_log("session", refused, reason="bad_request", listener="web")
    equal(len(records), refused, "records of refused requests")
    check(all(r.get("text") for r in records), "records do not say what was wrong:", [r for r in records if not r.get("text")][:1])
    hub.nothing_left()


def test_bodies(run):
    """What was good of a body may have reached the target, which must then see its connection end; nothing behind the fault gets there."""
    hub, target = scenario(run)
    address = hub.listen["web"]
    for name, body in table("http_body", "chunk").items():
        for behind in (b"", EVIL):
            data = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body + behind
            got = talk(address, data)
            what = "%s: %r, answered %r" % (name, data, got)
            check(re.match(rb"HTTP/1.1 400 |$", got), what)
            target.settle()
            seen = target.take()
            check(b"evil" not in seen, what, "reached the target:", seen)
            check(body not in seen and (not seen or b"\r\n0\r\n\r\n" not in seen), what, "reached the target whole:", seen)
    hub.wait_log("session", reason="bad_request")
    hub.nothing_left()


def test_answers(run):
    """A target's malformed answer is a 502, of which the client sees nothing."""
    hub, target = scenario(run)
    for name, answer in table("http_head", "answer").items():
        target.answer = answer
        got = talk(hub.listen["web"], b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        check(got.startswith(b"HTTP/1.1 502 ") and got.count(b"HTTP/1.1") == 1, name, answer, got)
        check(b"X: a" not in got, name, answer, got)
    check(hub.wait_log("session", len(table("http_head", "answer")), reason="bad_answer"), "records of bad answers")
    hub.nothing_left()


def test_answer_too_many(run):
    """What a target says behind its answer is nobody's."""
    hub, target = scenario(run, answer=OK + b"HTTP/1.1 200 EVIL\r\nContent-Length: 4\r\n\r\nevil")
    with tcp.open_socket(hub.listen["web"]) as s:
        for _ in range(5):
            s.sendall(GOOD)
            got = b""
            while not got.endswith(b"\r\n\r\nok"):
                more = s.recv(65536)
                check(more, "the connection ended after", got)
                got += more
            equal(got.count(b"HTTP/1.1 "), 1, "answers to one request")
            check(b"evil" not in got.lower(), got)
    hub.nothing_left()


def test_pieces(run):
    """The same when the bytes come one by one."""
    hub, target = scenario(run)
    rows = list(table("http_head", "request").items())
    for name, head in rows[::7]:
        if head.startswith(b"PRI ") or len(head) > 200:
            continue
        got = b""
        with tcp.open_socket(hub.listen["web"]) as s, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for i in range(len(head)):
                s.sendall(head[i:i + 1])
            while more := s.recv(65536):
                got += more
        # a reset may overtake the answer, as the rest of the bytes comes to a closed connection
        check(not got or got.startswith(b"HTTP/1.1 %d " % status_for(head)), name, got)
        equal(target.take(), b"", name + ": at the target")


if __name__ == "__main__":
    harness.main(globals())
