"""``service.yaml``: every problem with its line, and names that clients can write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corpusgen.corpus import Corpus
from corpusgen.errors import SpecError
from corpusgen.serve.bus import Bus
from corpusgen.serve.callers import LOCAL
from corpusgen.serve.config import EXAMPLE, ServiceSpec, by_name, config_of, load_config
from corpusgen.serve.desk import Desk, Wanted
from corpusgen.serve.meter import Meter
from corpusgen.serve.wires.calls import read_call

USE = {"student_distribution": "internal", "student_competes": "no", "commercial": False}


def teacher(name: str, **fields: Any) -> dict[str, Any]:
    """A teacher that costs nothing."""
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "free": True, "parameters": {"max_tokens": 9}} | fields


def written(folder: Path, **fields: Any) -> Path:
    """A file with these fields."""
    told = {"intended_use": USE, "teachers": [teacher("endpoint/a")]} | fields
    path = folder / "service.yaml"
    path.write_text(json.dumps(told, indent=1))
    return path


def test_the_example_that_init_writes_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(EXAMPLE)
    config = load_config(path)
    assert config.spec.budget.usd == 5_000_000
    assert config.where("budget", "usd").startswith(f"{path}:")


def test_a_model_is_named_by_its_alias_its_teacher_or_its_own_name_where_that_is_only_one(tmp_path: Path) -> None:
    teachers = [teacher("endpoint/a"), teacher("vllm/b"), teacher("endpoint/b", model="mine")]
    spec = load_config(written(tmp_path, teachers=teachers)).spec
    assert by_name(spec.teachers) == {"endpoint/a": 0, "a": 0, "vllm/b": 1, "mine": 2}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"teachers": []}, "needs at least 1"),
        ({"teachers": [teacher("endpoint/a"), teacher("endpoint/a")]}, "names 2 teachers"),
        ({"teachers": [teacher("endpoint/a", weight=1.0)]}, "clients choose"),
        ({"teachers": [teacher("endpoint/a", model="student/x")]}, "are for students"),
        ({"students": [{"name": "x", "student": "s", "teacher": "nobody"}]}, "not among the models"),
        ({"curate": {"near": {}}}, "a service takes pii"),
        ({"limits": {"in_flite": 3}}, "did you mean 'in_flight'"),
        ({"task": "No Spaces"}, "must look like"),
        ({"budget": {"usd": -1}}, "0 or more"),
    ],
)
def test_every_mistake_is_told_with_its_line(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    path = written(tmp_path, **fields)
    with pytest.raises(SpecError, match=told) as caught:
        load_config(path)
    assert all(problem.line for problem in caught.value.problems)


def test_the_corpus_own_file_is_found(tmp_path: Path) -> None:
    assert isinstance(config_of(None, written(tmp_path).parent).spec, ServiceSpec)


def test_yaml_that_is_ambiguous_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("task: a\ntask: b\n")
    with pytest.raises(SpecError, match="stands twice"):
        load_config(path)


@pytest.mark.local
async def test_without_a_file_the_embedded_teacher_answers(tmp_path: Path) -> None:
    config = config_of(None, tmp_path)
    with Corpus.open(tmp_path / "corpus") as corpus:
        desk = await Desk.open(corpus, config, meter=Meter(), bus=Bus())
        turns = [{"role": "user", "content": "The capital of France is"}]
        call = read_call("chat", {"model": "smollm2-135m", "max_tokens": 8, "messages": turns})
        use = config.spec.intended_use.model_dump(mode="json")
        given = await desk.ask(call, LOCAL, Wanted(task="traffic", use=use, user="ann"))
        await desk.aclose()
    assert given.completions[0].text
    assert given.cost_microusd == 0
