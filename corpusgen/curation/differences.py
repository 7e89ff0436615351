"""Whether two texts of nearly the same wording say different things: not how much differs decides, but what.

Another number, name, sign, unit, link or piece of code makes two texts two, and so do a negation and one of a pair such
as first and last. Case, spacing, punctuation, order of sentences, slips of the keyboard and politeness do not. Other
words, here and there in a long text, are another wording of the same; in a short text, or side by side in one place,
they are another content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import Literal, NamedTuple

from rapidfuzz.distance import OSA, Levenshtein

from corpusgen.curation.meaning_words import (
    COURTESY,
    FILLERS,
    INTERCHANGEABLE,
    NEGATING_BEGINNINGS,
    NEGATIONS,
    OPPOSED_BEGINNINGS,
    OPPOSITES,
    UNITS,
)
from corpusgen.curation.shingles import MARKS, SPACELESS, composed, without_thousands

SHORT, BRIEF = 30, 20
"""Words below which one other word in place of a word is another content, and below which any other word is."""
NOISY = 8
"""Places in which a long text differs from which on a name that differs in few of them is one edit among others."""
CLUSTER = 8
"""Words in one place, less those in between that agree, from which on a text of 80 words or more has another content.

Of a shorter one it is a tenth of its words, at least two. (A fifth of the words changed at random makes six at most.)
"""
HUGE = 500
"""Words in one place that are not looked at one by one."""
MANY_CAPITALS = 0.6
"""Share of capitalised words above which a capital does not make a name: headings, texts in capitals."""
ALIGNED = 3_000
"""Words on either side that are aligned at most; what is longer is compared as sets of sentences and words."""
FEW = 3
"""Places in which a long text differs, up to which each may be what the other text is about."""
MOVED = 2
"""Words out of place that count as words changed rather than moved."""
CARRIED = 4
"""Words in a row from which on they count as moved to an earlier place, and not as others in both places."""
SHOWN = 6
"""Differences named in a detail."""

Kind = Literal["number", "name", "opening", "code", "link", "sign", "negation", "unit", "filler", "uncased", "word"]
POINTED: frozenset[Kind] = frozenset(("number", "name", "code", "link"))
"""What names one thing among many: another one in its place is another text."""

_LETTERS = rf"(?:[^\W\d{SPACELESS}]|[{MARKS}])(?:[^\W{SPACELESS}]|[{MARKS}])*"
_ASCII_LETTERS = "[A-Za-z_][A-Za-z0-9_]*"
_LINK = r"""(?:https?://|www\.)[^\s<>"']*[^\s<>"'.,;:!?)\]] | [\w.+-]{1,64}+@[\w-]{1,64}+(?:\.[\w-]{1,64}+)++"""
_OTHER = rf"""(?=[^\s.,;:?"'()\[\]{{}}])(?:
    (?:(?<![\w)\]])[-−])?\d+(?:[.,:/−-]\d+)*[^\W{SPACELESS}]*
    | [{SPACELESS}]
    | [!=<>]=|->|=>|&&|\|\||<<|>>
    | (?<![*\#=~<>])[*\#=~<>](?![*\#=~<>])
    | [+/%^&|$€£¥₹¢°±×÷≤≥≠≈√∞∑∏∫@\\∧∨¬←→↔⇒⇔∈∉⊂⊆∪∩−‰§\u2600-\u27bf\U0001f000-\U0001faff]
    | (?<=[\d)]\s)-(?=\s[\d(\w])|(?<=\b\w\s)-(?=\s\w\b)
    )"""


@cache
def _token(plain: bool, links: bool) -> re.Pattern[str]:
    """What a token is; most are words, so the rarer things are looked for in texts only that may have them."""
    letters = _ASCII_LETTERS if plain else _LETTERS
    word = rf"{letters}(?:['’]{letters})*"
    return re.compile(f"({_LINK} | {word} | {_OTHER})" if links else f"({word} | {_OTHER})", re.VERBOSE)


_NUMBER = re.compile(r"(?:(?<!\w)[-−])?\d+(?:[.,]\d+)*")
_SIGN = re.compile(r"!=|[+*/=<>%^&|~$€£¥°±×÷≤≥≠≈√@#\\\u2600-\u27bf\U0001f000-\U0001faff]")
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalnum())
_DIGIT = re.compile(r"\d")
_CODE = re.compile(r"_|[a-z][A-Z]|[A-Z]{2,}[a-z]{2,}")
_SENTENCE = re.compile(r"[.!?…。！？\n]")
_ENDS_SENTENCE = re.compile(r"[.!?:;…。！？：；\n\"“”«»()\[\]{}•*#>|`-]")
_GROUPS: dict[str, frozenset[int]] = {}
for _number, _group in enumerate(OPPOSITES):
    for _word in _group:
        _GROUPS[_word] = _GROUPS.get(_word, frozenset()) | {_number}


class Span(NamedTuple):
    """A place where two texts differ: tokens of the one, tokens of the other."""

    left: range
    right: range

    @property
    def size(self) -> int:
        return max(len(self.left), len(self.right))


class Reading:
    """A text as tokens, with what their case and place say of them."""

    def __init__(self, text: str) -> None:
        self.text = composed(text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _token(self.text.isascii(), "://" in self.text or "www." in self.text or "@" in self.text)

    @cached_property
    def _parts(self) -> list[str]:
        """What is between the tokens and the tokens, in turns."""
        return self._pattern.split(self.text)

    @cached_property
    def tokens(self) -> list[str]:
        return self._parts[1::2]

    @cached_property
    def folded(self) -> list[str]:
        """The tokens without case, 1,000 as 1000."""
        folded = list(map(str.casefold, self.tokens))
        if "’" in self.text:
            folded = [token.replace("’", "'") for token in folded]
        return [without_thousands(token) if "," in token else token for token in folded]

    def opens(self, at: int) -> bool:
        """Whether a sentence, a line or something in quotes or brackets begins with this token."""
        return at == 0 or _ENDS_SENTENCE.search(self._parts[2 * at]) is not None

    def begins(self, at: int) -> bool:
        """Whether a sentence or a line begins with this token."""
        return at == 0 or _SENTENCE.search(self._parts[2 * at]) is not None

    @property
    def words(self) -> int:
        return len(self.tokens)

    @cached_property
    def letters(self) -> str:
        """The text without case, spaces, punctuation and signs."""
        folded = self.text.casefold()
        if folded.isascii():
            return folded.encode().translate(None, _NO_LETTERS).decode()
        return "".join(filter(str.isalnum, folded))

    @cached_property
    def numbers(self) -> list[str]:
        return _NUMBER.findall(without_thousands(self.text))

    @cached_property
    def signs(self) -> list[str]:
        return _SIGN.findall(self.text)

    @cached_property
    def capitals(self) -> float:
        """Share of the words that begin with a capital, of those that could."""
        first = [token[0] for token in self.tokens]
        upper, lower = sum(map(str.isupper, first)), sum(map(str.islower, first))
        return upper / (upper + lower) if upper else 0.0

    @cached_property
    def uncapitalised(self) -> frozenset[str]:
        """Words that stand in the text without a capital."""
        return frozenset(token for token in self.tokens if token[0].islower())

    def kind(self, at: int, other: Reading) -> Kind:
        """What sort of token stands at a place."""
        token, folded = self.tokens[at], self.folded[at]
        if _DIGIT.search(token):
            return "number"
        if "://" in token or token.startswith("www.") or "@" in token[1:-1]:
            return "link"
        if _is_sign(token):
            return "sign"
        if folded in NEGATIONS or folded.endswith(("n't", "n’t")):
            return "negation"
        if _CODE.search(token):
            return "code"
        if folded in FILLERS:
            return "filler"
        return self._by_case(at, other)

    def _by_case(self, at: int, other: Reading) -> Kind:
        """Capitals say something unless the text is made of them; small letters do unless there is no capital."""
        token, folded = self.tokens[at], self.folded[at]
        if token[0].lower() == token[0].upper():
            return "uncased"
        if token[0].isupper():
            if self.capitals > MANY_CAPITALS and len(self.tokens) > 3:
                return "uncased"
            if folded not in self.uncapitalised and folded not in other.uncapitalised:
                return "opening" if self.opens(at) else "name"
        if folded in UNITS:
            return "unit"
        return "word" if self.capitals else "uncased"


def _is_sign(token: str) -> bool:
    return len(token) <= 2 and not token[0].isalnum() and token[0] != "_"


def compared(one: Reading, two: Reading) -> Comparison:
    """Where and how two nearly equal texts differ."""
    spans = differing(one, two)
    return Comparison(one, two, spans, alike=not spans or _differ_in_punctuation(one, two))


def _differ_in_punctuation(one: Reading, two: Reading) -> bool:
    """Whether the letters and the numbers are the same, all of them in the same order, and so are the signs between.

    Where all punctuation was taken from a longer text, its signs may be gone with it.
    """
    if one.letters != two.letters or one.numbers != two.numbers:
        return False
    left, right = one.signs, two.signs
    return left == right or (not (left and right) and one.words >= SHORT)


def _named(left: Sequence[str], right: Sequence[str]) -> str:
    here, there = (" ".join(tokens[:8]) + (" …" if len(tokens) > 8 else "") for tokens in (left, right))
    if not right:
        return f"{here!r} added"
    return f"{here!r} instead of {there!r}" if left else f"{there!r} left out"


def differing(one: Reading, two: Reading) -> list[Span]:
    """Where the first text's tokens differ from the second's, sentences that only moved left out of account."""
    left, right = one.folded, two.folded
    begin, end = _shared_ends(left, right)
    lefts, rights = range(begin, len(left) - end), range(begin, len(right) - end)
    if not lefts and not rights:
        return []
    if not lefts or not rights:
        return [Span(left=lefts, right=rights)]
    if max(len(lefts), len(rights)) > ALIGNED:
        return _joined(_tiled(left, right, lefts, rights))
    if sorted(_cut(left, lefts)) == sorted(_cut(right, rights)) and same_sentences(one, two):
        return []
    spans = _joined(_aligned(left, right, lefts, rights))
    size = sum(span.size for span in spans)
    if size <= MOVED or size - _least_edits(left, right, lefts, rights) <= MOVED or len(left) < SHORT:
        return spans
    tiled = _joined(_tiled(left, right, lefts, rights))
    return tiled if sum(span.size for span in tiled) < size else spans


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Spans with those that follow each other without a word in between made one."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].left.stop == span.left.start and joined[-1].right.stop == span.right.start:
            last = joined.pop()
            joined.append(
                Span(left=range(last.left.start, span.left.stop), right=range(last.right.start, span.right.stop))
            )
        else:
            joined.append(span)
    return joined


def same_sentences(one: Reading, two: Reading) -> bool:
    """Whether two texts are the same sentences in any order; data, most of it of a word or two, in the same order."""
    left, right = list(_sentences(one)), list(_sentences(two))
    data, other = [*filter(_tiny, left)], [*filter(_tiny, right)]
    return sorted(left) == sorted(right) and (data == other or len(data) * 3 <= len(left))


def _tiny(sentence: Sequence[str]) -> bool:
    return len(sentence) < 3


def _sentences(text: Reading) -> Iterator[tuple[str, ...]]:
    begins = [at for at in range(text.words) if text.begins(at)]
    for begin, end in zip(begins, [*begins[1:], text.words], strict=True):
        yield tuple(text.folded[begin:end])


def _shared_ends(left: Sequence[str], right: Sequence[str]) -> tuple[int, int]:
    """How many tokens agree from the beginning, and of the rest how many from the end."""
    most = min(len(left), len(right))
    begin = next((at for at in range(most) if left[at] != right[at]), most)
    end = next((at for at in range(most - begin) if left[-1 - at] != right[-1 - at]), most - begin)
    return begin, end


def _least_edits(left: Sequence[str], right: Sequence[str], lefts: range, rights: range) -> int:
    """Tokens that would have to change if order did not count."""
    counts: dict[str, int] = {}
    for token in left[lefts.start : lefts.stop]:
        counts[token] = counts.get(token, 0) + 1
    for token in right[rights.start : rights.stop]:
        counts[token] = counts.get(token, 0) - 1
    more = sum(count for count in counts.values() if count > 0)
    return max(more, more + len(rights) - len(lefts))


def _aligned(left: Sequence[str], right: Sequence[str], lefts: range, rights: range) -> Iterator[Span]:
    here, there = left[lefts.start : lefts.stop], right[rights.start : rights.stop]
    for change in Levenshtein.opcodes(here, there):
        if change.tag != "equal":
            yield Span(
                left=range(lefts.start + change.src_start, lefts.start + change.src_end),
                right=range(rights.start + change.dest_start, rights.start + change.dest_end),
            )


def _tiled(left: Sequence[str], right: Sequence[str], lefts: range, rights: range) -> Iterator[Span]:
    """Differences that remain when runs of three equal words may stand anywhere."""
    partner = _partners(left, right, lefts, rights)
    taken = set(partner.values())
    at = rights.start
    while at < rights.stop:
        if at in partner:
            at += 1
            continue
        begin = at
        while at < rights.stop and at not in partner:
            at += 1
        gap = range(begin, at)
        here = _opposite(gap, partner, taken, lefts)
        taken.update(here)
        yield from _aligned_gap(left, right, here, gap)
    rest = [place for place in lefts if place not in taken]
    yield from (Span(left=run, right=range(rights.stop, rights.stop)) for run in _runs(rest))


def _aligned_gap(left: Sequence[str], right: Sequence[str], here: range, gap: range) -> Iterator[Span]:
    if here and max(len(here), len(gap)) <= ALIGNED:
        yield from _aligned(left, right, here, gap)
    else:
        yield Span(left=here, right=gap)


def _partners(left: Sequence[str], right: Sequence[str], lefts: range, rights: range) -> dict[int, int]:
    """For each token of the right side that is part of a run found on the left, its place there."""
    where: dict[tuple[str, ...], list[int]] = {}
    for at in range(lefts.start, lefts.stop - 2):
        where.setdefault(tuple(left[at : at + 3]), []).append(at)
    partner: dict[int, int] = {}
    taken: set[int] = set()
    at, reached = rights.start, lefts.start
    while at < rights.stop - 2:
        begins = where.get(tuple(right[at : at + 3]), ())
        begin = next((place for place in begins[:8] if not taken.intersection((place, place + 1, place + 2))), None)
        if begin is None:
            at += 1
            continue
        length = _run(left, right, range(begin, lefts.stop), range(at, rights.stop), taken)
        if begin < reached and length < CARRIED:
            at += 1
            continue
        partner.update(zip(range(at, at + length), range(begin, begin + length), strict=True))
        taken.update(range(begin, begin + length))
        at, reached = at + length, begin + length
    return partner


def _run(left: Sequence[str], right: Sequence[str], lefts: range, rights: range, taken: set[int]) -> int:
    """How many tokens agree from the beginning of both ranges on."""
    pairs = zip(lefts, rights, strict=False)
    return next((n for n, (here, there) in enumerate(pairs) if here in taken or left[here] != right[there]),
                min(len(lefts), len(rights)))  # fmt: skip


def _opposite(gap: range, partner: dict[int, int], taken: set[int], lefts: range) -> range:
    """The tokens of the left side that stand where the gap stands on the right."""
    before, after = partner.get(gap.start - 1), partner.get(gap.stop)
    begin = lefts.start if before is None else before + 1
    if before is None and after is not None:
        begin = after
        while begin - 1 >= lefts.start and begin - 1 not in taken:
            begin -= 1
        return range(begin, after)
    end = begin
    while end < lefts.stop and end not in taken:
        end += 1
    return range(begin, end)


def _runs(places: Sequence[int]) -> Iterator[range]:
    begin = 0
    for at in range(1, len(places) + 1):
        if at == len(places) or places[at] != places[at - 1] + 1:
            yield range(places[begin], places[at - 1] + 1)
            begin = at


class Comparison:
    """Two readings and where they differ."""

    def __init__(self, one: Reading, two: Reading, spans: Sequence[Span], *, alike: bool = False) -> None:
        self.one, self.two = one, two
        self.all = spans
        self.known: dict[Span, tuple[list[Kind], list[Kind]]] = {}
        self.telling: dict[Span, tuple[list[str], list[str]]] = {}
        self.spans = [] if alike else [span for span in spans if span.size > HUGE or not self._idle(span)]
        self.short = max(one.words, two.words) < SHORT

    def shown(self) -> str:
        """The differing words, for a person: ``'quick' instead of 'fast'``."""
        if not self.all:
            return "differs only in case, spacing, punctuation or order"
        named = [_named(_cut(self.one.tokens, left), _cut(self.two.tokens, right)) for left, right in self.all[:SHOWN]]
        return "; ".join(named) + (f"; and {len(self.all) - SHOWN} more" if len(self.all) > SHOWN else "")

    @cached_property
    def apart(self) -> str | None:
        """What makes the texts say different things; None if they say the same."""
        rules: tuple[Callable[[], str | None], ...] = (
            self._huge,
            self._pointed,
            self._sparse if self.short or len(self.spans) <= FEW else lambda: None,
            self._short,
            self._repeated,
            self._cluster,
        )
        return next((found for rule in rules if (found := rule()) is not None), None) if self.spans else None

    def kinds(self, span: Span) -> tuple[list[Kind], list[Kind]]:
        """What sorts of tokens stand on both sides of a span."""
        known = self.known.get(span)
        if known is None:
            known = self.known[span] = (
                [self.one.kind(at, self.two) for at in span.left],
                [self.two.kind(at, self.one) for at in span.right],
            )
        return known

    def _idle(self, span: Span) -> bool:
        """Whether a difference is none: politeness, an article, a slip of the keyboard, another form of the word."""
        left, right = self._telling(span)
        if len(left) != len(right):
            return self._courteous(span)
        if not left:
            return self._interchangeable(span)
        return all(same_word(here, there) for here, there in zip(left, right, strict=True))

    def _courteous(self, span: Span) -> bool:
        """Whether a text begins or ends with a greeting or with thanks, and the other does not."""
        if span.left and span.right:
            return False
        text, places = (self.one, span.left) if span.left else (self.two, span.right)
        added = _cut(text.folded, places)
        return (places.start == 0 or places.stop == text.words) and (COURTESY | FILLERS).issuperset(added)

    def _interchangeable(self, span: Span) -> bool:
        """Whether fillers were added or left out, or are of one sort."""
        here = {self.one.folded[at] for at in span.left}
        there = {self.two.folded[at] for at in span.right}
        return not (here and there) or any(here & sort and there & sort for sort in INTERCHANGEABLE)

    def _telling(self, span: Span) -> tuple[list[str], list[str]]:
        """The tokens of both sides that are not fillers; a name or a number is none, whatever it looks like."""
        telling = self.telling.get(span)
        if telling is None:
            here, there = self.kinds(span)
            telling = _saying(_cut(self.one.folded, span.left), here), _saying(_cut(self.two.folded, span.right), there)
            self.telling[span] = telling
        return telling

    def _pointed(self) -> str | None:
        """One thing named on both sides, and not the same."""
        if not self.conflicts or self._noise():
            return None
        return f"another {self.conflicts[0]}"

    def _huge(self) -> str | None:
        """Many words in one place: what sort they are need not be looked at."""
        return "another content in one place" if any(span.size > HUGE for span in self.spans) else None

    @cached_property
    def conflicts(self) -> list[Kind]:
        """What is named on both sides of a span, and not the same."""
        return [kind for span in self.spans if (kind := self._another(span)) is not None]

    def _noise(self) -> bool:
        """Whether few of many differences are names."""
        few = len(self.conflicts) * 4 <= len(self.spans)
        return few and len(self.spans) >= NOISY and "number" not in self.conflicts

    def _another(self, span: Span) -> Kind | None:
        left, right = self.kinds(span)
        if POINTED.isdisjoint(left) or POINTED.isdisjoint(right):
            return None
        return next(kind for kind in left if kind in POINTED)

    def _opposed(self, span: Span) -> bool:
        if span.size > CLUSTER:
            return False
        here, there = set(_cut(self.one.folded, span.left)), set(_cut(self.two.folded, span.right))
        return any(opposed(left, right) for left in here - there for right in there - here)

    def _short(self) -> str | None:
        brief = max(self.one.words, self.two.words) < BRIEF
        if brief or (self.short and any(map(self._swapped, self.spans))):
            return "another content in a short text"
        return None

    def _swapped(self, span: Span) -> bool:
        """Whether a word of substance stands in place of another."""
        return all(any(len(word) > 3 or not word.isascii() for word in side) for side in self._telling(span))

    def _sparse(self) -> str | None:
        """A long text that differs in one place or two: there, what is there counts."""
        for span in self.spans:
            left, right = self.kinds(span)
            if "negation" in left or "negation" in right:
                return "a negation"
            for kind in ("sign", "unit"):
                if kind in left and kind in right:
                    return f"another {kind}"
            if self._opposed(span):
                return "an opposite"
            if self._among_numbers(span):
                return "another number"
        return self._only(self.spans[0]) if len(self.spans) == 1 else None

    def _among_numbers(self, span: Span) -> bool:
        """Whether a number came in or went beside others: a list of numbers, a table."""
        for text, other, places in ((self.one, self.two, span.left), (self.two, self.one, span.right)):
            if places and any(text.kind(at, other) == "number" for at in places):
                beside = (places.start - 1, places.stop)
                if any(0 <= at < len(text.tokens) and text.kind(at, other) in ("number", "sign") for at in beside):
                    return True
        return False

    def _only(self, span: Span) -> str | None:
        left, right = self.kinds(span)
        if "opening" in left and "opening" in right:
            return "another name"
        telling = sorted(map(len, self._telling(span)))
        if telling[1] > 1 and telling[0] > 0:
            return "another content in one place"
        if "uncased" in left and "uncased" in right:
            return "another content in one place"
        return None

    def _repeated(self) -> str | None:
        """The same words for the same others in several places: one thing spoken of throughout, and another."""
        swaps = Counter((tuple(left), tuple(right)) for left, right in map(self._telling, self.spans) if left and right)
        return "another content throughout" if any(count > 1 for count in swaps.values()) else None

    def _cluster(self) -> str | None:
        """Many words in one place that are others: the longest stretch that differs more than it agrees."""
        limit = min(CLUSTER, max(2, max(self.one.words, self.two.words) // 10))
        best = running = end = 0
        for span in self.spans:
            agreeing = span.right.start - end
            running = (max(0, running - agreeing) if agreeing >= 0 else 0) + span.size
            best, end = max(best, running), span.right.stop
        return "another content in one place" if best >= limit else None


def _saying(tokens: Sequence[str], kinds: Sequence[Kind]) -> list[str]:
    """The tokens but fillers; one that names a thing marked, so that it is like itself only."""
    return [
        f"\0{token}" if kind in POINTED else token
        for token, kind in zip(tokens, kinds, strict=True)
        if kind != "filler"
    ]


def _cut(tokens: Sequence[str], places: range) -> Sequence[str]:
    return tokens[places.start : places.stop]


def opposed(left: str, right: str) -> bool:
    """Whether two different words exclude each other."""
    if left == right:
        return False
    if _GROUPS.get(left, frozenset()) & _GROUPS.get(right, frozenset()):
        return True
    if len(left) < 5 or len(right) < 5:
        return False
    return any(_begin(left, right, *pair) or _begin(right, left, *pair) for pair in OPPOSED_BEGINNINGS) or any(
        _begin(left, right, beginning, "") or _begin(right, left, beginning, "") for beginning in NEGATING_BEGINNINGS
    )


def _begin(left: str, right: str, first: str, second: str) -> bool:
    """Whether two words are equal after two given beginnings, with four letters or more."""
    return (
        left.startswith(first)
        and right.startswith(second)
        and len(left) - len(first) >= 4
        and left[len(first) :] == right[len(second) :]
    )


COMPASS = re.compile("north|south|east|west")
"""Two letters apart, and never a slip: northeastern and northwestern."""


def same_word(left: str, right: str) -> bool:
    """Whether two spellings are one word: a slip in a long word, or another ending."""
    if left == right:
        return True
    if COMPASS.findall(left) != COMPASS.findall(right):
        return False
    if min(len(left), len(right)) < 5 or left[0] != right[0] or left[0] == "\0" or opposed(left, right):
        return False
    stem = next((at for at, (here, there) in enumerate(zip(left, right, strict=False)) if here != there), None)
    stem = min(len(left), len(right)) if stem is None else stem
    if stem >= 4 and max(len(left), len(right)) - stem <= 3 and stem >= min(len(left), len(right)) - 2:
        return True
    slips = 0 if min(len(left), len(right)) < 7 else 1 if min(len(left), len(right)) < 10 else 2
    return slips > 0 and bool(OSA.distance(left, right, score_cutoff=slips) <= slips)
