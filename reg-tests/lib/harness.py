"""Runs the scenarios of one test file: each with 1 and with N threads, in a folder of its own, with
everything cleaned up whatever happens. Knows nothing of tunnels (see scene.py).

A scenario is a function that takes a Run and raises when something is wrong. A file ends with
harness.main(globals()), which runs every function whose name begins with test_; `-k WORD` picks some,
`-t N` one number of threads, `-v` shows the logs of good ones too."""
import argparse
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE = 30.0  # seconds until something that should happen soon counts as hung (slow machine, sanitizers)


class Failed(AssertionError):
    pass


class Skipped(Exception):
    """The machine cannot do this at all."""


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(w) for w in what) or "check failed")


def equal(got, want, what="value"):
    if got != want:
        raise Failed("%s: got %r, expected %r" % (what, got, want))


def wait_until(condition, what, timeout=PATIENCE, pause=0.01):
    """Polls until condition() gives something true, and returns that."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed("waited %.1f s in vain for %s" % (timeout, what))
        time.sleep(pause)


def stays(condition, seconds, what):
    """The condition must hold all the time, and at its end."""
    deadline, over = time.monotonic() + seconds, False
    while not over:
        over = time.monotonic() >= deadline
        if not condition():
            raise Failed("did not stay so: %s" % what)
        time.sleep(0.02)


def say(*words):
    print("   ", *words, flush=True)


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100.0))] if ordered else float("nan")


def spread(seconds):
    """A distribution of times in one line."""
    return "n=%d p50=%.1f p90=%.1f p99=%.1f max=%.1f ms" % ((len(seconds),) + tuple(
        1000 * percentile(seconds, p) for p in (50, 90, 99, 100)))


class Background(threading.Thread):
    """A thread whose exception is raised by finish()."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.result, self.error = function, args, None, None
        self.start()

    def run(self):
        try:
            self.result = self.function(*self.args)
        except BaseException as e:  # handed on by finish()
            self.error = e

    def finish(self, timeout=PATIENCE, what=None):
        self.join(timeout)
        if self.is_alive():
            raise Failed("%s still runs after %.0f s" % (what or self.function.__name__, timeout))
        if self.error:
            raise self.error
        return self.result


class Run:
    """One scenario in progress: its folder, its own loopback address, and what must be undone."""

    def __init__(self, name, threads, base):
        self.name, self.threads = name, threads
        self.dir = tempfile.mkdtemp(prefix="run-", dir=base)
        self.host = own_address()
        self.undo = contextlib.ExitStack()
        self.logs = []  # files to show when it fails

    def path(self, name):
        return os.path.join(self.dir, name)

    def port(self):
        return free_port(self.host)

    def close(self):
        self.undo.close()


def own_address():
    """A loopback address no other test uses: ports on it, below the ephemeral ones, cannot be taken meanwhile."""
    pid = os.getpid()
    return "127.%d.%d.%d" % (64 + (pid >> 16) % 128, (pid >> 8) & 255, pid & 255)


_next_port = 10000


def free_port(host):
    global _next_port
    while True:
        _next_port += 1
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, _next_port))
                return _next_port
            except OSError:
                if _next_port > 30000:
                    raise


def _on_signal(number, frame):
    raise SystemExit(128 + number)


def _show_logs(run, lines=40):
    for path in run.logs:
        with contextlib.suppress(OSError), open(path, errors="replace") as f:
            tail = f.readlines()[-lines:]
            print("---- %s (last %d lines)" % (os.path.basename(path), len(tail)))
            print("".join(line[:600] if len(line) < 600 else line[:600] + "...\n" for line in tail), end="")


def _one(name, function, threads, base, verbose):
    print("== %s, threads = %s" % (name, threads), flush=True)
    began = time.monotonic()
    run = Run(name, threads, base)
    verdict = "failed"
    try:
        try:
            function(run)
        finally:
            run.close()
        verdict = "ok"
    except Skipped as e:
        verdict = "skipped"
        say("skipped:", e)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as e:
        traceback.print_exc(file=sys.stdout)
        print("failed: %s: %s: %s" % (name, type(e).__name__, " ".join(str(e).split())))  # scripts/run-tests says it once more
    if verdict == "failed" or verbose:
        _show_logs(run)
    print("   %s after %.1f s" % (verdict, time.monotonic() - began), flush=True)
    return verdict


def main(module, threads=(1, 3)):
    args = argparse.ArgumentParser()
    args.add_argument("-k", default="", help="only scenarios with this in their name")
    args.add_argument("-t", type=int, help="only with this number of threads")
    args.add_argument("-v", action="store_true", help="show logs of good runs too")
    args = args.parse_args()
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, _on_signal)
    base = tempfile.mkdtemp(prefix="mctunnel-test-")
    os.chmod(base, 0o755)
    verdicts = []
    try:
        for n in ([args.t] if args.t else threads):
            for name, function in list(module.items()):
                if name.startswith("test_") and callable(function) and args.k in name:
                    verdicts.append(_one(name, function, n, base, args.v))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if "failed" in verdicts or not verdicts:
        sys.exit(1)
    sys.exit(77 if all(v == "skipped" for v in verdicts) else 0)
