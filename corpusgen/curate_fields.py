"""The part of a spec that says what is worth asking and what is worth keeping."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from corpusgen.fields import Misplaced, Part, Seed, Several

Share = Annotated[float, Field(ge=0, le=1)]
Action = Literal["block", "mask", "allow"]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Near(Part):
    """Texts that say almost the same. Another number, name, operator, unit or negation makes another text."""

    prompts: bool = Field(True, description="Drop near-duplicates of the pool before anything is spent")
    answers: bool = Field(True, description="Drop near-duplicate answers when a dataset is selected")
    threshold: Annotated[float, Field(ge=0.3, le=1)] = Field(
        0.64, description="Least word-multiset Jaccard similarity of two texts that count as one"
    )


class EvalFile(Part):
    """A file of items the student will be tested on: Parquet, JSON Lines, CSV, or text with one item a line."""

    path: str
    columns: tuple[str, ...] = Field((), description="Columns with the items' text; without it, every column of text")


class Decontaminate(Part):
    """What may not be in the dataset, because the student will be tested on it."""

    files: tuple[EvalFile, ...] = Field((), description="Eval sets; validation and gold of the task always count")
    report: Share = Field(0.2, description="Share of an eval item's word 8-grams from which a text is reported")
    drop: Share = Field(0.3, description="Share from which it is dropped")
    prompts: bool = Field(True, description="Check the pool before anything is spent")
    answers: bool = Field(True, description="Check prompts and answers when a dataset is selected")

    @model_validator(mode="after")
    def _rising(self) -> Decontaminate:
        if self.report > self.drop:
            raise Misplaced((("report",), f"is {self.report} and drop is {self.drop}; report may not be above drop"))
        return self


class PersonalRules(Part):
    """What becomes of personal data that patterns find. Secrets, such as keys and passwords, are always blocked."""

    default: Action = Field("allow", description="block drops the item; mask sends [EMAIL_1] in its place")
    kinds: dict[str, Action] = Field({}, description="Other treatment of some kinds, such as {email: mask}")


class Personal(PersonalRules):
    """Personal data, before it is sent and before it is stored."""

    regions: dict[_Name, PersonalRules] = Field(
        {}, description="Rules for teachers of a region (teachers[].region); the strictest of all that may be asked"
    )
    stored: Literal["tag", "mask"] = Field(
        "tag", description="tag: records name the kinds found in prompt and answer; mask: placeholders as well"
    )


class Remark(Part):
    """A check that reports, and drops only where it is told to."""

    action: Literal["report", "drop"] = "report"
    prompts: bool = True
    answers: bool = True


class Diverse(Part):
    """How items are chosen so that they cover the pool; for asking.order: diverse and for select."""

    method: Literal["k_center", "facility", "clusters"] = "k_center"
    embedding: Literal["hashing", "minilm"] = Field("hashing", description="minilm needs the extra semantic")
    strata: str | None = Field(None, description="Column of the seed file whose values get their share")
    quotas: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="For values of strata: a share below 1, or a number of items"
    )
    outliers: Share = Field(0.0, description="Share of the pool, farthest from everything else, that is not chosen")
    seed: Seed = 1

    @model_validator(mode="after")
    def _stratified(self) -> Diverse:
        if self.quotas and self.strata is None:
            raise Misplaced((("quotas",), "are for the values of a column; name it under strata"))
        return self


class Semantic(Part):
    """Texts that mean almost the same are reported, never dropped."""

    embedding: Literal["hashing", "minilm"] = "minilm"
    flag: Annotated[float, Field(gt=0, le=1)] = Field(0.85, description="Least cosine similarity that is reported")


class Active(Part):
    """Asking in rounds: what the student is least sure of and has seen least of, until more would not help."""

    first: Several = Field(400, description="Labels of the first, random round; the calibration sample")
    round: Several = Field(275, description="Labels of each later round")
    most: Several = Field(1_500, description="Labels at most")
    seed: Seed = 1


class Curate(Part):
    """What is worth asking before money is spent, and what is worth keeping after."""

    near: Near | None = None
    decontaminate: Decontaminate | None = None
    pii: Personal | None = None
    injection: Remark | None = None
    moderation: Remark | None = None
    prompts: dict[str, dict[str, Any]] = Field({}, description="Quality filters for the pool, by name")
    quality: dict[str, dict[str, Any]] = Field({}, description="Quality filters for answers, by name")
    diverse: Diverse | None = None
    semantic: Semantic | None = None
    active: Active | None = None

    def of_the_pool(self) -> dict[str, Any]:
        """What decides which questions are asked; the rest is a matter of selecting, and begins no new run."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"quality", "semantic"})
        for name in _BOTH_SIDES & fields.keys():
            fields[name].pop("answers", None)
        if "pii" in fields:
            fields["pii"].pop("stored", None)
        return {name: value for name, value in fields.items() if not (name in _BOTH_SIDES and _asks_nothing(value))}


_BOTH_SIDES = {"near", "decontaminate", "injection", "moderation"}


def _asks_nothing(part: dict[str, Any]) -> bool:
    return part.get("prompts") is False
