"""A running service over a temporary corpus, with the mock teacher upstream: in this process, or as one of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.mock.server import MockTeacher, Options, mock_teacher
from corpusgen.serve.app import bound, every_operation, finish, hosts_of, listening, make_app, open_service
from corpusgen.serve.config import load_config
from corpusgen.serve.gate import GateSettings
from corpusgen.serve.logs import Log
from corpusgen.serve.routes import Operation
from corpusgen.serve.service import Service
from corpusgen.serve.spans import Spans
from corpusgen.serve.tokens import Token, Wish, create

USE = 'intended_use: {student_distribution: internal, student_competes: "no", commercial: false}'
OPENAI, ANTHROPIC = "gpt-mock", "claude-mock"
"""What clients name as model: the mock asked as OpenAI's chat, and as Anthropic's messages."""
CHAT = {"model": OPENAI, "max_tokens": 16, "messages": [{"role": "user", "content": "What is a lagoon?"}]}
MESSAGES = {"model": ANTHROPIC, "max_tokens": 16, "messages": [{"role": "user", "content": "What is a lagoon?"}]}
PATIENCE_S = 60.0


def service_yaml(mock: MockTeacher, *, budget: str = "{usd: 5}", more: str = "") -> str:
    """A service that asks the mock, as OpenAI's and as Anthropic's."""
    return f"""\
{USE}
budget: {budget}
teachers:
  - name: endpoint/mock-model
    model: {OPENAI}
    base_url: {mock.base_url}
    provider: corpusgen
    route: mock
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock teacher}}
    parameters: {{max_tokens: 64}}
  - name: anthropic/claude-mock
    model: {ANTHROPIC}
    base_url: {mock.base_url}
    provider: corpusgen
    route: mock
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock teacher}}
    parameters: {{max_tokens: 64}}
{more}"""


@dataclass(kw_only=True)
class Served:
    """A service in this process."""

    folder: Path
    mock: MockTeacher
    service: Service
    app: web.Application
    server: asyncio.Server
    port: int
    client: aiohttp.ClientSession
    log: io.StringIO = field(default_factory=io.StringIO)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def corpus(self) -> Corpus:
        """Its corpus, to look into."""
        return self.service.corpus

    @property
    def bill(self) -> dict[str, Any]:
        """What the mock was asked."""
        return self.mock.bill.to_json()

    async def post(self, path: str, body: Any, *, token: str | None = None, **headers: str) -> Answer:
        """Send JSON; ``_`` in a header's name stands for ``-``."""
        return await self.send("POST", path, json=body, headers=_headers(token, headers))

    async def get(self, path: str, *, token: str | None = None, **headers: str) -> Answer:
        """Ask for something."""
        return await self.send("GET", path, headers=_headers(token, headers))

    async def send(self, method: str, path: str, **options: Any) -> Answer:
        """Any request at all."""
        async with self.client.request(method, self.url + path, allow_redirects=False, **options) as got:
            return Answer(status=got.status, headers=dict(got.headers), body=await got.read())

    def token(self, *scopes: str, **wish: Any) -> str:
        """The secret of a new token; from the first on, nobody comes in without one."""
        return new_token(self.corpus, *scopes, **wish)[1]

    async def stop(self, *, grace_s: float = 5.0, hurry: asyncio.Event | None = None) -> None:
        """As after SIGTERM, up to what ends with the context."""
        await finish(self.app, self.server, grace_s=grace_s, hurry=hurry or asyncio.Event())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a service said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def header(self, name: str) -> str | None:
        """A header, however its name is spelled."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)


def new_token(corpus: Corpus, *scopes: str, **wish: Any) -> tuple[Token, str]:
    """A token and its secret."""
    wanted: dict[str, Any] = {"name": f"token of {'+'.join(scopes)}", "user": "ann", "days": 30} | wish
    return create(corpus, Wish(scopes=scopes, **wanted), by="a test")  # type: ignore[arg-type] # words of a test


@asynccontextmanager
async def served(
    folder: Path,
    *,
    mock: MockTeacher | None = None,
    config: str | None = None,
    operations: Sequence[Operation] | None = None,
    each: Callable[[Operation], Operation] = lambda operation: operation,
    gate: Mapping[str, Any] | None = None,
    door: Mapping[str, Any] | None = None,
    tasks: Path | None = None,
    at_once: int = 1,
    grace_s: float = 5.0,
    corpus: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """A service over ``folder/corpus`` on a free port of this machine; ``options`` are the mock's.

    ``config`` replaces the service.yaml, ``operations`` come beside its own, ``each`` changes every one; ``gate``
    and ``door`` are settings of ``GateSettings`` and ``listening``, ``corpus`` is for ``Corpus.open``.
    """
    async with _a_mock(mock, options) as teacher:
        file = folder / "service.yaml"
        file.write_text(config or service_yaml(teacher))
        with Corpus.open(folder / "corpus", **(corpus or {})) as opened, bound("127.0.0.1", 0) as place:
            port, log = place.getsockname()[1], io.StringIO()
            hosts = hosts_of("127.0.0.1", port, (), tls=False, behind_proxy=False)
            usual: dict[str, Any] = {"hosts": hosts, "open_without_tokens": True, "log": Log(log), "spans": Spans()}
            settings = GateSettings(**usual | dict(gate or {}))
            config_, spans = load_config(file), settings.spans
            parts = open_service(opened, config_, tasks=tasks, at_once=at_once, grace_s=grace_s, spans=spans)
            async with parts as service:
                all_of_them = map(each, [*every_operation(service), *(operations or ())])
                app = make_app(service, all_of_them, settings)
                async with listening(app, place, **(door or {})) as server, aiohttp.ClientSession() as client:
                    yield Served(
                        folder=folder,
                        mock=teacher,
                        service=service,
                        app=app,
                        server=server,
                        port=port,
                        client=client,
                        log=log,
                    )


@asynccontextmanager
async def _a_mock(mock: MockTeacher | None, options: Mapping[str, Any]) -> AsyncIterator[MockTeacher]:
    if mock is not None:
        yield mock
        return
    async with mock_teacher(Options(**options)) as made:
        yield made


def _headers(token: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return found | ({"Authorization": f"Bearer {token}"} if token is not None else {})


@dataclass(kw_only=True)
class Child:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    log: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.told["url"])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def served_by_child(corpus: Path, *options: str, config: Path | None = None, **environ: str) -> Iterator[Child]:
    """``corpusgen serve`` over a corpus on a free port; killed at the end if it still runs."""
    command = [sys.executable, "-m", "corpusgen", "serve", "--corpus", str(corpus), "--json"]
    command += [] if "--port" in options else ["--port", "0"]
    command += [] if config is None else ["--config", str(config)]
    corpus.parent.mkdir(parents=True, exist_ok=True)
    log = corpus.parent / f"serve-{os.urandom(4).hex()}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | environ
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith('{"url"'), f"{line}\n{log.read_text()}"
        yield Child(process=process, told=json.loads(line), log=log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def mock_child(*options: str) -> Iterator[dict[str, Any]]:
    """``corpusgen mock-teacher`` as a process of its own: its ``base_url`` and ``anthropic_base_url``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "corpusgen", "mock-teacher", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()
