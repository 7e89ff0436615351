"""Who reads a stored reply: the teacher that gave it, known by its identity, though nobody asks it anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import orjson
from pydantic import ValidationError

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged
from corpusgen.records import Json
from corpusgen.store.answers import Card
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.imported import SCHEME, imported
from corpusgen.teachers.registry import open_teacher
from corpusgen.teachers.scripted import ScriptedAnswer, scripted
from corpusgen.teachers.teacher import Teacher

_READING = ("name", "base_url", "provider", "route", "parameters", "api_version")
"""What of a teacher's spec bears on how its replies are read; not its key, nor its price."""


def reader_of(corpus: Corpus, teachers: Sequence[Teacher] = ()) -> Callable[[Card], Teacher]:
    """Who reads the replies of a card: of ``teachers``, else of those that this corpus's runs name."""
    given = {(one.card.identity, one.card.model): one for one in teachers}

    @cache
    def named(name: str, identity: str) -> Teacher:
        if name.startswith(SCHEME):
            return imported(name, identity)
        if name.startswith("scripted/"):  # reading takes no script, and it may be gone
            return scripted(lambda request: ScriptedAnswer(text=""), clock=corpus.clock, name=name)
        known = [_opened(corpus, name, fields) for fields in _specs(corpus, name)]
        same = [one for one in known if one.card.identity == identity]
        alike = [*same, *(one for one in teachers if one.card.name == name), *reversed(known)]
        if not alike:
            raise CorpusDamaged(f"no run here names the teacher {name!r}, whose replies these are")
        return alike[0]

    def of(card: Card) -> Teacher:
        found = given.get((card.identity, card.model))
        return named(card.teacher, card.identity) if found is None else found

    return of


def _specs(corpus: Corpus, name: str) -> list[dict[str, Json]]:
    """What the runs say of a teacher as far as it bears on reading, each once."""
    rows = corpus.journal.query("select spec from runs order by started_us")
    specs = [spec for (text,) in rows for spec in orjson.loads(text)["teachers"] if spec["name"] == name]
    known = [{field: spec[field] for field in _READING if spec.get(field) is not None} for spec in specs]
    return [fields for at, fields in enumerate(known) if fields not in known[at + 1 :]]


def _opened(corpus: Corpus, name: str, fields: dict[str, Json]) -> Teacher:
    try:
        spec = TeacherSpec.model_validate_json(orjson.dumps(fields))
    except ValidationError as error:
        raise CorpusDamaged(f"what a run says of the teacher {name!r} cannot be read: {error}") from error
    return open_teacher(spec, folder=corpus.folder, clock=corpus.clock, sending=False)
