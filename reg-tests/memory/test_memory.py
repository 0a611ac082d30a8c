#!/usr/bin/env python3
"""What an idle session and an idle link cost: resident memory of hub and agent. Measured with the release build when there is one."""
import os
import resource
import socket
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import relay
import scene
import tcp
from harness import check, equal, say

SESSIONS = 10000
LINKS = 1000
SESSION_AIM, LINK_AIM = 2 << 10, 40 << 10  # bytes; told, and a failure at half as much again


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
    equal(p.hub.metric("mctunnel_sessions_parked"), 0, "parked")
    say("%d idle sessions, %s" % (n, os.path.relpath(program, harness.TOP)))
    over = []
    for (name, pid), (own, _) in zip(workers, before):
        grown = (proc.resident(pid)[0] - own) / n
        say("%s: %.0f bytes a session (aim: %d)" % (name, grown, SESSION_AIM))
        over += [name] if grown > 1.5 * SESSION_AIM else []
    cpu = [proc.cpu_seconds(pid) for _, pid in workers]
    time.sleep(3)
    for (name, pid), c in zip(workers, cpu):
        say("%s: %.2f %% of a CPU when all are idle" % (name, (proc.cpu_seconds(pid) - c) / 3 * 100))
    child.stdin.write("done\n")
    child.stdin.flush()
    p.hub.nothing_left()
    p.agent.nothing_left()
    check("asan" in program or not over, "far more than the aim:", over)


def test_links_of_many_agents(run):
    """Each from an agent of its own; the agents' side is one process with the real engine."""
    names = ["agent-%d" % i for i in range(1, LINKS + 1)]
    program = scene.release_binary()
    hub = scene.Hub(run, {"echo": "site-a/echo-1"}, [scene.tunnel(agents=names)], program=program).start().wait_ready()
    pid = hub.worker()
    before = proc.resident(pid)[0]
    began = time.monotonic()
    agents = proc.start(run, [relay.tool("agents"), "--hub", "%s:%d" % hub.address, "--server-name", "hub.test", "--pki", hub.authority.dir,
                              "--count", str(LINKS), "--tunnel", "site-a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    say("agents:", agents.stdout.readline().strip())
    hub.wait_links(LINKS, 60)
    say("%d links up after %.1f s" % (LINKS, time.monotonic() - began))
    grown = (proc.resident(pid)[0] - before) / LINKS
    say("hub: %.1f KiB a link (aim: %d), %s" % (grown / 1024, LINK_AIM >> 10, os.path.relpath(program, harness.TOP)))
    tcp.ask(hub.listen["echo"])
    cpu = proc.cpu_seconds(pid)
    time.sleep(3)
    say("hub: %.2f %% of a CPU for idle links (a heartbeat a second)" % ((proc.cpu_seconds(pid) - cpu) / 3 * 100))
    agents.stdin.close()
    hub.wait_links(0)
    check("asan" in program or grown <= 1.5 * LINK_AIM, "far more than the aim")


if __name__ == "__main__":
    if sys.argv[1:2] in (["--holder"], ["--responder"]):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        {"--holder": holder, "--responder": responder}[sys.argv[1]](*sys.argv[2:])
        sys.exit(0)
    harness.main(globals())
