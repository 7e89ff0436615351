"""The folder of a release: whole under a hidden name before it gets its own, and checked where it is there already."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.export.student import StudentFacts, model_card, not_held_list, student_notice
from corpusgen.records import Json
from corpusgen.stages.lineage.public_keys import KEYS_FOLDER
from corpusgen.stages.release.candidates import Candidate, file_sha256
from corpusgen.store.durable import make_folder, sync_folder, unwritable, write_file

RELEASES: Final = "releases"
STUDENT: Final = "student"
"""The folder of a release that holds the student's own files."""
_AT_ONCE: Final = 1 << 20


def planned(candidate: Candidate, facts: StudentFacts, texts: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of every file that the release will hold, by its path."""
    files = {f"{STUDENT}/{path}": sha256 for path, sha256 in candidate.files.items()}
    files |= {f"LICENSES/{one.file}": hashlib.sha256(one.text).hexdigest() for one in facts.held}
    files |= {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    return dict(sorted(files.items()))


def check_out(corpus: Corpus, out: Path) -> None:
    """Raise UsageError for a place where a release cannot stay: in the corpus, only releases/NAME can."""
    above = next((level for level in out.absolute().parents if level.exists()), None)
    if above is not None and not above.is_dir():
        raise UsageError(f"--out: {str(above)!r} is a file, so no folder can lie below it; name another place")
    if out.is_symlink() and not out.exists():
        raise UsageError(f"--out: {str(out)!r} is a link to what is not there; name the folder itself")
    place, inside = out.resolve(), corpus.folder.resolve()
    if place != inside and inside not in place.parents:
        return
    parts = place.relative_to(inside).parts
    if len(parts) != 2 or parts[0] != RELEASES or parts[1].startswith("."):
        raise UsageError(
            f"--out: {str(out)!r} is in the corpus, whose other files corpusgen makes and clears away; name"
            f" {str(corpus.folder / RELEASES / 'NAME')!r}, or a folder outside the corpus"
        )


def check_place(
    corpus: Corpus, out: Path, said: Mapping[str, Json], envelope: str | None, files: Mapping[str, str]
) -> None:
    """What lies there is this very release, whole, and nothing else; ``envelope`` is None where none was noted.

    Raises UsageError where it is something else, CorpusDamaged where a file of it is not what was released.
    """
    try:
        there = orjson.loads((out / "release.json").read_bytes())["release_id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"--out: {str(out)!r} is there already; name a folder that is not") from None
    if there != said["release_id"]:
        raise UsageError(f"--out: {str(out)!r} holds release {there}; name a folder that is not there")
    if envelope is None:
        raise UsageError(
            f"--out: {str(out)!r} calls itself release {there}, which nobody has approved here; name a folder that is"
            " not there"
        )
    said_so = {name: hashlib.sha256(text).hexdigest() for name, text in _about(corpus, said, envelope).items()}
    expected = {**files, **said_so}
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_symlink() or path.is_file()}
    if more := sorted(found.keys() - expected.keys()):
        raise CorpusDamaged(f"{out}: {more[0]} is no part of what was released; remove the folder and release again")
    for name, sha256 in expected.items():
        path = found.get(name)
        if path is None or path.is_symlink() or file_sha256(path) != sha256:
            raise CorpusDamaged(f"{out}: {name} is not what was released; remove the folder and release again")


def _about(corpus: Corpus, said: Mapping[str, Json], envelope: str) -> dict[str, bytes]:
    """The release itself, signed, and the key that it was signed with, by the path of each file."""
    files = {
        "release.json": orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n",
        "release.dsse.json": f"{envelope}\n".encode(),
    }
    for signature in orjson.loads(envelope)["signatures"]:
        key = corpus.folder / KEYS_FOLDER / f"{signature['keyid']}.pub"
        if key.exists():
            files["signer.pub"] = key.read_bytes()
    return files


def laid_out(
    corpus: Corpus,
    candidate: Candidate,
    facts: StudentFacts,
    texts: Mapping[str, str],
    said: Mapping[str, Json],
    envelope: str,
    out: Path,
) -> Path:
    """The whole folder under a hidden name, every file synced."""
    hidden = out.with_name(f".{out.name}.release")
    make_folder(out.parent)
    with unwritable(hidden):
        shutil.rmtree(hidden, ignore_errors=True)  # of a process that was killed
    try:
        for path, sha256 in candidate.files.items():
            _copy(candidate.folder / path, hidden / STUDENT / path, sha256)
        for held in facts.held:
            _write(hidden / "LICENSES" / held.file, held.text)
        for path, text in texts.items():
            _write(hidden / path, text.encode())
        for path, content in _about(corpus, said, envelope).items():
            _write(hidden / path, content)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return hidden


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    write_file(path, content)


def _copy(source: Path, target: Path, sha256: str) -> None:
    """A synced copy of a file. Raises CorpusDamaged unless it is what was trained."""
    make_folder(target.parent)
    seen = hashlib.sha256()
    try:
        reading = source.open("rb")
    except OSError as error:
        raise CorpusDamaged(f"{source}: cannot be read: {error.strerror}; train again") from error
    with unwritable(target), reading, target.open("wb") as written:
        while chunk := reading.read(_AT_ONCE):
            seen.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    sync_folder(target.parent)
    if seen.hexdigest() != sha256:
        raise CorpusDamaged(f"{source}: has sha256 {seen.hexdigest()}, and {sha256} was trained; train again")


def texts_of(facts: StudentFacts) -> dict[str, str]:
    """What is written about the student, by the path of each file in its release."""
    made = {"MODEL_CARD.md": model_card(facts), "NOTICE": student_notice(facts)}
    return made | ({"LICENSES/NOT_HELD.txt": not_held_list(facts)} if facts.not_held else {})
