"""Certificates for tests, made with the openssl command as they are asked for: a CA, hubs, agents, and bad ones."""
import os
import subprocess
import time

import harness

CONFIG = """
[ca]
default_ca = here
[here]
database = index.txt
new_certs_dir = new
serial = serial
crlnumber = crlnumber
default_md = sha256
default_days = 30
default_crl_days = 30
unique_subject = no
policy = any
copy_extensions = copy
x509_extensions = leaf
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:false
authorityKeyIdentifier = keyid
"""


class Pki:
    """One CA in a folder. Its files: ca.pem, crl.pem (after revoke), NAME.pem, NAME.key."""

    def __init__(self, folder, name="Test CA"):
        self.dir = folder
        os.makedirs(os.path.join(folder, "new"))
        for file, text in (("ca.cnf", CONFIG), ("index.txt", ""), ("serial", "1000\n"), ("crlnumber", "01\n")):
            with open(self.path(file), "w") as f:
                f.write(text)
        self.openssl("req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                     "-subj", "/CN=" + name, "-config", "ca.cnf", "-extensions", "root", "-keyout", "ca.key", "-out", "ca.pem")

    def path(self, name):
        return os.path.join(self.dir, name)

    def openssl(self, *args):
        done = subprocess.run(("openssl",) + args, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        harness.check(done.returncode == 0, "openssl", " ".join(args), "\n", done.stdout)

    def make(self, file, cn, dns=(), since=-1, until=30):
        """A certificate that is valid from `since` to `until`, in days from now. Returns (cert, key) paths."""
        subject = ["-subj", "/CN=" + cn]
        if dns:
            subject += ["-addext", "subjectAltName=" + ",".join("DNS:" + d for d in dns)]
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "ca.cnf",
                     *subject, "-keyout", file + ".key", "-out", file + ".csr")
        self.openssl("ca", "-batch", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-notext",
                     "-startdate", _date(since), "-enddate", _date(until), "-in", file + ".csr", "-out", file + ".pem")
        return self.path(file + ".pem"), self.path(file + ".key")

    def hub(self, file="hub"):
        return self._once(file, file, ("hub.test", "localhost"))

    def agent(self, name):
        return self._once(name, name, (name,))

    def _once(self, file, cn, dns):
        if os.path.exists(self.path(file + ".pem")):
            return self.path(file + ".pem"), self.path(file + ".key")
        return self.make(file, cn, dns)

    def revoke(self, file):
        self.openssl("ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-revoke", file + ".pem")

    def crl(self):
        """The current list of revoked certificates."""
        self.openssl("ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-gencrl", "-out", "crl.pem")
        return self.path("crl.pem")

    @property
    def ca(self):
        return self.path("ca.pem")


def _date(days):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 86400 * days))
