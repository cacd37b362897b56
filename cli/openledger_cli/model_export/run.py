"""One export: from the version's records to the folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from openledger.datanet.v1 import datanet_pb2
from openledger.trainer.v1 import trainer_pb2 as pb

from identity.names import DatanetName, SnapshotName
from openledger_cli.model_export import card, merge
from openledger_cli.model_export.files import ADAPTER, BASE, ModelFiles
from openledger_cli.model_export.folder import appearing
from openledger_cli.progress import Progress
from openledger_client import Client
from openledger_client.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)

CARD, TRAINING_MANIFEST = "README.md", "training_manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Form(StrEnum):
    """What a folder holds."""

    PEFT = "peft"
    MERGED = "merged"


def export(
    client: Client,
    version: pb.ModelVersion,
    to: Path,
    *,
    form: Form,
    with_base: bool,
    float32: bool,
    progress: Progress,
) -> list[Path]:
    """Writes a version into a new folder, which appears whole or not at all, and returns its files.

    Args:
        with_base: writes the base into `base` of a PEFT folder.
        float32: stores merged weights as float32 instead of the base's number type.

    Raises:
        InvalidArgument: the folder exists and is not empty.
        FailedPrecondition: the merged model differs from base and adapter by more than the tolerance, or the file system refuses.
        ResourceExhausted: the disk is full.
        ConfigurationError: packages are missing that merging needs.
        DataLoss: bytes that arrived are not those that the version names.
        OpenLedgerError: whatever a service answers.
    """
    if form is Form.MERGED:
        merge.check_installed()
    try:
        with appearing(to) as folder:
            _write(client, version, folder, form, with_base=with_base, float32=float32, progress=progress)
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted(
                f"the disk of {to} is full; nothing was written", reason="DISK_FULL"
            ) from None
        raise FailedPrecondition(
            f"{to}: {error.strerror or error}", reason="FOLDER_NOT_WRITABLE", subject=str(to)
        ) from error
    return sorted(path for path in to.rglob("*") if path.is_file())


def _write(
    client: Client,
    version: pb.ModelVersion,
    folder: Path,
    form: Form,
    *,
    with_base: bool,
    float32: bool,
    progress: Progress,
) -> None:
    files = ModelFiles(
        client, version, lambda name, done, size: progress.at(done, size, unit="bytes", stage=name)
    )
    base, adapter, parity = files.base(), files.adapter(), None
    if form is Form.MERGED:
        parts = folder / "parts"
        for part, manifest, name in ((BASE, base, "base"), (ADAPTER, adapter, "adapter")):
            (parts / name).mkdir(parents=True)
            files.save(part, manifest, parts / name)
        parity = _merge(parts / "base", parts / "adapter", folder, float32, progress)
        shutil.rmtree(parts)
    else:
        files.save(ADAPTER, adapter, folder)
        if with_base:
            (folder / "base").mkdir()
            files.save(BASE, base, folder / "base")
    facts = card.Facts(
        version=version,
        base=base,
        adapter=adapter,
        training_manifest=files.training_manifest(),
        report=_report(client, version),
        data_licences=_data_licences(client, version),
        parity=parity,
        with_base=with_base,
    )
    (folder / TRAINING_MANIFEST).write_bytes(facts.training_manifest)
    (folder / CARD).write_text(card.text(facts), encoding="utf-8")


def _merge(base: Path, adapter: Path, folder: Path, float32: bool, progress: Progress) -> merge.Parity:
    """Merges into `folder`, together with the base's other files, and returns the parity, which is within its tolerance."""
    progress.at(0, 0, stage="merging")
    number_type = merge.merge(base, adapter, folder, float32=float32)
    for path in base.iterdir():
        if path.name not in (merge.WEIGHTS, merge.CONFIG):
            os.link(path, folder / path.name)  # the reference still needs its tokenizer
    total = 2 * len(merge.PROMPTS)
    parity = merge.measure(
        base,
        adapter,
        folder,
        number_type,
        lambda done: progress.at(done, total, unit="prompts", stage="comparing with base and adapter"),
    )
    merge.check(parity)
    return parity


def _report(client: Client, version: pb.ModelVersion) -> pb.EvaluationReport | None:
    """Returns the report that stands for a version; None where there is none."""
    if not version.report_digest:
        return None
    return client.trainer.GetEvaluationReport(pb.GetEvaluationReportRequest(digest=version.report_digest))


def _data_licences(client: Client, version: pb.ModelVersion) -> Mapping[str, str]:
    """Returns the licence of each Datanet that the version was trained on; "" where it is gone, or the caller may not read it."""
    found = {}
    for each in version.snapshots:
        name = str(DatanetName(SnapshotName.parse(each.snapshot).datanet))
        try:
            found[name] = client.datanet.GetDatanet(datanet_pb2.GetDatanetRequest(name=name)).licence
        except (NotFound, PermissionDenied):
            found[name] = ""
    return found
