"""What must hold in every world, looked at after every commit and again at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from flow_samples import violations

from corpusgen.budget.amounts import UNITS
from corpusgen.corpus import Corpus
from corpusgen.fields import Unit
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Record, Request
from corpusgen.stages.verifying import verify
from simulation.provider import UNCOUNTED, Provider, Sent, truth_of

MICRO = 1_000_000
_CAPPED = """
select b.scope, b.unit, settled, promised, unconfirmed, cap from caps c join balances b on b.unit = c.unit
and b.scope glob c.scope || case per when 'day' then '@????-??-??' when 'month' then '@????-??' else '' end
"""
_PAID = "select request_key, call_id from calls where state in ('settled', 'overrun')"
_CALL = (
    "select state, reserved_microusd, reserved_tokens, reserved_requests, microusd, tokens, requests"
    " from calls where call_id = ?"
)


@dataclass(kw_only=True)
class Watch:
    """Looks at the journal from outside, over a connection of its own."""

    path: Path
    owners: dict[str, int] = field(default_factory=dict)
    """The owner each living process is registered as."""
    found: list[str] = field(default_factory=list)
    unchecked: list[Sent] = field(default_factory=list)
    """Calls on the bill whose promise is still open."""
    asking: dict[bytes, set[str]] = field(default_factory=dict)
    linked: set[int] = field(default_factory=set)
    answered_at: dict[bytes, int] = field(default_factory=dict)
    """The youngest call there was when an answer was first seen."""
    paid: dict[bytes, int] = field(default_factory=dict)
    steps: int = 0
    seen: object = None
    connection: apsw.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = apsw.Connection(str(self.path))

    def say(self, what: str) -> None:
        if what not in self.found:
            self.found.append(what)

    # --- at every step -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """After anything that may have committed something."""
        version = self.connection.pragma("data_version")
        if version == self.seen:
            return
        self.seen = version
        self.steps += 1
        self._caps()
        self._answers()
        self.unchecked = [sent for sent in self.unchecked if self.bill_is_covered(sent)]

    def _caps(self) -> None:
        rows = self.connection.execute(_CAPPED)
        for scope, unit, settled, promised, unconfirmed, cap in rows:
            total = settled + promised + unconfirmed
            if total > cap + self._overrun(unit):
                self.say(f"cap passed: {total} {unit} of {cap} in {scope}")

    def _overrun(self, unit: str) -> int:
        """What a provider that does not keep to its limits billed beyond them."""
        sql = f"select coalesce(sum({unit} - reserved_{unit}), 0) from calls where state = 'overrun'"
        return max(0, int(self.connection.execute(sql).get))

    def _answers(self) -> None:
        youngest = self.connection.execute("select coalesce(max(call_id), 0) from calls").get
        for (key,) in self.connection.execute("select request_key from answers"):
            self.answered_at.setdefault(key, youngest)
        for key, call_id in self.connection.execute(_PAID):
            if key not in self.answered_at:
                self.say(f"lost: call {call_id} is paid for, and its answer is not in the same commit")
            if self.paid.setdefault(key, call_id) != call_id:
                self.say(f"paid twice: calls {self.paid[key]} and {call_id} ask the same")

    def received(self, process: str, request: Request) -> Sent:
        """A request that has just reached the provider, with the promise it was sent under."""
        key = request.key
        self.look()
        rows = self.connection.execute(
            "select call_id, reserved_microusd, reserved_tokens, reserved_requests from calls"
            " where owner_id = ? and state = 'promised' and request_key = ? order by call_id desc",
            (self.owners[process], key),
        )
        row = next((row for row in rows if row[0] not in self.linked), None)
        if row is None:
            self.say(f"sent without a promise of its own by {process}")
            row = (-1, 0, 0, 0)
        self.linked.add(row[0])
        if row[0] > self.answered_at.get(key, row[0]):
            self.say(f"asked again by {process}, though the answer was there")
        if process in (others := self.asking.setdefault(key, set())):
            self.say(f"asked twice at once by {process}")
        if others - {process}:
            self.say(f"asked by two processes at once, {process} and {min(others)}")
        others.add(process)
        return Sent(process=process, call_id=row[0], key=key, worst=row[1:])

    def ended(self, sent: Sent) -> None:
        """Whoever asked waits no more."""
        self.asking[sent.key].discard(sent.process)

    def charged(self, sent: Sent) -> None:
        """Something came on the bill."""
        if self.bill_is_covered(sent):
            self.unchecked.append(sent)

    def bill_is_covered(self, sent: Sent) -> bool:
        """Compare one call's bill with what is kept for it; True while it is to be looked at again."""
        row = self.connection.execute(_CALL, (sent.call_id,)).fetchone()
        if row is None:
            self.say(f"a {sent.kind} is on the bill, and no call of it in the journal")
            return False
        state, reserved, used = row[0], row[1:4], row[4:7]
        kept = reserved if state in ("promised", "unknown") else used
        bill = (-(-sent.micro_micro_usd // MICRO), sent.tokens, sent.requests)
        if sent.absurd and state != "overrun":
            bill = sent.worst  # no bound holds for a provider that keeps to none
        for unit, owed, have in zip(("microusd", "tokens", "requests"), bill, kept, strict=True):
            if owed > (have or 0):
                self.say(f"bill above the books: a {sent.kind} costs {owed} {unit}, its call is {state} with {have}")
        return bool(state == "promised")

    # --- at the end --------------------------------------------------------------------------------------------------

    def check_end(self, corpus: Corpus, provider: Provider) -> None:
        """After the last process has tidied up."""
        self.look()
        for sent in provider.sent:
            self.bill_is_covered(sent)
        self._nothing_promised()
        self._nothing_lost(provider)
        for problem in violations(corpus.journal, excused=self._overrun_accounts()):
            self.say(f"balances: {problem}")

    def check_files(self, corpus: Corpus) -> None:
        """After everything was written to shards."""
        for finding in verify(corpus):
            self.say(f"verify: {finding.check} {finding.subject[:16]} {finding.message}")

    def check_records(self, records: Iterable[Record], prompts: Iterable[Prompt], provider: Provider) -> None:
        """Records must be those of a world in which nothing went wrong; those of ``prompts`` must be there."""
        wanted = {prompt.record_id: prompt for prompt in prompts}
        # Kept as it came: with far too many tokens, or where none were told with the most there can have been.
        absurd = {sent.key.hex() for sent in provider.sent if sent.absurd or sent.kind in UNCOUNTED}
        names: set[str] = set()
        for record in records:
            if record.record_id in names:
                self.say(f"record {record.record_id[:8]} is there twice")
            names.add(record.record_id)
            self._check_record(record, wanted.get(record.record_id), record.request_key in absurd)

    def _check_record(self, record: Record, prompt: Prompt | None, absurd: bool) -> None:
        if prompt is None:
            self.say(f"record {record.record_id[:8]} belongs to no prompt")
            return
        truth = truth_of(prompt.request)
        cost = -(-truth.micro_micro_usd // MICRO)
        found = (record.input, record.response, record.input_tokens, record.output_tokens, record.cost_microusd)
        expected = (prompt.item.input, truth.text, truth.input_tokens, truth.output_tokens, cost)
        if found[:2] != expected[:2] or (found != expected and not absurd):
            self.say(f"record of {prompt.item.item_id} is {found}, undisturbed it is {expected}")

    def _nothing_promised(self) -> None:
        count = self.connection.execute("select count(*) from calls where state = 'promised'").get
        total = self.connection.execute("select coalesce(sum(promised), 0) from balances").get
        if count or total:
            self.say(f"{count} promises ({total}) are left when nobody runs any more")

    def _nothing_lost(self, provider: Provider) -> None:
        answers = {key for (key,) in self.connection.execute("select request_key from answers")}
        kept = {sent.key for sent in provider.sent if sent.arrived and sent.process in self.owners}
        if lost := kept - answers:
            self.say(f"lost: {len(lost)} answers arrived at a process that lives and are not there")

    def _overrun_accounts(self) -> list[tuple[str, Unit]]:
        rows = self.connection.execute("select distinct scopes from calls where state = 'overrun'")
        scopes = {scope for (text,) in rows for scope in str(text).split("\n")}
        return [(scope, unit) for scope in scopes for unit in UNITS]
