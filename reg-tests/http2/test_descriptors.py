#!/usr/bin/env python3
"""Streams of HTTP/2 cost descriptors: however many of them wait for targets that do not answer, other clients are served."""
import os
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import raw
import scene
import tcp

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]


def test_many_streams_leave_some_to_others(run):
    over = threading.Event()
    run.undo.callback(over.set)
    silent = tcp.Server(run, lambda s: over.wait(60) and None)
    hub = scene.Hub(run, {"web": {"mode": "http", "route": "site-a/silent"}, "echo": "site-a/echo"}, settings={"maxconn": 100}, launcher=["prlimit", "--nofile=600:600"])
    hub.start().wait_ready()
    services = [scene.service("silent", silent.target), scene.service("echo", tcp.Server(run, tcp.echo).target)]
    scene.Agent(run, hub.authority, [hub.address], services).start()
    hub.wait_links(2)
    clients = [tcp.open_socket(hub.listen["web"]) for _ in range(8)]
    for s in clients:
        s.sendall(PREFACE + raw.settings() + b"".join(raw.headers(1 + 2 * i, FIELDS, fin=True) for i in range(100)))
    hub.wait_metric("mctunnel_sessions", 150)
    tcp.ask(hub.listen["echo"])
    for s in clients:
        s.close()
    hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
