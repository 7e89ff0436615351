"""Corpora with unmistakable words in them, and a search that finds those words wherever bytes of a corpus may be."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import orjson
import pyarrow.parquet as pq
import zstandard
from aiohttp import web
from flow_samples import endpoint, fixed_clock, write_task
from teacher_samples import chat_reply, server

from corpusgen.corpus import Corpus
from corpusgen.curation.occurrence import Occurrence
from corpusgen.export.chat import export_chat
from corpusgen.journal import Transaction
from corpusgen.pipeline import Distillation, distill
from corpusgen.stages.loading import load_task

ZSTD = b"\x28\xb5\x2f\xfd"
ZLIB = (b"\x78\x01", b"\x78\x9c", b"\x78\xda")


def places(folder: Path, word: str) -> list[str]:
    """Where a word is below a folder: raw, in compressed frames, in Parquet pages and DuckDB tables."""
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        content = path.read_bytes()
        wanted = Occurrence(text=word)
        for how, text in _readings(path, content):
            if word.encode() in text or wanted.is_in_bytes(text):
                found.append(f"{path.relative_to(folder)}: {how}")
    return found


def _readings(path: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", content
    yield from (("zstd", text) for text in _frames(content))
    yield from (("zlib", text) for text in _zlibs(content))
    if path.suffix == ".parquet" or path.name.endswith(".parquet.tmp"):
        table = pq.read_table(path)
        yield "parquet", orjson.dumps(table.to_pydict(), default=repr)
        yield "parquet metadata", repr(pq.read_metadata(path).metadata).encode()
    if content[8:12] == b"DUCK":
        with duckdb.connect(str(path), read_only=True) as database:
            for (name,) in database.execute("select schema_name || '.' || table_name from duckdb_tables()").fetchall():
                rows = database.execute(f"select * from {name}").fetchall()
                yield "duckdb", repr(rows).encode()


def _frames(content: bytes) -> Iterator[bytes]:
    """Every zstd frame that begins anywhere, also one that a page's end cuts off."""
    at = content.find(ZSTD)
    while at >= 0:
        text = b""
        reader = zstandard.ZstdDecompressor().stream_reader(content[at : at + (1 << 20)])
        try:
            while part := reader.read(64):
                text += part
        except zstandard.ZstdError:
            pass
        yield text
        at = content.find(ZSTD, at + 1)


def _zlibs(content: bytes) -> Iterator[bytes]:
    for head in ZLIB:
        at = content.find(head)
        while at >= 0:
            text, reader = b"", zlib.decompressobj()
            try:
                for start in range(at, min(len(content), at + 65_536), 64):
                    text += reader.decompress(content[start : start + 64])
                    if reader.eof:
                        break
            except zlib.error:
                pass
            if text:
                yield text
            at = content.find(head, at + 1)


# --- a corpus that holds planted words in every place -----------------------------------------------------------------

SUBJECT = "Zebulon Quückenbush"
"""Written with an escape in JSON, and with other case and white space in some of the texts."""
PRICE = {"input_usd_per_mtok": 10, "output_usd_per_mtok": 100, "source": "test"}
JUDGE_PROMPT = """\
---
name: judge
licence: CC0-1.0
api: chat
inputs: [question, response, min, max]
---
user:
Question: {question}
Answer: {response}
How good is the answer?
"""
WORDS = (
    {"id": "w0", "word": "a river"},
    {"id": "w1", "word": "the house of Zebulon Quückenbush"},
    {"id": "w2", "word": "the barn"},
    {"id": "w3", "word": "ZEBULON\u00a0 QUÜCKENBUSH at sea"},
    {"id": "w4", "word": "the house of Zebulon Quückenbush"},
    {"id": "w5", "word": "a mill"},
)


async def echo(request: web.Request) -> web.Response:
    """A teacher that says what it was asked, with everything beyond ASCII escaped."""
    question = orjson.loads(await request.read())["messages"][-1]["content"]
    return web.json_response(chat_reply({"content": f'You said "{question.strip()}".'}, id=f"id-{len(question)}"))


def judged_task(folder: Path, url: str) -> Path:
    """A paid teacher and a free judge over WORDS; ``w4`` says what ``w1`` says."""
    judge = {"name": "scripted/judge", "script": "judge.yaml", "parameters": {"max_tokens": 64}, "free": True}
    curate = {"judge": {"teacher": judge, "prompt": "judge.md"}, "quality": {"judge": {"min_score": 1}}}
    teacher = endpoint(url, price=PRICE, free=False)
    spec = write_task(folder, items=len(WORDS), teacher=teacher, budget={"usd": 5}, curate=curate)
    (folder / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, WORDS)))
    (folder / "judge.md").write_text(JUDGE_PROMPT)
    (folder / "judge.yaml").write_text('default: {text: \'{"why": "so", "score": 4}\'}\n')
    return spec


async def filled(root: Path) -> tuple[Path, Path]:
    """The spec and the corpus of a run that was answered, judged, sealed, reported, and copied about in its folder."""
    async with server(echo) as url:
        spec, folder = judged_task(root / "task", url), root / "corpus"
        with Corpus.open(folder, clock=fixed_clock) as corpus:
            await distill(Distillation(task=load_task(spec), corpus=corpus))
            key = corpus.journal.query("select request_key from records where item_id = 'w1'")[0][0]
            body = zlib.compress(f"half an answer about {SUBJECT}".encode())
            corpus.journal.run_now(lambda writing: _plant(writing, key, body))
    (shard,) = folder.glob("shards/words/*.parquet")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "shards-words-train-00000.parquet.damaged-1").write_bytes(shard.read_bytes())
    (shard.parent / f".{shard.name}.tmp").write_bytes(shard.read_bytes())
    export_chat([next(folder.glob("datasets/words-1/*.parquet"))], folder / "exports" / "chat.jsonl")
    export_chat([next(folder.glob("datasets/words-1/*.parquet"))], folder / "exports" / "chat.parquet")
    return spec, folder


def _plant(transaction: Transaction, key: bytes, body: bytes) -> None:
    """What a run leaves where a teacher fails: an unreadable reply, an error, drops and remarks that quote."""
    transaction.execute("insert into unreadable select call_id, ? from calls where request_key = ?", (body, key))
    (run_id,) = transaction.rows("select run_id from runs where run_id not like '%-judge-%'")[0]
    for table in ("drops", "remarks"):
        transaction.execute(
            f"insert into {table}(run_id, stage, item_id, reason, detail) values(?, 'schema:train', 'w9', 'odd', ?)",
            (run_id, f"it said {SUBJECT}"),
        )
