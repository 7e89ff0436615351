"""Which answers make a dataset: repeats, choices and splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import sample_record

from corpusgen.curation.finding import Finding
from corpusgen.curation.near import NearIndex
from corpusgen.records import Record
from corpusgen.stages.checks import AnswerChecks
from corpusgen.stages.choosing import Choice, Plan, packed, unpacked

SPLITS = {"train": 0.6, "test": 0.4}
WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch")


def prose(seed: int, length: int = 40) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) + chance.choice(("", "s", "ish", "like")) for _ in range(length))


def answer(item: int, text: str, asked: str | None = None, sample: int = 0) -> Record:
    name = sha256(f"{item}/{sample}/{text}".encode()).hexdigest()
    return sample_record(
        record_id=name,
        kind="response",
        input=asked or f"Question {item} about {prose(item, 12)}?",
        response=text,
        source_ids=(f"ours#{item}", "ours#example"),
        verdicts=(),
        truncated=False,
    )


def nearly(text: str, seed: int) -> str:
    """The text as somebody else might have typed it."""
    return random.Random(seed).choice((str.upper, "{}.".format, "Well, {}".format, str.title))(text)


def checks(threshold: float | None = 0.64, **more: tuple[object, ...]) -> AnswerChecks:
    fields = {"alone": (), "groups": (), **more}
    return AnswerChecks(near_threshold=threshold, identity="tests", **fields)  # type: ignore[arg-type] # what tests hand over


def decided(records: Sequence[Record], plan: Plan, of: AnswerChecks | None) -> tuple[Choice, dict[str, str]]:
    choice = Choice(plan=plan, base=lambda record: None, checks=of)
    choice.decide(lambda: records, lambda names, texts, strata, count: range(count))
    by_id = sorted(records, key=lambda record: record.record_id)
    return choice, {kept.record_id: split for split in plan.splits for kept in choice.stream(by_id, split)}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), min_size=2, max_size=24), st.booleans())
def test_nothing_crosses_a_split(drawn: list[tuple[int, int]], drop: bool) -> None:
    records = {one.record_id: one for one in (answer(item, nearly(prose(text), item)) for item, text in drawn)}
    _, splits = decided(list(records.values()), Plan(splits=SPLITS), checks() if drop else None)
    index = NearIndex(text_of=lambda _: "")
    for one, other in combinations(splits, 2):
        if splits[one] != splits[other]:
            assert not index.repeats(records[one].response, records[other].response)
            assert records[one].source_ids[0] != records[other].source_ids[0]
    if not drop:
        assert splits.keys() == records.keys()


def test_a_chain_of_repeats_is_in_one_split() -> None:
    index, texts = NearIndex(text_of=lambda _: ""), [prose(1, 80)]
    for _ in range(20):  # each repeats the one before, the last hardly the first
        shorter = " ".join(texts[-1].split()[2:])
        texts += [shorter] if index.repeats(shorter, texts[-1]) else []
    assert len(texts) > 8
    assert not index.repeats(texts[-1], texts[0])
    _, splits = decided([answer(item, text) for item, text in enumerate(texts)], Plan(splits=SPLITS), None)
    assert len(set(splits.values())) == 1


def test_items_with_the_same_short_answer_or_label_may_stand_in_two_splits() -> None:
    records = [answer(item, "animal") for item in range(60)]
    _, splits = decided(records, Plan(splits=SPLITS), None)
    assert set(splits.values()) == set(SPLITS)


def test_long_answers_without_spaces_that_repeat_each_other_share_a_split() -> None:
    text = "".join(chr(0x4E00 + random.Random(1).randrange(n, n + 900)) for n in range(300))
    _, splits = decided([answer(item, text) for item in range(30)], Plan(splits=SPLITS), None)
    assert len(set(splits.values())) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_answers_the_first_asked_is_kept(order: int) -> None:
    records = [answer(item, prose(7)) for item in range(5)][::order]
    choice, splits = decided(records, Plan(), checks())
    assert list(splits) == [records[0].record_id]
    assert choice.counts == {"kept": 1, "repeats an earlier text": 4}
    assert {found.other for _, found in choice.noted()} == {records[0].record_id}


def test_a_short_answer_to_another_question_is_no_repeat() -> None:
    records = [answer(item, "Yes.") for item in range(6)]
    assert len(decided(records, Plan(), checks())[1]) == 6


def test_what_is_dropped_for_another_reason_hides_no_good_answer() -> None:
    records = [answer(1, prose(3)), answer(2, prose(3).upper())]

    def first_is_bad(record: Record) -> list[Finding]:
        return [Finding(check="length", kept=record is not records[0], reason="bad")]

    assert list(decided(records, Plan(), checks(alone=(first_is_bad,)))[1]) == [records[1].record_id]


def test_answers_to_one_item_are_looked_at_together() -> None:
    records = [answer(item, f"{text}", sample=sample) for item in range(3) for sample, text in enumerate("aab")]

    def majority(members: Sequence[Record]) -> list[Finding | None]:
        assert len(members) == 3
        said = [member.response for member in members]
        return [
            None if said.count(text) > 1 else Finding(check="agreement", kept=False, reason="disagrees")
            for text in said
        ]

    choice, splits = decided(records, Plan(), checks(None, groups=(majority,)))
    assert len(splits) == 6
    assert choice.steps == {"filtered": {"disagrees": 3}}


def test_what_is_dropped_by_itself_has_no_vote() -> None:
    def refusing(record: Record) -> list[Finding]:
        return [Finding(check="refusal", kept=False, reason="refused")] if record.response == "No." else []

    def majority(members: Sequence[Record]) -> list[Finding | None]:
        said = [one.response for one in members]
        most = max(said, key=said.count)
        return [None if one == most else Finding(check="agreement", kept=False, reason="differs") for one in said]

    records = [answer(1, text, sample=sample) for sample, text in enumerate(("No.", "No.", "Seven.", "Seven.", "No."))]
    choice, kept = decided(records, Plan(), checks(None, alone=(refusing,), groups=(majority,)))
    assert len(kept) == 2
    assert choice.counts == {"kept": 2, "refused": 3}


def test_choosing_and_a_limit_are_counted_as_not_chosen() -> None:
    records = [answer(item, prose(item)) for item in range(20)]
    choice, splits = decided(records, Plan(diverse=8, limit=5), None)
    assert len(splits) == 5
    assert choice.steps == {"not chosen": {"not needed to cover the rest": 12, "beyond limit": 3}}


def test_a_record_comes_back_as_it_was_packed_but_for_its_tokens() -> None:
    record = sample_record()
    back = unpacked(packed(record))
    assert back.topk_bytes is None
    assert (back.messages, back.sent_time, back.verdicts) == (record.messages, record.sent_time, record.verdicts)
