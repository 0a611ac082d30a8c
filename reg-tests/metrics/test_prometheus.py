#!/usr/bin/env python3
"""A real Prometheus reads hub and agent; our alert rules are good, and fire; it understands every expression of the dashboard."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import proc
import scene
import tcp
from harness import check, equal, say

DASHBOARD = os.path.join(harness.TOP, "etc", "grafana", "mctunnel.json")
RULES = os.path.join(harness.TOP, "etc", "prometheus", "mctunnel.rules.yml")
CONFIG = """
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 200ms }
rule_files: [ "%s" ]
scrape_configs:
  - job_name: mctunnel-hub
    static_configs: [ { targets: [ "%s" ] } ]
  - job_name: mctunnel-agent
    static_configs: [ { targets: [ "%s" ] } ]
"""


def need(program):
    if not shutil.which(program):
        raise harness.Skipped("there is no " + program)
    return program


class Prometheus:
    def __init__(self, run, hub, agent, rules):
        self.address = (run.host, run.port())
        with open(run.path("prometheus.yml"), "w") as f:
            f.write(CONFIG % (rules, tcp.text(hub.metrics_address), tcp.text(agent.metrics_address)))
        with open(run.path("prometheus.out"), "wb") as out:
            self.process = proc.start(run, [need("prometheus"), "--config.file=" + run.path("prometheus.yml"), "--storage.tsdb.path=" + run.path("tsdb"),
                                            "--web.listen-address=" + tcp.text(self.address)], cwd=run.dir, stdout=out, stderr=out)
        run.logs.append(run.path("prometheus.out"))

    def ask(self, path, **query):
        try:
            with urllib.request.urlopen("http://%s/api/v1/%s?%s" % (tcp.text(self.address), path, urllib.parse.urlencode(query)), timeout=30) as r:
                return json.load(r)["data"]
        except OSError:
            return None

    def value(self, expression):
        data = self.ask("query", query=expression)
        return float(data["result"][0]["value"][1]) if data and data["result"] else None

    def wait(self, expression, value):
        harness.wait_until(lambda: self.value(expression) == value, "%s to be %s" % (expression, value), 60, 0.1)

    def any(self, expression):
        """Its value when there is one: a scrape may fail on a busy machine."""
        return harness.wait_until(lambda: [v for v in [self.value(expression)] if v is not None], "a value of " + expression, 60, 0.1)[0]


def test_rules(run):
    need("promtool")
    for args in (["check", "rules", RULES], *(["test", "rules", f] for f in sorted(glob.glob(harness.TOP + "/reg-tests/prometheus/*.yml")))):
        p = subprocess.run(["promtool", *args], capture_output=True, text=True)
        equal(p.returncode, 0, " ".join(args) + "\n" + p.stdout + p.stderr)


def test_every_rule_is_tested(_):
    with open(RULES) as f:
        names = re.findall(r"- alert: (\w+)", f.read())
    tests = ""
    for path in glob.glob(harness.TOP + "/reg-tests/prometheus/*.yml"):
        with open(path) as f:
            tests += f.read()
    equal([n for n in names if n not in tests], [], "alerts that no test lets fire")
    check({"MCTunnelHubDown", "HighAgentReconnectionRate"} <= set(names), "the alerts that everything began with")


def dashboard_expressions():
    """What Grafana would ask, its variables put in."""
    def walk(node):
        if isinstance(node, dict):
            yield from [node["expr"]] if "expr" in node else []
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from walk(inner)
    with open(DASHBOARD) as f:
        return [e.replace("$instance", ".*").replace("$__rate_interval", "5s") for e in walk(json.load(f))]


def ask_dashboard(prometheus):
    """Each is understood; most of them have something to show."""
    expressions, shown = dashboard_expressions(), set()

    def most():
        for expression in expressions:
            data = prometheus.ask("query", query=expression)
            check(data, "Prometheus does not take", expression)
            shown.update([expression] if data["result"] else [])
        return len(shown) > len(expressions) / 2
    harness.wait_until(most, "most expressions of the dashboard to have something to show", 60, 0.5)
    say("%d expressions of the dashboard, with nothing to show here: %s" % (len(expressions), [e for e in expressions if e not in shown]))


def test_scrape(run):
    p = scene.pair(run, {"echo": tcp.Server(run, tcp.echo).address})
    rules = run.path("rules.yml")
    with open(RULES) as f, open(rules, "w") as out:
        out.write(f.read().replace("for: 15s", "for: 1s"))
    prometheus = Prometheus(run, p.hub, p.agent, rules)
    prometheus.wait('up{job="mctunnel-hub"}', 1)
    prometheus.wait('up{job="mctunnel-agent"}', 1)
    for _ in range(5):
        tcp.ask(p.listen["echo"], b"12345678")
    prometheus.wait('mctunnel_sessions_total{listener="echo",reason="done"}', 5)
    prometheus.wait('sum(mctunnel_bytes_total{direction="up"})', 40)
    prometheus.wait('mctunnel_links{job="mctunnel-hub"}', p.links)
    prometheus.wait('mctunnel_service_up{tunnel="site-a",service="echo",agent="edge-1"}', 1)
    prometheus.wait("histogram_quantile(1, sum by (le) (mctunnel_connection_establishment_seconds_bucket)) > bool 0", 1)
    ask_dashboard(prometheus)
    # scraped through a crash of the worker too
    p.hub.kill_worker()
    prometheus.wait('mctunnel_worker_restarts_total{job="mctunnel-hub"}', 1)
    prometheus.wait('mctunnel_links{job="mctunnel-hub"}', p.links)
    say("%d series of the hub, a scrape takes %.1f ms" % (prometheus.any('scrape_samples_scraped{job="mctunnel-hub"}'),
                                                         1000 * prometheus.any('scrape_duration_seconds{job="mctunnel-hub"}')))
    p.hub.stop()
    prometheus.wait('up{job="mctunnel-hub"}', 0)
    prometheus.wait('ALERTS{alertname="MCTunnelHubDown",alertstate="firing"}', 1)
    prometheus.process.send_signal(signal.SIGTERM)
    prometheus.process.wait(harness.PATIENCE)


if __name__ == "__main__":
    harness.main(globals(), threads=(2,))
