"""What tokens cost, in integer micro-dollars, rounded against ourselves."""

from __future__ import annotations

from dataclasses import dataclass

from corpusgen.budget.ledger import Amounts
from corpusgen.errors import PriceUnknown
from corpusgen.records import Usage
from corpusgen.spec import TeacherSpec

MTOK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Micro-dollars per million tokens, and where the figure is from."""

    input_per_mtok: int
    output_per_mtok: int
    version: str

    @property
    def free(self) -> bool:
        """True when no call can cost money."""
        return self.input_per_mtok == 0 and self.output_per_mtok == 0

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Micro-dollars, rounded up."""
        return -(-(input_tokens * self.input_per_mtok + output_tokens * self.output_per_mtok) // MTOK)

    def worst(self, input_bound: int, max_tokens: int) -> Amounts:
        """The most one call can use."""
        return Amounts(microusd=self.cost(input_bound, max_tokens), tokens=input_bound + max_tokens, requests=1)

    def used(self, usage: Usage) -> Amounts:
        """What one call used, by its own answer."""
        return Amounts(
            microusd=self.cost(usage.input_tokens, usage.output_tokens), tokens=usage.total_tokens, requests=1
        )


def rate_of(teacher: TeacherSpec) -> Rate:
    """The price of a teacher. Raises PriceUnknown unless the spec prices it or says that it is free."""
    if teacher.free:
        return Rate(input_per_mtok=0, output_per_mtok=0, version="free")
    if teacher.price is None:
        raise PriceUnknown(
            f"the price of {teacher.name!r} is not known, so its worst case cannot be bounded;"
            " add price: {input_usd_per_mtok, output_usd_per_mtok, source}, or free: true if it costs nothing"
        )
    price = teacher.price
    return Rate(
        input_per_mtok=price.input_usd_per_mtok,
        output_per_mtok=price.output_usd_per_mtok,
        version=f"spec: {price.source}",
    )
