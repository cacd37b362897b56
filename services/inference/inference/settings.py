"""Every setting of the inference service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from inference.events import LeftOut
from servicekit.settings import ServiceSettings


class InferenceSettings(ServiceSettings):
    """Read from OPENLEDGER_INFERENCE_<FIELD>."""

    service: ClassVar[str] = "inference"

    base_model: str = Field(
        "smollm2-135m-instruct",
        pattern=r"^(smollm2-135m-instruct|tiny|sha256:[0-9a-f]{64})$",
        description="The one base model of this process: a packaged one by name, or the digest of one in the"
        " object store.",
    )
    http_port: int = Field(
        0, ge=0, le=65535, description="Port of the OpenAI-compatible door; 0 picks a free one."
    )
    adapter_slots: int = Field(
        8,
        ge=1,
        le=256,
        description="Adapters that can be resident at once; the least recently used leaves first.",
    )
    max_rows: int = Field(8, ge=1, le=512, description="Answers computed at once.")
    max_queue: int = Field(
        256,
        ge=1,
        description="Questions that may wait; one more gets RESOURCE_EXHAUSTED and a time to return.",
    )
    max_prefill_tokens: int = Field(
        2048,
        ge=1,
        description="Prompt tokens, padding included, read between two steps of running answers; a longer prompt"
        " is read alone.",
    )
    max_context_tokens: int = Field(
        0, ge=0, description="Longest prompt with its answer; 0 is what the base model was built for."
    )
    max_answer_s: float = Field(
        120.0, gt=0, description="Longest time of an answer asked for by HTTP, waiting included."
    )
    leave_out: frozenset[LeftOut] = Field(
        frozenset(),
        description='Fields that answer events do not carry, as JSON: ["prompt", "prompt_token_ids"]. Each event'
        " names them in `left_out`.",
    )
    consumer_group: str = Field(
        "inference",
        min_length=1,
        max_length=200,
        description="Group that follows promotions. Processes with a database of their own need a group of their"
        " own: each must hear of every version.",
    )
    wal_dir: Path | None = Field(
        None, description="Write-ahead log of answer events; default <state_dir>/inference/wal."
    )

    @property
    def wal_folder(self) -> Path:
        """Where answers are recorded before anyone is told that they ended."""
        return self.wal_dir or self.state_dir / self.service / "wal"

    @property
    def cache_folder(self) -> Path:
        """Unpacked models; may be emptied while the service does not run."""
        return self.state_dir / "cache" / "models"
