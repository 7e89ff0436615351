"""OpenAI's Files, as far as batches need them: ``/v1/files``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from corpusgen.mock.http import Heard, Told, form, json_told
from corpusgen.mock.jobs import NewId, page
from corpusgen.mock.question import NotARequest, NotThere
from corpusgen.records import Json

_MOST_LISTED = 10_000
_PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file."""

    id: str
    filename: str
    purpose: str
    created: float
    content: Callable[[], tuple[bytes, float]]
    """What is told of it this time, and how much of that arrives."""
    size: int

    def to_json(self) -> dict[str, Json]:
        """The file as the API describes it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.created),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "expires_at": None,
        }


@dataclass(kw_only=True)
class Files:
    """The files of an account."""

    now: Callable[[], float]
    new_id: NewId
    _kept: dict[str, StoredFile] = field(default_factory=dict)

    def keep(self, found: StoredFile) -> None:
        """Keep a file."""
        self._kept[found.id] = found

    def get(self, name: str) -> StoredFile | None:
        """A file by its id."""
        return self._kept.get(name)

    def respond(self, heard: Heard, rest: Sequence[str]) -> Told | None:
        """The response to a request, or None where there is nothing. Raises NotARequest."""
        match heard.method, *rest:
            case ("POST",):
                return self._upload(heard)
            case ("GET",):
                return self._listing(heard)
        found = self._kept.get(rest[0]) if rest else None
        if found is None:
            raise NotThere(f"No such File object: {'/'.join(rest)}")
        match heard.method, *rest[1:]:
            case ("GET",):
                return json_told(found.to_json())
            case "GET", "content":
                content, heard_of_it = found.content()
                return Told(body=content, headers=(("Content-Type", "application/octet-stream"),), heard=heard_of_it)
            case ("DELETE",):
                del self._kept[found.id]
                return json_told({"id": found.id, "object": "file", "deleted": True})
        return None

    def _upload(self, heard: Heard) -> Told:
        parts = form(heard)
        purpose = parts["purpose"].content.decode() if "purpose" in parts else None
        if "file" not in parts or purpose not in _PURPOSES:
            message = f"a form with a file and a purpose out of {', '.join(_PURPOSES)} is needed, found {list(parts)}"
            raise NotARequest(message)
        content = parts["file"].content
        found = StoredFile(
            id=self.new_id("file-"),
            filename=parts["file"].filename or "upload",
            purpose=purpose,
            created=self.now(),
            content=lambda: (content, 1.0),
            size=len(content),
        )
        self.keep(found)
        return json_told(found.to_json())

    def _listing(self, heard: Heard) -> Told:
        wanted = heard.asks.get("purpose")
        every = [found for found in self._kept.values() if wanted in (None, found.purpose)]
        newest_first = every if heard.asks.get("order") == "asc" else every[::-1]
        portion, more = page(newest_first, heard.asks, after="after", before="", limit=_MOST_LISTED)
        return json_told(listing([found.to_json() for found in portion], more))


def listing(items: Sequence[dict[str, Json]], more: bool) -> dict[str, Json]:
    """A page of a list as OpenAI tells it."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }
