"""Traffic: what was asked over a period, what of it repeats, and what a student could take over, under which rights.

Reads a corpus or logs of other services and writes nothing, but tasks to start from where it is told to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import orjson

from corpusgen.budget.prices import Rate, rate_of
from corpusgen.corpus import Clock, Corpus, moment
from corpusgen.errors import CorpusgenError, UsageError
from corpusgen.provenance.policy import Decision, IntendedUse, decide
from corpusgen.records import Json
from corpusgen.spec import TaskSpec
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import rights_of, roles_of
from corpusgen.stages.terms.rejudging import Touch, judged_today, stored_task
from corpusgen.stages.traffic.clusters import Sorter, learn_clusters
from corpusgen.stages.traffic.ranking import (
    COVERED,
    LESSON,
    MONTH_DAYS,
    STUDENT_MICROUSD,
    WEIGHTS,
    WHY,
    Ranked,
    Tally,
    days_of,
    ranked,
    share,
    table_of,
)
from corpusgen.stages.traffic.reading import Heard, Log, Reader, Window, of_corpus
from corpusgen.stages.traffic.specs import Given, Written, write_task
from corpusgen.store.answers import Card
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.registry import open_teacher, resolved

Distribution = Literal["internal", "hosted", "weights_released"]
MOST_WRITTEN: Final = 10
TRAINABLE: Final = "label"
"""The form of answers that corpusgen trains students for; for others it hands out the dataset."""
WORTH: Final = 0.5
"""The score from which on a task is written without being asked for by number."""
NOTICE: Final = "Not legal advice."
_MAKERS: Final = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-", "text-"), "openai"),
    (("claude-",), "anthropic"),
)
"""Whose models are called so, where a log names no provider."""


@dataclass(frozen=True, kw_only=True)
class Right:
    """What the terms say today of training on the answers of one teacher."""

    teacher: str
    calls: int
    terms: str
    outputs_train: str
    """As the terms were when it answered; ``unknown`` for a log."""
    outcome: str
    """What the policy says today: allow, needs_waiver, deny, or unknown."""
    why: str
    duties: tuple[str, ...]
    use: str
    """The intended use it was asked about."""

    def to_json(self) -> dict[str, Json]:
        """The right for a program."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a period of calls comes to."""

    clusters: tuple[Ranked, ...]
    """By what could be saved, repeats and students together; then by spend."""
    rights: Mapping[int, tuple[Right, ...]]
    """By the number of a cluster."""
    days: float
    calls: int
    hits: int
    microusd: int
    unpriced: int
    bad_lines: int
    bad: Mapping[str, str]
    untimed: int
    sorter: Sorter
    read: Reader

    def to_json(self) -> dict[str, Json]:
        """Everything for a program."""
        return {
            "days": round(self.days, 3),
            "calls": self.calls,
            "cache_hits": self.hits,
            "microusd": self.microusd,
            "calls_without_price": self.unpriced,
            "bad_lines": self.bad_lines,
            "bad": dict(self.bad),
            "lines_without_time": self.untimed,
            "clusters": [cluster_json(one, self.rights.get(one.number, ())) for one in self.clusters],
            "score": {name: {"weight": weight, "is": WHY[name]} for name, weight in WEIGHTS.items()},
            "assumptions": list(assumptions()),
            "notice": NOTICE,
        }


def assumptions() -> Iterator[str]:
    """What the estimate takes for granted, a line each."""
    yield f"the period is like every other: figures of a month are {MONTH_DAYS} days at its pace"
    covered = ", ".join(f"{form} {part:.0%}" for form, part in COVERED.items())
    yield f"a student answers the score times this share of the calls, and a teacher the others: {covered}"
    yield f"an answer of a student costs {STUDENT_MICROUSD} micro-dollar; labels to learn from: {LESSON:,}"
    yield "what was paid for a prompt that had been answered before is the cache's to save, not the student's"
    yield "corpusgen trains students of labels; one of JSON or text is trained elsewhere, on a sealed dataset"
    yield "whether a student is good enough is known once it is trained and evaluated on gold items"


# --- Reading and ranking ---------------------------------------------------------------------------------------------


def survey(read: Reader, window: Window, log: Log | None = None) -> Traffic:
    """Clusters of the calls with their figures. Raises UsageError where there are none."""
    sorter = learn_clusters(read)
    tallies = [Tally(cluster=cluster) for cluster in sorter.clusters]
    for number, heard in sorter.sorted(read()):
        tallies[number].add(heard)
    found = [one for one in tallies if one.rows]
    if not found:
        bad = f"; {log.bad_lines:,} lines could not be read, the first: {_first(log.bad)}" if log and log.bad else ""
        raise UsageError(f"no call in this period{bad}; name another with --since and --until")
    days = days_of(found, window.since_us, window.until_us)
    clusters = in_order([ranked(one, days=days) for one in found], "saving")
    return Traffic(
        clusters=clusters,
        rights={},
        days=days,
        calls=sum(one.calls for one in found),
        hits=sum(one.hits for one in found),
        microusd=sum(one.microusd for one in found),
        unpriced=sum(one.unpriced for one in found),
        bad_lines=log.bad_lines if log else 0,
        bad=log.bad if log else {},
        untimed=log.untimed if log else 0,
        sorter=sorter,
        read=read,
    )


Order = Literal["saving", "spend", "repeats", "score"]


def in_order(clusters: Sequence[Ranked], order: Order) -> tuple[Ranked, ...]:
    """The clusters, the one that matters most by some figure first."""
    return tuple(sorted(clusters, key=lambda one: (-_figure(one, order), *_order(one))))


def _figure(one: Ranked, order: Order) -> float:
    figures = {
        "saving": one.monthly.saved_microusd + one.monthly.repeats_microusd,
        "spend": one.tally.microusd,
        "repeats": one.exact_repeats,
        "score": one.score,
    }
    return float(figures[order])


def _order(one: Ranked) -> tuple[float, ...]:
    return -one.tally.microusd, -one.tally.all_calls, one.number


def _first(bad: Mapping[str, str]) -> str:
    place, why = next(iter(bad.items()))
    return f"{place} {why}"


def cluster_json(one: Ranked, rights: Sequence[Right]) -> dict[str, Json]:
    """A cluster for a program."""
    tally, month = one.tally, one.monthly
    return {
        "cluster": one.number,
        "kind": tally.cluster.kind,
        "prompt": shown_prompt(one),
        "versions": max(1, len(tally.cluster.templates)),
        "calls": tally.calls,
        "cache_hits": tally.hits,
        "microusd": tally.microusd,
        "calls_without_price": tally.unpriced,
        "saved_by_cache_microusd": tally.saved_microusd,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "first": None if tally.first_us is None else moment(tally.first_us).isoformat(),
        "last": None if tally.last_us is None else moment(tally.last_us).isoformat(),
        "exact_repeats": one.exact_repeats,
        "exact_repeats_share": round(share(one.exact_repeats, tally.all_calls), 4),
        "near_repeats_share": one.near_repeats,
        "form": one.form,
        "labels": list(one.labels),
        "keys": list(one.keys),
        "distinct_answers": len(tally.answers),
        "distillability": one.score,
        "trainable_here": one.form == TRAINABLE,
        "parts": dict(one.parts),
        "models": table_of(tally.models),
        "tasks": table_of(tally.tasks),
        "users": table_of(tally.users),
        "month": {name: getattr(month, name) for name in month.__dataclass_fields__},
        "rights": [right.to_json() for right in rights],
    }


def shown_prompt(one: Ranked) -> str:
    """What a cluster asks, in one line."""
    cluster = one.tally.cluster
    if not cluster.templates:
        told = one.tally.examples[0].text if cluster.kind == "same call" and one.tally.examples else ""
        return " ".join((told or f"about: {', '.join(cluster.about) or 'all the rest'}").split())
    template = cluster.templates[0]
    before = " ".join(template.before[2:])
    last = f"{' '.join(template.head)} {{…}} {' '.join(template.tail)}".strip()
    return " ".join(f"{before} {last}".replace("\0", "#").replace("\x02", ":").replace("\x03", "|").split())


def of_recorded(corpus: Corpus, window: Window) -> Traffic:
    """What the calls of a corpus come to, with the rights of those who answered."""
    found = survey(of_corpus(corpus, window), window)
    asked = _Rights(corpus)
    return replace(found, rights={one.number: asked.of(one.tally.answerers) for one in found.clusters})


def of_logs(log: Log, window: Window, *, on: date, use: Distribution | None, corpus: Corpus | None) -> Traffic:
    """What the calls of some logs come to. Prices are looked up where a log tells none."""
    found = survey(_priced(log.reader(window), on), window, log)
    judge = partial(_right_of_log, on=on, use=use, corpus=corpus)
    rights = {one.number: tuple(_joined(map(judge, _models(one.tally)))) for one in found.clusters}
    return replace(found, rights=rights)


def _models(tally: Tally) -> list[tuple[str, int]]:
    counts = Counter[str]()
    for (_, answerer), calls in tally.answerers.items():
        counts[answerer] += calls
    return counts.most_common()


# --- Rights ----------------------------------------------------------------------------------------------------------


class _Rights:
    """Asks today's policy about answers of a corpus, each run's teacher once."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        query = corpus.journal.query
        self._cards = {name: Card.from_json(text) for name, text in query("select card_id, card from cards")}
        self._specs = dict(query("select run_id, spec from runs"))
        self._tasks: dict[str, Task | str] = {}
        self._known: dict[tuple[str, str], Right] = {}

    def of(self, answerers: Mapping[tuple[str, str], int]) -> tuple[Right, ...]:
        """Each teacher and terms with its calls, the most frequent first."""
        return tuple(_joined(self._right(*names, calls) for names, calls in answerers.items() if calls))

    def _right(self, run_id: str, card_id: str, calls: int) -> Right:
        spec = str(self._specs.get(run_id, ""))
        key = (spec, card_id)
        if key not in self._known:
            self._known[key] = self._asked(spec, self._cards[card_id])
        return replace(self._known[key], calls=calls)

    def _asked(self, spec: str, card: Card) -> Right:
        task = self._task(spec)
        if isinstance(task, str):
            return _unknown(card.teacher, task, card)
        try:
            found = judged_today(self._corpus, task, [Touch.of_card(card, role, 0) for role in roles_of(task)])
        except CorpusgenError as error:
            return _unknown(card.teacher, str(error), card)
        decisions = list(found.values())
        decision = next((one for one in decisions if one.outcome != "allow"), decisions[0])
        told = task.spec.intended_use
        return _right(decision, card.teacher, card.outputs_train, f"{told.student_distribution}", decisions)

    def _task(self, spec: str) -> Task | str:
        if spec not in self._tasks:
            try:
                self._tasks[spec] = stored_task(self._corpus, "traffic", spec)
            except UsageError as error:
                self._tasks[spec] = str(error)
        return self._tasks[spec]


def _right(decision: Decision, teacher: str, outputs: str, use: str, all_: Sequence[Decision]) -> Right:
    refusing = [reason for reason in decision.reasons if reason.outcome != "allow"]
    duties = dict.fromkeys(f"{duty.kind}: {duty.text}" for one in all_ for duty in one.duties)
    return Right(
        teacher=teacher,
        calls=0,
        terms=", ".join(decision.terms_ids) or decision.terms_set_id,
        outputs_train=outputs,
        outcome=decision.outcome,
        why="; ".join(dict.fromkeys(f"{reason.rule} {reason.text}" for reason in refusing)),
        duties=tuple(duties),
        use=use,
    )


def _unknown(teacher: str, why: str, card: Card | None = None) -> Right:
    return Right(
        teacher=teacher,
        calls=0,
        terms=", ".join(card.terms_ids) if card else "",
        outputs_train=card.outputs_train if card else "unknown",
        outcome="unknown",
        why=why,
        duties=(),
        use="",
    )


def _joined(rights: Iterator[Right]) -> list[Right]:
    """Calls of the same finding added up."""
    counts = Counter[Right]()
    for one in rights:
        counts[replace(one, calls=0)] += one.calls
    return [replace(one, calls=calls) for one, calls in counts.most_common()]


def _right_of_log(named: tuple[str, int], *, on: date, use: Distribution | None, corpus: Corpus | None) -> Right:
    answerer, calls = named
    spec = teacher_of(answerer)
    if spec is None:
        return replace(_unknown(answerer, "no teacher of that name is known; see corpusgen teachers"), calls=calls)
    meant = IntendedUse(student_distribution=use or "internal", student_competes="unknown", commercial=True)
    rights = rights_of(corpus, None)
    try:
        card = open_teacher(spec, sending=False).card
    except CorpusgenError as error:
        return replace(_unknown(answerer, str(error)), calls=calls)
    from corpusgen.provenance.terms import TeacherRoute

    route = TeacherRoute(
        name=card.name,
        provider=card.provider,
        model=card.model,
        route=card.route,
        host=card.host,
    )
    decision = decide(rights.registry, route, meant, on=on, waivers=rights.waivers)
    return replace(_right(decision, card.name, "unknown", meant.student_distribution, [decision]), calls=calls)


# --- Teachers and prices of logs -------------------------------------------------------------------------------------


@lru_cache(maxsize=1_024)
def teacher_of(answerer: str) -> TeacherSpec | None:
    """The teacher that a log's model most likely is; None where its name says too little."""
    name, _, address = answerer.partition(" ")
    if "/" not in name:
        maker = next((maker for starts, maker in _MAKERS if name.startswith(starts)), None)
        if maker is None:
            return None
        name = f"{maker}/{name}"
    try:
        spec = TeacherSpec(name=name, parameters={"max_tokens": 1})
        card = open_teacher(spec, sending=False).card
    except (CorpusgenError, ValueError):
        return None
    # Behind another address stands somebody else, under other terms and at other prices.
    return spec if not address or urlsplit(address).hostname in (None, card.host) else None


def _priced(read: Reader, on: date) -> Reader:
    """The same calls, with today's prices where a log tells no cost."""

    def priced() -> Iterator[Heard]:
        for heard in read():
            rate = None if heard.cost_microusd is not None else _rate(heard.answerer, on)
            yield heard if rate is None else _with_cost(heard, rate)

    return priced


def _with_cost(heard: Heard, rate: Rate) -> Heard:
    return replace(heard, cost_microusd=rate.cost(heard.input_tokens, heard.output_tokens))


@lru_cache(maxsize=1_024)
def _rate(answerer: str, on: date) -> Rate | None:
    spec = teacher_of(answerer)
    try:
        return None if spec is None else rate_of(resolved(spec), on=on)
    except CorpusgenError:
        return None


# --- Tasks to start from ---------------------------------------------------------------------------------------------


def write_tasks(
    traffic: Traffic,
    folder: Path,
    numbers: Sequence[int],
    *,
    corpus: Corpus | None,
    use: Distribution | None,
    clock: Clock,
) -> list[Written]:
    """Write tasks of some clusters, or of those a student most likely could learn. Raises UsageError."""
    by_number = {one.number: one for one in traffic.clusters}
    strangers = [number for number in numbers if number not in by_number]
    if strangers:
        raise UsageError(f"--cluster {strangers[0]}: there are {', '.join(map(str, sorted(by_number)))}")
    chosen = [by_number[number] for number in numbers] or [one for one in traffic.clusters if _worth_writing(one)]
    return [_write(traffic, one, folder, corpus, use, clock) for one in chosen[:MOST_WRITTEN]]


def _worth_writing(one: Ranked) -> bool:
    return one.tally.cluster.kind == "template" and one.form in ("label", "fields", "text") and one.score >= WORTH


def _write(
    traffic: Traffic, one: Ranked, folder: Path, corpus: Corpus | None, use: Distribution | None, clock: Clock
) -> Written:
    versions = one.tally.cluster.templates
    fits = partial(_is_of, traffic.sorter, one.number, versions[0] if versions else None)
    examples = [heard for heard in one.tally.examples if fits(heard)] or list(one.tally.examples)
    given = _given_of_log(examples[0], use) if corpus is None or not examples[0].run_id else _given(corpus, examples[0])
    calls = (heard for number, heard in traffic.sorter.sorted(traffic.read()) if number == one.number)
    return write_task(one, calls, given, folder, examples=examples, clock=clock)


def _is_of(sorter: Sorter, number: int, template: Any, heard: Heard) -> bool:
    return template is None or sorter.template_of(heard) == template


_TAKEN: Final = ("organisation", "agreements", "egress", "answers_as")
"""Fields of a run's spec that a task of its calls keeps, because they count for its rights."""


def _given(corpus: Corpus, heard: Heard) -> Given:
    """Teacher, sources and intended use as the recorded run had them."""
    ((text,),) = corpus.journal.query("select spec from runs where run_id = ?", (heard.run_id,))
    spec = TaskSpec.model_validate_json(text)
    told = orjson.loads(spec.model_dump_json(exclude_defaults=True))
    at = next((at for at, one in enumerate(spec.teachers) if one.name == heard.model), 0)
    teacher = told["teachers"][at]
    for name in ("parameters", "weight"):
        teacher.pop(name, None)
    if "price" in teacher:
        teacher["price"] = _in_dollars(teacher["price"])
    sources = [{name: value for name, value in one.items() if name != "notice"} for one in told["sources"]]
    return Given(
        teacher=teacher,
        intended_use=orjson.loads(spec.intended_use.model_dump_json(exclude_defaults=True)),
        sources=sources,
        source=spec.seeds.train.source,
        more={name: told[name] for name in _TAKEN if name in told},
    )


def _in_dollars(price: Json) -> Json:
    """A price as a spec writes it: figures are kept in micro-dollars."""
    if isinstance(price, dict):
        return {name: _in_dollars(value) if name != "above_input_tokens" else value for name, value in price.items()}
    if isinstance(price, list):
        return [_in_dollars(value) for value in price]
    return price / 1_000_000 if isinstance(price, int) and not isinstance(price, bool) else price


def _given_of_log(heard: Heard, use: Distribution | None) -> Given:
    spec = teacher_of(heard.answerer)
    name = spec.name if spec else f"openai/{heard.model.rpartition('/')[2]}"
    meant = {"student_distribution": use, "student_competes": "unknown", "commercial": True}
    source = {
        "id": "calls",
        "title": "Texts of recorded calls",
        "licence": "LicenseRef-caller",
        "acquisition": "user_data",
    }
    known = None if spec is None else open_teacher(spec, sending=False).card
    return Given(
        completes=known is not None and "completion" in known.capabilities.apis,
        remark=None if known else f"who answered as {heard.answerer!r} is not known here: name the teacher",
        teacher={"name": name},
        intended_use=None if use is None else meant,
        sources=[source],
        source="calls",
        more={},
    )
