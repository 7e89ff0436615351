"""What may leave this machine: personal data, sources bound to regions, and nothing at all where a spec says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from fnmatch import fnmatchcase

from corpusgen.provenance.decisions import Agreement, IntendedUse, Reason, SourceUse, ask, deny, remark
from corpusgen.provenance.places import is_here, is_near, is_unpaid, leaves, lies_in
from corpusgen.provenance.terms import Registry, TeacherRoute, TermsDocument, host_name

_CONTRACTS = ("api_terms", "consumer_terms", "host_terms")
"""Documents that say what becomes of what is sent; licences of weights do not."""
_SETTLES = ("dpa", "zero_retention", "order_form")
"""Agreements that say what a provider may do with what it is sent."""


def about_sending(
    registry: Registry,
    documents: Sequence[TermsDocument],
    teacher: TeacherRoute,
    use: IntendedUse,
    sources: Sequence[SourceUse],
    on: date,
) -> Iterator[Reason]:
    """Findings about everything that would be sent to this teacher on that day (R11, R16)."""
    if not leaves(teacher):
        return
    if use.egress == "none":
        yield deny("R16", None, f"egress is none, and {_leaving(teacher)}")
    for source in sources:
        yield from _about_regions(registry, documents, teacher, source)
    if is_unpaid(teacher):
        yield from _about_unpaid(documents)
    classes = sorted({*use.personal_data, *(kind for source in sources for kind in source.personal_data)})
    if classes:
        yield from _about_classes(registry, documents, teacher, use, classes, on)
        yield from _about_basis(sources)


def _about_regions(
    registry: Registry, documents: Sequence[TermsDocument], teacher: TeacherRoute, source: SourceUse
) -> Iterator[Reason]:
    if not source.processing_regions:
        return
    bound = f"source {source.source_id!r} may be processed in {', '.join(source.processing_regions)} only"
    if teacher.region is None:
        yield deny("R11", None, f"{bound}, and where {_where(teacher)} works is not known; say the teacher's region")
    elif not lies_in(registry.regions, teacher.region, source.processing_regions):
        yield deny("R11", None, f"{bound}, and {_where(teacher)} works in {teacher.region}")
    for document in documents:
        for place in document.processed_in:
            if not lies_in(registry.regions, place, source.processing_regions):
                yield deny("R11", document.id, f"{bound}, and under these terms it is processed in {place}")


def _about_unpaid(documents: Sequence[TermsDocument]) -> Iterator[Reason]:
    for document in documents:
        tier = document.unpaid_tier
        if tier is not None and "yes" in (tier.trains_on_inputs, tier.human_readers):
            text = "on its unpaid tier the provider may read what is sent and train on it"
            yield remark("R11", document.id, text)


def _about_classes(
    registry: Registry,
    documents: Sequence[TermsDocument],
    teacher: TeacherRoute,
    use: IntendedUse,
    classes: Sequence[str],
    on: date,
) -> Iterator[Reason]:
    if is_unpaid(teacher):
        yield deny("R11", None, f"{_data(classes)} would go to an unpaid tier of {_where(teacher)}")
    if teacher.route == "self_hosted" and _is_own(registry, documents, teacher):
        return  # one's own server: there is nobody to agree with
    covering = {kind: _covering(registry, teacher, use, kind, on) for kind in classes}
    open_classes = [kind for kind in classes if not covering[kind]]
    if open_classes:
        text = f"{_data(open_classes)} would go to {_where(teacher)}, and no agreement covers that on {on}"
        yield deny("R11", None, text + _what_there_is(teacher, use))
    settled = all(any(one.kind in _SETTLES for one in covering[kind]) for kind in classes)
    for document in documents:
        if document.kind in _CONTRACTS:
            yield from _about_training_on_inputs(document, settled)


def _is_own(registry: Registry, documents: Sequence[TermsDocument], teacher: TeacherRoute) -> bool:
    """Whether a server of one's own is nobody else's: near by, or named in terms that somebody here wrote down."""
    host = host_name(teacher.host)
    mine = [document for document in documents if registry.file_of(document.id)]
    return is_near(host) or any(
        named.strip("*.") and fnmatchcase(host, named) for document in mine for named in document.hosts
    )


def _about_training_on_inputs(document: TermsDocument, settled: bool) -> Iterator[Reason]:
    if document.trains_on_inputs == "yes":
        yield deny("R11", document.id, "the provider trains on what is sent, and personal data would be")
    elif document.trains_on_inputs == "unclear" and not settled:
        yield ask(
            "R11", document.id, "whether the provider trains on what is sent is unclear, and personal data is sent"
        )


def _about_basis(sources: Sequence[SourceUse]) -> Iterator[Reason]:
    for source in sources:
        if source.personal_data and not source.lawful_basis:
            held = f"source {source.source_id!r} holds {_data(source.personal_data)}"
            text = f"{held} and says no lawful_basis for sending it"
            yield deny("R11", None, text)


def _covering(registry: Registry, teacher: TeacherRoute, use: IntendedUse, kind: str, on: date) -> list[Agreement]:
    return [
        one
        for one in use.agreements
        if _of_host(one, teacher)
        and (one.valid_from is None or one.valid_from <= on)
        and (one.valid_until is None or on <= one.valid_until)
        and (not one.classes or kind in one.classes)
        and _of_region(registry, one, teacher)
    ]


def _of_host(agreement: Agreement, teacher: TeacherRoute) -> bool:
    return bool(teacher.host) and fnmatchcase(host_name(teacher.host), host_name(agreement.host))


def _of_region(registry: Registry, agreement: Agreement, teacher: TeacherRoute) -> bool:
    known = teacher.region is not None and lies_in(registry.regions, teacher.region, agreement.regions)
    return not agreement.regions or known


def _what_there_is(teacher: TeacherRoute, use: IntendedUse) -> str:
    """The agreements with that host that do not cover it, with what they do cover."""
    told = "; ".join(_terms_of(one) for one in use.agreements if _of_host(one, teacher))
    if told:
        return f" (agreements with it: {told})"
    if teacher.route == "self_hosted":
        return (
            "; it is neither this machine nor in a private network, so name that host in an agreement,"
            " or in terms of your own if the server is yours"
        )
    return ""


def _terms_of(agreement: Agreement) -> str:
    parts = [
        f"classes {', '.join(agreement.classes)}" if agreement.classes else "",
        f"regions {', '.join(agreement.regions)}" if agreement.regions else "",
        f"from {agreement.valid_from}" if agreement.valid_from else "",
        f"until {agreement.valid_until}" if agreement.valid_until else "",
    ]
    return f"{agreement.id} for {', '.join(part for part in parts if part) or 'everything'}"


def _data(classes: Sequence[str]) -> str:
    return f"personal data ({', '.join(classes)})"


def _leaving(teacher: TeacherRoute) -> str:
    if teacher.route != "self_hosted" and is_here(teacher.host):
        kind = {"api": "API", "cloud": "cloud"}.get(teacher.route, teacher.route)
        return f"{_where(teacher)} is reached by route {teacher.route}: that {kind} sends on what it is sent"
    return f"what is sent to {_where(teacher)} leaves this machine"


def _where(teacher: TeacherRoute) -> str:
    return repr(teacher.host or teacher.provider)
