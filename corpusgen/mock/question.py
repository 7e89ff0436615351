"""A request as the server understands it, whichever wire format it came in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import orjson

from corpusgen.records import Json, canonical_json
from corpusgen.tokens import EncodingName, count_tokens, encoding_for

Api: TypeAlias = Literal["chat", "completion", "responses", "messages", "embeddings"]
Asked: TypeAlias = Mapping[str, Json]
"""The body of a request, as JSON."""

Headers: TypeAlias = Mapping[str, str]
"""Of a request, with names in lower case."""

DEFAULT_MAX_TOKENS: Final = 256
EFFORTS: Final = {"none": 0, "minimal": 2, "low": 4, "medium": 8, "high": 16, "xhigh": 24, "max": 32}
"""How many tokens the server thinks at each effort."""

ANY_OBJECT: Final[Json] = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
"""What is answered where JSON of no particular shape is asked for."""

_TOKENS_PER_MESSAGE: Final = 4
# Left out of a request's key: a streamed answer has the words of a whole one.
_HOW_IT_IS_SENT: Final = frozenset({"stream", "stream_options"})


class NotARequest(ValueError):
    """The body is not a question this server understands; the message says why."""

    status = 400


class NotThere(NotARequest):
    """What is asked for by its name does not exist."""

    status = 404


class TooLate(NotARequest):
    """What is asked for cannot happen any more."""

    status = 409


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function the answer must call."""

    name: str
    schema: Json
    """JSON schema of its arguments."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The beginning of a prompt, as far as a prompt cache may keep it."""

    digest: str
    tokens: int
    """From the very beginning."""
    kept_s: float
    written: bool
    """Whether writing it to the cache is charged for."""


# Not frozen, as the answers are not: benchmarks have one made for every request, and freezing would cost as much time
# as reading one.
@dataclass(kw_only=True, slots=True)
class Question:
    """One request as the server reads it."""

    key: str
    """sha256 of the canonical body: equal requests, equal key."""
    api: Api
    model: str
    text: str
    """The last message, or the prompt: where a fault may be asked for by name."""
    input_tokens: int
    max_tokens: int
    top_logprobs: int | None
    choices: int = 1
    stop: tuple[str, ...] = ()
    schema: Json = None
    """JSON schema the answer must keep to."""
    tool: Tool | None = None
    thoughts: int = 0
    """Tokens of thinking before the first word."""
    stream: bool = False
    half_price: bool = False
    """Whether the slow tier was asked for, which batches have anyway."""
    prefixes: tuple[Prefix, ...] = ()
    asked: Asked = field(default_factory=dict, compare=False, repr=False)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a request body. Raises NotARequest."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotARequest(f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise NotARequest("the body is not an object")
    return asked


def key_of(asked: Asked, api: bytes = b"") -> str:
    """The name under which a request is counted; ``api`` keeps apart what two wire formats write alike."""
    if "stream" in asked:
        asked = {name: value for name, value in asked.items() if name not in _HOW_IT_IS_SENT}
    return hashlib.sha256(api + canonical_json(asked)).hexdigest()


def tokens_in(texts: Sequence[str], model: str = "") -> int:
    """How many tokens the messages with these texts take: as OpenAI counts for its models, else four bytes each."""
    encoding = _encoding_of(model)
    if encoding is None:
        return sum([-(-len(text.encode()) // 4) + _TOKENS_PER_MESSAGE for text in texts])
    return sum([count_tokens(text, encoding) + _TOKENS_PER_MESSAGE for text in texts])


@lru_cache(maxsize=64)
def _encoding_of(model: str) -> EncodingName | None:
    return encoding_for("openai", model)


def tokens_of(said: Json) -> int:
    """How many tokens a schema or a list of tools takes."""
    return 0 if not said else -(-len(orjson.dumps(said)) // 4)


def whole(asked: Asked, name: str, default: int | None, *, least: int = 1, most: int | None = None) -> int:
    """A whole number out of a request. Raises NotARequest."""
    number = asked.get(name)
    if number is None and default is not None:
        return default
    if type(number) is not int or number < least or (most is not None and number > most):
        upto = " or more" if most is None else f" to {most}"
        raise NotARequest(f"{name}: a whole number of {least}{upto} is needed, found {number!r}")
    return number


def listed(value: Json, name: str) -> list[Any]:
    """A list out of a request, empty where nothing is said. Raises NotARequest."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise NotARequest(f"{name}: a list is needed, found {value!r:.80}")
    return value


def mapping(value: Json, name: str) -> dict[str, Any]:
    """An object out of a request, empty where nothing is said. Raises NotARequest."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotARequest(f"{name}: an object is needed, found {value!r:.80}")
    return value


def text_of_parts(parts: Sequence[Json], kinds: frozenset[str], name: str) -> str:
    """The text of a message that comes in parts. Raises NotARequest for images, audio and documents."""
    return "".join([_part(part, kinds, name) for part in parts])


def _part(part: Json, kinds: frozenset[str], name: str) -> str:
    found = mapping(part, name)
    if found.get("type") not in kinds or not isinstance(found.get("text"), str):
        raise NotARequest(f"{name}: this server reads text only, found a part of type {found.get('type')!r}")
    text: str = found["text"]
    return text


def thinking_tokens(effort: Json, name: str) -> int:
    """How many tokens an effort takes. Raises NotARequest for one nobody knows."""
    if effort is None:
        return 0
    if effort not in EFFORTS:
        raise NotARequest(f"{name}: one of {', '.join(EFFORTS)} is needed, found {effort!r}")
    return EFFORTS[effort]


def chosen_tool(tools: Mapping[str, Json], choice: str | None, *, forced: bool, answered: bool) -> Tool | None:
    """The tool an answer calls, or None if it is words.

    Where the choice is free the first tool is called, and once its result is in, words are said. Raises NotARequest.
    """
    if choice is not None and choice not in tools:
        raise NotARequest(f"tool_choice: there is no tool {choice!r}; there are {', '.join(tools) or 'none'}")
    if not tools or (answered and not forced and choice is None):
        return None
    name = choice if choice is not None else next(iter(tools))
    return Tool(name=name, schema=tools[name])
