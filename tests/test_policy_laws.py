"""Laws of the policy that hold for every set of terms, and planted mistakes that each law catches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any, TypeAlias

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from terms_samples import EVERY_DUTY, TODAY, agreement, as_here, document, shipped_registry, source, teacher, waiver

from corpusgen.provenance import policy
from corpusgen.provenance.policy import RULES, Decision, IntendedUse, Outcome, Reason, decide
from corpusgen.provenance.terms import Registry, TeacherRoute, TermsDocument, TermsDuty

Judge: TypeAlias = Callable[..., Decision]

SEVERITY = {"allow": 0, "needs_waiver": 1, "deny": 2}
BUCKETS = ("permissive", "share_alike", "restricted")

GRANTS = st.sampled_from(("allowed", "conditional", "unclear", "prohibited"))
DUTIES = st.builds(
    TermsDuty,
    kind=st.sampled_from(("naming", "non_commercial", "mau_cap", "residency", "share_alike", "license_copy")),
    applies_to=st.just("student"),
    text=st.just("x"),
    limit=st.sampled_from((None, 1, 10**9)),
    above=st.sampled_from(("no_licence", "duty")),
    regions=st.sampled_from(((), (), ("eu",))),
    roles=st.sampled_from(((), ("base",))),
)
DOCUMENTS = st.builds(
    document,
    id=st.integers(0, 99).map(lambda number: f"d-{number}"),
    kind=st.sampled_from(("api_terms", "usage_policy", "model_licence", "host_terms", "own")),
    routes=st.sampled_from((("self_hosted",), ("api", "self_hosted"), ("aggregator", "api"))),
    models=st.sampled_from((("m-*",), ("*",), ("1",), ("gpt-*",), ("qwen3-*",), ("other-*",))),
    outputs_train=GRANTS,
    outputs_train_competing=GRANTS,
    as_base=st.sampled_from((None, "allowed", "prohibited")),
    written_authorisation=st.booleans(),
    commercial_use=GRANTS,
    duties=st.lists(DUTIES, max_size=2).map(tuple),
    confidence=st.sampled_from(("high", "medium", "low")),
    trains_on_inputs=st.sampled_from(("yes", "no", "unclear")),
    processed_in=st.sampled_from(((), ("cn",), ("de",))),
    reviewed=st.sampled_from((TODAY, date(2026, 1, 1))),
    effective=st.sampled_from((None, TODAY, date(2027, 1, 1))),
    superseded=st.sampled_from((None, TODAY, date(2030, 1, 1))),
)
COVERING = DOCUMENTS.map(
    lambda one: one.model_copy(
        update={
            "id": "plain-1",
            "models": ("m-*",),
            "routes": ("self_hosted", "api"),
            "effective": None,
            "superseded": None,
        }
    )
)
"""Terms under which m-1 is no unknown model."""
KNOWN = st.tuples(COVERING, st.lists(DOCUMENTS, max_size=2, unique_by=lambda one: one.id)).map(
    lambda drawn: [drawn[0], *drawn[1]]
)
TEACHERS = st.builds(
    teacher,
    st.sampled_from(("m-1", "m-1", "gpt-5", "Qwen/Qwen3-8B", "google/gemma-3-27b-it", "nobody/knows")),
    st.sampled_from(("self_hosted", "api", "aggregator")),
    host=st.sampled_from(("", "localhost", "api.openai.com", "openrouter.ai")),
    pinned_terms=st.sampled_from(((), (), ("plain-1",))),
    region=st.sampled_from((None, "de", "us")),
    unpaid=st.booleans(),
    weights_sha256=st.sampled_from((None, "0" * 64)),
)
USES = st.builds(
    IntendedUse,
    student_distribution=st.sampled_from(("internal", "weights_released")),
    student_competes=st.sampled_from(("yes", "no", "unknown")),
    commercial=st.booleans(),
    accepted_duties=st.sampled_from(((), ("naming",), EVERY_DUTY)),
    personal_data=st.sampled_from(((), ("contact",))),
    agreements=st.sampled_from(((), (agreement("*"),))),
    egress=st.sampled_from(("any", "none")),
    monthly_active_users=st.sampled_from((None, 5)),
    domiciled_in=st.sampled_from(((), ("de",), ("us",))),
)
SOURCES = st.lists(
    st.sampled_from(
        (
            source("CC-BY-SA-4.0"),
            source("ODbL-1.0", processing_regions=("eu",)),
            source("MIT OR Apache-2.0"),
            source("CC0-1.0", personal_data=("contact",), lawful_basis="consent", generated_by=("d-1",)),
        )
    ),
    max_size=2,
).map(tuple)
NAMED = ("plain-1", "new-1", *(f"d-{number}" for number in range(100)), *shipped_registry().by_id)
WAIVERS = st.lists(
    st.builds(
        lambda **fields: waiver(*NAMED, **fields),
        waiver_id=st.sampled_from(("w1", "w2")),
        rules=st.sampled_from(((), ("R05",), tuple(RULES))),
        expires=st.sampled_from((TODAY, date(2030, 1, 1))),
        teacher=st.sampled_from(("", "*", "[!-]*")),
    ),
    max_size=2,
).map(tuple)
DAYS = st.sampled_from((date(2025, 12, 31), TODAY, date(2027, 6, 1)))
QUESTIONS = st.fixed_dictionaries(
    {"on": DAYS, "role": st.sampled_from(("response", "judge", "base")), "sources": SOURCES, "waivers": WAIVERS}
)


RELEVANT = tuple(
    one
    for one in shipped_registry().documents
    if one.provider in ("openai", "openrouter", "google") or one.id == "qwen-apache-2.0"
)


def of(*documents: TermsDocument) -> Registry:
    """The shipped terms that TEACHERS may be under, with these beside them."""
    return replace(shipped_registry(), documents=(*RELEVANT, *documents))


def severity(decision: Decision, *, without: str = "") -> int:
    return max((SEVERITY[one.outcome] for one in decision.reasons if one.rule != without), default=0)


HELD: dict[str, Any] = {
    "max_examples": 200,
    "database": None,
    "derandomize": True,
    "deadline": None,
    "report_multiple_bugs": False,
}

# Each law is made for a judge, so that judges with planted mistakes can be held against it.


def adding_never_loosens(judge: Judge, **how: Any) -> Callable[[], None]:
    """Another document of terms makes no decision looser; it can only make an unknown teacher a known one (R01)."""

    @settings(**{**HELD, **how})
    @given(KNOWN, DOCUMENTS, TEACHERS, USES, QUESTIONS)
    def law(
        known: list[TermsDocument], added: TermsDocument, asked: TeacherRoute, use: IntendedUse, question: Any
    ) -> None:
        new = added.model_copy(update={"id": "new-1"})
        question = question | {"waivers": as_here(of(*known, new), question["waivers"])}
        before = judge(of(*known), asked, use, **question)
        after = judge(of(*known, new), asked, use, **question)
        assert severity(after, without="R01") >= severity(before, without="R01")
        assert set(before.duties) <= set(after.duties)
        if not before.gaps:
            assert SEVERITY[after.outcome] >= SEVERITY[before.outcome]
            assert BUCKETS.index(after.bucket) >= BUCKETS.index(before.bucket)

    return law


def waivers_never_lift_a_denial(judge: Judge, **how: Any) -> Callable[[], None]:
    """No waiver makes an allow of a deny; written authorisation, where terms yield to it, is the one way past R04."""

    @settings(**{**HELD, **how})
    @given(KNOWN, TEACHERS, USES, QUESTIONS)
    def law(known: list[TermsDocument], asked: TeacherRoute, use: IntendedUse, question: Any) -> None:
        registry = of(*known)
        question = question | {"waivers": as_here(registry, question["waivers"])}
        bare = judge(registry, asked, use, **{**question, "waivers": ()})
        waived = judge(registry, asked, use, **question)
        denied = [one for one in bare.reasons if one.outcome == "deny" and not _yields(registry, one, question)]
        assert waived.outcome == "deny" if denied else SEVERITY[waived.outcome] <= SEVERITY[bare.outcome]
        assert set(denied) <= set(waived.reasons)

    return law


def _yields(registry: Registry, reason: Reason, question: Any) -> bool:
    """True if a prohibition yields to written authorisation, and a waiver of exactly that holds it."""
    if reason.rule != "R04" or reason.terms_id is None or not registry.by_id[reason.terms_id].written_authorisation:
        return False
    naming = [one for one in question["waivers"] if "R04" in one.rules and one.is_scoped]
    return any(one.granted <= question["on"] <= one.expires for one in naming)


test_adding_a_terms_document_never_loosens_a_decision = adding_never_loosens(decide)
test_a_waiver_never_makes_an_allow_of_a_deny = waivers_never_lift_a_denial(decide)


# --- planted mistakes ------------------------------------------------------------------------------------------------


def first_match(registry: Registry, asked: TeacherRoute, use: IntendedUse, **question: Any) -> Decision:
    """As peers do it: the table is read until something fits."""
    found = {one.id for one in registry.matching(asked, question["on"]).documents}
    first = next((one for one in reversed(registry.documents) if one.id in found), None)
    return decide(replace(registry, documents=(first,) if first else ()), asked, use, **question)


def loosest_wins(registry: Registry, asked: TeacherRoute, use: IntendedUse, **question: Any) -> Decision:
    decision = decide(registry, asked, use, **question)
    return replace(decision, outcome=min((one.outcome for one in decision.reasons), key=SEVERITY.__getitem__))


def waives_everything(registry: Registry, asked: TeacherRoute, use: IntendedUse, **question: Any) -> Decision:
    decision = decide(registry, asked, use, **question)
    named = {name for one in question["waivers"] for name in one.terms_ids}
    left = tuple(one for one in decision.reasons if one.terms_id not in named)
    outcome: Outcome = max((one.outcome for one in left), key=SEVERITY.__getitem__, default="allow")
    return replace(decision, reasons=left, outcome=outcome)


def authorises_without_paper(registry: Registry, asked: TeacherRoute, use: IntendedUse, **question: Any) -> Decision:
    """Every prohibition yields, whatever its document says."""
    loose = tuple(one.model_copy(update={"written_authorisation": True}) for one in registry.documents)
    return decide(replace(registry, documents=loose), asked, use, **question)


PLANTED: list[tuple[Callable[..., Callable[[], None]], Judge]] = [
    (adding_never_loosens, first_match),
    (adding_never_loosens, loosest_wins),
    (waivers_never_lift_a_denial, waives_everything),
    (waivers_never_lift_a_denial, authorises_without_paper),
]


@pytest.mark.parametrize(("law", "mistaken"), PLANTED, ids=lambda one: one.__name__)
def test_a_planted_mistake_breaks_its_law(law: Callable[..., Callable[[], None]], mistaken: Judge) -> None:
    with pytest.raises(AssertionError):
        law(mistaken, max_examples=1_000, phases=[Phase.generate])()


# --- the same question -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(DOCUMENTS, max_size=4, unique_by=lambda one: one.id), TEACHERS, USES, QUESTIONS, st.randoms())
def test_the_same_question_has_the_same_answer_in_any_order(
    known: list[TermsDocument], asked: TeacherRoute, use: IntendedUse, question: Any, random: Any
) -> None:
    shuffled = random.sample(of(*known).documents, len(of(*known).documents))
    policy._decided.cache_clear()
    one = decide(of(*known), asked, use, **question)
    policy._decided.cache_clear()
    other = decide(replace(shipped_registry(), documents=tuple(shuffled)), asked, use, **question)
    assert one == other


@given(DOCUMENTS, USES)
def test_an_unknown_teacher_is_never_allowed(known: TermsDocument, use: IntendedUse) -> None:
    assume(not any(pattern == "*" for pattern in known.models))
    assert decide(of(known), teacher("nobody/knows"), use, on=TODAY).outcome == "deny"


def test_a_question_that_was_asked_before_is_answered_from_memory() -> None:
    use, seeds = IntendedUse(student_distribution="internal"), [source(), source("MIT", source_id="other")]
    first = decide(shipped_registry(), teacher("m-1"), use, on=TODAY, sources=seeds)
    again = decide(replace(shipped_registry()), replace(teacher("m-1")), replace(use), on=TODAY, sources=list(seeds))
    assert again is first


def test_another_file_of_the_same_document_is_another_question() -> None:
    use = IntendedUse(student_distribution="internal")
    moved = replace(of(document()), files={"plain-1": "elsewhere.yaml"})
    decide(of(document()), teacher("m-1"), use, on=TODAY)
    assert {one.file for one in decide(moved, teacher("m-1"), use, on=TODAY).reasons} == {"elsewhere.yaml"}
