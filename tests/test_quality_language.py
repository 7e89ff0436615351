from __future__ import annotations

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from quality_samples import answer, drops, said

from corpusgen.curation.quality.language import CODES

GERMAN = "Der Zug an die Küste fährt im Winter zweimal am Tag."


def test_a_text_in_another_language_is_dropped_with_the_language_it_is_in() -> None:
    found = said("language", answer(GERMAN), allowed=["en", "fr"])
    assert found is not None
    assert (found.kept, found.reason, found.detail) == (False, "in another language", "de, allowed: en, fr")


def test_any_of_several_languages_passes() -> None:
    assert not drops("language", answer(GERMAN), allowed=["en", "de"])


@pytest.mark.parametrize("text", ["", "Ja.", "42", "😀😀😀", "   ", "x = 3"])
def test_a_text_too_short_to_tell_is_kept_with_a_remark(text: str) -> None:
    found = said("language", answer(text), allowed=["en"])
    assert found is not None
    assert (found.kept, found.reason) == (True, "too short to tell its language")


def test_a_text_of_no_certain_language_is_kept_with_a_remark() -> None:
    found = said("language", answer("Amsterdam, Berlin, Oslo, Madrid"), allowed=["ja"])
    assert found is not None
    assert (found.kept, found.reason) == (True, "language unknown")


def test_code_and_addresses_have_no_language() -> None:
    code = "```python\nfor value in values:\n    print(value)\n```"
    text = f"So schreibt man es in Python auf, wie im Handbuch steht:\n{code}\nhttps://example.org/how-to-print"
    assert not drops("language", answer(text), allowed=["de"])


def test_the_known_languages_are_those_of_the_model() -> None:
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    assert set(model.labels) - {"zxx"} == CODES
