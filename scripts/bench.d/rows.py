"""The rows: what is measured, of whom, and how. Each method of Bench that is named in ROWS makes one table."""
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import time

import tables
from stage import GB, TOP, Failed, cpu_of, descendants, line_of, memory_of, record, run, say
from swarm import Swarm
from systems import Chain, Direct, Haproxy, Mctunnel, MctunnelOneLink, MctunnelOneThread, Nginx, ReverseHttp, Ssh

# row: seconds that one run takes, and those that are needed once, with Debian's peers
ROWS = {"bulk": (38, 0), "web": (25, 0), "close": (25, 0), "connect": (22, 0), "latency": (19, 0), "busy": (43, 0), "stalled": (46, 0), "memory": (26, 0),
        "agents": (14, 0), "storm": (18, 25), "road": (25, 0), "threads": (10, 0), "reload": (8, 0), "crash": (9, 0), "rules": (2, 15)}
ORDER = [name for row in ROWS for name in (row, row + "-cubic")]  # of the published page
SHORT = {"bulk": {"size": GB // 2, "counts": (1, 8)}, "web": {"seconds": 2}, "close": {"seconds": 2}, "connect": {"seconds": 2}, "latency": {"count": 2000, "seconds": 2},
         "busy": {"seconds": 1}, "stalled": {"times": 2}, "memory": {"count": 2000, "many": 3000}, "agents": {"count": 300, "seconds": 2},
         "storm": {"count": 1000}, "road": {"size": GB // 16}, "threads": {"size": GB // 2, "seconds": 2}, "reload": {"seconds": 4}, "crash": {"kills": 2}}
SHORT_PART = 0.5  # of the time


def estimate(rows, runs, short):
    return sum((each * runs + once) * (SHORT_PART if short else 1) for each, once in (ROWS[r] for r in rows))


class Meter:
    """CPU seconds of a system's hub and agent over a block."""

    def __init__(self, system):
        self.system = system

    def __enter__(self):
        self.before = cpu_of(self.system.pids(self.system.hub)), cpu_of(self.system.pids(self.system.agent))
        return self

    def __exit__(self, *unused):
        self.hub = cpu_of(self.system.pids(self.system.hub)) - self.before[0]
        self.agent = cpu_of(self.system.pids(self.system.agent)) - self.before[1]
        self.cpu = self.hub + self.agent

    def add(self, table, name, column, factor):
        if self.system.hub:
            table.add(name, column, self.cpu * factor, (self.hub * factor, self.agent * factor) if self.system.agent else None)


class Bench:
    def __init__(self, stage, work, runs, systems):
        self.stage, self.work, self.runs, self.systems = stage, work, runs, systems
        self.tables = []

    def row(self, name, words, options):
        """One row, and what is to be published of it. What fails is said in its table, what was measured before stays."""
        n, began = len(self.tables), time.monotonic()
        record.forget()
        say("%s (about %.0f s)" % (name, estimate([name], self.runs, "--short" in words)))
        try:
            getattr(self, name)(**options)
        except (Failed, subprocess.SubprocessError, OSError, ValueError, TypeError, AttributeError, LookupError) as e:
            say("   %s: %s" % (name, str(e)[:300]))
            if len(self.tables) == n:
                self.table(name, name, "")
            self.tables[-1].failed(name, str(e)[:200])
        say("   %.0f s" % (time.monotonic() - began))
        made = self.tables[n:]
        for t in made:
            t.about = tables.about([w for w in words if w != "--publish" and w not in ROWS] + [name], self.runs, record)
        return made

    def table(self, *args, **options):
        t = tables.Table(*args, **options)
        self.tables.append(t)
        return t

    def each(self, table, measure, systems=None, **options):
        """Interleaved: every system once, then again. The order turns: nobody always comes after the same."""
        kinds = list(systems or self.systems)
        for i in range(self.runs):
            for kind in kinds[i % len(kinds):] + kinds[:i % len(kinds)]:
                system = kind(self.stage, self.work, **options)
                try:
                    system.start()
                    measure(system)
                except (Failed, subprocess.SubprocessError, OSError, ValueError, TypeError, AttributeError, LookupError) as e:
                    table.failed(system.name, str(e)[:200])
                    say("   %s: %s" % (system.name, str(e)[:200]))
                finally:
                    system.stop()
            say("   run %d of %d" % (i + 1, self.runs))

    def tcp(self):
        return [s for s in self.systems if not s.http_only]

    def tunnels(self, *ours):
        """Those that have a way between hub and agent."""
        return [s for s in self.systems if s.tunnel and s is not Mctunnel] + list(ours)

    # -- rows --

    def bulk(self, size=GB, counts=(1, 8, 64)):
        t = self.table("bulk", "Bulk", "CPU seconds per GB and GB/s, with so many connections. One process has no agent; reverse HTTP: as answers to requests.", grouped=True)

        def measure(s):
            for way in ("down", "up"):
                for n in counts if way == "down" or not s.http_only else ():
                    with Meter(s) as m:
                        took = float(self.work.ask("bulk", s.where(), way, n, size))
                    m.add(t, s.name, "%s %d: CPU s/GB" % (way, n), GB / size)
                    t.add(s.name, "%s %d: GB/s" % (way, n), size / GB / took)
        self.each(t, measure)

    def web_at(self, t, s, name, port, words):
        with Meter(s) as m:
            out = run(["wrk", "-t2", "-c50", "--latency", *words, "http://127.0.0.1:%d/1k" % port])
        done, rate = int(re.search(r"(\d+) requests in", out)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
        bad = re.search(r"Socket errors: (.*)|Non-2xx or 3xx responses: (\d+)", out)
        if bad or done == 0:
            raise Failed("wrk: " + (bad.group(0) if bad else "no answers"))
        m.add(t, name, "CPU µs/request", 1e6 / done)
        t.add(name, "requests/s", rate)
        t.add(name, "p99 ms", wrk_ms(out, 99))

    def requests(self, t, *words):
        def measure(s):
            self.web_at(t, s, s.name, s.web, words)
            if isinstance(s, Mctunnel):
                self.web_at(t, s, s.name + ", mode http", s.routed, words)
        self.each(t, measure)

    def web(self, seconds=3):
        t = self.table("web", "HTTP, keep-alive, 50 connections, 1 KB", "mctunnel by a listener of mode tcp, and by one of mode http, which routes each request by rules.")
        self.requests(t, "-d%d" % seconds)

    def close(self, seconds=3):
        t = self.table("close", "HTTP, a connection for each request, 50 at a time, 1 KB", "The same, but each request says `Connection: close`. In mode http mctunnel keeps its connections to the target; "
                       "in mode tcp that one, too, is new for each.")
        self.requests(t, "-d%d" % seconds, "-H", "Connection: close")

    def connect(self, seconds=3):
        t = self.table("connect", "A new connection each time", "Connect, one byte there and back, close; 16 at a time. Reverse HTTP: one request, and its own connections to the target stay.")

        def measure(s):
            with Meter(s) as m:
                rate, failed, p99, done = (float(w) for w in self.work.ask("rate", s.where(), seconds, 16).split())
            if failed:
                raise Failed("%d connections failed" % failed)
            m.add(t, s.name, "CPU µs/connection", 1e6 / done)
            t.add(s.name, "connections/s", rate)
            t.add(s.name, "p99 ms", p99 / 1000)
        self.each(t, measure)

    def latency(self, count=5000, seconds=2):
        t = self.table("latency", "One connection at a time", "One byte there and back, again and again; and HTTP requests of 1 KB on one connection (wrk, one connection). Nothing else is going on.")

        def measure(s):
            p50, p99, _ = (float(w) for w in self.work.ask("ping", s.where(), count, 0).split())
            t.add(s.name, "echo p50 µs", p50)
            t.add(s.name, "echo p99 µs", p99)
            if seconds:
                out = run(["wrk", "-t1", "-c1", "-d%d" % seconds, "--latency", "http://127.0.0.1:%d/1k" % s.web])
                for p in (50, 99):
                    t.add(s.name, "HTTP p%d µs" % p, wrk_ms(out, p) * 1000)
        self.each(t, measure)

    def keystrokes(self, t, s, where, seconds, warm_up):
        p = self.work.begin("steady", s.where(), seconds + warm_up + 0.5)
        time.sleep(warm_up)
        p50, p99, _ = (float(w) for w in self.work.ask("ping", s.where(), int(seconds * 250), 4000).split())
        rate = float(line_of(p, "", 30))
        self.stage.end([p])
        t.add(s.name, where + ": p50 ms", p50 / 1000)
        t.add(s.name, where + ": p99 ms", p99 / 1000)
        t.add(s.name, where + ": MB/s", rate / 1e6)

    def busy(self, seconds=2):
        t = self.table("busy", "A keystroke while a download saturates the link", "A byte each 4 ms in one session, beside a download without end in another. Over loopback, where the CPUs are what is short; "
                       "and over a way between hub and agent (a relay of the bench) of 100 Mbit/s and 20 ms there and back with a queue of 5 ms, where the link is. mctunnel with one link: both sessions share it.")
        others = [s for s in self.systems if s not in (Nginx, Mctunnel)]
        self.each(t, lambda s: self.keystrokes(t, s, "loopback", seconds, 0.7), [*others, Mctunnel, MctunnelOneLink])
        self.each(t, lambda s: self.keystrokes(t, s, "100 Mbit/s", seconds, 1.5), self.tunnels(Mctunnel, MctunnelOneLink), delay=20, rate=12500000)

    def stalled(self, times=3, seconds=0.5):
        t = self.table("stalled", "One client stops reading", "Throughput of another and echo of a third, as a part of what they are without it: medians of turns with and without. "
                       "Over loopback, and over a way of 100 Mbit/s and 20 ms between hub and agent. mctunnel with one link: all share it.")

        def look(s, long):
            return (float(self.work.ask("steady", s.where(), 1.2 if long else seconds)),
                    float(self.work.ask("ping", s.where(), *((200, 4000) if long else (2000, 0))).split()[1]))

        def measure(s, where, turns):
            long = s.rate > 0
            alone, beside = [look(s, long)], []
            for _ in range(turns):
                p = self.work.begin("stall", s.where())
                line_of(p, "stalled", 20)
                time.sleep(2 if long else 0.3)  # until all that may be under way to it has come
                beside.append(look(s, long))
                self.stage.end([p])
                alone.append(look(s, long))
            for i, column in enumerate(("download beside it / before", "echo p99 beside it / before")):
                t.add(s.name, "%s: %s" % (where, column), statistics.median(v[i] for v in beside) / statistics.median(v[i] for v in alone))
        self.each(t, lambda s: measure(s, "loopback", times), [s for s in self.systems if s in (Haproxy, Chain, Ssh, ReverseHttp)] + [MctunnelOneLink])
        self.each(t, lambda s: measure(s, "100 Mbit/s", 1), [s for s in self.systems if s in (Chain, Ssh, ReverseHttp)] + [MctunnelOneLink], delay=20, rate=12500000)

    def memory(self, count=5000, many=10000):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        t = self.table("memory", "Idle sessions", "Bytes of memory (PSS) each, with %d sessions that have said one byte, opened 50 at a time; then %d opened at once. "
                       "ssh takes no more than 1000. A process of which each session needs two descriptors takes what the limit of this machine (%d) allows." % (count, many, limit))

        def measure(s):
            if not s.hub:
                return
            self.work.ask("ping", s.port, 200, 0)
            before = memory_of(s.pids(s.hub)), memory_of(s.pids(s.agent))
            n = min(count, 1000) if isinstance(s, Ssh) else count
            self.crowd(s, n, 50, keep=lambda: self.weigh(t, s, before, n))
            if isinstance(s, Ssh):
                return
            time.sleep(0.5)
            n = many if isinstance(s, Mctunnel) else min(many, 9000, (limit - 2000) // 2)
            took, failed = self.crowd(s, n, n)
            t.add(s.name, "at once: opened at once", n)
            t.add(s.name, "at once: s", took)
            t.add(s.name, "at once: failed", failed)
        self.each(t, measure, self.tcp())

    def crowd(self, s, n, under_way, keep=None):
        p = self.work.begin("crowd", s.port, n, under_way)
        took, failed = line_of(p, "", 120).split()
        if keep and int(failed):
            raise Failed("%s of %d sessions failed" % (failed, n))
        if keep:
            keep()
        self.stage.end([p])
        return float(took), int(failed)

    def weigh(self, t, s, before, n):
        t.add(s.name, "hub B/session", (memory_of(s.pids(s.hub)) - before[0]) / n)
        if s.agent:
            t.add(s.name, "agent B/session", (memory_of(s.pids(s.agent)) - before[1]) / n)

    def agents(self, count=1000, seconds=5):
        t = self.table("agents", "Agents that do nothing", "%d simulated agents (the real engine, each with its certificate), each with one link and a heartbeat each second, the default. "
                       "Handshake: from the connection to the greeting, with all that the hub keeps of an agent, its log line too; resumed: all lose their link at once and come back with their tickets." % count)
        for i in range(self.runs):
            s = Swarm(self.stage, count, "1s")
            try:
                time.sleep(1)
                before = s.memory()
                t.add(s.name, "full handshake: hub CPU ms", s.arrive() * 1000 / count)
                time.sleep(1)
                t.add(s.name, "hub KiB/link", (s.memory() - before) / 1024 / count)
                cpu, beats = s.beat(seconds)
                t.add(s.name, "heartbeats/s", beats / seconds)
                t.add(s.name, "hub CPU µs/heartbeat", cpu * 1e6 / beats)
                t.add(s.name, "resumed handshake: hub CPU ms", statistics.median(s.come_back() for _ in range(3)) * 1000 / count)
            except (Failed, OSError, ValueError, TypeError, ZeroDivisionError) as e:
                t.failed(s.name, str(e)[:200])
                say("   %s: %s" % (s.name, e))
            finally:
                s.stop()
            say("   run %d of %d" % (i + 1, self.runs))

    def storm(self, count=10000):
        t = self.table("storm", "A storm", "%d simulated agents on this machine lose their hub at once and come back, while the clients of another agent come and go (one each 5 ms)." % count, compared=False)
        args = [os.path.join(TOP, "scripts/bench-storm"), "-n", str(count), "-r", str(self.runs), "--json"]
        out = run(args, timeout=120 + count / 50 + self.runs * (20 + count / 200))
        for line in out.splitlines():
            if line.startswith("{"):
                d = json.loads(line)
                for part in ("50", "95", "100"):
                    t.add(d["what"], part + " % back, s", d["ms_" + part] / 1000)
                t.add(d["what"], "hub CPU s", d["cpu"])
                t.add(d["what"], "clients p50 ms", d["p50"])
                t.add(d["what"], "clients p99 ms", d["p99"])
                t.add(d["what"], "clients failed", d["failed"])
        if not t.values:
            raise Failed("no storm: " + out[-200:])

    def road(self, size=GB // 12):
        t = self.table("road", "A longer way between agent and hub", "MB/s of one download of %d MB over a round trip of 20 and 100 ms (a relay that delays, no loss); direct: over the same relay, without a tunnel." % (size // 1000000))
        for ms in (20, 100):
            def measure(s, ms=ms):
                port = s.road(s.port) if isinstance(s, Direct) else s.where()
                took = float(self.work.ask("bulk", port, "down", 1, size))
                t.add(s.name, "%d ms: MB/s" % ms, size / took / 1e6)
            self.each(t, measure, [Direct, *self.tunnels(Mctunnel)], delay=ms)

    def threads(self, size=GB, seconds=3):
        t = self.table("threads", "One thread and two", "mctunnel alone; this machine has %d CPUs, which load and target share." % os.cpu_count(), compared=False)

        def measure(s):
            with Meter(s) as m:
                took = float(self.work.ask("bulk", s.port, "down", 8, size))
            m.add(t, s.name, "down 8: CPU s/GB", GB / size)
            t.add(s.name, "down 8: GB/s", size / GB / took)
            self.web_at(t, s, s.name, s.web, ["-d%d" % seconds])
        self.each(t, measure, [Mctunnel, MctunnelOneThread])

    def reload(self, seconds=7):
        t = self.table("reload", "Reload under load", "New connections all the time, a reload each half second.")

        def measure(s):
            p = self.work.begin("rate", s.port, seconds, 16)
            reloads, end = 0, time.monotonic() + seconds - 1
            while time.monotonic() < end:
                answer = run([os.path.join(TOP, "mctunnelctl"), "-s", s.admin, "reload"])
                reloads += answer.startswith("Reloaded")
                time.sleep(0.5)
            rate, failed, p99, done = (float(w) for w in line_of(p, "", 30).split())
            self.stage.end([p])
            t.add(s.name, "reloads", reloads)
            t.add(s.name, "connections/s", rate)
            t.add(s.name, "failed", failed)
            t.add(s.name, "p99 ms", p99 / 1000)
        self.each(t, measure, [Mctunnel])

    def crash(self, kills=4, every=2):
        t = self.table("crash", "The worker is killed (-9) under load", "A client each %d ms, and %d kills, each with an agent that has lost no link lately. Refused: could not connect. "
                       "Lost: was connected at that moment. The wait is that of clients who came within a quarter of a second after a kill." % (every, kills))

        def killed(s):
            log = self.stage.path("arrivals")
            with open(log, "w") as f:
                p = self.stage.start([self.work.load, "arrive", str(s.port), str(every), "1.6"], stdout=f)
                time.sleep(0.8)
                at = time.monotonic() * 1000
                os.kill(worker_of(s.hub[0].pid), signal.SIGKILL)
                p.wait(60)
            with open(log) as f:
                return [(float(began) - at, float(took), how) for began, took, how in (line.split() for line in f)]

        def measure(s):
            clients = []
            for _ in range(kills):
                clients += killed(s)
                s.fresh_agent()
            waits = sorted(took for began, took, how in clients if how == "ok" and 0 <= began < 250)
            t.add(s.name, "clients", len(clients))
            t.add(s.name, "refused", sum(how == "refused" for _, _, how in clients))
            t.add(s.name, "lost", sum(how == "lost" for _, _, how in clients))
            t.add(s.name, "wait p50 ms", waits[len(waits) // 2])
            t.add(s.name, "wait p99 ms", waits[len(waits) * 99 // 100])
        self.each(t, measure, [Mctunnel])

    def rules(self):
        """Printed by the unit test, whose program knows the rules without a listener around them."""
        t = self.table("rules", "Which rule applies", "Nanoseconds for one client or request: 10,000 rules with a host each, 1,000 networks and 20 expressions in one listener (made ready in so many ms).")
        program = os.path.join(TOP, "build/release/unit/tunnel/rules")
        run(["make", "-s", "-C", TOP, "build/release/unit/tunnel/rules"], timeout=600, quiet=True)
        for _ in range(self.runs):
            out = run([program, "20000"])
            t.add("mctunnel", "made ready, ms", float(re.search(r"made ready in ([\d.]+) ms", out)[1]))
            for what, ns in re.findall(r"^(.*?)\s+(\d+) ns a match", out, re.M):
                t.add("mctunnel", what.replace("|", "/"), float(ns))


def worker_of(master):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = descendants(master)[1:]
        if found:
            return found[0]
        time.sleep(0.01)
    raise Failed("there is no worker")


def wrk_ms(out, percent):
    found = re.search(r"\b%d%%\s+([\d.]+)(us|ms|s)" % percent, out)
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]
