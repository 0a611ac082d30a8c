#!/usr/bin/env python3
"""Requests of HTTP/2 become HTTP/1.1 on their way to the target: nothing that HTTP/2 can carry and HTTP/1.1 would read otherwise may get there. Hand-made frames,
and a raw target that records what reaches it."""
import contextlib
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "http"))
import harness
import raw
import tcp
import test_smuggling
from harness import check, equal

import hpack

PSEUDO = {b":method": b"GET", b":scheme": b"http", b":authority": b"a", b":path": b"/evil"}
EVIL = b"x\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"


def fields(*more, **changed):
    """Pseudo-header fields, changed or left out (None), and then the others."""
    rows = dict(PSEUDO)
    for name, value in changed.items():
        rows[b":" + name.encode()] = value
    return [(k, v) for k, v in rows.items() if v is not None] + list(more)


# what must not reach the target at all
HEADS = {
    "CRLF in a value": fields((b"x", EVIL)),
    "LF in a value": fields((b"x", b"a\nTransfer-Encoding: chunked")),
    "CR in a value": fields((b"x", b"a\rb")),
    "NUL in a value": fields((b"x", b"a\0b")),
    "CRLF in a name": fields((b"x: y\r\nz", b"1")),
    "colon in a name": fields((b"x:y", b"1")),
    "blank in a name": fields((b"x y", b"1")),
    "upper case in a name": fields((b"X-Y", b"1")),
    "empty name": fields((b"", b"1")),
    "cookie": fields((b"cookie", b"a=b"), (b"cookie", b"c=d\r\nx: y")),
    "method with a blank": fields(method=b"GET /other HTTP/1.1\r\nX:"),
    "empty method": fields(method=b""),
    "long method": fields(method=b"A" * 33),
    "path with a blank": fields(path=b"/evil HTTP/1.1\r\nX: y\r\n\r\n"),
    "path with a fragment": fields(path=b"/evil#x"),
    "path that is none": fields(path=b"evil"),
    "empty path": fields(path=b""),
    "star": fields(path=b"*"),
    "absolute path of another": fields(path=b"http://other/evil"),
    "scheme": fields(scheme=b"http://evil/ HTTP/1.1\r\nX: y\r\n\r\n"),
    "authority with CRLF": fields(authority=b"a\r\nX: y"),
    "authority with a user": fields(authority=b"u@a"),
    "authority with a path": fields(authority=b"a/b"),
    "authority with a blank": fields(authority=b"a b"),
    "host of another": fields((b"host", b"b")),
    "two hosts": fields((b"host", b"a"), (b"host", b"b"), authority=None),
    "no host": fields(authority=None),
    "two paths": fields() + [(b":path", b"/evil2")],
    "pseudo behind others": [*fields(path=None), (b"x", b"y"), (b":path", b"/evil")],
    "unknown pseudo": [(b":x", b"y"), *fields()],
    "no method": fields(method=None),
    "no scheme": fields(scheme=None),
    "no path": fields(path=None),
    "transfer-encoding": fields((b"transfer-encoding", b"chunked")),
    "connection": fields((b"connection", b"x")),
    "keep-alive": fields((b"keep-alive", b"x")),
    "proxy-connection": fields((b"proxy-connection", b"x")),
    "upgrade": fields((b"upgrade", b"x")),
    "te": fields((b"te", b"gzip")),
    "content-length that is none": fields((b"content-length", b"+1"), method=b"POST"),
    "content-length of a body that is not there": fields((b"content-length", b"1"), method=b"POST"),
    "two content-lengths": fields((b"content-length", b"1"), (b"content-length", b"2"), method=b"POST"),
    "list of content-lengths": fields((b"content-length", b"0, 0"), method=b"POST"),
    "empty content-length": fields((b"content-length", b""), method=b"POST"),
    "tunnel": fields(method=b"CONNECT", authority=b"evil:80", scheme=None, path=None),
    "extended tunnel": fields((b":protocol", b"websocket"), method=b"CONNECT"),
}

# after a good head: what is sent with which end, and must not make a whole request
BODIES = {
    "less than said": ([(b"content-length", b"10")], raw.frame(raw.DATA, b"12345", raw.END_STREAM, 1)),
    "more than said": ([(b"content-length", b"3")], raw.frame(raw.DATA, b"12345", raw.END_STREAM, 1)),
    "reset": ([], raw.frame(raw.DATA, b"12345", 0, 1) + raw.reset(1, 8)),
    "trailer that frames": ([], raw.frame(raw.DATA, b"12345", 0, 1) + raw.headers(1, [(b"content-length", b"3")], fin=True)),
    "trailer with CRLF": ([], raw.frame(raw.DATA, b"12345", 0, 1) + raw.headers(1, [(b"x", EVIL)], fin=True)),
    "pseudo trailer": ([], raw.frame(raw.DATA, b"12345", 0, 1) + raw.headers(1, [(b":path", b"/evil")], fin=True)),
}


class Client(raw.End):
    def __init__(self, address):
        super().__init__(tcp.open_socket(address))
        self.hpack = hpack.Decoder()
        self.send(raw.PREFACE, raw.settings())

    def verdict(self, stream=1, timeout=harness.PATIENCE):
        """The status of the answer; or how the stream, or all of it, was ended."""
        seen = 0

        def look():
            nonlocal seen
            with contextlib.suppress(OSError):
                self.take(0.02)
            for kind, _, number, payload in self.frames[seen:]:
                seen += 1
                if kind == raw.HEADERS and number == stream:
                    return int(dict(self.hpack.decode(payload))[":status"])
                if kind == raw.RST_STREAM and number == stream:
                    return "reset"
                if kind == raw.GOAWAY:
                    return "goaway"
            return "closed" if self.closed else None
        return harness.wait_until(look, "what becomes of a stream", timeout)


def refused(verdict):
    return verdict in ("reset", "goaway", "closed") or verdict in (400, 404, 405, 431, 501)


def ask(hub):
    """Somebody else, who does it right."""
    c = Client(hub.listen["web"])
    c.send(raw.headers(1, fields(path=b"/good"), fin=True))
    equal(c.verdict(), 200, "a good request")
    c.close()


def test_heads(run):
    hub, target = test_smuggling.scenario(run)
    for name, rows in HEADS.items():
        c = Client(hub.listen["web"])
        c.send(raw.headers(1, rows, fin=True))
        verdict = c.verdict()
        check(refused(verdict), name, "was answered with", verdict)
        c.close()
        ask(hub)
        seen = target.take()
        check(seen.startswith(b"GET /good HTTP/1.1\r\n") and seen.count(b" HTTP/1.") == 1, name, "reached the target:", seen)
    hub.nothing_left()


def test_bodies(run):
    hub, target = test_smuggling.scenario(run)
    for name, (more, rest) in BODIES.items():
        c = Client(hub.listen["web"])
        c.send(raw.headers(1, fields(*more, method=b"POST", path=b"/body")), rest)
        if name != "reset":
            verdict = c.verdict()
            check(refused(verdict), name, "was answered with", verdict)
        else:
            c.send(raw.frame(raw.PING, bytes(8)))
            c.await_frame(raw.PING)  # the hub has read what came before
        c.close()
        target.settle()
        seen = target.take()
        check(b"evil" not in seen and b"0\r\n" not in seen.partition(b"\r\n\r\n")[2].replace(b"5\r\n12345\r\n", b""), name, "reached the target:", seen)
    ask(hub)
    hub.nothing_left()


def test_content_is_content(run):
    """Chunks within the body are its content, and so is a request."""
    hub, target = test_smuggling.scenario(run, answer=test_smuggling.OK)
    inside = b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
    for more, want in (([], b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(inside), inside)), ([(b"content-length", b"%d" % len(inside))], b"\r\n\r\n" + inside)):
        c = Client(hub.listen["web"])
        c.send(raw.headers(1, fields(*more, method=b"POST", path=b"/body")), raw.frame(raw.DATA, inside, raw.END_STREAM, 1))
        seen = []

        def whole():
            seen.append(target.take())
            return b"".join(seen).endswith(want)
        harness.wait_until(whole, "the body at the target; %r" % seen)
        c.close()
        target.settle()
    hub.nothing_left()


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
