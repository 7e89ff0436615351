"""What leaves and what is stored: no key or password goes out, whatever a spec says; personal data is named."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from corpusgen.curation.pii import BY_NAME, Rules, apply, kinds_in, masked, scan, secret_in
from corpusgen.errors import Withheld
from corpusgen.records import Record, Request

_SAID: Final = ("response", "reasoning", "tool_calls")
_PLACEHOLDER: Final = re.compile(r"\[([A-Z][A-Z0-9_]*)_(\d{1,6})\]")
_TOKENS: Final[dict[str, Any]] = dict.fromkeys(
    ("token_bytes", "token_ids", "token_logprobs", "topk_bytes", "topk_ids", "topk_logprobs", "topk_len")
)


def withheld(request: Request, blocked: Collection[str] = ()) -> Withheld | None:
    """Why a request is not sent, if it holds a secret or personal data of a kind that is blocked.

    Neither what is held nor its neighbourhood is repeated.
    """
    for message in request.messages:
        found = (_remembered if message.role == "system" else secret_in)(message.content)
        if found is None and blocked:
            rules = Rules(default="allow", kinds=dict.fromkeys(blocked, "block"))
            found = apply(message.content, rules).blocked
        if found is not None:
            return Withheld(f"the {message.role} message {found.reason} ({found.detail}); take it out of the row")
    return None


_remembered = lru_cache(maxsize=64)(secret_in)
"""For texts that stand before every question."""


def tagged(record: Record, *, mask: bool) -> Record:
    """The record with the kinds of personal data in its prompt and answer; with ``mask``, placeholders in the answer.

    Where the answer is masked its tokens are left out, which would spell what it hides. A secret is masked either way.
    """
    found = {name: scan(text) for name in _SAID if (text := getattr(record, name))}
    kinds = {*kinds_in(scan(record.input)), *_placeholders(record.input)}
    kinds.update(*map(kinds_in, found.values()))
    record = replace(record, pii_kinds=tuple(sorted(kinds)))
    hidden = {place.kind for places in found.values() for place in places if mask or place.secret}
    if not hidden:
        return record
    taken = _placeholders(record.input)  # what they stand for is not known here, so no number is used again
    told: dict[str, Any] = {name: masked(getattr(record, name), at, hidden, taken) for name, at in found.items()}
    return replace(record, structured=None, **told, **_TOKENS)


def _placeholders(text: str) -> dict[str, int]:
    """The kinds of what was masked before it was sent, each with its highest number."""
    highest: dict[str, int] = {}
    for match in _PLACEHOLDER.finditer(text):
        kind = match[1].lower()
        if kind in BY_NAME:
            highest[kind] = max(highest.get(kind, 0), int(match[2]))
    return highest
