"""What the tests of health checks share: targets of all moods, and what hub and agent say about a service."""
import json
import os
import socket
import ssl
import threading
import time

import harness
import scene
import tcp

FAST = {"interval": "60ms", "timeout": "500ms", "rise": 2, "fall": 2}


def check(**more):
    return dict(FAST, **more)


def site(run, targets, checks, listeners=None, agents=("edge-1",), hub=None, links=2, services=None, **options):
    """A hub, and an agent for each name in `agents`, each with the services of targets[i] ({name: target}) and their checks ({name: check or None}).
    Comes back when the links are up."""
    p = scene.Pair()
    names = list(targets[0])
    p.hub = scene.Hub(run, listeners or {name: "site-a/" + name for name in names}, tunnels=[scene.tunnel(agents=agents, balance="leastconn")],
                      settings=admin(run, "hub"), **(hub or {})).start()
    p.hub.wait_ready()
    p.listen = p.hub.listen
    p.agents = []
    for name, offered in zip(agents, targets):
        rows = [scene.service(s, t, check=checks.get(s), **(services or {})) for s, t in offered.items()]
        p.agents.append(scene.Agent(run, p.hub.authority, [p.hub.address], rows, name=name, links=links, settings=admin(run, name), **options).start())
    p.agent = p.agents[0]
    p.hub.wait_links(links * len(agents))
    return p


def admin(run, name):
    return {"admin": ({"bind": "unix:" + socket_of(run, name), "level": "admin"},)}


def socket_of(run, name):
    return run.path(name + ".sock")


def ask(program, command):
    with tcp.open_socket(socket_of(program.run, program.name)) as s:
        s.sendall(command.encode() + b"\n")
        text = b""
        while True:
            data = s.recv(1 << 16)
            if not data:
                return text.decode()
            text += data


def services(program):
    return json.loads(ask(program, "show services json"))


def service(program, name="x", agent=None):
    """The row of `show services`, None when there is none."""
    for row in services(program):
        if row["service"] == name and agent in (None, row["agent"]):
            return row
    return None


def wait_service(program, status, name="x", agent=None, timeout=harness.PATIENCE, **facts):
    def look():
        program.must_run()
        row = service(program, name, agent)
        return row if row and row["status"] == status and all(row[k] == v for k, v in facts.items()) else None
    try:
        return harness.wait_until(look, "", timeout, 0.02)
    except harness.Failed:
        raise harness.Failed("%s says %s, not %s %s" % (program.name, service(program, name, agent), status, facts)) from None


class Target:
    """Listens on one address for good; what happens to a connection is `mood`, a function of the socket; None: nobody listens."""

    def __init__(self, run, mood=None, address=None):
        self.run = run
        self.address = address or (run.host, run.port())
        self.mood = mood
        self.listener = None
        self.seen = 0
        if mood:
            self.rise(mood)
        run.undo.callback(self.fall)

    def rise(self, mood=None):
        self.mood = mood or self.mood
        if self.listener:
            return
        s = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        if not isinstance(self.address, str):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif os.path.exists(self.address):
            os.unlink(self.address)
        s.bind(self.address)
        s.listen(1024)
        self.listener = s
        threading.Thread(target=self._accept, args=(s,), daemon=True).start()

    def fall(self):
        s, self.listener = self.listener, None
        if s:
            s.shutdown(socket.SHUT_RDWR)
            s.close()

    def _accept(self, listener):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            self.seen += 1
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        s.settimeout(60)
        try:
            self.mood(s)
        except (OSError, ssl.SSLError):
            pass
        finally:
            s.close()


def silent(s):
    """Takes everything, says nothing."""
    while s.recv(4096):
        pass


def named(word):
    """Says its name to whoever comes, then echoes."""
    def mood(s):
        s.sendall(word.encode() + b"\n")
        while True:
            data = s.recv(4096)
            if not data:
                return
            s.sendall(data)
    return mood


def says(data, after_request=True):
    """Answers the first bytes with these, in one piece, and ends."""
    def mood(s):
        if after_request:
            s.recv(4096)
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        silent(s)
    return mood


def slowly(data, pause=0.002):
    def mood(s):
        s.recv(4096)
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
            time.sleep(pause)
        s.shutdown(socket.SHUT_WR)
        silent(s)
    return mood


def resets(s):
    s.recv(4096)
    tcp.reset(s)


def leaves(s):
    s.recv(4096)
