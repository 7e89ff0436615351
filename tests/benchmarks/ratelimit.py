"""How much of a rate limit is used: ``python tests/benchmarks/ratelimit.py [--json] [--full]``.

A server in another process takes so many requests a second (a tenth of a second's worth at once before that counts)
and refuses the rest; whole runs, journal and all, ask it. *told*: the spec names the limit; *heard*: the answers'
headers do; *untold*: nobody does. ``*_429`` are refusals by prompt.

Ideal is to send at once all that may be sent at once, and the rest at the limit. ``*_wall_fraction`` is the ideal
seconds by those from the first request to the last one taken. ``*_fraction`` leaves out of these the seconds in which
the pacer would have let a request through and nobody came for one, because this machine was too busy: on a quiet
machine both are the same. ``random429_wall_ratio`` is the wall time with 30 % of requests refused for no reason, by the
ideal of 1/0.7 as many tries: at a limit told and untold, and without one, by the same questions without refusals.
The flat figures without a rate are the worst of the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ["CORPUSGEN_CACHE"] = "off"  # an answer from another run would not be asked for

from flow_samples import endpoint, write_task

from corpusgen.corpus import Corpus
from corpusgen.fanout.stream import answers
from corpusgen.prompting.prompts import prompts
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run

RATES: Final = (50, 200, 1000)
NOISE: Final = 0.3
NOISY_RATE: Final = 200
LATENCY_MS: Final = 50
AT_ONCE: Final = 4
LONGER: Final = 1.2
"""How much longer it is asked where a part of the time goes into finding out."""
Known = Literal["told", "heard", "untold"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit to be asked under, and what is known of it."""

    known: Known
    rate: int
    seconds: float
    noise: float = 0.0

    @property
    def prompts(self) -> int:
        return round(self.rate * self.seconds)

    @property
    def burst(self) -> int:
        return max(1, self.rate // 10)

    @property
    def ideal_s(self) -> float:
        return (self.prompts / (1 - self.noise) - self.burst) / self.rate

    @property
    def lane(self) -> str:
        """The server's name for it, which no other run has."""
        told = int(self.known == "told")
        return f"c{self.rate}-b{self.burst}-n{self.noise}-l{LATENCY_MS}-h{int(self.known == 'heard')}-t{told}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one run."""

    name: str
    prompts: int
    fraction: float
    wall_fraction: float
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


async def ask(url: str, count: int, in_flight: int, rate: float | None) -> tuple[int, float, float]:
    """Records and seconds of one task, and the seconds in which nobody came to ask."""
    with tempfile.TemporaryDirectory() as folder:
        fields = endpoint(f"{url}/v1", in_flight=in_flight)
        fields |= {} if rate is None else {"rate": {"requests_per_second": rate}}
        task = load_task(write_task(Path(folder), items=count, teacher=fields))
        with Corpus.open(Path(folder) / "corpus") as corpus:
            async with open_run(task, corpus, on_failure="drop") as run:
                began, done = time.perf_counter(), 0
                async with answers(
                    run.asker, prompts(task.prompter.items("train"), run.requester, samples=1)
                ) as records:
                    async for _ in records:
                        done += 1
                return done, time.perf_counter() - began, run.asker.pacer.rates.unasked_s


def limited(base: str, limit: Limit) -> Found:
    """One run against one limit."""
    url = f"{base}/{limit.lane}"
    rate = float(limit.rate) if limit.known == "told" else None
    done, wall_s, unasked_s = asyncio.run(ask(url, limit.prompts, max(16, limit.rate // 4), rate))
    seen = look(url)
    taken_s = seen["last"] - seen["first"]
    return Found(
        name=f"{limit.known}_{limit.rate}",
        prompts=limit.prompts,
        fraction=round(min(1.0, limit.ideal_s / (taken_s - unasked_s)), 4),
        wall_fraction=round(limit.ideal_s / taken_s, 4),
        refused=round(seen["refused"] / limit.prompts, 4),
        lost=limit.prompts - done,
        wall_s=round(wall_s, 2),
    )


def free(base: str, count: int, noise: float) -> tuple[int, float, int]:
    """Records, seconds and refusals of one run without a limit."""
    url = f"{base}/c0-n{noise}-l{LATENCY_MS}"
    done, wall_s, _ = asyncio.run(ask(url, count, 16, None))
    return done, wall_s, look(url)["refused"]


def unreasonable(count: int, calm: tuple[int, float, int], noisy: tuple[int, float, int]) -> Found:
    """Refusals without a reason and without a limit, by the same questions at the same time without refusals."""
    (_, calm_s, _), (done, wall_s, refused) = calm, noisy
    fraction = round(calm_s / (1 - NOISE) / wall_s, 4)
    return Found(
        name="random429_free",
        prompts=count,
        fraction=fraction,
        wall_fraction=fraction,
        refused=round(refused / count, 4),
        lost=count - done,
        wall_s=round(wall_s, 2),
    )


def look(url: str) -> dict[str, Any]:
    """What the server has seen of one limit."""
    with urllib.request.urlopen(url) as answer:
        seen: dict[str, Any] = json.load(answer)
    return seen


def measure(seconds: float) -> tuple[list[Found], list[Found]]:
    """Every run at a limit, and every run under refusals without a reason."""
    # Forked before there is anything to inherit; the slow ones need little of a processor and go together.
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("fork")) as pool, limiter() as base:
        slow = [
            Limit(known=known, rate=rate, seconds=LONGER * seconds)
            for rate in RATES[:2]
            for known in ("told", "heard", "untold")
        ]
        found = list(pool.map(limited, [base] * len(slow), slow))
        fast = [Limit(known=known, rate=RATES[2], seconds=seconds) for known in ("told", "heard")]
        fast.append(Limit(known="untold", rate=RATES[2], seconds=LONGER * seconds))
        found += [pool.submit(limited, base, limit).result() for limit in fast]
        noisy = [
            pool.submit(limited, base, Limit(known=known, rate=NOISY_RATE, seconds=seconds / 2, noise=NOISE))
            for known in ("told", "untold")
        ]
        count = round(100 * seconds)
        calm, wild = (pool.submit(free, base, count, noise) for noise in (0.0, NOISE))
        return found, [*(one.result() for one in noisy), unreasonable(count, calm.result(), wild.result())]


def figures(found: list[Found], noisy: list[Found]) -> Mapping[str, float]:
    """Everything in one flat object."""
    flat: dict[str, float] = {}
    for known in ("told", "untold", "heard"):
        mine = [one for one in found if one.name.startswith(f"{known}_")]
        flat[f"{known}_fraction"] = min(one.fraction for one in mine)
        flat[f"{known}_429"] = max(one.refused for one in mine)
    flat["random429_wall_ratio"] = round(max(1 / one.fraction for one in noisy), 3)
    flat["lost"] = sum(one.lost for one in (*found, *noisy))
    for one in found:
        flat |= {f"{one.name}_fraction": one.fraction, f"{one.name}_wall_fraction": one.wall_fraction}
        flat[f"{one.name}_429"] = one.refused
    return flat | {f"{named(one)}_wall_ratio": round(1 / one.fraction, 3) for one in noisy}


def named(one: Found) -> str:
    return one.name if one.name.startswith("random") else f"random429_{one.name}"


def table(found: list[Found], noisy: list[Found]) -> Iterator[str]:
    """The same for people."""
    yield f"{'':<22}{'prompts':>8}{'of ideal':>10}{'by the clock':>14}{'refused':>9}{'lost':>6}{'wall s':>8}"
    for name, one in [(one.name, one) for one in found] + [(named(one), one) for one in noisy]:
        fractions = f"{one.fraction:>10.1%}{one.wall_fraction:>14.1%}"
        yield f"{name:<22}{one.prompts:>8}{fractions}{one.refused:>9.2%}{one.lost:>6}{one.wall_s:>8.1f}"


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="a minute at each rate instead of ten seconds")
    chosen = parser.parse_args()
    found, noisy = measure(60.0 if chosen.full else 10.0)
    if chosen.json:
        print(json.dumps(figures(found, noisy)))
    else:
        print("\n".join(table(found, noisy)))


if __name__ == "__main__":
    main()
