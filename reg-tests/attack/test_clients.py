#!/usr/bin/env python3
"""Clients of a listener: resets at every moment, urgent data, very many that end one direction only."""
import os
import random
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import say


def rude(address, rnd):
    s = tcp.open_socket(address)
    what = rnd.randrange(6)
    try:
        if what > 0:
            s.sendall(os.urandom(rnd.choice((1, 1000, 100000))))
        if what == 2:
            s.send(b"!", socket.MSG_OOB)
        if what == 3:
            s.recv(1)
        if what == 4:
            s.shutdown(socket.SHUT_WR)
        time.sleep(rnd.choice((0, 0, 0.001, 0.005)))
    except OSError:
        pass
    tcp.reset(s) if rnd.randrange(3) else s.close()


def test_rude_clients(run):
    crowd = tcp.Crowd(run)
    p = scene.pair(run, {"echo": crowd.target}, timeouts={"half_closed": "2s"})
    chat = tcp.Chatter(p.listen["echo"])
    rnd, n, deadline = random.Random(1), 0, time.monotonic() + 4
    while time.monotonic() < deadline:
        rude(p.listen["echo"], rnd)
        n += 1
    say("%d rude clients" % n)
    half = [tcp.open_socket(p.listen["echo"]) for _ in range(1500)]
    for s in half[::2]:
        s.shutdown(socket.SHUT_WR)
    for s in half[1::2]:
        s.sendall(b"x")
    chat.go_on()
    for s in half:
        s.close()
    p.hub.wait_metric("mctunnel_sessions", 1)
    p.agent.wait_metric("mctunnel_sessions", 1)
    for program in (p.hub, p.agent):
        pid = program.worker()
        harness.wait_until(lambda: proc.cpu_of(pid) < 0.3, program.name + " to be idle after the attack")
    say("echo beside: " + harness.spread(chat.stop()))


if __name__ == "__main__":
    harness.main(globals())
