"""How often Python looks for cyclic garbage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SELDOM: Final = 15_000
"""Objects between two looks, where Python's own choice is 700."""

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
