"""Texts for measuring decontamination: eval items, copies with noise and edits, and clean texts that share sentences.

Sentences are dictionary definitions and what can be cut from the docstrings of the standard library and of packages
corpusgen needs anyway, so they are real prose that need not be committed. Documents of 43 to 357 words draw them with
replacement: clean documents hold whole sentences of eval items by construction, as real prompts do.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

_GLOSSES = Path(__file__).parent.parent / "data" / "word-domain" / "pool.parquet"
PACKAGES = ("numpy", "scipy", "sklearn")
_LIBRARY = (
    "",
    "asyncio",
    "collections",
    "email",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "unittest",
)
_ENDS = re.compile(r"(?<=[.!?])\s+")
_POINTS = ",.;:!?-()\"'"


@dataclass(frozen=True, kw_only=True)
class EvalCorpus:
    """``noisy`` and ``edited`` are the eval items again, in their order."""

    items: list[str]
    noisy: list[str]
    edited: list[str]
    clean: list[str]

    def write(self, folder: Path) -> Path:
        """The items as an eval file."""
        path = folder / "eval.jsonl"
        path.write_text("".join(json.dumps({"question": item}) + "\n" for item in self.items), encoding="utf-8")
        return path


def corpus(
    seed: int,
    *,
    items: int = 500,
    clean: int = 2_500,
    packages: tuple[str, ...] = (),
    words: tuple[int, int] = (43, 357),
) -> EvalCorpus:
    """A corpus that is the same for the same seed and packages."""
    chance = random.Random(seed)
    lines = sentences(packages)
    made = [_document(lines, chance, *words) for _ in range(items)]
    return EvalCorpus(
        items=made,
        noisy=[noise(text, chance) for text in made],
        edited=[edits(text, chance, 0.1) for text in made],
        clean=[_document(lines, chance, *words) for _ in range(clean)],
    )


@cache
def sentences(packages: tuple[str, ...] = ()) -> list[str]:
    """Sentences and dictionary definitions of 6 to 40 words, each once."""
    glosses = pq.read_table(_GLOSSES, columns=["definition"])["definition"].to_pylist()
    library = Path(sysconfig.get_path("stdlib"))
    site = Path(sysconfig.get_path("purelib"))
    files = [path for folder in _LIBRARY for path in (library / folder).glob("*.py")]
    files += [path for package in packages for path in (site / package).rglob("*.py")]
    return sorted({*glosses, *(line for file in files for line in _sentences(file))})


def noise(text: str, chance: random.Random) -> str:
    """Another case, other spaces and other punctuation."""
    text = chance.choice([text.upper(), text.lower(), text.title(), text])
    kept = "".join(char for char in text if char not in _POINTS or chance.random() < 0.5)
    words = [word + (chance.choice(_POINTS) if chance.random() < 0.15 else "") for word in kept.split()]
    return "".join(word + chance.choice([" ", " ", "  ", "\n", "\t"]) for word in words)


def edits(text: str, chance: random.Random, share: float) -> str:
    """Some words replaced, left out or added."""
    known, made = text.split(), list[str]()
    for word in known:
        kind = chance.choice("rda") if chance.random() < share else "-"
        other = chance.choice(known) + "s"
        made += {"r": [other], "d": [], "a": [word, other], "-": [word]}[kind]
    return " ".join(made)


def _document(lines: list[str], chance: random.Random, shortest: int, longest: int) -> str:
    wanted = min(longest, max(shortest, int(chance.lognormvariate(4.8, 0.5))))
    made: list[str] = []
    while sum(line.count(" ") + 1 for line in made) < wanted:
        made.append(chance.choice(lines))
    return " ".join(made)


def _sentences(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for block in (ast.get_docstring(node) or "").split("\n\n"):
                yield from _prose(block)


def _prose(block: str) -> Iterator[str]:
    if ">>>" in block or "::" in block or "---" in block:
        return
    for line in _ENDS.split(" ".join(block.split())):
        if 6 <= line.count(" ") + 1 <= 40 and line[:1].isupper() and line.endswith((".", "?", "!")):
            yield line
