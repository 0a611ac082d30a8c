#!/usr/bin/env python3
"""What operators are shown while memory is refused: an answer that is whole and true, or one that can be seen not to be. Nobody is shown a hub without agents."""
import os
import socket
import subprocess
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene
import shortage
import tcp
from harness import check, say

SHOTS = 60
LINKS = 2

# What stands in it when it is whole.
COMMANDS = {"show agents": "edge-1", "show agents json": '"edge-1"', "show tunnels": "site-a", "show tunnels json": '"agents"', "show services": "edge-1",
            "show stat": "site-a,edge-1", "show links": "edge-1", "show listeners": "echo", "show info": "Name: mctunnel", "show memory": "session"}
PAGES = {"/metrics": 'agent="edge-1"', "/status.json": '"edge-1"', "/": "edge-1"}


def whole(text):
    """An answer of the admin socket ends with an empty line."""
    return text.endswith("\n\n")


class Standing:
    """The agent while all is well. What becomes of it, it tells itself: its memory is not refused, and it loses no line of its log as the hub may do."""

    def __init__(self, p):
        self.p, self.ends = p, len(p.agent.log("link_down"))

    def lost(self, worker):
        """Whether it was gone for a moment since: with that worker of the hub, or with both links. Either is seen a little later than its consequences."""
        def seen():
            return self.p.hub.worker() != worker or len(self.p.agent.log("link_down")) >= self.ends + LINKS
        try:
            return harness.wait_until(seen, "the agent to be lost")
        except harness.Failed:
            return False


def ask_all(before, worker, rng):
    """Whether all answers are there, and whole."""
    p = before.p
    rows, good = list(COMMANDS.items()) + list(PAGES.items()), 0
    rng.shuffle(rows)
    for what, mark in rows:
        if what.startswith("/"):
            status, text = p.hub.get(what)
            seen = status == 200
        else:
            text = shortage.try_admin(p.sock, what)
            seen = whole(text)
        check(not seen or mark in text or before.lost(worker), what, "is shown as a whole:\n" + text)
        good += seen and mark in text
    return good == len(rows)


def test_nobody_is_shown_a_part_for_the_whole(run):
    rng = shortage.chance()
    p = shortage.pair(run, {"echo": "site-a/echo"}, {"echo": tcp.Server(run, tcp.echo).target})
    v = shortage.Victim(p.hub)
    check(ask_all(Standing(p), v.pid, rng), "answers before")
    deaths = broken = 0
    for i in range(SHOTS):
        row, n = (rng.randrange(2, 20), rng.randrange(1, 60)) if i % 12 == 11 else (1, rng.randrange(1, 150))
        before = Standing(p)
        with v.refusing(p, n, row):
            all_whole = ask_all(before, v.pid, rng)
        broken += not all_whole and v.deaths == deaths
        deaths = v.deaths
        p.hub.wait_links(LINKS, 20)
    harness.wait_until(lambda: ask_all(Standing(p), v.pid, rng), "all answers to be whole again")
    say("in %d of %d rounds an answer was not whole" % (broken, SHOTS))
    v.result(SHOTS // 2)


def ctl(sock):
    program = os.path.join(os.path.dirname(scene.binary()), "mctunnelctl")
    if not os.path.exists(program):
        program = os.path.join(harness.TOP, "mctunnelctl")
    got = subprocess.run([program, "-s", sock, "show", "agents"], capture_output=True, text=True, timeout=harness.PATIENCE)
    return got.returncode, got.stdout, got.stderr


def test_an_answer_that_ends_too_early(run):
    """mctunnelctl says so, and fails."""
    sock = run.path("fake.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sock)
        listener.listen()
        answers = [b"\n# tunnel\tagent\nsite-a\tedge-1\n\n", b"\n# tunnel\tagent\nsite-a\tedge-1\n", b"\n"]

        def serve():
            for answer in answers:
                with listener.accept()[0] as s:
                    s.recv(65536)
                    s.sendall(answer)
        server = threading.Thread(target=serve, daemon=True)
        server.start()
        code, out, err = ctl(sock)
        check(code == 0 and "edge-1" in out and not err, code, out, err)
        for _ in answers[1:]:
            code, out, err = ctl(sock)
            check(code == 2 and "not whole" in err, code, out, err)
        server.join(harness.PATIENCE)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
