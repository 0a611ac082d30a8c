"""Memory is refused to a program, by a library of allocations that fail when told to (faults/failmalloc.c): one allocation, or some in a row."""
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import time

import ctl
import harness
import scene
import tcp
from harness import check, say

ARM = signal.SIGRTMIN + 5
STABLE = 1.2  # a worker that was ready for so long has not failed to start
_libc = ctypes.CDLL(None, use_errno=True)


def chance():
    """Numbers that are others each time, unless SEED says which."""
    seed = int(os.environ.get("SEED") or time.time_ns() % 1000000007)
    say("SEED=%d" % seed)
    return random.Random(seed)


def try_admin(path, line):
    try:
        return ctl.ask(path, line)
    except OSError:
        return ""


def served(p):
    try:
        getattr(p, "ask", tcp.ask)(p.listen["echo"], timeout=3)
        return True
    except (OSError, harness.Failed):
        return False


def recovers(p, patience=20):
    harness.wait_until(lambda: p.hub.must_run() and p.agent.must_run() and served(p), "service to go on", patience)


def shim(run):
    """Sanitizers have an allocator of their own."""
    path = run.path("failmalloc.so")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", path, os.path.join(harness.TOP, "reg-tests", "faults", "failmalloc.c")], check=True)
    return {"LD_PRELOAD": path}


def arm(pid, n, row=1):
    """False: there is no such process any more."""
    return _libc.sigqueue(pid, ARM, ctypes.c_void_p(n | row << 24)) == 0


def pair(run, listeners, services, settings=None):
    """Hub and agent with two links and an admin socket (p.sock); memory can be refused to both."""
    options = {"program": scene.release_binary(), "environment": shim(run)}
    p = scene.Pair()
    p.sock = run.path("admin.sock")
    p.hub = scene.Hub(run, listeners, settings=dict(settings or {}, admin=({"bind": "unix:" + p.sock},)), **options).start().wait_ready()
    p.listen = p.hub.listen
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service(n, target) for n, target in services.items()], **options).start()
    p.hub.wait_links(2)
    return p


class Victim:
    """The worker of a program that was started with shim()."""

    def __init__(self, program):
        self.program, self.deaths, self.shots, self.fired = program, 0, 0, 0
        self.pid, self.heard = program.worker(), 0

    def failures(self):
        return self.program.errors().count("failmalloc: failed")

    def one(self, p, n, row):
        """One session and one reconnection of a link with the Nth allocation failing."""
        with self.refusing(p, n, row):
            served(p)
            ask_links_away(p)
            recovers(p)
        p.hub.wait_links(2, 20)

    @contextlib.contextmanager
    def refusing(self, p, n, row=1):
        """Within it the Nth allocation from now on fails, and those behind it, `row` in all, if it comes to them."""
        before = self.failures()
        while not arm(self.pid, n, row):
            self.look(p)  # it died of the shot before, after all was well again
        yield
        self.shots += 1
        self.fired += self.failures() > before
        arm(self.pid, 0, 0)
        self.look(p)

    def result(self, least, kills=0):
        """Says what became of the shots, of which more than `least` must have hit; all deaths were in order, but for so many by the test's own hand."""
        say("%d of %d shots hit; the worker died %d times, each time by die()" % (self.fired, self.shots, self.deaths))
        check(self.fired > least, "too few hit:", self.fired)
        errors = self.program.errors().replace("died of signal 9", "", kills)
        for word in ("died of", "BUG"):
            check(word not in errors, "says", word, errors[-4000:])

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
    """A link is closed by order. False: the worker has died, or had no memory for us."""
    try:
        for row in ctl.ask(p.sock, "show links").splitlines():
            word = row.split()[:1]
            if word and word[0].isdigit():
                ctl.ask(p.sock, "shutdown link " + word[0])
                break
        return True
    except OSError:
        return False


def each_allocation(run, victim, listener="site-a/echo", ask=tcp.ask, handler=tcp.echo):
    p = pair(run, {"echo": listener}, {"echo": tcp.Server(run, handler).target})
    p.ask = ask
    v = Victim(victim(p))
    numbers = [1, 2, 3, 5, 8, 12, 17, 23, 30, 40, 55, 75, 100, 140, 200, 300, 450, 700, 1000]
    for n in numbers:
        v.one(p, n, 1)
    for n in (1, 20, 90):
        v.one(p, n, 20)
    v.result(9)
