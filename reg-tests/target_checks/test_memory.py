#!/usr/bin/env python3
"""Memory is refused to an agent that checks good targets: not one of them is ever down for that."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import pki
import scene
import shortage
import test_types
import watching
from harness import equal

SHOTS = 60
ROUNDS = 2  # checks of each target while an allocation is armed


def checks_go_on(p, times):
    """Each target is found good so often again."""
    before = p.agent.known_metrics()

    def more():
        now = p.agent.known_metrics()
        return all(now.get(p.key[n], 0) >= (before.get(p.key[n], 0) if now.get(p.key[n], 0) >= before.get(p.key[n], 0) else 0) + times for n in p.key)
    harness.wait_until(more, "good checks of all targets", 20)


def never_down(p):
    for program in (p.agent, p.hub):
        equal(program.log("check", state="DOWN"), [], "targets that are down, says " + program.name)


def test_good_targets_stay_up(run):
    rng = shortage.chance()
    good = pki.Pki(run.path("names")).make("new", "new.example", ["new.example"])
    moods = {"tcp": (test_types.says(b"hello"), "L4OK"), "http": (test_types.says(test_types.OK), "L7OK"),
             "tls": (test_types.tls_mood(test_types.server_context(*good)), "L6OK"),
             "grpc": (test_types.grpc_frames(test_types.ANSWER, test_types.message(b"\x08\x01"), test_types.GOOD), "L7OK")}
    targets = {name: watching.Target(run, mood).address for name, (mood, _) in moods.items()}
    checks = {name: {"type": name, "interval": "60ms", "timeout": "3s", "rise": 1, "fall": 1} for name in moods}
    p = watching.site(run, [targets], checks, program=scene.release_binary(), environment=shortage.shim(run))
    p.key = {name: 'mctunnel_checks_total{service="%s",status="%s"}' % (name, word) for name, (_, word) in moods.items()}
    checks_go_on(p, 2)
    v = shortage.Victim(p.agent)
    for i in range(SHOTS):
        row, n = (rng.randrange(2, 12), rng.randrange(1, 100)) if i % 15 == 14 else (1, rng.randrange(1, 300))
        with v.refusing(p, n, row):
            checks_go_on(p, ROUNDS)
        never_down(p)
    p.hub.wait_links(2, 20)
    checks_go_on(p, 2 * ROUNDS)
    never_down(p)
    v.result(SHOTS // 2)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
