"""Tasks for the tests of what the terms allow, with terms of their own for a server on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from flow_samples import write_task

from corpusgen.mock.server import Options, mock_teacher

ACME: dict[str, Any] = {
    "id": "acme-terms-1",
    "provider": "acme",
    "title": "Acme API Terms",
    "version": "1",
    "kind": "api_terms",
    "routes": ["api"],
    "hosts": ["127.0.0.1"],
    "models": ["m"],
    "outputs_train": "allowed",
    "outputs_train_competing": "allowed",
    "commercial_use": "allowed",
    "spdx": "LicenseRef-Acme-1",
    "source": "https://acme.example/terms",
    "confidence": "high",
    "reviewed": "2026-11-01",
}
PROHIBITED: dict[str, Any] = {
    "outputs_train": "prohibited",
    "outputs_train_competing": "prohibited",
    "quote": "You may not use Output to train models",
    "quote_location": "s. 4.2",
}
UNCLEAR: dict[str, Any] = {"outputs_train": "unclear", "outputs_train_competing": "unclear"}


def write_terms(path: Path, *documents: dict[str, Any], **more: Any) -> Path:
    """A terms file of these documents, each Acme's with changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"documents": [deepcopy(ACME | one) for one in documents]} | more, sort_keys=False))
    return path


def acme(url: str, **fields: Any) -> dict[str, Any]:
    """A teacher of Acme's on this machine."""
    named = {"name": "endpoint/m", "base_url": url, "provider": "acme", "route": "api", "script": None}
    return named | {"free": True, "parameters": {"max_tokens": 256}} | fields


def acme_task(folder: Path, base_url: str, *documents: dict[str, Any], items: int = 3, **changes: Any) -> Path:
    """A task that asks Acme, under these terms of it."""
    write_terms(folder / "terms.yaml", *(documents or ({},)))
    teacher = acme(base_url, **changes.pop("teacher", {}))
    return write_task(folder, items=items, teacher=teacher, **{"terms_files": ["terms.yaml"]} | changes)


@contextmanager
def mocking(options: Options) -> Iterator[str]:
    """The address of a mock teacher in a thread of its own, so that commands can be run beside it."""
    address: Future[str] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with mock_teacher(options) as mock:
            address.set_result(mock.base_url)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield address.result(timeout=30)
    finally:
        over.set()
        thread.join()
