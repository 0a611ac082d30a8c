"""Headless Chromium: what a page looks like, and what it says once its script has run."""
import os
import re
import shutil
import subprocess

import harness


def program():
    found = shutil.which("chromium")
    if not found:
        raise harness.Skipped("there is no chromium")
    return found


def _run(run, *options):
    args = [program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--user-data-dir=" + run.path("browser"), *options]
    p = subprocess.run(args, capture_output=True, text=True, timeout=150, env=dict(os.environ, HOME=run.dir, XDG_CACHE_HOME=run.dir))
    harness.equal(p.returncode, 0, "chromium: " + p.stderr[-2000:])
    return p


def dom(run, url, seconds=2):
    """(the document after so many seconds of its own time, what it complained about)"""
    p = _run(run, "--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=%d" % (seconds * 1000), "--dump-dom", url)
    return p.stdout, re.findall(r"CONSOLE.*", p.stderr)


def screenshot(run, url, path, width=1280, height=1400, dark=False):
    more = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    _run(run, *more, "--virtual-time-budget=2500", "--window-size=%d,%d" % (width, height), "--screenshot=" + path, url)
