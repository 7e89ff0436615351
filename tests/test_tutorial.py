"""The tutorial is run as written: its files, its commands, and the lines it says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    printed = ""
    commands = 0
    for language, name, text in BLOCK.findall(TUTORIAL.read_text("utf-8")):
        if name:
            (tmp_path / name).write_text(text, "utf-8")
        elif language == "bash":
            printed = run(text, tmp_path)
            commands += 1
        elif language == "text":
            for line in text.splitlines():
                assert line.rstrip() in printed, f"{line!r} is not in:\n{printed}"
    assert commands == 7


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
