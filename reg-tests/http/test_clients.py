#!/usr/bin/env python3
"""Foreign clients and origins through a listener of mode http: curl, Python's http.client, WebSockets, git over HTTP."""
import contextlib
import hashlib
import http.client
import http.server
import os
import struct
import subprocess
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki
import scene
import tcp
import web
from harness import check, equal

BIG = os.urandom(1 << 20) * 5 + b"the end"


class Origin(http.server.BaseHTTPRequestHandler):
    """Says what it got; GET /big and /chunked send BIG."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def got(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while n := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(n))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, body, *fields):
        self.send_response(200)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path == "/big":
            self.answer(BIG)
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(BIG), 100000):
                piece = BIG[at:at + 100000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(self.path.encode() + b"\n", ("X-Host", self.headers["Host"]), ("X-For", self.headers.get("X-Forwarded-For", "-")),
                        ("X-Proto", self.headers.get("X-Forwarded-Proto", "-")))

    do_HEAD = do_GET

    def do_POST(self):
        body = self.got()
        self.answer(b"%d %s\n" % (len(body), hashlib.sha256(body).hexdigest().encode()))

    do_PUT = do_POST


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve(run, handler):
    server = Server((run.host, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run.undo.callback(server.server_close)
    run.undo.callback(server.shutdown)
    return "%s:%d" % server.server_address[:2]


def scenario(run, target, **listener):
    hub = scene.Hub(run, {"web": dict({"mode": "http", "route": "site-a/web"}, **listener)}).start()
    hub.wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("web", target)]).start()
    hub.wait_links(2)
    return hub, "http://%s:%d" % hub.listen["web"]


def curl(*args, stdin=None):
    done = subprocess.run(("curl", "-sS", "--noproxy", "*", "--max-time", "30") + args, input=stdin, capture_output=True)
    check(done.returncode == 0, "curl", args, "ended with", done.returncode, done.stderr.decode())
    return done.stdout


def digest(data):
    return b"%d %s\n" % (len(data), hashlib.sha256(data).hexdigest().encode())


def test_curl(run):
    hub, url = scenario(run, serve(run, Origin))
    equal(curl(url + "/a", url + "/b?c", "-w", "%{num_connects} "), b"/a\n1 /b?c\n0 ", "two requests of one curl, and its connections")
    equal(curl(url + "/a", "--http1.0"), b"/a\n", "HTTP/1.0")
    equal(curl(url + "/chunked", "--http1.0"), BIG, "chunks for an HTTP/1.0 client")
    fields = curl(url + "/", "-i", "-H", "Host: other.test", "--interface", run.host)
    check(b"x-host: other.test\r\nx-for: %s\r\n" % run.host.encode() in fields.lower(), fields)
    check(b"Content-Length: %d\r\n" % len(BIG) in curl(url + "/big", "-I"), "HEAD")
    for path in ("/big", "/chunked"):
        check(curl(url + path) == BIG, path, "is not what it should be")
    equal(curl(url + "/", "-T", "-", "-H", "Expect: 100-continue", stdin=BIG), digest(BIG), "a chunked upload")
    equal(curl(url + "/", "--data-binary", "@-", stdin=BIG), digest(BIG), "an upload with a length")
    equal(curl(url + "/", "-d", ""), digest(b""), "an empty POST")
    hub.nothing_left()


def test_curl_over_tls(run):
    authority = pki.Pki(run.path("clients"))
    cert, key = authority.hub("web")
    hub, _ = scenario(run, serve(run, Origin), tls={"cert": [cert], "key": key})
    url = "https://hub.test:%d" % hub.listen["web"][1]
    secure = ("--cacert", authority.ca, "--resolve", "hub.test:%d:%s" % (hub.listen["web"][1], run.host), "--http1.1")
    equal(curl(url + "/a", url + "/b", "-w", "%{num_connects} ", *secure), b"/a\n1 /b\n0 ", "two requests over one TLS connection")
    check(b"x-proto: https\r\n" in curl(url + "/", "-i", *secure).lower(), "the target is not told of https")
    check(curl(url + "/chunked", *secure) == BIG, "a long answer")
    equal(curl(url + "/", "-T", "-", *secure, stdin=BIG), digest(BIG), "an upload")
    hub.nothing_left()


def test_http_client(run):
    hub, _ = scenario(run, serve(run, Origin))
    c = http.client.HTTPConnection(*hub.listen["web"], timeout=30)
    c.connect()
    s = c.sock
    for i in range(50):
        body = BIG[:i * 1000]
        c.request("POST", "/", body=body if i % 2 else iter([body[:100], body[100:]]), encode_chunked=not i % 2)
        answer = c.getresponse()
        equal((answer.status, answer.read()), (200, digest(body)), "answer %d" % i)
        c.request("HEAD", "/big")
        equal(len(c.getresponse().read()), 0, "body of HEAD")
    check(c.sock is s, "the connection was not kept")
    c.close()
    hub.nothing_left()


def test_websocket(run):
    try:
        import asyncio
        import websockets
    except ImportError:
        raise harness.Skipped("no python3-websockets") from None

    async def echo(ws, path="/"):
        async for message in ws:
            await ws.send(message)

    async def talk(url):
        async with websockets.connect(url, max_size=None, compression=None) as ws:
            for i in range(200):
                message = BIG[i:i * 37] if i % 2 else "message %d" % i
                await ws.send(message)
                equal(await ws.recv(), message, "echo %d" % i)
            await ws.send(BIG)
            check(await ws.recv() == BIG, "the long message")
        return ws.close_code

    async def everything():
        async with websockets.serve(echo, run.host, port, max_size=None):
            return await asyncio.wait_for(asyncio.gather(*(talk(url.replace("http:", "ws:") + "/ws") for _ in range(5))), 60)

    port = run.port()
    hub, url = scenario(run, "%s:%d" % (run.host, port))
    equal(asyncio.run(everything()), [1000] * 5, "how WebSockets were closed")
    hub.nothing_left()


class Git(Origin):
    """git http-backend as a CGI."""
    root = None

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.got()
        env = dict(os.environ, GIT_PROJECT_ROOT=self.root, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query, REQUEST_METHOD=self.command,
                   CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)), REMOTE_USER="me", REMOTE_ADDR="127.0.0.1",
                   HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""), GIT_PROTOCOL=self.headers.get("Git-Protocol", ""))
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    do_POST = do_GET


def git(*args, folder=None):
    env = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", HOME="/nonexistent", GIT_TERMINAL_PROMPT="0", no_proxy="*")
    for side in ("AUTHOR", "COMMITTER"):
        env["GIT_%s_NAME" % side], env["GIT_%s_EMAIL" % side] = "me", "me@example.com"
    done = subprocess.run(("git",) + args, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, "git", args, done.stderr)
    return done.stdout


def test_git(run):
    root, one, two = run.path("repositories"), run.path("one"), run.path("two")
    os.mkdir(root)
    git("init", "-q", "--bare", "-b", "main", os.path.join(root, "x.git"))
    git("config", "http.receivepack", "true", folder=os.path.join(root, "x.git"))
    hub, url = scenario(run, serve(run, type("GitHere", (Git,), {"root": root})))
    git("clone", "-q", url + "/x.git", one)
    for i in range(20):
        with open(os.path.join(one, "file%d" % i), "wb") as f:
            f.write(BIG[i:i + 100000 * i])
    git("add", ".", folder=one)
    git("commit", "-qm", "many", folder=one)
    git("push", "-q", "origin", "HEAD:main", folder=one)  # 1 MiB is posted at once, more in chunks
    git("clone", "-q", "-b", "main", url + "/x.git", two)
    equal(git("rev-parse", "HEAD", folder=two), git("rev-parse", "HEAD", folder=one), "what was cloned")
    with open(os.path.join(two, "file19"), "rb") as f:
        check(f.read() == BIG[19:19 + 1900000], "file19 is not what was pushed")
    hub.nothing_left()


def spdy(kind, stream, payload=b"", flags=0):
    """A control frame of SPDY/3.1; kind 0: a data frame."""
    head = struct.pack("!HH", 0x8003, kind) if kind else struct.pack("!I", stream)
    body = struct.pack("!I", stream) + payload if kind else payload
    return head + struct.pack("!I", flags << 24 | len(body)) + body


def test_kubectl_exec(run):
    """What kubectl exec says: a POST that becomes SPDY/3.1, streams opened before the 101 is there, and both ends of it."""
    opens = b"".join(spdy(1, stream, bytes(6) + os.urandom(40)) for stream in (1, 3, 5, 7))
    replies = b"".join(spdy(2, stream, os.urandom(20)) for stream in (1, 3, 5, 7))
    said = spdy(0, 5, b"ls\r\n\r\nGET / HTTP/1.1\r\n\r\n") + spdy(0, 5, flags=1)
    heard = spdy(0, 7, os.urandom(300000)) + spdy(3, 1, struct.pack("!I", 5)) + spdy(7, 0)
    asked = []

    def server(s):
        wire = web.Wire(s)
        m = wire.head()
        asked.append(m)
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n" + replies)
        equal(wire.take(len(opens) + len(said)) == opens + said, True, "what the client said")
        wire.send(heard)

    hub, _ = scenario(run, tcp.Server(run, server).target)
    with web.Client(hub.listen["web"]) as c:
        versions = [("X-Stream-Protocol-Version", v) for v in ("v4.channel.k8s.io", "v3.channel.k8s.io")]
        c.request("/api/v1/namespaces/default/pods/x/exec?command=ls&stdin=true", "POST", fields=[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), *versions], body=b"")
        c.send(opens)
        m = c.answer()
        equal((m.status, m.get("Upgrade"), m.get("X-Stream-Protocol-Version")), (101, "SPDY/3.1", "v4.channel.k8s.io"))
        equal(c.take(len(replies)), replies, "streams that were accepted")
        c.send(said)
        equal(c.rest() == heard, True, "what the server said")
    equal((asked[0].get("Upgrade"), asked[0].all("X-Stream-Protocol-Version"), asked[0].path),
          ("SPDY/3.1", [v for _, v in versions], "/api/v1/namespaces/default/pods/x/exec?command=ls&stdin=true"))


def test_half_closed_client(run):
    """A client that has said all it will say still gets its answer, late as it is."""
    gate = threading.Event()

    def slow(s):
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += s.recv(1000)
        gate.wait(harness.PATIENCE)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        with contextlib.suppress(OSError):
            s.recv(1)

    hub, _ = scenario(run, tcp.Server(run, slow).target)
    with tcp.open_socket(hub.listen["web"]) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        s.shutdown(1)
        hub.wait_metric("mctunnel_sessions", 1)
        harness.stays(lambda: hub.metric("mctunnel_sessions") == 1, 0.3, "the session of a half-closed client")
        gate.set()
        got = b""
        while more := s.recv(1000):
            got += more
    check(got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\r\n\r\nlate"), got)
    hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
