#!/usr/bin/env python3
"""Links of an agent lie on different threads of the hub, and clients use them evenly, whichever thread has accepted them."""
import contextlib
import json
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say

CLIENTS = 40


def ask_json(path, command):
    with tcp.open_socket(path) as s:
        s.sendall(command.encode() + b" json\n")
        answer = b""
        while data := s.recv(1 << 16):
            answer += data
    return json.loads(answer)


def test_links_and_sessions_are_spread(run):
    threads = run.threads
    path = run.path("admin.sock")
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, links=threads)
    p.hub.stop()
    p.hub.config["global"]["admin"] = ({"bind": "unix:" + path, "mode": "0600", "level": "admin"},)
    with open(p.hub.config_path, "w") as f:
        f.write(scene.libconfig(p.hub.config))
    p.hub.start().wait_links(threads)
    with contextlib.ExitStack() as keep:
        for _ in range(CLIENTS):
            c = keep.enter_context(tcp.open_socket(p.listen["echo"]))
            c.sendall(b"x")
            equal(c.recv(1), b"x")
        links = ask_json(path, "show links")
        carried = sorted(int(row["sessions"]) for row in links)
        say("sessions a link:", carried)
        equal(sorted(row["thread"] for row in links), list(range(threads)), "threads of the links")
        equal(sum(carried), CLIENTS, "sessions")
        check(carried[0] * 3 >= CLIENTS // threads, "one link carries next to nothing")


if __name__ == "__main__":
    harness.main(globals())
