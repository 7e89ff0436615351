"""Records: looking through them, one of them in full, and its story."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.serve.console import browsing
from corpusgen.serve.console.aside import aside, slowly
from corpusgen.serve.console.forms import on
from corpusgen.serve.console.messages import answer, sureness, tools, turns
from corpusgen.serve.console.pages import page
from corpusgen.serve.reading import parameters_of
from corpusgen.serve.service import service_of
from corpusgen.stages.looking import teachers_seen

SPLITS: Final = ("train", "validation", "gold")
_MOST_TEXT: Final = 500


async def browser(request: web.Request) -> web.StreamResponse:
    """Records that fit a form, a page at a time."""
    asked, corpus = parameters_of(request), service_of(request).corpus
    if name := asked.get("record", "").strip():
        return web.HTTPSeeOther(f"/console/records/{(await aside(browsing.find_record, corpus, name)).record_id}")
    wanted = _wanted(asked)
    place = asked.get("from", "")
    try:
        found = await aside(browsing.browse, corpus, wanted, place)
    except UsageError:  # written anew since; whoever pages on begins again
        found, place = await aside(browsing.browse, corpus, wanted), ""
    kept = {name: value for name, value in asked.items() if name != "from" and value}
    known = await aside(_known, corpus)
    return page(
        request,
        "records.html",
        found=found,
        wanted=wanted,
        first=not place,
        query=urlencode(kept),
        further=urlencode(kept | {"from": found.further}) if found.further else "",
        **known,
    )


def _wanted(asked: dict[str, str]) -> browsing.Wanted:
    return browsing.Wanted(
        task=asked.get("task", ""),
        split=asked.get("split", ""),
        teacher=asked.get("teacher", ""),
        user=asked.get("user", "").strip(),
        text=asked.get("text", "")[:_MOST_TEXT],
        reasoning=on(asked, "reasoning"),
        tools=on(asked, "tools"),
    )


def _known(corpus: Corpus) -> dict[str, Any]:
    """What the form offers, and how much there is."""
    query = corpus.journal.query
    rows, waiting = query("select coalesce(sum(rows), 0) from shards"), query(
        "select count(*) from records where shard is null")  # fmt: skip
    return {
        "tasks": [row[0] for row in query("select distinct dataset from shards order by 1")],
        "splits": SPLITS,
        "teachers": teachers_seen(corpus),
        "users": _users(corpus),
        "committed": rows[0][0],
        "waiting": waiting[0][0],
    }


def _users(corpus: Corpus) -> list[str]:
    """Those for whom something was booked."""
    rows = corpus.journal.query("select distinct scope from balances where scope glob 'user:*' order by 1 limit 500")
    return [row[0].removeprefix("user:") for row in rows if "@" not in row[0]]


async def record(request: web.Request) -> web.StreamResponse:
    """One record: what was asked and answered, how sure, what it cost."""
    corpus = service_of(request).corpus
    where = await aside(browsing.find_record, corpus, request.match_info["record"])
    held = await aside(browsing.read_record, corpus, where)
    if held is None:
        return page(request, "record_waiting.html", where=where)
    return page(
        request,
        "record.html",
        where=where,
        record=held,
        turns=turns(held),
        tools=tools(held),
        answer=answer(held),
        sure=sureness(held),
    )


async def why(request: web.Request) -> web.StreamResponse:
    """Where a record comes from and where it went."""
    corpus = service_of(request).corpus
    where = await aside(browsing.find_record, corpus, request.match_info["record"])
    return page(request, "why.html", where=where, **await slowly(request, _story, corpus, where.record_id))


def _story(corpus: Corpus, record_id: str) -> dict[str, Any]:
    from corpusgen.stages.lineage.story import NOTICE, chapters, story

    return {"chapters": list(chapters(story(corpus, record_id))), "notice": NOTICE}
