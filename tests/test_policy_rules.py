"""The policy rule by rule: what each denies, what needs a waiver, and what passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from terms_samples import (
    EVERY_DUTY,
    TODAY,
    agreement,
    as_here,
    commercial_use,
    document,
    duty,
    registry,
    shipped_registry,
    source,
    teacher,
    waiver,
)

from corpusgen.provenance.policy import RULES, Decision, Outcome, TeacherRoute, decide, explain
from corpusgen.provenance.terms import TermsDocument, UnpaidTier

HOST = "api.vendor.example"
BARRED = {"outputs_train": "prohibited", "outputs_train_competing": "prohibited"}
UNCLEAR = {"outputs_train": "unclear", "outputs_train_competing": "unclear"}
CONDITIONAL = {"outputs_train": "conditional", "outputs_train_competing": "conditional"}


def over(*documents: TermsDocument, use: dict[str, Any] | None = None, **fields: Any) -> Decision:
    """What is decided of model m-1 under these documents."""
    asked: TeacherRoute = fields.pop("teacher", teacher("m-1", host="localhost"))
    known = replace(registry(*documents), **fields.pop("known", {}))
    fields["waivers"] = as_here(known, fields.get("waivers", ()))
    return decide(known, asked, commercial_use(**(use or {})), **{"on": TODAY, **fields})


def api(**fields: Any) -> TermsDocument:
    """Terms of an API at HOST that keep to themselves what they are sent."""
    return document(**{"kind": "api_terms", "routes": ("api",), "trains_on_inputs": "no", **fields})


def vendor(**fields: Any) -> TeacherRoute:
    return teacher("m-1", "api", host=HOST, **fields)


def verdict(decision: Decision) -> tuple[Outcome, set[str]]:
    """The outcome, and the rules behind it."""
    return decision.outcome, {one.rule for one in decision.reasons if one.outcome == decision.outcome}


def is_denied(decision: Decision, rule: str) -> bool:
    return verdict(decision) == ("deny", {rule})


def is_asked(decision: Decision, rule: str) -> bool:
    return verdict(decision) == ("needs_waiver", {rule})


# --- R01 to R09 ------------------------------------------------------------------------------------------------------


def test_r01_a_teacher_that_nothing_covers_is_denied() -> None:
    assert is_denied(over(document(models=("other-*",))), "R01")


def test_r01_pins_that_lack_a_matching_document_deny_and_name_its_file() -> None:
    pinned = teacher("m-1", pinned_terms=("plain-1",))
    decision = over(document(), document(id="more-1"), teacher=pinned, known={"files": {"more-1": "house/terms.yaml"}})
    assert is_denied(decision, "R01")
    assert "more-1 (in house/terms.yaml) binds this teacher too" in explain(decision)


def test_r02_terms_of_an_api_go_stale_after_ninety_days() -> None:
    online = api(reviewed=TODAY)
    assert over(online, teacher=vendor(), on=TODAY + timedelta(days=90)).outcome == "allow"
    assert is_asked(over(online, teacher=vendor(), on=TODAY + timedelta(days=91)), "R02")


def test_r02_a_reading_of_a_day_to_come_is_none() -> None:
    later = over(document(reviewed=date(2999, 1, 1)))
    assert is_asked(later, "R02")
    assert "reviewed in the future" in explain(later)
    assert over(document(reviewed=TODAY + timedelta(days=1))).outcome == "allow"  # it is tomorrow there already


def test_r02_terms_of_ones_own_need_no_reading_on_ones_own_machines_only() -> None:
    own, later = {"kind": "own", "routes": ("api", "self_hosted")}, TODAY + timedelta(days=100)
    assert over(document(**own), on=later).outcome == "allow"
    assert is_asked(over(document(**own, trains_on_inputs="no"), teacher=vendor(), on=later), "R02")


def test_r02_a_licence_of_weights_pinned_by_digest_never_does() -> None:
    later = TODAY + timedelta(days=3_000)
    assert over(document(), teacher=teacher("m-1", weights_sha256="0" * 64), on=later).outcome == "allow"
    assert is_asked(over(document(), on=later), "R02")


def test_r02_pinned_weights_do_not_refresh_the_terms_of_an_api() -> None:
    later = TODAY + timedelta(days=100)
    assert is_asked(over(api(), teacher=vendor(weights_sha256="0" * 64), on=later), "R02")


def test_r03_a_reading_of_low_confidence_needs_a_waiver() -> None:
    assert is_asked(over(document(confidence="low")), "R03")


@pytest.mark.parametrize("competes", ["yes", "unknown"])
def test_r04_what_is_prohibited_is_denied_with_its_clause(competes: str) -> None:
    clause = {"quote": "You may not.", "quote_location": "s.1"}
    decision = over(document(outputs_train_competing="prohibited", **clause), use={"student_competes": competes})
    assert is_denied(decision, "R04")
    assert (decision.reasons[0].quote, decision.reasons[0].location) == ("You may not.", "s.1")


def test_r04_only_the_other_column_counts_for_a_student_that_does_not_compete() -> None:
    barred = document(outputs_train_competing="prohibited")
    assert over(barred, use={"student_competes": "no"}).outcome == "allow"


def test_r05_what_is_unclear_needs_a_waiver() -> None:
    assert is_asked(over(document(**UNCLEAR)), "R05")
    assert is_asked(over(document(commercial_use="unclear")), "R05")


def test_r06_a_condition_that_no_machine_can_check_needs_a_waiver() -> None:
    assert is_asked(over(document(**CONDITIONAL, conditions=("be kind",))), "R06")
    assert is_asked(over(document(commercial_use="conditional")), "R06")
    assert over(document(commercial_use="conditional"), use={"commercial": False}).outcome == "allow"


def test_r07_a_duty_that_is_not_accepted_needs_a_waiver() -> None:
    owed = document(**CONDITIONAL, duties=(duty("naming"),))
    assert is_asked(over(owed, use={"accepted_duties": ()}), "R07")
    assert over(owed, use={"accepted_duties": ("plain-1/naming",)}).outcome == "allow"


def test_r08_accepted_duties_are_recorded() -> None:
    decision = over(document(**CONDITIONAL, duties=(duty("naming", words=("Llama",)),)))
    assert verdict(decision) == ("allow", {"R08"})
    assert [(one.kind, one.words) for one in decision.duties] == [("naming", ("Llama",))]


def test_a_duty_of_one_model_does_not_bind_its_siblings() -> None:
    some = document(duties=(duty("naming", models=("*vision*",)),))
    assert not over(some).duties
    assert over(some, teacher=teacher("m-vision-1")).duties


def test_r09_what_is_allowed_passes() -> None:
    assert verdict(over(document())) == ("allow", {"R09"})


# --- R10 -------------------------------------------------------------------------------------------------------------


def test_r10_non_commercial_terms_and_a_commercial_student_do_not_go_together() -> None:
    for barred in (document(commercial_use="prohibited"), document(duties=(duty("non_commercial"),))):
        accepted = {"accepted_duties": ("non_commercial",)}
        assert is_denied(over(barred, use=accepted), "R10")
        assert over(barred, use={**accepted, "commercial": False}).outcome == "allow"


def test_r10_terms_without_distribution_keep_a_student_in_the_house() -> None:
    kept = document(duties=(duty("no_distribution"),))
    accepted = {"accepted_duties": (*EVERY_DUTY, "no_distribution")}
    assert is_denied(over(kept, use=accepted), "R10")
    assert over(kept, use={**accepted, "student_distribution": "internal"}).outcome == "allow"


CAPS = {"mau_cap": "monthly_active_users", "revenue_cap": "annual_revenue_usd"}


@pytest.mark.parametrize("kind", CAPS)
def test_r10_a_cap_is_judged_by_what_is_true_of_the_organisation(kind: str) -> None:
    capped, fact = document(duties=(duty(kind, limit=100),)), CAPS[kind]
    assert over(capped, use={fact: 100, "accepted_duties": ()}).outcome == "allow"
    assert is_denied(over(capped, use={fact: 101}), "R10")
    assert is_asked(over(capped, use={fact: None}), "R10")


def test_r10_an_unknown_fact_is_asked_for_by_its_name() -> None:
    told = explain(over(document(duties=(duty("mau_cap", limit=100),)), use={"monthly_active_users": None}))
    assert "say in the task spec: organisation.monthly_active_users" in told


@pytest.mark.parametrize(("users", "accepted", "outcome"), [(100, (), "allow"), (101, (), "needs_waiver")])
def test_a_duty_that_begins_above_a_cap_is_a_duty_like_any_other(
    users: int, accepted: tuple[str, ...], outcome: Outcome
) -> None:
    shown = document(duties=(duty("mau_cap", limit=100, above="duty"),))
    assert over(shown, use={"monthly_active_users": users, "accepted_duties": accepted}).outcome == outcome
    assert over(shown, use={"monthly_active_users": users, "accepted_duties": ("mau_cap",)}).outcome == "allow"


HOMES = {
    ("us",): "allow",
    ("us", "jp"): "allow",
    ("us", "de"): "deny",
    ("DE",): "deny",
    ("eu",): "deny",
    ("eea",): "deny",
    ("germany",): "needs_waiver",
    (): "needs_waiver",
}


@pytest.mark.parametrize("homes", HOMES)
def test_r10_a_licence_that_grants_nothing_in_the_eu(homes: tuple[str, ...]) -> None:
    barred = document(duties=(duty("residency", regions=("eu",)),))
    decision = over(barred, use={"domiciled_in": homes})
    assert decision.outcome == HOMES[homes]
    assert "R10" in {one.rule for one in decision.reasons}


LLAMAS = {
    "meta-llama/Llama-3.2-11B-Vision-Instruct": "deny",
    "us.meta.llama3-2-90b-instruct-v1:0": "deny",
    "llama3.2-vision:11b": "deny",
    "meta-llama/Llama-3.2-3B-Instruct": "allow",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": "deny",
    "meta-llama/Llama-3.3-70B-Instruct": "allow",
}


@pytest.mark.parametrize("model", LLAMAS)
def test_r10_only_multimodal_llamas_are_barred_from_europe(model: str) -> None:
    use = commercial_use(domiciled_in=("fr",))
    decision = decide(shipped_registry(), teacher(model), use, on=TODAY)
    barred = [one for one in decision.reasons if one.rule == "R10" and one.outcome == "deny"]
    assert bool(barred) == (LLAMAS[model] == "deny")


# --- R11 -------------------------------------------------------------------------------------------------------------

AGREEMENTS: dict[str, tuple[dict[str, Any], Outcome]] = {
    "of everything": ({}, "allow"),
    "of this class": ({"classes": ("contact",)}, "allow"),
    "of another class": ({"classes": ("health",)}, "deny"),
    "of the teacher's region": ({"regions": ("eu",)}, "allow"),
    "of another region": ({"regions": ("us",)}, "deny"),
    "with another host": ({"host": "elsewhere.example"}, "deny"),
    "with all of a vendor's hosts": ({"host": "*.vendor.example"}, "allow"),
    "that begins tomorrow": ({"valid_from": TODAY + timedelta(days=1)}, "deny"),
    "that begins today": ({"valid_from": TODAY}, "allow"),
    "that ends today": ({"valid_until": TODAY}, "allow"),
    "that ended yesterday": ({"valid_until": TODAY - timedelta(days=1)}, "deny"),
}


@pytest.mark.parametrize("case", AGREEMENTS)
def test_r11_personal_data_needs_an_agreement_in_force_for_its_host_class_and_region(case: str) -> None:
    fields, outcome = AGREEMENTS[case]
    use = {"personal_data": ("contact",), "agreements": (agreement(**fields),)}
    decision = over(api(), teacher=vendor(region="eu-west-1"), use=use)
    assert decision.outcome == outcome
    if outcome == "deny":
        assert is_denied(decision, "R11")


def test_r11_every_class_needs_one_and_the_open_ones_are_named() -> None:
    use = {"personal_data": ("contact",), "agreements": (agreement(classes=("contact",)),)}
    decision = over(
        api(), teacher=vendor(), use=use, sources=[source(personal_data=("health",), lawful_basis="consent")]
    )
    assert is_denied(decision, "R11")
    assert "personal data (health) would go to 'api.vendor.example'" in decision.reasons[0].text
    assert "dpa-1 for classes contact" in decision.reasons[0].text


def test_r11_an_agreement_of_some_regions_does_not_cover_a_teacher_whose_region_is_not_known() -> None:
    use = {"personal_data": ("contact",), "agreements": (agreement(regions=("eu",)),)}
    assert is_denied(over(api(), teacher=vendor(), use=use), "R11")


REGIONS = {"eu": "allow", "eu-west-1": "allow", "de": "allow", "eu-west-2": "deny", "us-east-1": "deny", None: "deny"}


@pytest.mark.parametrize("region", REGIONS)
def test_r11_a_source_stays_in_its_regions(region: str | None) -> None:
    decision = over(api(), teacher=vendor(region=region), sources=[source(processing_regions=("EU",))])
    assert decision.outcome == REGIONS[region]


def test_r11_terms_that_say_where_they_process_bind_whatever_the_spec_says() -> None:
    abroad = api(processed_in=("cn",))
    decision = over(abroad, teacher=vendor(region="eu"), sources=[source(processing_regions=("eu",))])
    assert is_denied(decision, "R11")


def test_r11_no_personal_data_goes_to_an_unpaid_tier() -> None:
    use = {"personal_data": ("contact",), "agreements": (agreement(),)}
    assert is_denied(over(api(), teacher=vendor(unpaid=True), use=use), "R11")
    assert over(api(), teacher=vendor(unpaid=True)).outcome == "allow"


def test_r11_a_model_that_an_aggregator_calls_free_is_an_unpaid_tier() -> None:
    free = teacher("m-1:free", "aggregator", host=HOST)
    use = {"personal_data": ("contact",), "agreements": (agreement(),)}
    assert is_denied(over(api(routes=("aggregator",)), teacher=free, use=use), "R11")


def test_r11_what_an_unpaid_tier_does_is_told() -> None:
    read = api(unpaid_tier=UnpaidTier(trains_on_inputs="yes"))
    decision = over(read, teacher=vendor(unpaid=True))
    assert decision.outcome == "allow"
    assert "notice R11 plain-1: on its unpaid tier the provider may read" in explain(decision)


@pytest.mark.parametrize(
    ("trains", "kind", "outcome"),
    [
        ("yes", "dpa", "deny"),
        ("unclear", "dpa", "allow"),
        ("unclear", "other", "needs_waiver"),
        ("no", "other", "allow"),
    ],
)
def test_r11_a_provider_that_trains_on_inputs_gets_no_personal_data(trains: str, kind: str, outcome: Outcome) -> None:
    use = {"personal_data": ("contact",), "agreements": (agreement(kind=kind),)}
    assert over(api(trains_on_inputs=trains), teacher=vendor(), use=use).outcome == outcome


def test_r11_a_source_says_why_its_personal_data_may_be_sent() -> None:
    bare = source(personal_data=("contact",))
    use = {"agreements": (agreement(),)}
    assert is_denied(over(api(), teacher=vendor(), use=use, sources=[bare]), "R11")
    assert over(api(), teacher=vendor(), use=use, sources=[replace(bare, lawful_basis="consent")]).outcome == "allow"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8000", "::1", "http://localhost:11434/v1"])
def test_r11_and_r16_say_nothing_about_what_stays_on_this_machine(host: str) -> None:
    private = source(personal_data=("health",), processing_regions=("eu",))
    decision = over(document(), teacher=teacher("m-1", host=host), use={"egress": "none"}, sources=[private])
    assert decision.outcome == "allow"


# --- R14 and R16 -----------------------------------------------------------------------------------------------------

LEAVING: dict[str, TeacherRoute] = {
    "an api": vendor(),
    "a server of one's own elsewhere": teacher("m-1", host="gpu.house.example"),
    "a server nobody placed": teacher("m-1"),
    "one in the same network": teacher("m-1", host="192.168.1.7:8000"),
    "one that only sounds local": teacher("m-1", host="localhost.vendor.example"),
}


@pytest.mark.parametrize("who", LEAVING)
def test_r16_without_egress_nothing_leaves_the_machine(who: str) -> None:
    anywhere = document(routes=("api", "self_hosted"))
    assert is_denied(over(anywhere, teacher=LEAVING[who], use={"egress": "none"}), "R16")
    assert over(anywhere, teacher=LEAVING[who]).outcome == "allow"


def test_r16_the_scripted_teacher_is_here() -> None:
    scripted = teacher("x", "mock", provider="corpusgen")
    assert decide(shipped_registry(), scripted, commercial_use(egress="none"), on=TODAY).outcome == "allow"


def test_r14_a_cached_answer_goes_by_its_original_terms_and_todays_policy() -> None:
    old = document(id="old-1", superseded=date(2026, 1, 1), **BARRED)
    decision = over(document(), old, original_terms=("old-1",))
    assert decision.terms_ids == ("old-1",)
    assert {"R04", "R14"} <= {one.rule for one in decision.reasons}


# --- weights that a student begins with ------------------------------------------------------------------------------


def test_weights_to_begin_with_are_judged_by_what_a_licence_says_of_them() -> None:
    assert is_denied(over(document(**BARRED), role="base"), "R04")
    assert over(document(**BARRED, as_base="allowed"), role="base").outcome == "allow"
    assert over(document(**BARRED, as_base="allowed")).outcome == "deny"


def test_weights_to_begin_with_are_judged_by_the_stricter_column_whatever_a_student_is_for() -> None:
    barred = document(outputs_train_competing="prohibited")
    assert over(barred, role="base", use={"student_competes": "no"}).outcome == "deny"


def test_duties_of_weights_do_not_bind_their_outputs() -> None:
    copied = document(duties=(duty("license_copy", roles=("base",)),))
    assert not over(copied).duties
    assert [one.kind for one in over(copied, role="base").duties] == ["license_copy"]


def test_weights_are_sent_nothing() -> None:
    private = source(personal_data=("health",), processing_regions=("eu",))
    nowhere: dict[str, Any] = {"teacher": teacher("m-1"), "use": {"egress": "none"}, "sources": [private]}
    assert over(document(), role="base", **nowhere).outcome == "allow"
    assert over(document(), role="response", **nowhere).outcome == "deny"


# --- waivers ---------------------------------------------------------------------------------------------------------

LIFTED = document(**UNCLEAR)
COUNTING: dict[str, tuple[dict[str, Any], Outcome]] = {
    "in force": ({}, "allow"),
    "of this rule": ({"rules": ("R05",)}, "allow"),
    "of another rule": ({"rules": ("R06",)}, "needs_waiver"),
    "expired": ({"granted": date(2026, 1, 1), "expires": TODAY - timedelta(days=1)}, "needs_waiver"),
    "not yet granted": ({"granted": TODAY + timedelta(days=1), "expires": date(2030, 1, 1)}, "needs_waiver"),
    "of this task": ({"task": "word-*"}, "allow"),
    "of another task": ({"task": "other"}, "needs_waiver"),
    "of this teacher": ({"teacher": "m-*"}, "allow"),
    "of another teacher": ({"teacher": "n-*"}, "needs_waiver"),
}


@pytest.mark.parametrize("case", COUNTING)
def test_a_waiver_counts_on_its_days_for_its_task_teacher_and_rules(case: str) -> None:
    fields, outcome = COUNTING[case]
    decision = over(LIFTED, waivers=[waiver("plain-1", **fields)], task="word-labels")
    assert decision.outcome == outcome
    assert decision.waivers == (("w1",) if outcome == "allow" else ())


def test_a_waiver_of_a_task_does_not_count_where_no_task_is_named() -> None:
    assert over(LIFTED, waivers=[waiver("plain-1", task="word-*")]).outcome == "needs_waiver"


def test_a_waiver_of_other_terms_lifts_nothing() -> None:
    assert over(LIFTED, waivers=[waiver("other-1")]).outcome == "needs_waiver"


def test_no_waiver_lifts_a_prohibition_or_anything_else_that_is_denied() -> None:
    every = [waiver("plain-1"), waiver("plain-1", waiver_id="w2", rules=tuple(RULES))]
    assert over(document(**BARRED), waivers=every).outcome == "deny"
    assert over(document(commercial_use="prohibited"), waivers=every).outcome == "deny"


def test_written_authorisation_is_a_waiver_that_names_r04_and_holds_the_paper() -> None:
    yields = document(**BARRED, written_authorisation=True)
    assert over(yields).outcome == "deny"
    assert over(yields, waivers=[waiver("plain-1")]).outcome == "deny"
    scoped = waiver("plain-1", rules=("R04",), teacher="m-1")
    assert over(yields, waivers=[replace(scoped, evidence_sha256="")]).outcome == "deny"
    assert over(yields, waivers=[replace(scoped, teacher="*")]).outcome == "deny"
    assert over(yields, waivers=[scoped]).outcome == "allow"


def test_a_waiver_is_of_what_the_document_said_and_not_of_another_version() -> None:
    granted = as_here(registry(LIFTED), [waiver("plain-1")])
    asked = teacher("m-1", host="localhost")
    for other in (LIFTED.model_copy(update={"conditions": ("more",)}), document(**UNCLEAR, provider="another")):
        decision = decide(registry(other), asked, commercial_use(), on=TODAY, waivers=granted)
        assert (decision.outcome, decision.waivers) == ("needs_waiver", ())
        assert "(waived for another version of it: w1; waive again)" in explain(decision)
    read_again = LIFTED.model_copy(update={"reviewed": TODAY, "text_sha256": "0" * 64})
    assert decide(registry(read_again), asked, commercial_use(), on=TODAY, waivers=granted).outcome == "allow"


def test_a_waiver_says_in_the_reason_who_granted_it_and_until_when() -> None:
    told = explain(over(LIFTED, waivers=[waiver("plain-1")]))
    assert f"(waived by counsel until {TODAY}: w1)" in told


# --- what a decision carries -----------------------------------------------------------------------------------------


def test_a_decision_names_the_file_of_a_document_of_ones_own() -> None:
    decision = over(document(**BARRED), known={"files": {"plain-1": "house/terms.yaml"}})
    assert "deny R04 plain-1 (in house/terms.yaml): " in explain(decision)


def test_a_decision_carries_both_digests_and_they_follow_what_they_are_of() -> None:
    first, second = over(document()), over(document(version="2"))
    assert len(first.registry_digest) == len(first.policy_digest) == 64
    assert first.registry_digest != second.registry_digest
    assert first.policy_digest == second.policy_digest
