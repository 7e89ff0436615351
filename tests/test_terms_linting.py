"""Several terms files together: what one may override, what succeeds what, and what a bad one is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from terms_samples import MINIMAL, TODAY, commercial_use, document, registry, shipped_registry, teacher

from corpusgen.errors import LocatedError
from corpusgen.provenance.documents import Review
from corpusgen.provenance.policy import RULES, decide, explain
from corpusgen.provenance.terms import Registry, load_registry, stale, with_reviews, with_texts
from corpusgen.shipped import shipped

SHIPPED = shipped("data/terms.yaml")
OURS = MINIMAL.replace("house-1", "our-phi").replace('["house-*"]', '["phi-*"]')


def entry(name: str, *lines: str) -> str:
    """A terms file of one document with further fields."""
    extra = "".join(f"    {line}\n" for line in lines)
    return MINIMAL.replace("house-1", name) + extra


def loaded(tmp_path: Path, *texts: str) -> Registry:
    """The shipped terms with a file for each text."""
    paths = [tmp_path / f"{at}.yaml" for at in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return load_registry(SHIPPED, *paths)


def refused(tmp_path: Path, *texts: str) -> str:
    with pytest.raises(LocatedError) as caught:
        loaded(tmp_path, *texts)
    return str(caught.value)


# --- overriding ------------------------------------------------------------------------------------------------------


def test_an_organisation_overrides_a_shipped_document_by_saying_so(tmp_path: Path) -> None:
    known = loaded(tmp_path, OURS + "    overrides: phi-mit\n")
    assert [found.id for found in known.matching(teacher("microsoft/phi-4"), TODAY).documents] == ["our-phi"]
    assert known.by_id["phi-mit"].id == "our-phi"
    assert known.file_of("our-phi") == str(tmp_path / "0.yaml")


def test_an_override_may_keep_the_id(tmp_path: Path) -> None:
    known = loaded(tmp_path, OURS.replace("our-phi", "phi-mit") + "    overrides: phi-mit\n")
    assert known.by_id["phi-mit"].source == "our counsel"


def test_a_corpus_overrides_the_override_of_its_organisation(tmp_path: Path) -> None:
    house = OURS + "    overrides: phi-mit\n"
    corpus = OURS.replace("our-phi", "corpus-phi") + "    overrides: our-phi\n"
    known = loaded(tmp_path, house, corpus)
    assert known.by_id["phi-mit"].id == known.by_id["our-phi"].id == "corpus-phi"
    assert [found.id for found in known.matching(teacher("phi-4"), TODAY).documents] == ["corpus-phi"]


def test_pins_and_earlier_answers_follow_an_override(tmp_path: Path) -> None:
    known = loaded(tmp_path, OURS + "    overrides: phi-mit\n")
    assert not known.matching(teacher("phi-4", pinned_terms=("phi-mit",)), TODAY).gaps
    assert [found.id for found in known.originally(["phi-mit"]).documents] == ["our-phi"]


def test_an_override_is_another_registry_and_is_named_in_decisions(tmp_path: Path) -> None:
    known = loaded(
        tmp_path,
        OURS.replace("outputs_train_competing: allowed", "outputs_train_competing: prohibited")
        + "    overrides: phi-mit\n",
    )
    decision = decide(known, teacher("phi-4"), commercial_use(), on=TODAY)
    assert known.digest != shipped_registry().digest
    assert f"deny R04 our-phi (in {tmp_path / '0.yaml'}): " in explain(decision)


def test_shipped_documents_have_no_file_of_their_own() -> None:
    assert shipped_registry().file_of("phi-mit") == ""


def test_an_id_that_ships_already_needs_to_say_that_it_overrides(tmp_path: Path) -> None:
    assert "or write `overrides: phi-mit` to put it in that one's place" in refused(tmp_path, entry("phi-mit"))


def test_an_override_of_what_no_earlier_file_has_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, entry("ours-1", "overrides: gone-1"))
    assert f"{tmp_path / '0.yaml'}:16: documents.0.overrides: no earlier file has a document 'gone-1'" in told
    assert "no earlier file" in refused(tmp_path, entry("house-1", "overrides: house-1"))
    assert "no earlier file" in refused(tmp_path, pair("", "    overrides: a-1\n"))


def test_a_second_override_of_the_same_document_is_told_of_the_first(tmp_path: Path) -> None:
    files = [entry(name, "overrides: phi-mit") for name in ("first-1", "second-1")]
    assert "'phi-mit' is already overridden by 'first-1'" in refused(tmp_path, *files)


def test_two_documents_of_one_id_in_one_file_are_refused(tmp_path: Path) -> None:
    twice = MINIMAL + MINIMAL.removeprefix("documents:\n")
    assert "'house-1' stands twice" in refused(tmp_path, twice)


# --- succession ------------------------------------------------------------------------------------------------------


def pair(first: str, second: str) -> str:
    """A file of two documents, a-1 and b-1, with further lines each."""
    one = MINIMAL.replace("house-1", "a-1") + first
    return one + MINIMAL.replace("house-1", "b-1").removeprefix("documents:\n") + second


def test_versions_that_supersede_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, pair("    supersedes: b-1\n", "    supersedes: a-1\n"))
    assert "a-1: supersedes itself by way of a-1 -> b-1 -> a-1; break the circle" in told
    assert "a-1 -> a-1" in refused(tmp_path, entry("a-1", "supersedes: a-1"))


def test_an_unknown_predecessor_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, entry("a-1", "supersedes: gone-1"))
    assert "documents.0.supersedes: no document has the id 'gone-1'" in told


def test_days_between_two_versions_without_terms_are_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, pair("    superseded: 2026-01-01\n", "    supersedes: a-1\n    effective: 2026-02-01\n"))
    assert "from 2026-01-01 to 2026-02-01 neither it nor a-1 is in force" in told


def test_a_successor_alone_ends_nothing(tmp_path: Path) -> None:
    newer = entry("openai-next", "supersedes: openai-services-agreement-2026-01-01").replace("self_hosted", "api")
    known = loaded(tmp_path, newer.replace("house-*", "gpt-*"))
    found = [one.id for one in known.matching(teacher("gpt-5", "api"), TODAY).documents]
    assert found == ["openai-next", "openai-services-agreement-2026-01-01"]


# --- other mistakes --------------------------------------------------------------------------------------------------

MISTAKES = {
    "a naming duty without its words": ("duties: [{kind: naming, applies_to: student, text: x}]", "needs words"),
    "a limit on what has none": (
        "duties: [{kind: ai_label, applies_to: student, text: x, limit: 5}]",
        "only mau_cap and revenue_cap have a limit",
    ),
    "regions of what has none": (
        "duties: [{kind: ai_label, applies_to: student, text: x, regions: [eu]}]",
        "only residency has regions",
    ),
    "retention that is no number": ("retention_days: a month", "a month"),
    "retention below zero": ("retention_days: -1", "greater than or equal to 0"),
    "training that is neither yes nor no": ("trains_on_inputs: maybe", "'yes', 'no' or 'unclear'"),
    "an unpaid tier that says nothing": ("unpaid_tier: {}", "required"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_field_that_says_something_else_than_it_may_is_refused(tmp_path: Path, case: str) -> None:
    line, words = MISTAKES[case]
    told = refused(tmp_path, entry("house-1", line))
    assert words in told
    assert told.startswith(f"{tmp_path / '0.yaml'}:16: documents.0.")


def test_one_licence_in_two_spellings_is_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace("LicenseRef-House", "LicenseRef-llama-3.1")
    assert "'LicenseRef-llama-3.1' is written 'LicenseRef-Llama-3.1' elsewhere" in refused(tmp_path, text)


def test_a_licence_that_becomes_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    licence = "  - {spdx: X-1, train: allowed, redistribute_derived: allowed, becomes: [Y-1]}\n"
    assert "X-1: 'Y-1' is no share-alike licence" in refused(tmp_path, "data_licences:\n" + licence)


REGIONS = {
    "more in one that ships": ("  eu: [us, cn]", "'eu' is a known place, and 'cn' is not in it"),
    "more in one written otherwise": ("  EU: [us]", "'EU' is a known place, and 'us' is not in it"),
    "something in a country": ("  de: [us]", "'de' is a known place, and 'us' is not in it"),
    "something in a cloud's region": ("  eu-central-1: [us]", "'eu-central-1' is a known place, and 'us' is not in it"),
}


@pytest.mark.parametrize("case", REGIONS)
def test_a_file_puts_nothing_into_a_place_that_is_known(tmp_path: Path, case: str) -> None:
    line, words = REGIONS[case]
    assert words in (told := refused(tmp_path, f"regions:\n{line}\n"))
    assert told.startswith(f"{tmp_path / '0.yaml'}:2: regions.")


def test_a_file_may_name_regions_of_its_own(tmp_path: Path) -> None:
    assert loaded(tmp_path, "regions:\n  our-house: [eu, cellar-1]\n").regions["our-house"] == ("cellar-1", "eu")


def test_an_alias_that_is_taken_is_refused(tmp_path: Path) -> None:
    licence = "  - {spdx: X-1, aliases: [MIT], train: allowed, redistribute_derived: allowed}\n"
    assert "'MIT' stands twice" in refused(tmp_path, "data_licences:\n" + licence)


# --- readings and texts ----------------------------------------------------------------------------------------------


def review(name: str, on: date, **fields: str) -> Review:
    return Review(terms=name, reviewed=on, by="counsel", **fields)


def test_reviews_refresh_what_they_name_and_never_turn_back() -> None:
    known = registry(document(reviewed=TODAY))
    assert with_reviews(known, [review("plain-1", date(2027, 1, 1))]).by_id["plain-1"].reviewed == date(2027, 1, 1)
    assert with_reviews(known, [review("plain-1", date(2020, 1, 1))]).by_id["plain-1"].reviewed == TODAY
    assert with_reviews(known, [review("gone-1", TODAY)]) is known


def test_a_review_of_another_text_refreshes_nothing() -> None:
    known = with_texts(registry(document(reviewed=TODAY)), {"plain-1": "a" * 64})
    later = TODAY + timedelta(days=9)
    same, other = ([review("plain-1", later, found_text_sha256=text * 64)] for text in "ab")
    assert with_reviews(known, same).by_id["plain-1"].reviewed == later
    assert with_reviews(known, other).by_id["plain-1"].reviewed == TODAY


def test_a_text_that_was_kept_is_part_of_the_registry() -> None:
    known = with_texts(shipped_registry(), {"phi-mit": "a" * 64, "gone-1": "b" * 64})
    assert known.by_id["phi-mit"].text_sha256 == "a" * 64
    assert known.digest != shipped_registry().digest


def test_what_lies_in_a_region_is_part_of_the_registry() -> None:
    assert replace(registry(document()), regions={"eu": ("de",)}).digest != registry(document()).digest


def test_stale_readings_are_listed_the_oldest_first() -> None:
    old, older = document(id="old-1", reviewed=date(2026, 3, 1)), document(id="older-1", reviewed=date(2026, 1, 1))
    found = stale(registry(document(reviewed=TODAY), old, older), TODAY)
    assert [(one.terms_id, one.days) for one in found] == [("older-1", 325), ("old-1", 266)]


def test_nothing_that_ships_is_stale_on_the_day_it_was_read_and_all_of_it_is_a_year_later() -> None:
    known = shipped_registry()
    assert stale(known, date(2026, 11, 21)) == ()
    later = {one.terms_id for one in stale(known, date(2027, 11, 21))}
    assert later == {one.id for one in known.documents if one.kind != "own" and one.superseded is None}


# --- what the documentation says -------------------------------------------------------------------------------------

RIGHTS = (Path(__file__).parents[1] / "docs" / "rights.md").read_text(encoding="utf-8")


def test_the_documented_override_does_what_is_written_beside_it(tmp_path: Path) -> None:
    example = RIGHTS[RIGHTS.index("documents:\n  - id: our-order-form-1") :]
    known = loaded(tmp_path, example[: example.index("```")])
    asked = teacher("gpt-5", "api", host="api.openai.com", provider="openai")
    assert decide(shipped_registry(), asked, commercial_use(), on=TODAY).outcome == "deny"
    assert decide(known, asked, commercial_use(), on=TODAY).outcome == "allow"


def test_every_rule_is_documented() -> None:
    assert not [rule for rule in RULES if rule not in RIGHTS]
