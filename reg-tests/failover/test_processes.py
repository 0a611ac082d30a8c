#!/usr/bin/env python3
"""A pair of hubs with the real keepalived: processes die, hang, or are stopped in good order."""
import os
import subprocess

import cases
import proving  # finds the library as well
import harness
import lab as lab_module
from harness import check, equal


def test_deaths(run):
    proving.prove(run, cases.worker_crash, cases.master_crash, cases.keepalived_crash)


def test_hang(run):
    proving.prove(run, cases.hang)


def test_good_order(run):
    proving.prove(run, cases.switch, cases.soft_stop, cases.restart)


def test_examples(run):
    """keepalived itself accepts the shipped configurations, without a word."""
    lab = proving.new_lab(run)
    lab.prepare()
    for hub in lab_module.HUBS:
        path = lab.path(hub + ".conf")
        lab.write(hub + ".conf", lab.keepalived_config(hub))
        os.makedirs(lab.path(hub + ".run"))
        lab.write(hub + ".run/health", "0\n")
        done = subprocess.run([*lab.inside(hub), "keepalived", "-t", "-f", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        equal((done.returncode, done.stdout), (0, ""), "keepalived -t of " + hub)
    lab.write("bad.conf", "nonsense here\n")
    done = subprocess.run(["keepalived", "-t", "-f", lab.path("bad.conf")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(done.returncode != 0, "keepalived -t finds no fault in nonsense")


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
