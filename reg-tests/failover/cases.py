"""What can happen to a pair, and what it costs. A case breaks something in a lab, watches clients, sessions and agents meanwhile, says
what they saw, and puts everything in order again. The figures judge nothing; what must hold whatever the machine is in Seen.must()."""
import contextlib
import os
import signal
import statistics
import time

import lab as lab_module
from lab import AGENTS, HOSTS, HUBS, LINKS, VIP, Failed, alive, children, now_ms, wait_until

EVERY_MS = 5        # a client
LIMIT_MS = 4000     # for one client: then it has failed
SESSIONS = 4        # of each kind
KINDS = ("busy", "listening", "idle")
QUIET_MS = 1000     # clients were served for so long without a gap: it is over
CAUGHT = 2          # clients on their way through the hub at the moment the address moves
BUSY_MS = 250       # ... but for what a busy machine needs
GAP_MS = 20         # between two clients that were served; less is the machine


class Seen:
    """What clients, sessions and agents saw of one case. Times are milliseconds from the fault."""

    def __init__(self, case, t0):
        self.case, self.t0 = case, t0
        self.clients, self.ends, self.up = [], {k: [] for k in KINDS}, {k: 0 for k in KINDS}
        self.agents_ms = None

    def read(self, clients, sessions):
        for line in clients:
            words = line.split()
            if len(words) >= 3:
                self.clients.append((float(words[0]) - self.t0, float(words[1]) - self.t0, " ".join(words[2:])))
        for line in sessions:
            words = line.split()
            if words[:1] == ["up"]:
                self.up[words[1]] += 1
            elif words[:1] == ["end"]:
                self.ends[words[1]].append((float(words[-1]) - self.t0, " ".join(words[2:-1])))

    def good(self):
        return sorted(end for began, end, how in self.clients if how == "ok")

    def outage(self):
        """The longest time from one client that was served to the next, beyond what is usual here."""
        good = self.good()
        gaps = [b - a for a, b in zip(good, good[1:]) if b > 0]
        longest = max(gaps, default=float("inf"))
        return longest if longest > GAP_MS else 0.0

    def reset(self):
        """All sessions saw a RST, and none an end that looks like the target's, or nothing at all."""
        return all(len(self.ends[k]) == self.up[k] and {how for _, how in self.ends[k]} == {"reset"} for k in KINDS)

    def failed(self):
        return [c for c in self.clients if c[2] != "ok"]

    def slowest(self):
        return max((end - began for began, end, how in self.clients if how == "ok"), default=float("nan"))

    def line(self):
        words = {}
        for _, _, how in self.failed():
            words[how] = words.get(how, 0) + 1
        failed = "%d failed%s" % (len(self.failed()), " (%s)" % ", ".join("%d %s" % (n, w) for w, n in sorted(words.items())) if words else "")
        kinds = []
        for kind in KINDS:
            ends = self.ends[kind]
            if not ends:
                kinds.append("%s: %s" % (kind, "went on" if self.up[kind] else "none"))
            else:
                kinds.append("%s: %d of %d %s after %.0f ms" % (kind, len(ends), self.up[kind], "/".join(sorted({w for _, w in ends})),
                                                               max(t for t, _ in ends)))
        agents = "" if self.agents_ms is None else "; agents back after %.0f ms" % self.agents_ms
        return "%-16s outage %.0f ms, %s of %d, slowest %.0f ms; sessions %s%s" % (
            self.case, self.outage(), failed, len(self.clients), self.slowest(), ", ".join(kinds), agents)

    def must(self, what, condition):
        if not condition:
            raise Failed("%s: %s (%s)" % (self.case, what, self.line()))


class Watch:
    """Clients, sessions, and from mark() on the agents, while something is done to the lab."""

    def __init__(self, lab, case):
        self.lab, self.case = lab, case
        self.files = {n: lab.path("%s.%s" % (case, n)) for n in ("clients", "sessions")}
        self.t0 = None

    def __enter__(self):
        target = "%s:%d" % (VIP, lab_module.PORT)
        for n, words in (("sessions", [str(SESSIONS)]), ("clients", [str(EVERY_MS), str(LIMIT_MS)])):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.files[n])
            self.lab.start("probe-" + n, "client", [self.lab.probe, n, target, *words], out=self.files[n])
        try:
            wait_until(lambda: sum(line.startswith("up") for line in self.lines("sessions")) == SESSIONS * len(KINDS), "the sessions to be up")
            wait_until(lambda: len(self.lines("clients")) > 20, "clients")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for n in self.files:
            self.lab.end("probe-" + n)

    def lines(self, n):
        with open(self.files[n]) as f:
            return f.read().splitlines()

    def mark(self):
        """Now it happens."""
        time.sleep(0.3)
        self.t0 = now_ms()

    def look(self):
        seen = Seen(self.case, self.t0)
        seen.read(self.lines("clients"), self.lines("sessions"))
        return seen

    def over(self, timeout=20.0):
        """Waits until clients have been served for a while without a gap, after whatever happened to them."""
        def quiet():
            good = self.look().good()
            now, i = now_ms() - self.t0, len(good) - 1
            if not good or now - good[-1] > BUSY_MS:
                return False
            while i > 0 and good[i] - good[i - 1] <= BUSY_MS:
                i -= 1
            return now > 300 and good[-1] - max(good[i], 0) >= QUIET_MS
        wait_until(quiet, self.case + ": clients to be served again", timeout, 0.1)

    def sessions_end(self, kinds=KINDS, timeout=10.0):
        """Waits until all of these have ended; says whether they have."""
        with contextlib.suppress(Failed):
            wait_until(lambda: all(len(self.look().ends[k]) == SESSIONS for k in kinds), "", timeout, 0.05)
            return True
        return False

    def agents(self, timeout=20.0):
        """From now on until the one who has the address has all links of all agents."""
        def whole():
            owners = self.lab.owners()
            return len(owners) == 1 and self.lab.info(owners[0]).get("Links") == LINKS * len(AGENTS)
        wait_until(whole, self.case + ": the agents to be back", timeout, 0.005)
        return now_ms() - self.t0


# ---- the cases: (lab) -> Seen ----

def watch(lab, case, fault, ends=KINDS, agents=False):
    """What is seen from the fault until clients are served again and sessions of these kinds have ended; with agents, until those are back."""
    with Watch(lab, case) as w:
        w.mark()
        fault()
        back = w.agents() if agents else None
        w.over()
        w.sessions_end(ends)
        seen = w.look()
    seen.agents_ms = back
    return seen


def worker_crash(lab):
    """kill -9 of the worker: its master has another one at once"""
    hub = lab.owner()
    wait_until(lambda: lab.info(hub).get("Uptime_sec", 0) >= 2, "the worker to be no beginner")  # else its master waits 100 ms
    lab.rested(hub)
    worker = lab.worker(hub)
    seen = watch(lab, "worker-crash", lambda: os.kill(worker, signal.SIGKILL), agents=True)
    lab.healthy()
    seen.must("the address stays", lab.owner() == hub)
    seen.must("all sessions end by RST", seen.reset())
    died = max(ms for kind in KINDS for ms, _ in seen.ends[kind])
    seen.must("no client fails but who was being served", all(how == "reset" and began <= died for began, _, how in seen.failed()))
    return seen


def cut_off(lab, case, cut, mend):
    """The hub that has the address is cut off from all others."""
    hub = lab.owner()
    seen = watch(lab, case, lambda: cut(hub), ("busy",))
    seen.must("the other has the address", lab.has_vip(lab.other(hub)))
    mend(hub)
    lab.healthy()
    return seen


def host_loss(lab):
    """the cable of the host that has the address is pulled, without a packet"""
    seen = cut_off(lab, "host-loss", lab.unplug, lab.plug)
    seen.must("busy sessions learn of it", len(seen.ends["busy"]) == SESSIONS)
    return seen


def silent_cut(lab):
    """what the host that has the address sends and gets vanishes, the cable seems to be in order: both are master until it heals"""
    return cut_off(lab, "silent-cut", lab.cut, lab.mend)


def moved_for_good(lab, seen, hub):
    """The address went to the other hub, in good order and once."""
    lab.healthy()
    seen.must("it does not go back", lab.owner() == lab.other(hub))
    seen.must("no client fails but who was caught in the middle", len(seen.failed()) <= CAUGHT)
    seen.must("all sessions end by RST", seen.reset())
    return seen


def stop_keepalived(lab, hub):
    os.kill(lab.pid("keepalived-" + hub), signal.SIGTERM)


def start_keepalived_again(lab, hub):
    lab.end("keepalived-" + hub)
    lab.start_keepalived(hub)  # which takes away what it finds of its own


def switch(lab):
    """keepalived is stopped on the host that has the address, as before work on it"""
    hub = lab.owner()
    seen = watch(lab, "switch", lambda: stop_keepalived(lab, hub))
    seen.must("the other has the address", lab.owner() == lab.other(hub))
    start_keepalived_again(lab, hub)
    return moved_for_good(lab, seen, hub)


def ordered(lab, case, number):
    """The hub that has the address is told to stop; the address moves first."""
    hub = lab.owner()

    def order():
        os.kill(lab.master(hub), number)
        wait_until(lambda: not lab.runs(hub), "the hub to end")
        lab.end(hub)
        lab.start_hub(hub)
    seen = watch(lab, case, order)
    seen.must("the other has the address", lab.owner() == lab.other(hub))
    return moved_for_good(lab, seen, hub)


def soft_stop(lab):
    """the hub that has the address is told to drain (USR1), and started again"""
    return ordered(lab, "soft-stop", signal.SIGUSR1)


def restart(lab):
    """the hub that has the address is stopped and started, as systemctl restart does"""
    return ordered(lab, "restart", signal.SIGTERM)


def hang(lab):
    """SIGSTOP to the worker that serves: its ports answer, but nobody is behind them"""
    hub = lab.owner()
    worker = lab.worker(hub)
    seen = watch(lab, "hang", lambda: os.kill(worker, signal.SIGSTOP))
    seen.must("the other has the address", lab.owner() == lab.other(hub))
    wait_until(lambda: not alive(worker), "its master to end the worker")
    lab.healthy()
    seen.must("all sessions end by RST", seen.reset())
    return seen


def master_crash(lab):
    """kill -9 of the master, with nobody who starts another"""
    hub = lab.owner()
    seen = watch(lab, "master-crash", lambda: os.kill(lab.master(hub), signal.SIGKILL))
    seen.must("the other has the address", lab.owner() == lab.other(hub))
    lab.end(hub)
    lab.start_hub(hub)
    lab.healthy()
    seen.must("all sessions end by RST", seen.reset())
    return seen


def keepalived_crash(lab):
    """kill -9 of keepalived, both of its processes: the address stays where nobody minds it any more"""
    hub = lab.owner()
    keepalived = lab.pid("keepalived-" + hub)
    both = [*reversed(children(keepalived)), keepalived]  # else the child would end in good order

    def crash():
        for p in both:
            os.kill(p, signal.SIGKILL)
    seen = watch(lab, "keepalived-crash", crash, ("busy",))
    seen.must("the other has the address", lab.has_vip(lab.other(hub)))
    start_keepalived_again(lab, hub)
    lab.healthy()
    return seen


def comeback(lab):
    """the host that was lost comes back: it must not take the address"""
    hub = lab.owner()
    lab.unplug(hub)
    wait_until(lambda: lab.has_vip(lab.other(hub)), "the address to move")
    time.sleep(0.5)
    with Watch(lab, "comeback") as w:
        w.mark()
        lab.plug(hub)
        lab.healthy()
        seen = w.look()
        w.over()
        seen = w.look()
    seen.must("it does not go back", lab.owner() == lab.other(hub))
    seen.must("no client fails", not seen.failed())
    seen.must("sessions go on", not any(seen.ends.values()))
    return seen


def heal(lab):
    """a silent cut heals: one of the two masters gives way"""
    hub = lab.owner()
    lab.cut(hub)
    wait_until(lambda: lab.has_vip(lab.other(hub)), "the address to be on both")
    time.sleep(1.5)
    with Watch(lab, "heal") as w:
        w.mark()
        lab.mend(hub)
        w.over()
        seen = w.look()
    lab.healthy()
    return seen


def flaps(lab, times=10, pause=3.0):
    """the host that has the address loses its cable, ten times in a minute"""
    with Watch(lab, "flaps") as w:
        w.mark()
        for _ in range(times):
            hub = lab.owner()
            lab.unplug(hub)
            time.sleep(pause)
            lab.plug(hub)
            time.sleep(pause)
        w.over()
        seen = w.look()
    lab.healthy()
    seen.must("the other has the address in the end", lab.owner())
    return seen


def two_seconds_without(lab, case, agents):
    with Watch(lab, case) as w:
        w.mark()
        for agent in agents:
            lab.unplug(agent)
        time.sleep(2)
        for agent in agents:
            lab.plug(agent)
        back = now_ms()
        w.agents()
        back = now_ms() - back
        w.over()
        seen = w.look()
    seen.agents_ms = back
    lab.healthy()
    seen.must("sessions go on afterwards", not any(seen.ends.values()))
    return seen


def agent_loss(lab):
    """the host of one of two agents is lost"""
    seen = two_seconds_without(lab, "agent-loss", AGENTS[:1])
    seen.must("no client fails", not seen.failed())
    return seen


def agents_loss(lab):
    """both agents are lost for two seconds: clients wait in the queue"""
    return two_seconds_without(lab, "agents-loss", AGENTS)


@contextlib.contextmanager
def one_address(lab):
    """Agents that know the virtual address only."""
    lab.know([VIP])
    try:
        lab.settled()
        hub = lab.owner()
        lab.rested(hub)
        yield hub
        lab.settled()
    finally:
        lab.know([HOSTS[h] for h in HUBS])
    lab.healthy()


def host_loss_vip(lab):
    """as host-loss, with agents that know the virtual address only"""
    with one_address(lab) as hub:
        seen = watch(lab, "host-loss-vip", lambda: lab.unplug(hub), ("busy",), agents=True)
        seen.must("the other has the address", lab.has_vip(lab.other(hub)))
        lab.plug(hub)
    return seen


def switch_vip(lab):
    """as switch, with agents that know the virtual address only"""
    with one_address(lab) as hub:
        seen = watch(lab, "switch-vip", lambda: stop_keepalived(lab, hub), agents=True)
        start_keepalived_again(lab, hub)
    return seen


CASES = {f.__name__.replace("_", "-"): f for f in (
    worker_crash, hang, master_crash, keepalived_crash, host_loss, comeback, silent_cut, heal, switch, soft_stop, restart, agent_loss, agents_loss, flaps,
    host_loss_vip, switch_vip)}


HEAD = ("| case | clients: outage | slowest | failed | busy sessions | listening | idle | agents back |\n"
        "|---|---|---|---|---|---|---|---|")


def median_and_worst(values):
    return "%.0f / %.0f" % (statistics.median(values), max(values)) if values else "-"


def ends_of(seen, kind):
    """When sessions of a kind learnt of it, in words."""
    ends = [max(t for t, _ in s.ends[kind]) for s in seen if len(s.ends[kind]) == s.up[kind]]
    if not any(s.ends[kind] for s in seen):
        return "-"
    more = "" if len(ends) == len(seen) else " (%d of %d runs)" % (len(ends), len(seen))
    return median_and_worst(ends) + more


def row(name, seen):
    """A row of doc/failover.md's table: median / worst of the runs."""
    back = [s.agents_ms for s in seen if s.agents_ms is not None]
    failed = sorted(len(s.failed()) for s in seen)
    return "| %s | %s | %s | %s | %s | %s | %s | %s |" % (
        name, median_and_worst([s.outage() for s in seen]), median_and_worst([s.slowest() for s in seen]),
        "%.0f / %d" % (statistics.median(failed), failed[-1]), *(ends_of(seen, k) for k in KINDS), median_and_worst(back))
