"""One line for each thing that happened, as logfmt or JSON; no line can be forged, and no secret is in one."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TextIO

from corpusgen.corpus import Clock, utc_now

LONGEST: Final = 4_000
"""Characters of one value."""
OWN_TOKEN: Final = re.compile(r"cg_[A-Za-z0-9_-]{6,}")
_KEYS: Final = re.compile(
    r"(?:sk-|(?:(?:x-)?api[-_]key|authorization|cookie|password|token)[\"' ]{0,2}[=:][\"' ]{0,3}(?:bearer +|basic +)?"
    r"|bearer[ +]+|basic[ +]+)[^\s\"',;&]{4,}",
    re.IGNORECASE,
)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@{}*+,-]+")
MASK: Final = "[secret]"


def masked_secrets(text: str) -> str:
    """The text without keys, tokens and passwords."""
    from corpusgen.curation.pii import masked, scan

    short = _KEYS.sub(MASK, OWN_TOKEN.sub(MASK, text[:LONGEST]))
    found = [place for place in scan(short) if place.secret]
    return masked(short, found, {place.kind for place in found}) if found else short


class Log:
    """Writes lines to a stream; ``as_json`` for machines that read them."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False, clock: Clock = utc_now) -> None:
        self._stream = stream
        self._as_json = as_json
        self._clock = clock

    def say(self, event: str, **fields: str | float | None) -> None:
        """Write one line. Texts of strangers are masked by whoever hands them over."""
        told = {"time": _time(self._clock()), "event": event} | {
            name: value[:LONGEST] if isinstance(value, str) else value
            for name, value in fields.items()
            if value is not None
        }
        line = _as_json(told) if self._as_json else " ".join(f"{name}={_value(told[name])}" for name in told)
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # whoever read the log has gone; the service goes on


def _time(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _as_json(told: dict[str, Any]) -> str:
    # ASCII throughout: lines are ended by more than line feeds where some tools read them.
    return json.dumps({name: _sound(value) for name, value in told.items()})


def _value(value: object) -> str:
    text = str(_sound(value))
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _sound(value: object) -> object:
    """Half of a surrogate pair, which no encoding writes, as a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


class _Passed(logging.Handler):
    """Lines of the standard library's logging, in the same form."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what it says may come from anywhere, so it is masked."""
        trouble = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log.say(
            "log",
            level=record.levelname.lower(),
            logger=record.name,
            message=masked_secrets(record.getMessage()),
            trouble=None if trouble is None else masked_secrets(trouble[-LONGEST:]),
        )


@contextmanager
def catch_logging(log: Log) -> Iterator[None]:
    """While it is open, what libraries log goes through here."""
    handler, root = _Passed(log), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
