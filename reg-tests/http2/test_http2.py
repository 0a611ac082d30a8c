#!/usr/bin/env python3
"""HTTP/2 from clients, by foreign ones (curl, h2load, grpcio, python3-h2): over TLS and with prior knowledge; each stream is routed by itself; targets get HTTP/1.1, those of
gRPC HTTP/2; who goes away ends what was begun for it, and who floods is sent away."""
import concurrent.futures
import hashlib
import os
import socket
import subprocess
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki  # noqa: F401
import scene
import tcp
import web
from harness import check, equal

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc  # noqa: E402
import h2.connection
import h2.events
import h2.exceptions

SITE = "~^/(?<service>[ab])/(?<rest>.*)$"


def start(run, more=(), listener=None):
    """Origins a and b over TLS ("https") and in the clear ("plain")."""
    p = scene.Pair()
    p.a, p.b = web.Origin(run, "a"), web.Origin(run, "b")
    rules = ({"path": SITE, "rewrite": "/${rest}", "route": "site-a/${service}"}, {"path": "/denied", "action": "deny"},
             {"path": "~^/test\\.Echo/", "route": "site-a/grpc"}, {"path": "/gone", "action": "redirect", "redirect": "https://elsewhere.test${path}", "status": 308})
    row = dict({"mode": "http", "rules": rules, "route": "site-a/a"}, **(listener or {}))
    p.authority = pki.Pki(run.path("pki-all"))
    cert, key = p.authority.hub("site.test")
    p.hub = scene.Hub(run, {"plain": row, "https": dict(row, tls={"cert": [cert], "key": key})}, authority=p.authority).start().wait_ready()
    services = [scene.service("a", p.a.target), scene.service("b", p.b.target), *more]
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], services).start()
    p.hub.wait_links(2)
    p.ca, p.plain, p.https = p.authority.ca, p.hub.listen["plain"], p.hub.listen["https"]
    return p


def curl(p, path, *options, tls=True, data=None):
    """(status and body), asked with HTTP/2."""
    address = p.https if tls else p.plain
    how = ["--cacert", p.ca, "--http2", "--connect-to", "hub.test:%d:%s:%d" % (address[1], address[0], address[1])] if tls else ["--http2-prior-knowledge"]
    url = ("https://hub.test:%d" % address[1] if tls else "http://%s:%d" % address) + path
    got = subprocess.run(["curl", "-sS", "-m", "60", "-w", "\n%{http_code} %{http_version}", *how, *options, url], input=data, capture_output=True)
    equal(got.returncode, 0, "curl: " + got.stderr.decode())
    body, _, last = got.stdout.rpartition(b"\n")
    status, version = last.split()
    equal(version, b"2", "version of HTTP")
    return int(status), body


def test_each_stream_goes_its_own_way(run):
    p = start(run)
    for tls in (True, False):
        for path, name in (("/a/x", b"a"), ("/b/y?q=1", b"b"), ("/z", b"a")):
            equal(curl(p, path, tls=tls), (200, name), path)
        equal(p.b.last().path, "/y?q=1", "the path that was rewritten")
        equal(curl(p, "/denied", tls=tls)[0], 403)
        equal(curl(p, "/gone?x=1", tls=tls)[0], 308)
        equal(curl(p, "/a/x", "-I", tls=tls)[0], 200)
    m = p.a.last()
    equal((m.get("X-Forwarded-Proto"), m.get("Connection")), ("http", None), "what the target is told")
    line = p.hub.wait_log("session", path="/denied", listener="plain")[0]
    equal((line["status"], line["reason"]), (403, "denied"))
    p.hub.nothing_left()


def test_cookies_come_in_one_piece(run):
    p = start(run)
    with connected(p) as c:
        c.ask(extra=[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")])
        equal(c.answer(), (200, b"a"))
    m = p.a.last()
    equal((m.all("Cookie"), m.get("Host"), m.get("TE")), (["a=1; b=2"], "hub.test", "trailers"))


def test_bodies_both_ways(run):
    """Some megabytes up (a length, and chunks) and down (a length, chunks, and to the end of the connection)."""
    data = os.urandom(3000000)

    def upload(wire, m):
        wire.body(m)
        wire.send(web.answer(200, hashlib.sha256(m.body).hexdigest().encode()))

    def chunked(wire, m):
        wire.body(m)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(data), 100000):
            piece = data[i:i + 100000]
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")

    def until_end(wire, m):
        wire.body(m)
        wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)
        return False

    p = start(run)
    p.a.special.update({"/up": upload, "/chunked": chunked, "/until-end": until_end, "/length": lambda w, m: w.send(web.answer(200, data))})
    want = hashlib.sha256(data).hexdigest().encode()
    for tls in (True, False):
        equal(curl(p, "/up", "--data-binary", "@-", tls=tls, data=data), (200, want), "with a length")
        equal(curl(p, "/up", "-T", "-", "-H", "Expect:", tls=tls, data=data), (200, want), "without a length")
        for path in ("/length", "/chunked", "/until-end"):
            status, body = curl(p, path, tls=tls)
            check(status == 200 and body == data, path, status, len(body), "of", len(data))
    p.hub.nothing_left()


def test_a_part_is_never_the_whole(run):
    """The target breaks off in the middle: the stream is reset, however the end was to be told."""
    arrived = threading.Event()

    def broken(head):
        def serve(wire, m):
            wire.send(head + b"x" * 1000)
            arrived.wait(harness.PATIENCE)
            tcp.reset(wire.s)
            return False
        return serve

    p = start(run)
    p.a.special.update({"/length": broken(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), "/chunked": broken(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n"),
                        "/until-end": broken(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")})
    for path in ("/length", "/chunked", "/until-end"):
        arrived.clear()
        with connected(p) as c:
            c.ask(path)
            while not any(isinstance(e, h2.events.DataReceived) for e in c.events()):
                pass
            arrived.set()
            equal(c.answer()[0], "reset", path)


def test_many_streams_at_once(run):
    p = start(run)
    got = subprocess.run(["h2load", "-n", "1000", "-c", "4", "-m", "25", "http://%s:%d/a/x" % p.plain], capture_output=True, text=True)
    check("1000 succeeded, 0 failed" in got.stdout, got.stdout, got.stderr)
    p.hub.nothing_left()


# ---- a client by hand ----

class Gone(harness.Failed):
    pass


class Hand:
    """A client of python3-h2, in the clear."""

    def __init__(self, address):
        self.s, self.trailers = tcp.open_socket(address), []
        self.c = h2.connection.H2Connection()
        self.c.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.s.close()

    def flush(self):
        self.s.sendall(self.c.data_to_send())

    def ask(self, path="/a/x", method="GET", extra=(), end=True):
        stream = self.c.get_next_available_stream_id()
        self.c.send_headers(stream, [(":method", method), (":scheme", "http"), (":authority", "hub.test"), (":path", path), *extra], end_stream=end)
        self.flush()
        return stream

    def events(self):
        data = self.s.recv(65536)
        if not data:
            raise Gone("the connection was closed")
        found = self.c.receive_data(data)
        for e in found:
            if isinstance(e, h2.events.DataReceived):
                self.c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        self.flush()
        return found

    def answer(self):
        status, body = 0, b""
        while True:
            for e in self.events():
                if isinstance(e, h2.events.ResponseReceived):
                    status = int(dict(e.headers)[b":status"])
                elif isinstance(e, h2.events.DataReceived):
                    body += e.data
                elif isinstance(e, h2.events.TrailersReceived):
                    self.trailers = e.headers
                elif isinstance(e, h2.events.StreamEnded):
                    return status, body
                elif isinstance(e, h2.events.StreamReset):
                    return "reset", e.error_code


def connected(p):
    return Hand(p.plain)


def test_trailers_of_the_answer(run):
    """Behind a body, behind none, and in pieces; more of them than are passed on."""
    p = start(run)
    begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    p.a.special["/body"] = begin + b"3\r\nabc\r\n0\r\nX-Sum: 6\r\nServer-Timing:  a;dur=1 \r\n\r\n"
    p.a.special["/none"] = begin + b"0\r\nx-sum: 0\r\n\r\n"
    p.a.special["/many"] = begin + b"0\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(300)) + b"\r\n"

    def pieces(wire, m):
        for i in range(len(p.a.special["/body"])):
            wire.send(p.a.special["/body"][i:i + 1])

    p.a.special["/pieces"] = pieces
    for path, body, fields in (("/body", b"abc", [(b"x-sum", b"6"), (b"server-timing", b"a;dur=1")]), ("/none", b"", [(b"x-sum", b"0")]),
                               ("/pieces", b"abc", [(b"x-sum", b"6"), (b"server-timing", b"a;dur=1")])):
        with connected(p) as c:
            c.ask(path)
            equal(c.answer(), (200, body), path)
            equal([(bytes(k), bytes(v)) for k, v in c.trailers], fields, "trailers of " + path)
    with connected(p) as c:
        c.ask("/many")
        equal(c.answer(), (200, b""))
        check(0 < len(c.trailers) < 300, len(c.trailers), "trailers")
    p.hub.nothing_left()


def test_who_goes_away_ends_its_request(run):
    """The stream is reset, or the whole connection is: the target's connection ends as well, and nothing is left."""
    waiting = []

    def hang(wire, m):
        waiting.append(m)
        equal(wire.rest(), b"", "nothing more for the target")
        return False

    p = start(run)
    p.a.special["/hang"] = hang
    with connected(p) as c:
        stream = c.ask("/hang")
        harness.wait_until(lambda: len(waiting) == 1, "the request at the target")
        c.c.reset_stream(stream)
        c.flush()
        line = p.hub.wait_log("session", path="/hang")[0]
        equal(line["reason"], "client_reset")
        c.ask("/hang")
        harness.wait_until(lambda: len(waiting) == 2, "the second request at the target")
    p.hub.wait_log("session", count=2, path="/hang", reason="client_reset")
    p.hub.nothing_left()


def test_rapid_reset(run):
    """Streams that are opened and reset at once, thousands of them: the client is sent away, others are served meanwhile."""
    p = start(run)
    p.a.special["/hang"] = lambda wire, m: wire.rest() and False
    with connected(p) as c, connected(p) as other:
        try:
            for i in range(6000):
                stream = c.c.get_next_available_stream_id()
                c.c.send_headers(stream, [(":method", "GET"), (":scheme", "http"), (":authority", "hub.test"), (":path", "/hang")], end_stream=True)
                c.c.reset_stream(stream)
                if i % 100 == 99:
                    c.flush()
                    other.ask()
                    equal(other.answer(), (200, b"a"), "somebody else")
            while c.events():
                pass
        except TimeoutError:
            raise harness.Failed("6000 resets were borne") from None
        except (OSError, Gone, h2.exceptions.ProtocolError):
            pass
        other.ask()
        equal(other.answer(), (200, b"a"), "somebody else afterwards")
    p.hub.nothing_left()


def test_floods_and_nonsense(run):
    p = start(run)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    cases = {"pings": b"\0\0\x08\6\0\0\0\0\0" + b"x" * 8, "settings": b"\0\0\0\4\0\0\0\0\0", "unknown": b"\0\0\0\xee\0\0\0\0\0", "bad": b"\xff\xff\xff\0\0\0\0\0\1"}
    for name, frame in cases.items():
        with tcp.open_socket(p.plain) as s:
            s.sendall(preface)
            s.settimeout(30)
            try:
                for _ in range(200):
                    s.sendall(frame * 100)
                while s.recv(65536):
                    pass
            except socket.timeout:
                raise harness.Failed("%s were borne" % name) from None
            except OSError:
                pass
    equal(curl(p, "/a/x"), (200, b"a"), "somebody else afterwards")
    p.hub.nothing_left()


def test_requests_over_the_rate(run):
    """Streams count as requests of the client's address: a second's worth may come at once, of many more some get 429."""
    p = start(run, listener={"limits": {"client_rate": 3}})
    with connected(p) as c:
        found = []
        for _ in range(60):
            c.ask()
            found.append(c.answer()[0])
    equal(found[:3], [200] * 3, "the first three")
    check(429 in found and set(found) <= {200, 429}, found)


def test_longest_body(run):
    """With a length, and without: 413 for this stream, and the connection goes on."""
    p = start(run, listener={"max_body": 1000})
    for data, status in ((b"x" * 1000, 200), (b"x" * 1001, 413), (b"x" * 100000, 413)):
        for how in (("--data-binary", "@-"), ("-X", "POST", "-T", "-")):
            equal(curl(p, "/a/x", *how, data=data)[0], status, "%d bytes, %s" % (len(data), how))
    with connected(p) as c:
        c.ask(method="POST", extra=[("content-length", "1001")], end=False)
        equal(c.answer()[0], 413, "before a byte of the body is sent")
        c.ask()
        equal(c.answer(), (200, b"a"), "the next stream")
    p.hub.nothing_left()


# ---- gRPC ----

def raw(b):
    return b


class Echo(grpc.GenericRpcHandler):
    """/test.Echo/Unary and /test.Echo/Stream: what comes goes back; the metadata of the last call are kept."""

    def __init__(self):
        self.metadata = {}

    def service(self, details):
        def unary(request, context):
            self.metadata = dict(context.invocation_metadata())
            context.set_trailing_metadata((("x-size", str(len(request))),))
            return request

        def stream(requests, context):
            for r in requests:
                yield r
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            context.set_details("that was all")

        if details.method == "/test.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(unary, raw, raw)
        if details.method == "/test.Echo/Stream":
            return grpc.stream_stream_rpc_method_handler(stream, raw, raw)
        return None


def grpc_server(run, handler):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 1 << 24)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("%s:0" % run.host)
    server.start()
    run.undo.callback(lambda: server.stop(0).wait())
    return "%s:%d" % (run.host, port)


def channels(p):
    with open(p.ca, "rb") as f:
        ca = f.read()
    options = [("grpc.ssl_target_name_override", "hub.test"), ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 1 << 24)]
    yield grpc.secure_channel("%s:%d" % p.https, grpc.ssl_channel_credentials(ca), options=options)
    yield grpc.insecure_channel("%s:%d" % p.plain, options=options)


def test_grpc(run):
    """Calls, streams both ways, megabytes, metadata, trailers, a status that is not OK, and a route that is not there."""
    handler = Echo()
    p = start(run, [scene.service("grpc", grpc_server(run, handler))])
    for channel in channels(p):
        with channel:
            ask = channel.unary_unary("/test.Echo/Unary", raw, raw)
            answer, call = ask.with_call(b"hello", timeout=30, metadata=(("x-mine", "yes"),))
            equal((answer, dict(call.trailing_metadata())["x-size"]), (b"hello", "5"))
            equal((handler.metadata["x-mine"], handler.metadata["x-forwarded-for"]), ("yes", "127.0.0.1"), "metadata at the target")
            big = os.urandom(3000000)
            check(ask(big, timeout=60) == big, "three megabytes came back otherwise")
            words = [b"%d" % i * (i * 10) for i in range(200)]
            stream = channel.stream_stream("/test.Echo/Stream", raw, raw)(iter(words), timeout=60)
            got = []
            try:
                for w in stream:
                    got.append(w)
            except grpc.RpcError as e:
                equal((e.code(), e.details()), (grpc.StatusCode.OUT_OF_RANGE, "that was all"))
            equal(got, words, "messages of the stream")
            try:
                channel.unary_unary("/denied", raw, raw)(b"x", timeout=30)
                raise harness.Failed("a denied call was answered")
            except grpc.RpcError as e:
                equal(e.code(), grpc.StatusCode.PERMISSION_DENIED)
    line = p.hub.wait_log("session", path="/test.Echo/Stream")[0]
    equal((line["route"], line["reason"]), ("site-a/grpc", "done"))
    p.hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
