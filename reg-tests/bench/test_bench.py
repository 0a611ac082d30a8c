#!/usr/bin/env python3
"""scripts/bench still works: one tiny measurement of each kind beside a direct connection (figures are not judged), and what is published
row by row comes together, the same from the same figures."""
import os
import subprocess
import sys
import tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir)
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(TOP, "scripts", "bench.d"))
import tables
from stage import which

WORDS = ("down 1: GB/s", "| mctunnel | ", "echo p50", "100 Mbit/s: p99 ms", "mctunnel, one link", "download beside it / before", "hub B/session", "hub KiB/link",
         "hub CPU µs/heartbeat", "resumed handshake: hub CPU ms", "20 ms: MB/s", "reloads", "wait p99 ms")
WEB_WORDS = ("### HTTP, keep-alive", "### HTTP, a connection for each request", "| mctunnel, mode http | ", "| mctunnel, one thread | ")


def check(condition, *what):
    if not condition:
        raise SystemExit(" ".join(map(str, what)))


def smoke():
    if not os.path.exists(os.path.join(TOP, "mctunnel")):
        subprocess.run(["make", "-s", "-C", TOP, "all"], check=True)
    got = subprocess.run([os.path.join(TOP, "scripts", "bench"), "--smoke"], capture_output=True, text=True, timeout=250)
    print(got.stdout, got.stderr)
    web = which("wrk") and which("nginx")
    if not web:
        print("without wrk and nginx: HTTP was not measured")
    for words in WORDS + (WEB_WORDS if web else ()):
        check(words in got.stdout, "not in the tables:", words)
    check(got.returncode == 0, "scripts/bench ended with", got.returncode)


def own_network():
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as f:
        before = f.read()
    got = subprocess.run([os.path.join(TOP, "scripts", "bench"), "--smoke", "--congestion", "reno", "bulk"], capture_output=True, text=True, timeout=100)
    check("### Bulk, reno for all" in got.stdout and "| mctunnel | " in got.stdout and got.returncode == 0, "in a network of its own:", got.stdout, got.stderr)
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as f:
        check(f.read() == before, "the machine's setting was touched")


def table(key, ours, others):
    t = tables.Table(key, "Title of " + key, "Text.")
    for name, values in [("ssh -R, aes256-gcm", others), ("mctunnel", ours)]:
        for v in values:
            t.add(name, "p99 ms", v)
    t.about = {"date": "2026-01-02", "command": "--runs 3 " + key, "runs": 3, "versions": ["mctunnel 1"], "commands": ["load ping PORT"], "files": {"a.cfg": "x = 1;\n"}}
    return t


def page():
    with open(tables.PAGE) as f:
        return f.read()


def publishing(folder):
    tables.FOLDER = os.path.join(folder, "benchmarks")
    tables.PAGE, tables.DATA = os.path.join(folder, "page.md"), os.path.join(tables.FOLDER, "figures.json")
    with open(tables.PAGE, "w") as f:
        f.write("before\n" + tables.BEGIN + "old\n" + tables.END + "after\n")
    order = ["web", "busy"]
    tables.publish([table("busy", [1, 2, 4], [8, 8, 8])], order)
    tables.publish([table("web", [10, 20, 30], [40, 40, 40])], order)
    text = page()
    check(text.startswith("before\n") and text.endswith("after\n") and "old" not in text, "what is around the figures was touched:", text)
    check(-1 < text.find("Title of web") < text.find("Title of busy"), "rows are missing or out of order:", text)
    check("2 ±75%" in text and "0.25 × ssh -R" in text, "wrong figures:", text)
    check("p99 ms, no stalls of 40 ms | 20 | at most 39 | met" in text, "no goals:", text)
    empty = tables.Table("web", "Title of web", "")
    empty.failed("mctunnel", "broken")
    tables.publish([empty], order)
    check(page() == text, "a row that failed took what was there")
    os.remove(os.path.join(tables.FOLDER, "web-p99-ms.svg")) if os.path.exists(os.path.join(tables.FOLDER, "web-p99-ms.svg")) else None
    tables.publish([], order)
    check(page() == text, "the same figures gave another page")
    tables.publish([table("web", [5, 5, 5], [40, 40, 40])], order)
    check("0.125 × ssh -R" in page() and "0.5 × ssh -R" not in page() and "Title of busy" in page(), "a new row did not replace the old one:", page())
    one_link = table("busy", [4, 4, 4], [8, 8, 8])
    one_link.values = {name.replace("mctunnel", tables.ONE_LINK): v for name, v in one_link.values.items()}
    tables.publish([one_link], order)
    check("mctunnel, one link to the best tunnel" in page(), "a row of one link only was not published:", page())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mctunnel-test-") as folder:
        publishing(folder)
    smoke()
    if os.geteuid() == 0:
        own_network()
