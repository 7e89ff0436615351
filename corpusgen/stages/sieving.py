"""What a pool goes through before anything is asked: every check of ``curate``, item by item, in file order.

What was decided stays in the corpus, with the digests it was decided by, so that the next start decides nothing anew
and goes on where this one ended, however it ended. Another setting, eval file or item begins anew from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

import orjson
import xxhash

from corpusgen.curation.finding import PASSES, Finding
from corpusgen.errors import Interrupted
from corpusgen.journal import Journal, Transaction
from corpusgen.prompting.seeds import Seed
from corpusgen.records import digest
from corpusgen.stages.checks import Check, held_out_texts, prompt_checks
from corpusgen.stages.erasure.erasures import STAGE as ERASED
from corpusgen.stages.repeats import Kept
from corpusgen.stages.runs import Run
from corpusgen.stages.task import Task

PORTION = 128
VERSION = 2
"""Of the checks: decisions of an older one are not taken over."""


@dataclass(frozen=True, kw_only=True)
class Sieved:
    """An item with everything the checks say of it; the finding that drops it stands last."""

    seed: Seed
    findings: tuple[Finding, ...] = ()

    @property
    def dropped(self) -> Finding | None:
        """Why it is not asked about."""
        return self.findings[-1] if self.findings and not self.findings[-1].kept else None


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Where what is dropped and remarked of a run's pool is written down; without a run it is not."""

    journal: Journal
    run_id: str | None = None
    stopping: Callable[[], bool] = lambda: False
    """Whether somebody has asked to stop meanwhile."""

    @classmethod
    def of(cls, run: Run) -> Notes:
        """Those of a run."""
        return cls(journal=run.corpus.journal, run_id=run.run_id, stopping=run.asker.stopping.is_set)


def sieves(task: Task) -> bool:
    """Whether a task's pool is checked for more than exact repeats."""
    return task.spec.curate.checks_the_pool


def sieved(task: Task, seeds: Iterable[Seed], notes: Notes) -> Iterator[Sieved]:
    """The items in their order, each with what the checks say of it.

    Raises Interrupted where somebody has asked to stop; what is decided by then is kept.
    """
    sieve = _Sieve(task=task, notes=notes)
    sieve.forget()
    rest = iter(seeds)
    while portion := list(islice(rest, PORTION)):
        if notes.stopping():
            raise Interrupted("stopped as asked while the pool was checked; the same command goes on from there")
        yield from sieve.sift(portion)


def check_left(task: Task, read: int, left: int, dropped: Mapping[str, int]) -> None:
    """Raise SpecError where the checks leave nothing to ask about: the spec is wrong, and not every item."""
    if left or not dropped:
        return
    if not dropped.keys() - {ERASED}:
        message = f"every one of the {read:,} items was erased from this corpus; name other seeds"
        raise task.located.error(message, "seeds", "train")
    told = ", ".join(f"{count:,} {check}" for check, count in dropped.items())
    message = f"leaves nothing of the {read:,} items to ask about ({told})"
    if "decontaminate" in dropped:
        message += "; is the pool itself among the eval files?"
    raise task.located.error(message, "curate")


def text_of(task: Task, seed: Seed) -> str:
    """What the student will read of an item."""
    return seed.values[task.spec.input]


@dataclass(kw_only=True)
class _Sieve:
    """The checks, and how far the pool has come."""

    task: Task
    notes: Notes
    n: int = 0
    pool: bytes = b""
    checks: tuple[Check, ...] = ()
    kept: Kept | None = None
    numbers: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """Numbers among the kept, by place in the pool and mark, of what is not compared with yet."""
    begun: bool = False
    follows: bool = True
    """Whether the items so far are those of the last start, so that its decisions hold."""

    def __post_init__(self) -> None:
        near = self.task.spec.curate.near
        threshold = near.threshold if near is not None and near.prompts else None
        spec, inputs = self.task.spec, self.task.prompter.file.inputs
        self.checks = prompt_checks(self.task)
        held_out = [] if threshold is None else [[name, digest(text)] for name, text in held_out_texts(self.task)]
        of_the_pool = [VERSION, spec.name, spec.seeds.train.path, spec.input, inputs, threshold, held_out]
        self.pool = bytes.fromhex(digest([*of_the_pool, *(check.identity for check in self.checks)]))
        self.kept = None if threshold is None else Kept(threshold=threshold)

    def forget(self) -> None:
        """What was noted of the run's pool at an earlier start is noted anew; a row may have gone, or its reason."""
        run_id = self.notes.run_id
        if run_id is not None:
            self.notes.journal.run_now(lambda transaction: _forget(transaction, run_id))

    def sift(self, seeds: Sequence[Seed]) -> Iterator[Sieved]:
        """Some items, with what was decided of them now or earlier."""
        marks = [self._mark(seed) for seed in seeds]
        known = self._known(marks)
        found = [Sieved(seed=seed, findings=_from_json(row)) for seed, row in zip(seeds, known, strict=False)]
        if self.kept is not None:
            self._put([(self.n + at, marks[at], one) for at, one in enumerate(found) if one.dropped is None])
        fresh, digests = self._decided(seeds[len(found) :], self.n + len(found))
        self._write(marks[len(found) :], [*found, *fresh], fresh, digests)
        self.n += len(seeds)
        yield from found
        yield from fresh

    def _known(self, marks: Sequence[bytes]) -> list[str | None]:
        """What was found of the items that stood here at the last start too, up to the first that did not."""
        if not self.follows:
            return []
        rows = self.notes.journal.query(
            "select mark, findings from sieved where pool = ? and n >= ? and n < ? order by n",
            (self.pool, self.n, self.n + len(marks)),
        )
        same = 0
        while same < len(rows) and rows[same][0] == marks[same]:
            same += 1
        self.follows = same == len(marks)
        return [findings for _, findings in rows[:same]]

    def _put(self, earlier: Sequence[tuple[int, bytes, Sieved]]) -> None:
        """Have at hand what was kept at the last start; it is compared with only if something new comes."""
        assert self.kept is not None
        names = [f"train:{one.seed.item_id}" for *_, one in earlier]
        numbers = self.kept.put(names, [text_of(self.task, one.seed) for *_, one in earlier])
        self.numbers.update({(n, mark): number for (n, mark, _), number in zip(earlier, numbers, strict=True)})

    def _begin(self) -> None:
        """Compare with what is held out, and with what was kept at the last start, from now on."""
        assert self.kept is not None
        if not self.begun:
            self.begun = True
            held_out = list(held_out_texts(self.task))
            self.kept.add([name for name, _ in held_out], [text for _, text in held_out])
        if not self.numbers:
            return
        rows = self.notes.journal.query(
            "select n, mark, digest from sieved where pool = ? and n < ? and digest is not null order by n",
            (self.pool, self.n + PORTION),
        )
        # By mark too: another process may have sieved another pool of this task meanwhile.
        known = {(n, mark): kept for n, mark, kept in rows}
        missing = [number for place, number in self.numbers.items() if place not in known]
        self.kept.restore((number, known[place]) for place, number in self.numbers.items() if place in known)
        self.kept.index_again(missing)
        self.numbers.clear()

    def _decided(self, seeds: Sequence[Seed], first: int) -> tuple[list[Sieved], dict[int, bytes]]:
        """What the checks say of new items, and the digests of those that are kept, by place in the pool."""
        decided = [Sieved(seed=seed, findings=tuple(self._checked(seed))) for seed in seeds]
        if self.kept is None or not seeds:
            return decided, {}
        self._begin()
        # Last, so that nothing is dropped for repeating what is not kept.
        sound = [at for at, one in enumerate(decided) if one.dropped is None]
        names = [f"train:{seeds[at].item_id}" for at in sound]
        repeats = self.kept.add(names, [text_of(self.task, seeds[at]) for at in sound])
        digests = iter(list(self.kept.digests.values()))
        places: dict[int, bytes] = {}
        for at, repeat in zip(sound, repeats, strict=True):
            if repeat is None:
                places[first + at] = next(digests)
            else:
                decided[at] = replace(decided[at], findings=(*decided[at].findings, _of_held_out(repeat)))
        return decided, places

    def _checked(self, seed: Seed) -> Iterator[Finding]:
        text = self._everything(seed)
        for check in self.checks:
            if (finding := check.of(text)) is not None and finding.reason != PASSES:
                yield finding
                if not finding.kept:
                    return

    def _everything(self, seed: Seed) -> str:
        """All of an item that a prompt shows."""
        shown = [seed.values[name] for name in self.task.prompter.file.inputs]
        return "\n".join([*shown, *(turn.content for turn in seed.turns)])

    def _mark(self, seed: Seed) -> bytes:
        """What stands for an item as the checks see it."""
        texts = [seed.values[name] for name in self.task.prompter.file.inputs]
        texts += [text for turn in seed.turns for text in (turn.role, turn.content)]
        written = orjson.dumps([seed.item_id, *(text.encode("utf-8", "surrogatepass").hex() for text in texts)])
        return xxhash.xxh3_128_digest(written)

    def _write(
        self, marks: Sequence[bytes], every: Sequence[Sieved], fresh: Sequence[Sieved], digests: Mapping[int, bytes]
    ) -> None:
        run_id = self.notes.run_id
        if run_id is None:
            return
        first = self.n + len(every) - len(fresh)
        rows = [
            (self.pool, first + at, mark, digests.get(first + at), _to_json(one.findings))
            for at, (mark, one) in enumerate(zip(marks, fresh, strict=True))
        ]
        drops = [_row(run_id, one, one.dropped) for one in every if one.dropped]
        remarks = [_row(run_id, one, finding) for one in every for finding in one.findings if finding.kept]
        if rows or drops or remarks:
            self.notes.journal.run_now(lambda transaction: _note(transaction, rows, drops, remarks))


def _forget(transaction: Transaction, run_id: str) -> None:
    for table in ("drops", "remarks"):
        transaction.execute(f"delete from {table} where run_id = ? and item_id glob 'train:*'", (run_id,))  # noqa: S608


def _note(transaction: Transaction, rows: Sequence[_Row], drops: Sequence[_Row], remarks: Sequence[_Row]) -> None:
    connection = transaction.connection
    if rows:
        connection.execute("delete from sieved where pool = ? and n >= ?", rows[0][:2])
        connection.executemany("insert into sieved(pool, n, mark, digest, findings) values(?, ?, ?, ?, ?)", rows)
    for table, other, said in (("drops", "repeat_of", drops), ("remarks", "other", remarks)):
        connection.executemany(
            f"insert into {table}(run_id, stage, item_id, reason, detail, score, threshold, {other})"
            " values(?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
            said,
        )


_Row = tuple[object, ...]


def _row(run_id: str, one: Sieved, finding: Finding) -> _Row:
    name = f"train:{one.seed.item_id}"
    return (
        run_id,
        finding.check,
        name,
        finding.reason,
        finding.detail,
        finding.score,
        finding.threshold,
        finding.other,
    )


def _of_held_out(repeat: Finding) -> Finding:
    if (repeat.other or "").startswith("train:"):
        return repeat
    return replace(repeat, check="decontaminate", reason="nearly repeats a validation or gold item")


def _to_json(findings: Sequence[Finding]) -> str | None:
    return orjson.dumps([asdict(finding) for finding in findings]).decode() if findings else None


def _from_json(text: str | None) -> tuple[Finding, ...]:
    return () if text is None else tuple(Finding(**fields) for fields in orjson.loads(text))
