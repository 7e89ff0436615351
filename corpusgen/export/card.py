"""The dataset card: README.md with the front matter that hubs read, and what a reader should know before use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import yaml

_ADVICE = "Terms, licences and duties are told as a program read them. Not legal advice."
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
# The hub's own words for licences; anything else is "other" with a name.
_HUB_LICENCES = frozenset(
    {
        "apache-2.0",
        "mit",
        "cc0-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "odbl",
    }
)


@dataclass(frozen=True, kw_only=True)
class CardSplit:
    """One split and the files that hold it, as a glob inside the dataset's folder."""

    name: str
    pattern: str
    rows: int
    config: str = "default"
    """The configuration it belongs to; empty: none, because it holds no row."""


@dataclass(frozen=True, kw_only=True)
class CardTerms:
    """One version of the terms a teacher was under."""

    terms_id: str
    title: str
    version: str
    spdx: str


@dataclass(frozen=True, kw_only=True)
class CardDuty:
    """Something that whoever uses the dataset must carry out."""

    kind: str
    applies_to: str
    text: str
    terms_id: str


@dataclass(frozen=True, kw_only=True)
class CardTeacher:
    """One teacher, how it was reached and under which terms."""

    name: str
    provider: str
    model: str
    route: str
    host: str
    records: int
    terms: tuple[CardTerms, ...]
    outputs_train: str


@dataclass(frozen=True, kw_only=True)
class CardSource:
    """One source of seeds."""

    source_id: str
    title: str
    licence: str
    locator: str | None
    records: int | None
    notice: str | None = None
    """Licence text or notice that must go along with every copy."""
    generated_by: tuple[str, ...] = ()
    """Terms documents of the models that wrote it, where models did."""
    rightsholder: str | None = None
    acquisition: str | None = None
    acquired: date | None = None
    copyright_status: str | None = None
    personal_data: tuple[str, ...] = ()
    """Classes of personal data it is said to hold."""
    lawful_basis: str | None = None
    processing_regions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CardSpend:
    """What the records cost: three figures of money that are never added up, and what was used."""

    settled_microusd: int
    promised_microusd: int
    unconfirmed_microusd: int
    requests: int
    input_tokens: int
    output_tokens: int
    compute_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything a card says. What is None or empty is listed as not filled, except where it cannot apply."""

    name: str
    version: str
    licence_expression: str
    created_time: datetime
    rows: int
    columns_version: int
    splits: tuple[CardSplit, ...]
    teachers: tuple[CardTeacher, ...]
    sources: tuple[CardSource, ...]
    duties: tuple[CardDuty, ...] = ()
    description: str | None = None
    languages: tuple[str, ...] = ()
    task_categories: tuple[str, ...] = ()
    spend: CardSpend | None = None
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Records per label, by split."""
    configs: Mapping[str, str] = field(default_factory=dict)
    """The licence of the rows of each configuration, where there are several."""
    imported: int = 0
    """Rows that came from outside, which nobody was asked for."""
    how_made: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    personal_data: str | None = None
    contact: str | None = None
    merkle_root: str | None = None
    spec_digest: str | None = None
    prompt_digest: str | None = None


_MUST_SAY = {
    "description": "what the dataset is for",
    "languages": "languages",
    "task_categories": "task categories",
    "teachers": "teachers",
    "sources": "sources",
    "spend": "what it cost",
    "how_made": "how it was made",
    "limitations": "known limitations",
    "personal_data": "whether it holds personal data",
    "contact": "whom to ask, and where to send takedown requests",
    "merkle_root": "Merkle root of its records",
    "spec_digest": "digest of the task spec",
    "prompt_digest": "digest of the prompt",
}


def card(facts: CardFacts) -> str:
    """The text of README.md for a sealed dataset."""
    sections = [
        _front_matter(facts),
        f"# {_inline(facts.name)} {_inline(facts.version)}",
        _inline(facts.description or "") or "_No description was given._",
        _what_it_is(facts),
        _section("Teachers", _teachers(facts.teachers)),
        _section("Duties", f"{_duties(facts.duties)}\n\n_{_ADVICE}_"),
        _section("Configurations by licence", _configs(facts)),
        _section("Sources", _sources(facts.sources)),
        _section("What it cost", _spend(facts.spend)),
        _section("Label balance", _labels(facts.labels)) if facts.labels else "",
        _section("How it was made", _bullets(facts.how_made)),
        _section("Limitations", _bullets(facts.limitations)),
        _section("Notices that go with every copy", _notices(facts.sources)),
        _section("Not filled", _bullets(unfilled(facts))),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def unfilled(facts: CardFacts) -> tuple[str, ...]:
    """What the card should say and could not."""
    return tuple(f"{what} (`{name}`)" for name, what in _MUST_SAY.items() if not getattr(facts, name))


def _front_matter(facts: CardFacts) -> str:
    licence = facts.licence_expression.lower()
    known = licence in _HUB_LICENCES
    matter: dict[str, Any] = {"license": licence if known else "other"}
    if not known:
        matter |= {"license_name": _hub_name(facts.licence_expression), "license_link": "README.md"}
    matter |= {
        "pretty_name": f"{facts.name} {facts.version}",
        "language": list(facts.languages),
        "tags": [*(["synthetic"] if facts.imported < facts.rows else []), "corpusgen", "distillation"],
        "annotations_creators": ["machine-generated"] if facts.imported < facts.rows else [],
        "task_categories": list(facts.task_categories),
        "size_categories": [_size(facts.rows)],
        "configs": [
            {"config_name": name, "data_files": _data_files([one for one in facts.splits if one.config == name])}
            for name in dict.fromkeys(split.config for split in facts.splits if split.config)
        ],
    }
    filled = {name: value for name, value in matter.items() if value}
    return f"---\n{yaml.safe_dump(filled, sort_keys=False, allow_unicode=True, width=1_000)}---"


def _data_files(splits: Sequence[CardSplit]) -> list[dict[str, str]]:
    return [{"split": split.name, "path": split.pattern} for split in splits]


def _hub_name(expression: str) -> str:
    return "-".join(expression.lower().split())


def _size(rows: int) -> str:
    return next((name for bound, name in _SIZES if rows < bound), "n>10M")


def _what_it_is(facts: CardFacts) -> str:
    rows = Counter[str]()
    for split in facts.splits:
        rows[split.name] += split.rows
    splits = ", ".join(f"{number:,} {_inline(name)}" for name, number in rows.items())
    summary = (
        f"{facts.rows:,} records ({splits}); {written_by(facts)} "
        f"Licence: `{_code(facts.licence_expression)}`. Sealed {facts.created_time:%Y-%m-%d %H:%M} UTC, "
        f"record columns version {facts.columns_version}."
    )
    return "\n\n".join(filter(None, [summary, _identity(facts)]))


def written_by(facts: CardFacts) -> str:
    """Who wrote the answers, in a sentence that goes on from the number of records."""
    if not facts.imported:
        return "the answers were written by models, not by people."
    if facts.imported == facts.rows:
        return "all of them came from outside, and who wrote them is told with their source."
    told = "the answers of the others were written by models, not by people."
    return f"{facts.imported:,} of them came from outside; {told}"


def _identity(facts: CardFacts) -> str:
    digests = {"Merkle root": facts.merkle_root, "task spec": facts.spec_digest, "prompt": facts.prompt_digest}
    lines = [f"- {name}: `{_code(value)}`" for name, value in digests.items() if value]
    words = {"personal data": facts.personal_data, "contact": facts.contact}
    return "\n".join(lines + [f"- {name}: {_inline(value)}" for name, value in words.items() if value])


def _teachers(teachers: Sequence[CardTeacher]) -> str:
    rows = [
        (
            teacher.name,
            f"{teacher.provider}, {teacher.route}" + (f", {teacher.host}" if teacher.host else ""),
            teacher.model,
            f"{teacher.records:,}",
            "; ".join(f"{terms.title}, {terms.version} ({terms.terms_id}, {terms.spdx})" for terms in teacher.terms),
            teacher.outputs_train,
        )
        for teacher in teachers
    ]
    return _table(("Teacher", "Through", "Model", "Records", "Terms", "Training on outputs"), rows)


def _duties(duties: Sequence[CardDuty]) -> str:
    rows = [(duty.kind, duty.applies_to, duty.text, duty.terms_id) for duty in duties]
    return _table(("Duty", "On the", "What to do", "Asked for by"), rows) if rows else "None was found."


def _sources(sources: Sequence[CardSource]) -> str:
    rows = [
        (
            source.source_id,
            source.title,
            source.licence,
            source.locator or "",
            "" if source.records is None else f"{source.records:,}",
        )
        for source in sources
    ]
    tables = [_table(("Source", "Title", "Licence", "Where", "Records"), rows)]
    told = [(source.source_id, *about) for source in sources if any(about := told_of(source).values())]
    tables.append(_table(("Source", *told_of(sources[0])), told) if told else "")
    return "\n\n".join(filter(None, tables))


def told_of(source: CardSource) -> dict[str, str]:
    """What a spec says of a source beside its licence, by what a reader calls it; empty where it says nothing."""
    return {
        "Rightsholder": source.rightsholder or "",
        "Acquired": " ".join(
            filter(None, [source.acquisition, None if source.acquired is None else f"{source.acquired}"])
        ),
        "Copyright": source.copyright_status or "",
        "Personal data": ", ".join(source.personal_data),
        "Lawful basis": source.lawful_basis or "",
        "Regions": ", ".join(source.processing_regions),
        "Written by models under": ", ".join(source.generated_by),
    }


def _configs(facts: CardFacts) -> str:
    """Which files are under which licence, where they are not all under the same."""
    if not facts.configs:
        return ""
    rows = [
        (name, licence, ", ".join(f"{one.rows:,} {one.name}" for one in facts.splits if one.config == name))
        for name, licence in facts.configs.items()
    ]
    load = f'load_dataset(folder, "{next(iter(facts.configs))}")'
    told = f"Rows under unlike licences lie in files of their own; `{load}` reads those of one."
    return told + "\n\n" + _table(("Configuration", "Licence of its rows", "Rows"), rows)


def _spend(spend: CardSpend | None) -> str:
    if spend is None:
        return ""
    rows = [
        ("Settled", _dollars(spend.settled_microusd)),
        ("Promised", _dollars(spend.promised_microusd)),
        ("Unconfirmed", _dollars(spend.unconfirmed_microusd)),
        ("Requests", f"{spend.requests:,}"),
        ("Input tokens", f"{spend.input_tokens:,}"),
        ("Output tokens", f"{spend.output_tokens:,}"),
    ]
    if spend.compute_seconds is not None:
        rows.append(("Processor seconds of local teachers", f"{spend.compute_seconds:,.1f}"))
    return _table(("What", "How much"), rows)


def _labels(labels: Mapping[str, Mapping[str, int]]) -> str:
    splits = list(labels)
    names = sorted({name for counts in labels.values() for name in counts})
    totals = {split: sum(counts.values()) for split, counts in labels.items()}
    rows = [(name, *(_share(labels[split].get(name, 0), totals[split]) for split in splits)) for name in names]
    return _table(("Label", *splits), rows)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else "0"


def _notices(sources: Sequence[CardSource]) -> str:
    # Indented, not fenced: a notice may hold any number of backticks.
    blocks = [
        f"{_inline(source.title)}:\n\n" + "\n".join(f"    {line}" for line in source.notice.splitlines())
        for source in sources
        if source.notice
    ]
    return "\n\n".join(blocks)


def _dollars(microusd: int) -> str:
    return f"${microusd // 1_000_000:,}.{microusd % 1_000_000:06d}"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {_inline(item)}" for item in items)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def _inline(text: str) -> str:
    """Text on one line that a Markdown reader shows and never runs."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")
