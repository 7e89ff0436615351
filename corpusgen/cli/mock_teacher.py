"""``corpusgen mock-teacher``: a teacher that misbehaves on demand and keeps its own bill."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import emit, json_option
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.mock.bill import Bill
    from corpusgen.mock.server import Options


@click.command("mock-teacher")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default="any free one")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same faults.")
@click.option("--faults", metavar="NAME=SHARE,…|PROFILE", default="none", show_default=True, help="What goes wrong.")
@click.option("--latency-ms", type=click.FloatRange(0), default=0.0, show_default=True, help="Of every answer.")
@click.option("--slow-s", type=click.FloatRange(0), default=30.0, show_default=True, help="Of the slow faults.")
@click.option("--input-usd-per-mtok", default="1", show_default=True, help="Dollars per million input tokens.")
@click.option("--output-usd-per-mtok", default="4", show_default=True, help="Dollars per million output tokens.")
@click.option("--rate-limit", type=click.FloatRange(0, min_open=True), help="Requests a second; more get a 429.")
@click.option("--burst", type=click.IntRange(1), show_default="a second's worth", help="Requests at once before that.")
@click.option("--labels", metavar="A,B,…", default="", help="Answer with one of these words.")
@click.option("--list", "listing", is_flag=True, help="Name every fault and leave.")
@json_option
def mock_teacher(listing: bool, as_json: bool, **settings: Any) -> None:
    """Serve an OpenAI-compatible teacher on a loopback port until Ctrl-C; then print its bill.

    The first line on stdout is one JSON object with its base_url. POST /v1/chat/completions and /v1/completions are
    answered, the same request always with the same words; GET /bill shows the bill, POST /reset forgets it. A prompt
    that says fault:NAME gets that fault, fault:NAME*2 on the first two tries only.
    """
    if listing:
        _list(as_json)
        return
    bill = asyncio.run(_serve(_options(**settings)))
    emit({"bill": bill.to_json()})


def _options(
    *,
    port: int,
    seed: int,
    faults: str,
    latency_ms: float,
    slow_s: float,
    input_usd_per_mtok: str,
    output_usd_per_mtok: str,
    rate_limit: float | None,
    burst: int | None,
    labels: str,
) -> Options:
    from corpusgen.mock.bill import Prices
    from corpusgen.mock.plan import parse_faults
    from corpusgen.mock.server import Options, RateLimit

    if burst is not None and rate_limit is None:
        raise UsageError("--burst: says how far --rate-limit may be passed for a moment; give both or neither")
    limit = None if rate_limit is None else RateLimit(per_s=rate_limit, burst=burst or max(1, round(rate_limit)))
    return Options(
        plan=parse_faults(faults, seed=seed),
        prices=Prices(
            input_per_mtok=_price("--input-usd-per-mtok", input_usd_per_mtok),
            output_per_mtok=_price("--output-usd-per-mtok", output_usd_per_mtok),
        ),
        latency_s=latency_ms / 1000,
        slow_s=slow_s,
        rate_limit=limit,
        labels=tuple(filter(None, (label.strip() for label in labels.split(",")))),
        port=port,
    )


def _price(option: str, text: str) -> int:
    from corpusgen.spec import microusd

    try:
        return microusd(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


async def _serve(options: Options) -> Bill:
    from corpusgen.mock.server import mock_teacher as running

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    try:
        async with running(options) as mock:
            emit({"base_url": mock.base_url, "bad_addresses": mock.bad_addresses})
            await stop.wait()
            return mock.bill
    except OSError as error:
        raise UsageError(f"--port: {options.port} cannot be listened on: {error.strerror}") from error


def _list(as_json: bool) -> None:
    from corpusgen.mock.plan import KINDS, PROFILES

    if as_json:
        fields = ("name", "what", "billed", "place")
        kinds = [{name: getattr(kind, name) for name in fields} for kind in KINDS.values()]
        emit({"kinds": kinds, "profiles": {name: dict(shares) for name, shares in PROFILES.items()}})
        return
    for kind in KINDS.values():
        where = ", at an address of its own" if kind.place == "address" else ""
        sys.stdout.write(f"{kind.name:<22}{'billed' if kind.billed else 'free':<8}{kind.what}{where}\n")
    sys.stdout.write(f"\nprofiles: {', '.join(PROFILES)}\n")
