"""A sealed dataset in the hands of Hugging Face ``datasets``, which lives in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import task_samples

PYTHON = os.environ.get("CORPUSGEN_DATASETS_PYTHON", "")

READ = """
import json, sys
from datasets import load_dataset
rows = list(load_dataset("parquet", data_dir=sys.argv[1], split="train", streaming=True))
print(json.dumps([[row["record_id"], row["messages"], row["calibrated_label"]] for row in rows]))
"""


@pytest.mark.skipif(not PYTHON, reason="CORPUSGEN_DATASETS_PYTHON names no Python that has datasets installed")
def test_datasets_streams_a_sealed_dataset_unchanged(tmp_path: Path) -> None:
    sealed = task_samples.distilled(tmp_path)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [PYTHON, "-c", READ, str(sealed.folder)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    from corpusgen.store.shards import read_records

    expected = [
        [record.record_id, [{"role": one.role, "content": one.content} for one in record.messages], record.calibrated_label]
        for record in read_records([sealed.file])
    ]
    assert json.loads(done.stdout) == expected
