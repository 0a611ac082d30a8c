"""Network namespaces: the test moves into one of its own (the hub's side), agents get others, joined by a bridge.
A cable can be pulled, or swallow everything silently."""
import ctypes
import os
import subprocess
import threading

import harness

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_counter = 0


def _run(*args):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise harness.Failed("%s: %s" % (" ".join(args), done.stdout.strip()))


def _ip(*args):
    _run("ip", *args)


def enter_empty():
    """The whole process (threads started from now on) gets a fresh network that has a loopback only. Ends with the process."""
    if os.geteuid() != 0:
        raise harness.Skipped("namespaces need root")
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise harness.Skipped("the kernel refuses a network namespace: " + os.strerror(ctypes.get_errno()))
    _ip("link", "set", "lo", "up")


def enter_own():
    """The same with a bridge at 10.99.0.1."""
    enter_empty()
    _ip("link", "add", "br0", "type", "bridge")
    _ip("addr", "add", "10.99.0.1/24", "dev", "br0")
    _ip("link", "set", "br0", "up")


class Namespace:
    """A named namespace with one cable to the bridge; `address` is its end."""

    def __init__(self, run):
        global _counter
        _counter += 1
        self.name = "mct-%d-%d" % (os.getpid(), _counter)
        self.port = "port%d" % _counter
        self.address = "10.99.0.%d" % (_counter + 1)
        _ip("netns", "add", self.name)
        run.undo.callback(self.remove)
        _ip("link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self.port, "master", "br0", "up")
        for args in (("link", "set", "lo", "up"), ("addr", "add", self.address + "/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            _ip("-n", self.name, *args)

    def remove(self):
        subprocess.run(("ip", "netns", "del", self.name), stderr=subprocess.DEVNULL)

    def launcher(self):
        """Put before a command so that it runs inside."""
        return ("nsenter", "--net=/run/netns/" + self.name, "--")

    def pull(self):
        _ip("link", "set", self.port, "down")

    def plug(self):
        _ip("link", "set", self.port, "up")

    def swallow(self):
        """The cable stays in, everything sent vanishes, both ways."""
        _run("bridge", "link", "set", "dev", self.port, "state", "0")

    def spit(self):
        _run("bridge", "link", "set", "dev", self.port, "state", "3")

    def deafen(self):
        """What is sent inside arrives, what is sent to it vanishes."""
        _ip("link", "set", self.port, "nomaster")

    def undeafen(self):
        _ip("link", "set", self.port, "master", "br0")

    def call(self, function, *args):
        """Runs a function inside and returns its result (a listening socket, say, that stays there)."""
        result = []

        def inside():
            with open("/run/netns/" + self.name) as f:
                if _libc.setns(f.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            result.append(function(*args))

        t = threading.Thread(target=inside)
        t.start()
        t.join()
        return result[0]
