"""A server that answers chat requests and refuses what passes a limit: ``python limiter.py`` prints its port.

The limit is in the address: under ``/c200-b20-n0.3-l50-h1/v1`` 200 requests a second are taken, 20 at once before
that counts, 30 % are refused for no reason, an answer takes 50 ms, headers name the limit; every name is a server of
its own; ``c0`` is free. ``GET /NAME`` says what it has seen. Time in which this process was ready to run and another
one had the processor is not held against those who sent meanwhile (Linux counts it).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import sys
from dataclasses import dataclass, field
from typing import Any

ANSWER = json.dumps(
    {
        "id": "a",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
    }
).encode()
REFUSAL = b'{"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}'


@dataclass(kw_only=True)
class Lane:
    """One limit, and what has come up against it."""

    per_s: float
    burst: float
    noise: float
    latency_s: float
    tells: bool
    left: float = 0.0
    seen: float = 0.0
    grace: float = 0.0
    """More than the burst that may be left, for what arrived while this process could not look."""
    waited_s: float = 0.0
    first: float = 0.0
    last: float = 0.0
    taken: int = 0
    refused: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(1))

    def takes(self, now: float) -> bool:
        self.first = self.first or now
        taken = self._has_room(now) and self.draw.random() >= self.noise
        self.taken += taken
        self.refused += not taken
        if taken:
            self.last = now
        return taken

    def _has_room(self, now: float) -> bool:
        if not self.per_s:
            return True
        if not self.seen:
            self.left, self.seen, self.waited_s = self.burst, now, waited_s()
        came, waited = (now - self.seen) * self.per_s, waited_s()
        self.grace = max(0.0, self.grace - came) + (waited - self.waited_s) * self.per_s
        self.left = min(self.burst + self.grace, self.left + came)
        self.seen, self.waited_s = now, waited
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def limit(self) -> bytes:
        return b"x-ratelimit-limit-requests: %d\r\n" % (self.per_s * 60) if self.tells else b""

    def pause(self) -> bytes:
        milliseconds = math.ceil((1 - self.left) / self.per_s * 1000) if self.per_s else 1
        return b"retry-after-ms: %d\r\nRetry-After: 1\r\n" % max(1, milliseconds)


def waited_s() -> float:
    """Seconds for which this process has waited for a processor; 0 where nobody counts them."""
    return int(os.pread(SCHEDSTAT, 99, 0).split()[1]) / 1e9 if SCHEDSTAT is not None else 0.0


def schedstat() -> int | None:
    try:
        return os.open("/proc/self/schedstat", os.O_RDONLY)
    except OSError:
        return None


SCHEDSTAT = schedstat()
LANES: dict[str, Lane] = {}


def lane(name: str) -> Lane:
    if name not in LANES:
        said = {part[0]: float(part[1:]) for part in name.split("-")}
        LANES[name] = Lane(
            per_s=said.get("c", 0),
            burst=said.get("b", 1),
            noise=said.get("n", 0),
            latency_s=said.get("l", 50) / 1000,
            tells=bool(said.get("h", 0)),
        )
    return LANES[name]


class Talk(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < whole:
                return
            self.buffer = self.buffer[whole:]
            self.serve(head.split(b" ", 2))

    def serve(self, words: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        here = lane(words[1].decode().split("/")[1])
        if words[0] == b"GET":
            seen = {"first": here.first, "last": here.last, "taken": here.taken, "refused": here.refused}
            self.say(b"200 OK", json.dumps(seen).encode())
        elif here.takes(loop.time()):
            loop.call_later(here.latency_s, self.say, b"200 OK", ANSWER, here.limit())
        else:
            self.say(b"429 Too Many Requests", REFUSAL, here.pause() + here.limit())

    def say(self, status: bytes, body: bytes, headers: bytes = b"") -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
        if not self.transport.is_closing():
            self.transport.write(head % (status, headers, len(body)) + body)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Talk, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Until whoever started it closes the other end, or dies.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
