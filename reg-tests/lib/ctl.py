"""The admin socket of a program under test, and reloads through it."""
import copy
import socket

import harness
import scene


def admin_settings(run, name):
    return {"admin": ({"bind": "unix:" + run.path(name + ".sock"), "level": "admin"},)}


def ask(path, line):
    """An answer of the admin socket at `path`."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(harness.PATIENCE)
        s.connect(path)
        s.sendall(line.encode() + b"\n")
        answer = b""
        while True:
            more = s.recv(65536)
            if not more:
                return answer.decode()
            answer += more


def command(run, name, line):
    """An answer of the admin socket of `name`."""
    return ask(run.path(name + ".sock"), line)


def write(program, config):
    with open(program.config_path, "w") as f:
        f.write(scene.libconfig(config))


def changed(program, change):
    """The configuration after change(copy of it), in the file as well."""
    config = copy.deepcopy(program.config)
    change(config)
    write(program, config)
    program.config = config
    return config


def reload(program, change, good=True):
    before = program.config
    changed(program, change)
    answer = command(program.run, program.name, "reload")
    harness.equal(answer.startswith("Reloaded."), good, "outcome of: " + answer)
    if not good:
        program.config = before
    return answer
