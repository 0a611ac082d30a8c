#!/usr/bin/env python3
"""Who may link: every bad identity is refused with a log line that names the reason, while a good agent's session goes on."""
import os
import socket
import ssl
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import pki
import scene
import tcp
from harness import check, equal, say


class Stage:
    """A hub that knows revocations, a good agent, a session in use all the time."""

    def __init__(self, run):
        self.run = run
        self.authority = pki.Pki(run.path("pki"))
        self.authority.agent("revoked")
        self.authority.revoke("revoked")
        crl = self.authority.crl()
        self.echo = tcp.Server(run, tcp.echo)
        tunnels = [scene.tunnel("site-a", ["edge-1"], ["echo"]), scene.tunnel("site-b", ["edge-2", "revoked"], ["echo", "db-*"])]
        self.hub = scene.Hub(run, {"echo": "site-a/echo", "b": "site-b/echo"}, tunnels, authority=self.authority,
                             hub={"bind": {"crl": crl}}, timeouts={"queue": "300ms"}).start().wait_ready()
        self.agent = scene.Agent(run, self.authority, [self.hub.address], [scene.service("echo", self.echo.target)]).start()
        self.hub.wait_links(2)
        self.chatter = tcp.Chatter(self.hub.listen["echo"])

    def newcomer(self, name="edge-2", tunnel_name="site-b", services=("echo",), **options):
        rows = [scene.service(s, self.echo.target) for s in services]
        return scene.Agent(self.run, self.authority, [self.hub.address], rows, name=name, tunnel_name=tunnel_name, links=1, **options).start()

    def refused(self, *words):
        """A log line that tells the reason in one of these words, and the good session undisturbed."""
        def found():
            for record in self.hub.log("link_refused"):
                told = " ".join(str(record.get(k)) for k in ("reason", "text")).lower()
                if any(w in told for w in words):
                    return record
            return None
        try:
            record = harness.wait_until(found, "", pause=0.05)
        except harness.Failed:
            raise harness.Failed("no link_refused with one of %s, but %s" % (words, self.hub.log("link_refused"))) from None
        say({k: record.get(k) for k in ("reason", "text", "agent", "tunnel", "addr") if k in record})
        check(record.get("addr"), "an address in the log line")
        self.undisturbed()
        return record

    def undisturbed(self):
        self.chatter.go_on(5)
        equal(self.hub.metric("mctunnel_links"), 2, "links")
        tcp.refused_after(self.hub.listen["b"])

    def end(self):
        self.chatter.stop()
        tcp.ask(self.hub.listen["echo"])
        self.hub.must_run()


def test_wrong_ca(run):
    s = Stage(run)
    other = pki.Pki(run.path("other"), "Other CA")
    s.newcomer(cert=other.agent("edge-2"))
    s.refused("unknown ca")
    s.end()


def test_expired(run):
    s = Stage(run)
    s.newcomer(cert=s.authority.make("expired", "edge-2", ["edge-2"], since=-10, until=-1))
    s.refused("expired")
    s.end()


def test_not_yet_valid(run):
    s = Stage(run)
    s.newcomer(cert=s.authority.make("early", "edge-2", ["edge-2"], since=2, until=10))
    s.refused("not yet valid")
    s.end()


def test_revoked(run):
    s = Stage(run)
    s.newcomer(name="revoked")
    s.refused("revoked")
    s.end()


def test_wrong_name(run):
    """A good certificate whose name may not serve the tunnel."""
    s = Stage(run)
    s.newcomer(name="stranger")
    equal(s.refused("identity")["reason"], "identity")
    s.end()


def test_false_name_in_the_frame(run):
    """The agent says edge-2, its certificate says otherwise: the certificate counts."""
    s = Stage(run)
    s.newcomer(name="edge-2", cert=s.authority.agent("stranger"))
    equal(s.refused("identity")["reason"], "identity")
    s.end()


def test_another_tunnels_agent(run):
    """edge-2 may serve site-b, not site-a."""
    s = Stage(run)
    s.newcomer(name="edge-2", tunnel_name="site-a")
    equal(s.refused("identity")["reason"], "identity")
    s.end()


def test_unknown_tunnel(run):
    s = Stage(run)
    s.newcomer(name="edge-2", tunnel_name="nowhere")
    s.refused("identity", "tunnel")
    s.end()


def test_service_not_allowed(run):
    """The link is welcome, the services that may be offered work, the other one does not; both logs say so."""
    s = Stage(run)
    agent = s.newcomer(services=("echo", "secret", "db-main"))
    s.hub.wait_links(3)
    tcp.ask(s.hub.listen["b"])
    harness.wait_until(lambda: [r for r in s.hub.log() if "secret" in str(r)], "the hub to log the refused service")
    harness.wait_until(lambda: [r for r in agent.log() if "secret" in str(r)], "the agent to log the refused service")
    check(not [r for r in s.hub.log() if "db-main" in str(r) and "refused" in str(r)], "db-main was allowed")
    s.chatter.go_on(5)
    s.end()


def tls(s, authority, cert=None, alpn="mctunnel/1"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca)
    if cert:
        context.load_cert_chain(*cert)
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(s, server_hostname="hub.test")


def closed(s):
    """The other side ends it, whatever it says before."""
    s.settimeout(harness.PATIENCE)
    try:
        while s.recv(4096):
            pass
    except TimeoutError:
        raise harness.Failed("still open") from None
    except OSError:
        pass


def test_no_certificate(run):
    s = Stage(run)
    try:
        closed(tls(tcp.open_socket(s.hub.address), s.authority))
    except OSError:  # of the handshake
        pass
    s.refused("no client certificate", "certificate required")
    s.end()


def test_plaintext(run):
    s = Stage(run)
    c = tcp.open_socket(s.hub.address)
    c.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
    closed(c)
    s.refused("plaintext")
    s.end()


def test_leaving_early_is_no_refusal(run):
    """Port scans, probes and the lost races of an agent's own attempts accuse nobody."""
    s = Stage(run)
    files, refused = s.hub.metric("process_open_fds"), s.hub.metric("mctunnel_links_refused_total")
    for first in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
        c = tcp.open_socket(s.hub.address)
        c.sendall(first)
        c.close()
        tcp.reset(tcp.open_socket(s.hub.address))
    harness.wait_until(lambda: s.hub.metric("process_open_fds") <= files, "the connections to be gone")
    equal(s.hub.metric("mctunnel_links_refused_total"), refused, "refusals")
    equal(s.hub.log("link_refused"), [], "log lines")
    s.end()


def test_silent_connections(run):
    """Connections that say nothing are closed in time and hold nobody up."""
    s = Stage(run)
    silent = [tcp.open_socket(s.hub.address) for _ in range(50)]
    s.chatter.go_on(5)
    s.newcomer()
    s.hub.wait_links(3)
    for c in silent:
        closed(c)
    s.end()


def test_garbage_after_the_handshake(run):
    """A good certificate does not help those who do not speak the protocol."""
    s = Stage(run)
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(100), os.urandom(2000), b""):
        c = tls(tcp.open_socket(s.hub.address), s.authority, s.authority.agent("edge-2"))
        c.sendall(junk)
        closed(c)
    s.undisturbed()
    s.end()


def test_hubs_identity(run):
    """An agent refuses a hub of another CA, or of another name."""
    s = Stage(run)
    other = pki.Pki(run.path("other"), "Other CA")
    agents = [s.newcomer(file="wrong-ca", tls={"ca": other.ca}), s.newcomer(file="wrong-name", tls={"server_name": "other.test"})]
    for agent, words in zip(agents, (("unknown ca",), ("another name",))):
        def told():
            return [r for r in agent.log() if r.get("level") in ("warning", "error", "notice", "info") and
                    any(w in str(r.get("text", r.get("message"))).lower() for w in words)]
        record = harness.wait_until(told, "%s to say why, but it said %s" % (agent.name, agent.log()))[0]
        say({k: v for k, v in record.items() if k != "time"})
    s.undisturbed()
    s.end()


if __name__ == "__main__":
    harness.main(globals())
