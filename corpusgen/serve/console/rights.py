"""Rights: what was decided and why, what the terms say of a task, waivers, and the documents behind it all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from email import policy
from email.parser import BytesParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson
from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError, UsageError
from corpusgen.provenance.policy import RULES
from corpusgen.serve.console.aside import aside, slowly
from corpusgen.serve.console.forms import GUARD, fields_of, see
from corpusgen.serve.console.pages import page
from corpusgen.serve.reading import bytes_of, parameters_of
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.sessions import SESSIONS
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.serve.submitted import Wanted, read_wanted
from corpusgen.stages.terms.explaining import NOTICE, explained
from corpusgen.stages.terms.registering import listed, shown
from corpusgen.stages.terms.waiving import Asked, end_waiver, grant, waivers

MOST: Final = 50
MOST_EVIDENCE: Final = 16 << 20
"""Bytes of a form with a file in it."""
UPLOAD: Final = ("multipart/form-data",)
_WAIVER: Final = ("terms", "rules", "task", "teacher", "by", "until", "reason")
OUTCOMES: Final = ("allow", "needs_waiver", "deny")


# --- Decisions -------------------------------------------------------------------------------------------------------


async def decisions(request: web.Request) -> web.StreamResponse:
    """What was decided, the newest first."""
    service, asked = service_of(request), parameters_of(request)
    found = await aside(_decided, service.corpus, asked)
    tasks = await aside(service.runs.tasks)
    asked = {"outcome": "", "before": ""} | asked
    return page(request, "rights.html", outcomes=OUTCOMES, asked=asked, tasks=tasks, **found)


def _decided(corpus: Corpus, asked: Mapping[str, str]) -> dict[str, Any]:
    before = asked.get("before", "")
    rows = corpus.journal.query(
        "select decision_id, run_id, stage, subject, outcome, json_extract(decision, '$.role'), decided_us"
        " from decisions where ? in ('', outcome) and decision_id < ? order by decision_id desc limit ?",
        (asked.get("outcome", ""), int(before) if before.isdigit() and len(before) < 16 else 2**62, MOST + 1),
    )
    names = ("decision_id", "run_id", "stage", "subject", "outcome", "role", "decided")
    found = [dict(zip(names, row, strict=True)) for row in rows[:MOST]]
    return {"decisions": found, "further": found[-1]["decision_id"] if len(rows) > MOST else ""}


async def decision(request: web.Request) -> web.StreamResponse:
    """One decision: every finding with its rule and document."""
    named = request.match_info["decision"]
    corpus = service_of(request).corpus
    rows = corpus.journal.query(
        "select run_id, stage, subject, outcome, decision, decided_us from decisions where decision_id = ?",
        (int(named) if named.isdigit() and len(named) < 16 else -1,),
    )
    if not rows:
        raise NoSuch("there is no such decision")
    run_id, stage, subject, outcome, text, decided = rows[0]
    facts = {"run": run_id, "stage": stage, "subject": subject, "outcome": outcome, "decided": decided}
    known = {str(one["terms_id"]) for one in await aside(listed, corpus, corpus.clock().date())}
    return page(request, "decision.html", named=named, facts=facts, decision=orjson.loads(text), documents=known)


async def explain(request: web.Request) -> web.StreamResponse:
    """What the terms say of each teacher of a task, document by document."""
    service, asked = service_of(request), parameters_of(request)
    named = asked.get("task", "")
    wanted = Wanted(task=named)
    held = await aside(read_wanted, service.runs.rules, wanted, caller_of(request))
    told = await slowly(request, explained, service.corpus, held.task, _day(asked.get("on", "")))
    return page(request, "explain.html", task=named, told=told.to_json(), on=asked.get("on", ""), notice=NOTICE)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UsageError(f"{text!r:.40} is not a day; write it like 2026-01-31") from error


# --- Waivers ---------------------------------------------------------------------------------------------------------


async def waiver_list(request: web.Request) -> web.StreamResponse:
    """Every waiver, and a form for another."""
    return await _waivers(request, {}, "")


async def _waivers(request: web.Request, filled: Mapping[str, str], refused: str) -> web.StreamResponse:
    corpus = service_of(request).corpus
    today = corpus.clock().date()
    kept = await aside(waivers, corpus)
    return page(
        request,
        "waivers.html",
        status=400 if refused else 200,
        waivers=[one.to_json(today) for one in kept],
        documents=[str(one["terms_id"]) for one in await aside(listed, corpus, today)],
        rules=list(RULES),
        filled={name: filled.get(name, "") for name in _WAIVER},
        refused=refused,
    )


async def waive(request: web.Request) -> web.StreamResponse:
    """Keep a waiver; the file that shows it is looked at and not kept."""
    fields, files = await upload_of(request)
    try:
        await aside(_grant, service_of(request).corpus, fields, files.get("evidence"), caller_of(request).user)
    except UsageError as error:
        return await _waivers(request, fields, str(error))
    return see("/console/rights/waivers")


def _grant(corpus: Corpus, fields: Mapping[str, str], evidence: bytes | None, caller: str) -> None:
    until = _day(fields.get("until", ""))
    missing = [name for name in ("terms", "by", "reason", "until") if not fields.get(name)]
    if missing or until is None or not evidence:
        told = ", ".join([*missing, *([] if evidence else ["evidence"])])
        raise UsageError(f"this is needed as well: {told}")
    with TemporaryDirectory() as folder:
        shown_by = Path(folder) / "evidence"
        shown_by.write_bytes(evidence)
        grant(
            corpus,
            Asked(
                terms_ids=tuple(fields["terms"].replace(",", " ").split()),
                rules=tuple(fields.get("rules", "").replace(",", " ").split()),
                task=fields.get("task") or None,
                teacher=fields.get("teacher") or None,
                by=fields["by"],
                reason=fields["reason"],
                evidence=shown_by,
                until=until,
            ),
            by=caller,
        )


async def unwaive(request: web.Request) -> web.StreamResponse:
    """Take a waiver back."""
    await fields_of(request)
    corpus, named = service_of(request).corpus, request.match_info["waiver"]
    await aside(end_waiver, corpus, named, caller_of(request).user)
    return see("/console/rights/waivers")


async def upload_of(request: web.Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """The fields and the files of a form, each once, under the same guard as any other form."""
    head = f"Content-Type: {request.headers.get('Content-Type', '')}\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser(policy=policy.HTTP).parsebytes(head + await bytes_of(request))
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        named, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if not isinstance(named, str) or not isinstance(content, bytes) or named in fields or named in files:
            raise Refused(400, "the body is not a form of ours")
        if part.get_filename() is not None:
            files[named] = content
        else:
            fields[named] = content.decode("utf-8", "replace").strip()
    request.app[SESSIONS].check_csrf(request, fields.pop(GUARD, ""))
    return fields, files


# --- Terms -----------------------------------------------------------------------------------------------------------


async def terms(request: web.Request) -> web.StreamResponse:
    """Every document, shipped or one's own."""
    corpus, asked = service_of(request).corpus, parameters_of(request)
    found = await aside(listed, corpus, corpus.clock().date(), only_stale="stale" in asked)
    words = asked.get("find", "").casefold().split()
    kept = [one for one in found if all(word in _looked_in(one) for word in words)]
    values = {"find": asked.get("find", ""), "stale": "stale" in asked}
    return page(request, "terms.html", documents=kept, every=len(found), asked=values)


def _looked_in(one: Mapping[str, Any]) -> str:
    return " ".join(str(one[name]) for name in ("terms_id", "provider", "title", "kind")).casefold()


async def document(request: web.Request) -> web.StreamResponse:
    """Everything that is known of one."""
    corpus, named = service_of(request).corpus, request.match_info["terms"]
    try:
        found = await aside(shown, corpus, named, corpus.clock().date())
    except CorpusgenError as error:
        raise NoSuch(str(error)) from error
    return page(request, "document.html", document=found, named=named)
