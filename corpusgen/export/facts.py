"""What the documents about a sealed dataset say, collected once; every document is a pure function of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal, TypeAlias

from corpusgen.export.card import CardFacts, CardTeacher

NOT_LEGAL_ADVICE: Final = (
    "Written by a program from what it recorded. Not legal advice: no lawyer has read it, terms change without notice,"
    " and whoever publishes it answers for it."
)

ColumnKind: TypeAlias = Literal["text", "integer", "number", "boolean", "time", "bytes", "struct"]


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of the dataset, by its path inside the dataset's folder."""

    path: str
    split: str
    rows: int
    size_bytes: int
    sha256: str
    bucket: str = ""
    """The bucket of licences it holds, where rows under unlike licences lie in files of their own."""

    @property
    def name(self) -> str:
        """What it is called among the files of its dataset: its split, and its bucket behind it."""
        return f"{self.split}-{self.bucket}" if self.bucket else self.split


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the files; a struct has parts."""

    name: str
    kind: ColumnKind
    repeated: bool = False
    parts: tuple[Column, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What the student is for, as the spec declares it."""

    student_distribution: str
    student_competes: str
    commercial: bool


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """What a search for personal data found: rows that were looked at, and rows by the kind that was found."""

    looked_at: int
    kinds: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """Everything that is known of a sealed dataset."""

    card: CardFacts
    judges: frozenset[str]
    """Names of those among the card's teachers who wrote no row, but decided which rows were kept."""
    files: tuple[DataFile, ...]
    columns: tuple[Column, ...]
    purpose: Purpose
    personal_data: PersonalData
    output_tokens: Mapping[str, int]
    """Tokens that each teacher wrote."""
    asked_from: datetime | None
    asked_until: datetime | None
    funnel: Mapping[str, int]
    """Records by what became of them when the dataset was selected."""
    manifest_sha256: str
    registry_digest: str
    policy_digest: str
    licences: Mapping[str, int]
    """Rows by their licence expression."""
    made_with: str
    """corpusgen and its version."""
    agreements: tuple[str, ...] = ()
    """What providers have agreed to about personal data, as the spec declares it."""
    first_used: date | None = None
    """The day on which a student first learned from it; None: none did in this corpus."""
    released: tuple[str, ...] = ()
    """Students that learned from it and were released, with who approved it and what became of it."""
    notes: tuple[str, ...] = field(default=())
    """What a reader of any document has to be told."""

    @property
    def label(self) -> str:
        """``name-version``."""
        return f"{self.card.name}-{self.card.version}"

    @property
    def writers(self) -> tuple[CardTeacher, ...]:
        """The teachers that wrote rows."""
        return tuple(one for one in self.card.teachers if one.name not in self.judges)

    @property
    def judging(self) -> tuple[CardTeacher, ...]:
        """The teachers that judged rows."""
        return tuple(one for one in self.card.teachers if one.name in self.judges)

    @property
    def dropped(self) -> dict[str, int]:
        """Records that were read and left out, by the reason."""
        return {why: rows for why, rows in self.funnel.items() if why not in ("read", "kept") and rows}


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file about a dataset, and what it should say and could not."""

    text: str
    not_filled: tuple[str, ...]
