"""The page on curation is run as written, and every section of a spec that it shows is one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from command import corpusgen
from test_tutorial import BLOCK, run

from corpusgen import curate_fields
from corpusgen.curate_fields import Curate
from corpusgen.curation.filters import load
from corpusgen.stages.loading import load_task

PAGE = Path(__file__).parent.parent / "docs" / "curation.md"
BLOCKS = BLOCK.findall(PAGE.read_text("utf-8"))
PARTS = [text for language, name, text in BLOCKS if language == "yaml" and not name and text.startswith("curate:")]


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    printed: str | None = None
    commands = 0
    for language, name, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text, "utf-8")
        elif language == "text" and printed is not None:
            holds(printed, text)
        printed = run(text, tmp_path) if language == "bash" else None
        commands += language == "bash"
    assert commands == 11


def holds(printed: str, text: str) -> None:
    """Whether each line of a block was printed; how wide a table's columns are is no matter."""
    there = [squeezed(line) for line in printed.splitlines()]
    for line in text.splitlines():
        assert any(squeezed(line) in one for one in there), f"{line!r} is not in:\n{printed}"


def squeezed(line: str) -> str:
    return re.sub(r" {2,}", "  ", line.strip())


@pytest.mark.parametrize("text", PARTS)
def test_every_section_that_is_shown_is_one(text: str) -> None:
    curate = Curate.model_validate_json(json.dumps(yaml.safe_load(text)["curate"]))
    load(curate.quality, ("curate", "quality"))


def test_what_init_writes_as_comments_holds_too(tmp_path: Path) -> None:
    """All but the exam, of which there is none yet."""
    options = ("--description", "d", "--labels", "a,b", "--distribution", "internal", "--competes", "no")
    more = ("--not-commercial", "--licence", "CC0-1.0", "--teacher", "scripted/x")
    assert corpusgen("init", tmp_path, *options, *more).code == 0
    spec = tmp_path / "task.yaml"
    text = re.sub(r"^  # (?!decontaminate)(\w+:)", r"  \1", spec.read_text("utf-8"), flags=re.MULTILINE)
    spec.write_text(text, "utf-8")
    curate = load_task(spec).spec.curate
    assert None not in (curate.near, curate.pii, curate.injection, curate.active)
    assert curate.quality.keys() == {"length", "language"}


def test_every_part_and_setting_of_the_section_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name, field in Curate.model_fields.items():
        assert f"`{name}`" in page, name
        for part in re.findall(r"curate_fields\.(\w+)", str(field.annotation)):
            missing = [one for one in getattr(curate_fields, part).model_fields if not re.search(rf"\b{one}\b", page)]
            assert not missing, (name, missing)
