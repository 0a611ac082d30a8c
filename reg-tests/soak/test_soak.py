#!/usr/bin/env python3
"""scripts/soak for a short time: it must find nothing."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import harness
import scene

os.environ.setdefault("SOAK_SECONDS", "20")
os.environ["MCTUNNEL"] = scene.binary()
script = os.path.join(harness.TOP, "scripts", "soak")
os.execv(sys.executable, [sys.executable, script] + sys.argv[1:])
