"""``corpusgen serve``: a recording gateway, an API and pages over one corpus."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import corpus_option, emit, json_option, opened, parse_budget
from corpusgen.errors import CorpusgenError, Interrupted, UsageError

if TYPE_CHECKING:
    import socket

    from corpusgen.corpus import Corpus
    from corpusgen.fields import Unit
    from corpusgen.serve.gate import GateSettings
    from corpusgen.serve.logs import Log
    from corpusgen.serve.spans import Spans

_FILE = click.Path(path_type=Path, dir_okay=False)
_READY = """\
listening  {url}
OpenAI     OPENAI_BASE_URL={openai_base_url}
Anthropic  ANTHROPIC_BASE_URL={anthropic_base_url}
console    {console}
Ctrl-C ends it: what is under way is finished and kept
"""
_NO_CONSOLE = "none: jinja2 is not installed; for its pages, pip install 'corpusgen-distill[serve]' and start again"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and to whom a service answers."""

    host: str
    port: int
    names: tuple[str, ...]
    cert: Path | None
    key: Path | None
    behind_proxy: bool
    most: int
    most_of_one: int

    @property
    def here_only(self) -> bool:
        """Whether only this machine can reach it."""
        return self.on_loopback and not self.behind_proxy and not self.names

    @property
    def on_loopback(self) -> bool:
        """Whether the address itself is one that no other machine has a way to."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:  # a name, which may mean anything
            return False


@click.command()
@corpus_option
@click.option("--config", type=_FILE, help="What to offer.", show_default="service.yaml in the corpus' folder")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8484, show_default=True, help="0: any free one.")
@click.option("--host-name", "names", multiple=True, metavar="NAME", help="Another name it goes by; repeatable.")
@click.option("--tls-cert", "cert", type=_FILE, help="Certificate chain, PEM.")
@click.option("--tls-key", "key", type=_FILE, help="Its key, PEM, without a password.")
@click.option("--behind-proxy", is_flag=True, help="A proxy of yours stands before it and does TLS.")
@click.option("--max-connections", "most", type=click.IntRange(1), default=4096, show_default=True)
@click.option(
    "--max-connections-per-address",
    "most_of_one",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Of one other machine.",
)
@click.option("--runs", "at_once", type=click.IntRange(1, 64), default=1, show_default=True, help="Runs at once.")
@click.option(
    "--tasks",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the specs that may be submitted by name.",
    show_default="prompts",
)
@click.option("--grace", "grace_s", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to end.")
@click.option("--log-json", is_flag=True, help="Log lines as JSON, else as logfmt.")
@click.option("--init", "making", is_flag=True, help="Write a service.yaml to begin with, and leave.")
@click.option("--teacher", "teachers", multiple=True, metavar="NAME", help="With --init: offer it; repeatable.")
@click.option("--mock", metavar="URL", help="With --init: offer the mock teacher at this address.")
@click.option("--budget", metavar="usd=5,…", help="With --init: caps of everything together.")
@json_option
def serve(
    corpus_folder: Path,
    config: Path | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    cert: Path | None,
    key: Path | None,
    behind_proxy: bool,
    most: int,
    most_of_one: int,
    making: bool,
    teachers: tuple[str, ...],
    mock: str | None,
    budget: str | None,
    **settings: Any,
) -> None:
    """Answer clients of OpenAI and Anthropic over a corpus: every call is budgeted, recorded and cached.

    It listens on this machine alone, and then needs no tokens until the first is made (corpusgen tokens create). Any
    --host-name needs a token, and any other --host a token, and TLS or a proxy of yours. Ctrl-C and SIGTERM let
    nothing new begin, wait --grace seconds for what is under way, and keep it; a second one does not wait.
    """
    if making:
        _write_config(config or corpus_folder / "service.yaml", teachers, mock, parse_budget(budget))
        return
    if teachers or mock is not None or budget is not None:
        raise UsageError("--teacher, --mock and --budget say what --init writes; what there is is in service.yaml")
    place = Place(
        host=host,
        port=port,
        names=names,
        cert=cert,
        key=key,
        behind_proxy=behind_proxy,
        most=most,
        most_of_one=most_of_one,
    )
    _check(place)
    _allow_files(place.most)
    _keep_private(corpus_folder)
    with opened(corpus_folder) as corpus:
        _check_tokens(place, corpus)
        by = asyncio.run(_serve(corpus, config, place, **settings))
    if by == signal.SIGINT:
        raise Interrupted("interrupted; what was under way is kept, and the same command goes on from there")


def _write_config(path: Path, teachers: Sequence[str], mock: str | None, caps: Mapping[Unit, int]) -> None:
    from corpusgen.serve.config import begun, load_config

    try:
        path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(begun(teachers, mock, caps))
    except FileExistsError as error:
        raise UsageError(f"--init: {str(path)!r} is there already; edit it, or move it away") from error
    except OSError as error:
        raise UsageError(f"--init: {str(path)!r} cannot be written: {error.strerror}") from error
    try:
        load_config(path)
    except CorpusgenError:
        path.unlink()  # the next try finds room for its own
        raise
    told = "next" if teachers or mock is not None else "name your teachers there, then"
    click.echo(f"wrote {path}; {told}: corpusgen serve")


def _check(place: Place) -> None:
    if (place.cert is None) != (place.key is None):
        raise UsageError("--tls-cert, --tls-key: give both or neither")
    if not place.on_loopback and place.cert is None and not place.behind_proxy:
        raise UsageError(
            f"--host: {place.host!r} can be reached from elsewhere, and tokens would be sent there as they are; add"
            " --tls-cert and --tls-key, or --behind-proxy if a proxy of yours does TLS"
        )
    for name in place.names:
        if not name.isascii() or not name.isprintable() or not name or set(name) & set(" /@:,*"):
            raise UsageError(f"--host-name: {name!r} is not the name of a host, such as llm.example.org")


PRIVATE = 0o700
"""Of the folder with what was asked and answered, and whose it was."""


def _keep_private(folder: Path) -> None:
    """A corpus that is made here is its owner's alone; of one that is there it is said if it is not."""
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        shared = folder.stat().st_mode & 0o077
    except OSError:  # which whoever opens it tells better
        return
    if shared:
        click.echo(
            f"note: others on this machine may look into {str(folder)!r}, with all that is asked and answered; chmod"
            " 700 makes it yours alone",
            err=True,
        )


FILES_BESIDE = 256


def _allow_files(most: int) -> None:
    """Let the process hold a file for each connection and one for each call to a teacher behind it."""
    wanted = 2 * most + FILES_BESIDE
    now, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY or now >= wanted:
        return
    may = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
    if may < wanted:
        click.echo(
            f"note: {most:,} connections may need {wanted:,} open files, and this system allows {may:,}; raise ulimit"
            " -n, or lower --max-connections",
            err=True,
        )


def _check_tokens(place: Place, corpus: Corpus) -> None:
    from corpusgen.serve.tokens import listed

    now = corpus.clock()
    if not place.here_only and not any(token.state(now) == "valid" for token in listed(corpus)):
        raise UsageError(
            "others than this machine may reach it (--host, --host-name, --behind-proxy), and there is no token that is"
            " worth something; make one first: corpusgen tokens create NAME --user NAME --scope ask,read"
        )


async def _serve(
    corpus: Corpus,
    config: Path | None,
    place: Place,
    *,
    at_once: int,
    tasks: Path | None,
    grace_s: float,
    log_json: bool,
    as_json: bool,
) -> int:
    """Serve until a signal, which is given back."""
    from corpusgen.serve.app import bound, every_operation, finish, listening, make_app, open_service, tls_context
    from corpusgen.serve.config import config_of
    from corpusgen.serve.logs import Log, catch_logging
    from corpusgen.serve.spans import Spans

    log = Log(as_json=log_json)
    tls = None if place.cert is None or place.key is None else tls_context(place.cert, place.key)
    configured, spans = config_of(config, corpus.folder), Spans.installed()
    with _signals() as signals, bound(place.host, place.port) as listener, catch_logging(log):
        parts = open_service(corpus, configured, tasks=tasks, at_once=at_once, grace_s=grace_s, spans=spans)
        async with parts as service:
            operations = every_operation(service)
            app = make_app(service, operations, _settings(place, listener, log, spans))
            limits = {"most": place.most, "most_of_one": place.most_of_one}
            async with listening(app, listener, tls=tls, **limits) as server:
                pages = any(operation.shape == "page" for operation in operations)
                _say_where(place, listener, pages=pages, as_json=as_json)
                by = await signals.first
                log.say("stopping", signal=signal.Signals(by).name, grace_s=grace_s)
                await finish(app, server, grace_s=grace_s, hurry=signals.second)
    return by


def _settings(place: Place, listener: socket.socket, log: Log, spans: Spans) -> GateSettings:
    from corpusgen.serve.app import hosts_of
    from corpusgen.serve.gate import GateSettings

    tls, port = place.cert is not None, listener.getsockname()[1]
    return GateSettings(
        hosts=hosts_of(place.host, port, place.names, tls=tls, behind_proxy=place.behind_proxy),
        tls=tls,
        behind_proxy=place.behind_proxy,
        open_without_tokens=place.here_only,
        log=log,
        spans=spans,
    )


def _say_where(place: Place, listener: socket.socket, *, pages: bool, as_json: bool) -> None:
    import os

    host = f"[{place.host}]" if ":" in place.host else place.host
    url = f"{'http' if place.cert is None else 'https'}://{host}:{listener.getsockname()[1]}"
    found = {
        "url": url,
        "openai_base_url": f"{url}/v1",
        "anthropic_base_url": url,
        "console": f"{url}/console" if pages else None,
        "pid": os.getpid(),
    }
    if as_json:
        emit(found)
    click.echo(_READY.format(**found | {"console": found["console"] or _NO_CONSOLE}), err=True, nl=False)


class _Signals:
    """The first signal to stop, and whether a second came."""

    def __init__(self) -> None:
        self.first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.second = asyncio.Event()

    def heard(self, number: int) -> None:
        """A signal came."""
        if self.first.done():
            self.second.set()
        else:
            self.first.set_result(number)


@contextmanager
def _signals() -> Iterator[_Signals]:
    loop, found = asyncio.get_running_loop(), _Signals()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, found.heard, number)
    try:
        yield found
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(RuntimeError):
                loop.remove_signal_handler(number)
