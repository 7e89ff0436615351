"""No test reaches the network, and none depends on the keys and settings of whoever runs it."""

from __future__ import annotations

import os
import runpy
from importlib import import_module
from pathlib import Path

from hypothesis import settings

# The same examples at each run, so that it fails only where something has changed; new ones are looked for with
# pytest --hypothesis-profile default.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

_OFFLINE = Path(__file__).parent / "offline"
_PERSONAL = ("CORPUSGEN_", "OPENAI_", "ANTHROPIC_", "HF_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
_SECRET = ("_KEY", "_TOKEN", "_SECRET", "_PROXY")

for _name in list(os.environ):
    if _name.startswith(_PERSONAL) or _name.upper().endswith(_SECRET):
        del os.environ[_name]

# Nor may one test be answered with what another asked.
os.environ["CORPUSGEN_CACHE"] = "off"

# Nor do terms and teachers of whoever runs it count.
os.environ["CORPUSGEN_TERMS"] = os.environ["CORPUSGEN_TEACHERS"] = "off"

# What tests sign is signed with a key of their own, also in the processes that they start.
import_module("own_key")

# Python runs a file of this name when it starts, so that the processes that tests start are held to the same.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_OFFLINE), os.environ.get("PYTHONPATH")]))
runpy.run_path(str(_OFFLINE / "sitecustomize.py"))
