"""A task, read and checked: its spec, its prompt and the terms that may apply to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpusgen.prompting.prompts import Item, Prompter
from corpusgen.provenance.terms import Registry, load_registry
from corpusgen.records import Request, digest
from corpusgen.shipped import here_or_shipped, shipped
from corpusgen.spec import Located, TaskSpec, TeacherSpec, load_spec
from corpusgen.teachers.teacher import TeacherCard


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a spec file says, with everything it names read."""

    located: Located
    prompter: Prompter
    registry: Registry

    @property
    def spec(self) -> TaskSpec:
        """The spec itself."""
        return self.located.spec

    @property
    def teacher(self) -> TeacherSpec:
        """The teacher that is asked."""
        return self.located.spec.teachers[0]

    @property
    def identity(self) -> str:
        """sha256 of spec, prompt and examples: under this name a run goes on."""
        return digest([self.spec.identity, self.prompter.file.digest, self.prompter.examples])


def load_task(path: Path) -> Task:
    """The task in a spec file. Raises SpecError, PromptError or SeedError; nothing is sent."""
    located = load_spec(here_or_shipped(path))
    extra = [located.resolve(name) for name in located.spec.terms_files]
    return Task(
        located=located,
        prompter=Prompter.of(located),
        registry=load_registry(shipped("data/terms.yaml"), *extra),
    )


def request_for(task: Task, card: TeacherCard, item: Item, sample: int) -> Request:
    """The request that asks a teacher about an item."""
    return Request(
        teacher=card.identity,
        model=card.model,
        api=task.prompter.file.api,
        messages=item.messages,
        parameters=task.teacher.parameters,
        sample_index=sample,
    )
