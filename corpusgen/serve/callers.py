"""Who calls: what a token lets its bearer do, in whose name, and under which budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from corpusgen.records import Json

Scope: TypeAlias = Literal["ask", "lend", "read", "legal", "admin"]
"""``ask``: have teachers asked, submit runs. ``lend``: another machine of yours that asks teachers itself: it borrows
leases, and is believed in what it reports and hands over. ``read``: see datasets, records, money, runs. ``legal``:
questions about rights, decisions, waivers and the texts in them. ``admin``: all of it, and budgets and tokens.
"""
SCOPES: Final[tuple[Scope, ...]] = ("ask", "lend", "read", "legal", "admin")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a request comes from, once its token has been looked at."""

    token_id: str
    """``local`` where the service listens on this machine alone and has no tokens."""
    user: str
    scopes: frozenset[Scope]
    task: str | None = None
    """The task its calls are recorded under, where its token is bound to one."""
    intended_use: Json = None
    """The intended use its token is bound to, as a spec writes it."""
    may_name_users: bool = False
    """Whether it may say in whose name it asks, which otherwise only ``admin`` may."""

    def may(self, scope: Scope) -> bool:
        """Whether it may do what a scope covers."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def budget_scopes(self) -> tuple[str, ...]:
        """Where what it spends is booked, beside run, corpus and teacher."""
        return ("service", f"user:{self.user}", f"token:{self.token_id}")


LOCAL: Final = Caller(token_id="local", user="local", scopes=frozenset(SCOPES))  # noqa: S106 - a name, no secret
