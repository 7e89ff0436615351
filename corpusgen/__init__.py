"""corpusgen: ask teachers under a budget, keep every answer with its licence, distil a student from them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.errors import CorpusgenError
    from corpusgen.pipeline import generate
    from corpusgen.records import Completion, Message, Record, Request
    from corpusgen.spec import TaskSpec
    from corpusgen.teachers.registry import open_teacher
    from corpusgen.teachers.teacher import Teacher

__all__ = [
    "Completion",
    "Corpus",
    "CorpusgenError",
    "Message",
    "Record",
    "Request",
    "TaskSpec",
    "Teacher",
    "generate",
    "open_teacher",
]

# Names are looked up when they are used, so that importing corpusgen loads no SDK, no Arrow and no event loop.
_WHERE = {
    "Completion": "records",
    "Corpus": "corpus",
    "CorpusgenError": "errors",
    "Message": "records",
    "Record": "records",
    "Request": "records",
    "TaskSpec": "spec",
    "Teacher": "teachers.teacher",
    "generate": "pipeline",
    "open_teacher": "teachers.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'corpusgen' has no attribute {name!r}")
    return getattr(import_module(f"corpusgen.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
