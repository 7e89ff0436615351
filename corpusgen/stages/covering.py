"""Items that cover a pool: which to ask about where not all can be."""

from __future__ import annotations

from collections.abc import Sequence

from corpusgen.curate_fields import Diverse
from corpusgen.prompting.seeds import Seed
from corpusgen.stages.embedding import embedder_of
from corpusgen.stages.task import Task


def chosen_seeds(task: Task, seeds: Sequence[Seed], count: int) -> Sequence[int]:
    """Positions of so many items, chosen as ``curate.diverse`` says, the most telling first."""
    from corpusgen.curation.diverse import choose

    part = task.spec.curate.diverse or Diverse()
    texts = [seed.values[task.spec.input] for seed in seeds]
    if not texts or not count:
        return ()
    strata = None if part.strata is None else [seed.values[part.strata] for seed in seeds]
    chosen = choose(
        embedder_of(part.embedding, texts, seed=part.seed).embed(texts),
        count,
        seed=part.seed,
        strata=strata,
        quotas=dict(part.quotas) or None,
        ids=[seed.item_id for seed in seeds],
        method=part.method,
        trim=part.outliers,
    )
    return chosen.positions
