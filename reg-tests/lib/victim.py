"""What attacks are made on: a hub with an honest agent, a session of it that goes on, and a tunnel for the attacker."""
import harness
import proc
import raw
import scene
import tcp
from harness import equal, say, wait_until

PATIENT = {"interval": "1s", "timeout": "30s"}  # attackers answer no PING: what ends their links is something else


class Scene:
    """A hub, an honest agent of site-a behind listener "good" with a session that goes on, and a listener "bad" to site-b, the attacker's."""

    def __init__(self, run, **more):
        self.run = run
        more["hub"] = dict({"heartbeat": PATIENT}, **more.get("hub", {}))
        server = tcp.Server(run, tcp.echo)
        self.hub = scene.Hub(run, {"good": "site-a/echo", "bad": "site-b/echo"},
                             [scene.tunnel(), scene.tunnel("site-b", ["edge-2"], ["echo", "x*"])], environment=raw.FRUGAL, **more).start().wait_ready()
        self.agent = scene.Agent(run, self.hub.authority, [self.hub.address], [scene.service("echo", server.address)]).start()
        self.hub.wait_links(2)
        self.good, self.bad = self.hub.listen["good"], self.hub.listen["bad"]
        self.hub.authority.agent("edge-2")
        self.pid = self.hub.worker()
        self.before = proc.resident(self.pid)[0]
        self.chat = tcp.Chatter(self.good)
        self.clients = []

    def attacker(self, text=None, first=None):
        a = raw.Agent(self.hub).greet(text, first)
        self.run.undo.callback(a.close)
        return a

    def client(self):
        s = tcp.open_socket(self.bad)
        self.clients.append(s)
        return s

    def session(self, a):
        """A session on the attacker's link: (client, stream), answered."""
        s = self.client()
        return s, a.accept()

    def grown(self):
        return proc.resident(self.pid)[0] - self.before

    def unharmed(self):
        self.chat.go_on()
        tcp.ask(self.good)
        equal(self.hub.worker(), self.pid, "the worker")

    def over(self):
        """After the attack: nobody was disturbed, the CPU is free again."""
        self.unharmed()
        for s in self.clients:
            s.close()
        wait_until(lambda: proc.cpu_of(self.pid) < 0.3, "the hub to be idle after the attack")
        times = self.chat.stop()
        say("echo beside: " + harness.spread(times))
