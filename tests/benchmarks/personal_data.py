"""What the scan for personal data and secrets finds and costs: ``python tests/benchmarks/personal_data.py``."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pii_samples import glosses, positives, technical

from corpusgen.curation.pii import kinds_in, scan, secret_in


def seconds(what: Callable[[str], object], texts: Sequence[str]) -> float:
    """Processor time for all texts, the median of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for text in texts:
            what(text)
        rounds.append(time.process_time() - began)
    return statistics.median(rounds)


def measure() -> dict[str, float]:
    """Recall on what is known to be there, false finds in prose, speed on documents and on prompts."""
    examples, lines = positives(), glosses()
    documents = ["\n".join(lines[at : at + 100]) for at in range(0, len(lines), 100)]
    prompts = ["Explain to a beginner: " + "; ".join(lines[at : at + 3])[:177] for at in range(0, 6_000, 3)]
    megabytes = sum(map(len, documents)) / 1e6
    return {
        "pii_examples": len(examples),
        "pii_recall": sum(kind in kinds_in(scan(text)) for kind, text in examples) / len(examples),
        "pii_prose_lines": len(technical()) + len(lines),
        "pii_false": sum(bool(scan(line)) for line in technical() + lines) / (len(technical()) + len(lines)),
        "pii_false_technical": sum(bool(scan(line)) for line in technical()) / len(technical()),
        "pii_mb_per_s": megabytes / seconds(scan, documents),
        "pii_secrets_mb_per_s": megabytes / seconds(secret_in, documents),
        "pii_prompt_us": seconds(scan, prompts) / len(prompts) * 1e6,
        "pii_secrets_prompt_us": seconds(secret_in, prompts) / len(prompts) * 1e6,
    }


if __name__ == "__main__":
    found = {name: round(value, 4) for name, value in measure().items()}
    print(
        json.dumps(found) if "--json" in sys.argv else "\n".join(f"{name:<38} {value}" for name, value in found.items())
    )
