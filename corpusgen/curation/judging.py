"""What all quality filters share: the settings every one has, the findings they give, and how words are told."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from corpusgen.curation.finding import PASSES, Finding

Side: TypeAlias = Literal["prompt", "answer"]
MOST_CHARACTERS: Final = 1_000_000
"""Of a longer text, filters that would take long look at no more than this."""


class Settings(BaseModel):
    """What every filter can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    action: Literal["drop", "remark"] = Field(
        "drop", description="What happens to a text that fails; remark: it is kept and reported"
    )


class TextSettings(Settings):
    """What a filter can be told that looks at nothing but a text, be it an answer or a prompt."""

    sides: tuple[Side, ...] = Field(
        ("answer",), min_length=1, description="Texts that are looked at; prompt: before anything is spent on it"
    )


def fails(
    check: str,
    reason: str,
    *,
    detail: str | None = None,
    metric: str | None = None,
    score: float | None = None,
    threshold: float | None = None,
) -> Finding:
    """A finding for which the text is dropped."""
    return Finding(
        check=check, kept=False, reason=reason, detail=detail, metric=metric, score=score, threshold=threshold
    )


def remark(check: str, reason: str, *, detail: str | None = None, score: float | None = None) -> Finding:
    """A finding that is reported, and nothing is dropped for it."""
    return Finding(check=check, kept=True, reason=reason, detail=detail, score=score)


def passes(check: str, *, metric: str, score: float, threshold: float | None) -> Finding:
    """The score of a text that is as it should be, for its verdict."""
    return Finding(check=check, kept=True, reason=PASSES, metric=metric, score=score, threshold=threshold)


# Han, kana, bopomofo, Thai, Lao, Myanmar and Khmer are written without spaces between words.
_SPACELESS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_HAS_SPACELESS: Final = re.compile(f"[{_SPACELESS}]")
_PIECES: Final = re.compile(f"[{_SPACELESS}]|[^{_SPACELESS}\\s]+")


def words_in(text: str) -> list[str]:
    """The words of a text, with what is written next to them; of scripts without spaces, every character is one."""
    if _HAS_SPACELESS.search(text) is None:
        return [word for word in text.split() if _tells(word)]
    return [piece for piece in _PIECES.findall(text) if _tells(piece)]


def _tells(word: str) -> bool:
    return word.isalnum() or any(map(str.isalnum, word))


_EDGES: Final = " \t\n\r.,;:!?\"'()[]{}<>*_`~#|«»“”‘’„‚…。、，．！？：；「」『』（）¿¡-–—"


def bare_words(text: str) -> list[str]:
    """As ``words_in``, without case and without the punctuation around them."""
    return [word.strip(_EDGES) for word in words_in(text.casefold())]


_CODE: Final = re.compile(r"^[ \t]*(?:```|~~~).*?(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE)


def without_code(text: str) -> str:
    """The text without what stands between code fences; one that is not closed goes to the end."""
    return _CODE.sub("\n", text)


def shown(text: str, most: int = 80) -> str:
    """A passage in one line that can be stored and printed."""
    line = " ".join(text[: 4 * most].split())
    # A lone surrogate cannot be written to a file.
    line = line.encode("utf-8", "replace").decode()
    return line if len(line) <= most else f"{line[: most - 1]}…"
