"""What decontamination, injection and moderation checks find, and how quickly: ``python tests/benchmarks/leaks.py``.

The worst of seeds that nothing was tuned on. Clean texts share whole sentences with eval items by construction, so
some of what is dropped of them is an overlap that a person would call one too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_corpus import PACKAGES, EvalCorpus, corpus, sentences

from corpusgen.curation import injection, moderation
from corpusgen.curation.decontaminate import EvalSet
from corpusgen.curation.evals import EvalFile
from corpusgen.curation.finding import Finding

SEEDS: Final = (9001, 9002, 9003)
_TESTS: Final = Path(__file__).resolve().parents[1]


def measure() -> dict[str, float]:
    """Recall and false alarms of all three, and documents a second."""
    return {**decontamination(), **remarks("injection", injection.check), **remarks("moderation", moderation.check)}


def decontamination() -> dict[str, float]:
    runs = [_run(corpus(seed, packages=PACKAGES)) for seed in SEEDS]
    short = [_run(corpus(seed, packages=PACKAGES, words=(12, 30), clean=0)) for seed in SEEDS]
    return {
        "decontaminate_recall": min(run["noisy"] for run in runs),
        "decontaminate_edited_recall": min(run["edited"] for run in runs),
        "decontaminate_short_recall": min(run["noisy"] for run in short),
        "decontaminate_short_edited_recall": min(run["edited"] for run in short),
        "decontaminate_false": max(run["clean"] for run in runs),
        "decontaminate_clean_reported": max(run["reported"] for run in runs),
        "decontaminate_docs_per_s": min(run["per_s"] for run in runs),
        "decontaminate_docs_per_cpu_s": min(run["per_cpu_s"] for run in runs),
        "decontaminate_leaks_per_cpu_s": min(run["leaks_per_cpu_s"] for run in runs),
    }


def _run(made: EvalCorpus) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        against = EvalSet.read([EvalFile(path=made.write(Path(folder)))])
    noisy, edited, clean = ([against.check(text) for text in texts] for texts in (made.noisy, made.edited, made.clean))
    wall, cpu = _rates(against.check, made.clean)
    return {
        "noisy": _share(noisy, dropped=True),
        "edited": _share(edited, dropped=True),
        "clean": _share(clean, dropped=True),
        "reported": _share(clean, dropped=False),
        "per_s": wall,
        "per_cpu_s": cpu,
        "leaks_per_cpu_s": _rates(against.check, made.noisy)[1],
    }


def remarks(name: str, check: Callable[[str], Finding | None]) -> dict[str, float]:
    """Recall on the committed samples, set by set (the last was written after the rules), and remarks on prose."""
    file = _TESTS / {"injection": "injection_attacks.jsonl", "moderation": "moderation_samples.jsonl"}[name]
    samples = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    by_set = {n: [check(one["text"]) for one in samples if one["set"] == n] for n in (1, 2, 3)}
    prose, documents = sentences(PACKAGES), corpus(SEEDS[0], items=0, packages=PACKAGES).clean
    return {
        **{f"{name}_recall_set_{n}": _share(found, dropped=None) for n, found in by_set.items()},
        f"{name}_false_in_prose": _share([check(line) for line in prose], dropped=None),
        f"{name}_docs_per_cpu_s": _rates(check, documents)[1],
    }


def _share(found: Sequence[Finding | None], *, dropped: bool | None) -> float:
    told = [one for one in found if one is not None and (dropped is None or one.kept is not dropped)]
    return len(told) / max(1, len(found))


def _rates(check: Callable[[str], Finding | None], texts: Sequence[str]) -> tuple[float, float]:
    """Texts a second of the clock and of the processor, the best of three times: others may use the machine too."""
    runs = [_timed(check, texts) for _ in range(3)]
    return len(texts) / min(wall for wall, _ in runs), len(texts) / min(cpu for _, cpu in runs)


def _timed(check: Callable[[str], Finding | None], texts: Sequence[str]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for text in texts:
        check(text)
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:<38} {value:>12.4f}")
