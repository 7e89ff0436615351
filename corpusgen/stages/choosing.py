"""Which answers make a dataset: each is judged by itself and beside the others, and every verdict is written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import apsw
import numpy as np
import orjson

from corpusgen.curation.finding import PASSES, Finding
from corpusgen.curation.splits import Groups, split_of
from corpusgen.records import Message, Record, Verdict
from corpusgen.stages.repeats import Kept

if TYPE_CHECKING:  # a selection without curation needs none of it
    from corpusgen.stages.checks import AnswerChecks, Lookalikes

ENOUGH_WORDS: Final = 30
"""An answer of so many words is a repeat wherever it stands; a shorter one, such as "yes", only with its prompt."""
ENOUGH_CHARACTERS: Final = 250
STEPS: Final = ("exact", "near", "contaminated", "filtered", "not chosen")
"""What a dataset's funnel takes away, in the order in which it is told."""
_STEP_OF: Final = {"near": "near", "decontaminate": "contaminated", "choose": "not chosen"}
LIKE: Final = 0.64
"""How alike two texts are that may not stand in two splits, where the spec does not say."""
PORTION: Final = 256
ALL: Final = {"train": 1.0}
"""One split that takes everything."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the answers that pass are chosen from and divided."""

    limit: int | None = None
    diverse: int | None = None
    splits: Mapping[str, float] = field(default_factory=lambda: ALL)
    seed: int = 1
    stratum_of: Callable[[Record], str] = str  # never called, unless so many are chosen
    """The stratum of an answer, for quotas."""

    @property
    def looks_ahead(self) -> bool:
        """Whether it takes all answers to decide about one."""
        return self.diverse is not None or self.splits != ALL


Chooser = Callable[[Sequence[str], Sequence[str], Sequence[str], int], Sequence[int]]
"""Positions of so many of some texts, given with the names that decide between equals and with their strata."""


@dataclass(kw_only=True)
class Choice:
    """What was found of each answer and where it goes, in a file that is gone when this process ends."""

    plan: Plan
    base: Callable[[Record], str | Finding | None]
    """Why an answer is of no use at all, such as ``truncated``; None if it is."""
    checks: AnswerChecks | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """Answers by reason; those that passed under ``kept``, all under ``read``."""
    steps: dict[str, Counter[str]] = field(default_factory=dict)
    """Answers by the step of the funnel that took them, and by its reasons."""
    _file: apsw.Connection = field(default_factory=lambda: apsw.Connection(""))

    def __post_init__(self) -> None:
        self._file.pragma("journal_mode", "off")
        self._file.execute(
            "create table findings(record_id text, n integer, finding blob, primary key(record_id, n)) without rowid;"
            "create table passed("
            " record_id text primary key, item text, asked blob, text blob, stratum text, split text);"
            "create index passed_items on passed(item);"
            "create table members(item text, record_id text, record blob, primary key(item, record_id)) without rowid;"
            "begin"
        )

    @property
    def needs_all(self) -> bool:
        """Whether every answer has to be seen before the first is decided."""
        return self.plan.looks_ahead or (self.checks is not None and self.checks.beside_others)

    def decide(self, again: Callable[[], Iterable[Record]], choose: Chooser | None = None) -> None:
        """See all answers, in the order in which of equal ones the first is kept, and decide about each.

        ``again`` gives them each time it is called.
        """
        groups = self.checks is not None and bool(self.checks.groups)
        if groups:
            self._look_at_groups(again())
        threshold = None if self.checks is None else self.checks.near_threshold
        kept = None if threshold is None else Kept(threshold=threshold)
        records = iter(again())
        while portion := list(islice(records, PORTION)):
            self._judge(portion, kept, groups)
        if self.plan.diverse is not None and self.counts["kept"]:
            assert choose is not None
            self._thin(self.plan.diverse, choose)
        if self.plan.limit is not None:
            self._cut(self.plan.limit)
        if self.plan.splits != ALL:
            self._divide(threshold or LIKE)
        if self.checks is not None and self.checks.lookalikes is not None:
            self._remark_on_lookalikes(self.checks.lookalikes)

    def _judge(self, records: Sequence[Record], kept: Kept | None, groups: bool) -> None:
        findings = [self._found(record.record_id) if groups else self.findings_of(record) for record in records]
        sound = [at for at, found in enumerate(findings) if first_drop(found) is None]
        if kept is not None:
            # After everything else, so that nothing is dropped for repeating what is not kept.
            names = [records[at].record_id for at in sound]
            for at, repeat in zip(sound, kept.add(names, [wording(records[at]) for at in sound]), strict=True):
                findings[at] += [repeat] if repeat is not None else []
        for record, found in zip(records, findings, strict=True):
            self._note(record.record_id, found)
            dropped = first_drop(found)
            self._count(dropped)
            if dropped is None:
                texts = (
                    record.input.encode("utf-8", "surrogatepass"),
                    record.response.encode("utf-8", "surrogatepass"),
                )
                row = (record.record_id, item_of(record), *texts, self.plan.stratum_of(record), "train")
                self._file.execute("insert into passed values(?, ?, ?, ?, ?, ?)", row)

    def findings_of(self, record: Record) -> list[Finding]:
        """What is found of an answer by itself, up to what drops it."""
        useless = self.base(record)
        if isinstance(useless, Finding):
            return [useless]
        if useless is not None:
            return [Finding(check="filtered", kept=False, reason=useless)]
        findings: list[Finding] = []
        for check in () if self.checks is None else self.checks.alone:
            findings += check(record)
            if findings and not findings[-1].kept:
                break
        return findings

    def stream(self, records: Iterable[Record], split: str) -> Iterator[Record]:
        """The answers that go into a split, of records in the order of their ids, each with its verdicts."""
        for record in records:
            if self.needs_all:
                if self._split(record.record_id) == split:
                    yield _with_verdicts(record, self._found(record.record_id))
                continue
            findings = self.findings_of(record)
            dropped = first_drop(findings)
            if dropped is None and self.plan.limit is not None and self.counts["kept"] >= self.plan.limit:
                findings.append(dropped := _not_chosen("beyond limit"))
            self._note(record.record_id, findings)
            self._count(dropped)
            if dropped is None:
                yield _with_verdicts(record, findings)

    def noted(self) -> Iterator[tuple[str, Finding]]:
        """Every drop and remark, in the order of record ids; scores of what passed stand in the records alone."""
        for record_id, finding in self._file.execute("select record_id, finding from findings order by record_id, n"):
            found = Finding(**orjson.loads(finding))
            if found.reason != PASSES:
                yield str(record_id), found

    def _split(self, record_id: str) -> str | None:
        found = self._file.execute("select split from passed where record_id = ?", (record_id,)).get
        return None if found is None else str(found)

    def _found(self, record_id: str) -> list[Finding]:
        rows = self._file.execute("select finding from findings where record_id = ? order by n", (record_id,))
        return [Finding(**orjson.loads(row[0])) for row in rows]

    def _note(self, record_id: str, findings: Sequence[Finding]) -> None:
        rows = [(record_id, n, orjson.dumps(asdict(finding))) for n, finding in enumerate(findings)]
        if rows:
            self._file.executemany("insert or replace into findings values(?, ?, ?)", rows)

    def _count(self, dropped: Finding | None) -> None:
        self.counts["kept" if dropped is None else dropped.reason] += 1
        if dropped is not None:
            exact = dropped.check == "near" and dropped.metric == "exact"
            step = "exact" if exact else _STEP_OF.get(dropped.check, "filtered")
            self.steps.setdefault(step, Counter())[dropped.reason] += 1

    def _look_at_groups(self, records: Iterable[Record]) -> None:
        """Have the answers to each item looked at together; what is dropped by itself has no vote."""
        assert self.checks is not None
        for record in records:
            self._note(record.record_id, found := self.findings_of(record))
            if first_drop(found) is None:
                row = (item_of(record), record.record_id, packed(record))
                self._file.execute("insert or ignore into members values(?, ?, ?)", row)
        rows = self._file.execute("select item, record from members order by item, record_id")
        for _, members in groupby(rows, itemgetter(0)):
            self._look_at([unpacked(record) for _, record in members])

    def _look_at(self, members: Sequence[Record]) -> None:
        assert self.checks is not None
        found: dict[str, list[Finding]] = {}
        for check in self.checks.groups:
            for member, finding in zip(members, check(members), strict=True):
                if finding is not None:
                    found.setdefault(member.record_id, []).append(finding)
        for record_id, findings in found.items():
            self._note(record_id, [*self._found(record_id), *findings])

    def _remark_on_lookalikes(self, lookalikes: Lookalikes) -> None:
        for column in ("asked", "text"):
            sql = f"select record_id, {column} from passed where length({column}) > 0 order by record_id"  # noqa: S608

            def texts(sql: str = sql) -> Iterator[tuple[str, str]]:
                return ((str(name), _text(text)) for name, text in self._file.execute(sql))

            said = "prompt" if column == "asked" else "answer"
            for name, finding in list(lookalikes(texts)):
                self._note(name, [*self._found(name), replace(finding, reason=f"{said} {finding.reason}")])

    def _thin(self, count: int, choose: Chooser) -> None:
        """Keep so many of those that passed, chosen so that they cover them all."""
        rows = list(self._file.execute("select record_id, asked, text, stratum from passed order by record_id"))
        names = [str(row[0]) for row in rows]
        texts = [f"{_text(row[1])}\n{_text(row[2])}" for row in rows]
        strata = [str(row[3]) for row in rows]
        wanted = {names[at] for at in choose(names, texts, strata, count)}
        self._leave_out([name for name in names if name not in wanted], "not needed to cover the rest")

    def _cut(self, limit: int) -> None:
        rows = self._file.execute("select record_id from passed order by record_id limit -1 offset ?", (limit,))
        self._leave_out([str(row[0]) for row in rows], "beyond limit")

    def _leave_out(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            self._note(name, [*self._found(name), dropped := _not_chosen(reason)])
            self._file.execute("delete from passed where record_id = ?", (name,))
            self.counts["kept"] -= 1
            self._count(dropped)

    def _divide(self, threshold: float) -> None:
        """Give every answer its split, so that those of one item, and those that say almost the same, share one."""
        items = [str(row[0]) for row in self._file.execute("select distinct item from passed order by item")]
        groups = Groups()
        for column in ("asked", "text"):
            self._link(groups, column, threshold)
        split_by_item = [(split_of(groups.of(item), self.plan.splits, self.plan.seed), item) for item in items]
        self._file.executemany("update passed set split = ? where item = ?", split_by_item)

    def _link(self, groups: Groups, column: str, threshold: float) -> None:
        """Have items in one group whose prompts, or whose answers, repeat each other."""
        from corpusgen.curation.linking import band_rows, repeating

        sql = f"select rowid, item, {column} from passed where length({column}) > 0 order by record_id"  # noqa: S608
        places, items, keys = list[int](), list[str](), []
        found = ((int(str(at)), str(item), _text(text)) for at, item, text in self._file.execute(sql))
        # Two items whose answers are both "yes", or one label, are two items all the same.
        rows = (row for row in found if column == "asked" or stands_alone(row[2]))
        while portion := list(islice(rows, PORTION)):
            places += [at for at, _, _ in portion]
            items += [item for _, item, _ in portion]
            keys.append(band_rows([text for _, _, text in portion]))
        if not keys:
            return

        def text_of(at: int) -> str:
            sql = f"select {column} from passed where rowid = ?"  # noqa: S608 - own names
            return _text(self._file.execute(sql, (places[at],)).get)

        def linked(one: int, other: int) -> bool:
            return groups.of(items[one]) == groups.of(items[other])

        for one, other in repeating(np.concatenate(keys), text_of, linked=linked, threshold=threshold):
            groups.link(items[one], items[other])


def _text(stored: object) -> str:
    assert isinstance(stored, bytes)
    return stored.decode("utf-8", "surrogatepass")


_HEAVY: Final[dict[str, Any]] = dict.fromkeys(
    ("token_bytes", "token_ids", "topk_bytes", "topk_ids", "topk_logprobs", "topk_len")
)
"""What only trainers read of a record, and what takes most of its room."""


def packed(record: Record) -> bytes:
    """A record without its tokens, as bytes."""
    return orjson.dumps({name: getattr(record, name) for name in Record.__dataclass_fields__ if name not in _HEAVY})


def unpacked(content: bytes) -> Record:
    """The record that was packed."""
    fields: dict[str, Any] = orjson.loads(content)
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(value)
        elif name.endswith("_time"):
            fields[name] = datetime.fromisoformat(value)
    fields["messages"] = tuple(Message(**turn) for turn in fields["messages"])
    fields["verdicts"] = tuple(Verdict(**verdict) for verdict in fields["verdicts"])
    return Record(**{**_HEAVY, **fields})


def first_drop(findings: Iterable[Finding]) -> Finding | None:
    """The finding that drops an answer."""
    return next((finding for finding in findings if not finding.kept), None)


def item_of(record: Record) -> str:
    """The seed an answer descends from; the worked examples come after it."""
    return record.source_ids[0] if record.source_ids else record.record_id


def wording(record: Record) -> str:
    """What is compared with other answers: a long one by itself, a short one with what was asked."""
    return record.response if stands_alone(record.response) else f"{record.input}\n{record.response}"


def stands_alone(answer: str) -> bool:
    """Whether an answer is long enough to repeat another wherever it stands; not every script has spaces."""
    return len(answer) > ENOUGH_CHARACTERS or len(answer.split(None, ENOUGH_WORDS)) > ENOUGH_WORDS


def _not_chosen(reason: str) -> Finding:
    return Finding(check="choose", kept=False, reason=reason)


def _verdict(one: Finding) -> Verdict:
    return Verdict(check=one.check, kept=one.kept, score=one.score, reason=None if one.reason == PASSES else one.reason)


def _with_verdicts(record: Record, findings: Iterable[Finding]) -> Record:
    told = tuple(map(_verdict, findings))
    return replace(record, verdicts=(*record.verdicts, *told)) if told else record
