#!/usr/bin/env python3
"""Health by gRPC on the hub's port: asked by foreign clients (grpcio, curl, nghttp), by raw bytes, and by those who mean harm."""
import contextlib
import os
import queue
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc  # noqa: E402

UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)
PATH = "/grpc.health.v1.Health/"


class Stage:
    """A hub with two tunnels, an agent for one of them, and a session that must go on whatever happens."""

    def __init__(self, run, agent=True):
        self.run = run
        self.echo = tcp.Server(run, tcp.echo)
        tunnels = [scene.tunnel("site-a", ["edge-1"], ["echo", "x-*"]), scene.tunnel("site-b", ["edge-2"], ["echo"])]
        self.hub = scene.Hub(run, {"echo": "site-a/echo"}, tunnels, settings={"hard_stop_after": "60s"}).start().wait_ready()
        self.at = "%s:%d" % self.hub.address
        self.agent = self.start_agent() if agent else None
        self.chatter = tcp.Chatter(self.hub.listen["echo"]) if agent else None

    def start_agent(self, file=None):
        rows = [scene.service(name, self.echo.target) for name in ("echo", "x-1")]
        agent = scene.Agent(self.run, self.hub.authority, [self.hub.address], rows, links=1, file=file).start()
        self.hub.wait_links(1)
        return agent

    def channel(self, tls=False, cert=None):
        if not tls:
            channel = grpc.insecure_channel(self.at, options=[("grpc.use_local_subchannel_pool", 1)])
        else:
            with open(self.hub.authority.ca, "rb") as f:
                ca = f.read()
            own = [open(path, "rb").read() for path in cert] if cert else (None, None)
            channel = grpc.secure_channel(self.at, grpc.ssl_channel_credentials(ca, own[1], own[0]),
                                          options=[("grpc.ssl_target_name_override", "hub.test"), ("grpc.use_local_subchannel_pool", 1)])
        self.run.undo.callback(channel.close)
        return channel

    def undisturbed(self):
        if self.chatter:
            self.chatter.go_on(5)
        self.hub.must_run()

    def end(self):
        if self.chatter:
            self.chatter.stop()
            tcp.ask(self.hub.listen["echo"])
        self.hub.must_run()


def request(service):
    return b"\x0a" + bytes([len(service)]) + service.encode() if service else b""


def ask(channel, service="", method="Check", message=None, **more):
    """The status, or the code of gRPC that came instead."""
    call = channel.unary_unary(PATH + method)
    try:
        answer = call(request(service) if message is None else message, timeout=harness.PATIENCE, **more)
    except grpc.RpcError as e:
        return e.code()
    if method == "List":
        return listed(answer)
    check(answer[:1] in (b"", b"\x08"), "an answer like", answer)
    return answer[1] if answer else UNKNOWN


def listed(data):
    """{service: status} of a HealthListResponse."""
    found = {}
    while data:
        equal(data[0], 0x0a, "tag of an entry")
        entry, data = data[2:2 + data[1]], data[2 + data[1]:]
        equal(entry[0], 0x0a, "tag of a key")
        key, value = entry[2:2 + entry[1]], entry[2 + entry[1]:]
        equal(value[:2], b"\x12\x02", "tag of a value")
        found[key.decode()] = value[3]
    return found


class Watch:
    """What a Watch has told so far."""

    def __init__(self, channel, service):
        self.call = channel.unary_stream(PATH + "Watch")(request(service))
        self.told, self.service = queue.Queue(), service
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        try:
            for message in self.call:
                self.told.put(message[1] if message else UNKNOWN)
            self.told.put("end")
        except grpc.RpcError as e:
            self.told.put(e.code())

    def next(self, want):
        try:
            equal(self.told.get(timeout=harness.PATIENCE), want, "Watch of %r" % self.service)
        except queue.Empty:
            raise harness.Failed("Watch of %r never told %s" % (self.service, want)) from None

    def silent(self):
        check(self.told.empty(), "Watch of", self.service, "tells what it told already")


# ---- foreign clients ----

def test_check(run):
    s = Stage(run)
    expected = {"": SERVING, "readiness": SERVING, "liveness": SERVING, "site-a": SERVING, "site-a/echo": SERVING, "site-a/x-1": SERVING,
                "site-b": NOT_SERVING, "site-b/echo": NOT_SERVING}
    missing = ("site-a/x-2", "site-a/no", "site-b/no", "site-c", "site-a/", "/", "Readiness", "x" * 200)
    for channel in (s.channel(), s.channel(tls=True), s.channel(tls=True, cert=s.hub.authority.agent("edge-1"))):
        for service, status in expected.items():
            equal(ask(channel, service, message=varied(service)), status, service)
        for service in missing:
            equal(ask(channel, service, message=varied(service)), grpc.StatusCode.NOT_FOUND, service)
        equal(ask(channel, method="List"), expected, "List")
        equal(ask(channel, method="Other"), grpc.StatusCode.UNIMPLEMENTED, "another method")
    equal(s.hub.metric("mctunnel_links"), 1, "links")
    m = s.hub.metrics()
    equal(m.get('mctunnel_grpc_health_checks_total{service="site-b/echo",status="NOT_SERVING"}'), 3, "counted")
    equal(m.get('mctunnel_grpc_health_checks_total{service="other",status="SERVICE_UNKNOWN"}'), 3 * len(missing), "counted")
    equal(m.get("mctunnel_grpc_health_check_failures_total"), 3 * (2 + len(missing) + 1), "failures")
    s.end()


def varied(service):
    """The same request, with a long form of the length when it needs one, and a field of a later version."""
    n = len(service)
    length = bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7])
    return b"\x0a" + length + service.encode() + b"\x10\x05" + b"\x1a\x02ab"


def test_readiness_without_agents(run):
    s = Stage(run, agent=False)
    channel = s.channel()
    for service, status in (("", SERVING), ("readiness", SERVING), ("site-a", NOT_SERVING), ("site-a/echo", NOT_SERVING)):
        equal(ask(channel, service), status, service)
    equal(ask(channel, "site-a/x-1"), grpc.StatusCode.NOT_FOUND)
    s.end()


def test_watch(run):
    """A tunnel goes up and down and up; then the hub drains. Each state is told once, on several connections."""
    s = Stage(run, agent=False)
    watches = {w: [Watch(s.channel(tls=tls), w) for tls in (False, True)] for w in ("", "liveness", "site-a", "site-a/echo", "site-a/x-1", "site-c")}

    def all_next(*pairs):
        for service, status in pairs:
            for w in watches[service]:
                w.next(status)

    all_next(("", SERVING), ("liveness", SERVING), ("site-a", NOT_SERVING), ("site-a/echo", NOT_SERVING), ("site-a/x-1", SERVICE_UNKNOWN),
             ("site-c", SERVICE_UNKNOWN))
    agent = s.start_agent()
    all_next(("site-a", SERVING), ("site-a/echo", SERVING), ("site-a/x-1", SERVING))
    agent.stop()
    all_next(("site-a", NOT_SERVING), ("site-a/echo", NOT_SERVING))
    for w in watches["site-a/x-1"]: # may be told that it is ill before it is forgotten
        while w.told.get(timeout=harness.PATIENCE) != SERVICE_UNKNOWN:
            pass
    s.start_agent("again")
    all_next(("site-a", SERVING), ("site-a/echo", SERVING), ("site-a/x-1", SERVING))
    chatter = tcp.Chatter(s.hub.listen["echo"])
    for service in ("", "liveness", "site-c"):
        for w in watches[service]:
            w.silent()
    watches["site-c"][0].call.cancel()
    s.hub.send(signal.SIGUSR1)
    all_next(("", NOT_SERVING), ("site-a", NOT_SERVING), ("site-a/echo", NOT_SERVING))
    chatter.go_on(5)
    for w in watches["liveness"]:
        w.silent()
    chatter.stop()
    all_next(("liveness", NOT_SERVING))
    s.hub.ended(0)


def test_reload(run):
    """A tunnel comes with a new configuration and goes with the old one; the connections stay."""
    s = Stage(run)
    old = s.hub.config
    new = dict(old, tunnels=old["tunnels"] + (scene.tunnel("site-c", ["edge-3"], ["web"]),))
    watches = [Watch(s.channel(), w) for w in ("site-c", "site-c/web", "site-a")]
    for w, status in zip(watches, (SERVICE_UNKNOWN, SERVICE_UNKNOWN, SERVING)):
        w.next(status)
    for config, status in ((new, NOT_SERVING), (old, SERVICE_UNKNOWN)):
        with open(s.hub.config_path, "w") as f:
            f.write(scene.libconfig(config))
        s.hub.send(signal.SIGHUP)
        for w in watches[:2]:
            w.next(status)
    watches[2].silent()
    s.undisturbed()
    s.end()


def test_many_watches(run):
    """More than 1000 are refused; those there are do not tire, and go."""
    s = Stage(run)
    clients = [Raw(s) for _ in range(126)]
    for c in clients:
        c.s.sendall(b"".join(c.call(2 * i + 1, "Watch", "site-a") for i in range(8)))
    s.hub.wait_metric("mctunnel_grpc_health_checks_total", 126 * 8)
    m = s.hub.metrics()
    equal(m['mctunnel_grpc_health_checks_total{service="site-a",status="SERVING"}'], 1000, "watches")
    equal(m['mctunnel_grpc_health_checks_total{service="other",status="refused"}'], 8, "watches refused")
    s.undisturbed()
    equal(ask(s.channel(), "site-a"), SERVING)
    for c in clients:
        tcp.reset(c.s)
    s.hub.wait_metric("mctunnel_grpc_health_connections", lambda n: n <= 1)
    Watch(s.channel(), "site-a").next(SERVING)
    s.end()


def curl(s, path, body=None, tls=False, *options):
    """(exit status, HTTP status, {header or trailer: value})"""
    where = ["--cacert", s.hub.authority.ca, "--connect-to", "::" + s.at, "https://hub.test:%d%s" % (s.hub.address[1], path)] if tls else \
        ["--http2-prior-knowledge", "http://%s%s" % (s.at, path)]
    data = ["--data-binary", "@-", "-H", "Content-Type: application/grpc"] if body is not None else []
    done = subprocess.run(["curl", "-sv", "--http2", "-m", "20", "-o", "/dev/null", *data, *options, *where], input=body or b"",
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lines = [line[2:].strip() for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("< ")]
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    status = [line.split()[1] for line in lines if line.startswith("HTTP/2")]
    return done.returncode, int(status[0]) if status else 0, fields


def framed(message, flag=0, length=None):
    return bytes([flag]) + struct.pack(">I", len(message) if length is None else length) + message


def test_curl_and_nghttp(run):
    s = Stage(run)
    for tls in (False, True):
        code, status, fields = curl(s, PATH + "Check", framed(request("site-a")), tls)
        equal((code, status, fields.get("grpc-status")), (0, 200, "0"), "curl")
        for path in ("/", "/metrics", "/healthz"):
            equal(curl(s, path, None, tls)[1], 415, path)
    body = run.path("body")
    with open(body, "wb") as f:
        f.write(framed(request("")))
    done = subprocess.run(["nghttp", "-v", "-n", "-d", body, "-H", ":method: POST", "-H", "content-type: application/grpc", "-H", "te: trailers",
                           "http://%s%sCheck" % (s.at, PATH)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    check("grpc-status: 0" in done.stdout, done.stdout)
    s.end()


def test_bad_calls(run):
    s = Stage(run)
    good = framed(request("site-a"))
    cases = [
        ("no te", PATH + "Check", good, "0"),
        ("wrong path", "/grpc.health.v1.Health/", good, "12"),
        ("another service", "/tunnel.v1.TunnelService/Tunnel", good, "12"),
        ("very long path", "/" + "x" * 1000, good, "12"),
        ("compressed flag without grpc-encoding", PATH + "Check", framed(request(""), 1), "13"),
        ("flag that does not exist", PATH + "Check", framed(request(""), 7), "13"),
        ("two messages", PATH + "Check", good + good, "13"),
        ("no message", PATH + "Check", b"", "13"),
        ("half a message", PATH + "Check", good[:-1], "13"),
        ("message of 5 MB", PATH + "Check", framed(bytes(5 << 20)), "8"),
        ("message said to have 4 GiB", PATH + "Check", framed(b"x", 0, 0xffffffff), "8"),
        ("garbage", PATH + "Check", framed(b"\xff" * 100), "3"),
        ("field longer than the message", PATH + "Watch", framed(b"\x0a\x7fabc"), "3"),
        ("group", PATH + "List", framed(b"\x0b\x0c"), "3"),
        ("name with a NUL", PATH + "Check", framed(b"\x0a\x07site-a\x00"), "5"),
        ("name of 4 KiB", PATH + "Check", framed(b"\x0a\x80\x1f" + b"y" * 3968), "5"),
    ]
    for what, path, body, want in cases:
        for tls in (False, True):
            code, status, fields = curl(s, path, body, tls)
            equal((status, fields.get("grpc-status")), (200, want), what)
    equal(curl(s, PATH + "Check", framed(b"zip", 1), False, "-H", "grpc-encoding: gzip")[2].get("grpc-status"), "12", "compression")
    equal(ask(s.channel(), "site-a" * 20, compression=grpc.Compression.Gzip), grpc.StatusCode.UNIMPLEMENTED, "compression")
    equal(curl(s, PATH + "Check", good, False, "-H", "Content-Type: application/json")[1], 415)
    equal(curl(s, PATH + "Check", good, False, "-H", "Content-Type: application/grpc-web")[1], 415)
    equal(curl(s, PATH + "Check", good, False, "-H", "Content-Type: application/grpc+proto")[2].get("grpc-status"), "0")
    equal(curl(s, PATH + "Check", good, False, "-X", "PUT")[1], 405)
    s.undisturbed()
    s.end()


# ---- raw bytes ----

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR, CALM = 0, 1, 3, 5, 6, 9, 11


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """HPACK: literal, never indexed, no Huffman coding."""
    return b"\x10" + b"".join(text if n < 0 else bytes([n]) + text for n, text in ((len(name), name.encode()), integer(value)))


def integer(value):
    data = value.encode()
    if len(data) < 127:
        return len(data), data
    rest, out = len(data) - 127, b"\x7f"
    while rest > 127:
        out += bytes([rest & 127 | 128])
        rest >>= 7
    return -1, out + bytes([rest]) + data


def fields(method="Check", *more):
    rows = [(":method", "POST"), (":scheme", "http"), (":path", PATH + method), (":authority", "hub"),
            ("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(field(*row) for row in rows)


class Raw:
    """HTTP/2 by hand."""

    def __init__(self, stage, hello=PREFACE + frame(SETTINGS, 0, 0), tls=False):
        self.s = tcp.open_socket(stage.hub.address)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(stage.hub.authority.ca)
            context.set_alpn_protocols(["h2"])
            self.s = context.wrap_socket(self.s, server_hostname="hub.test")
        stage.run.undo.callback(self.s.close)
        self.buffer = b""
        self.s.sendall(hello)

    def call(self, stream, method="Check", service="", end=True):
        return frame(HEADERS, 4, stream, fields(method)) + frame(DATA, int(end), stream, framed(request(service)))

    def recv_frame(self):
        """(kind, flags, stream, payload), None at the end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                data = self.s.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            except TimeoutError:
                raise harness.Failed("still open, and silent") from None
            if not data:
                return None
            self.buffer += data
        n = 9 + int.from_bytes(self.buffer[:3], "big")
        one, self.buffer = self.buffer[:n], self.buffer[n:]
        return one[3], one[4], int.from_bytes(one[5:9], "big"), one[9:]

    def until(self, kind, stream=None):
        while True:
            got = self.recv_frame()
            check(got, "the end came before a frame of type", kind)
            if got[0] == kind and stream in (None, got[2]):
                return got

    def goaway(self):
        """The code of the GOAWAY, and then it must end."""
        code = None
        while True:
            got = self.recv_frame()
            if not got:
                return code
            if got[0] == GOAWAY:
                code = int.from_bytes(got[3][4:8], "big")

    def pour(self, data):
        """Sends as long as it is taken, while what comes back is kept."""
        view = memoryview(data)
        self.s.setblocking(False)
        with contextlib.suppress(ConnectionError):
            while view:
                readable, writable, _ = select.select([self.s], [self.s], [], harness.PATIENCE)
                check(readable or writable, "neither reads nor answers")
                with contextlib.suppress(ssl.SSLWantReadError):  # a ticket is no data
                    more = self.s.recv(65536) if readable else None
                    if more == b"":
                        break
                    self.buffer += more or b""
                if writable:
                    with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):  # there may be room, but not for a record
                        view = view[self.s.send(view):]
        self.s.settimeout(harness.PATIENCE)


def test_byte_by_byte(run):
    s = Stage(run)
    for tls in (False, True):
        c = Raw(s, b"", tls)
        for byte in PREFACE + frame(SETTINGS, 0, 0) + c.call(1, "Check", "site-a/echo"):
            c.s.sendall(bytes([byte]))
            time.sleep(0.0005) # a segment of its own
        equal(c.recv_frame()[0], SETTINGS, "the first frame")
        equal(c.until(DATA)[3], framed(b"\x08\x01"), "message")
        check(c.until(HEADERS)[1] & 1, "trailers end the stream")
    s.undisturbed()
    s.end()


def test_other_plaintext(run):
    """What only begins like HTTP/2, or ends before it is told apart, is refused as any plaintext is."""
    s = Stage(run)
    for junk in (b"P", b"PRI * HTTP/2.0\r\n", PREFACE[:-1]):
        c = tcp.open_socket(s.hub.address)
        c.sendall(junk)
        c.shutdown(socket.SHUT_WR)
        tcp.expect_closed(c)
    for junk in (b"POST / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x", b"PRI * HTTP/1.1\r\n\r\n"):
        c = tcp.open_socket(s.hub.address)
        c.sendall(junk)
        tcp.expect_closed(c)
    s.hub.wait_log("link_refused", 6, text="not TLS (plaintext)")
    s.undisturbed()
    s.end()


def test_nothing_but_health(run):
    """No link, no session, no page, whatever is asked."""
    s = Stage(run)
    for tls in (False, True):
        c = Raw(s, tls=tls)
        connect = b"".join(field(*row) for row in ((":method", "CONNECT"), (":authority", "site-a/echo"), ("mct-session", "0" * 32)))
        c.s.sendall(frame(0xf0, 1, 0, b'{"agent": "edge-1", "tunnel": "site-a"}') + frame(HEADERS, 4, 1, connect) + c.call(3))
        equal(c.until(DATA)[2], 3, "stream with data")
    equal(s.hub.metric("mctunnel_links"), 1, "links")
    equal(s.echo.accepted, 1, "connections that reached the target")
    s.end()


def big_table():
    """One field of 4000 bytes put into the table, then named again and again by one byte."""
    return frame(HEADERS, 4, 1, fields() + b"\x40\x01a" + integer("b" * 3900)[1] + b"\xbe" * 10000)


HOSTILE = [
    ("bad preface over TLS", None, (PROTOCOL_ERROR,)),
    ("rapid reset", lambda c: b"".join(c.call(i, end=False) + frame(RST_STREAM, 0, i, struct.pack(">I", 8)) for i in range(1, 8001, 2)), (CALM,)),
    ("rapid calls", lambda c: b"".join(c.call(i) for i in range(1, 8001, 2)), (CALM,)),
    ("CONTINUATION flood", lambda c: frame(HEADERS, 0, 1, fields()) + frame(CONTINUATION, 0, 1) * 5000, (CALM, PROTOCOL_ERROR)),
    ("CONTINUATION with fields", lambda c: frame(HEADERS, 0, 1, fields()) + frame(CONTINUATION, 0, 1, field("x", "y" * 1000)) * 50, (CALM,)),
    ("SETTINGS flood", lambda c: frame(SETTINGS, 0, 0) * 20000, (CALM,)),
    ("PING flood", lambda c: frame(PING, 0, 0, bytes(8)) * 20000, (CALM,)),
    ("empty DATA flood", lambda c: frame(HEADERS, 4, 1, fields()) + frame(DATA, 0, 1) * 20000, (CALM,)),
    ("PRIORITY flood", lambda c: b"".join(frame(PRIORITY, 0, i, struct.pack(">IB", i + 2, 1)) for i in range(1, 20001, 2)), (CALM,)),
    ("unknown frames", lambda c: frame(0x77, 0, 0, b"x") * 40000, (CALM,)),
    ("HPACK bomb", lambda c: big_table(), (CALM,)),
    ("many fields", lambda c: frame(HEADERS, 4, 1, fields("Check", *(("x", "y" * 100),) * 60)), (CALM,)),
    ("WINDOW_UPDATE overflow", lambda c: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fffffff)), (FLOW_CONTROL_ERROR,)),
    ("stream id reused", lambda c: c.call(1) + c.call(1), (PROTOCOL_ERROR, STREAM_CLOSED)),
    ("stream id even", lambda c: c.call(2), (PROTOCOL_ERROR,)),
    ("DATA on an idle stream", lambda c: frame(DATA, 0, 5, b"x"), (PROTOCOL_ERROR,)),
    ("PUSH_PROMISE from a client", lambda c: frame(PUSH_PROMISE, 4, 1, struct.pack(">I", 2) + fields()), (PROTOCOL_ERROR,)),
    ("frame too large", lambda c: frame(DATA, 0, 1, bytes(20000)), (FRAME_SIZE_ERROR, PROTOCOL_ERROR)),
    ("HPACK garbage", lambda c: frame(HEADERS, 4, 1, b"\xff" * 50), (COMPRESSION_ERROR,)),
    ("SETTINGS out of range", lambda c: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0xffffffff)), (FLOW_CONTROL_ERROR,)),
]


def test_hostile(run):
    s = Stage(run)
    before = s.hub.metric("mctunnel_grpc_health_refused_total")
    for tls in (False, True):
        for what, attack, codes in HOSTILE:
            if not attack and not tls:
                continue
            c = Raw(s, tls=tls) if attack else Raw(s, b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n" * 3, tls=True)
            if attack:
                c.pour(attack(c))
            code = c.goaway()
            check(code in codes, what, "over TLS" if tls else "in plaintext", "ended with", code)
            c.s.close()
    s.undisturbed()
    s.hub.wait_metric("mctunnel_grpc_health_connections", 0)
    equal(s.hub.metric("mctunnel_grpc_health_refused_total") - before, 2 * len(HOSTILE) - 1, "counted")
    s.end()


def test_limits_of_time_and_number(run):
    s = Stage(run)

    def nine_watches(c):
        return b"".join(c.call(i, "Watch", "site-a") for i in range(1, 18, 2))

    knows = Raw(s)
    knows.s.sendall(frame(SETTINGS, 1, 0) + nine_watches(knows))
    equal(knows.goaway(), PROTOCOL_ERROR, "nine streams of one who knows better")
    knows.s.close()
    s.hub.wait_metric("mctunnel_grpc_health_connections", 0)  # and its Watches do not count
    nine = Raw(s)
    nine.s.sendall(nine_watches(nine))
    equal(nine.until(RST_STREAM)[2:], (17, struct.pack(">I", 7)), "the ninth stream")
    many = [Raw(s) for _ in range(1000 - 8)]  # with nine's, as many Watches as there may be
    for c in many:
        c.s.sendall(c.call(1, "Watch", "site-a"))
    s.hub.wait_metric("mctunnel_grpc_health_connections", 1 + len(many))
    slow = [Raw(s), Raw(s), Raw(s, b"")]
    began = time.monotonic()
    slow[0].s.sendall(slow[0].call(1, end=False))
    slow[1].s.sendall(frame(HEADERS, 0, 1, fields()))
    idle = [Raw(s) for _ in range(1000 - 3 - len(many))]  # before the slow ones are ended
    s.hub.wait_metric("mctunnel_grpc_health_connections", 1000)
    equal(Raw(s).goaway(), None, "one too many")
    s.undisturbed()
    for c in slow[:2]:
        equal(c.goaway(), NO_ERROR, "an idle connection")
    took = time.monotonic() - began
    check(took > 4.5, "idle connections ended after", took)
    say("idle connections ended after %.1f s" % took)
    s.hub.wait_metric("mctunnel_grpc_health_connections", 1 + len(many))
    for c in idle:
        equal(c.goaway(), NO_ERROR, "an idle connection")
    for c in many:
        c.s.close()
    s.hub.wait_metric("mctunnel_grpc_health_connections", 1)
    nine.s.sendall(frame(PING, 0, 0, bytes(8)))
    equal(nine.until(PING)[1], 1, "the Watch lives on")
    equal(ask(s.channel(), "site-a"), SERVING)
    check(slow[2].goaway() is None, "the silent one is closed")
    s.end()


def test_probe_storm(run):
    """Probes as kubelet makes them, a connection each, many at once."""
    s = Stage(run)

    def probes():
        for _ in range(100):
            c = Raw(s)
            c.s.sendall(c.call(1, "Check", "readiness"))
            equal(c.until(DATA)[3], framed(b"\x08\x01"), "message")
            c.s.close()

    for p in [harness.Background(probes) for _ in range(8)]:
        p.finish(4 * harness.PATIENCE)
    s.undisturbed()
    s.hub.wait_metric("mctunnel_grpc_health_connections", 0)
    s.end()


if __name__ == "__main__":
    harness.main(globals())
