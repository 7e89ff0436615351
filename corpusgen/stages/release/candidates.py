"""Candidates: what somebody wants released, as it lies there, with the datasets it learned from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, SealRefused, UsageError
from corpusgen.records import Json, digest
from corpusgen.spec import BaseModelSpec
from corpusgen.stages.erasure.erasures import refuse_to_retire
from corpusgen.stages.exporting import runs_of
from corpusgen.stages.sealing import Sealed, sealed_dataset
from corpusgen.stages.task import Task

_ALIKE: Final = (".json", ".md", ".txt", ".yaml")
"""Ends of the names of files that students may have in common: settings, words, licences."""
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What somebody wants released, and what they say about it."""

    student: str
    """The id of a student of this corpus, or the folder of one that was made elsewhere."""
    name: str
    approver: str
    out: Path | None = None
    datasets: tuple[str, ...] = ()
    """Sealed datasets that a student made elsewhere learned from."""
    base: BaseModelSpec | None = None
    accept: tuple[str, ...] = ()
    """Duties that the approver accepts beside those of the spec."""
    task: Task | None = None
    """A spec whose intended use and terms count in place of those of the runs."""


def base_of(model: str | None, provider: str | None, weights_sha256: str | None) -> BaseModelSpec | None:
    """The weights that a student begins with, as options name them. Raises UsageError for half of it."""
    if model is None:
        if provider is not None or weights_sha256 is not None:
            raise UsageError("--base is missing: --base-provider and --base-weights-sha256 tell of it")
        return None
    if not provider:
        raise UsageError("--base-provider is missing: who published the weights, such as meta")
    try:
        return BaseModelSpec(model=model, provider=provider, weights_sha256=weights_sha256)
    except ValidationError as error:
        what = error.errors()[0]
        raise UsageError(f"--base {what['loc'][0]}: {what['msg']}, found {what['input']!r}") from error


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A student as it lies there, and the datasets it learned from."""

    student_id: str
    folder: Path
    files: Mapping[str, str]
    """What each of its files must be, by sha256."""
    datasets: tuple[Sealed, ...]
    run_id: str
    base: BaseModelSpec | None
    made_elsewhere: bool = False
    sources: tuple[Mapping[str, Json], ...] = ()
    """The sources of the spec it was trained by, as it tells of them."""
    read: tuple[str, ...] = ()
    """The sources of text that it has read without labels."""


def candidate_of(corpus: Corpus, wanted: Wanted) -> Candidate:
    """What is wanted, found and still what it was when it was trained.

    Raises UsageError for what is not there, SealRefused for a dataset that is revoked or another by now.
    """
    rows = corpus.journal.query("select student_id, run_id, dataset, facts from students order by trained_us")
    named = [row for row in rows if row[0].startswith(wanted.student)] if wanted.student else []
    folder = Path(wanted.student)
    if not named and wanted.student and folder.is_dir():
        return _made_elsewhere(corpus, wanted, folder)
    if len(named) != 1:
        known = ", ".join(row[0] for row in (named or rows)) or "none yet"
        what = "stands for several students" if named else "is no student of this corpus, and no folder"
        raise UsageError(f"{wanted.student!r} {what}; there are: {known}")
    if wanted.datasets:
        raise UsageError("--dataset is for a student that was made elsewhere; this one names its dataset itself")
    student_id, run_id, dataset, text = named[0]
    refuse_to_retire(corpus, student_id)
    facts = orjson.loads(text)
    if "made_elsewhere" in facts:
        raise UsageError(f"student {student_id} was made elsewhere; name its folder, and its datasets with --dataset")
    sealed = sealed_dataset(corpus, dataset)
    if sealed.manifest_sha256 != facts["manifest_sha256"]:
        raise SealRefused(
            f"student {student_id} was trained on {dataset} when its manifest was {facts['manifest_sha256']}; it is"
            f" {sealed.manifest_sha256} now, so nobody can say what it learned from; train again"
        )
    folder = corpus.folder / "students" / student_id
    return Candidate(
        student_id=student_id,
        folder=folder,
        files=_trained_files(corpus, student_id) or digests_of(folder),
        datasets=(sealed,),
        run_id=run_id,
        base=wanted.base,
        sources=tuple(facts.get("sources", ())),
        read=tuple(facts.get("sources_of_unlabelled_text", ())),
    )


def _made_elsewhere(corpus: Corpus, wanted: Wanted, folder: Path) -> Candidate:
    files = digests_of(folder)
    if not files:
        raise UsageError(f"{folder}: there is no file in it; name the folder with the student's weights")
    about = _facts_in(folder)
    _refuse_copy(corpus, folder, files, about)
    if not wanted.datasets:
        raise UsageError(f"{folder}: name the sealed datasets that this student learned from, each with --dataset")
    datasets = tuple(sealed_dataset(corpus, name) for name in dict.fromkeys(wanted.datasets))
    _check_told(folder, about, datasets)
    _check_released(corpus, folder, files, datasets)
    return Candidate(
        student_id=digest([dict(files), [one.manifest_sha256 for one in datasets]])[:16],
        folder=folder,
        files=files,
        datasets=datasets,
        run_id=next((name for one in datasets for name in runs_of(one)), ""),
        base=wanted.base,
        made_elsewhere=True,
    )


def _facts_in(folder: Path) -> Mapping[str, Json]:
    """What a student's facts.json says of it; nothing where there is none, or one of another kind."""
    try:
        found = orjson.loads((folder / "facts.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_copy(corpus: Corpus, folder: Path, files: Mapping[str, str], about: Mapping[str, Json]) -> None:
    """Raise UsageError for the files of a student that was trained here, whatever folder they lie in by now.

    Raises SealRefused where that student is to be retired.
    """
    there = set(files.values())
    for student_id, known in _trained_here(corpus).items():
        if about.get("student_id") == student_id or there & _telling(known):
            refuse_to_retire(corpus, student_id)
            raise UsageError(
                f"{folder} holds student {student_id}, which was trained in this corpus; release it by that id, without"
                f" --dataset: corpusgen release {student_id}"
            )


def _trained_here(corpus: Corpus) -> dict[str, dict[str, str]]:
    """The files of every student that was trained in this corpus, by its id; of some, nothing but the id is left."""
    rows = corpus.journal.query("select student_id, facts from students order by trained_us")
    own = (str(name) for name, text in rows if "made_elsewhere" not in orjson.loads(text))
    found = {name: digests_of(corpus.folder / "students" / name) for name in own}
    for (text,) in corpus.journal.query(
        "select payload from events where kind = 'student_trained' and payload is not null order by seq"
    ):
        payload = orjson.loads(text)
        if "made_elsewhere" not in payload:
            known = found.setdefault(payload["student_id"], {})
            # What lies there now may be another file of that name; each of them tells.
            known |= {f"then/{path}": sha256 for path, sha256 in payload.get("files", {}).items()}
    return found


def _telling(files: Mapping[str, str]) -> set[str]:
    """The digests of files that no other student has: weights, and what is told of it."""
    named = ((Path(path), sha256) for path, sha256 in files.items() if sha256 != _EMPTY)
    return {sha256 for path, sha256 in named if path.suffix not in _ALIKE or path.name == "facts.json"}


def _check_told(folder: Path, about: Mapping[str, Json], datasets: Sequence[Sealed]) -> None:
    """Raise UsageError where a student's own facts.json names another dataset than somebody says."""
    named = {"dataset": [one.label for one in datasets], "manifest_sha256": [one.manifest_sha256 for one in datasets]}
    for field, known in named.items():
        if isinstance(said := about.get(field), str) and said not in known:
            raise UsageError(
                f"{folder / 'facts.json'} says {field} {said}, and --dataset names {', '.join(known)}; name every"
                " dataset that the student learned from"
            )


def _check_released(corpus: Corpus, folder: Path, files: Mapping[str, str], datasets: Sequence[Sealed]) -> None:
    """Raise UsageError where these weights were released before, and learned from more than somebody says now."""
    there, now = set(files.values()), {one.manifest_sha256 for one in datasets}
    for student_id, text in corpus.journal.query("select student_id, release from releases order by released_us"):
        said = orjson.loads(text)
        if not there & _telling(
            {path: sha256 for path, sha256 in said["files"].items() if path.startswith("student/")}
        ):
            continue
        refuse_to_retire(corpus, student_id)
        for one in said["datasets"]:
            if one["manifest_sha256"] not in now:
                raise UsageError(
                    f"{folder} holds what was released as {said['name']!r} ({said['release_id']}), which learned from"
                    f" {one['dataset']}; name that with --dataset too"
                )


def _trained_files(corpus: Corpus, student_id: str) -> dict[str, str]:
    """The files of a student as they were when it was trained; none where that was not kept yet."""
    rows = corpus.journal.query(
        "select payload from events where kind = 'student_trained' and payload is not null"
        " and json_extract(payload, '$.student_id') = ? order by seq desc limit 1",
        (student_id,),
    )
    return dict(orjson.loads(rows[0][0]).get("files", {})) if rows else {}


def digests_of(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a student, by its path."""
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files_in(folder)}


def _files_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if not path.is_dir())
    for path in found:
        if path.is_symlink() or not path.is_file():
            raise UsageError(f"{path}: is no plain file; a release holds copies of files, put one there")
    return found


def file_sha256(path: Path) -> str:
    """The sha256 of a file. Raises CorpusDamaged where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorpusDamaged(f"{path}: cannot be read: {error.strerror}") from error
