#!/usr/bin/env python3
"""What checks lead to besides the choice of an agent: sessions that end, weights that rise slowly, sessions that tell instead of a check, reloads, gRPC health."""
import copy
import os
import resource
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import scene
import tcp
import watching
from harness import check, equal, stays, wait_until
from watching import Target, named, wait_service


def hold(address, word=b"one\n"):
    """A client whose session is there."""
    s = tcp.open_socket(address)
    equal(tcp.recv_exactly(s, len(word)), word)
    return s


def nobody(address):
    """A client that gets nothing but the end of its connection, which may be as early as connect()."""
    try:
        with tcp.open_socket(address) as s:
            equal(s.recv(100), b"")
    except ConnectionResetError:
        pass


def talks(s):
    s.sendall(b"still\n")
    return tcp.recv_exactly(s, 6) == b"still\n"


class Sick:
    """A target whose health is asked by HTTP, and that serves everybody else whatever the answer: it tells them by their first byte, so clients speak first."""

    def __init__(self, run):
        self.status = 200
        self.target = Target(run, self.mood)
        self.address = self.target.address

    def mood(self, s):
        first = s.recv(4096)
        if first.startswith(b"GET "):
            s.sendall(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % self.status)
            return
        while first:
            s.sendall(first)
            first = s.recv(4096)


def speak(address):
    s = tcp.open_socket(address)
    check(talks(s))
    return s


def test_sessions_end_when_marked_down(run):
    """With on_marked_down the service's sessions end on both sides; those of others, and of services without it, go on."""
    sick = {n: Sick(run) for n in "abc"}
    asked = dict(type="http", timeout="10s")  # c must not be missed because the machine is busy
    checks = {"a": watching.check(on_marked_down=True, **asked), "b": watching.check(**asked), "c": watching.check(on_marked_down=True, **asked)}
    p = watching.site(run, [{n: s.address for n, s in sick.items()}], checks)
    for n in "abc":
        wait_service(p.hub, "UP", n)
    clients = {n: [speak(p.listen[n]) for _ in range(5)] for n in "abc"}
    sick["a"].status = sick["b"].status = 500
    for n in "ab":
        wait_service(p.hub, "DOWN", n, check="L7STS/500")
    for s in clients["a"]:
        tcp.expect_reset(s, "session of a")
    for s in clients["b"] + clients["c"]:
        check(talks(s))
        s.close()
    ends = p.hub.wait_log("session", count=5, reason="service_down")
    equal({(r["end"], r["route"]) for r in ends}, {("DD", "site-a/a")})
    equal(len(p.agent.wait_log("session", count=5, reason="service_down")), 5)
    p.hub.nothing_left()


def test_slow_start(run):
    """The weight comes back in steps, each of which the hub hears of; at the very start it is whole at once."""
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp", slowstart="3s")}, services={"weight": 200})
    wait_service(p.hub, "UP", weight=200)
    t.fall()
    wait_service(p.hub, "DOWN")
    t.rise()
    weights = []

    def look():
        row = watching.service(p.hub)
        if row["status"] == "UP" and row["weight"] not in weights[-1:]:
            weights.append(row["weight"])
        return row["weight"] == 200 and row["status"] == "UP"
    wait_until(look, "the whole weight", pause=0.01)
    check(weights == sorted(weights) and len(weights) >= 3, weights)
    check(all(w % 20 == 0 for w in weights), weights)
    equal(watching.service(p.agent)["weight"], 200)


def test_sessions_tell(run):
    """error_limit sessions in a row that find nobody bring the service down at once, though its check is far away; its checks bring it back."""
    t = Target(run, named("one"))
    c = watching.check(type="tcp", interval="10m", downinter="60ms", fastinter="60ms", error_limit=5)
    p = watching.site(run, [{"x": t.address}], {"x": c})
    wait_service(p.hub, "UP")
    t.fall()
    for i in range(4):
        nobody(p.listen["x"])
    t.rise()
    hold(p.listen["x"]).close()  # that one is forgiveness for the four before
    t.fall()
    seen = t.seen
    for i in range(4):
        nobody(p.listen["x"])
    equal(watching.service(p.agent)["status"], "UP")
    nobody(p.listen["x"])
    row = wait_service(p.agent, "DOWN", check="L4CON")
    down = p.agent.wait_log("check", state="DOWN")
    check("5 sessions in a row" in down[0]["text"] and "refused" in down[0]["text"], down)
    wait_service(p.hub, "DOWN")
    equal(t.seen, seen)
    t.rise()
    wait_service(p.hub, "UP", check="L4OK")
    hold(p.listen["x"]).close()


def test_no_limit_for_sessions(run):
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp", interval="10m", error_limit=0)})
    wait_service(p.hub, "UP")
    t.fall()
    for i in range(15):
        nobody(p.listen["x"])
    equal(watching.service(p.agent)["status"], "UP")


def reload(program, change):
    """change gets an agent's services, a hub's whole configuration."""
    config = copy.deepcopy(program.config)
    change(config["agent"]["services"] if "agent" in config else config)
    with open(program.config_path, "w") as f:
        f.write(scene.libconfig(config))
    program.config = config
    answer = watching.ask(program, "reload")
    check(answer.startswith("Reloaded."), answer)


def test_reload(run):
    """Checks come, change and go with the configuration; what is known of a target stays known."""
    one, two = Target(run, named("one")), Target(run, named("two"))
    p = watching.site(run, [{"x": one.address, "y": two.address}], {"x": watching.check(type="tcp")})
    wait_service(p.hub, "UP", "x", check="L4OK")
    equal(watching.service(p.hub, "y")["check"], None)
    s = hold(p.listen["x"])

    def other_pace(services):
        services[0]["check"] = watching.check(type="tcp", interval="1s", rise=1, fall=5)  # four seconds to see it
    since = watching.service(p.agent, "x")["since"]
    reload(p.agent, other_pace)
    row = watching.service(p.agent, "x")
    check(row["status"] == "UP" and row["since"] >= since, row)
    one.fall()
    wait_until(lambda: watching.service(p.agent, "x")["status"] in ("UP 1/5", "UP 2/5", "UP 3/5", "UP 4/5"), "it to be counted to five")
    wait_service(p.hub, "DOWN", "x")
    reload(p.agent, lambda services: services[0]["check"].update(fall=2))
    equal(watching.service(p.agent, "x")["status"], "DOWN")
    equal(len(p.agent.wait_log("check", service="x", state="DOWN")), 1)

    # one that is added does not interrupt what is served
    reload(p.agent, lambda services: services[1].update(check=watching.check(type="tcp")))
    wait_service(p.hub, "UP", "y", check="L4OK")
    equal(p.hub.log("check", service="y", state="DOWN"), [])
    two.fall()
    wait_service(p.hub, "DOWN", "y")

    # one that is taken away takes its verdict along
    reload(p.agent, lambda services: services[1].pop("check"))
    wait_service(p.hub, "UP", "y", check=None)
    two.rise()
    hold(p.listen["y"], b"two\n").close()
    seen = two.seen
    stays(lambda: two.seen == seen, 0.5, "no checks")

    # another target is another matter
    three = Target(run, named("three"))
    reload(p.agent, lambda services: services[0].update(target=tcp.text(three.address)))
    wait_service(p.hub, "UP", "x")
    hold(p.listen["x"], b"three\n").close()
    one.fall()
    reload(p.agent, lambda services: services[0].update(target=tcp.text(one.address)))
    wait_service(p.hub, "DOWN", "x", check="L4CON")
    reload(p.agent, lambda services: services[0].update(check=dict(services[0]["check"], type="none")))
    wait_service(p.hub, "UP", "x", check=None)
    equal(p.hub.metric("mctunnel_links_broken_total"), 0)
    s.close()


def test_reloads_in_a_row(run):
    """Reloads that come faster than checks end do not keep bad news away."""
    t = Target(run, watching.silent)
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="http", timeout="1s", fall=1)})
    until = time.monotonic() + 20
    weight = 0
    while watching.service(p.agent)["check"] == "INI" and time.monotonic() < until:
        weight = weight % 100 + 1
        reload(p.agent, lambda services: services[0].update(weight=weight))
    wait_service(p.agent, "DOWN", check="L7TOUT", timeout=1)


def test_denied_after_a_link_has_gone(run):
    """What a hub's reload denies goes, also when the link that brought the last news is no more."""
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address, "y": t.address}], {"x": watching.check(type="tcp")})
    wait_service(p.hub, "UP", "x")
    t.fall()
    wait_service(p.hub, "DOWN", "x")
    t.rise()
    wait_service(p.hub, "UP", "x")
    p.agent.config["agent"]["links"] = 1
    reload(p.agent, lambda services: None)
    p.hub.wait_links(1)

    def deny(config):
        config["tunnels"][0]["services"] = ["y"]
        config["listeners"] = tuple(row for row in config["listeners"] if row["name"] == "y")
    reload(p.hub, deny)
    wait_until(lambda: watching.service(p.hub, "x") is None, "x to be gone")
    equal(watching.service(p.hub, "y")["status"], "UP")


def test_grpc_health_of_the_hub(run):
    """Whoever asks the hub for TUNNEL/SERVICE hears of the target; a Watch at once."""
    try:
        import grpc
    except ImportError:
        raise harness.Skipped("python3-grpcio is not installed")
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp")})
    wait_service(p.hub, "UP")
    channel = grpc.insecure_channel("%s:%d" % p.hub.address)
    run.undo.callback(channel.close)
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\x0a\x08site-a/x", timeout=harness.PATIENCE)
    equal(next(watch), b"\x08\x01")
    t.fall()
    equal(next(watch), b"\x08\x02")
    t.rise()
    equal(next(watch), b"\x08\x01")
    watch.cancel()


def test_route_falls_back(run):
    """A listener's second route is for the time when the first one's target is down."""
    one, two = Target(run, named("one")), Target(run, named("two"))
    p = watching.site(run, [{"x": one.address, "y": two.address}], {n: watching.check(type="tcp") for n in "xy"},
                      listeners={"both": {"route": ["site-a/x", "site-a/y"]}})
    for n in "xy":
        wait_service(p.hub, "UP", n)
    hold(p.listen["both"]).close()
    one.fall()
    wait_service(p.hub, "DOWN", "x")
    hold(p.listen["both"], b"two\n").close()
    one.rise()
    wait_service(p.hub, "UP", "x")
    hold(p.listen["both"]).close()


def test_agent_without_descriptors(run):
    """An agent that cannot open a socket knows nothing about its targets, and says nothing about them either."""
    t = Target(run, named("one"))
    p = watching.site(run, [{"x": t.address}], {"x": watching.check(type="tcp", error_limit=2)})
    wait_service(p.hub, "UP")
    worker = p.agent.worker()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)

    def starve():
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
        for _ in range(4):
            nobody(p.listen["x"])
        time.sleep(0.2)  # for checks to be made; nobody can be asked meanwhile
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        return p.agent.metric('mctunnel_checks_total{service="x",status="SOCKERR"}') >= 2
    wait_until(starve, "checks without a socket")
    wait_service(p.agent, "UP", check="L4OK")
    equal(p.hub.log("check", state="DOWN"), [])
    equal(p.agent.log("check", state="DOWN"), [])
    hold(p.listen["x"]).close()


def test_many_services(run):
    """Hundreds of services whose target falls at once: everybody hears of all, and the links stay."""
    n = 300
    t = Target(run, named("one"))
    names = ["s%d" % i for i in range(n)]
    p = watching.site(run, [{name: t.address for name in names}], {name: watching.check(type="tcp", interval="500ms", timeout="10s") for name in names},
                      listeners={"x": "site-a/s0"})

    def up(program):
        return sum(row["status"] == "UP" for row in watching.services(program))
    wait_until(lambda: up(p.hub) == n, "all to be up")
    t.fall()
    wait_until(lambda: up(p.hub) == 0, "all to be down")
    for program in (p.hub, p.agent):
        equal(len(program.wait_log("check", n, state="DOWN")), n, "lines of " + program.name)
    t.rise()
    wait_until(lambda: up(p.hub) == n, "all to be up again")
    equal(p.hub.metric("mctunnel_links"), 2)
    equal(p.hub.metric("mctunnel_links_broken_total"), 0)


if __name__ == "__main__":
    harness.main(globals(), threads=(1, 2))
