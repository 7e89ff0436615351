"""Answers at hand: what was said to the very same bytes a while ago, ready to be said again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from corpusgen.serve.rooms import Room

REMEMBERED_BYTES: Final = 24 << 20
LARGEST_REMEMBERED: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """An answer that is ready to be given again to the very same bytes."""

    room: Room
    body: bytes
    headers: Mapping[str, str]
    """What goes with it, its content type among it."""
    record_id: str
    saved_microusd: int
    judged_at: object = None
    """What its terms were last judged by: the day, and the stamp of everything that the room's permit looks at."""


@dataclass(kw_only=True)
class Memory:
    """The answers that were given last, by what was sent, as many as fit."""

    most_bytes: int = REMEMBERED_BYTES
    size: int = 0
    _found: OrderedDict[bytes, Remembered] = field(default_factory=OrderedDict)

    def get(self, mark: bytes) -> Remembered | None:
        """An answer, which is then the last one to be forgotten."""
        found = self._found.get(mark)
        if found is not None:
            self._found.move_to_end(mark)
        return found

    def keep(self, mark: bytes, found: Remembered) -> None:
        """Keep an answer in the place of an earlier one, unless it is large, and forget the oldest for it."""
        if (earlier := self._found.pop(mark, None)) is not None:
            self.size -= _weight(earlier)
        if len(found.body) > LARGEST_REMEMBERED:
            return
        self._found[mark] = found
        self.size += _weight(found)
        while self.size > self.most_bytes:
            _, oldest = self._found.popitem(last=False)
            self.size -= _weight(oldest)

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()
        self.size = 0


def _weight(found: Remembered) -> int:
    return len(found.body) + 2_000
