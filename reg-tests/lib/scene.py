"""Hubs and agents under test: their configuration, processes, logs and metrics. `pair()` makes the usual scene:
a hub and an agent, one tunnel "site-a", a listener for each service."""
import http.client
import json
import os
import re
import signal
import subprocess
import time

import harness
import pki
import proc
import tcp

HEARTBEAT = {"interval": "1s", "timeout": "10s"}  # no link ends because a busy machine kept a process waiting
QUICK = {"interval": "300ms", "timeout": "1500ms"}  # where silence is to be found


def binary():
    given = os.environ.get("MCTUNNEL")
    asan = os.path.join(harness.TOP, "build", "asan", "mctunnel")
    return os.path.abspath(given or (asan if os.path.exists(asan) else os.path.join(harness.TOP, "mctunnel")))


def release_binary():
    """For measurements: sanitizers change memory and speed beyond recognition."""
    for path in (os.path.join(harness.TOP, "build", "release", "mctunnel"), os.path.join(harness.TOP, "mctunnel")):
        if "asan" in binary() and os.path.exists(path):
            return path
    return binary()


# ---- configuration ----

def libconfig(value, depth=0):
    """Dicts are groups, lists are lists of groups or arrays of scalars, tuples are lists."""
    if isinstance(value, dict):
        inner = "".join("%s%s = %s;\n" % ("  " * depth, k, libconfig(v, depth + 1)) for k, v in value.items() if v is not None)
        return inner if depth == 0 else "{\n%s%s}" % (inner, "  " * (depth - 1))
    if isinstance(value, (list, tuple)):
        plain = isinstance(value, list) and not any(isinstance(v, (dict, list)) for v in value)
        return ("[ %s ]" if plain else "( %s )") % ", ".join(libconfig(v, depth + 1) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"')


def tunnel(name="site-a", agents=("edge-1",), services=("*",), **more):
    return dict(name=name, agents=list(agents), services=list(services), **more)


def service(name, target, **more):
    """target: (host, port), a path, or as the configuration has it."""
    written = isinstance(target, str) and not target.startswith("/")
    return dict(name=name, target=target if written else tcp.text(target), **more)


# ---- processes ----

class Program:
    """One running mctunnel (master and worker)."""

    def __init__(self, run, name, config, launcher=(), program=None, environment=None):
        self.run, self.name = run, name
        self.program = program or binary()
        self.launcher, self.environment = tuple(launcher), environment
        self.metrics_address = (run.host, run.port())
        self.log_path, self.err_path = run.path(name + ".log"), run.path(name + ".err")
        self.config_path = run.path(name + ".cfg")
        run.logs += [self.log_path, self.err_path]
        self.popen, self.stopped = None, True
        self.configure(config)

    def configure(self, config):
        everything = {"threads": self.run.threads, "hard_stop_after": "5s",
                      "log": ({"target": self.log_path, "format": "json", "level": "info"},),
                      "metrics": {"bind": "%s:%d" % self.metrics_address}}
        everything.update(config.pop("global", {}))
        self.config = dict({"global": everything}, **config)
        with open(self.config_path, "w") as f:
            f.write(libconfig(self.config))

    def start(self, **options):
        """options: for subprocess.Popen."""
        env = dict(os.environ, ASAN_OPTIONS="exitcode=99:abort_on_error=0:detect_leaks=1:handle_abort=0",
                   UBSAN_OPTIONS="print_stacktrace=1", TSAN_OPTIONS="exitcode=99:suppressions=" + os.path.join(harness.TOP, "reg-tests", "lib", "tsan.supp"))
        env.update(self.environment or {})
        self.started = time.monotonic()
        self.stopped = False
        with open(self.err_path, "ab") as err:
            self.popen = proc.start(self.run, [*self.launcher, self.program, "-f", self.config_path],
                                    stdin=subprocess.DEVNULL, stdout=err, stderr=err, env=env, **options)
        self.run.undo.callback(self._last_look)
        return self

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def must_run(self):
        harness.check(self.running(), self.name, "has ended with", self.popen.returncode, "\n", self.errors())
        return True

    def master(self):
        return self.popen.pid

    def worker(self, other_than=0, timeout=harness.PATIENCE):
        """The worker's process id, when there is one (other than an old one). A master has other children: who reads for a reload may even have a lower number."""
        def found():
            self.must_run()
            return [p for p in proc.children(self.popen.pid) if p != other_than and proc.name(p) == "mctunnel-worker"]
        return harness.wait_until(found, "a worker of " + self.name, timeout, 0.002)[0]

    def kill_worker(self):
        pid = self.worker()
        os.kill(pid, signal.SIGKILL)
        return pid

    def send(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, code=0, timeout=harness.PATIENCE):
        """Asks it to stop and wants that exit code, and nobody left."""
        self.must_run()
        self.send(number)
        self.ended(code, timeout)

    def ended(self, code, timeout=harness.PATIENCE):
        harness.wait_until(lambda: not self.running(), self.name + " to end", timeout)
        self.stopped = True
        harness.equal(self.popen.returncode, code, "exit code of " + self.name)
        harness.wait_until(lambda: not proc.members(self.popen.pid), "the worker of %s to be gone" % self.name)

    def abandon(self):
        """The test has killed it itself: no orderly stop at the end."""
        self.stopped = True

    def _last_look(self):
        """At the end of a scenario: it must still run, stop when asked, and have said nothing terrible."""
        if not self.stopped:
            self.stop()
        text = self.errors()
        for word in ("Sanitizer", "runtime error", "BUG", "backtrace"):
            harness.check(word not in text, self.name, "says:\n", text[-6000:])

    def errors(self):
        try:
            with open(self.err_path, errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    # ---- log ----

    def log(self, event=None, **facts):
        """The records of an event that have these facts."""
        records = []
        try:
            with open(self.log_path, errors="replace") as f:
                lines = f.readlines()
        except OSError:
            return records
        for line in lines:
            if not line.endswith("\n"):
                break
            record = json.loads(line)
            if event in (None, record.get("event")) and all(str(record.get(k)) == str(v) for k, v in facts.items()):
                records.append(record)
        return records

    def wait_log(self, event, count=1, timeout=harness.PATIENCE, **facts):
        what = "%d log records %s %s of %s" % (count, event, facts, self.name)
        return harness.wait_until(lambda: len(self.log(event, **facts)) >= count and self.log(event, **facts), what, timeout, 0.05)

    # ---- metrics ----

    def get(self, path):
        """(status, body) of the metrics address, (0, "") when it does not answer."""
        c = http.client.HTTPConnection(*self.metrics_address, timeout=5)
        try:
            c.request("GET", path)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            c.close()

    def metrics(self):
        """{name or name{labels}: value}; a name alone also has the sum over its labels."""
        values = {}
        for line in self.get("/metrics")[1].splitlines():
            m = re.match(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$", line)
            if m:
                name, labels, value = m.group(1), m.group(2), float(m.group(3))
                values[name] = values.get(name, 0) + value
                if labels:
                    values[name + labels] = value
        return values

    def known_metrics(self):
        """Of a page that is whole: an answer that does not come in time is no zero."""
        return harness.wait_until(lambda: self.must_run() and self.metrics(), "/metrics of " + self.name)

    def metric(self, name):
        """0: labels that nothing was counted for yet. A name without labels must be there."""
        m = self.known_metrics()
        harness.check(name in m or "{" in name, "there is no metric", name)
        return m.get(name, 0)

    def wait_metric(self, name, value, timeout=harness.PATIENCE):
        """Until it is exactly that (or, given a function, until that is true)."""
        good = value if callable(value) else lambda v: v == value
        seen = []

        def look():
            self.must_run()
            m = self.metrics()
            seen.append(m.get(name))
            return m and good(m.get(name, 0))
        try:
            harness.wait_until(look, "", timeout, 0.02)
        except harness.Failed:
            self.must_run()
            raise harness.Failed("%s of %s is %s after %.0f s" % (name, self.name, seen[-1], timeout)) from None
        harness.check(seen[-1] is not None or "{" in name, "there is no metric", name)

    def wait_ready(self, timeout=harness.PATIENCE):
        harness.wait_until(lambda: self.must_run() and self.get("/readyz")[0] == 200, self.name + " to be ready", timeout, 0.01)
        return self

    def wait_links(self, n, timeout=harness.PATIENCE):
        self.wait_metric("mctunnel_links", n, timeout)

    def nothing_left(self, timeout=harness.PATIENCE):
        """No session is left behind."""
        self.wait_metric("mctunnel_sessions", 0, timeout)


class Hub(Program):
    """listeners: {name: route or dict}; each gets an address of its own, in .listen[name]."""

    def __init__(self, run, listeners, tunnels=None, authority=None, name="hub", hub=None, timeouts=None, host=None, **options):
        self.authority = authority or pki.Pki(run.path("pki-" + name))
        self.host = host or run.host
        self.address = (self.host, run.port())
        self.listen = {}
        rows = []
        for key, row in listeners.items():
            row = dict(row) if isinstance(row, dict) else {"route": row}
            self.listen[key] = (self.host, run.port())
            rows.append(dict({"name": key, "bind": "%s:%d" % self.listen[key], "mode": "tcp"}, **row))
        cert, key = self.authority.hub(name)
        bind = {"address": "%s:%d" % self.address, "cert": cert, "key": key, "client_ca": self.authority.ca}
        hub = dict(hub or {})
        bind.update(hub.pop("bind", {}))
        config = {"hub": dict({"name": name, "bind": (bind,), "heartbeat": HEARTBEAT}, **hub),
                  "tunnels": tuple(tunnels or [tunnel()]), "listeners": tuple(rows),
                  "defaults": {"timeouts": dict({"queue": "2s", "resume": "20s"}, **(timeouts or {}))}}
        config["global"] = options.pop("settings", None) or {}
        super().__init__(run, name, config, **options)


class Agent(Program):
    """hubs: addresses to dial. cert: file name in the authority, made when it is not there."""

    def __init__(self, run, authority, hubs, services, name="edge-1", tunnel_name="site-a", links=2, file=None, cert=None, agent=None,
                 tls=None, timeouts=None, **options):
        cert, key = cert or authority.agent(name)
        config = {"agent": dict({"name": name, "tunnel": tunnel_name, "hubs": ["%s:%d" % h for h in hubs], "links": links,
                                 "tls": dict({"cert": cert, "key": key, "ca": authority.ca, "server_name": "hub.test"}, **(tls or {})),
                                 "backoff": {"min": "100ms", "max": "1s"}, "services": tuple(services)}, **(agent or {})),
                  "defaults": {"timeouts": dict({"resume": "20s"}, **(timeouts or {}))}}
        config["global"] = options.pop("settings", None) or {}
        super().__init__(run, file or name, config, **options)


class Pair:
    pass


def pair(run, services, via=None, links=2, hub=None, agent=None, timeouts=None, agent_timeouts=None, service_options=None, **options):
    """services: {name: target}. via(upstream) may put something between: it returns the address to dial.
    Comes back when the links are up."""
    p = Pair()
    p.hub = Hub(run, {name: "site-a/" + name for name in services}, hub=hub, timeouts=timeouts, **options).start()
    p.hub.wait_ready()
    p.listen = p.hub.listen
    p.dialled = via(p.hub.address) if via else p.hub.address
    rows = [service(name, target, **(service_options or {})) for name, target in services.items()]
    p.agent = Agent(run, p.hub.authority, [p.dialled], rows, links=links, agent=agent, timeouts=agent_timeouts, **options).start()
    p.links = links
    p.hub.wait_links(links)
    return p
