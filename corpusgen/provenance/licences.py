"""Licences of sources, and the licence of a mix: which apply together, which exclude each other, what they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from corpusgen.provenance.decisions import (
    Bucket,
    Duty,
    EffectiveLicence,
    IntendedUse,
    LicenceBits,
    Reason,
    SourceUse,
    ask,
    deny,
    grant,
    remark,
)
from corpusgen.provenance.terms import DataLicence, Registry, TermsDocument

_PLAIN = re.compile(r"^[\w.:+-]+(\s+AND\s+[\w.:+-]+)*$")
_RESTRICTING = frozenset(
    {"naming", "use_policy_flow_down", "mau_cap", "revenue_cap", "non_commercial", "no_distribution"}
)
"""Duties of terms under which a record is more than credited, labelled and noticed."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A licence expression taken apart: what applies together, each an id, an id WITH an exception, or a choice."""

    parts: tuple[str, ...]
    choices: frozenset[str] = frozenset()
    """Those of the parts between whose licences somebody has to choose."""


@lru_cache(maxsize=1024)
def read_expression(expression: str) -> Expression:
    """The parts of a licence expression; what is none is one part, which no registry knows."""
    if _PLAIN.match(expression):
        return Expression(parts=tuple(dict.fromkeys(re.split(r"\s+AND\s+", expression))))
    from license_expression import ExpressionError, Licensing

    licensing = Licensing()
    try:
        tree = licensing.parse(expression)
    except (ExpressionError, AssertionError, IndexError):  # its parser stumbles over "( )" and "( AND MIT"
        tree = None
    if tree is None:
        return Expression(parts=(expression,))
    tree = tree.simplify()
    parts = tree.args if isinstance(tree, licensing.AND) else (tree,)
    rendered = [part.render() for part in parts]
    chosen = {text for text, part in zip(rendered, parts, strict=True) if isinstance(part, licensing.OR)}
    return Expression(parts=tuple(dict.fromkeys(rendered)), choices=frozenset(chosen))


def licence_named(registry: Registry, name: str) -> DataLicence | None:
    """A licence by its name. With one of SPDX's exceptions, which only allow more, the licence itself is judged."""
    known = registry.licence_names.get(name)
    if known is not None or " WITH " not in name:
        return known
    licence, exception = name.split(" WITH ", 1)
    # What somebody else calls an exception may well take something away, as the Commons Clause does.
    return registry.licence_names.get(licence) if exception.strip() in _spdx_exceptions() else None


@lru_cache(maxsize=1)
def _spdx_exceptions() -> frozenset[str]:
    from license_expression import get_license_index

    names = (one["spdx_license_key"] or "" for one in get_license_index() if one["is_exception"])
    return frozenset(name for name in names if name and not name.startswith("LicenseRef-"))


# --- R12 -------------------------------------------------------------------------------------------------------------


def about_sources(registry: Registry, sources: Sequence[SourceUse], use: IntendedUse) -> Iterator[Reason]:
    """Findings about what the sources' licences allow, each by itself and all of them together."""
    for source in sources:
        expression = read_expression(source.licence)
        for name in expression.parts:
            if name in expression.choices:
                yield deny("R12", None, _unchosen(source, name))
            else:
                yield from _about_licence(source, name, licence_named(registry, name), use)
        yield from _about_generators(registry, source)
    yield from _about_mixing(registry, sources)


def _unchosen(source: SourceUse, name: str) -> str:
    where = f"source {source.source_id!r}"
    return f"{where}: {name} is a choice that nobody has made; write the licence you take as the source's licence"


def _about_licence(source: SourceUse, name: str, licence: DataLicence | None, use: IntendedUse) -> Iterator[Reason]:
    where = f"source {source.source_id!r}"
    if licence is None:
        yield deny("R12", None, f"{where}: licence {name!r} is not among data_licences; correct it or add it there")
    elif licence.train in ("unclear", "prohibited"):
        yield deny("R12", licence.spdx, f"{where}: {licence.spdx} does not say that its text may train a model")
    elif licence.no_derivatives:
        yield deny("R12", licence.spdx, f"{where}: {licence.spdx} allows no derivatives")
    elif licence.redistribute_derived in ("unclear", "prohibited") and use.student_distribution != "internal":
        text = f"{where}: {licence.spdx} does not say that what derives from it may be passed on"
        yield deny("R12", licence.spdx, f"{text}, and the student is {use.student_distribution}")
    elif licence.non_commercial and use.commercial:
        yield deny("R10", licence.spdx, f"{where}: {licence.spdx} is non-commercial, and the student is commercial")
    elif licence.share_alike and not {"share_alike", f"{licence.spdx}/share_alike"} & set(use.accepted_duties):
        text = f"{where}: duty share_alike is not among accepted_duties"
        yield ask("R07", licence.spdx, text, duty="share_alike")
    else:
        yield grant("R09", licence.spdx, f"{where}: {licence.spdx} allows it")


def _about_generators(registry: Registry, source: SourceUse) -> Iterator[Reason]:
    """What binds those who made a source may or may not bind its readers: told, never decided on."""
    for name in source.generated_by:
        document = registry.by_id.get(name)
        told = f"source {source.source_id!r} was written by a model under these terms"
        if document is None:
            yield remark("R12", name, f"{told}, which no registry file has")
        else:
            yield remark("R12", document.id, f"{told}: training is {document.outputs_train_competing} there")


def _about_mixing(registry: Registry, sources: Sequence[SourceUse]) -> Iterator[Reason]:
    used = _used(registry, sources)
    alike = {name: licence for name, licence in used.items() if licence.share_alike}
    common = [one for one in alike.values() if all(_may_become(other, one.spdx) for other in alike.values())]
    if len(alike) > 1 and not common:
        mixed = " and ".join(sorted(alike))
        yield deny("R12", None, f"{mixed} cannot be mixed in one dataset; {_split(registry, sources, used)}")
    elif alike:
        strict = [name for name, licence in used.items() if licence.non_commercial and name not in alike]
        if strict and not any(one.non_commercial for one in common):
            mixed = " and ".join(sorted({*alike, *strict}))
            why = "the first asks for itself on the whole, the second forbids commerce"
            yield deny(
                "R12", None, f"{mixed} cannot be mixed in one dataset ({why}); {_split(registry, sources, used)}"
            )


def _may_become(licence: DataLicence, name: str) -> bool:
    return licence.spdx == name or name in licence.becomes


def _used(registry: Registry, sources: Sequence[SourceUse]) -> dict[str, DataLicence]:
    named = (licence_named(registry, name) for source in sources for name in read_expression(source.licence).parts)
    return {licence.spdx: licence for licence in named if licence is not None}


def _split(registry: Registry, sources: Sequence[SourceUse], used: Mapping[str, DataLicence]) -> str:
    """Which sources go into which dataset, one for each licence that stands against another."""
    lots: dict[str, set[str]] = {}
    for source in sources:
        for licence in _used(registry, [source]).values():
            if licence.share_alike or licence.non_commercial:
                lots.setdefault(licence.spdx, set()).add(source.source_id)
    told = "; ".join(f"{name}: {', '.join(sorted(ids))}" for name, ids in sorted(lots.items()))
    return f"make one dataset per licence ({told})"


# --- Duties and the licence of a mix ---------------------------------------------------------------------------------


def source_duties(registry: Registry, source: SourceUse) -> Iterator[Duty]:
    """What the licences of a source ask for, and as information what its generators' terms ask for."""
    for name in read_expression(source.licence).parts:
        licence = licence_named(registry, name)
        if licence is not None:
            yield from _licence_duties(licence, source)
    for name in source.generated_by:
        document = registry.by_id.get(name)
        for duty in document.duties if document is not None else ():
            if duty.roles:
                continue  # of those who pass the weights on, not of those who read what they wrote
            text = f"by way of source {source.source_id}: {duty.text}"
            yield Duty(kind=duty.kind, applies_to=duty.applies_to, text=text, terms_id=name, second_order=True)


def _licence_duties(licence: DataLicence, source: SourceUse) -> Iterator[Duty]:
    asked: dict[str, tuple[str, tuple[str, ...]]] = {}
    if licence.attribution:
        asked["attribution"] = (f"credit source {source.source_id}", (source.source_id,))
    if licence.notice:
        asked["notice_file"] = (licence.notice, (licence.spdx, *licence.aliases))
    if licence.share_alike:
        asked["share_alike"] = (f"publish what derives from it under {licence.spdx}", ())
    if licence.non_commercial:
        asked["non_commercial"] = ("non-commercial use only", ())
    for kind, (text, words) in asked.items():
        yield Duty(kind=kind, applies_to="dataset", text=text, terms_id=licence.spdx, words=words)


def effective_licence(
    registry: Registry, documents: Sequence[TermsDocument], sources: Sequence[SourceUse] = ()
) -> EffectiveLicence:
    """The licence of what came out of these terms and sources together, what it asks for, and the config it fits in."""
    bits = _bits(documents, list(_used(registry, sources).values()))
    return EffectiveLicence(
        expression=_expression(registry, documents, sources),
        bits=bits,
        bucket=_bucket(registry, documents, sources, bits),
    )


def _expression(registry: Registry, documents: Sequence[TermsDocument], sources: Sequence[SourceUse]) -> str:
    names, compound = {document.spdx for document in documents}, False
    for source in sources:
        expression = read_expression(source.licence)
        for name in expression.parts:
            known = licence_named(registry, name)
            if name in expression.choices:
                names.add(f"({name})")
                compound = True
            elif known is None:
                names.add("NOASSERTION")
            else:
                names.add(name if " WITH " in name else known.spdx)
    joined = " AND ".join(sorted(names, key=str.casefold)) or "NOASSERTION"
    return _simplified(joined) if compound else joined


@lru_cache(maxsize=256)
def _simplified(expression: str) -> str:
    from license_expression import Licensing

    return str(Licensing().parse(expression).simplify().render())


def _bits(documents: Sequence[TermsDocument], licences: Sequence[DataLicence]) -> LicenceBits:
    asked = {duty.kind for document in documents for duty in document.duties if not duty.roles}
    barred = any(document.commercial_use == "prohibited" for document in documents)
    return LicenceBits(
        non_commercial=barred or "non_commercial" in asked or any(one.non_commercial for one in licences),
        share_alike="share_alike" in asked or any(one.share_alike for one in licences),
        no_derivatives=any(one.no_derivatives for one in licences),
        attribution="attribution" in asked or any(one.attribution for one in licences),
    )


def _bucket(
    registry: Registry, documents: Sequence[TermsDocument], sources: Sequence[SourceUse], bits: LicenceBits
) -> Bucket:
    if not documents or any(_restricts(one) for one in documents):
        return "restricted"
    return _bucket_of_sources(registry, sources, bits)


def source_bucket(registry: Registry, sources: Sequence[SourceUse]) -> Bucket:
    """The config that text of these sources fits in where no teacher had a part in it."""
    return _bucket_of_sources(registry, sources, _bits((), list(_used(registry, sources).values())))


def _bucket_of_sources(registry: Registry, sources: Sequence[SourceUse], bits: LicenceBits) -> Bucket:
    if bits.non_commercial or bits.no_derivatives or not all(_is_open(registry, source) for source in sources):
        return "restricted"
    return "share_alike" if bits.share_alike else "permissive"


def _restricts(document: TermsDocument) -> bool:
    duties = [duty for duty in document.duties if not duty.roles]
    bound = any(duty.kind in _RESTRICTING or duty.regions for duty in duties)
    return bound or document.outputs_train_competing != "allowed"


def _is_open(registry: Registry, source: SourceUse) -> bool:
    expression = read_expression(source.licence)
    licences = [licence_named(registry, name) for name in expression.parts]
    return not expression.choices and all(one is not None and one.train == "allowed" for one in licences)
