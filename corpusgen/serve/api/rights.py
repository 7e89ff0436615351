"""Rights: audit questions, decisions, waivers and terms."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from corpusgen.corpus import Corpus, moment
from corpusgen.errors import UsageError
from corpusgen.provenance.questions import NOTICE, Question, find_question, questions
from corpusgen.serve.api.models import (
    AuditAsked,
    AuditTold,
    DecisionsTold,
    DecisionTold,
    PageQuery,
    ParameterTold,
    QuestionsTold,
    QuestionTold,
    TermsShown,
    TermsTold,
    WaiverEnded,
    WaiversTold,
    WaiverTold,
    WaiverWanted,
)
from corpusgen.serve.api.records import plain
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.reading import body_of, query_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.slowly import READING
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.stages.terms.registering import listed, shown
from corpusgen.stages.terms.waiving import Asked, end_waiver, grant, waivers

if TYPE_CHECKING:
    from corpusgen.stages.lineage.auditing import Answer

MOST_EVIDENCE: Final = 16 << 20
_TYPES: Final = {"csv": "text/csv", "markdown": "text/markdown"}


async def list_questions(request: web.Request) -> web.Response:
    """All questions and what each is asked of."""
    return said(QuestionsTold(questions=[question_told(one) for one in questions().values()], notice=NOTICE))


def question_told(question: Question) -> QuestionTold:
    """A question as the API tells it; what is read from a file of the asker's is left out."""
    parameters = [
        ParameterTold(name=one.name, type=one.type, default=one.default, meaning=one.meaning)
        for one in question.parameters
        if one.type != "file"
    ]
    return QuestionTold(
        number=question.number,
        name=question.name,
        title=question.title,
        answer=question.answer,
        cannot_tell=question.cannot_tell,
        parameters=parameters,
        passes_when_empty=question.passes_when_empty,
    )


def answer_to(corpus: Corpus, word: str, given: dict[str, str]) -> Answer:
    """The answer to a question by its number or name. Raises NoSuch or UsageError."""
    from corpusgen.stages.lineage.auditing import audit_corpus

    question = find_question(word)
    if question is None:
        raise NoSuch(f"no question is called {word!r:.120}; GET /api/v1/audit names them all")
    if files := [one.name for one in question.parameters if one.type == "file" and one.name in given]:
        raise UsageError(f"{', '.join(files)}: names a file of this machine, which nobody may choose from elsewhere")
    return audit_corpus(corpus, question, given, on=corpus.clock().date())


async def ask_question(request: web.Request) -> web.Response:
    """Ask the corpus what a lawyer would ask."""
    wish = await body_of(request, AuditAsked)
    corpus, named = service_of(request).corpus, request.match_info["question"]
    answer = await READING(caller_of(request), answer_to, corpus, named, wish.parameters)
    if wish.format == "json":
        return said(AuditTold(**plain(answer.to_json())))
    from corpusgen.stages.lineage.auditing import written

    name = f"{answer.question.number}.{'csv' if wish.format == 'csv' else 'md'}"
    return web.Response(
        text=written(answer, wish.format),
        content_type=_TYPES[wish.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def decisions(corpus: Corpus, limit: int, before: int | None) -> list[DecisionTold]:
    """What the policy decided, the newest first."""
    rows = corpus.journal.query(
        "select decision_id, run_id, stage, subject, outcome, decision, decided_us from decisions"
        " where decision_id < ? order by decision_id desc limit ?",
        (before or 2**62, limit),
    )
    return [
        DecisionTold(
            decision_id=row[0],
            run_id=row[1],
            stage=row[2],
            subject=row[3],
            outcome=row[4],
            decision=orjson.loads(row[5]),
            decided=moment(row[6]),
        )
        for row in rows
    ]


async def list_decisions(request: web.Request) -> web.Response:
    """Decisions, the newest first."""
    query = query_of(request, PageQuery)
    found = await aside(decisions, service_of(request).corpus, query.limit, query.before)
    return said(DecisionsTold(decisions=found))


async def list_waivers(request: web.Request) -> web.Response:
    """Every waiver with its last day and what hangs on it."""
    corpus = service_of(request).corpus
    found = await aside(waivers, corpus)
    today = corpus.clock().date()
    return said(WaiversTold(waivers=[WaiverTold(**plain(one.to_json(today))) for one in found]))


async def grant_waiver(request: web.Request) -> web.Response:
    """Accept what the terms leave open, in the name of whoever calls."""
    wish, corpus = await body_of(request, WaiverWanted), service_of(request).corpus
    made = await aside(_granted, corpus, wish, caller_of(request).user)
    service_of(request).bus.tell("waiver", {"waiver_id": made.waiver_id, "in_force": True})
    return said(made, status=201)


def _granted(corpus: Corpus, wish: WaiverWanted, by: str) -> WaiverTold:
    with NamedTemporaryFile(prefix="evidence-") as file:
        file.write(_bytes(wish.evidence))
        file.flush()
        made = grant(
            corpus,
            Asked(
                terms_ids=tuple(wish.terms_ids),
                rules=tuple(wish.rules),
                task=wish.task,
                teacher=wish.teacher,
                by=by,
                reason=wish.reason,
                evidence=Path(file.name),
                until=wish.until,
            ),
            by=by,
        )
    found = next(one for one in waivers(corpus) if one.waiver.waiver_id == made.waiver_id)
    return WaiverTold(**plain(found.to_json(corpus.clock().date())))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "evidence: is not base64") from error


async def take_back_waiver(request: web.Request) -> web.Response:
    """Take a waiver back; what was made under it stays as it is."""
    corpus, named = service_of(request).corpus, request.match_info["waiver"]
    try:
        ended = await aside(end_waiver, corpus, named, caller_of(request).user)
    except UsageError as error:
        raise NoSuch(str(error)) from error
    service_of(request).bus.tell("waiver", {"waiver_id": ended.waiver_id, "in_force": False})
    return said(WaiverEnded(waiver_id=ended.waiver_id, ended=True))


async def list_terms(request: web.Request) -> web.Response:
    """Terms documents that count here."""
    corpus = service_of(request).corpus
    found = await aside(listed, corpus, corpus.clock().date())
    return said(TermsTold(terms=[plain(one) for one in found]))


async def show_terms(request: web.Request) -> web.Response:
    """One document with its clauses, reviews and snapshots."""
    corpus = service_of(request).corpus
    try:
        found = await aside(shown, corpus, request.match_info["terms"], corpus.clock().date())
    except UsageError as error:
        raise NoSuch(str(error)) from error
    return said(TermsShown(**plain(found)))


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/audit",
        handler=list_questions,
        scope="legal",
        summary="The questions a lawyer would ask, with what each is asked of",
        answer=QuestionsTold,
        tag="rights",
    ),
    Operation(
        method="POST",
        path="/api/v1/audit/{question}",
        handler=ask_question,
        scope="legal",
        summary="The answer to a question, by its number (q01) or name",
        body=AuditAsked,
        answer=AuditTold,
        tag="rights",
    ),
    Operation(
        method="GET",
        path="/api/v1/decisions",
        handler=list_decisions,
        scope="legal",
        summary="What the policy decided, the newest first",
        query=PageQuery,
        answer=DecisionsTold,
        tag="rights",
    ),
    Operation(
        method="GET",
        path="/api/v1/waivers",
        handler=list_waivers,
        scope="legal",
        summary="Waivers and what hangs on each",
        answer=WaiversTold,
        tag="rights",
    ),
    Operation(
        method="POST",
        path="/api/v1/waivers",
        handler=grant_waiver,
        scope="legal",
        summary="Grant a waiver in the name of whoever calls",
        body=WaiverWanted,
        answer=WaiverTold,
        status=201,
        most_bytes=MOST_EVIDENCE,
        tag="rights",
    ),
    Operation(
        method="DELETE",
        path="/api/v1/waivers/{waiver}",
        handler=take_back_waiver,
        scope="legal",
        summary="Take a waiver back",
        answer=WaiverEnded,
        tag="rights",
    ),
    Operation(
        method="GET",
        path="/api/v1/terms",
        handler=list_terms,
        scope="legal",
        summary="Terms documents that count here",
        answer=TermsTold,
        tag="rights",
    ),
    Operation(
        method="GET",
        path="/api/v1/terms/{terms}",
        handler=show_terms,
        scope="legal",
        summary="One terms document with its clauses, reviews and snapshots",
        answer=TermsShown,
        tag="rights",
    ),
)
