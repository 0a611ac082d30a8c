#!/usr/bin/env python3
"""Keys of TLS tickets that a pair shares: an agent resumes at the other hub, also while the keys are rotated by a reload."""
import base64
import os
import signal
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki
import scene
import tcp
from harness import check, equal


def key():
    return base64.b64encode(os.urandom(80)).decode() + "\n"


def write(path, text):
    with open(path, "w") as f:
        f.write("# shared\n" + text)
    os.chmod(path, 0o600)


class Pair:
    """Two hubs that take turns at one address, as behind a virtual one."""

    def __init__(self, run, revoked=False):
        self.run, self.authority, self.ups = run, pki.Pki(run.path("pki")), {}
        self.files = {n: run.path("keys-" + n) for n in "ab"}
        self.a = self.hub("a")
        self.b = self.hub("b", bind={"address": "%s:%d" % self.a.address, **({"crl": self.revoke()} if revoked else {})})
        echo = tcp.Server(run, tcp.echo)
        self.agent = scene.Agent(run, self.authority, [self.a.address], [scene.service("echo", echo.target)], links=1)

    def hub(self, name, **more):
        return scene.Hub(self.run, {"echo": "site-a/echo"}, authority=self.authority, name="hub-" + name, hub=more,
                         settings={"ticket_keys": self.files[name]})

    def revoke(self):
        self.authority.agent("edge-1")
        self.authority.revoke("edge-1")
        return self.authority.crl()

    def resumed(self, hub):
        """Whether the newest link did. Its line is written by a thread of its own, a moment later."""
        hub.wait_links(1)
        tcp.ask(hub.listen["echo"])  # by now the agent has its ticket
        harness.wait_until(lambda: len(hub.log("link_up")) > self.ups.get(hub, 0), "the line of the link")
        self.ups[hub] = len(hub.log("link_up"))
        return hub.log("link_up")[-1]["resumed"]

    def move(self, old, new):
        old.stop()
        new.start().wait_ready()
        return self.resumed(new)


def test_the_other_hub(run):
    shared = key()
    p = Pair(run)
    for f in p.files.values():
        write(f, shared)
    p.a.start().wait_ready()
    p.agent.start()
    equal(p.resumed(p.a), "no", "first handshake")
    equal(p.move(p.a, p.b), "yes", "at the other hub")
    equal(p.move(p.b, p.a), "yes", "back")
    write(p.files["b"], key())
    equal(p.move(p.a, p.b), "no", "at a stranger")


def test_revoked_at_the_other_hub(run):
    """What the ticket remembers of the certificate is enough to refuse it."""
    p = Pair(run, revoked=True)
    shared = key()
    for f in p.files.values():
        write(f, shared)
    p.a.start().wait_ready()
    p.agent.start()
    p.resumed(p.a)
    p.a.stop()
    p.b.start().wait_ready()
    harness.wait_until(lambda: any("revoked" in x["text"] for x in p.b.log("link_refused")), "the refusal")
    equal(len(p.b.log("link_up")), 0, "links of one whose certificate is revoked")


def reload(hub, good=True):
    before = hub.metrics()
    name = 'mctunnel_reloads_total{result="%s"}' % ("ok" if good else "failed")
    hub.send(signal.SIGHUP)
    hub.wait_metric(name, before.get(name, 0) + 1)


def test_rotated_by_a_reload(run):
    old, new = key(), key()
    p = Pair(run)
    write(p.files["a"], old)
    write(p.files["b"], new + old)
    p.a.start().wait_ready()
    p.agent.start()
    p.resumed(p.a)
    write(p.files["a"], new + old)
    reload(p.a)
    check(p.a.wait_links(1) is None and len(p.a.log("link_up")) == 1, "the reload has cost the link")
    equal(p.move(p.a, p.b), "yes", "a ticket sealed before the rotation")
    write(p.files["b"], "no key\n")
    reload(p.b, good=False)
    harness.wait_until(lambda: "line 2 is no key" in str(p.b.log()), "the reload to say what is wrong")
    write(p.files["b"], new)
    reload(p.b)
    p.b.kill_worker()
    harness.wait_until(lambda: len(p.b.log("link_up")) > 1, "the link to come back")
    equal(p.resumed(p.b), "yes", "a ticket sealed after the rotation")


if __name__ == "__main__":
    harness.main(globals())
