"""Texts in another language than those asked for, told by the package ``py3langid``, which needs no network."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field

from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import TextSettings, fails, passes, remark, without_code
from corpusgen.records import Json

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SUMMARY: Final = "another language than those allowed"
EXAMPLE: Final[dict[str, Json]] = {"allowed": ["en"]}
METRIC: Final = "certainty"
MOST_LOOKED_AT: Final = 5_000
"""Characters of a text that tell its language."""

_CODES: Final = """
ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv
fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky
la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh
se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu
"""
CODES: Final = frozenset(_CODES.split())
"""Languages that can be told: by their two letters of ISO 639-1, or three of ISO 639-3 where there are no two."""

_ADDRESS: Final = re.compile(r"https?://\S+")


def _known(code: str) -> str:
    if code not in CODES:
        raise ValueError(f"{code!r} is no language that can be told; write its code of ISO 639-1, such as en or zh")
    return code


class Settings(TextSettings):
    """Which languages are allowed, and when a text is too short or too mixed to tell."""

    allowed: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(
        min_length=1, max_length=50, description="ISO 639-1 codes, such as [en, de]"
    )
    min_letters: Annotated[int, Field(ge=1, le=10_000)] = Field(
        12, description="Letters a text must have to be judged; in Chinese, Japanese and Korean a third as many"
    )
    min_certainty: Annotated[float, Field(ge=0, le=1)] = Field(
        0.6, description="Certainty below which the language counts as unknown; such a text is kept with a remark"
    )


def check_text(text: str, settings: Settings) -> Finding:
    """Whether the text is in an allowed language; one that is too short to tell passes with a remark."""
    prose = _prose(text)
    if _weight(prose) < settings.min_letters:
        return remark("language", "too short to tell its language")
    code, certainty = _identifier().classify(prose)
    if certainty < settings.min_certainty or code not in CODES:  # the model also knows text in no language at all
        return remark("language", "language unknown", detail=f"most like {code}", score=certainty)
    if code in settings.allowed:
        return passes("language", metric=METRIC, score=certainty, threshold=settings.min_certainty)
    return fails(
        "language",
        "in another language",
        detail=f"{code}, allowed: {', '.join(settings.allowed)}",
        metric=METRIC,
        score=certainty,
        threshold=settings.min_certainty,
    )


def _prose(text: str) -> str:
    """The beginning of what is written in a language, code and addresses left out."""
    return _ADDRESS.sub(" ", without_code(text[: 4 * MOST_LOOKED_AT]))[:MOST_LOOKED_AT]


def _weight(text: str) -> int:
    letters = list(filter(str.isalpha, text))
    return len(letters) + 2 * sum("\u3040" <= letter <= "\ud7a3" for letter in letters)


@cache
def _identifier() -> LanguageIdentifier:
    """The model, read once (half a second, 120 MB)."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
