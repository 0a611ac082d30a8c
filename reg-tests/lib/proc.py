"""Processes of a test: started in groups of their own, and gone when it ends, however it ends."""
import contextlib
import ctypes
import os
import signal
import subprocess
import time

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # found here: a child that was forked beside threads should not look for anything
PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


TIE = {"preexec_fn": _die_with_parent}  # for subprocess.Popen


def start(run, args, **options):
    """A Popen. Only from the main thread: the kernel ends the process with the thread that started it."""
    p = subprocess.Popen(args, start_new_session=True, preexec_fn=_die_with_parent, **options)
    run.undo.callback(end_group, p)
    return p


def end_group(p):
    """Kills what is left of a process's session."""
    for pid in members(p.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        p.wait(10)
    for stream in (p.stdin, p.stdout, p.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


def stat(pid):
    """The fields of /proc/PID/stat after the name (state first), or None."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None


def _all():
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat(int(name))
            if fields:
                yield int(name), fields


def name(pid):
    """As the kernel has it; None when it is gone."""
    try:
        with open("/proc/%d/comm" % pid) as f:
            return f.read().rstrip("\n")
    except OSError:
        return None


def members(session):
    """Living processes of a session."""
    return [pid for pid, f in _all() if int(f[3]) == session and f[0] not in "ZX"]


def children(parent):
    return [pid for pid, f in _all() if int(f[1]) == parent and f[0] not in "ZX"]


def alive(pid):
    fields = stat(pid)
    return fields is not None and fields[0] not in "ZX"


def resident(pid):
    """Bytes of memory that are the process's own (anonymous), and all resident ones."""
    values = {}
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            key, _, rest = line.partition(":")
            values[key] = rest.split()
    return int(values["RssAnon"][0]) * 1024, int(values["VmRSS"][0]) * 1024


def cpu_seconds(pid):
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of(pid, seconds=1.0):
    """Part of a CPU that it uses in the seconds to come."""
    was = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - was) / seconds


def wait_gone(pid, timeout):
    deadline = time.monotonic() + timeout
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not alive(pid)
