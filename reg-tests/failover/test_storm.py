#!/usr/bin/env python3
"""Hundreds of agents lose their hub at once: all come back, with tickets, and clients of somebody else are served all the while.
scripts/bench-storm does it with ten thousand."""
import proving  # finds the library
import harness
import storm
from harness import check, equal, say

AGENTS = 300


def test_all_come_back(run):
    swarm = storm.Swarm(run, AGENTS, threads=run.threads)
    for kill in (False, True):
        say(swarm.storm(kill))
        check(swarm.figures["links"] >= AGENTS, "not all came back")
        if not kill:
            equal(swarm.figures["failed"], 0, "clients of an agent that stayed that failed")
    m = swarm.hub.metrics()
    check(m["mctunnel_link_handshakes_resumed_total"] >= AGENTS, "no tickets were used:", m["mctunnel_link_handshakes_resumed_total"])


def test_all_in_one_tunnel(run):
    swarm = storm.Swarm(run, AGENTS, threads=run.threads, single=True)
    say(swarm.storm(False))
    check(swarm.figures["links"] >= AGENTS, "not all came back")


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
