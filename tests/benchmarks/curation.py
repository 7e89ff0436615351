"""What curation finds, and how quickly: ``python tests/benchmarks/curation.py [--json] [--full] [--only GROUP,…]``.

Near-duplicates are counted on labelled texts (``tests/near_corpus.py``) of seeds that nothing was tuned on; failures in
each style were looked at, and general flaws mended. The speed is a ratio to datasketch's LSH with the same check on the
same texts, in turns in one run (needs the extra ``bench``). ``--full`` also takes a million documents to the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import active_asking, choosing, leaks, personal_data
from near_corpus import PLANTED, Labelled, exercises, instructions, many_documents, prose, requests

from corpusgen.curation.buckets import BANDS, ROWS
from corpusgen.curation.finding import Finding
from corpusgen.curation.minhash import PERMUTATIONS
from corpusgen.curation.near import DIGEST_BYTES, NearIndex
from corpusgen.curation.shingles import words

Figures = dict[str, float | None]
SEEDS: Final = (7001, 7002)
"""Not tuned on."""


# Near-duplicates: what is found.


def ours(texts: Sequence[str]) -> list[Finding | None]:
    return NearIndex(text_of=texts.__getitem__).add_many(texts, range(len(texts)))


def removal_f1(items: Sequence[Labelled], found: Sequence[Finding | None]) -> float:
    """F1 of dropping what was planted, and only that."""
    right = sum(one is not None and item.plant in PLANTED for item, one in zip(items, found, strict=True))
    return 2 * right / (sum(item.plant in PLANTED for item in items) + sum(one is not None for one in found))


def pair_f1(items: Sequence[Labelled], found: Sequence[Finding | None]) -> float:
    """F1 of naming, for each copy, a text of its own original."""
    root = [n if item.of is None else item.of for n, item in enumerate(items)]
    pairs = [(root[n], root[int(one.other or 0)]) for n, one in enumerate(found) if one is not None]
    right = sum(here == there for here, there in pairs)
    return 2 * right / (sum(item.plant in PLANTED for item in items) + len(pairs))


def lost(items: Sequence[Labelled], found: Sequence[Finding | None], plants: Sequence[str]) -> float:
    """Share of the hard negatives of these sorts that were dropped."""
    these = [one is not None for item, one in zip(items, found, strict=True) if item.plant in plants]
    return sum(these) / len(these)


def quality(made: Callable[[int, int], list[Labelled]], count: int, name: str) -> Figures:
    """The worst over the seeds of each figure of one generator."""
    runs = [(items, ours([item.text for item in items])) for items in (made(seed, count) for seed in SEEDS)]
    return {
        f"removal_f1{name}": min(removal_f1(*run) for run in runs),
        f"pair_f1{name}": min(pair_f1(*run) for run in runs),
        f"hard_negatives_lost{name}": max(lost(*run, ("template",)) for run in runs),
        f"number_name_lost{name}": max(lost(*run, ("number", "name")) for run in runs),
    }


def near_quality(full: bool) -> Figures:
    found = quality(prose, 10_000, "")
    for style in (instructions, requests, exercises):
        found |= quality(style, 10_000, f"_{style.__name__}")
    return found


# Near-duplicates: how quickly.


def datasketch_lsh(texts: Sequence[str]) -> list[Finding | None]:
    """The same by datasketch: its digests and its LSH with our bands, each candidate checked as ours are."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
    index = NearIndex(text_of=texts.__getitem__)
    found: list[Finding | None] = []
    for n, text in enumerate(texts):
        own = words(text)
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch({" ".join(own[at : at + 3]).encode() for at in range(max(1, len(own) - 2))})
        one = index.compared(text, sorted(lsh.query(sketch)))
        if one is None:
            lsh.insert(n, sketch)
        found.append(one)
    return found


def near_speed(full: bool) -> Figures:
    """In turns, each on the same portions of the same texts."""
    texts = [item.text for item in prose(SEEDS[0], 4_000)]
    portions = [texts[begin : begin + 1_000] for begin in range(0, len(texts), 1_000)]
    here, there = [], []
    for portion in portions:
        here.append(_seconds(partial(ours, portion)))
        there.append(_seconds(partial(datasketch_lsh, portion)))
    return {
        "near_documents_per_s": len(texts) / sum(here),
        "speed_ratio_datasketch": statistics.median(b / a for a, b in zip(here, there, strict=True)),
    }


def _seconds(what: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    what()
    return time.process_time() - began


# Near-duplicates: how much memory, and how an index of 100 000 behaves.


def near_size(full: bool) -> Figures:
    """Of an index of 100 000 kept documents whose texts and digests lie on the disk."""
    count = 100_000
    with many_documents(SEEDS[0], 120_000) as text_of, tempfile.TemporaryFile() as stored:
        texts = iter(range(120_000))
        before = _resident()
        index = NearIndex(text_of=text_of, keep=partial(_store, stored))
        while len(index) < count:
            some = list(islice(texts, 250))
            index.add_many([text_of(n) for n in some], some)
        used, kept = _resident() - before, len(index)
        singles = [_milliseconds(partial(index.add, text_of(n), n)) for n in islice(texts, 2_000)]
        wall, cpu = zip(*singles, strict=True)
        opened = _milliseconds(partial(reopened, text_of, stored))
        return {
            "bytes_per_doc": used / kept,
            "insert_p50_ms": statistics.median(wall),
            "insert_p99_ms": statistics.quantiles(wall, n=100)[-1],
            "insert_p50_cpu_ms": statistics.median(cpu),
            "insert_p99_cpu_ms": statistics.quantiles(cpu, n=100)[-1],
            "reopen_100k_s": opened[0] / 1000,
            "reopen_100k_cpu_s": opened[1] / 1000,
        }


def _store(stored: IO[bytes], n: int, digest: bytes) -> None:
    stored.write(n.to_bytes(8, "big") + digest)


def reopened(text_of: Callable[[int], str], stored: IO[bytes]) -> NearIndex:
    """The index of what is stored, ready to be asked."""
    index = NearIndex(text_of=text_of)
    stored.seek(0)
    while row := stored.read(8 + DIGEST_BYTES):
        index.add_digested(row[8:], int.from_bytes(row[:8], "big"))
    index.candidates(text_of(0))
    return index


def _milliseconds(what: Callable[[], object]) -> tuple[float, float]:
    """On the clock and of this process: on a busy machine they differ."""
    began, cpu = time.perf_counter(), time.process_time()
    what()
    return (time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000


def near_million(full: bool) -> Figures:
    """A million documents, one after the other, and the most memory the process ever held."""
    if not full:
        return {}
    count = 1_000_000
    began = time.perf_counter()
    with many_documents(SEEDS[1], count) as text_of:
        index = NearIndex(text_of=text_of)
        for n in range(0, count, 500):
            index.add_many([text_of(at) for at in range(n, n + 500)], range(n, n + 500))
        kept = len(index)
    return {
        "million_kept": kept,
        "million_minutes": (time.perf_counter() - began) / 60,
        "million_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def _resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as lines:
        return int(lines.read().split()[1]) * resource.getpagesize()


# Choosing.


def diverse(full: bool) -> Figures:
    """How varied what is chosen is, and how long choosing takes."""
    return {**choosing.measure(5 if full else 3)}


# Personal data and secrets.


def pii(full: bool) -> Figures:
    """What is found of committed examples, what is suspected in prose, and how quickly."""
    return {**personal_data.measure()}


# Leaks of eval sets, and texts that command or that somebody may not want.


def decontaminate(full: bool) -> Figures:
    """What is found of eval items in texts, and what of texts that command a model or may not be wanted."""
    return {**leaks.measure()}


# Asking in rounds.


def active(full: bool) -> Figures:
    """How many labels asking in rounds takes for what 3 000 random ones teach, with the embedded teacher's labels."""
    return {**active_asking.active_figures()}


GROUPS: Final[dict[str, Callable[[bool], Figures]]] = {
    "near_size": near_size,
    "near_quality": near_quality,
    "near_speed": near_speed,
    "near_million": near_million,
    "diverse": diverse,
    "pii": pii,
    "decontaminate": decontaminate,
    "active": active,
}
"""Each measures some figures; its argument says whether to take long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default=",".join(GROUPS))
    chosen = parser.parse_args()
    found: dict[str, Any] = {}
    for name in chosen.only.split(","):
        found |= {key: value if value is None else round(value, 4) for key, value in GROUPS[name](chosen.full).items()}
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<38} {value!s:>12}")


if __name__ == "__main__":
    main()
