#!/usr/bin/env python3
"""Links break, sessions do not: every link is cut or frozen again and again, and not one session is lost, not one byte."""
import os
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

CUTS = 10
RESUMED = "mctunnel_sessions_resumed_total"


class Sender:
    """Handler: sends n bytes, takes whatever comes, at once."""

    def __init__(self, n):
        self.n = n

    def __call__(self, s):
        return tcp.exchange(s, self.n, 1)


class Progress:
    """Counts bytes of both directions, and lets one wait for a mark."""

    def __init__(self):
        self.n, self.changed = 0, threading.Condition()

    def __call__(self, n):
        with self.changed:
            self.n = n
            self.changed.notify_all()

    def wait(self, mark):
        with self.changed:
            if not self.changed.wait_for(lambda: self.n >= mark, harness.PATIENCE):
                raise harness.Failed("the transfer hangs at %d bytes" % self.n)


def start(run, n, links=2, **options):
    sender = Sender(n)
    server, echo = tcp.Server(run, sender), tcp.Server(run, tcp.echo)
    between = []

    def via(upstream):
        between.append(relay.Relay(run, upstream))
        return between[0].address

    p = scene.pair(run, {"bulk": server.target, "echo": echo.target}, via=via, links=links, **options)
    p.server, p.relay, p.sender = server, between[0], sender
    return p


def transfer_under(p, up, down, harm):
    """A transfer and a line-echo session while harm(i) is done CUTS times, spread over the transfer; each time a session has come back from the last."""
    progress = Progress()
    chatter = tcp.Chatter(p.listen["echo"])
    began, resumed = time.monotonic(), -1
    with tcp.open_socket(p.listen["bulk"], 60) as s:
        job = harness.Background(tcp.exchange, s, up, 2, progress)
        for i in range(CUTS):
            progress.wait((i + 1) * down // (CUTS + 2))
            p.hub.wait_metric(RESUMED, lambda n: n > resumed)
            resumed = p.hub.metric(RESUMED)
            harm(i)
        sent, received = job.finish(110, "transfer")
    theirs, ours = p.server.result()
    equal(ours, sent, "up")
    equal(received, theirs, "down")
    took = time.monotonic() - began
    chatter.go_on(5)
    times = chatter.stop()
    say("%d + %d MiB in %.1f s; echo of lines: %s" % (up >> 20, down >> 20, took, harness.spread(times)))
    p.hub.nothing_left()
    p.agent.nothing_left()
    equal(p.hub.metric("mctunnel_sessions_lost_total"), 0, "sessions lost")
    resumed = p.hub.metric(RESUMED)
    check(resumed >= CUTS, "only %d resumptions" % resumed)
    ends = [r["reason"] for r in p.hub.wait_log("session", count=2)]
    equal(set(ends), {"done"}, "reasons of the ends")
    say("%d resumptions, %d links up again" % (resumed, p.hub.metric("mctunnel_links")))


def test_every_link_cut_ten_times(run):
    p = start(run, 250 << 20)

    def harm(i):
        p.hub.wait_metric("mctunnel_links", lambda n: n >= 1)
        check(p.relay.cut("rst" if i % 2 else "fin") >= 1, "nothing to cut")

    transfer_under(p, 250 << 20, 250 << 20, harm)


def test_links_frozen(run):
    """Silence: the links are found dead by their heartbeat."""
    p = start(run, 60 << 20, hub={"heartbeat": scene.QUICK})

    def harm(i):
        p.hub.wait_links(2)
        dead = len(p.hub.log("link_down", reason="link_dead"))
        frozen = p.relay.freeze()
        p.hub.wait_log("link_down", count=dead + 1, reason="link_dead")
        check(frozen >= 2, "nothing to freeze")

    transfer_under(p, 60 << 20, 60 << 20, harm)
    check(p.agent.log("link_down", reason="link_dead"), "the agent found none dead")


def test_pieces_and_delay(run):
    """Segments in random pieces, late: and cut."""
    p = start(run, 4 << 20, links=3)
    p.relay.order("split 3000")
    p.relay.order("delay 5")
    transfer_under(p, 4 << 20, 4 << 20, lambda i: p.hub.wait_metric("mctunnel_links", lambda n: n >= 1) or p.relay.cut())


def test_many_sessions_survive(run):
    """200 sessions at once, cut five times."""
    crowd = tcp.Crowd(run)
    between = []

    def via(upstream):
        between.append(relay.Relay(run, upstream))
        return between[0].address

    p = scene.pair(run, {"echo": crowd.target}, via=via)
    job = harness.Background(tcp.crowd, p.listen["echo"], 200, 1 << 20)
    for i in range(5):
        mark = p.hub.metric("mctunnel_bytes_up_total") + (10 << 20)
        p.hub.wait_metric("mctunnel_bytes_up_total", lambda n: n >= mark or not job.is_alive())
        p.hub.wait_metric("mctunnel_links", lambda n: n >= 1)
        between[0].cut()
    say(harness.spread(job.finish(100)))
    p.hub.nothing_left()
    p.agent.nothing_left()
    equal(p.hub.metric("mctunnel_sessions_lost_total"), 0, "sessions lost")


def test_half_closed_session_survives(run):
    """The client has ended its direction when the link is cut; the answer comes after."""
    go = threading.Event()

    def late(s):
        got = tcp.recv_stream(s)
        go.wait(harness.PATIENCE)
        return got, tcp.send_stream(s, 1 << 20, 3)

    p = start(run, 0)
    p.server.handler = late
    with tcp.open_socket(p.listen["bulk"]) as s:
        sent = tcp.send_stream(s, 1000, 1)
        s.shutdown(socket.SHUT_WR)
        p.hub.wait_metric("mctunnel_sessions", 1)
        check(p.relay.cut() >= 2, "nothing to cut")
        go.set()
        received = tcp.recv_stream(s)
    got, answer = p.server.result()
    equal(got, sent)
    equal(received, answer)
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_end_of_session_while_links_are_cut(run):
    """Short sessions, one after another, and cuts in between: all bytes, always a clean end."""
    p = start(run, 0)
    p.server.handler = tcp.echo
    going, count = [True], 0

    def cutter():
        while going[0]:
            time.sleep(0.15)
            p.relay.cut()

    job = harness.Background(cutter)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        tcp.ask(p.listen["bulk"], b"x" * 30000)
        count += 1
    going[0] = False
    job.finish()
    say("%d sessions, one after another" % count)
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_no_link_comes_back(run):
    """Parked sessions end after timeouts.resume, with a reset at both ends."""
    echo = tcp.Server(run, lambda s: tcp.recv_stream(s))
    between = []

    def via(upstream):
        between.append(relay.Relay(run, upstream))
        return between[0].address

    p = scene.pair(run, {"x": echo.target}, via=via, timeouts={"resume": "1s"}, agent_timeouts={"resume": "1s"})
    s = tcp.open_socket(p.listen["x"])
    s.sendall(b"hello")
    harness.wait_until(lambda: echo.accepted, "the target's connection")
    between[0].order("pause")
    began = time.monotonic()
    between[0].cut()
    tcp.expect_reset(s, "client")
    say("reset after %.1f s" % (time.monotonic() - began))
    check(isinstance(echo.result(), ConnectionResetError), "the target saw no reset")
    p.hub.wait_log("session", reason="resume_timeout")
    p.hub.nothing_left()
    p.agent.nothing_left()
    between[0].order("resume")
    p.hub.wait_links(2)


if __name__ == "__main__":
    harness.main(globals())
