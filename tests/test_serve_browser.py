"""The console in a real browser: what a person does there, by mouse, by keyboard and without scripts, and what foreign
text cannot do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from serve_samples import OPENAI, USE, Served, new_token

pytest.importorskip("playwright.async_api", reason="playwright drives the browser: pip install playwright")

from console_samples import (
    CHROMIUM,
    TASKS,
    Watch,
    chromium,
    converse,
    elements,
    log_in,
    looked_at,
    send_batch,
    window,
)
from playwright.async_api import Browser, Page, expect

from corpusgen.corpus import Corpus
from corpusgen.journal import Transaction

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}"),
    pytest.mark.slow,
]
PHONE = {"width": 380, "height": 780}
ATTACK = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{7*7}}</textarea>"


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


async def _admin(running: Served) -> str:
    secret = new_token(running.corpus, "admin", name="the first")[1]
    running.service.tokens.look_again()
    return secret


async def _ended(page: Page) -> None:
    await expect(page.locator("p.state .mark.complete").first).to_be_visible(timeout=60_000)


async def test_a_person_runs_a_task_and_reads_audits_and_budgets_it(tmp_path: Path, browser: Browser) -> None:
    async with looked_at(tmp_path) as running:
        watch, secret = Watch(origin=running.url), await _admin(running)
        context, page = await window(browser, running, watch, accept_downloads=True)
        await log_in(page, secret)
        await page.get_by_role("link", name="Start a run").click()
        await page.get_by_label("sentences").check()
        await page.get_by_label("Dollars").fill("2")
        await page.get_by_label("Items at most").fill("8")
        await page.get_by_role("button", name="Show the price").click()
        await expect(page.get_by_text("The terms allow it")).to_be_visible()
        assert running.corpus.journal.query("select count(*) from service_runs")[0][0] == 0
        await page.get_by_role("button", name="Start it").click()
        await _ended(page)
        assert running.corpus.journal.query("select count(*) from records")[0][0] == 8
        await page.get_by_role("link", name="Records of this task").click()
        await page.locator("table.records tbody th a").first.click()
        await expect(page.get_by_role("heading", name="What was said")).to_be_visible()
        await expect(page.get_by_text("Not legal advice.")).to_be_visible()  # the story came by itself
        await page.get_by_role("link", name="Audit").click()
        await page.get_by_role("link", name="What is derived from a source").click()
        await page.get_by_label("Source").fill("ours")
        await page.get_by_role("button", name="Ask").click()
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name="Download as csv").click()
        assert "live records,ours,8" in (await (await waiting.value).path()).read_text()
        await page.get_by_role("link", name="Budgets").click()
        await page.get_by_label("For").fill("corpus")
        await page.get_by_label("Dollars", exact=True).fill("12.50")
        await page.get_by_role("button", name="Set", exact=True).click()
        await expect(page.get_by_text("cap $12.50", exact=True).first).to_be_visible()
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        await page.goto("/console/records")
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert watch.problems == []
        await context.close()


async def test_a_run_is_drawn_anew_while_it_goes_on(tmp_path: Path, browser: Browser) -> None:
    async with looked_at(tmp_path) as running:
        watch, secret = Watch(origin=running.url), await _admin(running)
        context, page = await window(browser, running, watch)
        await log_in(page, secret)
        await expect(page.get_by_text("0 more not in a shard yet")).to_be_visible()
        before = await page.locator(".tiles").nth(0).inner_text()
        await converse(running, secret, "What is a lagoon?")
        await expect(page.locator(".tiles").nth(0)).not_to_have_text(before, timeout=20_000)
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("button", name="Go on")).to_be_visible()
        assert watch.problems == []
        await context.close()


@pytest.mark.parametrize("scripts", [True, False])
async def test_every_page_is_whole_on_a_phone_with_and_without_scripts(
    tmp_path: Path, browser: Browser, scripts: bool
) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        watch, secret = Watch(origin=running.url), await _admin(running)
        await converse(running, secret, "What is a lagoon?", tools=True)
        await send_batch(running, secret, "What is a fjord?", "What is a delta?")
        context, page = await window(browser, running, watch, viewport=PHONE, java_script_enabled=scripts)
        await log_in(page, secret)
        for path in _every_page(running.corpus):
            await page.goto(f"/console{path}")
            await expect(page.locator("main h1")).to_have_count(1)
            if scripts:
                assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        assert watch.problems == []
        await context.close()


def _every_page(corpus: Corpus) -> list[str]:
    def first(sql: str) -> str:
        return str(corpus.journal.query(sql)[0][0])

    run = first("select run_id from runs where task = 'kinds'")
    record = first("select lower(hex(record_id)) from records where dataset = 'traffic'")
    plain = (
        "/start /runs /batches /records /datasets /students /budgets /tokens /audit /rights /query /about /rights/terms"
    )
    return [
        "",
        *plain.split(),
        f"/start/plan?task={TASKS[1]}&limit=3",
        f"/runs/{run}",
        f"/runs/{run}/coverage",
        f"/records/{record}",
        f"/records/{record}/why",
        "/datasets/kinds-1",
        f"/students/{first('select student_id from students')}",
        "/audit/q04?ask=1&dataset=kinds-1",
        f"/rights/decisions/{first('select max(decision_id) from decisions')}",
        f"/rights/explain?task={TASKS[0]}",
        "/rights/waivers",
        "/rights/terms/smollm2-apache-2.0",
    ]


# --- By keyboard -----------------------------------------------------------------------------------------------------


async def _tab_to(page: Page, name: str, *, role: str = "") -> None:
    """Press Tab until what has the focus goes by a name."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        found = await page.evaluate(
            "() => { const e = document.activeElement; const l = e.labels && e.labels[0];"
            " return [e.localName, ((l || e).innerText || e.value || '').trim(),"
            " getComputedStyle(e).outlineStyle !== 'none']; }"
        )
        if name in found[1] and role in ("", found[0]):
            assert found[2], f"{name} has the focus and nobody sees it"
            return
    raise AssertionError(f"Tab never came to {name}")


async def test_a_run_is_started_by_keyboard_alone(tmp_path: Path, browser: Browser) -> None:
    async with looked_at(tmp_path) as running:
        watch, secret = Watch(origin=running.url), await _admin(running)
        context, page = await window(browser, running, watch)
        await page.goto("/console/login")
        await _tab_to(page, "Token")
        await page.keyboard.type(secret)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/console")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        await _tab_to(page, "Start a run")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/start")
        await _tab_to(page, "kinds")
        await page.keyboard.press("ArrowDown")
        await _tab_to(page, "Items at most")
        await page.keyboard.type("4")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/start/plan*")
        await _tab_to(page, "Start it")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/runs/*")
        await _ended(page)
        assert running.corpus.journal.query("select task from service_runs") == [("sentences",)]
        assert watch.problems == []
        await context.close()


# --- For everybody ---------------------------------------------------------------------------------------------------

_AMISS = """() => {
  const amiss = [], seen = (e) => e.getClientRects().length > 0;
  if (document.documentElement.lang !== "en") amiss.push("no language");
  if (!document.title || !document.querySelector("main")) amiss.push("no title or main");
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (!(e.labels && e.labels.length)) amiss.push("no label: " + e.name);
  for (const e of document.querySelectorAll("a, button"))
    if (!e.innerText.trim() && seen(e)) amiss.push("no words: " + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("svg"))
    if (e.getAttribute("role") !== "img" || !e.getAttribute("aria-labelledby")) amiss.push("a picture without words");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) amiss.push("twice: " + id);
  for (const word of ["aria-labelledby", "aria-describedby", "list"])
    for (const e of document.querySelectorAll("[" + word + "]"))
      for (const name of e.getAttribute(word).split(" "))
        if (!document.getElementById(name)) amiss.push("nothing called " + name);
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
    const own = Number(e.localName[1]);
    if (own > level + 1) amiss.push("skips to " + e.localName + " " + e.innerText);
    level = own;
  }
  for (const e of document.querySelectorAll("th")) if (!e.scope) amiss.push("a head of nothing: " + e.innerText);
  for (const e of document.querySelectorAll("[onclick], [style]")) amiss.push("inline: " + e.outerHTML.slice(0, 80));
  return amiss;
}"""


async def test_every_page_has_names_for_what_it_holds(tmp_path: Path, browser: Browser) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        watch, secret = Watch(origin=running.url), await _admin(running)
        await converse(running, secret, "What is a lagoon?", tools=True)
        await send_batch(running, secret, "What is a fjord?", "What is a delta?")
        context, page = await window(browser, running, watch)
        await log_in(page, secret)
        amiss = {}
        for path in (*_every_page(running.corpus), "/login"):
            await page.goto(f"/console{path}")
            if found := await page.evaluate(_AMISS):
                amiss[path] = found
        assert amiss == {}
        await context.close()


async def test_the_theme_is_the_browsers_until_one_is_chosen(tmp_path: Path, browser: Browser) -> None:
    async with looked_at(tmp_path) as running:
        watch, secret = Watch(origin=running.url), await _admin(running)
        context, page = await window(browser, running, watch, color_scheme="dark")
        await log_in(page, secret)
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = await page.evaluate(ground)
        await page.get_by_role("button", name="light").click()
        light = await page.evaluate(ground)
        await page.goto("/console/runs")
        assert await page.evaluate(ground) == light != dark
        await page.get_by_role("button", name="auto").click()
        assert await page.evaluate(ground) == dark
        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0
        await context.close()


# --- Text of strangers -----------------------------------------------------------------------------------------------


_SAYS = f"""\
{USE}
teachers:
  - {{name: scripted/stranger, model: {OPENAI}, script: answers.yaml, free: true, parameters: {{max_tokens: 64}}}}
"""


async def _with_text(folder: Path, browser: Browser, text: str) -> tuple[dict[str, dict[str, int]], list[str]]:
    """How many elements each page has where everything anybody can write says ``text``."""
    folder.mkdir()  # noqa: ASYNC240 - once, before anything runs
    (folder / "answers.yaml").write_text(f"answers: [{{contains: What, text: {json.dumps(f'It is {text}.')}}}]\n")
    async with looked_at(folder, config=_SAYS) as running:
        secret = await _admin(running)
        watch = Watch(origin=running.url)
        new_token(running.corpus, "read", name=text[:60].strip(), user="reader")
        await converse(running, secret, f"What is {text}?")
        _write_everywhere(running.corpus, text)
        run, record = (
            running.corpus.journal.query(sql)[0][0]
            for sql in ("select run_id from runs", "select lower(hex(record_id)) from records")
        )
        context, page = await window(browser, running, watch)
        await log_in(page, secret)
        counts = {}
        for path in (
            *("", "/runs", f"/runs/{run}", "/records", f"/records/{record}", f"/records/{record}/why", "/budgets"),
            *("/tokens", "/rights", "/rights/decisions/1", "/rights/waivers", "/students", "/datasets"),
            f"/records?text={_quoted(text)}&user={_quoted(text)}&task={_quoted(text)}",
            f"/audit/q04?ask=1&dataset={_quoted(text)}",
            f"/start/plan?task={_quoted(text)}",
            f"/runs/{_quoted(text)}",
            f"/rights/terms?find={_quoted(text)}",
        ):
            await page.goto(f"/console{path}")
            await page.wait_for_load_state("networkidle")
            assert "/records/" not in path or "It is" in await page.content() or path.endswith("/why")
            counts[path.replace(_quoted(text), "TEXT").replace(run, "RUN").replace(record, "RECORD")] = await elements(
                page
            )
        await page.goto("/console/query")
        await page.get_by_label("Question").fill(f"select {_sql(text)} as {_name(text)}")
        await page.get_by_role("button", name="Ask").click()
        await page.wait_for_load_state("networkidle")
        counts["query"] = await elements(page)
        violations = await page.evaluate("window.violations")
        await context.close()
        refused = ("status of 400", "status of 403", "status of 404")
        return counts, [one for one in watch.problems if not any(word in one for word in refused)] + violations


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


_SUBMITTED = (
    "insert into service_runs(service_run_id, task, spec, facts, state, run_id, submitted_us)"
    " values('x1', ?, '', ?, 'failed', ?, 1)"
)


def _write_everywhere(corpus: Corpus, text: str) -> None:
    """What no door lets in: text of strangers in every column that a page shows."""
    run = corpus.journal.query("select run_id from runs")[0][0]
    waiver = {
        "waiver_id": "w-1", "terms_ids": [text], "rules": ["R05"], "task": text, "teacher": text, "granted_by": text,
        "reason": text, "evidence_sha256": "0" * 64, "granted": "2026-01-01", "expires": "2099-01-01", "versions": {},
    }  # fmt: skip
    facts = {"task": text, "licence_expression": text, "duties": [], "intended_use": {"a": text}, "rows": 3}
    submitted = {"source": {}, "user": text, "token_id": text, "budget": {}, "reason": text, "identity": text}
    rows: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("update runs set task = ?", (text,)),
        ("update calls set error = ?, teacher = ?", (text, text)),
        ("insert into drops values(?, ?, ?, ?, ?, null, null, null)", (run, text, "train:1", text, text)),
        ("insert into balances values(?, 'microusd', 1, 0, 0)", (f"user:{text}",)),
        ("insert into caps values('corpus', 'microusd', 'total', 100000000, ?, 0)", (text,)),
        ("update decisions set subject = ?, stage = ?", (text, text)),
        ("insert into waivers(waiver_id, waiver, granted_us) values('w-1', ?, 1)", (json.dumps(waiver),)),
        ("insert into students values('s1', ?, ?, ?, 1)", (run, text, json.dumps(facts))),
        (_SUBMITTED, (text, json.dumps(submitted), run)),
    )
    for sql, values in rows:
        corpus.journal.run_now(partial(_execute, sql=sql, values=values))


def _execute(transaction: Transaction, sql: str, values: tuple[Any, ...]) -> None:
    transaction.execute(sql, values)


async def test_text_of_strangers_stays_text(tmp_path: Path, browser: Browser) -> None:
    plain, quiet = await _with_text(
        tmp_path / "plain", browser, "a plain text of no meaning, {{none}} at all/in this, and it goes on for a while"
    )
    attacked, problems = await _with_text(tmp_path / "attacked", browser, ATTACK)
    assert quiet == problems == []
    assert attacked == plain
