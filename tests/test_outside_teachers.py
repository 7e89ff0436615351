"""Teachers that other packages bring, by entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from teacher_samples import TickingClock, request, spec

from corpusgen.errors import UnknownTeacher
from corpusgen.teachers.registry import known_teachers, open_teacher

MODULE = """
from corpusgen.teachers.scripted import ScriptedAnswer, scripted
from corpusgen.teachers.teacher import Offer


def connect(spec, *, folder, clock):
    return scripted(lambda request: ScriptedAnswer(text="from outside"), clock=clock, name=spec.name)


def offers():
    return (Offer(name="oracle/NAME", route="mock", provider="delphi", installed=True, free=True),)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a teacher called oracle, as pip would have left it."""
    info = tmp_path / "oracle_teacher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle-teacher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[corpusgen.teachers]\noracle = oracle_teacher\nbroken = oracle_teacher:gone\n"
    )
    (tmp_path / "oracle_teacher.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "oracle_teacher", raising=False)
    return info


async def test_a_teacher_of_another_package_is_asked_like_any_other(installed: Path) -> None:
    teacher = open_teacher(spec("oracle/pythia"), folder=Path(), clock=TickingClock())
    asked = request("Will it rain?", api="chat")
    assert teacher.read(asked, await teacher.ask(asked, timeout_s=5)).text == "from outside"


def test_it_is_listed_beside_one_that_is_broken(installed: Path) -> None:
    listed = {offer.name: offer.installed for offer in known_teachers()}
    assert (listed["oracle/NAME"], listed["broken/?"]) == (True, False)


def test_one_that_cannot_be_loaded_is_named_with_its_package(installed: Path) -> None:
    with pytest.raises(UnknownTeacher, match="'broken' of oracle-teacher cannot be loaded"):
        open_teacher(spec("broken/x"), folder=Path(), clock=TickingClock())


def test_it_does_not_take_the_place_of_one_of_ours(installed: Path) -> None:
    (installed / "entry_points.txt").write_text("[corpusgen.teachers]\nvllm = oracle_teacher\n")
    teacher = open_teacher(spec("vllm/m"), folder=Path(), clock=TickingClock())
    assert teacher.card.host == "localhost"
