"""Builds an index: one pass over all records for their gradients, then everything that follows from them.

The pass is the long part. Its rows are written to a memory-mapped file in a work folder named by what is
built, and after each batch the number of finished batches is noted by an atomic rename, so that a process
that dies goes on with the next batch. The order of batches depends on the records alone.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from attribution.clusters import TRAINED
from attribution.gradients import Example, batches_by_length
from attribution.index import AttributionIndex, IndexManifest, IndexParameters
from attribution.preconditioner import BlockPreconditioner
from attribution.projection import FloatArray, Layout
from attribution.source import Source
from attribution.spans import SuffixIndex
from identity.digest import digest_hex, digest_json
from modelkit.prompt import Encoded, encode
from servicekit import crash
from servicekit.files import remove, write_whole
from servicekit.objects import ObjectStore

Gradients = Callable[[Sequence[Example]], FloatArray]
"""Projected gradients [batch, layout.size] of a batch."""

Progress = Callable[[str, int, int, float], None]
"""(stage, done, total, expected seconds left; 0 when not known)"""


class Stopped(Exception):
    """The build was asked to stop; what is done stays in the work folder."""


class StopSignal(Protocol):
    """A threading.Event, as far as it is needed here."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class BuildRequest:
    """What to build, and where the work lies."""

    training_manifest_digest: str
    source: Source
    parameters: IndexParameters
    compute: Mapping[str, object]
    work_dir: Path
    batch_tokens: int = 1024

    @property
    def folder(self) -> Path:
        """Where unfinished work lies: two builds share it only when they would do the same work."""
        key = digest_json(
            {
                "training_manifest": self.training_manifest_digest,
                "compute": dict(self.compute),
                "parameters": self.parameters.to_json(),
                "batch_tokens": self.batch_tokens,
            }
        )
        return self.work_dir / digest_hex(key)


def build(
    request: BuildRequest,
    gradients: Gradients,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    store: ObjectStore,
    report: Progress,
    stop: StopSignal,
) -> str:
    """Builds and stores the index; returns its digest. Raises Stopped, or TemplateError for an unfit
    record."""
    records = request.source.records
    encoded = [
        encode(record.template, tokenizer, record.record, request.source.max_tokens) for record in records
    ]
    request.folder.mkdir(parents=True, exist_ok=True)
    rows = _gradients(request, gradients, layout, [_example(each) for each in encoded], report, stop)
    report("preconditioning", 0, 1, 0.0)
    preconditioner = BlockPreconditioner.fit(rows, layout, request.parameters.damping)
    norms = preconditioner.squared_norms(rows)
    report("suffix array", 0, 1, 0.0)
    suffixes = SuffixIndex.of([record.text for record in records if record.row.split == TRAINED])
    report("storing", 0, 1, 0.0)
    manifest = request.source.manifest
    index = AttributionIndex(
        IndexManifest(
            manifest.base_digest,
            manifest.adapter_digest,
            request.training_manifest_digest,
            request.parameters,
            request.compute,
            layout,
            {},
        ),
        tuple(record.row for record in records),
        rows,
        norms,
        preconditioner,
        suffixes,
        tuple(np.array(each.tokens, dtype=np.int32) for each in encoded),
        request.source.payout_addresses,
    )
    digest = index.save(store)
    del rows, index
    with crash.step("remove work folder"):
        shutil.rmtree(request.folder, ignore_errors=True)
    return digest


def _example(encoded: Encoded) -> Example:
    """A prompt that was cut away entirely, or never was, keeps the completion's first token as its
    context."""
    start = max(1, encoded.completion_start)
    return Example(encoded.tokens[:start], encoded.tokens[start:])


def _gradients(
    request: BuildRequest,
    gradients: Gradients,
    layout: Layout,
    examples: list[Example],
    report: Progress,
    stop: StopSignal,
) -> FloatArray:
    rows = _open_rows(request.folder / "gradients.npy", len(examples), layout)
    batches = batches_by_length([len(example) for example in examples], request.batch_tokens)
    noted = request.folder / "done.json"
    first = int(json.loads(noted.read_bytes())) if noted.exists() else 0
    done = sum(len(batch) for batch in batches[:first])
    started, at_start = time.monotonic(), done
    for number, batch in enumerate(batches[first:], first + 1):
        if stop.is_set():
            raise Stopped
        found = gradients([examples[place] for place in batch])
        with crash.step("rows"):
            rows[batch] = found
            rows.flush()
        # Only now: a note of rows that are not there would leave them zero for ever.
        write_whole(noted, json.dumps(number))
        done += len(batch)
        elapsed_s = time.monotonic() - started
        report("gradients", done, len(examples), elapsed_s / (done - at_start) * (len(examples) - done))
    return rows


def _open_rows(path: Path, count: int, layout: Layout) -> np.memmap[tuple[int, ...], np.dtype[np.float32]]:
    """The work folder's array; made anew, with the note of progress, when it does not fit."""
    shape = (count, layout.size)
    if path.exists():
        existing = np.lib.format.open_memmap(path, mode="r+")
        if existing.shape == shape and existing.dtype == np.float32:
            return existing
    remove(path.with_name("done.json"))
    with crash.step("new rows"):
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
