"""Those who carry connections: how each is started."""
import os
import re
import subprocess
import time

from stage import TOP, Failed, free_port, run, wait_port, which


class System:
    """port: to the echo server, web: to the web server. hub, agent: processes. A system that is one process has no agent.
    delay (ms there and back) and rate (bytes a second) make the way between agent and hub longer and narrower."""
    name, tunnel, http_only = "?", True, False

    def __init__(self, stage, work, delay=0, rate=0):
        self.stage, self.work, self.delay, self.rate = stage, work, delay, rate
        self.hub, self.agent, self.roads = [], [], []
        self.port, self.web = free_port(), free_port()

    @classmethod
    def missing(cls):
        return None

    def start(self):
        raise NotImplementedError

    def stop(self):
        self.stage.end(self.hub + self.agent + self.roads)
        self.hub, self.agent, self.roads = [], [], []

    def road(self, to):
        """What to dial instead of `to`."""
        if not self.delay and not self.rate:
            return to
        port = free_port()
        self.roads.append(self.stage.start([self.work.load, "delay", str(port), str(to), str(self.delay // 2), *([str(self.rate)] if self.rate else [])]))
        wait_port(port, "load delay")
        return port

    def services(self):
        """Of each its name, the port of clients, that of the target."""
        return ("echo", self.port, self.work.port), ("web", self.web, self.work.web)

    def where(self):
        """The echo server, as the load wants to have it said."""
        return "http:%d" % self.port if self.http_only else str(self.port)

    def pids(self, which_ones):
        return [p.pid for p in which_ones]

    def ready(self):
        for port in (self.port, self.web):
            wait_port(port, self.name)
        end = time.monotonic() + 15
        while True:
            try:
                self.work.ask("ping", self.where(), 1, 0, timeout=10)
                return self
            except (Failed, subprocess.TimeoutExpired):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


class Direct(System):
    name, tunnel = "direct", False

    def start(self):
        self.port, self.web = self.work.port, self.work.web
        return self


HAPROXY = "global\n  nbthread 2\n  maxconn 9200\n  maxpipes 500\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  maxconn 9200\n"


def link(name, bind, to, extra="", server=""):
    return "listen %s\n  bind 127.0.0.1:%d backlog 8192 %s\n  server s 127.0.0.1:%d %s\n" % (name, bind, extra, to, server)


def haproxy(stage, name, text):
    """The process, in a list."""
    return [stage.start([which("haproxy"), "-db", "-f", stage.write(name, text)])]


class Haproxy(System):
    name, tunnel = "haproxy tcp, splice", False

    @classmethod
    def missing(cls):
        return None if which("haproxy") else "haproxy"

    def start(self):
        text = HAPROXY + "  option splice-auto\n" + "".join(link(*service) for service in self.services())
        self.hub = haproxy(self.stage, "haproxy-%d.cfg" % self.port, text)
        return self.ready()


class Nginx(System):
    name, tunnel = "nginx stream", False

    @classmethod
    def missing(cls):
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        return None if which("nginx") and os.path.exists(module) else "nginx with its stream module"

    def start(self):
        cfg = self.stage.write("stream-%d.conf" % self.port, """load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 2; worker_rlimit_nofile 20000; daemon off; pid %s/stream-%d.pid; error_log stderr crit; events { worker_connections 19000; }
stream { server { listen 127.0.0.1:%d backlog=8192; proxy_pass 127.0.0.1:%d; } server { listen 127.0.0.1:%d backlog=8192; proxy_pass 127.0.0.1:%d; } proxy_half_close on; }
""" % (self.stage.folder, self.port, self.port, self.work.port, self.web, self.work.web))
        self.hub = [self.stage.start([which("nginx"), "-p", self.stage.folder, "-c", cfg])]
        return self.ready()


class Chain(System):
    name = "two haproxys, TLS each"

    missing = Haproxy.missing

    def start(self):
        pem, a, b = self.stage.path("hub.pem"), free_port(), free_port()
        near = HAPROXY + "".join(link(n, p, self.road(t), server="ssl verify none ssl-min-ver TLSv1.3") for n, p, t in (("a", self.port, a), ("b", self.web, b)))
        ssl = "ssl crt %s ssl-min-ver TLSv1.3" % pem
        far = HAPROXY + link("a", a, self.work.port, ssl) + link("b", b, self.work.web, ssl)
        self.agent = haproxy(self.stage, "far-%d.cfg" % self.port, far)
        self.hub = haproxy(self.stage, "near-%d.cfg" % self.port, near)
        return self.ready()


class Ssh(System):
    name = "ssh -R, aes256-gcm"

    @classmethod
    def missing(cls):
        return None if which("sshd") and which("ssh") else "openssh-server"

    def start(self):
        folder = self.stage.path("ssh")
        if not os.path.exists(folder):
            os.makedirs(folder, 0o700)
            for key in ("host", "user"):
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(folder, key)])
            os.makedirs("/run/sshd", exist_ok=True)
        port = free_port()
        cfg = self.stage.write("sshd-%d.conf" % port, """Port %d
ListenAddress 127.0.0.1
HostKey %s/host
AuthorizedKeysFile %s/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
AllowTcpForwarding yes
MaxSessions 1000
""" % (port, folder, folder))
        self.hub = [self.stage.start([which("sshd"), "-D", "-f", cfg])]
        wait_port(port, "sshd")
        self.agent = [self.stage.start(["ssh", "-F", "none", "-N", "-T", "-c", "aes256-gcm@openssh.com", "-i", folder + "/user", "-p", str(self.road(port)),
                                        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
                                        "-R", "127.0.0.1:%d:127.0.0.1:%d" % (self.port, self.work.port), "-R", "127.0.0.1:%d:127.0.0.1:%d" % (self.web, self.work.web), "127.0.0.1"])]
        return self.ready()


class Mctunnel(System):
    name, label, threads, links = "mctunnel", "", 2, 2

    def config(self, hub):
        pki = self.stage.path("pki")
        self.admin = self.stage.path("hub-%d.sock" % self.port)
        self.routed = free_port()
        h = """global: { threads = %d; log = ( { target = "/dev/null"; level = "alert"; } ); admin = ( { bind = "unix:%s"; level = "admin"; } ); maxconn = 30000; };
hub: { name = "hub"; bind = ( { address = "127.0.0.1:%d"; cert = "%s/hub.pem"; key = "%s/hub.key"; client_ca = "%s/ca.pem"; } ); };
tunnels = ( { name = "site"; agents = [ "edge" ]; services = [ "*" ]; } );
listeners = ( { name = "echo"; bind = "127.0.0.1:%d"; route = "site/echo"; }, { name = "web"; bind = "127.0.0.1:%d"; route = "site/web"; },
  { name = "routed"; bind = "127.0.0.1:%d"; mode = "http"; rules = ( { host = "other.test"; action = "deny"; }, { path = "/1k"; route = "site/web"; } ); } );
""" % (self.threads, self.admin, hub, pki, pki, pki, self.port, self.web, self.routed)
        a = """global: { threads = %d; log = ( { target = "/dev/null"; level = "alert"; } ); maxconn = 30000; };
agent: { name = "edge"; tunnel = "site"; hubs = [ "127.0.0.1:%d" ]; links = %d; tls = { cert = "%s/edge.pem"; key = "%s/edge.key"; ca = "%s/ca.pem"; server_name = "hub"; };
  services = ( { name = "echo"; target = "127.0.0.1:%d"; }, { name = "web"; target = "127.0.0.1:%d"; } ); };
""" % (self.threads, self.road(hub), self.links, pki, pki, pki, self.work.port, self.work.web)
        self.hub_file = self.stage.write("hub%s-%d.cfg" % (self.label, hub), h)
        return self.hub_file, self.stage.write("agent%s-%d.cfg" % (self.label, hub), a)

    def start(self):
        hub = free_port()
        self.program = os.path.join(TOP, "mctunnel")
        hub_file, self.agent_file = self.config(hub)
        self.hub = [self.stage.start([self.program, "-f", hub_file])]
        wait_port(hub, "the hub")
        self.agent = [self.stage.start([self.program, "-f", self.agent_file])]
        return self.ready()

    def fresh_agent(self):
        self.stage.end(self.agent)
        self.agent = [self.stage.start([self.program, "-f", self.agent_file])]
        self.ready()


class MctunnelOneThread(Mctunnel):
    name, label, threads = "mctunnel, one thread", "-one-thread", 1


class MctunnelOneLink(Mctunnel):
    """So that all sessions are on the same."""
    name, label, links = "mctunnel, one link", "-one-link", 1


REVERSE_HUB = """frontend clients-{name}
  bind 127.0.0.1:{port} backlog 8192
  default_backend reversed-{name}
backend reversed-{name}
  server edge rhttp@
frontend agents-{name}
  bind 127.0.0.1:{hub} ssl crt {pem} alpn h2 ssl-min-ver TLSv1.3
  tcp-request session attach-srv reversed-{name}/edge
"""
REVERSE_AGENT = """backend dial-{name}
  server hub 127.0.0.1:{hub} ssl verify none alpn h2 ssl-min-ver TLSv1.3
frontend from-hub-{name}
  bind rhttp@dial-{name}/hub nbconn 2
  default_backend targets-{name}
backend targets-{name}
  server s 127.0.0.1:{to}
"""


class ReverseHttp(System):
    name, http_only = "haproxy reverse HTTP", True

    @classmethod
    def missing(cls):
        if not which("haproxy"):
            return "haproxy >= 2.9"
        version = re.search(r"version (\d+)\.(\d+)", run([which("haproxy"), "-v"]))
        return None if version and (int(version[1]), int(version[2])) >= (2, 9) else "haproxy >= 2.9 (%s is installed)" % (version[0] if version else "another one")

    def start(self):
        pem, common = self.stage.path("hub.pem"), HAPROXY.replace("mode tcp", "mode http").replace("global\n", "global\n  expose-experimental-directives\n")
        near, far = common, common
        for name, port, to in self.services():
            hub = free_port()
            near += REVERSE_HUB.format(name=name, port=port, hub=hub, pem=pem)
            far += REVERSE_AGENT.format(name=name, hub=self.road(hub), to=to)
        self.hub = haproxy(self.stage, "rh-%d.cfg" % hub, near)
        wait_port(hub, self.name)
        self.agent = haproxy(self.stage, "ra-%d.cfg" % hub, far)
        return self.ready()


class Frp(System):
    name = "frp, TLS"

    @classmethod
    def missing(cls):
        return None if which("frps") and which("frpc") else "frps, frpc"

    def start(self):
        hub = free_port()
        self.hub = [self.stage.start([which("frps"), "-c", self.stage.write("frps-%d.toml" % hub, 'bindAddr = "127.0.0.1"\nbindPort = %d\ntransport.tls.force = true\n' % hub)])]
        wait_port(hub, self.name)
        text = 'serverAddr = "127.0.0.1"\nserverPort = %d\n' % self.road(hub)
        for name, port, to in self.services():
            text += '[[proxies]]\nname = "%s"\ntype = "tcp"\nlocalIP = "127.0.0.1"\nlocalPort = %d\nremotePort = %d\n' % (name, to, port)
        self.agent = [self.stage.start([which("frpc"), "-c", self.stage.write("frpc-%d.toml" % hub, text)])]
        return self.ready()


class Chisel(System):
    name = "chisel"

    @classmethod
    def missing(cls):
        return None if which("chisel") else "chisel"

    def start(self):
        hub = free_port()
        self.hub = [self.stage.start([which("chisel"), "server", "--host", "127.0.0.1", "--port", str(hub), "--reverse"])]
        wait_port(hub, self.name)
        self.agent = [self.stage.start([which("chisel"), "client", "127.0.0.1:%d" % self.road(hub), "R:127.0.0.1:%d:127.0.0.1:%d" % (self.port, self.work.port),
                                        "R:127.0.0.1:%d:127.0.0.1:%d" % (self.web, self.work.web)])]
        return self.ready()


class Rathole(System):
    name = "rathole, TLS"

    @classmethod
    def missing(cls):
        return None if which("rathole") else "rathole"

    def start(self):
        hub, identity, ca = free_port(), self.stage.path("rathole.pfx"), self.stage.path("pki/ca.pem")
        if not os.path.exists(identity):
            run(["openssl", "pkcs12", "-export", "-out", identity, "-in", self.stage.path("pki/hub.pem"), "-inkey", self.stage.path("pki/hub.key"), "-passout", "pass:bench"])
        services = self.services()
        near = '[server]\nbind_addr = "127.0.0.1:%d"\ndefault_token = "bench"\n' % hub
        near += '[server.transport]\ntype = "tls"\n[server.transport.tls]\npkcs12 = "%s"\npkcs12_password = "bench"\n' % identity
        near += "".join('[server.services.%s]\nbind_addr = "127.0.0.1:%d"\n' % (n, p) for n, p, _ in services)
        far = '[client]\nremote_addr = "127.0.0.1:%d"\ndefault_token = "bench"\n' % self.road(hub)
        far += '[client.transport]\ntype = "tls"\n[client.transport.tls]\ntrusted_root = "%s"\nhostname = "hub"\n' % ca
        far += "".join('[client.services.%s]\nlocal_addr = "127.0.0.1:%d"\n' % (n, t) for n, _, t in services)
        self.hub = [self.stage.start([which("rathole"), self.stage.write("rs-%d.toml" % hub, near)])]
        wait_port(hub, self.name)
        self.agent = [self.stage.start([which("rathole"), self.stage.write("rc-%d.toml" % hub, far)])]
        return self.ready()


SYSTEMS = [Direct, Haproxy, Nginx, Chain, Ssh, ReverseHttp, Frp, Rathole, Chisel, Mctunnel]
