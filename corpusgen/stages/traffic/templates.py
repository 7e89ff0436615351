"""Templates that nobody wrote down: what prompts have in common at their beginning and at their end.

A prompt is cut into words, in which numbers, names with digits, addresses and quoted parts count as one and the same.
Where many prompts go on alike for several words, that is wording of a template; where each goes on in its own way, a
slot begins. Every step goes over each prompt once, so the work grows with the number of prompts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

HEAD: Final = 6_000
TAIL: Final = 2_000
"""Characters at the beginning and at the end of a text in which its template is sought."""
LEAST: Final = 5
"""Different prompts that make a template."""
RUN: Final = 3
"""Words that go on alike, from which on they are wording and no chance."""
RUN_AFTER: Final = 6
"""The same after turns that say what to do: one system prompt is one task, unless much of what follows differs."""
LEADS: Final = ":"
"""What makes wording even of one word before it, at the beginning of a prompt."""
LONG_RUN: Final = 12
"""Words in a row that are wording even where most prompts go on otherwise."""
ALIKE: Final = 0.95
"""The share of prompts that have a word at its place, for it to belong to a run."""
MOST_SPLIT: Final = 0.8
"""The share of prompts that must fall into branches for a place to be a choice between templates, not a slot."""
MOST_CHOICES: Final = 8
MOST_BRANCHES: Final = 20
"""Templates that begin with the same dozen words and more, at most."""
TELLING: Final = 5
"""Words of fixed wording that make a template."""
SAYING: Final = 12
"""Words that turns before must have in common to make one by themselves; "You are a helpful assistant" does not."""

NUMBER: Final = "\0number"
QUOTED: Final = "\0quoted"
ADDRESS: Final = "\0address"
Words: TypeAlias = tuple[str, ...]

_PIECE = re.compile(
    r"(?P<address>https?://[^\s<>\"]+)"
    r"|(?P<quoted>\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|(?<![\w])'[^'\n]{1,400}'(?!\w))"
    r"|(?P<number>[+-]?\d[\d.,:/-]*\d(?!\w)|\w*\d\w*)"
    r"|\w+|[^\w\s]"
)
_MASKS: Final = {"address": ADDRESS, "quoted": QUOTED, "number": NUMBER}


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as words, each with where it stands."""

    words: Words
    spans: tuple[tuple[int, int], ...]


def cut(text: str) -> Cut:
    """The words of a text; of a long one those of its beginning and of its end."""
    if len(text) <= HEAD + TAIL:
        return _cut(text, 0)
    first, last = _cut(text[:HEAD], 0), _cut(text[-TAIL:], len(text) - TAIL)
    return Cut((*first.words, *last.words), (*first.spans, *last.spans))


def _cut(text: str, at: int) -> Cut:
    words, spans = [], []
    for found in _PIECE.finditer(text):
        words.append(_MASKS[found.lastgroup] if found.lastgroup else found.group())
        spans.append((found.start() + at, found.end() + at))
    return Cut(tuple(words), tuple(spans))


def words_of(text: str) -> Words:
    """The words alone, for who needs no places."""
    if len(text) > HEAD + TAIL:
        return words_of(text[:HEAD]) + words_of(text[-TAIL:])
    return tuple(_MASKS[found.lastgroup] if found.lastgroup else found.group() for found in _PIECE.finditer(text))


def common_heads(rows: Sequence[Words], *, least: int = LEAST, enough: int = RUN) -> list[tuple[Words, list[int]]]:
    """The beginnings that several rows share, longest where they part, each with the rows that have it and no longer.

    Rows that share nothing come last, under the empty beginning.
    """
    found: dict[Words, list[int]] = defaultdict(list)
    waiting: list[tuple[int, list[int]]] = [(0, list(range(len(rows))))]
    while waiting:
        depth, members = waiting.pop()
        branches, rest = _branches(rows, members, depth, least, enough)
        waiting += branches
        if rest:
            found[rows[rest[0]][:depth]] += rest
    return sorted(found.items(), key=lambda entry: (not entry[0], -len(entry[1]), entry[0]))


def _branches(
    rows: Sequence[Words], members: list[int], depth: int, least: int, enough: int
) -> tuple[list[tuple[int, list[int]]], list[int]]:
    """Where rows that agree so far go on alike, and those that do not."""
    by_word: dict[str | None, list[int]] = defaultdict(list)
    for at in members:
        by_word[rows[at][depth] if len(rows[at]) > depth else None].append(at)
    runs = [
        (run, inside)
        for word, ones in by_word.items()
        if word is not None and len(ones) >= least
        for run, inside in [_run(rows, ones, depth, least)]
    ]
    if not _is_choice(runs, members, enough):
        runs = [
            (run, inside)
            for run, inside in runs
            if run >= enough
            or len(inside) == len(members)
            or (depth == 0 and run > 1 and rows[inside[0]][run - 1] == LEADS)
            or _parts_soon(rows, inside, depth + run, least, enough)
        ]
    within = sum(len(inside) for _, inside in runs)
    if depth and within < MOST_SPLIT * len(members):
        runs = [one for one in runs if one[0] >= LONG_RUN and depth < SAYING]
    if (depth >= SAYING and len(runs) > MOST_BRANCHES) or _is_slot(rows, runs, depth):
        runs = []  # values that come again, such as documents, or names of customers
    taken = {at for _, inside in runs for at in inside}
    return [(depth + run, inside) for run, inside in runs], [at for at in members if at not in taken]


def _is_choice(runs: Sequence[tuple[int, list[int]]], members: Sequence[int], enough: int) -> bool:
    """Whether a few words stand at a place and each goes on in one way: "into German:", "into French:"."""
    within = sum(len(inside) for _, inside in runs)
    each = all(run >= enough - 1 for run, _ in runs)
    return each and len(runs) <= MOST_CHOICES and within >= ALIKE * len(members)


def _is_slot(rows: Sequence[Words], runs: Sequence[tuple[int, list[int]]], depth: int) -> bool:
    """Whether one word differs and what follows it is the same: a slot of few values."""
    following = {rows[inside[0]][depth + 1 : depth + 1 + RUN] for _, inside in runs}
    return len(runs) > 2 and len(following) == 1 and all(run > RUN for run, _ in runs)


def _parts_soon(
    rows: Sequence[Words], members: list[int], depth: int, least: int, enough: int, levels: int = 4
) -> bool:
    """Whether rows part into templates after a beginning that is too short to be one: "You are a", "You are the"."""
    by_word: dict[str | None, list[int]] = defaultdict(list)
    for at in members:
        by_word[rows[at][depth] if len(rows[at]) > depth else None].append(at)
    within = 0
    for word, ones in by_word.items():
        if word is not None and len(ones) >= least:
            run, inside = _run(rows, ones, depth, least)
            if run >= enough or (levels and _parts_soon(rows, inside, depth + run, least, enough, levels - 1)):
                within += len(inside)
    return within >= MOST_SPLIT * len(members)


def _run(rows: Sequence[Words], members: list[int], depth: int, least: int) -> tuple[int, list[int]]:
    """For how many words nearly all rows go on alike, and the rows that do so to the end."""
    run, inside = 0, members
    while True:
        by_word: dict[str | None, list[int]] = defaultdict(list)
        for at in inside:
            place = depth + run
            by_word[rows[at][place] if len(rows[at]) > place else None].append(at)
        word, ones = max(by_word.items(), key=lambda entry: len(entry[1]))
        if word is None or len(ones) < least or len(ones) < ALIKE * len(inside):
            return run, inside
        inside, run = ones, run + 1


def common_tail(rows: Sequence[Words], after: int) -> Words:
    """The end that nearly all rows share, without what belongs to their first ``after`` words."""
    tail: list[str] = []
    inside = [row for row in rows if len(row) > after]
    while inside:
        by_word: dict[str, int] = defaultdict(int)
        place = len(tail) + 1
        longer = [row for row in inside if len(row) - place >= after]
        for row in longer:
            by_word[row[-place]] += 1
        if not by_word:
            break
        word, count = max(by_word.items(), key=lambda entry: entry[1])
        if count < ALIKE * len(rows):
            break
        tail.append(word)
        inside = [row for row in longer if row[-place] == word]
    return tuple(reversed(tail))


@dataclass(frozen=True, kw_only=True)
class Template:
    """Wording that prompts share: how the turns before begin, and how the last turn begins and ends."""

    shape: str
    """Marks of the functions and the schema that go along; prompts with others are not of this template."""
    before: Words
    head: Words
    tail: Words

    @property
    def fixed(self) -> Words:
        """Everything that stands in all of its prompts."""
        return (*self.before, *self.head, *self.tail)

    @property
    def tells(self) -> bool:
        """Whether that is enough to tell its prompts from others."""
        head, tail = len(self.head), len(self.tail)
        # "Sum up:" and "Sum this up -", but not "How do I".
        brief = head > 1 and (self.head[-1] == LEADS or (head >= RUN and not self.head[-1][-1:].isalnum()))
        return len(self.before) >= SAYING or brief or max(head, tail) >= TELLING

    def fits(self, words: Words) -> bool:
        """Whether a last turn begins and ends like this."""
        head, tail = self.head, self.tail
        whole = len(words) >= len(head) + len(tail)
        return whole and words[: len(head)] == head and (not tail or words[-len(tail) :] == tail)


def mined(rows: Sequence[tuple[str, Words, Words]], *, least: int = LEAST) -> list[Template]:
    """The templates of some different prompts, each given as shape, words before and words of the last turn."""
    by_shape: dict[str, list[int]] = defaultdict(list)
    for at, (shape, _, _) in enumerate(rows):
        by_shape[shape].append(at)
    found = [one for shape, members in by_shape.items() for one in _of_shape(shape, members, rows, least)]
    return [one for one in dict.fromkeys(found) if one.tells]


def _of_shape(
    shape: str, members: list[int], rows: Sequence[tuple[str, Words, Words]], least: int
) -> Iterator[Template]:
    for before, inside in common_heads([rows[at][1] for at in members], least=least):
        ones = [members[at] for at in inside]
        yield from _of_last_turn(shape, before, [rows[at][2] for at in ones], least)


def _of_last_turn(shape: str, before: Words, rows: Sequence[Words], least: int) -> Iterator[Template]:
    enough = RUN if len(before) < SAYING else RUN_AFTER
    for head, inside in common_heads(rows, least=least, enough=enough):
        ones = [rows[at] for at in inside]
        if head:
            yield Template(shape=shape, before=before, head=head, tail=common_tail(ones, len(head)))
            continue
        backwards = [tuple(reversed(row)) for row in ones]
        for tail, _ in common_heads(backwards, least=least, enough=enough):
            if tail or len(ones) >= least:
                yield Template(shape=shape, before=before, head=(), tail=tuple(reversed(tail)))


@dataclass(kw_only=True)
class Matcher:
    """Finds the template of a prompt, the most telling one first, by walking its words once."""

    templates: Sequence[Template]
    _before: dict[str, dict[Any, Any]] = field(default_factory=dict)
    """A tree of beginnings for each shape; under None what stands at the end of one."""

    def __post_init__(self) -> None:
        for number, one in enumerate(self.templates):
            turns = _planted(self._before.setdefault(one.shape, {}), one.before)
            place = _planted(turns.setdefault("", {}), one.head)
            place.setdefault("", []).append(number)
            place[""].sort(key=lambda at: -len(self.templates[at].tail))

    def before(self, shape: str, words: Words) -> tuple[dict[Any, Any], ...]:
        """What may follow the turns before, longest agreement first; worth remembering for the same turns."""
        return tuple(reversed(list(_passed(self._before.get(shape, {}), words))))

    def match(self, following: tuple[dict[Any, Any], ...], words: Words) -> int | None:
        """The number of the template of a last turn after such turns."""
        for tree in following:
            for numbers in reversed(list(_passed(tree, words))):
                for number in numbers:
                    if self.templates[number].fits(words):
                        return int(number)
        return None


def _planted(tree: dict[Any, Any], words: Words) -> dict[Any, Any]:
    for word in words:
        tree = tree.setdefault(word, {})
    return tree


def _passed(tree: dict[Any, Any], words: Words) -> Iterator[Any]:
    """What stands under the empty word wherever the words lead."""
    if "" in tree:
        yield tree[""]
    for word in words:
        if word not in tree:
            return
        tree = tree[word]
        if "" in tree:
            yield tree[""]
