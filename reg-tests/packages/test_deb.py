#!/usr/bin/env python3
"""The Debian package: built in a copy of the tree, accepted by lintian, complete; its version is that of VERSION and NEWS.
Installing, upgrading and purging it needs a chroot: make deb-test."""
import glob
import os
import re
import shutil
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
from harness import check, equal, say


def read(path):
    with open(os.path.join(harness.TOP, path)) as f:
        return f.read()


def sh(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    equal(done.returncode, 0, " ".join(words) + "\n" + done.stdout + done.stderr)
    return done.stdout


def test_versions(_):
    """NEWS, VERSION and debian/changelog speak of the same versions, and agree which is released."""
    news = re.findall(r"^(\d\S*) \((.*)\)$", read("NEWS"), re.M)
    changes = re.findall(r"^mctunnel \((\S+)\) (\S+);", read("debian/changelog"), re.M)
    equal([v for v, _ in changes], [v for v, _ in news], "versions of debian/changelog")
    equal(news[0][0], read("VERSION").strip(), "first version of NEWS")
    for (version, when), (_, suite) in zip(news, changes):
        equal(suite == "UNRELEASED", "not yet released" in when, "released or not: " + version)


def test_build_dependencies(_):
    """What the build needs is said in three places."""
    builds = set(re.search(r'^PACKAGES="(.*)"', read("scripts/quickstart"), re.M).group(1).split())
    tests = set(re.search(r'^BUILD_PACKAGES="(.*)"', read("scripts/run-tests"), re.M).group(1).split())
    control = set(re.findall(r"^ ([a-z0-9.-]+),?$", read("debian/control").split("Build-Depends:")[1].split("\n\n")[0], re.M))
    essential = {"gcc", "make", "libc6-dev"}  # of build-essential
    equal(tests, builds - {"openssl", "curl"}, "BUILD_PACKAGES of scripts/run-tests")
    equal(control, tests - essential, "Build-Depends of debian/control")


def contents(package):
    """{path: (mode, owner)}"""
    found = {}
    for line in sh("dpkg-deb", "-c", package).splitlines():
        mode, owner, _, _, _, path = line.split(None, 5)
        found[path[1:].split(" -> ")[0]] = (mode, owner)
    return found


def installed(run):
    """What make install puts there, by the package's paths."""
    top = run.path("installed")
    sh("make", "-s", "-C", harness.TOP, "install", "DESTDIR=" + top, "UNITDIR=/lib/systemd/system")
    return {os.path.join(d, f)[len(top):] for d, _, files in os.walk(top) for f in files}


def test_package(run):
    for program in ("dh", "lintian", "dpkg-buildpackage"):
        if not shutil.which(program):
            raise harness.Skipped("there is no " + program)
    out = run.path("deb")
    sh(os.path.join(harness.TOP, "scripts", "deb"), "--lint", env=dict(os.environ, MCTUNNEL_DEB_OUT=out))
    packages = sorted(os.path.basename(p).split("_")[0] for p in glob.glob(out + "/*.deb"))
    equal(packages, ["mctunnel", "mctunnel-dbgsym"], "packages")
    package = glob.glob(out + "/mctunnel_*.deb")[0]
    say("%s: %d KiB" % (os.path.basename(package), os.path.getsize(package) // 1024))
    files = contents(package)
    plain = {re.sub(r"\.gz$", "", path) for path in files}
    equal(sorted(installed(run) - plain), ["/usr/share/doc/mctunnel/LICENSE"], "installed by make, but not in the package")
    equal({owner for _, owner in files.values()}, {"root/root"}, "owners")
    check("/etc/mctunnel/pki/" in files, "no folder for keys")
    control = run.path("control")
    sh("dpkg-deb", "-e", package, control)
    with open(control + "/conffiles") as f:
        equal(sorted(f.read().split()), sorted(p for p in files if p.startswith("/etc/") and not p.endswith("/")), "configuration files")
    tree = run.path("tree")
    sh("dpkg-deb", "-x", package, tree)
    check(read("VERSION").strip() in sh(tree + "/usr/sbin/mctunnel", "-v"), "another version")
    for program in ("/usr/sbin/mctunnel", "/usr/bin/mctunnelctl"):
        with open(tree + program, "rb") as f:
            check(out.encode() not in f.read(), program, "tells where it was built")


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
