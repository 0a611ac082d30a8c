#!/usr/bin/env python3
"""The worker dies and dies again: nobody new is refused or left waiting, those who were connected see a reset, never a clean end."""
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

def stable(p):
    """A worker counts as failing when it dies within its first second of being ready."""
    tcp.ask(p.listen["echo"])
    time.sleep(1.1)


def established(p, server):
    """A session that has carried bytes both ways."""
    s = tcp.open_socket(p.listen["echo"])
    s.sendall(b"hello")
    equal(tcp.recv_exactly(s, 5), b"hello")
    return s


def both_ends_reset(p, server, kill):
    s = established(p, server)
    began = time.monotonic()
    kill()
    tcp.expect_reset(s, "client")
    client = time.monotonic() - began
    result = server.result()
    check(isinstance(result, ConnectionResetError), "the target saw", repr(result))
    say("client saw its reset after %.0f ms" % (1000 * client))


def echo_pair(run, settings=None):
    server = tcp.Server(run, tcp.echo)
    return scene.pair(run, {"echo": server.target}, settings=settings, timeouts={"queue": "20s"}), server


def test_hubs_worker_killed_resets_both_ends(run):
    p, server = echo_pair(run)
    both_ends_reset(p, server, p.hub.kill_worker)
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    p.agent.nothing_left()


def test_hubs_worker_crashes(run):
    """SIGSEGV is no different."""
    p, server = echo_pair(run)
    both_ends_reset(p, server, lambda: os.kill(p.hub.worker(), signal.SIGSEGV))
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    p.hub.stop()
    p.hub.errors = lambda: ""  # the backtrace is expected


def test_agents_worker_killed_resets_both_ends(run):
    p, server = echo_pair(run)
    both_ends_reset(p, server, p.agent.kill_worker)
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])
    p.hub.nothing_left()


def test_agent_killed_whole(run):
    """Nobody says goodbye for it: the hub waits for timeouts.resume."""
    server = tcp.Server(run, tcp.echo)
    p = scene.pair(run, {"echo": server.target}, timeouts={"resume": "3s"})

    def kill():
        p.agent.abandon()
        for pid in proc.members(p.agent.master()):
            os.kill(pid, signal.SIGKILL)

    both_ends_reset(p, server, kill)
    p.hub.wait_links(0)
    p.hub.nothing_left()
    p.agent.popen.wait()
    p.agent.start()
    p.hub.wait_links(2)
    tcp.ask(p.listen["echo"])


def test_master_killed(run):
    """The worker closes its listening sockets, serves those it has to their end, and goes."""
    p, server = echo_pair(run, {"hard_stop_after": "200s"})
    chatter = tcp.Chatter(p.listen["echo"])
    worker = p.hub.worker()
    p.hub.abandon()
    os.kill(p.hub.master(), signal.SIGKILL)
    p.hub.popen.wait()
    harness.wait_until(lambda: tcp.refused(p.listen["echo"]), "new clients to be refused")
    harness.wait_until(lambda: tcp.refused(p.hub.address), "the agents' address to be closed")
    harness.wait_until(lambda: tcp.refused(p.hub.metrics_address), "the metrics address to be closed: nobody could start anew there")
    chatter.go_on(20)
    check(proc.alive(worker), "the worker went too early")
    chatter.stop()
    check(proc.wait_gone(worker, harness.PATIENCE), "the worker stays on, although its last session has ended")


def test_hung_worker_is_replaced(run):
    p, _ = echo_pair(run)
    stable(p)
    old = p.hub.worker()
    began = time.monotonic()
    os.kill(old, signal.SIGSTOP)
    harness.wait_until(lambda: not proc.alive(old), "the hung worker to be killed")
    killed = time.monotonic() - began
    tcp.ask(p.listen["echo"])
    say("killed after %.1f s, serving again after %.1f s" % (killed, time.monotonic() - began))
    check(1 <= killed <= 15, "killed after %.1f s" % killed)


def test_client_that_comes_while_the_worker_is_dead(run):
    """It waits in the kernel's queue, then in the hub's, and is served."""
    p, _ = echo_pair(run)
    stable(p)
    old = p.hub.kill_worker()
    began = time.monotonic()
    tcp.ask(p.listen["echo"])
    say("served %.0f ms after the kill" % (1000 * (time.monotonic() - began)))
    p.hub.worker(other_than=old)


if __name__ == "__main__":
    harness.main(globals())
