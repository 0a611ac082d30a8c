#!/usr/bin/env python3
"""Reload: every kind of change takes effect for what is new, a bad configuration changes nothing, and nothing is ever dropped."""
import os
import shutil
import signal
import socket
import ssl
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from ctl import admin_settings, changed, command, reload, write
from harness import check, equal, say


def pair(run, services, tunnels=None, **options):
    """Hub and agent with admin sockets."""
    p = scene.Pair()
    p.hub = scene.Hub(run, {name: "site-a/" + name for name in services}, tunnels, settings=admin_settings(run, "hub"), **options).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service(n, t) for n, t in services.items()],
                          settings=admin_settings(run, "edge-1")).start()
    p.listen = p.hub.listen
    p.hub.wait_links(2)
    return p


def listener(run, name, route, **more):
    address = (run.host, run.port())
    return address, dict({"name": name, "bind": tcp.text(address), "mode": "tcp", "route": route}, **more)


# ---- a hub ----

def test_listeners_come_and_go(run):
    """Added, renamed, moved, removed: a removed port is refused, sessions on it go on."""
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target, "other": tcp.Server(run, tcp.banner("other")).target})
    chatter = tcp.Chatter(p.listen["web"])
    address, row = listener(run, "more", "site-a/other")
    reload(p.hub, lambda c: c.update(listeners=c["listeners"] + (row,)))
    equal(tcp.ask_name(address), "other", "the added listener")
    same, web = p.listen["web"], p.hub.config["listeners"][0]
    reload(p.hub, lambda c: c.update(listeners=(dict(web, name="renamed", route="site-a/other"),) + c["listeners"][1:]))
    equal(tcp.ask_name(same), "other", "the same address, another name and route")
    chatter.go_on(5)
    moved, row = listener(run, "renamed", "site-a/other")
    reload(p.hub, lambda c: c.update(listeners=(row,)))
    check(tcp.refused(same) and tcp.refused(address) and tcp.refused(p.listen["other"]), "a removed port is not closed")
    equal(tcp.ask_name(moved), "other", "the moved listener")
    chatter.go_on(5)
    chatter.stop()
    equal(p.hub.metric("mctunnel_links"), 2, "links")
    equal(len(p.hub.log("link_down")), 0, "links that went down")
    reload(p.hub, lambda c: c.update(listeners=(web,) + c["listeners"]))
    tcp.ask(same)
    p.hub.nothing_left()


def test_limits_and_timeouts(run):
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    first = tcp.open_socket(p.listen["web"])
    first.sendall(b"x")
    equal(tcp.recv_exactly(first, 1), b"x")

    def edit(**more):
        def change(c):
            c["listeners"] = (dict(c["listeners"][0], **more),)
        return change
    reload(p.hub, edit(maxconn=1, timeouts={"idle": "3s"}))
    second = tcp.open_socket(p.listen["web"])
    second.sendall(b"y")
    second.settimeout(0.3)
    try:
        check(not second.recv(1), "answered beyond maxconn")
        check(False, "closed beyond maxconn")
    except socket.timeout:
        pass
    reload(p.hub, edit(maxconn=10))
    second.settimeout(harness.PATIENCE)
    equal(tcp.recv_exactly(second, 1), b"y", "after the limit was raised")
    began = time.monotonic()
    tcp.expect_closed(second)
    say("idle = 3 s, set by the reload: closed after %.0f ms" % (1000 * (time.monotonic() - began)))
    first.sendall(b"z")
    equal(tcp.recv_exactly(first, 1), b"z", "one that began before, with an hour")
    tcp.reset(first)


def test_waiting_clients_follow(run):
    """A client in the queue takes the new route."""
    p = pair(run, {"web": tcp.Server(run, tcp.banner("web")).target}, tunnels=[scene.tunnel(), scene.tunnel("empty", ["nobody"])],
             timeouts={"queue": "20s"})
    reload(p.hub, lambda c: c.update(listeners=(dict(c["listeners"][0], route="empty/web"),)))
    s = tcp.open_socket(p.listen["web"])
    p.hub.wait_metric("mctunnel_queue_sessions", 1)
    reload(p.hub, lambda c: c.update(listeners=(dict(c["listeners"][0], route="site-a/web"),)))
    equal(s.makefile("rb").readline().strip(), b"web", "who answers")
    s.close()


def test_who_may_serve(run):
    """Services and agents that are no longer allowed get nothing new, keep what they have, and come back."""
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target, "ssh": tcp.Server(run, tcp.echo).target}, timeouts={"queue": "0s"})
    chatter = tcp.Chatter(p.listen["web"])
    reload(p.hub, lambda c: c.update(tunnels=(scene.tunnel(services=["ssh", "w*b"]),)))
    answer = reload(p.hub, lambda c: c.update(tunnels=(scene.tunnel(services=["ssh"]),)), good=False)
    check("allows no service" in answer, answer)
    listeners = p.hub.config["listeners"]
    reload(p.hub, lambda c: c.update(tunnels=(scene.tunnel(services=["ssh"]),), listeners=listeners[1:]))
    chatter.go_on(3)
    p.hub.wait_log("services", refused=1)
    p.agent.wait_log("message", text="hub hub does not allow the service web")
    reload(p.hub, lambda c: c.update(tunnels=(scene.tunnel(agents=["somebody-else"], services=["ssh"]),)))
    p.hub.wait_log("link_goaway", 2, reason="identity")
    tcp.refused_after(p.listen["ssh"])
    chatter.go_on(3)
    reload(p.hub, lambda c: c.update(tunnels=(scene.tunnel(),), listeners=listeners))
    harness.wait_until(lambda: answers(p.listen["ssh"]), "the agent to be back", pause=0.1)
    chatter.go_on(3)
    chatter.stop()


def answers(address):
    try:
        tcp.ask(address)
        return True
    except (OSError, harness.Failed):
        return False


def test_hub_port_and_metrics_move(run):
    """Another port for agents next to the first, another one for metrics."""
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    chatter = tcp.Chatter(p.listen["web"])
    second = (run.host, run.port())
    old_metrics, p.hub.metrics_address = p.hub.metrics_address, (run.host, run.port())

    def change(c):
        c["hub"]["bind"] += (dict(c["hub"]["bind"][0], address=tcp.text(second)),)
        c["global"]["metrics"] = {"bind": tcp.text(p.hub.metrics_address)}
    reload(p.hub, change)
    check(tcp.refused(old_metrics), "the old address of the metrics still answers")
    equal(p.hub.metric("mctunnel_links"), 2, "links")
    reload(p.agent, lambda c: c["agent"].update(hubs=[tcp.text(second)]))
    p.agent.wait_metric("mctunnel_links", 3)  # the old one that carries the session, two new ones
    chatter.go_on(3)
    reload(p.hub, lambda c: c["hub"].update(bind=c["hub"]["bind"][1:]))
    check(tcp.refused(p.hub.address), "the first port for agents is not closed")
    chatter.go_on(3)
    tcp.ask(p.listen["web"])
    chatter.stop()
    p.agent.wait_metric("mctunnel_links", 2)


# ---- what is refused ----

def test_bad_changes_nothing(run):
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    chatter = tcp.Chatter(p.listen["web"])
    good = open(p.hub.config_path).read()
    answer = reload(p.hub, lambda c: c.update(listeners=(dict(c["listeners"][0], maxcon=3),)), good=False)
    check(p.hub.config_path + ":" in answer and "did you mean 'maxconn'" in answer, answer)
    with open(p.hub.config_path, "w") as f:
        f.write(good[:len(good) // 2])
    answer = command(run, "hub", "reload")
    check(answer.startswith("Refused") and p.hub.config_path + ":" in answer, answer)
    write(p.hub, p.hub.config)
    with socket.socket() as taken:
        taken.bind((run.host, 0))
        taken.listen()
        fresh, row = listener(run, "fresh", "site-a/web")
        bad = dict(listener(run, "taken", "site-a/web")[1], bind=tcp.text(taken.getsockname()))
        answer = reload(p.hub, lambda c: c.update(listeners=c["listeners"] + (row, bad)), good=False)
        check(p.hub.config_path + ":" in answer and "Address already in use" in answer, answer)
    check(tcp.refused(fresh), "half of a refused configuration is in force")
    answer = reload(p.hub, lambda c: c.pop("hub"), good=False)
    write(p.hub, p.hub.config)
    os.unlink(p.hub.config_path)
    check("no such file" in command(run, "hub", "reload"), "a file that is gone")
    write(p.hub, p.hub.config)
    answer = reload(p.hub, lambda c: c["global"].update(threads=7, hard_stop_after="9s"))
    check("global.threads: only a restart changes it" in answer, answer)
    tcp.ask(p.listen["web"])
    chatter.go_on(3)
    chatter.stop()
    ok = 'mctunnel_reloads_total{result="ok"}'
    m = p.hub.metrics()
    equal((m[ok], m['mctunnel_reloads_total{result="failed"}']), (1, 5), "reloads that were done and refused")


# ---- certificates ----

def served(address):
    """The certificate a hub shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["mctunnel/1"])
    with socket.create_connection(address, timeout=harness.PATIENCE) as s, context.wrap_socket(s) as t:
        return t.getpeercert(True)


def test_certificates(run):
    """The same files with other contents: new handshakes see them, links stay; what does not fit is refused."""
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    chatter = tcp.Chatter(p.listen["web"])
    bind = p.hub.config["hub"]["bind"][0]
    first = served(p.hub.address)
    p.hub.authority.make("renewed", "hub.test", ["hub.test"])
    shutil.copy(p.hub.authority.path("renewed.pem"), bind["cert"])
    answer = command(run, "hub", "reload certs")
    check(answer.startswith("Refused"), "a certificate without its key was taken:", answer)
    equal(served(p.hub.address), first, "the certificate after a bad pair")
    shutil.copy(p.hub.authority.path("renewed.key"), bind["key"])
    answer = command(run, "hub", "reload certs")
    check(answer.startswith("Reloaded."), answer)
    check(served(p.hub.address) != first, "the renewed certificate is not shown")
    equal(len(p.hub.log("link_down")), 0, "links that went down")
    tls = p.agent.config["agent"]["tls"]
    p.hub.authority.make("again", "edge-1", ["edge-1"], until=5)
    for end, key in ((".pem", "cert"), (".key", "key")):
        shutil.copy(p.hub.authority.path("again" + end), tls[key])
    answer = command(run, "edge-1", "reload")
    check(answer.startswith("Reloaded."), answer)
    harness.wait_until(lambda: [r for r in p.agent.log("message") if "certificate %s expires in" % tls["cert"] in r["text"]], "a warning")
    chatter.go_on(3)
    link = command(run, "hub", "show links").split()
    check("edge-1" in link, link)
    equal(len(p.agent.log("link_down")), 0, "links that went down")
    chatter.stop()


# ---- an agent ----

def test_agent(run):
    """Services, targets, links and hubs of a running agent."""
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    second = scene.Hub(run, {"web": "site-a/web"}, authority=p.hub.authority, name="hub-2", settings=admin_settings(run, "hub-2")).start().wait_ready()
    chatter = tcp.Chatter(p.listen["web"])
    web = p.agent.config["agent"]["services"]
    other = tcp.Server(run, tcp.banner("other")).target
    reload(p.hub, lambda c: c.update(listeners=c["listeners"] + (dict(c["listeners"][0], name="new", route="site-a/new", bind="%s:%d" % (run.host, 9999)),)))
    reload(p.agent, lambda c: c["agent"].update(services=web + (scene.service("new", other),)))
    equal(harness.wait_until(lambda: tcp.ask_name((run.host, 9999)), "the new service"), "other")
    reload(p.agent, lambda c: c["agent"].update(services=(scene.service("web", other), web[0] and scene.service("new", other))))
    equal(tcp.ask_name(p.listen["web"]), "other", "the service's new target")
    chatter.go_on(3)
    reload(p.agent, lambda c: c["agent"].update(hubs=[tcp.text(p.hub.address), tcp.text(second.address)], links=3))
    second.wait_links(3)
    p.hub.wait_links(3)
    equal(tcp.ask_name(second.listen["web"]), "other", "the added hub")
    reload(p.agent, lambda c: c["agent"].update(hubs=[tcp.text(second.address)], links=1))
    second.wait_links(1)
    p.hub.wait_links(1)  # the one that carries the session
    chatter.go_on(3)
    chatter.stop()
    p.hub.wait_links(0)
    answer = reload(p.agent, lambda c: c["agent"].update(name="edge-9"))
    check("agent.name: only a restart changes it" in answer, answer)
    equal(tcp.ask_name(second.listen["web"]), "other")


# ---- in odd moments ----

def test_killed_worker_keeps_the_last_good(run):
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    address, row = listener(run, "more", "site-a/web")
    reload(p.hub, lambda c: c.update(listeners=c["listeners"] + (row,)))
    with open(p.hub.config_path, "w") as f:
        f.write("half a conf")
    check(command(run, "hub", "reload").startswith("Refused"), "a broken file was taken")
    old = p.hub.kill_worker()
    p.hub.worker(other_than=old)
    p.hub.wait_links(2)
    tcp.ask(address)
    tcp.ask(p.listen["web"])
    write(p.hub, dict(p.hub.config, listeners=p.hub.config["listeners"][:1]))
    check(command(run, "hub", "reload").startswith("Reloaded."), "no reload after the restart")
    check(tcp.refused(address), "a removed port is not closed")


def test_storm(run):
    """Whatever number of HUPs: a few reloads, then quiet, and the newest is in force."""
    p = pair(run, {"web": tcp.Server(run, tcp.echo).target})
    chatter = tcp.Chatter(p.listen["web"])
    address, row = listener(run, "more", "site-a/web")
    for i in range(300):
        p.hub.send(signal.SIGHUP)
        if i == 250:
            changed(p.hub, lambda c: c.update(listeners=c["listeners"] + (row,)))
    p.hub.send(signal.SIGHUP)
    harness.wait_until(lambda: not tcp.refused(address), "the last configuration")
    check(command(run, "hub", "reload").startswith("Reloaded."), "no reload after the storm")
    chatter.go_on(3)
    chatter.stop()
    n = p.hub.metric('mctunnel_reloads_total{result="ok"}')
    say("%d reloads for 301 signals" % n)
    check(n <= 301, n)
    p.hub.send(signal.SIGHUP)
    p.hub.stop(signal.SIGUSR1)


def test_without_master(run):
    """-1: the same, by the process itself."""
    hub = scene.Hub(run, {"web": "site-a/web"}, settings=admin_settings(run, "hub"))
    hub.launcher = ("sh", "-c", 'exec "$0" -1 "$@"')
    hub.start().wait_ready()
    address, row = listener(run, "more", "site-a/web")
    reload(hub, lambda c: c.update(listeners=c["listeners"] + (row,)))
    check(not tcp.refused(address), "the added listener")
    changed(hub, lambda c: c.update(listeners=c["listeners"][:1]))
    hub.send(signal.SIGHUP)
    harness.wait_until(lambda: tcp.refused(address), "the listener to go")
    answer = reload(hub, lambda c: c.update(nonsense=1), good=False)
    check(hub.config_path + ":" in answer, answer)


if __name__ == "__main__":
    harness.main(globals())
