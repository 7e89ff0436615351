from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from command import corpusgen
from serve_samples import CHAT, new_token, served

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.provenance.events import EventKind
from corpusgen.serve.tokens import SECRET, Tokens, Wish, create, listed, revoke

DEADLINE_S = 20.0


@dataclass
class Clock:
    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def _made(corpus: Path, *more: str, name: str = "laptop") -> tuple[dict[str, Any], str]:
    ran = corpusgen(
        "tokens", "create", name, "--user", "ann", "--scope", "ask,read", *more, "--corpus", corpus, "--json"
    )
    assert ran.code == 0, ran.stderr
    return ran.object, ran.object["secret"]


def test_a_secret_is_shown_once_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    ran = corpusgen("tokens", "create", "laptop", "--user", "ann", "--scope", "ask", "--corpus", tmp_path / "c")
    secret = ran.stdout.strip()
    assert SECRET.fullmatch(secret)
    assert secret not in ran.stderr
    kept = b"".join(path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret[3:].encode() not in kept
    assert hashlib.sha256(secret.encode()).digest() in kept


def test_no_two_secrets_are_alike(tmp_path: Path) -> None:
    with Corpus.open(tmp_path / "c") as corpus:
        secrets = {new_token(corpus, "ask", name=f"t{at}")[1] for at in range(50)}
    assert len(secrets) == 50


def test_the_list_tells_whose_a_token_is_and_what_became_of_it(tmp_path: Path) -> None:
    made, secret = _made(tmp_path / "c", "--task", "birds", "--use", "internal", "--may-name-users")
    assert made["scopes"] == ["ask", "read"]
    assert corpusgen("tokens", "revoke", "laptop", "--corpus", tmp_path / "c").code == 0
    _made(tmp_path / "c", "--days", "7")  # the name is free again
    listed = corpusgen("tokens", "list", "--corpus", tmp_path / "c", "--json").object["tokens"]
    assert [one["state"] for one in listed] == ["revoked", "valid"]
    assert listed[0]["task"] == "birds"
    assert listed[0]["use"] == {"student_distribution": "internal"}
    told = corpusgen("tokens", "list", "--corpus", tmp_path / "c").stdout
    assert "user ann" in told
    assert "never used" in told
    assert secret not in told


def test_making_and_revoking_are_acts_in_the_ledger_of_events(tmp_path: Path) -> None:
    made, secret = _made(tmp_path / "c", "--budget", "usd=2")
    corpusgen("tokens", "revoke", made["token_id"], "--corpus", tmp_path / "c")
    kind: EventKind = "administered"
    with Corpus.open(tmp_path / "c") as corpus:
        rows = corpus.journal.query("select payload from events where kind = ? order by seq", (kind,))
    told = [orjson.loads(row[0]) for row in rows]
    assert [one["act"] for one in told] == ["token_created", "token_revoked"]
    assert told[0]["caps"] == {"microusd": 2_000_000}
    assert all(one["by"] and one["token"] == made["token_id"] for one in told)
    assert secret not in str(rows)


@pytest.mark.parametrize(
    "arguments",
    [
        ["laptop", "--user", "ann", "--scope", "everything"],
        ["laptop", "--user", "ann", "--scope", ","],
        ["laptop", "--user", "a\nb", "--scope", "ask"],
        ["laptop", "--user", "ann@2026-11-22", "--scope", "ask"],
        ["lap\ntop", "--user", "ann", "--scope", "ask"],
        ["", "--user", "ann", "--scope", "ask"],
        ["laptop", "--user", "ann", "--scope", "ask", "--days", "0"],
        ["laptop", "--user", "ann", "--scope", "ask", "--task", "../x"],
        ["laptop", "--user", "ann", "--scope", "ask", "--budget", "usd=lots"],
    ],
)
def test_a_token_that_cannot_be_is_refused_with_what_to_change(tmp_path: Path, arguments: list[str]) -> None:
    ran = corpusgen("tokens", "create", *arguments, "--corpus", tmp_path / "c")
    assert ran.code == 2
    assert "error: " in ran.stderr or "Error: " in ran.stderr
    assert "cg_" not in ran.stdout


def test_two_tokens_of_one_name_would_be_confused(tmp_path: Path) -> None:
    _made(tmp_path / "c")
    again = corpusgen("tokens", "create", "laptop", "--user", "bob", "--scope", "ask", "--corpus", tmp_path / "c")
    assert again.code == 2
    assert "there is a token 'laptop' already" in again.stderr


def test_a_secret_given_where_an_id_belongs_is_not_repeated(tmp_path: Path) -> None:
    _, secret = _made(tmp_path / "c")
    ran = corpusgen("tokens", "revoke", secret, "--corpus", tmp_path / "c")
    assert ran.code == 2
    assert secret not in ran.stderr + ran.stdout


async def test_an_expired_token_is_worth_nothing(tmp_path: Path) -> None:
    clock = Clock()
    with Corpus.open(tmp_path / "c", clock=clock) as corpus:
        _, secret = new_token(corpus, "ask", days=1)
        tokens = Tokens(corpus)
        assert tokens.caller_of(secret) is not None
        clock.now += timedelta(days=1)
        assert tokens.caller_of(secret) is None
        assert listed(corpus)[0].state(clock()) == "expired"


async def test_the_last_use_is_written_down_at_most_once_a_minute(tmp_path: Path) -> None:
    clock = Clock()
    with Corpus.open(tmp_path / "c", clock=clock) as corpus:
        token, secret = new_token(corpus, "ask")
        tokens = Tokens(corpus)
        used = []
        for seconds in (0, 1, 58, 1):
            clock.now += timedelta(seconds=seconds)
            tokens.caller_of(secret)
            await corpus.journal.run(lambda transaction: None)
            used.append(listed(corpus)[0].used)
    began = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert used == [began, began, began, began + timedelta(seconds=60)]
    assert token.used is None


def test_only_a_token_that_is_there_can_be_revoked(tmp_path: Path) -> None:
    with Corpus.open(tmp_path / "c") as corpus:
        create(corpus, Wish(name="a", user="ann", scopes=("ask",), days=1), by="ann")
        revoke(corpus, "a", by="ann")
        with pytest.raises(UsageError, match="no token 'a' that is not revoked already"):
            revoke(corpus, "a", by="ann")


# --- in a running service


async def test_without_any_token_this_machine_comes_in_and_with_one_only_who_has_it(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        assert (await s.get("/metrics")).status == 200
        assert (await s.get("/metrics", token="any")).status == 200
        assert (await s.get("/metrics", token="cg_of-another-service")).status == 401
        secret = s.token("read")
        assert (await s.get("/metrics")).status == 401
        assert (await s.get("/metrics", token=secret)).status == 200
        assert (await s.get("/metrics", x_api_key=secret)).status == 200
        revoke(s.corpus, "token of read", by="ann")
        assert (await s.get("/metrics")).status == 401  # there was one: nobody comes in without from then on


async def test_a_token_does_what_its_scopes_say_and_is_told_what_it_lacks(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        read, ask, admin = s.token("read"), s.token("ask"), s.token("admin")
        refused = await s.post("/v1/chat/completions", CHAT, token=read)
        assert (refused.status, "scope 'ask'" in refused.text) == (403, True)
        assert (await s.get("/metrics", token=ask)).status == 403
        assert (await s.post("/v1/chat/completions", CHAT, token=ask)).status == 200
        assert (await s.get("/metrics", token=admin)).status == 200


async def test_a_revocation_by_another_process_is_heard_of(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        secret = s.token("read", name="laptop")
        assert (await s.get("/metrics", token=secret)).status == 200
        command = [sys.executable, "-m", "corpusgen", "tokens", "revoke", "laptop", "--corpus", str(s.corpus.folder)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, env=os.environ)
        assert done.returncode == 0, done.stderr
        async with asyncio.timeout(DEADLINE_S):
            while (await s.get("/metrics", token=secret)).status == 200:  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0.05)
        assert (await s.get("/metrics", token=secret)).status == 401


async def test_a_tokens_own_budget_stops_it_and_nobody_else(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        poor, rich = s.token("ask", name="poor", caps={"requests": 1}), s.token("ask", name="rich")
        other = CHAT | {"max_tokens": 17}
        assert (await s.post("/v1/chat/completions", CHAT, token=poor)).status == 200
        refused = await s.post("/v1/chat/completions", other, token=poor)
        assert refused.status == 402
        assert s.bill["requests"] == 1
        assert (await s.post("/v1/chat/completions", CHAT, token=poor)).status == 200  # a known answer costs nothing
        assert (await s.post("/v1/chat/completions", other, token=rich)).status == 200


async def test_what_a_token_asks_is_recorded_under_its_task_and_user(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        secret = s.token("ask", task="birds", user="cleo")
        assert (await s.post("/v1/chat/completions", CHAT, token=secret)).status == 200
        assert (await s.post("/v1/chat/completions", CHAT, token=secret, x_corpusgen_task="fish")).status == 403
        assert (await s.post("/v1/chat/completions", CHAT, token=secret, x_corpusgen_user="bob")).status == 403
        assert s.corpus.journal.query("select distinct task from runs") == [("birds",)]
        scopes = s.corpus.journal.query("select scopes from calls")[0][0].split("\n")
        assert {"user:cleo", "service"} <= set(scopes)
        assert any(scope.startswith("token:tok-") for scope in scopes)
