"""Records that are put aside: kept and counted, in no dataset, because nobody checked the terms they came under.

A provider may answer with another model than the one that was asked, and an answer that is known already may have been
given under terms that do not allow what the task intends today.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final, cast

import orjson

from corpusgen.corpus import Corpus
from corpusgen.curation.finding import Finding
from corpusgen.errors import SealRefused
from corpusgen.provenance.policy import Decision, IntendedUse, decide, served_model
from corpusgen.provenance.terms import Registry, Route, TeacherRoute
from corpusgen.records import Record
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import Rights, name_of, rights_of, roles_of, sources_of, use_of
from corpusgen.standing import is_another_model
from corpusgen.store.answers import Card

CHECK: Final = "rights"
"""The stage of a finding about a record that is put aside."""
_AGE: Final = "R02"
"""That terms should be read again is no fault of a record; sealing and training ask about it."""
_WEIGHTS: Final = "weights:sha256:"
"""What the identity of a local model begins with."""
_NO_USE: Final = IntendedUse(student_distribution="internal", student_competes="no", commercial=False)


@dataclass(kw_only=True)
class Quarantine:
    """Tells which records of a corpus are put aside; with a task, also those its intended use does not allow."""

    corpus: Corpus
    task: Task | None = None
    _rights: Rights = field(init=False)
    _cards: dict[tuple[str, str], Card] = field(init=False)
    _decided: dict[tuple[str, str, str], str] = field(init=False)
    """What runs decided about models: the outcome by teacher, terms and model."""
    _known: dict[tuple[str, str, str, str | None, date], str | None] = field(default_factory=dict)
    _terms: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rights = rights_of(self.corpus, self.task)
        cards = (Card.from_json(row[0]) for row in self.corpus.journal.query("select card from cards"))
        self._cards = {(card.teacher, card.terms_set_id): card for card in cards}
        self._decided = dict(_decided_of_models(self.corpus))

    def finding(self, record: Record) -> Finding | None:
        """Why a record is put aside, as ``select`` notes it."""
        why = self.why(
            record.teacher,
            record.terms_set_id,
            record.model_requested,
            record.model_served,
            record.sent_time.date(),
        )
        return None if why is None else Finding(check=CHECK, kept=False, reason=why)

    def why(self, teacher: str, terms_set_id: str, requested: str, served: str | None, on: date) -> str | None:
        """Why records of this teacher, terms and model are put aside; None if they are not."""
        key = (teacher, terms_set_id, requested, served, on)
        if key not in self._known:
            self._known[key] = self.another_model(*key) or self._other_terms(teacher, terms_set_id)
        return self._known[key]

    def another_model(
        self, teacher: str, terms_set_id: str, requested: str, served: str | None, on: date
    ) -> str | None:
        """Why records that another model answered are put aside; None if they are not."""
        card = self._cards.get((teacher, terms_set_id))
        if not served or served == requested or card is None:
            return None
        known = self._rights.registry.by_id
        decided = self._decided.get((teacher, terms_set_id, served))
        if decided is not None and not all(name in known for name in card.terms_ids):
            return _stranger(served) if decided == "deny" else None  # the terms stood in the files of a spec
        return strange(self._rights.registry, card, served, on)

    def _other_terms(self, teacher: str, terms_set_id: str) -> str | None:
        key = (teacher, terms_set_id)
        if key not in self._terms:
            self._terms[key] = self._forbidden(self._cards.get(key))
        return self._terms[key]

    def _forbidden(self, card: Card | None) -> str | None:
        if self.task is None or card is None:
            return None
        if card.route == "imported":  # its terms are the licence of its source, and those of who wrote that
            from corpusgen.stages.imports.importing import imported_rights  # which few corpora need

            (decision,) = imported_rights(self.corpus, self.task, {"teacher": {card.teacher: 0}}, self._today())
        else:
            decision = self._under_original_terms(self.task, card)
        return forbidden(decision)

    def _today(self) -> date:
        return self.corpus.clock().date()

    def _under_original_terms(self, task: Task, card: Card) -> Decision:
        return decide(
            self._rights.registry,
            route_of_card(card),
            use_of(task),
            on=self._today(),
            role=roles_of(task)[0],
            sources=sources_of(task, self.corpus),
            waivers=self._rights.waivers,
            original_terms=card.terms_ids,
            task=name_of(task),
        )


_ANSWERED: Final = ["teacher", "terms_set_id", "model_requested", "model_served", "sent_time"]


def refuse_put_aside(corpus: Corpus, task: Task, label: str, paths: Sequence[Path]) -> None:
    """Raise SealRefused for a version that holds records of a model whose terms nobody checked."""
    from corpusgen.store.shards import read_columns  # with Arrow, which an answered run needs nothing of

    quarantine = Quarantine(corpus=corpus, task=task)
    found: Counter[str] = Counter()
    for path in paths:
        table = read_columns([path], _ANSWERED).to_pydict()
        for teacher, terms, asked, served, sent in zip(*(table[name] for name in _ANSWERED), strict=True):
            if (why := quarantine.another_model(teacher, terms, asked, served, sent.date())) is not None:
                found[why] += 1
    if found:
        told = ", ".join(f"{records:,} {why}" for why, records in found.items())
        raise SealRefused(f"{label} cannot be sealed, records in it are put aside ({told}); select it anew")


def forbidden(decision: Decision) -> str | None:
    """Why answers that a decision is about are put aside; None if they are not."""
    rules = [reason.rule for reason in decision.reasons if reason.outcome != "allow" and reason.rule != _AGE]
    return f"{rules[0]}: the terms {decision.teacher.name} answered under do not allow it" if rules else None


def strange(registry: Registry, card: Card, served: str, on: date) -> str | None:
    """Why answers by a model are put aside that a teacher of this card did not ask for; None if they are not."""
    return None if covers(registry, card, served, on) else _stranger(served)


def _stranger(served: str) -> str:
    return f"answered by {served}, terms not checked"


def about_model(registry: Registry, decision: Decision, card: Card, served: str, on: date) -> Decision:
    """What is decided of the answers of a model that a teacher was not asked for (R13)."""
    told = served_model(registry, decision, served, on)
    aside = strange(registry, card, served, on) is not None
    reason = replace(told, rule="R13", outcome="deny" if aside else "allow")
    teacher = replace(decision.teacher, model=served)
    return replace(decision, outcome=reason.outcome, reasons=(reason,), teacher=teacher)


def _decided_of_models(corpus: Corpus) -> Iterator[tuple[tuple[str, str, str], str]]:
    rows = corpus.journal.query("select outcome, decision from decisions where stage = 'request' order by decision_id")
    for outcome, text in rows:
        fields = orjson.loads(text)
        if any(reason[0] == "R13" for reason in fields["reasons"]):
            yield (fields["teacher"], fields["terms_set_id"], fields["model"]), outcome


def covers(registry: Registry, card: Card, served: str, on: date) -> bool:
    """Whether the terms that were checked for a teacher are those of the model that answered.

    Where the registry no longer has them, only a dated version of the model that was asked is taken for the same.
    """
    if not all(name in registry.by_id for name in card.terms_ids):
        return not is_another_model(card.model, served)
    checked = decide(registry, route_of_card(card), _NO_USE, on=on, original_terms=card.terms_ids)
    return served_model(registry, checked, served, on).outcome != "deny"


def route_of_card(card: Card) -> TeacherRoute:
    """The teacher of a stored card as the terms see it."""
    weights = card.identity.removeprefix(_WEIGHTS) if card.identity.startswith(_WEIGHTS) else None
    return TeacherRoute(
        name=card.teacher,
        provider=card.provider,
        model=card.model,
        route=cast("Route", card.route),
        host=card.host,
        weights_sha256=weights,
    )
