#!/usr/bin/env python3
"""doc/faults.md against the tree: all numbers are there, every test that it names exists, and what has no test says why."""
import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
from harness import check, equal

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir)
ROWS = 62


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def rows(text):
    return [(int(number), rest) for number, rest in re.findall(r"^(\d+)\. (.*)$", text, re.M)]


def missing(name):
    """Why the test is none; None: it is there."""
    path, _, function = name.partition(":")
    if not os.path.isfile(os.path.join(ROOT, path)):
        return "%s: no such file" % path
    pattern = r"^def test_%s\(" if path.endswith(".py") else r"^static void %s\("
    if function and not re.search(pattern % re.escape(function), read(path), re.M):
        return "%s: no such function" % name
    return None


def faults_of(text):
    found = []
    if [n for n, _ in rows(text)] != list(range(1, ROWS + 1)):
        found.append("numbers are not 1 to %d" % ROWS)
    for number, row in rows(text):
        names = re.findall(r"`(reg-tests/[^`]*)`", row)
        if not names and "ot driven" not in row:
            found.append("%d: neither a test nor a reason" % number)
        found += ["%d: %s" % (number, m) for m in map(missing, names) if m]
    return found


def test_the_table_is_true(run):
    equal(faults_of(read("doc/faults.md")), [], "faults of doc/faults.md")


def test_faults_of_the_table_are_found(run):
    text = read("doc/faults.md")
    check(faults_of(text.replace("\n7. ", "\n8. ")), "a number is missing")
    check(faults_of(text.replace("test_clients.py:silence", "test_clients.py:noise")), "a function that is not there")
    check(faults_of(text.replace("fuzz/conf.c", "fuzz/none.c")), "a file that is not there")
    check(faults_of(re.sub(r"^35\. .*$", "35. Nothing.", text, flags=re.M)), "a row without a test")


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
