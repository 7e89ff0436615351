"""Bodies and query parameters of requests, read under limits and as the types that operations name.

JSON is taken only where everybody reads the same out of it: UTF-8 without a mark, each key once, numbers that fit 64
bits, 64 levels at most.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from corpusgen.records import Json
from corpusgen.serve.routes import OPERATION
from corpusgen.serve.statuses import Refused

M = TypeVar("M", bound=BaseModel)

DEEPEST: Final = 64
LARGEST: Final = 2**63
MOST_FIELDS: Final = 200
"""Of a form or of a query."""
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LONG: Final = re.compile(rb"(?<![\w.+-])-?[0-9]{19,}+(?![\w.])")
_SHOWN: Final = 200
_BODY: web.RequestKey[bytes] = web.RequestKey("body", bytes)


async def bytes_of(request: web.Request) -> bytes:
    """The body, as it came. Raises Refused where it is too large, too slow or cut."""
    if _BODY not in request:
        request[_BODY] = await _received(request)
    return request[_BODY]


async def _received(request: web.Request) -> bytes:
    operation, content = request[OPERATION], request.content
    try:
        if content.is_eof():
            return _bounded(content.read_nowait(), operation.most_bytes)
        async with asyncio.timeout(operation.most_s):
            body = bytearray()
            while chunk := await content.readany():
                body += chunk
                _bounded(body, operation.most_bytes)
            return bytes(body)
    except TimeoutError:
        raise closing(408, f"the body did not arrive within {operation.most_s:g} s") from None
    except web.RequestPayloadError as error:
        raise closing(400, "the body is broken off or not in the encoding its headers name") from error


B = TypeVar("B", bytes, bytearray)


def _bounded(body: B, most: int) -> B:
    if len(body) > most:
        raise closing(413, f"the body is larger than {most:,} bytes")
    return body


def closing(status: int, message: str) -> Refused:
    """A refusal after which the connection is closed: what would still come is not waited for."""
    return Refused(status, message, headers={"Connection": "close"})


async def json_of(request: web.Request) -> dict[str, Json]:
    """The body as a JSON object. Raises Refused that says what is wrong with it."""
    return object_in(await bytes_of(request))


def object_in(body: bytes) -> dict[str, Json]:
    """A JSON object whose meaning nobody can read in two ways."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(body, error) from None
    if not isinstance(value, dict):
        raise Refused(400, f"the body must be a JSON object, found {_kind(value)}")
    bare = _STRING.sub(b"", body)
    if _LONG.search(bare) and (long := _too_long(bare)):
        raise Refused(400, f"a whole number of {long} digits; numbers must fit 64 bits")
    if _pairs(value) != bare.count(b":"):
        raise Refused(400, "an object of the body has a key twice; write it once")
    return value


def _too_long(bare: bytes) -> int:
    """How many digits the first whole number has that does not fit; 0 where all do."""
    for match in _LONG.finditer(bare):
        digits = match.group()
        if len(digits) > 20 or not -LARGEST <= int(digits) < LARGEST:
            return len(digits.lstrip(b"-"))
    return 0


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> Refused:
    if not body:
        return Refused(400, "there is no body; send a JSON object")
    said = "deeper than it may be" if "depth limit" in str(error) else error.msg[:_SHOWN]
    return Refused(400, f"the body is not JSON: {said} (at character {error.pos})")


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _pairs(value: Any) -> int:
    """How many keys there are in all, level by level. Raises Refused for what is too deep."""
    level, found = [value], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for one in level:
            if type(one) is dict:
                found += len(one)
                below += [part for part in one.values() if type(part) in _HOLDERS]
            else:
                below += [part for part in one if type(part) in _HOLDERS]
        if not below:
            return found
        level = below
    raise Refused(400, f"the body is nested more than {DEEPEST} levels deep")


_HOLDERS: Final = frozenset((dict, list))


async def body_of(request: web.Request, model: type[M]) -> M:
    """The body as what an operation takes. Raises Refused with every mistake and its field."""
    body = await bytes_of(request)
    object_in(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _mistakes(error, "the body") from None


def query_of(request: web.Request, model: type[M]) -> M:
    """The query parameters as what an operation takes; numbers may be written as such."""
    try:
        return model.model_validate(parameters_of(request), strict=False)
    except ValidationError as error:
        raise _mistakes(error, "the query") from None


def parameters_of(request: web.Request) -> dict[str, str]:
    """The query parameters, each of which may be given once."""
    query = request.query
    if len(query) > MOST_FIELDS:
        raise Refused(400, f"more than {MOST_FIELDS} query parameters")
    found = dict(query)
    if len(found) != len(query):
        raise Refused(400, "a query parameter is given twice; give it once")
    return found


async def form_of(request: web.Request) -> dict[str, str]:
    """The fields of a page's form, each of which may be given once."""
    body = await bytes_of(request)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError as error:
        raise Refused(400, "the body is not a form (application/x-www-form-urlencoded)") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused(400, "a field of the form is given twice; give it once")
    return found


def _mistakes(error: ValidationError, where: str) -> Refused:
    """Every mistake, with its place; nothing that was sent is repeated."""
    found = [
        {"field": _place(one["loc"]), "message": one["msg"][:_SHOWN]}
        for one in error.errors(include_url=False, include_input=False, include_context=False)[:50]
    ]
    told = "; ".join(f"{one['field']}: {one['message']}" if one["field"] else one["message"] for one in found[:5])
    return Refused(400, f"{where}: {told}", kind="BadRequest", problems=cast("list[Mapping[str, str]]", found))


def _place(loc: tuple[str | int, ...]) -> str:
    return ".".join(str(part)[:80] for part in loc[:DEEPEST])
