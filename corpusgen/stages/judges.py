"""Who judged the rows of a dataset, and under which terms: a judge's word is a teacher's output too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from corpusgen.corpus import Corpus
from corpusgen.errors import SealRefused
from corpusgen.provenance.policy import Decision
from corpusgen.records import Json, Record, Verdict
from corpusgen.store.answers import Card

CHECK: Final = "judge"
"""Under this name a verdict has a judge's score."""
_JUDGEMENT: Final = re.compile(r"judgement ([0-9a-f]{64})$")
_AT_ONCE: Final = 400


def told(teacher: str, record_id: str) -> str:
    """Who judged, and the record of what it said, as the reason of a verdict."""
    return f"{teacher}, judgement {record_id}"


def judgement_in(verdict: Verdict) -> str | None:
    """The record id of the judgement that a verdict comes of."""
    found = _JUDGEMENT.search(verdict.reason or "") if verdict.check == CHECK else None
    return None if found is None else found[1]


class Judges:
    """Who judged some records, and how many of them."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._waiting: list[str] = []
        self._counts: Counter[str] = Counter()

    def watching(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, whose judges are noted on the way."""
        for record in records:
            self._waiting += filter(None, map(judgement_in, record.verdicts))
            if len(self._waiting) >= _AT_ONCE:
                self._look_up()
            yield record
        self._look_up()

    def _look_up(self) -> None:
        names, self._waiting = self._waiting, []
        if not names:
            return
        marks = ",".join("?" * len(names))
        rows = self._corpus.journal.query(
            "select lower(hex(record_id)), card from records join answers using (request_key)"  # noqa: S608 - own text
            f" join cards using (card_id) where record_id in ({marks})",
            tuple(map(bytes.fromhex, names)),
        )
        cards = {str(name): str(card) for name, card in rows}
        if lost := [name for name in names if name not in cards]:
            raise SealRefused(f"judgement {lost[0]}, which a row was kept by, is not in the journal; select again")
        self._counts.update(cards[name] for name in names)

    @property
    def cards(self) -> dict[Card, int]:
        """The judges, each with the terms it was asked under, and how many rows it judged."""
        return {Card.from_json(text): rows for text, rows in sorted(self._counts.items())}

    def to_json(self) -> list[dict[str, Json]]:
        """The judges as a dataset's manifest names them."""
        return [
            {"teacher": card.teacher, "terms_set_id": card.terms_set_id, "rows": rows}
            for card, rows in self.cards.items()
        ]


def check_judges(label: str, judges: Judges, decisions: Sequence[Decision]) -> None:
    """Raise SealRefused unless a decision is about every judge of the rows and the terms it was asked under."""
    allowed = {(one.teacher.name, one.terms_set_id) for one in decisions if one.role == "judge"}
    for card, rows in judges.cards.items():
        if (card.teacher, card.terms_set_id) not in allowed:
            named = " and ".join(sorted(name for name, _ in allowed)) or "nobody"
            raise SealRefused(
                f"{label}: {rows} rows were judged by {card.teacher!r} under terms set {card.terms_set_id!r}, and the"
                f" spec's judge is {named}; name the spec they were selected with"
            )
