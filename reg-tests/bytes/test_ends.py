#!/usr/bin/env python3
"""How sessions begin and end: who speaks first, half-close, reset, timeouts, all seen exactly at the other end."""
import os
import socket
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal, say


def test_server_speaks_first(run):
    p = scene.pair(run, {"ssh": tcp.Server(run, tcp.banner("SSH-2.0-test")).target})
    with tcp.open_socket(p.listen["ssh"]) as s:
        equal(tcp.recv_exactly(s, 13), b"SSH-2.0-test\n")
        s.sendall(b"hello")
        equal(tcp.recv_exactly(s, 5), b"hello")
        s.shutdown(socket.SHUT_WR)
        tcp.expect_eof(s)
    p.hub.wait_log("session", reason="done", end="--")


def test_client_speaks_first(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    tcp.ask(p.listen["echo"], b"GET / HTTP/1.0\r\n\r\n")
    p.hub.wait_log("session", reason="done", end="--")


def test_unix_socket_target(run):
    server = tcp.Server(run, tcp.echo, address=run.path("echo.sock"))
    p = scene.pair(run, {"echo": server.target})
    tcp.ask(p.listen["echo"], b"x" * 100000)
    p.hub.nothing_left()


def test_half_close_with_a_late_answer(run):
    """The client ends its direction; a second later 1 MiB comes back."""
    def late(s):
        got = tcp.recv_stream(s)
        time.sleep(1)
        return got, tcp.send_stream(s, 1 << 20, 3)

    server = tcp.Server(run, late)
    p = scene.pair(run, {"late": server.target})
    with tcp.open_socket(p.listen["late"]) as s:
        sent = tcp.send_stream(s, 100, 1)
        s.shutdown(socket.SHUT_WR)
        received = tcp.recv_stream(s)
    got, answer = server.result()
    equal(got, sent, "request")
    equal(received, answer, "answer")
    p.hub.wait_log("session", reason="done", up=100, down=1 << 20)


def test_half_close_by_the_target(run):
    """The target ends its direction at once; the client's bytes still arrive, and its end later."""
    def early(s):
        s.sendall(b"bye")
        s.shutdown(socket.SHUT_WR)
        return tcp.recv_stream(s)

    server = tcp.Server(run, early)
    p = scene.pair(run, {"early": server.target})
    with tcp.open_socket(p.listen["early"]) as s:
        equal(tcp.recv_exactly(s, 3), b"bye")
        tcp.expect_eof(s)
        sent = tcp.send_stream(s, 1 << 20, 1)
        s.shutdown(socket.SHUT_WR)
        equal(server.result(), sent)
    p.hub.nothing_left()


def test_client_resets(run):
    server = tcp.Server(run, lambda s: tcp.recv_stream(s))
    p = scene.pair(run, {"x": server.target})
    s = tcp.open_socket(p.listen["x"])
    s.sendall(b"x" * 1000)
    harness.wait_until(lambda: server.accepted == 1, "the target's connection")
    tcp.reset(s)
    result = server.result()
    check(isinstance(result, ConnectionResetError), "the target saw", repr(result))
    record = p.hub.wait_log("session", reason="client_reset")[0]
    equal(record["end"][0], "C", "end state")
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_target_resets(run):
    def rude(s):
        tcp.recv_exactly(s, 4)
        tcp.reset(s)

    server = tcp.Server(run, rude)
    p = scene.pair(run, {"x": server.target})
    s = tcp.open_socket(p.listen["x"])
    s.sendall(b"ping")
    tcp.expect_reset(s, "client")
    record = p.hub.wait_log("session", reason="target_reset")[0]
    equal(record["end"][0], "S", "end state")
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_reset_with_bytes_under_way(run):
    """A reset while megabytes are under way in both directions leaves nothing behind."""
    server = tcp.Server(run, lambda s: tcp.exchange(s, 50 << 20, 1))
    p = scene.pair(run, {"x": server.target})
    for _ in range(10):
        s = tcp.open_socket(p.listen["x"])
        sender = harness.Background(tcp.send_stream, s, 50 << 20, 2)
        tcp.recv_exactly(s, 1 << 20)
        s.shutdown(socket.SHUT_RD)
        tcp.reset(s)
        server.result()
        sender.join(harness.PATIENCE)
        check(not sender.is_alive(), "the sender is stuck")
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_same_id_on_both_sides(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    tcp.ask(p.listen["echo"])
    hub = p.hub.wait_log("session")[0]
    agent = p.agent.wait_log("session")[0]
    equal(agent["id"], hub["id"], "session id")
    equal(len(hub["id"]), 32, "length of the id")
    say({k: hub[k] for k in hub if k != "time"})


def test_log_line_as_text(run):
    """The same facts as key=value."""
    path = run.path("text.log")
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    p.hub.stop()
    config = dict(p.hub.config)
    config["global"] = dict(config["global"], log=config["global"]["log"] + ({"target": path, "format": "text"},))
    p.hub.configure(config)
    p.hub.start().wait_links(2)
    tcp.ask(p.listen["echo"])
    record = p.hub.wait_log("session")[-1]
    line = harness.wait_until(lambda: [w for w in open(path) if " session " in w and w.endswith("\n")], "the line as text")[-1]
    say(line.strip())
    words = line.split()
    equal(words[1:3], ["info", "session"])
    equal(dict(w.split("=", 1) for w in words[3:])["id"], record["id"], "id")
    for key in ("listener", "client", "route", "agent", "target", "queue", "connect", "total", "up", "down", "sessions", "end", "reason"):
        check(any(w.startswith(key + "=") for w in words), key, "is missing")


def test_idle_timeout(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, timeouts={"idle": "2s"}, agent_timeouts={"idle": "2s"})
    s = tcp.open_socket(p.listen["echo"])
    s.sendall(b"x")
    equal(tcp.recv_exactly(s, 1), b"x")
    tcp.expect_closed(s, "idle session")
    p.hub.wait_log("session", reason="idle")
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_half_closed_timeout(run):
    def silent(s):
        tcp.recv_stream(s)
        time.sleep(20)

    p = scene.pair(run, {"x": tcp.Server(run, silent).target}, timeouts={"half_closed": "500ms"}, agent_timeouts={"half_closed": "500ms"})
    s = tcp.open_socket(p.listen["x"])
    s.sendall(b"x")
    s.shutdown(socket.SHUT_WR)
    tcp.expect_closed(s, "half-closed session", 18)  # the target would end it
    p.hub.wait_log("session", reason="half_closed")
    p.hub.nothing_left()
    p.agent.nothing_left()


if __name__ == "__main__":
    harness.main(globals())
