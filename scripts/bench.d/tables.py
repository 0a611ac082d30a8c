"""What is done with figures: tables, ratios, goals, plots and the published page."""
import datetime
import itertools
import json
import os
import platform
import re
import statistics
import subprocess

from stage import PATH, TOP, which

BOUNDS = ("haproxy tcp, splice", "nginx stream")
OURS, ONE_LINK = "mctunnel", "mctunnel, one link"
MORE_IS_BETTER = re.compile(r"(GB/s|MB/s|requests/s|connections/s|handshakes/s|before)$")
NO_RATIO = re.compile(r"(failed|refused|lost|opened at once)$")
PAGE, FOLDER = os.path.join(TOP, "doc/benchmarks.md"), os.path.join(TOP, "doc/benchmarks")
DATA = os.path.join(FOLDER, "figures.json")
BEGIN, END = "<!-- figures: written by scripts/bench --publish -->\n", "<!-- end of figures -->\n"


def show(v):
    if v == 0:
        return "0"
    if abs(v) >= 1000:
        return "{:,.0f}".format(v)
    if abs(v) >= 100:
        return "%.0f" % v
    return "%.3g" % v


class Table:
    """Figures by system and column, several of each. parts: those of hub and agent, which a figure is the sum of.
    peers: systems that mctunnel is compared with; not said: every other but the bounds and direct."""

    def __init__(self, key, title, text, grouped=False, compared=True):
        self.key, self.title, self.text, self.grouped, self.compared = key, title, text, grouped, compared
        self.values, self.parts, self.columns, self.trouble = {}, {}, [], {}
        self.about = {}

    @classmethod
    def load(cls, key, d):
        t = cls(key, d["title"], d["text"], d["grouped"], d["compared"])
        t.values, t.parts, t.columns, t.trouble, t.about = d["values"], d["parts"], d["columns"], d["trouble"], d["about"]
        return t

    def save(self):
        return {k: v for k, v in vars(self).items() if k != "key"}

    def add(self, system, column, value, parts=None):
        if column not in self.columns:
            self.columns.append(column)
        self.values.setdefault(system, {}).setdefault(column, []).append(round(value, 6))
        if parts:
            self.parts.setdefault(system, {}).setdefault(column, []).append([round(p, 6) for p in parts])

    def set_apart(self, congestion):
        """As a table of its own, beside that of the same row."""
        self.key += "-" + congestion
        self.title += ", %s for all" % congestion

    def failed(self, system, why):
        self.trouble[system] = why

    def median(self, system, column):
        v = self.values.get(system, {}).get(column)
        return statistics.median(v) if v else None

    def ours(self):
        """Which of its systems is the one that others are compared with; None: mctunnel has no figures."""
        return next((s for s in (OURS, ONE_LINK) if s in self.values), None)

    def cell(self, system, column):
        v = self.values.get(system, {}).get(column)
        if not v:
            return ""
        m = statistics.median(v)
        text = show(m)
        if len(v) > 2 and m:
            text += " ±%d%%" % round(50 * (max(v) - min(v)) / abs(m))
        parts = self.parts.get(system, {}).get(column)
        if parts:
            text += " (%s)" % " + ".join(show(statistics.median(p)) for p in zip(*parts))
        return text

    def ratio(self, system, column, others):
        """To the best of the others, and who that is."""
        mine = self.median(system, column)
        found = [(self.median(o, column), o) for o in others if self.median(o, column)]
        if mine is None or not found or NO_RATIO.search(column):
            return ""
        best, name = (max if MORE_IS_BETTER.search(column) else min)(found)
        return "%s × %s" % (show(mine / best), name.split(",")[0])

    def rows(self, columns):
        yield ["", *columns]
        for system in self.values:
            yield [system, *(self.cell(system, c) for c in columns)]
        ours = self.ours()
        if not self.compared or not ours:
            return
        peers = [s for s in self.values if s not in BOUNDS and s != "direct" and not s.startswith(OURS)]
        for what, others in (("%s to the best tunnel" % ours, peers), ("%s to the bound" % ours, BOUNDS)):
            cells = [self.ratio(ours, c, others) for c in columns]
            if any(cells):
                yield ["*%s*" % what, *cells]

    def groups(self):
        """Wide tables in several, by what is behind the colon."""
        if not self.grouped:
            return [self.columns]
        found = {}
        for c in self.columns:
            found.setdefault(c.rsplit(": ", 1)[-1], []).append(c)
        return list(found.values())

    def markdown(self):
        lines = ["### " + self.title, "", self.text, ""]
        for columns in self.groups():
            head, *rows = self.rows(columns)
            lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
            lines += ["| " + " | ".join(r) + " |" for r in rows if any(r[1:])] + [""]
        lines += ["%s: %s" % (t[0], re.sub(r"\S*mctunnel-bench\S*/", "", t[1])) for t in self.trouble.items()]
        return "\n".join(lines).rstrip() + "\n"


# ---- goals ----

SSH, RHTTP, HAPROXY = "ssh -R, aes256-gcm", "haproxy reverse HTTP", "haproxy tcp, splice"
WAYS = ("loopback", "100 Mbit/s")


def bulk_goals(key, words):
    for n, way in itertools.product((1, 8), ("down", "up")):
        yield "%s, %d %s: CPU, of ssh -R" % (words, n, way), key, "%s %d: CPU s/GB" % (way, n), OURS, SSH, 0.9, True
        if way == "down":
            yield "%s, %d down: CPU, of reverse HTTP" % (words, n), key, "down %d: CPU s/GB" % n, OURS, RHTTP, 0.6, True
    for n, way in itertools.product((1, 8), ("down", "up")):
        yield "%s, %d %s: throughput, of ssh -R" % (words, n, way), key, "%s %d: GB/s" % (way, n), OURS, SSH, 1.1, False
        if way == "down":
            yield "%s, %d down: throughput, of reverse HTTP" % (words, n), key, "down %d: GB/s" % n, OURS, RHTTP, 1.5, False


GOALS = [ # what, table, column, ours, theirs (None: a bound of its own), goal, smaller is better
    *bulk_goals("bulk", "bulk"),
    *bulk_goals("bulk-cubic", "bulk, cubic for all"),
    ("keep-alive: CPU µs a request", "web", "CPU µs/request", OURS, None, 20, True),
    ("keep-alive: CPU, of reverse HTTP", "web", "CPU µs/request", OURS, RHTTP, 0.27, True),
    ("keep-alive: requests/s, of reverse HTTP", "web", "requests/s", OURS, RHTTP, 2, False),
    ("keep-alive: p99, of reverse HTTP", "web", "p99 ms", OURS, RHTTP, 0.5, True),
    ("keep-alive: p99 ms, no stalls of 40 ms", "web", "p99 ms", OURS, None, 39, True),
    ("keep-alive, mode http: CPU µs a request", "web", "CPU µs/request", OURS + ", mode http", None, 37, True),
    ("keep-alive, mode http: CPU, of reverse HTTP", "web", "CPU µs/request", OURS + ", mode http", RHTTP, 0.5, True),
    ("one connection at a time: p50, of direct", "latency", "HTTP p50 µs", OURS, "direct", 3, True),
    ("new connections: CPU µs each", "connect", "CPU µs/connection", OURS, None, 95, True),
    ("new connections: connections/s, of plain haproxy tcp", "connect", "connections/s", OURS, HAPROXY, 0.8, False),
    ("idle session: memory, hub, bytes", "memory", "hub B/session", OURS, None, 2048, True),
    ("idle session: memory, agent, bytes", "memory", "agent B/session", OURS, None, 2048, True),
    ("10,000 sessions at once: failed", "memory", "at once: failed", OURS, None, 0, True),
    ("idle agent link: memory on the hub, KiB", "agents", "hub KiB/link", OURS, None, 32, True),
    ("heartbeat: CPU µs on the hub", "agents", "hub CPU µs/heartbeat", OURS, None, 15, True),
    ("agent's handshake, full: CPU ms on the hub", "agents", "full handshake: hub CPU ms", OURS, None, 0.8, True),
    ("agent's handshake, resumed: CPU ms on the hub", "agents", "resumed handshake: hub CPU ms", OURS, None, 0.3, True),
    ("worker killed under load: clients refused", "crash", "refused", OURS, None, 0, True),
    ("worker killed under load: wait of those who come then, p99 ms", "crash", "wait p99 ms", OURS, None, 100, True),
    ("reload under load: failed", "reload", "failed", OURS, None, 0, True),
    *(("one reader stopped, %s: throughput of others, of undisturbed" % w, "stalled", w + ": download beside it / before", ONE_LINK, None, 0.95, False) for w in WAYS),
    *(("one reader stopped, %s: echo p99 of others, of undisturbed" % w, "stalled", w + ": echo p99 beside it / before", ONE_LINK, None, 2, True) for w in WAYS),
    *(("keystroke beside bulk, %s: p99, of %s" % (w, peer), "busy", w + ": p99 ms", ONE_LINK, peer, 0.333, True) for w in reversed(WAYS) for peer in (SSH, RHTTP)),
]


def goals(tables):
    by_key = {t.key: t for t in tables}
    lines, absent = ["### Goals", "", "| work | here | goal | |", "|---|---|---|---|"], {}
    for what, key, column, ours, theirs, goal, small in GOALS:
        t = by_key.get(key)
        mine = t and t.median(ours, column)
        base = t and t.median(theirs, column) if theirs else 1
        if mine is None:
            continue
        if not base:
            absent.setdefault(theirs, []).append(what)
            continue
        got = mine / base
        lines.append("| %s | %s | %s %s | %s |" % (what, show(got), "at most" if small else "at least", show(goal), "met" if (got <= goal if small else got >= goal) else "missed"))
    if len(lines) == 4 and not absent:
        return ""
    for peer, which_ones in absent.items():
        lines += ["", "Not compared, for want of %s: %d more." % (peer, len(which_ones))]
    return "\n".join(lines) + "\n"


# ---- plots ----

PLOTS = {"bulk": ["down 1: CPU s/GB", "down 8: CPU s/GB", "down 8: GB/s", "up 8: GB/s"], "bulk-cubic": ["down 1: CPU s/GB", "down 8: CPU s/GB"],
         "web": ["CPU µs/request", "requests/s"], "close": ["CPU µs/request", "requests/s"],
         "connect": ["CPU µs/connection", "connections/s"], "latency": ["HTTP p50 µs"], "busy": ["100 Mbit/s: p99 ms", "loopback: p99 ms"],
         "stalled": ["loopback: download beside it / before", "100 Mbit/s: download beside it / before"], "memory": ["hub B/session"], "road": ["20 ms: MB/s", "100 ms: MB/s"],
         "storm": ["50 % back, s", "100 % back, s"]}


def plot_name(table, column):
    return "%s-%s.svg" % (table.key, re.sub(r"[^a-z0-9]+", "-", column.lower()).strip("-"))


def bars(table, column):
    """A plot: one bar a system, with what lies between its best and its worst."""
    found = [(s, table.values[s][column], table.median(s, column)) for s in table.values if table.median(s, column) is not None]
    top = max(max(v) for _, v, _ in found) or 1
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="760" height="%d" font-family="sans-serif" font-size="13">' % (40 + 26 * len(found)),
           '<rect width="100%%" height="100%%" fill="white"/><text x="10" y="20" font-weight="bold">%s: %s</text>' % (table.title, column)]
    for i, (name, values, v) in enumerate(found):
        y, scale = 34 + 26 * i, 380 / top
        out.append('<text x="10" y="%d">%s</text><rect x="230" y="%d" width="%.1f" height="18" fill="%s"/>' %
                   (y + 14, name, y, scale * v, "#2a6fb0" if name.startswith(OURS) else "#b8c4ce"))
        out.append('<path d="M%.1f %dH%.1f" stroke="#333"/><text x="%.1f" y="%d">%s</text>' %
                   (230 + scale * min(values), y + 9, 230 + scale * max(values), 236 + scale * max(values), y + 14, show(v)))
    return "\n".join(out) + "\n</svg>\n"


# ---- the page ----

def versions():
    def first(*args):
        got = subprocess.run(args, capture_output=True, text=True, env=dict(os.environ, PATH=PATH))
        text = (got.stdout + got.stderr).strip()
        build = re.search(r"^Build Version:\s*(\S+)", text, re.M)
        return " ".join([(text.splitlines() or ["?"])[0].strip(), *(build.groups() if build else ())])
    found = [first(os.path.join(TOP, "mctunnel"), "-v")]
    for name, flag in (("haproxy", "-v"), ("nginx", "-v"), ("ssh", "-V"), ("wrk", "-v"), ("frps", "-v"), ("rathole", "--version"), ("chisel", "--version"), ("openssl", "version")):
        if which(name):
            found.append(("" if name not in ("frps", "chisel") else name + " ") + first(which(name), flag))
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read())
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as f:
        congestion = f.read().strip()
    return found + ["%d x %s, Linux %s, TCP with %s" % (os.cpu_count(), cpu[1] if cpu else "CPU", platform.release(), congestion)]


def published(order):
    """What was published before: tables, in order."""
    if not os.path.exists(DATA):
        return []
    with open(DATA) as f:
        old = json.load(f)
    return [Table.load(key, old[key]) for key in order if key in old]


def details(title, lines):
    return ["<details><summary>%s</summary>" % title, "", "```", *lines, "```", "</details>", ""]


def render(tables):
    """The text between the marks. Depends on the tables only."""
    hosts = list(dict.fromkeys(v for t in tables for v in t.about["versions"]))
    text = ["Each figure is the median of interleaved runs, ± half of what lies between the best and the worst; in brackets hub + agent. "
            "The last rows of a table compare with the best other tunnel, and with the bound, of the same runs.", "", *("- " + v for v in hosts), ""]
    text.append(goals(tables))
    for t in tables:
        text.append(t.markdown())
        text.append("%s: `scripts/bench %s`, %d run%s.\n" % (t.about["date"], t.about["command"], t.about["runs"], "s" if t.about["runs"] != 1 else ""))
        text += ["![%s](benchmarks/%s)\n" % (c, plot_name(t, c)) for c in PLOTS.get(t.key, ()) if c in t.columns]
        text += details("commands", t.about["commands"])
    files = {}
    for t in tables:
        files.update(t.about["files"])
    text += ["### Configurations", ""]
    for name in sorted(files):
        text += details(name, [line.rstrip() for line in files[name].rstrip().splitlines()])
    return "\n".join(text).rstrip() + "\n"


def write(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


def publish(tables, order):
    """Takes these in, in place of those of the same name, and writes page and plots anew."""
    os.makedirs(FOLDER, exist_ok=True)
    all_tables = {t.key: t for t in published(order)}
    all_tables.update({t.key: t for t in tables if t.ours() or t.key == "storm" and t.values})
    ordered = [all_tables[key] for key in order if key in all_tables]
    write(DATA, json.dumps({t.key: t.save() for t in ordered}, indent=1, ensure_ascii=False) + "\n")
    plots = {plot_name(t, c): bars(t, c) for t in ordered for c in PLOTS.get(t.key, ()) if c in t.columns}
    for name in os.listdir(FOLDER):
        if name.endswith(".svg") and name not in plots:
            os.remove(os.path.join(FOLDER, name))
    for name, text in plots.items():
        write(os.path.join(FOLDER, name), text)
    with open(PAGE) as f:
        old = f.read()
    write(PAGE, old.split(BEGIN)[0] + BEGIN + render(ordered) + END + old.split(END)[1])


def about(words, runs, record):
    return {"date": datetime.date.today().isoformat(), "command": " ".join(words), "runs": runs, "versions": versions(),
            "commands": list(record.commands), "files": dict(record.files)}
