"""ClientHellos by hand, and TLS peers by Python's ssl."""
import contextlib
import select
import socket
import ssl
import struct
import time

import harness
import tcp


# ---- by hand ----

def extension(kind, body):
    return struct.pack("!HH", kind, len(body)) + body


def server_name(name):
    name = name.encode()
    return extension(0, struct.pack("!HBH", len(name) + 3, 0, len(name)) + name)


def alpn(*names):
    listed = b"".join(struct.pack("B", len(n)) + n.encode() for n in names)
    return extension(16, struct.pack("!H", len(listed)) + listed)


def message(*extensions):
    body = b"".join(extensions)
    hello = b"\3\3" + bytes(32) + b"\0" + b"\0\4\x13\1\x13\2" + b"\1\0" + struct.pack("!H", len(body)) + body
    return b"\1" + struct.pack("!I", len(hello))[1:] + hello


def records(data, size=16384):
    return b"".join(b"\x16\3\1" + struct.pack("!H", len(data[i:i + size])) + data[i:i + size] for i in range(0, len(data), size))


# ---- real ones ----

def context(authority=None, protocols=(), cert=None, newest=None):
    """Of a client. authority None: believes everybody. newest: the newest version it can do."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if authority:
        c.load_verify_locations(authority.ca)
        c.verify_mode = ssl.CERT_REQUIRED
        c.check_hostname = True
    if protocols:
        c.set_alpn_protocols(list(protocols))
    if cert:
        c.load_cert_chain(*cert)
    if newest:
        c.maximum_version = newest
    return c


def connect(address, name=None, timeout=harness.PATIENCE, **options):
    """A TLS socket. Options: of context()."""
    s = tcp.open_socket(address, timeout)
    try:
        return context(**options).wrap_socket(s, server_hostname=name)
    except BaseException:
        s.close()
        raise


def names(s):
    """The names in the certificate of a server that was verified."""
    return [value for kind, value in s.getpeercert()["subjectAltName"] if kind == "DNS"]


def echo(s, data=b"ping\n"):
    s.sendall(data)
    harness.equal(tcp.recv_exactly(s, len(data)), data, "echo")


def round_trip(s, data, progress=None):
    """Sends while it receives the echo, in one thread: OpenSSL wants a connection for itself."""
    sent, got, deadline = 0, 0, time.monotonic() + 4 * harness.PATIENCE
    s.setblocking(False)
    while got < len(data):
        harness.check(time.monotonic() < deadline, "%d of %d bytes came back" % (got, len(data)))
        before = sent + got
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if sent < len(data):
                sent += s.send(data[sent:sent + 65536])
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            piece = s.recv(65536)
            harness.check(piece, "end of file, %d bytes too early" % (len(data) - got))
            harness.check(data[got:got + len(piece)] == piece, "what came back is not what was sent, after", got)
            got += len(piece)
        if progress:
            progress(got)
        if sent + got == before:
            select.select([s], [s] if sent < len(data) else [], [], 1)
    s.settimeout(harness.PATIENCE)


def close(s):
    """In good order: both sides say goodbye."""
    s.unwrap().close()


def server(run, cert, protocols=()):
    """A TLS server that echoes; its results: (server name, protocol)."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*cert)
    if protocols:
        c.set_alpn_protocols(list(protocols))
    said = {}
    c.sni_callback = lambda s, name, _: said.update({s: name})

    def handler(s):
        with c.wrap_socket(s, server_side=True) as t:
            result = said.pop(t, None), t.selected_alpn_protocol()
            while True:
                data = t.recv(tcp.CHUNK)
                if not data:
                    t.unwrap().shutdown(socket.SHUT_WR)
                    return result
                t.sendall(data)
    return tcp.Server(run, handler)
