"""Trained students as models: ``student/NAME`` answers where it is sure, and says so where it is not.

A student is loaded only if its files are what the ledger says they were when it was trained, and if it has not learned
from what was erased or revoked. It reads what it was trained on: the task's input, taken out of the prompt where a
caller sends the whole of it. What it says costs nothing and becomes no record, but it is counted, together with how
strange its inputs are and how far its answers have moved from those to the items it is measured by.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt
import orjson

from corpusgen.corpus import Corpus
from corpusgen.distill.ngrams import bucket_count, count_ngrams, hash_ngrams
from corpusgen.errors import CorpusDamaged, PolicyRefused, SealRefused, UsageError
from corpusgen.records import Completion, Json, TokenLogprobs, Usage
from corpusgen.serve.wires.calls import Call
from corpusgen.serve.wires.rendering import written
from corpusgen.stages.erasure.erasures import refuse_revoked, refuse_to_retire
from corpusgen.stages.lineage.attesting import file_digests
from corpusgen.stages.release.released import noted_releases
from corpusgen.stages.sealing import sealed_dataset
from corpusgen.stages.training import Trained, load_student
from corpusgen.store.shards import read_columns

if TYPE_CHECKING:
    from corpusgen.serve.config import Configured, StudentOffer
    from corpusgen.serve.meter import Meter

Floats = npt.NDArray[np.float64]

WINDOW: Final = 500
"""Inputs over which answers of late are compared with those at training."""
FEWEST: Final = 100
"""Inputs from which on anything is said of that."""
DRIFTED: Final = 0.05
"""Jensen-Shannon divergence, in bits, from which on answers have drifted; chance alone makes less than 0.01."""
MEASURED_BY: Final = 5_000
"""Items of its dataset that a student is measured by at most."""
STRANGE: Final = 0.99
"""The quantile of training inputs; an input with a larger share of n-grams never seen in training is an anomaly."""
AGREED: Final = 0.95
"""Where no threshold is configured: how often answers must agree with the teacher's on validation items."""
UNTOLD: Final = 0.5
"""The threshold where there are too few validation items to tell."""
LOOK_S: Final = 1.0
"""Seconds after which it is looked again whether something was taken back."""
LONG: Final = 20_000
"""Characters from which on a text is read in a thread, so that others do not wait for it."""
FRAMED_BY: Final = 16
"""Recorded prompts from which it is told where the input stands in them."""
_MARK: Final = re.compile(r"data-[0-9a-f]{12}")
_FILES: Final = ("facts.json", "student.json", "student.safetensors")


@dataclass(frozen=True, kw_only=True)
class StudentSaid:
    """What a student answered."""

    label: str
    probabilities: dict[str, float]
    completion: Completion
    body: bytes
    """In the client's wire format."""


# --- One student -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Counters:
    """What a student has done since the service began."""

    answered: int = 0
    abstained: int = 0
    escalated: int = 0
    """Of those, the ones a teacher was asked about."""
    unfit: int = 0
    """Of those, calls that no student can answer: with functions, a schema, several answers, or no text."""
    anomalies: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure:
    """What a student's inputs and answers were like when it was trained."""

    labels: Floats
    """Its mean probabilities over validation items, or else over what it learned from."""
    seen: npt.NDArray[np.bool_]
    """Which n-grams its training inputs have."""
    bound: float
    """The share of unseen n-grams from which on an input is an anomaly."""
    items: int
    threshold: float
    """What it answers from, where nobody has configured another."""


@dataclass(kw_only=True)
class Serving:
    """A student that answers, with its counters."""

    name: str
    trained: Trained
    threshold: float
    teacher: str | None
    frame: re.Pattern[str] | None
    """Where the input stands in a whole prompt."""
    measure: Measure | None
    """None where its dataset lies here no more."""
    counters: Counters = field(default_factory=Counters)
    refused: str | None = None
    """Why it answers no more, where something was erased, revoked or withdrawn since the service began."""
    _recent: deque[Floats] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def input_of(self, text: str) -> str:
        """What the student was trained to read, taken out of its task's prompt where the text is that."""
        found = self.frame.fullmatch(text.strip()) if self.frame else None
        return found[1] if found else text

    def read(self, text: str) -> Floats:
        """Probabilities of the labels for an input."""
        return np.exp(self.trained.student.log_probabilities([text])[0])  # type: ignore[no-any-return]

    def is_strange(self, text: str) -> bool:
        """Whether an input has more n-grams that were never seen in training than training inputs have."""
        if self.measure is None:
            return False
        return unseen_share(text, self.trained.student.bits, self.measure.seen) > self.measure.bound

    def note(self, probabilities: Floats) -> None:
        """Remember what was answered, for the drift."""
        self._recent.append(probabilities)

    @property
    def drift(self) -> float | None:
        """Jensen-Shannon divergence of late answers from those at training; None before there are enough."""
        if self.measure is None or len(self._recent) < FEWEST:
            return None
        return divergence(np.mean(self._recent, axis=0), self.measure.labels)

    def state(self) -> dict[str, Json]:
        """Everything in numbers."""
        counters, drift, facts = self.counters, self.drift, self.trained.facts
        return {
            "name": self.name,
            "student_id": self.trained.student_id,
            "task": facts.get("task"),
            "dataset": facts.get("dataset"),
            "labels": list(self.trained.student.labels),
            "threshold": round(self.threshold, 6),
            "teacher": self.teacher,
            **{name: getattr(counters, name) for name in counters.__dataclass_fields__},
            "refused": self.refused,
            "drift": None if drift is None else round(drift, 6),
            "drift_threshold": DRIFTED,
            "drift_window": WINDOW,
            "drift_inputs": len(self._recent),
            "drifted": drift is not None and drift > DRIFTED,
            "anomaly_bound": None if self.measure is None else round(self.measure.bound, 6),
            "measured_by": 0 if self.measure is None else self.measure.items,
        }


def divergence(one: Floats, two: Floats) -> float:
    """Jensen-Shannon divergence of two distributions in bits: 0 for equal ones, 1 for those that share nothing."""
    middle = (one + two) / 2
    return float((_relative(one, middle) + _relative(two, middle)) / 2)


def _relative(one: Floats, two: Floats) -> float:
    there = one > 0
    return float(np.sum(one[there] * np.log2(one[there] / two[there])))


def unseen_share(text: str, bits: int, seen: npt.NDArray[np.bool_]) -> float:
    """The share of a text's n-grams that are not among those seen."""
    found = hash_ngrams([text], bits)
    buckets = np.concatenate([*found.bytes_at, found.words, found.pairs])
    buckets = buckets[buckets < bucket_count(bits)]
    return float(1 - seen[buckets].mean()) if len(buckets) else 1.0


# --- All of a service ------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Students:
    """The students of a service."""

    serving: dict[str, Serving]
    corpus: Corpus
    meter: Meter | None = None
    _looked: float = -math.inf
    _stamp: tuple[int, ...] = ()

    @classmethod
    async def open(cls, corpus: Corpus, config: Configured, *, meter: Meter | None = None) -> Self:
        """Load the students of a configuration, each checked.

        Raises UsageError for one that is not there, CorpusDamaged for one whose files were altered, SealRefused for
        one that may not be used any more; each names the line of the configuration.
        """
        serving = {}
        for at, offer in enumerate(config.spec.students):
            try:
                serving[offer.name] = await asyncio.to_thread(_opened, corpus, offer, config.file.parent)
            except (UsageError, CorpusDamaged, SealRefused) as error:
                place = config.where("students", at, "student")
                raise type(error)(f"{place}: student/{offer.name}: {error}") from error
        return cls(serving=serving, corpus=corpus, meter=meter, _stamp=_taken_back(corpus))

    def names(self) -> tuple[str, ...]:
        """The names clients write after ``student/``."""
        return tuple(self.serving)

    def state(self) -> list[dict[str, Json]]:
        """Counters, drift and anomalies of every student."""
        return [one.state() for one in self.serving.values()]

    async def answer(self, name: str, call: Call) -> StudentSaid | None:
        """What a student says to a call; None where it abstains.

        Raises UsageError for a name that is none, and PolicyRefused once it may not be used any more.
        """
        one = self.serving.get(name)
        if one is None:
            raise UsageError(f"no student {name[:100]!r} here; there are: {', '.join(self.serving) or 'none'}")
        await self.look_again()
        if one.refused is not None:
            raise PolicyRefused(f"student/{name} answers no more: {one.refused}")
        text = _text_of(call)
        if text is None:
            one.counters.unfit += 1
            self._abstain(one)
            return None
        if len(text) > LONG:
            probabilities, strange = await asyncio.to_thread(_read, one, text)
        else:
            probabilities, strange = _read(one, text)
        one.note(probabilities)
        if strange:
            one.counters.anomalies += 1
            self._count(one, "anomaly")
        self._show_drift(one)
        if probabilities.max() < one.threshold:
            self._abstain(one)
            return None
        one.counters.answered += 1
        self._count(one, "answered")
        return _said(one, call, probabilities, round(self.corpus.clock().timestamp()))

    async def look_again(self) -> None:
        """Refuse what another process has erased, revoked or withdrawn, within a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        stamp = _taken_back(self.corpus)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        for one in self.serving.values():
            try:
                await asyncio.to_thread(_check_still, self.corpus, one.trained)
            except (SealRefused, CorpusDamaged) as error:
                one.refused = str(error)

    def _abstain(self, one: Serving) -> None:
        one.counters.abstained += 1
        self._count(one, "abstained")
        if one.teacher is not None:
            one.counters.escalated += 1
            self._count(one, "escalated")

    def _count(self, one: Serving, outcome: str) -> None:
        if self.meter is not None:
            self.meter.add("corpusgen_student_answers_total", 1, one.name, outcome)

    def _show_drift(self, one: Serving) -> None:
        # The mean over the window is not free, and nobody looks at it between two answers.
        if self.meter is not None and one.counters.answered % 32 == 0 and (drift := one.drift) is not None:
            self.meter.set("corpusgen_student_drift", drift, one.name)


def _read(one: Serving, text: str) -> tuple[Floats, bool]:
    told = one.input_of(text)
    return one.read(told), one.is_strange(told)


def _text_of(call: Call) -> str | None:
    """The last turn of the user's; None where a label could not be what is asked for."""
    if call.tools or call.schema is not None or "response_format" in call.parameters:
        return None
    if call.parameters.get("n", 1) != 1:
        return None
    found = next((message for message in reversed(call.messages) if message.role == "user"), None)
    return found.content if found is not None and found.content.strip() else None


def _said(one: Serving, call: Call, probabilities: Floats, now: int) -> StudentSaid:
    labels = one.trained.student.labels
    order = np.argsort(-probabilities, kind="stable")
    label = labels[int(order[0])]
    completion = Completion(
        text=label,
        finish_reason="stop",
        usage=Usage(input_tokens=0, output_tokens=0),
        logprobs=_logprobs(one, call, probabilities, [int(at) for at in order]),
        model_served=f"student/{one.name}",
    )
    return StudentSaid(
        label=label,
        probabilities={labels[int(at)]: float(probabilities[at]) for at in order},
        completion=completion,
        body=written(call, [completion], created=now, name=f"student-{one.trained.student_id}"),
    )


def _logprobs(one: Serving, call: Call, probabilities: Floats, order: list[int]) -> TokenLogprobs | None:
    """Log-probabilities of the labels, as if each were one token; None where nobody asked."""
    asked = call.parameters.get("top_logprobs", call.parameters.get("logprobs"))
    if asked is None or asked is False:
        return None
    most = len(order) if asked is True else min(int(asked), len(order))
    labels = one.trained.student.labels
    logs = np.log(np.maximum(probabilities, 1e-300))
    return TokenLogprobs(
        token_bytes=(labels[order[0]].encode(),),
        token_ids=None,
        token_logprobs=(float(logs[order[0]]),),
        topk_bytes=tuple(labels[at].encode() for at in order[:most]),
        topk_ids=None,
        topk_logprobs=tuple(float(logs[at]) for at in order[:most]),
        topk_len=(most,),
    )


# --- Loading ---------------------------------------------------------------------------------------------------------


def _opened(corpus: Corpus, offer: StudentOffer, beside: Path) -> Serving:
    folder = _folder(corpus, offer.student, beside)
    student_id = _id_of(folder)
    _check_files(corpus, folder, student_id)
    trained = replace(load_student(folder), student_id=student_id)
    _check_still(corpus, trained)
    measure = _measure(corpus, trained)
    told = UNTOLD if measure is None else measure.threshold
    return Serving(
        name=offer.name,
        trained=trained,
        threshold=told if offer.threshold is None else offer.threshold,
        teacher=offer.teacher,
        frame=_frame(corpus, student_id),
        measure=measure,
    )


def _taken_back(corpus: Corpus) -> tuple[int, ...]:
    """How much was erased, revoked and withdrawn so far."""
    return tuple(
        corpus.journal.query(
            "select (select count(*) from erasures), (select count(*) from datasets where status = 'revoked'),"
            " (select count(*) from releases where withdrawn_us is not null), (select count(*) from releases)"
        )[0]
    )


def _check_still(corpus: Corpus, trained: Trained) -> None:
    _check_rights(corpus, trained.student_id)
    refuse_revoked(corpus, str(trained.facts["dataset"]), trained.facts["manifest_sha256"])


def _folder(corpus: Corpus, named: str, beside: Path) -> Path:
    """Where a student lies: a folder as it is written in the configuration, or by its id."""
    if "/" in named or "\\" in named or named.startswith("."):
        folder = (beside / named).resolve()
        if not (folder / "facts.json").is_file():
            raise UsageError(f"there is no student in {folder}; name the folder corpusgen train wrote, or its id")
        return folder
    rows = corpus.journal.query("select student_id from students order by student_id")
    known = [str(row[0]) for row in rows]
    found = [name for name in known if name.startswith(named)]
    if len(found) != 1:
        why = "several students begin so" if found else "there is no such student"
        raise UsageError(f"{named!r}: {why}; there are: {', '.join(found or known) or 'none yet, see corpusgen train'}")
    return corpus.folder / "students" / found[0]


def _id_of(folder: Path) -> str:
    try:
        return str(orjson.loads((folder / "facts.json").read_bytes())["student_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusDamaged(f"{folder / 'facts.json'} cannot be read ({error}); train the student again") from error


def _check_files(corpus: Corpus, folder: Path, student_id: str) -> None:
    """Raise CorpusDamaged unless the files are what the ledger says was trained."""
    rows = corpus.journal.query(
        "select payload from events where kind = 'student_trained' and payload is not null"
        " and json_extract(payload, '$.student_id') = ? order by seq desc limit 1",
        (student_id,),
    )
    told: dict[str, str] = orjson.loads(rows[0][0]).get("files", {}) if rows else {}
    lacking = [name for name in _FILES if name not in told]
    if lacking:
        raise CorpusDamaged(
            f"the ledger of {corpus.folder} does not tell of {student_id}; train it here, or see verify"
        )
    there = file_digests(folder)
    for name, digest in told.items():
        if there.get(name) != digest:
            state = "is gone" if name not in there else "was altered since it was trained"
            raise CorpusDamaged(
                f"{folder / name} {state} (sha256 {there.get(name, 'none')[:16]}…, trained {digest[:16]}…); restore it"
                " from a backup, or train again"
            )


def _check_rights(corpus: Corpus, student_id: str) -> None:
    """Raise SealRefused for a student that has learned from what was erased, or whose release was withdrawn."""
    refuse_to_retire(corpus, student_id)
    releases = [one for one in noted_releases(corpus) if one.said.get("student_id") == student_id]
    if releases and all(one.withdrawn is not None for one in releases):
        gone = releases[-1].withdrawn or {}
        raise SealRefused(
            f"student {student_id} was withdrawn on {str(gone.get('withdrawn_time'))[:10]} by {gone.get('by')}"
            f" ({gone.get('reason')}); release it again, or name another"
        )


# --- What it was like at training ------------------------------------------------------------------------------------


def _measure(corpus: Corpus, trained: Trained) -> Measure | None:
    try:
        sealed = sealed_dataset(corpus, str(trained.facts["dataset"]))
        lessons = _rows(sealed.of_split())
    except UsageError:  # not here any more: it answers, and nothing is said of drift
        return None
    texts = [text for text, _ in lessons]
    try:
        held_out = _rows(sealed.of_split("validation"))
    except UsageError:
        held_out = []
    counts = count_ngrams(texts, trained.student.bits)
    occurs_in = counts.getnnz(axis=0)
    by = held_out if len(held_out) >= FEWEST else lessons
    return Measure(
        labels=np.exp(trained.student.log_probabilities([text for text, _ in by])).mean(axis=0),
        seen=occurs_in > 0,
        bound=_bound(counts, occurs_in),
        items=len(by),
        threshold=_threshold(trained, held_out),
    )


def _rows(paths: list[Path]) -> list[tuple[str, str]]:
    """Inputs with the teacher's labels, evenly over the dataset."""
    table = read_columns(paths, ("input", "calibrated_label", "label")).to_pydict()
    rows = list(zip(table["input"], table["calibrated_label"], table["label"], strict=True))
    step = max(1, -(-len(rows) // MEASURED_BY))
    return [(text, calibrated or label or "") for text, calibrated, label in rows[::step]]


def _bound(counts: object, occurs_in: npt.NDArray[np.int64]) -> float:
    """The quantile of the shares of n-grams that each training input shares with no other one."""
    rows = counts.tocsr()  # type: ignore[attr-defined] # scipy's matrices are untyped
    alone = occurs_in == 1
    weights = rows @ alone.astype(np.float32)
    totals = np.maximum(np.asarray(rows.sum(axis=1)).ravel(), 1)
    return float(np.quantile(np.asarray(weights).ravel() / totals, STRANGE)) if len(totals) else 1.0


def _threshold(trained: Trained, held_out: Sequence[tuple[str, str]]) -> float:
    """The least confidence from which on answers agree with the teacher's as often as is wanted."""
    if len(held_out) < FEWEST:
        return UNTOLD
    scores = np.exp(trained.student.log_probabilities([text for text, _ in held_out]))
    labels = trained.student.labels
    right = np.array([labels[int(row.argmax())] == label for row, (_, label) in zip(scores, held_out, strict=True)])
    sure = scores.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    good = np.flatnonzero(np.cumsum(right[order]) >= AGREED * np.arange(1, len(order) + 1))
    return float(sure[order[good[-1]]]) if len(good) else 1.0


# --- Where the input stands in a prompt ------------------------------------------------------------------------------


def _frame(corpus: Corpus, student_id: str) -> re.Pattern[str] | None:
    """What stands before and after the input in the prompts of the run that the student comes from."""
    from corpusgen.store.answers import expander

    rows = corpus.journal.query(
        "select r.item, q.body from students s join records r on r.run_id = s.run_id"
        " join requests q using (request_key) where s.student_id = ? and r.split = 'train' order by r.ordinal limit ?",
        (student_id, FRAMED_BY),
    )
    expand = expander()
    asked = [(orjson.loads(item)["input"], _last_turn(orjson.loads(expand(body)))) for item, body in rows]
    return frame_of([(told, prompt) for told, prompt in asked if prompt])


def _last_turn(request: dict[str, Json]) -> str:
    return next((turn[1] for turn in reversed(request["messages"]) if turn[0] == "user"), "")


def frame_of(asked: Sequence[tuple[str, str]]) -> re.Pattern[str] | None:
    """A pattern that finds the input in a prompt, from inputs and the prompts they stood in; None for bare inputs."""
    parts = (_MARK.sub("data-", prompt).strip().partition(told.strip()) for told, prompt in asked)
    frames = Counter((before, after) for before, told, after in parts if told)
    if not frames:
        return None
    (before, after), times = frames.most_common(1)[0]
    if times < 2 or 2 * times < len(asked) or not (before or after):
        return None  # prompts differ in more than their input
    return re.compile(_marked(before) + r"\s*(.*?)\s*" + _marked(after), re.DOTALL)


def _marked(text: str) -> str:
    return re.escape(text).replace(re.escape("data-"), "(?:data-(?:[0-9a-f]{12})?)")
