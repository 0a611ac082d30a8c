#!/usr/bin/env python3
"""The example etc/examples/clusters.cfg with real clients: the first part of the path names the site, and is gone when the request arrives there."""
import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ctl
import harness
import scene
from harness import check, equal

EXAMPLE = os.path.join(harness.TOP, "etc", "examples", "clusters.cfg")


class Origin:
    """Answers each request with its own name, the method and the path that have arrived."""

    def __init__(self, run, name):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = ("%s %s %s" % (name, self.command, self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """Connections that are kept for later end with the programs."""

        self.server = Server((run.host, 0), Handler)
        self.target = self.server.server_address
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        run.undo.callback(self.close)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def example(run, hub, office):
    """The rules as they stand in the example, on the hub of the test."""
    with open(EXAMPLE) as f:
        text = f.read()
    rules = re.search(r"rules = \(\n(.*?)\n    \); \}", text, re.S).group(1)
    with open(run.path("office.lst"), "w") as f:
        f.write(office + "\n")
    with open(hub.config_path) as f:
        own = f.read()
    check("rules" not in own, own)
    with open(hub.config_path, "w") as f:
        f.write(own.replace('mode = "http";', 'mode = "http";\nrules = (\n%s\n);' % rules))


def ask(hub, method, path, host="hub"):
    c = http.client.HTTPConnection(*hub.listen["clusters"], timeout=harness.PATIENCE)
    try:
        c.request(method, path, headers={"Host": host})
        r = c.getresponse()
        return r.status, r.getheader("Location"), r.read().decode()
    finally:
        c.close()


def start(run, office):
    tunnels = [scene.tunnel("site-a", ["edge-1"], ["api", "web"]), scene.tunnel("site-b", ["edge-3"], ["api", "web"])]
    hub = scene.Hub(run, {"clusters": {"mode": "http", "route": None}}, tunnels, settings=ctl.admin_settings(run, "hub"))
    example(run, hub, office)
    hub.start().wait_ready()
    for site, agent in (("site-a", "edge-1"), ("site-b", "edge-3")):
        services = [scene.service(name, Origin(run, site + "/" + name).target) for name in ("api", "web")]
        scene.Agent(run, hub.authority, [hub.address], services, name=agent, tunnel_name=site).start()
    hub.wait_links(4)
    return hub


def test_paths(run):
    hub = start(run, "127.0.0.0/8")
    for method, path, expected in (
            ("GET", "/site-a/api/v1/namespaces?watch=1", "site-a/api GET /api/v1/namespaces?watch=1"),
            ("GET", "/site-b/apis", "site-b/api GET /apis"),
            ("POST", "/site-b/api/v1/pods", "site-b/api POST /api/v1/pods"),
            ("GET", "/site-a/dashboard/", "site-a/web GET /dashboard/"),
            ("GET", "/site-a/", "site-a/web GET /"),
            ("GET", "/site-b/x/../../site-a/y", "site-a/web GET /y")):
        equal(ask(hub, method, path), (200, None, expected), path)
    equal(ask(hub, "GET", "/site-a?x=1")[:2], (301, "/site-a/"), "without a slash")
    equal(ask(hub, "GET", "/x/y", "site-b.clusters.example.com")[2], "site-b/web GET /x/y", "by name")
    equal(ask(hub, "GET", "/site-c/x")[0], 404, "an unknown site")
    equal(ask(hub, "GET", "/")[0], 404, "no site")
    answer = json.loads(ctl.command(run, "hub", "route --listener clusters --path /site-a/api/v1/namespaces json"))
    equal((answer["to"], answer["rewrite"]), ("site-a/api", "/api/v1/namespaces"), "what the command says")


def test_office(run):
    hub = start(run, "192.0.2.0/24")
    equal(ask(hub, "GET", "/site-a/api/v1/pods")[2], "site-a/api GET /api/v1/pods", "who looks")
    equal(ask(hub, "DELETE", "/site-a/api/v1/pods")[0], 403, "who would change something")
    equal(ask(hub, "POST", "/site-a/%61pi/v1/pods")[0], 403, "the same in disguise")
    equal(ask(hub, "POST", "/site-a//api")[0], 403, "the same in disguise")
    equal(ask(hub, "POST", "/site-a/login")[2], "site-a/web POST /login", "what is no API")


def test_curl(run):
    """As the founding document has it."""
    hub = start(run, "127.0.0.0/8")
    url = "http://%s:%d/site-a/api/v1/nodes" % hub.listen["clusters"]
    done = subprocess.run(["curl", "-sS", "--max-time", "20", url], capture_output=True, text=True)
    equal((done.returncode, done.stdout, done.stderr), (0, "site-a/api GET /api/v1/nodes", ""), url)


if __name__ == "__main__":
    harness.main(globals())
