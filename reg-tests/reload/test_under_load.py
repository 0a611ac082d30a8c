#!/usr/bin/env python3
"""The proof that a reload drops nothing: hub and agent reload again and again, alternating among three configurations, under new connections,
long-lived sessions and a bulk transfer. Prints its figures. `--full`: 500 reloads, else 60. Uses the release build when there is one."""
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import proc
import scene
import tcp
import test_reload
from harness import check, equal, say

FULL = "--full" in sys.argv
RELOADS = 500 if FULL else 60
RATE = 200      # new connections a second
HELD = 500      # long-lived sessions
GROWTH = 3 << 20  # bytes of memory that are noise


# ---- the load: each in a process of its own ----

def echo_child(host):
    """An echo server for all of it."""
    listening = socket.create_server((host, 0), backlog=4096)
    listening.setblocking(False)
    poll, conns = select.epoll(), {}
    poll.register(listening, select.EPOLLIN)
    print(listening.getsockname()[1], flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == listening.fileno():
                s = listening.accept()[0]
                conns[s.fileno()] = s
                poll.register(s, select.EPOLLIN)
                continue
            s = conns[fd]
            try:
                data = s.recv(1 << 18)
                if data:
                    s.sendall(data)
                    continue
            except OSError:
                pass
            poll.unregister(fd)
            conns.pop(fd).close()


def held_child(host, port, n):
    """n sessions, a line on each about once a second, checked."""
    socks, sent, lost, lines = [tcp.open_socket((host, int(port))) for _ in range(int(n))], 0, 0, 0
    for s in socks:
        s.settimeout(20)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        began = time.monotonic()
        for i, s in enumerate(socks):
            if s is None:
                continue
            try:
                line = b"%d %d\n" % (i, sent)
                s.sendall(line)
                check(tcp.recv_exactly(s, len(line)) == line, "another line")
                lines += 1
            except (OSError, AssertionError) as e:
                print("session %d: %r" % (i, e), file=sys.stderr)
                lost, socks[i] = lost + 1, None
            sent += 1
            time.sleep(max(0, began + i / len(socks) - time.monotonic()))
    print(lost, lines, flush=True)


def knock_child(host, port, rate):
    """New connections, evenly spread; each says something and hears it."""
    times, errors, stop, lock = [], [], threading.Event(), threading.Lock()

    def knock(first, every):
        at = time.monotonic() + first
        while not stop.is_set():
            time.sleep(max(0, at - time.monotonic()))
            at += every
            began = time.monotonic()
            try:
                with socket.create_connection((host, int(port)), timeout=20) as s:
                    s.sendall(b"knock")
                    check(tcp.recv_exactly(s, 5) == b"knock", "another answer")
                with lock:
                    times.append(time.monotonic() - began)
            except (OSError, AssertionError) as e:
                with lock:
                    errors.append(repr(e))
    threads = [threading.Thread(target=knock, args=(i / int(rate), 8 / int(rate))) for i in range(8)]
    for t in threads:
        t.start()
    print("ready", flush=True)
    sys.stdin.readline()
    stop.set()
    for t in threads:
        t.join()
    print(len(errors), len(times), harness.spread(times), errors[:3], flush=True)


def bulk_child(host, port):
    """One connection, as fast as it goes, every byte compared."""
    s = tcp.open_socket((host, int(port)))
    block, total = os.urandom(1 << 20), 0
    print("ready", flush=True)

    def send():
        while not stop.is_set():
            s.sendall(block)
        s.shutdown(socket.SHUT_WR)
    stop = threading.Event()
    sender = threading.Thread(target=send)
    sender.start()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    while True:
        data = s.recv(len(block))
        if not data:
            break
        at = total % len(block)
        twice = block[at:at + len(data)] + block[:max(0, at + len(data) - len(block))]
        check(data == twice, "byte %d differs" % total)
        total += len(data)
    sender.join()
    print(0, total, flush=True)


def child(run, kind, *arguments):
    p = proc.start(run, [sys.executable, os.path.abspath(__file__), "--" + kind, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first = p.stdout.readline().strip()
    check(first, kind, "has died")
    return p, first


def result(p):
    p.stdin.write("\n")
    p.stdin.flush()
    words = p.stdout.readline().strip()
    check(words, "a part of the load has died")
    return words


# ---- the three configurations ----

def variants(hub, agent, run):
    """Three of each, given as changes of the first: listeners, tunnels, limits, timeouts, hub ports; services, links, hubs."""
    a, row = test_reload.listener(run, "extra", "site-a/more")
    second = (run.host, run.port())
    base, port = hub.config, hub.config["hub"]["bind"][0]
    hubs = [base,
            dict(base, listeners=base["listeners"] + (row,), tunnels=(scene.tunnel(services=["web", "mo*"]), scene.tunnel("site-b")),
                 hub=dict(base["hub"], bind=(port, dict(port, address=tcp.text(second))))),
            dict(base, listeners=(dict(base["listeners"][0], maxconn=5000, timeouts={"idle": "10m"}),) + base["listeners"][1:],
                 tunnels=(scene.tunnel(balance="leastconn"),))]
    one, own = agent.config, agent.config["agent"]
    agents = [one, dict(one, agent=dict(own, services=own["services"] + (dict(own["services"][0], name="more"),), hubs=own["hubs"] + [tcp.text(second)])),
              dict(one, agent=dict(own, links=3, backoff={"min": "200ms", "max": "2s"}))]
    return hubs, agents


def figures(pid, in_flight=0):
    status = dict(line.split(":", 1) for line in open("/proc/%d/status" % pid))
    return proc.resident(pid)[0] - in_flight, len(os.listdir("/proc/%d/fd" % pid)), int(status["Threads"])


def in_flight(run, program):
    """Bytes for data under way, and kept for more of it: what the bulk transfer needs at this moment, megabytes more or less."""
    rows = json.loads(test_reload.command(run, program.name, "show memory json"))
    return sum((row["used"] + row["kept"]) * row["size"] for row in rows if row["kind"] in ("chunk", "morsel"))


def settled(run, program):
    """(memory but for that of data, descriptors, threads) of worker and master, when what was removed has gone."""
    return figures(program.worker(), in_flight(run, program)), figures(program.master())


def grown(before, after):
    return any(a[0] - b[0] >= GROWTH for b, a in zip(before, after))


def test_reloads_under_load(run):
    server, port = child(run, "echo", run.host)
    options = dict(program=scene.release_binary())
    hub = scene.Hub(run, {"web": "site-a/web"}, settings=dict(test_reload.admin_settings(run, "hub"), maxconn=5000), **options).start().wait_ready()
    agent = scene.Agent(run, hub.authority, [hub.address], [scene.service("web", (run.host, int(port)))],
                        settings=dict(test_reload.admin_settings(run, "edge-1"), maxconn=5000), **options).start()
    hub.wait_links(2)
    hubs, agents = variants(hub, agent, run)
    held = child(run, "held", *hub.listen["web"], HELD)[0]
    bulk = child(run, "bulk", *hub.listen["web"])[0]
    knock = child(run, "knock", *hub.listen["web"], RATE)[0]
    times, before = [], None
    began = time.monotonic()
    for i in range(RELOADS):
        for program, configs in ((hub, hubs), (agent, agents)):
            scene_config = configs[i % 3]
            test_reload.write(program, scene_config)
            asked = time.monotonic()
            answer = test_reload.command(run, program.name, "reload")
            times.append(time.monotonic() - asked)
            check(answer.startswith("Reloaded."), program.name, answer)
        if i == RELOADS // 3 + (RELOADS - 1 - RELOADS // 3) % 3:  # warm by now, and the same configuration as at the end
            before = {p.name: settled(run, p) for p in (hub, agent)}
        time.sleep(max(0, began + (i + 1) * 0.15 - time.monotonic()))
    took = time.monotonic() - began
    hub.wait_metric("mctunnel_links", lambda n: n <= 12)
    after = {}
    for p in (hub, agent):  # what is kept for reuse is known a second later; memory that leaks does not come back
        end = time.monotonic() + 5
        after[p.name] = settled(run, p)
        while grown(before[p.name], after[p.name]) and time.monotonic() < end:
            time.sleep(0.2)
            after[p.name] = settled(run, p)
    words = {"knock": result(knock), "held": result(held), "bulk": result(bulk)}
    say("%d reloads of hub and agent each in %.1f s, each: %s" % (RELOADS, took, harness.spread(times)))
    say("%d/s new connections: errors, connections, times:" % RATE, words["knock"])
    say("%d long-lived sessions: lost, lines echoed:" % HELD, words["held"])
    say("bulk: %.1f GB byte-exact" % (int(words["bulk"].split()[1]) / 1e9))
    for name in before:
        check(not grown(before[name], after[name]), "memory grows:", name, before[name], after[name])
        for which, x, y in zip(("worker", "master"), before[name], after[name]):
            say("%s's %s: memory %.1f -> %.1f MB, descriptors %d -> %d, threads %d -> %d" % (name, which, x[0] / 1e6, y[0] / 1e6, *sum(zip(x[1:], y[1:]), ())))
            equal(y[2], x[2], "threads")
            check(which == "worker" or y[1] <= x[1] + 2, "descriptors grow")
    for kind in words:
        equal(words[kind].split()[0], "0", "errors of " + kind)
    server.kill()


if __name__ == "__main__":
    for kind, function in (("echo", echo_child), ("held", held_child), ("knock", knock_child), ("bulk", bulk_child)):
        if "--" + kind in sys.argv:
            sys.exit(function(*sys.argv[2:]))
    sys.argv = [a for a in sys.argv if a != "--full"]
    harness.main(globals(), threads=(2,))
