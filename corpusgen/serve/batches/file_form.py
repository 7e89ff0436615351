"""The parts of a form with a file, as clients of OpenAI send one (multipart/form-data)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email import message_from_string
from email.errors import MessageError
from email.message import Message
from typing import Final

from corpusgen.serve.statuses import Refused

FORM: Final = "multipart/form-data"
MOST_PARTS: Final = 16
MOST_HEAD: Final = 8 << 10
LONGEST_BOUNDARY: Final = 200
LONGEST_NAME: Final = 200
UNNAMED: Final = "upload.jsonl"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a form."""

    filename: str | None
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """What stands in a field that is no file. Raises Refused."""
        try:
            return self.content[:LONGEST_NAME].decode()
        except UnicodeDecodeError:
            raise _bad("a field is no text") from None


def form_in(content_type: str, body: bytes) -> dict[str, Part]:
    """The parts of a form by name, each of which may be given once. Raises Refused for what is no such form."""
    edge = b"--" + _boundary(content_type)
    if not body.startswith(edge):
        raise _bad("it does not begin with its boundary")
    parts: dict[str, Part] = {}
    at = len(edge)
    while body[at : at + 2] == b"\r\n":
        name, part, at = _part(body, at + 2, edge)
        if name in parts or len(parts) == MOST_PARTS:
            raise _bad(f"a part is given twice, or there are more than {MOST_PARTS}")
        parts[name] = part
    if body[at : at + 2] != b"--":
        raise _bad("it has no end")
    return parts


def _part(body: bytes, at: int, edge: bytes) -> tuple[str, Part, int]:
    """A part, its name, and where the boundary behind it ends."""
    above = body.find(b"\r\n\r\n", at, at + MOST_HEAD)
    # The line break that belongs to the boundary may be the second of those two, where a part is empty.
    end = body.find(b"\r\n" + edge, above + 2) if above >= 0 else -1
    if end < 0:
        raise _bad("a part has no head or no end")
    head = _head(body[at:above])
    name = head.get_param("name", header="content-disposition")
    if not isinstance(name, str) or head.get_content_disposition() != "form-data":
        raise _bad("a part has no name")
    part = Part(filename=file_name(head.get_filename()), content=body[above + 4 : max(end, above + 4)])
    return name, part, end + 2 + len(edge)


def _head(raw: bytes) -> Message:
    try:
        told = raw.decode()
    except UnicodeDecodeError:
        raise _bad("the head of a part cannot be read") from None
    _check_plain(told)
    try:
        return message_from_string(told)
    except MessageError:
        raise _bad("the head of a part cannot be read") from None


def _check_plain(told: str) -> None:
    """Raise Refused for parameters in numbered pieces or character sets, which readers put together in many ways."""
    for piece in _PIECES.split(told):
        name, given, value = piece.partition("=")
        if given and "*" in name and not (name.strip().lower() == "filename*" and _UTF8.match(value.strip())):
            raise _bad("parameters with * in their names are not taken, but filename*=utf-8''…")


_PIECES: Final = re.compile(r"[;\r\n]")
_UTF8: Final = re.compile(r"utf-8'[A-Za-z-]{0,20}'[A-Za-z0-9%._~!$&+^`|{}#-]*\Z", re.IGNORECASE)


def _boundary(content_type: str) -> bytes:
    told = Message()
    _check_plain(content_type)
    told["Content-Type"] = content_type.encode("ascii", "replace").decode()
    found = told.get_param("boundary")
    if not isinstance(found, str) or not 0 < len(found) <= LONGEST_BOUNDARY:
        raise _bad("its boundary is not told")
    return found.encode("ascii", "replace")


def file_name(told: str | None) -> str | None:
    """What somebody calls a file: a name to show and nothing else, its folders left out."""
    if told is None:
        return None
    last = told.replace("\\", "/").rpartition("/")[2]
    return "".join(one for one in last if one.isprintable())[:LONGEST_NAME] or UNNAMED


def _bad(why: str) -> Refused:
    return Refused(400, f"the body is not a form with a file ({FORM}): {why}")
