#!/usr/bin/env python3
"""Checks of type tcp, and what follows from any check: the words, the hub that hears of it, the sessions that go elsewhere."""
import csv
import io
import json
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import scene
import tcp
import watching
from harness import check, equal, stays, wait_until
from watching import Target, named, wait_service


def greeting(address):
    """The word of the target behind that listener."""
    with tcp.open_socket(address) as s:
        line = b""
        while not line.endswith(b"\n"):
            data = s.recv(100)
            if not data:
                return None
            line += data
        return line.decode().strip()


def test_up_down_up(run):
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp")})
    row = wait_service(p.hub, "UP", check="L4OK")
    equal(row["agent"], "edge-1")
    wait_service(p.agent, "UP", check="L4OK")
    equal(greeting(p.listen["x"]), "one")
    equal(p.hub.metric('mctunnel_service_up{tunnel="site-a",service="x",agent="edge-1"}'), 1)

    t.fall()
    row = wait_service(p.hub, "DOWN", check="L4CON")
    check("refused" in row["why"], row)
    check(row["since"] < 60, row)
    row = wait_service(p.agent, "DOWN", check="L4CON")
    check(row["took_ms"] < 5000, row)
    p.hub.wait_metric('mctunnel_service_up{tunnel="site-a",service="x",agent="edge-1"}', 0)
    equal(p.hub.metric("mctunnel_links"), 2, "links")
    equal(p.agent.metric('mctunnel_check_up{service="x"}'), 0)
    row = json.loads(p.hub.get("/status.json")[1])["services"][0]
    check(row["state"] == "down" and row["why"].startswith("edge-1: L4CON, "), row)
    row = json.loads(p.agent.get("/status.json")[1])["targets"][0]
    equal((row["state"], row["check"]), ("down", "L4CON"))
    check("edge-1: L4CON" in p.hub.get("/")[1], "the page")
    down = p.hub.wait_log("check", state="DOWN", service="x", agent="edge-1", tunnel="site-a", status="L4CON")
    equal(len(down), 1, "lines of the hub")
    down = p.agent.wait_log("check", state="DOWN", service="x", status="L4CON")
    equal(len(down), 1, "lines of the agent")
    check("refused" in down[0]["text"] and "ms" in down[0], down)

    t.rise()
    wait_service(p.hub, "UP", check="L4OK")
    equal(greeting(p.listen["x"]), "one")
    ups = 1 + first_up(p.hub)
    equal(len(p.hub.wait_log("check", ups, state="UP", service="x")), ups, "lines of the hub")
    equal(p.hub.metric("mctunnel_links_broken_total"), 0, "links broken")
    m = p.agent.metrics()
    check(m['mctunnel_checks_total{service="x",status="L4CON"}'] >= 2, m)
    equal(m['mctunnel_check_changes_total{service="x",state="DOWN"}'], 1)
    check(m['mctunnel_check_seconds_count{service="x"}'] > 4, m)


def first_up(hub):
    """The links may have come before the first check: then the hub saw the service rise as well."""
    down = hub.log("check", state="DOWN")[0]
    return sum(r["time"] < down["time"] for r in hub.log("check", state="UP"))


def test_begins_as_down(run):
    """Nothing is sent to a target that was never seen alive; clients wait meanwhile, and are served as soon as it is."""
    t = Target(run)
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp", rise=5)}, hub={"timeouts": {"queue": "30s"}})
    wait_service(p.agent, "DOWN", check="L4CON")
    equal(len(p.agent.wait_log("check", state="DOWN")), 1)
    client = harness.Background(greeting, p.listen["x"])
    p.hub.wait_metric("mctunnel_queue_sessions", 1)
    t.rise(named("late"))
    equal(client.finish(), "late")
    row = wait_service(p.agent, "UP")
    check(row["check"] == "L4OK", row)


def test_words_in_between(run):
    """UP 1/2 and DOWN 1/3, as HAProxy counts; the hub is not told."""
    t = Target(run, named("x"))
    slow = watching.check(type="tcp", rise=3, fall=2, interval="50ms", fastinter="1500ms", downinter="50ms")
    p = watching.site(run, [{"x": t.address}], {"x": slow})
    wait_service(p.agent, "UP")
    t.fall()
    wait_service(p.agent, "UP 1/2", check="L4CON")
    equal(watching.service(p.hub)["status"], "UP")
    wait_service(p.agent, "DOWN", check="L4CON")
    wait_service(p.hub, "DOWN", check="L4CON")
    t.rise()
    wait_service(p.agent, "DOWN 1/3", check="L4OK")
    row = watching.service(p.hub)
    equal((row["status"], row["check"]), ("DOWN", "L4CON"))
    wait_service(p.hub, "UP")


def test_timeout(run):
    """Nobody answers to SYN: L4TOUT, and the check does not hold up anything meanwhile."""
    t = Target(run, named("one"))
    quiet = Target(run)
    block = socket.socket()
    block.bind(quiet.address)
    block.listen(0)  # a queue of one: who comes later is not answered
    fillers = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(quiet.address)
        fillers.append(s)
    p = watching.site(run, [{"x": t.address, "q": quiet.address}],
                      {"x": watching.check(type="tcp"), "q": watching.check(type="tcp", timeout="300ms")})
    wait_service(p.hub, "UP", "x")
    wait_service(p.hub, "DOWN", "q", check="L4TOUT")
    equal(greeting(p.listen["x"]), "one")
    for s in fillers + [block]:
        s.close()
    quiet.rise(named("two"))
    wait_service(p.hub, "UP", "q")
    equal(greeting(p.listen["q"]), "two")


def test_unix_socket_and_name(run):
    t = Target(run, named("local"), address=run.path("t.sock"))
    p = watching.site(run, [{"x": t.address, "n": "no-such-host.invalid:80"}], {"x": watching.check(type="tcp"), "n": watching.check(type="tcp", timeout="10s")})
    wait_service(p.hub, "UP", "x")
    row = wait_service(p.hub, "DOWN", "n", check="L4CON")
    check("resolve" in row["why"], row)
    t.fall()
    wait_service(p.hub, "DOWN", "x", check="L4CON")


def test_other_agent_takes_over(run):
    """Two agents, one target dies: once it is down nobody meets it, and no link is touched."""
    targets = [Target(run, named("one")), Target(run, named("two"))]
    p = watching.site(run, [{"x": t.address} for t in targets], {"x": watching.check(type="tcp")}, agents=("edge-1", "edge-2"))
    for a in ("edge-1", "edge-2"):
        wait_service(p.hub, "UP", agent=a)
    wait_until(lambda: greeting(p.listen["x"]) == "one", "a session by the first agent")
    wait_until(lambda: greeting(p.listen["x"]) == "two", "a session by the second agent")
    targets[0].fall()
    wait_service(p.hub, "DOWN", agent="edge-1")
    for _ in range(50):
        equal(greeting(p.listen["x"]), "two")
    equal(watching.service(p.hub, agent="edge-2")["status"], "UP")
    equal(p.hub.metric("mctunnel_links"), 4)
    targets[0].rise()
    wait_service(p.hub, "UP", agent="edge-1")
    wait_until(lambda: greeting(p.listen["x"]) == "one", "a session by the first agent again")
    failed = [r for r in p.hub.log("session") if r["reason"] not in ("done", "client_reset")]
    equal(failed, [])


def test_death_of_a_target_costs_nobody(run):
    """Clients come all the time: those who meet the dead target before its check does are taken to the other agent."""
    targets = [Target(run, named("one")), Target(run, named("two"))]
    p = watching.site(run, [{"x": t.address} for t in targets], {"x": watching.check(type="tcp")}, agents=("edge-1", "edge-2"))
    for a in ("edge-1", "edge-2"):
        wait_service(p.hub, "UP", agent=a)
    seen = []
    until = time.monotonic() + 30
    while time.monotonic() < until:
        seen.append(greeting(p.listen["x"]))
        if len(seen) == 20:
            targets[0].fall()
        if len(seen) > 20 and watching.service(p.hub, agent="edge-1")["status"] == "DOWN" and len(seen) > 60:
            break
    check(None not in seen, seen)
    equal(set(seen[-10:]), {"two"})


def statistics(program):
    """Rows of `show stat` by what they are of."""
    return {(row["pxname"], row["svname"]): row for row in csv.DictReader(io.StringIO(watching.ask(program, "show stat csv").lstrip("# ")))}


def test_statistics(run):
    """The columns in which HAProxy tells of checks: on the hub what it was told, on the agent all of it."""
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address, "y": t.address}], {"x": watching.check(type="tcp", rise=2, fall=3)}, services={"weight": 50})
    wait_service(p.agent, "UP", "x")
    wait_service(p.hub, "UP", "x")
    row = statistics(p.hub)["site-a/x", "edge-1"]
    equal([row[c] for c in ("type", "status", "weight", "check_status", "check_desc")], ["2", "UP", "50", "L4OK", "connected"])
    check(int(row["lastchg"]) < 60, row)
    equal([statistics(p.hub)["site-a/y", "edge-1"][c] for c in ("status", "check_status")], ["UP", ""])
    row = statistics(p.agent)["site-a/x", "edge-1"]
    equal([row[c] for c in ("status", "check_status", "check_rise", "check_fall", "check_health", "chkfail", "chkdown")], ["UP", "L4OK", "2", "3", "4", "0", "0"])
    equal(statistics(p.agent)["site-a/y", "edge-1"]["status"], "no check")
    t.fall()
    wait_service(p.hub, "DOWN", "x")
    equal([statistics(p.hub)["site-a/x", "edge-1"][c] for c in ("status", "check_status", "check_desc")], ["DOWN", "L4CON", "Connection refused"])
    row = statistics(p.agent)["site-a/x", "edge-1"]
    equal([row[c] for c in ("status", "check_health", "chkdown")], ["DOWN", "0", "1"])
    check(int(row["chkfail"]) >= 3, row)


def test_by_operator(run):
    """MAINT is the operator's word, DOWN the check's; neither undoes the other."""
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp")})
    wait_service(p.hub, "UP")
    watching.ask(p.hub, "disable service site-a/x")
    wait_service(p.hub, "MAINT", check="L4OK")
    t.fall()
    wait_service(p.hub, "MAINT", check="L4CON")
    watching.ask(p.hub, "enable service site-a/x")
    wait_service(p.hub, "DOWN", check="L4CON")
    t.rise()
    wait_service(p.hub, "UP", check="L4OK")


def test_a_soft_stop_ends_checks(run):
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp")})
    wait_service(p.hub, "UP")
    with tcp.open_socket(p.listen["x"]) as s:
        equal(tcp.recv_exactly(s, 4), b"one\n")
        p.agent.send(10)  # SIGUSR1
        wait_until(lambda: p.hub.log("services") or watching.service(p.hub)["status"] == "DRAIN", "the agent to drain")
        seen = t.seen
        stays(lambda: t.seen <= seen + 1, 0.5, "no more checks")
        s.sendall(b"still\n")
        equal(tcp.recv_exactly(s, 6), b"still\n")
    p.agent.ended(0)


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
