"""HTTP/1 by hand, for tests of listeners of modes http and connect: origins that record what they get and answer by what the path says, and
clients that send exactly what they are told. Nothing is normalised on the way."""
import contextlib

import harness
import tcp


class Message:
    """A message as it came: first line, fields (name, value) in order, body."""

    def __init__(self, line, fields, body=b"", raw_body=b""):
        self.line, self.fields, self.body, self.raw_body = line, fields, body, raw_body

    def all(self, name):
        return [v for k, v in self.fields if k.lower() == name.lower()]

    def get(self, name, default=None):
        return (self.all(name) or [default])[0]

    @property
    def status(self):
        return int(self.line.split()[1])

    @property
    def path(self):
        return self.line.split()[1]

    @property
    def text(self):
        return self.body.decode("latin-1")


class Wire:
    """A socket that speaks HTTP/1."""

    def __init__(self, s):
        self.s, self.data = s, b""

    def send(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def more(self):
        got = self.s.recv(65536)
        self.data += got
        return bool(got)

    def line(self):
        while b"\r\n" not in self.data:
            if not self.more():
                return None
        line, self.data = self.data.split(b"\r\n", 1)
        return line.decode("latin-1")

    def take(self, n):
        while len(self.data) < n:
            harness.check(self.more(), "the end instead of %d more bytes" % (n - len(self.data)))
        taken, self.data = self.data[:n], self.data[n:]
        return taken

    def rest(self):
        while self.more():
            pass
        taken, self.data = self.data, b""
        return taken

    def head(self):
        """None at a clean end."""
        first = self.line()
        if first is None:
            harness.check(not self.data, "the end in the middle of a line: %r" % self.data[:80])
            return None
        fields = []
        while True:
            line = self.line()
            harness.check(line is not None, "the end in the middle of a head that begins", first)
            if not line:
                return Message(first, fields)
            name, value = line.split(":", 1)
            fields.append((name, value.strip()))

    def chunks(self, m):
        """Content and trailers of a chunked body; m.raw_body has every byte."""
        while True:
            size = self.line()
            data = self.take(int(size.split(";")[0], 16) + 2)[:-2] if int(size.split(";")[0], 16) else b""
            m.raw_body += size.encode("latin-1") + b"\r\n" + data + (b"\r\n" if data else b"")
            m.body += data
            if data:
                continue
            while True:
                line = self.line()
                m.raw_body += line.encode("latin-1") + b"\r\n"
                if not line:
                    return
                m.fields.append(tuple(x.strip() for x in line.split(":", 1)))

    def body(self, m, until_end=False):
        if (m.get("Transfer-Encoding") or "").lower() == "chunked":
            self.chunks(m)
        elif m.get("Content-Length") is not None:
            m.body = self.take(int(m.get("Content-Length")))
        elif until_end:
            m.body = self.rest()
        return m

    def answer(self, method="GET", interim=None):
        """The final answer; interim ones (1xx) are appended to the list given. None at a clean end."""
        while True:
            m = self.head()
            if m is None:
                return None
            if m.status >= 200 or m.status == 101:
                break
            if interim is not None:
                interim.append(m)
        if method == "HEAD" or m.status in (101, 204, 304):
            return m
        return self.body(m, until_end=True)


class Client(Wire):
    """A client's connection. Use it as a context."""

    def __init__(self, address, timeout=harness.PATIENCE):
        super().__init__(tcp.open_socket(address, timeout))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.s.close()

    def request(self, path="/", method="GET", host="test", version="1.1", fields=(), body=None):
        text = "%s %s HTTP/%s\r\n" % (method, path, version)
        if host is not None:
            text += "Host: %s\r\n" % host
        text += "".join("%s: %s\r\n" % f for f in fields)
        if body is not None:
            text += "Content-Length: %d\r\n" % len(body)
        self.send(text.encode("latin-1") + b"\r\n" + (body or b""))

    def ask(self, path="/", method="GET", **more):
        self.request(path, method, **more)
        m = self.answer(method)
        harness.check(m is not None, "the connection was closed instead of an answer to", method, path)
        return m

    def ended(self):
        """The hub has closed in good order, and nothing came before."""
        harness.equal(self.rest(), b"", "before the end")


def answer(status=200, body=b"", fields=(), phrase="OK", length=True):
    head = "HTTP/1.1 %d %s\r\n" % (status, phrase) + "".join("%s: %s\r\n" % f for f in fields)
    if length:
        head += "Content-Length: %d\r\n" % len(body)
    return head.encode("latin-1") + b"\r\n" + body


class Origin:
    """A target that speaks HTTP/1.1 with keep-alive. `requests`: all it got. Answers: `special[path]` (bytes, or a function of wire and request that says False
    when the connection ends), else its name, with the number of the connection in X-Connection and the number of the request on it in X-Turn."""

    def __init__(self, run, name="origin"):
        self.name, self.requests, self.special, self.connections = name, [], {}, 0
        self.server = tcp.Server(run, self._serve)
        self.target = self.server.target

    def _serve(self, s):
        with self.server.lock:
            self.connections += 1
            number, turn, wire = self.connections, 0, Wire(s)
        with contextlib.suppress(ConnectionError):
            while True:
                m = wire.head()
                if m is None:
                    return
                turn += 1
                m.connection, m.turn = number, turn
                special = self.special.get(m.path.split("?")[0])
                if callable(special):
                    self.requests.append(m)
                    if special(wire, m) is False:
                        return
                    continue
                wire.body(m)
                self.requests.append(m)
                if special is not None:
                    wire.send(special)
                    continue
                text = answer(200, self.name.encode(), (("X-Connection", number), ("X-Turn", turn)))
                wire.send(text[:-len(self.name)] if m.line.startswith("HEAD ") else text)

    def last(self):
        return self.requests[-1]


def wait_requests(origin, n, timeout=harness.PATIENCE):
    harness.wait_until(lambda: len(origin.requests) >= n, "%d requests at %s" % (n, origin.name), timeout)
