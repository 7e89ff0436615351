"""Licences of sources: what each allows, which exclude each other, and the licence of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from terms_samples import TODAY, commercial_use, document, duty, registry, shipped_registry, source, teacher

from corpusgen.provenance.policy import Decision, Outcome, SourceUse, decide, effective_licence, explain
from corpusgen.provenance.terms import DataLicence, TermsDocument


def over(*sources: SourceUse, documents: tuple[TermsDocument, ...] = (), **fields: Any) -> Decision:
    """What is decided of a teacher that may do anything, with these sources."""
    known = registry(*(documents or (document(),)))
    return decide(known, teacher("m-1"), commercial_use(**fields), on=TODAY, sources=sources)


def licences(*names: str) -> list[SourceUse]:
    return [source(name, source_id=f"s{at}") for at, name in enumerate(names)]


SINGLE: dict[str, tuple[Outcome, str]] = {
    "CC0-1.0": ("allow", "R09"),
    "LicenseRef-WordNet-3.0": ("allow", "R09"),
    "MIT AND CC-BY-4.0": ("allow", "R09"),
    "(MIT AND CC-BY-4.0)": ("allow", "R09"),
    "MIT OR MIT": ("allow", "R09"),
    "Apache-2.0 WITH LLVM-exception": ("allow", "R09"),
    "Apache-2.0 WITH Commons-Clause": ("deny", "R12"),
    "CC-BY-ND-4.0": ("deny", "R12"),
    "CC-BY-NC-4.0": ("deny", "R10"),
    "NOASSERTION": ("deny", "R12"),
    "MIT OR CC-BY-4.0": ("deny", "R12"),
    "CC0-1.0 AND (MIT OR Apache-2.0)": ("deny", "R12"),
    "found on the web": ("deny", "R12"),
    "(MIT": ("deny", "R12"),
    "": ("deny", "R12"),
    "mit": ("deny", "R12"),
}


@pytest.mark.parametrize("licence", SINGLE)
def test_r12_a_licence_by_itself(licence: str) -> None:
    outcome, rule = SINGLE[licence]
    decision = over(source(licence))
    assert decision.outcome == outcome
    assert rule in {one.rule for one in decision.reasons if one.outcome == outcome}


@pytest.mark.parametrize(("distribution", "outcome"), [("internal", "allow"), ("hosted", "deny")])
def test_r12_text_that_may_not_be_passed_on_keeps_a_student_in_the_house(distribution: str, outcome: Outcome) -> None:
    kept = DataLicence(spdx="LicenseRef-Bought", train="allowed", redistribute_derived="prohibited")
    known = replace(registry(document()), data_licences=(kept,))
    use = commercial_use(student_distribution=distribution)
    decision = decide(known, teacher("m-1"), use, on=TODAY, sources=[source("LicenseRef-Bought")])
    assert decision.outcome == outcome


def test_r12_a_choice_is_for_the_user_to_make() -> None:
    assert "a choice that nobody has made; write the licence you take" in explain(over(source("MIT OR Apache-2.0")))


def test_r12_a_share_alike_is_a_duty_to_accept() -> None:
    assert over(source("CC-BY-SA-4.0"), accepted_duties=()).outcome == "needs_waiver"
    assert over(source("CC-BY-SA-4.0"), accepted_duties=("CC-BY-SA-4.0/share_alike",)).outcome == "allow"


MIXES: dict[tuple[str, ...], Outcome] = {
    ("CC-BY-SA-4.0", "MIT"): "allow",
    ("CC-BY-SA-4.0", "CC-BY-SA-4.0"): "allow",
    ("CC-BY-SA-3.0", "CC-BY-SA-4.0"): "allow",
    ("CC-BY-SA-4.0", "ODbL-1.0"): "deny",
    ("CC-BY-SA-3.0", "CC-BY-SA-4.0", "ODbL-1.0"): "deny",
    ("CC-BY-NC-SA-4.0", "CC-BY-SA-4.0"): "deny",
    ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"): "allow",
    ("CC-BY-SA-4.0", "CC-BY-NC-4.0"): "deny",
}


@pytest.mark.parametrize("names", MIXES)
def test_r12_licences_that_exclude_each_other(names: tuple[str, ...]) -> None:
    decision = over(*licences(*names), commercial=False)
    assert decision.outcome == MIXES[names]


def test_r12_a_mix_that_cannot_be_is_told_how_to_split() -> None:
    told = explain(over(*licences("CC-BY-SA-4.0", "ODbL-1.0", "MIT", "CC-BY-SA-4.0")))
    assert "make one dataset per licence (CC-BY-SA-4.0: s0, s3; ODbL-1.0: s1)" in told


def test_r12_terms_of_those_who_wrote_a_source_are_told_and_never_deny() -> None:
    barred = document(id="barred-1", models=("x-*",), outputs_train="prohibited", outputs_train_competing="prohibited")
    written = source(generated_by=("barred-1", "nobody-knows"))
    decision = over(written, documents=(document(), barred))
    assert decision.outcome == "allow"
    assert [(one.terms_id, one.notice) for one in decision.reasons if one.rule == "R12"] == [
        ("barred-1", True),
        ("nobody-knows", True),
    ]
    assert (
        "notice R12 barred-1: source 's' was written by a model under these terms: training is prohibited"
        in explain(decision)
    )


def test_r12_their_duties_are_carried_as_information() -> None:
    naming = document(id="llama-1", models=("x-*",), duties=(duty("naming", words=("Llama",)),))
    decision = over(source(generated_by=("llama-1",)), documents=(document(), naming), accepted_duties=())
    assert decision.outcome == "allow"
    carried = [one for one in decision.duties if one.second_order]
    assert [(one.kind, one.terms_id) for one in carried] == [("naming", "llama-1")]


WORDS = st.sampled_from(("MIT", "CC-BY-4.0", "AND", "OR", "WITH", "(", ")", "LLVM-exception", "and", "x", "+", "é"))


@settings(deadline=None)
@example("( )")
@example("( AND MIT")
@given(st.lists(WORDS, max_size=7).map(" ".join) | st.text(max_size=20))
def test_no_licence_is_too_odd_to_be_read(licence: str) -> None:
    once = over(source(licence))
    assert once.outcome in ("allow", "deny")
    assert once.licence_expression


EXPRESSIONS: dict[tuple[str, ...], str] = {
    (): "Apache-2.0",
    ("Apache-2.0",): "Apache-2.0",
    ("WordNet", "LicenseRef-WordNet-3.0"): "Apache-2.0 AND WordNet",
    ("MIT", "CC-BY-4.0 AND MIT"): "Apache-2.0 AND CC-BY-4.0 AND MIT",
    ("MIT OR CC-BY-4.0",): "Apache-2.0 AND (CC-BY-4.0 OR MIT)",
    ("MIT OR Apache-2.0",): "Apache-2.0",
    ("Apache-2.0 WITH LLVM-exception",): "Apache-2.0 AND Apache-2.0 WITH LLVM-exception",
    ("found on the web",): "Apache-2.0 AND NOASSERTION",
}


@pytest.mark.parametrize("names", EXPRESSIONS)
def test_the_licence_of_a_mix_names_each_licence_once(names: tuple[str, ...]) -> None:
    assert over(*licences(*names)).licence_expression == EXPRESSIONS[names]


def test_the_order_of_sources_does_not_matter_to_the_licence() -> None:
    one, other = licences("MIT", "CC-BY-4.0")
    assert over(one, other).licence_expression == over(other, one).licence_expression


BUCKETS: dict[str, tuple[str, str]] = {
    "CC0-1.0": ("permissive", ""),
    "CC-BY-4.0": ("permissive", "attribution"),
    "CC-BY-SA-4.0": ("share_alike", "share_alike attribution"),
    "CC-BY-NC-4.0": ("restricted", "non_commercial attribution"),
    "CC-BY-NC-SA-4.0": ("restricted", "non_commercial share_alike attribution"),
    "CC-BY-ND-4.0": ("restricted", "no_derivatives attribution"),
    "NOASSERTION": ("restricted", ""),
    "MIT OR CC-BY-SA-4.0": ("restricted", ""),
}


@pytest.mark.parametrize("licence", BUCKETS)
def test_a_mix_has_bits_and_a_bucket(licence: str) -> None:
    decision = over(source(licence), commercial=False)
    bits = " ".join(name for name, is_set in vars(decision.licence_bits).items() if is_set)
    assert (decision.bucket, bits) == BUCKETS[licence]


TEACHERS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "permissive",
    "Qwen/Qwen3-8B": "permissive",
    "meta-llama/Llama-3.3-70B-Instruct": "restricted",
    "Qwen/Qwen2.5-3B-Instruct": "restricted",
    "google/gemma-3-27b-it": "restricted",
    "my-model": "restricted",
}


@pytest.mark.parametrize("model", TEACHERS)
def test_a_teachers_terms_put_its_records_in_a_bucket(model: str) -> None:
    assert decide(shipped_registry(), teacher(model), commercial_use(), on=TODAY).bucket == TEACHERS[model]


def test_records_of_a_teacher_that_competitors_may_not_learn_from_are_restricted() -> None:
    assert over(documents=(document(outputs_train_competing="conditional"),)).bucket == "restricted"
    assert over(documents=(document(),)).bucket == "permissive"


def test_the_licence_of_a_mix_can_be_asked_for_without_a_decision() -> None:
    known = shipped_registry()
    found = effective_licence(known, [known.by_id["phi-mit"]], [source("CC-BY-SA-4.0")])
    assert (found.expression, found.bucket) == ("CC-BY-SA-4.0 AND MIT", "share_alike")
