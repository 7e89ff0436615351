"""A mutant that is not really planted would count as one that no test notices, or as noticed for another reason."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from mutant_bench import plant
from mutants import TESTS_OF, mutants_of

SOURCE = """
from dataclasses import dataclass

LIMIT = 10

@dataclass(frozen=True, kw_only=True)
class Amount:
    of: int = 0

    @property
    def twice(self) -> int:
        return self.of * 2

def below(number, limit=LIMIT):
    return number < limit
"""


@pytest.fixture
def victim() -> Iterator[Any]:
    module = ModuleType("victim")
    sys.modules["victim"] = module
    exec(SOURCE, vars(module))
    yield module
    del sys.modules["victim"]


def planted(victim: Any, old: str, new: str) -> bool:
    assert old in SOURCE
    victim.__file__ = "victim.py"
    return plant(victim, ast.parse(SOURCE.replace(old, new)))


def test_a_function_that_is_known_elsewhere_is_changed_there_too(victim: Any) -> None:
    below = victim.below
    assert planted(victim, "number < limit", "number <= limit")
    assert (below(10), below(11)) == (True, False)


def test_a_default_is_changed(victim: Any) -> None:
    below, amount = victim.below, victim.Amount
    assert planted(victim, "limit=LIMIT", "limit=LIMIT + 1")
    assert below(10)
    assert planted(victim, "of: int = 0", "of: int = 1")
    assert amount().of == 1


def test_a_property_is_changed(victim: Any) -> None:
    one = victim.Amount(of=5)
    assert planted(victim, "self.of * 2", "self.of // 2")
    assert one.twice == 2


def test_a_constant_is_changed_wherever_it_was_imported(victim: Any) -> None:
    reader = ModuleType("reader")
    vars(reader)["LIMIT"] = victim.LIMIT
    sys.modules["reader"] = reader
    try:
        assert planted(victim, "LIMIT = 10", "LIMIT = 11")
        assert vars(reader)["LIMIT"] == victim.LIMIT == 11
    finally:
        del sys.modules["reader"]


def test_the_same_source_is_no_mutant(victim: Any) -> None:
    assert not planted(victim, "LIMIT = 10", "LIMIT = 10")


@pytest.mark.parametrize("file", TESTS_OF)
def test_every_mutant_is_somewhere_and_what_is_called_equivalent_is_one(file: str) -> None:
    every = mutants_of(file)
    assert len(every) > 20
    assert all(one.line > 0 and isinstance(one.tree(), ast.Module) for one in every[::40])
