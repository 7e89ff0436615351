"""Near-duplicates of what is kept; the texts lie in a file that is gone when this process ends, not in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import apsw

from corpusgen.curation.finding import Finding

if TYPE_CHECKING:
    from corpusgen.curation.near import NearIndex


@dataclass(kw_only=True)
class Kept:
    """Texts that are kept, each under a name; new ones are compared with them."""

    threshold: float
    digests: dict[int, bytes] = field(default_factory=dict)
    """Of what was kept by the last ``add``, by number."""
    _file: apsw.Connection = field(default_factory=lambda: apsw.Connection(""))
    _count: int = 0
    _index: NearIndex | None = None

    def __post_init__(self) -> None:
        self._file.pragma("journal_mode", "off")
        self._file.execute("create table texts(n integer primary key, name text, text blob); begin")

    def put(self, names: Sequence[str], texts: Sequence[str]) -> list[int]:
        """Have texts at hand without comparing them, as what was kept before; their digests are handed over later."""
        numbers = list(range(self._count, self._count + len(names)))
        self._count += len(names)
        rows = zip(numbers, names, map(_storable, texts), strict=True)
        self._file.executemany("insert into texts values(?, ?, ?)", rows)
        return numbers

    def restore(self, digests: Iterable[tuple[int, bytes]]) -> None:
        """Compare with what was kept before from now on: its numbers and digests, in order."""
        for number, digest in digests:
            self.index.add_digested(digest, number)

    def index_again(self, numbers: Sequence[int]) -> None:
        """Compare with texts that were put here and whose digests are lost."""
        if numbers:
            from corpusgen.curation.near import digests

            self.restore(zip(numbers, digests([self.text(number) for number in numbers]), strict=True))

    def add(self, names: Sequence[str], texts: Sequence[str]) -> list[Finding | None]:
        """For each text, in order, the finding that says which kept one it repeats; None where it is kept."""
        self.digests.clear()
        found = self.index.add_many(texts, self.put(names, texts))
        return [one and replace(one, other=self._name(one.other)) for one in found]

    @property
    def index(self) -> NearIndex:
        """What finds candidates; made when it is first needed."""
        if self._index is None:
            from corpusgen.curation.near import NearIndex

            keep = self.digests.__setitem__
            self._index = NearIndex(text_of=self.text, threshold=self.threshold, keep=keep)
        return self._index

    def text(self, number: int) -> str:
        """A text that was put here."""
        stored = self._file.execute("select text from texts where n = ?", (number,)).get
        assert isinstance(stored, bytes)
        return stored.decode("utf-8", "surrogatepass")

    def _name(self, number: str | None) -> str:
        return str(self._file.execute("select name from texts where n = ?", (int(number or 0),)).get)


def _storable(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
