"""Small corpora whose lineage is known beforehand, and their lineage as rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command import corpusgen
from several_samples import PRICED, saying, write_several
from task_samples import write_label_task
from test_judging_answers import judged_task

from corpusgen.corpus import Corpus
from corpusgen.stages.lineage.reading import Lineage, reading
from corpusgen.stages.lineage.tracing import lineage_files

REFUSING: dict[str, Any] = {
    "answers": [{"contains": "word 0001", "text": "I will not.", "finish_reason": "content_filter"}],
    "default": {"text": "yes"},
}


def done(*arguments: str | Path) -> None:
    ran = corpusgen(*arguments)
    assert ran.code == 0, ran.stderr


@contextmanager
def lineage_of(folder: Path) -> Iterator[Lineage]:
    with Corpus.open(folder) as corpus, reading(lineage_files(corpus)) as lineage:
        yield lineage


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a question to the lineage of a corpus comes to."""
    with lineage_of(folder) as lineage:
        return [tuple(row.values()) for row in lineage.rows(sql)]


OWNER = "Jo Bloggs"


def owned(spec: Path) -> Path:
    """The spec with somebody who owns the rights in its source."""
    spec.write_text(spec.read_text("utf-8").replace("licence: CC0-1.0}", f"licence: CC0-1.0, rightsholder: {OWNER}}}"))
    return spec


def judged(folder: Path) -> Path:
    """Twelve answers, eleven of them judged, eight of those in a sealed dataset with two splits."""
    spec, corpus = owned(judged_task(folder)), folder / "corpus"
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "sentences", "--spec", spec, "--corpus", corpus, "--splits", "train=0.7,test=0.3")
    done("seal", "sentences", "--spec", spec, "--corpus", corpus)
    return corpus


def passed_on(folder: Path) -> Path:
    """Six answers of two teachers that cost money; what the first refused the second was asked."""
    scripts = {"first": {**REFUSING, "teacher": PRICED}, "second": saying("well", **PRICED)}
    spec, corpus = write_several(folder, scripts, budget={"usd": 1}), folder / "corpus"
    done("run", spec, "--corpus", corpus, "-q")
    return corpus


def distilled(folder: Path) -> Path:
    """Thirty labels in a sealed dataset, and a student of it; validation and gold were asked too."""
    spec, corpus = owned(write_label_task(folder)), folder / "corpus"
    done("distill", spec, "--corpus", corpus, "-q")
    return corpus
