"""README's first command, in a copy of the tree: a request goes through a tunnel, and nothing is left running."""
import os
import shutil
import subprocess
import tempfile
import time
import unittest

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir))


def left_out(folder, names):
    """History, what an earlier run made, and all builds but the one that quickstart makes anyway; what other tests write at this moment."""
    if folder == TOP:
        return {".git", "quickstart"} & set(names)
    if folder == os.path.join(TOP, "build"):
        return set(names) - {"release"}
    return {"__pycache__"} | ({"tools"} if folder == os.path.join(TOP, "build", "release") else set())


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="mctunnel-quickstart-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.tree = os.path.join(self.dir, "tree")
        shutil.copytree(TOP, self.tree, ignore=left_out, symlinks=True)

    def run_it(self):
        return subprocess.run([os.path.join(self.tree, "scripts", "quickstart")], cwd=self.dir, capture_output=True, text=True, timeout=200)

    def left_running(self):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink("/proc/%s/exe" % pid).startswith(self.tree):
                    found.append(pid)
            except OSError:
                pass
        return found

    def nobody_stays(self):
        """Without its pid file the master ends, but has not yet."""
        deadline = time.monotonic() + 30
        while self.left_running() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(self.left_running(), [])

    def test_it_works_and_works_again(self):
        for turn in ("first", "second"):
            done = self.run_it()
            self.assertEqual(done.returncode, 0, turn + done.stdout + done.stderr)
            self.assertIn("mctunnel_sessions_opened_total 1", done.stdout)
            self.assertIn("It works", done.stdout)
            self.nobody_stays()


if __name__ == "__main__":
    unittest.main()
