"""The program as it is built: position independent, relocations read-only, stacks and string functions guarded, debugging of data off."""
import os
import subprocess
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir)
PROGRAMS = [os.path.join(TOP, "mctunnel"), os.path.join(TOP, "mctunnelctl")]


def readelf(option, program):
    return subprocess.run(["readelf", "-W", option, program], capture_output=True, text=True, check=True).stdout


class Hardened(unittest.TestCase):
    def each(self):
        for program in PROGRAMS:
            self.assertTrue(os.path.exists(program), program + " is not built")
            yield program

    def test_position_independent(self):
        for program in self.each():
            self.assertIn("Type:                              DYN", readelf("-h", program))

    def test_relocations_are_read_only(self):
        for program in self.each():
            self.assertIn("GNU_RELRO", readelf("-l", program))
            self.assertRegex(readelf("-d", program), r"BIND_NOW|FLAGS_1.*NOW")

    def test_stack_is_not_executable(self):
        for program in self.each():
            line = [w for w in readelf("-l", program).splitlines() if "GNU_STACK" in w]
            self.assertEqual(len(line), 1)
            self.assertNotIn("E", line[0].split()[6])

    def test_stacks_and_strings_are_guarded(self):
        for program in self.each():
            symbols = readelf("--dyn-syms", program)
            self.assertIn("__stack_chk_fail", symbols)
            self.assertRegex(symbols, r"__\w+_chk@")


if __name__ == "__main__":
    unittest.main()
