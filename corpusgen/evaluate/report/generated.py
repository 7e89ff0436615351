"""The section on free text: lengths, token log-probabilities, samples."""

from __future__ import annotations

from functools import partial

from corpusgen.evaluate.report import charts
from corpusgen.evaluate.report.facts import Generation, HistogramBin, Sample
from corpusgen.evaluate.report.markup import BEHIND, Section, figure, folded, paragraph, table
from corpusgen.evaluate.report.svg import both
from corpusgen.evaluate.report.wording import count, edge, logprob, percent, plural, share_of, significant, text


def generation(facts: Generation | None) -> Section | None:
    """What the written texts look like, and some of them as they are."""
    if not facts:
        return None
    lengths = _spread(facts.lengths, "Length of the texts", "tokens per text")
    sure = _spread(facts.logprobs, "How sure each text was", "mean log-probability per token (natural logarithm)")
    samples = "".join(_sample(sample) for sample in facts.samples)
    shown = f"<h3>Samples, as they came</h3>{samples}" if samples else ""
    return Section(anchor="texts", short="Texts", title="The texts", body=_summary(facts) + lengths + sure + shown)


def _summary(facts: Generation) -> str:
    cut = percent(share_of(facts.truncated, facts.items))
    told = f"{plural(facts.items, 'text')} of {significant(facts.mean_tokens)} tokens on average; "
    told += f"{count(facts.truncated)} ({cut}) ran into the limit and are marked truncated."
    if facts.mean_logprob is not None:
        told += f" Mean token log-probability {logprob(facts.mean_logprob)}."
    if facts.distinct_outputs is not None:
        told += f" {count(facts.distinct_outputs)} of them are different from each other."
    return paragraph(told)


def _spread(bins: tuple[HistogramBin, ...], title: str, axis: str) -> str:
    if not bins:
        return ""
    rows = [(f"{edge(one.low)} to {edge(one.high)}", count(one.count)) for one in bins]
    draw = partial(_spread_chart, bins, title, axis)
    return figure(
        title, "", both(draw, f"spread-{axis.split(maxsplit=1)[0]}"), folded(BEHIND, table((axis, "Texts"), rows))
    )


def _spread_chart(bins: tuple[HistogramBin, ...], title: str, axis: str, width: int, name: str) -> str:
    told = "; ".join(f"{edge(one.low)} to {edge(one.high)}: {count(one.count)}" for one in bins)
    return charts.histogram(name, title, told, bins, axis, width)


def _sample(sample: Sample) -> str:
    facts = [f"{count(sample.tokens)} tokens"]
    if sample.mean_logprob is not None:
        facts.append(f"log-probability {logprob(sample.mean_logprob)} per token")
    facts += [sample.note] if sample.note else []
    return (
        f'<div class="sample"><div class="said asked" tabindex="0">{text(sample.prompt)}</div>'
        f'<div class="said">{text(sample.output)}</div>{paragraph(" · ".join(facts), "note")}</div>'
    )
