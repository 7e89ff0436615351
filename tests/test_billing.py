from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from corpusgen.errors import RateLimited, SpecError
from corpusgen.mock.server import Options, RateLimit, mock_teacher
from corpusgen.records import Message, Request
from corpusgen.teacher_fields import TeacherSpec, Unbilled
from corpusgen.teachers.billing import NOTHING_KNOWN, BillingFact, billing_of, load_facts, shipped_facts
from corpusgen.teachers.registry import open_teacher


def fact(**fields: object) -> BillingFact:
    plain = {"provider": "p", "hosts": ("*.p.example",), "statuses": (500,), "billed": False, "source": "s"}
    return BillingFact.model_validate({"as_of": "2026-01-01", **plain, **fields})


@pytest.mark.parametrize("status", [401, 404, 405, 413, 415])
def test_a_refusal_owes_nothing_unless_it_is_known_to(status: int) -> None:
    assert not NOTHING_KNOWN.may_charge(status)


@pytest.mark.parametrize(
    "status", [101, 204, 301, 307, 400, 402, 403, 408, 409, 422, 429, 451, 500, 502, 503, 504, 529, 999]
)
def test_what_may_follow_work_that_was_done_may_be_charged(status: int) -> None:
    assert NOTHING_KNOWN.may_charge(status)


def test_a_fact_holds_for_its_provider_at_its_hosts() -> None:
    facts = [fact()]
    assert not billing_of("p", "eu.P.example", facts).may_charge(500)
    assert billing_of("p", "reseller.example", facts).may_charge(500)
    assert billing_of("q", "eu.p.example", facts).may_charge(500)


def test_a_fact_can_say_that_a_refusal_is_charged() -> None:
    assert billing_of("p", "eu.p.example", [fact(statuses=(400,), billed=True)]).may_charge(400)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_facts_that_contradict_each_other_the_dearer_holds(order: int) -> None:
    facts = [fact(), fact(billed=True)][::order]
    assert billing_of("p", "eu.p.example", facts).may_charge(500)


def test_every_shipped_fact_has_a_source() -> None:
    assert all(fact.source and fact.as_of >= "2026" for fact in shipped_facts())


@pytest.mark.parametrize(
    ("provider", "host", "status", "charged"),
    [
        ("google", "generativelanguage.googleapis.com", 500, False),
        ("google", "generativelanguage.googleapis.com", 503, True),
        ("microsoft", "mine.openai.azure.com", 400, True),
        ("microsoft", "mine.openai.azure.com", 429, False),
        ("openai", "api.openai.com", 429, True),
    ],
)
def test_the_shipped_table_says_what_providers_say(provider: str, host: str, status: int, charged: bool) -> None:
    assert billing_of(provider, host, shipped_facts()).may_charge(status) is charged


def test_a_mistake_in_the_table_is_found_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(
        "schema: corpusgen.endpoints/1\nbilling:\n"
        "  - provider: p\n    hosts: [h]\n    statuses: [5]\n    billed: maybe\n"
    )
    with pytest.raises(SpecError) as caught:
        load_facts(path)
    said = str(caught.value)
    assert f"{path}:5: billing.0.statuses.0" in said
    assert f"{path}:6: billing.0.billed: must be true or false" in said
    assert "billing.0.source: this field is required" in said


@pytest.mark.parametrize("unbilled", [None, Unbilled(statuses=(429,), source="our contract of 2026-11-01, section 4")])
async def test_a_caller_who_knows_what_is_not_charged_can_say_so(tmp_path: Path, unbilled: Unbilled | None) -> None:
    async with mock_teacher(Options(rate_limit=RateLimit(per_s=0.001, burst=1))) as mock:
        spec = TeacherSpec(name="endpoint/m", parameters={"max_tokens": 1}, base_url=mock.base_url, unbilled=unbilled)
        teacher = open_teacher(spec, folder=tmp_path, clock=lambda: datetime.now(UTC))
        asked = Request(
            teacher="t",
            model="m",
            api="chat",
            messages=(Message(role="user", content="x"),),
            parameters={"max_tokens": 1},
        )
        await teacher.ask(asked, timeout_s=5)
        with pytest.raises(RateLimited) as caught:
            await teacher.ask(asked, timeout_s=5)
        await teacher.aclose()
    assert caught.value.billable is (unbilled is None)
