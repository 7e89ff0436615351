"""Which teachers there are, and the one a spec names. ``scheme/model``: where the scheme is looked for.

First among the files of this folder (``openai.py`` is ``openai/…``), then among the rows of ``data/endpoints.yaml``
(``groq/…``), then among the entry points ``corpusgen.teachers`` of installed packages.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

import corpusgen.teachers
from corpusgen.corpus import utc_now
from corpusgen.errors import UnknownTeacher, UnsupportedParameter
from corpusgen.records import Json, Request
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.teacher import Capabilities, Offer, Teacher, TeacherCard
from corpusgen.tokens import Framing, count_bound

if TYPE_CHECKING:
    from corpusgen.teachers.transport import Clock

GROUP: Final = "corpusgen.teachers"
"""Entry points of this group are modules (or objects) with ``connect`` and ``offers``; their names are schemes."""
LEAST_TOKENS_PER_BYTE: Final = 0.1
"""No language is cut into fewer tokens than that; English takes 0.17 and more."""
_WIDER_ON_THE_WIRE: Final = 4
"""No wire format writes a request in so many times the bytes of ours."""
_BARE: Final = Framing(per_message=0, per_request=0, per_extra=0)

# Set by corpusgen itself, or by another name; each with what to do instead.
_RESERVED: Final = {
    "model": "it is the part of the teacher's name after the slash",
    "messages": "they come from the prompt file",
    "prompt": "it comes from the prompt file",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
    "n": "write asking.samples",
    "best_of": "write asking.samples",
    **dict.fromkeys(
        (
            *("max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample", "max_gen_len"),
            *("num_predict", "n_predict", "max_length", "maxOutputTokens"),
        ),
        "write max_tokens; it is sent under the name the model takes, and bounds the price",
    ),
    **dict.fromkeys(
        ("use_beam_search", "num_beams", "beam_width", "num_return_sequences"),
        "every beam is computed and may be billed; write asking.samples for several answers",
    ),
    **dict.fromkeys(("models", "fallbacks"), "another model has another price and other terms; write teachers: [a, b]"),
    **dict.fromkeys(
        ("plugins", "enable_search", "search_parameters", "web_search"),
        "it brings fees and input that tokens do not bound; put what is to be known into the prompt",
    ),
    "tools": "write tools beside teachers",
    "functions": "write tools beside teachers",
    "echo": "the prompt is already known",
    "logprobs": "write top_logprobs",
    "n_probs": "write top_logprobs",
    "modalities": "answers are text",
    "audio": "answers are text",
}


def open_teacher(
    spec: TeacherSpec | str, *, folder: Path = Path(), clock: Clock | None = None, sending: bool = True
) -> Teacher:
    """The teacher a spec names; call its ``aclose`` when done. Nothing is sent or started before the first question.

    ``scheme/model`` will do for one that its name says all of. ``folder`` is where the spec stands; a script is found
    from there. Without ``sending``, as for a plan, no key is needed. Raises UnknownTeacher or UsageError.
    """
    if isinstance(spec, str):
        spec = _spec_of(spec)
    teacher: Teacher = _kind(spec.name).connect(spec, folder=folder, clock=clock or utc_now)
    if sending and teacher.card.key_env is not None:
        _endpoint().secret_from_environment(teacher.card.key_env)  # raises if there is none
    return teacher


def _spec_of(name: str) -> TeacherSpec:
    try:
        return TeacherSpec(name=name, parameters={"max_tokens": 1})
    except ValidationError as error:
        raise UnknownTeacher(f"{name!r} names no teacher; write scheme/model, such as openai/gpt-4.1") from error


def resolved(spec: TeacherSpec) -> TeacherSpec:
    """The spec with what is known of its server where it is silent: provider, address, route, name of the key."""
    known: TeacherSpec = _endpoint().resolved(spec)
    return known


def known_teachers() -> tuple[Offer, ...]:
    """Every teacher that could be named here, installed or not."""
    inside = tuple(offer for module in _kinds().values() for offer in module.offers())
    return inside + tuple(offer for point in _outside().values() for offer in _offers_of(point))


def check_parameters(
    card: TeacherCard,
    parameters: Mapping[str, Json],
    api: Literal["chat", "completion"] = "chat",
    *,
    schema: Json = None,
    tools: Json = None,
) -> None:
    """Raise UnsupportedParameter with everything that this teacher cannot do; nothing has been sent then."""
    found = list(_complaints(card, parameters, api, schema=schema, tools=tools))
    if found:
        raise UnsupportedParameter("\n".join(message for _, message in found), complaints=found)


_Found = tuple[tuple[str, ...], str]
"""A field of a teacher's spec, and what is wrong there."""


def _complaints(
    card: TeacherCard,
    parameters: Mapping[str, Json],
    api: Literal["chat", "completion"],
    *,
    schema: Json,
    tools: Json,
) -> Iterator[_Found]:
    can = card.capabilities
    if api not in can.apis:
        does = ", ".join(sorted(can.apis))
        yield ("name",), f"{card.name} does not do api: {api}; it does {does}: write api: {min(can.apis)} in the prompt"
    yield from _about_logprobs(card, parameters)
    for name in parameters:
        yield from _about_name(card, name)
    yield from _about_reasoning(card, parameters)
    limits = [limit for limit in (can.max_output_tokens, can.context_tokens) if limit is not None]
    if limits:
        yield from _about_most(card, "max_tokens", parameters.get("max_tokens", 1), min(limits))
    if api == "completion" and (tools is not None or schema is not None):
        yield ("name",), f"{card.name}: a completion takes neither tools nor a schema; write api: chat in the prompt"
    if tools is not None and not can.tools:
        yield ("name",), f"{card.name} takes no tools; remove them, or ask another teacher"
    if schema is not None and can.json_schema == "none":
        yield ("name",), f"{card.name} keeps to no JSON schema; ask for JSON in the prompt, or ask another teacher"


def _about_name(card: TeacherCard, name: str) -> Iterator[_Found]:
    place, known = ("parameters", name), card.capabilities.parameters
    if name in _RESERVED:
        yield place, f"{card.name}: parameters.{name} cannot be set: {_RESERVED[name]}"
    elif instead := card.capabilities.refused.get(name):
        yield place, f"{card.name} does not take parameters.{name}: {instead}{_dated(card)}"
    elif known is not None and name not in known and name != "top_logprobs":
        yield place, f"{card.name} takes no parameter {name!r}{_nearest(name, known)}"


def _nearest(name: str, known: frozenset[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it takes {', '.join(sorted(known))}"


def _dated(card: TeacherCard) -> str:
    return f" (known on {card.capabilities.as_of})" if card.capabilities.as_of else ""


def _about_reasoning(card: TeacherCard, parameters: Mapping[str, Json]) -> Iterator[_Found]:
    """Some models listen to sampling parameters, and tell log-probabilities, only where they are not to reason."""
    inside = parameters.get("reasoning")
    effort = parameters.get("reasoning_effort", inside.get("effort") if isinstance(inside, dict) else None)
    if effort == "none":
        return
    for name in sorted(card.capabilities.only_at_effort_none & parameters.keys()):
        instead = f"write parameters.reasoning_effort: none, or remove parameters.{name}{_dated(card)}"
        yield ("parameters", name), f"{card.name} takes parameters.{name} only where it does not reason: {instead}"


def _about_logprobs(card: TeacherCard, parameters: Mapping[str, Json]) -> Iterator[_Found]:
    asked, most = parameters.get("top_logprobs"), card.capabilities.top_logprobs
    if asked is None:
        return
    if most == 0:
        others = "embedded/smollm2-135m, vllm/MODEL on your own server, or openai/gpt-4.1"
        instead = f"remove parameters.top_logprobs, or ask a teacher that gives them, such as {others}{_dated(card)}"
        yield ("parameters", "top_logprobs"), f"{card.name} gives no log-probabilities: {instead}"
    else:
        yield from _about_most(card, "top_logprobs", asked, most)


def _about_most(card: TeacherCard, name: str, value: Json, most: int) -> Iterator[_Found]:
    if type(value) is not int or value < 0:
        yield ("parameters", name), f"{card.name}: parameters.{name} must be a whole number, found {value!r}"
    elif value > most:
        yield ("parameters", name), f"{card.name}: parameters.{name} is at most {most}, found {value}"


def check_fits(teacher: Teacher, request: Request) -> None:
    """Raise UnsupportedParameter for a request that, with its answer, surely exceeds the teacher's context window."""
    window, answer = teacher.card.capabilities.context_tokens, int(request.parameters["max_tokens"])
    if window is None or teacher.input_tokens_bound(request) + answer <= window:
        return
    texts = [message.content for message in request.messages]
    encoding = getattr(teacher, "encoding", None)
    least = count_bound(texts, encoding, _BARE)
    if encoding is None:  # the count is one of bytes
        least = int(least * LEAST_TOKENS_PER_BYTE)
    if least + answer > window:
        raise UnsupportedParameter(
            f"{teacher.card.name} has a context window of {window:,} tokens: the prompt that begins"
            f" {texts[-1][:60]!r} takes at least {least:,} and parameters.max_tokens {answer:,} more;"
            " shorten what goes in, lower max_tokens, or ask another teacher"
        )


def check_size(teacher: Teacher, request: Request) -> None:
    """Raise UnsupportedParameter for a request that has more bytes than the teacher is known to take."""
    most = teacher.card.capabilities.max_body_bytes
    wire = getattr(teacher, "wire", None)
    if most is None or wire is None or len(request.body) * _WIDER_ON_THE_WIRE <= most:
        return
    size = len(wire(request)[1])
    if size > most:
        raise UnsupportedParameter(
            f"{teacher.card.name} takes requests of at most {most:,} bytes{_dated(teacher.card)}, and this one has"
            f" {size:,}; shorten what goes in, or ask another teacher"
        )


def describe(can: Capabilities) -> dict[str, Json]:
    """What a teacher can do, for people and machines."""
    return {
        "apis": ", ".join(sorted(can.apis)),
        "top_logprobs": can.top_logprobs,
        "answers_per_call": can.choices,
        "seed": can.seed,
        "json_schema": can.json_schema,
        "tools": can.tools,
        "batch": can.batch,
        "trace": can.trace,
        "context_tokens": can.context_tokens,
        "max_output_tokens": can.max_output_tokens,
        "max_body_bytes": can.max_body_bytes,
        "api_version": can.api_version or None,
        "as_of": can.as_of or None,
        "source": can.source or None,
    }


def _kind(name: str) -> Any:
    """The module that knows a scheme."""
    scheme = name.partition("/")[0]
    inside = _kinds()
    if scheme in inside:
        return inside[scheme]
    if scheme in _endpoint().schemes():
        return inside["endpoint"]
    if point := _outside().get(scheme):
        return _loaded(point)
    raise UnknownTeacher(_unknown(name))


def _kinds() -> dict[str, ModuleType]:
    # Imported here, not above: they bring aiohttp, and `corpusgen --help` does without.
    names = [found.name for found in pkgutil.iter_modules(corpusgen.teachers.__path__)]
    modules = {name: importlib.import_module(f"corpusgen.teachers.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "connect")}


def _endpoint() -> Any:
    return importlib.import_module("corpusgen.teachers.endpoint")


def _outside() -> dict[str, EntryPoint]:
    """What other packages offer; none of them can take the place of a scheme of ours."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> Any:
    try:
        module = point.load()
    except (ImportError, AttributeError) as error:
        whose = point.dist.name if point.dist is not None else "a package"
        raise UnknownTeacher(f"the teacher {point.name!r} of {whose} cannot be loaded: {error}") from error
    if not (hasattr(module, "connect") and hasattr(module, "offers")):
        raise UnknownTeacher(f"the teacher {point.name!r} at {point.value!r} lacks connect or offers")
    return module


def _offers_of(point: EntryPoint) -> tuple[Offer, ...]:
    try:
        offered: tuple[Offer, ...] = _loaded(point).offers()
    except UnknownTeacher:  # a broken package must not hide the others
        return (Offer(name=f"{point.name}/?", route="?", provider="?", installed=False, free=False),)
    return offered


def _unknown(name: str) -> str:
    known = {offer.name.partition("/")[0]: offer.name for offer in known_teachers()}
    close = get_close_matches(name.partition("/")[0], known, n=2)
    meant = f" (did you mean {' or '.join(known[one] for one in close)}?)" if close else ""
    return (
        f"no teacher {name!r}{meant}; there are: {', '.join(known.values())}. Any OpenAI-compatible server is a teacher"
        " too: write name: endpoint/<its model> and base_url: https://<host>/v1"
    )
