#!/usr/bin/env python3
"""What the health file says, and when: a hub that hangs, dies or stops lets the virtual address move first."""
import os
import signal
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say, wait_until


class Hub(scene.Hub):
    def __init__(self, run, **settings):
        self.file, self.socket = run.path("health"), run.path("admin.sock")
        super().__init__(run, {"echo": "site-a/echo"}, timeouts={"queue": "60s"}, settings=dict({"health_file": self.file, "admin": ({"bind": "unix:" + self.socket},)}, **settings))
        self.start().wait_ready()

    def says(self):
        with open(self.file) as f:
            return f.read().strip()

    def wait_says(self, digit):
        began = time.monotonic()
        wait_until(lambda: self.says() == digit, "the health file to say " + digit, pause=0.005)
        return 1000 * (time.monotonic() - began)

    def role(self, word):
        ctl = os.path.join(os.path.dirname(self.program), "mctunnelctl")
        done = subprocess.run([ctl, "-s", self.socket, "set", "vip", word], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        equal((done.returncode, done.stdout), (0, ""), "set vip " + word)

    def accepts(self):
        try:
            tcp.open_socket(self.listen["echo"], 5).close()
        except ConnectionRefusedError:
            return False
        return True


def test_hang(run):
    hub = Hub(run)
    hub.wait_says("0")
    worker = hub.worker()
    os.kill(worker, signal.SIGSTOP)
    say("said after %.0f ms" % hub.wait_says("1"))
    os.kill(worker, signal.SIGCONT)
    hub.wait_says("0")  # again, by this worker; by the next one if the machine was too slow for that
    tcp.open_socket(hub.listen["echo"], 5).close()


def test_crash_says_nothing(run):
    """Another one is there at once."""
    hub = Hub(run, health_timeout="5s")
    hub.wait_says("0")
    before = os.stat(hub.file).st_mtime_ns
    first = hub.kill_worker()
    hub.worker(other_than=first)
    hub.wait_ready()
    equal((hub.says(), os.stat(hub.file).st_mtime_ns), ("0", before), "the health file")


def test_crash_loop(run):
    hub = Hub(run, health_timeout="1d")
    pid = 0
    while hub.says() == "0":
        pid = hub.worker(other_than=pid)
        os.kill(pid, signal.SIGKILL)
    hub.worker(other_than=pid)
    hub.wait_says("0")  # in the end, because the last one was left alone


def stop_as_master(run, number, code):
    hub = Hub(run, vip_grace="20s")
    hub.role("master")
    hub.send(number)
    hub.wait_says("1")
    for _ in range(20):
        check(hub.accepts(), "the door was closed before the address had moved")
        time.sleep(0.01)
    hub.must_run()
    hub.role("backup")
    hub.ended(code)
    check(not hub.accepts(), "somebody listens still")


def test_soft_stop(run):
    stop_as_master(run, signal.SIGUSR1, 0)


def test_stop(run):
    stop_as_master(run, signal.SIGTERM, 0)


def test_the_second_order_is_now(run):
    hub = Hub(run, vip_grace="1h")
    hub.role("master")
    hub.send(signal.SIGUSR1)
    hub.wait_says("1")
    hub.stop()


def test_nobody_tells_that_it_has_moved(run):
    hub = Hub(run, vip_grace="300ms")
    hub.role("master")
    hub.stop()
    check(hub.log(text="the virtual address has not moved within global.vip_grace"), "that is not in the log")


def test_no_grace_for_a_standby(run):
    hub = Hub(run, vip_grace="1h")
    hub.role("master")
    hub.role("backup")
    hub.stop()
    equal(hub.says(), "1", "the health file")


def test_no_raw_sockets(run):
    """What lets listening sockets send from an address that has moved is the master's alone."""
    hub = Hub(run)
    with open("/proc/%d/status" % hub.worker()) as f:
        caps = {line.split()[0][:-1]: int(line.split()[1], 16) for line in f if line.startswith("Cap")}
    raw = 1 << 12 | 1 << 13
    equal({k: caps[k] & raw for k in ("CapEff", "CapPrm", "CapInh", "CapAmb")}, dict.fromkeys(("CapEff", "CapPrm", "CapInh", "CapAmb"), 0), "raw")


def test_master_dies(run):
    """The worker itself says so, and is no mctunnel-worker any more."""
    hub = Hub(run)
    hub.wait_says("0")
    worker = hub.worker()
    session = tcp.open_socket(hub.listen["echo"])
    os.kill(hub.master(), signal.SIGKILL)
    say("said after %.0f ms" % hub.wait_says("1"))
    name = lambda: open("/proc/%d/comm" % worker).read().strip()
    wait_until(lambda: name() == "mctunnel-orphan", "its name to change")
    session.close()
    hub.abandon()


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
