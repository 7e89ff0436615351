"""Answers by which a teacher says no: it would not, or could not, do what was asked."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import fails, remark, shown, words_in
from corpusgen.curation.refusals import language_of_refusal
from corpusgen.records import Json, Record

SUMMARY: Final = "the teacher would not or could not answer"
EXAMPLE: Final[dict[str, Json]] = {}
_REASONS: Final = {
    "refusal": "the teacher said that it refuses",
    "content_filter": "a content filter kept the answer back",
}


class Settings(judging.Settings):
    """How long an answer may be and still count as a refusal for the way it begins."""

    max_words: Annotated[int, Field(ge=1, le=100_000)] = Field(
        150, description="Words beyond which an answer that begins like a refusal is kept with a remark"
    )


def check(record: Record, settings: Settings) -> Finding | None:
    """Whether the answer is one: neither marked as a refusal by its teacher, nor beginning like one."""
    if reason := _REASONS.get(record.finish_reason):
        return fails("refusal", reason, detail=shown(record.response) or None)
    language = language_of_refusal(record.response)
    if language is None:
        return None
    told = f"{language}: {shown(record.response)}"
    if len(words_in(record.response[: 100 * settings.max_words])) > settings.max_words:
        return remark("refusal", "begins like a refusal and goes on", detail=told)
    return fails("refusal", "begins like a refusal", detail=told)
