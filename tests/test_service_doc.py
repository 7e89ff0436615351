"""docs/service.md: its five commands, as they are written there, end with a recorded and budgeted run of curator."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from command import corpusgen
from token_table import put_token_table

DOC = (Path(__file__).parent.parent / "docs" / "service.md").read_text()
PATIENCE_S = 120.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def commands(mock: int, service: int) -> list[str]:
    """The five, with this environment's corpusgen, and ports that are free."""
    written = blocks("bash")[0].strip().splitlines()
    told = [line.replace("8765", str(mock)).replace("8484", str(service)) for line in written]
    return [line.replace(".venv/bin/corpusgen", f"{sys.executable} -m corpusgen") for line in told]


def until_up(url: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            assert time.monotonic() < end, url
            time.sleep(0.1)
        else:
            return


def test_there_are_five_commands_and_the_first_installs() -> None:
    install, *others = blocks("bash")[0].strip().splitlines()
    assert len(others) == 4
    assert install.endswith("pip install -c .ci/constraints.txt -e '.[serve]'")


def test_the_five_commands_record_a_budgeted_run_of_curator(tmp_path: Path) -> None:
    if "CURATOR_PYTHON" not in os.environ:
        pytest.skip("needs CURATOR_PYTHON: a Python of an environment that has bespokelabs-curator")
    mock, service = free_port(), free_port()
    _, mocking, beginning, serving, asking = commands(mock, service)
    (tmp_path / "poems.py").write_text(blocks("python")[0])
    serving = serving.replace("serve &", f"serve --port {service} &")
    children: list[subprocess.Popen[bytes]] = []
    quiet = {"TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
    quiet["TIKTOKEN_CACHE_DIR"] = str(put_token_table(tmp_path))
    environ = os.environ | quiet | {"HOME": str(tmp_path), "CORPUSGEN_CORPUS": str(tmp_path / "corpus")}
    try:
        for line, up in ((mocking, f"http://127.0.0.1:{mock}/bill"), (serving, f"http://127.0.0.1:{service}/readyz")):
            if line is serving:
                subprocess.run(beginning, shell=True, cwd=tmp_path, env=environ, check=True)
            words = line.removesuffix("&").split()
            children.append(subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL))
            until_up(up)
        asked = asking.replace("python poems.py", f"{os.environ['CURATOR_PYTHON']} poems.py")
        done = subprocess.run(asked, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240)
        assert "4 lines" in done.stdout, done.stderr[-3000:]
    finally:
        for child in children[::-1]:
            child.send_signal(signal.SIGTERM)
            child.wait(PATIENCE_S)
    sql = "select count(*) as lines, sum(cost_microusd) as paid from records"
    [row] = corpusgen("query", sql, "--corpus", tmp_path / "corpus", "--json").object["rows"]
    assert row["lines"] == 4
    assert row["paid"] > 0
