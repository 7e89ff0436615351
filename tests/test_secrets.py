"""Secrets: always blocked, never repeated, and not seen where there are none."""

from __future__ import annotations

import pytest
from pii_samples import positives

from corpusgen.curation import secrets
from corpusgen.curation.checksums import github_token
from corpusgen.curation.pii import BY_NAME, KINDS, Rules, apply, scan, secret_in

CANARY = "sk-proj-" + "Ab3dEf6hIj9k" * 4


def test_a_secret_blocks_whatever_the_rules_say() -> None:
    for default in ("allow", "mask", "block"):
        treated = apply(f"use {CANARY} please", Rules.of(default, {}))
        assert (treated.text, treated.kinds) == ("", ("openai_key",))
        assert treated.blocked is not None
        assert not treated.blocked.kept


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS if kind.secret])
def test_allowing_or_masking_a_secret_is_refused(kind: str) -> None:
    assert Rules.of("allow", {kind: "block"}).action(kind) == "block"
    for action in ("allow", "mask"):
        with pytest.raises(ValueError, match=f"'{kind}' is a secret and always blocks"):
            Rules.of("mask", {kind: action})


def test_a_finding_says_what_and_where_and_never_the_value() -> None:
    finding = secret_in(f"key: {CANARY}")
    assert finding is not None
    assert (finding.check, finding.kept, finding.reason) == ("pii", False, "holds a secret")
    assert finding.detail == 'openai_key at character 5, "sk-p…" (56 characters)'


def test_no_finding_shows_more_than_four_characters_of_a_secret() -> None:
    for kind, text in positives():
        finding = secret_in(text)
        for place in scan(text) if BY_NAME[kind].secret else ():
            assert finding is not None
            assert text[place.start : place.start + 5] not in (finding.detail or "").partition(" at ")[2]


def test_many_secrets_are_counted_in_the_detail() -> None:
    finding = secret_in("\n".join(f"password=hunter{n}!" for n in range(20, 25)))
    assert finding is not None
    assert finding.detail is not None
    assert finding.detail.endswith("and 2 more")


def test_the_cheap_check_agrees_with_the_whole_scan() -> None:
    for _, text in positives():
        assert (secret_in(text) is not None) == any(place.secret for place in scan(text))


def test_a_secret_wins_over_personal_data_in_the_same_place() -> None:
    assert [place.kind for place in scan("https://bob:hunter2@example.org")] == ["url_password"]
    assert [place.kind for place in scan(f"OPENAI_API_KEY={CANARY}")] == ["openai_key"]


@pytest.mark.parametrize(
    "text",
    [
        "password: str | None = None",
        "password = os.environ['PW_1']",
        "password=get_password(user1)",
        "password: <your password>, token=${TOKEN_1}, secret: {{ vault.x1 }}",
        "api_key='xxxxxxxxxxxxxxxxxxxx1'",
        "PASSWORD=$DB_PASSWORD1",
        "the password is required; the secret: patience",
        "token: string, max_tokens: 4096, passwd: compat",
        "private_key: ed25519.Ed25519PrivateKey",
        "Basic knowledge, Bearer of news, Basic2 authentication",
        "https://example.org/@bob:1 and http://[::1]:8080/",
        "the line -----BEGIN PRIVATE KEY----- starts a key",
        "eyJhbGciOi is how a token starts; eyJub3RhbGc.eyJub3RhbGc.x",
        "sk-learn-style-estimator and sk-circle-fade-dot-animation",
        "secret: http://example.org/page1",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBa\n-----END CERTIFICATE-----",
        "commit 3f2a1b4c5d6e7f8091a2b3c4d5e6f708192a3b4c of the tree",
    ],
)
def test_what_only_speaks_of_secrets_is_let_through(text: str) -> None:
    assert secret_in(text) is None


def test_a_key_without_an_end_line_is_a_key_still() -> None:
    text = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7Xyz" * 3
    assert [place.kind for place in scan(text)] == ["private_key"]
    assert scan(text)[0].end == len(text)


def test_githubs_checksum_is_known_but_a_token_with_another_blocks_too() -> None:
    token = "gh" + "p_" + "0" * 30 + "2C1RXW"
    assert github_token(token) == (token[-6:] == "2C1RXW" and github_token(token))
    assert secret_in("ghp" + "_" + "Zz9" * 12) is not None


def test_entropy_tells_words_from_keys() -> None:
    assert secrets.entropy("aaaa") == 0
    assert not secrets.is_key("aaaaaaaaaaaaaaa1")
    assert secrets.is_key("q7Xk29LmZp4RtV8wY3")


@pytest.mark.parametrize(("least", "anchor", "search"), secrets.ANCHORED)
def test_a_text_with_an_anchor_holds_the_piece_that_is_looked_for_first(
    least: int, anchor: str, search: secrets.Search
) -> None:
    pieces = {0: secrets.ANYWHERE, 16: secrets.BESIDE_RUN, 40: secrets.BESIDE_LONG_RUN}[least]
    found = [pair for piece, pairs in pieces if piece in f"Überall steht {anchor}, 密码" for pair in pairs]
    assert (anchor, search) in found
