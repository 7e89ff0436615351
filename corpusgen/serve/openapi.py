"""The OpenAPI 3.1 document, made of the same operations and models that requests are read and answered with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from corpusgen.records import Json
from corpusgen.serve.api.models import ErrorTold
from corpusgen.serve.gate import OPERATIONS
from corpusgen.serve.routes import Operation

_REFS: Final = "#/components/schemas/{model}"
_PARAMETER: Final = re.compile(r"\{(\w+)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
_PATTERNS: Final[Mapping[str, str]] = {
    "run": r"^[0-9A-Za-z-]{1,64}$",
    "record": r"^[0-9a-f]{1,64}$",
    "lease": r"^[0-9]{1,18}$",
}
"""How names in paths look, where that is known; others are any text without a slash."""
_OTHERS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("POST", "/api/v1/query"): ("application/jsonl", "text/csv", "application/vnd.apache.parquet"),
    ("POST", "/api/v1/audit/{question}"): ("text/csv", "text/markdown"),
    ("POST", "/api/v1/exports"): (
        "application/jsonl",
        "application/vnd.apache.parquet",
        "application/json",
        "text/markdown",
        "application/x-tar",
    ),
}
"""Content types beside the first that an answer may have, as the body asks for."""
_ERRORS: Final[Mapping[int, str]] = {
    400: "What was sent is not what it must be; problems name fields",
    401: "A token is needed, or this one is worth nothing",
    402: "A budget is used up; the message has its figures",
    403: "The token may not do this, or the terms do not allow it: rule and clause are told",
    404: "There is nothing of that name",
    408: "The body took too long",
    409: "Not in the state things are in",
    413: "The body is too large",
    415: "Only the content types that are named here are read",
    421: "The Host header names another service",
    429: "Too much at once; Retry-After says when to come back",
    431: "The headers are too large",
    503: "The service is stopping, or its storage is busy",
}
_ALWAYS: Final = (400, 401, 403, 421, 429, 431, 503)
_WITH_BODY: Final = (402, 404, 408, 409, 413, 415)
_TAGS: Final[Mapping[str, str]] = {
    "runs": "Runs of tasks: submitted, planned, watched, cancelled",
    "money": "Balances and caps",
    "machines": "Leases, answers and claims for processes elsewhere that share this budget",
    "corpus": "The corpus in figures",
    "datasets": "Datasets and exports",
    "records": "Records and their stories",
    "students": "Students",
    "query": "SQL questions",
    "rights": "Audit questions, decisions, waivers, terms",
    "tokens": "Tokens",
    "events": "What happens, as it happens",
    "gateway": "What clients of OpenAI and Anthropic speak",
}


def document(operations: Sequence[Operation]) -> dict[str, Json]:
    """The whole document."""
    described = [one for one in operations if one.shape != "page" and (not one.hidden or one.shape != "api")]
    schemas, definitions = _schemas(described)
    paths: dict[str, dict[str, Json]] = {}
    for one in described:
        path = _PARAMETER.sub(r"{\1}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "corpusgen",
            "version": version("corpusgen-distill"),
            "summary": "Teacher queries under a budget, each recorded with its provenance and its licence",
            "description": "Money is integer micro-dollars, times are ISO 8601 in UTC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag, "description": _TAGS.get(tag, tag)} for tag in _used_tags(described)],
        "paths": paths,
        "components": {
            "schemas": {**definitions, **_VENDORS},
            "responses": {f"Error{status}": _error(told) for status, told in _ERRORS.items()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "cg_…"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _used_tags(operations: Iterable[Operation]) -> list[str]:
    return list(dict.fromkeys(_tag(one) for one in operations))


def _tag(operation: Operation) -> str:
    return "gateway" if operation.shape in ("openai", "anthropic") else operation.tag


Schemas = Mapping[Any, dict[str, Json]]
"""By model and mode."""


def _schemas(operations: Iterable[Operation]) -> tuple[Schemas, dict[str, Json]]:
    """The schema of each model, and what they refer to."""
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ErrorTold, "serialization"): None}
    for one in operations:
        if one.shape != "api":
            continue
        wanted |= {(model, "validation"): None for model in (one.body, one.query) if model is not None}
        if one.answer is not None:
            wanted[one.answer, "serialization"] = None
    found, definitions = models_json_schema(list(wanted), ref_template=_REFS)
    return found, dict(definitions.get("$defs", {}))


def _operation(one: Operation, path: str, schemas: Schemas) -> dict[str, Json]:
    told: dict[str, Json] = {"operationId": _named(one, path), "summary": one.summary, "tags": [_tag(one)]}
    parameters = [*_in_path(path), *_in_query(one)]
    if parameters:
        told["parameters"] = parameters
    if (body := _body(one, schemas)) is not None:
        told["requestBody"] = body
    told["responses"] = {str(one.status): _answer(one, path, schemas), **_failures(one, path)}
    told["security"] = [] if one.scope is None else [{"token": []}, {"key": []}]
    return told | ({} if one.scope is None else {"x-corpusgen-scope": one.scope})


def _named(one: Operation, path: str) -> str:
    if one.shape == "api" and one.tag in _TAGS:
        return str(getattr(one.handler, "__name__", path))
    return "_".join([one.method.lower(), *re.findall(r"\w+", path)])


def _in_path(path: str) -> Iterator[dict[str, Json]]:
    for name in re.findall(r"\{(\w+)\}", path):
        schema: dict[str, Json] = {"type": "string", "minLength": 1, "maxLength": 200}
        if name in _PATTERNS:
            schema["pattern"] = _PATTERNS[name]
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(one: Operation) -> Iterator[dict[str, Json]]:
    if one.query is None or one.shape != "api":
        return
    fields = one.query.model_json_schema(mode="validation", ref_template=_REFS)
    for name, schema in fields["properties"].items():
        told = {"description": schema["description"]} if "description" in schema else {}
        yield {
            "name": name,
            "in": "query",
            "required": name in fields.get("required", ()),
            "schema": _not_null(schema),
            **told,
        }


def _not_null(schema: Mapping[str, Json]) -> dict[str, Json]:
    """A query cannot say null: what may be left out is left out."""
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "default", "description", "title")}
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    default = {} if schema.get("default") is None else {"default": schema["default"]}
    return {**kept, **(options[0] if options else {}), **default}


def _body(one: Operation, schemas: Schemas) -> dict[str, Json] | None:
    if one.shape in ("openai", "anthropic"):
        return _vendor_body(one)
    if one.body is None:
        return None
    return {"required": True, "content": {"application/json": {"schema": schemas[one.body, "validation"]}}}


def _vendor_body(one: Operation) -> dict[str, Json] | None:
    if one.method != "POST":
        return None
    kinds = {kind: {"schema": {"$ref": "#/components/schemas/VendorRequest"}} for kind in one.takes}
    return {"content": kinds} if kinds else None


def _answer(one: Operation, path: str, schemas: Schemas) -> dict[str, Json]:
    told: dict[str, Json] = {"description": one.summary}
    content: dict[str, Json] = {}
    if one.shape in ("openai", "anthropic"):
        content = {one.content_type: {"schema": {}}, "application/json": {"schema": {"type": "object"}}}
        if one.method == "POST":
            content["text/event-stream"] = {"schema": {"type": "string"}}
    elif one.answer is not None:
        content = {"application/json": {"schema": schemas[one.answer, "serialization"]}}
    elif one.content_type:
        content = {one.content_type: {"schema": {} if one.content_type.endswith("json") else {"type": "string"}}}
    content |= {kind: {"schema": {}} for kind in _OTHERS.get((one.method, path), ())}
    return told | ({"content": content} if content else {})


def _failures(one: Operation, path: str) -> dict[str, Json]:
    statuses = {*_ALWAYS, *(_WITH_BODY if one.method in ("POST", "PUT", "PATCH") else ())}
    if "{" in path or one.method == "DELETE" or one.query is not None:
        statuses |= {404, 409}
    if one.scope is None:
        statuses -= {401, 403}
    if one.shape in ("openai", "anthropic"):
        return {str(status): _vendor_error(one, status) for status in sorted({*statuses, 404, 500, 502, 504})}
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(statuses)}


def _vendor_error(one: Operation, status: int) -> dict[str, Json]:
    schema = {"$ref": f"#/components/schemas/{'OpenAI' if one.shape == 'openai' else 'Anthropic'}Error"}
    told = _ERRORS.get(status, "The teacher failed; what is owed is booked")
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _error(told: str) -> dict[str, Json]:
    schema = {"$ref": "#/components/schemas/ErrorTold"}
    return {"description": told, "content": {"application/json": {"schema": schema}}}


_VENDORS: Final[dict[str, Any]] = {
    "VendorRequest": {
        "description": "As the vendor describes it; docs/gateway.md says which parameters are taken.",
        "type": "object",
        "properties": {"model": {"type": "string"}, "stream": {"type": "boolean"}},
    },
    "OpenAIError": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


@lru_cache(maxsize=2)
def _written(operations: tuple[Operation, ...]) -> bytes:
    return orjson.dumps(document(operations))


async def describe(request: web.Request) -> web.Response:
    """The document, made once."""
    every = tuple(dict.fromkeys(request.app[OPERATIONS].values()))
    return web.Response(body=_written(every), content_type="application/json")


def operations() -> tuple[Operation, ...]:
    """The document itself, which tells nobody anything about the corpus and needs no token."""
    return (
        Operation(
            method="GET",
            path="/api/v1/openapi.json",
            handler=describe,
            scope=None,
            summary="This document",
            tag="service",
        ),
    )
