#!/usr/bin/env python3
"""Two agents of one name: the incumbent keeps it, the newcomer is told so, waits calmly, and takes over when the other goes."""
import os
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say


def start(run, timeout="2s"):
    servers = [tcp.Server(run, tcp.banner(word)) for word in ("incumbent", "newcomer")]
    hub = scene.Hub(run, {"web": "site-a/web"}, hub={"heartbeat": {"interval": "500ms", "timeout": timeout}}).start().wait_ready()
    agents = []
    for word, server in zip(("incumbent", "newcomer"), servers):
        agents.append(scene.Agent(run, hub.authority, [hub.address], [scene.service("web", server.target)], file=word).start())
        hub.wait_links(2)
        if word == "incumbent":
            continue
        hub.wait_log("link_refused", reason="name_in_use")
    return hub, agents


def told_why(newcomer):
    harness.wait_until(lambda: [r for r in newcomer.log() if "name_in_use" in str(r)], "the newcomer to log why")


def test_incumbent_keeps_the_name(run):
    hub, (incumbent, newcomer) = start(run)
    chatter = Banner(hub.listen["web"])
    refusals = len(hub.log("link_refused"))
    began, names = time.monotonic(), []
    while time.monotonic() < began + 4:
        names.append(tcp.ask_name(hub.listen["web"]))
        time.sleep(0.1)
    equal(set(names), {"incumbent"}, "who serves")
    equal(hub.metric("mctunnel_links"), 2, "links")
    refused = len(hub.log("link_refused")) - refusals
    say("newcomer was refused %d times in 4 s" % refused)
    check(refused <= 30, "it retries too wildly")
    check(not hub.log("link_down"), "an incumbent's link went down")
    told_why(newcomer)
    chatter.still_there()


def test_newcomer_takes_over(run):
    for how in ("stop", "kill"):
        if how == "kill":
            run = again(run)
        hub, (incumbent, newcomer) = start(run)
        began = time.monotonic()
        if how == "stop":
            incumbent.stop()
        else:
            incumbent.abandon()
            for pid in proc.members(incumbent.master()):
                os.kill(pid, signal.SIGKILL)
        harness.wait_until(lambda: named(hub, "newcomer"), "the newcomer to take over", 60)
        say("%s: newcomer serves after %.1f s" % (how, time.monotonic() - began))
        hub.wait_links(2)


def test_newcomer_is_told_however_long_heartbeats_are(run):
    """It gives up after ten seconds: by then it must know why."""
    _, (_, newcomer) = start(run, "60s")
    told_why(newcomer)


def again(run):
    """A second scene within one scenario."""
    other = harness.Run(run.name, run.threads, run.dir)
    run.undo.callback(other.close)
    return other


def named(hub, word):
    try:
        return tcp.ask_name(hub.listen["web"]) == word
    except (OSError, harness.Failed):
        return False


class Banner:
    """One session held open."""

    def __init__(self, address):
        self.s = tcp.open_socket(address)
        self.lines = self.s.makefile("rb")
        self.name = self.lines.readline()

    def still_there(self):
        self.s.sendall(b"hello\n")
        equal(self.lines.readline(), b"hello\n", "the session held open")


if __name__ == "__main__":
    harness.main(globals())
