#!/usr/bin/env python3
"""What an idle session costs: resident memory a session on hub and agent. Measured with the release build when there is one."""
import os
import resource
import socket
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

SESSIONS = 10000
AIM = 2048


def possible():
    """Sessions that the limit of open files allows; both ends of the test live in processes of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(SESSIONS, hard - 500)


def crowd_process(run, program, *arguments):
    """A part of this file in another process; a line it says means ready."""
    p = proc.start(run, [sys.executable, os.path.abspath(__file__), "--" + program, *map(str, arguments)], stdin=subprocess.PIPE,
                   stdout=subprocess.PIPE, text=True)
    line = p.stdout.readline()
    check(line, program, "has died")
    return p, line.strip()


def holder(host, port, n):
    """Child: opens n sessions, one byte there and back on each, holds them until told."""
    held = []
    for i in range(int(n)):
        s = socket.create_connection((host, int(port)), 60)
        s.sendall(b"x")
        held.append(s)
        if len(held) % 100 == 0:
            for one in held[-100:]:
                if one.recv(1) != b"x":
                    sys.exit("end of file")
    print("holding", flush=True)
    sys.stdin.readline()


def responder(host):
    """Child: an echo server for very many."""
    server = tcp.Crowd(address=(host, 0))
    print(server.target, flush=True)
    sys.stdin.readline()


def test_idle_sessions(run):
    n = possible() // 100 * 100
    _, target = crowd_process(run, "responder", run.host)
    program = scene.release_binary()
    p = scene.pair(run, {"echo": target}, program=program, settings={"maxconn": 20000}, timeouts={"idle": "1h"})
    workers = [(x.name, x.worker()) for x in (p.hub, p.agent)]
    tcp.crowd(p.listen["echo"], 200, 1000)  # what is allocated once, is
    p.hub.nothing_left()
    before = [proc.resident(pid) for _, pid in workers]
    child, _ = crowd_process(run, "holder", *p.listen["echo"], n)
    p.hub.wait_metric("mctunnel_sessions", n)
    p.agent.wait_metric("mctunnel_sessions", n)
    say("%d idle sessions, %s" % (n, os.path.relpath(program, harness.TOP)))
    over = []
    for (name, pid), (own, _) in zip(workers, before):
        grown = (proc.resident(pid)[0] - own) / n
        say("%s: %.0f bytes a session (aim: %d)" % (name, grown, AIM))
        over += [name] if grown > AIM else []
    cpu = [proc.cpu_seconds(pid) for _, pid in workers]
    time.sleep(3)
    for (name, pid), c in zip(workers, cpu):
        say("%s: %.2f %% of a CPU when all are idle" % (name, (proc.cpu_seconds(pid) - c) / 3 * 100))
    child.stdin.write("done\n")
    child.stdin.flush()
    p.hub.nothing_left()
    p.agent.nothing_left()
    check("asan" in program or not over, "more than the aim:", over)


if __name__ == "__main__":
    if sys.argv[1:2] in (["--holder"], ["--responder"]):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        {"--holder": holder, "--responder": responder}[sys.argv[1]](*sys.argv[2:])
        sys.exit(0)
    harness.main(globals())
