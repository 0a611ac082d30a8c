#!/usr/bin/env python3
"""The log follows a reload: other files, formats and levels, also where only the master may open them; a target that cannot be opened
changes nothing; no record is lost on the way."""
import json
import os
import pwd
import re
import signal
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal


def contents(path):
    """Its whole lines: the last one may be in the middle of being written."""
    try:
        with open(path) as f:
            text = f.read()
            return text[:text.rfind("\n") + 1]
    except FileNotFoundError:
        return ""


def write(program, targets):
    program.config["global"]["log"] = targets
    with open(program.config_path, "w") as f:
        f.write(scene.libconfig(program.config))


def target(path, form="json", level="info"):
    return {"target": path, "format": form, "level": level}


def wait_for(path, words, count=1):
    harness.wait_until(lambda: len(re.findall(words, contents(path))) >= count, "%d of %r in %s" % (count, words, os.path.basename(path)))


def change(program, targets, seen_in):
    """A reload to these targets; its last line is the first that the worker says there."""
    before = contents(seen_in).count("reload done")
    write(program, targets)
    program.send(signal.SIGHUP)
    wait_for(seen_in, "reload done", before + 1)


def ids(text):
    """Session ids of complete session records in either form."""
    return re.findall(r'(?m)^\S+ info session .*?\bid=(\S+)', text) + [
        json.loads(line)["id"] for line in text.splitlines() if line.startswith("{") and '"event":"session"' in line]


def test_files_formats_and_levels(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    first, second, third = p.hub.log_path, run.path("second.log"), run.path("third.log")
    change(p.hub, (target(second, "text"),), second)
    old = contents(first)
    tcp.ask(p.listen["echo"])
    wait_for(second, r"(?m)^\S+ info session ")
    equal(contents(first), old, "the old file")
    change(p.hub, (target(second, "text", "debug"), target(third, "json", "notice")), third)
    tcp.ask(p.listen["echo"])
    wait_for(second, r"(?m)^\S+ info session ", 2)
    check(" debug session_start " in contents(second), "not at level debug")
    check('"level":"info"' not in contents(third), "more than was asked for")
    write(p.hub, (target(third, "json"),))
    os.kill(p.hub.worker(), signal.SIGKILL)  # the next one has what is in force
    wait_for(third, '"text":"serving: ', 1)
    wait_for(second, " serving: ", 1)


def refused_at(program, number, path, why):
    """The reload is refused with the place of that target."""
    with open(program.config_path) as f:
        line = [i for i, text in enumerate(f, 1) if path in text][0]
    found = harness.wait_until(lambda: [r["text"] for r in program.log("message") if path in r["text"]], "a refusal")[0]
    words = r'reload refused, the old configuration stays: %s:(\d+): \[ALERT\] global\.log\[%d\]: cannot open the log target "%s": %s'
    place = re.fullmatch(words % (re.escape(program.config_path), number, re.escape(path), why), found)
    check(place and line - 1 <= int(place.group(1)) <= line, "not what was expected near line", line, ":", found)


def test_bad_target(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    other = run.path("other.log")
    write(p.hub, (target(other), target(run.path("nowhere/log"))))
    p.hub.send(signal.SIGHUP)
    refused_at(p.hub, 1, run.path("nowhere/log"), "No such file or directory")
    tcp.ask(p.listen["echo"])
    p.hub.wait_log("session")
    equal(ids(contents(other)), [], "records for a target that was refused")


def test_nothing_is_lost(run):
    """Sessions end all the time while the log goes from file to file and form to form: each is told once."""
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    paths = [p.hub.log_path] + [run.path("log-%d" % i) for i in range(16)]
    over, asked = threading.Event(), []

    def ask():
        while not over.is_set():
            tcp.ask(p.listen["echo"])
            asked.append(1)
    askers = [harness.Background(ask) for _ in range(3)]
    for i, path in enumerate(paths[1:]):
        change(p.hub, (target(path, ("text", "json")[i % 2]),), path)
    over.set()
    for a in askers:
        a.finish()
    p.hub.nothing_left()
    told = harness.wait_until(lambda: (lambda t: t if len(t) >= len(asked) else None)([i for path in paths for i in ids(contents(path))]), "all sessions")
    equal((len(told), len(set(told))), (len(asked), len(asked)), "sessions in the logs")
    equal(p.hub.metric("mctunnel_log_dropped_total"), 0, "dropped")


def test_without_a_master(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, launcher=("sh", "-c", 'exec "$0" -1 "$@"'))
    first, second = p.hub.log_path, run.path("second.log")
    write(p.hub, (target(second, "text"), target(run.path("nowhere/log"))))
    p.hub.send(signal.SIGHUP)
    refused_at(p.hub, 1, run.path("nowhere/log"), "No such file or directory")
    change(p.hub, (target(second, "text", "debug"),), second)
    old = contents(first)
    tcp.ask(p.listen["echo"])
    wait_for(second, " info session ")
    check(" debug session_start " in contents(second), "not at level debug")
    equal(contents(first), old, "the old file")
    os.rename(second, second + ".1")
    change(p.hub, (target(second, "text", "debug"),), second)


def hub_of_nobody(run, environment=None, **more):
    """Its worker cannot write to the folder of the log."""
    if os.geteuid() != 0:
        raise harness.Skipped("only root can change users")
    folder = run.path("log")
    os.mkdir(folder, 0o700)
    server = tcp.Server(run, tcp.echo)
    settings = dict({"user": "nobody", "log": (target(folder + "/hub"),)}, **more)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings=settings, environment=environment).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    return hub, folder + "/hub"


def follows(hub, path):
    """Worker and master go on where the file was rotated, and to another one."""
    os.rename(path, path + ".1")
    hub.send(signal.SIGHUP)
    wait_for(path, "reload done")
    wait_for(path, "reload: reading")
    tcp.ask(hub.listen["echo"])
    wait_for(path, '"event":"session"')
    check('"event":"session"' not in contents(path + ".1"), "the worker still writes to the old file")
    change(hub, (target(path + "-other", "text"),), path + "-other")
    tcp.ask(hub.listen["echo"])
    wait_for(path + "-other", " info session ")


def test_without_rights(run):
    hub, path = hub_of_nobody(run)
    with open("/proc/%d/status" % hub.worker()) as f:
        check("Uid:\t%d\t" % pwd.getpwnam("nobody").pw_uid in f.read(), "the worker is not nobody")
    follows(hub, path)
    bad = path + "-other"
    os.rename(bad, bad + ".1")  # rotated, and the reload refused
    with open(hub.config_path, "a") as f:
        f.write("nonsense\n")
    hub.send(signal.SIGHUP)
    wait_for(bad, "reload refused")
    tcp.ask(hub.listen["echo"])
    wait_for(bad, " info session ")


def test_behind_a_chroot(run):
    empty = run.path("empty")
    os.mkdir(empty, 0o755)
    hub, path = hub_of_nobody(run, {"ASAN_OPTIONS": "exitcode=99:detect_leaks=0"}, chroot=empty)  # leaks are looked for in /proc
    follows(hub, path)


def test_symbolic_link(run):
    """Whoever has taken over the worker, and with it the folder of the log, gets no other file opened by the master."""
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    victim, link = run.path("victim"), run.path("link.log")
    os.symlink(victim, link)
    write(p.hub, (target(link),))
    p.hub.send(signal.SIGHUP)
    refused_at(p.hub, 0, link, "a symbolic link, which is followed only at start")
    os.rename(p.hub.log_path, p.hub.log_path + ".1")
    os.symlink(victim, p.hub.log_path)
    write(p.hub, (target(p.hub.log_path),))
    p.hub.send(signal.SIGHUP)
    wait_for(p.hub.log_path + ".1", "reload done")
    check(not os.path.exists(victim), "the link was followed")
    os.unlink(p.hub.log_path)


if __name__ == "__main__":
    harness.main(globals())
