#!/usr/bin/env python3
"""doc/security.md: every claim names its test, and every test named there exists."""
import os
import re
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
from harness import check

NAMED = re.compile(r"`(reg-tests/[\w/.]+?)(?::(test_\w+))?`")


def text():
    with open(os.path.join(harness.TOP, "doc", "security.md")) as f:
        return f.read()


def test_named_tests_exist(_):
    named = NAMED.findall(text())
    check(len(named) > 30, "only", len(named), "tests are named")
    for path, function in named:
        full = os.path.join(harness.TOP, path)
        check(os.path.exists(full), "doc/security.md names", path, "which is not there")
        if function:
            with open(full) as f:
                check("%s(" % function in f.read(), path, "has no", function)


def test_each_claim_names_one(_):
    """A claim is an item of a list, or a row of a table, up to the section about what is not protected."""
    claims = re.split(r"\n(?=- |\| [^-])", text().split("\n## What is not protected")[0])[1:]
    for claim in (c.split("\n\n")[0] for c in claims):
        check(NAMED.search(claim) or "| Bound |" in claim, "a claim without a test:\n", claim)


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
