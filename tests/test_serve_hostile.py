from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from serve_hostile import CANARY, COUNT, FAMILIES, FILES, WRONG, Attack, chat, spec
from serve_samples import CHAT, Served, served

PATIENCE_S = 30.0
"""What would be a hang: every limit of this server is a second or two."""
MOST_GROWN = 256 << 20
AT_ONCE = 8
TOKEN_BODY_S, HEADERS_S = 1.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Got:
    """What came back, or that nothing did."""

    attack: Attack
    raw: bytes
    hung: bool = False

    @property
    def status(self) -> int | None:
        """None: the connection was closed without a word."""
        line = self.raw.split(b"\r\n", 1)[0].split(b" ")
        return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") else None

    @property
    def head(self) -> str:
        """The headers."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> str:
        """All that comes after them."""
        return self.raw.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A service that has a token, a server that nobody may be made to ask, and what may be in no answer."""

    served: Served
    token: str
    admin: str
    spy: str
    knocks: list[str]
    secrets: tuple[str, ...]

    async def got(self, attack: Attack) -> Got:
        """Send it, and read what comes back."""
        sent = attack.sent(f"127.0.0.1:{self.served.port}", self.token, self.spy, self.admin)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.served.port, limit=1 << 24)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return Got(attack=attack, raw=await _exchanged(reader, writer, sent))
        except TimeoutError:
            return Got(attack=attack, raw=b"", hung=True)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _exchanged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> bytes:
    with suppress(OSError):  # who is refused early need not be read to the end
        writer.write(sent)
        await writer.drain()
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        size = int(lengths[0].partition(b":")[2]) if lengths and not sent.startswith(b"HEAD") else 0
        return head + await reader.readexactly(size)
    return b""


@asynccontextmanager
async def _scene(folder: Path) -> AsyncIterator[Scene]:
    knocks: list[str] = []

    async def knocked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append((await reader.read(100)).decode("latin-1"))
        writer.close()

    spy = await _five_digits(knocked)
    (folder / "secret").write_text(CANARY)
    settings: dict[str, Any] = {
        "each": lambda operation: replace(operation, most_s=TOKEN_BODY_S),
        "door": {"headers_s": HEADERS_S},
    }
    async with spy, served(folder, **settings) as running:
        token, admin = running.token("ask", "lend", "read"), running.token("admin")
        named = f"http://127.0.0.1:{spy.sockets[0].getsockname()[1]}"
        secrets = (
            token,
            token[3:],
            admin,
            admin[3:],
            CANARY,
            str(folder),
            "Traceback",
            'File "',
            "root:x:0",
            str(Path.home()),
        )
        yield Scene(served=running, token=token, admin=admin, spy=named, knocks=knocks, secrets=secrets)


async def _five_digits(knocked: object) -> asyncio.Server:
    """A server at an address that is as long as every other."""
    while True:
        server = await asyncio.start_server(knocked, "127.0.0.1", 0)  # type: ignore[arg-type] # any reader
        if server.sockets[0].getsockname()[1] > 9_999:
            return server
        server.close()


def test_there_are_more_than_two_hundred_hostile_requests_and_each_is_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    every = [attack for family in FAMILIES.values() for attack in family]
    with capsys.disabled():
        told = ", ".join(f"{len(family)} {name}" for name, family in FAMILIES.items())
        sys.stdout.write(f"\n{COUNT} hostile requests: {told}\n")
    assert COUNT >= 400
    assert len({attack.name for attack in every}) == COUNT


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_hostile_request_is_refused_learns_nothing_and_asks_nobody(tmp_path: Path, family: str) -> None:
    async with _scene(tmp_path) as scene:
        before = _resident()
        answers = [got async for got in _all_of(scene, FAMILIES[family])]
        wrong = {got.attack.name: told for got in answers if (told := _wrong(scene, got))}
        assert not wrong, "\n".join(f"{name}: {told}" for name, told in wrong.items())
        assert scene.served.bill["requests"] <= sum(got.attack.asks for got in answers)
        assert scene.knocks == []
        _check_log(scene)
        assert (await scene.served.get("/healthz")).status == 200
        assert (await scene.served.post("/v1/chat/completions", CHAT, token=scene.token)).status == 200
        assert _resident() - before < MOST_GROWN


async def _all_of(scene: Scene, attacks: Iterable[Attack]) -> AsyncIterator[Got]:
    waiting = list(attacks)
    while waiting:
        now, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        for got in await asyncio.gather(*map(scene.got, now)):
            yield got


def _wrong(scene: Scene, got: Got) -> str:
    attack, status = got.attack, got.status
    if got.hung:
        return "hangs"
    sent = attack.sent(f"127.0.0.1:{scene.served.port}", "", scene.spy).decode("utf-8", "replace")
    if leaked := [secret for secret in scene.secrets if secret in got.head + got.body and secret not in sent]:
        return f"tells {leaked}: {got.body[:300]}"
    if status is None:
        return "" if not attack.status else "is closed without an answer"
    if "mock teacher:" in got.body and not attack.asks:
        return f"the teacher was asked, and refused it: {got.body[:300]}"
    if status not in attack.status and (attack.status or not 400 <= status < 500):
        return f"{status}, not {attack.status}: {got.body[:300]}"
    if "text/html" in got.head and ("<script>alert" in got.body or "<img src=x" in got.body):
        return f"markup comes back: {got.body[:300]}"
    if "\nset-cookie: a=b" in got.head.lower() or "evil" in got.head.lower():
        return f"a header was put in: {got.head}"
    return "" if status < 400 or _is_told(got) else f"not in any client's words: {got.body[:200]}"


def _is_told(got: Got) -> bool:
    return got.attack.method == "HEAD" or '"error"' in got.body or "<html" in got.body.lower()


def _check_log(scene: Scene) -> None:
    """Every line is one of ours, and none has a secret."""
    log = scene.served.log.getvalue()
    assert scene.token not in log
    assert scene.token[3:] not in log
    assert WRONG not in log
    assert CANARY not in log
    for line in log.splitlines():
        assert line.startswith("time=2"), line
        assert line.isprintable(), line
        assert line.count("event=") == 1, line
    assert "event=unexpected" not in log, log


def _resident() -> int:
    found = Path("/proc/self/statm")
    return int(found.read_text().split()[1]) * 4096 if found.exists() else 0


async def test_what_attacks_change_would_be_answered_as_it_is(tmp_path: Path) -> None:
    async with _scene(tmp_path) as scene:
        assert (await scene.served.post("/v1/chat/completions", json.loads(chat()), token=scene.token)).status == 200
        submitted = {"spec": spec(), "files": FILES, "dry_run": True}
        planned = await scene.served.post("/api/v1/runs", submitted, token=scene.token)
        assert planned.status < 300, planned.text


async def test_a_connection_more_than_there_may_be_is_told_so(tmp_path: Path) -> None:
    async with served(tmp_path, door={"most": 3}) as running:
        held = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(3)]
        await asyncio.sleep(0)
        for reader, writer in held:
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        for _, one in [*held, (reader, writer)]:
            one.close()


async def test_whoever_tries_tokens_is_told_to_wait_and_whoever_has_one_is_not(tmp_path: Path) -> None:
    async with served(tmp_path) as running:
        token = running.token("read")
        tried = [await running.get("/metrics", token=f"{WRONG[:-2]}{at:02}") for at in range(30)]
        assert [one.status for one in tried] == [401] * 20 + [429] * 10
        assert int(tried[-1].header("Retry-After") or 0) > 0
        assert (await running.get("/metrics", token=token)).status == 200
