"""TCP peers for tests: servers to put behind an agent, and clients, that check every byte."""
import contextlib
import errno
import hashlib
import os
import queue
import select
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


def refused(address):
    """Nobody listens there (any more)."""
    try:
        reset(open_socket(address))
        return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False


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


def expect_turned_away(address, what):
    """A connection there is reset, perhaps so fast that connecting sees it."""
    try:
        expect_reset(open_socket(address), what)
    except ConnectionResetError:
        pass


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


def refused_after(address, timeout=harness.PATIENCE):
    """Connects, says something and must be closed without a byte (a reset may come before all that). Returns the seconds it took."""
    began = time.monotonic()
    try:
        with open_socket(address) as s:
            s.sendall(b"hello")
            expect_closed(s, "a client to be refused", timeout)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return time.monotonic() - began


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
        self.handler, self.results, self.live, self.accepted, self.closed = handler, queue.Queue(), set(), 0, False
        self.lock = threading.Lock()
        self.listener = listener or listening(address if address is not None else (run.host, run.port()))
        self.address = self.listener.getsockname()
        self.target = text(self.address)
        threading.Thread(target=self._accept, daemon=True).start()
        run.undo.callback(self.close)

    def _accept(self):
        while not self.closed:
            try:
                s, peer = self.listener.accept()
            except OSError:  # closed, or for a moment there are too many descriptors
                time.sleep(0.01)
                continue
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
        except (OSError, harness.Failed) as e:
            e.__traceback__ = e.__context__ = None  # else they hold the frames, and all that those have read, as long as nobody takes the result
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
        self.closed = True
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


# ---- very many at once, in one thread ----

class Crowd:
    """An echo server in one thread, for very many connections."""

    def __init__(self, run=None, address=None):
        self.listener = listening(address or (run.host, run.port()))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.target = text(self.address)
        self.poll, self.socks, self.pending = select.epoll(), {}, {}
        self.poll.register(self.listener, select.EPOLLIN)
        self.closed = False
        threading.Thread(target=self._turn, daemon=True).start()
        if run:
            run.undo.callback(self.close)

    def close(self):
        self.closed = True

    def _turn(self):
        while not self.closed:
            for fd, events in self.poll.poll(0.2):
                if fd == self.listener.fileno():
                    self._accept()
                else:
                    try:
                        self._serve(fd, self.socks[fd])
                    except OSError:
                        self._drop(fd)
        for s in self.socks.values():
            s.close()
        self.listener.close()

    def _accept(self):
        for _ in range(100):
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            s.setblocking(False)
            self.socks[s.fileno()] = s
            self.poll.register(s, select.EPOLLIN)

    def _serve(self, fd, s):
        data = self.pending.pop(fd, None)
        if data is None:
            data = s.recv(65536)
        if not data:
            s.shutdown(socket.SHUT_WR)
            self._drop(fd)
            return
        try:
            sent = s.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.pending[fd] = data[sent:]
        self.poll.modify(fd, select.EPOLLOUT if sent < len(data) else select.EPOLLIN)

    def _drop(self, fd):
        self.socks.pop(fd).close()
        self.pending.pop(fd, None)


class _Member:
    """One client of a crowd: sends n bytes and the end, wants them back and the end."""

    def __init__(self, address, n, seed):
        self.s = socket.socket()
        self.s.setblocking(False)
        self.error = self.s.connect_ex(address)
        self.out, self.piece = pattern(n, seed), b""
        self.sent, self.back, self.left = hashlib.sha256(), hashlib.sha256(), n
        self.began, self.done = time.monotonic(), False

    def write(self):
        """False when everything is sent."""
        if not self.piece:
            self.piece = next(self.out, None)
            if self.piece is None:
                self.s.shutdown(socket.SHUT_WR)
                return False
            self.sent.update(self.piece)
        self.piece = self.piece[self.s.send(self.piece):]
        return True

    def read(self):
        data = self.s.recv(65536)
        self.back.update(data)
        self.left -= len(data)
        self.done = not data

    def verdict(self):
        return self.left == 0 and self.back.digest() == self.sent.digest()


def crowd(address, count, n, timeout=100):
    """`count` clients at once, each sends n bytes to an echo server and checks what comes back. Returns the durations."""
    poll, members, times = select.epoll(), {}, []
    for i in range(count):
        m = _Member(address, n, i)
        members[m.s.fileno()] = m
        poll.register(m.s, select.EPOLLOUT | select.EPOLLIN)
    deadline = time.monotonic() + timeout
    while members:
        harness.check(time.monotonic() < deadline, "%d of %d sessions still not done after %d s" % (len(members), count, timeout))
        for fd, events in poll.poll(1):
            m = members[fd]
            with contextlib.suppress(BlockingIOError):
                if events & select.EPOLLOUT and not m.write():
                    poll.modify(fd, select.EPOLLIN)
            with contextlib.suppress(BlockingIOError):
                if events & ~select.EPOLLOUT:
                    m.read()
            if m.done:
                harness.check(m.verdict(), "bytes differ, or %d are missing" % m.left)
                times.append(time.monotonic() - m.began)
                del members[fd]
                m.s.close()
    return times
