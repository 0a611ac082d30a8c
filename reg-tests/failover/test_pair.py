#!/usr/bin/env python3
"""A pair of hubs with the real keepalived, in network namespaces: every case of the lab once. What must hold is asserted, whatever the
machine is worth; the figures are printed, and judged by whoever runs scripts/lab bench on a quiet machine."""
import os
import shutil
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import cases
import harness
import lab as lab_module
import proc
import scene
from harness import check, equal, say


def new_lab(run):
    if os.geteuid() != 0:
        raise harness.Skipped("namespaces need root")
    if not shutil.which("keepalived"):
        raise harness.Skipped("keepalived is not installed")
    lab = lab_module.Lab(run.path("lab"), scene.release_binary(), run.threads, proc.TIE)
    run.undo.callback(lab.down)
    return lab


def test_cases(run):
    lab = new_lab(run)
    run.logs += [lab.path(n) for n in ("hub1.log", "hub2.log", "keepalived-hub1.out", "keepalived-hub2.out", "agent1.log")]
    lab.up()
    for name, case in cases.CASES.items():
        say("%-16s %s" % (name, case(lab).line()))
    for hub in lab_module.HUBS:
        with open(lab.path(hub + ".out"), errors="replace") as f:
            text = f.read()
        check(not any(word in text for word in ("BUG", "backtrace", "Sanitizer")), hub, "says:\n", text[-4000:])
    folder, spaces = lab.folder, [lab.ns(h) for h in lab_module.HOSTS]
    lab.down()
    check(not os.path.exists(folder), "the lab's folder is left behind")
    check(not [s for s in spaces if os.path.exists("/run/netns/" + s)], "a namespace is left behind")


def test_examples(run):
    """keepalived itself accepts the shipped configurations, without a word."""
    lab = new_lab(run)
    lab.prepare()
    for hub in lab_module.HUBS:
        path = lab.path(hub + ".conf")
        lab.write(hub + ".conf", lab.keepalived_config(hub))
        os.makedirs(lab.path(hub + ".run"))
        lab.write(hub + ".run/health", "0\n")
        done = subprocess.run([*lab.inside(hub), "keepalived", "-t", "-f", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        equal((done.returncode, done.stdout), (0, ""), "keepalived -t of " + hub)
    lab.write("bad.conf", "nonsense here\n")
    equal(subprocess.run(["keepalived", "-t", "-f", lab.path("bad.conf")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).returncode != 0, True,
          "keepalived -t finds a fault")


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
