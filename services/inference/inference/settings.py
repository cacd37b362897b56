"""Every setting of the inference service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from servicekit.settings import ServiceSettings

LeftOut = Literal["prompt", "prompt_token_ids", "output", "output_token_ids", "output_log_probabilities"]
"""Fields of an answer event that policy may leave out. Token ids are text in another form: to withhold a text, leave out
its ids too. An answer without them cannot be attributed."""


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
        0, ge=0, le=65535, description="Port of the OpenAI-compatible HTTP API; 0 picks a free one."
    )
    adapter_slots: int = Field(
        8,
        ge=1,
        le=256,
        description="Adapters that can be loaded at once; the least recently used one is unloaded first.",
    )
    max_sequences: int = Field(8, ge=1, le=512, description="Answers computed at once.")
    max_queue: int = Field(
        256,
        ge=1,
        description="Requests that may wait. A further one is refused with RESOURCE_EXHAUSTED and a time to retry after.",
    )
    max_prefill_tokens: int = Field(
        2048,
        ge=1,
        description="Prompt tokens, padding included, processed between two steps of running answers; a longer"
        " prompt is processed alone.",
    )
    max_context_tokens: int = Field(
        0, ge=0, description="Longest prompt plus answer; 0 is the context of the base model."
    )
    max_answer_s: float = Field(120.0, gt=0, description="Deadline of an HTTP answer, waiting included.")
    leave_out: frozenset[LeftOut] = Field(
        frozenset(),
        description='Fields that answer events do not carry, as JSON: ["prompt", "prompt_token_ids"]. Each event'
        " names them in `left_out`.",
    )
    consumer_group: str = Field(
        "inference",
        min_length=1,
        max_length=200,
        description="Consumer group that follows promotions. Every process with its own database needs its own group:"
        " each must receive every version.",
    )
    wal_dir: Path | None = Field(
        None, description="Write-ahead log of answer events; default <state_dir>/inference/wal."
    )

    @property
    def wal_folder(self) -> Path:
        """Returns the folder where answers are recorded before their clients receive the end."""
        return self.wal_dir or self.state_dir / self.service / "wal"

    @property
    def cache_folder(self) -> Path:
        """Returns the folder of unpacked models; it may be emptied while the service is stopped."""
        return self.state_dir / "cache" / "models"
