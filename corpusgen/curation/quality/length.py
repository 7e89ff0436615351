"""Texts that are too short or too long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import TextSettings, fails, passes, words_in
from corpusgen.fields import Misplaced, Place
from corpusgen.records import Json
from corpusgen.tokens import count_tokens

SUMMARY: Final = "too few or too many words, characters or tokens"
EXAMPLE: Final[dict[str, Json]] = {"min_words": 3, "max_words": 800}
_AT_ONCE: Final = 20_000

_Amount = Annotated[int, Field(ge=0, le=10**9)] | None
_Unit = Literal["words", "characters", "tokens"]
_UNITS: Final[tuple[_Unit, ...]] = ("characters", "words", "tokens")


class Settings(TextSettings):
    """At least one bound. Where words are written without spaces between them, every character is a word."""

    min_words: _Amount = Field(None, description="Fewest words; in Chinese, Japanese, Thai … fewest characters")
    max_words: _Amount = Field(None, description="Most words; in Chinese, Japanese, Thai … most characters")
    min_characters: _Amount = Field(None, description="Fewest characters, space around the text not counted")
    max_characters: _Amount = Field(None, description="Most characters")
    min_tokens: _Amount = Field(None, description="Fewest tokens of OpenAI's o200k_base")
    max_tokens: _Amount = Field(None, description="Most tokens of OpenAI's o200k_base")

    @model_validator(mode="after")
    def _bounded(self) -> Settings:
        mistakes = list(self._mistakes())
        if mistakes:
            raise Misplaced(*mistakes)
        return self

    def _mistakes(self) -> Iterator[tuple[Place, str]]:
        bounds = [self.bounds(unit) for unit in _UNITS]
        if all(bound == (None, None) for bound in bounds):
            yield (), "needs a bound, such as min_words: 3 or max_characters: 4000"
        for unit, (low, high) in zip(_UNITS, bounds, strict=True):
            if low is not None and high is not None and low > high:
                yield (f"max_{unit}",), f"{high} is less than min_{unit}, which is {low}; nothing could pass"

    def bounds(self, unit: _Unit) -> tuple[int | None, int | None]:
        """The fewest and the most of a unit."""
        every = {
            "words": (self.min_words, self.max_words),
            "characters": (self.min_characters, self.max_characters),
            "tokens": (self.min_tokens, self.max_tokens),
        }
        return every[unit]


def check_text(text: str, settings: Settings) -> Finding | None:
    """Whether the text is within its bounds; the score is its length by the first unit that is bounded."""
    found = None
    for unit in _UNITS:
        low, high = settings.bounds(unit)
        if low is None and high is None:
            continue
        length = _length(text.strip(), unit, high)
        if low is not None and length < low:
            return fails("length", f"too few {unit}", metric=unit, score=length, threshold=low)
        if high is not None and length > high:
            return fails("length", f"too many {unit}", metric=unit, score=length, threshold=high)
        found = found or passes("length", metric=unit, score=length, threshold=high if low is None else low)
    return found


def _length(text: str, unit: _Unit, high: int | None) -> int:
    if unit == "characters":
        return len(text)
    return len(words_in(text)) if unit == "words" else _tokens(text, high)


def _tokens(text: str, high: int | None) -> int:
    """Counted in pieces, as the tokenizer gets slow on long ones, and no further than past the bound."""
    total = 0
    for start in range(0, len(text), _AT_ONCE):
        piece = text[start : start + _AT_ONCE].encode("utf-8", "replace").decode()
        total += count_tokens(piece, "o200k_base")
        if high is not None and total > high:
            break
    return total
