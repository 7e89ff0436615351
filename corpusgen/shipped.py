"""Files that come with corpusgen, found from a checkout, an editable install and a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(relative: str) -> Path:
    """A file under ``prompts/`` or ``data/``: inside the package in a wheel, beside it in a checkout."""
    packaged = _PACKAGE / relative
    return packaged if packaged.exists() else _PACKAGE.parent / relative


def here_or_shipped(path: Path) -> Path:
    """The path itself if it exists, else the file of that name that ships with corpusgen."""
    if path.exists() or path.is_absolute():
        return path
    found = shipped(str(path))
    return found if found.exists() else path
