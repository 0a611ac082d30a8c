#!/usr/bin/env python3
"""One allocation after the other is refused while requests of all kinds go through a listener of mode http: a client gets the right answer, a refusal that
says so, or the end of its connection; the hub goes on, or dies with a message and comes back."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import shortage
import test_mixed
from test_mixed import Ended

ROUND = 25  # requests


class Refused(harness.Failed):
    pass


class Wrong(Exception):
    """What nobody may ever get; the test ends."""


class Client(test_mixed.Client):
    patient = False

    def read_answer(self, q):
        check = q.check

        def look(first, fields, *more):
            if first.split(b" ")[1] in (b"500", b"502", b"503", b"504"):
                raise Refused(first)
            check(first, fields, *more)
        q.check = look
        return super().read_answer(q)


def ask(address, timeout):
    """Requests of all kinds; other ones each time."""
    ask.turn += 1
    client = Client(address, test_mixed.SEED + ask.turn, timeout)
    try:
        client.run(ROUND)
    except (Ended, Refused):
        raise
    except harness.Failed as e:
        raise Wrong(str(e)) from None
    finally:
        client.close()


ask.turn = 0


def serve(s):
    """Whatever service is meant."""
    test_mixed.serve(None, s)


def test_each_allocation(run):
    harness.say("--seed", test_mixed.SEED)
    listener = {"mode": "http", "rules": ({"path": "/*", "route": "site-a/echo"},)}
    shortage.each_allocation(run, lambda p: p.hub, listener, ask, serve)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
