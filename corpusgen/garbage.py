"""How often Python looks for cyclic garbage, and what becomes of large blocks of memory that are free again."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

SELDOM: Final = 5_000
"""Objects between two looks, where Python's own choice is 700; each takes 3 ms, in which nobody is answered."""

_changing = threading.Lock()
_before: list[tuple[int, int, int]] = []
"""What was set before, once for each that is open."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """While it is open, Python looks for cyclic garbage less often; the last of several to close puts that back.

    Asking and writing make next to no cycles but many objects, and looking took a twelfth of their processor time.
    """
    with _changing:
        now = gc.get_threshold()
        _before.append(_before[0] if _before else now)
        if 0 < now[0] < SELDOM:  # 0 is never: somebody has decided that
            gc.set_threshold(SELDOM, *now[1:])
    try:
        yield
    finally:
        with _changing:
            before = _before.pop()
            if not _before and gc.get_threshold() == (SELDOM, *before[1:]):
                gc.set_threshold(*before)


LARGE: Final = 320 * 1024
"""More than the 256 KiB that asyncio asks for at each read: those stay on the heap, where they cost no system call."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def large_blocks_given_back() -> None:
    """From now on memory in blocks of ``LARGE`` bytes and more goes back to the system as soon as it is free.

    glibc raises that bound by itself to what was freed last, so that the few megabytes that a row group or a file of
    seeds takes for a moment stay with the process for good (mallopt(3)). Other systems' ways are left as they are.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError, OSError):  # musl has no such thing
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
            libc.mallopt(_M_TRIM_THRESHOLD, LARGE)
