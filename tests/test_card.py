"""The dataset card: front matter that hubs parse, tables people read, and gaps it admits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from corpusgen.export.card import (
    CardDuty,
    CardFacts,
    CardSource,
    CardSpend,
    CardSplit,
    CardTeacher,
    CardTerms,
    card,
    unfilled,
)

SMOLLM = CardTerms(terms_id="smollm2-apache-2.0", title="SmolLM2 licence", version="Apache-2.0", spdx="Apache-2.0")
TEACHER = CardTeacher(
    name="embedded/smollm2-135m",
    provider="huggingface",
    model="SmolLM2-135M-Instruct",
    route="self_hosted",
    host="",
    records=1_500,
    terms=(SMOLLM,),
    outputs_train="allowed",
)
WORDNET = CardSource(
    source_id="wordnet",
    title="WordNet 3.0",
    licence="WordNet",
    locator="https://wordnet.princeton.edu",
    records=1_500,
    notice="WordNet 3.0 Copyright 2006\nby Princeton University.",
)


def facts(**changes: Any) -> CardFacts:
    whole: dict[str, Any] = {
        "name": "word-domain",
        "version": "1",
        "licence_expression": "Apache-2.0 AND WordNet",
        "created_time": datetime(2026, 11, 22, 1, 2, tzinfo=UTC),
        "rows": 1_800,
        "columns_version": 1,
        "splits": (
            CardSplit(name="train", pattern="train/*.parquet", rows=1_500),
            CardSplit(name="validation", pattern="validation/*.parquet", rows=300),
        ),
        "teachers": (TEACHER,),
        "sources": (WORDNET,),
        "duties": (CardDuty(kind="notice_file", applies_to="dataset", text="keep the notice", terms_id="WordNet"),),
        "description": "What kind of thing a definition describes.",
        "languages": ("en",),
        "task_categories": ("text-classification",),
        "spend": CardSpend(
            settled_microusd=1_234_567,
            promised_microusd=0,
            unconfirmed_microusd=5,
            requests=1_500,
            input_tokens=600_000,
            output_tokens=1_500,
        ),
        "labels": {"train": {"animal": 1_000, "plant": 500}, "validation": {"animal": 300}},
        "how_made": ("one question per definition",),
        "limitations": ("the teacher is small",),
        "personal_data": "none known",
        "contact": "data@example.org",
        "merkle_root": "ab" * 32,
        "spec_digest": "cd" * 32,
        "prompt_digest": "ef" * 32,
    }
    return CardFacts(**{**whole, **changes})


def front_matter(text: str) -> dict[str, Any]:
    _, matter, _ = text.split("---\n", 2)
    parsed: dict[str, Any] = yaml.safe_load(matter)
    return parsed


def test_the_front_matter_is_what_hubs_read() -> None:
    matter = front_matter(card(facts()))
    assert (matter["license"], matter["license_name"]) == ("other", "apache-2.0-and-wordnet")
    assert "synthetic" in matter["tags"]
    assert matter["size_categories"] == ["1K<n<10K"]
    assert matter["configs"][0]["data_files"][0] == {"split": "train", "path": "train/*.parquet"}


def test_a_licence_the_hubs_know_is_given_in_their_spelling() -> None:
    matter = front_matter(card(facts(licence_expression="Apache-2.0")))
    assert matter["license"] == "apache-2.0"
    assert "license_name" not in matter


@pytest.mark.parametrize(
    ("rows", "size"), [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (250_000, "100K<n<1M"), (10**8, "n>10M")]
)
def test_the_size_has_its_category(rows: int, size: str) -> None:
    assert front_matter(card(facts(rows=rows)))["size_categories"] == [size]


def test_the_card_names_teachers_with_the_version_of_their_terms() -> None:
    text = card(facts())
    assert "| embedded/smollm2-135m | huggingface, self_hosted | SmolLM2-135M-Instruct | 1,500 | SmolLM2" in text
    assert "| notice_file | dataset | keep the notice | WordNet |" in text


def test_settled_promised_and_unconfirmed_money_stay_apart() -> None:
    text = card(facts())
    assert "| Settled | $1.234567 |" in text
    assert "| Unconfirmed | $0.000005 |" in text


def test_the_label_balance_has_one_column_per_split() -> None:
    assert "| animal | 1,000 (66.7%) | 300 (100.0%) |" in card(facts())
    assert "| plant | 500 (33.3%) | 0 (0.0%) |" in card(facts())


def test_a_notice_goes_along_word_for_word() -> None:
    assert "    WordNet 3.0 Copyright 2006\n    by Princeton University." in card(facts())


def test_a_whole_card_has_no_list_of_gaps() -> None:
    assert unfilled(facts()) == ()
    assert "Not filled" not in card(facts())


def test_what_could_not_be_filled_is_listed() -> None:
    text = card(facts(description=None, spend=None, limitations=(), contact=None))
    assert text[text.index("## Not filled") :].count("\n- ") == 4
    assert "## What it cost" not in text


def test_text_from_outside_can_neither_break_a_table_nor_run() -> None:
    source = CardSource(source_id="a|b", title="<script>\n| x", licence="MIT", locator=None, records=None)
    text = card(facts(sources=(source,), description="--- <b>"))
    assert "| a\\|b | &lt;script&gt; \\| x | MIT |  |  |" in text
    assert "<b>" not in text


def test_the_same_facts_make_the_same_card() -> None:
    assert card(facts()) == card(facts())
