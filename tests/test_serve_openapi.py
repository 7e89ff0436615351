"""The OpenAPI document is valid and true: what is sent by it is answered by it, and nothing makes the service fail."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from pydantic import BaseModel
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from serve_samples import served
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill
from corpusgen.serve.api.models import BudgetWanted, LeaseReturn, LeaseTold, LeaseWanted, RunWanted
from corpusgen.serve.api.operations import operations
from corpusgen.serve.openapi import document
from corpusgen.stages.loading import load_task

EXAMPLES = 6
"""For each operation; a bounded search, the same at every run."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


class Beside(threading.Thread):
    """A service in a thread of its own, for a client that blocks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="service", daemon=True)
        self.folder, self.ready, self.over = folder, threading.Event(), threading.Event()
        self.url = self.token = ""
        self.error: BaseException | None = None

    def run(self) -> None:
        """Serve until it is over."""
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        async with served(self.folder, tasks=self.folder / "tasks") as one:
            self.token, self.url = one.token("admin", user="root"), one.url
            self.ready.set()
            await asyncio.to_thread(self.over.wait)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    folder = tmp_path_factory.mktemp("described")
    spec = write_label_task(folder / "tasks" / "kinds")
    with Corpus.open(folder / "corpus") as corpus:
        asyncio.run(distill(Distillation(task=load_task(spec), corpus=corpus), report=folder / "report.html"))
    beside = Beside(folder)
    beside.start()
    assert beside.ready.wait(60)
    assert beside.url, beside.error
    yield beside
    beside.over.set()
    beside.join(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def described(service: Beside) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/api/v1/openapi.json")


OF_VENDORS = [
    *(("/v1/chat/completions", "post"), ("/v1/completions", "post"), ("/v1/responses", "post")),
    *(("/v1/embeddings", "post"), ("/v1/messages", "post"), ("/v1/messages/count_tokens", "post")),
    *(("/v1/models", "get"), ("/healthz", "get"), ("/readyz", "get"), ("/metrics", "get")),
]


def _every() -> list[tuple[str, str]]:
    """The operations that are over when they have answered."""
    paths = document(operations())["paths"]
    found = [(path, method) for path, methods in paths.items() for method in methods if not path.endswith("/events")]
    return found + OF_VENDORS


def test_the_document_is_valid_openapi() -> None:
    validate(document(operations()))


def test_the_document_of_a_running_service_describes_the_gateway_too(described: Any) -> None:
    validate(described.raw_schema)
    paths = described.raw_schema["paths"]
    assert {"/v1/chat/completions", "/v1/messages", "/v1/models", "/healthz"} <= set(paths)
    assert not [path for path in paths if path.startswith("/console")]
    assert set(paths["/v1/messages"]["post"]["responses"]["200"]["content"]) >= {
        "application/json",
        "text/event-stream",
    }


def test_every_operation_documents_its_errors_and_its_scope() -> None:
    told = document(operations())
    for path, methods in told["paths"].items():
        for method, one in methods.items():
            statuses = set(one["responses"])
            assert {"400", "429", "503"} <= statuses, (method, path)
            if path != "/api/v1/openapi.json":
                assert {"401", "403"} <= statuses, (method, path)
                assert one["x-corpusgen-scope"] in ("ask", "lend", "read", "legal", "admin")


def test_the_guide_to_the_api_names_every_path() -> None:
    guide = " ".join((Path(__file__).parent.parent / "docs" / "api.md").read_text().split())
    told = re.sub(r"\{[^{}]*\}", "{}", guide)
    for path in document(operations())["paths"]:
        assert re.sub(r"\{\w+\}", "{}", path).removeprefix("/api/v1") in told, path


def test_the_examples_of_the_guide_are_what_the_service_takes_and_gives() -> None:
    guide = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
    every = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", guide, re.DOTALL)]
    taken: list[type[BaseModel]] = [
        RunWanted,
        RunWanted,
        BudgetWanted,
        LeaseWanted,
        LeaseTold,
        LeaseReturn,
        LeaseReturn,
    ]
    assert len(every) >= len(taken)
    for model, example in zip(taken, every, strict=False):
        model.model_validate_json(json.dumps(example))


def test_operations_have_names_of_their_own() -> None:
    told = document(operations())
    names = [one["operationId"] for methods in told["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


async def test_every_operation_needs_a_token_that_may_do_it(tmp_path: Path) -> None:
    scopes = {"ask": "lend", "lend": "ask", "read": "ask", "legal": "read", "admin": "legal"}
    async with served(tmp_path) as one:
        tokens = {scope: one.token(scope) for scope in ("ask", "lend", "read", "legal")}
        for operation in operations():
            if operation.scope is None:
                continue
            path = operation.path.replace("{", "").replace("}", "")
            assert (await one.send(operation.method, path)).status == 401, path
            headers = {"Authorization": f"Bearer {tokens[scopes[operation.scope]]}"}
            assert (await one.send(operation.method, path, headers=headers)).status == 403, path


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), _every())
def test_what_is_sent_by_the_document_is_answered_by_it(
    described: Any, service: Beside, path: str, method: str, mode: GenerationMode
) -> None:
    operation = described[path][method.upper()]
    if mode is GenerationMode.NEGATIVE and not (operation.body or list(operation.iter_parameters())):
        return  # there is nothing that could be wrong

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {service.token}"}, timeout=60)

    hold()
