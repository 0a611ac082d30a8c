#!/usr/bin/env python3
"""An agent with a valid certificate (a stolen key) and bad intentions: floods, forged names, hellos of all kinds. Beside each attack a
session of another tunnel goes on, and every byte of it is looked at."""
import json
import os
import struct
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import raw
import scene
import tcp
from harness import check, equal, say
from raw import frame
from victim import PATIENT, Scene

FLOODS = {
    "ping": frame(raw.PING, b"12345678") * 1000,
    "ping answers": frame(raw.PING, b"12345678", raw.ACK) * 1000,
    "settings": raw.settings(window=65536) * 1000,
    "settings acks": frame(raw.SETTINGS, b"", raw.ACK) * 1000,
    "priority": frame(raw.PRIORITY, struct.pack("!IB", 3, 1), 0, 5) * 1000,
    "unknown frames": frame(0xbb, b"x") * 1000,
    "empty hello pieces": frame(raw.AGENT) * 1000,
    "drain": raw.hello(raw.DRAIN, "draining") * 1000,
    "goaway": frame(raw.GOAWAY, struct.pack("!II", 0, 0) + b"stopped") * 1000,
    "window updates": raw.credit(0, 0x7fffffff) * 1000,
    "resets of idle streams": raw.reset(1, 0) * 1000,
    "push promise": frame(raw.PUSH_PROMISE, struct.pack("!I", 2) + raw.block([(":method", "GET")]), raw.END_HEADERS, 1) * 100,
}


def test_floods(run):
    """Each closes the link soon, or costs nothing worth counting."""
    s = Scene(run)
    for i, (name, data) in enumerate(FLOODS.items()):
        a = s.attacker()
        n = a.push(data, 20)
        check(a.closed, name, "may go on for ever")
        end = s.hub.wait_log("link_down", count=i + 1, agent="edge-2")[-1]
        say("%s: %d times, then %s (%s)" % (name, n, end["reason"], end["text"]))
        check(end["reason"] in ("flood", "protocol"), name, "was not found out")
        a.close()
        s.hub.wait_links(2)
    s.unharmed()
    check(s.grown() < 32 << 20, "the hub has grown by", s.grown())
    s.over()


def test_borrowed_instance(run):
    """The instance id of another agent is of no use: neither for its sessions, nor for its clients, nor to speak in its name."""
    s = Scene(run)
    a = raw.Agent(s.hub)
    a.send(raw.settings(window=1 << 20), raw.hello(raw.AGENT, raw.advert("edge-1", "site-a")))
    equal(json.loads(a.await_frame(raw.HUB)[3])["reason"], "identity", "another agent's name")
    a.close()
    a = raw.Agent(s.hub)
    a.send(raw.settings(window=1 << 20), raw.hello(raw.AGENT, raw.advert("edge-2", "site-a")))
    equal(json.loads(a.await_frame(raw.HUB)[3])["reason"], "identity", "another agent's tunnel")
    a.close()
    a = s.attacker()
    a.send(raw.hello(raw.AGENT, raw.advert("edge-1", "site-a")))
    equal(json.loads(a.await_frame(raw.HUB)[3])["accepted"], False, "another name on a link")
    a.await_end()
    s.over()


def test_same_tunnel_borrowed_instance(run):
    """Two agents of one tunnel; one is cut off while it has sessions, the other claims to be the same process."""
    hub = scene.Hub(run, {"good": "site-a/echo"}, [scene.tunnel(agents=["edge-1", "edge-2"])], hub={"heartbeat": PATIENT}).start().wait_ready()
    instance = os.urandom(16).hex()
    honest = raw.Agent(hub, "edge-1").greet(raw.advert("edge-1", "site-a", instance))
    client = tcp.open_socket(hub.listen["good"])
    client.sendall(b"secret")
    honest.accept()
    harness.wait_until(lambda: [f for f in honest.take() + honest.frames if f[0] == raw.DATA], "the bytes")
    thief = raw.Agent(hub, "edge-2").greet(raw.advert("edge-2", "site-a", instance, services=()))
    equal(thief.answer["accepted"], True, "its own name")
    honest.close()
    hub.wait_metric("mctunnel_sessions_parked", 1)
    thief.take(0.5)
    check(not [f for f in thief.frames if f[0] == raw.HEADERS], "the session was given to another agent")
    check(thief.alive(), "the other's link")
    again = raw.Agent(hub, "edge-1").greet(raw.advert("edge-1", "site-a", instance))
    again.request()
    for end in (again, thief, client):
        end.close()
    hub.wait_links(0)


def test_hellos(run):
    """What is no AGENT frame ends the link and nothing else; the log stays readable."""
    s = Scene(run)
    good = raw.advert()
    evil = [b"", b"{", b"[" * 5000, b"[" * 16 + b"]" * 16, b"\xff\xfe{}", b"null", b"1e999999", b'{"a":' * 300 + b"1" + b"}" * 300,
            good.replace("edge-2", "edge-2\\u0000x").encode(), good.replace("edge-2", "\\n\\u001b[31mevil").encode(),
            good.replace('"protocol":1', '"protocol":99999999999999999999').encode(), good.replace('"weight":100', '"weight":-1').encode(),
            good.encode()[:-1] + b',"agent":"edge-1"}', good.encode() + b"x", b" " * 262145, good.encode() + b" " * 262144,
            raw.advert(services=["echo", "echo"]).encode(), raw.advert(services=["x%d" % i for i in range(4097)]).encode(),
            raw.advert(version="v" * 4000).encode(), raw.advert(version="\x1b[2J").encode(), raw.advert(instance="zz" * 16).encode()]
    for text in evil:
        a = raw.Agent(s.hub)
        a.send(raw.settings(window=1 << 20))
        try:
            a.send(raw.hello(raw.AGENT, text))
        except OSError:
            pass
        a.await_end(8)
        a.close()
    big = s.attacker(raw.advert(services=["x%d" % i for i in range(4096)]))
    big.send(raw.hello(raw.DRAIN, b"x" * 300000))
    big.await_end()
    interleaved = s.attacker()
    for kind in (raw.AGENT, raw.DRAIN, raw.HUB):
        interleaved.send(frame(kind, b"{"))
    interleaved.send(frame(raw.AGENT, b"", raw.LAST))
    interleaved.await_end()
    with open(s.hub.log_path, "rb") as f:
        check(all(32 <= b or b == 10 for b in f.read()), "raw control characters in the log")
    s.over()


def test_updates(run):
    """4096 other services each time, as fast as is no flood of frames; and nobody reads the answers."""
    s = Scene(run)
    texts = [raw.hello(raw.AGENT, raw.advert(instance="ab" * 16, services=["%s%d" % (k * 10, i) for i in range(2900)])) for k in "qrx"]
    for reading in (True, False):
        a = s.attacker(raw.advert(instance="ab" * 16))
        cpu, was, n = proc.cpu_seconds(s.pid), s.grown(), 0
        deadline = time.monotonic() + 3
        while (time.monotonic() < deadline or (n <= 20 and time.monotonic() < deadline + harness.PATIENCE)) and not a.closed:
            n += a.push(texts[n % 3], 0.05, reading, 1)
            time.sleep(0.01)
            was = s.grown() if n == 10 else was  # by then what parsing needs is there
        cpu = proc.cpu_seconds(s.pid) - cpu
        say("%s: %d updates in 3 s, the hub used %.1f s of CPU, has grown by %.1f MB" % (
            "reading" if reading else "deaf", n, cpu, (s.grown() - was) / 1e6))
        check(n > 20, "the attack did not take place")
        check(s.grown() - was < 64 << 20, "it has grown too much")
        a.close()
        s.unharmed()
        s.hub.wait_links(2)
    s.over()


def test_many_links(run):
    """One name cannot have all links there are."""
    s = Scene(run, hub={"max_links": 200, "heartbeat": {"interval": "5s", "timeout": "120s"}})
    links, refused = [], None
    for i in range(140):
        a = raw.Agent(s.hub)
        a.greet(raw.advert(instance=os.urandom(16).hex(), draining=True))
        links.append(a)
        if not a.answer["accepted"]:
            refused = a.answer["reason"]
            break
    equal(refused, "limit", "after %d links" % len(links))
    for a in links:
        a.close()
    s.hub.wait_links(2)
    s.over()


if __name__ == "__main__":
    harness.main(globals())
