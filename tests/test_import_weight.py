from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"openai", "anthropic", "torch", "duckdb", "pyarrow", "aiohttp", "httpx2", "boto3", "sklearn", "scipy", "numpy"}
WORK = {
    "import": "import corpusgen",
    "names": "import corpusgen; corpusgen.Record; corpusgen.TaskSpec; corpusgen.CorpusgenError",
    "help": "from corpusgen.cli.main import main; main(['--help'])",
    "plan": "from corpusgen.cli.main import main; main(['plan', '--help'])",
    "distill": "from corpusgen.cli.main import main; main(['distill', '--help'])",
    "schema": "from corpusgen.cli.main import main; main(['schema'])",
    "usage": "from corpusgen.cli.main import main; main(['plan'])",
}


@pytest.mark.parametrize("code", WORK.values(), ids=list(WORK))
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    listed = f"import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}
    assert "corpusgen" in loaded, done.stderr
    assert not loaded & HEAVY


def test_a_plan_for_a_hosted_teacher_reads_no_sdk() -> None:
    opened = "from corpusgen.teachers.registry import open_teacher; open_teacher('openai/m', sending=False)"
    done = subprocess.run([sys.executable, "-c", f"import sys; {opened}; print(*sys.modules)"], capture_output=True)
    loaded = {name.partition(".")[0] for name in done.stdout.decode().split()}
    assert "corpusgen" in loaded, done.stderr
    assert not loaded & {"openai", "anthropic", "httpx2", "boto3", "google"}


SERVICE = """
import asyncio, sys
from pathlib import Path
import corpusgen.cli.serve
from corpusgen.corpus import Corpus
from corpusgen.serve.app import every_operation, make_app, open_service
from corpusgen.serve.config import config_of
from corpusgen.serve.gate import GateSettings

async def ready(corpus, config):
    async with open_service(corpus, config) as service:
        make_app(service, every_operation(service), GateSettings(hosts=frozenset()))
        print("LOADED", *sys.modules)

with Corpus.open(Path(sys.argv[1]) / "corpus") as corpus:
    asyncio.run(ready(corpus, config_of(Path(sys.argv[1]) / "service.yaml", corpus.folder)))
"""


def test_a_service_listens_before_it_reads_what_only_answers_and_pages_need(tmp_path: Path) -> None:
    where = "base_url: 'http://127.0.0.1:9/v1', provider: us, route: self_hosted"
    offer = f"{{name: endpoint/m, {where}, free: true, parameters: {{max_tokens: 9}}}}"
    use = "{student_distribution: internal, student_competes: 'no', commercial: false}"
    text = f"intended_use: {use}\nbudget: {{usd: 1}}\nteachers: [{offer}]\n"
    (tmp_path / "service.yaml").write_text(text)
    done = subprocess.run([sys.executable, "-c", SERVICE, str(tmp_path)], capture_output=True, text=True)
    listed = next((line for line in done.stdout.splitlines() if line.startswith("LOADED")), "")
    loaded = {name.partition(".")[0] for name in listed.split()}
    assert {"corpusgen", "aiohttp", "jinja2"} <= loaded, done.stderr
    assert not loaded & (HEAVY - {"aiohttp"} | {"cryptography", "genai_prices"})


WRITTEN = """
import sys
from pathlib import Path
from corpusgen.store.fresh import Window
from corpusgen.store.shards import write_batches
from record_samples import sample_record

window, unknown = Window(), dict.fromkeys(("label_logprobs", "token_logprobs", "topk_logprobs", "calibrated_logprobs"))
window.add(sample_record(record_id="00", **unknown), 100)
write_batches(Path(sys.argv[1]), "a.parquet", window.batches([b"\\0"]))
print(*sys.modules)
"""


def test_texts_are_written_without_the_functions_of_arrow_that_take_eight_megabytes(tmp_path: Path) -> None:
    command, here = [sys.executable, "-c", WRITTEN, str(tmp_path)], Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert (tmp_path / "a.parquet").exists(), done.stderr
    assert "pyarrow.compute" not in done.stdout.split()
