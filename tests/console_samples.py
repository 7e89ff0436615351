"""A service with something to look at, and a browser that looks at its pages and keeps watch over what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import task_samples
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright
from serve_samples import OPENAI, Served, served

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill
from corpusgen.stages.loading import load_task

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TASKS = ("kinds/task.yaml", "sentences/task.yaml")
_TOOL = {
    "type": "function",
    "function": {"name": "depth_of", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}},
}


def tasks_folder(folder: Path) -> Path:
    """A folder with two small tasks that a scripted teacher answers."""
    task_samples.write_label_task(folder / "kinds")
    pool = folder / "kinds" / "pool.jsonl"
    repeated = pool.read_text().splitlines()[:6]
    pool.write_text(pool.read_text() + "".join(line.replace('"id": "t', '"id": "again-') + "\n" for line in repeated))
    task_samples.write_text_task(folder / "sentences")
    return folder


@asynccontextmanager
async def looked_at(folder: Path, *, trained: bool = False, **more: Any) -> AsyncIterator[Served]:
    """A service over a corpus with tasks to start; with ``trained`` one that a student was distilled in."""
    tasks = tasks_folder(folder / "tasks")
    if trained:
        with Corpus.open(folder / "corpus") as corpus:
            await distill(Distillation(task=load_task(tasks / TASKS[0]), corpus=corpus))
    async with served(folder, tasks=tasks, **more) as running:
        yield running


async def converse(running: Served, token: str | None, *questions: str, tools: bool = False) -> None:
    """Have the mock teacher asked through the gateway."""
    for question in questions:
        body: dict[str, Any] = {"model": OPENAI, "max_tokens": 16, "messages": [{"role": "user", "content": question}]}
        got = await running.post("/v1/chat/completions", body | ({"tools": [_TOOL]} if tools else {}), token=token)
        assert got.status == 200, got.text
    await running.service.desk.commit()


async def send_batch(running: Served, token: str | None, *questions: str) -> None:
    """Have the mock teacher asked in a batch, and wait until it is over."""
    turns = [[{"role": "user", "content": question}] for question in questions]
    calls = [{"model": OPENAI, "max_tokens": 16, "messages": turn} for turn in turns]
    requests = [{"custom_id": f"c{at}", "params": call} for at, call in enumerate(calls)]
    got = await running.post("/v1/messages/batches", {"requests": requests}, token=token)
    assert got.status == 200, got.text
    while running.corpus.journal.query("select 1 from service_batches where ended_us is null"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@dataclass(kw_only=True)
class Watch:
    """What a browser did that its pages gave it no cause for."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def over(self, page: Page) -> Page:
        """Watch one more page."""
        page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        page.on("pageerror", lambda error: self.problems.append(f"script {error}"))
        page.on("request", self._asked)
        page.on("console", lambda said: self._said(said.type, said.text))
        return page

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.origin, "data:")):
            self.problems.append(f"asked for {request.url}")

    def _said(self, kind: str, text: str) -> None:
        if kind == "error" or "Content Security Policy" in text or "Content-Security-Policy" in text:
            self.problems.append(f"console {text}")


_NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (one) => {
  window.violations.push(one.violatedDirective);
  console.error("violated " + one.violatedDirective);
});
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    async with async_playwright() as engines:
        browser = await engines.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        try:
            yield browser
        finally:
            await browser.close()


async def window(browser: Browser, running: Served, watch: Watch, **options: Any) -> tuple[BrowserContext, Page]:
    """A fresh window on a service."""
    context = await browser.new_context(base_url=running.url, **options)
    context.set_default_timeout(20_000)
    await context.add_init_script(_NOTE_VIOLATIONS)
    return context, watch.over(await context.new_page())


async def log_in(page: Page, secret: str) -> None:
    """Show a token."""
    await page.goto("/console/login")
    await page.get_by_label("Token").fill(secret)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/console")


COUNTED = """() => {
  const found = {};
  for (const one of document.querySelectorAll("*")) found[one.localName] = (found[one.localName] || 0) + 1;
  return found;
}"""
"""How many elements of each kind a page has."""


async def elements(page: Page) -> dict[str, int]:
    """How many elements of each kind the page has."""
    found: dict[str, int] = await page.evaluate(COUNTED)
    return found
