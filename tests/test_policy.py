"""What the policy decides over real model ids, and how it says so."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terms_samples import (
    EVERY_DUTY,
    TODAY,
    commercial_use,
    document,
    registry,
    shipped_registry,
    teacher,
    terms_file,
)

from corpusgen.provenance.policy import (
    RULES,
    Decision,
    IntendedUse,
    Outcome,
    Role,
    SourceUse,
    decide,
    explain,
    suggest_allowed,
)
from corpusgen.provenance.terms import Route, TeacherRoute, TermsDocument, TermsDuty, load_registry
from corpusgen.shipped import shipped

# Hosts are written where the route or the contract needs them.
TABLE: tuple[tuple[str, Route, str, Outcome, str], ...] = (
    ("gpt-5", "api", "api.openai.com", "deny", "R04"),
    ("gpt-4o-mini", "api", "api.openai.com", "deny", "R04"),
    ("o3-mini", "api", "api.openai.com", "deny", "R04"),
    ("gpt-5", "self_hosted", "", "deny", "R01"),
    ("gpt-4o", "cloud", "ours.openai.azure.com", "deny", "R04"),
    ("gpt-oss-20b", "self_hosted", "", "allow", "R09"),
    ("openai/gpt-oss-120b", "aggregator", "openrouter.ai", "needs_waiver", "R06"),
    ("claude-sonnet-4-5", "api", "api.anthropic.com", "deny", "R04"),
    ("us.anthropic.claude-sonnet-4-5-v1:0", "cloud", "bedrock-runtime.us-east-1.amazonaws.com", "deny", "R04"),
    ("gemini-2.5-flash", "api", "generativelanguage.googleapis.com", "deny", "R04"),
    ("gemma-4-27b-it", "api", "generativelanguage.googleapis.com", "deny", "R04"),
    ("google/gemma-4-27b-it", "self_hosted", "", "allow", "R09"),
    ("google/gemma-3-27b-it", "self_hosted", "", "allow", "R08"),
    ("gemma-30b", "self_hosted", "", "deny", "R01"),
    ("google/medgemma-4b-it", "self_hosted", "", "deny", "R01"),
    ("mistral-large-latest", "api", "api.mistral.ai", "needs_waiver", "R06"),
    ("mistralai/Mistral-7B-Instruct-v0.3", "self_hosted", "", "allow", "R09"),
    ("mistralai/Ministral-8B-Instruct-2410", "self_hosted", "", "deny", "R10"),
    ("command-r-plus", "api", "api.cohere.com", "needs_waiver", "R05"),
    ("CohereForAI/aya-expanse-8b", "self_hosted", "", "deny", "R10"),
    ("deepseek-chat", "api", "api.deepseek.com", "allow", "R09"),
    ("deepseek-ai/DeepSeek-V3", "self_hosted", "", "allow", "R08"),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "self_hosted", "", "allow", "R08"),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "self_hosted", "", "allow", "R09"),
    ("Qwen/Qwen3-8B", "self_hosted", "", "allow", "R09"),
    ("Qwen/Qwen2.5-32B-Instruct", "self_hosted", "", "allow", "R09"),
    ("Qwen/Qwen2.5-3B-Instruct", "self_hosted", "", "deny", "R10"),
    ("Qwen/Qwen2.5-72B-Instruct", "self_hosted", "", "allow", "R08"),
    ("Qwen/Qwen-7B-Chat", "self_hosted", "", "deny", "R04"),
    ("meta-llama/Llama-2-7b-chat-hf", "self_hosted", "", "deny", "R04"),
    ("meta-llama/Meta-Llama-3-8B-Instruct", "self_hosted", "", "deny", "R04"),
    ("llama3.1:8b", "self_hosted", "", "allow", "R08"),
    ("meta-llama/Llama-3.3-70B-Instruct", "self_hosted", "", "allow", "R08"),
    ("llama-3.3-70b-versatile", "aggregator", "api.groq.com", "deny", "R01"),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "self_hosted", "", "allow", "R08"),
    ("NousResearch/Hermes-3-Llama-3.1-8B", "self_hosted", "", "deny", "R01"),
    ("SmolLM2-135M-Instruct", "self_hosted", "", "allow", "R09"),
    ("smollm21-7b", "self_hosted", "", "deny", "R01"),
    ("microsoft/phi-4", "self_hosted", "", "allow", "R09"),
    ("cognitivecomputations/dolphin-2.6", "self_hosted", "", "deny", "R01"),
    ("grok-4", "api", "api.x.ai", "deny", "R04"),
    ("my-model", "self_hosted", "", "deny", "R01"),
)


def judge(model: str, route: Route = "self_hosted", host: str = "", **fields: Any) -> Decision:
    use = commercial_use(**fields)
    return decide(shipped_registry(), teacher(model, route, host=host), use, on=TODAY)


def over(*documents: TermsDocument, use: IntendedUse | None = None, **fields: Any) -> Decision:
    on = fields.pop("on", TODAY)
    return decide(registry(*documents), teacher("m-1"), use or commercial_use(), on=on, **fields)


def rules(decision: Decision) -> set[str]:
    """The rules behind the outcome."""
    return {reason.rule for reason in decision.reasons if reason.outcome == decision.outcome}


@pytest.mark.parametrize(("model", "route", "host", "outcome", "rule"), TABLE)
def test_the_decision_table_over_real_model_ids(model: str, route: Route, host: str, outcome: str, rule: str) -> None:
    decision = judge(model, route, host)
    assert decision.outcome == outcome
    assert rule in rules(decision)


def test_a_student_that_does_not_compete_is_judged_by_the_other_column() -> None:
    told = {
        said: judge("gpt-5", "api", "api.openai.com", student_competes=said).outcome
        for said in ("yes", "no", "unknown")
    }
    assert told == {"yes": "deny", "no": "needs_waiver", "unknown": "deny"}


def test_the_scripted_teacher_passes_on_any_day() -> None:
    scripted = teacher("anything at all", "mock", provider="corpusgen")
    for day in (date(2020, 1, 1), date(2050, 1, 1)):
        assert decide(shipped_registry(), scripted, commercial_use(), on=day).outcome == "allow"


def test_a_duty_nobody_accepted_needs_a_waiver() -> None:
    decision = judge("meta-llama/Llama-3.3-70B-Instruct", accepted_duties=("attribution",))
    assert decision.outcome == "needs_waiver"
    assert rules(decision) == {"R07"}


def test_a_refusal_says_which_duties_to_accept() -> None:
    told = explain(judge("meta-llama/Llama-3.3-70B-Instruct", accepted_duties=("attribution",)))
    assert "add to intended_use.accepted_duties in the task spec: naming, use_policy_flow_down" in told


def test_terms_without_distribution_stop_a_student_that_leaves_the_house() -> None:
    kept = document(duties=(TermsDuty(kind="no_distribution", applies_to="student", text="keep it"),))
    duties = (*EVERY_DUTY, "no_distribution")
    assert rules(over(kept, use=commercial_use(accepted_duties=duties))) == {"R10"}
    inside = commercial_use(accepted_duties=duties, student_distribution="internal")
    assert over(kept, use=inside).outcome == "allow"


def test_a_duty_can_be_accepted_for_one_document_only() -> None:
    owed = document(duties=(TermsDuty(kind="naming", applies_to="student", text="say so"),))
    assert over(owed, use=commercial_use(accepted_duties=("plain-1/naming",))).outcome == "allow"
    assert over(owed, use=commercial_use(accepted_duties=("other/naming",))).outcome == "needs_waiver"


def test_a_review_goes_stale_after_ninety_days() -> None:
    online = document(kind="api_terms", reviewed=TODAY)
    assert over(online, on=TODAY + timedelta(days=90)).outcome == "allow"
    assert rules(over(online, on=TODAY + timedelta(days=91))) == {"R02"}


def test_the_licence_of_weights_pinned_by_digest_does_not_go_stale() -> None:
    pinned = teacher("m-1", weights_sha256="0" * 64)
    later = TODAY + timedelta(days=1_000)
    assert decide(registry(document()), pinned, commercial_use(), on=later).outcome == "allow"
    assert rules(over(document(), on=later)) == {"R02"}


def test_low_confidence_needs_a_waiver() -> None:
    assert rules(over(document(confidence="low"))) == {"R03"}


SOURCES = {
    "WordNet": "allow",
    "LicenseRef-WordNet-3.0": "allow",
    "CC-BY-4.0": "allow",
    "MIT AND CC-BY-4.0": "allow",
    "MIT OR CC-BY-4.0": "deny",
    "CC-BY-NC-4.0": "deny",
    "CC-BY-ND-4.0": "deny",
    "NOASSERTION": "deny",
    "found on the web": "deny",
}


@pytest.mark.parametrize("licence", SOURCES)
def test_the_licence_of_a_source_is_judged_too(licence: str) -> None:
    assert over(document(), sources=[SourceUse(source_id="s", licence=licence)]).outcome == SOURCES[licence]


def test_two_share_alikes_do_not_go_into_one_dataset() -> None:
    mixed = [SourceUse(source_id="a", licence="CC-BY-SA-4.0"), SourceUse(source_id="b", licence="ODbL-1.0")]
    assert rules(over(document(), sources=mixed)) == {"R12"}
    assert over(document(), sources=mixed[:1]).outcome == "allow"


def test_the_licence_of_a_record_names_teacher_and_sources_once() -> None:
    seeds = [SourceUse(source_id="a", licence="LicenseRef-WordNet-3.0"), SourceUse(source_id="b", licence="Apache-2.0")]
    assert over(document(), sources=seeds).licence_expression == "Apache-2.0 AND WordNet"


def test_the_wordnet_notice_is_a_duty_that_needs_no_promise() -> None:
    decision = over(
        document(), sources=[SourceUse(source_id="wordnet", licence="WordNet")], use=commercial_use(accepted_duties=())
    )
    assert decision.outcome == "allow"
    assert [duty.kind for duty in decision.duties] == ["notice_file"]


def test_a_cached_answer_is_judged_by_its_original_terms_and_todays_policy() -> None:
    old = decide(
        shipped_registry(),
        teacher("gpt-4o", "api"),
        commercial_use(),
        on=TODAY,
        original_terms=("openai-services-agreement-2025-05-31",),
    )
    assert old.terms_ids == ("openai-services-agreement-2025-05-31",)
    assert {"R04", "R14"} <= {reason.rule for reason in old.reasons}


@pytest.mark.parametrize("named", [(), ("plain-1", "gone-1")])
def test_a_cached_answer_whose_terms_are_not_known_is_denied(named: tuple[str, ...]) -> None:
    assert rules(over(document(), original_terms=named)) == {"R01"}


# --- every role -------------------------------------------------------------------------------------------------------


@given(st.sampled_from([role for role in get_args(Role) if role != "base"]), st.sampled_from(TABLE))
def test_every_role_is_judged_alike(role: Role, row: tuple[str, Route, str, Outcome, str]) -> None:
    model, route, host, outcome, _ = row
    asked = decide(shipped_registry(), teacher(model, route, host=host), commercial_use(), on=TODAY, role=role)
    assert (asked.outcome, asked.role) == (outcome, role)


def test_every_rule_that_is_applied_is_in_the_list_of_rules() -> None:
    applied = {reason.rule for model, route, host, *_ in TABLE for reason in judge(model, route, host).reasons}
    assert applied <= set(RULES)


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unknown",
    [
        teacher("Our_Model:7b", provider="Our House"),
        teacher("some-model", "api", provider="vendor", host="llm.vendor.example:8443"),
        teacher("gpt-oss-20b", "aggregator", provider="cheap", host="cheap.example"),
        teacher("some-model", "aggregator", provider="cheap", host="cheap.example"),
    ],
    ids=lambda each: f"{each.route}-{each.model}",
)
def test_the_example_in_a_refusal_is_a_file_that_loads_and_covers_the_teacher(
    tmp_path: Path, unknown: TeacherRoute
) -> None:
    refused = decide(shipped_registry(), unknown, commercial_use(), on=TODAY)
    told = explain(refused)
    assert "terms_files" in told
    example = told[told.index("documents:") : told.rindex("\nTerms set")]
    extended = load_registry(shipped("data/terms.yaml"), terms_file(tmp_path, example))
    assert decide(extended, unknown, commercial_use(), on=TODAY).outcome == "needs_waiver"


def test_a_wrong_route_is_answered_with_the_right_one_and_not_with_more_terms() -> None:
    told = explain(judge("gpt-5", "self_hosted", "https://api.openai.com/v1"))
    assert "reached by route api, not by self_hosted" in told
    assert "terms_files" not in told


def test_a_refusal_names_rule_clause_and_teachers_that_would_pass() -> None:
    use = commercial_use()
    told = explain(judge("claude-sonnet-4-5", "api"), suggest_allowed(shipped_registry(), use, on=TODAY))
    assert "deny R04 anthropic-usage-policy-2025-09-15" in told
    assert "without prior authorization" in told
    assert "embedded/smollm2-135m" in told
    assert "Anthropic API" not in told


def test_suggestions_respect_the_duties_that_were_accepted() -> None:
    names = {
        each.teacher.name for each in suggest_allowed(shipped_registry(), commercial_use(accepted_duties=()), on=TODAY)
    }
    assert "embedded/smollm2-135m" in names
    assert "Llama 3.3 70B on your own server" not in names
