"""The models a server says it has: ``/v1/models``. It answers under any other name as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from corpusgen.mock.dialect import CREATED
from corpusgen.records import Json

MODELS: Final = ("mock-large", "mock-small")
_ON_THAT_DAY: Final = "2026-01-01T00:00:00Z"
_CONTEXT: Final = 1_000_000
_LONGEST: Final = 128_000


def openai_models(name: str) -> dict[str, Json]:
    """One model, or all of them where no name is given, as OpenAI tells it."""
    if name:
        return {"id": name, "object": "model", "created": CREATED, "owned_by": "corpusgen"}
    return {"object": "list", "data": [openai_models(model) for model in MODELS]}


def anthropic_models(name: str) -> dict[str, Json]:
    """One model, or all of them where no name is given, as Anthropic tells it."""
    if name:
        return _model(name)
    told = [_model(model) for model in MODELS]
    return {"data": told, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def _model(name: str) -> dict[str, Json]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").capitalize(),
        "created_at": _ON_THAT_DAY,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": _CONTEXT,
        "max_tokens": _LONGEST,
        "capabilities": _CAPABILITIES,
    }


def _may(*names: str, not_: Sequence[str] = ()) -> dict[str, Json]:
    return {**{name: {"supported": True} for name in names}, **{name: {"supported": False} for name in not_}}


_CAPABILITIES: Final[Mapping[str, Json]] = {
    **_may("batch", "structured_outputs", not_=("citations", "code_execution", "image_input", "pdf_input")),
    "context_management": {"supported": False},
    "effort": {"supported": True, **_may("low", "medium", "high", "xhigh", "max")},
    "server_tools": {"supported": False, **_may(not_=("code_execution", "web_search"))},
    "thinking": {"supported": True, "types": _may("adaptive", "disabled", "enabled", not_=("between_tools",))},
}
