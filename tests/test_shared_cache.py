"""The shared cache gives back what was written, or nothing: never another answer, never code."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen.errors import StoreError, UsageError
from corpusgen.records import Usage, canonical_json
from corpusgen.store import shared_cache
from corpusgen.store.answers import Answer, Card
from corpusgen.store.shared_cache import (
    FOLDER,
    MOST_BODY,
    MOST_WAITING,
    VERSION,
    Damaged,
    SafeDisk,
    Shared,
    SharedCache,
    file_system,
    open_shared_cache,
    pack,
    prepare_folder,
    unpack,
)

CARD = Card(
    teacher="endpoint/m",
    provider="acme",
    model="m",
    route="api",
    host="models.example",
    identity="acme@https://models.example",
    revision="",
    terms_set_id="abc",
    terms_ids=("acme-1", "acme-2"),
    outputs_train="allowed",
)


def entry(name: str, body: bytes = b'{"choices": []}', **fields: Any) -> Shared:
    answer = Answer(
        request_key=hashlib.sha256(name.encode()).digest(),
        card_id=CARD.card_id,
        usage=Usage(input_tokens=9, output_tokens=2, cached_input_tokens=3, service_tier="flex"),
        cost_microusd=17,
        price_version="spec: list",
        provider_request_id="req-1",
        sent_us=1_000,
        received_us=2_000,
        compute_us=None,
        body=body,
    )
    return Shared(answer=replace(answer, **fields), card=CARD)


def long_entry(name: str) -> Shared:
    """An entry that lies in a file of its own."""
    return entry(name, os.urandom(100_000).hex().encode())


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SharedCache]:
    cache = SharedCache.open(folder / FOLDER)
    try:
        yield cache
    finally:
        await cache.aclose()


async def stored(folder: Path, *entries: Shared) -> None:
    async with opened(folder) as cache:
        await cache.put_many(entries)


async def found(folder: Path, *entries: Shared) -> list[Shared | None]:
    async with opened(folder) as cache:
        got = await cache.get_many([one.answer.request_key for one in entries])
    return [got.get(one.answer.request_key) for one in entries]


def tamper(folder: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / FOLDER / "cache.db")) as connection, connection:
        connection.execute(sql, values)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def value_file(folder: Path) -> Path:
    return next((folder / FOLDER).rglob("*.val"))


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "corpusgen.cache")
    return caplog


# --- what goes in comes out -------------------------------------------------------------------------------------------


async def test_what_was_kept_is_found_by_the_next_corpus_with_its_terms_and_cost(tmp_path: Path) -> None:
    every = [entry("a"), entry("b", b"\xff\xfe not text"), long_entry("c")]
    async with opened(tmp_path) as cache:
        for one in every:
            cache.keep(one.answer, one.card)
    assert await found(tmp_path, *every) == every
    assert await found(tmp_path, entry("never asked")) == [None]


@given(
    body=st.binary(max_size=300), usage=st.builds(Usage, input_tokens=st.integers(0, 10**9), output_tokens=st.just(0))
)
@settings(max_examples=60, deadline=None)
def test_every_entry_is_unpacked_as_it_was_packed(body: bytes, usage: Usage) -> None:
    one = entry("a", body, usage=usage)
    assert unpack(one.answer.request_key, pack(one)) == one


async def test_keeping_returns_while_the_disk_is_stuck(tmp_path: Path) -> None:
    free = threading.Event()
    async with opened(tmp_path) as cache:
        cache._thread.submit(free.wait)
        for at in range(5_000):
            cache.keep(entry(f"n{at}").answer, CARD)
        assert not (cache.folder / "cache.db").exists()
        assert len(cache._waiting) == MOST_WAITING
        free.set()
    assert await found(tmp_path, entry("n0"), entry("n4999")) == [entry("n0"), None]


async def test_after_closing_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    cache = SharedCache.open(tmp_path / FOLDER)
    await cache.aclose()
    one = entry("a")
    cache.keep(one.answer, CARD)
    again = SharedCache.open(tmp_path / FOLDER)
    assert not await again.get_many([one.answer.request_key])
    await again.aclose()


async def test_a_forgotten_entry_is_gone_from_the_disk(tmp_path: Path) -> None:
    secret, other = entry("secret", os.urandom(500)), long_entry("long secret")
    traces = [pack(secret)[100:150], pack(other)[100:150]]
    async with opened(tmp_path) as cache:
        cache.keep(secret.answer, CARD)
        await cache.put_many([other, entry("kept")])
        assert cache.purge([secret.answer.request_key, other.answer.request_key, b"\0" * 32]) == 2
        assert not any(trace in everything_in(tmp_path) for trace in traces)  # its log among it
    assert await found(tmp_path, secret, other, entry("kept")) == [None, None, entry("kept")]
    assert not any(trace in everything_in(tmp_path) for trace in traces)


async def test_what_an_answer_says_is_found_whoever_asked_and_a_file_of_nobody_goes_too(tmp_path: Path) -> None:
    lost = tmp_path / FOLDER / "ab" / "cd" / "0123.val"
    async with opened(tmp_path) as cache:
        await cache.put_many([entry("a", b"about Zebulon"), entry("b", b"about the rest")])
        lost.parent.mkdir(parents=True)
        lost.write_bytes(b"Zebulon")
        assert cache.purge([], lambda body: b"Zebulon" in body) == 1
    assert await found(tmp_path, entry("a", b"about Zebulon")) == [None]
    assert not lost.exists()


async def test_entries_that_cannot_be_deleted_are_an_error(tmp_path: Path) -> None:
    prepare_folder(tmp_path / FOLDER)
    (tmp_path / FOLDER / "cache.db").write_bytes(b"not a database" * 99)
    async with opened(tmp_path) as cache:
        with pytest.raises(StoreError, match="delete the folder"):
            cache.purge([b"\0" * 32])


async def test_nothing_is_evicted_and_the_settings_stay_so(tmp_path: Path) -> None:
    import diskcache

    every = [entry(f"n{at}", os.urandom(2_000).hex().encode()) for at in range(300)]
    await stored(tmp_path, *every)
    with closing(diskcache.Cache(str(tmp_path / FOLDER), disk=SafeDisk)) as plain:
        assert (plain.eviction_policy, plain.size_limit, plain.cull_limit) == ("none", 2**62, 0)
    assert None not in await found(tmp_path, *every)


def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; sys.path[:0] = ['tests']; from pathlib import Path; import test_shared_cache as t;"
        "asyncio.run(t.stored(Path(sys.argv[1]), *[t.entry(sys.argv[2] + str(n)) for n in range(50)]))"
    )
    root = Path(__file__).parents[1]
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=root) for name in "ab"]
    assert [one.wait(60) for one in both] == [0, 0]
    every = [entry(f"{name}{at}") for name in "ab" for at in range(50)]
    assert asyncio.run(found(tmp_path, *every)) == every


async def test_an_answer_too_long_to_share_is_left_out(tmp_path: Path) -> None:
    await stored(tmp_path, entry("long", b"x" * (MOST_BODY + 1)), entry("short"))
    assert await found(tmp_path, entry("long"), entry("short")) == [None, entry("short")]


# --- tampering --------------------------------------------------------------------------------------------------------


class Canary:
    """Writes a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("mode", [4, 3, 0, 7, None, "1; drop"])
async def test_a_pickle_row_is_a_miss_and_does_not_run(
    tmp_path: Path, mode: object, warnings: pytest.LogCaptureFixture
) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Cache set mode = ?, value = ?", mode, pickle.dumps(Canary(tmp_path / "ran")))
    assert await found(tmp_path, entry("a")) == [None]
    assert not (tmp_path / "ran").exists()
    assert "which is not bytes" in warnings.text


async def test_a_pickle_in_place_of_an_entry_is_a_miss_and_does_not_run(tmp_path: Path) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Cache set value = ?", pickle.dumps(Canary(tmp_path / "ran")))
    assert await found(tmp_path, entry("a")) == [None]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["'text'", "7", "0.5", "cast(x'ff41' as text)", "x''", "null"])
async def test_a_row_of_another_type_is_a_miss(tmp_path: Path, value: str, warnings: pytest.LogCaptureFixture) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, f"update Cache set value = {value}")
    assert await found(tmp_path, entry("a")) == [None]
    assert warnings.text


async def test_a_pickled_key_is_never_read(tmp_path: Path) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Cache set raw = 0, key = ?", pickle.dumps(Canary(tmp_path / "ran")))
    assert await found(tmp_path, entry("a")) == [None]
    with pytest.raises(OSError, match="a key that is not ours"):
        SafeDisk(str(tmp_path)).get(pickle.dumps(Canary(tmp_path / "ran")), 0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../victim.val", "/etc/hostname", "ab/cd/../../../victim.val", "ab/cd/x.val", "", 5])
async def test_a_path_out_of_the_folder_is_neither_read_nor_deleted(
    tmp_path: Path, name: object, warnings: pytest.LogCaptureFixture
) -> None:
    victim = tmp_path / "victim.val"
    victim.write_bytes(pack(entry("a")))
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Cache set mode = 2, filename = ?, value = null", name)
    assert await found(tmp_path, entry("a")) == [None]
    await stored(tmp_path, entry("a"))  # takes the old row's file away
    assert await found(tmp_path, entry("a")) == [entry("a")]
    assert victim.exists()
    assert "is not one of ours" in warnings.text


async def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    one = long_entry("a")
    await stored(tmp_path, one)
    file = value_file(tmp_path)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert await found(tmp_path, one) == [None]
    file.parent.rename(tmp_path / "folder")
    file.parent.symlink_to(tmp_path / "folder")
    assert await found(tmp_path, one) == [None]
    assert warnings.text.count("lies behind a link") == 2


@pytest.mark.parametrize("length", [0, 1, 33, 40, 5_000])
async def test_a_truncated_file_is_a_miss(tmp_path: Path, length: int, warnings: pytest.LogCaptureFixture) -> None:
    one = long_entry("a")
    await stored(tmp_path, one)
    os.truncate(value_file(tmp_path), length)
    assert await found(tmp_path, one) == [None]
    assert "is ignored" in warnings.text


async def test_an_evicted_file_is_a_miss(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    one = long_entry("a")
    await stored(tmp_path, one)
    value_file(tmp_path).unlink()
    assert await found(tmp_path, one) == [None]
    assert "is ignored" in warnings.text


async def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    one = long_entry("a")
    await stored(tmp_path, one)
    file = value_file(tmp_path)
    file.unlink()
    os.mkfifo(file)
    assert await asyncio.wait_for(found(tmp_path, one), 20) == [None]


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_every_flipped_bit_is_found(at: int, bit: int) -> None:
    one = entry("a", b"some answer" * 9)
    value = bytearray(pack(one))
    value[at % len(value)] ^= 1 << bit
    with pytest.raises(Damaged):
        unpack(one.answer.request_key, bytes(value))


async def test_a_flipped_bit_on_disk_is_a_miss(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    one = long_entry("a")
    await stored(tmp_path, one, entry("b"))
    raw = bytearray(value_file(tmp_path).read_bytes())
    raw[5_000] ^= 1
    value_file(tmp_path).write_bytes(raw)
    assert await found(tmp_path, one, entry("b")) == [None, entry("b")]
    assert f"entry {one.answer.request_key.hex()[:12]} is ignored: its content is not what was written" in warnings.text


async def test_another_version_is_a_miss(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Cache set value = ?", b"\x02" + pack(entry("a"))[1:])
    assert await found(tmp_path, entry("a")) == [None]
    assert "its version is 02, expected 01" in warnings.text


async def test_another_requests_answer_under_this_key_is_a_miss(tmp_path: Path) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Cache set value = ?", pack(entry("b")))
    assert await found(tmp_path, entry("a")) == [None]


def forged(key: bytes, fields: dict[str, Any] | bytes) -> bytes:
    """What somebody who knows the format could write."""
    content = zstandard.compress(fields if isinstance(fields, bytes) else canonical_json(fields))
    return VERSION + shared_cache._digest(key, content) + content


def test_a_forged_entry_must_still_be_one() -> None:
    one = entry("a")
    key = one.answer.request_key
    good: dict[str, Any] = shared_cache._Entry(
        key=key.hex(), body="x", card=CARD, usage=one.answer.usage, cost_microusd=1, price_version="v",
        provider_request_id=None, sent_us=1, received_us=2, compute_us=None,
    ).model_dump()  # fmt: skip
    assert unpack(key, forged(key, good)).answer.body == b"x"
    changes: list[dict[str, Any]] = [
        {"cost_microusd": -1}, {"cost_microusd": "1"}, {"body": None}, {"usage": {}}, {"card": []}, {"more": 1},
        {"key": entry("b").answer.request_key.hex()}, {"body": None, "body_base64": "!"},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(Damaged):
            unpack(key, forged(key, good | change))
    for raw in (b"", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(Damaged):
            unpack(key, forged(key, raw))


def test_an_entry_that_would_fill_the_memory_is_refused_before_it_does() -> None:
    key = entry("a").answer.request_key
    bomb = zstandard.compress(b"0" * (5 * MOST_BODY))
    assert len(bomb) < 20_000
    with pytest.raises(Damaged, match="it would be 83886080 bytes long"):
        unpack(key, VERSION + shared_cache._digest(key, bomb) + bomb)


async def test_a_huge_row_or_file_is_a_miss(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    one = long_entry("file")
    await stored(tmp_path, entry("row"), one, entry("sound"))
    key = entry("row").answer.request_key.hex()
    tamper(tmp_path, "update Cache set value = zeroblob(40000000) where key = ?", key)
    os.truncate(value_file(tmp_path), 2**40)  # sparse
    assert await found(tmp_path, entry("row"), one, entry("sound")) == [None, None, entry("sound")]
    assert "too large" in warnings.text


@pytest.mark.parametrize(
    "sql",
    [
        "update Settings set value = 'delete' where key = 'sqlite_journal_mode'",
        "insert into Settings values('sqlite_writable_schema', 1)",
        "insert into Settings values('disk_code', 'x')",
        "insert into Settings values('transact', 'x')",
    ],
)
async def test_settings_of_somebody_else_turn_the_cache_off(
    tmp_path: Path, sql: str, warnings: pytest.LogCaptureFixture
) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, sql)
    assert await found(tmp_path, entry("a")) == [None]
    assert "its settings were changed" in warnings.text


async def test_a_policy_that_evicts_is_put_right(tmp_path: Path) -> None:
    await stored(tmp_path, entry("a"))
    tamper(tmp_path, "update Settings set value = 'least-recently-used' where key = 'eviction_policy'")
    tamper(tmp_path, "update Settings set value = 1 where key = 'size_limit'")
    await stored(tmp_path, *[entry(f"n{at}") for at in range(50)])
    assert await found(tmp_path, entry("a")) == [entry("a")]


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 30, b"", b"\0" * 8192])
async def test_a_database_that_is_none_turns_the_cache_off_or_is_made_anew(tmp_path: Path, content: bytes) -> None:
    prepare_folder(tmp_path / FOLDER)
    (tmp_path / FOLDER / "cache.db").write_bytes(content)
    assert await found(tmp_path, entry("a")) == [None]
    await stored(tmp_path, entry("a"))


async def test_a_database_damaged_in_the_middle_is_a_miss_and_not_a_crash(tmp_path: Path) -> None:
    every = [entry(f"n{at}", os.urandom(500).hex().encode()) for at in range(200)]
    await stored(tmp_path, *every)
    database = tmp_path / FOLDER / "cache.db"
    raw = bytearray(database.read_bytes())
    for at in range(8192, len(raw), 700):
        raw[at] ^= 0xFF
    database.write_bytes(raw)
    got = await found(tmp_path, *every)
    assert all(one is None or one == wanted for one, wanted in zip(got, every, strict=True))


@pytest.mark.parametrize("value", ["text", 5, None, {"a": 1}, bytearray(b"x")])
def test_only_bytes_are_stored_and_only_digests_name_them(tmp_path: Path, value: Any) -> None:
    disk = SafeDisk(str(tmp_path), min_file_size=10)
    with pytest.raises(TypeError):
        disk.store(value, False)
    with pytest.raises(TypeError):
        disk.put(value)
    with pytest.raises(TypeError):
        disk.store(b"x", True)


# --- where it may lie -------------------------------------------------------------------------------------------------


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for folder in (tmp_path / "open", tmp_path / "new" / "deep"):
        assert prepare_folder(folder).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_anybody_may_replace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    with pytest.raises(StoreError, match=r"shared can be written by anybody"):
        prepare_folder(tmp_path / "shared" / "mine")
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "shared" / "inner").mkdir(mode=0o700)
    with pytest.raises(StoreError, match=r"shared can be written by anybody"):
        prepare_folder(tmp_path / "shared" / "inner" / "mine")


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(StoreError, match="belongs to user"):
        prepare_folder(tmp_path / "mine")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    real = str(tmp_path.resolve()).replace(" ", r"\040")
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"23 22 0:50 / {real}/far\\040away rw master:2 - {kind} host:/home rw\n"
    )
    assert file_system(tmp_path.resolve(), mounts) == "ext4"
    with pytest.raises(StoreError, match=rf"network file system \({kind}\)"):
        prepare_folder(tmp_path / "far away" / "mine", mounts=mounts)
    assert file_system(tmp_path, tmp_path / "no such file") is None


def test_a_link_in_place_of_the_database_is_refused(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "mine")
    (folder / "cache.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        SharedCache.open(folder)


def test_the_environment_says_where_or_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_shared_cache({"CORPUSGEN_CACHE": "off"}) is None
    named = open_shared_cache({"CORPUSGEN_CACHE": str(tmp_path / "named")})
    assert named is not None
    assert named.folder == tmp_path.resolve() / "named" / FOLDER
    named.close()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    own = open_shared_cache({})
    assert own is not None
    assert own.folder.name == FOLDER
    own.close()


def test_a_named_folder_that_will_not_do_is_a_mistake_and_the_own_one_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^CORPUSGEN_CACHE: .*; name another folder, or write off"):
        open_shared_cache({"CORPUSGEN_CACHE": str(tmp_path / "file")})
    monkeypatch.setattr(shared_cache, "_place", lambda named: tmp_path / "file")
    assert open_shared_cache({}) is None
    assert "no shared cache" in warnings.text
