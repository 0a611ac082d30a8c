#!/usr/bin/env python3
"""The test tools against each other, without a tunnel: what they find later is then the program's doing."""
import os
import socket
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import netns
import pki
import relay
import tcp
from harness import check, equal, say


def digest_server(n, seed):
    def handler(s):
        return tcp.exchange(s, n, seed)
    return handler


def test_relay_carries_bytes(run):
    server = tcp.Server(run, digest_server(64 << 20, 1))
    between = relay.Relay(run, server.address)
    began = time.monotonic()
    with tcp.open_socket(between.address) as s:
        sent, received = tcp.exchange(s, 64 << 20, 2)
    theirs, ours = server.result()
    equal(ours, sent, "up")
    equal(received, theirs, "down")
    say("%.0f MB/s in each direction" % (64 * 1.048576 / (time.monotonic() - began)))
    between.order("stats")
    equal(between.bytes, 128 << 20)


def test_relay_splits_and_delays(run):
    server = tcp.Server(run, digest_server(200000, 1))
    between = relay.Relay(run, server.address)
    between.order("split 700")
    with tcp.open_socket(between.address) as s:
        sent, received = tcp.exchange(s, 200000, 2)
    theirs, ours = server.result()
    equal((ours, received), (sent, theirs))
    between.order("split 0")
    between.order("delay 50")
    server.handler = tcp.echo
    with tcp.open_socket(between.address) as s:
        began = time.monotonic()
        s.sendall(b"x")
        equal(tcp.recv_exactly(s, 1), b"x")
        check(time.monotonic() - began >= 0.099, "a delay of 2 x 50 ms")


def test_relay_cuts(run):
    ends = tcp.Server(run, lambda s: tcp.recv_stream(s))
    between = relay.Relay(run, ends.address)
    for how in ("rst", "fin"):
        between.order("stats")
        want = between.bytes + 5
        s = tcp.open_socket(between.address)
        s.sendall(b"hello")
        harness.wait_until(lambda: between.order("stats") or between.bytes >= want, "bytes to pass")
        equal(between.cut(how), 1, "connections cut")
        if how == "rst":
            tcp.expect_reset(s, "client")
            check(isinstance(ends.result(), ConnectionResetError), "server saw a reset")
        else:
            tcp.expect_eof(s)
            equal(ends.result()[0], 5)


def test_relay_freezes(run):
    server = tcp.Server(run, tcp.echo)
    between = relay.Relay(run, server.address)
    s = tcp.open_socket(between.address)
    s.sendall(b"a")
    equal(tcp.recv_exactly(s, 1), b"a")
    equal(between.freeze(), 1)
    s.sendall(b"b")
    s.settimeout(0.3)
    try:
        s.recv(1)
        raise harness.Failed("something came through")
    except TimeoutError:
        pass
    tcp.ask(between.address)
    between.order("thaw")
    s.settimeout(harness.PATIENCE)
    equal(tcp.recv_exactly(s, 1), b"b")


def test_resets_pass_the_relay(run):
    server = tcp.Server(run, lambda s: tcp.recv_stream(s))
    between = relay.Relay(run, server.address)
    s = tcp.open_socket(between.address)
    s.sendall(b"x")
    tcp.reset(s)
    check(isinstance(server.result(), ConnectionResetError), "server saw a reset")


def test_chatter(run):
    c = tcp.Chatter(tcp.Server(run, tcp.echo).address, every=0)
    c.go_on(100)
    say(harness.spread(c.stop()))


def test_crowd(run):
    say(harness.spread(tcp.crowd(tcp.Crowd(run).address, 1000, 65000)))


def test_a_lost_byte_is_noticed(run):
    def lossy(s):
        data = tcp.recv_exactly(s, 1000)
        s.sendall(data[:500] + data[501:])
        s.shutdown(socket.SHUT_WR)

    server = tcp.Server(run, lossy)
    with tcp.open_socket(server.address) as s:
        sent, received = tcp.exchange(s, 1000, 1)
    check(sent != received, "not noticed")


FAILING = """
import sys
sys.path.insert(0, %r)
import harness
import tcp

class Wrong(Exception):
    pass

def test_good(run):
    pass

def test_bad(run):
    raise Wrong("seven", "of nine")

harness.main(globals(), threads=(1,))
"""
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir)


def test_what_failed_is_said_with_its_reason_in_one_line(run):
    file, out = run.path("test_failing.py"), run.path("out")
    with open(file, "w") as f:
        f.write(FAILING % os.path.join(ROOT, "reg-tests", "lib"))
    os.mkdir(out)
    p = subprocess.run(["scripts/run-tests", "--one", file], cwd=ROOT, env=dict(os.environ, OUT=out), stdout=subprocess.PIPE, text=True, check=True)
    check("Traceback" in p.stdout, p.stdout)
    with open(os.path.join(out, "failures")) as f:
        equal(f.read().splitlines(), ["FAILED: " + file, "FAILED: %s: failed: test_bad: Wrong: ('seven', 'of nine')" % file])
    with open(file, "w") as f:
        f.write("print('one line')\nraise SystemExit('out of memory')\n")
    os.remove(os.path.join(out, "failures"))
    subprocess.run(["scripts/run-tests", "--one", file], cwd=ROOT, env=dict(os.environ, OUT=out), stdout=subprocess.PIPE, text=True, check=True)
    with open(os.path.join(out, "failures")) as f:
        equal(f.read().splitlines(), ["FAILED: " + file, "FAILED: %s: out of memory" % file])


def test_certificates(run):
    began = time.monotonic()
    authority = pki.Pki(run.path("pki"))
    authority.hub()
    authority.agent("edge-1")
    authority.make("expired", "edge-1", since=-10, until=-1)
    authority.make("early", "edge-1", since=1, until=10)
    authority.agent("edge-2")
    authority.revoke("edge-2")
    authority.crl()
    say("made in %.0f ms" % (1000 * (time.monotonic() - began)))
    check("OK" in authority_check(authority, "edge-1.pem"), "good")
    for file, why in (("expired.pem", "expired"), ("early.pem", "not yet valid"), ("edge-2.pem", "revoked")):
        check(why in authority_check(authority, file), file)


def authority_check(authority, file):
    return subprocess.run(("openssl", "verify", "-CAfile", "ca.pem", "-crl_check", "-CRLfile", "crl.pem", file), cwd=authority.dir,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def test_z_namespaces(run):
    netns.enter_own()
    inside = netns.Namespace(run)
    server = tcp.Server(run, tcp.echo, listener=inside.call(tcp.listening, (inside.address, 4000)))
    c = tcp.Chatter((inside.address, 4000))
    for off, on in ((inside.pull, inside.plug), (inside.swallow, inside.spit), (inside.deafen, inside.undeafen)):
        c.go_on()
        off()
        before = c.count()
        time.sleep(0.2)
        check(c.count() <= before + 1, "nothing passes")
        on()
        c.go_on()
    c.stop()


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
