"""What the spec of a run says, as far as its lineage asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corpusgen.records import Json
from corpusgen.stages.runs import JUDGES

Row = dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class SpecOfRun:
    """A run, with what its spec says as far as lineage asks for it."""

    run_no: int
    run_id: str
    spec: Mapping[str, Json]
    facts: Mapping[str, Json]
    parents_spec: Mapping[str, Json]
    """The spec of the run that a judging belongs to; else its own."""

    @property
    def judges(self) -> bool:
        """Whether it scores the answers of another run."""
        return str(self.facts["kind"]) == "judgement"

    @property
    def roles(self) -> list[str]:
        """What its answers are used as; the terms count each use."""
        if self.judges:
            filters = "judge" in (part_of(self.parents_spec, "curate").get("quality") or {})
            return ["judge", "filter"] if filters else ["judge"]
        used = str(self.spec.get("answers_as", "response"))
        if self.facts["kind"] == "label":
            return ["logprobs"] if used == "response" else ["logprobs", used]
        return [used]

    @property
    def decided_in(self) -> str:
        """The run whose decisions it was asked by."""
        return self.run_id.partition(JUDGES)[0]

    def classes_of(self, source_id: str | None) -> set[str]:
        """Classes of personal data that a source is said to hold."""
        return {name for one in self.sources if one["id"] == source_id for name in one.get("personal_data") or ()}

    @property
    def sources(self) -> list[Row]:
        """Its sources as the spec tells of them."""
        return list(self.spec.get("sources") or ())

    def seeds_of(self, split: str) -> str | None:
        """The source that the items of a split come from."""
        return part_of(part_of(self.spec, "seeds"), split).get("source")

    @property
    def shown(self) -> str | None:
        """The source of its worked examples."""
        return part_of(self.spec, "examples").get("source")

    @property
    def let_through(self) -> tuple[list[str], list[str]]:
        """Kinds of personal data that are told to be let through, and those that are not; others go by default."""
        pii = part_of(part_of(self.spec, "curate"), "pii")
        kinds = pii.get("kinds") or {}
        return [name for name in kinds if kinds[name] == "allow"], [name for name in kinds if kinds[name] != "allow"]

    @property
    def lets_through(self) -> bool:
        """Whether kinds that nothing is told about are let through; what nobody looks for is."""
        return bool(part_of(part_of(self.spec, "curate"), "pii").get("default", "allow") == "allow")

    def use(self, name: str, untold: Json) -> Json:
        """A part of the intended use."""
        return part_of(self.spec, "intended_use").get(name, untold)


def part_of(fields: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """A part that holds fields of its own; empty where there is none."""
    found = fields.get(name)
    return found if isinstance(found, dict) else {}
