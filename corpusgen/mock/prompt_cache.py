"""The provider's prompt cache: which part of a prompt it has read before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from corpusgen.mock.question import Prefix, Question
from corpusgen.records import Usage

_LEAST: Final = 1024
"""Tokens from which on OpenAI keeps a prompt by itself, in steps of 128."""

_STEP: Final = 128
_BYTES_PER_TOKEN: Final = 4
_KEPT_S: Final = 600.0
_HOUR_S: Final = 3600.0


def automatic_prefixes(texts: Sequence[str], input_tokens: int) -> tuple[Prefix, ...]:
    """The beginnings of a prompt that are kept without being asked for; none of a short one."""
    if input_tokens < _LEAST:
        return ()
    prompt = "\0".join(texts).encode()
    running, found = hashlib.sha256(), []
    for tokens in range(_STEP, input_tokens + 1, _STEP):
        running.update(prompt[(tokens - _STEP) * _BYTES_PER_TOKEN : tokens * _BYTES_PER_TOKEN])
        if tokens >= _LEAST:
            found.append(Prefix(digest=running.hexdigest(), tokens=tokens, kept_s=_KEPT_S, written=False))
    return tuple(found)


@dataclass(kw_only=True)
class PromptCache:
    """Beginnings of prompts with the time until which they are kept."""

    clock: Callable[[], float]
    _until: dict[str, float] = field(default_factory=dict)

    def usage(self, question: Question, usage: Usage) -> Usage:
        """The usage of an answer with what was read from the cache and what was written to it."""
        if not question.prefixes:
            return usage
        now = self.clock()
        known = [prefix.tokens for prefix in question.prefixes if self._until.get(prefix.digest, now) > now]
        read = max(known, default=0)
        written, lasting = 0, 0
        for prefix in question.prefixes:
            self._until[prefix.digest] = now + prefix.kept_s
            new = max(0, prefix.tokens - read - written) if prefix.written else 0
            written += new
            lasting += new if prefix.kept_s >= _HOUR_S else 0
        return replace(usage, cached_input_tokens=read, cache_write_tokens=written, cache_write_1h_tokens=lasting)
