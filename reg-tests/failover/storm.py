"""A storm: thousands of agents lose their hub at the same moment and come back. Agents are reg-tests/tools/agents (the real engine, in few
processes); beside them an agent of its own serves clients all the while, so that one sees what the storm costs those who have nothing to do with it."""
import os
import re
import resource
import signal
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import relay
import scene
from harness import percentile, wait_until

CLIENT_MS = 5
ADDRESSES = 8  # of the hub, for the simulated agents' sake: they have one


def spread(address):
    """More addresses like it, for the same port."""
    first, second, rest = address[0].split(".", 2)
    return ["%s.%d.%s:%d" % (first, 64 + (int(second) - 64 + i) % 128, rest, address[1]) for i in range(ADDRESSES)]


class Swarm:
    """count agents in some processes. single: all in one tunnel, else each has its own."""

    def __init__(self, run, count, processes=2, threads=2, single=False):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit < count + 2000:
            raise harness.Skipped("%d agents need more than %d descriptors" % (count, limit))
        names = ["agent-%d" % i for i in range(1, count + 1)]
        tunnels = [scene.tunnel("all", agents=names)] if single else [scene.tunnel(n, agents=[n]) for n in names]
        self.run, self.count = run, count
        target = proc.start(run, [relay.tool("probe"), "target", "%s:%d" % (run.host, run.port()), "edge"])
        with open("/proc/%d/cmdline" % target.pid) as f:
            address = f.read().split("\0")[2]
        run.threads = threads
        self.hub = scene.Hub(run, {"echo": "site-a/echo"}, [scene.tunnel(), *tunnels], program=scene.release_binary(), timeouts={"queue": "20s"})
        at = spread(self.hub.address)
        one = self.hub.config["hub"]["bind"][0]
        self.hub.config["hub"]["bind"] = tuple(dict(one, address=a) for a in at)
        self.hub.configure(self.hub.config)
        self.hub.start().wait_ready(60)
        scene.Agent(run, self.hub.authority, [self.hub.address], [scene.service("echo", address)], program=scene.release_binary()).start()
        self.hub.wait_links(2)
        each = -(-count // processes)
        self.outs = [run.path("swarm-%d" % i) for i in range(processes)]
        self.swarm = []
        cpu = proc.cpu_seconds(self.hub.worker())
        for i, out in enumerate(self.outs):
            with open(out, "w") as f:
                words = ["--count", str(min(each, count - i * each)), "--first", str(i * each + 1), "--at-once", str(count), "--first-at-once", "100"]
                self.swarm.append(proc.start(run, [relay.tool("agents"), *(w for a in at for w in ("--hub", a)), "--server-name", "hub.test",
                                                   "--pki", self.hub.authority.dir, *words, *(["--tunnel", "all"] if single else [])],
                                             stdin=subprocess.PIPE, stdout=f))
        self.wait_lines("links:", 1, 120)
        self.hub.wait_links(count + 2, 60)
        self.first_ms = (proc.cpu_seconds(self.hub.worker()) - cpu) * 1000 / count  # of the hub's CPU, for a link that was not resumed

    def lines(self, word):
        """The lines that begin with it, of each process."""
        found = []
        for out in self.outs:
            with open(out) as f:
                found.append([line for line in f if line.startswith(word) and line.endswith("\n")])
        return found

    def wait_lines(self, word, n, timeout):
        wait_until(lambda: all(len(lines) >= n for lines in self.lines(word)), "%d lines %s of the agents" % (n, word), timeout, 0.02)
        return [lines[n - 1] for lines in self.lines(word)]

    def clients(self, seconds=None, until=None):
        """Times in milliseconds of clients that come and go meanwhile, and how many failed."""
        out = self.run.path("clients")
        with open(out, "w") as f:
            p = proc.start(self.run, [relay.tool("probe"), "clients", "%s:%d" % self.hub.listen["echo"], str(CLIENT_MS), "20000"], stdout=f)
        time.sleep(0.3)
        result = until() if until else time.sleep(seconds)
        time.sleep(0.3)
        proc.end_group(p)
        with open(out) as f:
            rows = [line.split() for line in f if line.endswith("\n")]
        good = [float(r[1]) - float(r[0]) for r in rows if r[2] == "ok"]
        return good, len(rows) - len(good), result

    def storm(self, kill, timeout=60):
        """kill: the worker is killed; else all links break. The line that says what it cost."""
        n = len(self.lines("back:")[0]) + 1
        pid = self.hub.worker()

        def blow():
            cpu, began = proc.cpu_seconds(pid), time.monotonic()
            if kill:
                os.kill(pid, signal.SIGKILL)
            else:
                for p in self.swarm:
                    p.send_signal(signal.SIGUSR2)
            lines = self.wait_lines("back:", n, timeout)
            self.hub.wait_links(self.count + 2, timeout)
            now = self.hub.worker(timeout=5)
            return lines, time.monotonic() - began, proc.cpu_seconds(now) - (0 if kill else cpu)
        good, failed, (lines, took, cpu) = self.clients(until=blow)
        facts = [dict(re.findall(r"(\w+)=([\d.]+)", line)) for line in lines]
        worst = {k: max(float(f[k]) for f in facts) for k in ("ms_50", "ms_95", "ms_100")}
        resumed, links = (sum(int(f[k]) for f in facts) for k in ("resumed", "links"))
        self.figures = dict(worst, p50=percentile(good, 50), p99=percentile(good, 99), failed=failed, took=took, links=links, cpu=cpu)
        return ("%d agents back: 50 %% %.2f s, 95 %% %.2f s, 100 %% %.2f s; resumed %d; hub %.1f s CPU, %.2f ms a link; clients p50 %.1f p99 %.1f max %.1f ms, %d failed of %d" % (
            self.count, worst["ms_50"] / 1e3, worst["ms_95"] / 1e3, worst["ms_100"] / 1e3, resumed, cpu, cpu * 1000 / links,
            percentile(good, 50), percentile(good, 99), max(good, default=0), failed, len(good) + failed))
