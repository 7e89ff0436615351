"""What somebody submits to be run: a task of the tasks folder, or a spec with its files; never a path or URL elsewhere.

A submitted spec names teachers of the service's own configuration and nothing about them but how to ask: where requests
go, under which key, at which price and under which terms is the administrator's to say.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Final

import orjson
import yaml
from pydantic import ValidationError

from corpusgen.errors import CorpusgenError, LocatedError, Problem, SpecError, UsageError
from corpusgen.fields import Place
from corpusgen.records import Json, digest
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import Configured, by_name
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.shipped import shipped
from corpusgen.spec import Located, TaskSpec, load_spec, parse_yaml, problems
from corpusgen.stages.loading import task_of
from corpusgen.stages.task import Task
from corpusgen.store.durable import make_folder, sync_folder, write_file
from corpusgen.teacher_fields import TeacherSpec

SPEC_FILE: Final = "task.yaml"
MOST_FILES: Final = 16
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_OF_TEACHER: Final = ("model", "name", "parameters", "weight")
"""What a submitted spec may say of a teacher."""
_PARAMETERS: Final = frozenset(
    {
        *("max_tokens", "temperature", "top_p", "top_k", "min_p", "top_logprobs", "logprobs", "stop", "seed"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort", "verbosity"),
    }
)
"""Parameters that say how to answer; none of them makes anybody fetch anything, or costs more than ``max_tokens``."""
_OF_SERVICE: Final = ("terms_files", "agreements", "organisation")
"""What is the administrator's to say: with these a caller could talk the policy round."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be run. Either ``task``, a path below the tasks folder, or ``spec`` with its ``files``."""

    task: str | None = None
    spec: str | Mapping[str, Json] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    """With ``task``: at most so many items, in place of what the spec says."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What submitted specs are held to."""

    roots: tuple[Path, ...]
    """Folders whose specs and files may be named, the administrator's first."""
    kept: Path
    """Where submitted specs are kept."""
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    """The service's teachers by alias and by name, their files named by whole paths."""
    of_service: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every submitted spec that the service's configuration says."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A submitted task, with what tells later whether it is still the same."""

    task: Task
    source: Mapping[str, Json]
    """``{"task": path}``, perhaps with a ``limit``, or ``{"spec": digest}``."""
    text: str
    """The spec as it was submitted."""
    files: Mapping[str, str]
    """sha256 of every file it names, by path."""


def rules_for(corpus: Path, tasks: Path | None, config: Configured | None) -> Rules:
    """The rules of a service over the corpus in a folder, with the folder of tasks that it was given, if any."""
    roots = [root.resolve() for root in (tasks, shipped("prompts")) if root is not None and root.is_dir()]
    kept = corpus / "service" / "specs"
    if config is None:
        return Rules(roots=tuple(roots), kept=kept)
    return Rules(roots=tuple(roots), kept=kept, teachers=_configured(config), of_service=_facts(config))


def _configured(config: Configured) -> dict[str, TeacherSpec]:
    """The teachers by every name they answer to, their files found from wherever a spec lies."""
    offers, folder = config.spec.teachers, config.file.parent
    plain = [
        TeacherSpec.model_construct(
            offer.model_fields_set - {"model"}, **{name: getattr(offer, name) for name in TeacherSpec.model_fields}
        )
        for offer in offers
    ]
    return {name: with_whole_paths(plain[at], folder) for name, at in by_name(offers).items()}


def _facts(config: Configured) -> dict[str, Any]:
    spec, folder = config.spec, config.file.parent
    found: dict[str, Any] = {"organisation": spec.organisation, "agreements": spec.agreements}
    found["terms_files"] = tuple(str((folder / name).resolve()) for name in spec.terms_files)
    return found | ({"egress": "none"} if spec.egress == "none" else {})


def tasks_in(rules: Rules) -> Iterator[tuple[str, Path]]:
    """The specs that may be submitted by name, each with its file; of two of one name the administrator's."""
    seen: set[str] = set()
    for root in rules.roots:
        for path in sorted(root.rglob("*.y*ml")):
            name = path.relative_to(root).as_posix()
            inside = path.is_file() and path.resolve().is_relative_to(root)
            if path.name.startswith("task") and inside and name not in seen and _is_relative(name):
                seen.add(name)
                yield name, path


def read_wanted(rules: Rules, wanted: Wanted, caller: Caller) -> Held:
    """The task that is wanted, read and checked, and a submitted spec kept. Raises UsageError or Refused."""
    if (wanted.task is None) == (wanted.spec is None):
        raise UsageError("give task, a path below the tasks folder, or spec, a whole task spec; one of the two")
    if wanted.task is not None:
        if wanted.files:
            raise UsageError("files: are for spec; a task has its own beside it")
        return _checked(_of_folder(rules, wanted.task, wanted.limit), caller)
    assert wanted.spec is not None
    folder, new = _keep(rules, wanted.spec, wanted.files)
    try:
        return _checked(_of_kept(rules, folder.name), caller)
    except CorpusgenError as error:
        if new:  # nothing is kept of what cannot be run
            shutil.rmtree(folder, ignore_errors=True)
        raise _without_folder(error, str(rules.kept)) from None


@contextmanager
def looked_at(rules: Rules, wanted: Wanted, caller: Caller) -> Iterator[Held]:
    """As ``read_wanted``, for a moment: of a submitted spec nothing is kept.

    What is raised inside names the files as they were sent, and not where they lay for that moment.
    """
    if wanted.spec is None:
        yield read_wanted(rules, wanted, caller)
        return
    with TemporaryDirectory(prefix="corpusgen-spec-") as folder:
        try:
            yield read_wanted(replace(rules, kept=Path(folder)), wanted, caller)
        except CorpusgenError as error:
            raise _without_folder(error, folder) from None


def _without_folder(error: CorpusgenError, folder: str) -> CorpusgenError:
    lies = re.compile(re.escape(folder) + r"(?:/[0-9a-f]{64})?/?")
    if isinstance(error, LocatedError):
        error.problems = tuple(_named_as_sent(one, lies) for one in error.problems)
    error.args = tuple(lies.sub("", one) if isinstance(one, str) else one for one in error.args)
    return error


def _named_as_sent(problem: Problem, lies: re.Pattern[str]) -> Problem:
    file = Path(lies.sub("", str(problem.file)) or SPEC_FILE)
    return replace(problem, file=file, message=lies.sub("", problem.message))


def let_go(rules: Rules, source: Mapping[str, Json]) -> None:
    """Keep nothing of a submitted spec any more."""
    named = source.get("spec")
    if isinstance(named, str) and re.fullmatch(r"[0-9a-f]{64}", named):
        shutil.rmtree(rules.kept / named, ignore_errors=True)


def prune(rules: Rules, needed: Container[str], *, before_s: float) -> None:
    """Let go of kept specs that are not needed, and of what a crash left, unless written after a time."""
    for folder in rules.kept.iterdir() if rules.kept.is_dir() else ():
        if folder.name not in needed and folder.stat().st_mtime < before_s:
            shutil.rmtree(folder, ignore_errors=True)


def read_again(rules: Rules, source: Mapping[str, Json], files: Mapping[str, str]) -> Held:
    """A task that was submitted before. Raises Refused where a file of it is another one now."""
    again = source.get("limit")
    held = _of_folder(rules, source["task"], again) if "task" in source else _of_kept(rules, source["spec"])
    changed = sorted(Path(name).name for name in {*files, *held.files} if files.get(name) != held.files.get(name))
    if changed:
        raise Refused(
            409, f"{', '.join(changed)} changed since the run was submitted; submit it again to run what is there"
        )
    return held


def _checked(held: Held, caller: Caller) -> Held:
    """Raises Refused where the caller's token is bound to something else."""
    spec = held.task.spec
    if caller.task is not None and spec.name != caller.task:
        raise Refused(403, f"this token is bound to task {caller.task!r}, and the spec is of {spec.name!r}")
    bound = caller.intended_use if isinstance(caller.intended_use, dict) else {}
    says = spec.intended_use.model_dump(mode="json")
    for name, value in bound.items():
        if name in says and says[name] != value:
            raise Refused(403, f"this token is bound to {name}: {value!r}, and the spec says {says[name]!r}")
    return held


# --- Tasks by name ---------------------------------------------------------------------------------------------------


def _is_relative(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and all(_PART.fullmatch(part) and ".." not in part for part in parts) and "\\" not in name


def _found(rules: Rules, name: str) -> Path | None:
    """A file below one of the roots, no link out of it among the parts of its path."""
    if not _is_relative(name):
        return None
    for root in rules.roots:
        path = (root / name).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path
    return None


def _of_folder(rules: Rules, name: str, limit: int | None = None) -> Held:
    path = _found(rules, name)
    if path is None or path.suffix not in (".yaml", ".yml"):
        known = ", ".join(list(dict(tasks_in(rules)))[:20]) or "none"
        raise NoSuch(f"task: no spec {name!r:.200} in the tasks folder; there are: {known}")
    located, source = load_spec(path), {"task": name}
    if limit is None:
        return _held(located, source, path.read_text("utf-8-sig"))
    asking = located.spec.asking.model_copy(update={"limit": limit})
    bounded = replace(located, spec=located.spec.model_copy(update={"asking": asking}))
    return _held(bounded, source | {"limit": limit}, path.read_text("utf-8-sig"))


def _held(located: Located, source: Mapping[str, Json], text: str) -> Held:
    files = {str(path): _sha256(path) for path in (located.file, *named_files(located))}
    return Held(task=task_of(located), source=source, text=text, files=files)


def _sha256(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""  # what reads the task says so with the line that names it


def named_files(located: Located) -> list[Path]:
    """Every file that a spec names."""
    found = [located.resolve(name) for _, name in _names(located.spec) if name]
    return list(dict.fromkeys(found))


def _names(spec: TaskSpec) -> Iterator[tuple[Place, str]]:
    yield ("prompt",), spec.prompt
    for split in ("train", "validation", "gold"):
        if (seeds := getattr(spec.seeds, split)) is not None:
            yield ("seeds", split, "path"), seeds.path
    if spec.examples is not None:
        yield ("examples", "path"), spec.examples.path
    if spec.answer_schema_file is not None:
        yield ("answer_schema_file",), spec.answer_schema_file
    for at, name in enumerate(spec.terms_files):
        yield ("terms_files", at), name
    for at, source in enumerate(spec.sources):
        if source.notice:
            yield ("sources", at, "notice"), source.notice
    for at, teacher in enumerate(spec.teachers):
        if teacher.script:
            yield ("teachers", at, "script"), teacher.script
    yield from _names_in_curate(spec)


def _names_in_curate(spec: TaskSpec) -> Iterator[tuple[Place, str]]:
    if spec.curate.decontaminate is not None:
        for at, file in enumerate(spec.curate.decontaminate.files):
            yield ("curate", "decontaminate", "files", at, "path"), file.path
    if (judge := spec.curate.judge) is not None:
        yield ("curate", "judge", "prompt"), judge.prompt
        if judge.teacher.script:
            yield ("curate", "judge", "teacher", "script"), judge.teacher.script


# --- Specs that are sent along ---------------------------------------------------------------------------------------


def _keep(rules: Rules, spec: str | Mapping[str, Json], files: Mapping[str, str]) -> tuple[Path, bool]:
    """The folder of a submitted spec and its files, under a name that is their digest; whether it was made now."""
    for name in files:
        if not _PART.fullmatch(name) or name == SPEC_FILE or len(files) > MOST_FILES:
            raise UsageError(
                f"files: {name!r:.120} names no file here: at most {MOST_FILES}, each a plain name without folders,"
                f" none called {SPEC_FILE}"
            )
    text = spec if isinstance(spec, str) else _written(spec)
    named = digest([text, dict(files)])
    folder = rules.kept / named
    if folder.is_dir():
        return folder, False
    _read_spec(rules, text, folder, files)  # first: most of what is wrong shows here
    _write(folder, {**files, SPEC_FILE: text})
    return folder, True


def _written(spec: Mapping[str, Json]) -> str:
    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, width=1_000_000)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    make_folder(folder.parent)
    hidden = Path(mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name, text in files.items():
            write_file(hidden / name, text.encode())
        if not folder.is_dir():  # somebody else was quicker: the same name is the same bytes
            hidden.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    sync_folder(folder.parent)


def _of_kept(rules: Rules, named: str) -> Held:
    folder = rules.kept / named
    path = folder / SPEC_FILE
    if not re.fullmatch(r"[0-9a-f]{64}", named) or not path.is_file():
        raise NoSuch(f"the submitted spec {named!r:.80} is not kept here any more; submit it again")
    text = path.read_text("utf-8")
    there = {file.name for file in folder.iterdir()}
    return _held(_read_spec(rules, text, folder, there), {"spec": named}, text)


def _read_spec(rules: Rules, text: str, folder: Path, files: Mapping[str, str] | set[str]) -> Located:
    """A submitted spec with the service's teachers and facts in it, its files named by whole paths."""
    shown = Path("spec")
    value, lines = parse_yaml(shown, text.encode())
    if not isinstance(value, dict):
        raise SpecError(Problem(file=shown, line=1, field="", message="a task spec is a mapping of fields"))
    refuse = _refusing(shown, lines)
    chosen = _with_teachers(rules, value, refuse)
    try:
        spec = TaskSpec.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        raise SpecError(*problems(shown, lines, error, TaskSpec)) from error
    for name in _OF_SERVICE:
        if name in spec.model_fields_set:
            raise refuse((name,), "is the service's to say; remove it")
    for at, tool in enumerate(spec.tools):
        if tool.get("type") != "function":
            raise refuse(("tools", at), "only functions are taken here, with type: function")
    paths = {place: _path(rules, files, place, name, refuse) for place, name in _names(spec)}
    placed = TaskSpec.model_validate_json(orjson.dumps(_placed(value, paths)))
    return Located(spec=_of_service(rules, placed, chosen), file=folder / SPEC_FILE, lines=lines)


Refuse = Callable[[Place, str], SpecError]


def _refusing(shown: Path, lines: Mapping[Place, int]) -> Refuse:
    def refuse(place: Place, message: str) -> SpecError:
        line = next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), None)
        return SpecError(Problem(file=shown, line=line, field=".".join(map(str, place)), message=message))

    return refuse


def _path(rules: Rules, files: Mapping[str, str] | set[str], place: Place, name: str, refuse: Refuse) -> str:
    if name in files and name != SPEC_FILE:
        return name  # beside the spec; where that lies is no part of what the task is
    found = _found(rules, name)
    if found is None:
        raise refuse(place, f"{name!r:.120} is neither one of files nor in the tasks folder")
    return str(found)


def _placed(value: Mapping[str, Json], paths: Mapping[Place, str]) -> Json:
    copied = orjson.loads(orjson.dumps(value))
    for place, path in paths.items():
        inner = copied
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = path
    return copied


def _of_service(rules: Rules, spec: TaskSpec, chosen: Mapping[int, TeacherSpec]) -> TaskSpec:
    """The spec with everything about its teachers that the service's configuration says."""
    teachers = tuple(_meant(chosen[at], told) for at, told in enumerate(spec.teachers))
    changes: dict[str, Any] = {**rules.of_service, "teachers": teachers}
    if spec.curate.judge is not None:
        judge = spec.curate.judge.model_copy(update={"teacher": _meant(chosen[-1], spec.curate.judge.teacher)})
        changes["curate"] = spec.curate.model_copy(update={"judge": judge})
    return spec.model_copy(update=changes)


def _meant(configured: TeacherSpec, told: TeacherSpec) -> TeacherSpec:
    return configured.model_copy(update={"parameters": told.parameters, "weight": told.weight})


def _with_teachers(rules: Rules, value: dict[str, Json], refuse: Refuse) -> dict[int, TeacherSpec]:
    """The configured teachers that a spec names, by place (-1: the judge); their names are put into the spec."""
    chosen: dict[int, TeacherSpec] = {}
    teachers = value.get("teachers")
    for at, told in enumerate(teachers if isinstance(teachers, list) else ()):
        chosen[at] = _chosen(rules, told, ("teachers", at), refuse)
    curate = value.get("curate")
    judge = curate.get("judge") if isinstance(curate, dict) else None
    if isinstance(judge, dict) and "teacher" in judge:
        chosen[-1] = _chosen(rules, judge["teacher"], ("curate", "judge", "teacher"), refuse)
    return chosen


def _chosen(rules: Rules, told: Json, place: Place, refuse: Refuse) -> TeacherSpec:
    """The configured teacher that is meant; what was said of it becomes what a spec says."""
    if not isinstance(told, dict):
        raise refuse(place, "must be fields: {name: value}")
    for name in told:
        if name not in _OF_TEACHER:
            raise refuse((*place, name), f"is the service's to say; a submitted spec says {', '.join(_OF_TEACHER)}")
    named = told.pop("model", None) or told.get("name")
    found = rules.teachers.get(named) if isinstance(named, str) else None
    if found is None:
        known = ", ".join(sorted(rules.teachers)) or "none"
        raise refuse(place, f"{named!r:.120} is no teacher of this service; there are: {known}")
    told["name"] = found.name
    told["parameters"] = {**found.parameters, **_parameters(found, told.get("parameters"), place, refuse)}
    return found


def _parameters(configured: TeacherSpec, told: Json, place: Place, refuse: Refuse) -> dict[str, Json]:
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise refuse((*place, "parameters"), "must be fields: {name: value}")
    for name, value in told.items():
        plain = isinstance(value, str | int | float) or (
            isinstance(value, list) and all(isinstance(one, str) for one in value)
        )
        if name not in _PARAMETERS or not plain:
            raise refuse(
                (*place, "parameters", str(name)), f"may not be set here; these may: {', '.join(sorted(_PARAMETERS))}"
            )
    most, asked = configured.parameters.get("max_tokens"), told.get("max_tokens")
    if isinstance(asked, int) and isinstance(most, int) and asked > most:
        raise refuse((*place, "parameters", "max_tokens"), f"is at most {most} for this teacher")
    return dict(told)


def with_whole_paths(teacher: TeacherSpec, folder: Path) -> TeacherSpec:
    """A configured teacher whose files are found from wherever a spec lies."""
    if teacher.script is None:
        return teacher
    return teacher.model_copy(update={"script": str((folder / teacher.script).resolve())})
