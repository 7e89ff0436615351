"""Calls as traffic has them, whatever recorded them: a corpus' journal, read as a stream, or lines of a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
import xxhash

from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import UsageError
from corpusgen.frozen import quickly_made
from corpusgen.records import Json
from corpusgen.store.answers import expander

DAY_US: Final = 86_400_000_000
SAYS: Final = "\x02"
ENDS: Final = "\x03"
"""Between a role and its text, and after it, where several turns are one text."""
MOST_TEXT: Final = 200_000
"""Characters of a prompt that are looked at."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Heard:
    """One call: what was asked, what came back, and what it cost."""

    place: str
    """The record's id, or ``file:line``."""
    run_id: str
    """Empty for a line of a log."""
    answerer: str
    """The card of who answered, or for a log ``provider/model`` at a host."""
    task: str
    user: str
    model: str
    before: str
    """The turns before the last one of the user, each with its role."""
    text: str
    """The last turn of the user."""
    turns: int
    tools: str
    """A mark of the functions the teacher might call; empty: none."""
    form: str
    """A mark of the schema answers are held to; empty: none."""
    functions: Json
    schema: Json
    api: str
    """``completion`` where text is gone on with, else ``chat``."""
    parameters: Mapping[str, Json]
    answer: str | None
    calls_tools: bool
    input_tokens: int
    output_tokens: int
    cost_microusd: int | None
    at_us: int | None
    asked: int = 1
    """0 where only answers from the cache fall into the period."""
    hits: int = 0
    saved_microusd: int = 0

    @property
    def mark(self) -> int:
        """64 bits for what was asked, of whomever."""
        return mark_of(f"{self.tools}\0{self.form}\0{self.before}\0{self.text}")


def mark_of(text: str) -> int:
    """64 bits that stand for a text, the same in every process."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which calls are looked at."""

    since_us: int | None = None
    until_us: int | None = None
    task: str | None = None
    user: str | None = None

    def has(self, heard: Heard) -> bool:
        """Whether a call is among them; one without a time is in every period."""
        at = heard.at_us
        timely = at is None or (at >= (self.since_us or 0) and (self.until_us is None or at < self.until_us))
        return timely and self.task in (None, heard.task) and self.user in (None, heard.user)


Reader: TypeAlias = Callable[[], Iterator[Heard]]
"""Reads the same calls from their beginning, each time it is called."""


# --- A corpus --------------------------------------------------------------------------------------------------------

_CALLS: Final = """
with counted as (
    select record_id, sum(hits) as hits, sum(saved_microusd) as saved from hits
    where day between ? and ? and (? is null or caller = ?) group by record_id)
select r.record_id, r.run_id, r.dataset, r.item, r.from_cache, a.card_id, a.input_tokens, a.output_tokens,
    a.cost_microusd, a.received_us, a.body, q.body, k.scopes, coalesce(h.hits, 0), coalesce(h.saved, 0), c.card
from records r join answers a using (request_key) join requests q using (request_key)
left join calls k on k.call_id = a.call_id left join counted h on h.record_id = r.record_id
join cards c on c.card_id = a.card_id
where (? is null or r.dataset = ?) and (a.received_us between ? and ? or h.hits is not null)
"""
_LAST_US: Final = 2**62


def of_corpus(corpus: Corpus, window: Window) -> Reader:
    """The calls a corpus has recorded in a period, one at a time; answers from its cache count with their record."""

    def read() -> Iterator[Heard]:
        expand, values, labels = expander(), _values(window), _labels_of_runs(corpus)
        with corpus.journal.reader:  # one snapshot, whatever is recorded meanwhile
            for row in corpus.journal.reader.execute(_CALLS, values):
                heard = _recorded(row, expand, window, labels.get(row[1], ()))
                if window.user in (None, heard.user) or heard.hits:
                    yield heard

    return read


def _labels_of_runs(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """The labels that runs chose from."""
    rows = corpus.journal.query("select run_id, facts from runs where json_extract(facts, '$.label_names') is not null")
    return {run_id: tuple(orjson.loads(facts)["label_names"]) for run_id, facts in rows}


def _named(answer: str | None, labels: Sequence[str]) -> str | None:
    """The label that an answer begins: of a run of labels, one token may be all there is."""
    told = (answer or "").strip().casefold()
    found = [label for label in labels if told and label.casefold().startswith(told)]
    return found[0] if len(found) == 1 else answer


def _values(window: Window) -> tuple[Any, ...]:
    since, until = window.since_us or 0, _LAST_US if window.until_us is None else window.until_us - 1
    user, task = window.user, window.task
    return (since // DAY_US, until // DAY_US, user, user, task, task, since, until)


def _recorded(row: tuple[Any, ...], expand: Callable[[bytes], bytes], window: Window, labels: Sequence[str]) -> Heard:
    item, request, card = orjson.loads(row[3]), orjson.loads(expand(row[11])), orjson.loads(row[15])
    share = item.get("share")
    parts = share[1] if share else 1
    since, until = window.since_us or 0, _LAST_US if window.until_us is None else window.until_us
    user = _user(item, row[12])
    here = since <= row[9] < until and window.user in (None, user)
    messages = [(str(turn[0]), str(turn[1])) for turn in request["messages"][: item.get("turns")]]
    answer, calls_tools = _answer_at(expand(row[10]), item.get("choice", 0))
    return Heard(
        place=bytes(row[0]).hex(),
        run_id=row[1],
        answerer=row[5],
        task=row[2],
        user=user,
        model=card["teacher"],
        **_asked(messages),
        tools=_mark(request.get("tools")),
        form=_mark(request.get("schema") or request["parameters"].get("response_format")),
        functions=request.get("tools"),
        schema=request.get("schema"),
        api="completion" if request.get("api") == "completion" else "chat",
        parameters=request["parameters"],
        answer=_named(answer, labels),
        calls_tools=calls_tools,
        input_tokens=row[6] // parts,
        output_tokens=row[7] // parts,
        cost_microusd=0 if row[4] else row[8] // parts + item.get("first_cost_microusd", 0),
        at_us=row[9],
        asked=int(here),
        hits=row[13],
        saved_microusd=row[14],
    )


def _user(item: Mapping[str, Json], scopes: str | None) -> str:
    """Who asked: the caller of the service, else whose budget the call was on."""
    caller = item.get("caller")
    if isinstance(caller, dict):
        return str(caller.get("user", ""))
    named = (scope for scope in (scopes or "").split("\n") if str(scope).startswith("user:"))
    return str(next(named, "user:")).removeprefix("user:")


def _answer_at(body: bytes, at: int) -> tuple[str | None, bool]:
    try:
        return answer_of(orjson.loads(body), at)
    except orjson.JSONDecodeError:
        return None, False


# --- Requests and answers of every wire format -----------------------------------------------------------------------


def _asked(turns: list[tuple[str, str]]) -> dict[str, Any]:
    """Where the question is in a conversation: its last turn by the user, and what stands before it."""
    at = max((place for place, (role, _) in enumerate(turns) if role == "user"), default=len(turns) - 1)
    before = "".join(f"{role}{SAYS}{text}{ENDS}" for role, text in turns[: max(at, 0)])
    return {
        "before": before[:MOST_TEXT],
        "text": turns[at][1][:MOST_TEXT] if turns else "",
        "turns": sum(role == "user" for role, _ in turns),
    }


def turns_in(before: str) -> list[tuple[str, str]]:
    """The turns that stand before the last one, each with its role."""
    return [(role, text) for turn in before.split(ENDS)[:-1] for role, _, text in [turn.partition(SAYS)]]


def _mark(value: Json) -> str:
    return "" if not value else xxhash.xxh3_64_hexdigest(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def text_in(content: Json) -> str:
    """The text of a message, be it a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict))
    return "\n".join(part for part in parts if isinstance(part, str))


def answer_of(body: Json, at: int = 0) -> tuple[str | None, bool]:
    """The text of an answer and whether it calls functions, from the body of any of the four wire formats."""
    if isinstance(body, str):
        return body, False
    if not isinstance(body, dict):
        return None, False
    if isinstance(body.get("choices"), list):
        return _of_choices(body["choices"], at)
    if isinstance(body.get("output"), list):
        return _of_parts(body["output"])
    if isinstance(body.get("content"), list):
        return _of_parts(body["content"])
    return (body["content"], bool(body.get("tool_calls"))) if isinstance(body.get("content"), str) else (None, False)


def _of_choices(choices: list[Json], at: int) -> tuple[str | None, bool]:
    found = [one for one in choices if isinstance(one, dict)]
    choice = next((one for one in found if one.get("index", 0) == at), found[0] if found else {})
    message = choice.get("message")
    if not isinstance(message, dict):
        return (choice["text"], False) if isinstance(choice.get("text"), str) else (None, False)
    return text_in(message.get("content")), bool(message.get("tool_calls") or message.get("function_call"))


def _of_parts(parts: list[Json]) -> tuple[str | None, bool]:
    found = [part for part in parts if isinstance(part, dict)]
    texts = [str(part["text"]) for part in found if isinstance(part.get("text"), str)]
    texts += [text_in(part.get("content")) for part in found if part.get("type") == "message"]
    return "\n".join(texts), any(part.get("type") in ("tool_use", "function_call") for part in found)


# --- Logs ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Log:
    """Log files of other services, and what could not be read in them."""

    files: tuple[Path, ...]
    bad: dict[str, str] = field(default_factory=dict)
    """Why a line was left out, by ``file:line``; the first thousand."""
    bad_lines: int = 0
    untimed: int = 0
    _asked: dict[str, tuple[Path, int]] = field(default_factory=dict)
    """Where the lines of batches begin that ask, by ``custom_id``."""
    _answered: set[str] = field(default_factory=set)
    _read: bool = False

    def reader(self, window: Window) -> Reader:
        """Reads the calls of a period; a line that is none is noted and left out."""

        def read() -> Iterator[Heard]:
            self._begin()
            for path in self.files:
                for heard in self._of(path):
                    if window.has(heard):
                        self.untimed += heard.at_us is None and not self._read
                        yield heard
            self._read = True

        return read

    def _begin(self) -> None:
        if not self._read:
            for kept in (self._asked, self._answered, self.bad):
                kept.clear()
            self.bad_lines = self.untimed = 0
            for path in self.files:
                self._index(path)

    def _index(self, path: Path) -> None:
        """Which lines of a batch belong together: questions and answers stand in two files."""
        for at, _, line in _lines(path):
            if b'"custom_id"' in line:
                value = _object(line)
                name = value and value.get("custom_id")
                if value and isinstance(name, str):
                    if "body" in value:
                        self._asked[name] = (path, at)
                    else:
                        self._answered.add(name)

    def _of(self, path: Path) -> Iterator[Heard]:
        for _, number, line in _lines(path):
            value = _object(line)
            try:
                if value is None:
                    raise _Unread("is not a JSON object")
                heard = self._heard(value, f"{path}:{number}")
            except _Unread as error:
                self._note(f"{path}:{number}", str(error))
                continue
            if heard is not None:
                yield heard

    def _note(self, place: str, why: str) -> None:
        if not self._read:
            self.bad_lines += 1
            if len(self.bad) < 1_000:
                self.bad[place] = why

    def _heard(self, value: dict[str, Any], place: str) -> Heard | None:
        name = value.get("custom_id")
        if isinstance(name, str) and "body" in value:
            return None if name in self._answered else _logged(value["body"], {}, value, place)
        if isinstance(name, str):
            return _logged(self._question(name), _batched(value), value, place)
        if isinstance(value.get("request"), dict):
            request = value["request"]
            return _logged(request.get("body", request), _unwrapped(value.get("response")), value, place)
        if "messages" in value or "input" in value or "prompt" in value:  # litellm's payload, or a bare request
            settings = value.get("model_parameters")
            request = {**(settings if isinstance(settings, dict) else {}), **value}
            return _logged(request, _unwrapped(value.get("response")), value, place)
        raise _Unread("has neither request nor messages; shapes that are read are in docs/traffic.md")

    def _question(self, name: str) -> Json:
        if name not in self._asked:
            raise _Unread(f"answers {name!r}, which no log asks; give the batch's input file as another --log")
        path, at = self._asked[name]
        with path.open("rb") as file:
            file.seek(at)
            return (_object(file.readline()) or {}).get("body")


class _Unread(ValueError):
    """Why a line is no call."""


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Where a line begins, its number, and what it says; empty ones are left out."""
    at = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                told = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if told.strip():
                    yield at, number, told
                at += len(line)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _unwrapped(response: Json) -> Json:
    return response.get("body", response) if isinstance(response, dict) else response


def _batched(value: dict[str, Any]) -> Json:
    body = _unwrapped(value.get("response"))
    if not isinstance(body, dict) or value.get("error"):
        raise _Unread(f"the batch has no answer to {value['custom_id']!r}")
    return body


def _logged(request: Json, response: Json, line: Mapping[str, Json], place: str) -> Heard:
    if not isinstance(request, dict):
        raise _Unread("its request is not a JSON object")
    turns = _turns(request)
    if not turns:
        raise _Unread("its request has no messages, no input and no prompt")
    told = response if isinstance(response, dict) else {}
    usage = told.get("usage") if isinstance(told.get("usage"), dict) else line
    answer, calls_tools = answer_of(response)
    return Heard(
        place=place,
        run_id="",
        answerer=_answerer(request, told, line),
        task="",
        user=_first_text(request.get("user"), line.get("end_user"), line.get("user"), _in(line, "metadata", "user_id")),
        model=_first_text(request.get("model"), line.get("model"), told.get("model")) or "unknown",
        **_asked(turns),
        tools=_mark(request.get("tools") or request.get("functions")),
        form=_mark(request.get("response_format") or _in(request, "text", "format")),
        functions=request.get("tools"),
        schema=_in(request, "response_format", "json_schema", "schema") or _in(request, "text", "format", "schema"),
        api="completion" if isinstance(request.get("prompt"), str) and "messages" not in request else "chat",
        parameters={name: request[name] for name in _SETTINGS if name in request},
        answer=answer,
        calls_tools=calls_tools,
        input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        cost_microusd=_cost(line, told),
        at_us=_time(line, told),
        hits=int(line.get("cache_hit") in (True, "True", "true")),
        asked=int(line.get("cache_hit") not in (True, "True", "true")),
    )


_SETTINGS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "stop", "seed")


def _turns(request: Mapping[str, Json]) -> list[tuple[str, str]]:
    system = request.get("system") or request.get("instructions")
    first = [("system", text_in(system))] if system else []
    asked = request.get("messages", request.get("input", request.get("prompt")))
    if isinstance(asked, str):
        return [*first, ("user", asked)]
    if not isinstance(asked, list):
        return []
    if asked and all(isinstance(one, str) for one in asked):
        return [*first, *(("user", one) for one in asked)]
    found = [(str(one.get("role", "user")), text_in(one.get("content"))) for one in asked if isinstance(one, dict)]
    return [*first, *found] if found else []


def _answerer(request: Mapping[str, Json], response: Mapping[str, Json], line: Mapping[str, Json]) -> str:
    """``provider/model`` with the host it was asked at, as far as a line tells."""
    model = _first_text(request.get("model"), line.get("model"), response.get("model")) or "unknown"
    provider = _first_text(line.get("custom_llm_provider"), line.get("provider"))
    host = _first_text(line.get("api_base"), line.get("base_url"))
    named = model if not provider or model.startswith(f"{provider}/") else f"{provider}/{model}"
    return f"{named} {host}".strip()


def _first_text(*values: Json) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")


def _in(value: Json, *path: str) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _count(usage: Json, *names: str) -> int:
    found = (usage.get(name) for name in names) if isinstance(usage, dict) else ()
    return next((value for value in found if isinstance(value, int) and 0 <= value < 2**53), 0)


def _cost(line: Mapping[str, Json], response: Mapping[str, Json]) -> int | None:
    usage = response.get("usage")
    told = (line.get("response_cost"), line.get("cost_usd"), line.get("cost"), _in(usage, "cost"))
    found = (value for value in told if isinstance(value, int | float) and not isinstance(value, bool))
    cost = next((value for value in found if 0 <= value < 1e9), None)
    return None if cost is None else round(cost * 1_000_000)


def _time(line: Mapping[str, Json], response: Mapping[str, Json]) -> int | None:
    names = ("timestamp", "time", "startTime", "start_time", "created_at", "created")
    for value in (*(line.get(name) for name in names), response.get("created"), response.get("created_at")):
        if (found := _moment(value)) is not None:
            return found
    return None


def _moment(value: Json) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float) and 0 < value < 1e17:
        scale = next(unit for most, unit in ((1e11, 1e6), (1e14, 1e3), (1e18, 1.0)) if value < most)
        return round(value * scale)  # seconds, thousandths or millionths, by their size
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return microseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
