"""Cases of the lab as tests: each once, with what must hold whatever the machine is worth; the figures are printed, and judged by whoever
runs scripts/lab bench on a quiet machine."""
import os
import shutil
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import lab as lab_module
import proc
import scene
from harness import check, say


def new_lab(run):
    if os.geteuid() != 0:
        raise harness.Skipped("namespaces need root")
    if not shutil.which("keepalived"):
        raise harness.Skipped("keepalived is not installed")
    lab = lab_module.Lab(run.path("lab"), scene.release_binary(), run.threads, proc.TIE)
    run.undo.callback(lab.down)
    return lab


def prove(run, *cases):
    lab = new_lab(run)
    run.logs += [lab.path(n) for n in ("hub1.log", "hub2.log", "keepalived-hub1.out", "keepalived-hub2.out", "agent1.log")]
    lab.up()
    for case in cases:
        say(case(lab).line())
    for hub in lab_module.HUBS:
        with open(lab.path(hub + ".out"), errors="replace") as f:
            text = f.read()
        check(not any(word in text for word in ("BUG", "backtrace", "Sanitizer")), hub, "says:\n", text[-4000:])
    folder, spaces = lab.folder, [lab.ns(h) for h in (*lab_module.HOSTS, "bridge", "outside")]
    lab.down()
    check(not os.path.exists(folder), "the lab's folder is left behind")
    check(not [s for s in spaces if os.path.exists("/run/netns/" + s)], "a namespace is left behind")
