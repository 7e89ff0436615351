"""Parting: rows under unlike licences in files of their own, so that nobody has to take the strictest for all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from corpusgen.provenance.policy import Bucket, Decision
from corpusgen.records import Record
from corpusgen.stages.selecting import Selection, calibration_metadata, data_file
from corpusgen.store.shards import ShardFile, read_columns, read_records, write_shard

BUCKETS: Final[tuple[Bucket, ...]] = ("permissive", "share_alike", "restricted")
"""From what asks for least to what asks for most; a card's configurations in this order."""

Key = tuple[str, str]


def buckets_of(wrote: Sequence[Decision], judged: Sequence[Decision]) -> dict[Key, Bucket]:
    """The bucket of each teacher's rows under each set of terms, no looser than that of whoever judged them."""
    found: dict[Key, Bucket] = {}
    for one in wrote:
        key = one.teacher.name, one.terms_set_id
        found[key] = _strictest(found.get(key, "permissive"), one.bucket, *(judge.bucket for judge in judged))
    return found


def _strictest(*buckets: Bucket) -> Bucket:
    return max(buckets, key=BUCKETS.index)


def parted(selection: Selection, buckets: Mapping[Key, Bucket]) -> Selection:
    """The version with the rows of each bucket in files of their own, in a folder beside; itself where there is one."""
    table = read_columns(selection.paths, ("teacher", "terms_set_id")).group_by(["teacher", "terms_set_id"])
    found = {buckets[row["teacher"], row["terms_set_id"]] for row in table.aggregate([]).to_pylist()}
    if len(found) < 2:
        return selection
    folder = selection.folder.with_name(f"{selection.folder.name}-parted")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    return replace(selection, folder=folder, files=dict(_parts(selection, buckets, folder)))


def _parts(selection: Selection, buckets: Mapping[Key, Bucket], folder: Path) -> Iterator[tuple[str, ShardFile]]:
    metadata = calibration_metadata(selection.calibration)
    for (split, whole), path in zip(selection.files.items(), selection.paths, strict=True):
        if not whole.rows:
            yield split, write_shard(folder, data_file(split), (), metadata=metadata)
            continue
        for bucket in BUCKETS:
            part = f"{split}-{bucket}"
            file = write_shard(folder, data_file(part), _only(path, buckets, bucket), metadata=metadata)
            if file.rows:
                yield part, file
            else:
                (folder / file.name).unlink()


def _only(path: Path, buckets: Mapping[Key, Bucket], bucket: Bucket) -> Iterator[Record]:
    return (one for one in read_records([path]) if buckets[one.teacher, one.terms_set_id] == bucket)


def bucket_of(part: str) -> Bucket | None:
    """The bucket that a part of a version holds; None where it is a whole split."""
    return next((bucket for bucket in BUCKETS if part.endswith(f"-{bucket}")), None)


@contextmanager
def gone_if_refused(laid_out: Selection, selection: Selection) -> Iterator[None]:
    """If what is done inside fails, the rows lie as they were selected, and no second time."""
    try:
        yield
    except BaseException:
        if laid_out is not selection:
            shutil.rmtree(laid_out.folder, ignore_errors=True)
        raise


def by_bucket(selection: Selection) -> list[list[Path]]:
    """The files that a reader takes together: those of each bucket, or all."""
    found: dict[Bucket | None, list[Path]] = {}
    for part, path in zip(selection.files, selection.paths, strict=True):
        found.setdefault(bucket_of(part), []).append(path)
    return list(found.values())


def take_back(published: Path, hidden: Path) -> None:
    """Hide a folder again that was published and never noted; where its rows were parted, they lie there still."""
    if hidden.exists():
        shutil.rmtree(published)
    else:
        os.rename(published, hidden)
