"""What a benchmark stands on: processes that end with it, their CPU and memory, the load and its targets."""
import contextlib
import itertools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(TOP, "reg-tests", "lib"))
import netns

TICK = os.sysconf("SC_CLK_TCK")
GB = 1000 ** 3
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light libnginx-mod-stream", "sshd": "openssh-server", "wrk": "wrk"}
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


class Failed(Exception):
    pass


class Recorder:
    """The commands and configurations of a row, as the published page shows them: without ports and paths of this run."""

    def __init__(self):
        self.ports, self.folders = set(), []
        self.forget()

    def forget(self):
        self.commands, self.files = {}, {}

    def plain(self, text):
        for folder in self.folders:
            text = text.replace(folder + "/", "").replace(folder, ".")
        return re.sub(r"\d{4,5}", lambda m: "PORT" if int(m[0]) in self.ports else m[0], text.replace(TOP + "/", ""))

    def command(self, args):
        self.commands.setdefault(re.sub(r"(\.\w+)?-PORT", r"\1", self.plain(" ".join(map(str, args)))), None)

    def file(self, name, text):
        if len(text) < 4000 and name.rsplit(".", 1)[-1] in ("cfg", "conf", "toml", "sshd"):
            self.files[re.sub(r"-PORT", "", self.plain(name))] = self.plain(text)


record = Recorder()


def which(name):
    return shutil.which(name, path=PATH)


def say(*words):
    print(*words, file=sys.stderr, flush=True)


_ports = itertools.cycle(range(20001, 30000))
for _ in range(os.getpid() * 50 % 9999):  # another place for each process
    next(_ports)


def free_port():
    """One that no connection gets before somebody listens there: the kernel gives them those from 32768 on."""
    while True:
        port = next(_ports)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            record.ports.add(port)
            return port


def wait_port(port, what, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise Failed("%s does not listen on port %d" % (what, port))


def own_network(congestion):
    """From now on this process and those that it starts have a loopback of their own."""
    netns.enter_empty()
    with open("/proc/sys/net/ipv4/tcp_congestion_control", "w") as f:
        f.write(congestion)


# ---- processes ----

def descendants(pid):
    found = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task)) as f:
                for child in f.read().split():
                    found += descendants(int(child))
    return found


def family(pids):
    """These processes and their descendants."""
    for root in pids:
        yield from descendants(root)


def cpu_of(pids):
    """Seconds that these processes and their descendants have used."""
    total = 0
    for pid in family(pids):
        with contextlib.suppress(OSError), open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def cpu_of_threads(pids):
    """The same to the nanosecond, for processes whose threads all live on."""
    total = 0
    for pid in family(pids):
        with contextlib.suppress(OSError):
            for task in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                    total += int(f.read().split()[0])
    return total / 1e9


def line_of(p, word, seconds):
    """The next line a process says that begins with the word. Its output is not buffered here."""
    end, text = time.monotonic() + seconds, b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([p.stdout], [], [], left)[0]:
            raise Failed("%s: no line \"%s\" in %d s" % (p.args[0], word, seconds))
        c = os.read(p.stdout.fileno(), 1)
        if not c:
            with open(p.log) as f:
                raise Failed("%s has ended: %s" % (" ".join(p.args), f.read()[-200:].strip()))
        text += c
        if c == b"\n":
            line, text = text.decode(), b""
            if line.startswith(word):
                return line


def memory_of(pids):
    total = 0
    for pid in family(pids):
        with contextlib.suppress(OSError), open("/proc/%d/smaps_rollup" % pid) as f:
            total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1)) * 1024
    return total


class Stage:
    """A folder, and everything that was started: it ends with the stage."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="mctunnel-bench-")
        record.folders.append(self.folder)
        self.running, self.started = [], 0

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.end(self.running)
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o600):
        with open(self.path(name), "w") as f:
            f.write(text)
        os.chmod(self.path(name), mode)
        record.file(name, text)
        return self.path(name)

    def start(self, args, **options):
        record.command(args)
        self.started += 1
        log = open(self.path("%d.log" % self.started), "w")
        p = subprocess.Popen(args, stdin=options.pop("stdin", subprocess.DEVNULL), stdout=options.pop("stdout", log), stderr=log, env=dict(os.environ, PATH=PATH),
                             start_new_session=True, **options)
        p.log = log.name
        log.close()
        self.running.append(p)
        return p

    def end(self, processes):
        for p in list(processes):
            pids = descendants(p.pid) if p.poll() is None else []
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGTERM if pid == p.pid else signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(3)
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            p.wait()
            if p in self.running:
                self.running.remove(p)


def run(args, timeout=180, quiet=False, **options):
    if not quiet:
        record.command(args)
    got = subprocess.run(args, capture_output=True, text=True, timeout=timeout, env=dict(os.environ, PATH=PATH), **options)
    if got.returncode != 0:
        raise Failed("%s: %s" % (" ".join(args), (got.stderr or got.stdout).strip()[-500:]))
    return got.stdout


# ---- the work: a server of echoes and bytes, and a web server ----

class Work:
    """A server of echoes and bytes (load serve), and a web server (nginx)."""

    def __init__(self, stage):
        self.stage = stage
        self.load = stage.path("load")
        run(["cc", "-O2", "-pthread", "-o", self.load, os.path.join(TOP, "scripts/bench.d/load.c")])
        self.port, self.web = free_port(), free_port()
        stage.start([self.load, "serve", str(self.port)])
        os.makedirs(stage.path("www"))
        with open(stage.path("www/1k"), "wb") as f:
            f.write(b"x" * 1024)
        stage.write("origin.conf", """worker_processes 1; daemon off; pid %s/origin.pid; error_log stderr crit;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
  server { listen 127.0.0.1:%d backlog=8192; root %s/www; } }
""" % (stage.folder, *[stage.path("t%d" % i) for i in range(5)], self.web, stage.folder))
        if which("nginx"):
            os.chmod(stage.folder, 0o755)
            stage.start([which("nginx"), "-p", stage.folder, "-c", stage.path("origin.conf")])
            wait_port(self.web, "nginx")
        wait_port(self.port, "load serve")

    def ask(self, *words, timeout=180):
        return run([self.load, *map(str, words)], timeout=timeout)

    def begin(self, *words):
        """Runs until its stdin ends; says one line when it is ready."""
        return self.stage.start([self.load, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
