"""scripts/check: each check is silent on a good tree and finds the mistake it is there for."""
import os
import shutil
import subprocess
import tempfile
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

GOOD = {
    "include/mctunnel/base/low.h": "/* Low. */\n#ifndef LOW_H\n#define LOW_H\nint low_do(void);\n#endif\n",
    "include/mctunnel/net/high.h": "/* High. */\n#ifndef HIGH_H\n#define HIGH_H\nint high_do(void);\n#endif\n",
    "include/mctunnel/net/other.h": "/* Other. */\n#ifndef OTHER_H\n#define OTHER_H\nint other_do(void);\n#endif\n",
    "src/base/low.c": '/* Low. */\n#include "mctunnel/base/low.h"\n\nint low_do(void)\n{\n\treturn 1;\n}\n',
    "src/net/high.c": '/* High: not strcpy(), and no goto here. */\n#include "mctunnel/net/high.h"\n\n#include "mctunnel/base/low.h"\n'
                      '#include "mctunnel/net/other.h"\n\nint high_do(void)\n{\n\treturn low_do() + other_do() + "goto strcpy("[0];\n}\n',
    "src/net/other.c": '/* Other. */\n#include "mctunnel/net/other.h"\n\nint other_do(void)\n{\n\treturn 2;\n}\n',
}
FAST = ["layering", "cycles", "libraries", "headers", "banned", "text", "functions"]


class Checks(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="mctunnel-checks-")
        self.addCleanup(shutil.rmtree, self.dir)
        os.makedirs(self.path("scripts"))
        os.makedirs(self.path("reg-tests/unit"))
        os.makedirs(self.path("reg-tests/fuzz"))
        shutil.copy(os.path.join(TOP, "scripts", "check"), self.path("scripts/check"))
        for name, text in GOOD.items():
            self.write(name, text)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as f:
            f.write(text)

    def check(self, *names):
        return subprocess.run([self.path("scripts/check"), *names], capture_output=True, text=True)

    def finds(self, name, *words):
        r = self.check(name)
        self.assertEqual(r.returncode, 1, r.stdout + r.stderr)
        self.assertIn("FAILED", r.stdout)
        for word in words:
            self.assertIn(word, r.stdout)

    def test_good_tree(self):
        r = self.check(*FAST)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertEqual(r.stdout.count(" ok\n"), len(FAST))

    def test_include_of_a_higher_floor(self):
        self.write("src/base/low.c", '/* Low. */\n#include "mctunnel/net/high.h"\n')
        self.finds("layering", "src/base/low.c", "net/high.h")

    def test_header_includes_a_higher_floor(self):
        self.write("include/mctunnel/base/low.h", '/* Low. */\n#include "mctunnel/net/high.h"\n')
        self.finds("layering", "include/mctunnel/base/low.h")

    def test_include_by_a_relative_name(self):
        self.write("src/base/low.c", '/* Low. */\n#include "low.h"\n')
        self.finds("layering", "low.h")

    def test_file_on_no_floor(self):
        self.write("src/attic/x.c", '/* X. */\n#include "mctunnel/base/low.h"\n')
        self.finds("layering", "src/attic/x.c: is on no floor")

    def test_inside_of_a_family(self):
        self.write("include/mctunnel/net/kin_inside.h", GOOD["include/mctunnel/base/low.h"].replace("LOW", "KIN"))
        for name in ("src/net/kin.c", "src/net/kin_one.c"):
            self.write(name, '/* Of the family. */\n#include "mctunnel/net/kin_inside.h"\n')
        self.assertEqual(self.check("layering").returncode, 0)
        self.write("src/net/kindred.c", '/* Not of it. */\n#include "mctunnel/net/kin_inside.h"\n')
        self.finds("layering", "src/net/kindred.c", "net/kin_inside.h")

    def test_cycle_within_a_floor(self):
        self.write("src/net/other.c", '/* Other. */\n#include "mctunnel/net/other.h"\n#include "mctunnel/net/high.h"\n')
        self.finds("cycles", "net/high", "net/other")

    def test_library_in_two_files(self):
        for name in ("src/net/high.c", "src/net/other.c"):
            self.write(name, "/* X. */\n#include <openssl/ssl.h>\n")
        self.finds("libraries", "openssl", "src/net/high.c", "src/net/other.c")

    def test_library_of_a_family(self):
        for name in ("src/script/lua.c", "src/script/lua_one.c"):
            self.write(name, "/* X. */\n#include <lua.h>\n#include <lauxlib.h>\n")
        self.assertEqual(self.check("libraries").returncode, 0)
        self.write("src/script/luatic.c", "/* X. */\n#include <lua.h>\n")
        self.finds("libraries", "<lua...>", "src/script/luatic.c")

    def test_library_in_a_header(self):
        self.write("include/mctunnel/net/high.h", "/* X. */\n#include <jansson.h>\n")
        self.finds("libraries", "jansson", "high.h")

    def test_header_that_needs_another(self):
        self.write("include/mctunnel/net/high.h", "/* X. */\nsize_t high_size(void);\n")
        self.finds("headers", "size_t")

    def test_banned_words(self):
        for bad in ("strcpy(a, b);", "goto out;", "n = atoi(s);", "sprintf (a, b);", "p = alloca(4);"):
            self.write("src/net/other.c", "/* X. */\nvoid x(void)\n{\n\t%s\n}\n" % bad)
            self.finds("banned", "src/net/other.c:4:")

    def test_text(self):
        for bad, found in (("int x; \n", "blanks"), ("        int x;\n", "tabs"), ("int x;", "no newline"), ("int %s;\n" % ("x" * 200), "columns")):
            self.write("src/net/other.c", "/* X. */\n" + bad)
            self.finds("text", found)
        self.write("src/net/other.c", "int x;\n")
        self.finds("text", "does not begin with a comment")

    def test_long_functions(self):
        long = "int x%d(void)\n{\n" + "\treturn 1;\n" * 101 + "}\n"
        self.write("src/net/other.c", "/* X. */\n" + long % 1 + long % 2)
        self.finds("functions", "src/net/other.c")

    def test_unknown_check(self):
        self.assertEqual(self.check("nonsense").returncode, 2)


if __name__ == "__main__":
    unittest.main()
