#!/usr/bin/env python3
"""One system call or allocation fails, each in its turn, from the start to the stop, with sanitizers looking on; and calls that come in pieces, interrupted, or later. Nobody crashes,
hangs or leaks; what serves goes on. A sample each time; `--part=3/16` (make faults): every 16th, beginning with the third."""
import contextlib
import itertools
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import shortage
import tcp
from harness import check, equal, say

HERE = os.path.dirname(os.path.abspath(__file__))
PART = next(([int(n) for n in a[7:].split("/")] for a in sys.argv if a.startswith("--part=")), None)
ALLOCATIONS, CALLS, PIECES, OPENSSL = 1, 2, 4, 8
SHOTS = 8  # of a sample
STARTS = 5
STABLE = 1.2  # a worker that was ready for so long has not failed to start
DEATHS = ("out of memory", "no memory", "cannot ")  # what die() says
ASAN = "exitcode=99:abort_on_error=0:detect_leaks=1:handle_abort=0:verify_asan_link_order=0"


class Shim:
    """Of one program: what its processes shall meet (struct state in failcall.c)."""
    LAYOUT = "=qqiiii"

    def __init__(self, run, name, what=0):
        self.path = run.path(name + ".state")
        with open(self.path, "wb") as f:
            f.write(b"\0" * mmap.PAGESIZE)
        with open(self.path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        library = run.path("failcall.so")
        if not os.path.exists(library):
            subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, os.path.join(HERE, "failcall.c")], check=True)
        self.environment = {"LD_PRELOAD": library, "FAIL_STATE": self.path, "ASAN_OPTIONS": ASAN}
        if what & OPENSSL:
            self.environment["FAIL_OPENSSL"] = "1"

    def arm(self, what, target=0, spared=0):
        struct.pack_into(self.LAYOUT, self.memory, 0, target, 0, spared, 0, 0, 0)
        struct.pack_into("=i", self.memory, 20, what)

    def off(self):
        struct.pack_into("=i", self.memory, 20, 0)

    def count(self):
        return struct.unpack_from(self.LAYOUT, self.memory)[1]

    def fired(self):
        return struct.unpack_from(self.LAYOUT, self.memory)[4]


def sample(total, n):
    """Numbers from 1 to total: those of our part, or n, in every nth of them one."""
    if PART:
        return list(range(PART[0], total + 1, PART[1]))
    if total <= n:
        return list(range(1, total + 1))
    return sorted(random.randint(1 + i * total // n, (i + 1) * total // n) for i in range(n))


def link_away(p):
    """A link is closed by order; it comes back, as a rule soon."""
    before = len(p.hub.log("link_up"))
    with contextlib.suppress(harness.Failed):  # the connection was lost, or a line of the log
        if shortage.ask_links_away(p):
            harness.wait_until(lambda: len(p.hub.log("link_up")) > before, "a link", 2)


def one_round(p, victim):
    """A session, a link that comes back, a reload."""
    shortage.served(p)
    link_away(p)
    victim.send(signal.SIGHUP)
    shortage.recovers(p, 30)
    p.hub.wait_links(2, 30)


REPORT = re.compile(r"^=+\n==\d+==ERROR: AddressSanitizer: SEGV.*?^==\d+==ABORTING\n|^(?:==\d+==)?AddressSanitizer: CHECK failed.*?\n\n|"
                    r"^=+\n==\d+==ERROR: LeakSanitizer: .*?^SUMMARY: [^\n]*\n", re.M | re.S)


def foreign(report):
    """OpenSSL does not always look whether it got memory, AddressSanitizer cannot do without: the death is their own then, and the next worker goes on. And OpenSSL loses what it
    had begun to make when there is no more memory: leaks that only its own functions have to do with are its own (reg-tests/unit/net looks for ours)."""
    report = re.sub(r"^    #\d+ .* in \w+_memory src/net/tls\.c:.*\n", "", report, flags=re.M)  # OpenSSL's allocations come by way of these
    if "CHECK failed" in report:
        return "pthread_getattr_np" in report
    if "LeakSanitizer" in report:
        return " src/" not in report
    frames = re.findall(r"^    #\d+ .*$", report, re.M)
    above = list(itertools.takewhile(lambda f: " src/" not in f, frames))
    return any("libcrypto" in f or "libssl" in f for f in above)


def terrible(program):
    text = REPORT.sub(lambda m: "foreign: cannot go on\n" if foreign(m[0]) else m[0], program.errors())
    return [w for w in ("Sanitizer", "runtime error", "BUG", "died of") if w in text]


def said_terrible(program):
    """A report of something foreign may be half written: whoever reads for a reload ends on its own."""
    with contextlib.suppress(harness.Failed):
        harness.wait_until(lambda: not terrible(program), "", 10)
    return terrible(program)


def forget_foreign(program):
    """Before the last look at what it has said."""
    with open(program.err_path, errors="replace") as f:
        text = f.read()
    kept = REPORT.sub(lambda m: "" if foreign(m[0]) else m[0], text)
    if kept != text:
        os.truncate(program.err_path, 0)
        with open(program.err_path, "a") as f:
            f.write(kept)


def descriptors(program):
    return len(os.listdir("/proc/%d/fd" % program.worker()))


def stop(program):
    """Its exit code is good, or spoilt by what is not its fault; it is not looked at again."""
    program.send(signal.SIGTERM)
    harness.wait_until(lambda: not program.running(), "%s to end" % program.name, 30)
    harness.wait_until(lambda: not proc.members(program.popen.pid), "the worker to be gone", 10)
    program.abandon()
    code, said = program.popen.returncode, program.errors()
    check(code in (0, 1) or any(foreign(m[0]) for m in REPORT.finditer(said)), "exit code", code, said[-4000:])


def spared(victim, what):
    """Without memory for a reload a master ends with a message, and nobody is there to go on in its place (test_crash.py:master_killed)."""
    return victim.master() if what & ALLOCATIONS else 0


class Deaths:
    """Of a program's workers. Each must have said why, since the one before: to end takes its time, and a round may be over before."""

    def __init__(self, program):
        self.program, self.pid, self.heard, self.n = program, program.worker(), 0, 0

    def look(self):
        """Whether there was another."""
        pid = self.program.worker()
        if pid == self.pid:
            return False
        text = self.program.errors()
        said = text[self.heard:]
        check(any(w in said for w in DEATHS) or REPORT.search(said), "a death without a message:", said)
        self.pid, self.heard, self.n = pid, len(text), self.n + 1
        return True


def shoot(p, victim, deaths, shim, what, n):
    """The Nth fails within a round. Whether it did."""
    shim.arm(what, n, spared(victim, what))
    one_round(p, victim)
    hit = shim.fired()
    shim.off()
    equal(said_terrible(victim), [], "%s after call %d; it says:\n%s" % (victim.name, n, victim.errors()[-4000:]))
    if deaths.look():
        p.hub.wait_ready()
        harness.stays(victim.running, STABLE, "the program runs")
        p.hub.wait_links(2, 30)
    return hit


def each(run, choose, what):
    server = tcp.Server(run, tcp.echo)
    p = scene.Pair()
    shims = {name: Shim(run, name, what) for name in ("hub", "edge-1")}
    p.sock = run.path("admin.sock")
    p.hub = scene.Hub(run, {"echo": "site-a/echo"}, settings={"admin": ({"bind": "unix:" + p.sock},)}, environment=shims["hub"].environment).start().wait_ready()
    p.listen = p.hub.listen
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("echo", server.target)], environment=shims["edge-1"].environment).start()
    p.hub.wait_links(2)
    victim = choose(p)
    shim = shims[victim.name]
    one_round(p, victim)
    shim.arm(what, 0, spared(victim, what))
    one_round(p, victim)
    total = shim.count()
    shim.off()
    check(total > 20, "counted only", total)
    before, hits, deaths, longest = descriptors(victim), 0, Deaths(victim), (0, 0)
    for n in sample(total, SHOTS):
        began = time.monotonic()
        hits += shoot(p, victim, deaths, shim, what, n)
        longest = max(longest, (time.monotonic() - began, n))
    forget_foreign(victim)
    say("%d in a round; %d hit, the worker was replaced %d times; the longest round: %.1f s, with %d" % (total, hits, deaths.n, *longest))
    check(hits >= 2, "too few hit:", hits)
    check(deaths.n == 0 or what != CALLS, "a call that fails once has cost a worker:", victim.errors()[-4000:])
    p.hub.nothing_left()
    harness.wait_until(lambda: descriptors(victim) <= before + 2, "descriptors to be about %d again" % before)
    if what & OPENSSL:
        stop(victim)
        equal(said_terrible(victim), [], "%s at its end; it says:\n%s" % (victim.name, victim.errors()[-4000:]))
        forget_foreign(victim)


def only_in_parts(what):
    if not PART:
        raise harness.Skipped("takes long: make faults")
    return what


def test_each_call_of_the_hub(run):
    each(run, lambda p: p.hub, CALLS)


def test_each_call_of_the_agent(run):
    each(run, lambda p: p.agent, CALLS)


def test_each_allocation_of_the_hub(run):
    each(run, lambda p: p.hub, ALLOCATIONS)


def test_each_allocation_of_the_agent(run):
    each(run, lambda p: p.agent, ALLOCATIONS)


def test_openssl_of_the_hub(run):
    """Its allocations as well: only in parts, there are thousands."""
    each(run, lambda p: p.hub, only_in_parts(ALLOCATIONS | OPENSSL))


def test_openssl_of_the_agent(run):
    each(run, lambda p: p.agent, only_in_parts(ALLOCATIONS | OPENSSL))


# ---- start and stop ----

def starts(hub):
    """Ready, or ended with a message."""
    harness.wait_until(lambda: not hub.running() or is_ready(hub), "the program to be ready or to end", 30)
    if hub.running():
        return True
    hub.abandon()
    said = hub.errors().replace("failcall: failed", "")
    if any(foreign(m[0]) for m in REPORT.finditer(said)):
        return False
    check(hub.popen.returncode == 1, "exit code", hub.popen.returncode, said[-4000:])
    check(any(w in said for w in DEATHS + ("[ALERT]", "alert")), "ended without a message:", said[-4000:])
    return False


def is_ready(hub):
    try:
        return hub.get("/readyz")[0] == 200
    except OSError:
        return False


def start_and_stop(run, hub, shim, what, n):
    shim.arm(what, n)
    hub.start()
    if starts(hub):
        stop(hub)
    total = shim.count()
    shim.off()
    equal(said_terrible(hub), [], "after call %d it says:\n%s" % (n, hub.errors()[-4000:]))
    forget_foreign(hub)
    return total


def each_of_a_start(run, what):
    shim = Shim(run, "hub", what)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings={"admin": ({"bind": "unix:" + run.path("admin.sock")},)}, environment=shim.environment)
    total = start_and_stop(run, hub, shim, what, 0)
    numbers = sample(total, STARTS)
    for n in numbers:
        start_and_stop(run, hub, shim, what, n)
    say("%d from start to stop; %d of them failed, one at a time" % (total, len(numbers)))


def test_each_call_of_a_start(run):
    each_of_a_start(run, CALLS)


def test_each_allocation_of_a_start(run):
    each_of_a_start(run, ALLOCATIONS)


def test_openssl_of_a_start(run):
    each_of_a_start(run, only_in_parts(ALLOCATIONS | OPENSSL))


# ---- pieces ----

def seconds_of(program):
    return sum(proc.cpu_seconds(pid) for pid in (program.master(), program.worker()))


def test_pieces(run):
    """Of five calls on a socket one is interrupted, one says EAGAIN, two move one byte."""
    server = tcp.Server(run, tcp.echo)
    shims = [Shim(run, name) for name in ("hub", "edge-1")]
    p = scene.Pair()
    p.hub = scene.Hub(run, {"echo": "site-a/echo"}, environment=shims[0].environment,
                      hub={"heartbeat": {"interval": "1s", "timeout": "10s"}}).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("echo", server.target)], environment=shims[1].environment).start()
    p.hub.wait_links(2)
    for s in shims:
        s.arm(PIECES)
    times = tcp.crowd(p.hub.listen["echo"], 10, 100000, 100)
    for s in shims:
        check(s.count() > 100, "calls harmed:", s.count())
    p.hub.nothing_left()
    before, began = seconds_of(p.hub) + seconds_of(p.agent), time.monotonic()
    time.sleep(2)
    busy = (seconds_of(p.hub) + seconds_of(p.agent) - before) / (time.monotonic() - began)
    say("%s; idle afterwards: %.1f %% of a core" % (harness.spread(times), 100 * busy))
    check(busy < 0.3, "it spins: %.2f" % busy)
    equal([r for r in p.hub.log("session") if r["reason"] != "done"], [], "sessions that ended badly")
    equal(p.hub.log("link_down"), [], "links that broke")


if __name__ == "__main__":
    sys.argv = [a for a in sys.argv if not a.startswith("--part=")]
    harness.main(globals(), threads=(2,))
