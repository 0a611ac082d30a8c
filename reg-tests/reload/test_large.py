#!/usr/bin/env python3
"""A large reload (10,000 rules, hundreds of certificates that are all new) stops no loop: sessions go on echoing while it is made (of the release build,
when there is one); it takes effect; a bad one is refused with its place; wishes that come meanwhile are granted; the program stops in the middle of
one. With a master and without."""
import os
import signal
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import tcp
from ctl import admin_settings, command, reload
from harness import check, equal, say, wait_until

RULES = 10000  # measured
FEWER = 1000   # where only the way of things matters
CERTS = 200
SESSIONS = 4
ALONE = ("sh", "-c", 'exec "$0" -1 "$@"')


def rules(last, n):
    """Thousands that concern nobody here, and one for the rest."""
    return tuple({"src": "10.%d.%d.0/24" % (i >> 8, i & 255), "dst_port": "%d" % (1 + i % 60000), "route": "site-a/a"} for i in range(n)) + (
        {"route": "site-a/" + last},)


_made = {}


def certificates(run):
    """{file name: contents}, made once."""
    if not _made:
        ca = pki.Pki(run.path("sites"))
        for i in range(CERTS):
            name = "s%d" % i
            ca.openssl("req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=%s.test" % name,
                       "-addext", "subjectAltName=DNS:%s.test" % name, "-config", "ca.cnf", "-keyout", name + ".key", "-out", name + ".pem")
        for file in [f for f in os.listdir(ca.dir) if f[0] == "s" and f[1].isdigit()]:
            with open(ca.path(file)) as f:
                _made[file] = f.read()
    return _made


class World:
    def __init__(self, run, launcher, n=FEWER, program=None):
        self.n = n
        self.folder = run.path("certs")
        os.mkdir(self.folder)
        for name, text in certificates(run).items():
            with open(os.path.join(self.folder, name), "w") as f:
                os.fchmod(f.fileno(), 0o600)
                f.write(text)
        a, b = tcp.Server(run, tcp.banner("a")), tcp.Server(run, tcp.banner("b"))
        echo = tcp.Server(run, tcp.echo)
        listeners = {"echo": "site-a/echo", "ruled": {"rules": rules("a", n)}, "secure": {"route": "site-a/echo", "tls": {"cert": [self.folder + "/"]}}}
        self.hub = scene.Hub(run, listeners, settings=admin_settings(run, "hub"), launcher=launcher, program=program).start().wait_ready()
        scene.Agent(run, self.hub.authority, [self.hub.address],
                    [scene.service("a", a.target), scene.service("b", b.target), scene.service("echo", echo.target)]).start()
        self.hub.wait_links(2)

    def file(self, i, kind):
        return os.path.join(self.folder, "s%d.%s" % (i, kind))

    def renew(self, mark):
        """To the program each is another certificate then: files are known by their contents."""
        for i in range(CERTS):
            with open(self.file(i, "pem"), "a") as f:
                f.write("# %s\n" % mark)

    def change(self, mark, last):
        self.renew(mark)

        def edit(c):
            c["listeners"] = tuple(dict(row, rules=rules(last, self.n)) if row["name"] == "ruled" else row for row in c["listeners"])
        return edit

    def serves(self, name):
        equal(tcp.ask_name(self.hub.listen["ruled"]), name, "where the last rule leads")
        c = hello.context()
        with c.wrap_socket(tcp.open_socket(self.hub.listen["secure"]), server_hostname="s7.test") as s:
            hello.echo(s)
            hello.close(s)


class Echoes:
    """Sessions on several threads; each round trip with its end."""

    def __init__(self, address):
        self.chatters = [tcp.Chatter(address, 0.005) for _ in range(SESSIONS)]

    def longest(self):
        """Since the last call."""
        for c in self.chatters:
            c.go_on(3)
        longest = max(max(c.times[:]) for c in self.chatters)
        for c in self.chatters:
            c.times.clear()
        return longest

    def stop(self):
        for c in self.chatters:
            c.stop()


def reloads_done(w):
    return [r["text"] for r in w.hub.log("message") if r["text"].startswith("reload done in ")]


def stands_still(w, echoes, quiet, mark, last):
    """Whether an echo took a good part of a reload's time."""
    n = len(reloads_done(w)) + 1
    reload(w.hub, w.change(mark, last))
    longest = echoes.longest()
    wait_until(lambda: len(reloads_done(w)) >= n, "the line of the reload")
    took = int(reloads_done(w)[-1].split()[3]) / 1000
    say("the worker's part took %.0f ms, the longest echo %.0f ms (undisturbed: %.0f)" % (took * 1000, longest * 1000, quiet * 1000))
    return longest >= max(took / 2, 2 * quiet, 0.05)


def check_echoes_go_on(run, launcher):
    w = World(run, launcher, RULES, scene.release_binary())
    echoes = Echoes(w.hub.listen["echo"])
    time.sleep(1)
    quiet = echoes.longest()
    for last in ("b", "a"):
        tries = (stands_still(w, echoes, quiet, "%s %d" % (last, i), last) for i in range(4))
        check(not all(tries), "a loop stands still each time; a busy machine is slow now and then")
        w.serves(last)
    echoes.stop()


def test_echoes_go_on(run):
    check_echoes_go_on(run, ())


def test_echoes_go_on_without_a_master(run):
    check_echoes_go_on(run, ALONE)


def check_refused(run, launcher):
    w = World(run, launcher)
    echoes = Echoes(w.hub.listen["echo"])
    answer = reload(w.hub, w.change("bad", "b/c/d"), good=False)
    check("hub.cfg:" in answer, "no place:", answer)
    with open(w.file(CERTS - 1, "pem"), "w") as f:
        f.write("rubbish\n")
    answer = command(run, "hub", "reload")
    check(not answer.startswith("Reloaded."), "rubbish was taken:", answer)
    w.serves("a")
    echoes.longest()
    echoes.stop()


def test_refused(run):
    check_refused(run, ())


def test_refused_without_a_master(run):
    check_refused(run, ALONE)


def check_wishes_meanwhile(run, launcher):
    """All that ask while one is under way get an answer, and what was written last is in force."""
    w = World(run, launcher)
    answers = []
    askers = [harness.Background(lambda: answers.append(command(run, "hub", "reload"))) for _ in range(2)]
    reload_later = w.change("last", "b")
    w.hub.send(signal.SIGHUP)
    reload(w.hub, reload_later)
    for a in askers:
        a.finish(what="an asker")
    check(len(answers) == 2 and all(a.startswith(("Reloaded.", "Refused,")) for a in answers), "answers:", answers)  # the files were being written
    w.serves("b")


def test_wishes_meanwhile(run):
    check_wishes_meanwhile(run, ())


def test_wishes_meanwhile_without_a_master(run):
    check_wishes_meanwhile(run, ALONE)


def check_stop_meanwhile(run, launcher):
    w = World(run, launcher)
    for pause, number in ((0.15, signal.SIGTERM), (0.4, signal.SIGUSR1)):
        w.hub.wait_ready()
        w.renew("stop %f" % pause)
        w.hub.send(signal.SIGHUP)
        time.sleep(pause)  # any moment will do
        w.hub.stop(number)
        w.hub.start()
    w.hub.wait_ready()
    w.hub.wait_links(2)
    w.serves("a")


def test_stop_meanwhile(run):
    check_stop_meanwhile(run, ())


def test_stop_meanwhile_without_a_master(run):
    check_stop_meanwhile(run, ALONE)


if __name__ == "__main__":
    harness.main(globals())
