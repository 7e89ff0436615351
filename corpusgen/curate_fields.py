"""The part of a spec that says what is worth asking and what is worth keeping."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from corpusgen.fields import Misplaced, Part, Place, Seed, Several
from corpusgen.teacher_fields import TeacherSpec

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
    separated: Literal["line", "blank"] = Field(
        "line", description="Where an item of a text file ends: with its line, or at the next blank line"
    )


class Decontaminate(Part):
    """What may not be in the dataset, because the student will be tested on it."""

    files: tuple[EvalFile, ...] = Field((), description="Eval sets; validation and gold of the task always count")
    report: Share = Field(0.2, description="Share of an eval item's word 8-grams from which a text is reported")
    drop: Share = Field(0.3, description="Share from which it is dropped")
    ngram: Annotated[int, Field(ge=3, le=50)] = Field(8, description="Words in a row that are compared")
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
    outliers: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="Share of the pool, farthest from everything else, that is not chosen"
    )
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


class Stop(Part):
    """When asking in rounds ends before the labels at most are reached."""

    below: Share = Field(
        0.002, description="Agreement with the teacher that the next round must be expected to gain, as a share"
    )
    patience: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="So many rounds in a row must be expected to gain less before it ends"
    )


class Active(Part):
    """Asking in rounds: what the student is least sure of and has seen least of, until more would not help."""

    first: Several = Field(400, description="Labels of the first, random round; the calibration sample")
    round: Several = Field(275, description="Labels of each later round")
    most: Several = Field(1_500, description="Labels at most")
    by: tuple[Literal["uncertainty", "diversity"], ...] = Field(
        ("uncertainty", "diversity"),
        min_length=1,
        description="What a round is chosen by: where the student wavers, what is unlike the rest, or both",
    )
    spread: Annotated[float, Field(ge=1, le=100)] = Field(
        4.0, description="With both: diversity chooses among so many times a round's labels of least certain items"
    )
    stop: Stop | None = Field(Stop(), description="null: ask until the labels at most are reached")
    seed: Seed = 1

    @model_validator(mode="after")
    def _grounds(self) -> Active:
        if len(set(self.by)) < len(self.by):
            raise Misplaced((("by",), "names the same ground twice; remove one"))
        return self


class Judge(Part):
    """A teacher that scores the answers of the others; they are stored, and quality: {judge: ...} drops by them."""

    teacher: TeacherSpec = Field(description="Who scores, written as one of teachers")
    prompt: str = Field(
        description="Prompt file, relative to this spec; its inputs are response and any of question, prompt, min, max"
    )
    min: float = Field(1.0, description="Lowest score of the scale")
    max: float = Field(5.0, description="Highest score of the scale")

    @model_validator(mode="after")
    def _scaled(self) -> Judge:
        mistakes: list[tuple[Place, str]] = []
        if self.min >= self.max:
            mistakes.append((("max",), f"is {self.max:g} and min is {self.min:g}; write the higher one as max"))
        if self.teacher.weight is not None:
            mistakes.append((("teacher", "weight"), "is a share among several teachers; remove it"))
        if mistakes:
            raise Misplaced(*mistakes)
        return self


class Curate(Part):
    """What is worth asking before money is spent, and what is worth keeping after."""

    near: Near | None = None
    decontaminate: Decontaminate | None = None
    pii: Personal | None = None
    injection: Remark | None = None
    moderation: Remark | None = None
    quality: dict[str, Any] = Field(
        {},
        description="Quality filters by name, each with its settings; for answers, and for prompts where sides says so",
    )
    judge: Judge | None = None
    diverse: Diverse | None = None
    semantic: Semantic | None = None
    active: Active | None = None

    @property
    def checks_the_pool(self) -> bool:
        """Whether something but exact repeats may be dropped, or remarked on, before it is asked about."""
        sides = (self.near, self.decontaminate, self.injection, self.moderation)
        asked = any(part is not None and part.prompts for part in sides)
        return asked or self.pii is not None or any(map(_looks_at_prompts, self.quality.values()))


def _looks_at_prompts(settings: Any) -> bool:
    each = settings if isinstance(settings, list) else [settings]
    return any(isinstance(one, dict) and "prompt" in (one.get("sides") or ()) for one in each)
