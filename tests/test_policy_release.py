"""Which model answered (R13), under which name a student may go out (R15), and which waivers are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from terms_samples import TODAY, commercial_use, document, duty, registry, shipped_registry, source, teacher, waiver

from corpusgen.provenance.policy import (
    Bundle,
    Decision,
    decide,
    release_problems,
    served_model,
    waiver_problems,
)
from corpusgen.provenance.terms import TermsDuty

LLAMA, DEEPSEEK = "meta-llama/Llama-3.3-70B-Instruct", "deepseek-chat"
GEMMA, QWEN = "google/gemma-3-27b-it", "Qwen/Qwen2.5-72B-Instruct"


def decided(model: str, **fields: Any) -> Decision:
    route = {"route": "api", "host": "api.deepseek.com"} if model == DEEPSEEK else {}
    asked = teacher(model, **{**route, **fields.pop("teacher", {})})
    return decide(shipped_registry(), asked, commercial_use(), on=TODAY, **fields)


def owing(*duties: TermsDuty, terms_id: str = "plain-1") -> Decision:
    return decide(registry(document(id=terms_id, duties=duties)), teacher("m-1"), commercial_use(), on=TODAY)


# --- R13 -------------------------------------------------------------------------------------------------------------

SERVED: dict[tuple[str, str], str] = {
    (LLAMA, LLAMA): "allow",
    (LLAMA, "llama-3.3-70b-instruct"): "allow",
    (LLAMA, "llama3.3:70b"): "allow",
    (LLAMA, "meta-llama/Llama-3-70B-Instruct"): "deny",
    (LLAMA, "meta-llama/Llama-3.1-70B-Instruct"): "deny",
    (LLAMA, "somebody/else"): "deny",
    (LLAMA, ""): "allow",
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"): "allow",
    ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-3B-Instruct"): "deny",
    (DEEPSEEK, "deepseek-v3.2"): "allow",
}


@pytest.mark.parametrize(("asked", "served"), SERVED)
def test_r13_a_model_whose_terms_were_not_checked_is_told(asked: str, served: str) -> None:
    found = served_model(shipped_registry(), decided(asked), served, TODAY)
    assert (found.rule, found.outcome) == ("R13", SERVED[asked, served])


def test_r13_names_what_was_asked_what_answered_and_whose_terms_nobody_judged() -> None:
    found = served_model(shipped_registry(), decided(LLAMA), "meta-llama/Llama-3.1-70B-Instruct", TODAY)
    assert "Llama-3.3-70B-Instruct' was asked and 'meta-llama/Llama-3.1-70B-Instruct' answered" in found.text
    assert "it is under llama-3.1-community, which nobody judged" in found.text


def test_r13_weights_pinned_by_digest_are_what_they_are_whatever_a_server_calls_them() -> None:
    pinned = decided(LLAMA, teacher={"weights_sha256": "0" * 64})
    assert served_model(shipped_registry(), pinned, "gpt-3.5-turbo", TODAY).outcome == "allow"


def test_r13_the_scripted_teacher_may_call_itself_anything() -> None:
    scripted = teacher("script", "mock", provider="corpusgen")
    decision = decide(shipped_registry(), scripted, commercial_use(), on=TODAY)
    assert served_model(shipped_registry(), decision, "anything", TODAY).outcome == "allow"


# --- R15 -------------------------------------------------------------------------------------------------------------


def problems(name: str, *decisions: Decision, distribution: Any = "weights_released", **bundle: Any) -> list[str]:
    found = release_problems(name, decisions, Bundle(**bundle), distribution=distribution)
    assert all((one.rule, one.outcome) == ("R15", "deny") for one in found)
    return [one.text for one in found]


WHOLE = {"card": "Built with Llama", "use_policies": ("llama-3.3-community",)}


@pytest.mark.parametrize(
    ("name", "passes"),
    [("Llama-words-1", True), ("Llama words", True), ("words-llama", False), ("llama-words", False), ("Lama-1", False)],
)
def test_r15_a_student_of_llama_has_a_name_that_begins_with_its_mark(name: str, passes: bool) -> None:
    assert (problems(name, decided(LLAMA), **WHOLE) == []) == passes


def test_r15_says_which_name_would_do() -> None:
    told = problems("words", decided(LLAMA), **WHOLE)
    assert len(told) == 1
    assert "the name 'words' must begin with 'Llama'" in told[0]
    assert "call it Llama-words" in told[0]


def test_r15_a_mark_that_is_barred_does_not_stand_in_the_name() -> None:
    labelled = {"card": "Trained on AI-generated text"}
    assert "must not hold 'DeepSeek'" in problems("my-deep-seek-deepseek", decided(DEEPSEEK), **labelled)[0]
    assert problems("my-words", decided(DEEPSEEK), **labelled) == []


CONFLICTS = {
    "two prefixes": (duty("naming", words=("Llama",)), duty("naming", words=("Gemma",)), True),
    "one prefix within another": (duty("naming", words=("Llama",)), duty("naming", words=("Llama 3",)), False),
    "one prefix around another": (duty("naming", words=("Llama 3",)), duty("naming", words=("Llama",)), False),
    "a prefix that another bars": (duty("naming", words=("Llama",)), duty("no_trademark", words=("Llama",)), True),
    "one of two prefixes barred": (duty("naming", words=("A", "B")), duty("no_trademark", words=("A",)), False),
    "a prefix and another's mark": (duty("naming", words=("Llama",)), duty("no_trademark", words=("DeepSeek",)), False),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_r15_duties_that_no_name_can_satisfy_are_told_as_such(case: str) -> None:
    one, other, conflict = CONFLICTS[case]
    told = problems("Llama 3 B", owing(one), owing(other, terms_id="other-1"))
    assert any("conflict" in text and "plain-1" in text and "other-1" in text for text in told) == conflict


def test_r15_a_bundle_without_anything_is_told_everything_it_lacks() -> None:
    told = " | ".join(problems("words", decided(GEMMA), decided(QWEN), decided(DEEPSEEK)))
    for words in (
        "there is no NOTICE; add one that says “Gemma is provided under",
        "no copy of google-gemma-terms-of-use goes along",
        "the use restrictions of google-gemma-terms-of-use are not passed on",
        "neither the card nor NOTICE says “Built with Qwen” or “Improved using Qwen”",
        "the card has no AI label",
    ):
        assert words in told


def test_r15_a_bundle_with_all_of_it_has_no_problem() -> None:
    whole = Bundle(
        card="Improved using Qwen. Trained on text that was generated by artificial intelligence.",
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at …",
        licences=("google-gemma-terms-of-use",),
        use_policies=("google-gemma-terms-of-use",),
    )
    decisions = [decided(GEMMA), decided(QWEN), decided(DEEPSEEK)]
    assert release_problems("words", decisions, whole, distribution="hosted") == ()


def test_r15_sources_are_credited() -> None:
    decision = decided("Qwen/Qwen3-8B", sources=[source("CC-BY-4.0", source_id="wiki")])
    assert "neither the card nor NOTICE says “wiki”" in problems("words", decision)[0]
    assert problems("words", decision, card="Texts of Wiki, CC BY 4.0") == []


def test_r15_a_student_that_stays_in_the_house_owes_nothing_yet() -> None:
    assert problems("words", decided(LLAMA), distribution="internal") == []


def test_r15_duties_by_way_of_a_source_are_information() -> None:
    decision = decided("Qwen/Qwen3-8B", sources=[source(generated_by=("llama-3.3-community",))])
    assert any(one.second_order for one in decision.duties)
    assert problems("words", decision) == []


def test_r15_weights_that_a_student_begins_with_bring_their_own_duties() -> None:
    assert problems("words", decided("Qwen/Qwen3-8B")) == []
    told = problems("words", decided("Qwen/Qwen3-8B", role="base"))
    assert "no copy of qwen-apache-2.0 goes along" in told[0]


def test_r15_a_naming_duty_without_its_words_cannot_be_checked() -> None:
    assert "cannot be checked" in problems("words", owing(duty("naming")))[0]


# --- waivers when they are granted -----------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, str]] = {
    "of a document nobody has": (waiver("gone-1"), "no document or licence is called 'gone-1'"),
    "of no document": (waiver(), "names no terms"),
    "by nobody": (waiver("mistral-commercial-terms-2026-09-25", granted_by=" "), "who grants it"),
    "without evidence": (waiver("mistral-commercial-terms-2026-09-25", evidence_sha256=""), "no sha256"),
    "that is over": (waiver("mistral-commercial-terms-2026-09-25", expires=date(2026, 1, 1)), "which is over"),
    "of a made-up rule": (waiver("mistral-commercial-terms-2026-09-25", rules=("R99",)), "no rule 'R99'"),
    "of a prohibition": (waiver("llama-2-community"), "a prohibition is not waived"),
    "of a prohibition by its rule": (waiver("llama-2-community", rules=("R04",)), "a prohibition is not waived"),
    "of a prohibition that yields, for all": (
        waiver("xai-enterprise-2026-08-14", rules=("R04",), task="*"),
        "name it with --task or --teacher",
    ),
    "for ever": (waiver("phi-mit", expires=date(2099, 1, 1)), "more than 5 years from now"),
    "of a prohibition that yields, without its rule": (waiver("xai-enterprise-2026-08-14"), "name rule R04"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_waiver_that_could_lift_nothing_is_refused(case: str) -> None:
    asked, words = REFUSED[case]
    assert any(words in one for one in waiver_problems(shipped_registry(), asked, TODAY))


def test_a_waiver_of_a_document_that_another_stands_in_for_is_told_of_that_one() -> None:
    known = replace(registry(document()), overridden={"old-1": "plain-1"})
    assert waiver_problems(known, waiver("old-1"), TODAY) == ("old-1 is overridden by plain-1; name that one",)


@pytest.mark.parametrize(
    "sound",
    [
        waiver("mistral-commercial-terms-2026-09-25"),
        waiver("CC-BY-SA-4.0", rules=("R07",)),
        waiver("llama-2-community", rules=("R02",)),
        waiver("xai-enterprise-2026-08-14", rules=("R04",), task="words"),
        replace(waiver("phi-mit"), granted=date(2027, 1, 1), expires=date(2027, 6, 1)),
    ],
)
def test_a_sound_waiver_is_not_refused(sound: Any) -> None:
    assert waiver_problems(shipped_registry(), sound, TODAY) == ()
