"""Streams of server-sent events: cut into events wherever the bytes break, and folded into the whole answer.

What comes out of a stream is the body that the same server would have answered with unstreamed, so what is stored and
read is the same either way. All of it is pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import orjson

from corpusgen.errors import InvalidAnswer
from corpusgen.records import Api, Json
from corpusgen.teachers.wire import invalid, mapping, shown

MOST_BYTES: Final = 64 * 2**20
"""Most bytes of one stream, after decompression."""

DONE: Final = b"[DONE]"

_BOM: Final = b"\xef\xbb\xbf"
# Atomic, so that the two bytes of one line's end are never taken for the ends of two lines.
_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_REACH: Final = 3
"""Bytes before what is new in which a blank line may have begun."""


def streamed_body(api: Api, body: bytes, *, usage: bool = True) -> bytes:
    """A request's body as one that asks for its answer in a stream, with its usage at the end where that is known."""
    wanted = b',"stream":true'
    if usage and api in ("chat", "completion"):
        wanted += b',"stream_options":{"include_usage":true}'
    return body[:-1] + wanted + b"}"


class Splitter:
    """Bytes as they come in, whole events out: lines may end in LF, CRLF or CR, and may break off anywhere."""

    __slots__ = ("_begun", "_limit", "_size", "_waiting")

    def __init__(self, limit: int = MOST_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._begun = False
        self._waiting = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are whole with this, each with the blank line that ends it. Raises InvalidAnswer."""
        self._size += len(chunk)
        if self._size > self._limit:
            raise InvalidAnswer(f"the answer is larger than {self._limit} bytes")
        if not self._waiting and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            one = chunk.find(b"\n\n") == len(chunk) - 2
            found = [chunk] if one else [event + b"\n\n" for event in chunk[:-2].split(b"\n\n")]
        else:
            found = self._cut(chunk)
        if found and not self._begun:
            self._begun = True
            found[0] = found[0].removeprefix(_BOM)
        return found

    def _cut(self, chunk: bytes) -> list[bytes]:
        waiting = self._waiting
        search_from = max(len(waiting) - _REACH, 0)
        waiting += chunk
        found, begin = [], 0
        while match := _BLANK_LINE.search(waiting, search_from):
            end = match.end()
            if end == len(waiting) and waiting.endswith(b"\r"):  # the LF that belongs to it may still come
                break
            found.append(bytes(waiting[begin:end]))
            begin = search_from = end
        del waiting[:begin]
        return found

    def rest(self) -> bytes:
        """What came last without its blank line, if no line of it is broken off; nothing otherwise."""
        rest = bytes(self._waiting).removeprefix(b"" if self._begun else _BOM)
        return rest if rest.endswith((b"\n", b"\r", DONE)) and rest.strip() else b""


def name_and_data(event: bytes) -> tuple[bytes, bytes]:
    """What an event is called and what it says, each empty where there is none."""
    if b"\r" not in event:
        last = len(event) - 2
        if event.startswith(b"data: ") and event.find(b"\n") == last:
            return b"", event[6:-2]
        at = event.find(b"\ndata: ")
        if event.startswith(b"event: ") and event.find(b"\n") == at and event.find(b"\n", at + 1) == last:
            return event[7:at], event[at + 7 : -2]
    return _by_lines(event)


def _by_lines(event: bytes) -> tuple[bytes, bytes]:
    name, data = b"", []
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b"\n".join(data)


class Fold:
    """The events of one stream in, the body of the whole answer out."""

    __slots__ = ("_limit", "_size", "_whole", "ended")

    def __init__(self, api: Api, *, limit: int = MOST_BYTES) -> None:
        self._whole: _Whole = _WHOLES[api]()
        self._limit = limit
        self._size = 0
        self.ended = False
        """Nothing of the answer comes after this."""

    def feed(self, event: bytes) -> bool:
        """Take one whole event; True if it says anything. Raises InvalidAnswer for one that says what went wrong."""
        self._size += len(event)
        if self._size > self._limit:
            raise InvalidAnswer(f"the answer is larger than {self._limit} bytes")
        name, data = name_and_data(event)
        if not data or self.ended:
            return False
        if data == DONE:
            self.ended = self._whole.ends_with_done
            return self.ended
        self.ended = self._whole.take(_said(name, data))
        return True

    def whole(self) -> bytes:
        """The body that an unstreamed answer would have had. Raises InvalidAnswer if the stream broke off before."""
        body = self._whole.body(self.ended)
        try:
            return orjson.dumps(body)
        except TypeError as error:  # nested deeper than anything that is read back
            raise InvalidAnswer(f"the answer cannot be put together: {error}") from error


def _said(name: bytes, data: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"an event is not JSON ({error}); it begins {shown(data)}") from error
    if type(said) is not dict:
        invalid("objects as events", said)
    if name == b"error" or said.get("error") or said.get("type") == "error":
        raise InvalidAnswer(f"the answer broke off with an error: {shown(orjson.dumps(said.get('error') or said))}")
    return said


class _Whole(Protocol):
    """What has come of an answer so far."""

    ends_with_done: bool

    def take(self, said: dict[str, Any]) -> bool:
        """Take what an event says; True if it was the last."""
        ...

    def body(self, ended: bool) -> Json:
        """All of it. Raises InvalidAnswer."""
        ...


class _Growing:
    """An object, some of whose texts come in pieces: kept apart, because joining each time takes ever longer."""

    __slots__ = ("fields", "pieces")

    def __init__(self, fields: dict[str, Json]) -> None:
        self.fields = fields
        self.pieces: dict[str, list[str]] = {}

    def grow(self, name: str, piece: str) -> None:
        if (pieces := self.pieces.get(name)) is not None:
            pieces.append(piece)
            return
        begun = self.fields.get(name)
        self.pieces[name] = [begun, piece] if type(begun) is str else [piece]

    def keep(self, name: str, value: Json) -> None:
        if value is not None:
            self.fields[name] = value
        else:
            self.fields.setdefault(name, None)

    def object(self) -> dict[str, Json]:
        return {**self.fields, **{name: "".join(pieces) for name, pieces in self.pieces.items()}}


# --- chat completions and completions --------------------------------------------------------------------------------

_NOT_KEPT: Final = frozenset({"choices", "object", "obfuscation"})
_OF_CHOICES: Final = frozenset({"delta", "logprobs", "index", "message"})
_FIRST_COUNTS: Final = frozenset({"id", "created", "model"})
_IN_PIECES: Final = ("arguments", "input")
_TEXTS_OF_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("text",),
    "thinking": ("thinking",),
    "reasoning.text": ("text",),
    "reasoning.summary": ("summary",),
}
"""Parts of a message that come in pieces, and which of their texts grow."""


class _Chunks:
    """Chunks of OpenAI's chat completions, or of completions."""

    __slots__ = ("_choices", "_fields", "_object")
    ends_with_done = True

    def __init__(self, what: str) -> None:
        self._object = what
        self._fields: dict[str, Json] = {}
        self._choices: dict[int, _Choice] = {}

    def take(self, said: dict[str, Any]) -> bool:
        for choice in _list(said.get("choices"), "choices"):
            self._choice(mapping(choice, "choice").get("index") or 0).take(choice)
        fields = self._fields
        for name, value in said.items():
            if name in _NOT_KEPT or (name in _FIRST_COUNTS and fields.get(name)):
                continue
            if value is not None or name not in fields:
                fields[name] = value
        return False

    def _choice(self, index: Json) -> _Choice:
        if type(index) is not int or index < 0:
            invalid("a number as index of a choice", index)
        if (known := self._choices.get(index)) is None:
            known = self._choices[index] = _Choice(index)
        return known

    def body(self, ended: bool) -> Json:
        choices = [self._choices[index].object() for index in sorted(self._choices)]
        finished = choices and all(choice.get("finish_reason") for choice in choices)
        if not ended and not finished:
            raise InvalidAnswer(f"the answer broke off: its stream ended without [DONE], after {len(choices)} choices")
        known = {name: value for name, value in self._fields.items() if name != "usage" or value is not None}
        return {**known, "object": self._object, "choices": choices}


class _Choice:
    __slots__ = ("_logprobs", "_message", "_own")

    def __init__(self, index: int) -> None:
        self._own = _Growing({"index": index})
        self._message: _Message | None = None
        self._logprobs: dict[str, Json] | None = None

    def take(self, choice: dict[str, Any]) -> None:
        if (delta := choice.get("delta")) is not None:
            if self._message is None:
                self._message = _Message()
            self._message.take(mapping(delta, "delta"))
        if (logprobs := choice.get("logprobs")) is not None:
            self._more_logprobs(mapping(logprobs, "logprobs"))
        for name, value in choice.items():
            if name == "text" and type(value) is str:
                self._own.grow(name, value)
            elif name not in _OF_CHOICES:
                self._own.keep(name, value)

    def _more_logprobs(self, told: dict[str, Json]) -> None:
        if self._logprobs is None:
            self._logprobs = {}
        for name, value in told.items():
            known = self._logprobs.get(name)
            if type(value) is list and type(known) is list:
                known.extend(value)
            elif value is not None or known is None:
                self._logprobs[name] = value

    def object(self) -> dict[str, Json]:
        choice = self._own.object()
        choice["logprobs"] = self._logprobs
        if self._message is not None:
            choice["message"] = self._message.object()
        return choice


class _Message:
    __slots__ = ("_calls", "_own", "_parts", "_places")

    def __init__(self) -> None:
        self._own = _Growing({})
        self._parts: dict[str, list[_Growing]] = {}
        self._calls: list[_ToolCall] | None = None
        self._places: dict[int, _ToolCall] = {}

    def take(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if type(value) is str and name != "role":
                self._text(name, value)
            elif name == "tool_calls" and value is not None:
                self._more_calls(_list(value, "tool_calls"))
            elif name == "function_call" and type(value) is dict:
                self._more_calls([{"function_call": value}])
            elif type(value) is list:
                self._more_parts(name, value)
            else:
                self._own.keep(name, value)

    def _text(self, name: str, text: str) -> None:
        if name in self._parts:  # a list that goes on in plain text
            self._more_parts(name, [{"type": "text", "text": text}])
        else:
            self._own.grow(name, text)

    def _more_parts(self, name: str, parts: list[Json]) -> None:
        if (known := self._parts.get(name)) is None:
            known = self._parts[name] = []
            before = "".join(self._own.pieces.pop(name, ()))
            parts = [{"type": "text", "text": before}, *parts] if before else parts
        for part in parts:
            _add_part(known, mapping(part, name))

    def _more_calls(self, calls: list[Json]) -> None:
        if self._calls is None:
            self._calls = []
        for call in calls:
            told = mapping(call, "tool_calls")
            self._call(told).take(told)

    def _call(self, told: dict[str, Any]) -> _ToolCall:
        """The call that a piece belongs to, by its index; some servers give all calls the same, or none."""
        assert self._calls is not None
        index, last = told.get("index"), self._calls[-1] if self._calls else None
        known = self._places.get(index) if type(index) is int else last
        if known is None or known.is_another(told):
            known = _ToolCall()
            self._calls.append(known)
            if type(index) is int:
                self._places[index] = known
        return known

    def object(self) -> dict[str, Json]:
        message = self._own.object()
        message |= {name: [_whole_part(part) for part in parts] for name, parts in self._parts.items()}
        if self._calls is not None:
            calls = [call.object() for call in self._calls]
            old = calls[0].get("function_call") if calls else None
            message |= {"tool_calls": calls} if old is None else {"function_call": old}
        return message


class _ToolCall:
    __slots__ = ("_fields", "_inner")

    def __init__(self) -> None:
        self._fields: dict[str, Json] = {}
        self._inner: dict[str, _Growing] = {}

    def is_another(self, told: dict[str, Any]) -> bool:
        """Whether this is the beginning of a call of its own; some servers make up a new id with every piece."""
        function = told.get("function")
        if not isinstance(function, dict) or not function.get("name"):
            return False
        name, known = told.get("id"), self._fields.get("id")
        return name != known if name and known else told.get("index") is None and "function" in self._inner

    def take(self, told: dict[str, Any]) -> None:
        for name, value in told.items():
            if type(value) is dict:
                self._more(self._inner.setdefault(name, _Growing({})), value)
            elif name != "index" and value and not (name == "id" and self._fields.get(name)):
                self._fields[name] = value

    def _more(self, inner: _Growing, told: dict[str, Json]) -> None:
        for name, value in told.items():
            known = inner.fields.get(name)
            if name in _IN_PIECES and type(value) is str:
                inner.grow(name, value)
            elif name == "name" and type(value) is str and type(known) is str and known != value:
                inner.fields[name] = known + value
            elif value is not None:
                inner.fields[name] = value

    def object(self) -> dict[str, Json]:
        return {**self._fields, **{name: inner.object() for name, inner in self._inner.items()}}


def _add_part(known: list[_Growing], part: dict[str, Json]) -> None:
    """Put a part of a message where it belongs: into the one before it, or after it."""
    growing = _TEXTS_OF_PARTS.get(str(part.get("type")), ())
    if not known or not _goes_on(known[-1], part, growing):
        known.append(_Growing(dict(part)))
        return
    last = known[-1]
    for name, value in part.items():
        if name in growing and type(value) is str:
            last.grow(name, value)
        elif type(value) is list and type(before := last.fields.get(name)) is list:
            before.extend(value)
        elif value:
            last.fields[name] = value


def _goes_on(last: _Growing, part: dict[str, Json], growing: tuple[str, ...]) -> bool:
    if not growing or any(last.fields.get(name) != part.get(name) for name in ("type", "index")):
        return False
    # What has been signed is at its end.
    return not (last.fields.get("signature") and any(part.get(name) for name in growing))


def _whole_part(part: _Growing) -> dict[str, Json]:
    whole = part.object()
    if type(thinking := whole.get("thinking")) is list:  # Mistral's: a list of texts within
        texts: list[_Growing] = []
        for chunk in thinking:
            _add_part(texts, mapping(chunk, "thinking"))
        whole["thinking"] = [text.object() for text in texts]
    return whole


# --- messages --------------------------------------------------------------------------------------------------------

_DELTAS: Final[Mapping[str, str]] = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
"""Deltas of which there are many, and the text they carry."""
_OF_EVENTS: Final = frozenset({"type", "delta", "usage", "index"})


class _Messages:
    """Events of Anthropic's Messages."""

    __slots__ = ("_blocks", "_message")
    ends_with_done = False

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, _Growing] = {}

    def take(self, said: dict[str, Any]) -> bool:
        match said.get("type"):
            case "content_block_delta":
                self._delta(said)
            case "content_block_start":
                self._start(said)
            case "message_start":
                self._begin(mapping(said.get("message"), "message"))
            case "message_delta":
                self._change(said)
            case "message_stop":
                self._begun()
                return True
        return False

    def _begin(self, message: dict[str, Any]) -> None:
        if self._message is not None:
            raise InvalidAnswer("the answer begins twice in one stream")
        self._message = dict(message)
        content = _list(message.get("content"), "content")
        self._blocks = {at: _Growing(dict(mapping(block, "content"))) for at, block in enumerate(content)}

    def _begun(self) -> dict[str, Any]:
        if self._message is None:
            raise InvalidAnswer("the stream does not begin with message_start")
        return self._message

    def _start(self, said: dict[str, Any]) -> None:
        self._begun()
        index, block = said.get("index"), mapping(said.get("content_block"), "content_block")
        if type(index) is not int or index < 0 or index in self._blocks:
            invalid("a number of its own as index of a block", index)
        self._blocks[index] = _Growing(dict(block))

    def _delta(self, said: dict[str, Any]) -> None:
        index, delta = said.get("index"), mapping(said.get("delta"), "delta")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None:
            invalid("a block that was begun as index", index)
        name = _DELTAS.get(str(delta.get("type")))
        if name is not None and type(piece := delta.get(name)) is str:
            block.grow(name, piece)
        elif delta.get("type") == "citations_delta":
            cited = block.fields.get("citations")
            block.fields["citations"] = cited = cited if type(cited) is list else []
            cited.append(delta.get("citation"))
        else:  # a signature, and what is yet to come
            block.fields |= {key: value for key, value in delta.items() if key != "type"}

    def _change(self, said: dict[str, Any]) -> None:
        message = self._begun()
        delta = mapping(said.get("delta") or {}, "delta")
        message |= {name: value for name, value in delta.items() if value is not None or name not in message}
        message |= {name: value for name, value in said.items() if name not in _OF_EVENTS}
        if (counted := said.get("usage")) is not None:
            known = message.get("usage")
            later = {name: value for name, value in mapping(counted, "usage").items() if value is not None}
            message["usage"] = {**known, **later} if isinstance(known, dict) else counted

    def body(self, ended: bool) -> Json:
        message = self._begun()
        if not ended:
            raise InvalidAnswer(f"the answer broke off: no message_stop, after {len(self._blocks)} blocks")
        return {**message, "content": [_whole_block(self._blocks[index]) for index in sorted(self._blocks)]}


def _whole_block(block: _Growing) -> dict[str, Json]:
    whole = block.object()
    spelt = whole.pop("partial_json", None)
    if spelt:
        try:
            whole["input"] = orjson.loads(spelt)
        except orjson.JSONDecodeError:
            # Cut off at max_tokens, most likely. Anthropic's own name for it, where a block must hold an object.
            whole["input"] = {"INVALID_JSON": spelt}
    return whole


# --- responses -------------------------------------------------------------------------------------------------------

_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_FAILURES: Final = frozenset({"response.failed", "response.cancelled"})


class _Responses:
    """Events of OpenAI's Responses, whose last one holds it all."""

    __slots__ = ("_items", "_response")
    ends_with_done = False

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._items: dict[int, Json] = {}

    def take(self, said: dict[str, Any]) -> bool:
        kind = str(said.get("type"))
        if kind == "response.output_item.done" and type(said.get("output_index")) is int:
            self._items[said["output_index"]] = said.get("item")
        if kind in _FAILURES:
            response = mapping(said.get("response"), "response")
            why = response.get("error") or response.get("status")
            raise InvalidAnswer(f"the answer broke off with an error: {shown(orjson.dumps(why))}")
        if kind not in _ENDS:
            return False
        self._response = mapping(said.get("response"), "response")
        return True

    def body(self, ended: bool) -> Json:
        if not ended:
            raise InvalidAnswer(f"the answer broke off: no response.completed, after {len(self._items)} items")
        if self._response.get("output") is None:  # some servers leave out what they have told already
            return {**self._response, "output": [self._items[index] for index in sorted(self._items)]}
        return self._response


def _list(value: Json, name: str) -> list[Json]:
    if value is not None and type(value) is not list:
        invalid(f"a list as {name}", value)
    return value or []


_WHOLES: Final[Mapping[Api, Callable[[], _Whole]]] = {
    "chat": lambda: _Chunks("chat.completion"),
    "completion": lambda: _Chunks("text_completion"),
    "messages": _Messages,
    "responses": _Responses,
}
