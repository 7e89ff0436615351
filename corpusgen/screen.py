"""What leaves and what is stored: no key or password goes out, whatever a spec says; personal data is named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import orjson

from corpusgen.curation.finding import Finding
from corpusgen.curation.pii import BY_NAME, Rules, Seen, apply, kinds_in, masked, scan, secret_in
from corpusgen.errors import Withheld
from corpusgen.records import Json, Message, Record, Request, canonical_json

_SAID: Final = ("response", "reasoning", "tool_calls")
_PLACEHOLDER: Final = re.compile(r"\[([A-Z][A-Z0-9_]*)_(\d{1,6})\]")
_TOKENS: Final[dict[str, Any]] = dict.fromkeys(
    ("token_bytes", "token_ids", "token_logprobs", "topk_bytes", "topk_ids", "topk_logprobs", "topk_len")
)
_LONGEST_PASSWORD: Final = 512
_SHORT: Final = 4096
_AT_ONCE: Final = 32_768
"""Characters that never take long, whatever they are."""
_TELL_NOTHING: Final = (int, float, type(None))
_ASIDE: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="screen")

_SEALED: Final[Mapping[str, str]] = {
    "thinking": "signature",
    "redacted_thinking": "data",
    "reasoning": "encrypted_content",
    "reasoning.text": "signature",
    "reasoning.encrypted": "data",
}
"""Fields that only the teacher who wrote them can read; by chance they look like anything."""


def withheld(request: Request, blocked: Collection[str] = ()) -> Withheld | None:
    """Why a request is not sent, if it holds a secret or personal data of a kind that is blocked.

    Neither what is held nor its neighbourhood is repeated.
    """
    return _withheld(request, beside_turns(request), blocked)


def _withheld(request: Request, beside: Sequence[tuple[str, Json]], blocked: Collection[str]) -> Withheld | None:
    kinds = tuple(blocked)
    for message in request.messages:
        found = _stopped(message, kinds)
        if found is not None:
            return Withheld(f"the {message.role} message {found.reason} ({found.detail}); take it out of the row")
    for name, value in beside:
        if (found := _remembered_json(orjson.dumps({name: value}), kinds)) is not None:
            return Withheld(f"what is said of {name} {found.reason} ({found.detail}); take it out")
    return None


async def withheld_aside(request: Request, blocked: Collection[str] = ()) -> Withheld | None:
    """As ``withheld``; a long request is looked through in a thread, so that others are served meanwhile."""
    beside = beside_turns(request)
    if _length(request, beside) <= _AT_ONCE:
        return _withheld(request, beside, blocked)
    return await asyncio.get_running_loop().run_in_executor(_ASIDE, _withheld, request, beside, tuple(blocked))


def _length(request: Request, beside: Sequence[tuple[str, Json]]) -> int:
    length = 0
    for message in request.messages:
        length += len(message.content if message.given is None else message.given)
    for _, value in beside:
        length += len(value if isinstance(value, str) else orjson.dumps(value))
    return length


def beside_turns(request: Request) -> Sequence[tuple[str, Json]]:
    """What is sent beside the turns and may hold text, each with its name: tools, schema, parameters."""
    found = [(name, value) for name, value in request.parameters.items() if not isinstance(value, _TELL_NOTHING)]
    if request.tools is not None:
        found.append(("tools", request.tools))
    if request.schema is not None:
        found.append(("schema", request.schema))
    return found


def _stopped(message: Message, blocked: tuple[str, ...]) -> Finding | None:
    if message.given is not None:
        return (_remembered_turn if len(message.given) <= _SHORT else _in_turn)(message, blocked)
    found = (_remembered if message.role == "system" else secret_in)(message.content)
    return _blocked_in(message.content, blocked) if found is None else found


def _blocked_in(text: str, blocked: tuple[str, ...]) -> Finding | None:
    if not blocked:
        return None
    return apply(text, Rules(default="allow", kinds=dict.fromkeys(blocked, "block"))).blocked


def _in_turn(message: Message, blocked: tuple[str, ...]) -> Finding | None:
    given = _parsed(message.given or "")
    texts = dict.fromkeys((message.content, *_texts_in(given)))
    return _in_any([*texts], blocked) or _in_any([*_named_in(given)])


def _parsed(given: str) -> Json:
    try:
        return _legible(orjson.loads(given))
    except orjson.JSONDecodeError:
        return given  # which no wire format takes; whoever sends it says so


def _in_any(texts: Sequence[str], blocked: tuple[str, ...] = ()) -> Finding | None:
    """What is wrong with the first of some texts; all at once first, because almost always nothing is."""
    whole = "\n".join(texts)
    if secret_in(whole) is None and _blocked_in(whole, blocked) is None:
        return None
    found = (secret_in(text) or _blocked_in(text, blocked) for text in texts)
    return next(filter(None, found), None)


def _legible(value: Json) -> Json:
    """The same JSON without what only its writer can read."""
    if isinstance(value, list):
        return [_legible(item) for item in value]
    if not isinstance(value, dict):
        return value
    sealed = _SEALED.get(str(value.get("type")))
    return {name: _legible(_opened(name, item)) for name, item in value.items() if name != sealed}


def _opened(name: str, value: Json) -> Json:
    """Arguments of a call as they are written, and the texts of the JSON they are, in which no escape hides any."""
    if name == "arguments" and isinstance(value, str) and "\\" in value:
        with suppress(orjson.JSONDecodeError):
            return [value, *_texts_in(orjson.loads(value))]
    return value


def texts_within(value: Json) -> list[str]:
    """Every text and number in some JSON, but what only its writer can read."""
    return [*_texts_in(_legible(value))]


def is_sealed(part: Mapping[str, Json]) -> bool:
    """Whether a part of a turn was signed or encrypted by its writer, who takes it back unchanged only."""
    return str(part.get("type")) in _SEALED


def _texts_in(value: Json) -> Iterator[str]:
    """Every text and number in some JSON, names of fields too."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as fields:
                yield from fields
                waiting += fields.values()
            case list() as items:
                waiting += items
            case bool() | None:
                pass
            case number:
                yield str(number)


def _named_in(value: Json) -> Iterator[str]:
    """Short texts with the names of their fields, by which a password is known."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as fields:
                for name, item in fields.items():
                    if isinstance(item, str) and len(item) <= _LONGEST_PASSWORD:
                        yield f'"{name}":"{item}"'
                waiting += fields.values()
            case list() as items:
                waiting += items


def _in_json(written: bytes, blocked: tuple[str, ...]) -> Finding | None:
    value = orjson.loads(written)
    return _in_any([*_texts_in(value)], blocked) or _in_any([*_named_in(value)])


_remembered = lru_cache(maxsize=64)(secret_in)
"""For texts that stand before every question."""
_remembered_turn = lru_cache(maxsize=1024)(_in_turn)
"""For turns of an agent, which come again with each of its questions."""
_remembered_json = lru_cache(maxsize=256)(_in_json)


def tagged(record: Record, *, mask: bool) -> Record:
    """The record with the kinds of personal data in its prompt and answer; with ``mask``, placeholders in the answer.

    Where the answer is masked its tokens are left out, which would spell what it hides. A secret is masked either way.
    A prompt that came as a conversation with tools was not masked before it was sent, so it is here.
    """
    kinds = {*kinds_in(scan(record.input)), *_placeholders(record.input)}
    taken = _placeholders(record.input)  # what they stand for is not known here, so no number is used again
    seen: Seen | None = None
    if record.conversation is not None:
        told = orjson.loads(record.conversation)
        hiding = _Hiding.of(mask, record.input, _texts_in(_legible(told)))
        kinds |= hiding.kinds if _says_more(told) else set()
        taken, seen, record = hiding.taken, hiding.seen, _prompt_hidden(record, told, hiding)
    found = {name: scan(text) for name in _SAID if (text := getattr(record, name))}
    kinds.update(*map(kinds_in, found.values()))
    record = replace(record, pii_kinds=tuple(sorted(kinds)))
    hidden = {place.kind for places in found.values() for place in places if mask or place.secret}
    if not hidden:
        return record
    said: dict[str, Any] = {name: masked(getattr(record, name), at, hidden, taken, seen) for name, at in found.items()}
    return replace(record, structured=None, **said, **_TOKENS)


@dataclass(frozen=True, kw_only=True)
class _Hiding:
    """How the texts of a conversation are masked: one number for one value, in all of them."""

    mask: bool
    kinds: set[str]
    taken: dict[str, int]
    seen: Seen = field(default_factory=dict)

    @classmethod
    def of(cls, mask: bool, text: str, texts: Iterable[str]) -> _Hiding:
        each = (text, *texts)
        together = "\n".join(each)
        taken = _placeholders(together)
        # All at once first, because almost always there is nothing; then each, as two that meet may look like a third.
        found = {kind for one in each for kind in kinds_in(scan(one))} if scan(together) else set[str]()
        return cls(mask=mask, kinds=found | taken.keys(), taken=taken)

    def hide(self, text: str) -> str:
        found = scan(text)
        hidden = {place.kind for place in found if self.mask or place.secret}
        return masked(text, found, hidden, self.taken, self.seen) if hidden else text


def _says_more(told: Json) -> bool:
    """Whether any turn is more than role and text."""
    return any(turn.keys() != {"role", "content"} or type(turn["content"]) is not str for turn in told["messages"])


def _prompt_hidden(record: Record, told: Json, hiding: _Hiding) -> Record:
    """The record with placeholders in its prompt; of plain turns it stays as they were sent, as without tools."""
    if not hiding.kinds:
        return record
    if _says_more(told):
        turns = tuple([replace(turn, content=hiding.hide(turn.content)) for turn in record.messages])
        record = replace(record, input=hiding.hide(record.input), messages=turns)
    return replace(record, conversation=canonical_json(_each_hidden(told, hiding.hide)).decode())


def _each_hidden(value: Json, hide: Callable[[str], str]) -> Json:
    """The same JSON, each text and number of it as it may be stored."""
    match value:
        case str() as text:
            return hide(text)
        case list() as items:
            return [_each_hidden(item, hide) for item in items]
        case dict() as fields:
            return {hide(name): _field_hidden(fields, name, hide) for name in fields}
        case int() | float() if not isinstance(value, bool) and (told := hide(str(value))) != str(value):
            return told
    return value


def _field_hidden(fields: dict[str, Json], name: str, hide: Callable[[str], str]) -> Json:
    value = fields[name]
    if name == _SEALED.get(str(fields.get("type"))):
        return value
    if name == "arguments" and isinstance(value, str):  # JSON in JSON, which is to stay some
        with suppress(orjson.JSONDecodeError):
            inside = orjson.loads(value)
            hidden = _each_hidden(inside, hide)
            return value if hidden == inside else canonical_json(hidden).decode()
    return _each_hidden(value, hide)


def _placeholders(text: str) -> dict[str, int]:
    """The kinds of what was masked before it was sent, each with its highest number."""
    highest: dict[str, int] = {}
    for match in _PLACEHOLDER.finditer(text):
        kind = match[1].lower()
        if kind in BY_NAME:
            highest[kind] = max(highest.get(kind, 0), int(match[2]))
    return highest
