"""Audit questions as forms, their answers as tables to read or to take away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError
from corpusgen.provenance.questions import NOTICE, Parameter, Question, find_question, questions
from corpusgen.serve.console.aside import aside, slowly
from corpusgen.serve.console.pages import HEADERS, page
from corpusgen.serve.reading import parameters_of
from corpusgen.serve.service import service_of
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.stages.terms.registering import listed

if TYPE_CHECKING:
    from corpusgen.stages.lineage.auditing import Answer
    from corpusgen.store.tabulate import Format

SHOWN: Final = 500
"""Rows on a page; a download has all."""
KINDS: Final[Mapping[str, tuple[Format, str]]] = {
    "csv": ("csv", "text/csv"),
    "json": ("json", "application/json"),
    "md": ("markdown", "text/markdown"),
}
"""What an answer can be taken away as, with its content type."""
_OPTION: Final = re.compile(r"--([a-z]+)")
"""What commands call a field."""
_INPUTS: Final = {"date": "date", "days": "number", "count": "number"}


async def every(request: web.Request) -> web.StreamResponse:
    """All questions."""
    return page(request, "audit.html", questions=list(questions().values()), notice=NOTICE)


async def ask(request: web.Request) -> web.StreamResponse:
    """One question as a form; its answer where it was asked."""
    question, asked = _question(request), parameters_of(request)
    corpus = service_of(request).corpus
    given, answer, refused = _given(question, asked), None, ""
    if "ask" in asked or not question.parameters:
        try:
            answer = await slowly(request, _answered, corpus, question, given)
        except CorpusgenError as error:
            if not getattr(error, "exit_code", 0):
                raise
            refused = _OPTION.sub(r"\1", str(error))
    return page(
        request,
        "question.html",
        status=400 if refused else 200,
        question=question,
        fields=[_field(one, asked) for one in _asked(question)],
        known=await aside(_known, corpus, question),
        answer=answer,
        rows=[] if answer is None else answer.rows[:SHOWN],
        shown=SHOWN,
        refused=refused,
        query=urlencode(given),
        kinds=list(KINDS),
    )


async def download(request: web.Request) -> web.StreamResponse:
    """The whole answer as a file."""
    question, kind = _question(request), request.match_info["kind"]
    if kind not in KINDS:
        raise NoSuch(f"an answer is written as {', '.join(KINDS)}")
    given = _given(question, parameters_of(request))
    answer = await slowly(request, _answered, service_of(request).corpus, question, given)
    from corpusgen.stages.lineage.auditing import written

    format_, content_type = KINDS[kind]
    return attachment(written(answer, format_).encode(), f"{question.number}-{question.name}.{kind}", content_type)


def attachment(body: bytes, name: str, content_type: str) -> web.Response:
    """A file for the browser to keep; its name is of our own words."""
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)


def _question(request: web.Request) -> Question:
    found = find_question(request.match_info["question"])
    if found is None:
        raise NoSuch("there is no such question; the audit page lists them")
    return found


def _asked(question: Question) -> list[Parameter]:
    """The parameters that a page asks for; a file of the server's machine is not among them."""
    return [one for one in question.parameters if one.type != "file"]


def _given(question: Question, asked: Mapping[str, str]) -> dict[str, str]:
    names = {one.name for one in _asked(question)}
    others = sorted(asked.keys() - names - {"ask"})
    if others:
        raise Refused(400, f"{question.number} is not asked of {', '.join(others)[:200]}")
    return {name: asked[name].strip() for name in asked if name in names and asked[name].strip()}


def _answered(corpus: Corpus, question: Question, given: Mapping[str, str]) -> Answer:
    from corpusgen.stages.lineage.auditing import audit_corpus

    return audit_corpus(corpus, question, given, on=corpus.clock().date())


def _field(one: Parameter, asked: Mapping[str, str]) -> Mapping[str, Any]:
    default = "" if one.default in ("required", "any", "today") else one.default
    return {
        "name": one.name,
        "type": one.type,
        "input": _INPUTS.get(one.type, "text"),
        "required": one.required,
        "meaning": one.meaning,
        "value": asked.get(one.name, default),
        "hint": {"any": "any", "today": "today"}.get(one.default, ""),
    }


_NAMES: Final = {
    "dataset": "select distinct name || '-' || version from datasets order by 1",
    "student": "select student_id from students order by trained_us desc",
    "teacher": "select distinct teacher from calls order by 1",
}


def _known(corpus: Corpus, question: Question) -> dict[str, list[str]]:
    """Names that a field may be filled with, as far as they are told quickly."""
    found: dict[str, list[str]] = {}
    for kind in {one.type for one in question.parameters}:
        if kind in _NAMES:
            found[kind] = [row[0] for row in corpus.journal.query(f"{_NAMES[kind]} limit 500")]
        elif kind in ("terms", "provider"):
            documents = listed(corpus, corpus.clock().date())
            found[kind] = sorted({str(one["terms_id" if kind == "terms" else "provider"]) for one in documents})
    return found
