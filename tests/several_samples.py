"""Small tasks with several teachers, or with answers held to a schema."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from flow_samples import write_task

PRICE = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2, "source": "made up"}
SCHEMA = {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}


def write_several(folder: Path, scripts: dict[str, Any], *, items: int = 6, **changes: Any) -> Path:
    """A free-text task with a scripted teacher for each script; a script may bring fields of its teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    teachers = []
    for name, given in scripts.items():
        script = deepcopy(given)  # YAML would write what stands twice as an alias
        fields = script.pop("teacher", {})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(script))
        teacher = {"name": f"scripted/{name}", "script": f"{name}.yaml", "parameters": {"max_tokens": 8}, "free": True}
        teachers.append(teacher | fields)
    return write_task(folder, items=items, teachers=teachers, **changes)


def saying(text: str, **teacher: Any) -> dict[str, Any]:
    """A script that always says the same."""
    return {"default": {"text": text}, "teacher": teacher}


def failing(kind: str, **fields: Any) -> dict[str, Any]:
    """A script in which every call fails in the same way."""
    return {"default": {"error": {"kind": kind, **fields}}}


PRICED = {"free": False, "price": PRICE}
