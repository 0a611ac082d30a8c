#!/usr/bin/env python3
"""What agents have said to their hub is recorded and said again, whole, in pieces, on many connections: no link comes of it."""
import os
import socket
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


class Recorder:
    """Between agents and the hub: passes bytes on, keeps those to the hub, one entry a connection."""

    def __init__(self, run, hub):
        self.hub, self.taken, self.live = hub, [], []
        self.server = tcp.Server(run, self.serve)
        self.address = self.server.address

    def serve(self, agent):
        record = bytearray()
        self.taken.append(record)
        with tcp.open_socket(self.hub) as hub:
            self.live.append(hub)
            threading.Thread(target=self.pump, args=(hub, agent, bytearray()), daemon=True).start()
            self.pump(agent, hub, record)

    def pump(self, source, sink, record):
        try:
            while True:
                some = source.recv(65536)
                record += some
                if not some:
                    break
                sink.sendall(some)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def break_one(self):
        self.live[0].shutdown(socket.SHUT_RDWR)


def records(stream):
    """The TLS records of it."""
    at, found = 0, []
    while at + 5 <= len(stream):
        n = 5 + int.from_bytes(stream[at + 3:at + 5], "big")
        found.append(bytes(stream[at:at + n]))
        at += n
    return found


def play(address, pieces):
    """Says them one by one, hears what comes in between (the first time in any case: after a reset nothing could be said any more); until the hub has closed."""
    heard = 0
    with tcp.open_socket(address) as s:
        try:
            for piece in pieces:
                s.sendall(piece)
                s.settimeout(0.2 if heard else harness.PATIENCE)
                try:
                    heard += len(s.recv(65536))
                except socket.timeout:
                    pass
            s.settimeout(harness.PATIENCE)
            while True:
                more = s.recv(65536)
                heard += len(more)
                if not more:
                    return heard
        except socket.timeout:
            raise harness.Failed("the hub keeps the connection") from None
        except OSError:
            return heard


def test_recorded_links(run):
    recorder = []

    def via(hub):
        recorder.append(Recorder(run, hub))
        return recorder[0].address
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, via=via)
    r = recorder[0]
    for _ in range(5):
        tcp.ask(p.listen["echo"])
    r.break_one()  # what comes next is resumed
    harness.wait_until(lambda: len(r.taken) >= 3, "a link that comes back")
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    check(any(x["resumed"] == "yes" for x in p.hub.wait_log("link_up", 3)), "no link was resumed")
    p.agent.stop()
    p.hub.wait_links(0)
    up = len(p.hub.log("link_up"))
    taken = [bytes(t) for t in r.taken if len(records(t)) > 3][:4]
    check(len(taken) >= 3, "recorded:", [len(t) for t in r.taken])
    for stream in taken:
        check(play(p.hub.address, records(stream)) > 0, "the hub has not even begun to answer")
        play(p.hub.address, [stream])
    refused = p.hub.wait_log("link_refused", len(taken))
    say("%d connections recorded and played twice; refused with: %s" % (len(taken), sorted({x.get("reason", "-") for x in refused})))
    equal((p.hub.metric("mctunnel_links"), len(p.hub.log("link_up"))), (0, up), "links, and those that came up")


if __name__ == "__main__":
    harness.main(globals())
