"""A failover pair in network namespaces: two hubs with the real keepalived, two agents with their targets, a client, one bridge.
Configurations are made from the examples in etc/, so that what is measured is what is shipped. Knows how to build it, to break it and
to look at it; what a case is and what it has to prove is cases.py's.

    client 10.77.0.21 --+-- bridge --+-- hub1 10.77.0.1   virtual address 10.77.0.100
                        |            +-- hub2 10.77.0.2
        agent1 10.77.0.11, agent2 10.77.0.12: each with a target that says its name
"""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import proc
from harness import PATIENCE, TOP, Failed, wait_until
from proc import alive, children

VIP, PORT, HUB_PORT = "10.77.0.100", 7000, 8443
HOSTS = {"hub1": "10.77.0.1", "hub2": "10.77.0.2", "agent1": "10.77.0.11", "agent2": "10.77.0.12", "client": "10.77.0.21"}
HUBS, AGENTS = ("hub1", "hub2"), ("agent1", "agent2")
LINKS = 2


def now_ms():
    """On the same clock as probe's output."""
    return time.monotonic() * 1e3


def run(*args, check=True):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode:
        raise Failed("%s: %s" % (" ".join(args), done.stdout.strip()))
    return done.stdout


class Lab:
    """folder: everything it writes. mctunnel: the binary. tie: for subprocess.Popen, say a preexec_fn that ends processes with this one."""

    def __init__(self, folder, mctunnel=None, threads=2, tie=None):
        self.folder = folder
        self.tag = "mctlab%x" % (hash_of(folder) & 0xffff)
        self.mctunnel = os.path.abspath(mctunnel or os.path.join(TOP, "build", "release", "mctunnel"))
        self.ctl = os.path.join(os.path.dirname(self.mctunnel), "mctunnelctl")
        if not os.path.exists(self.ctl):
            self.ctl = os.path.join(TOP, "mctunnelctl")
        self.threads, self.tie = threads, tie or {}
        self.mine = []  # Popens, to be reaped

    def path(self, name):
        return os.path.join(self.folder, name)

    # ---- network ----

    def ns(self, host):
        return "%s-%s" % (self.tag, host)

    def inside(self, host):
        return ["nsenter", "--net=/run/netns/" + self.ns(host), "--"]

    def _ip(self, host, *args, check=True):
        return run("ip", "-n", self.ns(host), *args, check=check)

    def _build_network(self):
        run("ip", "netns", "attach", self.ns("outside"), str(os.getpid()))
        run("ip", "netns", "add", self.ns("bridge"))
        self._ip("bridge", "link", "add", "br0", "type", "bridge")
        self._ip("bridge", "link", "set", "br0", "up")
        for host, address in HOSTS.items():
            run("ip", "netns", "add", self.ns(host))
            self._ip("bridge", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", self.ns(host))
            self._ip("bridge", "link", "set", host, "master", "br0", "up")
            self._ip(host, "link", "set", "lo", "up")
            self._ip(host, "addr", "add", address + "/24", "dev", "eth0")
            self._ip(host, "link", "set", "eth0", "up")

    def unplug(self, host):
        """Its cable is pulled, or it has no power: nothing comes from it, and it sees that."""
        self._ip("bridge", "link", "set", host, "down")

    def plug(self, host):
        self._ip("bridge", "link", "set", host, "up")

    def cut(self, host):
        """Everything between it and the others vanishes silently; the cable seems to be in order."""
        run(*self.inside("bridge"), "bridge", "link", "set", "dev", host, "state", "0")

    def mend(self, host):
        run(*self.inside("bridge"), "bridge", "link", "set", "dev", host, "state", "3")

    def has_vip(self, host):
        return " %s/" % VIP in self._ip(host, "-4", "addr", "show", "dev", "eth0")

    def owners(self):
        return [h for h in HUBS if self.has_vip(h)]

    def owner(self):
        return wait_until(lambda: len(self.owners()) == 1 and self.owners()[0], "one owner of the virtual address")

    @staticmethod
    def other(hub):
        return HUBS[1 - HUBS.index(hub)]

    # ---- processes ----

    def start(self, name, host, command, environment=None, out=None):
        """In the background, its pid in a file, so that any later process of ours can end it. One that has this name still is ended."""
        self.end(name)
        log = open(out or self.path(name + ".out"), "ab")
        p = subprocess.Popen([*(self.inside(host) if host else []), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             start_new_session=True, env=dict(os.environ, **(environment or {})), cwd="/", **self.tie)
        log.close()
        self.mine.append(p)
        with open(self.path(name + ".pid"), "w") as f:
            f.write(str(p.pid))
        return p

    def pid(self, name):
        try:
            with open(self.path(name + ".pid")) as f:
                return int(f.read())
        except (OSError, ValueError):
            return 0

    def runs(self, name):
        self.reap()
        return self.pid(name) and alive(self.pid(name))

    def reap(self):
        self.mine = [p for p in self.mine if p.poll() is None]

    def end(self, name, number=signal.SIGKILL):
        """Kills it and whatever belongs to its session."""
        pid = self.pid(name)
        if not pid:
            return
        for p in proc.members(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, number)
        wait_until(lambda: self.reap() or not proc.members(pid), name + " to be gone", 10)
        os.unlink(self.path(name + ".pid"))

    # ---- hubs ----

    def hub_config(self, hub):
        pki = self.path("pki/")
        return ('global: { threads = %d; hard_stop_after = "2s"; health_file = "%s"; ticket_keys = "%sticket.keys"; maxconn = 5000;\n'
                '  log = ( { target = "%s"; format = "json"; level = "info"; } );\n'
                '  admin = ( { bind = "unix:%s"; } ); };\n'
                'defaults: { timeouts: { connect = "1s"; queue = "5s"; resume = "10s"; }; };\n'
                'hub: { name = "%s"; bind = ( { address = "*:%d"; cert = "%s"; key = "%s"; client_ca = "%sca.pem"; crl = "%scrl.pem"; } );\n'
                '  heartbeat = { interval = "200ms"; timeout = "600ms"; }; };\n'
                'tunnels = ( { name = "site"; agents = [ "agent1", "agent2" ]; services = [ "echo" ]; balance = "roundrobin"; } );\n'
                'listeners = ( { name = "echo"; bind = "%s:%d"; route = "site/echo"; } );\n'
                % (self.threads, self.path(hub + ".run/health"), pki, self.path(hub + ".log"), self.path(hub + ".run/admin.sock"), hub,
                   HUB_PORT, pki + hub + ".pem", pki + hub + ".key", pki, pki, VIP, PORT))

    def worker_name(self, hub):
        """15 characters at most. keepalived looks for it on the whole machine, where other labs may be."""
        return "%s-%s" % (self.tag, hub)

    def start_hub(self, hub):
        os.makedirs(self.path(hub + ".run"), exist_ok=True)
        self.write(hub + ".cfg", self.hub_config(hub))
        self.start(hub, hub, [self.mctunnel, "-f", self.path(hub + ".cfg")], self.preload("MCTUNNEL_LAB_WORKER", self.worker_name(hub)))

    def preload(self, key, value):
        return {"LD_PRELOAD": self.path("shim.so"), "ASAN_OPTIONS": "verify_asan_link_order=0", key: value}

    def master(self, hub):
        return self.pid(hub)

    def worker(self, hub):
        return wait_until(lambda: children(self.pid(hub)), "a worker of " + hub)[0]

    def ask(self, hub, command):
        """The answer of the hub's admin socket, "" when there is none."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2)
            s.connect(self.path(hub + ".run/admin.sock"))
            s.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: s.recv(65536), b"")).decode()
        return ""

    def info(self, hub):
        try:
            return json.loads(self.ask(hub, "show info json"))
        except ValueError:
            return {}

    rest_s = 0  # a link that was lost younger than 10 s is not dialled again at once: whoever measures wants older ones

    def rested(self, hub):
        """The links of a hub are old enough."""
        def old():
            with contextlib.suppress(ValueError):
                ages = [row["age"] for row in json.loads(self.ask(hub, "show links json"))]
                return len(ages) == LINKS * len(AGENTS) and min(ages) >= self.rest_s
        wait_until(old, "old links at " + hub, PATIENCE + self.rest_s)

    def log(self, hub, event=None):
        records = []
        with contextlib.suppress(OSError), open(self.path(hub + ".log")) as f:
            records = [json.loads(line) for line in f if line.endswith("\n")]
        return [r for r in records if event in (None, r["event"])]

    # ---- keepalived ----

    def keepalived_config(self, hub):
        """The shipped example with this lab's addresses and paths."""
        with open(os.path.join(TOP, "etc", "keepalived", "keepalived-%s.conf" % ("master" if hub == "hub1" else "backup"))) as f:
            text = f.read()
        for old, new in (("192.0.2.10/24", VIP + "/24"), ("192.0.2.11", HOSTS["hub1"]), ("192.0.2.12", HOSTS["hub2"]),
                         ("script_user mctunnel mctunnel", "script_user root"), ("process mctunnel-worker", "process " + self.worker_name(hub)),
                         ("/run/mctunnel/health", self.path(hub + ".run/health")),
                         ("/usr/libexec/mctunnel/", self.path("libexec/"))):
            if old not in text:
                raise Failed("the example of keepalived's configuration does not say " + old)
            text = text.replace(old, new)
        return text

    def start_keepalived(self, hub):
        name = "keepalived-" + hub
        self.write(name + ".conf", self.keepalived_config(hub))
        files = {"-p": self.path(name + ".main"), "-r": self.path(name + ".vrrp")}
        for f in files.values():  # of one that was killed, and that nobody may have waited for yet
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f)
        environment = dict(self.preload("MCTUNNEL_LAB_OUTSIDE", "/run/netns/" + self.ns("outside")), MCTUNNELCTL=self.ctl,
                           MCTUNNEL_SOCKET=self.path(hub + ".run/admin.sock"))
        self.start(name, hub, ["keepalived", "-n", "-l", "-D", "-P", "-f", self.path(name + ".conf"),
                               *(w for pair in files.items() for w in pair)], environment)

    # ---- agents, targets ----

    def agent_config(self, agent, hubs):
        pki = self.path("pki/")
        return ('global: { threads = 1; hard_stop_after = "2s"; log = ( { target = "%s"; format = "json"; } );\n'
                '  admin = ( { bind = "unix:%s"; } ); };\n'
                'agent: { name = "%s"; tunnel = "site"; links = %d; hubs = [ %s ];\n'
                '  tls = { cert = "%s"; key = "%s"; ca = "%sca.pem"; server_name = "hub.lab"; };\n'
                '  backoff = { min = "100ms"; max = "1s"; };\n'
                '  services = ( { name = "echo"; target = "127.0.0.1:9000"; } ); };\n'
                % (self.path(agent + ".log"), self.path(agent + ".sock"), agent, LINKS,
                   ", ".join('"%s:%d"' % (h, HUB_PORT) for h in hubs), pki + agent + ".pem", pki + agent + ".key", pki))

    def start_agent(self, agent, hubs):
        self.write(agent + ".cfg", self.agent_config(agent, hubs))
        self.start(agent, agent, [self.mctunnel, "-f", self.path(agent + ".cfg")])

    def know(self, hubs):
        """What agents dial from now on: both hubs, or the virtual address only."""
        for agent in AGENTS:
            self.write(agent + ".cfg", self.agent_config(agent, hubs))
            os.kill(self.pid(agent), signal.SIGHUP)

    # ---- all of it ----

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)

    def _make_pki(self):
        pki = os.path.join(TOP, "scripts", "mctunnel-pki")
        environment = dict(os.environ, MCTUNNEL_PKI=self.path("pki"), MCTUNNEL_PKI_OWNER="-")
        for words in (["init", self.path("pki")], *(["hub", h, "hub.lab"] for h in HUBS), *(["agent", a] for a in AGENTS), ["ticket-key"]):
            done = subprocess.run([pki, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise Failed(done.stdout)

    def _build_tools(self):
        self.probe = os.path.join(TOP, "build", "release", "tools", "probe")
        source = os.path.join(TOP, "reg-tests", "failover", "shim.c")
        os.makedirs(os.path.dirname(self.probe), exist_ok=True)
        with open(self.probe + ".lock", "w") as lock:  # several labs at a time
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(self.probe) or os.path.getmtime(self.probe) < os.path.getmtime(os.path.join(TOP, "reg-tests/tools/probe.c")):
                run("make", "-s", "-C", TOP, "FLAVOUR=release", "build/release/tools/probe")
        run("cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", self.path("shim.so"), source)
        os.makedirs(self.path("libexec"))
        for script in ("keepalived-check", "keepalived-notify"):
            shutil.copy(os.path.join(TOP, "scripts", script), self.path("libexec"))

    def prepare(self):
        """Hosts and cables, programs and certificates; nothing runs yet."""
        self.down()
        os.makedirs(self.folder, mode=0o755)
        self._build_tools()
        self._make_pki()
        self._build_network()

    def up(self):
        """Comes back when everything serves."""
        for program in (self.mctunnel, self.ctl):
            if not os.path.exists(program):
                raise Failed("%s is not there: make" % program)
        if not shutil.which("keepalived"):
            raise Failed("keepalived is not installed")
        self.prepare()
        for agent in AGENTS:
            self.start("target-" + agent, agent, [self.probe, "target", "127.0.0.1:9000", agent])
            self.start_agent(agent, [HOSTS[h] for h in HUBS])
        for hub in HUBS:
            self.start_hub(hub)
        for hub in HUBS:
            wait_until(lambda: self.info(hub).get("Links") == LINKS * len(AGENTS), "the agents at " + hub)
            self.start_keepalived(hub)
            if hub == "hub1":
                wait_until(lambda: self.has_vip("hub1"), "hub1 to have the virtual address")
        self.healthy()

    def attach(self):
        """To a lab that another process has brought up."""
        if not os.path.exists(self.path("shim.so")):
            raise Failed("the lab is not up: scripts/lab up")
        self.probe = os.path.join(TOP, "build", "release", "tools", "probe")
        return self

    def settled(self):
        """Agents that know the virtual address only have their links where that is."""
        wait_until(lambda: len(self.owners()) == 1 and [self.info(h).get("Links") for h in (self.owner(), self.other(self.owner()))] ==
                   [LINKS * len(AGENTS), 0] and not [f for f in self.faults() if "links" not in f], "the agents to be at the virtual address")

    def faults(self):
        """What is not as it should be, in words."""
        bad = [n + " does not run" for n in (*HUBS, *AGENTS, *("keepalived-" + h for h in HUBS)) if not self.runs(n)]
        owners = self.owners()
        if len(owners) != 1:
            bad.append("the virtual address is on %s" % (" and ".join(owners) or "no host"))
        for hub in HUBS:
            info = self.info(hub)
            if info.get("State") != "serving":
                bad.append(hub + " does not serve")
            elif info.get("Links") != LINKS * len(AGENTS):
                bad.append("%s has %s links" % (hub, info.get("Links")))
            role = "master" if hub in owners else "backup"
            if info and info.get("Vip") != role:
                bad.append("%s says it is %s, not %s" % (hub, info.get("Vip"), role))
        return bad

    def healthy(self, timeout=PATIENCE):
        faults = []

        def look():
            faults[:] = self.faults()
            return not faults
        try:
            wait_until(look, "", timeout, 0.05)
        except Failed:
            raise Failed("; ".join(faults)) from None

    def status(self):
        for hub in HUBS:
            info = self.info(hub)
            print("%-7s %-14s %-9s role %-8s links %-3s sessions %-4s %s" % (
                hub, HOSTS[hub], info.get("State", "away"), info.get("Vip", "-"), info.get("Links", "-"), info.get("CurrConns", "-"),
                "<- " + VIP if self.has_vip(hub) else ""))
        for fault in self.faults():
            print("  !", fault)

    def down(self):
        """Also what a lab of this folder has left behind that did not end in order."""
        if os.path.isdir(self.folder):
            for name in os.listdir(self.folder):
                if name.endswith(".pid"):
                    with contextlib.suppress(Failed):
                        self.end(name[:-4])
            shutil.rmtree(self.folder)
        for host in (*HOSTS, "bridge", "outside"):
            if os.path.exists("/run/netns/" + self.ns(host)):
                run("ip", "netns", "del", self.ns(host), check=False)


def hash_of(text):
    h = 5381
    for c in text.encode():
        h = (h * 33 + c) & 0xffffffff
    return h
