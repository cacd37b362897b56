"""Where a run resumes: adapter, optimiser and step, in one file that is complete or absent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from servicekit.files import remove, replacing
from trainer.contract.files import CHECKPOINT_FILE


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps."""

    step: int
    adapter: dict[str, Tensor]
    optimiser: dict[str, Any]
    identity: str
    """Digest of what is trained: a checkpoint of another spec or data is not taken up."""


def save(folder: Path, checkpoint: Checkpoint, name: str = CHECKPOINT_FILE) -> None:
    """Replaces the folder's checkpoint, or another file of the same form."""
    with replacing(folder / name) as temporary:
        torch.save(vars(checkpoint), temporary)


def load(folder: Path, identity: str) -> Checkpoint | None:
    """The folder's checkpoint, if there is one of the same identity. Holds tensors and numbers, no code."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    content = torch.load(path, weights_only=True, map_location="cpu")
    checkpoint = Checkpoint(**content)
    return checkpoint if checkpoint.identity == identity else None


def discard(folder: Path) -> None:
    """Removes the checkpoint of a run that is done."""
    remove(folder / CHECKPOINT_FILE)
