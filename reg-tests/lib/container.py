"""A container engine in small: runs a program as process 1 on a root of its own, as Kubernetes' Pods ask for it:
mounts, numeric user, no capabilities, no new privileges, read-only root.

As a program (what start() runs, in fresh namespaces): container.py SPEC.json, which becomes the container's program."""
import ctypes
import glob
import json
import os
import re
import shutil
import subprocess
import sys

PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
LAST_CAP = 63
_libc = ctypes.CDLL(None, use_errno=True)


def small_root(folder, programs):
    """A root file system with nothing but programs ({path inside: path here}) and the libraries they load."""
    for inside, here in programs.items():
        _copy(here, folder + inside)
        listed = subprocess.run(("ldd", here), capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            _copy(library, folder + library)
    for name in ("etc", "proc", "dev", "run/mctunnel", "tmp"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    return folder


def _copy(here, there):
    if not os.path.exists(there):
        os.makedirs(os.path.dirname(there), exist_ok=True)
        shutil.copy(os.path.realpath(here), there)


def available():
    words = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "true")
    return os.geteuid() == 0 and shutil.which("unshare") and subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0


def command(spec, path):
    """What runs a container. spec: root, read_only, mounts [(from, to, read_only)], uid, gid, groups, drop, args, env.
    `path`: where to write it down."""
    with open(path, "w") as f:
        json.dump(spec, f)
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, os.path.abspath(__file__), path]


# ---- inside ----

def _mount(*args):
    subprocess.run(("mount",) + args, check=True)


def _bind(source, target, read_only):
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    _mount("--bind", source, target)
    if read_only:
        _mount("-o", "remount,bind,ro", target)


def _furnish(spec):
    root = spec["root"]
    _mount("--make-rprivate", "/")
    _mount("--bind", root, root)
    for name in ("proc", "dev"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    _mount("-t", "proc", "proc", root + "/proc")
    _mount("-t", "tmpfs", "-o", "mode=755", "dev", root + "/dev")
    for device in ("null", "zero", "random", "urandom"):
        _bind("/dev/" + device, "%s/dev/%s" % (root, device), False)
    for source, target, read_only in spec["mounts"]:
        _bind(source, root + target, read_only)
    if spec["read_only"]:
        _mount("-o", "remount,bind,ro", root)


def _lose_rights(spec):
    os.setgroups(spec["groups"])
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    if spec["drop"]:
        for cap in range(LAST_CAP + 1):
            _libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _main(path):
    with open(path) as f:
        spec = json.load(f)
    _furnish(spec)
    os.chroot(spec["root"])
    os.chdir("/")
    _lose_rights(spec)
    os.execve(spec["args"][0], spec["args"], spec["env"])


# ---- Dockerfiles ----

def dockerfile(path):
    """[{name, base, steps: [(INSTRUCTION, text)]}], a stage each; lines are joined, comments gone."""
    with open(path) as f:
        text = re.sub(r"^\s*#.*\n", "", f.read(), flags=re.M)
    stages = []
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append({"name": name.strip(), "base": base.strip(), "steps": []})
        else:
            stages[-1]["steps"].append((word, rest.strip()))
    return stages


def image(stages, name):
    """What an image of that stage says about itself: {INSTRUCTION: text}, its bases' included."""
    said = {}
    for stage in stages:
        if stage["name"] == name:
            said = dict(image(stages, stage["base"]))
            for word, rest in stage["steps"]:
                said[word] = said["EXPOSE"] + " " + rest if word == "EXPOSE" and "EXPOSE" in said else rest
    return said


def sources(stages):
    """Files of the tree that the stages copy."""
    found = []
    for stage in stages:
        for word, rest in stage["steps"]:
            if word == "COPY" and "--from" not in rest:
                found += [p for pattern in rest.split()[:-1] for p in (glob.glob(pattern) or [pattern])]
    return found


if __name__ == "__main__":
    _main(sys.argv[1])
