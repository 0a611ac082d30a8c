#!/usr/bin/env python3
"""Checks of types http, tls and grpc: what they say, and the word for every kind of answer."""
import os
import socket
import ssl
import struct
import sys
import threading
import time
from concurrent import futures

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import pki
import raw
import scene
import tcp
import watching
from harness import check, equal
from watching import Target, says, wait_service


def request(s):
    """All of it. Who does not end it is none."""
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        data = s.recv(4096)
        if not data:
            raise ConnectionError("the check has ended in the middle of its request")
        text += data
    return text


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def table(run, rows, kind, **more):
    """rows: {name: (mood, status, check, words of why)}; all of them are services of one agent."""
    targets = {name: Target(run, mood) for name, (mood, _, _, _) in rows.items()}
    checks = {name: watching.check(type=kind, timeout="400ms", fall=1, rise=1, **more) for name in rows}
    p = watching.site(run, [{name: t.address for name, t in targets.items()}], checks)
    for name, (_, status, word, why) in rows.items():
        for program in (p.agent, p.hub):
            row = wait_service(program, status, name, check=word)
            check(why in row["why"], name, row)
    return p, targets


def test_http(run):
    rows = {
        "ok": (says(OK), "UP", "L7OK/200", "OK"),
        "moved": (says(b"HTTP/1.1 301 Moved Permanently\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), "UP", "L7OK/301", "Moved"),
        "old": (says(b"HTTP/1.0 200 Fine\r\n\r\nhello"), "UP", "L7OK/200", "Fine"),
        "interim": (says(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK), "UP", "L7OK/200", "OK"),
        "slow": (watching.slowly(OK), "UP", "L7OK/200", "OK"),
        "long": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000000), "UP", "L7OK/200", "OK"),
        "sick": (says(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), "DOWN", "L7STS/503", "Service Unavailable"),
        "gone": (says(b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"), "DOWN", "L7STS/404", ""),
        "garbage": (says(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "DOWN", "L7RSP", ""),
        "binary": (says(bytes(range(256))), "DOWN", "L7RSP", ""),
        "two_lengths": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"), "DOWN", "L7RSP", ""),
        "half": (says(b"HTTP/1.1 200 OK\r\nServ"), "DOWN", "L7RSP", "ended"),
        "endless": (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000), "DOWN", "L7RSP", ""),
        "silent": (watching.silent, "DOWN", "L7TOUT", ""),
        "leaves": (watching.leaves, "DOWN", "L7RSP", "ended"),
        "resets": (watching.resets, "DOWN", "L7RSP", "reset"),
        "nobody": (None, "DOWN", "L4CON", "refused"),
        "crawls": (watching.slowly(OK, 0.1), "DOWN", "L7TOUT", ""),
    }
    p, targets = table(run, rows, "http")
    targets["sick"].mood = says(OK)
    wait_service(p.hub, "UP", "sick", check="L7OK/200")
    targets["ok"].mood = rows["sick"][0]
    row = wait_service(p.hub, "DOWN", "ok", check="L7STS/503")
    check(row["why"] == "Service Unavailable", row)
    m = p.agent.metrics()
    check(m['mctunnel_checks_total{service="ok",status="L7STS"}'] >= 1, m)


def test_http_question(run):
    """The request as it was asked for; statuses as the operator likes them; the PROXY header says that nobody is behind it."""
    asked = []

    def mood(s):
        asked.append(request(s))
        s.sendall(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")
        watching.silent(s)

    t = Target(run, mood)
    c = watching.check(type="http", path="/healthz?deep=1", method="HEAD", host="web.example:81", expect=["204", "410-420"])
    p = watching.site(run, [{"x": t.address}], {"x": c}, services={"send_proxy": "v2"})
    wait_service(p.hub, "UP", check="L7OK/418")
    header, text = asked[0][:16], asked[0][16:]
    equal(header, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", "PROXY header")
    lines = text.decode().split("\r\n")
    equal(lines[0], "HEAD /healthz?deep=1 HTTP/1.1")
    for line in ("Host: web.example:81", "Connection: close"):
        check(line in lines, lines)


def test_http_by_default(run):
    asked = []

    def mood(s):
        asked.append(request(s))
        s.sendall(OK)
        watching.silent(s)

    t = Target(run, mood)
    u = Target(run, mood, address=run.path("web.sock"))
    p = watching.site(run, [{"x": t.address, "u": u.address}], {n: watching.check(type="http") for n in "xu"}, services={"send_proxy": "v1"})
    for name in "xu":
        wait_service(p.hub, "UP", name, check="L7OK/200")
    hosts = {"Host: " + tcp.text(t.address), "Host: localhost"}
    for text in asked:
        lines = text.decode().split("\r\n")
        equal(lines[:2], ["PROXY UNKNOWN", "GET / HTTP/1.1"])
        hosts.discard(lines[2])
    equal(hosts, set(), "hosts not asked for")


def tls_mood(context):
    def mood(s):
        with context.wrap_socket(s, server_side=True) as t:
            watching.silent(t)
    return mood


def server_context(cert, key, version=None, names=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(cert, key)
    if version:
        c.minimum_version = ssl.TLSVersion.TLSv1_2
        c.maximum_version = version
    if names is not None:
        c.sni_callback = lambda sock, name, context: names.append(name)
    return c


def test_tls(run):
    authority = pki.Pki(run.path("targets"))
    names = []
    good = authority.hub("good")
    authority.make("old", "old.example", ["old.example"], since=-20, until=-10)
    old = (authority.path("old.pem"), authority.path("old.key"))
    rows = {
        "tls13": (tls_mood(server_context(*good, names=names)), "UP", "L6OK", ""),
        "tls12": (tls_mood(server_context(*good, version=ssl.TLSVersion.TLSv1_2)), "UP", "L6OK", ""),
        "expired": (tls_mood(server_context(*old)), "UP", "L6OK", ""),
        "plain": (says(OK), "DOWN", "L6RSP", "not TLS"),
        "alert": (says(b"\x15\x03\x01\x00\x02\x02\x28"), "DOWN", "L6RSP", "alert"),
        "half": (says(b"\x16\x03\x03\x40\x00" + b"x" * 100), "DOWN", "L6RSP", ""),
        "silent": (watching.silent, "DOWN", "L6TOUT", ""),
        "leaves": (watching.leaves, "DOWN", "L6RSP", "closed"),
        "resets": (watching.resets, "DOWN", "L6RSP", "reset"),
        "nobody": (None, "DOWN", "L4CON", "refused"),
    }
    table(run, rows, "tls", host="name.example")
    equal(set(names), {"name.example"}, "server names asked for")


# ---- gRPC ----

def grpc_frames(*frames):
    """A server by hand: settings, then these on the stream of the request."""
    def mood(s):
        got = b""
        s.sendall(raw.settings())
        while b"\0\0\0\0" not in got[24:] or len(got) < 100:
            data = s.recv(4096)
            if not data:
                return
            got += data
        for f in frames:
            s.sendall(f)
        watching.silent(s)
    return mood


def message(data):
    return raw.frame(0, struct.pack("!BI", 0, len(data)) + data, 0, 1)


ANSWER = raw.headers(1, [(":status", "200"), ("content-type", "application/grpc")])
GOOD = raw.headers(1, [("grpc-status", "0")], fin=True)


def test_grpc_by_hand(run):
    rows = {
        "serving": (grpc_frames(ANSWER, message(b"\x08\x01"), GOOD), "UP", "L7OK", "SERVING"),
        "later": (grpc_frames(ANSWER, message(b"\x12\x03abc\x08\x01"), GOOD), "UP", "L7OK", "SERVING"),
        "not": (grpc_frames(ANSWER, message(b"\x08\x02"), GOOD), "DOWN", "L7STS", "NOT_SERVING"),
        "unknown": (grpc_frames(ANSWER, message(b""), GOOD), "DOWN", "L7STS", "UNKNOWN"),
        "other": (grpc_frames(ANSWER, message(b"\x08\x63"), GOOD), "DOWN", "L7STS", "unknown health status"),
        "refused": (grpc_frames(raw.headers(1, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"),
                                                ("grpc-message", "unknown service")], fin=True)), "DOWN", "L7STS/5", "NOT_FOUND: unknown service"),
        "web": (grpc_frames(raw.headers(1, [(":status", "404"), ("content-type", "text/html")], fin=True)), "DOWN", "L7STS/404", "HTTP 404"),
        "html": (grpc_frames(raw.headers(1, [(":status", "200"), ("content-type", "text/html")], fin=True)), "DOWN", "L7RSP", "content type"),
        "no_status": (grpc_frames(ANSWER, message(b"\x08\x01"), raw.frame(0, b"", 1, 1)), "DOWN", "L7RSP", "no grpc-status"),
        "no_message": (grpc_frames(ANSWER, GOOD), "DOWN", "L7RSP", "no gRPC message"),
        "packed": (grpc_frames(ANSWER, raw.frame(0, b"\1\0\0\0\2\x08\x01", 0, 1), GOOD), "DOWN", "L7RSP", "malformed"),
        "bad_field": (grpc_frames(ANSWER, message(b"\x0b\x01"), GOOD), "DOWN", "L7RSP", "malformed"),
        "too_long": (grpc_frames(ANSWER, message(b"\x12\x7f" + b"x" * 127), GOOD), "DOWN", "L7RSP", "malformed"),
        "reset": (grpc_frames(raw.reset(1, 7)), "DOWN", "L7RSP", "reset (code 7)"),
        "http1": (says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "DOWN", "L7RSP", "HTTP/2"),
        "endless": (grpc_frames(ANSWER, *[raw.frame(0x55, b"x" * 16000) for _ in range(10)]), "DOWN", "L7RSP", "does not end"),
        "silent": (watching.silent, "DOWN", "L7TOUT", ""),
        "half": (grpc_frames(ANSWER), "DOWN", "L7TOUT", ""),
        "leaves": (watching.leaves, "DOWN", "L7RSP", "ended"),
        "nobody": (None, "DOWN", "L4CON", "refused"),
    }
    table(run, rows, "grpc")


def test_grpc_of_others(run):
    """Against grpcio; the messages are made by hand, because Debian has no package of its health service."""
    try:
        import grpc
    except ImportError:
        raise harness.Skipped("python3-grpcio is not installed")
    healthy, asked = threading.Event(), []
    healthy.set()

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method != "/grpc.health.v1.Health/Check":
                return None
            return grpc.unary_unary_rpc_method_handler(self.check)

        def check(self, request, context):
            asked.append((request, context.time_remaining()))
            if request not in (b"", b"\x0a\x07payment"):
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return b"\x08\x01" if healthy.is_set() else b"\x08\x02"

    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Handler()])
    address = (run.host, server.add_insecure_port("%s:0" % run.host))
    server.start()
    run.undo.callback(lambda: server.stop(0).wait())
    targets = {"all": address, "pay": address, "none": address}
    wanted = {"all": None, "pay": "payment", "none": "x" * 128}
    checks = {n: watching.check(type="grpc", timeout="2s", service=s) for n, s in wanted.items()}
    p = watching.site(run, [targets], checks)
    wait_service(p.hub, "UP", "all", check="L7OK")
    wait_service(p.hub, "UP", "pay", check="L7OK")
    row = wait_service(p.hub, "DOWN", "none", check="L7STS/5")
    equal(row["why"], "NOT_FOUND: unknown service")
    healthy.clear()
    row = wait_service(p.hub, "DOWN", "pay", check="L7STS")
    equal(row["why"], "NOT_SERVING")
    healthy.set()
    wait_service(p.hub, "UP", "pay")
    server.stop(0).wait()
    wait_service(p.hub, "DOWN", "all", check="L4CON")
    check(all(left <= 2 for _, left in asked) and any(left > 0 for _, left in asked), "deadlines", asked)


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
