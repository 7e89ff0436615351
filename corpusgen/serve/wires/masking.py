"""Personal data kept from leaving through the gateway: masked in the words of turns, refused wherever else it stands.

Words are texts of turns, results of tools, and what a call of a tool was given. What is signed (a teacher's thinking),
names and ids, numbers, descriptions of tools, schemas and parameters would be broken by a placeholder, so a call with
personal data there is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import orjson

from corpusgen.errors import Withheld
from corpusgen.records import Json, Message, Request, canonical_json
from corpusgen.screen import beside_turns, is_sealed, texts_within
from corpusgen.serve.wires.asked import DEEPEST, BadCall

Treat = Callable[[Sequence[str]], Sequence[str]]
"""Texts as they may be sent: equal values have one placeholder in all of them."""
_Hide = Callable[[str], str]
_FREE: Final = frozenset(("input", "arguments"))
"""Fields in which a call of a tool has what it likes, under names of its own."""
_FIXED: Final = frozenset(
    ("type", "role", "id", "name", "status", "media_type", "tool_call_id", "tool_use_id", "call_id", "cache_control")
)
"""Fields that name something, which would not be found under another name."""
_PLACEHOLDER: Final = re.compile(r"\[[A-Z][A-Z0-9_]*_\d{1,6}\]")


def masked_request(request: Request, treat: Treat) -> Request:
    """The request with placeholders in the words of its turns. Raises Withheld for what stands where none may be."""
    words: list[str] = []
    for message in request.messages:
        _with_words(message, _noted(words))
    if (treated := treat(words)) != words:
        hidden = iter(treated)
        turns = tuple([_with_words(message, lambda _: next(hidden)) for message in request.messages])
        _check_whole(request.messages, turns)
        request = replace(request, messages=turns)
    _check_rest(request, treat)
    return request


def _noted(words: list[str]) -> _Hide:
    def hide(text: str) -> str:
        words.append(text)
        return text

    return hide


def _with_words(message: Message, hide: _Hide) -> Message:
    """The turn with each of its words replaced, always in the same order."""
    content = hide(message.content)
    if message.given is None:
        return replace(message, content=content)
    given = canonical_json(_hidden(orjson.loads(message.given), hide)).decode()
    return replace(message, content=content, given=given)


def _hidden(value: Json, hide: _Hide, *, free: bool = False) -> Json:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, list):
        return [_hidden(item, hide, free=free) for item in value]
    if not isinstance(value, dict) or (is_sealed(value) and not free):
        return value
    return {name: _field(name, item, hide, free=free) for name, item in value.items()}


def _field(name: str, value: Json, hide: _Hide, *, free: bool) -> Json:
    if free:
        return _hidden(value, hide, free=True)
    if name in _FIXED:
        return value
    if name == "arguments" and isinstance(value, str):  # JSON in JSON, which is to stay some
        with suppress(orjson.JSONDecodeError):
            inside = orjson.loads(value)
            _check_depth(inside)
            hidden = _hidden(inside, hide, free=True)
            return value if hidden == inside else canonical_json(hidden).decode()
    return _hidden(value, hide, free=name in _FREE)


def _check_depth(value: Json) -> None:
    layer = [value]
    for _ in range(DEEPEST):
        layer = [item for one in layer for item in _inside(one)]
        if not layer:
            return
    raise BadCall(f"the arguments of a call lie more than {DEEPEST} objects and lists deep")


def _inside(value: Json) -> Iterable[Json]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _check_whole(before: Sequence[Message], after: Sequence[Message]) -> None:
    """Raise Withheld where only the whole text of a turn shows it: it goes on from one part to the next."""
    for old, new in zip(before, after, strict=True):
        if new.given is None:
            continue
        if _placed(new.content) - _placed(old.content) > _placed(new.given) - _placed(old.sent):
            raise Withheld(f"the {new.role} message has personal data in it that runs over several parts; join them")


def _placed(text: str) -> int:
    return len(_PLACEHOLDER.findall(text))


def _check_rest(request: Request, treat: Treat) -> None:
    """Raise Withheld for personal data that is still there, by its kind."""
    rest = list(_rest(request))
    texts = [text for _, text in rest]
    if list(treat(texts)) == texts:  # all at once first, because almost always there is nothing
        return
    for where, text in rest:
        if list(treat([text])) != [text]:
            raise Withheld(
                f"{where} has personal data in it ({_kinds(text)}), which is masked in the words of turns and nowhere"
                " else; take it out"
            )


def _rest(request: Request) -> Iterator[tuple[str, str]]:
    for message in request.messages:
        if message.given is not None:
            for text in texts_within(orjson.loads(message.given)):
                yield f"the {message.role} message", text
    for name, value in beside_turns(request):
        for text in texts_within(value):
            yield f"what is said of {name}", text


def _kinds(text: str) -> str:
    from corpusgen.curation.pii import kinds_in, scan  # who masks nothing needs none of it

    return ", ".join(kinds_in(scan(text)))
