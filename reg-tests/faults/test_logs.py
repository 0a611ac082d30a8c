#!/usr/bin/env python3
"""Log targets that do not take what they get: a full disk, /dev/full, a syslog nobody reads. Traffic does not notice, what is lost is
counted, and said once."""
import os
import socket
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


def target(path, level="info"):
    return {"target": path, "format": "json", "level": level}


def traffic(run, log, sessions=1000):
    """Sessions through a hub that logs there. The good log comes last, so that complaints about the bad one are found."""
    server = tcp.Server(run, tcp.echo)
    good = run.path("good.log")
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings={"log": (log, target(good))})
    hub.log_path = good
    hub.start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    chatter = tcp.Chatter(hub.listen["echo"], every=0.005)
    began = time.monotonic()
    for _ in range(sessions):
        tcp.ask(hub.listen["echo"])
    took = time.monotonic() - began
    times = chatter.stop()
    hub.wait_log("session", sessions)
    complaints = [r["text"] for r in hub.log("message", level="warning") if "log target" in r["text"]]
    say("%d sessions in %.1f s, a session in use: %s" % (sessions, took, harness.spread(times)))
    say("%d lines dropped; %s" % (hub.metric("mctunnel_log_dropped_total"), complaints))
    equal(hub.get("/readyz")[0], 200, "readiness")
    return hub, complaints


def test_dev_full(run):
    hub, complaints = traffic(run, target("/dev/full"))
    check(1 <= len(complaints) <= 2, "complaints:", complaints)  # master and worker
    check("No space left" in complaints[0], complaints[0])
    check(hub.metric("mctunnel_log_dropped_total") >= 1000, "not counted")


def test_full_disk(run):
    """64 kB of room; when there is room again, the log goes on."""
    disk = run.path("disk")
    os.mkdir(disk)
    if subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64k", "none", disk), stderr=subprocess.DEVNULL).returncode:
        raise harness.Skipped("cannot mount a small file system")
    run.undo.callback(subprocess.run, ("umount", "-l", disk))
    path = disk + "/hub.log"
    hub, complaints = traffic(run, target(path))
    equal(len(complaints), 1, "complaints")
    check(os.path.getsize(path) <= 65536, "the disk is larger than it is")
    with open(path, "wb"):
        pass
    tcp.ask(hub.listen["echo"])
    harness.wait_until(lambda: b'"session"' in open(path, "rb").read(), "the log to go on")
    with open(path, "rb") as f:
        first = f.read().split()[0]
    say("goes on with: " + first.decode()[:80])


def test_syslog_that_nobody_reads(run):
    path = run.path("syslog")
    syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    syslog.bind(path)
    hub, complaints = traffic(run, target("syslog:" + path))
    equal(len(complaints), 1, "complaints")
    check(hub.metric("mctunnel_log_dropped_total") >= 500, "not counted")
    syslog.close()
    hub.stop()


def test_syslog_that_goes_away(run):
    """And comes back: another socket behind the same path."""
    path = run.path("syslog")
    again = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    again.bind(path)
    hub, _ = traffic(run, target("syslog:" + path), 50)
    again.close()
    os.unlink(path)
    for _ in range(20):
        tcp.ask(hub.listen["echo"])
    third = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    third.bind(path)
    third.settimeout(10)
    tcp.ask(hub.listen["echo"])
    check(b"mctunnel[" in third.recv(4096), "nothing comes to the new one")


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
