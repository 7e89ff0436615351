"""Prices are found in their order, bound the worst case, and are never rounded in our favour."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_samples import chat_reply, spec

from corpusgen.budget.price_table import PriceTable, load_prices, rate_of_price, shipped_prices
from corpusgen.budget.prices import PerMtok, Rate, Tier, rate_of
from corpusgen.budget.rate import dearest, rate_from
from corpusgen.errors import PriceUnknown, SpecError
from corpusgen.records import Usage, canonical_json
from corpusgen.spec import load_spec
from corpusgen.teacher_fields import Price, TeacherSpec
from corpusgen.teachers.wire import read_completion

TODAY = date(2026, 11, 21)
DAY = timedelta(days=1)
OPENAI = {"base_url": "https://api.openai.com/v1", "provider": "openai"}


def teacher(name: str = "endpoint/gpt-4o-mini", **fields: Any) -> TeacherSpec:
    return spec(name, **OPENAI | fields)


def written(**fields: Any) -> dict[str, Any]:
    return {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10, "source": "price list", **fields}


def table(tmp_path: Path, *rows: dict[str, Any]) -> PriceTable:
    hour = {"usd": 0.04, "source": "a guess", "as_of": "2026-01-01"}
    content = {"schema": "corpusgen.prices/1", "shadow_usd_per_cpu_hour": hour, "hosted": list(rows)}
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_prices(tmp_path / "prices.yaml")


def row(**fields: Any) -> dict[str, Any]:
    return written(teacher="openai/gpt-4o-mini", as_of="2026-01-01", **fields)


# --- which price ------------------------------------------------------------------------------------------------------


def test_the_specs_price_comes_first_then_the_tables_then_the_public_one(tmp_path: Path) -> None:
    prices = table(tmp_path, row(source="our contract"))
    own = rate_of(teacher(price=written(source="invoice 7")), on=TODAY, table=prices)
    assert (own.version, own.input_per_mtok) == ("spec: invoice 7", 2_000_000)
    assert rate_of(teacher(), on=TODAY, table=prices).version == "prices.yaml: our contract, 2026-01-01"
    public = rate_of(teacher(), on=TODAY, table=table(tmp_path))
    assert public.version.startswith("genai-prices ")
    assert public.version.endswith(": openai/gpt-4o-mini on 2026-11-21")
    assert (public.input_per_mtok, public.output_per_mtok) == (150_000, 600_000)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (teacher("endpoint/gpt-99"), "gpt-99"),
        (teacher("endpoint/gpt-4o", route="self_hosted"), "not a hosted teacher"),
        (spec("endpoint/gpt-4o", base_url="http://127.0.0.1:8000/v1", provider="openai"), "not a hosted teacher"),
        (spec("endpoint/gpt-4o", base_url="https://models.example/v1"), "Unable to find"),
        (spec("scripted/test", script="s.yaml"), "scripted"),
        (spec("endpoint/openai/gpt-oss-20b:free", base_url="https://openrouter.ai/api/v1"), "no price per token"),
        (teacher(parameters={"max_tokens": 1, "service_tier": "scale"}), "service tier 'scale'"),
        (teacher(price=written(), parameters={"max_tokens": 1, "service_tier": "flex"}), "service tier 'flex'"),
    ],
)
def test_an_unknown_price_is_refused_and_says_why(asked: TeacherSpec, why: str) -> None:
    with pytest.raises(PriceUnknown, match=r"^the price of '.*' is not known.*; add price: ") as caught:
        rate_of(asked, on=TODAY)
    assert why in str(caught.value)


def test_free_must_be_said() -> None:
    rate = rate_of(spec("scripted/test", script="s.yaml", free=True), on=TODAY)
    assert rate.free
    assert rate.worst(10**9, 10**9).microusd == 0


def test_whoever_is_asked_sends_the_bill() -> None:
    through = spec("endpoint/openai/gpt-4o", base_url="https://openrouter.ai/api/v1", provider="openai")
    assert ": openrouter/openai/gpt-4o on " in rate_of(through, on=TODAY).version


def test_a_later_price_holds_from_its_day(tmp_path: Path) -> None:
    later = row(effective=str(TODAY + DAY), source="new list") | {"input_usd_per_mtok": 3}
    prices = table(tmp_path, later, row())
    found = {on: rate_of(teacher(), on=on, table=prices) for on in (TODAY, TODAY + DAY, TODAY + 99 * DAY)}
    assert [rate.input_per_mtok for rate in found.values()] == [2_000_000, 3_000_000, 3_000_000]
    assert found[TODAY + DAY].version == "prices.yaml: new list, 2026-01-01, from 2026-11-22"


def test_a_public_price_that_changes_by_date_is_that_of_the_day() -> None:
    asked = spec("endpoint/openai/gpt-4o", base_url="https://openrouter.ai/api/v1")
    before, after = (rate_of(asked, on=on).tiers["standard"].base for on in (date(2026, 10, 18), date(2026, 10, 19)))
    assert (before.cached_input, after.cached_input) == (2_500_000, 1_250_000)


def test_a_public_price_that_changes_by_the_hour_is_the_dearest_of_the_day(tmp_path: Path) -> None:
    asked = spec("endpoint/deepseek-chat", base_url="https://api.deepseek.com/v1")
    rate = rate_of(asked, on=TODAY, table=table(tmp_path))
    assert (rate.input_per_mtok, rate.output_per_mtok) == (270_000, 1_100_000)


def test_every_public_price_can_be_read() -> None:
    from genai_prices.data_snapshot import get_snapshot

    from corpusgen.budget.public_prices import public_tiers

    read, usage = 0, Usage(input_tokens=10**6, output_tokens=10**4, cached_input_tokens=10**5)
    for provider in get_snapshot().providers:
        for model in provider.models:
            try:
                tiers, version = public_tiers(provider.id, None, model.id, TODAY)
            except LookupError:
                continue
            rate = rate_from(tiers, version=version, served=frozenset(tiers))
            assert not rate.used(usage).exceeds(rate.worst(10**6, 10**4))
            read += 1
    assert read > 1500


# --- tiers ------------------------------------------------------------------------------------------------------------


def test_a_call_whose_tier_the_account_decides_is_promised_at_the_dearest() -> None:
    unasked, asked = (teacher(), teacher(parameters={"max_tokens": 1, "service_tier": "default"}))
    assert rate_of(unasked, on=TODAY).worst(10**6, 0).microusd == 250_000
    assert rate_of(asked, on=TODAY).worst(10**6, 0).microusd == 150_000


def test_a_call_is_settled_at_the_tier_that_answered() -> None:
    rate = rate_of(teacher(), on=TODAY)
    usage = Usage(input_tokens=10**6, output_tokens=0)
    said = {tier: rate.used(replace(usage, service_tier=tier)).microusd for tier in ("default", "priority", "batch")}
    assert said == {"default": 150_000, "priority": 250_000, "batch": 75_000}
    assert rate.used(usage).microusd == rate.used(replace(usage, service_tier="scale")).microusd == 250_000


def test_flex_is_promised_at_the_standard_price_it_may_fall_back_to() -> None:
    asked = teacher("endpoint/gpt-5", parameters={"max_tokens": 1, "service_tier": "flex"})
    rate = rate_of(asked, on=TODAY)
    assert rate.worst(10**6, 0).microusd == 1_250_000
    assert rate.used(Usage(input_tokens=10**6, output_tokens=0, service_tier="flex")).microusd == 625_000


def test_a_batch_is_promised_at_the_batch_price() -> None:
    assert rate_of(teacher(), on=TODAY, batch=True).worst(10**6, 10**6).microusd == 75_000 + 300_000


def test_cached_and_written_input_is_priced_as_the_answer_says() -> None:
    asked = spec("anthropic/claude-sonnet-5-5")
    rate = rate_of(asked, on=TODAY)
    usage = Usage(
        input_tokens=1_000_000,
        output_tokens=0,
        cached_input_tokens=400_000,
        cache_write_tokens=300_000,
        cache_write_1h_tokens=100_000,
    )
    assert rate.used(usage).microusd == 300_000 * 2 + 400_000 // 10 + 200_000 * 5 // 2 + 100_000 * 4
    assert rate.worst(1_000_000, 0).microusd == 4_000_000


def test_a_long_request_pays_the_long_price_as_a_whole() -> None:
    price = Price.model_validate(
        written(long_context=[{"above_input_tokens": 200_000, "input_usd_per_mtok": 4, "output_usd_per_mtok": 15}]),
        strict=False,
    )
    rate = rate_of_price(price, version="v")
    used = [rate.used(Usage(input_tokens=n, output_tokens=1000)).microusd for n in (200_000, 200_001)]
    assert used == [410_000, 800_004 + 15_000]
    assert [rate.worst(n, 1000).microusd for n in (200_000, 200_001)] == used


# --- rounding and bounds ----------------------------------------------------------------------------------------------

FIGURE = st.integers(0, 50_000_000)
PRICES = st.builds(PerMtok, input=FIGURE, output=FIGURE, cached_input=FIGURE, cache_write=FIGURE, cache_write_1h=FIGURE)
TIERS = st.builds(
    lambda base, steps: Tier(base=base, long=tuple(sorted(steps.items()))),
    PRICES,
    st.dictionaries(st.integers(1, 3000), PRICES, max_size=3),
)


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    tiers = {"standard": draw(TIERS)} | draw(st.dictionaries(st.sampled_from(["flex", "priority"]), TIERS))
    served = draw(st.sets(st.sampled_from(sorted(tiers)), min_size=1))
    return rate_from(tiers, version="v", served=frozenset(served))


@st.composite
def usages(draw: st.DrawFn, given_: int, answered: int) -> Usage:
    tokens = draw(st.integers(0, given_))
    cached = draw(st.integers(0, tokens))
    wrote = draw(st.integers(0, tokens - cached))
    return Usage(
        input_tokens=tokens,
        output_tokens=draw(st.integers(0, answered)),
        cached_input_tokens=cached,
        cache_write_tokens=wrote,
        cache_write_1h_tokens=draw(st.integers(0, wrote)),
    )


@given(data=st.data(), rate=rates(), bound=st.integers(0, 4000), most=st.integers(0, 4000))
@settings(max_examples=200, deadline=None)
def test_no_usage_within_the_bound_costs_more_than_was_promised(data: Any, rate: Rate, bound: int, most: int) -> None:
    tier = data.draw(st.sampled_from([None, "scale", *sorted(rate.served)]))
    usage = replace(data.draw(usages(bound, most)), service_tier=tier)
    assert not rate.used(usage).exceeds(rate.worst(bound, most))


@given(data=st.data(), price=PRICES)
@settings(max_examples=200, deadline=None)
def test_rounding_is_up_and_by_less_than_a_microdollar(data: Any, price: PerMtok) -> None:
    usage = data.draw(usages(10**6, 10**6))
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    exact = (
        Decimal(plain * price.input + usage.cached_input_tokens * price.cached_input)
        + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * price.cache_write
        + usage.cache_write_1h_tokens * price.cache_write_1h
        + usage.output_tokens * price.output
    ) / 1_000_000
    assert exact <= price.cost(usage) < exact + 1


@given(data=st.data(), tiers=st.lists(TIERS, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_the_dearest_of_several_tiers_is_no_cheaper_than_any(data: Any, tiers: list[Tier]) -> None:
    usage = data.draw(usages(4000, 4000))
    together = dearest(tiers).at(usage.input_tokens).cost(usage)
    assert together >= max(tier.at(usage.input_tokens).cost(usage) for tier in tiers)


def test_a_public_price_finer_than_a_microdollar_is_rounded_up() -> None:
    from corpusgen.budget.public_prices import _microusd

    assert _microusd(Decimal("0.0000001")) == 1
    assert _microusd(Decimal("0.075")) == 75_000


def test_two_figures_are_a_whole_rate() -> None:
    rate = Rate(input_per_mtok=1_000_000, output_per_mtok=2_000_000, version="v")
    assert not rate.free
    usage = Usage(input_tokens=3, output_tokens=1)
    assert rate.cost(3, 1) == rate.worst(3, 1).microusd == rate.used(usage).microusd == 5


# --- what a server says it used ---------------------------------------------------------------------------------------


def read(usage: dict[str, Any], **fields: Any) -> Usage:
    body = canonical_json(chat_reply(usage={"prompt_tokens": 100, "completion_tokens": 1} | usage, **fields))
    return read_completion(body, api="chat").usage


def test_cache_writes_and_the_tier_are_read_from_the_answer() -> None:
    details = {
        "cached_tokens": 20,
        "cache_write_tokens": 50,
        "cache_write_tokens_details": {"ttl_30m": 40, "ttl_12h": 10},
    }
    usage = read({"prompt_tokens_details": details}, service_tier="priority")
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (20, 50, 10)
    assert usage.service_tier == "priority"
    assert read({}).service_tier is None


@pytest.mark.parametrize(
    "details",
    [
        {"cached_tokens": 60, "cache_write_tokens": 50},
        {"cache_write_tokens": 101},
        {"cache_write_tokens": -1},
        {"cache_write_tokens": 1, "cache_write_tokens_details": {"ttl_12h": 2}},
    ],
)
def test_cache_writes_that_contradict_the_input_are_not_believed(details: dict[str, Any]) -> None:
    assert not read({"prompt_tokens_details": details}).counted


# --- bad input --------------------------------------------------------------------------------------------------------

TASK = """\
name: t
prompt: p.md
input: word
kind: response
intended_use: {student_distribution: internal, student_competes: "no", commercial: false}
sources: [{id: s, title: S, licence: CC0-1.0}]
seeds: {train: {path: w.jsonl, source: s}}
asking: {order: file}
teachers:
  - name: endpoint/m
    parameters: {max_tokens: 1}
    price:
      source: list
      output_usd_per_mtok: 1
      input_usd_per_mtok: %s
"""

STEP = "{above_input_tokens: 9, input_usd_per_mtok: 1, output_usd_per_mtok: 1}"


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("-1", 15, "price.input_usd_per_mtok: must be an amount of dollars, such as 2.50, 0 or more, found -1"),
        (".nan", 15, "price.input_usd_per_mtok: must be an amount of dollars"),
        ("NaN", 15, "0 or more, found NaN"),
        ("inf", 15, "0 or more, found inf"),
        ("0.0000001", 15, "more than six decimals"),
        ("1\n      currency: EUR", 16, "price.currency: prices are in usd, found 'EUR'"),
        ("1\n      input_eur_per_mtok: 1", 16, "did you mean 'input_usd_per_mtok'"),
        ("1\n      tiers: {flex: {input_usd_per_mtok: 1}}", 16, "price.tiers.flex.output_usd_per_mtok: this field is"),
        ("1\n      long_context: [{above_input_tokens: 0, input_usd_per_mtok: 1, output_usd_per_mtok: 1}]", 16,
         "price.long_context.0.above_input_tokens: must be 1 or more"),
        ("1\n      long_context:\n" + 2 * ("      - " + STEP + "\n"), 18,
         "price.long_context.1.above_input_tokens: must be more than the one before"),
    ],
)  # fmt: skip
def test_a_price_that_will_not_do_is_refused_at_its_line(tmp_path: Path, text: str, line: int, complaint: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(TASK % text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert f"{path}:{line}: teachers.0." in str(caught.value)
    assert complaint in str(caught.value)


def test_a_corrected_price_does_not_begin_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    identities = set()
    for price in ("1", "2"):
        path.write_text(TASK % price)
        identities.add(load_spec(path).spec.identity)
    assert len(identities) == 1


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row(currency="EUR")], r"prices\.yaml:12: hosted\.0\.currency: prices are in usd, found 'EUR'"),
        ([row() | {"input_usd_per_mtok": -1}], r":7: hosted\.0\.input_usd_per_mtok: .*0 or more"),
        ([row(), row()], r":12: hosted\.1: openai/gpt-4o-mini has two prices from the same day"),
        ([row(effective="tomorrow")], r"hosted\.0\.effective"),
    ],
)
def test_a_table_that_will_not_do_is_refused_at_its_line(
    tmp_path: Path, rows: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        table(tmp_path, *rows)


def test_the_shipped_table_agrees_with_the_public_prices_or_is_dearer() -> None:
    from corpusgen.budget.public_prices import public_tiers

    for name, rate in shipped_prices().hosted:
        provider, _, model = name.partition("/")
        public = public_tiers(provider, None, model, TODAY)[0]["standard"].base
        assert rate.input_per_mtok >= public.input
        assert rate.output_per_mtok >= public.output


# --- what tokens do not bound -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web_search_options", "search_parameters", "plugins", "enable_search"])
def test_a_search_has_fees_that_no_price_of_tokens_covers(name: str) -> None:
    asked = teacher(price=written(), parameters={"max_tokens": 1, name: {}})
    with pytest.raises(PriceUnknown, match=f"parameters.{name} brings fees"):
        rate_of(asked, on=TODAY)


def test_where_claude_computes_is_priced_by_the_spec_alone() -> None:
    where = {"max_tokens": 1, "inference_geo": "us"}
    with pytest.raises(PriceUnknown, match="inference_geo: us has a surcharge"):
        rate_of(spec("anthropic/claude-sonnet-4-5", parameters=where), on=TODAY)
    assert rate_of(spec("anthropic/claude-sonnet-4-5", parameters=where, price=written()), on=TODAY)
    anywhere = {**where, "inference_geo": "global"}
    assert rate_of(spec("anthropic/claude-sonnet-4-5", parameters=anywhere), on=TODAY)
