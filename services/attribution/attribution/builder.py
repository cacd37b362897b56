"""Builds an index: one pass over all records for their gradients, then everything that is computed from them.

The pass takes most of the time. Its rows go to a memory-mapped file in a work folder that is named by the input, and
after each batch an atomic rename stores the number of finished batches, so that a restarted process continues with the
next batch. The order of batches depends on the records alone.
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
from servicekit import crash, private
from servicekit.files import remove, write_whole
from servicekit.objects import ObjectStore

Gradients = Callable[[Sequence[Example]], FloatArray]
"""Projected gradients [batch, layout.size] of a batch."""

Progress = Callable[[str, int, int, float], None]
"""(stage, done, total, estimated seconds left; 0 if unknown)"""


class Stopped(Exception):
    """The build was stopped; finished work stays in the work folder."""


class StopSignal(Protocol):
    """The part of threading.Event that a build needs."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build, and the folder of unfinished work."""

    training_manifest_digest: str
    source: Source
    parameters: IndexParameters
    compute: Mapping[str, object]
    work_dir: Path
    batch_tokens: int = 1024

    @property
    def folder(self) -> Path:
        """Returns the folder of unfinished work. Two builds share it only if they would do the same work."""
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
    *,
    gradients: Gradients,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    store: ObjectStore,
    report: Progress,
    stop: StopSignal,
) -> str:
    """Builds and stores the index; returns its digest.

    Raises Stopped, or TemplateError for a record that does not fit its template.
    """
    records = request.source.records
    encoded = [
        encode(record.template, tokenizer, record.record, request.source.max_tokens) for record in records
    ]
    private.folder(request.folder)
    rows = _gradients(
        request,
        [_example(each) for each in encoded],
        gradients=gradients,
        layout=layout,
        report=report,
        stop=stop,
    )
    report("preconditioning", 0, 1, 0.0)
    preconditioner = BlockPreconditioner.fit(rows, layout, request.parameters.damping)
    norms = preconditioner.squared_norms(rows)
    report("suffix array", 0, 1, 0.0)
    suffixes = SuffixIndex.of([record.text for record in records if record.row.split == TRAINED])
    report("storing", 0, 1, 0.0)
    manifest = request.source.manifest
    index = AttributionIndex(
        manifest=IndexManifest(
            base_digest=manifest.base_digest,
            adapter_digest=manifest.adapter_digest,
            training_manifest_digest=request.training_manifest_digest,
            parameters=request.parameters,
            compute=request.compute,
            layout=layout,
            files={},
        ),
        rows=tuple(record.row for record in records),
        gradients=rows,
        squared_norms=norms,
        preconditioner=preconditioner,
        suffixes=suffixes,
        tokens=tuple(np.array(each.tokens, dtype=np.int32) for each in encoded),
        payout_addresses=request.source.payout_addresses,
    )
    digest = index.save(store)
    del rows, index
    with crash.step("remove work folder"):
        shutil.rmtree(request.folder, ignore_errors=True)
    return digest


def _example(encoded: Encoded) -> Example:
    """Returns the example of a record. Without a prompt, the completion's first token becomes the context."""
    start = max(1, encoded.completion_start)
    return Example(encoded.tokens[:start], encoded.tokens[start:])


def _gradients(
    request: BuildRequest,
    examples: list[Example],
    *,
    gradients: Gradients,
    layout: Layout,
    report: Progress,
    stop: StopSignal,
) -> FloatArray:
    rows = _open_rows(request.folder / "gradients.npy", len(examples), layout)
    batches = batches_by_length([len(example) for example in examples], request.batch_tokens)
    progress_file = request.folder / "done.json"
    first = int(json.loads(progress_file.read_bytes())) if progress_file.exists() else 0
    done = sum(len(batch) for batch in batches[:first])
    started, at_start = time.monotonic(), done
    for number, batch in enumerate(batches[first:], first + 1):
        if stop.is_set():
            raise Stopped
        found = gradients([examples[index] for index in batch])
        with crash.step("rows"):
            rows[batch] = found
            rows.flush()
        # Only now: counting rows that are not on disk would leave them zero for good.
        write_whole(progress_file, json.dumps(number))
        done += len(batch)
        elapsed_s = time.monotonic() - started
        report("gradients", done, len(examples), elapsed_s / (done - at_start) * (len(examples) - done))
    return rows


def _open_rows(path: Path, count: int, layout: Layout) -> np.memmap[tuple[int, ...], np.dtype[np.float32]]:
    """Returns the work folder's array. If its shape does not match, creates it again and resets the progress."""
    shape = (count, layout.size)
    if path.exists():
        existing = np.lib.format.open_memmap(path, mode="r+")
        if existing.shape == shape and existing.dtype == np.float32:
            return existing
    remove(path.with_name("done.json"))
    with crash.step("new rows"):
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
