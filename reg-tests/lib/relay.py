"""The cutting relay (reg-tests/tools/relay.c), put between an agent and a hub."""
import glob
import os
import subprocess

import harness
import proc


def tool(name, run):
    """A program of reg-tests/tools: as `make tool-binaries` built it, else compiled here."""
    source = os.path.join(harness.TOP, "reg-tests", "tools", name + ".c")
    for path in glob.glob(os.path.join(harness.TOP, "build", "*", "tools", name)):
        if os.path.getmtime(path) >= os.path.getmtime(source) and "asan" not in path and "tsan" not in path:
            return path
    path = run.path(name)
    subprocess.run(["cc", "-std=gnu11", "-O2", "-o", path, source], check=True)
    return path


class Relay:
    def __init__(self, run, upstream, launcher=()):
        self.process = proc.start(run, list(launcher) + [tool("relay", run), run.host, "%s:%d" % upstream], stdin=subprocess.PIPE,
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
