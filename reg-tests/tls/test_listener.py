#!/usr/bin/env python3
"""TLS that ends at listeners: certificates by name, versions, clients' certificates, what is no TLS, reloads with new certificates while clients come and go."""
import contextlib
import os
import shutil
import socket
import ssl
import sys
import threading
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import hello
import pki
import scene
import tcp
from ctl import admin_settings, command, reload
from harness import equal


class World:
    def __init__(self, run, tls, timeouts=None, settings=None, environment=None, agent=True, **listener):
        """tls: of the listener; a function of this world gives it."""
        self.run = run
        self.pki = pki.Pki(run.path("sites"))
        self.folder = run.path("certs")
        os.mkdir(self.folder)
        self.server = tcp.Server(run, tcp.echo)
        row = dict({"route": "site-a/x", "tls": tls(self)}, **listener)
        self.hub = scene.Hub(run, {"in": row}, settings=dict(admin_settings(run, "hub"), **(settings or {})), timeouts=timeouts,
                             environment=environment).start().wait_ready()
        self.agent = scene.Agent(run, self.hub.authority, [self.hub.address], [scene.service("x", self.server.target)])
        self.address = self.hub.listen["in"]
        if agent:
            self.agent.start()
            self.hub.wait_links(2)

    def put(self, name, dns, joined=False, file=None):
        """A certificate in the folder, with its key beside it or in the same file."""
        cert, key = self.pki.make(file or name, name, dns)
        target = os.path.join(self.folder, name)
        if joined:
            with open(target + ".pem.new", "wb") as out:
                for part in (cert, key):
                    with open(part, "rb") as f:
                        out.write(f.read())
            os.rename(target + ".pem.new", target + ".pem")
        else:
            shutil.copy(key, target + ".key")
            shutil.copy(cert, target + ".crt")

    def three(self):
        self.put("first", ("first.test", "www.first.test"))
        self.put("second", ("*.wild.test", "wild.test"), joined=True)
        return {"cert": [self.folder + "/"]}

    def all_done(self, at_least):
        """Lines are written by a thread of its own, a moment later."""
        harness.wait_until(lambda: len(self.hub.log("session")) >= at_least, "lines of sessions")
        equal({line["reason"] for line in self.hub.log("session")}, {"done"}, "reasons")

    def line(self, client):
        return self.hub.wait_log("session", client="%s:%d" % client)[0]

    def shown(self, name, expected):
        """The certificate that a client gets who asks for name: it must be good for expected."""
        c = hello.context(self.pki)
        c.check_hostname = False
        with c.wrap_socket(tcp.open_socket(self.address), server_hostname=name) as s:
            who = s.getsockname()
            harness.check(expected in hello.names(s), "asked for", name, "got", hello.names(s))
            hello.echo(s)
            hello.close(s)
        return who


def one(w):
    cert, key = w.pki.make("only", "only", ("only.test",))
    return {"cert": cert, "key": key}


def fails(address, **options):
    """The client's handshake fails (in TLS 1.3 perhaps with the first byte read). Returns its address."""
    s = tcp.open_socket(address)
    who = s.getsockname()
    name = options.pop("name", None)
    try:
        with hello.context(**options).wrap_socket(s, server_hostname=name) as t:
            t.sendall(b"x")
            t.recv(1)
    except OSError as e:  # ssl.SSLError among them
        return who, e
    raise harness.Failed("the handshake was good")


def test_the_name_chooses_the_certificate(run):
    w = World(run, World.three)
    for name, expected in (("first.test", "first.test"), ("WWW.FIRST.TEST", "first.test"), ("a.wild.test", "wild.test"), ("wild.test", "wild.test"),
                           ("a.b.wild.test", "first.test"), ("nobody.test", "first.test"), (None, "first.test")):
        who = w.shown(name, expected)
        line = w.line(who)
        equal((line.get("sni"), line["reason"]), (name.lower() if name else None, "done"), "name and reason in the log")


def test_bytes_both_ways(run):
    """Much data, both ends in turn, over both versions."""
    w = World(run, one)
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        s = hello.connect(w.address, "only.test", authority=w.pki, newest=newest)
        hello.round_trip(s, os.urandom(3 << 20))
        hello.close(s)
    w.hub.nothing_left()
    w.all_done(2)


def test_a_slow_reader_gets_everything(run):
    """The target has said everything and ended, long before the client reads: nothing is cut off."""
    size = 3 << 20
    w = World(run, one)

    def handler(s):
        tcp.recv_exactly(s, 1)
        sent = tcp.send_stream(s, size, 7)
        s.shutdown(socket.SHUT_WR)
        tcp.expect_eof(s)
        return sent

    w.server.handler = handler
    s = hello.connect(w.address, "only.test")
    s.sendall(b"x")
    time.sleep(1)  # it reads nothing meanwhile; how long is not what is tested
    received = tcp.recv_stream(s)
    hello.close(s)
    equal(received, w.server.result(), "what came is what was sent")
    w.hub.nothing_left()


def test_an_end_without_goodbye_is_a_reset(run):
    w = World(run, one)
    s = hello.connect(w.address)
    who = s.getsockname()
    hello.echo(s)
    raw = socket.socket(fileno=s.detach())
    raw.shutdown(socket.SHUT_WR)
    equal(w.line(who)["reason"], "client_reset", "reason")
    raw.close()


def test_who_waits_for_an_agent(run):
    """The handshake is over, the first bytes are sent, some leave; then the agent comes."""
    w = World(run, one, timeouts={"queue": "30s"}, agent=False)
    waiting = [hello.connect(w.address, "only.test") for _ in range(6)]
    w.hub.wait_metric("mctunnel_queue_sessions", 6)
    for s in waiting:
        s.sendall(b"early\n")
    gone = waiting.pop()
    who = gone.getsockname()
    tcp.reset(gone)
    equal(w.line(who)["reason"], "client_reset", "reason of who has left")
    ended = waiting.pop()
    ended = ended, ended.getsockname()
    with contextlib.suppress(ssl.SSLError, OSError):
        ended[0].settimeout(0.1)
        ended[0].unwrap()  # says goodbye, and still wants its answer
    w.agent.start()
    for s in waiting:
        equal(tcp.recv_exactly(s, 6), b"early\n", "echo")
        hello.close(s)
    equal(w.line(ended[1])["up"], 6, "bytes of who had ended its direction")
    w.hub.nothing_left()


def test_links_break(run):
    """Sessions go on over other links, perhaps on other threads, and their clients' TLS with them."""
    w = World(run, one)
    cuts = []

    def cut(got):
        if got > (len(cuts) + 1) << 20 and len(cuts) < 6:
            ids = [word.split()[0] for word in command(run, "hub", "show links").splitlines() if word.split()[:1] and word.split()[0].isdigit()]
            for link in ids:
                command(run, "hub", "shutdown link " + link)
            cuts.append(ids)

    s = hello.connect(w.address, "only.test")
    hello.round_trip(s, os.urandom(8 << 20), cut)
    hello.close(s)
    harness.check(len(cuts) == 6 and any(cuts), cuts)
    w.hub.nothing_left()
    w.all_done(1)
    harness.say("%d times all links cut, resumed %d times" % (len(cuts), w.hub.metric("mctunnel_sessions_resumed_total")))


def test_lowest_version(run):
    w = World(run, lambda w: dict(one(w), tls_min="1.3"))
    who, _ = fails(w.address, newest=ssl.TLSVersion.TLSv1_2)
    line = w.line(who)
    equal(line["reason"], "client_tls", "reason")
    harness.check("protocol" in line["text"], line)
    with hello.connect(w.address) as s:
        equal(s.version(), "TLSv1.3", "version")
        hello.echo(s)


def test_protocols(run):
    w = World(run, lambda w: dict(one(w), alpn=["acme/1", "acme/2"]))
    with hello.connect(w.address, protocols=["acme/2", "acme/1"]) as s:
        equal(s.selected_alpn_protocol(), "acme/1", "protocol")
    with hello.connect(w.address) as s:
        hello.echo(s)
    who, _ = fails(w.address, protocols=["smtp"])
    harness.check("smtp" in w.line(who)["text"], w.line(who))


def clients(w, **more):
    for name in ("alice", "mallory"):
        w.pki.make(name, name, (name + ".test",))
    w.pki.revoke("mallory")
    w.stranger = pki.Pki(w.run.path("strangers"), "Strangers").make("eve", "eve", ("alice.test",))
    return dict(one(w), client_ca=w.pki.ca, crl=w.pki.crl(), **more)


def pair_of(w, name):
    return w.pki.path(name + ".pem"), w.pki.path(name + ".key")


def known(w):
    with hello.connect(w.address, cert=pair_of(w, "alice")) as s:
        who = s.getsockname()
        hello.echo(s)
        hello.close(s)
    equal(w.line(who)["cert"], "alice.test", "name in the log")


def unwelcome(w):
    for cert, words in ((pair_of(w, "mallory"), "revoked"), (w.stranger, "unknown CA")):
        who, _ = fails(w.address, cert=cert)
        line = w.line(who)
        equal(line["reason"], "client_tls", "reason")
        harness.check(words in line["text"], line)


def test_clients_certificates_are_required(run):
    w = World(run, clients)  # as there is a client_ca
    known(w)
    unwelcome(w)
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        who, _ = fails(w.address, newest=newest)
        harness.check("no client certificate" in w.line(who)["text"], w.line(who))


def test_clients_certificates_are_optional(run):
    w = World(run, lambda w: clients(w, verify="optional"))
    known(w)
    unwelcome(w)
    with hello.connect(w.address) as s:
        who = s.getsockname()
        hello.echo(s)
        hello.close(s)
    equal(w.line(who).get("cert"), None, "name in the log")


def test_a_list_of_the_revoked_is_read_again(run):
    w = World(run, clients)
    known(w)
    w.pki.revoke("alice")
    w.pki.crl()
    reload(w.hub, lambda c: None)
    who, _ = fails(w.address, cert=pair_of(w, "alice"))
    harness.check("revoked" in w.line(who)["text"], w.line(who))


def refused(w, data, reason, words, end=False):
    s = tcp.open_socket(w.address)
    who = s.getsockname()
    s.sendall(data)
    if end:
        s.shutdown(socket.SHUT_WR)
    try:
        while s.recv(1000):
            pass
    except ConnectionResetError:
        pass
    s.close()
    line = w.line(who)
    equal(line["reason"], reason, "reason of %r" % data[:40])
    harness.check(words in line["text"], line)


def test_what_is_no_tls(run):
    w = World(run, one)
    refused(w, b"GET / HTTP/1.1\r\n\r\n", "client_tls", "not TLS")
    refused(w, b"\0" * 100, "client_tls", "not TLS")
    refused(w, b"\x16\3\1\0\0", "client_tls", "length")
    refused(w, hello.records(b"\1\0\0\4abcd"), "client_tls", "malformed")
    refused(w, hello.records(hello.message(hello.server_name("only.test"))), "client_tls", "")  # no key share and no group
    refused(w, b"", "client_reset", "", end=True)
    refused(w, hello.records(hello.message())[:-1], "client_reset", "", end=True)
    w.shown("only.test", "only.test")
    w.hub.wait_metric("mctunnel_listener_sessions", 0)


def test_too_slow(run):
    w = World(run, one, timeouts={"client_hello": "1s"})
    began = time.monotonic()
    refused(w, hello.records(hello.message())[:-1], "client_timeout", "ClientHello")
    harness.check(time.monotonic() - began > 0.9, "too early")
    b = ssl.MemoryBIO()  # a good hello, and then silence
    out = ssl.MemoryBIO()
    c = hello.context().wrap_bio(b, out)
    try:
        c.do_handshake()
    except ssl.SSLWantReadError:
        pass
    refused(w, out.read(), "client_timeout", "handshake")


def test_many_who_never_finish_do_not_hold_up_others(run):
    w = World(run, one)
    out = ssl.MemoryBIO()
    try:
        hello.context().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    except ssl.SSLWantReadError:
        pass
    first = out.read()
    silent = [tcp.open_socket(w.address) for _ in range(200)]
    for s in silent:
        s.sendall(first)
    w.shown("only.test", "only.test")
    for s in silent:
        tcp.reset(s)
    w.hub.wait_metric("mctunnel_listener_sessions", 0)


def test_behind_a_proxy(run):
    w = World(run, one, accept_proxy=["127.0.0.0/8"])
    s = tcp.open_socket(w.address)
    s.sendall(b"PROXY TCP4 198.51.100.9 198.51.100.1 4711 443\r\n")
    with hello.context(w.pki).wrap_socket(s, server_hostname="only.test") as t:
        hello.echo(t)
        hello.close(t)
    w.hub.wait_log("session", client="198.51.100.9:4711", reason="done", sni="only.test")


def test_https(run):
    """Mode http: requests over TLS reach the target with what is known of the client. HTTP/2 is offered to who can do it."""
    w = World(run, one, mode="http")

    def handler(s):
        with s.makefile("rb") as f:
            head = list(iter(lambda: f.readline().strip().lower(), b""))
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        return head

    w.server.handler = handler
    with hello.connect(w.address, "only.test", protocols=["http/1.1", "h2"]) as s:
        equal(s.selected_alpn_protocol(), "h2", "protocol of who can do both")
    with hello.connect(w.address, "only.test", authority=w.pki, protocols=["http/1.1"]) as s:
        equal(s.selected_alpn_protocol(), "http/1.1", "protocol")
        for _ in range(2):
            s.sendall(b"GET /x HTTP/1.1\r\nHost: only.test\r\n\r\n")
            with s.makefile("rb") as f:
                equal(f.readline(), b"HTTP/1.1 200 OK\r\n", "answer")
                while f.readline().strip():
                    pass
                equal(f.read(5), b"hello", "body")
            head = w.server.result()
            harness.check(b"x-forwarded-proto: https" in head, head)
        hello.close(s)


def test_sessions_are_resumed(run):
    """Also by a new worker, and after a reload; never at another listener."""
    w = World(run, one)
    c = hello.context(newest=ssl.TLSVersion.TLSv1_2)

    def connect(session):
        with c.wrap_socket(tcp.open_socket(w.address), server_hostname="only.test", session=session) as s:
            hello.echo(s)
            return s.session, s.session_reused

    session, reused = connect(None)
    equal(reused, False, "the first one is resumed")
    equal(connect(session)[1], True, "resumed")
    reload(w.hub, lambda conf: None)
    equal(connect(session)[1], True, "resumed after a reload")
    old = w.hub.kill_worker()
    w.hub.worker(other_than=old)
    w.hub.wait_links(2)
    equal(connect(session)[1], True, "resumed by another worker")


def test_a_new_certificate_under_load(run):
    """Clients come all the time while certificates change by reloads: none fails, sessions that are there go on."""
    w = World(run, World.three)
    living = hello.connect(w.address, "first.test")
    stop, counts, seen = threading.Event(), [0] * 3, set()
    c = hello.context(w.pki)
    c.check_hostname = False

    def load(i):
        while not stop.is_set():
            with c.wrap_socket(tcp.open_socket(w.address), server_hostname="first.test") as s:
                seen.add(s.getpeercert()["serialNumber"])
                hello.echo(s)
                hello.close(s)
            counts[i] += 1

    clients_ = [harness.Background(load, i) for i in range(3)]
    for n in range(4):
        w.put("first", ("first.test", "www.first.test", "extra-%d.test" % n), file="first-%d" % n)
        w.put("added-%d" % n, ("added-%d.test" % n,), joined=True)
        reload(w.hub, lambda conf: None)
        w.shown("added-%d.test" % n, "added-%d.test" % n)
        w.shown("first.test", "extra-%d.test" % n)
        hello.echo(living)
        before = list(counts)
        harness.wait_until(lambda: all(a > b for a, b in zip(counts, before)) or any(t.error for t in clients_), "clients to come")
    stop.set()
    for t in clients_:
        t.finish()
    hello.close(living)
    harness.check(len(seen) >= 4, "certificates seen:", seen)
    harness.say("%d clients, %d certificates" % (sum(counts), len(seen)))
    w.hub.nothing_left()
    w.all_done(1)


def test_a_bad_certificate_refuses_the_reload(run):
    w = World(run, World.three)
    with open(os.path.join(w.folder, "bad.pem"), "w") as f:
        f.write("nothing of use\n")
    answer = reload(w.hub, lambda conf: None, good=False)
    harness.check("bad.pem" in answer and "bad.key" in answer, answer)
    shutil.copy(w.pki.path("first.key"), os.path.join(w.folder, "bad.key"))
    answer = reload(w.hub, lambda conf: None, good=False)
    harness.check("there is no certificate in it" in answer, answer)
    shutil.copy(w.pki.path("second.pem"), os.path.join(w.folder, "bad.pem"))
    answer = reload(w.hub, lambda conf: None, good=False)
    harness.check("does not belong to the certificate" in answer, answer)
    w.shown("a.wild.test", "wild.test")
    os.remove(os.path.join(w.folder, "bad.pem"))
    reload(w.hub, lambda conf: None)
    w.shown("a.wild.test", "wild.test")


def test_certificates_are_shown_and_measured(run):
    w = World(run, World.three)
    shown = command(run, "hub", "show certs")
    for words in ("listener in", "first.crt", "second.pem", "*.wild.test,wild.test"):
        harness.check(words in shown, shown)
    expiry = {k: v for k, v in w.hub.metrics().items() if k.startswith("mctunnel_certificate_expiry_seconds{")}
    for file in ("first.crt", "second.pem"):
        seconds = [v for k, v in expiry.items() if k.endswith('%s"}' % file)]
        harness.check(len(seconds) == 1 and 29 * 86400 < seconds[0] <= 30 * 86400, expiry)


def test_without_rights(run):
    """The worker may read neither folder nor keys: what was checked is what it gets, also at a reload."""
    if os.getuid() != 0:
        raise harness.Skipped("needs root")
    chroot = run.path("empty")
    os.mkdir(chroot)

    def tls(w):
        os.chmod(w.folder, 0o700)
        return World.three(w)

    w = World(run, tls, settings={"user": "nobody", "chroot": chroot}, environment={"ASAN_OPTIONS": "exitcode=99:detect_leaks=0"})
    w.shown("a.wild.test", "wild.test")
    w.put("third", ("third.test",))
    os.chmod(os.path.join(w.folder, "third.key"), 0o600)
    reload(w.hub, lambda conf: None)
    w.shown("third.test", "third.test")
    old = w.hub.kill_worker()
    w.hub.worker(other_than=old)
    w.hub.wait_links(2)
    w.shown("third.test", "third.test")


if __name__ == "__main__":
    harness.main(globals())
