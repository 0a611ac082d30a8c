"""Kubernetes in small: renders our kustomizations, and runs a Pod as kubelet does, on this machine."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import time

import container
import grpc
import harness
import proc
import tcp
import yaml

FOLDER = os.path.join(harness.TOP, "etc", "kubernetes")
DOCKERFILE = os.path.join(harness.TOP, "etc", "docker", "Dockerfile")


# ---- manifests ----

def _load(path):
    with open(path) as f:
        return [d for d in yaml.safe_load_all(f) if d]


def render(name):
    """The objects of etc/kubernetes/NAME, as kubectl kustomize prints them."""
    folder = os.path.join(FOLDER, name)
    k, = _load(os.path.join(folder, "kustomization.yaml"))
    objects = [o for r in k["resources"] for o in _load(os.path.join(folder, r))]
    for generator in k.get("configMapGenerator", []):
        data = {}
        for file in generator["files"]:
            with open(os.path.join(folder, file)) as f:
                data[file] = f.read()
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
    tags = {i["name"]: i["newTag"] for i in k.get("images", [])}
    for o in objects:
        if o["kind"] != "Namespace":
            o["metadata"]["namespace"] = k["namespace"]
        for c in containers(o):
            image = c["image"].rsplit(":", 1)[0]
            c["image"] = "%s:%s" % (image, tags[image]) if image in tags else c["image"]
    return objects


def pod(o):
    """The Pod's specification in a Deployment or DaemonSet, or None."""
    return o["spec"]["template"]["spec"] if o["kind"] in ("Deployment", "DaemonSet") else None


def containers(o):
    return pod(o)["containers"] if pod(o) else []


def find(objects, kind, name=None):
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    harness.equal(len(found), 1, "objects %s %s" % (kind, name or ""))
    return found[0]


def kubectl(name):
    """What kubectl kustomize prints, or None when this machine has none that works."""
    if not shutil.which("kubectl"):
        return None
    done = subprocess.run(("kubectl", "kustomize", os.path.join(FOLDER, name)), capture_output=True, text=True)
    harness.equal(done.returncode, 0, done.stderr)
    return [d for d in yaml.safe_load_all(done.stdout) if d]


# ---- a Pod that runs ----

class Pod:
    """The Pod of a Deployment, its image made of the programs under test (or the root file system in MCTUNNEL_ROOTFS)."""

    def __init__(self, run, name, programs, secrets, hosts=None, host="127.0.0.1", launcher=(), edit=None):
        """secrets: {name: {file: content}}; hosts: {name: address}; edit: changes the configuration's text."""
        self.run, self.host, self.launcher = run, host, tuple(launcher)
        self.objects = render(name)
        workload = [o for o in self.objects if pod(o)][0]
        self.spec, self.container = pod(workload), containers(workload)[0]
        self.name, self.folder = workload["metadata"]["name"], run.path("pod-" + name)
        self.image = container.image(container.dockerfile(DOCKERFILE), self.container["image"].split(":")[0].split("/")[1])
        self.edit = edit or (lambda text: text)
        os.makedirs(self.folder)
        os.chmod(self.folder, 0o755)
        self._make_root(programs, hosts or {})
        self._make_volumes(secrets)

    def _path(self, *names):
        return os.path.join(self.folder, *names)

    def _make_root(self, programs, hosts):
        given = os.environ.get("MCTUNNEL_ROOTFS")
        if given:
            self.root = given
        else:
            self.root = container.small_root(self._path("root"), programs)
        with open(self._path("hosts"), "w") as f:
            f.write("127.0.0.1 localhost\n" + "".join("%s %s\n" % (a, n) for n, a in hosts.items()))
        os.chmod(self._path("hosts"), 0o644)

    def write_config(self, name):
        """Into a volume, as kubelet does it: a folder of this generation, and one symbolic link that moves."""
        data = find(self.objects, "ConfigMap", name)["data"]
        volume = self._path("volumes", "config-" + name)
        generation = "..%d" % time.monotonic_ns()
        os.makedirs(os.path.join(volume, generation))
        for file, text in data.items():
            with open(os.path.join(volume, generation, file), "w") as f:
                f.write(self.edit(text))
            if not os.path.lexists(os.path.join(volume, file)):
                os.symlink("..data/" + file, os.path.join(volume, file))
        os.symlink(generation, os.path.join(volume, "..new"))
        os.rename(os.path.join(volume, "..new"), os.path.join(volume, "..data"))
        return volume

    def _write_secret(self, source, files):
        volume = self._path("volumes", "secret-" + source["secretName"])
        os.makedirs(volume)
        for file, content in files.items():
            path = os.path.join(volume, file)
            with open(path, "wb") as f:
                f.write(content)
            os.chown(path, 0, self.spec["securityContext"]["fsGroup"])
            os.chmod(path, source.get("defaultMode", 0o644))
        return volume

    def _empty(self, name):
        volume = self._path("volumes", "empty-" + name)
        os.makedirs(volume)
        os.chown(volume, 0, self.spec["securityContext"]["fsGroup"])
        os.chmod(volume, 0o2777)
        return volume

    def _make_volumes(self, secrets):
        self.volumes = {}
        for v in self.spec["volumes"]:
            if "configMap" in v:
                self.volumes[v["name"]] = self.write_config(v["configMap"]["name"])
            elif "secret" in v:
                self.volumes[v["name"]] = self._write_secret(v["secret"], secrets[v["secret"]["secretName"]])
            else:
                harness.check("emptyDir" in v, "a volume like", v)
                self.volumes[v["name"]] = self._empty(v["name"])

    def environment(self, **downward):
        found = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        for e in self.container.get("env", []):
            found[e["name"]] = e["value"] if "value" in e else downward[e["valueFrom"]["fieldRef"]["fieldPath"].replace(".", "_")]
        return found

    def start(self, **downward):
        """downward: what the downward API says, status_hostIP for status.hostIP."""
        context, user = self.container["securityContext"], self.spec["securityContext"]
        mounts = [(self.volumes[m["name"]], m["mountPath"], m.get("readOnly", False)) for m in self.container["volumeMounts"]]
        spec = {"root": self.root, "read_only": context["readOnlyRootFilesystem"], "mounts": mounts + [(self._path("hosts"), "/etc/hosts", True)],
                "uid": user["runAsUser"], "gid": user["runAsGroup"], "groups": [user["fsGroup"]], "drop": "ALL" in context["capabilities"]["drop"],
                "args": json.loads(self.image["ENTRYPOINT"]) + self.container.get("args", json.loads(self.image["CMD"])),
                "env": self.environment(**downward)}
        self.log_path = self._path("log")
        self.run.logs.append(self.log_path)
        self.started = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.popen = proc.start(self.run, [*self.launcher, *container.command(spec, self._path("spec.json"))],
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def first(self):
        """The container's process 1, as seen from here."""
        harness.check(self.popen.poll() is None, self.name, "has ended with", self.popen.returncode)
        return harness.wait_until(lambda: proc.children(self.popen.pid), "process 1 of " + self.name)[0]

    def execute(self, *words):
        """kubectl exec: (exit code, output)."""
        user = self.spec["securityContext"]
        done = subprocess.run(("nsenter", "--target", str(self.first()), "--mount", "--net", "--root", "--wd", "--setuid", str(user["runAsUser"]),
                               "--setgid", str(user["runAsGroup"]), *words), capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def port(self, name):
        return next(p["containerPort"] for p in self.container["ports"] if p["name"] == name)

    def serves(self, service, port):
        """Where a client of the Service's port arrives in this Pod."""
        ports = find(self.objects, "Service", service)["spec"]["ports"]
        return self.host, self.port(next(p["targetPort"] for p in ports if p["port"] == port))

    def probe(self, kind):
        """One probe as kubelet makes it."""
        p = self.container[kind + "Probe"]
        if "httpGet" in p:
            return self._probe_http(p["httpGet"], p["timeoutSeconds"])
        return _probe_grpc("%s:%d" % (self.host, p["grpc"]["port"]), p["grpc"].get("service", ""), p["timeoutSeconds"])

    def _probe_http(self, get, timeout):
        c = http.client.HTTPConnection(self.host, self.port(get["port"]), timeout=timeout)
        try:
            c.request("GET", get["path"])
            return 200 <= c.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            c.close()

    def wait_ready(self):
        """Seconds from its start until the readiness probe is content."""
        first = self.host, self.container["ports"][0]["containerPort"]
        harness.wait_until(lambda: not tcp.refused(first), self.name + " to listen", pause=0.005)  # a client of gRPC would wait a second to try again
        harness.wait_until(lambda: self.probe("readiness") and self.first(), self.name + " to be ready", pause=0.05)
        return time.monotonic() - self.started

    def delete(self):
        """What Kubernetes does first: the image's STOPSIGNAL to process 1."""
        first = self.first()
        self.deleted = time.monotonic()
        os.kill(first, getattr(signal, self.image.get("STOPSIGNAL", "SIGTERM")))

    def wait_end(self):
        """Seconds from delete() to its end, which must be a good one within the time of grace."""
        code = self.popen.wait(self.spec["terminationGracePeriodSeconds"])
        harness.equal(code, 0, "exit code of " + self.name)
        return time.monotonic() - self.deleted


def _probe_grpc(address, service, timeout):
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        message = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
        try:
            return channel.unary_unary("/grpc.health.v1.Health/Check")(message, timeout=timeout, wait_for_ready=True) == b"\x08\x01"
        except grpc.RpcError:
            return False
