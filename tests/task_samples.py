"""Small complete tasks with a scripted teacher, written to a folder as a user would write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import own_key  # noqa: F401 - for its effect

LABELS = ("animal", "plant")
WORDS = {"animal": ("cat", "horse", "pigeon", "trout"), "plant": ("oak", "daisy", "fern", "maize")}
PLACES = ("by the river", "near the old barn", "in a painting", "on a postcard", "behind the house")

_SPEC = """\
name: {name}
version: 1
prompt: prompt.md
input: text
kind: {kind}
{labels}
intended_use:
  student_distribution: internal
  student_competes: "no"
  commercial: false
sources:
  - {{id: ours, title: Written for the tests, licence: CC0-1.0}}
seeds:
  train: {{path: pool.jsonl, source: ours}}
{heldout}
teachers:
  - name: scripted/test
    script: answers.yaml
    parameters: {parameters}
    free: true
asking: {asking}
{more}
"""

_PROMPT = """\
---
name: {name}
licence: CC0-1.0
api: {api}
inputs: [text]
---
user:
Text: {{text}}
{question}
"""


def write_label_task(
    folder: Path,
    *,
    name: str = "kinds",
    pool: int = 40,
    limit: int = 30,
    labels: tuple[str, str] = LABELS,
    latency_s: float = 0.0,
    more: str = "",
) -> Path:
    """A label task of two kinds with validation and gold; gives back the path of its spec."""
    spec = _SPEC.format(
        name=name,
        kind="label",
        labels=f"labels: {{names: {json.dumps(labels, ensure_ascii=False)}}}",
        heldout="  validation: {path: validation.jsonl, source: ours, gold: label}\n"
        "  gold: {path: gold.jsonl, source: ours, gold: label}",
        parameters="{max_tokens: 1, top_logprobs: 5}",
        asking=f"{{limit: {limit}, first_round: 10, round: 10}}",
        more=more,
    )
    rows = list(_rows(labels, pool + 32))
    answers = "".join(_label_rule(word, kind, labels, latency_s) for kind in LABELS for word in WORDS[kind])
    texts = {
        "task.yaml": spec,
        "prompt.md": _PROMPT.format(name=name, api="completion", question="Kind:"),
        "pool.jsonl": _json_lines([{"id": row["id"], "text": row["text"]} for row in rows[:pool]]),
        "validation.jsonl": _json_lines(rows[pool : pool + 12]),
        "gold.jsonl": _json_lines(rows[pool + 12 :]),
        "answers.yaml": f"answers:\n{answers}",
    }
    return _write(folder, texts)


def write_text_task(folder: Path, *, name: str = "sentences", pool: int = 12, more: str = "") -> Path:
    """A free-text task with token log-probabilities in which every answer about a fern is cut short."""
    spec = _SPEC.format(
        name=name,
        kind="response",
        labels="",
        heldout="",
        parameters="{max_tokens: 16, top_logprobs: 5}",
        asking="{limit: 12, order: file}",
        more=more,
    )
    rules = [f"  - {{contains: {word}, text: I saw a {word} today.}}\n" for kind in LABELS for word in WORDS[kind]]
    cut = "  - {contains: fern, text: I saw a fern and, finish_reason: length}\n"
    answers = "".join(rule if "fern" not in rule else cut for rule in rules)
    rows = [{"id": row["id"], "text": row["text"]} for row in _rows(LABELS, pool)]
    texts = {
        "task.yaml": spec,
        "prompt.md": _PROMPT.format(name=name, api="chat", question="Write a sentence about it."),
        "pool.jsonl": _json_lines(rows),
        "answers.yaml": f"answers:\n{answers}",
    }
    return _write(folder, texts)


def _rows(labels: tuple[str, ...], count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        at = number % 2
        word = WORDS[LABELS[at]][number // 2 % 4]
        text = f"a {word} {PLACES[number // 8 % 5]}, number {number}"
        yield {"id": f"t{number}", "text": text, "label": labels[at]}


def _label_rule(word: str, kind: str, labels: tuple[str, ...], latency_s: float) -> str:
    likely = {label: -0.2 if at == LABELS.index(kind) else -2.5 for at, label in enumerate(labels)}
    rule = {"contains": word, "label_logprobs": likely, "compute_us": 2000, "latency_s": latency_s}
    return f"  - {json.dumps(rule, ensure_ascii=False)}\n"


def _json_lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return folder / "task.yaml"
