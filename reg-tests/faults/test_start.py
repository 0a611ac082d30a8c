#!/usr/bin/env python3
"""What can be wrong with an address at start: each is said with file and line, and the exit code is 1."""
import os
import shutil
import socket
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


def hub(run, bind=None, **options):
    h = scene.Hub(run, {"web": dict({"route": "site-a/web"}, **({"bind": bind} if bind else {}))}, **options)
    return h


def fails(h, *words):
    """It ends with 1 and says the words in one line of its own, with file and line."""
    h.start()
    h.ended(1, 15)
    lines = [line for line in h.errors().splitlines() if all(w in line for w in words)]
    check(lines, "no line with", words, "in\n" + h.errors())
    check(lines[0].startswith(h.config_path + ":"), "no file and line:", lines[0])
    say(lines[0].replace(os.path.dirname(h.config_path) + "/", ""))


def test_port_taken(run):
    taken = tcp.listening((run.host, 0))
    fails(hub(run, tcp.text(taken.getsockname())), "[ALERT] listener.web.0", "in use", "is another process listening there?")


def test_address_that_is_not_local(run):
    """The VIP of the other host: bound all the same."""
    h = hub(run, "192.0.2.77:8080").start().wait_ready()
    h.stop()


def test_without_ipv6(run):
    """"*" is IPv4 then; an IPv6 address is refused with a reason."""
    no_ipv6 = ("unshare", "--net", "sh", "-c", 'ip link set lo up && echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 && exec "$@"', "sh")
    if subprocess.run(no_ipv6 + ("true",), stderr=subprocess.DEVNULL).returncode:
        raise harness.Skipped("no network namespace")
    h = hub(run, "*:%d" % run.port(), launcher=no_ipv6)
    h.start()
    h.wait_log("message", level="notice")
    harness.wait_until(lambda: [r for r in h.log("message") if r["text"].startswith("serving")], "it to serve")
    h.stop()


def test_privileged_port(run):
    if not shutil.which("setpriv") or os.geteuid() != 0:
        raise harness.Skipped("only root has rights to lose")
    h = hub(run, run.host + ":81", name="low", launcher=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    for d, _, files in os.walk(run.dir):
        for f in [d] + [os.path.join(d, f) for f in files]:
            os.chmod(f, 0o777)
    h.start()
    try:
        h.ended(1, 10)
    except harness.Failed:
        raise harness.Skipped("this kernel lets everybody bind low ports") from None
    line = [line for line in h.errors().splitlines() if "listener.web.0" in line]
    check(line and "Permission denied (a port below 1024 needs root" in line[0], h.errors())
    say(line[0].replace(run.dir + "/", ""))


def test_two_on_the_same_configuration(run):
    """The second one refuses, and does the first one no harm."""
    server = tcp.Server(run, tcp.banner("web"))
    settings = {"admin": ({"bind": "unix:" + run.path("admin.sock")},), "health_file": run.path("health")}
    first = hub(run, settings=settings).start().wait_ready()
    scene.Agent(run, first.authority, [first.address], [scene.service("web", server.target)]).start()
    first.wait_links(2)
    second = subprocess.run([first.program, "-f", first.config_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    equal(second.returncode, 1, "exit code of the second")
    for name in ("hub.0", "listener.web.0", "admin.0", "metrics"):
        check("[ALERT] %s: cannot listen" % name in second.stdout, "nothing about", name, "in", second.stdout)
    say(second.stdout.splitlines()[-1].replace(run.dir + "/", ""))
    equal(tcp.ask_name(first.listen["web"]), "web", "the first one still serves")
    check(os.path.exists(run.path("admin.sock")), "the second one has removed the first one's admin socket")
    with open(run.path("health")) as f:
        equal(f.read(), "0\n", "the first one's health file")


def test_admin_socket_stale_or_not_ours(run):
    """A socket nobody listens on is replaced; a file is never removed; a folder that cannot be written is said."""
    path = run.path("admin.sock")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    settings = {"admin": ({"bind": "unix:" + path},)}
    h = hub(run, settings=dict(settings)).start().wait_ready()
    h.stop()
    if os.path.exists(path):
        os.unlink(path)
    with open(path, "w") as f:
        f.write("precious")
    fails(hub(run, name="second", settings=dict(settings)), "[ALERT] admin.0", "in use")
    with open(path) as f:
        equal(f.read(), "precious")
    os.unlink(path)
    os.symlink(run.path("elsewhere"), path)
    fails(hub(run, name="third", settings=dict(settings)), "[ALERT] admin.0")
    check(not os.path.exists(run.path("elsewhere")), "it has followed a symbolic link")


def test_empty_chroot(run):
    """Nothing is needed there: no /dev/urandom, no file. (The leak checker of a build with it needs /proc.)"""
    if os.geteuid() != 0:
        raise harness.Skipped("only root may lock itself in")
    empty = run.path("empty")
    os.mkdir(empty)
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, settings={"chroot": empty}, program=scene.release_binary())
    equal([os.path.realpath("/proc/%d/root" % x.worker()) for x in (p.hub, p.agent)], [empty, empty], "roots")
    for _ in range(3):
        tcp.ask(p.listen["echo"])


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
