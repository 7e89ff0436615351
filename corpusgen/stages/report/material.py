"""What the dataset is made of, in the report's facts: what was left out and why, labels, texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from corpusgen.evaluate.report import facts
from corpusgen.records import Record
from corpusgen.stages.choosing import STEPS
from corpusgen.stages.evaluating import best
from corpusgen.stages.looking import STAGE
from corpusgen.stages.pool import Pool
from corpusgen.stages.report.outcome import Outcome
from corpusgen.stages.rounds import logprobs_of
from corpusgen.stages.runs import Run
from corpusgen.stages.selecting import Selection
from corpusgen.stages.writing import PoolSize, Written


def funnel(outcome: Outcome) -> tuple[facts.FunnelStep, ...]:
    """How many items each step left."""
    found = outcome.asked or outcome.texts
    if found is None:
        return ()
    pool = found.pool
    answered = len(outcome.asked.train) if outcome.asked else len(outcome.texts.written if outcome.texts else ())
    asking = outcome.run.task.spec.questions
    rounds = outcome.asked.rounds if outcome.asked else ()
    asked = (rounds[-1].labels if rounds else min(asking.limit, pool.unique)) * asking.samples
    steps = [
        facts.FunnelStep(name="read from the pool", left=pool.read),
        facts.FunnelStep(
            name="said something new",
            left=pool.unique,
            losses=_losses({"exact repeat": pool.repeated, "also in validation or gold": pool.leaked} | _dropped(pool)),
        ),
        facts.FunnelStep(
            name="asked about",
            left=asked,
            losses=_losses({"not asked about": pool.unique - asked}, set_aside=True),
        ),
        facts.FunnelStep(name="answered", left=answered, losses=_losses({"no answer": asked - answered})),
    ]
    if outcome.selection:
        steps += _selecting(outcome.selection)
    return tuple(steps)


_STEPS = {
    "exact": "said something new",
    "near": "not nearly the same as another",
    "contaminated": "not of an eval file",
    "filtered": "passed the filters",
}


def _selecting(selection: Selection) -> Iterator[facts.FunnelStep]:
    """What selecting left after each of its steps; those that took nothing are not shown."""
    left = selection.funnel.get("read", 0)
    for step in STEPS:
        if taken := selection.steps.get(step):
            left -= sum(taken.values())
            chosen = step == "not chosen"
            name = "chosen for the dataset" if chosen else f"answers: {_STEPS[step]}"
            yield facts.FunnelStep(name=name, left=left, losses=_losses(taken, set_aside=chosen))
    if "not chosen" not in selection.steps:
        yield facts.FunnelStep(name="kept in the dataset", left=selection.rows)


_CHECKED = {"near": "near repeat", "decontaminate": "in an eval file", "pii": "personal data or a secret"}


def _dropped(pool: Pool | PoolSize) -> dict[str, int]:
    """What the checks of ``curate`` took, in a reader's words."""
    return {_CHECKED.get(name, name): count for name, count in pool.dropped.items()}


def _losses(counts: Mapping[str, int], *, set_aside: bool = False) -> tuple[facts.Loss, ...]:
    return tuple(facts.Loss(reason=why, count=n, set_aside=set_aside) for why, n in counts.items() if n > 0)


def balance(outcome: Outcome) -> facts.LabelBalance | None:
    """How often each label is in the training set and in the random sample."""
    asked = outcome.asked
    if asked is None or asked.choice is None:
        return None
    names = outcome.run.asker.facts.label_names or ()
    said = best(asked.choice.chosen.apply(logprobs_of(asked.train)))
    return facts.LabelBalance(
        labels=names,
        training=_counts(said, len(names)),
        random_sample=_counts(said[: asked.sample], len(names)),
        seed=outcome.run.task.spec.questions.seed,
    )


def _counts(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist())


def drops(run: Run) -> tuple[facts.Drop, ...]:
    """Reasons for which items were dropped."""
    rows = run.corpus.journal.query(
        f"select {STAGE}, reason, count(*), min(coalesce(detail, repeat_of)) from drops"  # noqa: S608 - own text
        " where run_id in (?, ?) group by 1, 2",
        (run.run_ids[0], run.run_ids[-1]),
    )
    return tuple(facts.Drop(stage=row[0], reason=row[1], count=row[2], example=row[3]) for row in rows)


def generation(written: Written) -> facts.Generation | None:
    """What the texts look like."""
    if not len(written):
        return None
    tokens, means = written.output_tokens, written.mean_logprobs
    return facts.Generation(
        items=len(written),
        truncated=written.truncated,
        mean_tokens=float(np.mean(tokens)),
        lengths=_histogram(tokens),
        mean_logprob=float(np.mean(means)) if means else None,
        logprobs=_histogram(means),
        samples=tuple(_sample(record) for record in written.samples),
        distinct_outputs=len(written.distinct),
    )


def _mean_logprob(record: Record) -> float | None:
    known = [value for value in record.token_logprobs or () if value is not None]
    return float(np.mean(known)) if known else None


def _histogram(values: Sequence[float]) -> tuple[facts.HistogramBin, ...]:
    if not values:
        return ()
    counts, edges = np.histogram(values, bins=min(12, max(1, len(set(values)))))
    bounds = zip(edges, edges[1:], counts, strict=False)
    return tuple(facts.HistogramBin(low=float(low), high=float(high), count=int(n)) for low, high, n in bounds)


def _sample(record: Record) -> facts.Sample:
    return facts.Sample(
        prompt=record.input,
        output=record.response,
        tokens=record.output_tokens,
        mean_logprob=_mean_logprob(record),
        note="truncated" if record.truncated else "",
    )
