"""Other people's tools, unmodified, each in an environment of its own, against the gateway.

``CURATOR_PYTHON``, ``DESIGNER_PYTHON`` and ``LITELLM_PYTHON`` name the Pythons of environments made from
``.ci/curator.txt``, ``.ci/designer.txt`` and ``.ci/litellm.txt``; a tool whose variable is not set is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from serve_samples import ANTHROPIC, OPENAI, Served, served
from token_table import put_token_table

from corpusgen.budget.ledger import balances
from corpusgen.stages.committing import export_manifest
from corpusgen.store.shards import read_records

PEERS = Path(__file__).parent / "peers"
ROWS = 20
PATIENCE_S = 240.0

IN_ANTHROPICS = {"PROVIDER": "anthropic"}
WAYS = {
    "curator": ("CURATOR_PYTHON", "curator_job.py", OPENAI, {}),
    "data-designer": ("DESIGNER_PYTHON", "designer_job.py", OPENAI, {}),
    "data-designer, in Anthropic's format": (
        "DESIGNER_PYTHON",
        "designer_job.py",
        ANTHROPIC,
        {"PROVIDER": "anthropic"},
    ),
    "litellm": ("LITELLM_PYTHON", "litellm_job.py", OPENAI, {}),
}


@pytest.fixture(params=WAYS, ids=[name.replace(" ", "-") for name in WAYS])
def way(request: pytest.FixtureRequest) -> tuple[str, str, str, dict[str, str]]:
    python, script, model, environ = WAYS[request.param]
    if python not in os.environ:
        pytest.skip(f"needs {python}: a Python of an environment that has {request.param.partition(',')[0]}")
    return os.environ[python], script, model, dict(environ)


@pytest.fixture(scope="module")
def token_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_token_table(tmp_path_factory.mktemp("tiktoken"))


async def work(
    there: Served, way: tuple[str, str, str, dict[str, str]], folder: Path, table: Path, key: str
) -> dict[str, Any]:
    """Have a tool do its job, with a memory of its own that is empty; what it says came of it."""
    python, script, model, environ = way
    process = await asyncio.create_subprocess_exec(
        *(python, str(PEERS / script), there.url, key, model, str(folder), str(ROWS)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**_plain(), "TIKTOKEN_CACHE_DIR": str(table), "HOME": str(folder), **environ},
    )
    async with asyncio.timeout(PATIENCE_S):
        out, errors = await process.communicate()
    said = [line for line in out.decode().splitlines() if line.startswith("RESULT ")]
    assert process.returncode == 0, errors.decode()[-3000:]
    assert said, errors.decode()[-3000:]
    found: dict[str, Any] = json.loads(said[-1].removeprefix("RESULT "))
    return found


def new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _plain() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}


async def test_an_unmodified_tool_is_recorded_whole_and_a_second_time_costs_nothing(
    way: tuple[str, str, str, dict[str, str]], token_table: Path, tmp_path: Path
) -> None:
    async with served(tmp_path) as there:
        key = there.token("ask")
        first = await work(there, way, new(tmp_path, "first"), token_table, key)
        assert first == {"rows": ROWS, "answered": ROWS, "distinct": ROWS}
        asked, billed = there.bill["billed_requests"], there.bill["billed_microusd"]
        assert asked == ROWS
        again = await work(there, way, new(tmp_path, "again"), token_table, key)
        assert again == first
        assert (there.bill["billed_requests"], there.bill["billed_microusd"]) == (asked, billed)
        spent = {one.unit: one.settled for one in balances(there.corpus.journal, ["service"])}
        assert (spent["requests"], spent["microusd"]) == (asked, billed)
        await there.service.desk.commit()
        manifest = export_manifest(there.corpus)
        shards = [there.corpus.shard_folder(one.dataset) / one.name for one in manifest.shards]
        records = list(read_records(shards))
    assert len(records) == ROWS
    for record in records:
        assert record.response or record.tool_calls
        assert record.terms_set_id
        assert record.source_ids
        assert record.provider_request_id
        assert record.cost_microusd > 0
        assert record.output_tokens > 0
