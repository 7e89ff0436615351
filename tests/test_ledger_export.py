"""The ledger as a file for the books: every figure in it, and any change to it found."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from command import corpusgen
from flow_samples import asker_of, open_corpus, prompts, write_task

from corpusgen.budget.amounts import Amounts, unit_name
from corpusgen.budget.leases import Leases
from corpusgen.budget.ledger import Cap, Intent, Ledger, balances
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.errors import TeacherTimeout
from corpusgen.fanout.stream import answers
from corpusgen.stages.ledger_export import check_ledger, export_ledger
from corpusgen.stages.reconciling import accept
from corpusgen.store.ledger_file import SCHEMA, read_ledger, side_file
from corpusgen.teachers.scripted import ScriptedAnswer

RATE = Rate(input_per_mtok=10_000_000, output_per_mtok=10_000_000, version="=SUM(A1)")
FORMS = (".csv", ".jsonl", ".parquet")


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    """Six calls that were answered, two whose outcome is unknown, one under way, a lease and caps."""
    with open_corpus(tmp_path / "corpus") as opened:
        asyncio.run(fill(opened))
        yield opened


async def fill(corpus: Corpus) -> None:
    def rule(request: Any) -> ScriptedAnswer | TeacherTimeout:
        number = int(request.messages[-1].content[-2:])
        return TeacherTimeout('late,\n"and" | cut') if number < 2 else ScriptedAnswer(text="hello")

    asker = asker_of(corpus, rule, rate=RATE, attempts=1, on_failure="drop", in_flight=1)
    asker = replace(asker, scopes=("run:r1", "corpus", "user:a | b"))
    await asker.ledger.set_caps(
        [Cap(scope="corpus", unit=unit, cap=10**9, origin="o") for unit in ("microusd", "tokens")]
    )
    async with answers(asker, prompts(8)) as records:
        assert len([record async for record in records]) == 6
    await asker.ledger.reserve(intent())
    await Leases(journal=corpus.journal).grant(("corpus",), Amounts(microusd=5, tokens=6, requests=7), seconds=60)


def intent() -> Intent:
    worst = Amounts(microusd=70, tokens=7, requests=1)
    names = {"run_id": "r1", "teacher": "t", "role": "r", "price_version": "v"}
    return Intent(**names, request_key=b"open", attempt=1, worst=worst, scopes=("run:r1", "corpus"))


def found(corpus: Corpus, path: Path) -> list[str]:
    return [finding.message for finding in check_ledger(corpus, path).findings]


def rewritten(path: Path, change: Callable[[str], str]) -> Path:
    """The file changed by somebody who knows how to write its digest."""
    path.write_bytes(change(path.read_bytes().decode()).encode())
    side_file(path).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_what_was_exported_is_found_as_it_was(corpus: Corpus, tmp_path: Path, form: str) -> None:
    made = export_ledger(corpus, tmp_path / f"ledger{form}")
    assert made.rows == {"export": 1, "call": 9, "lease": 1, "balance": 3, "cap": 2}
    checked = check_ledger(corpus, made.path)
    assert (checked.findings, checked.notes, checked.rows) == ([], [], 16)
    assert side_file(made.path).read_text() == f"{made.sha256}  {made.path.name}\n"


def test_the_three_forms_say_the_same(corpus: Corpus, tmp_path: Path) -> None:
    told = []
    for form in FORMS:
        export_ledger(corpus, tmp_path / f"ledger{form}")
        told.append([row for _, row in read_ledger(tmp_path / f"ledger{form}")])
    unquoted = [{name: text.removeprefix("'") for name, text in row.items()} for row in told[0]]
    assert unquoted == told[1] == told[2]
    assert {row["price_version"] for row in told[0] if row["state"] == "settled"} == {"'=SUM(A1)"}


def test_its_columns_add_up_to_the_balances_in_a_spreadsheet_too(corpus: Corpus, tmp_path: Path) -> None:
    export_ledger(corpus, tmp_path / "ledger.csv")
    with (tmp_path / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries = [row for row in rows if row["entry"] in ("call", "time", "lease")]
    for balance in balances(corpus.journal, ["corpus"]):
        for kind in ("settled", "promised", "unconfirmed"):
            name = f"{kind}_{unit_name(balance.unit)}"
            total = sum(Decimal(row[name] or 0) for row in entries if "corpus" in row["scopes"].split(" | "))
            assert total * (1_000_000 if name.endswith(("_usd", "_s")) else 1) == getattr(balance, kind)


def test_types_are_exact_in_parquet_and_times_are_utc(corpus: Corpus, tmp_path: Path) -> None:
    export_ledger(corpus, tmp_path / "ledger.parquet")
    table = pq.read_table(tmp_path / "ledger.parquet")
    assert table.schema.equals(SCHEMA)
    (first, *calls) = table.to_pylist()
    assert first["began"] == "2026-01-01T12:00:00.000000Z"
    assert calls[0]["state"] == "unknown"
    assert calls[0]["unconfirmed_usd"] == calls[0]["reserved_usd"] > 0
    assert "\n" not in calls[0]["error"]
    assert calls[0]["scopes"] == "run:r1 | corpus | user:a ¦ b"


@pytest.mark.parametrize("form", FORMS)
def test_any_flipped_bit_is_found_in_the_ledger_and_in_its_digest(corpus: Corpus, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"ledger{form}"
    export_ledger(corpus, path)
    choose = random.Random(form)
    for file in (path, side_file(path)):
        content = file.read_bytes()
        for _ in range(60):
            changed, place = bytearray(content), choose.randrange(len(content) * 8)
            changed[place // 8] ^= 1 << place % 8
            file.write_bytes(changed)
            assert found(corpus, path)
        file.write_bytes(content)
    assert not found(corpus, path)


def test_a_changed_figure_is_told_with_its_line_though_the_digest_was_written_anew(
    corpus: Corpus, tmp_path: Path
) -> None:
    export_ledger(corpus, tmp_path / "ledger.jsonl")
    path = rewritten(
        tmp_path / "ledger.jsonl", lambda text: text.replace('"settled_requests":1', '"settled_requests":2', 1)
    )
    first, *sums = found(corpus, path)
    assert first == "line 4: call 3: settled_requests is '2', the journal says '1'"
    assert all("its rows add up to" in message for message in sums)
    assert len(sums) == 3


def test_a_line_left_out_put_in_or_moved_is_told(corpus: Corpus, tmp_path: Path) -> None:
    def lines(change: Callable[[list[str]], list[str]]) -> list[str]:
        export_ledger(corpus, tmp_path / "ledger.jsonl")
        path = rewritten(tmp_path / "ledger.jsonl", lambda text: "".join(change(text.splitlines(keepends=True))))
        return found(corpus, path)

    assert "has no call 3, which the journal has" in lines(lambda text: text[:3] + text[4:])
    assert "line 5: call 3 stands twice or out of order" in lines(lambda text: text[:4] + text[3:])
    assert "line 11: call 99 is not in the journal" in lines(
        lambda text: [*text[:10], text[9].replace('"id":9,', '"id":99,'), *text[10:]]
    )
    assert "has no first row that says when it was exported" in lines(lambda text: text[1:])
    assert any("line 3: is not JSON" in message for message in lines(lambda text: [*text[:2], "{\n", *text[3:]]))


def test_what_goes_on_afterwards_is_no_difference_but_is_said(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    export_ledger(corpus, path)
    ledger = Ledger(corpus.journal)
    (unknown, *_) = [row[0] for row in corpus.journal.query("select call_id from calls where state = 'unknown'")]
    accept(corpus, [unknown], by="ann", reason="invoice 7")
    corpus.journal.run_now(lambda transaction: transaction.execute("update leases set tokens = 1") and None)
    asyncio.run(ledger.reserve(replace(intent(), request_key=b"later")))
    asyncio.run(ledger.set_caps([Cap(scope="corpus", unit="tokens", cap=5 * 10**8, origin="new", per="day")]))
    checked = check_ledger(corpus, path)
    assert checked.findings == []
    assert [note.partition(":")[0] for note in checked.notes] == [
        "calls closed, reconciled or counted in another period since",
        "calls since",
        "caps set, changed or taken away since",
        "leases drawn from or ended since",
    ]
    export_ledger(corpus, path)
    assert check_ledger(corpus, path).notes == []


def test_a_ledger_of_another_corpus_is_told_from_this_ones(corpus: Corpus, tmp_path: Path) -> None:
    export_ledger(corpus, tmp_path / "ledger.csv")
    with Corpus.open(tmp_path / "other") as other:
        assert found(other, tmp_path / "ledger.csv")[0].startswith("line 2: is of another corpus")


def test_a_lost_digest_is_said_and_the_rows_are_still_compared(corpus: Corpus, tmp_path: Path) -> None:
    export_ledger(corpus, tmp_path / "ledger.csv")
    side_file(tmp_path / "ledger.csv").unlink()
    assert found(corpus, tmp_path / "ledger.csv") == [
        "its digest ledger.csv.sha256 cannot be read (No such file or directory); export it again"
    ]


# --- the commands ----------------------------------------------------------------------------------------------------


def test_a_person_exports_and_checks_and_is_told_the_line(tmp_path: Path) -> None:
    task, here = write_task(tmp_path, items=5), ("--corpus", tmp_path / "corpus")
    assert corpusgen("run", task, *here, "-q").code == 0
    made = corpusgen("budget", "export", tmp_path / "books.csv", *here)
    assert made.stdout == f"{tmp_path}/books.csv: 5 calls, 4 balances; sha256 in books.csv.sha256\n"
    assert corpusgen("verify", "--ledger", tmp_path / "books.csv", *here).stdout == "sound\n"
    rewritten(tmp_path / "books.csv", lambda text: text.replace("label", "x").replace(",settled,", ",released,", 1))
    ran = corpusgen("verify", "--ledger", tmp_path / "books.csv", *here)
    assert ran.code == 6
    assert "line 3: call 1: state is 'released', the journal says 'settled'" in ran.stdout
    assert "1 finding\n" in ran.stdout
    assert "1 thing is not as it was exported" in ran.stderr
    told = corpusgen("verify", "--ledger", tmp_path / "books.csv", *here, "--json").object
    assert (told["sound"], told["exit_code"], len(told["findings"])) == (False, 6, 1)


def test_a_name_that_says_no_form_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    task, here = write_task(tmp_path, items=1), ("--corpus", tmp_path / "corpus")
    corpusgen("run", task, *here, "-q")
    for ran in (corpusgen("budget", "export", "x.xlsx", *here), corpusgen("verify", "--ledger", "x.xlsx", *here)):
        assert ran.code in (2, 6)
        assert "x.xlsx" in ran.stdout + ran.stderr
    assert corpusgen("verify", "--ledger", tmp_path / "none.csv", *here).code == 6
    nowhere = corpusgen("budget", "export", tmp_path / "no" / "x.csv", *here, "--json").object
    assert nowhere["error"] == "UsageError"
    assert str(tmp_path / "no") in nowhere["message"]
    assert corpusgen("verify", "--repair", "--ledger", "x.csv", *here).code == 2


def test_an_export_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    task, here = write_task(tmp_path, items=2), ("--corpus", tmp_path / "corpus")
    corpusgen("run", task, *here, "-q")
    for _ in range(2):
        assert corpusgen("budget", "export", tmp_path / "x.jsonl", *here).code == 0
    assert {path.name for path in tmp_path.glob(".*")} == set()
    assert [orjson.loads(line)["entry"] for line in (tmp_path / "x.jsonl").read_bytes().splitlines()][:2] == [
        "export",
        "call",
    ]
