"""Datasets and students for the tests of what may be exported, trained on and released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from command import corpusgen
from flow_samples import write_task
from several_samples import saying, write_several
from task_samples import write_label_task

LLAMA = "llama-3.1-community"
"""Terms under which whatever learned from outputs is called Llama-… once it is given away."""

DOCUMENT = """\
documents:
  - id: {name}
    {more}
    provider: somebody
    title: Terms of {name}
    version: '1'
    kind: own
    routes: [mock]
    providers: [corpusgen]
    models: ['{model}']
    outputs_train: {train}
    outputs_train_competing: {train}
    commercial_use: allowed
    duties: {duties}
    spdx: LicenseRef-{name}
    source: the tests
    confidence: high
    reviewed: 2026-11-21
"""


def document(name: str, *, model: str = "*", train: str = "allowed", duties: str = "[]", more: str = "") -> str:
    """A terms file with one document."""
    return DOCUMENT.format(name=name, model=model, train=train, duties=duties, more=more)


def forbidden(corpus: Path, name: str = "corpusgen-scripted") -> None:
    """From now on, this corpus reads terms that the answers were given under as forbidding to train on them."""
    said = document(f"{name}-now", train="prohibited", more=f"overrides: {name}")
    (corpus / "terms.yaml").write_text(said, "utf-8")


def done(*arguments: str | Path) -> dict[str, Any]:
    """What a command that must succeed says in JSON."""
    ran = corpusgen(*arguments, "--json")
    assert ran.code == 0, ran.stderr
    return ran.object


def labelled(folder: Path, *, use: str = "internal", more: str = "", sources: str = "") -> tuple[Path, Path, str]:
    """A distilled label task: its spec, its corpus and its student."""
    spec, corpus = write_label_task(folder, pool=24, limit=16, more=more), folder / "corpus"
    text = spec.read_text("utf-8").replace("student_distribution: internal", f"student_distribution: {use}")
    spec.write_text(text.replace("licence: CC0-1.0", sources or "licence: CC0-1.0"), "utf-8")
    made = done("distill", spec, "--corpus", corpus, "-q")
    return spec, corpus, Path(made["student"]).name


def mixed(folder: Path) -> tuple[Path, Path]:
    """A sealed dataset of two teachers, one under terms that ask for no competing student: its spec and its corpus."""
    teachers = {"open": saying("freely", weight=1), "bound": saying("with strings", weight=1)}
    folder.mkdir(parents=True, exist_ok=True)
    duty = "[{kind: naming, applies_to: student, text: call it Bound, words: [Bound]}]"
    (folder / "terms.yaml").write_text(document("bound", model="bound", train="conditional", duties=duty), "utf-8")
    use = {"student_distribution": "internal", "student_competes": "no", "commercial": False}
    spec = write_several(
        folder,
        teachers,
        items=12,
        terms_files=["terms.yaml"],
        intended_use=use | {"accepted_duties": ["naming"]},
    )
    corpus = folder / "corpus"
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "words", "--corpus", corpus)
    done("seal", "words", "--spec", spec, "--corpus", corpus)
    return spec, corpus


def free_text(folder: Path) -> tuple[Path, Path]:
    """A sealed dataset of free text: its spec and its corpus."""
    spec, corpus = write_task(folder, items=5), folder / "corpus"
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "words", "--corpus", corpus)
    done("seal", "words", "--spec", spec, "--corpus", corpus)
    return spec, corpus
