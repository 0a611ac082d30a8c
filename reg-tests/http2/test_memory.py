#!/usr/bin/env python3
"""Memory is refused, one allocation or some in a row, while clients speak HTTP/2: a stream that ends in good order is whole, with its trailers; else it is reset, refused with
503, or the connection ends. Bodies both ways, and gRPC through a link."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import shortage
import tcp
import web
from harness import check, say

import h2.config
import h2.connection
import h2.events
import h2.exceptions

SHOTS = 60
PATIENCE = 3
BLOB = bytes(range(256)) * 300
TRAILERS = [(b"x-sum", b"12345"), (b"grpc-status", b"0")]


def chunked(wire, m):
    wire.body(m)
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
    for at in range(0, len(BLOB), 7000):
        piece = BLOB[at:at + 7000]
        wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
    wire.send(b"0\r\n" + b"".join(b"%s: %s\r\n" % f for f in TRAILERS) + b"\r\n")


def echo(wire, m):
    wire.body(m)
    wire.send(web.answer(200, m.body))


def grpc_target(s):
    """A server of HTTP/2 that sends a stream's bytes back when they are all there, with trailers."""
    c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    bodies = {}
    c.initiate_connection()
    s.sendall(c.data_to_send())
    while True:
        got = s.recv(65536)
        if not got:
            return
        for e in c.receive_data(got):
            if isinstance(e, h2.events.DataReceived):
                bodies[e.stream_id] = bodies.get(e.stream_id, b"") + e.data
                c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            elif isinstance(e, h2.events.StreamEnded):
                c.send_headers(e.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                c.send_data(e.stream_id, bodies.get(e.stream_id, b""))
                c.send_headers(e.stream_id, TRAILERS, end_stream=True)
        s.sendall(c.data_to_send())


# path: (what is sent, what comes back, with trailers)
ROWS = {"/chunked": (b"", BLOB, True), "/echo": (BLOB[:30000], BLOB[:30000], False), "/small": (b"", b"web", False), "/test.Echo/Echo": (BLOB[:9000], BLOB[:9000], True)}


def exchange(address, rng):
    """All of them at once on one connection. {path: None when it was seen to be broken, else (status, body, trailers)}"""
    c, streams = h2.connection.H2Connection(), {}
    with tcp.open_socket(address, PATIENCE) as s:
        c.initiate_connection()
        for i, path in enumerate(rng.sample(sorted(ROWS), len(ROWS))):
            sent, kind = ROWS[path][0], "application/grpc" if path.startswith("/test") else "text/plain"
            fields = [(":method", "POST" if sent else "GET"), (":scheme", "http"), (":path", path), (":authority", "test"), ("content-type", kind), ("te", "trailers")]
            c.send_headers(2 * i + 1, fields, end_stream=not sent)
            streams[2 * i + 1] = {"path": path, "left": sent, "status": 0, "body": b"", "trailers": [], "end": None}
        while any(t["end"] is None for t in streams.values()):
            for number, t in streams.items():
                room = min(len(t["left"]), c.local_flow_control_window(number), c.max_outbound_frame_size) if t["left"] and t["end"] is None else 0
                if room > 0:
                    c.send_data(number, t["left"][:room], end_stream=room == len(t["left"]))
                    t["left"] = t["left"][room:]
            s.sendall(c.data_to_send())
            got = s.recv(65536)
            if not got:
                break
            for e in c.receive_data(got):
                t = streams.get(getattr(e, "stream_id", None))
                if isinstance(e, h2.events.ResponseReceived):
                    t["status"] = int(dict(e.headers)[b":status"])
                elif isinstance(e, h2.events.DataReceived):
                    t["body"] += e.data
                    c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                elif isinstance(e, h2.events.TrailersReceived):
                    t["trailers"] = e.headers
                elif isinstance(e, h2.events.StreamEnded):
                    t["end"] = True
                elif isinstance(e, h2.events.StreamReset):
                    t["end"] = t["end"] or False
    return {t["path"]: (t["status"], t["body"], [(bytes(n), bytes(v)) for n, v in t["trailers"]]) if t["end"] else None for t in streams.values()}


def ask(address, rng):
    """How many were as they should be."""
    good = 0
    try:
        answers = exchange(address, rng)
    except (OSError, h2.exceptions.ProtocolError):
        return 0
    for path, answer in answers.items():
        if answer is None or answer[0] in (502, 503, 504):
            continue
        status, body, trailers = answer
        _, wanted, tail = ROWS[path]
        check(status == 200, path, status, body[:200])
        check(body == wanted, path, "%d of %d bytes were the whole" % (len(body), len(wanted)))
        check(trailers == (TRAILERS if tail else []), path, "trailers", trailers)
        good += 1
    return good


def test_no_part_is_a_whole(run):
    rng = shortage.chance()
    origin, grpc = web.Origin(run, "web"), tcp.Server(run, grpc_target)
    origin.special.update({"/chunked": chunked, "/echo": echo})
    row = {"mode": "http", "rules": ({"path": "/test.Echo/*", "route": "site-a/grpc"},), "route": "site-a/web"}
    p = shortage.pair(run, {"in": row}, {"web": origin.target, "grpc": grpc.target})
    at = p.hub.listen["in"]
    check(ask(at, rng) == len(ROWS), "before")
    v = shortage.Victim(p.hub)
    whole = 0
    for i in range(SHOTS):
        many, n = (rng.randrange(2, 20), rng.randrange(1, 200)) if i % 15 == 14 else (1, rng.randrange(1, 500))
        with v.refusing(p, n, many):
            whole += ask(at, rng)
        p.hub.wait_links(2, 20)
    harness.wait_until(lambda: ask(at, rng) == len(ROWS), "all to be whole again")
    say("%d of %d answers were whole" % (whole, SHOTS * len(ROWS)))
    v.result(SHOTS // 4)
    check(v.failures() > SHOTS // 2, "too few refusals:", v.failures())
    check("the client does not keep to HTTP/2" not in open(p.hub.log_path).read(), "the client is blamed")


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
