"""Imported for its effect: what tests and benchmarks sign is signed with a key of their own, not with the user's."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "CORPUSGEN_SIGNING_KEY"


def _remove(folder: str, made_by: int) -> None:
    if os.getpid() == made_by:  # and not by a process that was forked since
        shutil.rmtree(folder, ignore_errors=True)


if _VARIABLE not in os.environ:  # processes that were started by others sign with theirs
    _folder = tempfile.mkdtemp(prefix="corpusgen-key-")
    atexit.register(_remove, _folder, os.getpid())
    os.environ[_VARIABLE] = str(Path(_folder) / "signing.pem")
