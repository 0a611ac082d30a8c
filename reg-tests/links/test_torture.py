#!/usr/bin/env python3
"""Everything that crosses threads, at once: links are cut at random, one or all, while short and long sessions run; one agent is
often full and another one's target is away, so that sessions are opened anew elsewhere; another agent comes and goes. Not one
session may be lost, not one byte, and in the end nothing is left. TORTURE_SEED repeats a run's decisions, TORTURE_SECONDS makes it longer, MCTUNNEL another program
(the one built with FLAVOUR=tsan, say)."""
import contextlib
import os
import random
import signal
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

SECONDS = float(os.environ.get("TORTURE_SECONDS", "20"))
KINDS = ("session", "pump", "chunk", "morsel", "message")


class Torture:
    def __init__(self, run, seed):
        self.run, self.seed = run, seed
        self.until = time.monotonic() + SECONDS
        self.short = self.resets = self.cuts = self.long = 0
        self.lock = threading.Lock()

    def going(self):
        return time.monotonic() < self.until

    def random(self, salt):
        return random.Random("%d %s" % (self.seed, salt))

    def add(self, name, n=1):
        with self.lock:
            setattr(self, name, getattr(self, name) + n)

    # What clients do.

    def short_sessions(self, address, number):
        r = self.random("short %d" % number)
        while self.going():
            n = r.choice((1, 100, 5000, 40000, r.randrange(400000)))
            with tcp.open_socket(address, 60) as s:
                sent, received = tcp.exchange(s, n, r.randrange(1000))
            equal(received, sent, "echo of a short session")
            self.add("short")

    def broken_sessions(self, address):
        """Clients that give up at any moment."""
        r = self.random("broken")
        while self.going():
            s = tcp.open_socket(address, 60)
            with contextlib.suppress(OSError):
                s.sendall(os.urandom(r.randrange(1, 100000)))
                if r.random() < 0.5:
                    s.recv(1000)
            time.sleep(r.random() / 20)
            tcp.reset(s)
            self.add("resets")

    def long_session(self, address, number):
        """Both directions, all the time, in bursts and with pauses; then the end of one side, and of the other."""
        r = self.random("long %d" % number)
        with tcp.open_socket(address, 60) as s:
            while self.going():
                data = r.randbytes(r.choice((1, 1000, 30000, 1 << 20)))
                sender = harness.Background(s.sendall, data)
                equal(tcp.recv_exactly(s, len(data)) == data, True, "echo of a long session")
                sender.finish()
                self.add("long", len(data))
                time.sleep(r.choice((0, 0, 0.001, 0.1)))
            s.shutdown(socket.SHUT_WR)
            tcp.expect_eof(s, "a long session")

    # What is done to them.

    def cut(self, between, number):
        r = self.random("cut %d" % number)
        while self.going():
            time.sleep(r.uniform(0.05, 0.3))
            self.add("cuts", between.order(r.choice(("cut one", "cut one", "cut rst", "cut fin"))))


def an_agent(t, hub, number, hubs, rows, links=3):
    return scene.Agent(t.run, hub.authority, hubs, rows, name="edge-%d" % number, links=links, timeouts={"resume": "8s"}, settings={"hard_stop_after": "20s"}).start()


def come_and_go(t, hub):
    """Only here, in the main thread, processes are started. This one has links, and a service nobody asks for."""
    r, n = t.random("guest"), 0
    while t.going():
        guest = an_agent(t, hub, 4, [hub.address], [scene.service("other", (t.run.host, t.run.port()))], links=4)
        hub.wait_log("link_up", count=4 * (n + 1), agent="edge-4")
        time.sleep(r.uniform(0.1, 1))
        guest.send(r.choice((signal.SIGUSR1, signal.SIGTERM)))
        guest.ended(0)
        n += 1
    return n


def nobody_left(program):
    program.nothing_left()
    for kind in KINDS:
        program.wait_metric('mctunnel_memory_objects{kind="%s"}' % kind, 0)
    program.wait_metric("mctunnel_sessions_parked", 0)


GOOD = ("done", "client_reset")


def tell_ends(hub, agents):
    """How sessions ended; of those that ended badly all that is known."""
    bad = [record for record in hub.log("session") if record["reason"] not in GOOD]
    for record in bad[:10]:
        for program in [hub] + agents:
            for same in program.log("session", id=record["id"]) if record.get("id") else ():
                say(program.name, same)
    say("%d sessions ended badly:" % len(bad), sorted({record["reason"] for record in bad}))


def test_torture(run):
    seed = int(os.environ.get("TORTURE_SEED", str(random.SystemRandom().randrange(1 << 30))))
    say("TORTURE_SEED=%d" % seed)
    tunnels = [scene.tunnel(agents=["edge-1", "edge-2", "edge-3", "edge-4"], balance="leastconn")]
    hub = scene.Hub(run, {"echo": "site-a/echo", "bulk": "site-a/bulk"}, tunnels, timeouts={"queue": "20s", "resume": "8s"},
                    settings={"hard_stop_after": "20s"}).start().wait_ready()
    echo = tcp.Server(run, tcp.echo).target
    relays = [relay.Relay(run, hub.address) for _ in range(2)]
    t = Torture(run, seed)
    bulk = scene.service("bulk", echo)
    agents = [an_agent(t, hub, 1, [relays[0].address], [scene.service("echo", echo, maxconn=2), bulk]),
              an_agent(t, hub, 2, [relays[1].address, hub.address], [scene.service("echo", echo), bulk]),
              an_agent(t, hub, 3, [hub.address], [scene.service("echo", (run.host, run.port()))], links=2)]
    hub.wait_links(11)  # those past the relay last: who is refused elsewhere always finds somebody
    t.until = time.monotonic() + SECONDS
    jobs = [harness.Background(t.short_sessions, hub.listen["echo"], i) for i in range(6)]
    jobs += [harness.Background(t.long_session, hub.listen["bulk"], i) for i in range(6)]
    jobs += [harness.Background(t.broken_sessions, hub.listen["echo"])]
    jobs += [harness.Background(t.cut, r, i) for i, r in enumerate(relays)]
    guests = come_and_go(t, hub)
    try:
        for job in jobs:
            job.finish(60)
    finally:
        tell_ends(hub, agents)
    say("%d short sessions, %d broken off, %d MiB in long ones, %d links cut, %d guests" % (t.short, t.resets, t.long >> 20, t.cuts, guests))
    for program in [hub] + agents:
        nobody_left(program)
    equal(hub.metric("mctunnel_sessions_lost_total"), 0, "sessions lost")
    ends = {record["reason"] for record in hub.log("session")}
    check(ends <= set(GOOD), "sessions ended by", ends)
    say("%d resumptions" % hub.metric("mctunnel_sessions_resumed_total"))


def test_openings_while_links_are_cut(run):
    """One agent, whose links are often all away: clients wait for them, also those whose request went down with a link."""
    seed = int(os.environ.get("TORTURE_SEED", str(random.SystemRandom().randrange(1 << 30))))
    say("TORTURE_SEED=%d" % seed)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, timeouts={"queue": "20s", "resume": "8s"}).start().wait_ready()
    between = relay.Relay(run, hub.address)
    t = Torture(run, seed)
    agent = an_agent(t, hub, 1, [between.address], [scene.service("echo", tcp.Server(run, tcp.echo).target)])
    hub.wait_links(3)
    t.until = time.monotonic() + SECONDS / 3
    jobs = [harness.Background(t.short_sessions, hub.listen["echo"], i) for i in range(8)] + [harness.Background(t.cut, between, 0)]
    try:
        for job in jobs:
            job.finish(60)
    finally:
        tell_ends(hub, [agent])
    nobody_left(hub)
    nobody_left(agent)
    say("%d sessions, %d links cut" % (t.short, t.cuts))


if __name__ == "__main__":
    harness.main(globals(), threads=(4,))
