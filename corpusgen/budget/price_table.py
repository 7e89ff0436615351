"""The shipped price table, for comparisons; caps use the spec's own prices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpusgen.budget.prices import Rate
from corpusgen.spec import microusd, read_yaml


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """Hosted teachers by name, and what an hour of a local processor is taken to cost in micro-dollars."""

    hosted: tuple[tuple[str, Rate], ...]
    microusd_per_cpu_hour: int
    cpu_source: str


def load_prices(path: Path) -> PriceTable:
    """The table in a YAML file. Raises SpecError for a file that is not one."""
    table, _ = read_yaml(path)
    hour = table["shadow_usd_per_cpu_hour"]
    return PriceTable(
        hosted=tuple((row["teacher"], _rate(row)) for row in table["hosted"]),
        microusd_per_cpu_hour=microusd(hour["usd"]),
        cpu_source=hour["source"],
    )


def _rate(row: dict[str, str]) -> Rate:
    return Rate(
        input_per_mtok=microusd(row["input_usd_per_mtok"]),
        output_per_mtok=microusd(row["output_usd_per_mtok"]),
        version=f"{row['source']}, {row['as_of']}",
    )
