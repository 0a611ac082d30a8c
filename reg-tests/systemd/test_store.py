#!/usr/bin/env python3
"""The listening sockets outlive even the master: systemd keeps them and hands them to the next one. systemd is played by
the test: a socket for sd_notify that keeps descriptors by name, and a start with LISTEN_FDS."""
import contextlib
import os
import signal
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import proc
import scene
import tcp
from harness import check, equal, say

# Puts the descriptors where systemd would and becomes the program.
LAUNCH = """
import os, sys
fds = [int(w) for w in sys.argv[1].split(",") if w]
high = [os.dup2(fd, 200 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.closerange(3 + len(fds), 200)
if fds:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class Systemd:
    """Keeps what it is told to keep; `log` is what it has been told, in order."""

    def __init__(self, run):
        self.path = run.path("notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(0.1)
        run.undo.callback(self.close)
        self.stored, self.log, self.closed = {}, [], False
        self.thread = harness.Background(self._listen)

    def _listen(self):
        while not self.closed:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 16)
            except socket.timeout:
                continue
            self._take(dict(line.split("=", 1) for line in data.decode().splitlines()), fds)

    def _take(self, said, fds):
        self.log.append(said)
        name = said.get("FDNAME")
        if "FDSTOREREMOVE" in said:
            self._drop(self.stored.pop(name, []))
        elif "FDSTORE" in said:
            self.stored.setdefault(name, []).extend(fds)
            return
        self._drop(fds)  # a barrier is answered so

    @staticmethod
    def _drop(fds):
        for fd in fds:
            os.close(fd)

    def ready(self):
        return sum("READY" in said for said in self.log)

    def close(self):
        self.closed = True
        self.thread.finish()
        for fds in self.stored.values():
            self._drop(fds)
        self.socket.close()

    def launcher(self):
        pairs = [(fd, name) for name, fds in sorted(self.stored.items()) for fd in fds]
        for fd, _ in pairs:
            os.set_inheritable(fd, True)
        return (sys.executable, "-c", LAUNCH, ",".join(str(fd) for fd, _ in pairs), ":".join(name for _, name in pairs))


def start(systemd, hub):
    """As systemd does. Comes back at READY."""
    before = systemd.ready()
    hub.launcher = systemd.launcher()
    hub.environment = {"NOTIFY_SOCKET": systemd.path}
    hub.start(close_fds=False)
    harness.wait_until(lambda: hub.must_run() and systemd.ready() > before, "READY=1")


def crash(hub):
    """Master and worker at once, as one cgroup."""
    for pid in [hub.master()] + proc.members(hub.master()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    hub.abandon()
    hub.popen.wait()


def scenery(run, listeners=None):
    server = tcp.Server(run, tcp.echo)
    systemd = Systemd(run)
    hub = scene.Hub(run, listeners or {"echo": "site-a/echo"}, settings={"admin": ({"bind": "unix:" + run.path("admin.sock")},)},
                    timeouts={"queue": "10s"})
    start(systemd, hub)
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    return systemd, hub


def descriptors(pid):
    """What they lead to. One may be closed while we look."""
    found = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    return found


class Clients:
    """Come one after the other, each asks one question."""

    def __init__(self, address):
        self.address, self.stop = address, False
        self.served, self.cut, self.refused, self.waits = 0, 0, 0, []
        self.thread = harness.Background(self._come)

    def _come(self):
        while not self.stop:
            began = time.monotonic()
            try:
                tcp.ask(self.address)
                self.served += 1
            except ConnectionRefusedError:
                self.refused += 1
            except (OSError, harness.Failed):
                self.cut += 1
            self.waits.append(time.monotonic() - began)

    def finish(self):
        self.stop = True
        self.thread.finish()


def test_master_and_worker_killed(run):
    """Nobody is refused; at most those who were connected at that moment are cut."""
    systemd, hub = scenery(run)
    equal(sorted(systemd.stored), ["hub.0", "listener.echo.0", "metrics"], "what is stored")
    said = [next(iter(s)) for s in systemd.log]
    check(said.index("BARRIER") > said.index("FDSTORE") and said.index("BARRIER") < said.index("READY"), "the order is", said)
    crowds = [Clients(hub.listen["echo"]) for _ in range(4)]
    kills = 3
    for _ in range(kills):
        harness.wait_until(lambda: all(c.served > 0 for c in crowds), "clients to be served")
        for c in crowds:
            c.served_then, c.served = c.served, 0
        crash(hub)
        start(systemd, hub)
        hub.wait_links(2)
    harness.wait_until(lambda: all(c.served > 0 for c in crowds), "clients to be served")
    for c in crowds:
        c.finish()
    say("%d kills: %d refused, %d cut; %s" % (kills, sum(c.refused for c in crowds), sum(c.cut for c in crowds),
                                              harness.spread([w for c in crowds for w in c.waits])))
    equal(sum(c.refused for c in crowds), 0, "refused")
    check(sum(c.cut for c in crowds) <= kills * len(crowds), "more were cut than were there")
    equal(sorted((name, len(fds)) for name, fds in systemd.stored.items()),
          [("hub.0", 1), ("listener.echo.0", 1), ("metrics", 1)], "what is stored at the end")


def test_client_that_comes_while_there_is_no_process(run):
    systemd, hub = scenery(run)
    crash(hub)
    s = tcp.open_socket(hub.listen["echo"])
    s.sendall(b"early")
    start(systemd, hub)
    equal(tcp.recv_exactly(s, 5), b"early", "the answer")


def test_socket_of_systemd_is_like_our_own(run):
    """Who was connected when the worker died is told by a reset, never by what looks like a good end."""
    server = tcp.Server(run, tcp.echo)
    systemd = Systemd(run)
    hub = scene.Hub(run, {"echo": "site-a/echo"})
    host, port = hub.listen["echo"]
    s = socket.create_server((host, port))
    systemd.stored["listener.echo.0"] = [os.dup(s.fileno())]
    inode = os.fstat(s.fileno()).st_ino
    s.close()
    start(systemd, hub)
    equal([os.fstat(fd).st_ino for fd in systemd.stored["listener.echo.0"]], [inode], "the socket it listens on")
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.target)]).start()
    hub.wait_links(2)
    with tcp.open_socket((host, port)) as c:
        c.sendall(b"hello")
        equal(tcp.recv_exactly(c, 5), b"hello", "the answer")
        os.kill(hub.worker(), signal.SIGKILL)
        try:
            equal(c.recv(1), "a reset", "what the client gets")
        except ConnectionResetError:
            pass


def test_listener_that_is_gone_is_closed(run):
    """A removed port is refused, not a black hole; one that moved is bound anew, under the same name."""
    gone, moved = run.port(), run.port()
    systemd, hub = scenery(run, {"gone": "site-a/echo", "moved": "site-a/echo", "stays": "site-a/echo"})
    gone, old = hub.listen["gone"], hub.listen["moved"]
    new = (run.host, moved)
    crash(hub)
    rows = []
    for row in hub.config["listeners"]:
        if row["name"] == "moved":
            row = dict(row, bind=tcp.text(new))
        if row["name"] != "gone":
            rows.append(row)
    config = dict(hub.config, listeners=tuple(rows))
    config["global"] = dict(config["global"])
    hub.configure(config)
    start(systemd, hub)
    hub.wait_links(2)
    for address in (gone, old):
        check(tcp.refused(address), "somebody still listens at", address)
    for address in (new, hub.listen["stays"]):
        tcp.ask(address)
    equal(sorted(systemd.stored), ["hub.0", "listener.moved.0", "listener.stays.0", "metrics"], "what is stored")


def test_reload_shuts_what_others_keep(run):
    """A port that a reload takes away is refused when the reload is answered, whoever has a copy of its socket."""
    systemd, hub = scenery(run, {"echo": "site-a/echo", "gone": "site-a/echo"})
    copies = [os.dup(fd) for fd in systemd.stored["listener.gone.0"]]
    check(copies and not tcp.refused(hub.listen["gone"]), "there is no such socket")
    ctl.changed(hub, lambda c: c.update(listeners=tuple(row for row in c["listeners"] if row["name"] != "gone")))
    answer = ctl.ask(run.path("admin.sock"), "reload")
    check(answer.startswith("Reloaded."), answer)
    check(tcp.refused(hub.listen["gone"]), "somebody still listens there")
    tcp.ask(hub.listen["echo"])
    for fd in copies:
        os.close(fd)


def test_foreign_descriptors_are_not_taken(run):
    """Neither a socket of another address, nor something that does not listen, nor somebody else's LISTEN_PID."""
    systemd, hub = scenery(run)
    crash(hub)
    other = tcp.listening((run.host, 0))
    strange = os.open("/dev/null", os.O_RDONLY)
    systemd.stored["listener.echo.0"] += [os.dup(other.fileno()), strange]
    start(systemd, hub)
    hub.wait_links(2)
    tcp.ask(hub.listen["echo"])
    equal(len(systemd.stored["listener.echo.0"]), 1, "kept under that name")
    check("socket:[%d]" % os.fstat(other.fileno()).st_ino not in descriptors(hub.master()), "the foreign socket is still open")


def test_drain_gives_them_up(run):
    """After a soft stop new clients are refused at once; after a stop the next start finds the sockets."""
    systemd, hub = scenery(run)
    hub.stop()
    check("listener.echo.0" in systemd.stored, "TERM has given up the sockets")
    s = tcp.open_socket(hub.listen["echo"])
    s.sendall(b"early")
    start(systemd, hub)
    equal(tcp.recv_exactly(s, 5), b"early", "the answer")
    held = tcp.open_socket(hub.listen["echo"])
    held.sendall(b"x")
    equal(tcp.recv_exactly(held, 1), b"x")
    hub.send(signal.SIGUSR1)
    harness.wait_until(lambda: not systemd.stored, "systemd to be told")
    harness.wait_until(lambda: tcp.refused(hub.listen["echo"]), "new clients to be refused")
    held.close()
    s.close()
    hub.ended(0)


if __name__ == "__main__":
    harness.main(globals())
