"""The checks of a spec's ``curate``: of prompts before anything is spent on them, of answers when they are selected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from corpusgen.curate_fields import Personal, PersonalRules, Semantic
from corpusgen.curation.finding import Finding
from corpusgen.errors import SpecError, UsageError
from corpusgen.fields import Misplaced
from corpusgen.records import Json, Record, digest
from corpusgen.stages.embedding import embedder_of
from corpusgen.stages.task import Task

if TYPE_CHECKING:  # each check's libraries are read where the spec asks for it
    from corpusgen.curation.decontaminate import EvalSet
    from corpusgen.curation.evals import EvalFile
    from corpusgen.curation.filters import Filter
    from corpusgen.curation.pii import Rules

TextCheck = Callable[[str], Finding | None]
_BETWEEN: Final = "\n\x1f\n"
"""Between texts that are looked at together; no kind of personal data goes over lines."""
STRICTNESS: Final = ("allow", "mask", "block")
_OfRecord = Callable[[Record], Iterable[Finding]]
Lookalikes = Callable[[Callable[[], Iterable[tuple[str, str]]]], Iterable[tuple[str, Finding]]]
"""Remarks on texts, given under their names each time they are asked for."""
_OfGroup = Callable[[Sequence[Record]], Sequence[Finding | None]]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of prompts, and what its decisions depend on."""

    identity: Json
    of: TextCheck


@dataclass(frozen=True, kw_only=True)
class AnswerChecks:
    """All checks of answers."""

    alone: tuple[_OfRecord, ...]
    """What is found of an answer by itself."""
    groups: tuple[_OfGroup, ...]
    """What is found of all answers to one item together."""
    near_threshold: float | None
    """How alike two answers are that count as one; None where they are not compared."""
    identity: str
    lookalikes: Lookalikes | None = None
    """What remarks on texts that mean almost the same; it drops nothing."""

    @property
    def beside_others(self) -> bool:
        """Whether an answer is judged by what others say."""
        return bool(self.groups) or self.near_threshold is not None or self.lookalikes is not None


def check_curation(task: Task) -> None:
    """Raise SpecError or EvalFileError for what a spec's ``curate`` names and cannot have."""
    quality_filters(task)
    personal_rules(task)
    curate = task.spec.curate
    if curate.decontaminate is not None:
        _decontamination(task)
    kinds = [part.embedding for part in (curate.diverse, curate.semantic) if part is not None]
    if "minilm" in kinds:
        from corpusgen.curation.minilm import opened

        try:
            opened()
        except UsageError as error:
            at = "diverse" if curate.diverse is not None and curate.diverse.embedding == "minilm" else "semantic"
            raise task.located.error(str(error), "curate", at, "embedding") from error


def masking(task: Task) -> Callable[[Sequence[str]], Sequence[str]] | None:
    """Puts placeholders in the place of personal data, as the spec says; None where nothing is masked."""
    rules = personal_rules(task)
    if rules is None or "mask" not in {rules.default, *rules.kinds.values()}:
        return None
    from corpusgen.curation.pii import masked, scan

    def of(texts: Sequence[str]) -> Sequence[str]:
        whole = _BETWEEN.join(texts)  # together, so that one value has one number in all of them
        found = scan(whole)
        kinds = {one.kind for one in found if rules.action(one.kind) == "mask"}
        return masked(whole, found, kinds).split(_BETWEEN) if kinds else texts

    return of


def blocked_kinds(task: Task) -> frozenset[str]:
    """Kinds of personal data that the spec blocks. Raises SpecError where the prompt itself holds what may not go."""
    rules = personal_rules(task)
    if rules is None:
        return frozenset()
    from corpusgen.curation.pii import KINDS, scan

    shown = [("prompt", block.text) for block in task.prompter.file.blocks] + [("examples", task.prompter.examples)]
    for field, text in shown:
        held = sorted({one.kind for one in scan(text) if rules.action(one.kind) != "allow"})
        if held:
            message = f"holds personal data that curate.pii does not let go ({', '.join(held)}); take it out"
            raise task.located.error(message, field)
    return frozenset(kind.name for kind in KINDS if not kind.secret and rules.action(kind.name) == "block")


def held_out_texts(task: Task) -> Iterator[tuple[str, str]]:
    """What validation and gold ask about, by name."""
    for split in ("validation", "gold"):
        for seed in task.prompter.seeds(split):
            yield f"{split}:{seed.item_id}", seed.values[task.spec.input]


def prompt_checks(task: Task) -> tuple[Check, ...]:
    """The checks of a task's pool, near-duplicates left out; raises SpecError for a setting that cannot be."""
    return tuple(_prompt_checks(task))


def _prompt_checks(task: Task) -> Iterator[Check]:
    curate, rules = task.spec.curate, personal_rules(task)
    # First, so that nothing that may not be read is quoted by another check.
    if rules is None:
        yield Check(identity=["secrets"], of=_no_secret())
    else:
        yield Check(identity=["pii", rules.default, dict(rules.kinds)], of=_blocking(rules))
    if (part := curate.decontaminate) is not None and part.prompts:
        yield Check(identity=["decontaminate", _decontamination(task)], of=eval_set(task).check)
    for one in quality_filters(task):
        if "prompt" in one.sides:
            identity: Json = ["quality", one.name, one.settings.model_dump(mode="json")]
            yield Check(identity=identity, of=one.on_prompt)
    for name, remark in (("injection", curate.injection), ("moderation", curate.moderation)):
        if remark is not None and remark.prompts:
            yield Check(identity=[name, remark.action], of=_remarking(name, remark.action))


def answer_checks(task: Task, *, judged: bool = True) -> AnswerChecks | None:
    """The checks of a task's answers; None where its spec has none.

    Unless they are ``judged``, none that reads the score of a judge is among them.
    """
    curate, alone, groups = task.spec.curate, list[_OfRecord](), list[_OfGroup]()
    identity: list[Json] = []
    if (part := curate.decontaminate) is not None and part.answers:
        alone.append(_both_directions(eval_set(task).check))
        identity.append(["decontaminate", _decontamination(task)])
    for one in quality_filters(task):
        if "answer" in one.sides and (judged or one.name != "judge"):
            (groups if one.needs == "group" else alone).append(_filtering(one))
            identity.append(["quality", one.name, one.settings.model_dump(mode="json")])
    for name, remark in (("injection", curate.injection), ("moderation", curate.moderation)):
        if remark is not None and remark.answers:
            alone.append(_of_answers(_remarking(name, remark.action)))
            identity.append([name, remark.action])
    near = curate.near.threshold if curate.near is not None and curate.near.answers else None
    if near is not None:
        identity.append(["near", near])
    if curate.semantic is not None:
        identity.append(["semantic", curate.semantic.model_dump()])
    if judged and task.judging is not None:
        identity.append(["judge", task.judging.identity])
    if not identity:
        return None
    return AnswerChecks(
        alone=tuple(alone),
        groups=tuple(groups),
        near_threshold=near,
        identity=digest(identity),
        lookalikes=None if curate.semantic is None else _lookalikes(curate.semantic),
    )


def _lookalikes(part: Semantic) -> Lookalikes:
    def of(texts: Callable[[], Iterable[tuple[str, str]]]) -> Iterator[tuple[str, Finding]]:
        from corpusgen.curation.semantic import Settings, remarks

        some = (text for _, text in texts())
        if next(iter(texts()), None) is not None:
            yield from remarks(texts(), embedder_of(part.embedding, some, seed=1), Settings(flag=part.flag))

    return of


def quality_filters(task: Task) -> tuple[Filter, ...]:
    """The quality filters of a spec. Raises SpecError with every mistake in their settings."""
    if not task.spec.curate.quality:
        return ()
    from corpusgen.curation.filters import load

    try:
        return load(task.spec.curate.quality, ("curate", "quality"))
    except Misplaced as error:
        raise SpecError(*(task.located.problem(message, *place) for place, message in error.mistakes)) from error


def personal_rules(task: Task) -> Rules | None:
    """What becomes of personal data in prompts: of all teachers that may be asked, the strictest region's rules."""
    part = task.spec.curate.pii
    if part is None:
        return None
    from corpusgen.curation.pii import KINDS, Rules

    try:
        every = [Rules.of(one.default, one.kinds) for one in _of_regions(task, part)]
    except ValueError as error:
        raise task.located.error(str(error), "curate", "pii") from error
    names = [kind.name for kind in KINDS if not kind.secret]
    strictest = {name: max((rules.action(name) for rules in every), key=STRICTNESS.index) for name in names}
    return Rules(default="allow", kinds=strictest)


def _of_regions(task: Task, part: Personal) -> Iterator[PersonalRules]:
    judge = task.spec.curate.judge
    asked = {teacher.region for teacher in task.spec.teachers} | ({judge.teacher.region} if judge else set())
    for name, rules in part.regions.items():
        if name in asked:
            yield rules
    if not asked or not asked <= part.regions.keys():
        yield part


def _filtering(one: Filter) -> Any:
    if one.needs == "group":
        return one.on_answers
    return lambda record: [found for found in one.on_answers([record]) if found is not None]


def _remarking(name: str, action: str) -> TextCheck:
    check = import_module(f"corpusgen.curation.{name}").check

    def of(text: str) -> Finding | None:
        found: Finding | None = check(text)
        return found if found is None or action == "report" else replace(found, kept=False)

    return of


def _no_secret() -> TextCheck:
    from corpusgen.curation.pii import secret_in

    return secret_in


def _blocking(rules: Rules) -> TextCheck:
    from corpusgen.curation.pii import apply

    return lambda text: apply(text, rules).blocked


def _of_answers(check: TextCheck) -> _OfRecord:
    return lambda record: [found for found in (check(record.response),) if found is not None]


def eval_set(task: Task) -> EvalSet:
    """What the student will be tested on. Raises SpecError or EvalFileError for a file that cannot be read."""
    from corpusgen.curation.decontaminate import EvalSet

    part = task.spec.curate.decontaminate
    assert part is not None
    files = list(_eval_files(task))
    shown = [*(block.text for block in task.prompter.file.blocks), task.prompter.examples]
    return EvalSet.read(files, report=part.report, drop=part.drop, ngram=part.ngram, template=shown)


def _eval_files(task: Task) -> Iterator[EvalFile]:
    """The files to read; what validation and gold ask about is among them."""
    from corpusgen.curation.evals import EvalFile

    part, seeds = task.spec.curate.decontaminate, task.spec.seeds
    assert part is not None
    if not (part.files or seeds.validation or seeds.gold):
        message = "names no files, and the task has no validation or gold; name an eval set under files, or remove this"
        raise task.located.error(message, "curate", "decontaminate")
    for file in part.files:
        path = task.located.resolve(file.path)
        yield EvalFile(path=path, columns=file.columns, separated=file.separated)
    for held_out in (seeds.validation, seeds.gold):
        if held_out is not None:
            yield EvalFile(path=task.located.resolve(held_out.path), columns=(task.spec.input,))


def _decontamination(task: Task) -> Json:
    from corpusgen.curation.evals import each_file

    part = task.spec.curate.decontaminate
    assert part is not None
    files = each_file(list(_eval_files(task)))
    how = [part.report, part.drop, part.ngram]
    shown = digest([*(block.text for block in task.prompter.file.blocks), task.prompter.examples])
    return [*how, shown, [[_sha256(one.path), one.columns, one.separated] for one in files]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _both_directions(check: TextCheck) -> Callable[[Record], Iterable[Finding]]:
    """What a check of texts says of a record's prompt, and of its answer where the prompt is sound."""

    def of(record: Record) -> Iterator[Finding]:
        for side, text in (("prompt", record.input), ("answer", record.response)):
            if (found := check(text)) is not None:
                yield replace(found, reason=f"{side} {found.reason}")
                if not found.kept:
                    return

    return of
