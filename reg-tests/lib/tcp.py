"""TCP peers for tests: servers to put behind an agent, and clients, that check every byte."""
import contextlib
import errno
import hashlib
import os
import queue
import socket
import struct
import threading
import time

import harness

CHUNK = 256 << 10
_BLOCK = os.urandom((1 << 20) + 7)  # of odd size, so that pieces lost, doubled or swapped are noticed


# ---- sockets ----

def open_socket(address, timeout=harness.PATIENCE):
    """Connects to (host, port) or a path."""
    s = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    s.settimeout(timeout)
    try:
        s.connect(address)
    except BaseException:
        s.close()
        raise
    if s.family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def listening(address):
    s = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    if s.family == socket.AF_INET:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen(4096)
    return s


def reset(s):
    """Closes with RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def text(address):
    return "unix:" + address if isinstance(address, str) else "%s:%d" % address


def expect_reset(s, what, timeout=harness.PATIENCE):
    """Whatever comes before it is thrown away; a clean end of file is a failure."""
    s.settimeout(timeout)
    try:
        while True:
            if not s.recv(CHUNK):
                raise harness.Failed("%s: saw a clean end of file, not a reset" % what)
    except ConnectionResetError:
        pass
    except socket.timeout:
        raise harness.Failed("%s: no reset within %.0f s" % (what, timeout)) from None


def expect_eof(s, what="connection"):
    try:
        data = s.recv(CHUNK)
    except OSError as e:
        raise harness.Failed("%s: %s instead of a clean end of file" % (what, e)) from None
    harness.equal(data, b"", what + ", at its end")


def expect_closed(s, what="connection", timeout=harness.PATIENCE):
    """Closed without a byte, in whatever manner."""
    s.settimeout(timeout)
    try:
        data = s.recv(CHUNK)
    except ConnectionResetError:
        return
    except socket.timeout:
        raise harness.Failed("%s: still open after %.0f s" % (what, timeout)) from None
    harness.equal(data, b"", what)


def recv_exactly(s, n):
    parts = []
    while n:
        data = s.recv(min(n, CHUNK))
        if not data:
            raise harness.Failed("end of file, %d bytes too early" % n)
        parts.append(data)
        n -= len(data)
    return b"".join(parts)


def ask(address, data=b"ping\n", timeout=harness.PATIENCE):
    """Sends, wants the same back, and closes in good order."""
    with open_socket(address, timeout) as s:
        s.sendall(data)
        harness.equal(recv_exactly(s, len(data)), data, "echo")
        s.shutdown(socket.SHUT_WR)
        expect_eof(s)


# ---- streams with checksums ----

def pattern(n, seed):
    """n bytes in pieces, the same for the same seed."""
    at = (seed * 7919) % len(_BLOCK)
    view = memoryview(_BLOCK)
    while n:
        piece = view[at:at + min(n, CHUNK)]
        at = (at + len(piece)) % len(_BLOCK)
        n -= len(piece)
        yield piece


def send_stream(s, n, seed, progress=None):
    """Returns what a receiver should have: (n, digest)."""
    digest, sent = hashlib.sha256(), 0
    for piece in pattern(n, seed):
        s.sendall(piece)
        digest.update(piece)
        sent += len(piece)
        if progress:
            progress(sent)
    return n, digest.hexdigest()


def recv_stream(s, progress=None):
    """Until the end of file: (n, digest)."""
    digest, n, room = hashlib.sha256(), 0, bytearray(CHUNK)
    view = memoryview(room)
    while True:
        got = s.recv_into(room)
        if not got:
            return n, digest.hexdigest()
        digest.update(view[:got])
        n += got
        if progress:
            progress(n)


def exchange(s, n, seed, progress=None):
    """Sends n bytes and the end while it receives until the end: (sent, received), each (n, digest)."""
    def send():
        result = send_stream(s, n, seed)
        s.shutdown(socket.SHUT_WR)
        return result

    sender = harness.Background(send)
    received = recv_stream(s, progress)
    return sender.finish(what="sender"), received


# ---- servers ----

class Server:
    """Accepts at an address (an own port of `run` by default) and gives each connection to a thread."""

    def __init__(self, run, handler, address=None, listener=None):
        self.handler, self.results, self.live, self.accepted = handler, queue.Queue(), set(), 0
        self.lock = threading.Lock()
        self.listener = listener or listening(address if address is not None else (run.host, run.port()))
        self.address = self.listener.getsockname()
        self.target = text(self.address)
        threading.Thread(target=self._accept, daemon=True).start()
        run.undo.callback(self.close)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                s, peer = self.listener.accept()
                s.settimeout(300)
                with self.lock:
                    self.live.add(s)
                    self.accepted += 1
                threading.Thread(target=self._serve, args=(s, peer), daemon=True).start()

    def _serve(self, s, peer):
        try:
            result = self.handler(s)
            if result is not None:
                self.results.put(result)
        except OSError as e:
            self.results.put(e)
        except harness.Failed as e:
            self.results.put(e)
        finally:
            with self.lock:
                self.live.discard(s)
            s.close()

    def result(self, timeout=harness.PATIENCE):
        try:
            return self.results.get(timeout=timeout)
        except queue.Empty:
            raise harness.Failed("the target has seen no connection end within %.0f s" % timeout) from None

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for s in self.live:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)


def echo(s):
    """Handler: everything back, then the end."""
    while True:
        data = s.recv(CHUNK)
        if not data:
            s.shutdown(socket.SHUT_WR)
            return
        s.sendall(data)


def banner(word):
    """Handler: one line at once that names the server, then echo."""
    def handler(s):
        s.sendall(word.encode() + b"\n")
        echo(s)
    return handler


def ask_name(address, timeout=harness.PATIENCE):
    """The word a banner() server behind this address says."""
    with open_socket(address, timeout) as s:
        line = s.makefile("rb").readline()
        s.shutdown(socket.SHUT_WR)
        if not line.endswith(b"\n"):
            raise harness.Failed("end of file instead of a name")
        return line.decode().strip()


# ---- a session that is used all the time ----

class Chatter:
    """A line-echo session: sends a line, wants it back, again and again; remembers how long each took."""

    def __init__(self, address, every=0.02):
        self.s, self.every, self.times, self.going = open_socket(address), every, [], True
        self.thread = harness.Background(self._talk)
        harness.wait_until(lambda: self.times or self.thread.error, "the first echo")

    def _talk(self):
        lines = self.s.makefile("rb")
        while self.going:
            line = b"line %d\n" % len(self.times)
            began = time.monotonic()
            self.s.sendall(line)
            back = lines.readline()
            if back != line:
                raise harness.Failed("echo of %r is %r" % (line, back))
            self.times.append(time.monotonic() - began)
            time.sleep(self.every)
        self.s.shutdown(socket.SHUT_WR)
        if lines.read(1):
            raise harness.Failed("bytes after the last line")

    def count(self):
        return len(self.times)

    def go_on(self, lines=3, timeout=harness.PATIENCE):
        """Waits until some more lines have come back."""
        want = len(self.times) + lines
        harness.wait_until(lambda: len(self.times) >= want or self.thread.error, "a living session to go on", timeout)
        if self.thread.error:
            raise self.thread.error

    def stop(self):
        self.going = False
        self.thread.finish(what="the line-echo session")
        self.s.close()
        return self.times
