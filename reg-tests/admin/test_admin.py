#!/usr/bin/python3
"""The admin socket: levels, words, answers that stream, and what its commands do to live traffic."""
import fcntl
import json
import os
import pty
import re
import socket
import stat
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, wait_until

LEVELS = ["user", "operator", "admin"]


# ---- talking ----

def connect(path, timeout=harness.PATIENCE):
    return tcp.open_socket(path, timeout)


def read_all(s):
    parts = []
    while True:
        data = s.recv(1 << 16)
        if not data:
            return b"".join(parts).decode()
        parts.append(data)


def ask(path, line, timeout=harness.PATIENCE):
    """All that is said to one line, without the empty line at its end."""
    with connect(path, timeout) as s:
        s.sendall(line.encode() + b"\n")
        text = read_all(s)
    check(text == "\n" or text.endswith("\n\n"), "no empty line at the end of", repr(text[-200:]))
    return text[:-1]


def table(path, command):
    lines = ask(path, command).splitlines()
    names = lines[0][2:].split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines[1:]]


def objects(path, command):
    return json.loads(ask(path, command + " json"))


def done(path, command):
    equal(ask(path, command), "", "answer to " + command)


def ctl(path, *words, **options):
    program = os.path.join(os.path.dirname(scene.binary()), "mctunnelctl")
    if not os.path.exists(program):
        program = os.path.join(harness.TOP, "mctunnelctl")
    return subprocess.run([program, "-s", path, *words], capture_output=True, text=True, timeout=60, **options)


# ---- scenes ----

def sockets(run, name):
    """A socket for each level: their paths, and how the configuration has them."""
    paths = {level: run.path("%s-%s.sock" % (name, level)) for level in LEVELS}
    rows = tuple({"bind": "unix:" + paths[level], "level": level, "mode": "06%d0" % (i * 2)} for i, level in enumerate(LEVELS))
    return paths, {"admin": rows, "hard_stop_after": "30s"}


class Scene:
    def __init__(self, run, services=None, agents=("edge-1",), timeouts=None, **hub):
        self.echo = tcp.Server(run, tcp.echo)
        services = services or {"echo": self.echo.target}
        name = hub.get("name", "hub")
        self.at, settings = sockets(run, name)
        self.agent_at, agent_settings = sockets(run, name + "-agent")
        self.admin = self.at["admin"]
        self.hub = scene.Hub(run, {name: "site-a/" + name for name in services}, tunnels=[scene.tunnel(agents=agents)], settings=settings,
                             timeouts=timeouts, **hub).start()
        self.hub.wait_ready()
        self.agents = {}
        for i, agent in enumerate(agents):
            rows = [scene.service(s, t if isinstance(t, str) else t[i]) for s, t in services.items()]
            self.agents[agent] = scene.Agent(run, self.hub.authority, [self.hub.address], rows, name=agent, file=name + "-" + agent,
                                             settings=agent_settings if i == 0 else {}).start()
        self.hub.wait_links(2 * len(agents))
        self.listen = self.hub.listen

    def session(self, name="echo"):
        """An echo session that is open."""
        s = tcp.open_socket(self.listen[name])
        s.sendall(b"hello")
        equal(tcp.recv_exactly(s, 5), b"hello", "echo")
        return s


def alive(s):
    s.sendall(b"still")
    equal(tcp.recv_exactly(s, 5), b"still", "echo")


def refused(s):
    """Reset, without a byte."""
    tcp.expect_reset(s, "a session that was ended")
    s.close()


# ---- levels and files ----

def documented():
    """(command, level) as doc/management.txt has them."""
    with open(os.path.join(harness.TOP, "doc", "management.txt")) as f:
        text = f.read().split("3. Commands")[1]
    found = re.findall(r"^    ([a-z][^\n]*)\n(?:        .*\n)*?        Level: (\w+)\.", text, re.M)
    check(len(found) > 40, "only", len(found), "commands are documented")
    return [(" ".join(w for w in words.split() if w.islower() and w[0] != "[" and "|" not in w), level) for words, level in found]


def test_levels(run):
    """Every command at every level: allowed or denied as documented; what would change something is logged."""
    s = Scene(run)
    for command, needed in documented():
        for level in LEVELS:
            if level == "admin" and command in ("stop", "soft-stop"):
                continue
            allowed = LEVELS.index(level) >= LEVELS.index(needed)
            answer = ask(s.at[level], command + ("; quit" if command == "prompt" else ""))
            answer = answer if command != "prompt" else answer.rstrip("\n")
            equal(answer != "Permission denied\n", allowed, "%s at level %s says %r: allowed" % (command, level, answer[:100]))
    denied = s.hub.wait_log("admin", command="stop", allowed="no", rights="user")[0]
    equal((denied["uid"], denied["pid"], denied["level"]), (os.getuid(), os.getpid(), "notice"), "who was logged")
    check(not s.hub.log("admin", command="show sessions"), "a command that only shows is logged")
    equal(len(ask(s.at["user"], "help").splitlines()) - 1, len([c for c, level in documented() if level == "user"]), "commands of help at level user")
    for level, path in s.at.items():
        equal(oct(stat.S_IMODE(os.stat(path).st_mode)), "0o6%d0" % (LEVELS.index(level) * 2), "mode of the %s socket" % level)


def test_documents(run):
    """What the program prints is what is in the tree."""
    for option, path in (("-dM", "doc/management.txt"), ("-dB", "etc/bash-completion/mctunnelctl"), ("-dK", "doc/configuration.txt")):
        printed = subprocess.run([scene.binary(), option], capture_output=True, text=True, check=True).stdout
        with open(os.path.join(harness.TOP, path)) as f:
            check(printed == f.read(), path, "is not what mctunnel", option, "prints")


# ---- words ----

def test_words(run):
    s = Scene(run)
    a = s.admin
    check(ask(a, "show sesions").startswith("Unknown command: 'show sesions'. The nearest:\n  show sessions"), "nearest match")
    check("disable listener NAME" in ask(a, "disabel listener echo"), "nearest match with an argument")
    check("show sessions" in ask(a, "show s") and "show services" in ask(a, "show s"), "an ambiguous beginning")
    equal(ask(a, "show vers"), ask(a, "show version"), "a short form")
    check("Unknown" in ask(a, "disable listen echo"), "a change must not be shortened")
    check("nearest" not in ask(a, "xyzzy plugh"), "nothing is near")
    check("'echo'" in ask(a, "disable listener ecoh"), "nearest name")
    equal(ask(a, "enable listener"), "Usage: enable listener NAME\n", "usage")
    equal(ask(a, "show version x y"), "Usage: show version [json]\n", "usage")
    equal(ask(a, "show version;show lua;;  ; show version"), "\n".join([ask(a, "show version"), ask(a, "show lua"), ask(a, "show version")]), "a list")
    check("There is no listener 'a;b c\\'" in ask(a, "enable listener a\\;b\\ c\\\\"), "escapes:", ask(a, "enable listener a\\;b\\ c\\\\"))
    check("Reloaded." in ask(a, "reload") and "not available" in ask(a, "reload certs; upgrade"), "honest answers")
    equal(ask(a, "wait ready"), "Ready.\n", "wait ready")
    equal(ask(a, "show version\r"), ask(a, "show version"), "a carriage return")
    for command in "info stat tunnels agents links services listeners sessions errors events certs config memory threads lua version env".split():
        for path in (a, s.agent_at["admin"]):
            json.loads(ask(path, "show %s json" % command))
            check("\n\n" not in ask(path, "show " + command), "an empty line within show", command)


def test_lines(run):
    """How lines may come."""
    s = Scene(run)
    with connect(s.admin) as c:  # byte by byte
        for byte in b"show version; show lua\n":
            c.send(bytes([byte]))
            time.sleep(0.001)
        check(read_all(c) == ask(s.admin, "show version") + "\n" + ask(s.admin, "show lua") + "\n", "byte by byte")
    with connect(s.admin) as c:  # without a line feed
        c.sendall(b"show version")
        c.shutdown(socket.SHUT_WR)
        check(re.match(r"\d+\.\d+", read_all(c)), "without a line feed")
    with connect(s.admin) as c:  # a megabyte
        began = time.monotonic()
        try:
            c.sendall(b"x" * (1 << 20))
        except OSError:
            pass
        equal(read_all(c), "The line is too long: at most 4095 bytes.\n\n", "a line of 1 MiB")
        check(time.monotonic() - began < 8, "a long line is refused only when patience ends")
    with connect(s.admin) as c:
        c.sendall(b"show version " + b"x" * 4083)  # the last byte decides
        equal(read_all(c), "The line is too long: at most 4095 bytes.\n\n", "4096 bytes without a line feed")
    with connect(s.admin) as c:
        c.sendall(b"show version" + b" " * 4083 + b"\n")
        check(re.match(r"\d+\.\d+", read_all(c)), "4095 bytes and a line feed")
    for junk in (b"\x00\n", b"show\x00version\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", os.urandom(1000).replace(b"\n", b"") + b"\n"):
        with connect(s.admin) as c:
            c.sendall(junk)
            check(read_all(c).endswith("\n\n"), "no answer to", junk[:20])
    with connect(s.admin) as c:  # nothing at all, and gone
        pass
    with connect(s.admin) as c:
        c.sendall(b"prompt\n")
        equal(tcp.recv_exactly(c, 4), b"\n\n> ", "prompt")
        c.sendall(b"show version\n\n")
        data = b""
        while data.count(b"> ") < 2:
            data += c.recv(100)
        check(re.match(rb"\d+\.\d+\S*\n\n\n> \n> $", data), "interactive:", data)
        c.sendall(b"quit\n")
        equal(read_all(c), "\n", "quit")
    with connect(s.admin) as c:
        c.sendall(b"set severity-output number;enable listener x;wait ready\n")
        equal(read_all(c), "\n[3]: There is no listener 'x'.\n\n[6]: Ready.\n\n", "severities")


def test_idle(run):
    """Who says nothing is shown out after 10 s, who is at a prompt is not."""
    s = Scene(run)
    silent, at_prompt = connect(s.admin), connect(s.admin)
    at_prompt.sendall(b"prompt\n")
    began = time.monotonic()
    tcp.expect_closed(silent, "a silent client")
    check(time.monotonic() - began > 8, "closed after", time.monotonic() - began)
    at_prompt.sendall(b"show version\n")
    equal(tcp.recv_exactly(at_prompt, 4), b"\n\n> ", "the prompt")
    check(at_prompt.recv(100), "the prompt is closed")
    at_prompt.close()
    silent.close()


# ---- answers that stream ----

class Hoard:
    """A target that accepts and says nothing."""

    def __init__(self, run):
        self.s = tcp.listening((run.host, run.port()))
        self.s.setblocking(False)
        self.held = []
        self.target = tcp.text(self.s.getsockname())
        run.undo.callback(self.close)

    def take(self):
        while True:
            try:
                self.held.append(self.s.accept()[0])
            except BlockingIOError:
                return len(self.held)

    def close(self):
        for s in self.held:
            s.close()
        self.s.close()


def many_sessions(run, s, hoard, n):
    clients = []
    for _ in range(n):
        clients.append(tcp.open_socket(s.listen["hoard"]))
        run.undo.callback(clients[-1].close)
    wait_until(lambda: hoard.take() >= n, "%d sessions" % n)
    s.hub.wait_metric("mctunnel_sessions", lambda v: v >= n)
    return clients


def stalled_readers(s, chatter, n):
    """They ask for long answers and do not read them, which must not hold up traffic. A busy machine does so now and then, a fault each time."""
    for _ in range(5):
        stalled = [connect(s.admin) for _ in range(n)]
        for c in stalled:
            c.sendall(b"show sessions; show sessions json\n")
        seen = len(chatter.times)
        wait_until(lambda: len(chatter.times) > seen + 50, "traffic beside stalled readers")
        harness.say("echo meanwhile " + harness.spread(chatter.times[seen:]))
        if max(chatter.times[seen:]) < 0.5:
            return stalled
        for c in stalled:
            c.close()
    raise harness.Failed("long answers hold up traffic")


def test_stalled_reader(run):
    """A client that does not read a long answer costs a piece of memory and nobody's time; it may go on later, or go away."""
    hoard = Hoard(run)
    echo = tcp.Server(run, tcp.echo)
    s = Scene(run, {"echo": echo.target, "hoard": hoard.target})
    clients = many_sessions(run, s, hoard, 3000)
    chatter = tcp.Chatter(s.listen["echo"])
    before = proc.resident(s.hub.worker())[0]
    stalled = stalled_readers(s, chatter, 20)
    grown = proc.resident(s.hub.worker())[0] - before
    harness.say("20 stalled readers: %d KiB more" % (grown // 1024))
    check(grown < (64 if "asan" in scene.binary() else 8) << 20, "20 stalled readers cost", grown, "bytes")
    patient = stalled.pop()
    text = read_all(patient).split("\n\n")
    equal(len({line.split("\t")[0] for line in text[0].splitlines()[1:]}), 3001, "sessions in the answer of a slow reader")
    equal(len(json.loads(text[1])), 3001, "sessions in its JSON")
    for c in stalled:  # gone in the middle
        c.recv(10)
        c.close()
    seen = len(chatter.times)
    wait_until(lambda: len(chatter.times) > seen + 20, "traffic after they have gone")
    done(s.admin, "set log level info")
    equal(ask(s.admin, "shutdown sessions listener hoard"), "3000 sessions ended.\n", "answer")
    for c in clients[:20]:
        refused(c)
    s.hub.wait_metric("mctunnel_sessions", 1)
    chatter.stop()


def test_many_clients(run):
    """200 at once, each answered; more than are served at a time wait."""
    s = Scene(run)
    clients = [connect(s.admin) for _ in range(200)]
    for c in clients:
        c.sendall(b"show agents;show threads;show links\n")
    for c in clients:
        check(read_all(c).count("\n\n") == 3, "an answer is missing")
        c.close()
    prompts = [connect(s.admin) for _ in range(300)]
    for c in prompts:
        c.sendall(b"prompt\n")
    for c in prompts[:256]:
        equal(tcp.recv_exactly(c, 4), b"\n\n> ", "prompt")
    for c in prompts[:100]:
        c.close()
    for c in prompts[256:]:
        equal(tcp.recv_exactly(c, 4), b"\n\n> ", "prompt of one who waited")
    for c in prompts[100:]:
        c.close()
    check("Name: mctunnel" in ask(s.admin, "show info"), "the socket afterwards")


# ---- what commands do ----

def test_shutdown(run):
    s = Scene(run)
    one, two, three = s.session(), s.session(), s.session()
    rows = {row["client"]: row for row in table(s.admin, "show sessions")}
    equal(len(rows), 3, "sessions")
    row = rows["%s:%d" % one.getsockname()]
    equal((row["side"], row["listener"], row["peer"], row["state"], row["up"], row["down"]), ("hub", "echo", "edge-1", "open", "5", "5"), "its row")
    detail = json.loads(ask(s.admin, "show sessions %s json" % row["id"]))
    equal(detail["client"], row["client"], "show sessions ID")
    equal(ask(s.admin, "shutdown session 0123"), "There is no session 0123.\n", "an unknown session")
    done(s.admin, "shutdown session " + row["id"])
    refused(one)
    equal(s.hub.wait_log("session", id=row["id"])[0]["reason"], "killed", "reason on the hub")
    equal(s.agents["edge-1"].wait_log("session", id=row["id"])[0]["reason"], "killed", "reason on the agent")
    check("There is no session" in ask(s.admin, "shutdown session " + row["id"]), "a session that has gone")
    other = rows["%s:%d" % two.getsockname()]
    done(s.agent_at["admin"], "shutdown session " + other["id"])  # from the other side
    refused(two)
    equal(s.hub.wait_log("session", id=other["id"])[0]["end"], "KD", "its end on the hub")
    alive(three)
    links = table(s.admin, "show links")
    equal(len(links), 2, "links")
    for link in links:
        done(s.admin, "shutdown link " + link["id"])
    alive(three)  # over another link
    check("There is no link" in ask(s.admin, "shutdown link " + links[0]["id"]), "a link that has gone")
    s.hub.wait_links(2)
    equal(ask(s.admin, "shutdown sessions agent edge-1"), "1 sessions ended.\n", "answer")
    refused(three)
    check("There is no agent" in ask(s.admin, "shutdown sessions agent edge-9"), "an unknown agent")
    s.hub.nothing_left()


def test_listener(run):
    """Disabled: sessions go on, nobody is refused, whoever connects is served when it is enabled again."""
    s = Scene(run)
    old = s.session()
    done(s.admin, "disable listener echo")
    equal([row["status"] for row in table(s.admin, "show listeners")], ["STOP"], "status")
    waiting = [tcp.open_socket(s.listen["echo"]) for _ in range(20)]
    for c in waiting:
        c.sendall(b"x")
    alive(old)
    time.sleep(0.3)
    equal([row["sessions"] for row in table(s.admin, "show listeners")], ["1"], "sessions while it is disabled")
    old.close()
    s.hub.nothing_left()  # an end makes room, but opens no door
    equal(len(table(s.admin, "show sessions")), 0, "sessions while it is disabled")
    done(s.admin, "enable listener echo")
    for c in waiting:
        equal(tcp.recv_exactly(c, 1), b"x", "echo")
        c.close()
    equal(objects(s.admin, "show listeners")[0]["total"], 21, "sessions in all")
    done(s.admin, "clear counters")
    s.hub.nothing_left()
    equal(objects(s.admin, "show listeners")[0]["failed"], 0, "failed after clear counters")


def names(s, n=12):
    return {tcp.ask_name(s.listen["who"]) for _ in range(n)}


def test_agents_and_services(run):
    """drain, disable, weight, tunnel, service: new sessions go where they should, old ones stay."""
    one, two = tcp.Server(run, tcp.banner("one")), tcp.Server(run, tcp.banner("two"))
    s = Scene(run, {"who": (one.target, two.target)}, agents=("edge-1", "edge-2"), timeouts={"queue": "2s"})
    equal(names(s), {"one", "two"}, "before")
    old = tcp.open_socket(s.listen["who"])
    word = tcp.recv_exactly(old, 4).decode().strip()
    mine, other = ("edge-1", "two") if word == "one" else ("edge-2", "one")
    for command, status in (("drain", "DRAIN"), ("disable", "MAINT")):
        done(s.admin, "%s agent %s" % (command, mine))
        equal({row["agent"]: row["status"] for row in table(s.admin, "show agents")}[mine], status, "status")
        equal(names(s), {other}, "while it is in " + status)
        alive(old)
        done(s.admin, "enable agent " + mine)
        equal(names(s), {"one", "two"}, "enabled again")
    done(s.admin, "set weight %s who 0" % mine)
    equal(names(s), {other}, "with weight 0")
    done(s.admin, "set weight %s who 100" % mine)
    for command in ("%s tunnel site-a", "%s service site-a/who"):
        done(s.admin, command % "disable")
        equal({row["status"] for row in table(s.admin, "show services")}, {"MAINT"}, "status of the service")
        c = tcp.open_socket(s.listen["who"])
        refused(c)
        alive(old)
        waiting = tcp.open_socket(s.listen["who"])
        done(s.admin, command % "enable")
        check(tcp.recv_exactly(waiting, 4), "who waited is served")
        waiting.close()
        equal(names(s), {"one", "two"}, "enabled again")
    equal([row["status"] for row in table(s.admin, "show tunnels")], ["UP"], "status of the tunnel")
    for bad in ("drain agent edge-9", "disable tunnel site-b", "disable service site-a", "disable service site-b/who", "set weight edge-1 who 257",
                "set weight edge-9 who 1", "set maxconn 0", "set maxconn x", "set log level loud", "set vip king", "wait ready soon"):
        check(ask(s.admin, bad).strip(), "accepted:", bad)
    s.agents[mine].stop()
    s.hub.wait_links(2)
    equal({row["agent"]: row["status"] for row in table(s.admin, "show agents")}[mine], "DOWN", "status of one that has gone")
    old.close()


def test_maxconn(run):
    s = Scene(run)
    done(s.admin, "set maxconn 2")
    first, second = s.session(), s.session()
    third = tcp.open_socket(s.listen["echo"])
    third.sendall(b"x")
    harness.stays(lambda: objects(s.admin, "show info")["CurrConns"] == 2, 0.3, "two sessions")
    equal([row["status"] for row in table(s.admin, "show listeners")], ["FULL"], "status")
    first.close()
    equal(tcp.recv_exactly(third, 1), b"x", "who waited")
    done(s.admin, "set maxconn 3")
    s.session().close()
    second.close()
    third.close()


def test_vip_and_log(run):
    s = Scene(run)
    equal(s.hub.metrics()['mctunnel_vip_state{state="unknown"}'], 1, "at first")
    done(s.admin, "set vip backup")
    done(s.admin, "set vip master")
    done(s.admin, "set vip master")
    metrics = s.hub.metrics()
    equal((metrics['mctunnel_vip_state{state="master"}'], metrics["mctunnel_vip_state"], metrics["mctunnel_vip_changes_total"]), (1, 1, 2), "metrics")
    equal(s.hub.wait_log("vip", to="master")[0]["from"], "backup", "log")
    s.hub.kill_worker()
    s.hub.wait_metric("mctunnel_worker_restarts_total", 1)
    s.hub.wait_ready()
    equal(objects(s.admin, "show info")["Vip"], "master", "after a crash of the worker")
    done(s.admin, "set log level alert")
    check("There is no" in ask(s.admin, "disable listener x"), "refusal")
    time.sleep(0.2)
    check(not s.hub.log("admin", command="disable listener x"), "logged in spite of the level")
    check("disable listener x" in ask(s.admin, "show events"), "show events has it nevertheless")


def test_end(run):
    """stop and soft-stop: the answer comes, sessions end as they should, the master ends with 0."""
    s = Scene(run)
    old = s.session()
    equal(ask(s.agent_at["admin"], "stop"), "Stopping.\n", "answer")
    s.agents["edge-1"].ended(0)
    refused(old)
    t = Scene(run, name="hub-b")
    old = t.session()
    equal(ask(t.admin, "soft-stop"), "Draining.\n", "answer")
    wait_until(lambda: objects(t.admin, "show info")["State"] == "draining", "the drain")
    equal(ask(t.admin, "wait ready 10"), "Not ready: draining.\n", "wait ready")
    alive(old)
    old.shutdown(socket.SHUT_WR)
    tcp.expect_eof(old)
    t.hub.ended(0)


# ---- mctunnelctl ----

def test_ctl(run):
    s = Scene(run)
    r = ctl(s.admin, "check")
    equal((r.returncode, r.stdout, r.stderr), (0, "healthy\n", ""), "check")
    r = ctl(s.admin, "show", "agents")
    lines = r.stdout.splitlines()
    equal((r.returncode, len(lines), lines[0].index("status"), lines[0].split()[:3]), (0, 2, lines[1].index("UP"), ["tunnel", "agent", "status"]), "a table")
    check("\033" not in r.stdout and "\t" not in r.stdout, "colours or tabs in a file")
    equal(json.loads(ctl(s.admin, "--json", "show", "agents").stdout)[0]["agent"], "edge-1", "--json")
    equal(json.loads(ctl(s.admin, "show", "stat", "--json").stdout)[0]["pxname"], "echo", "--json")
    r = ctl(s.admin, "disable", "listener", "nix")
    equal((r.returncode, r.stdout, r.stderr), (1, "", "There is no listener 'nix'.\n"), "a refusal")
    equal(ctl(s.admin, "shutdown session 12; show version").returncode, 1, "one refusal of two")
    equal(ctl(s.at["user"], "stop").returncode, 1, "Permission denied")
    equal(ctl(s.admin, "show", "nonsense").returncode, 1, "an unknown command")
    equal(ctl(s.admin, "wait", "ready", "1s").returncode, 0, "wait ready")
    equal(ctl(run.path("nobody.sock"), "show", "info").returncode, 2, "no answer")
    equal(ctl(run.path("nobody.sock"), "check").returncode, 1, "check without an answer")
    equal(ctl(s.admin).returncode, 1, "no command")
    header = ctl(s.admin, "show", "stat").stdout.splitlines()[0].split()
    equal(header[:3], ["pxname", "svname", "scur"], "show stat without empty columns")
    env = dict(os.environ, MCTUNNEL_SOCKET=s.admin)
    program = ctl(s.admin, "check").args[0]
    equal(subprocess.run([program, "check"], env=env, capture_output=True).returncode, 0, "MCTUNNEL_SOCKET")
    held = s.session()
    equal(ask(s.admin, "soft-stop"), "Draining.\n", "soft-stop")
    wait_until(lambda: ctl(s.admin, "check").returncode == 1, "check to say no")
    check("draining" in ctl(s.admin, "check").stderr, "check says why")
    held.close()
    s.hub.ended(0)


def test_top(run):
    """The live view in a terminal: shows what is there, obeys its keys, leaves the terminal as it was."""
    s = Scene(run)
    held = s.session()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    before = termios.tcgetattr(theirs)
    p = proc.start(run, [ctl(s.admin, "check").args[0], "-s", s.admin, "--watch", "0.2", "top"], stdin=theirs, stdout=theirs, stderr=theirs,
                   env=dict(os.environ, TERM="xterm"))
    seen = [""]

    def until(word, key=None):
        seen[0] = ""
        if key:
            os.write(ours, key)

        def look():
            seen[0] += os.read(ours, 65536).decode(errors="replace")
            return word in seen[0]
        wait_until(look, "%r in top, not %r" % (word, seen[0][-2000:]))

    until("edge-1")
    check("rtt_ms" in seen[0] and "serving" in seen[0], "the head of top:", seen[0])
    until("127.0.0.1:%d" % held.getsockname()[1], b"e")
    until("sessions: 0", b"/nothing like it\n")
    until("sessions: 1", b"/\n")
    until("listeners: 1", b"l")
    until("by total", b">>>")
    until("services: 1", b"s")
    until("\033[?1049l", b"q")
    equal(p.wait(10), 0, "exit status of top")
    equal(termios.tcgetattr(theirs)[:4], before[:4], "the terminal afterwards")
    os.close(ours)
    os.close(theirs)
    equal(ctl(s.admin, "top").returncode, 1, "top without a terminal")
    held.close()


if __name__ == "__main__":
    harness.main(globals())
