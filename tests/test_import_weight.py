from __future__ import annotations

import subprocess
import sys

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
