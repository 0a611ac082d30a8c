#!/usr/bin/env python3
"""Every file below etc/ is checked by the tool it is for, so that no example rots. A file that no checker knows is a failure:
add a checker for its kind. The configurations that README.md and doc/*.md show are checked too."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import container
import harness
import netns
import scene
from harness import check, equal, say

ETC = os.path.join(harness.TOP, "etc")
# what is about this machine and not about the example
EXPECTED = re.compile(r"global\.maxconn: .* may need|^$|Configuration file is valid")


def tool(name):
    if not shutil.which(name):
        raise harness.Skipped("there is no " + name)
    return name


def said(*words, **options):
    """What a tool says; it must be content."""
    done = subprocess.run((tool(words[0]),) + words[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, **options)
    equal(done.returncode, 0, " ".join(words) + "\n" + done.stdout)
    return done.stdout


def read(path):
    with open(path) as f:
        return f.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    return path


# ---- mctunnel -c ----

class Site:
    """/etc/mctunnel as an operator has it who follows the examples: they lie there, and all certificates they name."""

    def __init__(self, run):
        self.top = run.path("site")
        self.folder, self.pki = self.top + "/etc/mctunnel", self.top + "/etc/mctunnel/pki"
        self.env = dict(os.environ, MCTUNNEL_PKI=self.pki, PKI=self.pki, AGENT_NAME="node-1", NODE="192.0.2.1", HUB="hub.example.com:8443")
        shutil.copytree(ETC + "/examples", self.folder)
        for script in [os.path.join(d, f) for d, _, names in os.walk(self.folder) for f in names if f.endswith(".lua")]:
            write(script, self.here(read(script)))
        for name in ("run/mctunnel", "var/log/mctunnel", "var/lib/mctunnel/empty"):
            os.makedirs(os.path.join(self.top, name))
        self._pki("init", self.pki)

    def _pki(self, *words):
        said(os.path.join(harness.TOP, "scripts", "mctunnel-pki"), *words, env=self.env)

    def _make(self, name):
        """A certificate; where a folder of them is wanted, a file with the key in it."""
        if not os.path.exists("%s/%s.pem" % (self.pki, name)):
            self._pki("hub" if "hub" in name or "." in name else "agent", name)

    def settle(self, text):
        """The text with this site's paths, and everything made that it names."""
        text = text.replace("/etc/mctunnel-pki", "/etc/mctunnel/pki").replace("${PKI}", "/etc/mctunnel/pki")
        bare = re.sub(r"^\s*#.*|\s#.*", "", text, flags=re.M)
        for name in re.findall(r"/etc/mctunnel/pki/([\w.${}-]+)\.key", bare):
            self._make(name.replace("${AGENT_NAME}", "node-1"))
        if "/pki/ticket.keys" in bare and not os.path.exists(self.pki + "/ticket.keys"):
            self._pki("ticket-key")
        for folder in set(re.findall(r'"/etc/mctunnel/([\w-]+)/"', bare)):
            self._make("www.example.com")
            bundle = read(self.pki + "/www.example.com.pem") + read(self.pki + "/www.example.com.key")
            os.chmod(write("%s/%s/www.example.com.pem" % (self.folder, folder), bundle), 0o600)
        self._settle_scripts(bare)
        return self.here(re.sub(r'(user|group) = "mctunnel"', r'\1 = "root"', text))

    def _settle_scripts(self, text):
        """A script that a text names and does not show has the policies it names."""
        for path in re.findall(r'"/etc/mctunnel/([\w./-]+\.lua)"', text):
            if not os.path.exists(os.path.join(self.folder, path)):
                write(os.path.join(self.folder, path), "".join('mctunnel.policy("%s", function() return "allow" end)\n' % name
                                                               for name in sorted(set(re.findall(r'policy = "(\w+)"', text)))))

    def here(self, text):
        return re.sub(r"/(etc|run|var/log|var/lib)/mctunnel\b", lambda m: self.top + m.group(0), text)

    def check(self, path, text):
        copy = write(os.path.join(self.folder, "checked-" + os.path.basename(path)), self.settle(text))
        lines = said(scene.binary(), "-c", "-f", copy, env=self.env).splitlines()
        equal([line for line in lines if not EXPECTED.search(line)], [], "findings in " + path)


SITES = {}


def site(run):
    """One for a run."""
    if run not in SITES:
        SITES[run] = Site(run)
    return SITES[run]


def check_cfg(run, path):
    site(run).check(path, read(path))


def check_lua(run, path):
    """It loads, into a hub that does nothing else."""
    name = os.path.relpath(path, ETC + "/examples")
    site(run).check(path + ".cfg", read(ETC + "/examples/quickstart.cfg").replace("global:\n{", 'global:\n{\n  lua = { load = [ "/etc/mctunnel/%s" ]; };' % name))


def check_data(_, path):
    """Lists and the like: some configuration or script reads it."""
    readers = [os.path.join(d, f) for d, _, files in os.walk(ETC) for f in files if f.endswith((".cfg", ".lua"))]
    check(any(os.path.basename(path) in read(r) for r in readers), "nobody reads", path)


# ---- other tools ----

def check_rules(_, path):
    said("promtool", "check", "rules", path)


def check_prometheus(_, path):
    said("promtool", "check", "config", path)


def expressions(node):
    if isinstance(node, dict):
        yield from [node["expr"]] if "expr" in node else []
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from expressions(inner)


def check_dashboard(run, path):
    """JSON; panels that can be told apart and do not overlap; every expression is one."""
    board = json.loads(read(path))
    panels = board["panels"]
    equal(len({p["id"] for p in panels}), len(panels), "ids of panels")
    taken = set()
    for p in panels:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        check(not cells & taken and g["x"] + g["w"] <= 24, p["title"], "overlaps")
        taken |= cells
    found = [e.replace("$__rate_interval", "1m") for e in expressions(board)]
    check(len(found) >= len([p for p in panels if p["type"] != "row"]), "panels without an expression")
    rules = [{"record": "x:%d" % i, "expr": e} for i, e in enumerate(found)]
    said("promtool", "check", "rules", write(run.path("dashboard/rules.yml"), json.dumps({"groups": [{"name": "x", "rules": rules}]})))


def check_service(run, path):
    copy = write(run.path("systemd/" + os.path.basename(path)), read(path).replace("/usr/sbin/mctunnel", "/bin/true"))
    lines = said("systemd-analyze", "verify", "--man=no", copy).splitlines()
    equal([line for line in lines if "mctunnel" in line], [], "what systemd-analyze verify says")


def check_dropin(run, path):
    """With the unit it is for."""
    unit = run.path("systemd-%s/mctunnel.service" % os.path.basename(path))
    write(unit, read(ETC + "/systemd/mctunnel.service").replace("/usr/sbin/mctunnel", "/bin/true"))
    write(unit + ".d/" + os.path.basename(path), read(path))
    lines = said("systemd-analyze", "verify", "--man=no", unit).splitlines()
    equal([line for line in lines if "mctunnel" in line], [], "what systemd-analyze verify says")


def check_sysusers(run, path):
    os.makedirs(run.path("sysusers/etc"))
    said("systemd-sysusers", "--root=" + run.path("sysusers"), path)


def check_tmpfiles(run, path):
    root = run.path("tmpfiles")
    write(root + "/etc/passwd", "root:x:0:0::/:/bin/sh\nmctunnel:x:999:999::/:/bin/false\n")
    write(root + "/etc/group", "root:x:0:\nmctunnel:x:999:\n")
    said("systemd-tmpfiles", "--root=" + root, "--create", path)
    check(os.path.isdir(root + "/run/mctunnel"), "no folder was made")


def check_keepalived(run, path):
    """On a host with such an interface and such scripts, keepalived has nothing to say."""
    if os.geteuid() != 0:
        raise harness.Skipped("keepalived needs root")
    netns.enter_own()
    subprocess.run(("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"), check=True)
    subprocess.run(("ip", "link", "set", "eth0", "up"), check=True)
    text = read(path)
    scripts = run.path("keepalived/libexec")
    for name in re.findall(r'"/usr/libexec/mctunnel/([\w-]+)', text):
        os.makedirs(scripts, exist_ok=True)
        shutil.copy(os.path.join(harness.TOP, "scripts", name), scripts)
    write(run.path("keepalived/health"), "0\n")
    text = text.replace("/usr/libexec/mctunnel", scripts).replace("/run/mctunnel/health", run.path("keepalived/health"))
    copy = write(run.path("keepalived/" + os.path.basename(path)), text.replace("script_user mctunnel mctunnel", "script_user root"))
    equal(said("keepalived", "-t", "-f", copy), "", "what keepalived says")


def check_logrotate(run, path):
    logs = run.path("rotated")
    os.makedirs(logs)
    os.chmod(write(logs + "/mctunnel.log", "a line\n"), 0o640)
    text = read(path).replace("/var/log/mctunnel", logs).replace("mctunnel mctunnel", "root root").replace("systemctl kill", "echo")
    copy = write(run.path("logrotate/" + os.path.basename(path)), text)
    os.chmod(copy, 0o644)
    said("logrotate", "--force", "--state", run.path("logrotate.state"), copy)
    equal(sorted(os.listdir(logs)), ["mctunnel.log", "mctunnel.log.1"], "files after a rotation")


def check_kustomization(_, path):
    """It is a kustomization that kubectl can build, or part of one."""
    import yaml
    folder = os.path.dirname(path)
    with open(folder + "/kustomization.yaml") as f:
        parts = yaml.safe_load(f)
    equal(os.path.basename(path) in parts["resources"] + ["kustomization.yaml"], True, "kustomization.yaml names " + path)
    if os.path.basename(path) == "kustomization.yaml" and shutil.which("kubectl"):
        said("kubectl", "kustomize", folder)


def check_dockerfile(_, path):
    stages = container.dockerfile(path)
    names = [s["name"] for s in stages]
    for i, stage in enumerate(stages):
        check(stage["base"] in names[:i] or ":" in stage["base"], "stage", stage["name"], "is built on nothing")
        words = {word for word, _ in stage["steps"]}
        known = {"RUN", "COPY", "WORKDIR", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD", "EXPOSE", "ENV", "LABEL"}
        equal(words - known, set(), "instructions of " + path)


def check_completion(_, path):
    said("bash", "-n", path)


def check_shell(_, path):
    said("shellcheck", "-x", path)


CHECKERS = (
    (r"(.*/)?[\w-]+\.cfg", check_cfg),
    (r"examples/.*\.lua", check_lua),
    (r"examples/.*\.(lst|map|txt|pem)", check_data),
    (r"prometheus/.*\.rules\.yml", check_rules),
    (r"prometheus/prometheus\.yml", check_prometheus),
    (r"grafana/.*\.json", check_dashboard),
    (r"systemd/.*\.service", check_service),
    (r"systemd/sysusers\.conf", check_sysusers),
    (r"systemd/tmpfiles\.conf", check_tmpfiles),
    (r"systemd/mctunnel-.*\.conf", check_dropin),
    (r"keepalived/.*\.conf", check_keepalived),
    (r"logrotate/\w+", check_logrotate),
    (r"kubernetes/.*\.yaml", check_kustomization),
    (r"docker/Dockerfile", check_dockerfile),
    (r"bash-completion/\w+", check_completion),
    (r".*\.sh|keepalived/[\w-]+", check_shell),
)


def checker(path):
    return next((f for pattern, f in CHECKERS if re.fullmatch(pattern, path)), None)


def files():
    return sorted(os.path.relpath(os.path.join(d, f), ETC) for d, _, names in os.walk(ETC) for f in names)


def test_every_file(run):
    unknown, skipped = [p for p in files() if not checker(p)], []
    equal(unknown, [], "files that no checker knows")
    wrong = []
    for path in files():
        try:
            checker(path)(run, os.path.join(ETC, path))
        except harness.Skipped as why:
            skipped.append("%s (%s)" % (path, why))
        except harness.Failed as e:
            wrong.append("%s: %s" % (path, e))
    say("%d files checked; skipped: %s" % (len(files()) - len(skipped), ", ".join(skipped) or "none"))
    check(not wrong, "\n" + "\n".join(wrong))


def shown(path):
    """The configurations in a text: indented blocks that begin like one."""
    for block in re.findall(r"(?:^(?: {4}.*)?\n)+", read(path), re.M):
        text = re.sub(r"^ {4}", "", block, flags=re.M).strip("\n") + "\n"
        if re.match(r"(global|hub|agent|tunnels|listeners)\s*[:=]", text):
            yield text
        elif re.match(r"\{ name = \S+; bind = ", text):
            yield "listeners = ( %s );\n" % text


def completed(text):
    """What it leaves out, as it does not matter there."""
    sections = set(re.findall(r"^(\w+)\s*[:=]", text, re.M))
    if not sections & {"hub", "agent"}:
        text += re.search(r"^hub:.*?^};", read(ETC + "/examples/quickstart.cfg"), re.M | re.S).group(0) + "\n"
    if "listeners" in sections and "tunnels" not in sections:
        names = sorted(set(re.findall(r'"([\w-]+)/[\w-]+"', text)) | {"site-a"})
        text += "tunnels = ( %s );\n" % ", ".join('{ name = "%s"; agents = [ "edge-1" ]; services = [ "*" ]; }' % n for n in names)
    return text


def test_texts(run):
    found = 0
    for path in [harness.TOP + "/README.md"] + sorted(glob.glob(harness.TOP + "/doc/*.md")):
        for text in shown(path):
            site(run).check(os.path.basename(path) + ".cfg", completed(text))
            found += 1
    say(found, "configurations in README.md and doc/*.md")
    check(found >= 3, "the configurations of README.md were not found")


def test_checkers_find_faults(run):
    """A checker that accepts anything would prove nothing."""
    for name, text in (("hub.cfg", "hub: { nonsense = 1; };\n"), ("prometheus/x.rules.yml", "groups: 1\n"), ("grafana/x.json", "{}\n"),
                       ("systemd/mctunnel.service", "[Service]\nExecStart=mctunnel\n"), ("systemd/mctunnel-x.conf", "[Service]\nNonsense=1\n"), ("keepalived/x.conf", "nonsense here\n"),
                       ("logrotate/x", "nonsense {\n"), ("docker/Dockerfile", "FROM nothing AS x\nNONSENSE y\n"), ("x.sh", "#!/bin/sh\necho $x\n"),
                       ("bash-completion/x", "if\n")):
        path = write(run.path("bad/" + name), text)
        try:
            checker(name)(run, path)
        except (harness.Failed, KeyError):
            continue
        except harness.Skipped:
            continue
        raise harness.Failed("no fault was found in a bad " + name)


if __name__ == "__main__":
    harness.main(globals(), threads=(1,))
