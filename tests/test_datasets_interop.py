"""A sealed dataset in the hands of Hugging Face ``datasets``, which lives in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
from release_samples import mixed
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill
from corpusgen.stages.loading import load_task
from corpusgen.store.shards import read_records

PYTHON = os.environ.get("DATASETS_PYTHON", "")

READ = """
import json, sys
from datasets import load_dataset
rows = list(load_dataset("parquet", data_dir=sys.argv[1], split="train", streaming=True))
print(json.dumps([[row["record_id"], row["messages"], row["calibrated_label"]] for row in rows]))
"""


@pytest.mark.skipif(not PYTHON, reason="DATASETS_PYTHON names no Python that has datasets installed")
def test_datasets_streams_a_sealed_dataset_unchanged(tmp_path: Path) -> None:
    with Corpus.open(tmp_path / "corpus") as corpus:
        job = Distillation(task=load_task(write_label_task(tmp_path)), corpus=corpus)
        asyncio.run(distill(job))
    sealed = job.sealed
    assert sealed is not None
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [PYTHON, "-c", READ, str(sealed.folder)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    expected = [
        [
            record.record_id,
            [{"role": one.role, "content": one.content} for one in record.messages],
            record.calibrated_label,
        ]
        for record in read_records(sealed.files)
    ]
    assert json.loads(done.stdout) == expected


CONFIGS = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
names = get_dataset_config_names(sys.argv[1])
read = {name: load_dataset(sys.argv[1], name, split="train") for name in names}
print(json.dumps({name: [sorted(set(rows["teacher"])), len(rows)] for name, rows in read.items()}))
"""


@pytest.mark.skipif(not PYTHON, reason="DATASETS_PYTHON names no Python that has datasets installed")
def test_datasets_loads_the_rows_of_one_licence_by_the_name_of_its_configuration(tmp_path: Path) -> None:
    _, corpus = mixed(tmp_path)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    folder = corpus / "datasets" / "words-1"
    done = subprocess.run(
        [PYTHON, "-c", CONFIGS, str(folder)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: teachers for name, (teachers, _) in found.items()} == {
        "permissive": ["scripted/open"],
        "restricted": ["scripted/bound"],
    }
    assert sum(rows for _, rows in found.values()) == 12
