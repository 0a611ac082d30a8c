#!/usr/bin/env python3
"""Listeners of mode http: requests routed one by one, bodies both ways, what the target and the client get to see, errors, ends."""
import contextlib
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import scene
import tcp
import web
from harness import check, equal

SITE = "~^/(?<service>[ab])/(?<rest>.*)$"


def start(run, listener=None, **options):
    """Origins a and b, chosen by the path; the rest goes to a."""
    p = scene.Pair()
    p.a, p.b = web.Origin(run, "a"), web.Origin(run, "b")
    rules = ({"path": SITE, "rewrite": "/${rest}", "route": "site-a/${service}"}, {"path": "/denied", "action": "deny"},
             {"path": "/gone", "action": "redirect", "redirect": "https://elsewhere.test${path}", "status": 308}, {"path": "/reject", "action": "reject"})
    row = dict({"mode": "http", "rules": rules, "route": "site-a/a"}, **(listener or {}))
    p.hub = scene.Hub(run, {"web": row}, **options).start().wait_ready()
    p.agent = scene.Agent(run, p.hub.authority, [p.hub.address], [scene.service("a", p.a.target), scene.service("b", p.b.target)]).start()
    p.hub.wait_links(2)
    p.web = p.hub.listen["web"]
    return p


def test_each_request_goes_its_own_way(run):
    p = start(run)
    with web.Client(p.web) as c:
        for _ in range(3):
            for path, name in (("/a/x", "a"), ("/b/y?q=1", "b"), ("/z", "a")):
                m = c.ask(path)
                equal((m.status, m.text), (200, name), path)
        equal(p.b.last().path, "/y?q=1", "the path that was rewritten")
        equal(p.a.last().path, "/z")
        equal(c.ask("/denied").status, 403)
        equal(c.ask("/b/again").text, "b")
        m = c.ask("/gone?x=1")
        equal((m.status, m.get("Location")), (308, "https://elsewhere.test/gone?x=1"))
        equal(c.ask("/a/last").text, "a")
    lines = p.hub.wait_log("session", count=13)
    equal([r["status"] for r in lines], [200] * 9 + [403, 200, 308, 200], "status of each request in the log")
    equal(lines[1]["route"], "site-a/b")
    equal(p.hub.metric('mctunnel_http_requests_total{listener="web",tunnel="site-a",service="b",code="200"}'), 4)
    p.hub.nothing_left()


def test_connections_to_targets_are_used_again(run):
    p = start(run)
    with web.Client(p.web) as c:
        turns = [int(c.ask("/a/x").get("X-Turn")) for _ in range(5)]
    equal(turns, [1, 2, 3, 4, 5], "requests on one connection")


def test_pipelined_requests_are_answered_in_order(run):
    p = start(run)
    with web.Client(p.web) as c:
        c.send("".join("GET /%s/%d HTTP/1.1\r\nHost: t\r\n\r\n" % ("ab"[i % 2], i) for i in range(40)))
        equal([c.answer().text for i in range(40)], ["ab"[i % 2] for i in range(40)])
        c.send("POST /b/p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /a/n HTTP/1.1\r\nHost: t\r\n\r\n")
        equal([c.answer().text, c.answer().text], ["b", "a"])
        equal(p.b.last().body, b"abc")


def test_what_the_target_sees(run):
    p = start(run)
    with web.Client(p.web) as c:
        c.ask("/a/x", host="Example.test:8080", fields=(("Connection", "keep-alive, X-Secret"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"), ("TE", "trailers, gzip"),
                                                       ("X-Forwarded-For", "6.6.6.6"), ("X_Forwarded_For", "6.6.6.7"), ("Forwarded", "for=6.6.6.8"), ("X-Request-ID", "mine"),
                                                       ("Cookie", "a=b"), ("X-Forwarded-User", "root")))
    m = p.a.last()
    source = harness.own_address() if hasattr(harness, "own_address") else run.host
    equal(m.line, "GET /x HTTP/1.1")
    equal(m.all("Host"), ["Example.test:8080"])
    equal(m.all("X-Forwarded-Proto"), ["http"])
    equal(m.all("X-Forwarded-Host"), ["Example.test:8080"])
    equal(len(m.all("X-Forwarded-For")), 1, source)
    equal(m.get("Forwarded"), 'for=%s;host="Example.test:8080";proto=http' % m.get("X-Forwarded-For"))
    for name in ("X-Secret", "Keep-Alive", "X_Forwarded_For", "X-Forwarded-User"):
        equal(m.all(name), [], name)
    check("6.6.6" not in str(m.fields), "forged addresses went through:", m.fields)
    equal((m.all("TE"), m.all("Connection"), m.all("Cookie")), (["trailers"], ["TE"], ["a=b"]))
    check(m.get("X-Request-ID") != "mine" and len(m.get("X-Request-ID")) == 32, "X-Request-ID is", m.get("X-Request-ID"))
    equal(p.hub.wait_log("session")[0]["request"], m.get("X-Request-ID"))


def test_forwarded_as_configured(run):
    p = start(run, {"forwarded": "append"})
    mine = (("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=1.2.3.4"), ("X-Request-ID", "abc-1"))
    with web.Client(p.web) as c:
        c.ask("/a/x", fields=mine)
    m = p.a.last()
    check(m.get("X-Forwarded-For").startswith("1.2.3.4, "), m.fields)
    check(m.get("Forwarded").startswith("for=1.2.3.4, for="), m.fields)
    equal((m.get("X-Forwarded-Proto"), m.get("X-Request-ID")), ("https", "abc-1"))


def test_bodies_of_any_size(run):
    p = start(run)
    with web.Client(p.web) as c:
        for n in (0, 1, 1000, 16383, 16384, 16385, 65536, 1 << 20, 5 << 20):
            data = bytes(i * 7 & 255 for i in range(1000)) * (n // 1000 + 1)
            p.a.special["/big"] = web.answer(200, data[:n])
            m = c.ask("/a/up", "POST", body=data[:n])
            equal((m.status, p.a.last().body == data[:n]), (200, True), "%d bytes up" % n)
            equal(c.ask("/a/big").body == data[:n], True, "%d bytes down" % n)


def test_chunks_and_trailers_go_as_they_are(run):
    p = start(run)
    chunked = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n"
    p.a.special["/chunks"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunked
    with web.Client(p.web) as c:
        c.send(b"PUT /b/c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
        equal(c.answer().status, 200)
        equal(p.b.last().raw_body, chunked)
        m = c.ask("/a/chunks")
        equal((m.raw_body, m.body, m.get("X-Sum")), (chunked, b"hello!", "6"))
        for i in range(0, len(chunked), 3):
            c.send((b"PUT /b/c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" if i == 0 else b"") + chunked[i:i + 3])
        equal(c.answer().status, 200)
        equal(p.b.last().raw_body, chunked)


def test_old_clients(run):
    p = start(run)
    p.a.special["/chunks"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n"
    with web.Client(p.web) as c:
        m = c.ask("/a/chunks", version="1.0", host=None)
        equal((m.body, m.get("Transfer-Encoding"), m.get("Connection")), (b"hello!", None, "close"))
        check(p.a.last().get("Host"), "a request without a host got none")
    with web.Client(p.web) as c:
        for _ in range(3):
            m = c.ask("/a/x", version="1.0", fields=(("Connection", "keep-alive"),))
            equal((m.text, m.get("Connection")), ("a", "keep-alive"))
        equal(c.ask("/a/x", version="1.0").get("Connection"), "close")
        c.ended()


def test_answers_without_a_body(run):
    p = start(run)
    p.a.special["/204"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    p.a.special["/304"] = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n"
    with web.Client(p.web) as c:
        m = c.ask("/a/x", "HEAD")
        equal((m.status, m.get("Content-Length"), m.get("X-Turn")), (200, "1", "1"))
        equal(c.ask("/a/204").status, 204)
        m = c.ask("/a/304")
        equal((m.status, m.get("Content-Length")), (304, "77"))
        equal(c.ask("/a/x").get("X-Turn"), "4")


def test_an_answer_until_the_end(run):
    p = start(run)
    big = bytes(range(256)) * 4096

    def until_end(wire, m):
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n" + big)
        return False
    p.a.special["/end"] = until_end
    with web.Client(p.web) as c:
        m = c.ask("/a/end")
        equal((m.get("Connection"), m.body == big), ("close", True))


def test_expect_100_continue(run):
    p = start(run)

    def wait_for_body(wire, m):
        equal(m.get("Expect"), "100-continue")
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.body(m)
        wire.send(web.answer(200, m.body))

    def refuse(wire, m):
        wire.send(web.answer(417, b"no", phrase="Expectation Failed"))
    p.a.special["/wait"], p.a.special["/no"] = wait_for_body, refuse
    with web.Client(p.web) as c:
        interim = []
        c.request("/a/wait", "POST", fields=(("Expect", "100-continue"), ("Content-Length", "5")))
        m = c.head()
        equal(m.status, 100)
        c.send("hello")
        equal(c.answer(interim=interim).text, "hello")
        c.request("/a/no", "POST", fields=(("Expect", "100-continue"), ("Content-Length", "5")))
        m = c.answer()
        equal((m.status, m.get("Connection")), (417, "close"))
        c.ended()


def test_an_upgrade_is_opaque_and_half_closed(run):
    p = start(run)

    def upgrade(wire, m):
        equal((m.get("Connection"), m.get("Upgrade")), ("upgrade", "echo/1"))
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\nhello ")
        while wire.data or wire.more():
            wire.send(wire.data)
            wire.data = b""
        wire.send(b"bye")
        return False
    p.a.special["/up"] = upgrade
    with web.Client(p.web) as c:
        c.request("/a/up", fields=(("Connection", "Upgrade"), ("Upgrade", "echo/1")))
        c.send("early ")
        m = c.answer()
        equal((m.status, m.get("Upgrade"), m.get("Connection").lower()), (101, "echo/1", "upgrade"))
        equal(c.take(12), b"hello early ")
        blob = bytes(range(256)) * 2000
        c.send(blob)
        equal(c.take(len(blob)) == blob, True)
        c.s.shutdown(1)
        equal(c.rest(), b"bye")
    r = p.hub.wait_log("session", status=101)[0]
    equal((r["reason"], r["end"]), ("done", "--"))


def test_no_h2c_behind_the_rules(run):
    p = start(run)
    with web.Client(p.web) as c:
        c.ask("/a/x", fields=(("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")))
    m = p.a.last()
    equal((m.get("Upgrade"), m.get("HTTP2-Settings"), m.get("Connection")), (None, None, None))


def test_errors_name_the_id_of_the_log(run):
    p = start(run, tunnels=[scene.tunnel(), scene.tunnel("site-b", agents=("edge-9",))], timeouts={"queue": "300ms"},
              listener={"rules": ({"path": "/queue", "route": "site-b/x"}, {"path": "~^/to/(?<site>[a-z-]+)$", "route": "${site}/x"}, {"path": "/dead", "route": "site-a/dead"}), "route": None})
    with web.Client(p.web) as c:
        m = c.ask("/queue")
        equal((m.status, m.get("Retry-After")), (503, "1"))
        request = [line for line in m.text.splitlines() if line.startswith("request: ")][0][9:]
        r = p.hub.wait_log("session", request=request)[0]
        equal((r["reason"], r["status"], r["end"]), ("no_agent", 503, "sQ"))
        equal(c.ask("/to/site-z").status, 404, "the connection goes on")
        equal(c.ask("/nothing").status, 404)
        equal(c.ask("/nothing", "HEAD").status, 404)
        equal(c.ask("/x", "POST", body=b"x" * 100).status, 404)
        c.ended()


def test_a_target_that_breaks_off(run):
    p = start(run)

    def half(wire, m):
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
        return False

    def nothing(wire, m):
        return False
    p.a.special["/half"], p.a.special["/nothing"], p.a.special["/rubbish"] = half, nothing, b"SSH-2.0-OpenSSH\r\n"
    p.a.special["/two"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    with web.Client(p.web) as c:
        equal(c.ask("/a/nothing").status, 502)
        equal(c.ask("/a/rubbish").status, 502)
        equal(c.ask("/a/two").status, 502)
        c.request("/a/half")
        tcp.expect_reset(c.s, "half an answer")
    equal([r["reason"] for r in p.hub.wait_log("session", count=4)], ["target_reset", "bad_answer", "bad_answer", "target_reset"])


def test_a_kept_connection_that_the_target_ends(run):
    p = start(run)

    def last(wire, m):
        wire.send(web.answer(200, b"last"))
        wire.head()  # the next request comes, and is not answered
        return False
    p.a.special["/last"] = last
    with web.Client(p.web) as c:
        equal(c.ask("/a/last").text, "last")
        equal(c.ask("/a/x").text, "a", "a safe request is asked again")
        equal(c.ask("/a/last").text, "last")
        m = c.ask("/a/x", "POST", body=b"once")
        equal(m.status, 502, "what may have been done is not")


def test_malformed_requests(run):
    p = start(run)
    for text in ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "\x16\x03\x01",
                 "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
                 "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", "POST /a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
        with web.Client(p.web) as c:
            c.send(text)
            m = c.answer()
            equal((m.status, m.get("Connection")), (400, "close"), repr(text))
            c.ended()
    with web.Client(p.web) as c:
        c.send("GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 20000 + "\r\n\r\n")
        equal(c.answer().status, 431)
    with web.Client(p.web) as c:
        c.send("GET /" + "x" * 20000 + " HTTP/1.1\r\nHost: a\r\n\r\n")
        equal(c.answer().status, 414)
    equal({r["reason"] for r in p.hub.wait_log("session", count=10)}, {"bad_request"})
    equal([m.line for m in p.a.requests + p.b.requests if "chunked" not in str(m.fields)], [], "requests that got through")


def test_bodies_that_are_too_long(run):
    """By their length at once, in chunks as soon as they are; up to the limit they pass."""
    p = start(run, {"max_body": 1000})
    for chunked in (False, True):
        with web.Client(p.web) as c:
            body = b"x" * 1000
            c.ask("/a/x", "POST", body=body)
            equal(len(p.a.last().body), 1000, "the body at the target")
            if chunked:
                c.send(b"POST /a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n%s\r\n1\r\nx\r\n0\r\n\r\n" % body)
            else:
                c.request("/a/x", "POST", body=body + b"x")
            equal(c.answer().status, 413, "chunked: %s" % chunked)
    p.hub.wait_log("session", count=2, status=413, reason="bad_request")


def test_heads_that_do_not_come(run):
    p = start(run, timeouts={"http_request": "1s"})
    with web.Client(p.web) as c:
        c.send("GET / HTTP/1.1\r\nHost: a\r\n")
        m = c.answer()
        equal((m.status, m.get("Connection")), (408, "close"))
    with web.Client(p.web) as c:
        c.ended()
    with web.Client(p.web) as c:
        c.ask("/a/x")
        c.ended()
    equal([r["end"] for r in p.hub.wait_log("session", reason="client_timeout", count=2)], ["cR", "cR"])


def test_a_client_that_leaves(run):
    p = start(run, settings=ctl.admin_settings(run, "hub"))
    p.a.special["/slow"] = lambda wire, m: wire.more()
    with web.Client(p.web) as c:
        c.request("/a/slow")
        web.wait_requests(p.a, 1)
        # the request may be at the target before the agent's word of the connection is at the hub
        harness.wait_until(lambda: "\topen\t" in ctl.command(run, "hub", "show sessions"), "the hub to know of the connection")
        tcp.reset(c.s)
    equal(p.hub.wait_log("session", reason="client_reset")[0]["end"], "CH")
    with web.Client(p.web) as c:
        c.request("/a/x")
        c.s.shutdown(1)
        equal(c.answer().text, "a", "a client that has ended its direction")
        c.ended()
    p.hub.nothing_left()
    p.agent.nothing_left()


def test_a_soft_stop_finishes_the_answer(run):
    p = start(run, settings=ctl.admin_settings(run, "hub"))
    p.a.special["/slow"] = lambda wire, m: (wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"), wire.more(), wire.send(b"cd")) and None
    with web.Client(p.web) as c, web.Client(p.web) as idle, web.Client(p.web) as later:
        idle.ask("/a/x")
        c.request("/a/slow")
        equal(c.head().status, 200)
        later.send("GET /a/y HTTP/1.1\r\n")
        harness.wait_until(lambda: "\trequest\t" in ctl.command(run, "hub", "show sessions"), "the hub to have read a part of a head")
        p.hub.send(10)
        idle.ended()
        later.send("Host: a\r\n\r\n")
        equal(later.answer().get("Connection"), "close")
        for w in list(p.a.server.live):
            with contextlib.suppress(OSError):  # those of the other clients may just have ended
                w.shutdown(0)
        equal(c.take(4), b"abcd")
    p.hub.ended(0)


if __name__ == "__main__":
    harness.main(globals())
