#!/usr/bin/env python3
"""The hub's side of health checks, told by agents made by hand: what is shown, what is old, what is malformed, and one who overdoes it."""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import proc
import raw
import victim
import watching
from harness import check, equal, say
from watching import wait_service

INSTANCE = "ab" * 16


def row(name="echo", up=True, **found):
    facts = {"name": name, "weight": 100, "up": up, "maxconn": 0}
    if found:
        facts["check"] = dict({"status": "L4OK" if up else "L4CON", "code": 0, "text": "", "since_ms": 0}, **found)
    return facts


def advert(serial, *rows):
    return raw.advert(instance=INSTANCE, services=rows, serial=serial)


def scene(run):
    return victim.Scene(run, settings=watching.admin(run, "hub"))


def says(a, text):
    """An AGENT frame, and the hub's answer to it."""
    a.send(raw.hello(raw.AGENT, text))
    a.await_frame(raw.HUB, fresh=True)


def test_what_is_told(run):
    s = scene(run)
    a = s.attacker(advert(1, row(up=False, status="L7STS", code=503, text="Service Unavailable", since_ms=3600000), row("x1"), row("x2", text="fine")))
    found = wait_service(s.hub, "DOWN", "echo", "edge-2", check="L7STS/503", why="Service Unavailable")
    check(3600 <= found["since"] < 3700, found)
    equal([watching.service(s.hub, n)["check"] for n in ("x1", "x2")], [None, "L4OK"])
    equal(s.hub.metric('mctunnel_service_up{tunnel="site-b",service="echo",agent="edge-2"}'), 0)
    equal(s.hub.log("check"), [])  # it came like that
    says(a, advert(2, row(text="x" * 63), row("x1", up=False)))
    wait_service(s.hub, "UP", "echo", "edge-2", why="x" * 63)
    equal(len(s.hub.wait_log("check", 2)), 2)
    equal(s.hub.log("check")[0]["state"], "UP")
    # without a check it may be down as well
    wait_service(s.hub, "DOWN", "x1", "edge-2", check=None)
    s.over()


def test_old_news(run):
    """A link that is slower than another brings what was true before."""
    s = scene(run)
    first = s.attacker(advert(5, row()))
    second = raw.Agent(s.hub).greet(advert(5, row()))
    run.undo.callback(second.close)
    says(first, advert(7, row(up=False, text="new")))
    wait_service(s.hub, "DOWN", "echo", "edge-2", why="new")
    says(second, advert(6, row(text="old")))
    equal(watching.service(s.hub, "echo", "edge-2")["why"], "new")
    says(second, advert(7, row(up=False, text="new")))
    says(second, advert(8, row(text="newer")))
    wait_service(s.hub, "UP", "echo", "edge-2", why="newer")
    equal([r["state"] for r in s.hub.wait_log("check", 2)], ["DOWN", "UP"])
    s.over()


def test_malformed(run):
    """Each ends the link and nothing else."""
    s = scene(run)
    good = advert(1, row(text="fine"))
    equal(good.count('"text":"fine"'), 1)
    for evil in (good.replace('"fine"', '"%s"' % ("x" * 64)), good.replace('"fine"', "7"), good.replace('"fine"', '"a\\nb"'), good.replace('"L4OK"', '"L4OKL4OK"'),
                 good.replace('"code":0', '"code":-1'), good.replace('"since_ms":0', '"since_ms":-1'), good.replace('"since_ms":0', '"since_ms":1e3'),
                 good.replace('"since_ms":0', '"since_ms":true'), good.replace('"code":0,', ""), good.replace('"serial":1', '"serial":-1'),
                 good.replace('"serial":1', '"serial":"1"'), good.replace('"check":{', '"check":[').replace("}}]", "]}]")):
        check(evil != good, "the attack did not take place")
        a = raw.Agent(s.hub)
        a.send(raw.settings(window=1 << 20), raw.hello(raw.AGENT, evil))
        a.await_end()
        a.close()
    s.over()


def test_flapping(run):
    """Thousands of services that go up and down, in another order each time, as fast as the hub listens: others do not notice, and the log stays readable."""
    s = scene(run)
    names = ["x%d" % i for i in range(2000)]
    texts = []
    for i in range(6):
        random.Random(i).shuffle(names)
        texts.append(raw.hello(raw.AGENT, advert(1, *[row(n, up=i % 2 == 0) for n in names])))
    a = s.attacker(advert(1, *[row(n) for n in names]))
    cpu, n, began = proc.cpu_seconds(s.pid), 0, time.monotonic()
    while time.monotonic() < began + (3 if n > 5 else harness.PATIENCE) and not a.closed:
        n += a.push(texts[n % len(texts)], 0.05, True, 1)
        time.sleep(0.03)  # faster is a flood of frames, and ends the link
    check(not a.closed, "the attacker was thrown out")
    cpu = proc.cpu_seconds(s.pid) - cpu
    lines = len(s.hub.wait_log("check", 1000))
    say("%d updates in %.1f s, %.1f s of CPU, %d lines" % (n, time.monotonic() - began, cpu, lines))
    check(n > 5, "the attack did not take place")
    check(lines < 2000 + 100 * (time.monotonic() - began + 1), "too many lines")
    a.close()
    s.over()


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
