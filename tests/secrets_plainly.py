"""Secrets searched for as plainly as can be: what the quicker search has to agree with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import log2

from corpusgen.curation import secrets
from corpusgen.curation.found import Found
from corpusgen.curation.outline import CLASSES, Span, coarse, runs_of

TOKEN = re.compile("|".join(f"(?P<t{i}>{first}{rest})" for i, (_, first, rest) in enumerate(secrets.TOKENS)))
AZURE = re.compile(r"(?<![A-Za-z0-9/+=])(?P<value>[A-Za-z0-9/+]{86}==)")
AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+=])(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")


def entropy(value: str) -> float:
    """Shannon entropy in bits a character."""
    size = len(value)
    return -sum(count / size * log2(count / size) for count in Counter(value).values())


def mixed(value: str) -> bool:
    """Letters and digits, as keys have and names seldom do."""
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def stands_for(value: str) -> bool:
    """A placeholder or a piece of code where a value would be."""
    value = value[: secrets.PLACEHOLDER]
    if value[0] in "<{[(:" or "://" in value or value.startswith(("${", "$(", "%(", "{{", "$env:")):
        return True
    variable = value[0] in "$%@" and value.strip("$%@").replace("_", "").isupper()
    return variable or secrets.STANDS_FOR.search(value) is not None or secrets.CALLS.match(value) is not None


def is_strong(value: str) -> bool:
    """Three of small letters, capitals, digits and signs, eight characters or more."""
    sorts = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum())
    return len(value) >= 8 and sum(any(map(sort, value)) for sort in sorts) >= 3 and not stands_for(value)


def is_sk(value: str) -> bool:
    digits = sum(char.isdigit() for char in value)
    return secrets.SK_PLAIN.match(value) is not None or (
        digits >= 2 and entropy(value) >= 3.0 and value != value.lower()
    )


def tokens(text: str, runs: list[Span]) -> Iterator[Found]:
    """Keys known by their first letters."""
    for start, end in runs:
        for prefix in secrets.PREFIX.finditer(text, max(0, start - secrets.BEFORE_RUN), end):
            match = TOKEN.match(text, prefix.start())
            if match and match.lastgroup:
                kind = secrets.TOKENS[int(match.lastgroup[1:])][0]
                if kind not in secrets.CHECKS or secrets.CHECKS[kind](match.group()):
                    yield secrets._found(kind, *match.span())


def near(text: str, stems: tuple[str, ...], pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Matches of a pattern in the neighbourhood of telling words."""
    for stem in stems:
        for at in secrets.offsets(text, stem) if stem in text else ():
            yield from pattern.finditer(text, max(0, at - 16), at + secrets.NEAR)


def told(text: str) -> Iterator[Found]:
    """Passwords in a sentence: ``the password is …``."""
    for match in near(text, secrets.TOLD_STEMS, secrets.TOLD):
        yield from secrets._told(match)


def armoured(text: str) -> Iterator[Found]:
    """Private keys between their BEGIN and END lines; the end may be missing."""
    for at in secrets.offsets(text, "-----BEGIN "):
        head = secrets.ARMOUR.match(text, at)
        close = text.find("-----END", head.end(), at + secrets.LONGEST_KEY) if head else -1
        if head and text.find("-----BEGIN ", head.end(), max(close, 0)) >= 0:
            close = -1  # that end is another key's; this one was cut off
        rest = secrets.KEY_REST.match(text, head.end()) if head else None
        if (
            head
            and rest
            and (
                secrets.KEY_BODY.match(text, head.end()) or (close >= 0 and secrets.SHORT_BODY.match(text, head.end()))
            )
        ):
            end = rest.end() if close < 0 else text.find("-----", close + 8, close + 80) + 5
            yield secrets._found("ssh_private_key" if head["ssh"] else "private_key", at, max(end, head.end()))


def amazon(text: str) -> Iterator[Found]:
    """Secret keys near a word that tells of them."""
    for match in near(text, secrets.AWS_STEMS, AWS_SECRET):
        if mixed(match["value"]) and entropy(match["value"]) > 4:
            yield secrets._value("aws_secret_key", match)


def microsoft(text: str) -> Iterator[Found]:
    """Keys of storage accounts without their name."""
    for at in secrets.offsets(text, "=="):
        match = AZURE.match(text, at - 86) if at >= 86 else None
        if match and secrets.AZURE_NEAR.search(text, max(0, at - 86 - secrets.NEAR), at - 86):
            yield secrets._value("azure_storage_key", match)


def signs(text: str) -> list[int]:
    """Every sign that sets a value."""
    return [at for at, char in enumerate(text) if char in "=:："]


def curled(text: str) -> Iterator[Found]:
    """Passwords of ``curl -u``."""
    for match in secrets.CURL.finditer(text) if "curl" in text else ():
        if not stands_for(match["value"]):
            yield secrets._value("basic_auth", match)


def candidates(text: str) -> Iterator[Found]:
    """Everything that looks like a secret, every search made whatever is in the text."""
    yield from tokens(text, runs_of(coarse(text).translate(CLASSES)))
    yield from secrets.assignments(text, signs(text))
    for search in (armoured, told, amazon, microsoft, curled):
        yield from search(text)
    for search in (secrets.putty, secrets.addresses, secrets.basic, secrets.bearer, secrets.flags, secrets.webhooks):
        yield from search(text)
