"""Runs a corpusgen command as somebody who may not write to a folder, whoever runs the tests."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command import Ran

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def _bound_by_permissions() -> None:
    """In a child, before it becomes another program: root is held to the modes of files like anybody else."""
    if os.geteuid() == 0:
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            if ctypes.CDLL(None, use_errno=True).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "cannot give up the right to write everywhere")


def held_to_permissions(*arguments: str | Path) -> Ran:
    """Run a command in a process of its own that is held to the modes of files."""
    command = [sys.executable, "-m", "corpusgen", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=_bound_by_permissions)
    return Ran(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


@contextmanager
def nobody_may_write(folder: Path) -> Iterator[None]:
    """Inside, no mode in the folder allows to write."""
    places = [folder, *folder.rglob("*")]
    modes = {place: place.stat().st_mode for place in places}
    try:
        for place in reversed(places):
            place.chmod(modes[place] & 0o555)
        yield
    finally:
        for place in places:
            place.chmod(modes[place])


def on_another_disk(mount: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script after a mount that it alone sees."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-ec", f"{mount}\n{script}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def why_no_mounts() -> str | None:
    """Why this machine lets nobody mount anything; None where it does."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = on_another_disk("mount -t tmpfs -o size=64k tmpfs /mnt", "true")
    return None if tried.returncode == 0 else f"nobody may mount here: {json.dumps(tried.stderr.strip())}"
