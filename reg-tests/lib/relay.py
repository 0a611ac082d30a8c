"""The cutting relay (reg-tests/tools/relay.c), put between an agent and a hub."""
import fcntl
import os
import subprocess

import harness
import proc


def tool(name):
    """A program of reg-tests/tools, as `make tool-binaries` builds it; made now when it is missing or old."""
    source = os.path.join(harness.TOP, "reg-tests", "tools", name + ".c")
    path = os.path.join(harness.TOP, "build", "release", "tools", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".lock", "w") as lock:  # several tests at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(source):
            subprocess.run(["make", "-s", "-C", harness.TOP, "FLAVOUR=release", "build/release/tools/" + name], check=True)
    return path


class Relay:
    def __init__(self, run, upstream, launcher=()):
        self.process = proc.start(run, list(launcher) + [tool("relay"), run.host, "%s:%d" % upstream], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, bufsize=1)
        words = self.process.stdout.readline().split()
        harness.check(words[:1] == ["listening"], "the relay did not start")
        host, port = words[1].rsplit(":", 1)
        self.address = (host, int(port))

    def order(self, line):
        """The number in the answer: how many connections it concerned."""
        self.process.stdin.write(line + "\n")
        words = self.process.stdout.readline().split()
        harness.check(words[:1] == ["ok"], "the relay is gone")
        self.live, self.accepted, self.bytes = (int(w) for w in words[2:5])
        return int(words[1])

    def cut(self, how="rst"):
        return self.order("cut " + how)

    def freeze(self):
        return self.order("freeze")

    def connections(self):
        self.order("stats")
        return self.live
