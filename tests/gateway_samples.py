"""A whole service in this process in front of a mock teacher, and clients of both vendors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from corpusgen.corpus import Corpus
from corpusgen.mock.server import MockTeacher, Options, mock_teacher
from corpusgen.serve.app import bound, hosts_of, listening, make_app, open_service
from corpusgen.serve.config import load_config
from corpusgen.serve.gate import GateSettings
from corpusgen.serve.gateway import operations
from corpusgen.serve.service import Service

USE = {"student_distribution": "internal", "student_competes": "no", "commercial": False}


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running service, its teacher, and who calls it."""

    url: str
    service: Service
    mock: MockTeacher
    openai: AsyncOpenAI
    anthropic: AsyncAnthropic
    http: aiohttp.ClientSession

    @property
    def corpus(self) -> Corpus:
        """What it records in."""
        return self.service.corpus

    @property
    def bill(self) -> dict[str, Any]:
        """What the teacher would charge."""
        return self.mock.bill.to_json()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the journal says."""
        return self.corpus.journal.query(sql)


def offer(mock: MockTeacher, **fields: Any) -> dict[str, Any]:
    """A priced teacher as ``service.yaml`` names it."""
    return {
        "name": "endpoint/mock-teacher",
        "base_url": mock.base_url,
        "provider": "corpusgen",
        "route": "mock",
        "parameters": {"max_tokens": 64},
        "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0, "source": "made up"},
    } | fields


def anthropic_offer(mock: MockTeacher) -> dict[str, Any]:
    """The same as Anthropic serves it."""
    return offer(mock, name="anthropic/claude-mock", base_url=mock.base_url, model="claude", key_env="MOCK_KEY")


def write_config(folder: Path, *teachers: dict[str, Any], **fields: Any) -> Path:
    """A ``service.yaml`` over these teachers."""
    told = {"intended_use": USE, "budget": {"usd": 5}, "teachers": list(teachers)} | fields
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "service.yaml").write_text(json.dumps(told, indent=1))
    return folder / "service.yaml"


@asynccontextmanager
async def gateway(folder: Path, mock: MockTeacher, *teachers: dict[str, Any], **fields: Any) -> AsyncIterator[Gateway]:
    """A service over ``folder/corpus`` in front of a mock teacher."""
    config = load_config(write_config(folder, *(teachers or (offer(mock),)), **fields))
    with Corpus.open(folder / "corpus") as corpus, bound("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        settings = GateSettings(
            hosts=hosts_of("127.0.0.1", port, (), tls=False, behind_proxy=False), open_without_tokens=True
        )
        async with open_service(corpus, config) as service:
            app, url = make_app(service, operations(service), settings), f"http://127.0.0.1:{port}"
            async with (
                listening(app, place),
                AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as openai,
                AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as anthropic,
                aiohttp.ClientSession(url) as http,
            ):
                yield Gateway(url=url, service=service, mock=mock, openai=openai, anthropic=anthropic, http=http)


@asynccontextmanager
async def gateway_with_mock(folder: Path, options: Options | None = None, **fields: Any) -> AsyncIterator[Gateway]:
    """The same with a mock teacher of its own."""
    async with mock_teacher(options or Options()) as mock, gateway(folder, mock, **fields) as found:
        yield found


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat."""
    return {"model": "mock-teacher", "messages": [{"role": "user", "content": text}]} | fields
