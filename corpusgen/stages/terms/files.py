"""Where terms are written down: what ships, what an organisation keeps for all its corpora, what one corpus adds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from corpusgen.corpus import Corpus
from corpusgen.provenance.terms import Registry, load_registry
from corpusgen.shipped import shipped

REVIEW_TYPE = "application/vnd.corpusgen.terms-review+json"
"""What a reading of a document is signed as."""
ENVIRONMENT = "CORPUSGEN_TERMS"
"""Names the organisation's file, where it is not the usual one; ``off``: there is none."""


def organisation_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The organisation's own terms, for all its corpora, whether they are there or not; None where they are off."""
    if named := environ.get(ENVIRONMENT, "").strip():
        return None if named == "off" else Path(named)
    from platformdirs import user_config_path

    return user_config_path("corpusgen", appauthor=False) / "terms.yaml"


def corpus_file(corpus: Corpus) -> Path:
    """The terms that one corpus adds, whether they are there or not."""
    return corpus.folder / "terms.yaml"


def files_of(corpus: Corpus | None, *more: Path) -> tuple[Path, ...]:
    """Every file that counts beside the shipped one: the organisation's, the corpus's, and those a spec names.

    A file that CORPUSGEN_TERMS names must be there.
    """
    organisation = organisation_file()
    own = [] if corpus is None else [corpus_file(corpus)]
    named = [organisation] if organisation is not None and os.environ.get(ENVIRONMENT, "").strip() else []
    usual = [path for path in (organisation, *own) if path is not None and path not in named and path.exists()]
    return (*named, *usual, *more)


def read_registry(files: tuple[Path, ...]) -> Registry:
    """The shipped registry with these files, read again only where one has changed. Raises LocatedError."""
    return _read(file_states(files))


def file_states(files: tuple[Path, ...]) -> tuple[tuple[Path, int, int, int], ...]:
    """What changes when the shipped file does, or one of these."""
    return tuple((path, *_state(path)) for path in (shipped("data/terms.yaml"), *files))


@lru_cache(maxsize=16)
def _read(files: tuple[tuple[Path, int, int, int], ...]) -> Registry:
    shipped_file, *others = (path for path, *_ in files)
    return load_registry(shipped_file, *others)


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when a file does; noughts where it cannot be looked at, and reading it says why."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
