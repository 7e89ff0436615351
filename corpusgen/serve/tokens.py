"""Tokens: what lets somebody use the service, in whose name, for what, until when, and under which budget.

A secret has 256 bits and is shown once. The journal has its sha256 only; who comes is looked up by that digest, which
tells whoever measures the time nothing of the secret.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from corpusgen.budget.amounts import period_of
from corpusgen.budget.ledger import Cap, set_caps
from corpusgen.corpus import Corpus, microseconds, moment
from corpusgen.errors import UsageError
from corpusgen.fields import NAME, Per, Unit
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.records import Json, canonical_json
from corpusgen.serve.callers import SCOPES, Caller, Scope

PREFIX: Final = "cg_"
SECRET: Final = re.compile(r"cg_[A-Za-z0-9_-]{43}")
LOOKED_EVERY_S: Final = 0.5
"""How long a revocation by another process may take to be heard of."""
NOTED_EVERY_US: Final = 60_000_000
"""How often the last use of a token is written down."""
MOST_DAYS: Final = 3650
_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_TITLE: Final = re.compile(r"[^\s](?:.{0,62}[^\s])?")


@dataclass(frozen=True, kw_only=True)
class Token:
    """What is kept of a token."""

    token_id: str
    name: str
    user: str
    scopes: tuple[Scope, ...]
    task: str | None = None
    intended_use: Json = None
    may_name_users: bool = False
    created: datetime
    expires: datetime | None
    revoked: datetime | None = None
    used: datetime | None = None

    def state(self, now: datetime) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"

    @property
    def caller(self) -> Caller:
        """Who comes with it."""
        return Caller(
            token_id=self.token_id,
            user=self.user,
            scopes=frozenset(self.scopes),
            task=self.task,
            intended_use=self.intended_use,
            may_name_users=self.may_name_users,
        )


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a token is to be."""

    name: str
    user: str
    scopes: tuple[Scope, ...]
    days: int | None
    task: str | None = None
    intended_use: Json = None
    may_name_users: bool = False
    caps: Mapping[Unit, int] | None = None
    per: Per = "total"


def create(corpus: Corpus, wish: Wish, *, by: str) -> tuple[Token, str]:
    """A new token and its secret, which nobody can be told again. Raises UsageError for what cannot be."""
    _check(wish)
    now = corpus.clock()
    token = Token(
        token_id=f"tok-{corpus.new_secret()[:6].hex()}",
        name=wish.name,
        user=wish.user,
        scopes=tuple(scope for scope in SCOPES if scope in wish.scopes),
        task=wish.task,
        intended_use=wish.intended_use,
        may_name_users=wish.may_name_users,
        created=now,
        expires=None if wish.days is None else now + timedelta(days=wish.days),
    )
    secret = PREFIX + base64.urlsafe_b64encode(corpus.new_secret()).rstrip(b"=").decode()
    corpus.journal.run_now(lambda transaction: _keep(transaction, token, digest_of(secret), wish, by))
    _changed()
    return token, secret


def scopes_in(text: str) -> tuple[Scope, ...]:
    """Scopes as written on a command line, with commas. Raises UsageError for what is none."""
    words = {word.strip() for word in text.split(",") if word.strip()}
    if not words or not words <= set(SCOPES):
        found = ", ".join(sorted(words - set(SCOPES))) or "nothing"
        raise UsageError(f"--scope: {found}; name some of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in words)


def _check(wish: Wish) -> None:
    if not _TITLE.fullmatch(wish.name) or not wish.name.isprintable():
        raise UsageError(f"NAME: {wish.name!r} must be 1 to 64 printable characters")
    if not _USER.fullmatch(wish.user) or period_of(f"user:{wish.user}")[1] != "total":
        raise UsageError(f"--user: {wish.user!r} must be 1 to 128 of letters, digits and ._@+-")
    scopes_in(",".join(wish.scopes))
    if wish.days is not None and not 1 <= wish.days <= MOST_DAYS:
        raise UsageError(f"--days: {wish.days} is not between 1 and {MOST_DAYS}")
    if wish.task is not None and not re.fullmatch(NAME, wish.task):
        raise UsageError(f"--task: {wish.task!r} is not the name of a task: small letters, digits, - and _")


def _keep(transaction: Transaction, token: Token, digest: bytes, wish: Wish, by: str) -> None:
    if transaction.rows("select 1 from tokens where name = ? and revoked_us is null", (token.name,)):
        raise UsageError(f"NAME: there is a token {token.name!r} already; revoke it, or choose another name")
    facts = {"task": token.task, "intended_use": token.intended_use, "may_name_users": token.may_name_users}
    transaction.execute(
        "insert into tokens(token_id, digest, name, scopes, user, facts, created_us, expires_us)"
        " values(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token.token_id,
            digest,
            token.name,
            " ".join(token.scopes),
            token.user,
            canonical_json({name: fact for name, fact in facts.items() if fact}).decode(),
            microseconds(token.created),
            None if token.expires is None else microseconds(token.expires),
        ),
    )
    origin = f"budget of token {token.name}"
    caps = [
        Cap(scope=f"token:{token.token_id}", unit=unit, cap=cap, origin=origin, per=wish.per)
        for unit, cap in (wish.caps or {}).items()
    ]
    if caps:
        set_caps(transaction, caps)
    note_event(
        transaction,
        "administered",
        {
            "act": "token_created",
            "by": by,
            "token": token.token_id,
            "name": token.name,
            "user": token.user,
            "scopes": list(token.scopes),
            "caps": {cap.unit: cap.cap for cap in caps},
            "expires": None if token.expires is None else token.expires.isoformat(),
        },
    )


def revoke(corpus: Corpus, which: str, *, by: str) -> Token:
    """Let a token, by its id or its name, be worth nothing from now on. Raises UsageError where there is none."""
    found = [token for token in listed(corpus) if token.revoked is None and which in (token.token_id, token.name)]
    if SECRET.fullmatch(which):
        raise UsageError("that is a secret, not an id or a name; corpusgen tokens list shows those")
    if not found:
        raise UsageError(f"no token {which!r} that is not revoked already; corpusgen tokens list shows them")
    now = corpus.clock()
    token = replace(found[0], revoked=now)

    def operation(transaction: Transaction) -> None:
        transaction.execute(
            "update tokens set revoked_us = ? where token_id = ? and revoked_us is null",
            (microseconds(now), token.token_id),
        )
        what: dict[str, Json] = {"act": "token_revoked", "by": by, "token": token.token_id, "name": token.name}
        note_event(transaction, "administered", what)

    corpus.journal.run_now(operation)
    _changed()
    return token


_RUNNING: Final[weakref.WeakSet[Tokens]] = weakref.WeakSet()


def _changed() -> None:
    """Services of this process need not wait until they look again."""
    for tokens in list(_RUNNING):
        tokens.look_again()


_COLUMNS: Final = "token_id, name, user, scopes, facts, created_us, expires_us, revoked_us, used_us"


def listed(corpus: Corpus) -> list[Token]:
    """Every token there ever was, the oldest first."""
    return [_token(row) for row in corpus.journal.query(f"select {_COLUMNS} from tokens order by created_us, token_id")]  # noqa: S608 - own names


def _token(row: tuple[Any, ...]) -> Token:
    token_id, name, user, scopes, facts, created, *times = row
    more = orjson.loads(facts)
    expires, revoked, used = (None if one is None else moment(one) for one in times)
    return Token(
        token_id=token_id,
        name=name,
        user=user,
        scopes=tuple(scope for scope in SCOPES if scope in scopes.split()),
        task=more.get("task"),
        intended_use=more.get("intended_use"),
        may_name_users=bool(more.get("may_name_users")),
        created=moment(created),
        expires=expires,
        revoked=revoked,
        used=used,
    )


def digest_of(secret: str) -> bytes:
    """What is kept of a secret; of 256 random bits nobody finds it by trying, so that one round is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Tokens:
    """The tokens of a corpus as a running service knows them: in memory, read again when the journal has changed."""

    def __init__(self, corpus: Corpus, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._corpus = corpus
        self._monotonic = monotonic
        self._by_digest: dict[bytes, Token] = {}
        self._by_id: dict[str, Token] = {}
        self._noted: dict[str, int] = {}
        self._version = -1
        self._looked = float("-inf")
        self._refresh()
        _RUNNING.add(self)

    @property
    def exist(self) -> bool:
        """Whether there ever was one: from then on nobody comes in without."""
        self._refresh()
        return bool(self._by_id)

    def caller_of(self, secret: str) -> Caller | None:
        """Who comes with a secret; None for one that is unknown, expired or revoked."""
        self._refresh()
        return self._valid(self._by_digest.get(digest_of(secret)))

    def caller_by_id(self, token_id: str) -> Caller | None:
        """Who came with a token, if it is still worth something."""
        self._refresh()
        return self._valid(self._by_id.get(token_id))

    def look_again(self) -> None:
        """Read the tokens at the next question, whenever they were read last."""
        self._looked = float("-inf")
        self._version = -1

    def _valid(self, token: Token | None) -> Caller | None:
        now = self._corpus.clock()
        if token is None or token.state(now) != "valid":
            return None
        self._note(token.token_id, microseconds(now))
        return token.caller

    def _note(self, token_id: str, now_us: int) -> None:
        """Write down that it was used, once a minute and without waiting for it."""
        if now_us - self._noted.get(token_id, 0) >= NOTED_EVERY_US:
            self._noted[token_id] = now_us
            self._corpus.journal.start(lambda transaction: _note_use(transaction, token_id, now_us))

    def _refresh(self) -> None:
        now = self._monotonic()
        if now - self._looked < LOOKED_EVERY_S:
            return
        self._looked = now
        # Told by SQLite for one connection: whether another, of any process, has committed since.
        version = int(self._corpus.journal.query("pragma data_version")[0][0])
        if version != self._version:
            self._version = version
            self._read()

    def _read(self) -> None:
        rows = self._corpus.journal.query(f"select digest, {_COLUMNS} from tokens")  # noqa: S608 - own names
        found: Iterable[tuple[bytes, Token]] = [(bytes(digest), _token(tuple(row))) for digest, *row in rows]
        self._by_digest = dict(found)
        self._by_id = {token.token_id: token for token in self._by_digest.values()}


def _note_use(transaction: Transaction, token_id: str, now_us: int) -> None:
    transaction.execute("update tokens set used_us = ? where token_id = ?", (now_us, token_id))
