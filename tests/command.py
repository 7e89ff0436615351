"""Runs a corpusgen command in this process and catches what it prints."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corpusgen.cli.main import main


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def object(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found


def corpusgen(*arguments: str | Path) -> Ran:
    """Run a command as a shell would."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return Ran(code=int(ended.value.code or 0), stdout=out.getvalue(), stderr=err.getvalue())
