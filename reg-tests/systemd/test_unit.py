#!/usr/bin/env python3
"""The unit for systemd: accepted by systemd-analyze, hardened, and installed where it belongs."""
import os
import re
import shutil
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
from harness import check, equal, say

UNIT = os.path.join(harness.TOP, "etc", "systemd", "mctunnel.service")
EXPOSURE = 2.0  # at most


def run(*words):
    if not shutil.which(words[0]):
        raise harness.Skipped(words[0] + " is not installed")
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def settings():
    """{key: [values]}"""
    found = {}
    with open(UNIT) as f:
        for key, value in re.findall(r"^(\w+)=(.*)$", f.read(), re.M):
            found.setdefault(key, []).append(value)
    return found


def test_exposure(_):
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=%d" % (EXPOSURE * 10), UNIT)
    say(said.stdout.strip().splitlines()[-1])
    equal(said.returncode, 0, "exit code of systemd-analyze security")


def test_verify(r):
    """Every key is known, every value is good; the programs it starts need not be installed."""
    path = r.path("mctunnel.service")
    with open(UNIT) as f, open(path, "w") as out:
        out.write(f.read().replace("/usr/sbin/mctunnel", "/bin/true"))
    said = run("systemd-analyze", "verify", "--man=no", path)
    about_us = [line for line in said.stdout.splitlines() if "mctunnel" in line]
    equal((said.returncode, about_us), (0, []), "what systemd-analyze verify says")


def test_pair(r):
    """The drop-in for a pair is accepted, and the whole is hardened still."""
    path = r.path("mctunnel.service")
    with open(UNIT) as f, open(os.path.join(os.path.dirname(UNIT), "mctunnel-pair.conf")) as more, open(path, "w") as out:
        out.write(f.read().replace("/usr/sbin/mctunnel", "/bin/true") + more.read())  # as systemd reads it: one after the other
    said = run("systemd-analyze", "verify", "--man=no", path)
    equal((said.returncode, [line for line in said.stdout.splitlines() if "mctunnel" in line]), (0, []), "what systemd-analyze verify says")
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=%d" % (EXPOSURE * 10), path)
    say(said.stdout.strip().splitlines()[-1])
    equal(said.returncode, 0, "exit code of systemd-analyze security")


def test_what_the_program_relies_on(_):
    unit = settings()
    for key, value in {"Type": "notify", "NotifyAccess": "main", "Restart": "always", "KillMode": "mixed",
                       "RuntimeDirectory": "mctunnel", "RuntimeDirectoryPreserve": "restart",
                       "AmbientCapabilities": "CAP_NET_BIND_SERVICE"}.items():
        equal(unit.get(key), [value], key)
    check(int(unit["FileDescriptorStoreMax"][0]) > 0, "nothing would be stored")
    check("MemoryDenyWriteExecute" not in unit, "no room for PCRE2's JIT")
    check(any(v.startswith("/bin/kill -HUP") for v in unit["ExecReload"]), "systemctl reload does not reload")


def test_install(r):
    """make install puts it in place, with the paths of this installation."""
    top = r.path("installed")
    done = run("make", "-s", "-C", harness.TOP, "install", "DESTDIR=" + top, "PREFIX=/opt/m", "SYSCONFDIR=/opt/m/etc")
    equal(done.returncode, 0, done.stdout)
    with open(top + "/opt/m/lib/systemd/system/mctunnel.service") as f:
        text = f.read()
    check("ExecStart=/opt/m/sbin/mctunnel -f /opt/m/etc/mctunnel/mctunnel.cfg\n" in text, "the paths are wrong")
    for path in ("sysusers.d", "tmpfiles.d"):
        check(os.path.exists("%s/opt/m/lib/%s/mctunnel.conf" % (top, path)), path)
    done = run("make", "-s", "-C", harness.TOP, "uninstall", "DESTDIR=" + top, "PREFIX=/opt/m", "SYSCONFDIR=/opt/m/etc")
    equal(done.returncode, 0, done.stdout)
    left = [os.path.join(d, f) for d, _, files in os.walk(top) for f in files]
    equal(left, [top + "/opt/m/etc/mctunnel/mctunnel.cfg"], "what is left")


def test_snippets(r):
    """systemd-sysusers and systemd-tmpfiles take them."""
    root = r.path("root")
    os.makedirs(root + "/etc")
    folder = os.path.dirname(UNIT)
    done = run("systemd-sysusers", "--root=" + root, os.path.join(folder, "sysusers.conf"))
    equal(done.returncode, 0, done.stdout)
    done = run("systemd-tmpfiles", "--root=" + root, "--create", os.path.join(folder, "tmpfiles.conf"))
    equal(done.returncode, 0, done.stdout)
    check(os.path.isdir(root + "/var/lib/mctunnel/empty"), "no folder for global.chroot")


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
