"""What every peer is given: an address, a key, a folder and how many rows; it says how many were answered.

Run by the Python of an environment that has the peer and not corpusgen, so nothing here is ours but this file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

QUIET = {
    "ANTHROPIC_API_KEY": "unused",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NEMO_TELEMETRY_ENABLED": "false",
    "NO_PROXY": "127.0.0.1,localhost",
    "OPENAI_API_KEY": "unused",
    "TELEMETRY_ENABLED": "false",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True)
class Job:
    """What to do."""

    origin: str
    """``http://127.0.0.1:PORT``."""
    key: str
    model: str
    folder: Path
    rows: int

    @property
    def base_url(self) -> str:
        """Where OpenAI's clients look."""
        return f"{self.origin}/v1"

    @property
    def questions(self) -> list[str]:
        """One for each row, all different."""
        return [f"Question {at}: what is {at} and {at + 1} together, in words?" for at in range(self.rows)]


def run(work: Callable[[Job], Iterable[str | None]]) -> None:
    """Do it, and print how many rows have an answer."""
    origin, key, model, folder, rows = sys.argv[1:6]
    answers = list(work(Job(origin=origin, key=key, model=model, folder=Path(folder), rows=int(rows))))
    answered = [answer for answer in answers if isinstance(answer, str) and answer.strip()]
    sys.stdout.write(
        "RESULT " + json.dumps({"rows": len(answers), "answered": len(answered), "distinct": len(set(answered))}) + "\n"
    )


def quiet() -> None:
    """Have the libraries send nothing to anybody but the service, and read no table from the network."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "TIKTOKEN_CACHE_DIR" not in os.environ:  # litellm's own copy of the table, under the name tiktoken looks for
        name = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
        for found in Path(sys.prefix).glob(f"lib/python3*/site-packages/litellm/litellm_core_utils/tokenizers/{name}"):
            os.environ["TIKTOKEN_CACHE_DIR"] = str(found.parent)
