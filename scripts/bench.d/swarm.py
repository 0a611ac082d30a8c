"""Many simulated agents (reg-tests/tools/agents: the real engine) and a hub for them: what an idle link, a heartbeat and a handshake cost the hub."""
import os
import re
import signal
import subprocess
import time

from stage import TOP, Failed, cpu_of_threads, free_port, line_of, memory_of, run, wait_port

HUB = """global: {{ threads = 2; log = ( {{ target = "{folder}/swarm.log"; level = "info"; }} ); maxconn = 10000; }};
hub: {{ name = "hub"; heartbeat = {{ interval = "{interval}"; timeout = "10s"; }};
  bind = ( {{ address = "127.0.0.1:{port}"; cert = "{pki}/hub.pem"; key = "{pki}/hub.key"; client_ca = "{pki}/ca.pem"; }} ); }};
tunnels = ( {tunnels} );
listeners = ( {{ name = "echo"; bind = "127.0.0.1:{listener}"; route = "warm-1/echo-1"; }} );
"""
TUNNEL = '{ name = "%s"; agents = [ "%s" ]; services = [ "*" ]; }'
WARM = 50  # agents that come first: what all have in common is there before anything is measured


class Swarm:
    def __init__(self, stage, count, interval):
        self.stage, self.count, self.port, self.name = stage, count, free_port(), "mctunnel"
        run(["make", "-s", "-C", TOP, "FLAVOUR=release", "build/release/tools/agents"], timeout=600, quiet=True)
        names = ["warm-%d" % i for i in range(1, WARM + 1)] + ["agent-%d" % i for i in range(1, count + 1)]
        text = HUB.format(folder=stage.folder, interval=interval, port=self.port, listener=free_port(), pki=stage.path("pki"),
                          tunnels=",\n  ".join(TUNNEL % (n, n) for n in names))
        self.hub = stage.start([os.path.join(TOP, "mctunnel"), "-f", stage.write("swarm-%d.cfg" % self.port, text)])
        wait_port(self.port, "the hub")
        self.warm = self.agents("warm-", WARM)
        self.crowd = None

    def agents(self, prefix, count):
        p = self.stage.start([os.path.join(TOP, "build/release/tools/agents"), "--hub", "127.0.0.1:%d" % self.port, "--server-name", "hub",
                              "--pki", self.stage.path("pki"), "--count", str(count), "--prefix", prefix], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        up = int(re.search(r"up=(\d+)", line_of(p, "links:", 120))[1])
        if up != count:
            raise Failed("%d of %d agents came up" % (up, count))
        return p

    def cpu(self):
        time.sleep(0.2)  # what the hub does after the agents are content
        return cpu_of_threads([self.hub.pid])

    def memory(self):
        return memory_of([self.hub.pid])

    def arrive(self):
        """All agents for the first time: CPU seconds of the hub."""
        before = self.cpu()
        self.crowd = self.agents("agent-", self.count)
        return self.cpu() - before

    def come_back(self):
        """All lose their links at once and come again with their tickets: CPU seconds of the hub."""
        before = self.cpu()
        self.crowd.send_signal(signal.SIGUSR2)
        resumed = int(re.search(r"resumed=(\d+)", line_of(self.crowd, "back:", 120))[1])
        if resumed != self.count:
            raise Failed("%d of %d handshakes were resumed" % (resumed, self.count))
        return self.cpu() - before

    def heard(self):
        """How often agents have heard of the hub: of an idle link, the number of heartbeats."""
        total = 0
        for p in (self.warm, self.crowd):
            p.send_signal(signal.SIGUSR1)
            total += int(re.search(r"inputs=(\d+)", line_of(p, "state:", 20))[1])
        return total

    def beat(self, seconds):
        """CPU seconds of the hub and heartbeats while nothing else happens."""
        before, heard = self.cpu(), self.heard()
        time.sleep(seconds)
        heard = self.heard() - heard
        return self.cpu() - before, heard

    def stop(self):
        self.stage.end([p for p in (self.crowd, self.warm, self.hub) if p])
