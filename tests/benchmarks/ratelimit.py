"""How much of a rate limit is used: ``python tests/benchmarks/ratelimit.py [--json] [--full]``.

A server in another process takes so many requests a second (a tenth of a second's worth at once before that counts)
and refuses the rest; ``corpusgen.generate`` asks it. The ideal is to send all that may be sent at once, and the rest at
the limit; a fraction is ideal seconds by seconds from the first request to the last one taken. *told*: the spec names
the limit; *untold*: nobody does. ``random429_wall_ratio`` is the wall time with 30 % of requests refused for no reason,
by that of the same questions without refusals and 1/0.7 as many tries. ``*_429`` are refusals by prompt. The flat
figures are the worst of the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

RATES = (50, 200, 1000)
NOISE = 0.3
LATENCY_MS = 50


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one run."""

    name: str
    rate: int
    told: bool
    prompts: int
    fraction: float
    refused: float
    lost: int
    wall_s: float


@contextmanager
def limiter() -> Iterator[str]:
    """The address of the server."""
    script = Path(__file__).with_name("limiter.py")
    command = [sys.executable, str(script)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


async def ask(url: str, prompts: int, in_flight: int, rate: float | None) -> tuple[int, float]:
    """Records and seconds of one task."""
    from flow_samples import endpoint, write_task

    from corpusgen import Corpus, generate

    with tempfile.TemporaryDirectory() as folder:
        fields = endpoint(f"{url}/v1", in_flight=in_flight)
        fields |= {} if rate is None else {"rate": {"requests_per_second": rate}}
        task = write_task(Path(folder), items=prompts, teacher=fields)
        began, count = time.perf_counter(), 0
        with Corpus.open(Path(folder) / "corpus") as corpus:
            async with generate(task, corpus) as records:
                async for _ in records:
                    count += 1
        return count, time.perf_counter() - began


async def limited(base: str, rate: int, *, told: bool, seconds: float) -> Found:
    """One run against one limit."""
    prompts, burst = round(rate * seconds), max(1, rate // 10)
    name = f"c{rate}-b{burst}-l{LATENCY_MS + told}"
    count, wall = await ask(f"{base}/{name}", prompts, in_flight_for(rate), float(rate) if told else None)
    seen = await asyncio.to_thread(look, f"{base}/{name}")
    return Found(
        name=f"{'told' if told else 'untold'} {rate}/s",
        rate=rate,
        told=told,
        prompts=prompts,
        fraction=round((prompts - burst) / rate / (seen["last"] - seen["first"]), 3),
        refused=round(seen["refused"] / prompts, 4),
        lost=prompts - count,
        wall_s=round(wall, 2),
    )


async def in_process(base: str, rate: int, told: bool, seconds: float) -> Found:
    """The same in a process of its own, as users run it."""
    given = [base, str(rate), str(int(told)), str(seconds)]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "--child", *given, stdout=pipe)
    said, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the run at {rate} a second ended with {child.returncode}")
    return Found(**json.loads(said))


def in_flight_for(rate: int) -> int:
    """Enough that the limit is what limits: a quarter of a second's worth."""
    return max(16, rate // 4)


def look(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url) as answer:
        seen: dict[str, Any] = json.load(answer)
    return seen


async def unreasonable(base: str, prompts: int) -> tuple[float, int]:
    """Wall time under refusals without a reason, by the ideal; and the prompts that were lost."""
    _, calm = await ask(f"{base}/c0-l{LATENCY_MS}", prompts, 16, None)
    count, wall = await ask(f"{base}/c0-n{NOISE}-l{LATENCY_MS}", prompts, 16, None)
    return round(wall / (calm / (1 - NOISE)), 3), prompts - count


async def measure(seconds: float, noisy_prompts: int) -> tuple[dict[str, float], list[Found]]:
    with limiter() as base:
        # The slow ones keep a processor busy for a fraction of the time, so they can go together.
        slow = [in_process(base, rate, told, seconds) for rate in RATES[:2] for told in (True, False)]
        found = list(await asyncio.gather(*slow))
        found += [await in_process(base, RATES[2], told, seconds) for told in (True, False)]
        ratio, lost = await unreasonable(base, noisy_prompts)
    told, untold = [one for one in found if one.told], [one for one in found if not one.told]
    return {
        "told_fraction": min(one.fraction for one in told),
        "told_429": max(one.refused for one in told),
        "untold_fraction": min(one.fraction for one in untold),
        "untold_429": max(one.refused for one in untold),
        "random429_wall_ratio": ratio,
        "lost": lost + sum(one.lost for one in found),
    }, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="a minute at each rate instead of ten seconds")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ["CORPUSGEN_CACHE"] = "off"
    if chosen.child:
        base, rate, told, seconds = chosen.child
        one = asyncio.run(limited(base, int(rate), told=told == "1", seconds=float(seconds)))
        print(json.dumps(asdict(one)))
        return
    flat, found = asyncio.run(measure(60.0 if chosen.full else 10.0, 4000 if chosen.full else 1500))
    if chosen.json:
        print(json.dumps(flat | ({"runs": [asdict(one) for one in found]} if chosen.full else {})))
        return
    print(f"{'':<14}{'prompts':>8}{'of ideal':>10}{'refused':>9}{'lost':>6}{'wall s':>8}")
    for one in sorted(found, key=lambda one: (not one.told, one.rate)):
        print(f"{one.name:<14}{one.prompts:>8}{one.fraction:>10.1%}{one.refused:>9.2%}{one.lost:>6}{one.wall_s:>8.1f}")
    for name, value in flat.items():
        print(f"{name:<22} {value:>10}")


if __name__ == "__main__":
    main()
