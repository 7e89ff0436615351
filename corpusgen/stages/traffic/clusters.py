"""Which calls ask the same kind of thing: by template, else as the very same call, else by what they are about.

Two passes over the calls. The first draws a bounded sample of different prompts by lots that hang on the prompts alone,
and learns templates and directions from it. The second puts every call to its cluster. Neither holds more texts than
the sample, whatever the number of calls.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from corpusgen.curation.clusters import clustered
from corpusgen.curation.embed import Vectors
from corpusgen.curation.lexical import Lexical, learnt, words
from corpusgen.curation.meaning_words import FILLERS
from corpusgen.curation.near import NearIndex
from corpusgen.stages.traffic.reading import Heard, Reader, mark_of
from corpusgen.stages.traffic.templates import HEAD, TAIL, Matcher, Template, Words, mined, words_of

SAMPLE: Final = 8_000
"""Different prompts that are held at once."""
SAMPLE_CHARACTERS: Final = 24_000_000
COUNTED: Final = 262_144
"""Different prompts whose repeats are counted one by one; of more, those that lots fall on."""
OFTEN: Final = 20
"""How often the very same call makes a cluster of its own."""
MOST_OFTEN: Final = 1_000
NEAR: Final = 0.9
"""Word-multiset Jaccard from which on two templates are versions of one."""
TOGETHER: Final = 0.35
"""Cosine to the centre from which on a call without a template belongs to a cluster."""
SAME_CENTRE: Final = 0.75
PER_CENTRE: Final = 60
MOST_CENTRES: Final = 32
FEWEST_FREE: Final = 30
"""Different prompts without a template from which on they are told apart by meaning."""
AT_ONCE: Final = 512
_TURNS_REMEMBERED: Final = 4_096
_LOTS: Final = 2**64


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Calls that ask the same kind of thing."""

    number: int
    kind: str
    """``template``, ``same call``, ``meaning`` or ``other``."""
    templates: tuple[Template, ...] = ()
    """The versions of its template, the most frequent one first."""
    about: tuple[str, ...] = ()
    """Words that say what calls without a template are about."""


@dataclass(order=True, slots=True)
class _Drawn:
    lot: int
    shape: str = field(compare=False)
    before: str = field(compare=False)
    text: str = field(compare=False)

    @property
    def size(self) -> int:
        return len(self.before) + len(self.text)


@dataclass(kw_only=True)
class _Sample:
    """Different prompts by lots: those with the lowest, as many as there is room for."""

    drawn: list[_Drawn] = field(default_factory=list)
    marks: set[int] = field(default_factory=set)
    characters: int = 0

    def add(self, heard: Heard, mark: int) -> None:
        lot = -(mark * 0x9E3779B97F4A7C15 % _LOTS)
        full = len(self.drawn) >= SAMPLE or self.characters >= SAMPLE_CHARACTERS
        if mark in self.marks or (full and lot < self.drawn[0].lot):
            return
        one = _Drawn(lot, shape_of(heard), _ends(heard.before), _ends(heard.text))
        self.marks.add(mark)
        heapq.heappush(self.drawn, one)
        self.characters += one.size
        while len(self.drawn) > SAMPLE or self.characters > SAMPLE_CHARACTERS:
            self.characters -= heapq.heappop(self.drawn).size


def _ends(text: str) -> str:
    return text if len(text) <= HEAD + TAIL else text[:HEAD] + text[-TAIL:]


def shape_of(heard: Heard) -> str:
    """What must agree beside the wording: the functions and the schema that go along."""
    return f"{heard.tools}/{heard.form}"


@dataclass(kw_only=True)
class Repeats:
    """How often each prompt was asked; of more prompts than can be counted, a share that lots fall on."""

    counts: dict[int, int] = field(default_factory=dict)
    below: int = _LOTS

    def add(self, mark: int, times: int = 1) -> None:
        """Count a prompt."""
        if mark < self.below:
            self.counts[mark] = self.counts.get(mark, 0) + times
            if len(self.counts) > COUNTED:
                self.below //= 2
                self.counts = {one: count for one, count in self.counts.items() if one < self.below}


@dataclass(kw_only=True)
class Sorter:
    """Puts each call to its cluster."""

    clusters: list[Cluster]
    matcher: Matcher
    of_template: Sequence[int]
    of_mark: dict[int, int]
    embedder: Lexical | None
    centres: Vectors | None
    of_centre: Sequence[int]
    other: int
    _following: OrderedDict[int, tuple[dict[Any, Any], ...]] = field(default_factory=OrderedDict)

    def sorted(self, calls: Iterator[Heard]) -> Iterator[tuple[int, Heard]]:
        """Every call with the number of its cluster."""
        waiting: list[Heard] = []
        for heard in calls:
            number = self._at_once(heard)
            if number is not None:
                yield number, heard
                continue
            waiting.append(heard)
            if len(waiting) >= AT_ONCE:
                yield from self._by_meaning(waiting)
                waiting = []
        yield from self._by_meaning(waiting)

    def template_of(self, heard: Heard) -> Template | None:
        """The template of a call."""
        found = self._template(heard)
        return None if found is None else self.matcher.templates[found]

    def _at_once(self, heard: Heard) -> int | None:
        if (same := self.of_mark.get(heard.mark)) is not None:
            return same
        if (found := self._template(heard)) is not None:
            return self.of_template[found]
        return self.other if self.centres is None else None

    def _template(self, heard: Heard) -> int | None:
        return self.matcher.match(self._after(shape_of(heard), heard.before), words_of(heard.text))

    def _after(self, shape: str, before: str) -> tuple[dict[Any, Any], ...]:
        """What may follow the turns before, which are often the same ones."""
        key = mark_of(f"{shape}\0{before}")
        known = self._following.get(key)
        if known is None:
            known = self._following[key] = self.matcher.before(shape, words_of(before))
            if len(self._following) > _TURNS_REMEMBERED:
                self._following.popitem(last=False)
        return known

    def _by_meaning(self, calls: Sequence[Heard]) -> Iterator[tuple[int, Heard]]:
        if not calls or self.embedder is None or self.centres is None:
            return
        nearness = self.embedder.embed([heard.text for heard in calls]) @ self.centres.T
        for heard, row in zip(calls, nearness, strict=True):
            at = int(row.argmax())
            yield (self.of_centre[at] if row[at] >= TOGETHER else self.other), heard


def learn_clusters(read: Reader) -> Sorter:
    """What a first pass over the calls says of how they are to be told apart."""
    sample, repeats, often = _Sample(), Repeats(), dict[int, _Drawn]()
    for heard in read():
        mark = heard.mark
        sample.add(heard, mark)
        repeats.add(mark, heard.asked + heard.hits)
        if repeats.counts.get(mark, 0) >= OFTEN and mark not in often and len(often) < MOST_OFTEN:
            often[mark] = _Drawn(0, shape_of(heard), _ends(heard.before), _ends(heard.text))
    return _sorter(sorted(sample.drawn, key=lambda one: (one.lot, one.text)), often)


def _sorter(drawn: Sequence[_Drawn], often: Mapping[int, _Drawn]) -> Sorter:
    before: dict[str, Words] = {}
    rows = [(one.shape, before.setdefault(one.before, words_of(one.before)), words_of(one.text)) for one in drawn]
    templates = mined(rows)
    matcher = Matcher(templates=templates)
    free, of_sample = [], Counter[int]()
    for one, (shape, turns, last) in zip(drawn, rows, strict=True):
        found = matcher.match(matcher.before(shape, turns), last)
        if found is None:
            free.append(one)
        else:
            of_sample[found] += 1
    clusters, of_template = _of_templates(templates, of_sample)
    of_mark = _same_calls(often, matcher, clusters)
    embedder, centres, of_centre = _meanings([one.text for one in free if _mark(one) not in of_mark], clusters)
    clusters.append(Cluster(number=len(clusters), kind="other"))
    return Sorter(
        clusters=clusters,
        matcher=matcher,
        of_template=of_template,
        of_mark=of_mark,
        embedder=embedder,
        centres=centres,
        of_centre=of_centre,
        other=len(clusters) - 1,
    )


def _mark(one: _Drawn) -> int:
    tools, _, form = one.shape.partition("/")
    return mark_of(f"{tools}\0{form}\0{one.before}\0{one.text}")


def _of_templates(templates: Sequence[Template], of_sample: Counter[int]) -> tuple[list[Cluster], list[int]]:
    """One cluster for the versions of a template: wordings that nearly repeat each other."""
    order = sorted(range(len(templates)), key=lambda at: (-of_sample[at], at))
    texts = [f"{one.shape} {' '.join(one.fixed)}".replace("\0", "") for one in templates]
    index = NearIndex(text_of=texts.__getitem__, threshold=NEAR)
    groups: dict[int, list[int]] = {}
    for at in order:
        found = index.add(texts[at], at) if templates[at].fixed else None
        kept = at if found is None or found.other is None else int(found.other)
        groups.setdefault(kept, []).append(at)
    of_template = [0] * len(templates)
    for number, members in enumerate(groups.values()):
        for at in members:
            of_template[at] = number
    versions = [tuple(templates[at] for at in members) for members in groups.values()]
    return [Cluster(number=at, kind="template", templates=ones) for at, ones in enumerate(versions)], of_template


def _same_calls(often: Mapping[int, _Drawn], matcher: Matcher, clusters: list[Cluster]) -> dict[int, int]:
    """One cluster for each call that comes again and again and is of no template."""
    found: dict[int, int] = {}
    for mark, one in often.items():
        if matcher.match(matcher.before(one.shape, words_of(one.before)), words_of(one.text)) is None:
            found[mark] = len(clusters)
            clusters.append(Cluster(number=len(clusters), kind="same call", about=telling_words([one.text])))
    return found


def _meanings(texts: Sequence[str], clusters: list[Cluster]) -> tuple[Lexical | None, Vectors | None, list[int]]:
    """Clusters of texts without a template by their directions; none where there are too few."""
    if len(texts) < FEWEST_FREE:
        return None, None, []
    embedder = learnt(texts)
    rows = embedder.embed(texts)
    found = clustered(rows, max(1, min(MOST_CENTRES, len(texts) // PER_CENTRE)), seed=1)
    group = _merged(found.centres)
    of_centre = [0] * len(group)
    for leader in dict.fromkeys(group):
        near = [at for at, of_row in enumerate(found.of_row) if group[of_row] == leader]
        about = telling_words([texts[at] for at in near])
        for at, other in enumerate(group):
            if other == leader:
                of_centre[at] = len(clusters)
        clusters.append(Cluster(number=len(clusters), kind="meaning", about=about))
    return embedder, found.centres, of_centre


def _merged(centres: Vectors) -> list[int]:
    """For each centre the first one that points the same way."""
    near = centres @ centres.T >= SAME_CENTRE
    return [int(np.argmax(row)) for row in near]


def telling_words(texts: Sequence[str], most: int = 6) -> tuple[str, ...]:
    """The words that most of the texts have, without those that say nothing."""
    counts = Counter(word for text in texts[:2_000] for word in {*words(text[:2_000])})
    said = (word for word, _ in counts.most_common(200) if word not in FILLERS and len(word) > 2)
    return tuple(word for word, _ in zip(said, range(most), strict=False))
