"""Writes docs/service/*.png: each page of the console light, dark and on a phone, side by side.

Run: python tests/console_screenshots.py [FOLDER]; it needs Chromium, playwright and pillow.
"""

from __future__ import annotations

import asyncio
import os
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
os.environ.update(CORPUSGEN_CACHE="off", CORPUSGEN_TERMS="off", CORPUSGEN_TEACHERS="off")

import own_key  # noqa: F401, E402 - for its effect
from console_samples import TASKS, Watch, chromium, converse, log_in, looked_at, send_batch, window  # noqa: E402
from PIL import Image, ImageColor  # noqa: E402
from playwright._impl._api_structures import Clip  # noqa: E402
from playwright.async_api import Browser, ViewportSize  # noqa: E402
from serve_samples import Served, new_token  # noqa: E402

from corpusgen.serve.console.styles import colours  # noqa: E402
from corpusgen.stages.budgeting import set_budget  # noqa: E402

OUT = Path(__file__).parent.parent / "docs" / "service"
Theme: TypeAlias = Literal["light", "dark"]
DESK: ViewportSize = {"width": 960, "height": 760}
PHONE: ViewportSize = {"width": 380, "height": 780}
TALLEST, GAP = 1100, 12
QUESTIONS = tuple(
    f"What is the {nth} deepest lake of the world?" for nth in ("very", "second", "third", "fourth", "fifth")
)


def pages(running: Served) -> dict[str, str]:
    """Every page by a name for its picture."""

    def first(sql: str) -> str:
        return str(running.corpus.journal.query(sql)[0][0])

    run = first("select run_id from runs where task = 'kinds'")
    label = first("select lower(hex(record_id)) from records where dataset = 'kinds' and split = 'train' limit 1")
    said = first("select lower(hex(record_id)) from records where dataset = 'traffic' order by ordinal desc limit 1")
    return {
        "overview": "",
        "runs": "/runs",
        "batches": "/batches",
        "run": f"/runs/{run}",
        "coverage": f"/runs/{run}/coverage",
        "start": "/start",
        "plan": f"/start/plan?task={TASKS[1]}&usd=2&limit=10",
        "records": "/records",
        "record": f"/records/{label}",
        "conversation": f"/records/{said}",
        "datasets": "/datasets",
        "dataset": "/datasets/kinds-1",
        "students": "/students",
        "student": f"/students/{first('select student_id from students')}",
        "budgets": "/budgets",
        "tokens": "/tokens",
        "audit": "/audit",
        "question": "/audit/q04?ask=1&dataset=kinds-1",
        "rights": "/rights",
        "decision": f"/rights/decisions/{first('select max(decision_id) from decisions')}",
        "explain": f"/rights/explain?task={TASKS[0]}",
        "waivers": "/rights/waivers",
        "terms": "/rights/terms",
        "document": "/rights/terms/" + "smollm2-apache-2.0",
        "query": "/query",
        "about": "/about",
        "error": "/runs/no-such-run",
        "login": "/login",
    }


async def shots(browser: Browser, running: Served, secret: str, size: ViewportSize, theme: Theme) -> dict[str, bytes]:
    """A picture of each page, as long as the page, up to a height."""
    watch, found = Watch(origin=running.url), {}
    context, page = await window(browser, running, watch, viewport=size, color_scheme=theme, device_scale_factor=0.75)
    await log_in(page, secret)
    for name, path in pages(running).items():
        await page.goto(f"/console{path}")
        await page.wait_for_load_state("networkidle")
        height, wide = await page.evaluate("[document.body.scrollHeight, document.documentElement.scrollWidth]")
        if wide > size["width"]:
            watch.problems.append(f"{name} is {wide} wide")
        clip: Clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height, TALLEST)}
        found[name] = await page.screenshot(full_page=True, clip=clip, animations="disabled")
    print("\n".join(watch.problems) or "nothing amiss")  # noqa: T201
    await context.close()
    return found


def sheet(pictures: list[bytes], path: Path) -> None:
    """Pictures side by side, in as few colours as flat pages need."""
    parts = [Image.open(BytesIO(picture)).convert("RGB") for picture in pictures]
    width, height = sum(part.width for part in parts) + GAP * (len(parts) - 1), max(part.height for part in parts)
    whole, left = Image.new("RGB", (width, height), (128, 128, 128)), 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + GAP
    whole.quantize(palette=palette(), dither=Image.Dither.NONE).save(path, optimize=True)


def palette() -> Image.Image:
    """The colours of both themes, and what is between text and its ground at the edge of a letter."""
    found: list[tuple[int, ...]] = [(128, 128, 128)]
    for theme in colours().values():
        of: dict[str, tuple[int, ...]] = {name: ImageColor.getrgb(value)[:3] for name, value in theme.items()}
        found += of.values()
        for ground in ("--paper", "--wash", "--accent"):
            inks = (
                ("--onaccent",)
                if ground == "--accent"
                else ("--ink", "--soft", "--accent", "--bad", "--good", "--edge")
            )
            found += [between(of[ink], of[ground], share) for ink in inks for share in (0.25, 0.5, 0.75)]
    made = Image.new("P", (1, 1))
    made.putpalette([part for colour in dict.fromkeys(found) for part in colour])
    return made


def between(one: tuple[int, ...], other: tuple[int, ...], share: float) -> tuple[int, ...]:
    """A colour on the way from one to another."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


async def main(out: Path) -> None:
    """All of them, in a folder that is there."""
    with TemporaryDirectory() as folder:
        async with looked_at(Path(folder), trained=True) as running, chromium() as browser:
            set_budget(running.corpus, "corpus", {"microusd": 2_000, "tokens": 5_000}, by="ann")
            secret = new_token(running.corpus, "admin", name="Ann's laptop")[1]
            new_token(running.corpus, "read", name="weekly figures", user="reports")
            running.service.tokens.look_again()
            await converse(running, secret, *QUESTIONS)
            await converse(running, secret, "How deep is Lake Baikal?", tools=True)
            await send_batch(running, secret, *QUESTIONS[:2], "How long is the longest lake?")
            taken = [
                await shots(browser, running, secret, DESK, "light"),
                await shots(browser, running, secret, DESK, "dark"),
                await shots(browser, running, secret, PHONE, "light"),
            ]
    for name in taken[0]:
        sheet([one[name] for one in taken], out / f"{name}.png")


if __name__ == "__main__":
    wanted = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    wanted.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(wanted))
