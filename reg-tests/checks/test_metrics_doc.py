#!/usr/bin/env python3
"""doc/metrics.md is what the sources' tables say, and knows every metric of the running program, of the alert rules and of the dashboard."""
import glob
import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal


def read(path):
    with open(os.path.join(harness.TOP, path)) as f:
        return f.read()


def documented():
    return dict(re.findall(r"^\| `((?:mctunnel|process)_\w+)` \| (\w+)", read("doc/metrics.md"), re.M))


def test_generated(run):
    p = subprocess.run([os.path.join(harness.TOP, "scripts", "metrics-doc")], capture_output=True, text=True)
    equal(p.stdout, read("doc/metrics.md"), "run scripts/metrics-doc > doc/metrics.md")


def test_known(run):
    known = documented()
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).address})
    tcp.ask(p.listen["echo"])
    for program in (p.hub, p.agent):
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)", program.get("/metrics")[1], re.M):
            equal((name, known.get(name)), (name, kind), "metric of doc/metrics.md")


def test_used(_):
    """Alerts and dashboard name only metrics that exist, their tests too."""
    known = documented()
    tests = glob.glob(harness.TOP + "/reg-tests/prometheus/*.yml")
    for path in ["etc/prometheus/mctunnel.rules.yml", "etc/grafana/mctunnel.json", *tests]:
        names = set(re.findall(r"\b(?:mctunnel|process)_\w+", read(path)))
        check(names, "no metric in", path)
        unknown = sorted(n for n in names if n not in known and re.sub("_(bucket|sum|count)$", "", n) not in known)
        equal(unknown, [], "metrics of %s that do not exist" % path)


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
