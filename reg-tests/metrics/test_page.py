#!/usr/bin/env python3
"""The status page: what it says with and without its script, in a real browser, is what /status.json and /metrics say."""
import html.parser
import json
import os
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import browser
import harness
import scene
import tcp
from harness import check, equal

# figure of the page -> metric
SAME = {"sessions": "mctunnel_sessions", "agents": "mctunnel_agents", "links": "mctunnel_links", "queue": "mctunnel_queue_sessions",
        "opened": "mctunnel_sessions_opened_total", "resumed": "mctunnel_sessions_resumed_total", "lost": "mctunnel_sessions_lost_total",
        "parked": "mctunnel_sessions_parked", "bytes_up": "mctunnel_bytes_up_total", "bytes_down": "mctunnel_bytes_down_total",
        "restarts": "mctunnel_worker_restarts_total"}


class Page(html.parser.HTMLParser):
    """figures: {key: text}; tables: {id: [{key: text}]}; live: what it says of itself."""

    def __init__(self, text):
        super().__init__()
        self.figures, self.tables, self.words, self.outside = {}, {}, {}, []
        self.into, self.section, self.keys, self.row = None, None, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.outside += [v for k, v in attrs if k in ("src", "href") and v and "//" in v]
        if "data-figure" in a:
            self.figures[a["data-figure"]] = ""
            self.into = (self.figures, a["data-figure"])
        elif a.get("id") in ("phase", "vip", "live", "uptime"):
            self.words[a["id"]] = ""
            self.into = (self.words, a["id"])
        elif tag == "section":
            self.section, self.keys = self.tables.setdefault(a["id"], []), []
        elif tag == "th":
            self.keys.append(a["data-key"])
        elif tag == "tr":
            self.row = None
        elif tag == "td":
            if self.row is None:
                self.row = {}
                self.section.append(self.row)
            key = self.keys[len(self.row)]
            self.row[key] = ""
            self.into = (self.row, key)

    def handle_data(self, data):
        if self.into:
            self.into[0][self.into[1]] += data.strip("\n")

    def handle_endtag(self, tag):
        self.into = None


def size(n):
    for unit in ("B", "KiB", "MiB"):
        if n < 1024 or unit == "MiB":
            return ("%d %s" if unit == "B" else "%.1f %s") % (n, unit)
        n /= 1024


def compare(page, program):
    """At rest: page, JSON and metrics agree."""
    s, m = json.loads(program.get("/status.json")[1]), program.metrics()
    for key, metric in SAME.items():
        equal(s["figures"][key], m[metric], "%s of JSON and metrics" % key)
        equal(page.figures[key], size(m[metric]) if key.startswith("bytes") else "%d" % m[metric], "%s of page and metrics" % key)
    equal(set(page.tables), {k for k, v in s.items() if isinstance(v, list)}, "tables")
    for table in ("tunnels", "services", "listeners", "hubs", "targets"):
        for row, shown in zip(s.get(table, []), page.tables.get(table, []), strict=True):
            for key, value in row.items():
                text = size(value) if key.endswith("_ended") else "\u2013" if key == "rtt_ms" else str(value)
                if key != "rtt_ms":
                    equal(shown[key], text, "%s of %s" % (key, table))
    for row, shown in zip(s.get("agents", []), page.tables.get("agents", []), strict=True):
        for key in ("tunnel", "name", "state", "addr", "version"):
            equal(shown[key], row[key], key)
        equal((shown["links"], shown["sessions"]), (str(row["links"]), str(row["sessions"])), "links, sessions of the agent")
        check(shown["rtt_ms"].endswith(" ms"), shown)
    equal([e["text"] for e in page.tables["events"]], [e["text"] for e in s["events"]], "events")
    equal(page.words["phase"], s["phase"], "phase")
    return s


def busy_pair(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).address})
    for _ in range(7):
        tcp.ask(p.listen["echo"], b"x" * 5000)
    held = tcp.open_socket(p.listen["echo"])
    held.sendall(b"x" * 70000)
    tcp.recv_exactly(held, 70000)
    p.hub.wait_metric('mctunnel_listener_sessions{listener="echo"}', 1)  # the last figure that an end changes
    p.agent.wait_metric("mctunnel_sessions", 1)
    p.hub.wait_metric('mctunnel_link_rtt_seconds{tunnel="site-a",agent="edge-1"}', lambda v: v > 0)
    return p, held


def url(program):
    return "http://%s/" % tcp.text(program.metrics_address)


def test_without_script(run):
    p, held = busy_pair(run)
    for program in (p.hub, p.agent):
        text = program.get("/")[1]
        page = Page(text)
        compare(page, program)
        equal([u for u in page.outside], [], "addresses of others")
        check("as of now" in page.words["live"])
    held.close()


def test_in_a_browser(run):
    browser.program()
    p, held = busy_pair(run)
    for program in (p.hub, p.agent):
        text, complaints = browser.dom(run, url(program))
        page = Page(text)
        equal(complaints, [], "what the browser complains about")
        equal(page.words["live"], "live", "the script")
        compare(page, program)
    # what is there when the script starts is not what is there later
    held.close()
    p.hub.nothing_left()
    equal(Page(browser.dom(run, url(p.hub))[0]).figures["sessions"], "0", "sessions")


def ask(path, command):
    with tcp.open_socket(path) as s:
        s.sendall(command.encode() + b"\n")
        parts = []
        while part := s.recv(65536):
            parts.append(part)
        return b"".join(parts).decode()


def test_same_as_the_admin_socket(run):
    path = run.path("admin.sock")
    server = tcp.Server(run, tcp.echo)
    hub = scene.Hub(run, {"echo": "site-a/echo"}, settings={"admin": ({"bind": "unix:" + path, "level": "admin"},)}).start().wait_ready()
    scene.Agent(run, hub.authority, [hub.address], [scene.service("echo", server.address)]).start()
    hub.wait_links(2)
    held = [tcp.open_socket(hub.listen["echo"]) for _ in range(3)]
    hub.wait_metric("mctunnel_sessions", 3)
    ask(path, "set vip master")
    page = Page(hub.get("/")[1])
    equal(page.words["vip"], "VIP master", "role")
    equal(hub.metric('mctunnel_vip_state{state="master"}'), 1, "role")
    for what, keys in (("agents", ("tunnel", "links", "sessions")), ("tunnels", ("agents", "sessions"))):
        rows = json.loads(ask(path, "show %s json" % what))
        equal(len(rows), len(page.tables[what]), what)
        for row, shown in zip(rows, page.tables[what]):
            equal([str(row[k]) for k in keys], [shown[k] for k in keys], what)
    for command in ("disable tunnel site-a", "disable service site-a/echo", "drain agent edge-1"):
        ask(path, command)
    tables = Page(hub.get("/")[1]).tables
    equal([tables[t][0]["state"] for t in ("tunnels", "services", "agents")], ["disabled", "disabled", "draining"], "what an operator said")
    for s in held:
        s.close()


def picture(path):
    """Width and height of a PNG."""
    with open(path, "rb") as f:
        head = f.read(24)
    equal(head[:8], b"\x89PNG\r\n\x1a\n", "a PNG")
    return struct.unpack(">II", head[16:24])


def test_pictures(run):
    """Set PICTURES to a folder to keep them."""
    browser.program()
    p, _held = busy_pair(run)
    folder = os.environ.get("PICTURES") or run.dir
    for name, options in (("desktop", {}), ("dark", {"dark": True}), ("phone", {"width": 500, "height": 1600})):
        path = os.path.join(folder, name + ".png")
        browser.screenshot(run, url(p.hub), path, **options)
        equal(picture(path)[0], options.get("width", 1280), "width")
        check(os.path.getsize(path) > 20000, "an empty picture")


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
