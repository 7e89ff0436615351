"""The quick search for secrets finds what the plain one finds, in texts made to be hard too."""

from __future__ import annotations

import asyncio

import pytest
import secrets_plainly as plain
from hypothesis import given
from hypothesis import strategies as st
from pii_samples import positives

from corpusgen import screen
from corpusgen.curation import secrets
from corpusgen.curation.outline import CLASSES, coarse, runs_of, signs_of
from corpusgen.records import Message, Request

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzaB3xKeY1"
PIECES = [
    *(text for _, text in positives()), *(word for word in secrets.TOLD_STEMS), *(word for word in secrets.AWS_STEMS),
    KEY, KEY + "x", KEY[:39], f"={KEY}", f"{KEY}=", "AKIAKIA", "AKIA", "sk-", "sk-ant-", "sk-proj-", "_sk-A1b2",
    "sk-A1b-", "12345678:AA", "GOCSPX-", "gho_", "eyJhbGciOi.", "password is ", "api key is ", "the password for my ",
    "pass phrase>", "-----BEGIN ", "-----BEGIN RSA PRIVATE KEY-----\n", "-----END PRIVATE KEY-----",
    "MIIEowIBAAKCAQE" * 3, "A1" * 43 + "==", "account key ", "密码：hunter2!", "пароль=q1w2e3!", "mdp: ",
    "token: str = 'a1",
    "curl ", "-u a:", "--user=a:", "--password ", "asic ", "earer ", "hooks.slack.com/", "services/", "T0123ABCD/", "://",
    "a:b1@c", "dXNlcjpwYXNzd29yZA==", "Private-Lines: 1\n", "--", "-u", "-- - -",
    "a" * 40, "9", "/", "+", "=", " ", "\n", "é", "K", "ſ", "…", "xxxx", "my-tok", "your_", "_here", "AbC9", " " * 120,
]  # fmt: skip
TEXTS = st.builds(
    lambda pieces, times: ("".join(pieces) * times)[:6000],
    st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=20),
    st.sampled_from([1, 1, 1, 3, 40]),
)
VALUES = st.builds("".join, st.lists(st.sampled_from([*PIECES, *"aB1-_.$%(<"]) | st.text(max_size=3))).filter(bool)


@given(TEXTS)
def test_the_same_tokens_are_found(text: str) -> None:
    runs = runs_of(coarse(text).translate(CLASSES))
    assert [*secrets.tokens(text, runs)] == [*plain.tokens(text, runs)]


@pytest.mark.parametrize("name", ["told", "armoured", "amazon", "microsoft"])
@given(text=TEXTS)
def test_the_same_keys_and_passwords_are_found(name: str, text: str) -> None:
    assert {*getattr(secrets, name)(text)} == {*getattr(plain, name)(text)}


@given(TEXTS)
def test_the_same_values_that_are_set_are_found(text: str) -> None:
    near = signs_of(text, coarse(text).translate(secrets.SET), b"e=")
    assert {*secrets.assignments(text, near)} == {*secrets.assignments(text, plain.signs(text))}


@given(TEXTS)
def test_what_is_looked_for_at_a_glance_is_what_every_search_finds(text: str) -> None:
    assert {*secrets.candidates(text, coarse(text))} == {*plain.candidates(text)}


@pytest.mark.parametrize("at", [0, 1, 23, 24, 25])
def test_a_token_is_found_wherever_a_long_run_is_cut_into_pieces(at: int) -> None:
    token = "sk-ant-" + "Ab3dEf6hIj9k" * 3
    text = "-" * (secrets.IN_ONE_CALL - at) + token + "-" * secrets.IN_ONE_CALL + token
    runs = runs_of(coarse(text).translate(CLASSES))
    assert [*secrets.tokens(text, runs)] == [*plain.tokens(text, runs)]


def test_no_prefix_is_longer_than_what_pieces_overlap_by() -> None:
    assert all(len(first.replace("(?<=[0-9]{8}:)", "")) <= 60 for _, first, _ in secrets.TOKENS)
    assert max(len(match.group()) for _, text in positives() for match in secrets.PREFIX.finditer(text)) <= 24


@given(VALUES)
def test_values_are_judged_alike(value: str) -> None:
    assert secrets.entropy(value) == plain.entropy(value)
    assert secrets.mixed(value) == plain.mixed(value)
    assert secrets.stands_for(value) == plain.stands_for(value)
    assert secrets.is_strong(value) == plain.is_strong(value)
    if value.isascii():
        assert secrets._is_sk(value) == plain.is_sk(value)


def _request(text: str) -> Request:
    said = (Message(role="user", content=text),)
    return Request(teacher="t", model="m", api="chat", messages=said, parameters={"max_tokens": 1}, sample_index=0)


@pytest.mark.parametrize("text", ["hello", "api key " * 10_000, "sk-" * 20_000 + "password=hunter2!\n"])
def test_a_request_looked_through_aside_is_withheld_for_the_same_reason(text: str) -> None:
    aside = asyncio.run(screen.withheld_aside(_request(text)))
    assert str(aside) == str(screen.withheld(_request(text)))


def test_others_are_served_while_a_long_request_is_looked_through() -> None:
    async def turns() -> int:
        looking = asyncio.create_task(screen.withheld_aside(_request("api_key=" * 50_000)))
        count = 0
        while not looking.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert asyncio.run(turns()) > 3
