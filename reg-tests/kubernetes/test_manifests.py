#!/usr/bin/env python3
"""etc/kubernetes is what Kubernetes takes, what the founding document asks for, and of one mind with the configurations,
the Dockerfile and VERSION. Fields are held against schema.json (make-schema)."""
import json
import os
import re
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import container
import harness
import kube
import scene
from harness import check, equal, say

BASES = ("hub", "agent", "agent-daemonset")
SCALARS = {"str": str, "int": int, "bool": bool, "object": (str, int)}
API_VERSIONS = {"Namespace": "v1", "ConfigMap": "v1", "Service": "v1", "Deployment": "apps/v1", "DaemonSet": "apps/v1",
                "PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1"}


def everything():
    return [(base, o) for base in BASES for o in kube.render(base)]


def workload(base):
    return next(o for o in kube.render(base) if kube.pod(o))


# ---- what Kubernetes takes ----

def conform(schema, kind, value, at):
    """Every field is known and of its type, every required one is there."""
    words = kind.rstrip("!").split(" ", 1)
    if words[0] == "list":
        check(isinstance(value, list), at, "is no list")
        for i, v in enumerate(value):
            conform(schema, words[1], v, "%s[%d]" % (at, i))
    elif words[0] == "map":
        check(isinstance(value, dict), at, "is no map")
        for k, v in value.items():
            conform(schema, words[1], v, at + "." + k)
    elif words[0] in SCALARS:
        check(isinstance(value, SCALARS[words[0]]) and (words[0] == "bool" or not isinstance(value, bool)), at, "is no", words[0], repr(value))
    else:
        check(words[0] in schema, at, "is a", words[0], "which schema.json does not know")
        conform_object(schema, schema[words[0]], value, at)


def conform_object(schema, fields, value, at):
    check(isinstance(value, dict), at, "is no object")
    equal([k for k in value if k not in fields], [], "unknown fields of " + at)
    equal([k for k, kind in fields.items() if kind.endswith("!") and k not in value], [], "missing in " + at)
    for k, v in value.items():
        conform(schema, fields[k], v, at + "." + k)


def test_schema(_):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")) as f:
        schema = json.load(f)
    for _base, o in everything():
        name = "%s %s" % (o["kind"], o["metadata"]["name"])
        equal(o["apiVersion"], API_VERSIONS[o["kind"]], name)
        check(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", o["metadata"]["name"]), "the name", name)
        conform(schema, o["kind"], o, name)
    # the check itself finds what is wrong
    wrong = workload("hub")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbes"] = {}
    try:
        conform(schema, "Deployment", wrong, "a wrong one")
    except harness.Failed:
        return
    raise harness.Failed("an unknown field was not found")


def test_kustomize(_):
    """kubectl renders the same objects as our own reading of the kustomizations."""
    def key(o):
        return o["kind"], o["metadata"]["name"]
    for base in BASES:
        theirs = kube.kubectl(base)
        if theirs is None:
            raise harness.Skipped("there is no kubectl")
        equal(sorted(theirs, key=key), sorted(kube.render(base), key=key), base)


def test_restricted(_):
    """The Pod Security Standard "restricted", which the namespace enforces, and a root nobody writes."""
    for base in BASES:
        pod = kube.pod(workload(base))
        context = pod["securityContext"]
        equal((context["runAsNonRoot"], context["seccompProfile"]), (True, {"type": "RuntimeDefault"}), base)
        check(context["runAsUser"] > 0 and context["runAsGroup"] > 0, base, "runs as root")
        check(not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), base, "shares the host's namespaces")
        for c in pod["containers"]:
            own = c["securityContext"]
            equal((own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"], own["capabilities"]), (False, True, {"drop": ["ALL"]}), base)
            check(all("hostPort" not in p and p["containerPort"] > 1023 for p in c["ports"]), base, "has ports it may not bind")
        check(all(set(v) & {"configMap", "secret", "emptyDir"} for v in pod["volumes"]), base, "has volumes of other kinds")
        equal((pod["automountServiceAccountToken"], pod["enableServiceLinks"]), (False, False), base)


# ---- what the founding document asks for ----

def test_founding(_):
    objects = kube.render("hub")
    deployment = kube.find(objects, "Deployment", "mctunnel-hub")
    spec, pod = deployment["spec"], kube.pod(deployment)
    equal((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}), "one hub")
    equal(spec["template"]["metadata"]["labels"], {"app": "mctunnel-hub"}, "labels")
    equal(pod["terminationGracePeriodSeconds"], 30, "grace")
    hub, = pod["containers"]
    equal((hub["name"], hub["image"].split(":")[0]), ("hub", "mctunnel/hub"), "container")

    def timing(probe):
        return [probe["grpc"]["port"]] + [probe[k] for k in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")]
    equal(timing(hub["livenessProbe"]), [8443, 10, 5, 3, 3], "liveness")
    equal(timing(hub["readinessProbe"]), [8443, 5, 2, 2, 2], "readiness")
    equal((hub["livenessProbe"]["grpc"]["service"], hub["readinessProbe"]["grpc"]["service"]), ("liveness", "readiness"), "services asked for")
    budget = kube.find(objects, "PodDisruptionBudget", "mctunnel-hub-pdb")["spec"]
    equal(budget, {"minAvailable": 1, "selector": {"matchLabels": {"app": "mctunnel-hub"}}}, "disruption budget")


# ---- of one mind ----

def selectors(o):
    """What an object looks for Pods by."""
    if o["kind"] == "NetworkPolicy":
        yield o["spec"]["podSelector"]["matchLabels"]
    elif "selector" in o.get("spec", {}):
        yield o["spec"]["selector"].get("matchLabels", o["spec"]["selector"])


def test_names_agree(_):
    for base in BASES:
        objects = kube.render(base)
        o = workload(base)
        pod, ports = kube.pod(o), {p["name"] for c in kube.containers(o) for p in c["ports"]}
        for other in objects:
            for selector in selectors(other):
                equal(selector, o["spec"]["template"]["metadata"]["labels"], "selector of %s in %s" % (other["kind"], base))
            if other["kind"] == "Service":
                equal({p["targetPort"] for p in other["spec"]["ports"]} - ports, set(), "target ports of " + base)
            if other["kind"] == "NetworkPolicy":
                equal({p["port"] for r in other["spec"]["ingress"] for p in r["ports"]}, ports, "ports of the policy of " + base)
        for v in pod["volumes"]:
            if "configMap" in v:
                kube.find(objects, "ConfigMap", v["configMap"]["name"])
        for c in pod["containers"]:
            equal({m["name"] for m in c["volumeMounts"]}, {v["name"] for v in pod["volumes"]}, "volumes of " + base)


def seconds(text):
    return float(re.fullmatch(r"(\d+)s", text).group(1))


def size(text):
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) << {"k": 10, "m": 20, "g": 30}[unit[0].lower()]


def test_configurations_agree(_):
    """Ports, times and sizes of the configuration are those of the Pod."""
    for base in BASES:
        o = workload(base)
        pod, c = kube.pod(o), kube.containers(o)[0]
        text = re.sub(r"(^|\s)#.*", "", kube.find(kube.render(base), "ConfigMap")["data"]["mctunnel.cfg"])
        bound = {int(p) for p in re.findall(r'(?:address|bind) = "\*:(\d+)"', text)}
        equal(bound, {p["containerPort"] for p in c["ports"]}, "ports of " + base)
        check(seconds(re.search(r'hard_stop_after = "(.*?)"', text).group(1)) + 5 <= pod["terminationGracePeriodSeconds"], "the drain of", base)
        check(size(re.search(r'memory = "(.*?)"', text).group(1)) * 2 <= size(c["resources"]["limits"]["memory"]), "the memory of", base)
        mounts = [m["mountPath"] for m in c["volumeMounts"]]
        for path in re.findall(r'"(?:unix:)?(/(?:etc|run|var)/[^"]*)"', text) + [c["args"][1]]:
            check(any(path.startswith(m + "/") for m in mounts), path, "of", base, "is on no volume")


def test_configurations_are_good(run):
    """mctunnel -c takes them, with certificates made as the guide says."""
    folder = run.path("pki")
    tool, env = os.path.join(harness.TOP, "scripts", "mctunnel-pki"), dict(os.environ, MCTUNNEL_PKI=folder)
    for words in (("init", folder), ("hub", "hub", "hub.example.com"), ("agent", "edge-1"), ("agent", "node-1")):
        subprocess.run((tool,) + words, env=env, check=True, capture_output=True)
    names = {"agent": "edge-1", "agent-daemonset": "node-1", "hub": ""}
    for base in BASES:
        path = run.path(base + ".cfg")
        with open(path, "w") as f:
            f.write(kube.find(kube.render(base), "ConfigMap")["data"]["mctunnel.cfg"].replace("/etc/mctunnel-pki", folder))
        env = dict(os.environ, AGENT_NAME=names[base], HUB="hub.example.com:8443", NODE="192.0.2.1")
        wanted = {e["name"] for e in kube.containers(workload(base))[0].get("env", [])}
        equal(wanted <= set(env), True, "environment of " + base)
        done = subprocess.run((scene.binary(), "-c", "-f", path), env=env, capture_output=True, text=True)
        equal(done.returncode, 0, done.stdout + done.stderr)


# ---- images ----

def stages():
    return container.dockerfile(kube.DOCKERFILE)


def test_images_agree(_):
    with open(os.path.join(harness.TOP, "VERSION")) as f:
        version = f.read().strip()
    for base in BASES:
        o = workload(base)
        name, tag = kube.containers(o)[0]["image"].split(":")
        equal(tag, version, "image tag of %s (newTag in kustomization.yaml)" % base)
        said = container.image(stages(), name.split("/")[1])
        check(said, "the Dockerfile has no stage for", name)
        context = kube.pod(o)["securityContext"]
        equal(said["USER"], "%d:%d" % (context["runAsUser"], context["runAsGroup"]), "user of " + name)
        equal(said["STOPSIGNAL"], "SIGUSR1", "what ends " + name)
        exposed = {int(p) for p in said["EXPOSE"].split()}
        check(exposed <= {p["containerPort"] for p in kube.containers(o)[0]["ports"]}, "ports of", name)
        equal(json.loads(said["ENTRYPOINT"]), ["/usr/sbin/mctunnel"], "program of " + name)


def test_dockerfile(_):
    """What it copies is there and not ignored; it builds with the packages that the build needs, and runs with those of its libraries."""
    os.chdir(harness.TOP)
    files = container.sources(stages())
    with open(".dockerignore") as f:
        sent = {line[1:] for line in f.read().split() if line.startswith("!")}
    for path in files:
        check(os.path.exists(path) and path.rstrip("/") in sent, path, "is not there, or not sent")
    build, program = ({p for _, text in stages()[i]["steps"] for run in re.findall(r"--no-install-recommends (.*?)(?:&&|$)", text) for p in run.split()}
                      for i in (0, 1))
    with open("scripts/run-tests") as f:
        equal(build, set(re.search(r'^BUILD_PACKAGES="(.*)"', f.read(), re.M).group(1).split()), "packages of the build")
    loaded = subprocess.run(("ldd", scene.release_binary()), capture_output=True, text=True, check=True).stdout
    needed = set()
    for library in re.findall(r"(/\S+) \(0x", loaded):
        found = subprocess.run(("dpkg-query", "-S", os.path.realpath(library)), capture_output=True, text=True).stdout
        needed |= {found.split(":")[0]} if found else set()
    missing = sorted(needed - program - {"libc6"})
    say("libraries of", ", ".join(sorted(needed)))
    equal(missing, [], "packages that the image lacks")
    known = subprocess.run(("apt-cache", "pkgnames", "lib"), capture_output=True, text=True).stdout.split()
    if len(known) > 1000:
        equal(sorted(p for p in build | program if p.startswith("lib") and p not in known), [], "packages that Debian does not have")


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
