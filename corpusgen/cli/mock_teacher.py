"""``corpusgen mock-teacher``: a double of OpenAI and Anthropic that misbehaves on demand and keeps its own bill."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import emit, json_option
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.mock.bill import Bill
    from corpusgen.mock.server import MockTeacher, Options, RateLimit

_PLACES = {"address": ", at an address of its own", "batch": ", as a whole batch"}
_TO_BEGIN_WITH = """\
OpenAI:     OpenAI(base_url="{mock.base_url}", api_key="{key}")
Anthropic:  Anthropic(base_url="{mock.origin}", api_key="{key}")
corpusgen:  base_url: {mock.base_url}
Bill:       GET {mock.origin}/bill; Ctrl-C ends the server and prints it
"""


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
@click.option("--token-limit", type=click.FloatRange(0, min_open=True), help="Tokens a second; more get a 429.")
@click.option("--untold", is_flag=True, help="Say nothing of limits: no headers, no Retry-After.")
@click.option("--batch-delay", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds of a batch.")
@click.option("--require-key", metavar="KEY", help="Refuse whoever has another key, as Bearer or x-api-key.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Add all that arrives to this file.")
@click.option("--labels", metavar="A,B,…", default="", help="Answer with one of these words.")
@click.option("--list", "listing", is_flag=True, help="Name every fault and leave.")
@json_option
def mock_teacher(listing: bool, as_json: bool, **settings: Any) -> None:
    """Serve a double of OpenAI and Anthropic on a loopback port until Ctrl-C; then print its bill.

    The official clients run against it unmodified: give OpenAI(...) the base_url printed on the first line of stdout,
    Anthropic(...) the anthropic_base_url, and both any api_key. It answers chat and older completions, responses,
    messages, embeddings, models, files, token counts and both kinds of batches (at half price), whole or streamed, the
    same request always with the same words.

    GET /bill shows the bill, POST /reset forgets it. A prompt that says fault:NAME gets that fault, fault:NAME*2 on the
    first two tries only; --list names them all.
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
    token_limit: float | None,
    untold: bool,
    batch_delay: float,
    require_key: str | None,
    labels: str,
    log: Path | None,
) -> Options:
    from corpusgen.mock.bill import Prices
    from corpusgen.mock.plan import parse_faults
    from corpusgen.mock.server import Options

    if burst is not None and rate_limit is None:
        raise UsageError("--burst: says how far --rate-limit may be passed for a moment; give both or neither")
    return Options(
        plan=parse_faults(faults, seed=seed),
        prices=Prices(
            input_per_mtok=_price("--input-usd-per-mtok", input_usd_per_mtok),
            output_per_mtok=_price("--output-usd-per-mtok", output_usd_per_mtok),
        ),
        latency_s=latency_ms / 1000,
        slow_s=slow_s,
        rate_limit=_limit(rate_limit, burst),
        token_limit=_limit(token_limit, None),
        told=not untold,
        batch_delay_s=batch_delay,
        key=require_key,
        labels=tuple(filter(None, (label.strip() for label in labels.split(",")))),
        log=log,
        port=port,
    )


def _limit(per_s: float | None, burst: int | None) -> RateLimit | None:
    from corpusgen.mock.server import RateLimit

    return None if per_s is None else RateLimit(per_s=per_s, burst=burst or max(1, round(per_s)))


def _price(option: str, text: str) -> int:
    from corpusgen.fields import microusd

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
            _say_where(mock, options)
            await stop.wait()
            return mock.bill
    except OSError as error:
        raise UsageError(f"--port: {options.port} cannot be listened on: {error.strerror}") from error


def _say_where(mock: MockTeacher, options: Options) -> None:
    addresses = {"base_url": mock.base_url, "anthropic_base_url": mock.origin, "bad_addresses": mock.bad_addresses}
    key = "the one you require" if options.key else "any"
    sys.stderr.write(_TO_BEGIN_WITH.format(mock=mock, key=key))
    emit(addresses)


def _list(as_json: bool) -> None:
    from corpusgen.mock.plan import KINDS, PROFILES

    if as_json:
        fields = ("name", "what", "billed", "place")
        kinds = [{name: getattr(kind, name) for name in fields} for kind in KINDS.values()]
        emit({"kinds": kinds, "profiles": {name: dict(shares) for name, shares in PROFILES.items()}})
        return
    for kind in KINDS.values():
        where = _PLACES.get(kind.place, "")
        sys.stdout.write(f"{kind.name:<22}{'billed' if kind.billed else 'free':<8}{kind.what}{where}\n")
    sys.stdout.write(f"\nprofiles: {', '.join(PROFILES)}\n")
