#!/usr/bin/env python3
"""A pair of hubs with the real keepalived: agents are lost and come back; agents that know the virtual address only."""
import cases
import proving
import harness


def test_lost(run):
    proving.prove(run, cases.agent_loss, cases.agents_loss)


def test_virtual_address_only(run):
    proving.prove(run, cases.host_loss_vip, cases.switch_vip)


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
