#!/usr/bin/env python3
"""What a worker that is taken over may do: nothing that root may. Read from /proc, of hub and agent."""
import contextlib
import os
import pwd
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import tcp
from harness import check, equal

USER = "nobody"


def status(pid):
    with open("/proc/%d/status" % pid) as f:
        return {k: v.split() for k, _, v in (line.partition(":") for line in f)}


def descriptors(pid):
    """What they lead to. One may be closed while we look."""
    found = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    return found


def test_worker_without_rights(run):
    if os.getuid() != 0:
        raise harness.Skipped("only root can give rights up")
    user = pwd.getpwnam(USER)
    os.chmod(run.dir, 0o755)
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target}, settings={"user": USER})
    tcp.ask(p.listen["echo"])
    for program in (p.hub, p.agent):
        s = status(program.worker())
        equal(set(s["Uid"]), {str(user.pw_uid)}, program.name + ": user, also the saved one")
        equal(set(s["Gid"]), {str(user.pw_gid)}, program.name + ": group")
        check(set(s["Groups"]) <= {str(user.pw_gid)}, program.name, "is in other groups:", s["Groups"])
        for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            equal(int(s[kind][0], 16), 0, program.name + ": " + kind)
        equal(s["NoNewPrivs"], ["1"], program.name + ": no_new_privs")


def test_worker_has_no_child_and_no_terminal(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).target})
    fds = descriptors(p.hub.worker())
    check(len(fds) > 5, "only", fds)
    check(not any(f.endswith((".key", ".pem", ".crt")) for f in fds), "files of keys are open:", fds)
    check(not any(f.startswith("/dev/pts") for f in fds), "a terminal is open:", fds)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
