#!/usr/bin/env python3
"""Memory is refused: by a limit of the address space, and one allocation at a time. The hub sheds or the master restarts the worker; service goes on."""
import os
import resource
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import hello
import pki
import scene
import shortage
import tcp
from harness import check, equal, say

ROUNDS = 8


# ---- the address space ----

def address_space(pid):
    with open("/proc/%d/statm" % pid) as f:
        return int(f.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def crowd(address, n):
    """Clients who say much and read nothing."""
    held = []
    for _ in range(n):
        try:
            s = tcp.open_socket(address)
            s.setblocking(False)
            held.append(s)
            while s.send(b"x" * 65536):
                pass
        except (BlockingIOError, ConnectionError):
            pass
    return held


def families(hub):
    """Of a page that is whole, but for those of agents: a link may have ended for want of memory."""
    status, page = hub.get("/metrics")
    of_agents = {line.split("{")[0] for line in page.splitlines() if 'agent="' in line}
    return {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")} - of_agents if status == 200 else set()


def tries(ask):
    """How often it was asked until it answered: what is left for answers others may have for a moment."""
    for n in range(1, 4):
        if ask():
            return n
    raise harness.Failed("no answer in three tries")


def test_address_space(run):
    sock = run.path("admin.sock")
    echo = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": echo.target}, settings={"memory": "64m"}, program=scene.release_binary())
    p.hub.stop()
    config = dict(p.hub.config)
    config["global"] = dict(config["global"], admin=({"bind": "unix:" + sock},))
    p.hub.configure(config)
    p.hub.start().wait_ready()
    p.hub.wait_links(2)
    for _ in range(5):
        tcp.ask(p.listen["echo"])
    check("Name: mctunnel" in ctl.ask(sock, "show info"), "admin socket before")
    known = families(p.hub)
    check(len(known) > 20, "metrics before:", known)
    worker = p.hub.worker()
    resource.prlimit(worker, resource.RLIMIT_AS, (address_space(worker) + (2 << 20), resource.RLIM_INFINITY))
    held, metrics, admin = [], 0, 0
    for _ in range(ROUNDS):
        held += crowd(p.listen["echo"], 40)
        equal(p.hub.worker(), worker, "the worker")
        metrics += tries(lambda: families(p.hub) >= known)
        admin += tries(lambda: "Name: mctunnel" in shortage.try_admin(sock, "show info"))
    reasons = sorted({r["reason"] for r in p.hub.log("session")})
    say("%d clients, 2 MiB left: for %d answers /metrics was asked %d times, the admin socket %d times; sessions ended with %s" %
        (len(held), ROUNDS, metrics, admin, reasons))
    resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for s in held:
        s.close()
    shortage.recovers(p)
    equal(p.hub.worker(), worker, "the worker")
    p.hub.nothing_left()
    check("Name: mctunnel" in ctl.ask(sock, "show info"), "the admin socket afterwards")
    check("out of memory" not in p.hub.errors(), p.hub.errors())


# ---- one allocation ----

def ask_by_tls(address, timeout):
    with hello.connect(address, "echo.test", timeout) as s:
        hello.echo(s)
        hello.close(s)


def test_each_allocation_of_the_hub(run):
    shortage.each_allocation(run, lambda p: p.hub)


def test_each_allocation_of_the_hub_where_tls_ends(run):
    cert, key = pki.Pki(run.path("sites")).make("echo", "echo", ("echo.test",))
    shortage.each_allocation(run, lambda p: p.hub, {"route": "site-a/echo", "tls": {"cert": cert, "key": key}}, ask_by_tls)


def test_each_allocation_of_the_agent(run):
    shortage.each_allocation(run, lambda p: p.agent)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
