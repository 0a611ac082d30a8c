#!/usr/bin/env python3
"""A pair of hubs with the real keepalived: hosts and cables are lost, come back, and flap."""
import cases
import proving
import harness


def test_host(run):
    proving.prove(run, cases.host_loss, cases.comeback)


def test_cut(run):
    proving.prove(run, cases.silent_cut, cases.heal)


def some_flaps(lab):
    return cases.flaps(lab, times=3, pause=1.0)


def test_flaps(run):
    proving.prove(run, some_flaps)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
