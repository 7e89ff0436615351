"""Schemas in clients' calls: answers are held to them by the service too, so they have to be sound."""

from __future__ import annotations

from typing import Any

import pytest
from call_samples import CARD, MADE

from corpusgen.serve.wires.calls import BadCall, Wire, read_call
from corpusgen.serve.wires.translating import request_of_call

EVIL = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)^(a|aa|a?)+$"}}}


def _asking(wire: Wire, schema: Any) -> dict[str, Any]:
    plain = {"name": "answer", "strict": True, "schema": schema}
    match wire:
        case "responses":
            return MADE[wire](text={"format": {"type": "json_schema", **plain}})
        case "messages":
            return MADE[wire](output_config={"format": {"type": "json_schema", "schema": schema}})
    return MADE[wire](response_format={"type": "json_schema", "json_schema": plain})


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ("chat", "response_format.json_schema.schema"),
        ("responses", "text.format.schema"),
        ("messages", "output_config.format.schema"),
    ],
)
@pytest.mark.parametrize(
    ("schema", "place", "said"),
    [
        (EVIL, ".properties.x.pattern", "no regular expression of RE2"),
        ({"anyOf": [{"type": "strin"}]}, ".anyOf[0].type", "strin"),
        ({"$ref": "#/nowhere"}, ".$ref", "only its own parts"),
        ({"description": "x" * 600_000}, "", "at most 524,288"),
    ],
)
def test_a_schema_that_answers_cannot_be_held_to_is_refused_at_its_place(
    wire: Wire, field: str, schema: Any, place: str, said: str
) -> None:
    call = read_call(wire, _asking(wire, schema))
    for _ in range(2):  # what was found is remembered
        with pytest.raises(BadCall, match=said) as caught:
            request_of_call(call, api=wire, card=CARD, defaults={"max_tokens": 64}, sample=0)
        assert caught.value.field == field + place


def test_a_schema_said_in_another_wire_format_is_looked_at_too() -> None:
    call = read_call("chat", _asking("chat", EVIL) | {"response_format": _form(EVIL)})
    with pytest.raises(BadCall, match="RE2"):
        request_of_call(call, api="messages", card=CARD, defaults={"max_tokens": 64}, sample=0)


def _form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "another", "schema": schema}}
