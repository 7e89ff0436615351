from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from teacher_samples import TickingClock, ranked, reply, request, server, spec

from corpusgen.errors import UnknownTeacher, UnsupportedParameter, UsageError
from corpusgen.teachers.endpoint import Endpoint, connect
from corpusgen.teachers.registry import check_parameters, known_teachers, open_teacher


def endpoint(base_url: str | None = "https://Models.example/v1", **fields: Any) -> Endpoint:
    return connect(spec("endpoint/org/model:7b", base_url=base_url, **fields), folder=Path(), clock=TickingClock())


def test_a_card_says_who_runs_the_server_and_where() -> None:
    card = endpoint(provider="mistral").card
    assert (card.identity, card.model) == ("mistral@https://models.example", "org/model:7b")
    assert (card.host, card.route, card.weights_sha256) == ("models.example", "api", None)


@pytest.mark.parametrize("address", ["http://localhost:8000/v1", "http://127.0.0.1:8000/v1", "http://[::1]:8000/v1/"])
def test_a_server_on_this_machine_may_go_without_encryption(address: str) -> None:
    assert endpoint(address).card.route == "self_hosted"
    assert endpoint(address).card.identity.endswith(":8000")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        (None, "needs its address"),
        ("http://models.example/v1", "is not encrypted; write https"),
        ("http://192.168.0.7/v1", "is not encrypted"),
        ("http://localhost.evil.example/v1", "is not encrypted"),
        ("https://me:pass-word@models.example/v1", "must not hold a user name or password"),
        ("https://models.example/v1?key=1", "remove what follows"),
        ("ftp://models.example", "is not an address"),
        ("models.example/v1", "is not an address"),
        ("https://models.example:port", "is not an address"),
        ("https://[::1", "is not an address"),
    ],
)
def test_an_address_that_will_not_do_is_refused_by_its_field(address: str | None, complaint: str) -> None:
    with pytest.raises(UsageError, match=rf"^base_url: .*{complaint}") as caught:
        endpoint(address)
    assert "pass-word" not in str(caught.value)


async def test_a_question_goes_to_the_servers_path_and_comes_back_read() -> None:
    seen: list[tuple[str, Any]] = []

    async def handler(asked: web.Request) -> web.Response:
        seen.append((asked.path, orjson.loads(await asked.read())))
        body = orjson.dumps(reply({"logprobs": ranked((" animal", -0.5))}))
        return web.Response(body=body, headers={"x-request-id": "req-9"})

    async with server(handler) as url:
        teacher = endpoint(url)
        asked = request(top_logprobs=1)
        read = teacher.read(asked, await teacher.ask(asked, timeout_s=5))
        await teacher.aclose()
    assert seen == [("/v1/completions", {"model": "m", "prompt": "a swan", "max_tokens": 1, "logprobs": 1})]
    assert (read.text, read.provider_request_id) == (" animal", "req-9")


def test_the_bound_counts_bytes_and_what_a_template_adds() -> None:
    card = endpoint().card
    bound = endpoint().input_tokens_bound(request("swän"))
    assert bound == len("swän".encode()) + card.tokens_per_message + card.tokens_per_request


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"top_logprobs": 21}, "endpoint/org/model:7b: parameters.top_logprobs is at most 20, found 21"),
        ({"top_logprobs": True}, "whole number"),
        ({"top_logprobs": -1}, "whole number"),
        ({"logprobs": 5}, "write top_logprobs"),
        ({"n": 2}, "asking.samples"),
        ({"stream": True}, "answers are read whole"),
        ({"model": "other"}, "the teacher's name"),
    ],
)
def test_what_a_teacher_cannot_do_is_refused_with_both_names(parameters: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UnsupportedParameter, match=complaint):
        check_parameters(endpoint().card, {"max_tokens": 1} | parameters)


def test_parameters_a_server_may_know_are_let_through() -> None:
    check_parameters(endpoint().card, {"max_tokens": 9, "top_logprobs": 20, "min_p": 0.1}, "completion")


def test_an_unknown_teacher_is_told_which_there_are() -> None:
    with pytest.raises(UnknownTeacher, match=r"no teacher 'oracle/x'.*embedded/smollm2-135m.*endpoint/<its model>"):
        open_teacher(spec("oracle/x"), folder=Path(), clock=TickingClock())


def test_a_file_in_the_folder_that_is_no_teacher_is_not_taken_for_one() -> None:
    with pytest.raises(UnknownTeacher):
        open_teacher(spec("wire/x"), folder=Path(), clock=TickingClock())


def test_every_kind_of_teacher_is_listed() -> None:
    offers = {offer.name: offer for offer in known_teachers()}
    assert {"embedded/smollm2-135m", "endpoint/MODEL", "openai/MODEL", "anthropic/MODEL", "groq/MODEL"} <= set(offers)
    assert (offers["embedded/smollm2-135m"].provider, offers["embedded/smollm2-135m"].free) == ("huggingface", True)


def test_looking_for_a_teacher_is_what_loads_the_network_library() -> None:
    code = "import sys, corpusgen.teachers.registry, corpusgen.teachers.labels; print('aiohttp' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
