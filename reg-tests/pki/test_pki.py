"""mctunnel-pki: what it issues is what hub and agent need, keys are private and never overwritten."""
import base64
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

PKI = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "mctunnel-pki")


def openssl(*words):
    return subprocess.run(["openssl", *words], capture_output=True, text=True)


class Pki(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="mctunnel-pki-")
        self.addCleanup(shutil.rmtree, self.top)
        self.dir = os.path.join(self.top, "with a blank")
        self.good("init", self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def content(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def run_pki(self, *words, **env):
        return subprocess.run([PKI, *words], capture_output=True, text=True, env={**os.environ, "MCTUNNEL_PKI": self.dir, **env})

    def good(self, *words, **env):
        r = self.run_pki(*words, **env)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(r.stderr, "")
        return r.stdout

    def bad(self, expected, *words, **env):
        r = self.run_pki(*words, **env)
        self.assertEqual(r.returncode, 1, r.stdout)
        self.assertIn(expected, r.stderr)

    def verify(self, name, purpose, *more):
        return openssl("verify", "-purpose", purpose, "-CAfile", self.path("ca.pem"), *more, self.path(name + ".pem"))

    def text_of(self, name):
        return openssl("x509", "-in", self.path(name + ".pem"), "-noout", "-text").stdout

    def test_authority(self):
        ca = self.text_of("ca")
        self.assertIn("CA:TRUE", ca)
        self.assertIn("Certificate Sign, CRL Sign", ca)
        self.assertEqual(openssl("crl", "-in", self.path("crl.pem"), "-CAfile", self.path("ca.pem"), "-noout").returncode, 0)
        self.assertEqual(openssl("x509", "-in", self.path("ca.pem"), "-noout", "-checkend", str(3640 * 86400)).returncode, 0)
        before = self.content("ca.key")
        self.bad("never overwritten", "init", self.dir)
        self.assertEqual(self.content("ca.key"), before)

    def test_hub(self):
        self.good("hub", "hub", "hub.example.com", "127.0.0.1", "::1")
        self.assertEqual(self.verify("hub", "sslserver").returncode, 0)
        names = self.text_of("hub")
        for word in ("DNS:hub,", "DNS:hub.example.com", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1", "prime256v1"):
            self.assertIn(word, names)
        r = openssl("x509", "-in", self.path("hub.pem"), "-noout", "-checkhost", "hub.example.com")
        self.assertIn("does match", r.stdout)

    def test_agent(self):
        self.good("agent", "edge-1")
        self.assertEqual(self.verify("edge-1", "sslclient").returncode, 0)
        self.assertNotEqual(self.verify("edge-1", "sslserver").returncode, 0)
        self.assertIn("DNS:edge-1", self.text_of("edge-1"))
        self.assertIn("CN = edge-1", self.text_of("edge-1"))

    def test_keys_are_private(self):
        self.good("hub", "hub")
        self.good("agent", "edge-1")
        for folder, _, files in os.walk(self.dir):
            for name in files:
                mode = stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
                if name.endswith(".key"):
                    self.assertEqual(mode, 0o600, name)
        for name in ("ca.pem", "crl.pem", "hub.pem", "edge-1.pem"):
            self.assertEqual(stat.S_IMODE(os.stat(self.path(name)).st_mode), 0o644, name)

    def test_never_overwrites(self):
        self.good("agent", "edge-1")
        key = self.content("edge-1.key")
        self.bad("exists already", "agent", "edge-1")
        self.bad("exists already", "hub", "edge-1")
        os.unlink(self.path("edge-1.pem"))
        self.bad("never overwritten", "agent", "edge-1")
        self.assertEqual(self.content("edge-1.key"), key)

    def test_renew(self):
        self.good("hub", "hub", "127.0.0.1", MCTUNNEL_PKI_DAYS="3")
        self.assertNotEqual(openssl("x509", "-in", self.path("hub.pem"), "-noout", "-checkend", str(5 * 86400)).returncode, 0)
        key = self.content("hub.key")
        self.good("renew", "hub")
        self.assertEqual(openssl("x509", "-in", self.path("hub.pem"), "-noout", "-checkend", str(800 * 86400)).returncode, 0)
        self.assertEqual(self.content("hub.key"), key)
        self.assertIn("IP Address:127.0.0.1", self.text_of("hub"))
        self.assertIn("TLS Web Server", self.text_of("hub"))

    def test_revoke(self):
        crl = ("-crl_check", "-CRLfile", self.path("crl.pem"))
        self.good("agent", "edge-1")
        self.good("agent", "edge-11")
        self.good("renew", "edge-1")
        self.assertEqual(self.verify("edge-1", "sslclient", *crl).returncode, 0)
        self.good("revoke", "edge-1")
        r = self.verify("edge-1", "sslclient", *crl)
        self.assertIn("certificate revoked", r.stdout + r.stderr)
        self.assertEqual(self.verify("edge-11", "sslclient", *crl).returncode, 0)
        shown = openssl("crl", "-in", self.path("crl.pem"), "-noout", "-text").stdout
        self.assertEqual(len(re.findall("Serial Number", shown)), 2, "the renewed one and its predecessor")
        self.bad("revoked already", "revoke", "edge-1")
        self.bad("has been revoked", "renew", "edge-1")

    def test_issue_again_after_revocation(self):
        self.good("agent", "edge-1")
        old = self.content("edge-1.key")
        self.good("revoke", "edge-1")
        self.good("agent", "edge-1")
        self.assertNotEqual(self.content("edge-1.key"), old)
        self.assertEqual(self.verify("edge-1", "sslclient", "-crl_check", "-CRLfile", self.path("crl.pem")).returncode, 0)
        kept = [self.content("db/" + f) for f in os.listdir(self.path("db")) if f.endswith(".key")]
        self.assertEqual(kept, [old])

    def test_tolerates_slow_clocks(self):
        self.good("agent", "edge-1")
        half_an_hour_ago = subprocess.run(["date", "-d", "-30 min", "+%s"], capture_output=True, text=True).stdout.strip()
        r = self.verify("edge-1", "sslclient", "-attime", half_an_hour_ago)
        self.assertNotIn("error 9 at 0 depth", r.stdout + r.stderr)

    def test_keys_for_the_service(self):
        if os.geteuid() != 0:
            self.skipTest("only root gives files away")
        self.good("agent", "edge-1", MCTUNNEL_PKI_OWNER="daemon")
        self.good("hub", "hub", MCTUNNEL_PKI_OWNER="nobody-of-that-name")
        owners = [os.stat(self.path(f)).st_uid for f in ("edge-1.key", "hub.key", "ca.key")]
        self.assertEqual(owners, [pwd.getpwnam("daemon").pw_uid, 0, 0])
        self.assertEqual(stat.S_IMODE(os.stat(self.path("edge-1.key")).st_mode), 0o600)

    def test_ticket_keys(self):
        seen = []
        for _ in range(4):
            self.assertIn("give the file to both hubs", self.good("ticket-key"))
            keys = [line for line in self.content("ticket.keys").splitlines() if not line.startswith("#")]
            self.assertEqual(keys[1:], seen[:2])
            self.assertEqual([len(base64.b64decode(k, validate=True)) for k in keys], [80] * len(keys))
            self.assertEqual(stat.S_IMODE(os.stat(self.path("ticket.keys")).st_mode), 0o600)
            seen = keys
        self.assertEqual(len(set(seen)), 3)

    def test_mistakes(self):
        self.bad("is no good name", "agent", "two words")
        self.bad("is no good name", "agent", "../up")
        self.bad("choose another", "agent", "ca")
        self.bad("Usage", "agent")
        self.bad("Usage", "nonsense")
        self.bad("one name", "agent", "a", "b")
        self.bad("neither a host name", "hub", "hub", "a,b")
        self.bad("no certificate for", "revoke", "nobody")
        self.bad("number of days", "agent", "x", MCTUNNEL_PKI_DAYS="soon")
        self.bad("must be from 1 to 3650", "agent", "x", MCTUNNEL_PKI_DAYS="0")
        self.bad("number of days from 1 to 3650", "agent", "x", MCTUNNEL_PKI_DAYS="99999999999999999999")
        self.bad("list takes no name", "list", "x")

    def test_a_failure_leaves_nothing_in_the_way(self):
        self.bad("999.1.1.1", "hub", "h", "999.1.1.1")
        self.assertFalse(os.path.exists(self.path("h.key")))
        self.good("hub", "h", "127.0.0.1")

    def test_list_knows_what_has_expired(self):
        self.good("agent", "edge-1")
        with open(self.path("db/index.txt"), "a") as f:
            f.write("V\t200101000000Z\t\t01\tunknown\t/CN=old\n")
        said = self.good("list")
        self.assertRegex(said, r"valid +until \S+ +/CN=edge-1")
        self.assertRegex(said, r"expired +until 2020-01-01 +/CN=old")
        self.bad("there is no authority", "-d", os.path.join(self.top, "elsewhere"), "agent", "x")


if __name__ == "__main__":
    unittest.main()
