from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import corpusgen
from hostile_sql import COUNT, FAMILIES
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.errors import QueryError
from corpusgen.provenance.lineage import SCHEMAS, VIEWS
from corpusgen.stages.lineage.tracing import lineage_files
from corpusgen.stages.tables import journal_tables
from corpusgen.store import query
from corpusgen.store.manifest import read_manifest
from corpusgen.store.query import FiledSchema, QueryLimits, run_query
from corpusgen.store.tabulate import tabulate

CANARY, IN_ENVIRONMENT = "".join(("canary", "-in-a-file")), "".join(("canary", "-in-the-environment"))
PATIENT = QueryLimits(seconds=60, memory_mb=1024, rows=3000, bytes=1 << 20)
SHORT = QueryLimits(seconds=1, memory_mb=512, rows=1000, bytes=1 << 20)
AT_ONCE, PER_TEST = 4, 20
GRACE_S = 30
CHILD = Path(query.__file__).with_name("query_child.py")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A corpus with everything a statement might want to reach, and what must never be in an answer."""

    folder: Path
    canary: Path
    inputs: dict[str, Any]
    secrets: tuple[str, ...]

    def asked(self, sql: str, limits: QueryLimits) -> str:
        """What comes back, answer or refusal, as text."""
        try:
            result = run_query(sql, limits=limits, **self.inputs)
        except QueryError as error:
            return f"refused: {error}"
        return f"answer: {result.columns} {result.types} {tabulate(result, 'jsonl')}"

    def filled(self, sql: str) -> str:
        """The statement with the names of what is really there."""
        if "{" not in sql:
            return sql
        return sql.format(folder=self.folder, canary=self.canary, parent=os.getpid())

    def leaks(self, sql: str, told: str) -> list[str]:
        """What an answer tells that it must not; what the statement itself says does not count."""
        return [secret for secret in self.secrets if secret in told and secret not in sql]

    def digests(self) -> dict[str, str]:
        """Every file of the corpus."""
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    # Not in pytest's own folder: what guards the files must not be that others may not enter it.
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        place = Path(made)
        place.chmod(0o755)
        folder = place / "corpus"
        ran = corpusgen("distill", write_label_task(place), "--corpus", folder, "-q")
        assert ran.code == 0, ran.stderr
        patch.setenv("CORPUSGEN_CANARY", IN_ENVIRONMENT)
        patch.setenv("OPENAI_API_KEY", IN_ENVIRONMENT)
        _write_canaries(place / "bird")
        yield _scene(folder, place / "bird")


def _write_canaries(path: Path) -> None:
    for ending, content in ((".txt", CANARY), (".csv", f"word\n{CANARY}\n"), (".json", f'{{"word": "{CANARY}"}}')):
        path.with_suffix(ending).write_text(content)
    pq.write_table(pa.table({CANARY: [CANARY]}), path.with_suffix(".parquet"))
    for ending in (".txt", ".csv", ".json", ".parquet"):
        path.with_suffix(ending).chmod(0o644)


def _scene(folder: Path, canary: Path) -> Scene:
    with Corpus.open(folder) as corpus:
        files = lineage_files(corpus)
        secrets = [row[0].hex() for row in corpus.journal.query("select secret from dataset_secrets")]
        nonces = [row[0].hex() for row in corpus.journal.query("select nonce from events where nonce is not null")]
        inputs = {
            "shard_paths": read_manifest(folder).paths(folder),
            "tables": journal_tables(corpus),
            "filed": FiledSchema(name="lineage", tables=SCHEMAS, views=VIEWS, files=lambda: files),
        }
    assert secrets
    assert nonces
    paths = (str(folder), os.getcwd(), str(Path.home() / ".duckdb"))
    told = (CANARY, IN_ENVIRONMENT, *secrets, *nonces, *paths)
    return Scene(folder=folder, canary=canary, inputs=inputs, secrets=told)


def test_there_are_more_than_two_hundred_hostile_statements_and_each_is_another() -> None:
    assert COUNT >= 240, COUNT
    assert len({sql for family in FAMILIES.values() for sql in family}) == COUNT


LOTS = [
    pytest.param(family, statements[start : start + PER_TEST], id=f"{family}-{start}")
    for family, statements in FAMILIES.items()
    for start in range(0, len(statements), PER_TEST)
]


@pytest.mark.parametrize(("family", "lot"), LOTS)
def test_a_hostile_statement_learns_nothing_changes_nothing_and_leaves_nobody(
    scene: Scene, family: str, lot: tuple[str, ...]
) -> None:
    before = scene.digests()
    limits = SHORT if family == "bombs" else PATIENT
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = dict(pool.map(lambda sql: (sql, _watched(scene, scene.filled(sql), limits)), lot))
    wrong = {
        sql: f"{problem}: {answer[:300]}"
        for sql, answer in told.items()
        if (problem := _wrong(scene, family, sql, answer))
    }
    assert wrong == {}
    assert scene.digests() == before
    assert scene.asked("select count(*) > 0 as well from records", PATIENT).endswith('{"well": true}\n')


def _watched(scene: Scene, sql: str, limits: QueryLimits) -> str:
    began = time.monotonic()
    told = scene.asked(sql, limits)
    # Not how fast it is, but that a limit of seconds is one.
    assert time.monotonic() - began < 2 * limits.seconds + GRACE_S, sql
    assert _children() == [], sql
    return told


def _wrong(scene: Scene, family: str, sql: str, told: str) -> str:
    if leaked := scene.leaks(scene.filled(sql), told):
        return f"tells {leaked}"
    if family in ("writes", "reads") and not told.startswith("refused: "):
        return "was not refused"
    if family != "bombs" and ("stopped after" in told or "could not be run" in told):
        return "ended otherwise than by a refusal or an answer"
    return ""


def _children() -> list[int]:
    """The processes that this thread has started and that are still there."""
    found = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return [int(pid) for pid in found.read_text().split()] if found.exists() else []


# That these checks can fail


def _weakened(folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the child with other settings."""
    text = CHILD.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    copy = folder / "query_child.py"
    copy.write_text(text)
    return copy


OPEN = ('"enable_external_access": "false"', '"enable_external_access": "true"')
LARGE_FILES = ("_limit(resource.RLIMIT_FSIZE, 0)", "pass")
STILL_SOMEBODY = ('_become_nobody(header["parent"])', "pass")


@pytest.mark.parametrize("sql", ["from read_text('{canary}.txt')", "from '{canary}.csv'", "from '{canary}.parquet'"])
def test_a_child_that_may_read_files_would_be_found_out(
    scene: Scene, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "_CHILD", _weakened(tmp_path, OPEN))
    told = scene.asked(scene.filled(sql), PATIENT)
    assert _wrong(scene, "reads", sql, told) == f"tells {[CANARY]}"


def test_a_child_with_the_whole_environment_that_may_read_files_would_be_found_out(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "_CHILD", _weakened(tmp_path, OPEN, STILL_SOMEBODY))
    monkeypatch.setattr(query, "_environment", lambda: dict(os.environ))
    sql = "from read_blob('/proc/self/environ')"
    assert IN_ENVIRONMENT in str(scene.leaks(sql, scene.asked(sql, PATIENT)))


def test_a_child_that_may_write_files_would_be_found_out(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, sql = (
        scene.folder / "victim",
        "with x as (copy (select 666) to '{folder}/victim' (use_tmp_file false)) select 1",
    )
    victim.write_text("as it was")
    before = scene.digests()
    scene.asked(scene.filled(sql), PATIENT)
    assert scene.digests() == before
    monkeypatch.setattr(query, "_CHILD", _weakened(tmp_path, OPEN, LARGE_FILES, STILL_SOMEBODY))
    scene.asked(scene.filled(sql), PATIENT)
    assert [name for name, digest in scene.digests().items() if before[name] != digest] == [str(victim)]
    victim.unlink()


def test_a_file_that_bears_the_name_of_a_database_in_memory_is_not_read_and_a_child_beside_it_would_be_found_out(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = scene.canary.parent / "beside"
    beside.mkdir(mode=0o755)
    (beside / ":memory:").write_text(CANARY)
    monkeypatch.chdir(beside)
    sql = "from read_text(':memory:')"
    assert scene.leaks(sql, scene.asked(sql, PATIENT)) == []
    monkeypatch.setattr(query, "_CHILD", _weakened(tmp_path, ('os.chdir("/")', "pass")))
    assert scene.leaks(sql, scene.asked(sql, PATIENT)) == [CANARY]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to become")
def test_a_child_that_may_read_files_cannot_read_what_is_its_owners_alone(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "_CHILD", _weakened(tmp_path, OPEN))
    own = scene.canary.with_name("own.txt")
    own.touch(0o600)
    own.write_text(CANARY)
    sql = f"from read_text('{own}')"
    assert scene.leaks(sql, scene.asked(sql, PATIENT)) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc")
def test_a_child_that_runs_is_seen(scene: Scene) -> None:
    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        number = pool.submit(threading.get_native_id).result()
        asked = pool.submit(scene.asked, "select max(a.range * b.range) from range(9000000) a, range(9000000) b", SHORT)
        while not asked.done():
            seen += map(int, Path(f"/proc/self/task/{number}/children").read_text().split())
            time.sleep(0.02)
        assert "stopped after 1 s" in asked.result()
        assert pool.submit(_children).result() == []
    assert len(set(seen)) == 1
