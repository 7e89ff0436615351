"""What the recording gateway costs: ``python tests/benchmarks/gateway.py [--json] [--full]``.

``corpusgen serve`` runs as a process of its own on a new corpus under a cap in dollars, in front of a loopback server
in another one that answers after 50 ms with 50 tokens; this process is the load. Every request has a prompt of about
100 tokens.

``overhead_cpu_ms``: processor time of the gateway (/proc/PID/stat, all threads) per recorded request, 32 at a time,
after a warm-up; ``paced_cpu_ms`` is the same at 200 a second, where commits carry one request and caches are cold.
``added_p50_ms``, ``added_p99_ms``: what a request takes beyond the 50 ms at 200 a second, each sent
at its own time whatever became of the others; wall time, so on a busy machine it says how busy: ``direct_p99_ms`` is
the same without the gateway, and ``fsync_p99_ms`` what the disk takes for one of the two commits of a request.
``hits_per_s``: answers that were known, by the gateway's processor time, which is what one core gives;
``hits_per_s_wall`` as they came. ``open_streams``: streamed answers of which each client had had the first event and
none the last at one moment. ``mb_start``, ``mb_after``: resident memory when ready and after ``requests`` recorded
requests. ``start_ready_s``, ``start_cpu_s``: from the start of the process until it says where it listens, and the
processor time that took, with compiled modules in place.

Short by default; ``--full`` takes 100 000 requests for the memory, 1 000 streams, and 30 s at 200 a second.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MODEL = "mock-teacher"
WORDS = [
    "explain",
    "the",
    "difference",
    "between",
    "soft",
    "targets",
    "and",
    "hard",
    "labels",
    "when",
    "a",
    "small",
    "student",
    "model",
    "is",
    "trained",
    "from",
    "a",
    "large",
    "teacher",
    "and",
    "name",
    "the",
    "budget",
    "the",
    "licence",
    "the",
    "cache",
    "key",
    "and",
    "the",
    "number",
    "of",
    "tokens",
    "that",
    "each",
    "answer",
    "may",
    "use",
]
LATENCY_S = 0.05
PER_S = 200
HITS = 200
"""Different requests that are asked again and again."""


def prompt(at: int) -> str:
    """About 100 tokens, distinct."""
    return f"REQ{at:08d} " + " ".join(WORDS[(at * 7 + n * (1 + at % 5)) % len(WORDS)] for n in range(85))


# --- the server behind ------------------------------------------------------------------------------------------------

_SAID = " ".join(WORDS[at % len(WORDS)] for at in range(50))
_USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}


def _whole() -> bytes:
    message = {"role": "assistant", "content": _SAID, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1790000000, "model": MODEL}
    raw = json.dumps(body | {"choices": [choice], "usage": _USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)


def _event(**fields: Any) -> bytes:
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": MODEL} | fields
    raw = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def _delta(text: str, end: str | None = None) -> bytes:
    delta = {"role": "assistant", "content": text} if end is None else {}
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": end}])


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = _delta("", "stop") + _event(choices=[], usage=_USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def _serve(streams_s: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                raw = await _message(reader)
                if b'"stream":true' in raw or b'"stream": true' in raw:
                    writer.write(_HEAD + _delta("so "))
                    for _ in range(10):
                        await asyncio.sleep(streams_s / 10)
                        writer.write(_delta("on "))
                    writer.write(_END)
                else:
                    asyncio.get_running_loop().call_later(LATENCY_S, writer.write, whole)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    whole = _whole()
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The body of the next HTTP message that has a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    at = head.lower().index(b"content-length:") + 15
    return await reader.readexactly(int(head[at : head.index(b"\r", at)]))


@contextmanager
def child(*command: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that says on its first line where it listens."""
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | env
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(command)} said nothing")
        yield running, line
    finally:
        running.terminate()
        running.wait(60)


# --- the load ---------------------------------------------------------------------------------------------------------


class Client:
    """Keeps connections and sends raw requests over them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)

    def request(self, text: str, **fields: Any) -> bytes:
        messages = [{"role": "user", "content": text}]
        raw = json.dumps({"model": MODEL, "messages": messages, "max_tokens": 64} | fields).encode()
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self.port, len(raw), raw)
        )

    async def ask(self, raw: bytes) -> bytes:
        reader, writer = found = await self.connection()
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(b"content-length:") + 15
        body = await reader.readexactly(int(head[at : head.index(b"\r", at)]))
        assert head.startswith(b"HTTP/1.1 200"), body
        self.free.append(found)
        return body

    async def many(self, numbers: range, at_once: int) -> None:
        left = iter(numbers)

        async def worker() -> None:
            for at in left:
                await self.ask(self.request(prompt(at)))

        await asyncio.gather(*(worker() for _ in range(at_once)))

    async def hits(self, seconds: float) -> int:
        known = [self.request(prompt(at)) for at in range(HITS)]
        until, done = time.monotonic() + seconds, 0

        async def worker(first: int) -> None:
            nonlocal done
            at = first
            while time.monotonic() < until:
                await self.ask(known[at % HITS])
                at, done = at + 1, done + 1

        await asyncio.gather(*(worker(at * 7) for at in range(32)))
        return done

    async def paced(self, numbers: range) -> list[float]:
        began, took = time.perf_counter(), []

        async def one(at: int, due: float) -> None:
            await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
            sent = time.perf_counter()
            await self.ask(self.request(prompt(at)))
            took.append(time.perf_counter() - sent - LATENCY_S)

        await asyncio.gather(*(one(at, index / PER_S) for index, at in enumerate(numbers)))
        return sorted(took)

    async def streams(self, count: int, first: int) -> int:
        """How many streams were open at once."""
        open_now = most = 0

        async def one(at: int) -> None:
            nonlocal open_now, most
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(self.request(prompt(at), stream=True))
            await reader.readuntil(b"data: ")
            open_now += 1
            most = max(most, open_now)
            await reader.readuntil(b"[DONE]")
            open_now -= 1
            writer.close()

        await asyncio.gather(*(one(first + at) for at in range(count)))
        return most


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def write_service(folder: Path, port: str) -> Path:
    """A ``service.yaml`` over a priced teacher."""
    teacher = {
        "name": f"endpoint/{MODEL}",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "provider": "corpusgen",
        "route": "mock",
        "in_flight": 2000,
        "parameters": {"max_tokens": 64},
        "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "source": "made up"},
    }
    use = {"student_distribution": "internal", "student_competes": "no", "commercial": False}
    limits = {"in_flight": 5000, "open_streams": 5000}
    told = {"intended_use": use, "budget": {"usd": 10_000}, "teachers": [teacher], "limits": limits}
    path = folder / "service.yaml"
    path.write_text(json.dumps(told))
    return path


def fsync_p99_ms(folder: Path) -> float:
    took = []
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(8_192))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
            time.sleep(0.005)
    return sorted(took)[197] * 1000


async def load(port: int, behind: int, pid: int, *, full: bool, told: Callable[[str], object]) -> dict[str, float]:
    client, found = Client(port), {"mb_start": resident_mb(pid)}
    await client.many(range(500), 32)
    told("recording")
    count, before = 10_000 if full else 2_000, processor_s(pid)
    await client.many(range(1_000, 1_000 + count), 32)
    found["overhead_cpu_ms"] = (processor_s(pid) - before) / count * 1000
    told("at 200 a second")
    seconds, before = 30 if full else 5, processor_s(pid)
    took = await client.paced(range(1_000_000, 1_000_000 + PER_S * seconds))
    found["paced_cpu_ms"] = (processor_s(pid) - before) / len(took) * 1000
    found |= {"added_p50_ms": took[len(took) // 2] * 1000, "added_p99_ms": took[len(took) * 99 // 100] * 1000}
    took = await Client(behind).paced(range(PER_S * 5))
    found["direct_p99_ms"] = took[len(took) * 99 // 100] * 1000
    told("hits")
    before, began = processor_s(pid), time.perf_counter()
    hits = await client.hits(10 if full else 3)
    found["hits_per_s"] = hits / (processor_s(pid) - before)
    found["hits_per_s_wall"] = hits / (time.perf_counter() - began)
    told("streams")
    found["open_streams"] = await client.streams(1_000 if full else 200, 2_000_000)
    done = 500 + count + PER_S * seconds + found["open_streams"]
    found["mb_before"] = resident_mb(pid)
    told("memory")
    more = 100_000 if full else 2_000
    await client.many(range(3_000_000, 3_000_000 + more), 64)
    return found | {"mb_after": resident_mb(pid), "requests": done + more}


def measure(*, full: bool, told: Callable[[str], object]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = {"CORPUSGEN_SIGNING_KEY": str(folder / "signing.pem"), "CORPUSGEN_CACHE": "off"}
        with child(sys.executable, __file__, "--serve", "30" if full else "3") as (_, port):
            config = write_service(folder, port.strip())
            serve = ("serve", "--corpus", str(folder / "corpus"), "--config", str(config), "--port", "0", "--json")
            began = time.perf_counter()
            with child(sys.executable, "-m", "corpusgen", *serve, **key) as (running, line):
                ready, used_s = time.perf_counter() - began, processor_s(running.pid)
                at = urlsplit(json.loads(line)["url"]).port or 0
                found = asyncio.run(load(at, int(port), running.pid, full=full, told=told))
        return {"start_ready_s": ready, "start_cpu_s": used_s, **found, "fsync_p99_ms": fsync_p99_ms(folder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="100 000 requests, 1 000 streams, 30 s at 200 a second")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        asyncio.run(_serve(chosen.serve))
        return
    found = measure(full=chosen.full, told=lambda what: print(what, file=sys.stderr))
    found = {name: round(value, 3) for name, value in found.items()}
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<20} {value:>12,}")


if __name__ == "__main__":
    main()
