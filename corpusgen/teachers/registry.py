"""Which teachers there are, and the one a spec names. ``kind/model``: the kind is the name of a file in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

import corpusgen.teachers
from corpusgen.errors import UnknownTeacher, UnsupportedParameter
from corpusgen.records import Json
from corpusgen.spec import TeacherSpec
from corpusgen.teachers.teacher import Offer, Teacher, TeacherCard

if TYPE_CHECKING:
    from corpusgen.teachers.transport import Clock

# Set by corpusgen itself, or by another name; each with what to do instead.
_RESERVED: Final = {
    "model": "it is the part of the teacher's name after the slash",
    "messages": "they come from the prompt file",
    "prompt": "it comes from the prompt file",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
    "n": "write asking.samples",
    "best_of": "write asking.samples",
    "echo": "the prompt is already known",
    "logprobs": "write top_logprobs",
    "n_probs": "write top_logprobs",
}


def open_teacher(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Teacher:
    """The teacher a spec names; call its ``aclose`` when done. Nothing is sent or started before the first question.

    ``folder`` is where the spec stands; a script is found from there. Raises UnknownTeacher or UsageError.
    """
    kind = spec.name.partition("/")[0]
    module = _kinds().get(kind)
    if module is None:
        raise UnknownTeacher(_unknown(spec.name))
    teacher: Teacher = module.connect(spec, folder=folder, clock=clock)
    return teacher


def known_teachers() -> tuple[Offer, ...]:
    """Every teacher that could be named here, installed or not."""
    return tuple(offer for module in _kinds().values() for offer in module.offers())


def check_parameters(
    card: TeacherCard, parameters: Mapping[str, Json], api: Literal["chat", "completion"] = "chat"
) -> None:
    """Raise UnsupportedParameter for the first thing this teacher cannot do; nothing has been sent then."""
    can = card.capabilities
    if api not in can.apis:
        raise UnsupportedParameter(f"{card.name} does not do api: {api}; it does {', '.join(sorted(can.apis))}")
    for name in parameters:
        _check_name(card, name)
    _check_most(card, "top_logprobs", parameters.get("top_logprobs", 0), can.top_logprobs)
    limits = [limit for limit in (can.max_output_tokens, can.context_tokens) if limit is not None]
    if limits:
        _check_most(card, "max_tokens", parameters.get("max_tokens", 1), min(limits))


def _check_name(card: TeacherCard, name: str) -> None:
    if name in _RESERVED:
        raise UnsupportedParameter(f"{card.name}: parameters.{name} cannot be set: {_RESERVED[name]}")
    known = card.capabilities.parameters
    if known is not None and name not in known:
        raise UnsupportedParameter(f"{card.name} takes no parameter {name!r}; it takes {', '.join(sorted(known))}")


def _check_most(card: TeacherCard, name: str, value: Json, most: int) -> None:
    if type(value) is not int or value < 0:
        raise UnsupportedParameter(f"{card.name}: parameters.{name} must be a whole number, found {value!r}")
    if value > most:
        raise UnsupportedParameter(f"{card.name}: parameters.{name} is at most {most}, found {value}")


def _kinds() -> dict[str, ModuleType]:
    # Imported here, not above: they bring aiohttp, and `corpusgen --help` does without.
    names = [found.name for found in pkgutil.iter_modules(corpusgen.teachers.__path__)]
    modules = {name: importlib.import_module(f"corpusgen.teachers.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "connect")}


def _unknown(name: str) -> str:
    known = ", ".join(offer.name for offer in known_teachers())
    return (
        f"no teacher {name!r}; there are: {known}. Any OpenAI-compatible server is a teacher too: "
        "write name: endpoint/<its model> and base_url: https://<host>/v1"
    )
