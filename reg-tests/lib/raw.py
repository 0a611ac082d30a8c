"""Raw ends of a link, for attacks: TLS and hand-made HTTP/2 frames, nothing checked. An `Agent` has a valid certificate and
bad intentions towards a hub, a `Hub` likewise towards an agent."""
import contextlib
import json
import os
import select
import socket
import ssl
import struct
import time

import harness
import tcp

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
AGENT, HUB, DRAIN = 0xf0, 0xf1, 0xf2
END_STREAM, ACK, LAST, END_HEADERS = 1, 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REASON = 0x6d630000
ALPN = "mctunnel/1"

# What the sanitizer keeps of freed memory would hide what the program keeps.
FRUGAL = {"ASAN_OPTIONS": "exitcode=99:abort_on_error=0:detect_leaks=1:handle_abort=0:quarantine_size_mb=4:thread_local_quarantine_size_kb=64"}


def frame(kind, payload=b"", flags=0, stream=0):
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def settings(**values):
    numbers = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "fields": 6}
    return frame(SETTINGS, b"".join(struct.pack("!HI", numbers[k], v) for k, v in values.items()))


def _integer(value, prefix, first=0):
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return _integer(len(value), 7) + value


def literal(name, value, indexed=False):
    """HPACK: a literal with its name, never or incrementally indexed, no Huffman code."""
    return (b"\x40" if indexed else b"\x10") + _text(name) + _text(value)


def block(fields):
    """HPACK of (name, value) pairs."""
    return b"".join(literal(k, v) for k, v in fields)


def headers(stream, fields, fin=False, end=True):
    payload = fields if isinstance(fields, bytes) else block(fields)
    return frame(HEADERS, payload, (END_STREAM if fin else 0) | (END_HEADERS if end else 0), stream)


def credit(stream, n):
    return frame(WINDOW_UPDATE, struct.pack("!I", n), 0, stream)


def reset(stream, code):
    return frame(RST_STREAM, struct.pack("!I", code), 0, stream)


def hello(kind, text):
    """A whole text, cut as the protocol has it."""
    text = text if isinstance(text, bytes) else text.encode()
    pieces = [text[i:i + 16000] for i in range(0, len(text), 16000)] or [b""]
    return b"".join(frame(kind, p, LAST if i == len(pieces) - 1 else 0) for i, p in enumerate(pieces))


def advert(name="edge-2", tunnel="site-b", instance=None, services=("echo",), draining=False, **more):
    rows = [s if isinstance(s, dict) else {"name": s, "weight": 100, "up": True, "maxconn": 0} for s in services]
    return json.dumps(dict({"protocol": 1, "agent": name, "tunnel": tunnel, "version": "0", "instance": instance or os.urandom(16).hex(),
                            "draining": draining, "services": rows}, **more), separators=(",", ":"))


class End:
    """One end: what has come is cut into frames (kind, flags, stream, payload) by take()."""

    def __init__(self, s):
        self.s, self.rest, self.frames, self.closed = s, b"", [], False
        self.unsent = b""

    def send(self, *data):
        self.s.settimeout(harness.PATIENCE)
        self.s.sendall(b"".join(data))

    def push(self, data, seconds, reading=True, times=1 << 30):
        """The data again and again for so long; how often it was begun (what is left goes first the next time). Reads (and forgets) what
        comes meanwhile, unless told not to. Ends when the other side closes."""
        deadline, n, rest = time.monotonic() + seconds, 0, self.unsent
        self.s.setblocking(False)
        while time.monotonic() < deadline and not self.closed and (rest or n < times):
            n, rest = (n, rest) if rest else (n + 1, memoryview(data))
            try:
                rest = rest[self.s.send(rest[:1 << 16]):]
                wait = 0
            except ssl.SSLWantWriteError:
                wait = 0.05
            except OSError:
                self.closed = True
                break
            try:
                self.closed = reading and not self.s.recv(1 << 16)
            except ssl.SSLWantReadError:
                if wait:
                    select.select([self.s] if reading else [], [self.s], [], wait)
            except OSError:
                self.closed = True
        self.rest, self.unsent = b"", rest
        return n

    def take(self, seconds=0.0):
        """Reads for so long (at least what is there), returns the new frames."""
        deadline, new = time.monotonic() + seconds, []
        while not self.closed:
            self.s.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                data = self.s.recv(1 << 16)
            except (socket.timeout, ssl.SSLWantReadError):
                break
            except OSError:
                data = b""
            self.closed = not data
            self.rest += data
            new += self._cut()
            if new and seconds == 0.0:
                break
        self.frames += new
        return new

    def _cut(self):
        if self.rest.startswith(PREFACE[:len(self.rest)] or b"-"):
            if len(self.rest) < len(PREFACE):
                return []
            self.rest = self.rest[len(PREFACE):]
        out = []
        while len(self.rest) >= 9:
            n = int.from_bytes(self.rest[:3], "big")
            if len(self.rest) < 9 + n:
                break
            kind, flags, stream = struct.unpack("!BBI", self.rest[3:9])
            out.append((kind, flags, stream, self.rest[9:9 + n]))
            self.rest = self.rest[9 + n:]
        return out

    def await_frame(self, kind, timeout=harness.PATIENCE, fresh=False):
        """The first frame of a kind (seen before, unless fresh)."""
        deadline = time.monotonic() + timeout
        seen = len(self.frames) if fresh else 0
        while True:
            for f in self.frames[seen:]:
                if f[0] == kind:
                    self.frames.remove(f)
                    return f
            if self.closed or time.monotonic() > deadline:
                raise harness.Failed("no frame of type %#x came%s" % (kind, ", closed" if self.closed else ""))
            self.take(0.05)

    def await_end(self, timeout=harness.PATIENCE):
        """Until the other side has closed; the GOAWAY codes it said."""
        deadline = time.monotonic() + timeout
        while not self.closed:
            if time.monotonic() > deadline:
                raise harness.Failed("the link is still open after %.0f s" % timeout)
            self.take(0.2)
        return [struct.unpack("!II", p[:8])[1] for k, f, s, p in self.frames if k == GOAWAY]

    def close(self):
        with contextlib.suppress(OSError):
            self.s.close()


def client_context(authority, cert=None, alpn=ALPN):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.load_verify_locations(authority.ca)
    if cert:
        c.load_cert_chain(*cert)
    if alpn:
        c.set_alpn_protocols([alpn])
    return c


class Agent(End):
    """A raw agent whose TLS is up. greet() makes it a link."""

    def __init__(self, hub, name="edge-2", plain=None, **more):
        plain = plain or tcp.open_socket(hub.address)
        super().__init__(client_context(hub.authority, hub.authority.agent(name), **more).wrap_socket(plain, server_hostname="hub.test"))

    def greet(self, text=None, first=None):
        self.send(first if first is not None else settings(window=4 << 20, fields=8192, streams=1000) + credit(0, 2147418112),
                  hello(AGENT, text or advert()))
        self.answer = json.loads(self.await_frame(HUB)[3])
        return self

    def request(self, timeout=harness.PATIENCE):
        """The stream of the next CONNECT."""
        return self.await_frame(HEADERS, timeout)[2]

    def accept(self, stream=None):
        stream = stream or self.request()
        self.send(headers(stream, [(":status", "200")]))
        return stream

    def alive(self):
        """A PING comes back."""
        mark = os.urandom(8)
        self.send(frame(PING, mark))
        deadline = time.monotonic() + harness.PATIENCE
        while time.monotonic() < deadline and not self.closed:
            if any(k == PING and f & ACK and p == mark for k, f, s, p in self.take(0.05)):
                return True
        return False


class Hub:
    """Listens where an agent dials, and hands out raw links whose TLS is up."""

    def __init__(self, run, authority):
        self.c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.c.minimum_version = ssl.TLSVersion.TLSv1_3
        self.c.load_cert_chain(*authority.hub())
        self.c.load_verify_locations(authority.ca)
        self.c.verify_mode = ssl.CERT_REQUIRED
        self.c.set_alpn_protocols([ALPN])
        self.listener = tcp.listening((run.host, run.port()))
        self.listener.settimeout(harness.PATIENCE)
        self.address = self.listener.getsockname()
        self.instance = os.urandom(16).hex()
        run.undo.callback(self.listener.close)

    def accept(self):
        return End(self.c.wrap_socket(self.listener.accept()[0], server_side=True))

    def welcome(self, **more):
        e = self.accept()
        e.send(PREFACE, settings(window=4 << 20, fields=8192, push=0), credit(0, 2147418112))
        e.await_frame(AGENT)
        answer = {"protocol": 1, "hub": "hub", "version": "0", "instance": self.instance, "accepted": True, "reason": "", "text": "",
                  "retry_after_ms": 0, "heartbeat_interval_ms": 1000, "heartbeat_timeout_ms": 5000, "resume_ms": 30000, "refused": []}
        e.send(hello(HUB, json.dumps(dict(answer, **more))))
        return e


def connect(stream, service="echo", session=None, fin=False, fields=()):
    """HEADERS of a CONNECT."""
    return headers(stream, [(":method", "CONNECT"), (":authority", service), ("mct-session", session or os.urandom(16).hex()),
                            *fields], fin)
