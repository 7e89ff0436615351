"""The terms registry: what ships, which documents bind a teacher, and what a bad file is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from terms_samples import MINIMAL, TODAY, document, registry, shipped_registry, teacher, terms_file

from corpusgen.errors import LocatedError
from corpusgen.provenance.terms import Registry, TermsDocument, load_registry, terms_set_id
from corpusgen.shipped import shipped

SHIPPED = shipped("data/terms.yaml")


def ids(known: Registry, model: str, route: str = "self_hosted", on: date = TODAY, **fields: str) -> list[str]:
    match = known.matching(teacher(model, **{"route": route, **fields}), on)  # type: ignore[arg-type]
    return [found.id for found in match.documents]


def test_the_shipped_registry_loads_and_says_that_it_is_no_legal_advice() -> None:
    assert len(shipped_registry().documents) == 43
    assert "Not legal advice" in shipped_registry().notice
    assert shipped_registry().known_gaps


def test_every_shipped_document_names_its_source_and_review() -> None:
    assert all(found.source and found.reviewed >= date(2026, 11, 21) for found in shipped_registry().documents)


def test_every_suggested_teacher_is_covered_by_the_shipped_terms() -> None:
    for known in shipped_registry().known_teachers:
        match = shipped_registry().matching(teacher(known.model, known.route, host=known.host), TODAY)
        assert not match.gaps, known.name


def test_the_same_weights_are_under_other_terms_through_an_api() -> None:
    assert ids(shipped_registry(), "google/gemma-4-27b-it") == ["google-gemma-4-apache-2.0"]
    assert ids(shipped_registry(), "gemma-4-27b-it", "api") == ["google-gemini-api-terms-2026-03-23"]


def test_a_usage_policy_joins_the_other_terms_of_its_provider() -> None:
    policy = document(id="policy-1", kind="usage_policy", models=("nothing",))
    plain = replace(registry(document(), policy), always_add=shipped_registry().always_add)
    assert ids(plain, "m-1") == ["plain-1", "policy-1"]


def test_a_distilled_checkpoint_carries_the_licence_of_its_base() -> None:
    found = ids(shipped_registry(), "deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
    assert found == ["deepseek-weights-mit", "llama-3.1-community"]


def test_a_name_inside_another_name_adds_terms_but_covers_nothing() -> None:
    match = shipped_registry().matching(teacher("NousResearch/Hermes-3-Llama-3.1-8B"), TODAY)
    assert [found.id for found in match.documents] == ["llama-3.1-community"]
    assert [gap.about for gap in match.gaps] == ["model"]


def test_an_aggregator_needs_terms_of_its_own() -> None:
    unknown = shipped_registry().matching(teacher("gpt-oss-20b", "aggregator", host="cheap.example"), TODAY)
    known = shipped_registry().matching(teacher("gpt-oss-20b", "aggregator", host="openrouter.ai:443"), TODAY)
    assert [gap.about for gap in unknown.gaps] == ["host"]
    assert not known.gaps
    assert [found.id for found in known.documents] == ["gpt-oss-apache-2.0", "openrouter-2026-08-31"]


def test_a_well_known_host_under_a_wrong_route_is_a_gap() -> None:
    match = shipped_registry().matching(teacher("Qwen/Qwen3-8B", host="openrouter.ai"), TODAY)
    assert "aggregator, not by self_hosted" in match.gaps[0].text


@pytest.mark.parametrize("host", ["OpenRouter.ai:443", "https://me:secret@openrouter.ai/api/v1", "openrouter.ai."])
def test_a_host_is_known_however_it_is_written(host: str) -> None:
    assert "openrouter-2026-08-31" in ids(shipped_registry(), "gpt-oss-20b", "aggregator", host=host)


def test_a_superseded_version_binds_the_days_before_its_end() -> None:
    assert ids(shipped_registry(), "gpt-5", "api", date(2025, 12, 31)) == ["openai-services-agreement-2025-05-31"]
    assert ids(shipped_registry(), "gpt-5", "api", date(2026, 1, 1)) == ["openai-services-agreement-2026-01-01"]


@pytest.mark.parametrize("model", ["m-1", "M-1", "house/m-1", "m:1", "a/b/m_1", "m"])
def test_case_owner_and_separators_of_a_model_id_do_not_matter(model: str) -> None:
    assert ids(registry(document()), model) == ["plain-1"]


@pytest.mark.parametrize("model", ["am-1", "mm", "m1", "m.1", ""])
def test_a_name_that_only_resembles_is_not_covered(model: str) -> None:
    assert registry(document()).matching(teacher(model), TODAY).gaps


def test_pinned_terms_must_name_every_document_that_matches() -> None:
    both = registry(document(), document(id="strict-1", outputs_train_competing="prohibited"))
    lacking = both.matching(teacher("m-1", pinned_terms=("plain-1",)), TODAY)
    whole = both.matching(teacher("m-1", pinned_terms=("plain-1", "strict-1")), TODAY)
    assert "strict-1" in lacking.gaps[0].text
    assert not whole.gaps


def test_pinning_terms_does_not_cover_a_model_they_do_not_name() -> None:
    match = registry(document()).matching(teacher("other", pinned_terms=("plain-1",)), TODAY)
    assert [gap.about for gap in match.gaps] == ["model"]


@settings(max_examples=20)
@given(st.permutations(shipped_registry().documents))
def test_the_order_of_documents_changes_no_digest(shuffled: list[TermsDocument]) -> None:
    assert terms_set_id(shuffled) == terms_set_id(shipped_registry().documents)
    assert replace(shipped_registry(), documents=tuple(shuffled)).digest == shipped_registry().digest


def test_another_value_in_a_document_is_another_registry() -> None:
    assert registry(document()).digest != registry(document(outputs_train_competing="unclear")).digest


def test_an_organisation_adds_documents_in_a_file_of_its_own(tmp_path: Path) -> None:
    assert ids(load_registry(SHIPPED, terms_file(tmp_path, MINIMAL)), "house-7b") == ["house-1"]


def test_a_review_refreshes_a_shipped_document(tmp_path: Path) -> None:
    text = "reviews:\n  - {terms: phi-mit, reviewed: 2027-03-01, by: our counsel}\n"
    assert load_registry(SHIPPED, terms_file(tmp_path, text)).by_id["phi-mit"].reviewed == date(2027, 3, 1)


BROKEN = {
    "a misspelt value": ("outputs_train: allowed", "outputs_train: alowed", 9, "alowed"),
    "a misspelt field": ("source: our counsel", "sauce: our counsel", 13, "no such field"),
    "no route": ("routes: [self_hosted]", "routes: []", 7, "at least 1"),
    "an unknown route": ("[self_hosted]", "[by_post]", 7, "by_post"),
    "a made-up licence": ("LicenseRef-House", "House", 12, "LicenseRef-"),
    "a wrong date": ("2026-11-20", "20.11.2026", 15, "date"),
    "a looser grant for competitors": ("outputs_train: allowed", "outputs_train: prohibited", 10, "as strict"),
    "a glob that fits nothing": ('"house-*"', '"House_*"', 8, "lower case"),
    "an id that ships already": ("house-1", "phi-mit", 2, "twice"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    before, after, line, words = BROKEN[case]
    path = terms_file(tmp_path, MINIMAL.replace(before, after))
    with pytest.raises(LocatedError) as caught:
        load_registry(SHIPPED, path)
    assert (path, line) in [(problem.file, problem.line) for problem in caught.value.problems]
    assert words in str(caught.value)


def test_a_long_quotation_is_refused(tmp_path: Path) -> None:
    path = terms_file(tmp_path, f"{MINIMAL}    quote: {'word ' * 21}\n    quote_location: s.1\n")
    with pytest.raises(LocatedError, match=r"terms\.yaml:16: .*at most 20 words, found 21"):
        load_registry(SHIPPED, path)


def test_every_mistake_of_every_file_is_reported_at_once(tmp_path: Path) -> None:
    path = terms_file(tmp_path, MINIMAL.replace("LicenseRef-House", "House").replace('"house-*"', '"House"'))
    with pytest.raises(LocatedError) as caught:
        load_registry(SHIPPED, path)
    assert len(caught.value.problems) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocatedError, match=r"missing\.yaml"):
        load_registry(SHIPPED, tmp_path / "missing.yaml")
