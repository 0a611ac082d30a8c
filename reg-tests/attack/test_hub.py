#!/usr/bin/env python3
"""A hub with a valid certificate and bad intentions towards an agent that serves an honest hub as well."""
import os
import select
import ssl
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import raw
import scene
import tcp
from harness import check, equal, say
from raw import connect, frame

ATTACKS = {
    "connects to nowhere": lambda n: connect(n, "nope"),
    "connects": lambda n: connect(n),
    "connects with an end": lambda n: connect(n, fin=True) + frame(raw.DATA, b"x", raw.END_STREAM, n),
    "connects and resets": lambda n: connect(n) + raw.reset(n, 8),
    "one id": lambda n: connect(n, session="ab" * 16),
    "ids that are none": lambda n: connect(n, session="x"),
    "resumes": lambda n: connect(n, "resume", fields=[("mct-resume", "1"), ("mct-offset", "0")]),
    "resumes and resets": lambda n: connect(n, "resume", fields=[("mct-resume", "1"), ("mct-offset", "0")]) + raw.reset(n, 8),
    "resumes without offset": lambda n: connect(n, "resume", fields=[("mct-resume", "4294967295")]),
    "resumes of one": lambda n: connect(n, "resume", "ab" * 16, fields=[("mct-resume", str(n)), ("mct-offset", "9" * 18), ("mct-fin", "1")]),
    "long fields": lambda n: connect(n, fields=[("mct-client", "c" * 4000)]),
    "odd fields": lambda n: connect(n, fields=[("mct-client", "\x1b[2J"), ("mct-listener", "\n\r\0")]),
    "fields of control": lambda n: connect(n, fields=[("mct-client", "evil\x7f\xff"), ("mct-local", "%n%s")]),
    "bombs": lambda n: raw.headers(n, raw.literal("x", "y" * 4000, True) + b"\xbe" * 16000),
    "gets": lambda n: raw.headers(n, [(":method", "GET"), (":path", "/"), (":scheme", "x"), (":authority", "echo")]),
    "data and credit": lambda n: connect(n) + frame(raw.DATA, b"x" * 16000, 0, n) + raw.credit(n, 1000),
    "pings": lambda n: frame(raw.PING, b"12345678") * 10,
    "hellos": lambda n: raw.hello(raw.HUB, "{}"),
    "settings": lambda n: raw.settings(window=n, frame=16384 + n),
}


class Flood:
    """As much as the agent takes, with at most two bursts unread: flooded it shall be, but one turn of its loop must not last for seconds on a busy machine."""

    def __init__(self, e, made, seconds):
        self.e, self.seen, self.times = e, b"", 0
        mark, deadline = b"", time.monotonic() + seconds
        e.s.setblocking(False)
        while time.monotonic() < deadline and not e.closed:
            before, mark = mark, os.urandom(8)
            self.burst(self.some(made) + frame(raw.PING, mark), before)

    def some(self, made):
        data = b""
        while len(data) < 32 << 10:
            data += b"".join(made(1 + 2 * (self.times + i)) for i in range(50))
            self.times += 50
        return data

    def burst(self, data, mark):
        """Sends it, and reads until a PING of before has come back: by then the agent has read what was before that."""
        rest, deadline = memoryview(data), time.monotonic() + 5
        while (rest or mark not in self.seen) and not self.e.closed and time.monotonic() < deadline:
            try:
                rest = rest[self.e.s.send(rest[:1 << 14]):] if rest else rest
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except OSError:
                self.e.closed = True
            self.read(rest)
        self.seen = self.seen[self.seen.find(mark) + len(mark):]

    def read(self, rest):
        try:
            piece = self.e.s.recv(1 << 16)
            self.e.closed |= not piece
            self.seen += piece
        except ssl.SSLWantReadError:
            select.select([self.e.s], [self.e.s] if rest else [], [], 0.1)
        except OSError:
            self.e.closed = True


def test_hostile_hub(run):
    server = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, hub={"heartbeat": {"interval": "1s", "timeout": "3s"}}).start().wait_ready()
    evil = raw.Hub(run, hub.authority)
    agent = scene.Agent(run, hub.authority, [hub.address, evil.address], [scene.service("echo", server.address, maxconn=200)], links=1,
                        timeouts={"resume": "5s"}, environment=raw.FRUGAL).start()
    hub.wait_links(1)
    chat = tcp.Chatter(hub.listen["echo"])
    pid = agent.worker()
    before = proc.resident(pid)[0]
    for name, made in ATTACKS.items():
        e = evil.welcome()
        flood = Flood(e, made, 0.5)
        e.close()
        say("%s: %d times, then %s" % (name, flood.times, "closed" if e.closed else "open"))
        check(agent.running(), name)
        if chat.thread.error:
            raise harness.Failed("%s: %s" % (name, chat.thread.error))
    chat.go_on()
    equal(agent.worker(), pid, "the agent's worker")
    evil.listener.close()
    agent.wait_metric("mctunnel_sessions", 1)
    grown = proc.resident(pid)[0] - before
    say("the agent has grown by %.1f MB" % (grown / 1e6))
    check(grown < 200 << 20, "it has grown too much")
    with open(agent.log_path, "rb") as f:
        check(all(32 <= b or b == 10 for b in f.read()), "raw control characters in the log")
    harness.wait_until(lambda: proc.cpu_of(pid) < 0.3, "the agent to be idle after the attack")
    tcp.ask(hub.listen["echo"])
    say("echo beside: " + harness.spread(chat.stop()))


if __name__ == "__main__":
    harness.main(globals())
