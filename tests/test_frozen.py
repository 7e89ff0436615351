"""Objects that are made quickly are what dataclasses makes of the same fields."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from corpusgen.frozen import quickly_made, worked_out_once
from corpusgen.records import Message, Request


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    size: int = 3
    parts: Mapping[str, int] = field(default_factory=dict)


def test_defaults_and_factories_are_used_and_each_object_has_its_own() -> None:
    one, other = Thing(name="a"), Thing(name="a")
    assert one == other == Thing(name="a", size=3, parts={})
    assert one.parts is not other.parts
    assert repr(Thing(name="b", parts={"c": 1})) == "Thing(name='b', size=3, parts={'c': 1})"


def test_what_is_missing_or_unknown_is_an_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'name'"):
        Thing()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        Thing(name="a", colour="red")  # type: ignore[call-arg]


def test_it_stays_frozen_and_can_be_replaced_and_pickled() -> None:
    made = replace(Thing(name="a"), size=5)
    assert (made.size, hash(Message(role="user", content="x"))) == (5, hash(Message(role="user", content="x")))
    with pytest.raises(FrozenInstanceError):
        made.size = 6  # type: ignore[misc]
    message = Message(role="user", content="x")
    assert pickle.loads(pickle.dumps(message)) == message


def test_what_is_computed_once_is_kept_beside_the_fields() -> None:
    request = Request(teacher="t", model="m", api="chat", messages=(Message(role="user", content="x"),))
    assert request.key is request.key
    assert replace(request, model="n").key != request.key


def test_what_is_worked_out_once_is_not_worked_out_again() -> None:
    asked: list[str] = []

    class Word:
        @worked_out_once
        def length(self) -> int:
            """Its length."""
            asked.append("length")
            return 4

    word = Word()
    assert (word.length, word.length, asked) == (4, 4, ["length"])
    assert Word.length.__doc__ == "Its length."
