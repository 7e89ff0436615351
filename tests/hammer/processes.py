"""Processes that start at once: forks of a parent that has read every module and started no thread."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import orjson

from corpusgen.errors import CorpusgenError
from corpusgen.mock.server import Options, mock_teacher

CRASHED = 70
STUCK = 71


def fork(work: Callable[[], int]) -> int:
    """A child that does the work and exits with what it gives back; its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        code = work()
    except CorpusgenError as error:
        code = error.exit_code
        if code != 3:
            sys.stderr.write(f"worker: {type(error).__name__}: {error}\n")
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int | None:
    """The exit code of a child (negative: the signal that killed it), or None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def wait(pid: int, within_s: float) -> int:
    """The exit code of a child; one that takes too long is killed and counts as stuck."""
    until = time.monotonic() + within_s
    while (code := ended(pid)) is None:
        if time.monotonic() > until:
            kill(pid)
            return STUCK
        time.sleep(0.01)
    return code


def kill(pid: int) -> bool:
    """Kill -9 and bury; False if it had ended by itself."""
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def in_child(work: Callable[[], Any], within_s: float = 120.0) -> Any:
    """What some work finds, done in a child so that this process opens no database."""
    reading, writing = os.pipe()

    def tell() -> int:
        os.close(reading)
        with os.fdopen(writing, "wb") as out:
            out.write(orjson.dumps(work()))
        return 0

    pid = fork(tell)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read()
    if wait(pid, within_s) != 0:
        raise RuntimeError("a child of the hammer failed; its words are above")
    return orjson.loads(said)


class Teacher:
    """A mock teacher in a process of its own, as its clients and its accountant see it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def _speak(self, method: str, path: str) -> dict[str, Any]:
        url = self.base_url.removesuffix("/v1") + path
        with urlopen(Request(url, method=method), timeout=30) as reply:
            said: dict[str, Any] = orjson.loads(reply.read())
            return said

    def bill(self) -> dict[str, Any]:
        """The bill, now."""
        return self._speak("GET", "/bill")

    def last_bill(self) -> dict[str, Any]:
        """The bill once nothing more is being written on it."""
        before, now = self.bill(), None
        while now != before:
            time.sleep(0.25)
            before, now = now or before, self.bill()
        return now

    def reset(self) -> None:
        """Forget everything."""
        self.last_bill()
        self._speak("POST", "/reset")


@contextmanager
def teacher_process(options: Options) -> Iterator[Teacher]:
    """A running mock teacher; leaving the block ends it."""
    reading, writing = os.pipe()

    async def serve() -> None:
        async with mock_teacher(options) as mock:
            os.write(writing, mock.base_url.encode())
            os.close(writing)
            await asyncio.Event().wait()

    def run() -> int:
        os.close(reading)
        asyncio.run(serve())
        return 0

    pid = fork(run)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as told:
            yield Teacher(told.read().decode())
    finally:
        kill(pid)
