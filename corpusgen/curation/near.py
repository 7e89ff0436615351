"""Near-duplicates as texts come: each is compared with the kept texts it resembles, and with those only.

Texts that share a band of their digests are candidates; a candidate is read back and checked: its words without the
template, as a multiset, and then what differs. A text is dropped for a kept one only, so chains do not grow.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from corpusgen.curation.buckets import Buckets, Keys, Meeting, band_keys
from corpusgen.curation.differences import SHORT, Comparison, Reading, compared, same_word
from corpusgen.curation.finding import Finding
from corpusgen.curation.meaning_words import FILLERS
from corpusgen.curation.minhash import PERMUTATIONS, Digests, least_hashes
from corpusgen.curation.shingles import fingerprint, words

MARK_BYTES = 16
DIGEST_BYTES = MARK_BYTES + 4 * PERMUTATIONS
"""What is stored of a text: the fingerprint of its normalised form, then 126 least hashes."""
COMPARED = 12
"""Candidates that are read back for one text at most."""
AT_ONCE, CHARACTERS = 256, 2_000_000
"""Texts whose digests are computed together, and how long they are together at most, if there is more than one."""
_REMEMBERED = 500_000
"""Characters of kept texts that stay in memory, with what was worked out of them."""

LeastHashes = Callable[[Sequence[Sequence[str]]], Digests]


def without_template(text: str, template: Sequence[str]) -> str:
    """The text without the pieces it shares with all texts of its template; the whole text if nothing else is left."""
    parts, rest = [], text
    for piece in template:
        before, found, after = rest.partition(piece) if piece.strip() else (rest, "", "")
        if found:
            parts.append(before)
            rest = after
    own = "\n".join([*parts, rest]) if parts else text
    return own if own.strip() else text


def digests(texts: Sequence[str], *, template: Sequence[str] = (), least: LeastHashes = least_hashes) -> list[bytes]:
    """What is stored of each text, 520 bytes, so that an index can be built again without the texts."""
    return [
        digest
        for begin, end in _portions(texts)
        for digest in _digests([_Text(text, template) for text in texts[begin:end]], least)
    ]


def _portions(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    begin = length = 0
    for end, text in enumerate(texts):
        if end > begin and (end - begin >= AT_ONCE or length + len(text) > CHARACTERS):
            yield begin, end
            begin, length = end, 0
        length += len(text)
    if begin < len(texts):
        yield begin, len(texts)


def _digests(texts: Sequence[_Text], least: LeastHashes) -> Iterator[bytes]:
    rows = least([text.words for text in texts])
    for text, row in zip(texts, rows, strict=True):
        yield fingerprint(text.whole) + row.astype("<u4").tobytes()


class _Text:
    """A text and what is worked out of it when it is asked for."""

    def __init__(self, whole: str, template: Sequence[str]) -> None:
        self.whole = whole
        self.own = without_template(whole, template) if template else whole

    @cached_property
    def words(self) -> list[str]:
        return words(self.own)

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.words)

    @cached_property
    def telling(self) -> Counter[str]:
        return Counter(word for word in self.words if word not in FILLERS)

    @cached_property
    def reading(self) -> Reading:
        return Reading(self.own)


def alike(one: _Text, two: _Text) -> float:
    """Jaccard of the two texts' words, each as often as it stands there.

    Of short texts only words that say something count, and another spelling of a word is the same word.
    """
    if max(len(one.words), len(two.words)) >= SHORT or not (one.telling and two.telling):
        return _jaccard(_common(one.counts, two.counts), one.counts, two.counts)
    common = one.telling & two.telling
    left, right = one.telling - common, two.telling - common
    spelt = sum(any(same_word(word, other) for other in right) for word in left)
    return _jaccard(common.total() + spelt, one.telling, two.telling)


def _common(left: Counter[str], right: Counter[str]) -> int:
    both = left.keys() & right.keys()
    return sum(map(min, map(left.__getitem__, both), map(right.__getitem__, both)))


def _jaccard(common: int, left: Counter[str], right: Counter[str]) -> float:
    total = left.total() + right.total()
    return common / (total - common) if total else 1.0


class NearIndex:
    """The kept texts, and for each further text whether it repeats one of them.

    ``text_of(n)`` reads the n-th text back. ``threshold`` is the word-multiset Jaccard from which on two texts may be
    duplicates, above 0 and at most 1. ``template`` holds the literal pieces of the prompt file, in order: what all
    texts share is left out of account. ``max_bucket`` bounds the kept texts that one band names, 1 or more. ``keep`` is
    handed the number and the digest of each text that is indexed, as `digests` gives it. ``least`` computes the least
    hashes; one index is for one way of computing them.
    """

    def __init__(
        self,
        *,
        text_of: Callable[[int], str],
        threshold: float = 0.64,
        template: Sequence[str] = (),
        max_bucket: int = 16,
        keep: Callable[[int, bytes], None] | None = None,
        least: LeastHashes = least_hashes,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold!r}; it must be above 0 and at most 1")
        if max_bucket < 1:
            raise ValueError(f"max_bucket is {max_bucket!r}; it must be 1 or more")
        self._text_of = text_of
        self._threshold = threshold
        self._template = tuple(template)
        self._on_keep = keep
        self._least = least
        self._buckets = Buckets(most=max_bucket)
        self._exact: dict[bytes, int] = {}
        self._numbers = np.empty(1024, np.int64)
        self._waiting: list[tuple[bytes, int]] = []
        self._recent: OrderedDict[int, _Text] = OrderedDict()
        self._remembered = 0

    def __len__(self) -> int:
        return len(self._buckets) + len(self._waiting)

    def add(self, text: str, n: int) -> Finding | None:
        """None if the text is new, and it is indexed as the n-th; otherwise which kept text it repeats."""
        return self.add_many([text], [n])[0]

    def add_many(self, texts: Sequence[str], numbers: Sequence[int]) -> list[Finding | None]:
        """What `add` says of each text, one after the other; many at a time are quicker."""
        self._settle()
        found: list[Finding | None] = []
        for begin, end in _portions(texts):
            some = [_Text(text, self._template) for text in texts[begin:end]]
            rows = self._least([text.words for text in some])
            keys = band_keys(rows)
            found += map(self._add, some, numbers[begin:end], rows, keys)
        return found

    def add_digested(self, digest: bytes, n: int) -> None:
        """Indexes a kept text by what `digests` gave for it, in the order in which the texts were kept."""
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"a digest of {len(digest)} bytes; those of this version have {DIGEST_BYTES}")
        self._waiting.append((digest, n))

    def candidates(self, text: str) -> list[int]:
        """Numbers of the kept texts a text would be compared with, in this order."""
        self._settle()
        asked = _Text(text, self._template)
        rows = self._least([asked.words])
        found: list[int] = self._numbers[self._meet(asked, rows[0], band_keys(rows)[0]).rows].tolist()
        return found

    def compared(self, text: str, numbers: Iterable[int]) -> Finding | None:
        """What check and guard say of a text and these kept ones, in this order; nothing is indexed."""
        return self._compared(_Text(text, self._template), numbers)

    def repeats(self, text: str, kept: str) -> bool:
        """Whether check and guard call a text a duplicate of another."""
        return self._checked(_Text(text, self._template), _Text(kept, self._template)) is not None

    def _add(self, text: _Text, n: int, row: Digests, keys: Keys) -> Finding | None:
        mark = fingerprint(text.whole)
        if (same := self._exact.get(mark)) is not None:
            return _exact_repeat(same)
        meeting = self._meet(text, row, keys)
        found = self._compared(text, self._numbers[meeting.rows].tolist())
        if found is not None:
            return found
        self._keep(mark, n)
        self._buckets.add(row, keys, meeting.room)
        self._remember(n, text)
        if self._on_keep is not None:
            self._on_keep(n, mark + row.astype("<u4").tobytes())
        return None

    def _compared(self, text: _Text, numbers: Iterable[int]) -> Finding | None:
        """The first text it repeats; one whose names differ here and there only if there is no better."""
        doubtful: Finding | None = None
        for other in numbers:
            found = self._checked(text, self._read(other))
            if found is not None:
                score, comparison = found
                repeat = self._near_repeat(other, score, comparison.shown())
                if not comparison.conflicts:
                    return repeat
                doubtful = doubtful or repeat
        return doubtful

    def _meet(self, text: _Text, row: Digests, keys: Keys) -> Meeting:
        return self._buckets.meet(row, keys, words=len(text.words), most=COMPARED)

    def _checked(self, text: _Text, kept: _Text) -> tuple[float, Comparison] | None:
        """How alike two texts are and what differs, if they are duplicates."""
        few, many = sorted((len(text.words), len(kept.words)))
        if few < self._threshold * many and many >= SHORT:
            return None
        score = alike(text, kept)
        if score < self._threshold:
            return None
        comparison = compared(text.reading, kept.reading)
        return (score, comparison) if comparison.apart is None else None

    def _near_repeat(self, other: int, score: float, detail: str) -> Finding:
        return Finding(
            check="near",
            kept=False,
            reason="nearly repeats an earlier text",
            metric="word-multiset Jaccard",
            score=score,
            threshold=self._threshold,
            other=str(other),
            detail=detail,
        )

    def _read(self, n: int) -> _Text:
        """A kept text, from memory if it was met lately."""
        known = self._recent.get(n)
        if known is None:
            known = _Text(self._text_of(n), self._template)
            self._remember(n, known)
        else:
            self._recent.move_to_end(n)
        return known

    def _remember(self, n: int, text: _Text) -> None:
        self._recent[n] = text
        self._remembered += len(text.whole)
        while self._remembered > _REMEMBERED:
            self._remembered -= len(self._recent.popitem(last=False)[1].whole)

    def _keep(self, mark: bytes, n: int) -> None:
        row = len(self._exact)
        self._exact[mark] = n
        if row >= len(self._numbers):
            self._numbers = np.concatenate([self._numbers, np.empty(row // 2, np.int64)])
        self._numbers[row] = n

    def _settle(self) -> None:
        """Indexes what `add_digested` was given."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for digest, n in waiting:
            self._keep(digest[:MARK_BYTES], n)
        least = b"".join([digest[MARK_BYTES:] for digest, _ in waiting])
        self._buckets.add_many(np.frombuffer(least, "<u4").reshape(-1, PERMUTATIONS).astype(np.uint32))


def _exact_repeat(other: int) -> Finding:
    return Finding(
        check="near",
        kept=False,
        reason="repeats an earlier text",
        metric="exact",
        score=1.0,
        threshold=1.0,
        other=str(other),
        detail="differs at most in case, spacing and Unicode form",
    )
