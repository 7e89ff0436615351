"""What the calls of a cluster come to: money, repeats, and how much of it a student could answer."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import orjson

from corpusgen.curation.near import NearIndex
from corpusgen.records import Json
from corpusgen.stages.traffic.clusters import Cluster, Repeats
from corpusgen.stages.traffic.reading import DAY_US, Heard, mark_of

Form: TypeAlias = Literal["label", "fields", "text", "tools"]
"""What answers are: one of a few short ones, JSON with the same keys, words, or calls of functions."""

MOST_ANSWERS: Final = 4_096
"""Different answers that are counted for a cluster; what comes after them counts as seen once."""
MOST_NAMES: Final = 64
NEAR_SAMPLE: Final = 200
"""Different inputs of a cluster among which near repeats are looked for."""
NEAR_CHARACTERS: Final = 2_000
EXAMPLES: Final = 12
SHORT_WORDS: Final = 5
MOST_LABELS: Final = 50
LABELLED: Final = 0.95
"""The share of answers that labels must cover."""
LEAST_SHARE: Final = 0.005
"""The share of answers from which on a short one is a label and no slip."""
ENOUGH: Final = 20
"""Answers from which on anything is said of their form."""
MONTH_DAYS: Final = 30
LESSON: Final = 1_500
"""Labelled items that a student is assumed to need: what ``asking.limit`` is without further word."""
STUDENT_MICROUSD: Final = 1
"""What an answer of a student is assumed to cost: a millisecond of a processor at $3.60 an hour."""
COVERED: Final[Mapping[Form, float]] = {"label": 0.9, "fields": 0.7, "text": 0.3, "tools": 0.0}
"""The share of calls that a student of a score of 1 is assumed to answer; the others go on to the teacher."""
WEIGHTS: Final[Mapping[str, float]] = {
    "short": 0.15,
    "few_answers": 0.25,
    "low_entropy": 0.10,
    "fixed_form": 0.15,
    "stable": 0.10,
    "no_tools": 0.10,
    "single_turn": 0.05,
    "small_input": 0.10,
}
"""What each part counts for in the score."""
WHY: Final[Mapping[str, str]] = {
    "short": "share of answers of at most 5 words",
    "few_answers": "share of answers that are among the 50 most frequent ones",
    "low_entropy": "1 - entropy of the answers over that of as many different ones",
    "fixed_form": "share of answers that are a label, or JSON with the most frequent set of keys",
    "stable": "share of repeated prompts whose answers agree; 0.5 where none was repeated",
    "no_tools": "share of calls without functions",
    "single_turn": "share of calls with one turn of the user",
    "small_input": "1 up to 2,000 characters of input on average, 0 from 20,000 on",
}
_SPACES = re.compile(r"\s+")


@dataclass(kw_only=True)
class Tally:
    """What is counted of a cluster as its calls come by."""

    cluster: Cluster
    rows: int = 0
    calls: int = 0
    hits: int = 0
    microusd: int = 0
    unpriced: int = 0
    saved_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    characters: int = 0
    with_tools: int = 0
    with_form: int = 0
    single: int = 0
    first_us: int | None = None
    last_us: int | None = None
    users: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    answerers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls by run and by who answered."""
    answers: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    short: int = 0
    beyond: int = 0
    """Answers that came when no more different ones were counted."""
    keys: Counter[tuple[str, ...]] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)
    said: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """The first answer to a prompt, and whether all later ones agreed."""
    inputs: dict[int, str] = field(default_factory=dict)
    inputs_below: int = 2**64
    spelt: dict[str, str] = field(default_factory=dict)
    """How short answers are written."""
    examples: list[Heard] = field(default_factory=list)

    def add(self, heard: Heard) -> None:
        """Count a call."""
        self._count(heard)
        self.repeats.add(heard.mark, heard.asked + heard.hits)
        if len(self.examples) < EXAMPLES:
            self.examples.append(heard)
        if heard.asked and heard.answer:
            self._add_answer(heard, heard.answer)
        self._draw(heard)

    def _count(self, heard: Heard) -> None:
        asked = heard.asked
        self.calls += asked
        self.hits += heard.hits
        self.microusd += asked * (heard.cost_microusd or 0)
        self.unpriced += asked * (heard.cost_microusd is None)
        self.saved_microusd += heard.saved_microusd
        self.input_tokens += asked * heard.input_tokens
        self.output_tokens += asked * heard.output_tokens
        self.rows += 1
        self.characters += len(heard.text)
        self.with_tools += bool(heard.tools or heard.calls_tools)
        self.with_form += bool(heard.form)
        self.single += heard.turns <= 1
        self.answerers[heard.run_id, heard.answerer] += asked
        for names, name in ((self.users, heard.user), (self.tasks, heard.task), (self.models, heard.model)):
            if name in names or len(names) < MOST_NAMES:
                names[name] += asked + heard.hits
        if heard.at_us is not None:
            self.first_us = min(heard.at_us, self.first_us or heard.at_us)
            self.last_us = max(heard.at_us, self.last_us or heard.at_us)

    def _add_answer(self, heard: Heard, answer: str) -> None:
        self.answered += 1
        told = normal(answer)
        self.short += 0 < len(told.split()) <= SHORT_WORDS
        key = told if len(told) <= 80 else f"\0{mark_of(told):x}"
        if len(told) <= 40 and len(self.spelt) < MOST_ANSWERS:
            self.spelt.setdefault(told, answer.strip().rstrip("."))
        if key in self.answers or len(self.answers) < MOST_ANSWERS:
            self.answers[key] += 1
        else:
            self.beyond += 1
        if (names := keys_of(answer)) is not None and (names in self.keys or len(self.keys) < MOST_NAMES):
            self.keys[names] += 1
        mark = heard.mark
        if mark in self.repeats.counts:
            first, agreed = self.said.get(mark, (mark_of(told), True))
            self.said[mark] = (first, agreed and first == mark_of(told))
        elif len(self.said) > len(self.repeats.counts):
            self.said = {one: told_of for one, told_of in self.said.items() if one in self.repeats.counts}

    def _draw(self, heard: Heard) -> None:
        """Keep inputs by lots that hang on themselves, as many as near repeats are looked for among."""
        lot = mark_of(heard.text[:NEAR_CHARACTERS]) * 0x9E3779B97F4A7C15 % 2**64
        if lot < self.inputs_below:
            self.inputs[lot] = heard.text[:NEAR_CHARACTERS]
            if len(self.inputs) >= 4 * NEAR_SAMPLE:
                self.inputs = dict(sorted(self.inputs.items())[:NEAR_SAMPLE])
                self.inputs_below = max(self.inputs)

    @property
    def all_calls(self) -> int:
        """Calls, those answered from the cache among them."""
        return self.calls + self.hits


def normal(answer: str) -> str:
    """An answer as it is compared with others: without case, doubled spaces and a full stop at its end."""
    return _SPACES.sub(" ", answer.strip()).rstrip(".").casefold()


def keys_of(answer: str) -> tuple[str, ...] | None:
    """The keys of an answer that is a JSON object, alone or in a fenced block."""
    text = answer.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    if not text.startswith("{"):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return tuple(sorted(value)) if isinstance(value, dict) else None


# --- What it comes to ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A cluster with its figures, as it is shown."""

    tally: Tally
    form: Form
    labels: tuple[str, ...]
    """The answers that are labels, the most frequent one first."""
    keys: tuple[str, ...]
    exact_repeats: int
    """Calls that were asked before, word for word, those answered from the cache among them."""
    near_repeats: float | None
    """The share of different inputs that nearly repeat another one, in a sample; a lower bound."""
    parts: Mapping[str, float]
    score: float
    monthly: Monthly

    @property
    def number(self) -> int:
        """Which cluster it is."""
        return self.tally.cluster.number


@dataclass(frozen=True, kw_only=True)
class Monthly:
    """What thirty such days cost, and what of it could be saved."""

    days: float
    calls: float
    microusd: int
    repeats_microusd: int
    """What was paid for calls that had been answered before; the cache of the service saves this."""
    covered: float
    """The share of the remaining calls that a student is assumed to answer."""
    saved_microusd: int
    """What a student could save of the rest, its own cost taken off."""
    lesson_microusd: int
    """What labels for it would cost once, beyond the answers that are there."""


def ranked(tally: Tally, *, days: float) -> Ranked:
    """The figures of a cluster over a period of so many days."""
    labels = _labels(tally)
    keys, with_keys = tally.keys.most_common(1)[0] if tally.keys else ((), 0)
    form = _form(tally, labels, with_keys)
    parts = _parts(tally, labels, with_keys)
    score = round(sum(WEIGHTS[name] * value for name, value in parts.items()), 3)
    exact = _exact(tally)
    return Ranked(
        tally=tally,
        form=form,
        labels=labels if form == "label" else (),
        keys=keys if form == "fields" else (),
        exact_repeats=exact,
        near_repeats=_near(tally),
        parts=parts,
        score=score,
        monthly=_monthly(tally, form, score, exact, days),
    )


def _labels(tally: Tally) -> tuple[str, ...]:
    """The short answers that make up nearly all of a cluster's; none where they are not a closed set."""
    if tally.answered < ENOUGH:
        return ()
    least = max(2.0, LEAST_SHARE * tally.answered)
    found = [(one, count) for one, count in tally.answers.most_common(MOST_LABELS) if count >= least]
    found = [(one, count) for one, count in found if one and len(one.split()) <= SHORT_WORDS and one[0] not in "\0{["]
    covered = sum(count for _, count in found)
    return tuple(one for one, _ in found) if len(found) > 1 and covered >= LABELLED * tally.answered else ()


def _form(tally: Tally, labels: Sequence[str], with_keys: int) -> Form:
    if tally.with_tools > (tally.calls + tally.hits) / 2:
        return "tools"
    if labels:
        return "label"
    return "fields" if tally.answered >= ENOUGH and with_keys >= LABELLED * tally.answered else "text"


def _parts(tally: Tally, labels: Sequence[str], with_keys: int) -> dict[str, float]:
    answered, seen = max(tally.answered, 1), max(sum(tally.repeats.counts.values()), 1)
    rows = max(tally.rows, 1)
    frequent = [count for _, count in tally.answers.most_common(MOST_LABELS) if count > 1]
    labelled = sum(tally.answers[one] for one in labels)
    repeated = [tally.said[mark][1] for mark, count in tally.repeats.counts.items() if count > 1 and mark in tally.said]
    size = tally.characters / rows
    parts = {
        "short": tally.short / answered,
        "few_answers": sum(frequent) / answered,
        "low_entropy": 1 - _entropy(tally) if seen and tally.answered > 1 else 0.0,
        "fixed_form": max(labelled, with_keys) / answered,
        "stable": sum(repeated) / len(repeated) if repeated else 0.5,
        "no_tools": 1 - tally.with_tools / rows,
        "single_turn": tally.single / rows,
        "small_input": (20_000 - size) / 18_000,
    }
    return {name: round(min(1.0, max(0.0, value)), 3) for name, value in parts.items()}


def _entropy(tally: Tally) -> float:
    """Entropy of the answers over that of as many different ones."""
    counts = [*tally.answers.values(), *([1] * min(tally.beyond, MOST_ANSWERS))]
    total = sum(counts)
    bits = -sum(count / total * math.log2(count / total) for count in counts)
    return bits / math.log2(total) if total > 1 else 1.0


def _exact(tally: Tally) -> int:
    counts = tally.repeats.counts
    total = sum(counts.values())
    share = (total - len(counts)) / total if total else 0.0
    return round(share * tally.all_calls)


def _near(tally: Tally) -> float | None:
    texts = [text for _, text in sorted(tally.inputs.items())[:NEAR_SAMPLE]]
    if len(texts) < ENOUGH:
        return None
    index = NearIndex(text_of=texts.__getitem__, template=_pieces(tally))
    found = index.add_many(texts, range(len(texts)))
    return round(sum(one is not None for one in found) / len(texts), 3)


def _pieces(tally: Tally) -> list[str]:
    """The wording that all inputs share, which must not make them alike."""
    texts = [heard.text for heard in tally.examples]
    if len(texts) < 2 or not tally.cluster.templates:
        return []
    head = _shared(texts)
    tail = _shared([text[::-1] for text in texts])[::-1]
    return [piece for piece in (head, tail) if piece.strip()]


def _shared(texts: Sequence[str]) -> str:
    least, most = min(texts), max(texts)
    at = next((at for at, letter in enumerate(least) if at >= len(most) or most[at] != letter), len(least))
    return least[:at]


def _monthly(tally: Tally, form: Form, score: float, exact: int, days: float) -> Monthly:
    times = MONTH_DAYS / max(days, 1 / 24)
    priced = max(tally.calls - tally.unpriced, 1)
    per_call = tally.microusd / priced
    microusd = tally.microusd * times
    # What the cache gave cost nothing; of what was paid for, the repeats that it did not know.
    repeats = max(0, exact - tally.hits) * per_call * times
    covered = COVERED[form] * score
    fresh = max(0.0, tally.calls - max(0, exact - tally.hits)) * times
    saved = fresh * covered * max(0.0, per_call - STUDENT_MICROUSD)
    lacking = max(0, LESSON - len(tally.repeats.counts))
    return Monthly(
        days=round(days, 3),
        calls=round(tally.calls * times, 1),
        microusd=round(microusd),
        repeats_microusd=round(min(repeats, microusd)),
        covered=round(covered, 3),
        saved_microusd=round(saved),
        lesson_microusd=round(lacking * per_call),
    )


def days_of(tallies: Sequence[Tally], since_us: int | None, until_us: int | None) -> float:
    """How long the period is: as asked for, else from the first call to the last."""
    firsts = [one.first_us for one in tallies if one.first_us is not None]
    lasts = [one.last_us for one in tallies if one.last_us is not None]
    if not firsts or not lasts:
        return float(MONTH_DAYS)
    begin = since_us if since_us is not None else min(firsts)
    end = until_us if until_us is not None else max(lasts)
    return max((end - begin) / DAY_US, 1 / 24)


def share(part: float, whole: float) -> float:
    """A part of a whole, nought of nothing."""
    return part / whole if whole else 0.0


def table_of(names: Counter[str]) -> dict[str, Json]:
    """Names with their counts, the most frequent first."""
    return {name or "(not named)": count for name, count in names.most_common(8)}
