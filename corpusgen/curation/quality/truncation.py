"""Answers that break off before their end."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import MOST_CHARACTERS, fails, shown, without_code, words_in
from corpusgen.records import Json, Record

SUMMARY: Final = "the answer breaks off"
EXAMPLE: Final[dict[str, Json]] = {}
_FENCE: Final = re.compile(r"^[ \t]{0,3}(?:>[ \t]*)*(`{3,}|~{3,})", re.MULTILINE)
_INLINE_CODE: Final = re.compile(r"`[^`\n]*`")
_FACES: Final = re.compile(r"[:;=8][-']?[(\[{]|[:;]-?\{")
_BRACKETS: Final = re.compile(r"[(\[{（「『【〔《〈)\]}）」』】〕》〉]")
_OPENERS: Final = frozenset("([{（「『【〔《〈")
_ENDS: Final = re.compile(r"[.!?…。！？؟।॥։።︒｡]")
_ITEM: Final = re.compile(r"^\s*(?:[-*+•‣◦·–—#>|]|\(?\d{1,3}[.):]|\(?[a-zA-Z][.)]\s)")
_SENTENCE: Final = re.compile(r"(?<=\w\w\w)[.!?…؟।॥]+[\"”’»)*_]*\s+(?![a-z])|[。！？]")
"""Where a sentence ends and another begins; few abbreviations have three letters."""
_LEAST_SENTENCES: Final = 2
_OR_WORDS: Final = 20
"""Words at which one sentence that is whole will do."""
_LEAST_WORDS: Final = 6
_EMPTY_ITEM: Final = re.compile(r"\n\s*(?:\d{1,3}[.)]|[-*+•])(?:\s+\*\*|\s*)$")
_NEVER_LAST_WORDS: Final = """
The the an and or of with from into which whose if when und oder mit ein eine einen einem dem zum zur weil le les
des et une du avec parce el los las una del y con porque il lo gli uno della o os um uma de het een en
"""
_NEVER_LAST: Final = frozenset(_NEVER_LAST_WORDS.split())
"""Words, in small letters but for the first, that nobody ends with in English, German, French, Spanish and others."""
_LAST_WORD: Final = re.compile(r"[,:;-]$|[^\W_]$")


class Settings(judging.Settings):
    """What counts as breaking off, besides the teacher's own word for it."""

    fences: bool = Field(True, description="A code fence that is opened and not closed")
    brackets: bool = Field(True, description="A bracket that is open where the text ends, without a sentence's end")
    sentences: bool = Field(True, description="Prose of several sentences whose last one has no end")


def check(record: Record, settings: Settings) -> Finding | None:
    """Whether the answer goes on to its end. A label is read off its first tokens, so its request always breaks off."""
    if record.kind == "label":
        return None
    if record.truncated or record.finish_reason in ("length", "pause"):
        return fails("truncation", "the teacher broke off", detail=f"finish reason {record.finish_reason}")
    text = record.response[-MOST_CHARACTERS:].rstrip()
    if reason := _how_it_breaks_off(text, settings):
        return fails("truncation", reason, detail=shown(text[-80:]))
    return None


def _how_it_breaks_off(text: str, settings: Settings) -> str | None:
    if len(_FENCE.findall(text)) % 2:
        return "a code fence is not closed" if settings.fences else None
    prose = without_code(text)
    if settings.brackets and not _is_ended(text) and _open_brackets(prose):
        return "a bracket is not closed"
    if settings.sentences and _EMPTY_ITEM.search(prose[-40:]):
        return "a list's last item is empty"
    return "ends in the middle of a sentence" if settings.sentences and _is_mid_sentence(prose) else None


def _is_ended(text: str) -> bool:
    return _ENDS.search(text[-4:]) is not None


def _open_brackets(text: str) -> int:
    """Brackets open at the end; any closing one closes the last, as in [0, 1), and one without an opener is a 1)."""
    depth = 0
    for bracket in _BRACKETS.findall(_FACES.sub(" ", _INLINE_CODE.sub(" ", text))):
        depth = depth + 1 if bracket in _OPENERS else max(0, depth - 1)
    return depth


def _is_mid_sentence(text: str) -> bool:
    """Whether prose ends with a word that nothing ends with, or in an open line where no other line is open."""
    *lines, last = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if not _has_sentences(text):
        return False
    return text.rsplit(maxsplit=1)[-1] in _NEVER_LAST or (_is_open(last) and not any(map(_is_open, lines)))


def _has_sentences(text: str) -> bool:
    whole = len(_SENTENCE.findall(text))
    return whole >= _LEAST_SENTENCES or (whole > 0 and len(words_in(text)) >= _OR_WORDS)


def _is_open(line: str) -> bool:
    """Whether a line is prose without an end; a heading, a list's item of one sentence, or a short line is none."""
    if len(words_in(line)) < _LEAST_WORDS or (_ITEM.match(line) and not _SENTENCE.search(line)):
        return False
    last = line.rsplit(maxsplit=1)[-1].rstrip("*_\"'”’)»")
    return _LAST_WORD.search(last) is not None and "/" not in last and "@" not in last
