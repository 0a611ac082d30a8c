#!/usr/bin/env python3
"""The Pods of etc/kubernetes run, as kubelet runs them: read-only root, user 65532, no rights, process 1 of their namespace.
A client reaches a site through them; configuration is reloaded, the worker crashes, the Pod is deleted."""
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import container
import harness
import kube
import netns
import proc
import scene
import tcp
from harness import check, equal, say

HOME = "10.99.0.1"  # of the hub and of the site's targets
PROGRAMS = {"/usr/sbin/mctunnel": scene.release_binary(), "/usr/bin/mctunnelctl": os.path.join(os.path.dirname(scene.release_binary()), "mctunnelctl")}


def secrets(run):
    """What doc/kubernetes.md says to make."""
    folder = run.path("pki")
    tool, env = os.path.join(harness.TOP, "scripts", "mctunnel-pki"), dict(os.environ, MCTUNNEL_PKI=folder)
    for words in (("init", folder), ("hub", "hub", "hub.example.com"), ("agent", "edge-1"), ("agent", "node-1")):
        subprocess.run((tool,) + words, env=env, check=True, capture_output=True)

    def files(*names):
        return {n: open(os.path.join(folder, n), "rb").read() for n in names}
    return {"mctunnel-hub-pki": files("hub.pem", "hub.key", "ca.pem", "crl.pem"),
            "mctunnel-agent-pki": files("edge-1.pem", "edge-1.key", "ca.pem"),
            "mctunnel-nodes-pki": files("node-1.pem", "node-1.key", "ca.pem")}


def hub(run, files, edit=None):
    return kube.Pod(run, "hub", PROGRAMS, files, host=HOME, edit=edit).start()


def agent(run, files, name="agent", **downward):
    """A Pod with an address of its own, at the site."""
    place = netns.Namespace(run)
    hosts = {n: HOME for n in ("hub.example.com", "kubernetes.default.svc", "web.default.svc")}
    p = kube.Pod(run, name, PROGRAMS, files, hosts, place.address, place.launcher())
    return p.start(**downward)


def status(pid):
    with open("/proc/%d/status" % pid) as f:
        return dict(line.rstrip().split(":\t", 1) for line in f if ":\t" in line)


def has_no_rights(p):
    for pid in [p.first()] + proc.children(p.first()):
        s = status(pid)
        equal(set(s["Uid"].split()), {"65532"}, "user")
        equal((int(s["CapEff"], 16), int(s["CapBnd"], 16), s["NoNewPrivs"]), (0, 0, "1"), "rights")


def web(s):
    """A site's web server: answers with the path it was asked for."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = s.recv(4096)
        if not data:
            return
        head += data
    path = head.split(b" ")[1]
    s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))


def pair(run, edit=None):
    """(hub, agent), ready."""
    tcp.Server(run, web, (HOME, 80))
    tcp.Server(run, tcp.echo, (HOME, 443))
    files = secrets(run)
    h = hub(run, files, edit)
    took = h.wait_ready()
    probe = h.container["readinessProbe"]
    say("the hub is ready after %.2f s; its first probe comes after %d s" % (took, probe["initialDelaySeconds"]))
    a = agent(run, files)
    say("the agent after %.2f s" % a.wait_ready())
    return h, a


def serve(p):
    """As clients outside use it: by the ports of the Service."""
    tcp.ask(p.serves("mctunnel-hub", 6443), b"through the Service's port 6443\n")
    for path, code, text in (("/site-a/api/v1/pods?x=1", 200, "/api/v1/pods?x=1"), ("/site-b/", 404, None), ("/", 404, None)):
        with contextlib.closing(http.client.HTTPConnection(*p.serves("mctunnel-hub", 80), timeout=harness.PATIENCE)) as c:
            c.request("GET", path)
            answer = c.getresponse()
            equal((answer.status, answer.read().decode() if text else None), (code, text), path)


def test_serves(run):
    h, a = pair(run)
    serve(h)
    check(h.probe("liveness") and a.probe("liveness"), "alive")
    for p in (h, a):
        has_no_rights(p)
        check("others than its owner" not in p.log(), "kubelet's rights of files are not enough for", p.name)
        equal(p.execute("/usr/bin/mctunnelctl", "check"), (0, "healthy\n"), "mctunnelctl check in " + p.name)
    # the configuration changes: reloaded in place, a session goes on
    chatter = tcp.Chatter(h.serves("mctunnel-hub", 6443))
    chatter.go_on()
    h.edit = lambda text: text.replace("*:6443", "*:6444")
    h.write_config("mctunnel-hub")
    code, said = h.execute("/usr/bin/mctunnelctl", "reload")
    equal(code, 0, said)
    tcp.ask((HOME, 6444))
    harness.wait_until(lambda: tcp.refused((HOME, 6443)), "the old port to be closed")
    chatter.go_on()
    chatter.stop()
    # a crash: the container goes on, the probes notice nothing
    worker, = [pid for pid in proc.children(h.first()) if proc.name(pid) == "mctunnel-worker"]
    os.kill(worker, signal.SIGKILL)
    threshold = h.container["livenessProbe"]["failureThreshold"]
    check(any(h.probe("liveness") for _ in range(threshold)), "the liveness probe after a crash")
    harness.wait_until(lambda: h.probe("readiness"), "readiness after a crash")
    tcp.ask((HOME, 6444), timeout=harness.PATIENCE)
    for p in (a, h):
        p.delete()
        say("%s ended after %.2f s" % (p.name, p.wait_end()))


def test_deleted_while_it_serves(run):
    """Sessions go on until they end; new clients are refused, and no probe is content any more."""
    h, _ = pair(run)
    chatter = tcp.Chatter(h.serves("mctunnel-hub", 6443))
    chatter.go_on()
    h.delete()
    harness.wait_until(lambda: tcp.refused(h.serves("mctunnel-hub", 6443)), "new clients to be refused")
    check(not h.probe("readiness"), "ready while draining")
    chatter.go_on(10)
    chatter.stop()
    say("ended %.2f s after the signal" % h.wait_end())


def test_deleted_with_a_session_that_stays(run):
    h, _ = pair(run, lambda text: text.replace('hard_stop_after = "10s"', 'hard_stop_after = "2s"'))
    s = tcp.open_socket(h.serves("mctunnel-hub", 6443))
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    h.delete()
    tcp.expect_reset(s, "the client")
    took = h.wait_end()
    say("hard_stop_after = 2 s: ended after %.1f s" % took)
    check(took >= 1.9, "it did not wait for its session")


def test_a_node(run):
    """The DaemonSet's Pod: named as its node, it leads to the node itself."""
    files = secrets(run)
    tcp.Server(run, tcp.echo, (HOME, 22))

    def more(text):
        return (text.replace('balance = "leastconn"; }', 'balance = "leastconn"; }, { name = "node-1"; services = [ "ssh" ]; }')
                .replace('route = "site-a/kubernetes"', 'route = "node-1/ssh"'))
    h = hub(run, files, more)
    h.wait_ready()
    a = agent(run, files, "agent-daemonset", spec_nodeName="node-1", status_hostIP=HOME)
    a.wait_ready()
    tcp.ask(h.serves("mctunnel-hub", 6443))
    for p in (a, h):
        p.delete()
        p.wait_end()


def test_killed(run):
    """A Pod that is killed in the middle leaves nothing behind: the next one starts."""
    h, a = pair(run)
    os.kill(h.first(), signal.SIGKILL)
    check(h.popen.wait(harness.PATIENCE) != 0, "it ended well, although it was killed")
    began = time.monotonic()
    h.start()
    h.wait_ready()
    tcp.ask(h.serves("mctunnel-hub", 6443))
    say("a new hub serves the site %.2f s after its start" % (time.monotonic() - began))
    check(a.probe("liveness"), "the agent is alive")


if __name__ == "__main__":
    if not container.available():
        print("no namespaces here")
        sys.exit(77)
    netns.enter_own()
    harness.main(globals(), threads=(1,))
