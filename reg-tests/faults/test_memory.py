#!/usr/bin/env python3
"""Memory is refused: by a limit of the address space, and one allocation at a time. The hub sheds or the master restarts the worker; service goes on."""
import ctypes
import os
import resource
import signal
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import hello
import pki
import scene
import tcp
from harness import check, equal, say

HERE = os.path.dirname(os.path.abspath(__file__))
ARM = signal.SIGRTMIN + 5
ROUNDS = 8
STABLE = 1.2  # a worker that was ready for so long has not failed to start
_libc = ctypes.CDLL(None, use_errno=True)


def try_admin(path, line):
    try:
        return ctl.ask(path, line)
    except OSError:
        return ""


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
        admin += tries(lambda: "Name: mctunnel" in try_admin(sock, "show info"))
    reasons = sorted({r["reason"] for r in p.hub.log("session")})
    say("%d clients, 2 MiB left: for %d answers /metrics was asked %d times, the admin socket %d times; sessions ended with %s" %
        (len(held), ROUNDS, metrics, admin, reasons))
    resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for s in held:
        s.close()
    recovers(p)
    equal(p.hub.worker(), worker, "the worker")
    p.hub.nothing_left()
    check("Name: mctunnel" in ctl.ask(sock, "show info"), "the admin socket afterwards")
    check("out of memory" not in p.hub.errors(), p.hub.errors())


# ---- one allocation ----

def ask_by_tls(address, timeout):
    with hello.connect(address, "echo.test", timeout) as s:
        hello.echo(s)
        hello.close(s)


def served(p):
    try:
        getattr(p, "ask", tcp.ask)(p.listen["echo"], timeout=3)
        return True
    except (OSError, harness.Failed):
        return False


def recovers(p):
    harness.wait_until(lambda: p.hub.must_run() and p.agent.must_run() and served(p), "service to go on", 20)


def shim(run):
    """Sanitizers have an allocator of their own."""
    path = run.path("failmalloc.so")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", path, os.path.join(HERE, "failmalloc.c")], check=True)
    return {"LD_PRELOAD": path}


def arm(pid, n, row=1):
    """False: there is no such process any more."""
    return _libc.sigqueue(pid, ARM, ctypes.c_void_p(n | row << 24)) == 0


class Victim:
    def __init__(self, program):
        self.program, self.deaths, self.fired = program, 0, 0
        self.pid, self.heard = program.worker(), 0

    def failures(self):
        return self.program.errors().count("failmalloc: failed")

    def one(self, p, n, row):
        """One session and one reconnection of a link with the Nth allocation failing."""
        before = self.failures()
        while not arm(self.pid, n, row):
            self.look(p)  # it died of the shot before, after all was well again
        served(p)
        ask_links_away(p)
        recovers(p)
        self.fired += self.failures() > before
        arm(self.pid, 0, 0)
        self.look(p)
        p.hub.wait_links(2, 20)

    def look(self, p):
        """Whether there is another worker: the one before must have said why it died."""
        pid = self.program.worker()
        if pid == self.pid:
            return
        text = self.program.errors()
        check("out of memory" in text[self.heard:], "a death without a message:", text[self.heard:])
        self.deaths += 1
        self.pid, self.heard = pid, len(text)
        p.hub.wait_ready()
        harness.stays(self.program.running, STABLE, "the program runs")


def ask_links_away(p):
    try:
        for row in ctl.ask(p.sock, "show links").splitlines():
            word = row.split()[:1]
            if word and word[0].isdigit():
                ctl.ask(p.sock, "shutdown link " + word[0])
                return
    except OSError:
        pass  # the worker has died, or had no memory for us


def each_allocation(run, victim, listener="site-a/echo", ask=tcp.ask, handler=tcp.echo):
    environment = shim(run)
    sock = run.path("admin.sock")
    settings = {"admin": ({"bind": "unix:" + sock},)}
    server = tcp.Server(run, handler)
    p = scene.Pair()
    options = {"program": scene.release_binary(), "environment": environment}
    p.sock, p.ask = sock, ask
    p.hub = scene.Hub(run, {"echo": listener}, settings=settings, **options).start().wait_ready()
    p.listen = p.hub.listen
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("echo", server.target)], **options).start()
    p.hub.wait_links(2)
    v = Victim(victim(p))
    numbers = [1, 2, 3, 5, 8, 12, 17, 23, 30, 40, 55, 75, 100, 140, 200, 300, 450, 700, 1000]
    for n in numbers:
        v.one(p, n, 1)
    for n in (1, 20, 90):
        v.one(p, n, 20)
    errors = v.program.errors()
    say("%d of %d shots hit; the worker died %d times, each time by die()" % (v.fired, len(numbers) + 3, v.deaths))
    check(v.fired >= 10, "too few hit:", v.fired)
    for word in ("died of", "BUG"):
        check(word not in errors, "says", word, errors[-4000:])


def test_each_allocation_of_the_hub(run):
    each_allocation(run, lambda p: p.hub)


def test_each_allocation_of_the_hub_where_tls_ends(run):
    cert, key = pki.Pki(run.path("sites")).make("echo", "echo", ("echo.test",))
    each_allocation(run, lambda p: p.hub, {"route": "site-a/echo", "tls": {"cert": cert, "key": key}}, ask_by_tls)


def test_each_allocation_of_the_agent(run):
    each_allocation(run, lambda p: p.agent)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
