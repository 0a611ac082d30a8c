#!/usr/bin/env python3
"""What a client gets when something is missing: an end at once or after the queue's time, and a log line with the reason."""
import os
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


def refused(hub, address, reason, at_least=0.0, at_most=15.0):
    """The client is closed without a byte, and the log says why."""
    before = len(hub.log("session", reason=reason))
    took = tcp.refused_after(address, at_most + 5)
    check(at_least <= took <= at_most, "closed after %.3f s" % took)
    record = hub.wait_log("session", count=before + 1, reason=reason)[-1]
    say("%s after %.0f ms, end state %s" % (reason, 1000 * took, record["end"]))
    return record


def test_target_refuses(run):
    dead = (run.host, run.port())
    p = scene.pair(run, {"dead": dead, "echo": tcp.Server(run, tcp.echo).target})
    equal(refused(p.hub, p.listen["dead"], "target_refused")["end"][0], "S")
    refused(p.hub, p.listen["dead"], "target_refused")
    tcp.ask(p.listen["echo"])
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_unix_target_missing(run):
    p = scene.pair(run, {"dead": run.path("nobody.sock")})
    tcp.refused_after(p.listen["dead"])
    record = p.hub.wait_log("session")[0]
    check(record["reason"] in ("target_refused", "target_unreachable"), record)
    equal(p.agent.wait_log("session")[0]["text"], "connecting to unix:%s: No such file or directory" % run.path("nobody.sock"), "why")


def test_target_does_not_answer(run):
    """A listener with a full queue: connecting to it hangs."""
    full = socket.socket()
    full.bind((run.host, run.port()))
    full.listen(0)
    fill = []
    for _ in range(3):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(full.getsockname())
        fill.append(s)
    time.sleep(0.1)
    p = scene.pair(run, {"slow": full.getsockname()}, timeouts={"connect": "1s"}, agent_timeouts={"connect": "500ms"})
    tcp.refused_after(p.listen["slow"], 15)
    record = p.hub.wait_log("session")[0]
    check(record["reason"] in ("target_timeout", "connect_timeout"), record)
    say(record["reason"], "after", record["total"], "ms")


def test_no_such_service(run):
    echo = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"web": "site-a/web", "none": "site-a/none"}).start().wait_ready()
    agent = scene.Agent(run, hub.authority, [hub.address], [scene.service("web", echo.target)]).start()
    hub.wait_links(2)
    tcp.refused_after(hub.listen["none"])
    record = hub.wait_log("session", listener="none")[0]
    check(record["reason"] in ("no_service", "no_agent"), record)
    say(record["reason"], "after", record["total"], "ms")
    tcp.ask(hub.listen["web"])
    agent.nothing_left()


def test_agents_maxconn(run):
    echo = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"x": echo.target}, service_options={"maxconn": 2}, timeouts={"queue": "500ms"})
    first, second = tcp.Chatter(p.listen["x"]), tcp.Chatter(p.listen["x"])
    record = refused(p.hub, p.listen["x"], "agent_full")
    check(record["end"][0] == "S", record)
    first.stop()
    p.hub.wait_metric("mctunnel_sessions", 1)
    harness.wait_until(lambda: _works(p.listen["x"]), "room for a new session")
    second.stop()


def _works(address):
    try:
        tcp.ask(address)
        return True
    except (OSError, harness.Failed):
        return False


def test_no_agent_until_the_queue_ends(run):
    hub = scene.Hub(run, {"x": "site-a/x"}, timeouts={"queue": "800ms"}).start().wait_ready()
    record = refused(hub, hub.listen["x"], "no_agent", at_least=0.7, at_most=10)
    check(700 <= record["queue"] <= 10000, "queue time in the log:", record["queue"])
    equal(record["end"][0], "s", "end state")
    hub.nothing_left()


def test_client_waits_for_an_agent(run):
    echo = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"x": "site-a/x"}, timeouts={"queue": "25s"}).start().wait_ready()
    asking = harness.Background(tcp.ask, hub.listen["x"])
    hub.wait_metric("mctunnel_queue_sessions", 1)
    scene.Agent(run, hub.authority, [hub.address], [scene.service("x", echo.target)]).start()
    asking.finish()
    record = hub.wait_log("session", reason="done")[0]
    say("waited %s ms" % record["queue"])
    hub.wait_metric("mctunnel_queue_sessions", 0)


def test_client_leaves_the_queue(run):
    """A client that goes while it waits is forgotten at once."""
    hub = scene.Hub(run, {"x": "site-a/x"}, timeouts={"queue": "25s"}).start().wait_ready()
    s = tcp.open_socket(hub.listen["x"])
    hub.wait_metric("mctunnel_queue_sessions", 1)
    tcp.reset(s)
    hub.wait_metric("mctunnel_queue_sessions", 0, 20)
    hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
